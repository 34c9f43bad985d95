"Curves, slices, error kinds, merging and result files against hand-made cases, invariants and plain loops"
import math, pickle, warnings
from functools import partial

import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from rotnb.evaluate import APAccumulator, eval_map
from rotnb.evaluate.ap import SLICES, average_precision, box_angle
from rotnb.evaluate.resampling import compare_runs
from rotnb.evaluate.protocols import COCO_IOUS
from rotnb.evaluate.curves import angle_error, best_thresholds, box_errors, calibration, pr_curves, recall_at
from rotnb.evaluate.errors import COSTLY, ERROR_KINDS, confusion_matrix, error_costs, find_errors
from rotnb.evaluate.matching import Outcome, match
from rotnb.evaluate.overlaps import CrossedQuadWarning, _crossed, image_record
from rotnb.evaluate.task1 import merge_windows, read_task1, write_task1
from rotnb.geometry.boxes import qbox2rbox, rbox2hbox, rbox2qbox
from rotnb.measure.exact import exact_iou
from rotnb.ops.iou import box_iou_rotated
from paths import SHARED


def scenes(n_img=5, n_gt=20, n_det=40, n_cls=3, seed=0, rounded=False):
    "Crowded random scenes; `rounded` scores make ties"
    r,ps,ts = np.random.default_rng(seed),[],[]
    for _ in range(n_img):
        g,lab = r.random((n_gt,5))*[150,150,60,30,3]+[0,0,20,10,-1.5],r.integers(0,n_cls,n_gt)
        i = r.integers(0,max(n_gt,1),n_det) if n_gt else np.zeros(0,int)
        s = r.random(len(i)); s = s.round(1) if rounded else s
        ps.append(dict(boxes=g[i]+r.normal(0,1,(len(i),5))*[3,3,3,2,.2], scores=s,
                       labels=np.where(r.random(len(i))<.7, lab[i], r.integers(0,n_cls,len(i)))))
        ts.append(dict(boxes=g, labels=lab, ignore=r.random(n_gt)<.15))
    return ps,ts

def accumulate(ps, ts, n=3, **kw):
    acc = APAccumulator(n, **kw); acc.add(ps, ts)
    return acc

sets = st.builds(scenes, st.integers(1,4), st.integers(0,12), st.integers(0,25), st.just(3), st.integers(0,10**6), st.booleans())
fast = settings(max_examples=25, deadline=None)

# --- pairs and matching

def test_pairs_are_those_of_the_whole_matrix():
    ps,ts = scenes(); f = accumulate(ps, ts).flat()
    m = box_iou_rotated(f.boxes, f.gt_boxes).double().numpy()*(f.img[:,None]==f.gt_img)
    d,g = np.nonzero(m>1e-12)
    assert set(zip(d.tolist(), g.tolist()))<=set(zip(f.det.tolist(), f.gt.tolist()))
    np.testing.assert_allclose(f.iou, m[f.det,f.gt], atol=1e-6)
    assert (np.diff(f.det)>=0).all()

def test_another_measure_gives_the_same_when_it_is_the_same():
    ps,ts = scenes()
    exact = eval_map(ps, ts, metric='coco', n_classes=3)
    other = eval_map(ps, ts, metric='coco', n_classes=3, iou=partial(box_iou_rotated, aligned=True))
    np.testing.assert_allclose(exact.aps, other.aps)

def test_quads_by_a_polygon_measure():
    from shapely import Polygon
    def iou(a, b):
        pairs = [(Polygon(x.reshape(4,2)),Polygon(y.reshape(4,2))) for x,y in zip(a,b)]
        return [p.intersection(q).area/p.union(q).area for p,q in pairs]
    ps,ts = scenes(2, 12, 20)
    quads = lambda o: [{**x, 'boxes':rbox2qbox(x['boxes']).reshape(shape)} for x,shape in zip(o, ((-1,8),(-1,4,2)))]
    a,b = accumulate(ps, ts),accumulate(quads(ps), quads(ts), iou=iou)
    np.testing.assert_allclose(a.compute((.5,.7)).aps, b.compute((.5,.7)).aps, atol=1e-9)
    np.testing.assert_allclose(a.flat().boxes[:,:2], b.flat().boxes[:,:2], atol=1e-4)
    np.testing.assert_allclose(a.compute(COCO_IOUS).aps, accumulate(quads(ps), quads(ts)).compute(COCO_IOUS).aps, atol=1e-9)

