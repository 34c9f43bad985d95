"The training's table and its history: terms of the loss, numbers to be read, every epoch over all fits, whatever happens in between"
import random, re
import numpy as np, pytest, torch
from fastai.vision.all import (Callback, CancelTrainException, CancelValidException, CSVLogger, EarlyStoppingCallback, ReduceLROnPlateau,
    SaveModelCallback, ShowGraphCallback, nn, set_seed)
from hypothesis import HealthCheck, given, settings, strategies as st
from rotnb.all import RotatedDataLoaders, create_detector, open_learner, predict_image, rotated_learner
from rotnb.data.synth.scenes import make_synth
from rotnb.learn.history import TableProgress, history, loss_terms
from rotnb.targets.priors import AnchorPriors

SMALL = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
TWO_STAGE = dict(fc_channels=64, rpn_kw=dict(priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None))

@pytest.fixture(scope='module')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('history')/'set', n_train=4, n_valid=2, size=64, seed=3)

@pytest.fixture
def make(synth, tmp_path):
    def f(**kw):
        set_seed(0)
        dls = RotatedDataLoaders.from_dota(synth, bs=2, num_workers=0, batch_tfms=[])
        return rotated_learner(dls, 'rotated_fcos', path=tmp_path, **{**SMALL, 'strides':(8,16,32), **kw}, pretrained=False)
    return f

@pytest.fixture
def learn(make): return quiet(make())
def quiet(learn):
    learn.remove_cb(learn.progress)
    learn.logger = lambda log: None
    return learn

class Break(Callback):
    "Raise in the middle of an epoch"
    def __init__(self, error, epoch=0): self.error,self.at = error,epoch
    def after_pred(self):
        if self.training and self.epoch==self.at and self.iter==1: raise self.error

# terms

@pytest.mark.parametrize('name', ['rotated_fcos_tiny','rotated_reppoints','roi_trans','rtmdet_r_tiny'])
def test_the_terms_are_those_of_training(name):
    model = create_detector(name, 3, **SMALL, **(TWO_STAGE if name=='roi_trans' else {}))
    model.backbone.eval()
    modes,kept = [module.training for module in model.modules()],{key:value.clone() for key,value in model.state_dict().items()}
    set_seed(5)
    states = torch.get_rng_state(),np.random.get_state()[1].copy(),random.getstate()
    terms = loss_terms(model)
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1]==states[1]).all() and random.getstate()==states[2]
    assert [module.training for module in model.modules()]==modes
    assert all(torch.equal(value, kept[key]) for key,value in model.state_dict().items())
    target = dict(boxes=torch.tensor([[40.,40.,30.,14.,.4]]), labels=torch.tensor([1]))
    assert terms==list(model.train()(torch.rand(2, 3, 96, 96), [target]*2)) and terms

def test_a_model_that_cannot_tell_has_no_terms(): assert loss_terms(nn.Linear(3, 2))==[]

def test_they_add_up_to_the_loss(learn):
    learn.fit(3, 1e-2)
    for row in history(learn):
        assert sum(row[key] for key in row if key.startswith('loss_'))==pytest.approx(row['train_loss'], rel=1e-5)

def test_columns_keep_their_places_without_validation_and_without_training(learn):
    class Skip(Callback):
        def before_validate(self): raise CancelValidException
    learn.fit(1, 1e-2, cbs=Skip())
    row, = history(learn)
    assert row['valid_loss'] is None and row['mAP50'] is None and row['loss_cls']>0
    learn.fit(1, 1e-2, cbs=Break(CancelTrainException))
    row = history(learn)[-1]
    assert row['valid_loss']>0 and 0<=row['mAP50']<=1 and row['loss_cls']>0 and len(row)==len(history(learn)[0])

# fastai's callbacks, as they are commonly given

@pytest.mark.parametrize('cb', [lambda: SaveModelCallback(monitor='mAP50'), lambda: SaveModelCallback(), lambda: EarlyStoppingCallback(),
    lambda: EarlyStoppingCallback(monitor='mAP50:95', patience=2), lambda: ReduceLROnPlateau(), lambda: ReduceLROnPlateau('loss_cls'),
    lambda: CSVLogger(), lambda: SaveModelCallback(monitor='loss_box')])
def test_callbacks_find_their_columns(learn, cb):
    learn.fit_one_cycle(2, 1e-2, cbs=cb())
    assert len(history(learn))==2

def test_a_tracker_of_a_term_keeps_the_least(learn):
    cb = SaveModelCallback(monitor='loss_cls')
    learn.fit(3, 1e-2, cbs=cb)
    assert cb.best==pytest.approx(min(row['loss_cls'] for row in history(learn)))

