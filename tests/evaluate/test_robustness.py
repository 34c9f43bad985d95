"Spoilt images: pixels of any size, the same again by seed, and a detector on them"
import numpy as np, pytest, torch
from dataclasses import replace
from hypothesis import given, settings, strategies as st
from PIL import Image
from rotnb.data.labels.records import Annot
from rotnb.evaluate.robustness import CORRUPTIONS, Robustness, corrupt
from rotnb.models.contract import create_detector
from rotnb.predict.measure import Spoilt, accumulate, evaluate_annots, robustness
from rotnb.predict.predictor import Predictor

@pytest.mark.parametrize('name', CORRUPTIONS)
@settings(max_examples=15, deadline=None)
@given(h=st.integers(1, 40), w=st.integers(1, 40), severity=st.integers(0, 5), seed=st.integers(0, 99))
def test_any_image_can_be_spoilt(name, h, w, severity, seed):
    image = np.random.default_rng(seed).integers(0, 256, (h,w,3), np.uint8)
    before = image.copy()
    spoilt = corrupt(image, name, severity, seed)
    assert spoilt.shape==image.shape and spoilt.dtype==np.uint8 and (image==before).all()
    assert (corrupt(image, name, severity, seed)==spoilt).all() and (severity or (spoilt==image).all())

def test_a_constant_image_stays_constant_where_nothing_is_drawn():
    image = np.full((30,40,3), 90, np.uint8)
    for name in ('blur','motion_blur','contrast','pixelate','jpeg'):
        for severity in range(1, 6): assert np.abs(corrupt(image, name, severity).astype(int)-90).max()<=6, name       # steps of the coder

@pytest.fixture(scope='module')
def judged(tmp_path_factory):
    "An untrained detector, and records of what it finds itself in images of noise"
    root,rng = tmp_path_factory.mktemp('noise'),np.random.default_rng(0)
    torch.manual_seed(0)
    small = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
    predictor = Predictor(create_detector('rotated_fcos', 2, score_thr=0., max_per_img=9, **small), ['a','b'], size=64, score_thr=0.)
    for i in range(3): Image.fromarray(rng.integers(0, 255, (48,64,3), np.uint8)).save(root/f'{i}.png')
    annots = [found[:4].to_annot() for found in predictor(root, progress=False)]
    return predictor,annots

def test_severity_0_is_the_plain_evaluation(judged):
    predictor,annots = judged
    same = [replace(annot, image=Spoilt(annot.image, 'noise', 0, (0,i))) for i,annot in enumerate(annots)]
    for one,other in zip(accumulate(predictor, annots).images, accumulate(predictor, same).images):
        assert (one.scores==other.scores).all() and (one.iou==other.iou).all()
    left = robustness(predictor, annots, ['jpeg','lines'], (2,), progress=False)
    assert left.clean==evaluate_annots(predictor, annots, progress=False).map50>.5
    assert (left.df[0]==left.clean).all() and 0<=left.mpc<=1 and left.df.loc['all','mean']==left.mpc
    again = robustness(predictor, annots, ['jpeg','lines'], (2,), progress=False)
    lines = robustness(predictor, annots, 'lines', (2,), progress=False)
    assert again.df.equals(left.df) and lines.df.loc['lines',2]==left.df.loc['lines',2]

def test_what_was_measured_is_not_measured_again(judged, monkeypatch):
    predictor,annots = judged
    for kw in ({},dict(protocol='coco'),dict(iou_thr=.75)):
        known = evaluate_annots(predictor, annots, progress=False, **kw)
        whole = robustness(predictor, annots, 'jpeg', (3,), progress=False, **kw)
        with monkeypatch.context() as m:
            asked,real = [],predictor.detect_rows
            m.setattr(predictor, 'detect_rows', lambda images, *args: asked.extend(images) or real(images, *args))
            left = robustness(predictor, annots, 'jpeg', (3,), clean=known, progress=False, **kw)
        assert left.df.equals(whole.df) and left.clean==whole.clean>.4 and all(image.severity==3 for image in asked) and len(asked)==3
    with pytest.raises(ValueError, match='clean is of 3 images, these are 2'): robustness(predictor, annots[:2], 'jpeg', (3,), clean=known)

def test_coco_and_other_overlaps_are_named(judged):
    predictor,annots = judged
    assert robustness(predictor, annots, 'blur', (1,), protocol='coco', progress=False).what=='AP50:95'
    assert robustness(predictor, annots, 'blur', (1,), iou_thr=.75, progress=False).what=='AP75'

def test_numbers_are_plain():
    none = Robustness(float('nan'), dict(blur={1:float('nan')})).to_dict()
    assert none['clean'] is None and none['rPC'] is None and none['corruptions']['blur']['1'] is None
