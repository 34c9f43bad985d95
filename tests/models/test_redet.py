"ReDet: filters that turn, files of e2cnn, and the numbers of MMRotate's own (0.3.4 and 1.x, e2cnn 0.2.3), made by `redet_peer.py`"
import copy, json, math, pickle, warnings
import numpy as np, pytest, timm, torch
from torch import nn
from paths import ROOT
from redet_peer import BOXES, LABELS, picture, value
from reference import checkpoint, close, first_n, matched, needs_oracle, quietly, rel, shapes, unscored
from rotnb.interop.imagenet import load_backbone
from rotnb.interop.mmconfig import settings_from_config
from rotnb.interop.mmguess import guess_config
from rotnb.interop.mmparts import ConfigError
from rotnb.interop.mmrotate import KeysError, WeightsError, detector_from_mmrotate, find_family, load_mmrotate, steerable_weights
from rotnb.models import create_detector
from rotnb.models.backbones import BackboneError, MissingWeightsError, TimmBackbone
from rotnb.models.equivariant import FieldNorm, SteerableConv, filter_modes, fuse_equivariant, make_equivariant, steerable_basis
from rotnb.models.redet import ReFPN

# --- MMRotate's numbers

LINES = ['0x','1x']
both = pytest.mark.parametrize('line', LINES)
cache = {}

def state_dict(z, buffers=False):
    "A checkpoint of MMRotate by formula, as its keys and shapes are; without what e2cnn makes of coefficients"
    keys = json.loads(str(z['keys']))
    made = ('filter','expanded_bias','bias_expansion','sampled_basis','indices_8')
    return {key:torch.as_tensor(value(key, tuple(shape))) for key,shape in keys.items() if not key.endswith(made)}

def opened(line):
    "The reference, and the detector that its configuration and its weights are"
    if line not in cache:
        z = np.load(ROOT/f'tests/interop/data/redet_{line}.npz')
        meta = dict(mmcv_version='1.7.2') if line=='0x' else dict(mmengine_version='0.10.7')
        with warnings.catch_warnings():
            warnings.simplefilter('error')                       # a file with its configuration leaves nothing to assume
            det = detector_from_mmrotate(dict(state_dict=state_dict(z), meta=dict(meta, cfg=json.dumps(dict(model=json.loads(str(z['cfg'])))))))
        cache[line] = {key:torch.from_numpy(z[key]) for key in z.files if z[key].dtype.kind=='f'} | dict(
            losses=json.loads(str(z['losses'])), cfg=json.loads(str(z['cfg'])), sd=state_dict(z), keys=json.loads(str(z['keys']))),first_n(det)
    z,det = cache[line]
    return z,det.eval()

def their_rois(rois):
    boxes = rois[:,1:]
    if boxes.shape[1]==5: return boxes
    return torch.cat([(boxes[:,:2]+boxes[:,2:])/2, boxes[:,2:]-boxes[:,:2], torch.zeros(len(boxes), 1)], 1)

@both
def test_raw_outputs_and_rois(line):
    z,det = opened(line)
    assert det.name=='redet' and det.backbone.name=='re_resnet18' and det.backbone.frozen==1
    with torch.no_grad():
        feats = det.neck(det.backbone(torch.tensor(picture())))
        errs = {f'neck {i}':rel(feats[i][:,::16], z[f'neck{i}']) for i in (1,2,3,4)}
        for i in (2,3,4):
            logits,deltas,_ = det.stages[0].forward_level(i, feats[i])
            errs |= {f'rpn {i}':rel(logits, z[f'rpn0{i}']), f'rpn deltas {i}':rel(deltas, z[f'rpn1{i}'])}
        boxes = det.stages[0].boxes(det.stages[0](feats)._replace(size_hw=(128,128)))[0]
        for i,stage in enumerate(det.stages[1:]):
            theirs = their_rois(z[f'rois{i}'])
            real = (theirs[:,2:4]>0).all(1)
            assert matched(unscored(theirs[real]), unscored(boxes)).all() and real.sum()>100
            out = stage(feats, theirs[None])._replace(size_hw=(128,128))
            n = real[:60]
            errs |= {f'class {i}':rel(out.logits[0,:60][n], z[f'logits{i}'][n]), f'deltas {i}':rel(out.deltas[0,:60][n], z[f'deltas{i}'][n]),
                     f'cut {i}':rel(stage.pooled(feats, torch.zeros(2).long(), theirs[:2], out.lvls[0,:2])[:,::4], z[f'cut{i}'])}
            boxes = stage.boxes(out)[0]
    print(line, max(errs.values()), errs)
    close(errs, 1e-4)

@both
def test_detections(line):
    z,det = opened(line)
    with torch.no_grad(): dets = det(torch.tensor(picture()))[0]
    theirs = dict(boxes=z['dets'][:,:5], scores=z['dets'][:,5], labels=z['dets'][:,6].long())
    print(line, len(dets['scores']), len(theirs['scores']))
    assert len(theirs['scores'])>50 and matched(dets, theirs).all() and matched(theirs, dets).all()

@both
def test_losses(line):
    z,det = opened(line)
    with torch.no_grad(): losses = det.train()(torch.tensor(picture()), [dict(boxes=torch.tensor(BOXES), labels=torch.tensor(LABELS))])
    want = dict(s0_loss_cls='loss_rpn_cls', s0_loss_box='loss_rpn_bbox', s1_loss_cls='s0.loss_cls', s1_loss_box='s0.loss_bbox',
                s2_loss_cls='s1.loss_cls', s2_loss_box='s1.loss_bbox')
    errs = {key:abs(losses[key].item()/z['losses'][theirs]-1) for key,theirs in want.items()}
    print(line, errs)
    close(errs, 1e-3)
