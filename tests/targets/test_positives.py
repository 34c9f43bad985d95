"Which boxes of a padded tensor are boxes"
import math, pytest
from torch import tensor
from rotnb.targets.positives import valid_boxes

@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('column', range(5))
def test_boxes_with_a_bad_number_are_not_valid(bad, column):
    boxes = tensor([[10.,10,8,4,.3]]*2)
    boxes[1,column] = bad
    assert valid_boxes(boxes).tolist()==[True,False]

def test_boxes_without_area_are_padding():
    boxes = tensor([[10.,10,8,4,.3],[10,10,0,4,.3],[10,10,8,0,.3],[10,10,-8,4,.3],[0,0,0,0,0]])
    assert valid_boxes(boxes).tolist()==[True]+[False]*4
    assert valid_boxes(boxes.view(1,5,5)).shape==(1,5) and valid_boxes(boxes[:0]).shape==(0,)
