"Everything a fastai `Learner` does, done with a detector: `rotated_learner` and its callbacks, metrics and checkpoints"
import csv, os, socket, subprocess, sys, warnings
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np, pytest, torch
from torch import Tensor
from fastai.vision.all import (Callback, CancelFitException, CancelValidException, CSVLogger, DataBlock, EarlyStoppingCallback, ImageBlock,
    IndexSplitter, Interpretation, Normalize, PILImage, SaveModelCallback, SuggestionMethod, load_learner, norm_types)
from rotnb.data.blocks import RBoxBlock, RBoxLblBlock
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.samplers import WeightedSampler
from rotnb.data.synth.scenes import make_synth
from rotnb.data.types import TensorDets, class_index, is_real, to_targets
from rotnb.evaluate import APAccumulator, eval_map
from rotnb.learn.callbacks import *
from rotnb.predict.infer import predict_image
from rotnb.learn.learner import detector_splitter, rotated_learner
from rotnb.learn.metrics import AngleError, RotatedF1, RotatedMAP
from rotnb.learn.scene_map import SceneMAP
from rotnb.learn.phases import TrackDifficulty
from rotnb.models import create_detector
from paths import ROOT

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16), act='exp')

@pytest.fixture(scope='session')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('synth')/'set', n_train=8, n_valid=4, size=96, seed=3)

COLUMNS = 'epoch train_loss valid_loss mAP50 mAP50:95 loss_cls loss_quality loss_box time'.split()

def load(synth, path, **kw):
    "Data loaders whose learners save in `path`"
    dls = RotatedDataLoaders.from_dota(synth, **{**dict(bs=4, batch_tfms=[], num_workers=0), **kw})
    dls.path = path
    return dls

@pytest.fixture
def dls(synth, tmp_path): return load(synth, tmp_path)

def make(dls, **kw):
    torch.manual_seed(0)
    learn = rotated_learner(dls, 'rotated_fcos', **{**TINY, **kw})
    learn.remove_cb(learn.progress)
    learn.logger = lambda log: None
    return learn

@pytest.fixture
def learn(dls): return make(dls)

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

def state(learn): return {k:v.clone() for k,v in learn.model.state_dict().items()}
def same(a, b): return all(torch.equal(a[k], b[k]) for k in a)

def one_batch(learn, idxs):
    "Train on some items only; the same as a validation loader"
    learn.dls.train.get_idxs = lambda: idxs
    dl = learn.dls.train.new(shuffle=False, drop_last=False, bs=len(idxs))
    dl.get_idxs = lambda: idxs
    return dl

class NoValidation(Callback):
    def before_validate(self): raise CancelValidException

class Count(Callback):
    "Epochs and batches that were trained"
    order = 70
    def __init__(self): self.epochs,self.ended,self.lrs = [],[],[]
    def before_train(self): self.epochs.append(self.epoch)
    def after_epoch(self): self.ended.append(self.epoch)
    def after_batch(self):
        if self.training: self.lrs.append(self.opt.hypers[-1]['lr'])

# training

def test_lr_find_suggests_and_restores(learn):
    before = state(learn)
    found = learn.lr_find(start_lr=1e-5, end_lr=1., num_it=20, suggest_funcs=(SuggestionMethod.Valley,SuggestionMethod.Steep))
    assert all(1e-5<=o<=1. for o in found)
    assert same(state(learn), before)
    assert len(plt.gcf().axes)==1 and learn.model.training is not None

def test_lr_find_past_divergence_is_no_error(learn):
    "A rate that gives NaN ends the search; it is not an accident in training"
    class Explode(Callback):
        order = 3
        def after_loss(self):
            if self.train_iter==30: self.learn.loss = self.loss*float('nan')
    before = state(learn)
    with learn.added_cbs(Explode()): learn.lr_find(start_lr=1e-5, end_lr=1., num_it=40, stop_div=False, show_plot=False)
    assert len(learn.recorder.losses)==30 and same(state(learn), before)

def test_fit_one_cycle_fits_two_images(synth, tmp_path):
    learn = make(load(synth, tmp_path, bs=2))
    two = one_batch(learn, [0,2])
    lines = []
    learn.logger = lines.append
    learn.fit_one_cycle(2, 1e-3)
    assert learn.recorder.metric_names==COLUMNS
    assert [line[0] for line in lines]==[0,1] and all(len(line)==len(COLUMNS) and 0<=line[3]<=1 for line in lines)
    learn.fit_one_cycle(60, 1e-2, cbs=NoValidation())
    assert learn.recorder.losses[-1] < .6*learn.recorder.losses[0]
    assert learn.validate(dl=two)[1]>.2

