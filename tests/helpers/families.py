"Detectors that tests walk: of a family whose sizes differ in numbers alone, one, as tests make it small"
import pytest
from rotnb.models import list_detectors
from rotnb.models.yolo import yolo_rows

KEPT = {'yolov5_n','yolov6_n','yolov7_tiny','yolov8_n','yolox_tiny','ppyoloe_s'}
OTHER_SIZES = {'rtmdet_r_s','rtmdet_r_l', *set(yolo_rows)-KEPT, *(f'{form}rtdetr_r{n}' for form in ('','rotated_') for n in (18,34,50))}
SAME = {'rotated_gfl','rotated_cascade_rcnn','rotated_libra_rcnn'}        # `gfl` and so on with another angle, which tests ask for anyway
LONG = KEPT-{'yolov8_n'}                                              # their own parts: test_yolo.py

FAMILIES = [name for name in list_detectors() if name not in OTHER_SIZES|SAME]
FINE = dict.fromkeys(('atss','gfl'), dict(octave_base_scale=4.))          # for objects of 20 px, which the published squares all hold
TWO_STAGE = ('oriented_rcnn','roi_trans','redet','rotated_faster_rcnn','gliding_vertex','faster_rcnn','cascade_rcnn','libra_rcnn')
every_family = pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in FAMILIES])
