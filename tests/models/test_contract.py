"The registry, and the names of losses"
import subprocess, sys, warnings
import pytest
from rotnb.models import contract
from rotnb.models.contract import list_detectors, register_detector
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

def test_every_box_loss_has_its_name_whichever_part_is_imported():
    code = "from rotnb.losses.boxes import box_loss; box_loss('kld'), box_loss('gwd'), box_loss('kfiou'), box_loss('probiou')"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