def test_fine_tune_trains_the_new_part_first_then_all_at_graded_rates(learn):
    seen = []
    body = lambda: {k:p.detach().clone() for k,p in learn.model.backbone.named_parameters()}
    parts = learn.model.backbone.named_modules()
    norms = {f'{n}.{k}' for n,m in parts if isinstance(m, norm_types) for k,_ in m.named_parameters(recurse=False)}
    class Watch(Callback):
        def after_fit(self): seen.append((body(), [h['lr'] for h in self.opt.hypers], state(learn)))
    start,whole = body(),state(learn)
    learn.fine_tune(1, 1e-2, cbs=Watch())
    (frozen,_,st1),(thawed,lrs,_) = seen
    changed = {k for k in start if not torch.equal(start[k], frozen[k])}
    assert changed and changed<=norms, 'in the first epoch a frozen body learns nothing but its norms'
    assert any(not torch.equal(whole[k], st1[k]) for k in whole if k.startswith('stages'))
    assert any(not torch.equal(frozen[k], thawed[k]) for k in set(start)-norms)
    assert len(lrs)==2 and lrs[0]<lrs[1]/50

def test_freeze_and_unfreeze(learn):
    groups = detector_splitter(learn.model)
    count = lambda m: len(list(m.parameters()))
    assert [len(g) for g in groups]==[count(learn.model.backbone), count(learn.model.neck)+count(learn.model.stages)]
    assert sum(map(len, groups))==count(learn.model)
    norms = {p for m in learn.model.backbone.modules() if isinstance(m, norm_types) for p in m.parameters()}
    learn.freeze()
    assert not any(p.requires_grad for p in set(groups[0])-norms) and all(p.requires_grad for p in {*groups[1],*norms})
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())

def test_one_forward_a_batch_in_validation(learn):
    calls = []
    learn.model.backbone.register_forward_hook(lambda *a: calls.append(1))
    learn.validate()
    assert len(calls)==len(learn.dls.valid)==1
    learn.get_preds(with_loss=True)
    assert len(calls)==2
    learn.fit(1)
    assert len(calls)==2+len(learn.dls.train)+len(learn.dls.valid)

# validation and prediction

def by_hand(learn, dl=None):
    "Detections of `get_preds` and targets read from the data loader"
    dl = dl or learn.dls.valid
    preds,_ = learn.get_preds(dl=dl)
    targets = [t for x,q,l in dl for t in to_targets(q, l, x.shape[-2:])]
    return [unpad_dets(p) for p in preds],targets

def test_validate_equals_eval_map_by_hand(learn):
    learn.dls.loaders[0] = learn.dls.valid  # fit what is validated, so that there is something to be found
    learn.fit_one_cycle(30, 1e-2, cbs=NoValidation())
    loss,m,coco = learn.validate()
    assert [loss,m,coco]==learn.validate(), 'the second call starts afresh'
    preds,targets = by_hand(learn)
    r = eval_map(preds, targets, vocab=learn.dls.vocab)
    assert m==pytest.approx(r.map, abs=1e-6) and m>0
    assert coco==pytest.approx(eval_map(preds, targets, metric='coco', vocab=learn.dls.vocab).map, abs=1e-6)
    assert learn.metrics[0].compute().n_gt.sum()==r.n_gt.sum()>0
    assert loss==pytest.approx(learn.get_preds(with_loss=True)[2].mean().item(), rel=1e-5)

def test_validate_other_loader(learn):
    train = learn.dls.train.new(shuffle=False, drop_last=False)
    assert learn.validate(dl=train)[0]!=learn.validate()[0]
    assert learn.validate(ds_idx=1)==learn.validate()

def test_get_preds_shapes_order_and_losses(learn):
    learn.model.stages[-1].score_thr = 0.
    preds,(quads,labels) = learn.get_preds()
    assert isinstance(preds, TensorDets) and preds.shape==(4, learn.model.stages[-1].max_per_img, 7)
    assert quads.shape[0]==labels.shape[0]==4
    shuffled = learn.dls.valid.new(shuffle=True, bs=2)
    again,_ = learn.get_preds(dl=shuffled)
    for a,b in zip(preds, again):
        assert torch.allclose(unpad_dets(a)['boxes'], unpad_dets(b)['boxes'], atol=1e-3), 'in the order of the items, not of the batches'
    assert not torch.allclose(preds[0], preds[1])
    p,t,losses = learn.get_preds(with_loss=True)
    assert losses.shape==(4,) and losses.std()>0
    assert losses.mean().item()==pytest.approx(learn.validate()[0], rel=1e-5)

def test_get_preds_max_dets(dls):
    learn = make(dls, max_dets=7, score_thr=0.)
    preds = learn.get_preds()[0]
    assert preds.shape==(4,7,7) and (preds[...,5]>0).all() and (preds[...,5].diff(dim=1)<=0).all()