@pytest.mark.parametrize('name,near', [('map50','mAP50'), ('loss_class','loss_cls'), ('mAP5095','mAP50:95')])
def test_a_misspelt_column_is_told_before_the_first_step(learn, name, near):
    with pytest.raises(ValueError, match=f'did you mean {near!r}'): learn.fit(1, cbs=SaveModelCallback(monitor=name))
    assert history(learn)==[]

def test_the_graph_has_the_validation(make, capsys):
    learn = make()
    seen = []
    class Graph(ShowGraphCallback):
        order = 65
        def after_epoch(self):
            self.progress.mbar.update_graph = lambda graphs, *bounds: seen.append(graphs)
            super().after_epoch()
    learn.fit(2, 1e-2, cbs=Graph())
    assert seen[-1][1][1]==[row['valid_loss'] for row in history(learn)]

# the table

def test_the_table_is_to_be_read(make, monkeypatch):
    learn,lines = make(),[]
    monkeypatch.setattr('fastprogress.fastprogress.ConsoleMasterBar.write', lambda bar, line, table=False, **kw: lines.append(line))
    learn.fit(1, 1e-2)
    assert lines[0]=='epoch train_loss valid_loss mAP50 mAP50:95 loss_cls loss_quality loss_box time'.split()
    assert all(re.fullmatch(r'\d+\.\d{3}', value) for value in lines[1][1:-1]) and lines[1][0]=='0'
    with learn.no_bar(): pass
    assert type(learn.progress) is TableProgress, 'also after fastai has put its own back'

def test_without_a_bar_numbers_have_names(make, capsys):
    learn = make()
    with learn.no_bar(): learn.fit(2, 1e-2)
    first,second = capsys.readouterr().out.strip().splitlines()
    assert re.match(r'epoch 1 of 2: train_loss \d\.\d{3} valid_loss \d\.\d{3} mAP50 0\.\d{3} mAP50:95 0\.\d{3} loss_cls', first)
    assert second.startswith('epoch 2 of 2: ')
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert not capsys.readouterr().out

# history

def test_all_fits_are_joined(learn):
    learn.fine_tune(2, 1e-2)
    learn.fit(1, 1e-2)
    rows = history(learn)
    assert [row['epoch'] for row in rows]==[0,1,2,3] and all(row['steps']==2 and row['seconds']>0 for row in rows)
    assert rows[-1]['mAP50']==learn.recorder.values[0][2] and rows[-1]['lr']==1e-2

@pytest.mark.parametrize('error', [KeyboardInterrupt(), RuntimeError('out of memory')])
def test_an_interrupted_fit_keeps_its_epochs(learn, tmp_path, error):
    with pytest.raises(type(error)): learn.fit(3, 1e-2, cbs=Break(error, 2))
    assert len(history(learn))==2
    learn.cbs = learn.cbs.filter(lambda cb: not isinstance(cb, Break))
    learn.validate()
    assert '2 epochs, 4 steps' in learn.report(tmp_path/'r.html', n_images=0, n_boxes=0).read_text()

LOOKS = dict(validate=lambda learn: learn.validate(), preds=lambda learn: learn.get_preds(), summary=lambda learn: learn.summary(),
    evaluate=lambda learn: learn.evaluate(show=False), show=lambda learn: learn.show_results(),
    find=lambda learn: learn.lr_find(num_it=5, show_plot=False),
    predict=lambda learn: predict_image(learn, learn.dls.valid_ds.items[0].image), train_set=lambda learn: learn.validate(ds_idx=0))
FITS = dict(fit=lambda learn: learn.fit(1, 1e-3), cycle=lambda learn: learn.fit_one_cycle(2, 1e-3),
    tune=lambda learn: learn.fine_tune(1, 1e-3))
EPOCHS = dict(fit=1, cycle=2, tune=2)

@given(st.lists(st.sampled_from([*LOOKS, *FITS]), max_size=5))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_report_tells_the_whole_training_after_any_order(make, tmp_path, verbs):
    learn = quiet(make())
    for verb in verbs: {**LOOKS, **FITS}[verb](learn)
    n = sum(EPOCHS.get(verb, 0) for verb in verbs)
    page = learn.report(tmp_path/'r.html', n_images=0, n_boxes=0).read_text()
    assert len(history(learn))==n
    assert f'{n} epoch' in page if n else 'no record of its training' in page

def test_an_exported_learner_tells_it_too(learn, tmp_path):
    learn.fine_tune(1, 1e-2)
    learn.export((tmp_path/'m.pkl').absolute())
    again = open_learner(tmp_path/'m.pkl', 'cpu')
    assert history(again)==history(learn)
    with again.no_bar(): page = again.report(tmp_path/'r.html', dl=learn.dls.valid, n_images=0, n_boxes=0).read_text()
    assert '2 epochs, 4 steps, largest learning rate' in page
