"Coders, assigners and samplers against MMRotate's numbers and against what must hold for any box"
import json, math
from functools import partial
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import tensor
from rotnb.geometry.boxes import canonicalize, circumscribed_hbox, rbox2qbox
from rotnb.ops.iou import box_iou_rotated
from rotnb.targets import assign
from rotnb.targets.angle_coders import CSLAngle, DCLAngle, PlainAngle, PSCAngle
from rotnb.targets.assign import IGN, NEG, fcos_assign, ignore_inside, max_iou_assign
from rotnb.targets.coders import DeltaXYWHACoder, DistanceAngleCoder
from rotnb.targets.priors import AnchorPriors, PointPriors, level_priors
from rotnb.targets.roi_coders import (DeltaXYWHCoder, GlidingVertexCoder, MidpointOffsetCoder, clip_centers, clip_sides, fill_ratio,
                                      glide_ratios, slide_corners)
from rotnb.targets.sample import add_objects, random_sample
from paths import SHARED

FORMS = ['le90','le135','oc']
forms = pytest.mark.parametrize('angle', FORMS)

@pytest.fixture(scope='module')
def ref():
    p = SHARED/'oracle/ops/coders_losses_v1.npz'
    if not p.is_file(): pytest.skip('no reference data: coders_losses_v1.npz is absent (set ROTNB_SHARED)')
    d = np.load(p)
    class Ref:
        def __call__(self, *k): return torch.from_numpy(d['/'.join(k)])
        def cfg(self, k): return json.loads(str(d[k+'/cfg']))
    return Ref()

def near(a, b, rtol=1e-5, atol=1e-5): torch.testing.assert_close(a, b, rtol=rtol, atol=atol)

def same_boxes(a, b, tol=2e-5):
    "The same rectangles, however spelt: corners agree within `tol` of the coordinates"
    p,q = (rbox2qbox(canonicalize(o.double())) for o in (a, b))
    gap = torch.stack([(p-q.roll(i, 1)).abs().amax((1,2)) for i in range(4)]).amin(0)
    assert (gap <= tol*q.abs().amax((1,2)).clamp(min=1)).all(), gap.max()

def hprior(h): # x1 y1 x2 y2 as a prior
    return torch.cat([(h[:,:2]+h[:,2:])/2, h[:,2:]-h[:,:2], torch.zeros(len(h),1)], 1)

def delta_coder(cfg, **kw):
    return DeltaXYWHACoder(cfg['angle_version'], cfg['norm_factor'], cfg['edge_swap'], cfg.get('proj_xy', True),
                           stds=tuple(cfg.get('target_stds', [1.]*5)), **kw)

# MMRotate's numbers; its random decodes are clamped to an image of 1024 x 1024

DELTAS = [f'DeltaXYWHT_{k}' for a in FORMS for k in (*(f'r_{a}_swap{s}_proj{p}' for s in '01' for p in '01'), f'r_{a}_norm',
                                                     f'h_{a}_swap0', f'h_{a}_swap1')]

@pytest.mark.parametrize('name', DELTAS)
def test_delta_coder_is_mmrotates(ref, name):
    k = 'coder/'+name
    c = delta_coder(ref.cfg(k))
    priors = hprior(ref('anchors_h')) if '_h_' in name else ref('anchors_r')
    near(c.encode(priors, ref('gts_r')), ref(k,'enc'))
    for d,b in (('enc','dec'),('rand_delta','rand_dec')):
        got = c.decode(priors, ref(k,d))
        same_boxes(clip_centers(got, (1024,1024)) if '_r_' in name else got, ref(k,b))
    same_boxes(c.decode(priors, ref(k,'enc')), ref('gts_r'))

@pytest.mark.parametrize('name', DELTAS)
def test_keep_sides_is_mmrotates_spelling(ref, name):
    "What a next stage takes as its prior must agree side by side, not as a rectangle alone"
    k = 'coder/'+name
    priors = hprior(ref('anchors_h')) if '_h_' in name else ref('anchors_r')
    got = delta_coder(ref.cfg(k), keep_sides=True).decode(priors, ref(k,'rand_delta'))
    near(clip_centers(got, (1024,1024)) if '_r_' in name else got, ref(k,'rand_dec'), rtol=2e-5, atol=2e-4)

