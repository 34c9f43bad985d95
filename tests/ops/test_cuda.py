"The CUDA paths without a GPU: run in numba's simulator, and compiled to PTX where the compiler is installed"
import importlib.util, os, subprocess, sys
import pytest
from paths import ROOT


def run(code, **env): return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, env={**os.environ, **env}, timeout=600,
                                            stdin=subprocess.DEVNULL, check=True, capture_output=True, text=True).stdout

def simulate(code): run('''
import math, numpy as np, torch
from rotnb.all import *
from rotnb.ops import kernels, nms
from rotnb.ops.launch import on_cuda
g = torch.Generator().manual_seed(0)
def boxes(n, side=60): return torch.rand(n,5,generator=g)*torch.tensor([side,side,40,20,6.3])+torch.tensor([0,0,3,3,-3.1])
assert on_cuda(boxes(1))
'''+code, NUMBA_ENABLE_CUDASIM='1')

def test_iou(): simulate('''
a,b = boxes(9),boxes(7); a[0,2] = 0; a[1,0] = math.nan; b[2] = a[2]
for mode in ('iou','iof','giou'):
    m = getattr(kernels, mode.upper())
    cpu = kernels.iou_matrix(kernels.prepare(a.numpy()), kernels.prepare(b.numpy()), m)   # arrays stay on the CPU
    np.testing.assert_allclose(box_iou_rotated(a, b, mode).numpy(), cpu, atol=1e-7)
    np.testing.assert_allclose(box_iou_rotated(a[:7], b, mode, aligned=True).numpy(), cpu[range(7),range(7)], atol=1e-7)
    assert box_iou_rotated(a[:0], b, mode).shape==(0,7) and box_iou_rotated(a[:0], b[:0], mode, aligned=True).shape==(0,)
assert box_iou_rotated(a.double(), b).dtype==torch.float64
''')

def test_nms(): simulate('''
def walk(b, s, c, thr):
    ok = (b.isfinite().all(1) & ~s.isnan()).numpy()
    order = s.double().argsort(descending=True, stable=True).numpy(); order = order[ok[order]]
    return order[nms._nms_walk(kernels.prepare(b.numpy()[order]), c.numpy()[order], thr, -1)].tolist()
b = boxes(70); b[:20,2:4] *= .2; b[30] = b[31]; b[5,2] = 0; b[6,1] = math.nan
s = torch.rand(70,generator=g); s[40:50] = .5; s[9] = math.nan; c = torch.arange(70)%2
for thr in (0,.1,.5,1): assert batched_nms_rotated(b, s, c, thr).tolist()==walk(b, s, c, thr), thr
assert nms_rotated(b, s, .1, max_num=3).tolist()==walk(b, s, c*0, .1)[:3]
assert nms_rotated(b[:0], s[:0], .1).shape==(0,) and nms_rotated(b[5:7], s[5:7], .1).tolist()==[0]
# each touches the next: the longest dependence there is
chain = torch.stack([torch.arange(40)*4., *(torch.full((40,), o) for o in (0.,10,5,0))], 1)
assert nms_rotated(chain, -torch.arange(40.), .2).tolist()==list(range(0,40,2))
''')

def test_roi_align(): simulate('''
from rotnb.ops import roi_align as R
x = torch.randn(2,6,5,3,generator=g)                                    # channels last, as the operators have it
rois = torch.tensor([[0,9.,8,14,6,.5], [1,2,20,30,9,-2], [1,8,8,4,4,0], [0,math.nan,1,1,1,1], [0,90,90,5,5,0]])
L = R.roi_lattice(rois, (2,6,5), (2,3), .25, 0)
want,grad,w = np.zeros((5,2,3,3), np.float32),np.zeros((60,3), np.float32),torch.randn(5,2,3,3,generator=g)
R._read_serial(x.reshape(-1,3).numpy(), L.numpy(), 6, 5, want); R._write_slice(w.numpy(), L.numpy(), 6, 5, 0, 3, grad)   # the CPU's loops
x.requires_grad_(); out = torch.ops.rotnb.roi_read(x, L, 2, 3)
np.testing.assert_allclose(out.numpy(force=True), want, atol=1e-6); assert (want!=0).any((1,2,3)).tolist()==[True]*3+[False]*2
for ordered in (False,True):
    torch.use_deterministic_algorithms(ordered)
    got, = torch.autograd.grad(out, x, w, retain_graph=True)
    np.testing.assert_allclose(got.reshape(-1,3), grad, atol=1e-6)
assert roi_align_rotated(x.permute(0,3,1,2), rois[:0], 2).shape==(0,3,2,2)
''')

