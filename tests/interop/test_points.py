"""Point set detectors against MMRotate's own heads, of both lines: raw outputs, losses of two images, gradients, detections.
`data/points_peer.py` made the numbers, with our convex overlaps in place of mmcv's CUDA-only operators"""
import json
import numpy as np, pytest, torch
from paths import ROOT
from reference import checkpoint, close, formula, matched, needs_oracle, rel
from rotnb.interop.mmrotate import detector_from_mmrotate

DATA = ROOT/'tests/interop/data'
FILES = sorted(DATA.glob('points_*.npz'))
FAMILY = dict(cfa='cfa', rotated='rotated_reppoints', oriented='oriented_reppoints', sasm='sasm')
pytestmark = needs_oracle
every = pytest.mark.parametrize('file', FILES, ids=[file.stem for file in FILES])

kept = {}
def opened(file):
    "What they computed, our detector with the same weights and their configuration, and the images"
    if file not in kept:
        kept.clear()
        z = np.load(file)
        det = detector_from_mmrotate(checkpoint(DATA/'points_keys.txt'), cfg=json.loads(str(z['model'])))
        kept[file] = {key:torch.as_tensor(z[key]) for key in z.files if key!='model'},det,torch.tensor(formula().image(384, 2))
    return kept[file]

@every
@pytest.mark.filterwarnings('error')
def test_opens_as_its_family(file):
    _,det,_ = opened(file)
    line,family = file.stem.split('_')[1:3]
    assert det.name==FAMILY[family] and det.stages[0].swapped and det.stages[0].unit==2
    assert det.angle==('le90' if line=='1x' else 'le135' if family in ('cfa','oriented') else 'oc')

@every
def test_raw(file):
    z,det,x = opened(file)
    with torch.no_grad(): out = det.stages[0](det.neck(det.backbone(x[:1])))
    got = dict(cls=out.logits[0,::40], first=out.deltas[0,::40,:18], refined=out.deltas[0,::40,18:])
    close({key:rel(value, z[f'out/{key}']) for key,value in got.items()}, 1e-4)

NAMES = dict(loss_pts_init='loss_first', loss_pts_refine='loss_box', loss_spatial_init='loss_first_border',
             loss_spatial_refine='loss_box_border')
GRADS = dict(pts_init_out='first', cls_out='cls', pts_refine_out='move')

@every
def test_losses_and_gradients(file):
    z,det,x = opened(file)
    targets = [dict(boxes=z['boxes'][:5], labels=z['labels'][:5]),dict(boxes=z['boxes'][5:], labels=z['labels'][5:])]
    det.train().zero_grad()
    got = det(x, targets)
    want = {NAMES.get(key[5:], key[5:]):value.item() for key,value in z.items() if key.startswith('loss/')}
    assert set(got)==set(want)
    errs = {key:abs(got[key].item()-value)/max(abs(value), 1e-4) for key,value in want.items()}
    sum(got.values()).backward()
    head = det.stages[0]
    slopes = {key:rel(getattr(head, ours).bias.grad, z[f'grad/reppoints_{theirs}.bias']) for theirs,ours in GRADS.items()
              for key in (f'slope of {ours}',)}
    print(file.stem, errs, slopes)
    close(errs, 1e-3)
    close(slopes, 1e-3)

@every
def test_detections(file):
    z,det,x = opened(file)
    det.eval().stages[0].score_thr = .12
    with torch.no_grad(): dets = det(x[:1])[0]
    theirs = dict(boxes=z['dets'][:,:5], scores=z['dets'][:,5], labels=z['dets'][:,6])
    ours,there = matched(theirs, dets),matched(dets, theirs)
    print(file.stem, f'{int(there.sum())} of {len(there)} detections, {len(ours)} here')
    assert len(there)>500 and ours.all() and there.all()
