"Everything a notebook needs: `from rotnb.all import *`"
# A name stands here if somebody types it in a notebook: what lessons, README and workflows use, errors to catch, parts to put together.
# All else is imported from its module. One line a module, in the order of the rooms; `tests/test_all.py` says what may not be here.
from fastai.vision.all import *

# check: arguments
from .check.arguments import UnknownArgumentError
from .check.values import ArgumentError

# geometry: boxes, polygons, Gaussians
from .geometry.boxes import canonicalize, hbox2rbox, qbox2rbox, rbox2hbox, rbox2qbox, hbox2qbox, qbox2hbox
from .geometry.polygons import convex_hull, min_area_rect, polygon_area
from .geometry.fit import from_masks, from_polygons, with_heading
from .geometry.outlines import mask_rings, mask_rle, paste_mask, rle_mask

# plot: boxes on images
from .plot.draw import draw, show_boxes
from .plot.matches import show_matches

# ops: overlaps, suppression, features at boxes
from .ops.iou import box_iou_rotated
from .ops.nms import batched_nms_rotated, nms_quad, nms_rotated
from .ops.fusion import soft_nms_rotated, weighted_boxes_fusion
from .ops.roi_align import roi_align_rotated
from .ops.align import rotated_feature_align
from .ops.convex import box_iou_quad, convex_iou, points_in_polygons
from .ops.diff_iou import diff_iou_rotated
from .ops.torch_ops import box_iou_torch, nms_torch

# targets: priors, assigners, coders, samplers
from .targets.priors import AnchorPriors, PointPriors, ShapePriors
from .targets.assign import atss_assign, fcos_assign, max_iou_assign, nearest_assign, shape_assign
from .targets.angle_coders import CSLAngle, DCLAngle, PlainAngle, PSCAngle, DFLAngle
from .targets.coders import DeltaXYWHACoder, DistanceAngleCoder
from .targets.roi_coders import DeltaXYWHCoder, GlidingVertexCoder, MidpointOffsetCoder
from .targets.sample import random_sample
from .targets.objects import TargetError
from .targets.dynamic_assign import dsl_assign, simota_assign, aligned, tal_assign
from .targets.point_coders import PointXYWHACoder, SigmoidXYWHACoder
from .targets.fit_anchors import fit_anchors, shape_recall, show_shapes

# losses
from .losses.focal import focal_loss, quality_focal_loss, varifocal_loss
from .losses.boxes import BoxLoss, balanced_l1_loss, box_loss, box_losses, dfl_loss, l1_loss, loss_landscape
from .losses.boxes import rotated_iou_loss, smooth_l1_loss, upright_iou_loss
from .losses.gaussian import gaussian_loss, kfiou_loss, kld_loss, probiou_loss
from .losses.points import convex_giou_loss, bc_convex_giou_loss, kld_points_loss

# models: the contract, the parts, and a line for each family
from .models.contract import Detector, create_detector, list_detectors, register_detector
from .models.files import WeightsError
from .models.backbones import BackboneError, MissingWeightsError, TimmBackbone
from .models.necks import FPN
from .models.dense_head import DenseHead, dense_detector
from .models.rpn import RPNHead
from .models.roi_head import RoIHead, two_stage_detector
from .models.masks import RoIMasks
from .models.dynamic_masks import DynamicMasks
from .models.retinanet import rotated_retinanet, rotated_retinanet_tiny
from .models.fcos import octave_ranges, rotated_fcos, rotated_fcos_tiny
from .models.atss import rotated_atss
from .models.oriented_rcnn import oriented_rcnn
from .models.rotated_faster_rcnn import rotated_faster_rcnn
from .models.roi_trans import roi_trans
from .models.gliding_vertex import gliding_vertex
from .models.s2anet import s2anet
from .models.r3det import r3det
from .models.reppoints import rotated_reppoints
from .models.cfa import cfa
from .models.sasm import sasm
from .models.oriented_reppoints import oriented_reppoints
from .models.g_rep import g_rep
from .models.rtmdet import rtmdet_r_l, rtmdet_r_m, rtmdet_r_s, rtmdet_r_tiny
from .models.yolo import yolo_detector
from .models.h2rbox import h2rbox
from .models.h2rbox_v2 import h2rbox_v2
from .models.weights import detector_from_weights, save_weights
from .models.assignment import assignments

# evaluate: average precision, curves, errors
from .evaluate.protocols import Protocol
from .evaluate.classes import ClassMismatchError
from .evaluate.task1 import merge_windows, read_task1, write_task1
from .evaluate.ap import APResult
from .evaluate.resampling import compare_runs
from .evaluate.evaluation import Evaluation
from .evaluate.accumulator import APAccumulator, eval_map
from .evaluate.curves import best_thresholds, calibration, pr_curves
from .evaluate.errors import confusion_matrix
from .evaluate.recall import coco_summary, proposal_recall
from .evaluate.tracks import TrackTableError, eval_tracks
from .evaluate.masks import mask_iou
from .evaluate.calibration import Calibrator, calibrate
from .evaluate.conformal import conformal, threshold_for

# measure: overlaps beside exact values
from .measure.exact import exact_iou

# data: images
from .data.images.orient import ImageSizeError
from .data.images.rasters import CorruptImageError, read_rgb
from .data.images.windows import open_scene
from .data.images.places import NoPlaceError, PlaceWarning, place_of, reproject
from .data.images.scale import add_metres, gsd_of

