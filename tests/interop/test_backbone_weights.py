"""Detectors on other backbones than ResNet, opened from the keys and the configuration of MMRotate's: maps, levels, losses and
detections against the real ones, from formula weights; tests/helpers/peer_backbones.py made the numbers"""
import json
import numpy as np, pytest, torch
from paths import ROOT
from formula import formula_value
from reference import close, first_n, matched, quietly, rel
from rotnb.interop.imagenet import load_backbone
from rotnb.interop.mmparts import backbone_from
from rotnb.interop.mmrotate import detector_from_mmrotate

DATA = ROOT/'tests/interop/data'
CASES = [f.stem for f in sorted(DATA.glob('backbone_*.npz'))]

def shapes(keys):
    "Tensors without numbers from lines of `key TAB shape`"
    rows = [line.split('\t') for line in keys.splitlines()]
    return {key:torch.empty(tuple(map(int, shape.split('x'))) if shape else (), device='meta') for key,shape in rows}

def weights(keys): return {key:torch.tensor(formula_value(key, tuple(weight.shape))) for key,weight in shapes(keys).items()}

def thin(tensor):
    "As many numbers of it as the references keep"
    flat = tensor.flatten()
    return flat[::max(1, -(-len(flat)//3000))]

def without_chance(model):
    "Nothing is left out at random"
    for part in model.modules():
        if type(part).__name__=='DropPath': part.drop_prob = 0.
        if type(part).__name__=='Dropout': part.p = 0.
    return model

def reference(name):
    z = np.load(DATA/f'{name}.npz')
    return {key:torch.tensor(z[key]) for key in z.files if key!='meta'},json.loads(str(z['meta']))

TERMS = dict(loss_bbox='loss_box', loss_rpn_bbox='s0_loss_box', loss_rpn_cls='s0_loss_cls')

def term(key, two_stage):
    "Our name of a loss"
    if key in TERMS and (two_stage or key=='loss_bbox'): ours = TERMS[key]
    else: ours = key.replace('loss_bbox', 'loss_box')
    if not two_stage or ours.startswith('s0_loss') and 'rpn' in key: return ours
    stage = int(ours[1])+1 if ours[0]=='s' else 1
    return f"s{stage}_{ours.split('.')[-1]}"

def opened(name):
    z,meta = reference(name)
    x = torch.tensor(np.random.RandomState(20240).standard_normal((1,3,*meta['size_hw'])).astype(np.float32))
    return z,meta,x,without_chance(first_n(detector_from_mmrotate(weights(meta['keys']), cfg=meta['model'])))

def maps_errors(z, x, det):
    "Largest relative error of each map of the backbone and each level of the neck"
    maps = det.backbone(x)
    n_maps = sum(key.startswith('map/') for key in z)
    errs = {f'map {i}':rel(thin(own), z[f'map/{i+n_maps-len(maps)}']) for i,own in enumerate(maps)}
    errs |= {f'level {i}':rel(thin(own), z[f'level/{i}']) for i,own in enumerate(det.neck(maps))}
    return {key:max(error, 1e-12) for key,error in errs.items()}                # equal to the last digit is no mistake

QUICK = 'backbone_lsknet_t','backbone_pkinet_v2_t','backbone_pkinet_t'
by_size = pytest.mark.parametrize('name', [case if case in QUICK[:2] else pytest.param(case, marks=pytest.mark.slow) for case in CASES])

@by_size
def test_maps(name):
    z,_,x,det = opened(name)
    with torch.no_grad(): errs = maps_errors(z, x, det)
    print(name, 'largest relative error', max(errs.values()), errs)
    close(errs, 1e-4)

@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_losses_and_detections(name):
    z,meta,x,det = opened(name)
    with torch.no_grad():
        dets = det(x)[0]
        losses = det.train()(x, [dict(boxes=z['gt_bboxes'], labels=z['gt_labels'])])
    theirs = {term(key, 'rpn_head' in meta['model']):value for key,value in meta['losses'].items()}
    assert set(losses)==set(theirs)
    close({key:abs(losses[key].item()/value-1)+1e-9 for key,value in theirs.items()}, 1e-3)
    ref = dict(boxes=z['dets'][:,:5], scores=z['dets'][:,5], labels=z['labels'])
    ours,found = matched(ref, dets),matched(dets, ref)
    # one pressed flat against the border, less than a pixel thick, multiplies what the last digits differ by
    thick,own_thick = ((part['boxes'][:,2:4]>=1).all(1) for part in (ref,dets))
    print(name, f'{int(found.sum())} of {len(found)} detections, {len(ours)} here; {int((found&thick).sum())} of {int(thick.sum())} thick')
    assert len(ours)==len(found) and thick.any() and found[thick].all() and ours[own_thick].all()

@pytest.mark.parametrize('name', QUICK)
def test_they_open_without_a_configuration(name):
    "By their keys; and the backbone alone, as a file of ImageNet weights has it"
    meta = reference(name)[1]
    sd = {key:torch.zeros(weight.shape) for key,weight in shapes(meta['keys']).items()}
    det = quietly(sd)
    want = backbone_from(meta['model']['backbone'])
    assert det.name=='oriented_rcnn' and det.backbone.name==want['backbone']
    assert {**want['backbone_kw'], **det.backbone.kw}==want['backbone_kw']
    alone = {key.removeprefix('backbone.'):weight+1 for key,weight in sd.items() if key.startswith('backbone.')}
    load_backbone(det, dict(state_dict=alone | {'head.weight':torch.zeros(1000,7), 'head.bias':torch.zeros(1000)}))
    assert all((p==1).all() for p in det.backbone.parameters())
