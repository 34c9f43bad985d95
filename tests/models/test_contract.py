"The registry, and which boxes count"
import math, subprocess, sys, warnings
import pytest
from torch import tensor
from rotnb.models import contract
from rotnb.models.contract import list_detectors, register_detector, valid_boxes
from paths import ROOT

def entry(module):
    def my_detector(n_classes, backbone=None, pretrained=False, angle='le90'): ...
    my_detector.__module__ = module
    return my_detector

def test_a_replaced_detector_is_announced(monkeypatch):
    monkeypatch.setattr(contract, '_detectors', {})
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        register_detector(entry('mine'))
        again = register_detector(entry('mine'))                      # a cell that is run twice says nothing
    assert list_detectors()==['my_detector'] and contract._detectors['my_detector'] is again
    with pytest.warns(UserWarning, match="'my_detector' of mine is replaced by that of yours"): register_detector(entry('yours'))

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

def test_every_box_loss_has_its_name_whichever_part_is_imported():
    code = "from rotnb.losses.boxes import box_loss; box_loss('kld'), box_loss('gwd'), box_loss('kfiou'), box_loss('probiou')"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
