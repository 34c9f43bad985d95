"Pooling from rotated boxes agrees with the reference arrays, has right gradients, and takes any input"
import math, os
from pathlib import Path

import numpy as np, numba, pytest, torch
from rotnb.ops import roi_align as R
from rotnb.ops.roi_align import roi_align_rotated

SHARED = Path(os.environ.get('ROTNB_SHARED', Path(__file__).parents[2]/'shared'))

def oracle(name):
    f = SHARED/'oracle/ops'/f'{name}.npz'
    if not f.is_file(): pytest.skip(f'no reference data: oracle/ops/{name}.npz is absent (set ROTNB_SHARED)')
    z = np.load(f)
    return {k: torch.from_numpy(z[k]) if z[k].ndim else z[k].item() for k in z.files if z[k].dtype.kind in 'fi'}

def close(a, b, rtol=1e-4):
    "Within `rtol` of the largest number"
    assert a.shape==b.shape and (a-b).abs().max()<=rtol*b.abs().max()

def example(dtype=torch.float32, k=40, c=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    rois = torch.rand(k, 6, generator=g)*torch.tensor([2,160,120,90,60,2*math.pi])+torch.tensor([0,-10,-10,1,1,-math.pi])
    rois[:,0] = rois[:,0].floor()
    return torch.randn(2, c, 25, 35, generator=g, dtype=dtype),rois.to(dtype)

def both(f, x, w=None):
    "Result and input gradient of `f` at `x`"
    x = x.detach().requires_grad_()
    out = f(x)
    return out.detach(),torch.autograd.grad(out, x, torch.ones_like(out) if w is None else w)[0]

@pytest.mark.parametrize('clockwise', [0,1])
@pytest.mark.parametrize('aligned', [0,1])
@pytest.mark.parametrize('sampling_ratio', [0,2])
def test_reference(clockwise, aligned, sampling_ratio):
    z = oracle('roi_align_rotated')
    f = lambda x: roi_align_rotated(x, z['rois'], z['out_size'], z['spatial_scale'], sampling_ratio, bool(aligned), bool(clockwise))
    key = f'cw{clockwise}_al{aligned}_sr{sampling_ratio}'
    w = torch.from_numpy(np.random.RandomState(z['grad_weight_seed']).standard_normal(z['out_'+key].shape)).float()
    out,grad = both(f, z['input'], w)
    close(out, z['out_'+key]); close(grad, z['gradin_'+key])

def definition(x, rois, n, scale, ratio, aligned):
    "RoIAlign by its text, point by point, in Python"
    b,c,H,W = x.shape; out = torch.zeros(len(rois), c, n, n, dtype=x.dtype)
    def read(im, px, py):
        if not (-1<=px<=W and -1<=py<=H): return 0
        px,py = min(max(px, 0), W-1),min(max(py, 0), H-1)
        x0,y0 = min(int(px), W-2),min(int(py), H-2); fx,fy = px-x0,py-y0
        return im[:,y0,x0]*(1-fy)*(1-fx)+im[:,y0,x0+1]*(1-fy)*fx+im[:,y0+1,x0]*fy*(1-fx)+im[:,y0+1,x0+1]*fy*fx
    for k,(i,cx,cy,w,h,t) in enumerate(rois.double().tolist()):
        cx,cy,w,h = (o*scale for o in (cx,cy,w,h))
        if aligned: cx,cy = cx-.5,cy-.5
        else: w,h = max(w, 1),max(h, 1)
        nu,nv = (ratio or math.ceil(o/n) for o in (w,h))
        for r in range(n):
            for q in range(n):
                for j in range(nv):
                    for i_ in range(nu):
                        u,v = w*((q+(i_+.5)/nu)/n-.5),h*((r+(j+.5)/nv)/n-.5)
                        out[k,:,r,q] += read(x[int(i)], cx+u*math.cos(t)-v*math.sin(t), cy+u*math.sin(t)+v*math.cos(t))/(nu*nv)
    return out

@pytest.mark.parametrize('aligned', [True,False])
@pytest.mark.parametrize('ratio', [0,1,3])
def test_definition(aligned, ratio):
    x,rois = example(torch.float64, 12)
    torch.testing.assert_close(roi_align_rotated(x, rois, 3, .25, ratio, aligned), definition(x, rois, 3, .25, ratio, aligned), rtol=1e-9, atol=1e-9)

def test_gradcheck():
    x,rois = example(torch.float64, 8, 2)
    for ratio in (0,2): assert torch.autograd.gradcheck(lambda x: roi_align_rotated(x, rois, (2,3), .25, ratio), x[...,:9,:9].clone().requires_grad_())

def test_rois_get_no_gradient():
    x,rois = example()
    assert not roi_align_rotated(x, rois.requires_grad_(), 3).requires_grad

def test_threads_change_no_bit(monkeypatch):
    x,rois = example(c=70); f = lambda x: roi_align_rotated(x, rois, 7, .25)
    want = both(f, x, w:=torch.randn(40,70,7,7))
    monkeypatch.setattr(R, '_PARALLEL', 0); monkeypatch.setattr(R, 'may_parallel', lambda *_: True)
    for n in {1,numba.config.NUMBA_NUM_THREADS}:
        had = numba.get_num_threads(); numba.set_num_threads(n)
        try: assert all(a.equal(b) for a,b in zip(both(f, x, w), want))
        finally: numba.set_num_threads(had)

@pytest.mark.parametrize('layout', ['channels_last','slice','transposed','expanded'])
def test_layouts(layout):
    x,rois = example()
    y = dict(channels_last=x.contiguous(memory_format=torch.channels_last), slice=torch.cat([x,x],1)[:,:5],
             transposed=x.mT.contiguous().mT, expanded=x[:1,:1].expand(2,5,-1,-1))[layout]
    f = lambda x: roi_align_rotated(x, rois.repeat(1,2)[:,:6], 7, .25)
    for a,b in zip(both(f, y), both(f, y.contiguous())): assert a.equal(b)
    assert f(y).is_contiguous()

@pytest.mark.parametrize('dtype', [torch.float16,torch.bfloat16,torch.float32,torch.float64])
def test_dtypes(dtype):
    x,rois = example(); x = x.to(dtype)
    out,grad = both(lambda x: roi_align_rotated(x, rois, 3, .25), x)
    assert out.dtype==grad.dtype==dtype
    want,wgrad = both(lambda x: roi_align_rotated(x, rois, 3, .25), x.double())
    eps = torch.finfo(dtype).eps if dtype.itemsize<4 else 2e-6
    torch.testing.assert_close(out.double(), want, rtol=eps, atol=2e-6); torch.testing.assert_close(grad.double(), wgrad, rtol=eps, atol=2e-6)
    with torch.autocast('cpu', torch.bfloat16): assert roi_align_rotated(x, rois, 3, .25).equal(out)

def test_odd_rois():
    x,good = example(k=3); nan,inf = math.nan,math.inf
    odd = torch.tensor([[0,nan,9,9,9,0], [nan,9,9,9,9,0], [0,9,9,9,9,inf], [0,9,-inf,9,9,0], [0,9,9,9,-1,0], [0,9,9,0,9,0], [2,9,9,9,9,0], [-1,9,9,9,9,0],
                        [0,-500,9,9,9,1], [1,1e30,1e30,9,9,1], [0,3e38,0,3e38,1,1]])
    f = lambda r: both(lambda x: roi_align_rotated(x, r, 3, .25), x)
    out,grad = f(torch.cat([odd,good]))
    assert (out[:len(odd)]==0).all() and out[len(odd):].equal(f(good)[0]) and grad.equal(f(good)[1])
    out,grad = f(good[:0]); assert out.shape==(0,5,3,3) and (grad==0).all()

def test_a_nan_of_the_map_stays_where_it_is():
    x,rois = example(); x[0,2,4,4] = math.nan
    out = roi_align_rotated(x, rois, 7, .25)
    assert out[:,[0,1,3,4]].isfinite().all() and out[rois[:,0]==1].isfinite().all()

def test_a_stray_box_takes_no_minutes():
    x,_ = example()
    out = roi_align_rotated(x, torch.tensor([[0,80.,60,1e8,1e8,.3]]), 3)
    assert out.isfinite().all()

def test_empty_map():
    r = torch.tensor([[0,1.,1,2,2,0]])
    assert roi_align_rotated(torch.zeros(1,3,0,4), r, 2).abs().sum()==0 and roi_align_rotated(torch.zeros(0,3,4,4), r, 2).abs().sum()==0
    assert roi_align_rotated(torch.zeros(1,0,4,4), r, 2).shape==(1,0,2,2)
