"Merged, reordered and sliced: an accumulator gives what all images at once give"
import math, os, pickle, subprocess, sys
from functools import partial
import numpy as np, pytest
from hypothesis import given, strategies as st
from rotnb.evaluate import APAccumulator, eval_map
from rotnb.evaluate.ap import SLICES, average_precision, box_angle
from rotnb.evaluate.protocols import COCO_IOUS
from rotnb.evaluate.curves import best_thresholds, pr_curves, recall_at
from rotnb.evaluate.errors import confusion_matrix, error_costs, find_errors
from rotnb.evaluate.matching import match
from rotnb.ops.iou import box_iou_rotated
from detections import accumulate, fast, scenes, sets
from paths import ROOT


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

def test_a_slice_of_ones_own_is_told_of_both_sides():
    "Boxes, images, records and areas belong together, also where both sides are one array"
    ps,ts = scenes()
    acc,told = accumulate(ps, ts),[]
    flat = acc.flat()
    def mine(boxes, img, flat, area): told.append((len(boxes),len(img),area)); return boxes[:,2]
    acc.compute_by((mine, {'all':(0,math.inf)}))
    assert [row[:2] for row in told]==[(len(side),)*2 for side in (flat.boxes, flat.gt_boxes)]
    assert told[0][2] is flat.area and told[1][2] is flat.gt_area and len(flat.area)==len(flat.boxes)

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
        with pytest.raises(ValueError, match='iou_threshold'): confusion_matrix(acc, iou_threshold=thr)

def test_the_door_is_cheap_and_leads_to_the_evaluation():
    "Readers of labels import `evaluate.protocols` alone: no Numba kernel may come along"
    code = """import sys, rotnb.evaluate.protocols
assert not {'numba','rotnb.evaluate.accumulator'}&set(sys.modules), 'the door drags the evaluation in'
from rotnb.evaluate import APAccumulator, eval_map
assert {'APAccumulator','eval_map'}<=set(dir(sys.modules['rotnb.evaluate']))
import rotnb.evaluate.accumulator as home
assert (eval_map,APAccumulator)==(home.eval_map,home.APAccumulator)"""
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, env={**os.environ, 'PYTHONPATH':str(ROOT)})
    with pytest.raises(ImportError, match='eval_mapp'): exec('from rotnb.evaluate import eval_mapp')
