"RTMDet-R against MMRotate's own numbers, and what its settings change"
import os, sys
from pathlib import Path
import numpy as np, pytest, torch
from torch import tensor
from rotnb.geometry.boxes import rbox2qbox
from rotnb.interop.mmrotate import load_mmrotate, KeysError
from rotnb.models import create_detector

SHARED = Path(os.environ.get('ROTNB_SHARED', Path(__file__).parents[2]/'shared'))
ORACLE,NAME = SHARED/'oracle','rotated_rtmdet_tiny-3x-dota'
needs_oracle = pytest.mark.skipif(not (ORACLE/'models'/f'{NAME}.npz').exists(), reason='needs the reference folder shared/')

def checkpoint():
    sys.path.insert(0, str(ORACLE))
    try: import weights
    finally: sys.path.remove(str(ORACLE))
    return weights.fake_checkpoint(ORACLE/'keys'/f'{NAME}.txt')

@pytest.fixture(scope='module')
def ref():
    with np.load(ORACLE/'models'/f'{NAME}.npz') as d: return {k:torch.as_tensor(d[k]) for k in d if k!='meta'}

@pytest.fixture(scope='module')
def model(): return load_mmrotate(create_detector('rtmdet_r_tiny', 15), checkpoint())

def far(a, b): return ((a-b).abs().max()/b.abs().max()).item()

@needs_oracle
def test_raw_outputs(model, ref):
    model.eval()
    head = model.stages[0]
    with torch.no_grad(): feats = model.neck(model.backbone(ref['input']))
    for i,(x,s) in enumerate(zip(feats, head.strides)):
        with torch.no_grad(): cls,box,_ = head.level(i, x)
        assert far(x, ref[f'out/neck/{i}'])<1e-4
        assert far(cls, ref[f'out/bbox_head/0/{i}'])<1e-4
        assert far(box[:,:4]*s, ref[f'out/bbox_head/1/{i}'])<1e-4  # theirs are pixels
        assert far(box[:,4:], ref[f'out/bbox_head/2/{i}'])<1e-4

def corners_apart(a, b):
    "Largest distance between the corners of each box of `a` and each of `b`, whichever corner comes first"
    p,q = rbox2qbox(a)[:,None],rbox2qbox(b)[None]
    return torch.stack([(p-q.roll(i, -2)).norm(dim=-1).amax(-1) for i in range(4)]).amin(0)

@needs_oracle
def test_detections(model, ref):
    with torch.no_grad(): d, = model.eval()(ref['input'])
    theirs,labels = ref['out/pred/dets'],ref['out/pred/labels']
    assert len(d['scores'])==len(theirs)
    same = (corners_apart(theirs[:,:5], d['boxes'])<1e-3) & ((theirs[:,5:]-d['scores']).abs()<1e-3) & (labels[:,None]==d['labels'])
    assert same.any(1).all() and same.any(0).all()

@needs_oracle
def test_losses(model, ref):
    objs = dict(boxes=ref['gt_bboxes'], labels=ref['gt_labels'])
    stats = {k:v.clone() for k,v in model.state_dict().items()}
    with torch.no_grad(): ours = model.train()(ref['input'], [objs])
    model.load_state_dict(stats)  # training mode has moved the norms' statistics
    for k,theirs in dict(loss_cls='loss/loss_cls', loss_box='loss/loss_bbox').items():
        assert ours[k].item()==pytest.approx(ref[theirs].sum().item(), rel=1e-3), k

@needs_oracle
def test_wrong_size_is_told():
    with pytest.raises(KeysError, match='of another shape'): load_mmrotate(create_detector('rtmdet_r_s', 15), checkpoint())

@pytest.mark.parametrize('size,width,n', [('tiny',96,4_877_544), ('s',128,8_862_156), ('m',192,24_672_132), ('l',256,52_266_460)])
def test_sizes(size, width, n):
    m = create_detector(f'rtmdet_r_{size}', 15)
    assert sum(p.numel() for p in m.parameters())==n
    r = m.recipe()
    assert (r['name'],r['neck']['channels'],r['stages'][0]['feat_channels'])==(f'rtmdet_r_{size}',width,width)
    assert r['stages'][0]['coder']['act']==('none' if size in ('tiny','s') else 'exp')
    assert r['stages'][0]['loss_box']==dict(type='BoxLoss', func='rotated_iou_loss', on='boxes', weight=2., kwargs=dict(mode='linear'))

def test_settings_win():
    m = create_detector('rtmdet_r_tiny', 2, backbone='test_resnet', fpn_channels=16, act='exp', strides=(8,16), score_thr=.3)
    assert m.recipe()['stages'][0]['coder']['act']=='exp' and m.stages[0].score_thr==.3 and m.backbone.strides==(8,16)
    with pytest.raises(ValueError, match='leave out norm'): create_detector('rtmdet_r_tiny', 2, norm=True)

def test_levels_keep_statistics_of_their_own():
    m = create_detector('rtmdet_r_tiny', 2, backbone='test_resnet', fpn_channels=16)
    t = dict(boxes=tensor([[30.,30.,20.,10.,.3]]), labels=tensor([0]))
    m(torch.randn(2,3,64,64), [t,t])
    means = [n[-1].running_mean for n in m.stages[0].cls_tower.norms]
    assert len(means)==3 and not any(torch.equal(a, b) for a,b in zip(means, means[1:]))
