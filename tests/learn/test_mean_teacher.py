"The average of the weights teaches: it is `EMA`'s, boxes move with pixels, labels of what has none are never read, and fits go on"
import numpy as np, pytest, torch
from fastai.vision.all import Callback, set_seed
from hypothesis import given, settings, strategies as st
from rotnb.all import (EMA, FastSteps, MeanTeacher, Resume, RotatedDataLoaders, read_format, rbox2qbox, recipe, rotated_learner)
from rotnb.data.affine import RandomWarp
from rotnb.data.labels.subsets import classes_of
from rotnb.data.synth.scenes import make_synth
from rotnb.learn.mean_teacher import pseudo_target
from rotnb.learn.states import random_state, set_random_state

@pytest.fixture(scope='module')
def records(tmp_path_factory):
    folder = make_synth(tmp_path_factory.mktemp('taught')/'set', n_train=8, n_valid=2, size=64, seed=3)
    return read_format(folder, 'train'),read_format(folder, 'val')

@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('ROTNB_RUNS', '0')

def fit(records, *cbs, others=None, epochs=2, **kw):
    train,valid = records
    dls = RotatedDataLoaders.from_annots(train[:4], valid, classes_of(train), bs=2, batch_tfms=[], num_workers=0)
    learn = rotated_learner(dls, 'rotated_fcos', backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, metrics=[],
                            stacked_convs=1, strides=(8,16), act='exp')
    learn.remove_cb(learn.progress)
    learn.logger = lambda log: None
    taught = MeanTeacher(train[4:] if others is None else others, **{**dict(burn_in=.25, ramp=0, thr=.012, doubt=.01), **kw})
    learn.fit_one_cycle(epochs, 1e-2, cbs=[EMA(.5, warmup=0), taught, *cbs])
    return learn

class Look(Callback):
    "Whether the teacher is the average at each step"
    order = 80
    def __init__(self): self.seen = []
    def before_step(self):
        taught = self.learn.mean_teacher.teacher
        if taught is None: return
        own,average = taught.state_dict(),self.learn.ema.model.state_dict()
        student = self.learn.model.state_dict()
        self.seen.append((same(own, average), same(own, student)))

def weights(learn): return {key:value.clone() for key,value in learn.model.state_dict().items()}
def same(one, two): return all(torch.equal(one[key], two[key]) for key in one)

@pytest.mark.parametrize('mode', ['boxes','dense'])
def test_the_teacher_is_the_average(records, mode):
    look = Look()
    learn = fit(records, look, FastSteps(), mode=mode)
    assert len(look.seen)==3 and all(average and not student for average,student in look.seen), 'from a quarter of four steps on'
    rows = learn.history.rows
    assert all(np.isfinite(row['loss_unlabelled']) and row['loss_unlabelled']>0 and row['pseudo_boxes']>=0 for row in rows)
    names = set(learn.model.state_dict())
    assert not any('teacher' in name for name in names)

def test_labels_of_unlabelled_images_are_not_read(records):
    train,_ = records
    begin,fits = random_state(),[]
    for others in (train[4:], [record.image for record in train[4:]]):
        set_random_state(begin); set_seed(0)
        fits.append(weights(fit(records, others=others, epochs=1)))
    assert same(*fits)
    set_random_state(begin); set_seed(0)
    assert not same(fits[0], weights(fit(records, others=train[4:], epochs=1, weight=0.))), 'something is learnt from them'

def test_goes_on_where_it_was_stopped(records):
    class Stop(Callback):
        order = 99
        def after_batch(self):
            if self.training and (self.epoch,self.iter)==(1,0): raise KeyboardInterrupt
    set_seed(0)
    begin = random_state()
    whole = weights(fit(records))
    set_random_state(begin)
    with pytest.raises(KeyboardInterrupt): fit(records, Resume('s', steps=1), Stop())
    assert same(whole, weights(fit(records, Resume('s', steps=1))))

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.floats(-180, 180), st.floats(.5, 2), st.sampled_from(['le90','le135','oc']))
def test_pseudo_boxes_move_as_their_corners_do(seed, turn, zoom, angle):
    gen = torch.Generator().manual_seed(seed)
    boxes = torch.rand(6, 5, generator=gen)*torch.tensor([40.,40,12,12,3])+torch.tensor([12.,12,4,4,-1.5])
    scores = torch.rand(6, generator=gen)
    m = RandomWarp(rotate=abs(turn), zoom=(zoom,zoom), shift=0.).maps(1, (64,64), (64,64))[0]
    told = pseudo_target(dict(boxes=boxes, scores=scores, labels=torch.arange(6)), m, (64,64), .5, .2, angle=angle)
    left = told['labels']
    assert (scores[left]>=.2).all() and (told['ignore'] | (scores[left]>=.5)).all()
    corners = rbox2qbox(boxes).view(-1,4,2)[left]@m[:2,:2].T.float()+m[:2,2].float()
    ours = rbox2qbox(told['boxes']).view(-1,4,2)
    far = torch.cdist(ours, corners).amin(2)
    assert (far<.02).all(), 'the same four corners, in another order'
    inside = ((corners>0) & (corners<64)).all(2).all(1)
    assert (told['ignore'][inside]==(scores[left][inside]<.5)).all()
    gone = [i for i in range(6) if scores[i]>=.2 and i not in left.tolist()]
    middle = boxes[gone,:2]@m[:2,:2].T.float()+m[:2,2].float()
    assert ((middle<0)|(middle>64)).any(1).all(), 'only what is out of sight is left out'

def test_images_of_the_loaders(records):
    "Loaders that name images give them to a teacher that has none of its own, in a recipe too; nobody's images are an error"
    train,valid = records
    def loaders(**kw): return RotatedDataLoaders.from_annots(train[:4], valid, classes_of(train), bs=2, batch_tfms=[], num_workers=0, **kw)
    tiny = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16), act='exp')
    ours = recipe('few_images', arch='rotated_fcos', epochs=2, warmup=0, detector=tiny, size=None, pretrained=False,
                  callbacks=dict(EMA=dict(decay=.5, warmup=0), MeanTeacher=dict(burn_in=.25, ramp=0, thr=.012, doubt=.01)))
    learn = ours.learner(loaders(unlabelled=train[4:]), metrics=[])
    with learn.no_bar(), learn.no_logging(): ours.fit(learn)
    assert learn.history.rows[-1]['loss_unlabelled']>0 and len(learn.mean_teacher.images)==len(train[4:])
    learn.dls = loaders()
    with learn.no_bar(), learn.no_logging(), pytest.raises(ValueError, match='no images without labels'): ours.fit(learn)
    with pytest.raises(ValueError, match='unlabelled: no images'): loaders(unlabelled=[])

def test_wrong_settings(records, tmp_path):
    (tmp_path/'none').mkdir()
    for wrong,message in ((dict(doubt=.5),'lies above'), (dict(background=True),'of proposals'), (dict(jitter=.1),'of proposals'),
                          (dict(burn_in=30),'a share'), (dict(mode='soft'),"'boxes' or 'dense'")):
        with pytest.raises(ValueError, match=message): fit(records, **wrong)
    with pytest.raises(ValueError, match='no images in'): MeanTeacher([])