def test_quads_are_measured_exactly():
    "Rectangles as corners against clipping in float64, on either side or both; general and pushed-in quads against shapely"
    from shapely import Polygon
    r = np.random.default_rng(0); a,b = (r.random((200,5))*[60,60,40,30,6]+[0,0,4,4,-3] for _ in range(2))
    want = [exact_iou(a[[i]], b[[i]])[0] for i in range(200)]
    rec = lambda p,t: [image_record(dict(boxes=p[[i]], scores=[1.], labels=[0]), dict(boxes=t[[i]], labels=[0])).iou.sum() for i in range(len(p))]
    for p,t in ((rbox2qbox(a),rbox2qbox(b)), (a,rbox2qbox(b).reshape(-1,8)), (rbox2qbox(a)[:,::-1].copy(),b)): np.testing.assert_allclose(rec(p, t), want, atol=1e-9)
    t = np.sort(r.random((2,300,4))*2*np.pi, -1); d = r.random((2,300,4,1))*30+5          # about a point: convex, pushed in, or crossing where the point is outside
    p,q = np.stack([np.cos(t),np.sin(t)], -1)*d+r.random((2,300,1,2))*20
    valid = np.array([Polygon(x).is_valid for x in p]); assert 20<(~valid).sum()<200; np.testing.assert_array_equal(_crossed(p), ~valid)
    both = valid&~_crossed(q); want = [Polygon(x).intersection(Polygon(y)).area/Polygon(x).union(Polygon(y)).area for x,y in zip(p[both],q[both])]
    np.testing.assert_allclose(rec(p[both], q[both]), want, atol=1e-9)

def test_crossing_quads_overlap_nothing():
    tie = np.array([[[0,0],[10,0],[0,10],[10,11.]]]); box = np.array([[5.,5,10,10,0]])
    with pytest.warns(CrossedQuadWarning, match="1 of 1 quads among preds' boxes"): r = eval_map([dict(boxes=tie, scores=[1.], labels=[0])], [dict(boxes=box, labels=[0])], .1)
    assert r.map==0 and r.n_det[0]==1
    with pytest.warns(CrossedQuadWarning, match="targets' boxes"): assert eval_map([dict(boxes=box, scores=[1.], labels=[0])], [dict(boxes=tie, labels=[0])], .1).map==0
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert eval_map([dict(boxes=np.full((1,4,2),np.nan), scores=[1.], labels=[0])], [dict(boxes=box, labels=[0])]).map==0

@fast
@given(sets, st.integers(0,3))
def test_merging_is_one_pass(s, k):
    ps,ts = s
    whole,a,b = accumulate(ps, ts),accumulate(ps[:k], ts[:k]),accumulate(ps[k:], ts[k:])
    parts = pickle.loads(pickle.dumps(a)).merge(b)
    for metric in ('voc07','voc12','coco'): np.testing.assert_array_equal(whole.compute(.5, metric).aps, parts.compute(.5, metric).aps)
    np.testing.assert_array_equal(find_errors(whole).kind, find_errors(parts).kind)

@fast
@given(st.integers(1,5), st.integers(0,10**6))
def test_order_of_images_does_not_matter(n, seed):
    ps,ts = scenes(n, 10, 20, seed=seed)      # scores without ties
    back = accumulate(ps[::-1], ts[::-1]); acc = accumulate(ps, ts)
    for metric in ('voc07','voc12','coco'): np.testing.assert_allclose(acc.compute(.5, metric).aps, back.compute(.5, metric).aps)
    np.testing.assert_equal(best_thresholds(pr_curves(acc)), best_thresholds(pr_curves(back)))     # nan where nothing is detected
    np.testing.assert_array_equal(confusion_matrix(acc), confusion_matrix(back))
    assert error_costs(find_errors(acc))==pytest.approx(error_costs(find_errors(back)), nan_ok=True)

# --- AP by slices