def test_no_detections_are_rows_of_padding(dls):
    learn = make(dls, score_thr=.999)
    preds = learn.get_preds()[0]
    assert (preds[...,5]==-1).all() and len(unpad_dets(preds[0])['boxes'])==0
    assert learn.validate()[1]==0.

def test_test_dl_with_and_without_labels(learn):
    items = learn.dls.valid_ds.items
    plain = learn.dls.test_dl([o.image for o in items])
    preds,targs = learn.get_preds(dl=plain)
    assert isinstance(preds, TensorDets) and len(preds)==4 and targs is None
    labelled = learn.dls.test_dl(items, with_labels=True)
    p2,(q,l) = learn.get_preds(dl=labelled)
    assert torch.allclose(preds, p2, atol=1e-4) and is_real(l).any()
    assert learn.validate(dl=labelled)[0]==pytest.approx(learn.validate()[0], rel=1e-5)

def test_predict(dls):
    learn = make(dls, score_thr=0., max_dets=9)
    file = learn.dls.valid_ds.items[0].image
    found = learn.predict(file, score_thr=0.)
    assert 0<len(found)<=9
    for same_image in (np.array(PILImage.create(file)), PILImage.create(file)):
        assert torch.allclose(learn.predict(same_image, score_thr=0.).boxes, found.boxes, atol=1e-4)
    assert [len(one) for one in learn.predict([file, file], score_thr=0.)]==[len(found)]*2

def test_predictions_are_plain_tensors(learn):
    d = unpad_dets(learn.get_preds()[0][0])
    assert all(type(v) is Tensor for v in d.values()), 'detections of one image are no longer a padded `TensorDets`'

def test_show_batch(learn):
    learn.dls.show_batch(max_n=3)
    axes = [a for a in plt.gcf().axes if a.images]
    assert len(axes)==3
    assert any(t.get_text() in learn.dls.vocab for a in axes for t in a.texts)

@pytest.mark.parametrize('ds_idx', [0,1])
def test_show_results(dls, ds_idx):
    learn = make(dls, score_thr=0., max_dets=5)
    learn.show_results(ds_idx=ds_idx, max_n=2, score_thr=.0)
    titles = [a.get_title() for a in plt.gcf().axes if a.images]
    names = {o.image.name for o in dls[ds_idx].dataset.items}
    assert [titles[0].split('\n')[0],titles[1],titles[3]]==['truth','prediction, score >= 0','']  # said once
    assert {titles[0].split('\n')[1],titles[2]}<=names
    truth,pred = [a for a in plt.gcf().axes if a.images][:2]
    assert len(pred.patches)+len(pred.lines)+len(pred.collections)>0
    assert any(any(c.isdigit() for c in t.get_text()) for t in pred.texts), 'the score is written at the box'

def test_interpretation(learn):
    interp = Interpretation.from_learner(learn)
    losses,idxs = interp.top_losses()
    assert losses.shape==(4,) and sorted(idxs.tolist())==[0,1,2,3]
    assert torch.allclose(interp.losses[idxs], losses) and torch.allclose(interp.losses, learn.get_preds(with_loss=True)[2])
    interp.show_results([idxs[0].item()])
    assert [a.get_title() for a in plt.gcf().axes if a.images][0].startswith('truth')

# saving and loading

def test_export_and_load_learner(dls):
    learn = make(dls, score_thr=0.)
    learn.fit(1)
    file = learn.dls.valid_ds.items[0].image
    before = predict_image(learn, file, score_thr=0.)
    learn.export('m.pkl')
    with pytest.warns(UserWarning, match='pickle'): back = load_learner(learn.path/'m.pkl')
    after = predict_image(back, file, score_thr=0.)
    assert len(before['scores'])>0
    for k in before.keys(): assert torch.allclose(before[k].float(), after[k].float(), atol=1e-5)
    assert list(back.dls.vocab)==list(dls.vocab)
    assert learn.validate()==learn.validate(), 'the learner goes on working after its export'

def test_export_leaves_the_validation_set_behind(dls):
    learn = make(dls, score_thr=0.)
    learn.export('a.pkl'); small = os.path.getsize(learn.path/'a.pkl')
    learn.validate(); learn.get_preds()
    learn.export('b.pkl')
    assert os.path.getsize(learn.path/'b.pkl') < small+10_000
    assert learn.metrics[0].compute().n_det.sum()>0, 'the result of the last validation is still there'

