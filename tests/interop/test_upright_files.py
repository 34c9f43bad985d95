"torchvision's own upright detectors with formula weights: what they answer and lose, ours does, opened from their state dict"
import re
from functools import partial
import pytest, torch
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, RPNHead, _default_anchorgen
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from formula import formula_image, formula_value
from rotnb.geometry.boxes import hbox2rbox, rbox2hbox
from rotnb.interop.upright_files import detector_from_upright, fill_upright, find_upright
from rotnb.models import create_detector
from rotnb.models.files import WeightsError
from rotnb.predict.catalogue import published_weights
from rotnb.predict.load import detector_from_weights
from rotnb.targets.sample import random_sample

K,H,W = 5,128,256
HBOXES = torch.tensor([[10.,12,70,60], [40,60,124,118], [150,20,240,110], [8,90,40,120]])
LABELS = torch.tensor([1,4,2,1])
PLAIN = dict(min_size=H, max_size=W, image_mean=[0.]*3, image_std=[1.]*3)
EVERY = 10**6

def body(levels, extra=None, **kw):
    return resnet_fpn_backbone(backbone_name='resnet18', weights=None, returned_layers=levels, extra_blocks=extra, **kw)

def theirs_of(name):
    if name=='fcos': return FCOS(body([2,3,4], LastLevelP6P7(256, 256)), K, **PLAIN)
    if name=='retinanet': return RetinaNet(body([2,3,4], LastLevelP6P7(256, 256)), K, **PLAIN)
    if name=='retinanet_v2':
        head = RetinaNetHead(256, 9, K, norm_layer=partial(torch.nn.GroupNorm, 32))
        head.regression_head._loss_type = 'giou'
        return RetinaNet(body([2,3,4], LastLevelP6P7(512, 256)), K, head=head, **PLAIN)
    more = {}
    if name=='faster_v2':
        more = dict(rpn_head=RPNHead(256, 3, conv_depth=2), rpn_anchor_generator=_default_anchorgen(),
                    box_head=FastRCNNConvFCHead((256,7,7), [256]*4, [1024], norm_layer=torch.nn.BatchNorm2d))
    neck = body([1,2,3,4])
    if name=='faster_v2': neck.fpn = FeaturePyramidNetwork([64,128,256,512], 256, LastLevelMaxPool(), torch.nn.BatchNorm2d)
    return FasterRCNN(neck, K+1, rpn_pre_nms_top_n_train=1000, rpn_post_nms_top_n_train=1000, rpn_batch_size_per_image=EVERY,
                      box_batch_size_per_image=EVERY, **more, **PLAIN)

NAMES = 'fcos','retinanet','retinanet_v2','faster','faster_v2'

@pytest.fixture(scope='module', params=NAMES)
def pair(request):
    "torchvision's detector and ours, in evaluation mode"
    theirs = theirs_of(request.param)
    theirs.load_state_dict({key:torch.tensor(formula_value(key, tuple(value.shape))) for key,value in theirs.state_dict().items()})
    return request.param,theirs.eval(),detector_from_upright(theirs.state_dict())

def off(ours, wanted): return ((ours-wanted).abs().max()/wanted.abs().max()).item()

@torch.no_grad()
def test_outputs(pair):
    name,theirs,model = pair
    x = torch.tensor(formula_image(W, 2))[:,:,:H]
    feats = list(theirs.backbone(x).values())
    own = model.neck(model.backbone(x))
    assert len(own)==len(feats) and max(off(*pair) for pair in zip(own, feats))<1e-4
    out = model.stages[0](own)
    if 'faster' in name:
        logits,deltas = theirs.rpn.head(feats)
        for part,wanted,width in ((out.logits,logits,1), (out.deltas,deltas,4)):
            wanted = torch.cat([o.unflatten(1, (-1,width)).permute(0,3,4,1,2).flatten(1, 3) for o in wanted], 1)
            assert off(part, wanted)<1e-4
    else:
        said = theirs.head(feats)
        assert off(out.logits, said['cls_logits'])<1e-4
        assert off(out.deltas.relu() if name=='fcos' else out.deltas, said['bbox_regression'])<1e-4
        if name=='fcos': assert off(out.quality, said['bbox_ctrness'][...,0])<1e-4

def targets(one):
    own = dict(boxes=hbox2rbox(HBOXES, 'hbb'), labels=LABELS-1 if one else LABELS)
    return own,dict(boxes=HBOXES, labels=LABELS)

TERMS = dict(fcos=dict(classification='loss_cls', bbox_regression='loss_box', bbox_ctrness='loss_quality'),
             retinanet=dict(classification='loss_cls', bbox_regression='loss_box'),
             faster=dict(loss_objectness='s0_loss_cls', loss_rpn_box_reg='s0_loss_box', loss_classifier='s1_loss_cls', loss_box_reg='s1_loss_box'))

@torch.no_grad()
def test_losses(pair):
    name,theirs,model = pair
    x = torch.tensor(formula_image(W, 1))[:,:,:H]
    own,other = targets('faster' in name)
    for stage,fraction in zip(model.stages, (.5,.25)):
        if hasattr(stage, 'sampler'): stage.sampler = partial(random_sample, num=EVERY, pos_fraction=fraction)
    ours,_ = model(x, [own])
    theirs.train()
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm2d): part.eval()
    wanted = theirs(list(x), [other])
    theirs.eval()
    terms = TERMS[name.split('_')[0]]
    assert set(terms)==set(wanted)
    for term,value in wanted.items():
        assert value>1e-4 and abs(ours[terms[term]].item()-value.item())<=1e-3*value.item(), (term, ours, wanted)

@torch.no_grad()
def test_detections(pair):
    "Each of theirs is one of ours, but for rounding that decides about a candidate"
    name,theirs,model = pair
    x = torch.tensor(formula_image(W, 2))[:,:,:H]
    for own,wanted in zip(model(x), theirs(list(x))):
        assert len(wanted['scores'])>=10 and abs(len(own['scores'])-len(wanted['scores']))<=1, (len(own['scores']),len(wanted['scores']))
        labels = wanted['labels']-('faster' in name)
        apart = (rbox2hbox(own['boxes'])[:,None]-wanted['boxes']).abs().amax(-1)
        same = (apart<.01) & ((own['scores'][:,None]-wanted['scores']).abs()<1e-4) & (own['labels'][:,None]==labels)
        assert same.any(0).float().mean()>=.98 and same.any(1).float().mean()>=.98, (same.any(0).float().mean(), same.any(1).float().mean())
