"The stress suite: the truth against itself, IoU and NMS against the truth, on every set and on what hypothesis thinks of"
import math, os, subprocess, sys
from pathlib import Path

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from rotnb.measure.exact import digits_iou, exact_iou, nms_mistakes
from rotnb.ops.iou import box_iou_rotated
from rotnb.ops.nms import batched_nms_rotated, nms_rotated
from rotnb.measure.stress import DEGENERATE, PEERS, REPORTED, STRESS, iou_implementations, iou_wall, stress_pairs
from paths import ROOT

SHARED = Path(os.environ.get('ROTNB_SHARED', ROOT.parent/'shared'))

# --- the truth

def exact1(a, b): return exact_iou(np.array([a], np.float64), np.array([b], np.float64))[0]

coord,size,turn = st.floats(-200, 200, width=32),st.floats(2**-7, 300, width=32),st.floats(-40, 40, width=32)
box = st.tuples(coord, coord, size, size, turn)

@st.composite
def near_pair(draw):
    "A box, and another that differs from it by as little as hypothesis likes"
    a = draw(box)
    d = [draw(st.floats(-1, 1))*10.**draw(st.integers(-9, 1)) for _ in range(5)]
    b = [a[0]+d[0], a[1]+d[1], abs(a[2]*(1+d[2]))+1e-3, abs(a[3]*(1+d[3]))+1e-3, a[4]+d[4]]
    if draw(st.booleans()): b = [b[0],b[1],b[3],b[2],b[4]+math.pi/2]
    return tuple(np.array([o], np.float32) for o in (a, b))

@settings(deadline=None, max_examples=60)
@given(near_pair())
def test_truth_to_its_last_digits(pair):
    a,b = (o[0].astype(float) for o in pair)
    assert exact1(a, b)==pytest.approx(float(digits_iou(a, b)), abs=1e-10)
    assert exact1(b, a)==pytest.approx(exact1(a, b), abs=1e-10)

@settings(deadline=None)
@given(box, st.floats(.01, 1), st.floats(.01, 1), st.floats(0, 1), st.floats(0, 1))
def test_truth_of_contained_boxes(a, fw, fh, u, v):
    "Anywhere inside: the ratio of the areas"
    du,dv,c,s = (u-.5)*(1-fw)*a[2],(v-.5)*(1-fh)*a[3],math.cos(a[4]),math.sin(a[4])
    assert exact1(a, (a[0]+c*du-s*dv, a[1]+s*du+c*dv, a[2]*fw, a[3]*fh, a[4]))==pytest.approx(fw*fh, abs=1e-9)

@settings(deadline=None)
@given(box, st.floats(-2, 2), st.floats(-2, 2))
def test_truth_of_moved_boxes(a, u, v):
    "Moved in its own frame by shares of its sides"
    du,dv,c,s = u*a[2],v*a[3],math.cos(a[4]),math.sin(a[4])
    i = max(0, 1-abs(u))*max(0, 1-abs(v))
    assert exact1(a, (a[0]+c*du-s*dv, a[1]+s*du+c*dv, *a[2:]))==pytest.approx(i/(2-i), abs=1e-9)

@settings(deadline=None)
@given(st.floats(1, 100), st.floats(1e-3, 1), st.floats(.1, math.pi-.1), turn)
def test_truth_of_crossed_slivers(w, h, phi, t):
    "They share a parallelogram, where they are long enough for it"
    w = w+3*h/math.sin(phi)
    i = h*h/math.sin(phi)
    assert exact1((0,0,w,h,t), (0,0,w,h,t+phi))==pytest.approx(i/(2*w*h-i), rel=1e-9)

@settings(deadline=None)
@given(st.floats(0, math.pi/4), st.floats(.01, 1e4), turn)
def test_truth_of_turned_squares(phi, w, t):
    "Eight right triangles are missing: the share of a square is 2 / (1 + sin phi + cos phi)"
    i = 2/(1+math.sin(phi)+math.cos(phi))
    assert exact1((5,7,w,w,t), (5,7,w,w,t+phi))==pytest.approx(i/(2-i), abs=1e-9)

def test_truth_against_the_reference_folder():
    f = SHARED/'oracle/ops/iou_pairs.npz'
    if not f.exists(): pytest.skip('no reference folder')
    d = np.load(f, allow_pickle=True)
    for i,name in enumerate(d['names']):
        assert np.abs(exact_iou(d[f'{i:02d}_b1'], d[f'{i:02d}_b2'])-d[f'{i:02d}_exact_f64']).max()<1e-9, name

def test_truth_of_bad_boxes():
    b = torch.tensor([[1,2,3,4,math.nan],[1,2,3,math.inf,0],[1,2,0,4,0],[1,2,-3,-4,0],[1,2,3,4,0.]])
    assert exact_iou(b, b).tolist()==[0,0,0,0,1] and exact_iou(b[:0], b[:0]).shape==(0,)

# --- IoU

@pytest.mark.parametrize('name', STRESS)
def test_iou(name):
    "Error, symmetry, and the same from every form of the call"
    for seed in range(3):
        a,b = stress_pairs(name, 1000, seed)
        got = box_iou_rotated(a, b, aligned=True)
        assert got.dtype==torch.float32
        assert np.abs(got.double().numpy()-exact_iou(a, b)).max()<=1e-5
        assert torch.equal(got, box_iou_rotated(b, a, aligned=True))
        m = box_iou_rotated(a[:200], b[:200])
        assert torch.equal(m.diagonal(), got[:200]) and torch.equal(m.T, box_iou_rotated(b[:200], a[:200]))
        assert np.abs(box_iou_rotated(a.double(), b.double(), aligned=True).numpy()-exact_iou(a, b)).max()<=1e-9

