"What to label next: how answers differ, the spread of a choice, and the way to corrected labels"
from itertools import combinations
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from rotnb.check.values import ArgumentError
from rotnb.data.formats.table import read_format
from rotnb.explore.active import NoFeaturesError, apart, expected_mistakes, spread_order, worth_labelling
from rotnb.explore.label_fixer import LabelFixer
from rotnb.models.contract import create_detector
from rotnb.predict.detections import Detections
from rotnb.predict.predictor import Predictor
from rotnb.predict.results import LABEL_FORMATS
from rotnb.predict.scene import predict_folder

NAMES = ['plane','ship','car']

def answer(seed, n):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform([10,10,8,4,-1.5], [60,60,30,20,1.5], (n,5))
    return Detections(torch.tensor(boxes).float(), rng.uniform(0, 1, n), rng.integers(0, 3, n), NAMES)

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 6))
def test_answers_that_differ(seed, n, m):
    "No order of the two, nothing for the same, no more than all that either has, and no less than the scores alone differ"
    one,other = answer(seed, n),answer(seed+1, m)
    value = apart(one, other, 3)
    np.testing.assert_allclose(value, apart(other, one, 3), atol=1e-6)
    np.testing.assert_allclose(apart(one, one, 3), 0, atol=1e-5)
    np.testing.assert_allclose(apart(one, one[torch.randperm(n)], 3), 0, atol=1e-5)
    by_class = [np.bincount(some.labels, some.scores, 3) for some in (one,other)]
    assert (value<=sum(by_class)/2+1e-6).all() and (value>=np.abs(by_class[0]-by_class[1])/2-1e-6).all()
    mistakes = expected_mistakes([one], 3)
    assert (0<=mistakes).all() and (mistakes<=np.bincount(one.labels, minlength=3)/2).all()

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7))
def test_greedy_centres_are_at_most_twice_as_far_as_the_best(seed, n, k):
    looks = np.random.default_rng(seed).normal(size=(n,2))
    order = spread_order(np.ones(n), looks, n=k)
    assert len(set(order))==len(order)==min(n, k)
    gaps = np.linalg.norm(looks[:,None]-looks, axis=2)
    radius = lambda some: gaps[:,list(some)].min(1).max()
    assert radius(order)<=2*min(radius(some) for some in combinations(range(n), min(n, k)))+1e-9

def test_images_like_labelled_ones_come_last():
    looks = np.array([[1,0],[1,.001],[0,1],[0,1.001]])
    assert spread_order([1,1,1,1], looks, looks[:1])[0] in (2,3)
    assert spread_order([1,0,.5,.4], None, n=3)==[0,2,3] and spread_order([], np.zeros((0,2)))==[]
    assert spread_order([.2,.9,.5], np.ones((3,2)))==[1,2,0]                # all look alike: by score

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A small untrained detector and images that differ"
    root,rng = tmp_path_factory.mktemp('pics'),np.random.default_rng(0)
    for name in 'abc': Image.fromarray(rng.integers(0, 255, (48,64,3), np.uint8)).save(root/f'{name}.png')
    torch.manual_seed(0)
    small = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
    detector = create_detector('rotated_fcos', 3, score_thr=0., max_per_img=5, **small)
    for values in detector.parameters():
        if values.ndim==1 and (values<-4).all(): values.data.zero_()           # as if every place were half an object
    return Predictor(detector, NAMES, size=64, score_thr=0.),root

@pytest.mark.parametrize('by', ['disagreement','mistakes'])
def test_the_queue_becomes_corrected_labels(tiny, tmp_path, by):
    predictor,root = tiny
    queue = worth_labelling(predictor, root, 2, by=by, views='hflip', progress=False)
    assert len(queue)==2 and (queue.score>.05).all() and queue.why.str.contains('|'.join(NAMES)).all() and all(map(len, queue.annot))
    again = worth_labelling(predictor, root, 2, by=by, views='hflip', progress=False)
    pd.testing.assert_frame_equal(queue[['file','score','why']], again[['file','score','why']])
    fixer = LabelFixer(queue.annot, queue=queue, vocab=NAMES)
    assert [str(source.image) for source,*_ in fixer.items]==queue.file.tolist() and fixer.known==NAMES
    before = len(fixer.edits.boxes)
    assert before==len(queue.annot[0])
    fixer.edit('insert', quad=[10,10,30,10,30,20,10,20], name='ship')
    fixer.save_as(tmp_path/'labels', 'dota')
    assert sum(map(len, fixer.annots()))==sum(map(len, queue.annot))+1
    assert len((tmp_path/'labels/labelTxt'/f'{fixer.source_in_view.image.stem}.txt').read_text().splitlines())>=before+1

def test_what_cannot_be_asked(tiny):
    predictor,root = tiny
    other = Predictor(predictor.detector, ['a','b','c'], size=64)
    with pytest.raises(ArgumentError, match='different classes'): worth_labelling([predictor,other], root, progress=False)
    with pytest.raises(ArgumentError, match='n is 0'): worth_labelling(predictor, root, 0)
    class File: vocab,score_thr,predict_images = NAMES,.3,predictor.predict_images; detect_rows = predictor.detect_rows
    with pytest.raises(NoFeaturesError, match='diverse=False'): worth_labelling([File(),File()], root, progress=False)

@pytest.mark.parametrize('format', LABEL_FORMATS)
def test_predictions_are_labels_that_can_be_corrected(tiny, tmp_path, format):
    predictor,root = tiny
    preds,bad = predict_folder(predictor, root, tmp_path/'out', format, size=64, score_thr=0., label_thr=0., progress=False)
    annots = read_format(tmp_path/'out'/format)
    assert not bad and {annot.image.name:len(annot) for annot in annots}=={name:len(found) for name,found in preds.items()}
    for annot in annots:
        np.testing.assert_allclose(annot.quads.mean(1), preds[annot.image.name].quads.numpy().mean(1), atol=.02)
    fixer = LabelFixer(tmp_path/'out'/format, journal=tmp_path/'journal')
    box = fixer.edits.boxes[0]
    fixer.edit('delete', id=box.id)
    fixer.save()
    assert sum(map(len, read_format(tmp_path/'out'/format)))==sum(map(len, annots))-1
    with pytest.raises(FileExistsError, match='corrected'):
        predict_folder(predictor, root, tmp_path/'out', format, size=64, score_thr=0., progress=False)