@pytest.mark.parametrize('with_opt', [True,False])
def test_save_and_load(dls, with_opt):
    learn = make(dls)
    learn.fit_one_cycle(1, slice(1e-4,1e-2))
    expected = learn.get_preds()[0]
    learn.save('w', with_opt=with_opt)
    other = make(dls)
    other.model.load_state_dict({k:v+1 if v.is_floating_point() else v for k,v in other.model.state_dict().items()})
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        other.load('w', with_opt=with_opt)  # weights_only, as fastai's default is
    assert torch.allclose(other.get_preds()[0], expected)

@pytest.mark.parametrize('to', ['to_fp16','to_bf16'])
def test_mixed_precision(learn, to):
    "On a CPU fastai's autocast('cuda') is inert: this says that its hooks and ours live together; test_detectors computes in bf16"
    getattr(learn, to)()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fit(1, 1e-3)
    assert all(torch.isfinite(o) for o in learn.recorder.losses) and np.isfinite(learn.recorder.values[-1]).all()
    learn.to_fp32()
    learn.validate()

# callbacks of fastai

def test_save_model_callback(learn):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learn.fit_one_cycle(3, 1e-2, cbs=SaveModelCallback(monitor='mAP50', fname='best'))
    assert (learn.path/'models'/'best.pth').exists()
    best = max(v[2] for v in learn.recorder.values)
    assert learn.validate()[1]==pytest.approx(best, abs=1e-6), 'the best weights are back'

def test_early_stopping(learn):
    count = Count()
    learn.fit(6, 0., cbs=[EarlyStoppingCallback(monitor='mAP50', patience=2), count])
    assert count.epochs==[0,1,2]

def test_csv_logger(learn):
    learn.fit(2, 1e-3, cbs=CSVLogger(fname='log.csv'))
    rows = list(csv.DictReader(open(learn.path/'log.csv')))
    assert list(rows[0])==COLUMNS and len(rows)==2
    assert float(rows[1]['mAP50'])==pytest.approx(learn.recorder.values[1][2])

def test_several_metrics_share_one_accumulator(dls, monkeypatch):
    added,add = [],APAccumulator.add
    monkeypatch.setattr(APAccumulator, 'add', lambda self,p,t: (added.append(len(p)), add(self,p,t))[1])
    ms = [RotatedMAP(),RotatedMAP(iou=.75),RotatedMAP('coco'),RotatedMAP('voc07')]
    learn = make(dls, metrics=ms)
    rec = learn.validate()
    assert len(rec)==5 and added==[4], 'boxes are matched once'
    assert all(m.acc is ms[0].acc for m in ms)
    assert learn.recorder.metrics.attrgot('name')==['mAP50','mAP75','mAP50:95','mAP50_07']

def test_metric_at_an_array_of_thresholds(learn):
    learn.validate(); m = learn.metrics[0]
    assert m.compute(iou=np.array([.1,.5])).iou_thresholds==m.compute(iou=(.1,.5)).iou_thresholds==(.1,.5)

@pytest.mark.parametrize('iou', [50,0,(.5,75)])
def test_a_metric_is_told_its_threshold_makes_no_sense_before_the_epoch(iou):
    for f in (RotatedMAP, RotatedF1, AngleError, SceneMAP):
        with pytest.raises(ValueError, match=f'{f.__name__}: iou is .* between 0 and 1'): f(iou=iou, name='x')

def test_train_metrics_leave_detection_out(learn):
    learn.recorder.train_metrics = True
    learn.fit(1)
    names = 'train_loss train_mAP50 train_mAP50:95 valid_loss valid_mAP50 valid_mAP50:95 loss_cls loss_quality loss_box time'.split()
    assert learn.recorder.metric_names[1:]==names
    assert learn.recorder.values[0][1] is None and learn.recorder.values[0][4] is not None and len(learn.recorder.values[0])==len(names)-1

# when something is wrong

def train_batch(learn):
    "Train on the first four items; the second of the batch is item 1"
    learn.dls.train.get_idxs = lambda: [3,1,2,0]
    learn.fit(1, 1e-3)

def test_guard_names_nan_pixels(learn):
    item = learn.dls.train_ds.items[1]
    class Spoil(Callback):
        order = -5
        def before_batch(self): self.learn.xb[0][1,0,5,5] = float('nan')
    learn.add_cb(Spoil())
    with pytest.raises(NonFiniteLossError, match=rf'(?s)pixels.*{Path(item.image).name}') as e: train_batch(learn)
    assert '\\n' not in str(e.value)
    learn.remove_cb(Spoil)

def test_guard_names_broken_weights(learn):
    with torch.no_grad(): learn.model.neck.lateral[0].weight[0] = float('inf')
    with pytest.raises(NonFiniteLossError, match=r'weights are not finite \(neck.lateral.0.weight.*learning rate'): train_batch(learn)