@forms
def test_midpoint_is_mmrotates(ref, angle):
    k,priors = f'coder/Midpoint_{angle}',hprior(ref('anchors_h'))
    c = MidpointOffsetCoder(angle, stds=(1.,)*6)
    near(c.encode(priors, ref('gts_r')), ref(k,'enc'), atol=3e-5)      # float32 corners far from the origin, in the peer
    same_boxes(c.decode(priors, ref(k,'enc')), ref(k,'dec'), 1e-4)
    got,want = c.decode(priors, ref(k,'rand_delta')),ref(k,'rand_dec')
    same_boxes(got, want, 1e-4)
    turn = (got[:,4]-want[:,4]).abs()  # side by side: the next stage looks into proposals; angles meet where their range closes
    assert torch.minimum(turn, math.pi-turn).max()<1e-3 and (got[:,2:4]-want[:,2:4]).abs().max()<.1

@forms
def test_distances_are_mmrotates(ref, angle):
    k,g = f'coder/DistAngle_{angle}',ref('gts_r')
    priors = torch.cat([ref('anchors_r')[:,:2], torch.ones(200,2), torch.zeros(200,1)], 1)
    c = DistanceAngleCoder(angle)
    # the peer's coder takes boxes as they are, and its head spells them before
    same = (canonicalize(g, angle)-g).abs().amax(1)<1e-5
    assert same.sum()>20
    near(c.encode(priors, g)[same], ref(k,'enc')[same], atol=1e-4)
    inside = (ref(k,'enc')[:,:4]>=0).all(1)                           # a distance below 0 is cut, which the peer leaves to its head
    assert inside.sum()>150
    same_boxes(c.decode(priors, ref(k,'enc'))[inside], ref(k,'dec')[inside])

CSL = [(a,w,o,r) for a in FORMS for w,o,r in (('gaussian',4,3),('gaussian',1,6),('triangle',1,6),('rect',1,6),('pulse',1,6))]

@pytest.mark.parametrize('angle,window,omega,radius', CSL)
def test_csl_is_mmrotates(ref, angle, window, omega, radius):
    k = f'coder/CSL_{angle}_{window}_{omega}_{radius}'
    theta,enc,dec = ref(k,'ang')[:,0],ref(k,'enc'),ref(k,'dec')
    # the peer makes 22 bins of them, and one of the last half bin and the first
    if angle=='oc' and omega==4:
        with pytest.raises(ValueError, match='do not divide 90'): CSLAngle(angle, omega)
        return
    c = CSLAngle(angle, omega, 'mmrotate' if window=='gaussian' else window, radius)
    near(c.encode(theta), enc)
    if window=='gaussian' and omega==4: assert (enc==0).all(), 'the published setting has empty labels'
    elif window!='rect': near(c.decode(enc), dec)
    # the peer answers with the beginning of the plateau, or of the circle
    else:
        assert (c.decode(enc)-theta).abs().max()<=math.radians(.5)+1e-5
        assert (dec-theta).abs().max()>math.radians(5)

@pytest.mark.parametrize('dual', [False,True])
def test_psc_is_mmrotates(ref, dual):
    k = f'coder/PSC_le90_{int(dual)}'
    c = PSCAngle(dual_freq=dual, min_mod=.47)
    near(c.encode(ref(k,'ang')[:,0]), ref(k,'enc')); near(c.decode(ref(k,'enc')), ref(k,'dec'))

def test_gliding_vertex_is_mmrotates(ref):
    g = ref('gts_r')
    near(glide_ratios(g), ref('coder/GVFixCoder','enc'), atol=1e-5)
    quads,peer = slide_corners(circumscribed_hbox(g), ref('coder/GVFixCoder','enc')),ref('coder/GVFixCoder','dec').view(-1,4,2)
    near(quads, peer, atol=2e-3)                                       # px, of coordinates near 1000
    area = lambda q: ((q[:,2]-q[:,0])[:,0]*(q[:,3]-q[:,1])[:,1]-(q[:,2]-q[:,0])[:,1]*(q[:,3]-q[:,1])[:,0]).abs()/2
    near(fill_ratio(g), area(rbox2qbox(g))/circumscribed_hbox(g)[:,2:4].prod(1), rtol=1e-4)

# what must hold for any box

def box(lo=1., hi=300.):
    xy,side = st.floats(-500, 1500, width=32),st.floats(lo, hi, width=32)
    return st.tuples(xy, xy, side, side, st.floats(-3.5, 3.5, width=32))
two = lambda n=8: st.lists(st.tuples(box(), box()), min_size=1, max_size=n)

def pair(bs, angle):
    p,b = (tensor([o[i] for o in bs], dtype=torch.float64) for i in (0,1))
    return p,canonicalize(b, angle)

