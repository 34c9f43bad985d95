"""Detectors on other backbones than ResNet, opened from the keys and the configuration of MMRotate's: maps, levels, losses and
detections against the real ones, from formula weights; tests/helpers/peer_backbones.py made the numbers"""
import json, warnings
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

def thin(tensor, like):
    flat = tensor.flatten()
    return flat[::max(1, -(-len(flat)//3000))]

@pytest.mark.parametrize('name', CASES)
def test_as_the_real_one(name):
    z = np.load(DATA/f'{name}.npz')
    meta = json.loads(str(z['meta']))
    det = first_n(detector_from_mmrotate(weights(meta['keys']), cfg=meta['model']))
    for part in det.backbone.modules():
        if type(part).__name__=='DropPath': part.drop_prob = 0.
        if type(part).__name__=='Dropout': part.p = 0.
    x = torch.tensor(np.random.RandomState(20240).standard_normal((1,3,*meta['size_hw'])).astype(np.float32))
    with torch.no_grad():
        maps = det.backbone(x)
        levels = det.neck(maps)
        dets = det(x)[0]
        losses = det.train()(x, [dict(boxes=torch.tensor(z['gt_bboxes']), labels=torch.tensor(z['gt_labels']))])
    theirs = [torch.tensor(z[f'map/{i}']) for i in range(sum(key.startswith('map/') for key in z))]
    errs = {f'map {i}':rel(thin(own, part), part) for i,(own,part) in enumerate(zip(maps, theirs[-len(maps):]))}
    errs |= {f'level {i}':rel(thin(own, z[f'level/{i}']), torch.tensor(z[f'level/{i}'])) for i,own in enumerate(levels)}
    print(name, errs); 
    print(losses, meta['losses'])
    ref = dict(boxes=torch.tensor(z['dets'][:,:5]), scores=torch.tensor(z['dets'][:,5]), labels=torch.tensor(z['labels']))
    ours,found = matched(ref, dets),matched(dets, ref)
    print(name, f'{int(found.sum())} of {len(found)} detections, {len(ours)} here')
    close(errs, 1e-4)
    assert abs(sum(losses.values()).item()/sum(meta['losses'].values())-1)<1e-3
    assert len(found) and found.all() and ours.all()