def test_quads(): simulate('''
from rotnb.ops import convex
a,b = rbox2qbox(boxes(8).double()),rbox2qbox(boxes(6).double()); a[0] *= 0; a[1,2] = math.nan; b[2] = a[2]; b[3] = b[3].flip(0)
A,B = (kernels.prepare(o.flatten(1).numpy()) for o in (a,b))       # arrays stay on the CPU
for mode in ('iou','iof','giou'):
    m = getattr(kernels, mode.upper()); cpu = np.empty((8,6)); convex._matrix_serial(A, B, m, cpu)
    np.testing.assert_allclose(box_iou_quad(a, b, mode).numpy(), cpu, atol=1e-12)
    np.testing.assert_allclose(box_iou_quad(a[:6], b, mode, aligned=True).numpy(), cpu[range(6),range(6)], atol=1e-12)
    assert box_iou_quad(a[:0], b, mode).shape==(0,6) and box_iou_quad(a[:0], b[:0], mode, aligned=True).shape==(0,)
assert box_iou_quad(a.float(), b.float()).dtype==torch.float32
p = torch.rand(5,9,2,generator=g).double()*60; h = kernels.prepare(convex_hull(p).flatten(1).numpy())
cpu = np.empty((5,6)); convex._matrix_serial(h, B, 0, cpu); np.testing.assert_allclose(convex_iou(p, b).numpy(), cpu, atol=1e-12)
pts = torch.cat([a[2:,0], torch.rand(9,2,generator=g)*60])
cpu = np.empty((15,6), bool)
convex._inside_serial(pts.numpy(), b.flatten(1).numpy(), cpu)
assert (points_in_polygons(pts, b).numpy()==cpu).all() and cpu.any() and points_in_polygons(pts[:0], b).shape==(0,6)
q = boxes(40, 50); s = torch.rand(40,generator=g)
assert nms_quad(rbox2qbox(q), s, .1).tolist()==nms_rotated(q, s, .1).tolist() and nms_quad(a[:0], s[:0], .1).shape==(0,)
o = s.argsort(descending=True).numpy(); walk = nms._nms_walk(kernels.prepare(rbox2qbox(q).flatten(1).numpy()[o]), np.zeros(40), .1, -1)
assert nms_quad(rbox2qbox(q), s, .1).tolist()==o[walk].tolist()
''')

# Results that the simulated kernels must repeat; a subprocess with and one without the simulator print them
FUSION = '''
import math, torch
from rotnb.ops.fusion import *
g = torch.Generator().manual_seed(0)
b = torch.rand(60,5,generator=g)*torch.tensor([90,90,40,20,6.3])+torch.tensor([0,0,3,3,-3.1])
b[:20,2:4] *= .2; b[30] = b[31]; b[5,2] = 0; b[6,1] = math.nan
s = torch.rand(60,generator=g); s[40:50] = .5; s[9] = math.nan; c = torch.arange(60)%2
for kw in (dict(), dict(sigma=.1, min_score=.1), dict(method='linear', iou_threshold=.2, max_num=30), dict(idxs=c)):
    keep,new = soft_nms_rotated(b, s, **kw); print(keep.tolist(), [f'{o:.6g}' for o in new.tolist()])
chain = torch.stack([torch.arange(20)*4., *(torch.full((20,), o) for o in (0.,10,5,0))], 1)     # each touches the next
print(soft_nms_rotated(chain, 1-torch.arange(20.)/40)[0].tolist(),
      [len(o) for o in soft_nms_rotated(b[:0], s[:0])+soft_nms_rotated(b[6:7], s[6:7])])
for kw in (dict(), dict(iou_threshold=.1, weights=[2,1]), dict(conf_type='max', iou_threshold=.3, skip_thr=.2)):
    print([[f'{x:.5g}' for x in o.flatten().tolist()]
           for o in weighted_boxes_fusion([b,b.flip(0)+.5], [s,s.flip(0)], [c,c.flip(0)], **kw)])
print([tuple(o.shape) for o in weighted_boxes_fusion([b[:0]], [[]], [[]])])
'''

def test_fusion():
    plain = run(FUSION)
    assert plain.count('\n')==9 and run(FUSION, NUMBA_ENABLE_CUDASIM='1')==plain

def test_kernels_compile_for_the_gpu():
    "To PTX for compute capability 9.0; the device's properties are all that a GPU would be asked for"
    if not all(importlib.util.find_spec(o) for o in ('numba_cuda','cuda.bindings')): pytest.skip('numba-cuda is not installed')
    run('''
import types
import numba.cuda.dispatcher as D
from numba import cuda, float32 as f4, float64 as f8, int64 as i8, int8 as i1, uint8 as u1
from rotnb.ops import kernels as K, nms as N, fusion as F, convex as C, roi_align as R
D.get_current_device = lambda: types.SimpleNamespace(compute_capability=(9,0))
P,G,V,I = f8[:,::1],f8[:,::1],f8[::1],i8[::1]
sigs = {K._prepare_cuda:[(i8,P,P)], K._matrix_cuda:[(i8,P,P,i8,o[:,::1]) for o in (f4,f8)],
        K._aligned_cuda:[(i8,P,P,i8,o[::1]) for o in (f4,f8)],
        C._matrix_cuda:[(i8,P,P,i8,o[:,::1]) for o in (f4,f8)], C._aligned_cuda:[(i8,P,P,i8,o[::1]) for o in (f4,f8)],
        C._inside_cuda:[(i8,P,P,u1[:,::1])],
        N._levels_cuda:[(i8,P,G,I)], N._grid_cuda:[(i8,I,G)], N._cells_cuda:[(i8,P,G,I,I)], N._round_cuda:[(i8,P,I,f8,G,I,I,i1[::1])],
        F._soft_cuda:[(i8,P,I,G,I,I,*(i1[::1],V)*2,i8,f8,f8,f8)], F._fuse_cuda:[(i8,P,P,V,I,f8,P,V,P,I,I)],
        R._read_cuda:[(i8,o[:,::1],P,i8,i8,o[:,:,:,::1]) for o in (f4,f8)],
        **{k:[(i8,o[:,:,:,::1],P,i8,i8,o[:,::1]) for o in (f4,f8)] for k in (R._write_cuda,R._write_in_order_cuda)}}
for k,ss in sigs.items():
    for s in ss: assert 'visible .entry' in cuda.compile_ptx(k.py_func, s, cc=(9,0))[0]
left = [n for m in (K,N,F,C,R) for n,o in vars(m).items() if isinstance(o, D.CUDADispatcher) and o not in sigs]
assert not left, f'kernels without a signature here: {left}'
''')