ANGLES = [lambda a: PlainAngle(), lambda a: PSCAngle(), lambda a: PSCAngle(4, True, .47)]

@forms
@given(two(), st.booleans(), st.booleans(), st.sampled_from([None,.5,2.]), st.sampled_from(ANGLES), st.booleans())
@settings(max_examples=60, deadline=None)
def test_delta_round_trip(angle, bs, swap, proj, norm, ac, keep):
    p,b = pair(bs, angle)
    if norm==.5 or norm==2.: ac = ANGLES[0]                           # what is divided no longer lives on the circle of a coder
    if angle=='oc' and not swap: ac = ANGLES[0]                       # nor do differences beyond half a turn
    c = DeltaXYWHACoder(angle, norm, swap, proj, (.1,)*5, (.5,)*4+(1.,), angle_coder=PlainAngle(), keep_sides=keep, max_ratio=1e3)
    same_boxes(c.decode(p, c.encode(p, b)), b, 1e-6)
    c = DeltaXYWHACoder(angle, None, swap, proj, angle_coder=ac(angle), max_ratio=1e3)
    same_boxes(c.decode(p, c.encode(p, b)), b, 1e-6)

@forms
@given(two())
@settings(max_examples=60, deadline=None)
def test_upright_round_trips(angle, bs):
    p,b = pair(bs, angle)
    p = circumscribed_hbox(p)
    same_boxes(DeltaXYWHCoder(max_ratio=1e4).decode(p, DeltaXYWHCoder(max_ratio=1e4).encode(p, b)), circumscribed_hbox(b), 1e-6)
    c = MidpointOffsetCoder(angle, max_ratio=1e4, tie=1e-6)
    got = c.decode(p, c.encode(p, b))
    assert (box_iou_rotated(got, b, aligned=True)>1-1e-5).all()
    c = MidpointOffsetCoder(angle, max_ratio=1e4)
    lost = 1-box_iou_rotated(c.decode(p, c.encode(p, b)), b, aligned=True)
    assert (lost<=5*c.tie/b[:,3]+1e-5).all(), 'a tie costs about a tie at each end'
    c = GlidingVertexCoder(angle, max_ratio=1e4)
    d = c.encode(p, b)
    free = d[:,8]<=c.max_fill
    got,want = c.decode(p, d),torch.where(free[:,None], b, circumscribed_hbox(b))
    assert (box_iou_rotated(got, want, aligned=True)>1-1e-5).all()
    assert (d[:,4:]>=0).all() and (d[:,4:]<=1+1e-9).all()

@forms
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.integers(1,10), st.booleans(),
       st.sampled_from(['gaussian','triangle','rect','pulse']))
@settings(max_examples=80, deadline=None)
def test_labels_round_trip(angle, ts, bits, gray, window):
    span = math.pi/2 if angle=='oc' else math.pi
    t = tensor(ts, dtype=torch.float64)
    off = lambda c: ((c.decode(c.encode(t))-t+span/2)%span-span/2).abs().max()
    assert off(DCLAngle(angle, bits, gray))<=span/2**bits/2+1e-6
    assert off(CSLAngle(angle, 2., window))<=math.radians(1)+1e-6
    lo = dict(le90=-math.pi/2, le135=-math.pi/4, oc=0)[angle]
    for c in (DCLAngle(angle, bits, gray), CSLAngle(angle)): assert ((c.decode(c.encode(t))>=lo) & (c.decode(c.encode(t))<=lo+span)).all()

ALL = [*(DeltaXYWHACoder(a, edge_swap=s) for a in FORMS for s in (False,True)), *(DistanceAngleCoder(a) for a in FORMS),
       DeltaXYWHCoder(), MidpointOffsetCoder(),
       GlidingVertexCoder(), *(DeltaXYWHACoder(angle_coder=a) for a in (PSCAngle(), CSLAngle(), DCLAngle(), CSLAngle(window='mmrotate')))]

