"angle='hbb': boxes around, on painted pixels and beside torchvision's boxes of four numbers"
import cv2, numpy as np, pytest, torch, torchvision
from hypothesis import given, settings, strategies as st
from rotnb.geometry.boxes import canonicalize, circumscribed_hbox, hbox2rbox, qbox2hbox, qbox2rbox, rbox2hbox, rbox2qbox, spelt_corners
from rotnb.geometry.fit import from_masks, from_polygons
from rotnb.geometry.polygons import min_area_rect
from rotnb.ops.iou import box_iou_rotated
from rotnb.ops.nms import batched_nms_rotated, nms_rotated

side,place = st.floats(8, 60),st.floats(60, 140)
turned = st.tuples(place, place, side, side, st.floats(-7, 7)).map(list)
corner = st.integers(0, 40)
whole = st.tuples(corner, corner, st.integers(1, 40), st.integers(1, 40)).map(lambda o: [o[0],o[1],o[0]+o[2],o[1]+o[3]])

def painted(quad, size=200):
    "Pixels of which a fine grid finds some inside"
    big = np.zeros((size*4,size*4), np.uint8)
    cv2.fillPoly(big, [np.round(np.asarray(quad)*4*16-8).astype(np.int32)], 1, shift=4)
    return big.reshape(size, 4, size, 4).max((1,3))>0

@settings(max_examples=60, deadline=None)
@given(turned)
def test_the_box_around_is_that_of_the_painted_pixels(box):
    mask = painted(rbox2qbox(np.array(box)))
    y,x = mask.nonzero()
    seen = np.array([x.min(),y.min(),x.max()+1,y.max()+1])
    around = canonicalize(np.array(box), 'hbb')
    assert around[4]==0 and np.abs(rbox2hbox(around)-seen).max()<1.3
    assert np.array_equal(rbox2hbox(from_masks([mask], 'hbb')[0])[0], seen)                # of pixels to the pixel

@given(turned)
def test_all_ways_to_the_box_around_agree(box):
    b = np.array(box); quad = rbox2qbox(b); want = canonicalize(b, 'hbb')
    ways = qbox2rbox(quad, 'hbb'),qbox2rbox(quad[::-1], 'hbb'),min_area_rect(quad, 'hbb'),circumscribed_hbox(b),hbox2rbox(rbox2hbox(b), 'hbb')
    for way in (*ways, from_polygons([quad], 'hbb')[0][0]): assert np.allclose(way, want, atol=1e-9) and way[4]==0
    assert np.array_equal(canonicalize(want, 'hbb'), want)                                  # bit for bit
    for form in ('le90','le135','oc'): assert np.allclose(canonicalize(canonicalize(want, form), 'hbb'), want, atol=1e-9)
    assert np.allclose(spelt_corners(quad, 'hbb'), rbox2qbox(want), atol=1e-9) and np.array_equal(spelt_corners(quad, 'oc'), quad)

@given(st.lists(st.tuples(corner, corner), min_size=4, max_size=4))
def test_of_any_four_points_the_bounds_of_the_points(points):
    quad = np.array(points, float)
    box = qbox2rbox(quad, 'hbb')
    assert rbox2hbox(box).tolist()==[*quad.min(0), *quad.max(0)]==qbox2hbox(quad).tolist()
    tensor = qbox2rbox(torch.tensor(quad, requires_grad=True), 'hbb')
    assert np.array_equal(tensor.detach().numpy(), box)
    tensor[2:4].sum().backward()

def test_what_is_no_box_stays_none():
    assert np.isnan(canonicalize([[1.,2,float('nan'),4,.1]], 'hbb')).any() and np.isnan(qbox2rbox([[0.,0],[float('nan'),1],[2,2],[0,2]], 'hbb')).any()
    assert np.isnan(canonicalize([[1.,2,3,4,float('nan')]], 'hbb')[:,2:4]).all()
    assert qbox2rbox(np.zeros((0,8)), 'hbb').shape==(0,5) and canonicalize(np.zeros((0,5)), 'hbb').shape==(0,5)
    assert qbox2rbox([[3.,4]]*4, 'hbb').tolist()==[3,4,0,0,0]

# overlaps and suppression of theta 0 beside torchvision's

@settings(max_examples=60, deadline=None)
@given(st.lists(whole, min_size=1, max_size=12), st.lists(whole, min_size=1, max_size=12))
def test_overlaps_are_torchvisions_and_those_of_pixels(some, others):
    a,b = (torch.tensor(o, dtype=torch.float64) for o in (some, others))
    iou = box_iou_rotated(hbox2rbox(a, 'hbb'), hbox2rbox(b, 'hbb'))
    assert torch.allclose(iou, torchvision.ops.box_iou(a, b), atol=1e-12)
    x1,y1,x2,y2 = some[0]; u1,v1,u2,v2 = others[0]
    one,two = np.zeros((80,80), bool),np.zeros((80,80), bool)
    one[y1:y2,x1:x2] = True; two[v1:v2,u1:u2] = True
    assert iou[0,0].item()==pytest.approx((one&two).sum()/(one|two).sum(), abs=1e-12)

@settings(max_examples=60, deadline=None)
@given(st.lists(whole, min_size=1, max_size=30), st.randoms(), st.sampled_from([.1,.35,.61]))
def test_suppression_is_torchvisions(boxes, rng, thr):
    h = torch.tensor(boxes, dtype=torch.float32)
    scores = torch.tensor(rng.sample(range(1000), len(boxes)))/1000
    labels = torch.tensor([rng.randrange(3) for _ in boxes])
    b = hbox2rbox(h, 'hbb')
    iou = torchvision.ops.box_iou(h.double(), h.double())
    if ((iou-thr).abs()<1e-6).any(): return                                                 # rounding decides, in both
    assert torch.equal(nms_rotated(b, scores, thr), torchvision.ops.nms(h, scores, thr))
    assert torch.equal(batched_nms_rotated(b, scores, labels, thr).sort()[0], torchvision.ops.batched_nms(h, scores, labels, thr).sort()[0])
