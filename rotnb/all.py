"Everything a notebook needs: `from rotnb.all import *`"
from fastai.vision.all import *
from .geometry.boxes import *
from .geometry.polygons import *
from .geometry.gaussians import *
from .geometry.draw import *
from .geometry.fit import from_polygons, from_masks, headed
from .ops.iou import *
from .ops.nms import *
from .ops.diff_iou import *
from .ops.exact import *
from .ops.stress import *
from .targets.priors import *
from .targets.assign import *
from .targets.angle_coders import *
from .targets.coders import *
from .targets.roi_coders import *
from .targets.sample import *
from .losses.focal import *
from .losses.boxes import *
from .losses.gaussian import *
from .losses.points import *
from .models.contract import *
from .models.backbones import *
from .models.necks import *
from .models.dense_head import *
from .models.retinanet import *
from .models.fcos import *
from .evaluate.ap import *
from .data.types import *
from .data.transforms import *
from .data.blocks import *
from .data.dota import *
from .data.yolo_obb import *
from .data.synth import make_scene, make_synth, SynthFolderError
from .data.loaders import *
from .data.files import read_files, read_whole, read_scenes, write_icdar
from .data.xml import XML, XmlForm, write_xml, write_cvat
from .data.json import read_coco, write_coco, write_labelme, write_label_studio
from .data.convert import *
from .learn.callbacks import *
from .learn.metrics import *
from .learn.learner import *
from .learn.infer import *
from .interop.ecosystem import *
