"Pairs against the whole matrix, quads against shapely, and outlines that cross themselves"
import warnings
from functools import partial
import numpy as np, pytest
from rotnb.evaluate import eval_map
from rotnb.evaluate.protocols import COCO_IOUS
from rotnb.evaluate.matching import match
from rotnb.evaluate.overlaps import CrossedQuadWarning, _crossed, image_record
from rotnb.geometry.boxes import rbox2qbox
from rotnb.measure.exact import exact_iou
from rotnb.ops.iou import box_iou_rotated
from detections import accumulate, scenes


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
    one = lambda p,t: image_record(dict(boxes=p[None], scores=[1.], labels=[0]), dict(boxes=t[None], labels=[0])).iou.sum()
    rec = lambda p,t: [one(*o) for o in zip(p, t)]
    for p,t in ((rbox2qbox(a),rbox2qbox(b)), (a,rbox2qbox(b).reshape(-1,8)), (rbox2qbox(a)[:,::-1].copy(),b)):
        np.testing.assert_allclose(rec(p, t), want, atol=1e-9)
    t = np.sort(r.random((2,300,4))*2*np.pi, -1)
    d = r.random((2,300,4,1))*30+5          # about a point: convex, pushed in, or crossing where the point is outside
    p,q = np.stack([np.cos(t),np.sin(t)], -1)*d+r.random((2,300,1,2))*20
    valid = np.array([Polygon(x).is_valid for x in p]); assert 20<(~valid).sum()<200; np.testing.assert_array_equal(_crossed(p), ~valid)
    both = valid&~_crossed(q)
    want = [x.intersection(y).area/x.union(y).area for x,y in zip(map(Polygon, p[both]), map(Polygon, q[both]))]
    np.testing.assert_allclose(rec(p[both], q[both]), want, atol=1e-9)

def test_crossing_quads_overlap_nothing():
    tie = np.array([[[0,0],[10,0],[0,10],[10,11.]]]); box = np.array([[5.,5,10,10,0]])
    with pytest.warns(CrossedQuadWarning, match="1 of 1 quads among preds' boxes"):
        r = eval_map([dict(boxes=tie, scores=[1.], labels=[0])], [dict(boxes=box, labels=[0])], .1)
    assert r.map==0 and r.n_det[0]==1
    with pytest.warns(CrossedQuadWarning, match="targets' boxes"):
        assert eval_map([dict(boxes=box, scores=[1.], labels=[0])], [dict(boxes=tie, labels=[0])], .1).map==0
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert eval_map([dict(boxes=np.full((1,4,2),np.nan), scores=[1.], labels=[0])], [dict(boxes=box, labels=[0])]).map==0
