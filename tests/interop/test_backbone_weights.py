"""Detectors on other backbones than ResNet, opened from the keys and the configuration of MMRotate's: maps, levels, losses and
detections against the real ones, from formula weights; tests/helpers/peer_backbones.py made the numbers"""
import json
import numpy as np, pytest, torch
from paths import ROOT
from formula import formula_value
from reference import close, first_n, matched, rel
from rotnb.interop.mmrotate import detector_from_mmrotate

DATA = ROOT/'tests/interop/data'
CASES = [f.stem for f in sorted(DATA.glob('backbone_*.npz'))]

def weights(keys):
    "A state dict from lines of `key TAB shape`"
    rows = [line.split('\t') for line in keys.splitlines()]
    return {key:torch.tensor(formula_value(key, tuple(map(int, shape.split('x'))) if shape else ())) for key,shape in rows}

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

@pytest.mark.parametrize('name', CASES)
def test_as_the_real_one(name):
    z,meta = reference(name)
    det = without_chance(first_n(detector_from_mmrotate(weights(meta['keys']), cfg=meta['model'])))
    x = torch.tensor(np.random.RandomState(20240).standard_normal((1,3,*meta['size_hw'])).astype(np.float32))
    with torch.no_grad():
        maps = det.backbone(x)
        levels = det.neck(maps)
        dets = det(x)[0]
        losses = det.train()(x, [dict(boxes=z['gt_bboxes'], labels=z['gt_labels'])])
    n_maps = sum(key.startswith('map/') for key in z)
    errs = {f'map {i}':rel(thin(own), z[f'map/{i+n_maps-len(maps)}']) for i,own in enumerate(maps)}
    errs |= {f'level {i}':rel(thin(own), z[f'level/{i}']) for i,own in enumerate(levels)}
    print(name, 'largest relative error', max(errs.values()), errs)
    close({key:max(error, 1e-9) for key,error in errs.items()}, 1e-4)
    theirs = {term(key, 'rpn_head' in meta['model']):value for key,value in meta['losses'].items()}
    assert set(losses)==set(theirs)
    close({key:abs(losses[key].item()/value-1)+1e-9 for key,value in theirs.items()}, 1e-3)
    ref = dict(boxes=z['dets'][:,:5], scores=z['dets'][:,5], labels=z['labels'])
    ours,found = matched(ref, dets),matched(dets, ref)
    print(name, f'{int(found.sum())} of {len(found)} detections, {len(ours)} here')
    # one pressed flat against the border, less than a pixel thick, doubles what the last digits differ by
    thick,own_thick = ((part['boxes'][:,2:4]>=1).all(1) for part in (ref,dets))
    assert len(ours)==len(found) and thick.float().mean()>.9 and found[thick].all() and ours[own_thick].all()
