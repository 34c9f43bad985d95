"One kind for every box, what each costs, and the confusion matrix"
import math
import numpy as np, pytest
from hypothesis import given, strategies as st
from rotnb.evaluate.errors import ERROR_KINDS, confusion_matrix, error_costs, find_errors
from rotnb.evaluate.matching import Outcome, match
from detections import accumulate, fast, sets


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
    cases = ('background',box(900),1/4),('duplicate',box(1),0.),('localisation',box(220),3/4),('angle',box(200,.9),3/4)
    for kind,first,want in cases:
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
