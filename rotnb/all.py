"Everything a notebook needs: `from rotnb.all import *`"
from fastai.vision.all import *
from .geometry.boxes import *
from .geometry.polygons import *
from .geometry.gaussians import *
from .plot.draw import *
from .plot.style import *
from .plot.matches import show_matches
from .geometry.fit import from_polygons, from_masks, with_heading
from .ops.iou import *
from .ops.nms import *
from .ops.roi_align import *
from .ops.align import *
from .ops.convex import *
from .ops.diff_iou import *
from .measure.exact import *
from .measure.stress import *
from .ops.fusion import *
from .ops.torch_ops import *
from .targets.priors import *
from .targets.assign import *
from .targets.angle_coders import *
from .targets.coders import *
from .targets.roi_coders import *
from .targets.sample import *
from .targets.dynamic_assign import *
from .losses.focal import *
from .losses.boxes import *
from .losses.gaussian import *
from .losses.points import *
from .models.contract import *
from .models.files import *
from .models.backbones import *
from .models.necks import *
from .models.dense_head import *
from .models.rpn import *
from .models.roi_head import *
from .models.retinanet import *
from .models.fcos import *
from .models.atss import *
from .models.oriented_rcnn import *
from .models.roi_trans import *
from .models.s2anet import *
from .models.r3det import *
from .models.reppoints import *
from .models.pafpn import *
from .models.rtmdet import *
from .models.rotated_faster_rcnn import *
from .models.gliding_vertex import *
from .evaluate.task1 import *
from .evaluate.classes import *
from .evaluate.protocols import Protocol, PROTOCOLS, METRICS, DIFFICULTIES, COCO_IOUS, difficulty_thr, get_rules
from .evaluate.matching import *
from .evaluate.curves import *
from .evaluate.ap import *
from .evaluate.errors import *
from .data.labels.arguments import UnknownArgumentError
from .data.labels.atomic import BusyError, file_lock, new_folder, atomic_path, write_atomic
from .data.types import *
from .data.border import *
from .data.affine import RandomFlip, RandomRotate, RandomResize, RandomBoxCrop, AffineChain, Letterbox
from .data.colour import RandomHSV, PixelTfm
from .data.mixing import Mosaic, MixUpBoxes, CopyPaste
from .data.images.orient import ImageSizeError, label_map, move_points, orientation_of, turn_pixels
from .data.images.rasters import CorruptImageError, MOST_PIXELS, RASTER_EXTS, image_size, read_rgb
from .data.blocks import *
from .data.images.windows import *
from .data.crops import crops
from .data.images.places import NoPlaceError, Place, PlaceWarning, place_of, reproject
from .data.samplers import *
from .data.cache import *
from .data.labels.records import *
from .data.labels.layout import *
from .data.labels.lines import line_kind
from .data.labels.inside import keep_inside, annots_inside
from .data.formats.format import LabelFormat, FilePerImage, FileForAll, LabelProbe, register_format
from .data.formats.edit import ImageRef, LabelEditor, LineEditor, LineFormat
from .data.formats.dota import *
from .data.formats.yolo import *
from .data.synth.scenes import make_scene, make_synth, SynthFolderError
from .data.labels.tiles import *
from .data.loaders import *
from .data.labels.search import read_files, read_whole, read_scenes
from .data.formats.csv_table import *
from .data.formats.turned import PIVOTS, turned_quad, with_angle
from .data.formats.xml_text import XmlEditor
from .data.formats.voc import ObjectXml
from .data.formats.cvat import read_cvat, write_cvat
from .data.labels.ids import assign_image_ids
from .data.formats.json_text import JsonEditor
from .data.formats.coco import read_coco, write_coco
from .data.formats.labelme import write_labelme
from .data.formats.label_studio import write_label_studio
from .data.formats.yolo_preds import read_yolo_preds
from .data.formats.geojson import read_geojson
from .data.formats.table import *
from .data.labels.subsets import *
from .data.doctor.report import DoctorReport, doctor
from .data.doctor.fix import fix
from .learn.callbacks import *
from .learn.keep import *
from .learn.fit_checks import *
from .learn.phases import *
from .learn.metrics import *
from .learn.learner import *
from .learn.interpret import *
from .learn.views import *
from .learn.results import write_predictions, geojson, coco_results, results_df
from .learn.infer import *
from .learn.scene import *
from .learn.scene_map import *
from .interop.mmparts import read_config
from .interop.mmconfig import settings_from_config
from .learn.report import plot_history, report_html
from .interop.mmrotate import *
from .interop.imagenet import *
from .interop.ecosystem import *
from .explore.viewer import BoxViewer, Layer, html_page, view
from .explore.label_queue import suspicious
from .explore.label_fixer import LabelFixer
from .explore.dataset_explorer import DatasetExplorer
from .explore.result_explorer import ResultsExplorer
