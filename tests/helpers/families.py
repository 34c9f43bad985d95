"Detectors that tests walk: of a family whose sizes differ in numbers alone, one, as tests make it small"
import pytest
from rotnb.models import list_detectors
from rotnb.models.yolo import yolo_rows

KEPT = {'yolov5_n','yolov6_n','yolov7_tiny','yolov8_n','yolox_tiny','ppyoloe_s'}
OTHER_SIZES = {'rtmdet_r_s','rtmdet_r_l', *set(yolo_rows)-KEPT, *(f'{form}rtdetr_r{n}' for form in ('','rotated_') for n in (18,34,50))}
LONG = KEPT-{'yolov8_n'}                                              # their own parts: test_yolo.py

FAMILIES = [name for name in list_detectors() if name not in OTHER_SIZES]
every_family = pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in FAMILIES])
