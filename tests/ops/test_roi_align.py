"Pooling from rotated boxes agrees with the reference arrays, has right gradients, and takes any input"
import math

import numpy as np, numba, pytest, torch
from rotnb.geometry.boxes import rbox2qbox
from rotnb.ops import roi_align as R
from rotnb.ops.roi_align import roi_align_rotated
from rotnb.ops.align import active_rotated_filter, riroi_align_rotated, rotated_feature_align
from torchvision.ops import deform_conv2d
from paths import SHARED


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
    args = x,rois,3,.25,ratio,aligned
    torch.testing.assert_close(roi_align_rotated(*args), definition(*args), rtol=1e-9, atol=1e-9)

def test_gradcheck():
    x,rois = example(torch.float64, 8, 2)
    x = x[...,:9,:9].clone().requires_grad_()
    for ratio in (0,2): assert torch.autograd.gradcheck(lambda x: roi_align_rotated(x, rois, (2,3), .25, ratio), x)

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
    for a,b in ((out,want), (grad,wgrad)): torch.testing.assert_close(a.double(), b, rtol=eps, atol=2e-6)
    with torch.autocast('cpu', torch.bfloat16): assert roi_align_rotated(x, rois, 3, .25).equal(out)

def test_odd_rois():
    x,good = example(k=3); nan,inf = math.nan,math.inf
    odd = torch.tensor([[0,nan,9,9,9,0], [nan,9,9,9,9,0], [0,9,9,9,9,inf], [0,9,-inf,9,9,0], [0,9,9,9,-1,0], [0,9,9,0,9,0],
                        [2,9,9,9,9,0], [-1,9,9,9,9,0], [0,-500,9,9,9,1], [1,1e30,1e30,9,9,1], [0,3e38,0,3e38,1,1]])
    f = lambda r: both(lambda x: roi_align_rotated(x, r, 3, .25), x)
    out,grad = f(torch.cat([odd,good]))
    assert (out[:len(odd)]==0).all() and out[len(odd):].equal(f(good)[0])
    torch.testing.assert_close(grad, f(good)[1])      # on a GPU sums differ in the last bits
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

# --- align

@pytest.mark.parametrize('points', [1,5])
def test_feature_align_reference(points):
    "The reference operator takes each box's cx for y and cy for x: ours agrees with the two exchanged, and does not without"
    z = oracle('rotated_feature_align')
    f = lambda b: rotated_feature_align(z['feat'], b, z['spatial_scale'], points)
    close(f(z['bboxes'][...,[1,0,2,3,4]]), z[f'out_points{points}'], 1e-5)
    assert (f(z['bboxes'])-z[f'out_points{points}']).abs().max()>1

@pytest.mark.parametrize('points', [1,5])
def test_feature_align_definition(points):
    g = torch.Generator().manual_seed(1); x = torch.randn(2,3,7,9,generator=g,dtype=torch.float64)
    b = torch.rand(2,7,9,5,generator=g,dtype=torch.float64)*torch.tensor([40,30,25,25,6.3])
    at = b[...,None,:2] if points==1 else torch.cat([b[...,None,:2], rbox2qbox(b)], -2)
    at = at.permute(0,3,1,2,4).reshape(2,points,63,2)/4
    grid = at/torch.tensor([8,6])*2-1
    inside = ((at>=-1)&(at<=torch.tensor([9,7]))).all(-1)
    read = torch.nn.functional.grid_sample(x, grid, padding_mode='border', align_corners=True)*inside[:,None]
    torch.testing.assert_close(rotated_feature_align(x, b, 1/4, points), x+read.sum(2).view_as(x), rtol=1e-9, atol=1e-9)

def test_deformable_convolution_reference():
    "torchvision's: for each of the kernel's points, row by row, an offset in y and then one in x"
    z = oracle('deform_conv')
    leaf = {k: z[k].clone().requires_grad_() for k in ('x','off','w','mask')}
    y = deform_conv2d(leaf['x'], leaf['off'], leaf['w'], padding=1)
    y2 = deform_conv2d(leaf['x'], leaf['off'], leaf['w'], z['bias'], padding=1, mask=leaf['mask'])
    close(y.detach(), z['y'], 1e-5); close(y2.detach(), z['y2'], 1e-5)
    for out,p,ks in ((y,'g',('x','w','off')), (y2,'g2',('x','w','off','mask'))):
        for k,got in zip(ks, torch.autograd.grad(out, [leaf[k] for k in ks], z['g'])): close(got, z[p+k], 1e-4)

def test_deformable_convolution_offsets_are_y_first():
    x = torch.arange(49.).view(1,1,7,7); w = torch.zeros(1,1,3,3); w[0,0,0,2] = 1      # reads one up, one right: point 2
    off = torch.zeros(1,18,7,7); off[:,4] = 2; off[:,5] = -1                            # and is sent two down, one left
    assert deform_conv2d(x, off, w, padding=1)[0,0,3,3]==x[0,0,3-1+2,3+1-1]

@pytest.mark.parametrize('neighbour', [1,-1])
@pytest.mark.parametrize('clockwise', [False,True])
def test_riroi_definition(clockwise, neighbour):
    x,rois = example(torch.float64, 12, 8); n = 4
    pooled = roi_align_rotated(x, rois, 3, .25, 2, aligned=False, clockwise=clockwise)
    want = torch.zeros_like(pooled)
    for k,t in enumerate(rois[:,5].tolist()):
        r = math.floor(t*n/(2*math.pi)); share = t*n/(2*math.pi)-r
        for c in range(8//n):
            for o in range(n): want[k,c*n+o] = (1-share)*pooled[k,c*n+(o-r)%n]+share*pooled[k,c*n+(o-r+neighbour)%n]
    torch.testing.assert_close(riroi_align_rotated(x, rois, 3, .25, 2, n, clockwise, neighbour), want)

@pytest.mark.parametrize('dtype', [torch.float16,torch.bfloat16])
def test_align_dtypes(dtype):
    x,rois = example(c=8); x = x.to(dtype).requires_grad_(); b = torch.rand(2,25,35,5)*100
    for f in (lambda x: riroi_align_rotated(x, rois, 3, .25), lambda x: rotated_feature_align(x, b, .25, 5)):
        out = f(x); want = f(x.float())
        with torch.autocast('cpu', torch.bfloat16): assert f(x).equal(out)
        assert out.dtype==dtype and out.equal(want.to(dtype)) and torch.autograd.grad(out.sum(), x)[0].dtype==dtype

@pytest.mark.parametrize('o,r', [(1,8),(8,8),(4,4),(8,4),(4,8),(1,4)])
def test_filters_turn_with_the_image(o, r):
    "A quarter turn of a filter turns its pixels by a quarter and moves its orientations on by a quarter"
    w = torch.randn(2,3,o,3,3); out = active_rotated_filter(w, r).view(2,r,3,o,3,3)
    for q in range(4): assert out[:,q*r//4].equal(w.rot90(-q, (3,4)).roll(q*o//4, 2))
