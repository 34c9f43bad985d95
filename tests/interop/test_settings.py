"Settings that no published configuration has, opened from configuration and weights, against the real MMRotate's numbers"
import json, pytest, numpy as np, torch
from formula import formula_image, formula_weights
from paths import ROOT
from reference import close, first_n, matched, neck_errors
from rotnb.interop.mmread import ConfigError
from rotnb.interop.mmconfig import settings_from_config
from rotnb.interop.mmrotate import detector_from_mmrotate

DATA = np.load(ROOT/'tests/interop/data/settings.npz')     # made by settings_reference.py, beside it
VARIANTS = sorted({key.split('/')[0] for key in DATA.files if '/' in key})
LOSSES = dict(loss_bbox='loss_box', loss_centerness='loss_quality', loss_rpn_cls='s0_loss_cls', loss_rpn_bbox='s0_loss_box')

QUICK = 'caffe','lateral','ended','group_norm','least_size','deformable','class_tower'

def of(name): return {key.split('/', 1)[1]:DATA[key] for key in DATA.files if key.startswith(name+'/')}

def weights_of(z):
    "The formula's weights for the names and shapes that MMRotate has"
    rows = [line.split('\t') for line in str(z['keys']).split('\n')]
    shapes = {key:() if shape=='scalar' else tuple(map(int, shape.split('x'))) for key,shape in rows}
    return {key:torch.as_tensor(value) for key,value in formula_weights(shapes).items()}

@pytest.mark.parametrize('name', [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in VARIANTS])
def test_variant(name):
    "Neck, detections and losses"
    z = of(name)
    det = first_n(detector_from_mmrotate(weights_of(z), cfg=str(z['settings'])))
    x = torch.as_tensor(formula_image(96))
    with torch.no_grad(): feats,found = det.neck(det.backbone(x)),det(x)[0]
    errs = {f'neck {i}':((feat[:,::8]-torch.as_tensor(z[f'neck/{i}'])).abs().max()/np.abs(z[f'neck/{i}']).max()).item()
            for i,feat in enumerate(feats)}
    close(errs, 1e-4)
    theirs = {ours:torch.as_tensor(z[f'pred/{ours}']) for ours in ('boxes','scores','labels')}
    assert len(theirs['boxes'])==len(found['boxes'])>9 and matched(theirs, found).all() and matched(found, theirs).all()
    with torch.no_grad(): losses = det.train()(x, [dict(boxes=torch.as_tensor(DATA['gt']), labels=torch.arange(4))])
    two = len(det.stages)>1
    want = {LOSSES.get(key[5:], key[5:]) if not two or 'rpn' in key else 's1_'+LOSSES.get(key[5:], key[5:]):z[key].item()
            for key in z if key.startswith('loss/')}
    assert set(want)==set(losses)
    close({key:abs(losses[key].item()/value-1) for key,value in want.items()}, 1e-3)

def test_norms_that_do_not_learn():
    "`requires_grad=False` of a caffe backbone"
    z = of('caffe')
    backbone = detector_from_mmrotate(weights_of(z), cfg=str(z['settings'])).train().backbone
    norms = [p for name,p in backbone.named_parameters() if '.bn' in name]
    assert norms and not any(p.requires_grad for p in norms)
