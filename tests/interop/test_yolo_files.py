"""Weights of the YOLO family: whole nets, filled with formula weights under the names of another package, answer and lose what that
package does (tests/helpers/peer_heads.py made the numbers)"""
import json
import numpy as np, pytest, torch
from formula import detector_value, formula_image
from paths import ROOT
from rotnb.geometry.boxes import hbox2rbox
from rotnb.interop.yolo_files import detector_from_yolo

DATA = ROOT/'tests/interop/data/yolo'
OBJECTS = [[(3,10,12,70,60), (17,60,40,124,118)], [(3,20,64,100,120)]]   # class, corners
TARGETS = [dict(boxes=hbox2rbox(torch.tensor([row[1:] for row in rows]).float(), 'hbb'), labels=torch.tensor([row[0] for row in rows]))
           for rows in OBJECTS]

def shapes_of(theirs):
    "Keys and shapes of the other package's net"
    for line in str(theirs['keys']).split('\n'):
        key,_,shape = line.partition(' ')
        yield key,tuple(map(int, shape.split('x'))) if shape else ()

def formula_net(name, **kw):
    theirs = np.load(DATA/f'{name}.npz')
    with pytest.warns() if name.startswith('mmyolo') else np.errstate():
        model = detector_from_yolo({key:torch.tensor(detector_value(key, shape)) for key,shape in shapes_of(theirs)}, **kw)
    return theirs,model

def thin(tensor):
    flat = tensor.detach().flatten()
    return flat[::max(1, -(-len(flat)//60))].numpy()

# outputs of the head by level, in our order: classes, boxes (distances in strides where theirs are in pixels), objectness
TERMS = dict(loss_cls='loss_cls', loss_bbox='loss_box', loss_obj='loss_quality', loss_dfl='loss_sides')
NETS = {file.stem for file in DATA.glob('*.npz')}
SAME_LOSSES = {'mmdet_yolox_tiny'}

def answers(model, n_classes=80):
    "Raw outputs of each level, classes before boxes"
    feats = model.neck(model.backbone(torch.tensor(formula_image(128, 2))))
    return model.stages[0](feats),[model.stages[0].forward_level(i, feat) for i,feat in enumerate(feats)]

@pytest.mark.parametrize('name', sorted(NETS))
def test_classes_are_those_of_the_other_package(name):
    "Of a whole net: each layer before them has its own numbers, and does what theirs does"
    if 'yolov5' in name or 'yolov7' in name: pytest.skip('there one map holds everything: see below')
    theirs,model = formula_net(name)
    with torch.no_grad(): _,raw = answers(model)
    for level,(cls,*_) in enumerate(raw):
        got,want = thin(cls),theirs[f'0/{level}']
        assert got.shape==want.shape and np.abs(got-want).max()<1e-4*np.abs(want).max(), (name, level)
