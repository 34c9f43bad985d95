"What a target may hold beside boxes and labels: what has another shape is named, and its shape"
import pytest, torch
from torch import nan, ones, zeros
from rotnb.targets.objects import TargetError, check_targets

def target(**more): return dict(boxes=zeros(2, 5), labels=torch.tensor([0,1]), **more)

@pytest.mark.parametrize('more', [dict(), dict(quads=zeros(2,8)), dict(quads=zeros(2,4,2)), dict(heading=zeros(2)), dict(weights=ones(2)),
                                  dict(weights=ones(2,2)), dict(outlines=zeros(2,7,2)), dict(outlines=zeros(2,0,2)),
                                  dict(quads=None), dict(weight=0.)])
def test_what_goes_with_the_boxes(more): check_targets([target(**more)], 1, 2)

@pytest.mark.parametrize('more,message', [
    (dict(quads=zeros(1,8)), r'quads are \(1, 8\); expected the four corners of each box, \(n,8\)'),
    (dict(heading=zeros(2,1)), r'heading is \(2, 1\); expected the direction of each front, \(n,\) radians'),
    (dict(weights=ones(2,3)), r'weights are \(2, 3\); expected numbers from 0'),
    (dict(weights=torch.tensor([1.,nan])), r'weights are \(2,\); expected numbers from 0'),
    (dict(outlines=zeros(2,7)), r'outlines are \(2, 7\); expected points around each object, \(n,p,2\)'),
    (dict(outlines=zeros(2,7,3)), r'outlines are \(2, 7, 3\)'),
    (dict(outlines=zeros(3,7,2)), r'outlines are \(3, 7, 2\)'),
    (dict(weight=-1.), r'weight is -1.0; expected a number from 0')])
def test_what_does_not(more, message):
    with pytest.raises(TargetError, match=rf'^targets\[0\]: {message}'): check_targets([target(**more)], 1, 2)
