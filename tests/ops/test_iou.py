"Rotated IoU against float64 truth computed another way, on the sets where known operators fail"
import math, subprocess, sys

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from rotnb.geometry.polygons import clip_polygon, convex_hull, polygon_area
from rotnb.ops.iou import box_iou_rotated
from rotnb.ops.torch_ops import box_iou_torch
from box_pairs import SETS, quads, stress
from paths import ROOT, SHARED

iou1 = lambda a,b,mode='iou': box_iou_rotated(torch.tensor(np.array([a])), torch.tensor(np.array([b])), mode, aligned=True).item()


def truth(a, b, mode='iou'):
    "Polygon clipping and hulls in plain numpy: shares no code with the kernels"
    if not (min(*a[2:4], *b[2:4])>0 and np.isfinite([*a,*b]).all()): return 0.
    qa,qb = quads(a, b); aa,ab = (float(o[2])*float(o[3]) for o in (a, b))
    inter = polygon_area(clip_polygon(qa, qb)) if aa<ab else polygon_area(clip_polygon(qb, qa))
    union = aa+ab-inter
    if mode=='iof': return inter/aa
    if mode=='iou': return inter/union
    hull = polygon_area(convex_hull(np.r_[qa,qb])); return inter/union-(hull-union)/hull



@pytest.mark.parametrize('mode', ['iou','iof','giou'])
@pytest.mark.parametrize('name', SETS)
def test_stress(name, mode):
    a,b = stress(name); exact = np.array([truth(x, y, mode) for x,y in zip(a,b)])
    ta,tb = torch.from_numpy(a),torch.from_numpy(b); got = box_iou_rotated(ta, tb, mode, aligned=True)
    assert got.dtype==torch.float32 and np.abs(got.numpy()-exact).max()<1e-6
    back = box_iou_rotated(tb, ta, mode, aligned=True)
    if mode!='iof': assert torch.equal(got, back)
    assert torch.equal(box_iou_rotated(ta, tb, mode).diagonal(), got)
    if mode=='iou': assert (box_iou_torch(ta, tb).diagonal()-torch.from_numpy(exact)).abs().max()<1e-5
    if mode=='iou' and name=='w+1': assert np.abs(got.numpy()-a[:,2].astype(float)/b[:,2]).max()<1e-6

pos,size,turn = st.floats(-300, 300, width=32),st.floats(2**-6, 500, width=32),st.floats(-7, 7, width=32)
box = st.tuples(pos, pos, size, size, turn)

@settings(deadline=None, max_examples=300)
@given(box, box)
def test_properties(a, b):
    i,j = iou1(a, b),iou1(b, a)
    assert i==j and 0<=i<=1
    assert iou1(a, b, 'giou')==iou1(b, a, 'giou') and -1<=iou1(a, b, 'giou')<=i+1e-12
    assert i==pytest.approx(truth(a, b), abs=1e-8)
    assert iou1(a, a)==pytest.approx(1, abs=1e-9)
    assert 0<=iou1(a, b, 'iof')<=1

@settings(deadline=None, max_examples=150)
@given(box, box, turn, pos, pos)
def test_moving_both_changes_nothing(a, b, t, dx, dy):
    c,s = math.cos(t),math.sin(t)
    move = lambda o: (c*o[0]-s*o[1]+dx, s*o[0]+c*o[1]+dy, o[2], o[3], o[4]+t)
    for mode in ('iou', 'giou'): assert iou1(move(a), move(b), mode)==pytest.approx(iou1(a, b, mode), abs=1e-7)

@settings(deadline=None)
@given(box, st.floats(.05, 1), st.floats(.05, 1))
def test_inside(a, fw, fh):
    b = (a[0], a[1], a[2]*fw, a[3]*fh, a[4])
    assert iou1(a, b)==pytest.approx(fw*fh, abs=1e-7) and iou1(b, a, 'iof')==pytest.approx(1, abs=1e-9)

def test_extreme_numbers_give_finite_results():
    v = [0, -1, 1e-300, 1e-30, 1, 1e30, 1e300, math.inf, -math.inf, math.nan]
    b = torch.tensor([[x,y,w,h,t] for x in v for y in (0,1e300) for w in v for h in (1,1e-300,1e300) for t in (0.,1e300)],
                     dtype=torch.float64)[::3]
    for mode in ('iou','iof','giou'):
        m = box_iou_rotated(b, b, mode); assert m.isfinite().all() and m.max()<=1+1e-9 and m.min()>=-1

def test_reference_pairs():
    f = SHARED/'oracle/ops'
    if not f.exists(): pytest.skip('no reference folder')
    d = np.load(f/'iou_pairs.npz', allow_pickle=True)
    for i,name in enumerate(d['names']):
        a,b = (torch.from_numpy(d[f'{i:02d}_{k}']) for k in ('b1','b2'))
        assert np.abs(box_iou_rotated(a, b, aligned=True).numpy()-d[f'{i:02d}_exact_f64']).max()<1e-6, name
    d = np.load(f/'iou_mmcv_failures.npz')
    got = box_iou_rotated(torch.from_numpy(d['b1']), torch.from_numpy(d['b2']), aligned=True).numpy()
    assert np.abs(got-d['exact_f64']).max()<1e-6 and np.abs(d['mmcv']-d['exact_f64']).max()>.01
    d = np.load(f/'iou_matrix.npz')
    got = box_iou_rotated(torch.from_numpy(d['boxes1']), torch.from_numpy(d['boxes2'])).numpy()
    assert np.abs(got-d['exact_f64']).max()<1e-6

def test_threads_and_forks():
    "Large problems from several threads and from a forked process: numba's parallel region would end the process"
    code = '''
import os, threading, torch, multiprocessing as mp
from rotnb.ops.iou import box_iou_rotated
b = torch.rand(400,5, generator=torch.Generator().manual_seed(0))*50
ref = box_iou_rotated(b, b).numpy(); out = {}
def work(q=None):
    r = bool((box_iou_rotated(b, b).numpy()==ref).all())
    if q is not None: q.put(r)
    out[threading.get_ident()] = r
ts = [threading.Thread(target=work) for _ in range(4)]
for t in ts: t.start()
for t in ts: t.join()
assert all(out.values())
ctx = mp.get_context('fork')
q = ctx.Queue()
p = ctx.Process(target=work, args=(q,))
p.start()
assert q.get(timeout=60)
p.join()
assert p.exitcode==0
'''
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, timeout=120, stdin=subprocess.DEVNULL)
