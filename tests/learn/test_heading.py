"A heading goes from labels through training to detections, measures and files; see tests/models/test_heading.py for the detectors"
import math
from itertools import product
import numpy as np, pytest, torch
from fastai.vision.all import Tensor, TensorImage
from hypothesis import given, settings, strategies as st
from torch import tensor
from rotnb.all import (HeadingAccuracy, Predictor, RandomFlip, RandomRotate, RotatedDataLoaders, read_dota, rotated_aug_transforms,
                       rotated_learner)
from rotnb.data.synth.canvas import CLASSES
from rotnb.data.synth.scenes import kind_of, make_scene
from rotnb.data.types import TensorBoxLabel, TensorQuad, to_targets
from rotnb.evaluate.accumulator import APAccumulator
from rotnb.evaluate.curves import box_errors
from rotnb.evaluate.evaluation import Evaluation
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.symmetry import fold_angle, headings
from rotnb.learn.callbacks import pad_dets, unpad_dets
from rotnb.models.contract import HeadingError
from rotnb.predict.infer import dets_rows, rows_dets
from rotnb.predict.measure import truth_of
from rotnb.predict.rows import row_parts, rows_back, way_in
from rotnb.predict.tta import SYMMETRIES, _by_fusion, _by_nms

SYMMETRY = {'plane':360, 'storage-tank':'round'}

def loaders(folder, **kw):
    return RotatedDataLoaders.from_synth(folder, 4, 2, 96, bs=2, **{**dict(vocab=CLASSES, symmetry=SYMMETRY), **kw})

@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    return rotated_learner(loaders(tmp_path_factory.mktemp('scenes')), 'rotated_fcos_tiny', pretrained=False, run=False,
                           metrics=[HeadingAccuracy()], score_thr=.001, nms_pre=50, max_per_img=200)      # what knows little is not sure

def test_a_learner_of_planes_says_headings(learn, tmp_path):
    "By default, where a class has a front; into Detections, files, and back"
    assert learn.model.stages[-1].heading and learn.model.stages[-1].has_heading.sum()==1
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert 'loss_heading' in learn.history.terms and all(p.isfinite().all() for p in learn.model.parameters())
    image = np.random.default_rng(0).integers(0, 255, (96,96,3), dtype=np.uint8)
    found = learn.predict(image, score_thr=0.)
    is_plane = np.array(found.names)=='plane'
    assert is_plane.any() and (np.isfinite(found.heading.numpy())==is_plane).all()
    predictor = learn.predictor()
    for other in (predictor(image, score_thr=0.), Predictor(predictor.save(tmp_path/'kept'))(image, score_thr=0.)):
        assert torch.equal(other.labels, found.labels)
        assert torch.allclose(other.heading.cos().nan_to_num(9.), found.heading.cos().nan_to_num(9.), atol=1e-3)
    seen = predictor.with_views('flips')(image, score_thr=0.)
    assert (np.isfinite(seen.heading.numpy())==(np.array(seen.names)=='plane')).all()

def test_who_is_asked_for_headings_in_vain(learn, tmp_path):
    dls,kw = loaders(tmp_path, symmetry=None),dict(pretrained=False, run=False)
    with pytest.raises(HeadingError, match='no class has a front'): rotated_learner(dls, 'rotated_fcos_tiny', heading=True, **kw)
    assert not rotated_learner(dls, 'rotated_fcos_tiny', **kw).model.stages[-1].heading
    with pytest.raises(HeadingError, match='upright labels'): rotated_learner(learn.dls, 'h2rbox', 'test_resnet', heading=True, **kw)
    other = rotated_learner(learn.dls, 'h2rbox', 'test_resnet', **kw)                                        # by default without
    assert other.model.symmetry==SYMMETRY and not other.model.stages[-1].heading
    with pytest.raises(HeadingError, match='made without'): rotated_learner(learn.dls, other.model, heading=True)

# from labels to targets

def nose(scene, name): # corners (n,4,2) px that `object_quad` made: the front edge first
    "Where objects of a class face in a painted scene: from the middle of the box to that of the front edge"
    _,quads,names,_ = scene
    mine = quads[np.array(names)==name]
    along = mine[:,:2].mean(1)-mine.mean(1)
    return mine.mean(1),np.arctan2(along[:,1], along[:,0])

