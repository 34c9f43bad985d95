"Rotated NMS keeps the set that the definition keeps, however sizes, classes and scores are spread"
import math, time

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from rotnb.geometry.boxes import rbox2qbox
from rotnb.ops.fusion import soft_nms_rotated, weighted_boxes_fusion
from rotnb.ops.iou import box_iou_rotated
from rotnb.ops.nms import batched_nms_rotated, multiclass_nms_rotated, nms_quad, nms_rotated
from rotnb.ops.torch_ops import nms_torch
from paths import SHARED


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

box = st.tuples(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32), st.floats(0, 80, width=32),
                st.floats(0, 80, width=32), st.floats(-4, 4, width=32))
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
        for _ in range(7): t = time.perf_counter(); nms_rotated(b, s, .1); ts.append(time.perf_counter()-t)
        return min(ts)
    seconds(100)
    assert seconds(64_000)<128*seconds(4_000)    # n^2 would be 256 times; other programs on the machine count double here

def test_reference_kept_sets():
    f = SHARED/'oracle/ops/nms_rotated.npz'
    if not f.exists(): pytest.skip('no reference folder')
    d = np.load(f)
    for k in ('cluster','sparse'):
        b,s,c = (torch.from_numpy(d[f'{k}_{o}']) for o in ('boxes','scores','labels'))
        for t in (.1,.3,.5,.7):
            assert nms_rotated(b, s, t).tolist()==d[f'{k}_exact_keep_{t}'].tolist()
            assert batched_nms_rotated(b, s, c, t).tolist()==d[f'{k}_exact_batched_keep_{t}'].tolist()

# --- the kin: quads, many classes, soft, fused, exportable

@pytest.mark.parametrize('kind', ['plain','sizes','line','point','copies','ties'])
def test_quads_and_export_keep_the_same_set(kind):
    b,s,c = scene(kind)
    for thr in (.05, .3, .7):
        want = batched_nms_rotated(b, s, c, thr).tolist()
        q = rbox2qbox(b.double()); q[::2] = q[::2].flip(1)
        assert nms_quad(q, s, thr, c).tolist()==want
        rounds = 31 if kind!='point' else 101
        assert nms_torch(b.double(), s, thr, c, rounds).nonzero()[:,0].tolist()==sorted(want)
        assert nms_torch(b, s, thr, c, rounds).nonzero()[:,0].tolist()==sorted(want)

def test_quads_that_are_not_detections():
    q = rbox2qbox(torch.tensor([[5.,5,9,4,0]])).repeat(4,1,1); q[1,0,0] = math.nan; q[2] = 5
    assert nms_quad(q, torch.tensor([.5,.9,.8,.4]), .5).tolist()==[2,0]

@pytest.mark.parametrize('per_class', [False,True])
def test_multiclass(per_class):
    g = torch.Generator().manual_seed(3); n,k = 200,4
    b = torch.stack([scene('plain', n, i)[0] for i in range(k if per_class else 1)], 1); s = torch.rand(n,k,generator=g); s[3] = math.nan
    dets,labels,keep = multiclass_nms_rotated(b.flatten(1), s, .4, .2)
    each = [(i*k+c).tolist() for c in range(k) for m in [(s[:,c]>.4).nonzero()[:,0]]
            for i in [m[nms_rotated(b[m,c if per_class else 0], s[m,c], .2)]]]
    assert sorted(keep.tolist())==sorted(sum(each, [])) and (dets[:,5].diff()<=0).all()
    assert torch.equal(labels, keep%k) and torch.equal(dets[:,5], s.flatten()[keep])
    assert torch.equal(dets[:,:5], b[keep//k, labels if per_class else 0])
    assert all(torch.equal(x[:7], y) for x,y in zip((dets,labels,keep), multiclass_nms_rotated(b.flatten(1), s, .4, .2, 7)))
    assert len(multiclass_nms_rotated(b.flatten(1), s, .4, .2, -1)[0])==len(dets)

def test_soft_nms_between_none_and_hard():
    b,s,c = scene('plain')
    keep,new = soft_nms_rotated(b, s, sigma=1e9, idxs=c, min_score=0)
    assert (new-s[keep]).abs().max()<1e-6 and len(keep)==len(b)                 # nothing is lowered
    keep,_ = soft_nms_rotated(b, s, sigma=1e-9, idxs=c)                          # whatever overlaps goes
    s2 = s.clone(); s2[s<=1e-3] = math.nan
    assert keep.tolist()==batched_nms_rotated(b, s2, c, 1e-4).tolist()
    keep,new = soft_nms_rotated(b, s, idxs=c, min_score=.1)
    assert (new<=s[keep]).all() and (new.diff()<=0).all() and (new>.1).all()
    nan = b.clone(); nan[0,0] = math.nan; s[1] = math.nan
    assert not {0,1}&{*soft_nms_rotated(nan.half(), s)[0].tolist()}

@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-.1, .1), st.integers(-3, 3)), min_size=1,
                max_size=6), st.floats(-7, 7))
def test_fusion_of_one_object(seen, t):
    "However its sightings are spelt and turned, they give one box, within their spread"
    b = np.array([[50+x, 50+y, *((40,12) if q%2==0 else (12,40)), t+d+q*math.pi/2] for x,y,d,q in seen])
    s = np.linspace(.9, .5, len(b))
    out,conf,lab = weighted_boxes_fusion([o[None] for o in b], [[o] for o in s], [[1]]*len(b), iou_threshold=.2)
    off = np.array([o[2] for o in seen])
    assert out.shape==(1,5) and lab.tolist()==[1] and conf.item()==pytest.approx(s.mean())
    w,h,a = out[0,2:].tolist(); q = round((a-t)/(math.pi/2)); a -= t+q*math.pi/2
    assert sorted((w,h))==pytest.approx([12,40]) and (w>h)==(q%2==0) and a==pytest.approx((s*off).sum()/s.sum(), abs=1e-6)
    assert out[0,:2].numpy()==pytest.approx((b[:,:2]*s[:,None]).sum(0)/s.sum())

def test_fusion_of_one_model_is_the_model():
    g = torch.Generator().manual_seed(4); r = torch.arange(36.)
    b = torch.stack([r%6*90, r//6*90, 20+r, 10+r/2, r], 1); s = torch.rand(36,generator=g)
    out,conf,lab = weighted_boxes_fusion([b], [s], [r.long()%3]); order = s.argsort(descending=True)
    assert torch.equal(out, b[order]) and torch.equal(conf, s[order]) and torch.equal(lab, r.long()[order]%3)