@pytest.mark.parametrize('c', ALL, ids=[f'{type(c).__name__}-{i}' for i,c in enumerate(ALL)])
@pytest.mark.parametrize('dtype', [torch.float64,torch.float32,torch.bfloat16,torch.float16])
def test_coders_take_what_they_get(c, dtype):
    p = tensor([[30.,30,16,16,0],[60,40,32,16,0]], dtype=dtype)
    b = tensor([[32.,28,30,10,.4],[60,44,20,20,.1]], dtype=dtype)
    e = c.encode(p, b)
    assert e.shape==(2,c.n) and e.dtype==dtype and e.isfinite().all()
    d = c.decode(p, e)
    assert d.shape==(2,5) and d.dtype==dtype and d.isfinite().all()
    assert c.start().shape==(c.n,) and c.decode(p, c.start().to(dtype).expand(2,-1)).isfinite().all()
    assert c.encode(p[:0], b[:0]).shape==(0,c.n) and c.decode(p[:0], e[:0]).shape==(0,5)
    wild = torch.full((2,c.n), 60., dtype=dtype)
    assert c.decode(p, wild)[:,2:].isfinite().all() and c.decode(p, -wild)[:,2:].isfinite().all()
    assert c.decode(p, torch.full((2,c.n), math.nan, dtype=dtype)).shape==(2,5), 'the head drops what is not finite'

@pytest.mark.parametrize('c', [DeltaXYWHACoder(), DeltaXYWHACoder('oc', edge_swap=False), DistanceAngleCoder(act='exp'),
                               DeltaXYWHCoder(), MidpointOffsetCoder()],
                         ids=lambda c: type(c).__name__)
def test_decoding_is_differentiable(c):
    g = torch.Generator().manual_seed(2)
    p = tensor([[30.,30,16,24,0],[60,40,32,16,0],[10,10,20,21,0]], dtype=torch.float64)
    x = (torch.rand(3, c.n, generator=g, dtype=torch.float64)-.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda o: c.decode(p, o), x)

def test_clipping():
    b = circumscribed_hbox(tensor([[5.,5,20,8,0],[200,50,10,10,0],[50,50,300,300,0]]))
    near(clip_sides(b, (60,100)), tensor([[7.5,5,15,8,0],[100,50,0,10,0],[50,30,100,60,0]]))
    near(clip_centers(b, (60,100))[:,:2], tensor([[5.,5],[99,50],[50,50]]))

# assigning

def scene(seed, n=30, size=192):
    r = torch.rand(n, 5, generator=torch.Generator().manual_seed(seed))
    b = torch.stack([r[:,0]*size, r[:,1]*size, 4+r[:,2]*60, 4+r[:,3]*40, (r[:,4]-.5)*3], 1)
    if seed%2: b = b.round()                                          # ties
    return b,torch.rand(n, generator=torch.Generator().manual_seed(seed+99))<.2

def plain_max_iou(iou, pos, neg, min_pos, low_quality, ties):
    "The rule, object by object: `(m, n)` -> `(n,)`"
    m = np.full(iou.shape[1], NEG)
    for i in range(iou.shape[1]):
        if iou[:,i].max()>=neg: m[i] = IGN
        if iou[:,i].max()>=pos: m[i] = iou[:,i].argmax()
    if low_quality:
        for j,row in enumerate(iou):
            if row.max()<min_pos or row.max()<=1e-9: continue
            if ties: m[row==row.max()] = j
            else: m[row.argmax()] = j
    return m.tolist()

@pytest.mark.parametrize('kw', [dict(), dict(pos=.7, neg=.3, min_pos=.3), dict(pos=.5, neg=.5, min_pos=.5, low_quality=False),
                                dict(ties=False), dict(hbox=True)], ids=str)
@pytest.mark.parametrize('pairs', [2**22, 3000, 1])
def test_max_iou(kw, pairs, monkeypatch):
    monkeypatch.setattr(assign, 'PAIRS', pairs)
    pri,_ = level_priors(AnchorPriors(scales_per_octave=1), [(12,12),(6,6)], [16,32])
    for seed in range(3):
        b,_ = scene(seed)
        iou = box_iou_rotated(circumscribed_hbox(b) if kw.get('hbox') else b, pri).numpy()
        want = plain_max_iou(iou, **{**dict(pos=.5, neg=.4, min_pos=0., low_quality=True, ties=True),
                                     **{k:v for k,v in kw.items() if k!='hbox'}})
        assert max_iou_assign(pri, b, **kw).tolist()==want

