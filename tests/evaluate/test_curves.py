"Curves, calibration and errors of boxes against counting"
import math, warnings
import numpy as np, pytest
from hypothesis import given, strategies as st
from rotnb.evaluate.ap import average_precision
from rotnb.evaluate.curves import angle_error, box_errors, calibration, pr_curves, recall_at
from rotnb.evaluate.errors import COSTLY, error_costs, find_errors
from rotnb.evaluate.matching import Outcome, match
from detections import accumulate, fast, scenes, sets
from paths import SHARED


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