@settings(deadline=None, max_examples=500)
@given(near_pair())
def test_iou_of_any_near_pair(pair):
    a,b = map(torch.from_numpy, pair)
    got = box_iou_rotated(a, b)
    assert abs(got.item()-exact_iou(a, b)[0])<=1e-5 and torch.equal(got, box_iou_rotated(b, a))

@settings(deadline=None, max_examples=300)
@given(box, box)
def test_iou_of_any_pair(a, b):
    a,b = torch.tensor([a]),torch.tensor([b])
    assert abs(box_iou_rotated(a, b).item()-exact_iou(a, b)[0])<=1e-5

def test_reported_pairs():
    "What was reported is far from the truth, which is what rotnb gives"
    for name,(a,b,reported) in REPORTED.items():
        iou = box_iou_rotated(torch.tensor([a]), torch.tensor([b])).item()
        assert abs(iou-exact1(np.float32(a), np.float32(b)))<=1e-5<.2<abs(iou-reported), name

# --- the wall

def test_sets_are_repeatable_and_do_what_they_say():
    for name in STRESS:
        a,b = stress_pairs(name, 100)
        c,d = stress_pairs(name, 100)
        assert a.numpy().tobytes()==c.numpy().tobytes() and b.numpy().tobytes()==d.numpy().tobytes()
        if name!=DEGENERATE: assert (a.isfinite()&b.isfinite()).all() and a[:,2:4].min()>0 and b[:,2:4].min()>0
    assert not torch.equal(stress_pairs('generic', 100)[0], stress_pairs('generic', 100, 1)[0])
    least = {'identical':1-1e-12, 'near-identical 1e-7':.999, 'w <-> h and +90 deg':.999, 'whole turns':.999, 'w + 1 px':.9}
    for name,lo in least.items(): assert exact_iou(*stress_pairs(name)).min()>=lo, name

def test_peers_agree_where_it_is_easy():
    fs = iou_implementations()
    assert 'rotnb' in fs and len(fs)>1
    for o in iou_wall(fs, 200, sets=['generic']): assert o['max_err']<1e-3, o

def test_no_peer_is_needed(monkeypatch):
    def absent(): raise ImportError
    for k in PEERS: monkeypatch.setitem(PEERS, k, absent)
    assert list(iou_implementations())==['rotnb']

def test_peers_are_imported_when_asked_for():
    heavy = 'cv2','shapely','supervision','fastai','matplotlib'
    code = f"import sys, rotnb.measure.stress; assert not [o for o in {heavy} if o in sys.modules]"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)

# --- NMS

def scores(n, seed=0): return torch.from_numpy(np.random.default_rng(seed).random(n).astype(np.float32))

@pytest.mark.parametrize('thr', [0., .1, .3, .5, .9, 1.])
@pytest.mark.parametrize('name', STRESS)
def test_nms(name, thr):
    "Both sides of all pairs as one set of boxes"
    b = torch.cat(stress_pairs(name, 120))
    s = scores(len(b))
    assert nms_mistakes(nms_rotated(b, s, thr), b, s, thr)==[]

@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(near_pair(), st.floats(0, 1, width=16)), max_size=12), st.floats(0, 1))
def test_nms_of_any_boxes(items, thr):
    b = torch.from_numpy(np.concatenate([np.zeros((0,5), np.float32), *(o for p,_ in items for o in p)]))
    s = torch.tensor([o for _,v in items for o in (v, v*.9)])
    assert nms_mistakes(nms_rotated(b, s, thr), b, s, thr)==[]

def test_batched_nms():
    "Each class alone gives the same"
    b = torch.cat(stress_pairs('generic', 300))
    s,c = scores(len(b)),torch.arange(len(b))%7
    keep = batched_nms_rotated(b, s, c, .3)
    assert s[keep].diff().max()<=0
    for k in range(7):
        i = (c==k).nonzero()[:,0]
        mine = keep[c[keep]==k]
        assert nms_mistakes(torch.searchsorted(i, mine), b[i], s[i], .3)==[]

def test_mistakes_are_found():
    "The check has to notice what it is for: on a real result, any box more or less"
    b = torch.cat(stress_pairs('generic', 60))
    s = scores(len(b))
    keep = nms_rotated(b, s, .3).tolist()
    for j in range(len(b)):
        other = [o for o in keep if o!=j] if j in keep else sorted([*keep, j], key=lambda o: -s[o])
        assert nms_mistakes(other, b, s, .3)

# --- memory

@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='needs the peak memory counter of Linux')
@pytest.mark.parametrize('mode', ['iou', 'giou'])
def test_matrix_needs_no_memory_beyond_the_result(mode):
    "64 MB come out; what is needed on the way is of the size of the boxes"
    code = f'''
import torch
from rotnb.ops.iou import box_iou_rotated
from rotnb.measure.speed import peak_memory
b = torch.rand(4000, 5, generator=torch.Generator().manual_seed(0))*50
box_iou_rotated(b[:300], b[:300], {mode!r})                        # compile, start the threads
print(peak_memory(lambda: box_iou_rotated(b, b, {mode!r}))/(4000*4000*4))'''
    ratio = float(subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, text=True))
    assert .9<ratio<1.1, ratio