@pytest.mark.parametrize('pairs', [2**22, 500])
def test_ignored_objects(pairs, monkeypatch):
    monkeypatch.setattr(assign, 'PAIRS', pairs)
    pri,lvls = level_priors(AnchorPriors(scales_per_octave=1), [(12,12),(6,6)], [16,32])
    b,ig = scene(2)
    def among(pri):
        m = max_iou_assign(pri, b[~ig])
        return torch.where(m>=0, (~ig).nonzero()[:,0][m.clamp(min=0)], m)
    plain = among(pri)
    assert max_iou_assign(pri, b, ig).tolist()==ignore_inside(plain, pri, b[ig]).tolist()
    share = box_iou_rotated(pri, b[ig], 'iof').amax(1)
    got = max_iou_assign(pri, b, ig, ignore_iof=.3)
    want = torch.full_like(plain, IGN)
    want[share<=.3] = among(pri[share<=.3])       # what is left out is nobody's best, as in MMDetection
    assert (share>.3).any() and got.tolist()==want.tolist() and (want!=torch.where(share>.3, IGN, plain)).any()
    all_ignored = max_iou_assign(pri, b, torch.ones_like(ig), ignore_iof=.3)
    assert set(all_ignored.tolist())=={NEG,IGN}
    pts,pl = level_priors(PointPriors(), [(24,24),(12,12)], [8,16])
    whole = fcos_assign(pts, b, ig, pl, ranges=((-1,32),(32,1e8)))
    monkeypatch.setattr(assign, 'PAIRS', 7)
    assert fcos_assign(pts, b, ig, pl, ranges=((-1,32),(32,1e8))).tolist()==whole.tolist()

def test_assigning_nothing():
    pri = AnchorPriors()((2,2), 8)
    for f in (max_iou_assign, partial(max_iou_assign, hbox=True, ignore_iof=.5)):
        assert f(pri, pri[:0]).tolist()==[NEG]*len(pri) and f(pri[:0], pri[:3]).tolist()==[]
    nan = tensor([[math.nan]*5])
    assert max_iou_assign(pri, nan).tolist()==[NEG]*len(pri)

def test_a_box_is_the_same_in_every_form():
    "Assignment looks at rectangles, whatever the form they are written in, upright ones around them included"
    pri,_ = level_priors(AnchorPriors(scales_per_octave=1), [(12,12),(6,6)], [16,32])
    b,_ = scene(4)
    for hbox in (False,True):
        one,*rest = (max_iou_assign(pri, canonicalize(b.double(), a), hbox=hbox, min_pos=.2, ties=False).tolist() for a in FORMS)
        differ = max(sum(x!=y for x,y in zip(one, o)) for o in rest)
        assert differ<=2, 'rounding of ties only'

@pytest.mark.slow
def test_assignment_fits_in_memory():
    "200 000 priors and 2000 objects: a matrix of them would take 1.6 GB"
    import resource
    r = torch.rand(2000, 5, generator=torch.Generator().manual_seed(0))
    b = torch.stack([r[:,0]*1136, r[:,1]*1136, 8+r[:,2]*80, 8+r[:,3]*40, (r[:,4]-.5)*3], 1)
    pri,_ = level_priors(AnchorPriors(), [(142,142),(71,71),(36,36)], [8,16,32])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (max_iou_assign(pri[:200_000], b, torch.rand(2000)<.1)>=0).sum()>2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before<2**20      # KiB

# sampling

@given(st.lists(st.integers(-2, 5), max_size=60), st.integers(0, 40), st.floats(0, 1), st.sampled_from([-1,0,1,3]),
       st.booleans(), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_random_sample(ms, num, frac, ub, first, seed):
    m = tensor(ms, dtype=torch.long)
    s = random_sample(m, num, frac, ub, first, torch.Generator().manual_seed(seed))
    kept = s!=IGN
    pos,neg = (m>=0).sum().item(),(m==NEG).sum().item()
    n_pos = min(pos, int(num*frac))
    n_neg = min(neg, num-n_pos, *([] if ub<0 else [int(ub*max(1,n_pos))]))
    assert torch.equal(s[kept], m[kept]) and ((s>=0).sum(), (s==NEG).sum())==(n_pos, n_neg)
    if first: assert (s[m>=0][:n_pos]>=0).all() and (s[m==NEG][:n_neg]==NEG).all()

def test_add_objects():
    b,ig = scene(1, 5)
    pri = AnchorPriors()((3,3), 16)
    m = max_iou_assign(pri, b, ig, low_quality=False)
    mm,pp = add_objects(m, pri, circumscribed_hbox(b), ig)
    k = (~ig).sum()
    assert mm[:k].tolist()==(~ig).nonzero()[:,0].tolist() and torch.equal(mm[k:], m)
    assert torch.equal(pp[:k], circumscribed_hbox(b)[~ig]) and torch.equal(pp[k:], pri)
