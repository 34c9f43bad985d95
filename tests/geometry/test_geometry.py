"Boxes and polygons: properties that must hold for any input, and the reference arrays"
import json, math, subprocess, sys, time

import numpy as np, pytest, torch
from hypothesis import example, given, settings, strategies as st
from rotnb.geometry.boxes import (ANGLES, canonicalize, circumscribed_hbox, from_frame, hbox2rbox, qbox2rbox, rbox2hbox, rbox2qbox,
                                  to_frame)
from rotnb.geometry.polygons import clip_polygon, convex_hull, min_area_rect, polygon_area
from paths import ROOT, SHARED

TURNED = [form for form in ANGLES if form!='hbb']         # forms that spell the same rectangle; test_upright.py is of the other
RANGES = dict(le90=(-math.pi/2, math.pi/2), le135=(-math.pi/4, 3*math.pi/4), oc=(0, math.pi/2))
pos,size,turn = st.floats(-5e4, 5e4),st.floats(.01, 2000),st.floats(-20, 20)
boxes = st.tuples(pos, pos, size, size, turn)

def same_corners(a, b, tol): # the same set of corners, whichever comes first
    d = np.linalg.norm(a[:,None]-b[None], axis=-1)
    return d.min(0).max()<tol and d.min(1).max()<tol

def in_range(t, angle):
    lo,hi = (t.dtype.type(o) for o in RANGES[angle])
    return (lo<t)&(t<=hi) if angle=='oc' else (lo<=t)&(t<hi)

@settings(deadline=None)
@given(boxes, st.sampled_from(TURNED), st.sampled_from([np.float32, np.float64]))
def test_canonical(b, angle, dt):
    b = np.array(b, dt); r = canonicalize(b, angle)
    assert r.dtype==dt and in_range(r[4:], angle).all()
    assert angle=='oc' or r[2]>=r[3]
    np.testing.assert_array_equal(canonicalize(r, angle), r)
    eps = np.finfo(dt).eps
    assert same_corners(rbox2qbox(b.astype(float)), rbox2qbox(r.astype(float)), 40*eps*max(b[2:4].max(), 1))

@settings(deadline=None)
@given(boxes, st.sampled_from(TURNED))
def test_corners_and_back(b, angle):
    b = np.array(b); q = rbox2qbox(b); r = qbox2rbox(q, angle)
    assert in_range(r[4:], angle).all()
    assert same_corners(rbox2qbox(r), q, 1e-6)
    np.testing.assert_allclose(rbox2hbox(b), np.r_[q.min(0),q.max(0)], atol=1e-9, rtol=1e-12)
    assert polygon_area(q, signed=True)==pytest.approx(b[2]*b[3], rel=1e-6)   # clockwise as displayed

@pytest.mark.parametrize('dt', [np.float32, np.float64])
@pytest.mark.parametrize('angle', TURNED)
def test_range_ends(angle, dt):
    "Every float within 3 steps of every multiple of an eighth turn near the range"
    ts = []
    for k in range(-40, 41):
        t = dt(k*math.pi/4); ts.append(t)
        for way in (-100, 100):
            s = t
            for _ in range(3): s = np.nextafter(s, dt(way)); ts.append(s)
    ts = np.array(ts, dt)
    for w,h in ((8,3), (3,8), (5,5)):
        b = np.stack([0*ts, 0*ts, 0*ts+w, 0*ts+h, ts], -1).astype(dt); r = canonicalize(b, angle)
        assert in_range(r[:,4], angle).all()
        np.testing.assert_array_equal(canonicalize(r, angle), r)
        tol = 200*np.finfo(dt).eps
        for x,y in zip(rbox2qbox(b.astype(float)), rbox2qbox(r.astype(float))): assert same_corners(x, y, tol)

@pytest.mark.parametrize('angle', ['le90', 'le135'])
def test_square_has_one_form(angle):
    sq = np.array([[9,9,6,6,.2+k*math.pi/2] for k in range(-5, 6)]); r = canonicalize(sq, angle)
    np.testing.assert_allclose(r[:,4], .2, atol=1e-12)
    assert ((-math.pi/4<=r[:,4])&(r[:,4]<math.pi/4)).all()

def test_gradients():
    x = torch.tensor([[5.,6,8,3,.4], [5,6,3,8,2.], [5,6,4,3,-9.]], dtype=torch.float64, requires_grad=True)
    for f in (rbox2qbox, rbox2hbox, canonicalize, lambda b: canonicalize(b, 'oc'), lambda b: canonicalize(b, 'le135')):
        assert torch.autograd.gradcheck(f, x)

@settings(deadline=None, max_examples=200)
@example([(0., 0.), (0., 0.), (0., -1.), (-4e-76, 1.)])  # two directions that rounding makes one
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=4, max_size=4))
def test_any_four_points(pts):
    "The rectangle holds all four points and is as small as the one the hull gives"
    q = np.array(pts); r = qbox2rbox(q); m = min_area_rect(q)
    assert r[2]*r[3]==pytest.approx(m[2]*m[3], abs=1e-6)
    for b in (r, m):
        d = q-b[:2]; c,s = math.cos(b[4]),math.sin(b[4])
        assert (np.abs(d@[c,s])<=b[2]/2+1e-7).all() and (np.abs(d@[-s,c])<=b[3]/2+1e-7).all()

@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=30))
def test_hull(pts):
    "On whole numbers: convex, holds all points, and its corners are among them"
    p = np.array(pts); h = convex_hull(p); assert {*map(tuple, h)} <= {*map(tuple, p.astype(float))}
    if len(h)<3: return
    e = np.roll(h, -1, 0)-h; side = e[:,None,0]*(p[None,:,1]-h[:,None,1])-e[:,None,1]*(p[None,:,0]-h[:,None,0])
    assert (side>=0).all()
    assert (e[:,0]*np.roll(e, -1, 0)[:,1]-e[:,1]*np.roll(e, -1, 0)[:,0]>0).all()
    area = np.prod(min_area_rect(p)[2:4]); assert polygon_area(h)<=area+1e-9<=2*polygon_area(h)+1e-6

