"Detectors that tests walk: of a family whose sizes differ in numbers alone, one, as tests make it small"
import pytest
from rotnb.models import list_detectors
from rotnb.models.yolo import yolo_rows

KEPT = {'yolov5_n','yolov6_n','yolov7_tiny','yolov8_n','yolox_tiny','ppyoloe_s'}
LARGE_SETS = 'rtdetr_r18','rtdetr_r34','rtdetr_r50','deformable_detr','dino'
OTHER_SIZES = {'rtmdet_r_s','rtmdet_r_l','rtmdet_ins_s','rtmdet_ins_m','rtmdet_ins_l',
               *set(yolo_rows)-KEPT, *(f'{form}{name}' for form in ('','rotated_') for name in LARGE_SETS)}
KIN = 'gfl','vfnet','tood','cascade_rcnn','libra_rcnn'
SAME = {'oriented_mask_rcnn','rotated_condinst', *(f'rotated_{name}' for name in KIN)}   # of another angle, which tests ask for anyway
LONG = KEPT-{'yolov8_n'}                                              # their own parts: test_yolo.py

FAMILIES = [name for name in list_detectors() if name not in OTHER_SIZES|SAME]
FINE = dict.fromkeys(('atss','gfl','vfnet'), dict(octave_base_scale=4.))  # for objects of 20 px, which the published squares all hold
SETS = 'rotated_rtdetr_tiny','rotated_deformable_detr_tiny','rotated_dino_tiny'       # which answer for each object once, without NMS
MASKS = 'mask_rcnn','rtmdet_ins_tiny','condinst'                      # which answer with masks
TWO_STAGE = ('oriented_rcnn','roi_trans','redet','rotated_faster_rcnn','gliding_vertex','faster_rcnn','cascade_rcnn','libra_rcnn',
             'mask_rcnn')
# of each kind one that is quick: what goes by the kind of stages, and the rest in the slow tests
KINDS = {'rotated_fcos_tiny','rotated_tal_tiny','yolov8_n','rotated_reppoints','s2anet','oriented_rcnn','mask_rcnn','rotated_rtdetr_tiny'}
each_kind = pytest.mark.parametrize('name', [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES])
every_family = pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in FAMILIES])
