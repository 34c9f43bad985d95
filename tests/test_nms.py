"Rotated NMS keeps the set that the definition keeps, however sizes, classes and scores are spread"
import math, os, time
from pathlib import Path

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from rotnb.ops.iou import box_iou_rotated
from rotnb.ops.nms import batched_nms_rotated, nms_rotated

SHARED = Path(os.environ.get('ROTNB_SHARED', Path(__file__).parents[2]/'shared'))

def greedy(boxes, scores, idxs, thr):
    "The definition, on the float64 matrix"
    iou,keep = box_iou_rotated(boxes.double(), boxes.double()).numpy(),[]
    for i in np.argsort(-scores.double().numpy(), kind='stable'):
        if all(iou[i,k]<=thr or idxs[i]!=idxs[k] for k in keep): keep.append(int(i))
    return keep

def scene(kind, n=400, seed=0):
    g = torch.Generator().manual_seed(seed); r = lambda *s: torch.rand(*s, generator=g)
    b = torch.stack([r(n)*600, r(n)*600, 5+r(n)*60, 5+r(n)*30, r(n)*2*math.pi], 1)
    if kind=='sizes': b[:,2:4] = 10**(r(n,2)*6-3)
    if kind=='line': b[:,1] = 50
    if kind=='point': b[:,:2] = 7
    if kind=='far': b[:,:2] += 4e4
    if kind=='outlier': b[0] = torch.tensor([1e7,-1e7,3e6,2e6,.3]); b[1] = torch.tensor([0,0,1e-6,1e-6,0])
    if kind=='bad': b[::7,2] = 0; b[1::7,3] = -5
    if kind=='copies': b = b[:40].repeat(10,1)
    s = (r(n)*20).round()/20 if kind in ('copies','ties') else r(n)
    return b,s,(r(n)*5).long()

@pytest.mark.parametrize('thr', [0, .05, .1, .3, .5, .7, .95, 1])
@pytest.mark.parametrize('kind', ['plain','sizes','line','point','far','outlier','bad','copies','ties'])
def test_same_as_definition(kind, thr):
    b,s,c = scene(kind)
    keep = nms_rotated(b, s, thr)
    assert keep.dtype==torch.int64 and keep.tolist()==greedy(b, s, torch.zeros(len(b)), thr)
    assert batched_nms_rotated(b, s, c, thr).tolist()==greedy(b, s, c, thr)
    assert nms_rotated(b, s, thr, max_num=5).tolist()==keep.tolist()[:5]

box = st.tuples(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32), st.floats(0, 80, width=32), st.floats(0, 80, width=32), st.floats(-4, 4, width=32))
@settings(deadline=None)
@given(st.lists(st.tuples(box, st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30), st.sampled_from([0, .2, .5]))
def test_any_boxes(items, thr):
    b,s,c = (torch.tensor(o) for o in zip(*items)); b = b.float()
    assert batched_nms_rotated(b, s, c, thr).tolist()==greedy(b, s, c, thr)

def test_classes_far_apart_in_number():
    "The offset trick would move these boxes so far out that float32 forgets where they are"
    b = torch.tensor([[50.,50,40,20,.3], [50.3,50,40,20,.3], [50,50,40,20,.3]])
    assert batched_nms_rotated(b, torch.tensor([.9,.8,.7]), torch.tensor([10**9,10**9,-5]), .5).tolist()==[0,2]

def test_not_numbers():
    nan = float('nan'); b = torch.tensor([[5.,5,9,4,0]]).repeat(6,1); b[1,0] = nan; b[2,4] = math.inf; b[3,2] = nan
    s = torch.tensor([.5,.9,.9,.9,nan,.4])
    assert nms_rotated(b, s, .5).tolist()==[0]
    assert len(nms_rotated(b, s*nan, .5))==0
    for dt in (torch.float16, torch.bfloat16, torch.float64): assert nms_rotated(b.to(dt), s.to(dt), .5).tolist()==[0]

def test_sparse_scenes_are_not_quadratic():
    def seconds(n):
        g = torch.Generator().manual_seed(1); side = 60*n**.5
        b = torch.rand(n,5,generator=g)*torch.tensor([side,side,60,30,6])+torch.tensor([0,0,9,9,0]); s = torch.rand(n,generator=g)
        ts = []
        for _ in range(3): t = time.perf_counter(); nms_rotated(b, s, .1); ts.append(time.perf_counter()-t)
        return min(ts)
    seconds(100)
    assert seconds(64_000)<64*seconds(4_000)     # n^2 would be 256 times

def test_reference_kept_sets():
    f = SHARED/'oracle/ops/nms_rotated.npz'
    if not f.exists(): pytest.skip('no reference folder')
    d = np.load(f)
    for k in ('cluster','sparse'):
        b,s,c = (torch.from_numpy(d[f'{k}_{o}']) for o in ('boxes','scores','labels'))
        for t in (.1,.3,.5,.7):
            assert nms_rotated(b, s, t).tolist()==d[f'{k}_exact_keep_{t}'].tolist()
            assert batched_nms_rotated(b, s, c, t).tolist()==d[f'{k}_exact_batched_keep_{t}'].tolist()