@pytest.mark.parametrize('kw', [{}, dict(tile=64)], ids=['whole','tiles'])
def test_what_loaders_of_painted_scenes_teach_is_the_front(tmp_path, kw):
    "DOTA begins at the front edge: what training and validation are given is the heading, however images are flipped and turned"
    fronts = dict.fromkeys(('plane','ship','small-vehicle','large-vehicle'), 360)
    dls = RotatedDataLoaders.from_synth(tmp_path, 6, 4, 160, bs=2, vocab=CLASSES, symmetry=fronts, batch_tfms=[], num_workers=0, **kw)
    seen = 0
    for split,(nth,loader) in dict(train=(0,dls.train),val=(1,dls.valid)).items():
        for annot in loader.items:
            file = getattr(annot, 'whole', annot).image
            scene = make_scene((0,nth,int(file.stem[-4:])), 160, kind_of(int(file.stem[-4:])))
            offset = (annot.image.x,annot.image.y) if kw else (0,0)
            for name in fronts:
                centres,theta = nose(scene, name)
                for quad in annot.quads[np.array(annot.names, object)==name] if len(annot) else ():
                    nearest = np.linalg.norm(centres-quad.mean(0)-offset, axis=1).argmin()
                    assert math.cos(headings(quad)-theta[nearest])>.99, (file.name, name)
                    seen += 1
    assert seen>=10, 'nothing was looked at'
    for raw,taught in zip(read_dota(tmp_path, 'train'), [] if kw else dls.train.items):                  # measured as it is taught
        assert (raw.front,taught.front)==('across','along')
        pointed = np.isin(raw.names, [*fronts])
        assert np.allclose(truth_of(raw, CLASSES)['heading'][pointed], truth_of(taught, CLASSES)['heading'][pointed])

# targets turn with pixels

FRONT,REAR = 0,2                                                                       # channels that are painted there

def painted(theta):
    "An image whose object has a red front and a blue rear, and its quad"
    y,x = np.mgrid[:96,:96]+.5
    along,across = (x-52)*math.cos(theta)+(y-44)*math.sin(theta),(y-44)*math.cos(theta)-(x-52)*math.sin(theta)
    image = np.zeros((3,96,96), np.float32)
    for channel,at in ((FRONT,9),(REAR,-9)): image[channel] = np.exp(-((along-at)**2+across**2)/8)
    return tensor(image),rbox2qbox(tensor([[52.,44,26,12,theta]]))

def seen_heading(image):
    y,x = torch.meshgrid(*[torch.arange(96)+.5]*2, indexing='ij')
    (fx,fy),(rx,ry) = [((image[c]*x).sum()/image[c].sum(),(image[c]*y).sum()/image[c].sum()) for c in (FRONT,REAR)]
    return torch.atan2(fy-ry, fx-rx)

WAYS = dict(flip=lambda: [RandomFlip(.3, .3, .3)], turn=lambda: [RandomRotate(180., p=1.)],
            fastai=lambda: rotated_aug_transforms(max_lighting=0, max_rotate=45, p_affine=1.))

@pytest.mark.parametrize('way', WAYS)
@settings(max_examples=15, deadline=None)
@given(theta=st.floats(-3.1, 3.1), seed=st.integers(0, 999))
def test_the_heading_of_a_target_turns_as_pixels_do(way, theta, seed):
    image,quad = painted(theta)
    torch.manual_seed(seed); np.random.seed(seed)
    import random; random.seed(seed)
    batch = TensorImage(image[None]),TensorQuad(quad[None]/48-1, img_size=(96,96)),TensorBoxLabel(torch.zeros(1, 1, dtype=torch.long))
    for tfm in WAYS[way](): batch = tfm(batch, split_idx=0)
    target, = to_targets(*batch[1:], (96,96))
    assert fold_angle(target['heading'][0]-seen_heading(batch[0][0].as_subclass(Tensor)), tensor(360)).abs().rad2deg()<6
    plain, = to_targets(*batch[1:], (96,96), 'hbb')
    assert torch.equal(plain['heading'], target['heading'])

# detections turn with views

