"""Point set detectors against MMRotate's own heads, of both lines: raw outputs, losses of two images, gradients, detections.
`data/points_peer.py` made the numbers, with our convex overlaps in place of mmcv's CUDA-only operators"""
import json
import numpy as np, pytest, torch
from paths import ROOT
from reference import checkpoint, close, formula, matched, needs_oracle, rel
from rotnb.interop.mmrotate import detector_from_mmrotate
from rotnb.ops.iou import box_iou_rotated

DATA = ROOT/'tests/interop/data'
FAMILY = dict(cfa='cfa', rotated='rotated_reppoints', oriented='oriented_reppoints', sasm='sasm')
FIRST = 'points_0x_sasm_reppoints','points_1x_oriented_reppoints'        # the others, alike, are slow
NAMES = dict(loss_pts_init='loss_first', loss_pts_refine='loss_box', loss_spatial_init='loss_first_border',
             loss_spatial_refine='loss_box_border')
GRADS = dict(pts_init_out='first', cls_out='cls', pts_refine_out='move')
FILES = [pytest.param(file, id=file.stem, marks=() if file.stem in FIRST else pytest.mark.slow)
         for file in sorted(DATA.glob('points_*.npz'))]

@needs_oracle
@pytest.mark.filterwarnings('error::UserWarning')
@pytest.mark.parametrize('file', FILES)
def test_against_theirs(file):
    z = np.load(file)
    det = detector_from_mmrotate(checkpoint(DATA/'points_keys.txt'), cfg=json.loads(str(z['model'])))
    line,family = file.stem.split('_')[1:3]
    assert (det.name,det.angle)==(FAMILY[family],dict([('0x','oc'),('1x','le90')])[line]) and det.stages[0].swapped
    z,x,head = {key:torch.as_tensor(z[key]) for key in z.files if key!='model'},torch.tensor(formula().image(384, 2)),det.stages[0]
    with torch.no_grad(): out = head(det.neck(det.backbone(x[:1])))
    compare_raw(z, out)
    compare_detections(z, head, out)
    compare_losses(z, det.train(), x)

def compare_raw(z, out):
    got = dict(cls=out.logits[0,::40], first=out.deltas[0,::40,:18], refined=out.deltas[0,::40,18:])
    close({key:rel(value, z[f'out/{key}']) for key,value in got.items()}, 1e-4)

def compare_losses(z, det, x):
    targets = [dict(boxes=z['boxes'][:5], labels=z['labels'][:5]),dict(boxes=z['boxes'][5:], labels=z['labels'][5:])]
    got = det(x, targets)
    want = {NAMES.get(key[5:], key[5:]):value.item() for key,value in z.items() if key.startswith('loss/')}
    assert set(got)==set(want)
    errs = {key:abs(got[key].item()-value)/max(abs(value), 1e-6) for key,value in want.items()}
    sum(got.values()).backward()
    slopes = {ours:rel(getattr(det.stages[0], ours).bias.grad, z[f'grad/reppoints_{theirs}.bias']) for theirs,ours in GRADS.items()}
    print(det.name, errs, slopes)
    close(errs, 1e-4)
    close(slopes, 1e-4)

def compare_detections(z, head, out):
    """All are found with their class, score and area. Around a triangle three rectangles are equally small, and around other hulls
    some are nearly so: which of them it is hangs on the last digits, and what the NMS drops then on that"""
    head.score_thr = .13
    dets = head.detect(out)[0]
    theirs = dict(boxes=z['dets'][:,:5], scores=z['dets'][:,5], labels=z['dets'][:,6])
    assert len(theirs['boxes'])>400 and abs(len(dets['boxes'])-len(theirs['boxes']))<=4
    for a,b in ((theirs,dets), (dets,theirs)):
        left = ~matched(a, b)
        assert left.sum() <= .04*len(left)
        area = [o['boxes'][:,2]*o['boxes'][:,3] for o in (a,b)]
        twins = ((a['labels'][:,None]==b['labels'][left]) & ((a['scores'][:,None]-b['scores'][left]).abs()<1e-3) &
                 ((area[0][:,None]/area[1][left]-1).abs()<1e-3) & (box_iou_rotated(a['boxes'], b['boxes'][left])>.3))
        assert (~twins.any(0)).sum() <= 4
