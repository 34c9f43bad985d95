from .contract import Detector, create_detector, list_detectors, register_detector
from . import retinanet, fcos, atss, s2anet, r3det, rtmdet