def coco_area_loop(preds, targets, lo, hi, thr):
    "COCO's evaluation of one class within a range of sizes, written after its definition"
    n,todo = 0,[]
    for p,t in zip(preds, targets):
        size = lambda b: np.sqrt(b[:,2]*b[:,3])
        out = (size(t['boxes'])<lo)|(size(t['boxes'])>=hi); n += (~out).sum()
        iou,taken = box_iou_rotated(p['boxes'], t['boxes']).double().numpy(),np.zeros(len(out), bool)
        for d in np.argsort(-p['scores'], kind='stable'):
            best = None
            for group in (~out,out):
                ok = [g for g in np.flatnonzero(group&~taken) if iou[d,g]>=thr]
                if ok and best is None: best = max(ok, key=lambda g: iou[d,g])
            if best is None:
                if lo<=size(p['boxes'][[d]])[0]<hi: todo.append((p['scores'][d],False))
            else:
                taken[best] = True
                if not out[best]: todo.append((p['scores'][d],True))
    return n,[t for _,t in sorted(todo, key=lambda o: -o[0])]

def test_by_size_as_coco_does():
    ps,ts = scenes(6, 20, 50, 1, 1)
    for t in ts: t.pop('ignore')
    acc = accumulate(ps, ts, 1)
    ranges = {'s':(0,30), 'm':(30,40), 'l':(40,math.inf)}
    for k,r in acc.compute_by((SLICES['size'][0],ranges), metric='coco').items():
        for i in (0,4):
            n,tp = coco_area_loop(ps, ts, *ranges[k], COCO_IOUS[i])
            assert r.n_gt[0]==n>5 and r.aps[i,0]==pytest.approx(average_precision(tp, n, 'coco'))

@pytest.mark.parametrize('by', SLICES)
def test_ranges_share_the_truth_out(by):
    acc = accumulate(*scenes())
    parts = acc.compute_by(by)
    assert sum(r.n_gt for r in parts.values()).tolist()==acc.compute().n_gt.tolist()
    assert sum(r.n_det for r in parts.values()).tolist()==acc.compute().n_det.tolist()

def test_an_angle_a_hair_under_minus_90_has_a_range():
    "The remainder of a number just under 0 is rounded to 180 itself, which lies in no range"
    t = np.array([-np.pi/2,np.nextafter(-np.pi/2, -9),np.pi/2])
    b = np.column_stack([np.arange(3)*99., np.zeros(3), np.full(3, 20), np.full(3, 10), t])
    assert (box_angle(b)<90).all() and (box_angle(b)>=-90).all()
    parts = accumulate([dict(boxes=b, scores=[.9]*3, labels=[0]*3)], [dict(boxes=b, labels=[0]*3)], 1).compute_by('angle')
    assert sum(int(r.n_gt.sum()) for r in parts.values())==sum(int(r.n_det.sum()) for r in parts.values())==3

def test_questions_that_make_no_sense():
    ps,ts = scenes(2); acc = accumulate(ps, ts)
    for names in (['a','b'], list('abcd')):
        with pytest.raises(ValueError, match='3 classes.* names'): eval_map(ps, ts, n_classes=3, vocab=names)
    for f in (acc.compute, acc.bootstrap, partial(recall_at, acc, (1,))):
        with pytest.raises(ValueError, match='no IoU threshold'): f(iou_threshold=())
    for thr in (50, 0, float('nan')):
        with pytest.raises(ValueError, match='iou_threshold must be in'): confusion_matrix(acc, iou_threshold=thr)

# --- curves