@pytest.mark.parametrize('name', SYMMETRIES)
@given(theta=st.floats(-3.1, 3.1))
@settings(max_examples=20, deadline=None)
def test_a_heading_comes_back_from_a_view(name, theta):
    view,size = SYMMETRIES[name],(90,60)
    back = view.back(size)
    quad = rbox2qbox(tensor([[40.,25,20,8,theta]], dtype=torch.float64))
    there = torch.cat([quad[0], torch.ones(4,1)], 1)@torch.linalg.inv(back).T                    # where the view shows it
    mirrored = torch.linalg.det(back[:2,:2])<0
    seen = headings(there[None,:,:2].flip(1) if mirrored else there[None,:,:2])
    box = torch.cat([there[:,:2].mean(0), tensor([20.,8.]), seen]).float()
    rows = torch.cat([box, tensor([.9,0.]), seen.float()])[None]
    out = view.size(size)
    found = rows_back(rows, way_in(torch.eye(3)[:2].double(), out, out), back[:2])
    assert abs(float(fold_angle(tensor(found[0,7]-theta), tensor(360))))<1e-4

@pytest.mark.parametrize('n', [2,0])
def test_rows_of_every_width(n):
    "Also where an image has none, as a detector answers"
    for masks,quads,std,heading in product((0,784), (0,8), (0,5), (0,1)):
        rows = torch.arange(n*(7.+masks+quads+std+heading)).view(n, -1) if n else torch.zeros(0, 7+masks+quads+std+heading)
        parts = row_parts(rows)
        assert [o is not None for o in parts[3:]]==[bool(quads),bool(std),bool(heading),bool(masks)]
        if heading: assert torch.equal(parts[5], rows[:,-1])
        found = dict(zip(('boxes','scores','labels','quads','std','heading','masks'), parts))
        assert torch.equal(dets_rows(found), rows)
        own = {key:o for key,o in found.items() if o is not None}
        again = unpad_dets(pad_dets([own], 3)[0])
        assert again.keys()==own.keys() and all(torch.equal(again[key], o.long() if key=='labels' else o) for key,o in own.items())
        back = way_in(torch.eye(3)[:2].double(), (9000,9000), (9000,9000))
        assert rows_back(rows, back).shape==rows.shape

def test_the_winner_keeps_its_heading_and_friends_vote():
    row = lambda score, heading: np.float32([[50,40,30,10,.1,score,0,heading]])
    parts = [row(.9, .1), row(.6, .1+math.pi), row(.5, .1+math.pi)]
    assert _by_nms(parts, .1, 'le90')[0,7]==pytest.approx(.1)
    fused = _by_fusion(parts, .55, 'le90')
    assert abs(fold_angle(tensor(fused[0,7]-.1-math.pi), tensor(360)))<1e-3                       # .6+.5 outvote .9
    assert np.isnan(_by_fusion([row(.9, np.nan)], .55, 'le90')[0,7])
    assert rows_dets(fused, ['plane']).heading.shape==(1,)

# measures

def test_heading_accuracy_by_class():
    boxes = tensor([[20.,20,20,10,.1],[60,60,20,10,-.3],[20,60,20,10,0]])
    truth = dict(boxes=boxes, labels=tensor([0,0,1]), heading=tensor([.1,-.3,0.]))
    said = tensor([.1+math.radians(14),-.3+math.pi,math.nan])
    pred = dict(boxes=boxes, scores=tensor([.9,.8,.7]), labels=tensor([0,0,1]), heading=said)
    acc = APAccumulator(vocab=['plane','hall'], symmetry={'plane':360})
    acc.add([pred], [truth])
    shares = box_errors(acc).heading_within()
    assert shares['plane']==shares['all']==.5 and math.isnan(shares['hall'])
    assert box_errors(acc).heading_within(13)['plane']==0 and box_errors(acc).heading_within(180)['plane']==1
    found = Evaluation(acc)
    assert found.df.loc['plane','heading']==.5 and 'front is within' in repr(found)
    assert found.to_dict()['classes']['hall']['heading'] is None
    plain = APAccumulator(vocab=['plane','hall'])
    plain.add([pred], [truth])
    assert 'heading' not in Evaluation(plain).df                                                  # nobody said that planes have a front