@settings(deadline=None)
@given(boxes, boxes)
def test_clip_is_symmetric(a, b):
    qa,qb = rbox2qbox(np.array([0,0,*a[2:]])),rbox2qbox(np.array([a[0]%50,a[1]%50,*b[2:]]))
    x,y = polygon_area(clip_polygon(qa, qb)),polygon_area(clip_polygon(qb, qa))
    assert x==pytest.approx(y, rel=1e-6, abs=1e-6) and x<=min(a[2]*a[3], b[2]*b[3])*(1+1e-9)

def test_bad_quads_do_not_raise():
    bad = np.array([[[1,1]]*4, [[0,0],[1,1],[2,2],[3,3]], [[0,0],[1,0],[1,0],[0,0]], [[0,0],[np.nan,0],[1,1],[0,1]],
                    [[0,0],[np.inf,0],[1,1],[0,1]]])
    r = qbox2rbox(bad)
    assert (r[:3,3]==0).all() and np.isfinite(r[:3]).all() and np.isnan(r[3:,2]).all()

def test_fast_and_typed():
    q = torch.rand(100_000, 8)*50
    t = time.perf_counter(); r = qbox2rbox(q); assert time.perf_counter()-t<10
    assert r.dtype==torch.float32 and qbox2rbox(q[:5].half()).dtype==torch.float16 and qbox2rbox(q[:4].view(2,2,4,2)).shape==(2,2,5)
    assert hbox2rbox(torch.zeros(3,2,4), 'oc').shape==(3,2,5)

def test_reference_conversions():
    "MMRotate's conversions of the same boxes, compared as rectangles"
    f = SHARED/'oracle/ops/coders_losses_v1.npz'
    if not f.exists(): pytest.skip('no reference folder')
    d = np.load(f, allow_pickle=True)
    q = d['conv/rbox2qbox'].reshape(-1, 4, 2); mine = qbox2rbox(q, 'le90')
    for k in ('conv/regularize_le90', 'conv/regularize_le135', 'conv/regularize_oc'):
        for x,y in zip(rbox2qbox(d[k].astype(float)), q.astype(float)): assert same_corners(x, y, 2e-2)
        for x,y in zip(rbox2qbox(canonicalize(d[k], k.split('_')[1]).astype(float)), q.astype(float)): assert same_corners(x, y, 2e-2)
    for x,y in zip(rbox2qbox(mine.astype(float)), q.astype(float)): assert same_corners(x, y, 2e-2)
    np.testing.assert_allclose(rbox2hbox(mine), d['conv/rbox2hbox'], atol=5e-3)

def test_imports_stay_light():
    "geometry and ops must not bring fastai"
    code = ("import sys, rotnb.geometry.boxes, rotnb.geometry.polygons, rotnb.ops.nms, rotnb.evaluate.ap;"
            "assert not [m for m in sys.modules if m.split('.')[0] in ('fastai','matplotlib','cv2')]")
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)

@given(st.lists(boxes, min_size=1, max_size=8))
def test_corners_lie_half_a_side_away_in_their_own_frame(bs):
    b = np.array(bs)
    half = b[:,None,2:4]/2*[[-1,-1],[1,-1],[1,1],[-1,1]]
    scale = np.abs(b).max()
    assert np.abs(to_frame(rbox2qbox(b), b[:,None])-half).max() <= 1e-9*scale
    assert np.abs(from_frame(half, b[:,None])-rbox2qbox(b)).max() <= 1e-9*scale

def test_frames_broadcast_and_pass_gradients_and_nan():
    points,b = torch.rand(7, 1, 2, dtype=torch.float64),torch.rand(3, 5, dtype=torch.float64)
    assert to_frame(points, b).shape==from_frame(points, b).shape==(7,3,2)
    assert torch.autograd.gradcheck(lambda p,q: from_frame(2*to_frame(p, q), q), (points.requires_grad_(), b.requires_grad_()))
    assert to_frame([[1.,2]], [[0,0,4,2,math.nan]]).shape==(1,2) and np.isnan(to_frame([[1.,2]], [[0,0,4,2,math.nan]])).all()
    assert to_frame(torch.zeros(0,2), torch.zeros(0,5)).shape==(0,2)

@given(boxes, st.sampled_from([None, *ANGLES]))
def test_circumscribed_hboxes_touch_all_sides(b, angle):
    b = np.array([b])
    around,quad = circumscribed_hbox(b, angle),rbox2qbox(b)[0]
    assert np.allclose(rbox2hbox(around)[0], [*quad.min(0), *quad.max(0)], atol=1e-9*np.abs(b).max())
    if angle: assert np.array_equal(around, hbox2rbox(rbox2hbox(b), angle))
    else: assert around[0,4]==0

def test_the_picture_of_the_convention_is_what_the_notebook_shows():
    "README shows the file; `python .ci/outputs.py nbs/geometry/01_boxes.ipynb` makes both"
    cells = json.loads((ROOT/'nbs/geometry/01_boxes.ipynb').read_text(encoding='utf-8'))['cells']
    shown = [o['data']['image/svg+xml'] for c in cells for o in c.get('outputs', []) if 'image/svg+xml' in o.get('data', {})]
    file = (ROOT/'nbs/images/convention.svg').read_text(encoding='utf-8')
    assert [''.join(o) for o in shown]==[file] and len(file)<60_000