# data: records of labels, and what is done to a list of them
from .data.labels.atomic import BusyError
from .data.labels.download import DownloadError
from .data.labels.records import Annot, DatasetLayoutError, Difficult, LabelError, LabelWarning, rbox_row
from .data.labels.layout import LostSplitError
from .data.labels.subsets import label_folds, subset_annots

# data: label formats
from .data.formats.dota import DOTA_CLASSES, read_dota, write_dota
from .data.formats.yolo import read_yolo_obb, write_yolo_obb
from .data.formats.yolo_preds import read_yolo_preds
from .data.formats.coco import read_coco, write_coco
from .data.formats.csv_table import annots2df, df2annots
from .data.formats.format import FileForAll, FilePerImage, LabelFormat, LabelProbe, register_format
from .data.formats.edit import LineFormat
from .data.formats.table import FormatError, format_table, get_format, read_format, sniff_format
from .data.formats.known_sets import known_set

# data: synthetic scenes, and the doctor
from .data.synth.practice import work_in
from .data.synth.scenes import make_scene, make_synth
from .data.synth.moving import make_video, moving_scene
from .data.doctor.boxes import guess_symmetry
from .data.doctor.report import DoctorReport, doctor

# interop: weights and boxes of other libraries
from .interop.mmconfig import settings_from_config
from .interop.mmpipeline import pipeline_from_config
from .interop.mmrotate import detector_from_mmrotate, load_mmrotate
from .interop.imagenet import load_backbone
from .interop.runtime import ExportedDetector
from .interop.ecosystem import from_supervision, from_tv_tensors, to_fiftyone, to_supervision, to_tv_tensors
from .interop.export_module import ExportError, ExportModule
from .interop.export import export_onnx, export_openvino, export_pt2
from .interop.quantize import quantize

# predict: what was found, as a result and as files
from .predict.results import geojson, results_df, write_predictions
from .predict.paper import paper_figure
from .predict.detections import Detections
from .predict.sources import fetch_image
from .predict.infer import predict_image, predict_images
from .predict.scene import predict_folder, predict_scene
from .predict.measure import robustness
from .predict.tta import ImageView, with_views
from .predict.predictor import Predictor
from .predict.on_ray import RayPredictor, WorkerError
from .predict.catalogue import list_weights
from .predict.load import load_weights
from .predict.kept import read_results
from .predict.track import TrackError, Tracker
from .predict.video import Tracks, VideoError, track
from .predict.bounds import draw_bounds

# data: what fastai trains on
from .data.types import TensorBoxLabel, TensorDets, TensorQuad, to_targets
from .data.border import BorderRule, UprightBoxes, rotated_aug_transforms
from .data.affine import AffineChain, Letterbox, RandomBoxCrop, RandomFlip, RandomResize, RandomRotate, RandomWarp
from .data.colour import RandomHSV
from .data.mixing import CopyPaste, CutOut, MixUpBoxes, Mosaic
from .data.blocks import BadBoxWarning, OutlineBlock, RBoxBlock, RBoxLblBlock, open_image
from .data.crops import crops
from .data.samplers import AspectSampler, WeightedSampler
from .data.cache import DiskCache, MemoryCache
from .data.loaders import RotatedDataLoaders
from .data.summary import DataSummary
from .data.yolo import yolo_tfms
from .data.outlines import read_masks, refit_gain
from .serve.torchserve import ask_torchserve, torchserve_archive
from .serve.triton import triton_folder
from .serve.label_studio import add_label_studio
from .serve.docker import docker_folder
from .serve.app import make_app, serve
from .serve.client import Served, ServedError

# learn: training, results, prediction
from .learn.callbacks import Checkpoint, CheckpointError, FiniteGuard, NonFiniteLossError, FitWarning
from .learn.phases import CloseMixing, TrackDifficulty, EarlyAssigner
from .learn.metrics import AngleError, HeadingAccuracy, RotatedF1, RotatedMAP
from .learn.history import plot_history
from .learn.resume import Resume, ResumeWarning
from .learn.learner import RotatedLearner, detector_splitter, open_learner, rotated_learner
from .learn.ema import EMA
from .learn.teach import Distill
from .learn.sizes import MultiScale, ProgressiveSize
from .learn.loggers import LogRun, MLflow, TensorBoard, WandB
from .learn.pace import KeepBest, Throughput, TimeBudget, ValidateEvery
from .learn.interpret import RotatedInterpretation
from .learn.views import grad_cam, show_cam, show_features
from .learn.scene_map import SceneMAP
from .learn.report import write_report
from .learn.describe import LearnerSummary
from .learn.suggest import suggest
from .learn.fast_steps import FastSteps, step_times
from .learn.schedules import Schedule
from .learn.optimizers import NoDecay, optimizer, stage_splitter
from .learn.recipe import Recipe
from .learn.recipes import list_recipes, recipe
from .learn.assignment import show_assignment
from .learn.speed_accuracy import speed_accuracy
from .learn.calibrate import calibrate_learner
from .learn.mean_teacher import MeanTeacher

# explore: widgets
from .explore.viewer import BoxViewer, view
from .explore.label_queue import suspicious
from .explore.label_fixer import LabelFixer
from .explore.dataset_explorer import DatasetExplorer
from .explore.result_explorer import ResultsExplorer
from .explore.map import show_map
from .explore.detector_page import export_page
from .explore.active import worth_labelling

# cli: commands as functions
from .cli.convert import convert as convert_labels
from .cli.publish import publish_weights
from .cli.compare import plot_runs, run_table

# help: `doc()`, and comments of parameters in `?`, Shift-Tab and `help()`
from .explore.help import doc, explain_names as _explain_names
_explain_names()
