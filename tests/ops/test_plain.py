"What the operators are while exporting: standard tensor operations that give the same"
import math

import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn, tensor
from rotnb.geometry.boxes import rbox2qbox
from rotnb.models.roi_head import roi_align_hbox
from rotnb.ops.align import riroi_align_rotated, rotated_feature_align
from rotnb.ops.convex import box_iou_quad
from rotnb.ops.iou import box_iou_rotated
from rotnb.ops.kernels import prepare
from rotnb.ops.nms import batched_nms_rotated, nms_quad
from rotnb.ops.roi_align import roi_align_rotated
from rotnb.ops.torch_ops import _pair_iou, _prepare_boxes, _prepare_quads, box_iou_torch, nms_torch
from runtimes import as_onnx, in_openvino, in_ort, operators, plain, traced

def crowd(n, seed=0, side=300):
    "Boxes, scores with ties, classes"
    g = torch.Generator().manual_seed(seed)
    b = torch.rand(n, 5, generator=g)*tensor([side,side,60,30,2*math.pi])+tensor([0,0,2,2,-math.pi])
    return b,torch.randn(n, generator=g).mul(3).round()/3,torch.randint(3, (n,), generator=g)

def maps(n_images=2, side_hw=(20,30), n=40, seed=0):
    "A map of stride 4 and RoIs on and beside it, some of images that are not there"
    g = torch.Generator().manual_seed(seed)
    rois = torch.rand(n, 6, generator=g)*tensor([n_images+1.,side_hw[1]*4+20,side_hw[0]*4+20,60,30,6.3])-tensor([.5,10,10,1,1,3])
    rois[:,0] = rois[:,0].round()
    return torch.randn(n_images, 8, *side_hw, generator=g),rois

def near(a, b, tol=1e-5): torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=tol, atol=tol)

# --- RoIAlign

ALIGNS = dict(rotated=lambda x,r: roi_align_rotated(x, r, (3,7), .25, 2),
              first=lambda x,r: roi_align_rotated(x, r, 7, .25, 3, aligned=False, clockwise=False),
              adaptive=lambda x,r: roi_align_rotated(x, r, (2,3), .25),
              riroi=lambda x,r: riroi_align_rotated(x, r, 7, .25, 2),
              half=lambda x,r: roi_align_rotated(x.half(), r, 3, .25, 2).float(),
              **{f'features{n}':lambda x,r,n=n: rotated_feature_align(x, torch.zeros_like(x[:,:5]).permute(0,2,3,1)+r[0,1:], .25, n)
                 for n in (1,5)})

@pytest.mark.parametrize('kind', ALIGNS)
def test_align(kind, monkeypatch):
    (x,r),f,nan = maps(),ALIGNS[kind],math.nan
    r[1:6] = tensor([[0,nan,9,9,9,0], [0,9,9,9,9,math.inf], [0,9,9,-3,9,0], [0,-500,9,9,9,1], [1,40,40,0,9,0]])
    def both():
        leaf = x.clone().requires_grad_(); out = f(leaf, r)
        return out.detach(),torch.autograd.grad((out*out.detach()).sum(), leaf)[0]
    want = both(); plain(monkeypatch); got = both()
    for a,b in zip(got, want): near(a, b, 1e-5 if kind!='half' else 2e-3)
    for k in (0,1): assert f(x, r[:1].repeat(k+1,1)[:max(k,kind[0]=='f')]).shape[1:]==want[0].shape[1:]

def test_upright_align(monkeypatch):
    x,r = maps(); r = r[(r[:,0]>=0)&(r[:,0]<2)&(r[:,3:5]>0).all(1)]
    want = [roi_align_hbox(x, r, 7, .25, n) for n in (0,2)]; plain(monkeypatch)
    for n,w in zip((0,2), want): near(roi_align_hbox(x, r, 7, .25, n), w)

# --- IoU of pairs

def test_pairs_bit_for_bit():
    "An IoU on the threshold falls on the same side of it"
    none = tensor([[5.,5,0,9,0], [math.nan,5,9,9,0], [5,5,-3,9,0], [5,5,9,9,math.inf]])
    b = torch.cat([crowd(80)[0], crowd(20)[0].round(), none]).double()
    q = rbox2qbox(b).nan_to_num(9.); q[::2] = q[::2].flip(1); q[5:30] += torch.randn(25,4,2, generator=torch.Generator().manual_seed(1))*9
    i,j = torch.triu_indices(len(b), len(b), 1)
    for P,x,iou in ((_prepare_boxes(b),b,box_iou_rotated), (_prepare_quads(q.flatten(1)),q,box_iou_quad)):
        near(_pair_iou(P[:,i], P[:,j]), iou(x, x)[i,j], 1e-15)
    assert _prepare_quads(q.flatten(1))[:,:30].equal(torch.from_numpy(prepare(q[:30].flatten(1).numpy())))

@pytest.mark.parametrize('far', [0,20_000])
def test_pairs_in_float32(far):
    "OpenVINO computes float64 in float32: what that costs, wherever the boxes lie"
    b,_,_ = crowd(2000); b[:,:2] += far; g = torch.Generator().manual_seed(1)
    for spread in (.01,1.,10.):
        c = b+torch.randn(2000, 5, generator=g)*spread*tensor([1,1,.5,.5,.1]); c[:,2:4].clamp_(min=1)
        want,got = (_pair_iou(_prepare_boxes(o(b)), _prepare_boxes(o(c))) for o in (torch.Tensor.double, torch.Tensor.float))
        near(got.double(), want, 5e-6)
        p,q = (rbox2qbox(o.double()).flatten(1).float() for o in (b, c))
        want,got = (_pair_iou(_prepare_quads(o(p)), _prepare_quads(o(q))) for o in (torch.Tensor.double, torch.Tensor.float))
        near(got.double(), want, 2e-5)