def test_guard_sees_spoilt_running_statistics(learn):
    bn = next(m for m in learn.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    bn.running_mean[0] = float('nan')
    with pytest.raises(NonFiniteLossError, match='running_mean'): learn.validate()

@pytest.mark.parametrize('phase', ['train','valid'])
def test_guard_names_term_image_and_box(learn, phase):
    "A loss function that cannot bear one class of box, which only one image has"
    dl = learn.dls.train if phase=='train' else learn.dls.valid
    names = [Path(o.image).name for o in list(dl.items)[:4]]
    dl.get_idxs = lambda: [3,1,2,0]
    x,q,l = dl.one_batch()
    truth = to_targets(q, l, x.shape[-2:])
    i,j = next((i,j) for i in (1,0,2,3) for j,ign in enumerate(truth[i]['ignore']) if not ign and truth[i]['boxes'][j,2:4].min()>8)
    box,name = truth[i]['boxes'][j],names[[3,1,2,0][i]]
    loss_box = learn.model.stages[0].loss_box
    plain = loss_box.func
    loss_box.func = lambda p,t,**kw: plain(p,t,**kw) + torch.where((t-box).abs().amax(1)<1e-3, torch.inf, 0.)
    with pytest.raises(NonFiniteLossError) as e: learn.validate() if phase=='valid' else learn.fit(1, 1e-3)
    msg = str(e.value)
    for part in ('loss_box', f'{name}: ', f'from box {j}, ', f'{round(box[0].item(),3)}', repr(learn.dls.vocab[truth[i]['labels'][j]])):
        assert part in msg, msg
    assert 'loss_cls' not in msg and not any(o in msg for o in names if o!=name), 'the rest is in order'
    loss_box.func = plain
    learn.validate()

@pytest.mark.parametrize('training', [True,False])
def test_guards_search_leaves_the_model_as_it_was(learn, training):
    guard = learn.finite_guard
    batch = learn.dls.valid.one_batch()
    learn.dl,learn.xb,learn.iter = learn.dls.valid,batch[:1],0
    learn.truth = to_targets(*batch[1:], batch[0].shape[-2:])
    learn.model.train(training)
    before = state(learn)
    assert 'each term of each image is finite' in guard.explain()
    assert same(state(learn), before) and learn.model.training==training

def test_guard_is_quiet_otherwise(learn):
    learn.fit(1, 1e-3)
    assert any(isinstance(o, FiniteGuard) for o in learn.cbs)

# checkpoints

class Interrupt(Callback):
    "Stop like a power cut in an epoch"
    order = 80
    def __init__(self, epoch, phase='train'): self.at,self.phase = epoch,phase
    def after_batch(self):
        if self.epoch==self.at and self.training==(self.phase=='train'): raise KeyboardInterrupt

def one_cycle(learn, cbs): learn.fit_one_cycle(4, 1e-2, cbs=cbs)

def interrupted(dls, path, at=2, fit=one_cycle):
    learn = make(dls)
    with pytest.raises(KeyboardInterrupt): fit(learn, [Checkpoint(path), Interrupt(at)])
    return learn

def test_checkpoint_goes_on(dls, tmp_path, capsys):
    p = tmp_path/'run'/'last.pth'
    full,c0 = make(dls),Count()
    full.fit_one_cycle(4, 1e-2, cbs=c0)
    first = interrupted(dls, p)
    learn,count,early = make(dls),Count(),Count()
    early.order = 45  # neither sees an epoch that was done before
    learn.fit_one_cycle(4, 1e-2, cbs=[Checkpoint(p), count, early])
    assert '2 of 4 epochs' in capsys.readouterr().out
    assert count.epochs==count.ended==early.ended==[2,3]
    assert np.allclose(count.lrs, c0.lrs[4:]), 'the schedule stands where it stood'
    assert learn.pct_train==pytest.approx(1.)
    assert len(learn.recorder.values)==4 and learn.recorder.values[:2]==first.recorder.values[:2]
    assert len(learn.recorder.losses)==8 and learn.recorder.iters==[2,4,6,8]
    learn.recorder.plot_loss(skip_start=0)
    assert [f.name for f in p.parent.iterdir()]==['last.pth'], 'no temporary file is left'

def test_checkpoint_holds_the_state_of_the_last_complete_epoch(dls, tmp_path):
    p,states = tmp_path/'c.pth',[]
    class Keep(Callback):
        order = 66
        def after_epoch(self): states.append((state(self.learn), deepcopy(self.opt.state_dict())))
    learn = make(dls)
    with pytest.raises(KeyboardInterrupt): learn.fit_one_cycle(4, 1e-2, cbs=[Checkpoint(p), Keep(), Interrupt(2)])
    new = make(dls)
    class Look(Callback):
        order = 90
        def before_train(self):
            assert same(state(new), states[1][0])
            for a,b in zip(self.opt.state_dict()['state'], states[1][1]['state']):
                assert a.keys()==b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
            raise CancelFitException
    new.fit_one_cycle(4, 1e-2, cbs=[Checkpoint(p), Look()])

def test_checkpoint_with_trackers(dls, tmp_path):
    "The best value before the interruption is still the one to beat, and patience goes on"
    p = tmp_path/'c.pth'
    learn = make(dls)
    class Fake(RotatedMAP):
        seen = [.5,.7,.2,.3]
        @property
        def value(self): return self.seen[learn_now[0].epoch]
    learn_now = [learn]
    learn.metrics = [Fake()]
    stopper = lambda: EarlyStoppingCallback(monitor='mAP50', patience=3)
    cbs = lambda: [Checkpoint(p), SaveModelCallback(monitor='mAP50', fname='best'), CSVLogger(append=True)]
    with pytest.raises(KeyboardInterrupt): learn.fit(4, 1e-3, cbs=[*cbs(), stopper(), Interrupt(3)])
    best = torch.load(learn.path/'models'/'best.pth', weights_only=True)
    new = make(dls); new.metrics = [Fake()]; learn_now[0] = new
    stop = stopper()
    new.fit(4, 1e-3, cbs=[*cbs(), stop])
    assert stop.wait==2
    epochs = [o.split(',')[0] for o in (new.path/'history.csv').read_text().split()]
    assert epochs==['epoch','0','1','2','epoch','3'], 'no rows for epochs that were not trained'
    now = torch.load(new.path/'models'/'best.pth', weights_only=True)
    assert same(best, now), 'a worse epoch after going on does not replace the best weights'
    assert same(state(new), best)

def test_checkpoint_knows_which_images_were_hard(synth, tmp_path):
    "The epoch after an interruption is drawn by the weights it would have been drawn by"
    p,cbs = tmp_path/'c.pth',[]
    class Weights(Callback):
        order = 70
        def before_train(self): cbs.append((self.epoch, self.dls.train.sampler.weights))
    for at in (2,9):
        learn = make(load(synth, tmp_path, sampler=WeightedSampler()))
        try: learn.fit(3, 1e-3, cbs=[Checkpoint(p), TrackDifficulty(), Weights(), Interrupt(at)])
        except KeyboardInterrupt: pass
    assert [k for k,_ in cbs]==[0,1,2,2]
    a,b = (w for k,w in cbs if k==2)
    assert a.std()>0 and np.array_equal(a, b)

def test_checkpoint_of_fine_tune_and_of_several_fits(dls, tmp_path):
    p,count = tmp_path/'c.pth',Count()
    make(dls).fine_tune(2, 1e-2, freeze_epochs=1, cbs=[Checkpoint(p), count])
    assert count.epochs==[0,0,1], 'its own two fits are no contradiction'
    p.unlink()
    ft = lambda l,cbs: l.fine_tune(3, 1e-2, cbs=cbs)
    interrupted(dls, p, at=2, fit=ft)
    learn,count = make(dls),Count()
    ft(learn, [Checkpoint(p), count])
    assert count.epochs==[2], 'the frozen fit and two epochs are done'
    learn.fit(2, 1e-3, cbs=[Checkpoint(tmp_path/'d.pth')])
    cb,count = Checkpoint(tmp_path/'e.pth'),Count()
    for _ in range(2): learn.fit(2, 1e-3, cbs=[cb,count])
    assert count.epochs==[0,1,0,1], 'a second fit is not taken for the first'

def test_checkpoint_same_learner_goes_on(dls, tmp_path):
    cb,count = Checkpoint(tmp_path/'c.pth'),Count()
    learn = make(dls)
    with pytest.raises(KeyboardInterrupt): learn.fit(3, 1e-3, cbs=[cb, Interrupt(1)])
    learn.fit(3, 1e-3, cbs=[cb, count])
    assert count.epochs==[1,2]

def test_checkpoint_of_finished_run_trains_no_more(dls, tmp_path):
    p,count = tmp_path/'c.pth',Count()
    learn = make(dls); learn.fit(2, 1e-3, cbs=Checkpoint(p))
    new = make(dls); new.fit(2, 1e-3, cbs=[Checkpoint(p), count])
    assert count.epochs==[] and same(state(new), state(learn))
    assert new.validate()==learn.validate()

def test_checkpoint_write_is_atomic(dls, tmp_path, monkeypatch):
    p = tmp_path/'c.pth'
    interrupted(dls, p, at=1)
    good,save = p.read_bytes(),torch.save
    def half(obj, f, *a, **k):
        Path(f).write_bytes(b'PK half a file')
        raise OSError('disk full')
    learn = make(dls)
    monkeypatch.setattr(torch, 'save', half)
    with pytest.raises(OSError, match='disk full'): learn.fit_one_cycle(4, 1e-2, cbs=Checkpoint(p))
    monkeypatch.setattr(torch, 'save', save)
    assert p.read_bytes()==good
    count = Count()
    make(dls).fit_one_cycle(4, 1e-2, cbs=[Checkpoint(p), count])
    assert count.epochs==[1,2,3]

def test_checkpoint_errors(dls, tmp_path):
    p = tmp_path/'c.pth'
    interrupted(dls, p)
    with pytest.raises(CheckpointError, match='run of 4 epochs, this one has 5'): make(dls).fit_one_cycle(5, cbs=Checkpoint(p))
    with pytest.raises(CheckpointError, match='does not fit this model') as e:
        make(dls, fpn_channels=8).fit_one_cycle(4, cbs=Checkpoint(p))
    assert '\\n' not in str(e.value)
    count = Count()
    make(dls, fpn_channels=8).fit_one_cycle(1, cbs=[Checkpoint(p, resume=False), count])
    assert count.epochs==[0], 'resume=False starts afresh'
    for junk in (b'', b'no checkpoint', p.read_bytes()[:1000]):
        p.write_bytes(junk)
        with pytest.raises(CheckpointError, match='not readable.*delete it'): make(dls).fit_one_cycle(4, cbs=Checkpoint(p))
    torch.save([1,2], p)
    with pytest.raises(CheckpointError, match='not readable'): make(dls).fit_one_cycle(4, cbs=Checkpoint(p))

def test_checkpoint_is_left_alone_by_lr_find_validate_and_get_preds(dls, tmp_path):
    p = tmp_path/'c.pth'
    learn = make(dls, cbs=Checkpoint(p))
    learn.validate(); learn.get_preds(); learn.lr_find(num_it=6, show_plot=False)
    assert not p.exists()
    with pytest.raises(KeyboardInterrupt): learn.fit_one_cycle(4, 1e-2, cbs=Interrupt(2))
    was = p.read_bytes()
    learn.validate(); learn.get_preds(); learn.lr_find(num_it=6, show_plot=False); learn.show_results(max_n=1)
    assert p.read_bytes()==was
    count = Count()
    learn.fit_one_cycle(4, 1e-2, cbs=count)
    assert count.epochs==[2,3]
    was = p.read_bytes()
    learn.validate(); learn.lr_find(num_it=6, show_plot=False); learn.validate()
    assert p.read_bytes()==was

# data

def scenes(dls):
    "Images and labels in memory"
    annots = list(dls.train_ds.items)[:4]
    return [SimpleNamespace(pixels=np.array(PILImage.create(o.image)), boxes=o.quads, names=o.labels) for o in annots]

def block(items, vocab=None, empty=False, **kw):
    return DataBlock((ImageBlock, RBoxBlock(), RBoxLblBlock(vocab)), n_inp=1, get_x=lambda o: o.pixels,
        get_y=[lambda o: [] if empty else o.boxes, lambda o: [] if empty else o.names],
        splitter=IndexSplitter(range(len(items)//2, len(items)))).dataloaders(items, bs=2, num_workers=0, **kw)

def test_plain_datablock_trains(dls, tmp_path):
    plain = block(scenes(dls), path=tmp_path)
    learn = make(plain)
    learn.fit(2, 1e-2)
    assert np.isfinite(np.array(learn.recorder.values, float)).all() and learn.recorder.values[1][0]<learn.recorder.values[0][0]
    assert learn.model.n_classes==len(plain.vocab)
    learn.show_results(max_n=1)

def test_all_empty_batch_trains(dls, tmp_path):
    learn = make(block(scenes(dls), vocab=['a','b'], empty=True, path=tmp_path))
    learn.fit(2, 1e-2)
    assert learn.recorder.losses[-1]<learn.recorder.losses[0] and learn.recorder.losses[-1].isfinite()
    preds,(q,l),losses = learn.get_preds(with_loss=True)
    assert q.shape==(2,0,4,2) and losses.shape==(2,) and np.isnan(learn.validate()[1])

def test_vocab_order_is_the_given_one(synth, dls, tmp_path):
    vocab = list(dls.vocab)[::-1]
    other = load(synth, tmp_path, vocab=vocab)
    learn = make(other, metrics=RotatedMAP())
    learn.validate()
    assert list(learn.dls.vocab)==vocab and learn.metrics[0].compute().vocab==vocab
    k = next(i for i,o in enumerate(dls.train_ds.items) if len(o.names))
    codes = [class_index(d.train_ds[k][2]) for d in (dls,other)]
    assert [dls.vocab[i] for i in codes[0]]==[vocab[i] for i in codes[1]] and not torch.equal(*codes)

# the learner itself

def test_learner_normalises_once_by_the_backbones_statistics(dls):
    make(dls); learn = make(dls)
    norms = [o for o in learn.dls.valid.after_batch.fs if isinstance(o, Normalize)]
    assert len(norms)==1 and abs(learn.dls.valid.one_batch()[0].mean())<3
    assert not any(isinstance(o, Normalize) for o in make(block(scenes(dls)), normalize=False).dls.after_batch.fs)

def test_learner_takes_a_detector(dls):
    model = create_detector('rotated_fcos', len(dls.vocab), **TINY)
    learn = rotated_learner(dls, model)
    assert learn.model is model
    assert all(p.requires_grad for p in model.parameters()), 'a backbone without trained weights is not frozen'
    with pytest.raises(TypeError, match='got a Detector.*strides'): rotated_learner(dls, model, strides=(8,))
    wrong = create_detector('rotated_fcos', len(dls.vocab)+1, **TINY)
    with pytest.raises(ValueError, match=f'{len(dls.vocab)+1} classes.*{len(dls.vocab)}'): rotated_learner(dls, wrong)

def test_learner_errors(dls):
    with pytest.raises(ValueError, match="'rotated_fcso'; did you mean 'rotated_fcos'"): rotated_learner(dls, 'rotated_fcso')
    with pytest.raises(TypeError, match='fpn_chanels'): make(dls, fpn_chanels=16)
    with pytest.raises(ValueError, match='no model'): make(dls, backbone='resnet51')

def test_learner_settings_reach_fastai(dls, tmp_path):
    learn = make(dls, lr=3e-3, wd=.05, moms=(.9,.8,.9), path=tmp_path/'p', model_dir='w', train_bn=False, angle='le135', cbs=Count())
    assert (learn.lr,learn.wd,learn.moms,learn.path,learn.model_dir,learn.train_bn)==(3e-3,.05,(.9,.8,.9),tmp_path/'p','w',False)
    assert learn.model.angle=='le135' and any(isinstance(o, Count) for o in learn.cbs)
    learn.validate()

def test_learner_methods_are_not_hidden_by_the_model(learn):
    "A `Learner` hands unknown names on to its model; a callback that sets such a name warns each time"
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learn.validate(); learn.get_preds(with_loss=True)
        learn.fit(1, cbs=[SaveModelCallback(), CSVLogger()])

# several processes

WORKER = '''
import os, sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
rank = int(sys.argv[1]); os.environ.update(RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group('gloo')
from rotnb.models import create_detector
torch.manual_seed(0)
model = create_detector('rotated_fcos', 2, backbone='test_resnet', fpn_channels=8, feat_channels=8, stacked_convs=1, strides=(8,16))
ddp = DDP(model); opt = torch.optim.SGD(ddp.parameters(), 1e-2)
empty = dict(boxes=torch.zeros(0,5), labels=torch.zeros(0, dtype=torch.long))
full = dict(boxes=torch.tensor([[30.,30.,20.,10.,.3]]), labels=torch.tensor([1]))
for step in range(2):  # one process has objects, the other has none
    x = torch.randn(2,3,64,64, generator=torch.Generator().manual_seed(10*step+rank))
    loss = sum(ddp(x, [full,full] if rank==step%2 else [empty,empty]).values())
    opt.zero_grad(); loss.backward(); opt.step()
w = torch.cat([p.detach().flatten() for p in model.parameters()])
both = [torch.empty_like(w) for _ in range(2)]; dist.all_gather(both, w)
assert torch.equal(*both) and w.isfinite().all()
print('same', len(w)); dist.destroy_process_group()
'''

def test_two_processes_keep_the_same_weights():
    "Plain DistributedDataParallel; a process without objects still has a gradient for every parameter"
    with socket.socket() as s: s.bind(('127.0.0.1',0)); port = s.getsockname()[1]
    env = {**os.environ, 'OMP_NUM_THREADS':'1'}
    kw = dict(cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    ps = [subprocess.Popen([sys.executable, '-c', WORKER, str(r), str(port)], **kw) for r in range(2)]
    try: outs = [p.communicate(timeout=120)[0] for p in ps]
    finally:
        for p in ps: p.kill()
    assert all(p.returncode==0 for p in ps), '\n'.join(outs)
    assert all('same' in o for o in outs)

def test_wrapped_model_trains_and_validates(learn):
    "The callbacks look through a wrapper such as DistributedDataParallel"
    learn.model = torch.nn.DataParallel(learn.model)  # without a GPU it only wraps
    learn.splitter = lambda m: detector_splitter(m.module)
    learn.create_opt()
    learn.fit(1, 1e-3)
    assert np.isfinite(learn.recorder.values[-1]).all()
    assert len(learn.get_preds()[0])==4
