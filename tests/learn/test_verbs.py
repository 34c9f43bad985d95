"Verbs of a learner beside training: classes by name, records that looking leaves alone, settings that cannot be meant"
import warnings
from dataclasses import replace
from types import SimpleNamespace
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np, pytest, torch
from fastai.vision.all import CutMix, EarlyStoppingCallback, MixUp, ReduceLROnPlateau, SaveModelCallback, load_learner
import rotnb.plot.draw, rotnb.learn.report
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.synth.scenes import make_synth
from rotnb.evaluate.resampling import compare_runs
from rotnb.evaluate.classes import ClassMismatchError
from rotnb.evaluate import APAccumulator
from rotnb.explore.result_explorer import ResultsExplorer
from rotnb.learn import fit_checks as FC
from rotnb.learn.fit_checks import FitWarning
from rotnb.predict.infer import predict_image
from rotnb.learn.interpret import RotatedInterpretation
from rotnb.learn.learner import rotated_learner
from rotnb.learn.metrics import AngleError
from rotnb.predict.scene import predict_folder, predict_scene

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16), act='exp')

@pytest.fixture(scope='module')
def dls(tmp_path_factory):
    path = tmp_path_factory.mktemp('verbs')
    return RotatedDataLoaders.from_dota(make_synth(path/'set', n_train=4, n_valid=4, size=96, seed=3), bs=2, batch_tfms=[], num_workers=0)

def other(dls, vocab, **kw):
    return RotatedDataLoaders.from_annots(dls.train_ds.items, dls.valid_ds.items, vocab=vocab,
                                          **{**dict(bs=2, batch_tfms=[], path=dls.path, num_workers=0), **kw})

def make(dls, arch='rotated_fcos', **kw):
    torch.manual_seed(0)
    learn = rotated_learner(dls, arch, **{**({} if not isinstance(arch, str) else {**TINY, 'score_thr':0., 'max_dets':20}), **kw})
    learn.remove_cb(learn.progress); learn.logger = lambda log: None
    return learn

@pytest.fixture
def learn(dls): yield make(dls); plt.close('all')

def truth(acc): return {c:int(n) for c,n in zip(acc.flat().vocab, np.bincount(acc.flat().gt_labels, minlength=len(acc.flat().vocab)))}

# classes

def test_a_loader_of_other_classes_is_read_by_name(dls, learn):
    names,back = list(dls.vocab),other(dls, list(dls.vocab)[::-1])
    before,n = learn.validate(),truth(learn.metrics[0].acc)
    assert len(set(n.values()))>1
    assert list(learn.validate(dl=back.valid))==pytest.approx(list(before), rel=1e-4, nan_ok=True) and truth(learn.metrics[0].acc)==n
    it = RotatedInterpretation.from_learner(learn, dl=back.valid)
    assert it.vocab==names and truth(it.acc)==n
    assert ResultsExplorer(it, score=0.).tables.vocab==names
    want,got = learn.get_preds()[1][1],learn.get_preds(dl=back.valid)[1][1]
    flat = lambda x: [int(o) for l in x for o in l.flatten()]
    assert flat(want)==flat(got), 'targets as numbers of the detector'
    learn.dls = back
    assert list(learn.dls.vocab)==names and list(learn.validate())==pytest.approx(list(before), rel=1e-4, nan_ok=True)
    assert list(back.vocab)==names[::-1], 'the loaders given stay as they were'

def test_training_goes_on_with_other_loaders(dls, learn):
    def losses(loaders):
        o = make(loaders); o.model.load_state_dict(learn.model.state_dict())
        return o
    a,b = losses(dls),losses(dls)
    b.dls = other(dls, list(dls.vocab)[::-1])
    for o in (a,b): torch.manual_seed(1); o.dls.train.get_idxs = lambda: [0,1,2,3]; o.fit(1, 1e-3)
    assert a.recorder.values[0][0]==pytest.approx(b.recorder.values[0][0], rel=1e-4)
    c = make(other(dls, list(dls.vocab)[::-1]), a.model)
    assert list(c.dls.vocab)==list(dls.vocab)

