"Calibrated scores keep their order, and bounds hold what they must"
import json
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from rotnb.check.values import ArgumentError
from rotnb.evaluate.calibration import Calibrator, as_calibrator
from rotnb.evaluate.conformal import bounds_of, box_margin, conformal_bound, objects_needed
from rotnb.geometry.boxes import rbox2qbox, to_frame
from rotnb.models.contract import create_detector
from rotnb.predict.predictor import Predictor
from rotnb.predict.rows import row_parts, rows_back, way_in

side,turn = st.floats(4, 80),st.floats(-3, 3)
box = st.tuples(st.floats(-20, 20), st.floats(-20, 20), side, side, turn)

def within(small, big, eps=1e-6):
    return (abs(to_frame(rbox2qbox(small), big[:,None]))<=big[:,None,2:4]/2+eps).all()

@settings(max_examples=200, deadline=None)
@given(box, box)
def test_a_margin_is_the_least_that_holds(found, true):
    found,true = np.array([found]),np.array([true])
    margin = box_margin(found, true)
    assert np.isfinite(margin).all() and margin>=-1e-9
    inner,outer = bounds_of(found, margin)
    assert within(true, outer) and (not inner[0,2:4].all() or within(inner, true))
    if margin<1e-3: return
    inner,outer = bounds_of(found, margin*.999-1e-5)
    assert not (within(true, outer, 0) and (not inner[0,2:4].all() or within(inner, true, 0)))

@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=30, max_size=60), st.sampled_from([.5,.8,.9]))
def test_a_bound_is_a_value_that_enough_do_not_exceed(values, coverage):
    bound = conformal_bound(values, coverage)
    assert bound in values and (np.array(values)<=bound).sum()>=(len(values)+1)*coverage-1e-9
    with pytest.raises(ArgumentError, match='or more, there are'): conformal_bound(values[:objects_needed(coverage)-1], coverage)

curve = [[0,.3,1],[0,.7,.95]]

def test_a_predictor_keeps_its_calibrator(tmp_path):
    torch.manual_seed(0)
    detector = create_detector('rotated_fcos_tiny', 2, score_thr=.0, nms_pre=50)
    image = np.random.default_rng(0).integers(0, 255, (64,64,3), np.uint8)
    raw = Predictor(detector, ['a','b'], size=64, score_thr=0.)
    said = Predictor(detector, ['a','b'], size=64, score_thr=0., calibrator=Calibrator({'a':curve}, [[0,1],[0,.5]]))
    before,after = raw(image),said(image)
    assert len(before) and len(before)==len(after) and said.fingerprint()!=raw.fingerprint()
    want = as_calibrator(said.calibrator)(before.scores, before.labels, ['a','b'])
    assert np.allclose(np.sort(after.scores), np.sort(want), atol=1e-6)
    assert (after.scores.diff()<=0).all()
    for label in (0,1):                                              # the ranking within a class stays
        assert torch.equal(before.boxes[before.labels==label], after.boxes[after.labels==label])
    said.save(tmp_path/'kept')
    again = Predictor(tmp_path/'kept')
    assert again.calibrator==said.calibrator and again.uncalibrated.calibrator is None
    assert torch.allclose(again(image).scores, after.scores)
    assert json.loads(json.dumps(said.settings()))['calibrator']['rest']==[[0,1],[0,.5]]
    thr = float(after.scores.median())
    assert len(said(image, score_thr=thr))==int((after.scores>=thr).sum())
    with pytest.raises(ArgumentError, match='calibrate it by itself'): Predictor(detector, ['x','y'], calibrator=said.calibrator)

def test_deviations_go_with_their_rows():
    rows = torch.tensor([[20.,30,8,4,.3, .9,1, 1,2,3,4,.1], [20.,30,8,4,.3, .8,1, float('nan'),2,3,4,.1]])
    way = way_in(torch.tensor([[.5,0,0],[0,.5,0]]), (128,128), (64,64))
    back = rows_back(rows, way)
    assert np.allclose(back[0,7:], [2,4,6,8,.1], atol=1e-5) and np.isnan(back[1,7]) and row_parts(back)[3] is None
    assert row_parts(torch.zeros(2,20))[4].shape==(2,5) and row_parts(torch.zeros(2,15))[4] is None

def test_deviations_go_through_the_windows_of_a_scene(tmp_path):
    torch.manual_seed(0)
    detector = create_detector('yolov8_n', 2, score_thr=0., nms_pre=40)
    for part in detector.stages[-1].parameters(): part.data += .05*torch.randn_like(part)          # or all are equally unsure
    looks = Predictor(detector, ['a','b'], size=64, score_thr=0., iou_thr=.9)
    scene,how = np.random.default_rng(0).integers(0, 255, (64,96,3), np.uint8),dict(size=64, overlap=32, iou_thr=.9, progress=False)
    found = looks.predict_scene(scene, resume=tmp_path, **how)
    assert len(found)>5 and found.std.shape==(len(found),5) and found.std[:,:4].isfinite().all() and (found.std[:,:4]>0).all()
    assert len(found.std[:,0].unique())>3
    parts = [looks(np.ascontiguousarray(scene[:,x:x+64])) for x in (0,32)]
    boxes = np.concatenate([part.boxes+torch.tensor([x,0,0,0,0]) for part,x in zip(parts, (0,32))])
    std,nearest = np.concatenate([part.std for part in parts]),abs(found.boxes.numpy()[:,None]-boxes).sum(-1)
    assert nearest.min(1).max()<1e-2 and {*(nearest.argmin(1)>=len(parts[0])).tolist()}=={True,False}
    assert np.allclose(found.std, std[nearest.argmin(1)], rtol=1e-3, equal_nan=True)
    assert torch.allclose(found[2:4].std, found.std[2:4], equal_nan=True) and len(found.df.filter(like='std_').columns)==5
    again = looks.predict_scene(scene, resume=tmp_path, **how)       # from the journal
    assert torch.allclose(again.std, found.std, equal_nan=True)