def test_curve_of_infinite_scores():
    "Equal scores are one point, infinite ones too"
    box = lambda *xs: [[x,0.,20,10,0] for x in xs]
    p = dict(boxes=box(0,50,900,100,950), scores=[math.inf,math.inf,.5,-math.inf,-math.inf], labels=[0]*5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        c = pr_curves(accumulate([p], [dict(boxes=box(0,50,100), labels=[0]*3)], 1))['0']
    assert c.scores.tolist()==[math.inf,.5,-math.inf]
    np.testing.assert_allclose(c.precision, [1,2/3,3/5]); np.testing.assert_allclose(c.recall, [2/3,2/3,1])

@fast
@given(sets)
def test_curves_against_counting(s):
    acc = accumulate(*s); f,m = acc.flat(),match(acc)
    for c,curve in pr_curves(acc).items():
        mine = f.labels==int(c)
        assert (np.diff(curve.scores)<0).all() and (np.diff(curve.recall)>=0).all()
        for t,p,r in zip(curve.scores, curve.precision, curve.recall):
            kept = mine&(f.scores>=t)
            tp,fp = (m.status[kept]==Outcome.TRUE).sum(),(m.status[kept]==Outcome.FALSE).sum()
            assert p==pytest.approx(tp/(tp+fp)) and r==pytest.approx(tp/curve.n_gt)
        b = curve.best()
        assert b['f1']==pytest.approx(max(curve.f1, default=0)) and curve.at(b['score'])['f1']==b['f1']

def test_recall_at_k_against_dropping_the_rest():
    ps,ts = scenes(); acc = accumulate(ps, ts)
    for k,r in recall_at(acc, (1,3,1000), (.5,.75)).items():
        few = []
        for p in ps:
            best = np.argsort(-p['scores'], kind='stable')
            keep = np.concatenate([best[p['labels'][best]==c][:k] for c in range(3)])
            few.append({n:x[keep] for n,x in p.items()})
        a = accumulate(few, ts)
        want = np.mean([np.bincount(a.flat().labels[match(a, t).status==Outcome.TRUE], minlength=3)/a.compute().n_gt for t in (.5,.75)], 0)
        np.testing.assert_allclose(r, want)

def test_calibration():
    box = lambda x: [x,0,20,10,0]
    n = 400; r = np.random.default_rng(0); s = r.random(n); hit = r.random(n)<s
    p = dict(boxes=[box(100*i if h else 100*i+50) for i,h in enumerate(hit)], scores=s, labels=[0]*n)
    acc = accumulate([p], [dict(boxes=[box(100*i) for i in range(n)], labels=[0]*n)], 1)
    assert calibration(acc).ece<.08
    over = accumulate([{**p, 'scores':.5+s/2}], [dict(boxes=[box(100*i) for i in range(n)], labels=[0]*n)], 1)
    assert calibration(over).ece==pytest.approx((.5+s/2).mean()-hit.mean(), abs=.03)
    assert calibration(over).count.sum()==n
    beyond = accumulate([{**p, 'scores':s*3}], [dict(boxes=[box(0)], labels=[0])], 1)
    with pytest.raises(ValueError, match='probabilities'): calibration(beyond)

@given(st.floats(-10,10), st.floats(-10,10), st.sampled_from([360,180,90]))
def test_angle_error_is_modulo_the_symmetry(a, b, s):
    x,y = np.array([[0,0,20,10,a]]),np.array([[0,0,20,10,b]])
    e = angle_error(x, y, s)[0]
    assert 0<=e<=s/2 and e==pytest.approx(angle_error(y, x, s)[0], abs=1e-9)
    y[0,4] += np.deg2rad(s)
    assert e==pytest.approx(angle_error(x, y, s)[0], abs=1e-6)

def test_box_errors_of_known_offsets():
    g = np.array([[50,50,40,20,.3],[150,50,40,20,1.5],[250,50,20,20,0.]])
    d = g+[[3,4,0,0,0],[0,0,4,0,.1],[0,0,0,0,np.pi/2]]
    acc = accumulate([dict(boxes=d, scores=[.9,.8,.7], labels=[0,0,1])], [dict(boxes=g, labels=[0,0,1])], 2, vocab=['ship','tank'])
    e = box_errors(acc, symmetry={'ship':180,'tank':90})
    np.testing.assert_allclose(e.centre, [5,0,0]); np.testing.assert_allclose(e.centre_rel, [5/math.sqrt(800),0,0])
    np.testing.assert_allclose(e.angle, [0,np.rad2deg(.1),0], atol=1e-9); np.testing.assert_allclose(e.length, [1,1.1,1])
    assert math.isnan(box_errors(acc, symmetry={'tank':0}).medians()['tank']['angle'])

# --- errors

@fast
@given(sets, st.sampled_from([0.,.4]))
def test_every_box_has_one_kind(s, score):
    acc = accumulate(*s); f = acc.flat(); e = find_errors(acc, score=score); m = match(acc)
    seen = f.scores>=score
    assert ((e.kind>=0)==seen).all() and (e.gt_kind>=0).all() and (e.kind<len(ERROR_KINDS)).all()
    name = np.array([*ERROR_KINDS,''])
    k,g = name[e.kind],name[e.gt_kind]
    assert ((k=='correct')==(seen&(m.status==Outcome.TRUE))).all() and ((k=='ignored')==(seen&(m.status==Outcome.LEFT_OUT))).all()
    assert (k=='correct').sum()==(g=='correct').sum() and ((g=='ignored')==f.ignore).all() and not np.isin(k, ['missed']).any()
    assert ((e.gt<0)==np.isin(k, ['background',''])).all()
    has = e.gt_det>=0
    assert (name[e.kind[e.gt_det[has&~f.ignore]]]==g[has&~f.ignore]).all()
    assert all(c>-1e-9 or math.isnan(c) for kind,c in error_costs(e).items() if kind in ('duplicate','background','missed','both'))
    n = e.counts()
    assert sum(o['detections'].sum() for o in n.values())==seen.sum() and sum(o['truth'].sum() for o in n.values())==len(f.ignore)

S = lambda x,a=0.: [x,0.,40,10,a]
CASES = {'correct':(S(3),0), 'class':(S(3),1), 'localisation':(S(20),0), 'both':(S(20),1), 'angle':(S(2,.9),0), 'background':(S(39.),0)}

@pytest.mark.parametrize('kind', CASES)
def test_each_kind_alone(kind):
    box,label = CASES[kind]
    target = dict(boxes=[S(0),[900,0,40,10,0]], labels=[0,1])
    e = find_errors(accumulate([dict(boxes=[box], scores=[.5], labels=[label])], [target], 2))
    assert ERROR_KINDS[e.kind[0]]==kind
    assert ERROR_KINDS[e.gt_kind[0]]==('missed' if kind=='background' else kind) and ERROR_KINDS[e.gt_kind[1]]=='missed'

def test_costs_of_mending_everything():
    "One error of each kind, ranked before the true one"
    box = lambda x,a=0.: [x,0.,40,10,a]
    truth = dict(boxes=[box(0),box(200)], labels=[0,0])
    for kind,first,want in [('background',box(900),1/4), ('duplicate',box(1),0.), ('localisation',box(220),3/4), ('angle',box(200,.9),3/4)]:
        rows = [first,box(0)] if kind!='duplicate' else [box(0),box(1)]
        e = find_errors(accumulate([dict(boxes=rows, scores=[.9,.8], labels=[0,0])], [truth], 1))
        c = error_costs(e)
        assert c[kind]==pytest.approx(want), kind
        assert all(v==0 for k,v in c.items() if k not in (kind,'missed'))

def test_wrong_class_mended_goes_to_the_right_list():
    truth = dict(boxes=[S(0),S(200)], labels=[0,1])
    acc = accumulate([dict(boxes=[S(0),S(200)], scores=[.9,.8], labels=[0,0])], [truth], 2)
    assert acc.compute().ap.tolist()==[1,0] and error_costs(find_errors(acc))['class']==pytest.approx(.5)

@fast
@given(sets, st.sampled_from([0.,.5]))
def test_confusion_matrix_counts_each_box_once(s, score):
    acc = accumulate(*s); f = acc.flat(); m = confusion_matrix(acc, score)
    assert m[:3].sum(1).tolist()==np.bincount(f.gt_labels[~f.ignore], minlength=3).tolist()
    assert (m.sum(0)[:3]<=np.bincount(f.labels[f.scores>=score], minlength=3)).all() and m[3,3]==0
    if not f.ignore.any(): assert m[:,:3].sum()==(f.scores>=score).sum()

# --- uncertainty

def test_bootstrap():
    ps,ts = scenes(12)
    acc = accumulate(ps, ts); b = acc.bootstrap((.5,.75), n=300)
    np.testing.assert_allclose(b.estimate, acc.compute((.5,.75)).ap)
    lo,hi = b.interval(); wide = b.interval(.99)
    assert wide[0]<=lo<b.map<hi<=wide[1] and lo<hi
    same = accumulate(ps[:1]*8, ts[:1]*8).bootstrap(n=50)
    np.testing.assert_allclose(same.maps, same.map)             # nothing to be unsure of
    assert set(b.intervals())=={'0','1','2'}
    with pytest.raises(ValueError, match='no images'): APAccumulator(1).bootstrap()

def test_compare_runs_is_paired():
    ps,ts = scenes(12)
    a,b = accumulate(ps, ts),accumulate([{**p, 'scores':p['scores']/2} for p in ps], ts)
    d = compare_runs(a, b, n=50)
    assert d.map==0 and (d.maps==0).all()
    worse = accumulate([{**p, 'labels':(p['labels']+1)%3} for p in ps], ts)
    assert compare_runs(a, worse, n=50).interval()[1]<0
    with pytest.raises(ValueError, match='same images'): compare_runs(a, accumulate(ps[::-1], ts[::-1]))

# --- DOTA result files

def test_windows_merged_give_the_scene_figure(tmp_path):
    "The same detections seen through overlapping windows, written, read and merged, score as on the scene"
    r = np.random.default_rng(0); vocab = ['plane','ship']
    g = np.stack([*np.meshgrid(np.arange(60,1500,120), np.arange(60,900,120))], -1).reshape(-1,2)
    g = np.concatenate([g, r.random((len(g),3))*[40,20,3]+[20,10,-1.5]], 1); lab = r.integers(0,2,len(g))
    d = g+r.normal(0,1,g.shape)*[3,3,2,1,.1]; s = r.random(len(g)).round(4)
    hb,wins = rbox2hbox(d),{}
    for x in (0,500,1000):
        inside = (hb[:,0]>=x)&(hb[:,2]<x+700)
        wins[f'P1__1__{x}___0'] = dict(boxes=d[inside]-[x,0,0,0,0], scores=s[inside], labels=lab[inside])
    for path in (tmp_path/'r', tmp_path/'r.zip'):
        m = merge_windows(read_task1(write_task1(wins, vocab, path, decimals=6), vocab))['P1']
        seen = np.isin(s, m['scores'])
        assert seen.all() and len(m['scores'])==len(s)
    t = dict(boxes=g, labels=lab)
    merged = eval_map([{**m, 'boxes':qbox2rbox(m['boxes'])}], [t], (.5,.6,.7), vocab=vocab)
    np.testing.assert_allclose(merged.aps, eval_map([dict(boxes=d, scores=s, labels=lab)], [t], (.5,.6,.7), vocab=vocab).aps)

def test_windows_named_as_files_are_merged():
    "What `predict_folder` finds in a folder of tiles goes by their file names"
    b = dict(boxes=[[50.,50,20,10,0]], scores=[.9], labels=[0])
    m = merge_windows({'P1__1__0___0.png':b, 'P1__1__1.5___0.tif':b, 'P2__1__0___0':b})
    assert {k:len(v['scores']) for k,v in m.items()}=={'P1':1,'P2':1}

def test_task1_archive_in_capitals(tmp_path):
    p = {'a':dict(boxes=[[50.,50,20,10,0]], scores=[.9], labels=[0])}
    f = write_task1(p, ['x'], tmp_path/'R.ZIP')
    assert f.is_file() and list(read_task1(f, ['x']))==['a']

def test_task1_wants_a_score_and_a_label_a_box(tmp_path):
    p = dict(boxes=[[50.,50,20,10,0]]*2, scores=[.9,.8], labels=[0,0])
    for k in p:
        with pytest.raises(ValueError, match='a: 2 |a: 1 '): write_task1({'a':{**p, k:p[k][:1]}}, ['x'], tmp_path/'r')
    assert not (tmp_path/'r').exists()

# --- reference figures

def test_best_f1_and_errors_of_the_reference_set():
    f = SHARED/'oracle/ops/eval_40img.npz'
    if not f.exists(): pytest.skip('no reference folder')
    d = np.load(f)
    ps = [{k:d[n][d['det_img']==i] for k,n in dict(boxes='det', scores='det_scores', labels='det_labels').items()} for i in range(40)]
    ts = [{k:d[n][d['gt_img']==i] for k,n in dict(boxes='gt', labels='gt_labels').items()} for i in range(40)]
    acc = accumulate(ps, ts, 15); r = acc.compute(metric='voc12')
    assert abs(r.map-d['map_0.50_area'])<4e-3
    for c,curve in pr_curves(acc).items():
        tp = match(acc, free=False).status[acc.flat().by_class()[int(c)]]==Outcome.TRUE
        assert curve.n_gt==r.n_gt[int(c)] and average_precision(tp, curve.n_gt)==pytest.approx(r.ap[int(c)])
        assert curve.recall[-1]>=r.recall[int(c)]-1e-12     # one to one finds no fewer
    e = find_errors(acc)
    assert (e.kind>=0).all() and set(error_costs(e))==set(COSTLY)