def test_a_class_that_the_detector_lacks(dls, learn):
    more = other(dls, [*dls.vocab,'harbour'])
    for f in (lambda: learn.validate(dl=more.valid), lambda: setattr(learn, 'dls', more),
              lambda: RotatedInterpretation.from_learner(learn, dl=more.valid),
              lambda: learn.show_results(dl=more.valid), lambda: make(more, learn.model),
              lambda: learn.report(dls.path/'no.html', dl=more.valid)):
        with pytest.raises(ClassMismatchError) as e: f()
        assert 'harbour' in str(e.value) and all(o in str(e.value) for o in dls.vocab)

def test_names_survive_an_export(dls, learn):
    learn.dls = other(dls, list(dls.vocab)[::-1])
    learn.export('m.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        back = load_learner(dls.path/'m.pkl')
    assert list(back.dls.vocab)==list(dls.vocab)==back.model.vocab
    for f in (back.report, lambda: RotatedInterpretation.from_learner(back)):
        with pytest.raises(ValueError, match='exported learner keeps none'): f()

@pytest.mark.parametrize('vocab', [lambda v: v, lambda v: v[::-1]])
def test_results_name_classes_as_the_detector_does(dls, learn, vocab):
    learn.show_results(dl=other(dls, vocab(list(dls.vocab))).valid, max_n=1, score_thr=0.)
    texts = [{t.get_text().split(' 0')[0]:t.get_bbox_patch().get_facecolor()[:3] for t in a.texts} for a in plt.gcf().axes if a.images]
    for said in texts:
        for name,color in said.items():
            if color==pytest.approx([160/255]*3): continue                                   # ignored
            assert color==pytest.approx(np.array(rotnb.plot.draw.class_color(dls.vocab.o2i[name]))/255)

def test_classes_called_all_and_background():
    acc = APAccumulator(vocab=['all','background'])
    b = np.array([[30.,30,20,10,.3],[60,60,30,10,0]])
    acc.add([dict(boxes=b, scores=[.9,.8], labels=[0,1])], [dict(boxes=b, labels=[0,1])])
    learn = SimpleNamespace(dls=SimpleNamespace(vocab=acc.vocab), model=SimpleNamespace(vocab=acc.vocab), get_preds=None)
    it = RotatedInterpretation(learn, None, acc, torch.zeros(1))
    df = it.summary()
    assert list(df.index)==['all','background','(all)'] and list(df.truth)==[1,1,2]
    it.plot_confusion_matrix(); plt.close('all')

def test_runs_are_compared_and_joined_by_name():
    b = np.array([[30.,30,20,10,.3],[60,60,30,10,0]])
    def run(vocab, *labels):
        acc,at = APAccumulator(vocab=vocab),[vocab.index(o) for o in labels]
        acc.add([dict(boxes=b, scores=[.9,.8], labels=at)], [dict(boxes=b, labels=[vocab.index(o) for o in ('car','ship')])])
        return acc
    one,two = run(['car','ship'], 'car', 'ship'),run(['ship','car'], 'car', 'car')
    d = compare_runs(one, two, n=5)
    assert d.vocab==['car','ship'] and d.estimate.tolist()==[0,-1]
    assert truth(one.merge(two))==dict(car=2, ship=2) and truth(two)==dict(ship=1, car=1)
    with pytest.raises(ClassMismatchError, match='plane'): compare_runs(two, run(['car','plane','ship'], 'car', 'ship'))
    with pytest.raises(ClassMismatchError, match='plane'): two.merge(run(['car','plane','ship'], 'car', 'ship'))

# images without truth

@pytest.mark.parametrize('n', [1,3])
def test_show_results_of_new_images(dls, learn, n):
    fresh = dls.test_dl([o.image for o in dls.valid_ds.items[:n]], bs=n)
    learn.show_results(dl=fresh, score_thr=0.)
    axes = [a for a in plt.gcf().axes if a.images]
    titles = [f'prediction, score >= 0\n{o.image.name}' for o in dls.valid_ds.items[:n]]
    assert [a.get_title() for a in axes]==titles
    assert any(t.get_text().split()[0] in dls.vocab for a in axes for t in a.texts)
    px = np.asarray(axes[0].images[0].get_array()); assert px.min()>=0 and px.std()>.02, 'decoded'

def test_results_of_a_test_loader_with_truth(dls, learn):
    fresh = dls.test_dl(dls.valid_ds.items, with_labels=True)
    learn.show_results(dl=fresh, max_n=1, score_thr=0.); plt.close('all')
    fresh.show_batch(max_n=1)
    assert any(t.get_text() in dls.vocab for a in plt.gcf().axes for t in a.texts)
    for f in (lambda dl: RotatedInterpretation.from_learner(learn, dl=dl), lambda dl: learn.report(dls.path/'no.html', dl=dl)):
        with pytest.raises(ValueError, match='without ground truth'): f(dls.test_dl([o.image for o in dls.valid_ds.items]))

# records

def test_looking_keeps_table_and_metrics(dls, learn):
    learn.fit(2, 1e-3)
    file,r = dls.valid_ds.items[0].image,learn.recorder
    seen = lambda: (len(r.values), len(r.losses), len(r.lrs), len(r.iters), len(learn.metrics[0].compute().n_gt),
                    int(learn.metrics[0].compute().n_det.sum()))
    want = seen(); assert want[:2]==(2,4) and want[-1]>0
    for f in (lambda: predict_image(learn, file), lambda: learn.predict(file), learn.show_results, learn.get_preds, learn.validate,
              lambda: learn.get_preds(dl=dls.test_dl([file])), lambda: RotatedInterpretation.from_learner(learn, ds_idx=0),
              lambda: learn.lr_find(num_it=5, show_plot=False), learn.summary, lambda: learn.validate(dl=dls.test_dl([file])),
              lambda: predict_scene(learn, file, progress=False), lambda: predict_folder(learn, file, dls.path/'found', progress=False)):
        f(); assert seen()==want
    with pytest.raises(TypeError): learn.get_preds(cbs=[object()], nonsense=1)
    with pytest.raises(FileNotFoundError): predict_image(learn, dls.path/'none.png')
    assert seen()==want
    assert '2 epochs' in learn.report(dls.path/'r.html', n_images=0, n_boxes=0).read_text()

def test_a_search_alone_is_no_training(learn):
    learn.lr_find(num_it=5, show_plot=False)
    assert len(learn.recorder.lrs)>3 and learn.recorder.values==[]

# settings

@pytest.mark.parametrize('cb', [SaveModelCallback, EarlyStoppingCallback, ReduceLROnPlateau])
def test_an_unknown_monitor(learn, cb):
    with pytest.raises(ValueError, match="did you mean 'mAP50'.*valid_loss"): learn.fit(1, cbs=cb(monitor='map50'))
    with pytest.raises(ValueError, match='no column'): learn.fit(1, cbs=cb(monitor='accuracy'))

@pytest.mark.parametrize('cb', [SaveModelCallback, EarlyStoppingCallback, ReduceLROnPlateau])
def test_a_metric_that_is_no_number(dls, cb):
    none = [replace(o, quads=o.quads[:0], names=o.names[:0], difficult=o.difficult[:0]) for o in dls.valid_ds.items]
    learn = make(RotatedDataLoaders.from_annots(dls.train_ds.items, none, vocab=list(dls.vocab), bs=2, batch_tfms=[], path=dls.path,
                                                num_workers=0))
    (dls.path/'models').mkdir(exist_ok=True); (dls.path/'models/best.pth').write_bytes(b'of an earlier run')
    kw = dict(fname='best') if cb is SaveModelCallback else {}
    with pytest.warns(FitWarning, match='mAP50 is not a number'): learn.fit(2, 1e-3, cbs=cb(monitor='mAP50', **kw))
    assert len(learn.recorder.values)==2
    if kw: assert make(dls).load('best').model.state_dict().keys()==learn.model.state_dict().keys()

def test_trackers_follow_training_only(dls, learn):
    learn.add_cb(SaveModelCallback(fname='never'))
    learn.validate(); learn.show_results(); plt.close('all')
    assert not (dls.path/'models/never.pth').exists()

def test_columns_that_are_no_numbers_and_those_that_fall(dls):
    "The training table's `time` is a text; of an angle error the least is the best, though its name has no 'error'"
    learn = make(dls, metrics=[AngleError(name='angle_err')])
    with pytest.raises(ValueError, match="'time', which is no column"): learn.fit(1, cbs=SaveModelCallback(monitor='time'))
    cb = EarlyStoppingCallback(monitor='angle_err', min_delta=.5)
    for _ in range(2): learn.fit(1, 1e-3, cbs=cb); assert cb.comp is np.less and cb.min_delta==-.5 and cb.best!=-np.inf

@pytest.mark.parametrize('cb', [MixUp, CutMix])
def test_mixing_of_classification(learn, cb):
    with pytest.raises(TypeError, match='MixUpBoxes'): learn.fit(1, cbs=cb())

@pytest.mark.parametrize('fit',
                         [lambda l: l.fit(1, -1e-3), lambda l: l.fit_one_cycle(1, -1e-3), lambda l: l.fit(1, float('nan')),
                          lambda l: l.fit(1, slice(-1e-4,1e-3))])
def test_learning_rate_below_zero(learn, fit):
    before = {k:v.clone() for k,v in learn.model.named_parameters()}
    with pytest.raises(ValueError, match='learning rate'): fit(learn)
    assert all(torch.equal(before[k], v) for k,v in learn.model.named_parameters())

def told(learn, n=2):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always'); learn.fit(n, 1e-3)
    return [str(o.message) for o in w if o.category is FitWarning]

def test_objects_without_a_prior_are_told_once(dls):
    learn = make(dls, strides=(16,32)); assigner = learn.model.stages[0].assigner
    said = told(learn)
    assert len(said)==1 and 'lie at no prior' in said[0] and learn.model.stages[0].assigner is assigner
    with learn.no_bar(), learn.no_logging(): assert told(learn)==said               # once a fit
    few = FC._Watched(lambda priors, boxes, ignore=None: torch.arange(len(boxes)).clamp(min=1))    # the first object has no prior
    few(None, torch.full((100,5), 4.)); assert few.message() is None                 # one of a hundred is not worth a warning
    few(None, torch.full((2,5), 4.)); assert few.message().startswith('2 of 102 objects')
    # each object has its nearest anchor
    every = rotated_learner(dls, 'rotated_retinanet', **{k:v for k,v in TINY.items() if k!='act'})
    with every.no_bar(), every.no_logging(): assert told(every)==[]

@pytest.mark.parametrize('kind', ['none','ignored'])
def test_nothing_to_learn_is_told(dls, kind):
    none = lambda o: replace(o, quads=o.quads[:0], names=o.names[:0], difficult=o.difficult[:0]) if kind=='none' else replace(o,
        difficult=np.ones_like(o.difficult))
    said = told(make(RotatedDataLoaders.from_annots([none(o) for o in dls.train_ds.items], dls.valid_ds.items, vocab=list(dls.vocab),
                                                    bs=2, batch_tfms=[], path=dls.path, num_workers=0)))
    assert len(said)==1 and 'no object of the first epoch counts' in said[0]

def test_trained_weights_without_a_network(monkeypatch, tmp_path):
    import huggingface_hub as hub
    from rotnb.models import create_detector
    from rotnb.models.backbones import MissingWeightsError
    def down(*a, **k): raise OSError('no route')
    monkeypatch.setattr(hub, 'get_session', lambda: SimpleNamespace(head=down))
    monkeypatch.setattr(hub, 'try_to_load_from_cache', lambda *a, **k: None)
    with pytest.raises(MissingWeightsError, match='pretrained=False') as e:
        create_detector('rotated_fcos', 3, backbone='test_resnet', pretrained=True, strides=(8,16))
    assert 'timm/test_resnet' in str(e.value) and '\n' not in str(e.value)