# --- NMS

odd = st.sampled_from([math.nan,math.inf,-math.inf,0.,-3.,1e30,1e-30])
def numbers(lo, hi): return st.one_of(st.floats(lo, hi, width=32), st.integers(int(lo), int(hi)).map(float), odd)
boxes = st.tuples(*[numbers(-30, 30)]*2, *[numbers(1, 60)]*2, st.one_of(st.sampled_from([0.,math.pi/2]), numbers(-4, 4)))
scores = st.one_of(st.integers(0, 3).map(float), odd)

@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(boxes, scores, st.integers(-1, 1)), max_size=30), st.sampled_from([0,.2,.5,1]))
def test_any_boxes(items, thr):
    b,s,c = (tensor(o) for o in zip(*items)) if items else (torch.zeros(0,5),torch.zeros(0),torch.zeros(0).long())
    assert nms_torch(b, s, thr, c).nonzero()[:,0].tolist()==sorted(batched_nms_rotated(b, s, c, thr).tolist())

points = st.tuples(*[st.one_of(st.integers(0, 12).map(float), st.floats(0, 12, width=32))]*8)
@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.one_of(points, st.tuples(*[numbers(0, 12)]*8)), scores, st.integers(-1, 1)), max_size=12),
       st.sampled_from([0,.2,.5]))
def test_any_quads(items, thr):
    "Whatever four points are: dented, crossing themselves, in one place"
    q,s,c = (tensor(o) for o in zip(*items)) if items else (torch.zeros(0,8),torch.zeros(0),torch.zeros(0).long())
    want = sorted(nms_quad(q, s, thr, c).tolist())
    assert nms_torch(q, s, thr, c).nonzero()[:,0].tolist()==nms_torch(q.view(-1,4,2), s, thr, c).nonzero()[:,0].tolist()==want

def test_rounds():
    "A row of boxes, each of which touches the next, is settled from its head on"
    chain = torch.stack([torch.arange(400)*4., *(torch.full((400,), o) for o in (0.,10,5,0))], 1); s = -torch.arange(400.)
    assert nms_torch(chain, s, .2).nonzero()[:,0].tolist()==list(range(0,400,2))
    assert nms_torch(chain, s, .2, rounds=11).nonzero()[:,0].tolist()==list(range(0,12,2))

# --- exported

TAILS = dict(boxes=lambda b,s,c: nms_torch(b, s, .1, c), quads=lambda b,s,c: nms_torch(rbox2qbox(b), s, .1, c),
             rounds=lambda b,s,c: nms_torch(b, s, .1, c, 61), iou=lambda b,s,c: box_iou_torch(b, b).sum(1))

class Tail(nn.Module):
    "The end of a detector: candidates above a score, so many as there are"
    def __init__(self, kind): super().__init__(); self.kind = kind
    def forward(self, boxes, scores, labels):
        at = (scores>.1).nonzero()[:,0]
        return torch.zeros_like(scores).index_add(0, at, TAILS[self.kind](boxes[at], scores[at], labels[at]).float()),

class Aligns(nn.Module):
    "All of `ALIGNS` on the RoIs of the images that are there"
    def __init__(self, *kinds): super().__init__(); self.kinds = kinds
    def forward(self, x, rois):
        on = ((rois[:,0]>=0)&(rois[:,0]<x.shape[0])).nonzero()[:,0]
        return tuple(ALIGNS[kind](x, rois if kind[:2]=='fe' else rois[on]) for kind in self.kinds)

def tail_cases():
    for n in (300,90,2): yield crowd(n, n)
    b,s,c = crowd(30); yield b,s*0,c                                        # no candidate
    b,s,c = crowd(30); yield b[:1].repeat(30,1),s*0+1,c*0                    # one, thirty times
    chain = torch.stack([torch.arange(60)*4., *(torch.full((60,), o) for o in (9.,10,5,0))], 1)
    yield chain,1-torch.arange(60.)/100,c.repeat(2)*0

def align_cases():
    x,r = maps(3, (16,16), 5, 2)
    return maps(),maps(1, (33,17), 9, 1),(x,r[:1]*0+20),(x,r-99)             # the last are on no image

def hold(run, module, cases, tol):
    for case in cases:
        for got,want in zip(run(*case), module(*case)): near(got, want, tol)

ROIS = (0,2,3),(0,)

@pytest.mark.parametrize('kind', ['boxes', *(pytest.param(o, marks=pytest.mark.slow) for o in TAILS if o!='boxes')])
def test_tail_in_runtimes(tmp_path, kind):
    net = Tail(kind); program = traced(net, crowd(100)); path = tmp_path/'tail.onnx'
    assert all(o.startswith(('aten.','<built-in','_operator','while_loop')) for o in operators(program)), operators(program)
    assert as_onnx(program, path)=={''}
    for run in (program.module(),in_ort(path),in_openvino(path)): hold(run, net, tail_cases(), 5e-5)

@pytest.mark.parametrize('kind', ['rotated', *(pytest.param(o, marks=pytest.mark.slow) for o in ALIGNS if o!='rotated')])
def test_aligns_in_runtimes(tmp_path, kind):
    net = Aligns(kind); program = traced(net, maps(), ROIS); path = tmp_path/'align.onnx'
    assert not [o for o in operators(program) if o.startswith('rotnb')] and as_onnx(program, path)=={''}
    tol = 1e-5 if kind!='half' else 2e-3
    for run in (program.module(),in_ort(path),in_openvino(path)): hold(run, net, align_cases(), tol)
