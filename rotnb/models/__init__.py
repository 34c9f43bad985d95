from .contract import Detector, create_detector, list_detectors, register_detector
from . import retinanet, fcos, atss, oriented_rcnn, roi_trans, s2anet, r3det, reppoints, rtmdet, rotated_faster_rcnn, gliding_vertex, redet
from . import cfa, sasm, oriented_reppoints, g_rep, h2rbox, h2rbox_v2, cascade_s2anet
from . import lsknet, stripnet, pkinet_v2, pkinet, yolo, tal_tiny, rtdetr, upright, vfnet, tood, detr, masks, dynamic_masks
