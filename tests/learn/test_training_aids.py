"Callbacks of a training: what they change is put back, what they hold survives, and a broken batch or clock ends nothing it should not"
import math, warnings
from functools import partial
from itertools import count
import numpy as np, pytest, torch
from fastai.vision.all import Callback, EarlyStoppingCallback, GradientAccumulation, SaveModelCallback, plt, random, set_seed
from rotnb.all import (Checkpoint, CloseMixing, CopyPaste, Distill, EMA, EarlyAssigner, FiniteGuard, FitWarning, KeepBest, LogRun,
    MixUpBoxes, Mosaic, MultiScale, NonFiniteLossError, RotatedDataLoaders, Throughput, TimeBudget, TrackDifficulty, ValidateEvery,
    WeightedSampler, aligned, atss_assign, create_detector, fcos_assign, plot_history, rotated_learner, tal_assign)
from rotnb.data.synth.scenes import make_synth
from rotnb.learn.callbacks import lasting_cbs

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16,32), act='exp')

@pytest.fixture(scope='module')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('aids')/'set', n_train=6, n_valid=2, size=64, seed=3)

@pytest.fixture
def make(synth, tmp_path, monkeypatch):
    "A function that makes learners; with `runs=True` their runs lie in `tmp_path/runs`"
    monkeypatch.chdir(tmp_path)
    def f(*cbs, arch='rotated_fcos', data={}, runs=False, **kw):
        monkeypatch.setenv('ROTNB_RUNS', str(tmp_path/'runs') if runs else '0')
        set_seed(0)
        dls = RotatedDataLoaders.from_dota(synth, bs=2, num_workers=0, batch_tfms=[], **data)
        own = TINY if isinstance(arch, str) else {}
        learn = rotated_learner(dls, arch, path=tmp_path, cbs=cbs, **{**own, **kw})
        learn.remove_cb(learn.progress)
        learn.logger = lambda log: None
        return learn
    return f

pytestmark = pytest.mark.filterwarnings('error:You are shadowing')

class Cut(Callback):
    "Ctrl-C, or another end, in the middle of an epoch"
    def __init__(self, epoch, error=KeyboardInterrupt): self.at,self.error = epoch,error
    def after_pred(self):
        if self.training and (self.epoch,self.iter)==(self.at,1): raise self.error

class Seeded(Callback):
    "Epochs that are the same however one comes to them"
    def before_train(self):
        set_seed(self.epoch)
        self.dls.train.rng = random.Random(self.epoch)

class Spoil(Callback):
    "A NaN in an image, at some steps"
    order = -5
    def __init__(self, iters=(1,)): self.iters = iters
    def before_batch(self):
        if self.training and self.iter in self.iters: self.xb[0][1,0,5,5] = math.nan

def flat(model): return torch.cat([value.detach().flatten().float() for value in model.state_dict().values()])
def told(f):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        f()
    return [str(one.message) for one in seen if one.category is FitWarning]

def guarded(learn, skip): learn.finite_guard.skip = skip; return learn

# NaN guard

def test_a_broken_batch_is_as_if_it_had_not_been_there(make):
    learn = guarded(make(Spoil()), 2)
    before = {name:value.clone() for name,value in learn.model.named_buffers()}
    said = told(lambda: learn.fit(2, 1e-3))
    assert [text.split(':')[0] for text in said if 'left out' in text]==['batch 1 of epoch 0 is left out','batch 1 of epoch 1 is left out']
    assert 'train000' in said[0] and 'pixels are not finite' in said[0]
    counts = {name:(value-before[name]).item() for name,value in learn.model.named_buffers() if name.endswith('num_batches_tracked')}
    assert counts and set(counts.values())=={4}, 'three batches an epoch, of which one is left out'
    assert flat(learn.model).isfinite().all() and all(math.isfinite(row['train_loss']) for row in learn.history.rows)
    assert [row['steps'] for row in learn.history.rows]==[2,2] and len(learn.recorder.losses)==4

def test_too_many_in_a_row(make):
    with pytest.raises(NonFiniteLossError, match='pixels are not finite.*\n.*2 in a row were left out'):
        guarded(make(Spoil((0,1,2))), 2).fit(1, 1e-3)
    with pytest.raises(NonFiniteLossError): make(Spoil()).fit(1, 1e-3)                        # the default stops at once
    learn = guarded(make(), 5)
    with torch.no_grad(): learn.model.neck.lateral[0].weight.fill_(math.inf)
    with pytest.raises(NonFiniteLossError, match='weights are not finite'): learn.fit(1, 1e-3)
    for skip in (-1, 1.5, '2'):
        with pytest.raises(ValueError, match='whole number of batches'): FiniteGuard(skip)

@pytest.mark.parametrize('accumulated', [False, True])
def test_gradients_that_are_not_finite(make, accumulated):
    "The root of 0 has a value, but no slope"
    class Steep(Callback):
        order = 40
        def after_loss(self):
            if not self.training or self.iter!=1: return
            self.learn.loss_grad = self.loss_grad+(sum(param.sum() for param in self.model.parameters())*0).sqrt()
    learn = guarded(make(Steep(), *([GradientAccumulation(4)] if accumulated else [])), 2)
    said = told(lambda: learn.fit(2, 1e-3))
    assert sum('gradients are not finite' in text for text in said)==2
    assert flat(learn.model).isfinite().all()
    learn = make(Steep())
    try: learn.fit(2, 1e-3)
    except NonFiniteLossError: pass
    assert not flat(learn.model).isfinite().all(), 'the case is one: without `skip` the weights are lost'

# put back

def holders(make, *cbs, **kw):
    teacher = create_detector('rotated_fcos', 2, **{**TINY, 'fpn_channels':24})
    data = dict(item_tfms=[Mosaic(64, p=.5), MixUpBoxes(), CopyPaste()], sampler=WeightedSampler())
    return make(CloseMixing(1), TrackDifficulty(), EMA(.9, 3), Distill(teacher), EarlyAssigner(fcos_assign, 9), *cbs, data=data, **kw)

@pytest.mark.parametrize('end', [None, KeyboardInterrupt, RuntimeError('broken')])
def test_everything_is_put_back(make, end):
    learn = holders(make, *([Cut(2, end)] if end else []))
    own = learn.model.stages[0].assigner
    try: learn.fit(3, 1e-3)
    except (KeyboardInterrupt, RuntimeError): pass
    model = learn.model
    assert model.stages[0].assigner is own
    assert all(tfm.on for tfm in learn.dls.train.after_item.fs if hasattr(tfm, 'switch'))
    assert 'run_stages' not in vars(model) and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert len(learn.opt.all_params())==len(list(model.parameters()))
    assert learn.ema.other is None and torch.equal(flat(learn.ema.model), flat(model))
    learn.remove_cb(Cut)
    learn.fit(1, 1e-3)                                                                        # and another fit goes as the first
    assert model.stages[0].assigner is own

def test_overlap_assigns_first_and_alignment_after(make):
    "Points that ATSS chooses learn their own overlap for an epoch; then the alignment chooses points, and what they learn"
    class Watch(Callback):
        def __init__(self): self.seen = []
        def before_batch(self):
            stage = self.learn.model.stages[0]
            if self.training: self.seen.append((stage.assigner, stage.quality))
    early,late,target = partial(atss_assign, side=5.),partial(tal_assign, topk=6),aligned()
    learn = make(EarlyAssigner(early, 1, quality='iou'), Watch(), assigner=late, quality=target)
    learn.fit(2, 1e-3)
    assert [quality for _,quality in learn.watch.seen]==['iou']*3+[target]*3
    assert learn.model.stages[0].assigner is late and learn.watch.seen[-1][0] is late and learn.watch.seen[0][0] is not late
    assert all(math.isfinite(loss) for loss in learn.recorder.losses)

class Look(Callback):
    "The stage's assigner, and whether plain distances count, in each epoch"
    def __init__(self): self.seen = {}
    def before_batch(self):
        stage = self.learn.model.stages[0]
        assigner = stage.assigner
        while hasattr(assigner, 'func'): assigner = assigner.func            # of a partial, and of what counts its objects
        how = assigner.__name__,bool(stage.loss_sides)
        self.seen.setdefault((self.epoch, 'train' if self.training else 'valid'), set()).add(how)

def yolo(name):
    return create_detector(name, 5, backbone='test_resnet', fpn_channels=16, strides=(8,16), factors=(.33,.25))

@pytest.mark.parametrize('end', [None, KeyboardInterrupt])
def test_a_detector_says_itself_what_comes_first(make, end):
    "YOLOv6's ATSS for half of a short fit, in training alone; and whatever ends it, the stage is what it was"
    learn = make(Look(), *([Cut(0, end)] if end else []), arch=yolo('yolov6_n'))
    stage = learn.model.stages[0]
    own = stage.assigner,stage.quality
    try: learn.fit(2, 1e-3)
    except KeyboardInterrupt: pass
    assert (stage.assigner,stage.quality)==own
    names = {when:name for when,((name,_),) in learn.look.seen.items()}
    late = {(0,'valid'):'tal_assign', (1,'train'):'tal_assign', (1,'valid'):'tal_assign'}
    assert names=={(0,'train'):'atss_assign', **({} if end else late)}
    if end: return
    assert all(math.isfinite(loss) for loss in learn.recorder.losses)

def test_ones_own_early_assigner_goes_before(make):
    learn = make(Look(), EarlyAssigner(fcos_assign, 1), arch=yolo('yolov6_n'))
    learn.fit(2, 1e-3)
    assert learn.look.seen[0,'train']=={('fcos_assign',False)} and learn.look.seen[1,'train']=={('tal_assign',False)}

def test_a_detector_says_itself_what_comes_last(make):
    "YOLOX's plain distances, in the epochs in which nothing is mixed; without mixing to close there are none"
    learn = make(CloseMixing(1), Look(), arch=yolo('yolox_tiny'), data=dict(item_tfms=[Mosaic(64)]))
    learn.fit(2, 1e-3)
    told = {when:sides for when,((_,sides),) in learn.look.seen.items()}
    assert told=={(0,'train'):False, (0,'valid'):False, (1,'train'):True, (1,'valid'):False}
    assert learn.model.stages[0].loss_sides is None
    learn = make(Look(), arch=yolo('yolox_tiny'))
    learn.fit(2, 1e-3)
    assert not any(sides for seen in learn.look.seen.values() for _,sides in seen)

def test_mixing_of_all_kinds_ends(make):
    class Watch(Callback):
        def __init__(self): self.seen = []
        def before_batch(self):
            if self.training: self.seen.append([bool(tfm.on) for tfm in self.dls.train.after_item.fs if hasattr(tfm, 'switch')])
    learn = make(CloseMixing(1), Watch(), data=dict(item_tfms=[Mosaic(64), MixUpBoxes(), CopyPaste()]))
    learn.fit(2, 1e-3)
    assert learn.watch.seen==[[True]*3]*3+[[False]*3]*3
    learn = make(CloseMixing(1, kinds=(Mosaic,)), Watch(), data=dict(item_tfms=[Mosaic(64), CopyPaste()]))
    learn.fit(2, 1e-3)
    assert sorted(learn.watch.seen[-1])==[False,True]

# EMA

def test_whatever_keeps_weights_keeps_the_average(make, tmp_path):
    class Watch(Callback):
        order,means = 63,()
        def after_epoch(self): self.means += (flat(self.learn.model),)
    learn = make(EMA(.9, 3), Watch(), SaveModelCallback('valid_loss'), KeepBest(9), runs=True)
    learn.fit_one_cycle(3, 1e-2)
    def read(file): return torch.cat([value.flatten().float() for value in torch.load(file, weights_only=True)['model'].values()])
    means,folder = learn.watch.means,learn.run_path
    assert torch.equal(read(folder/'last.pth'), means[-1])
    best = int(np.argmin([row['valid_loss'] for row in learn.history.rows]))
    assert torch.equal(flat(learn.model), means[best]), 'SaveModelCallback takes up the best average'
    assert torch.equal(flat(learn.predictor().detector), means[best])
    assert any(torch.equal(read(folder/'best.pth'), mean) for mean in means)
    for _,name in learn.keep_best.kept: assert any(torch.equal(read(folder/name), mean) for mean in means)
    learn.save('own')
    assert torch.equal(flat(make().load('own').model), means[best])

def test_average_of_buffers(make):
    def after(buffers):
        learn = make(EMA(.9999, 0, buffers), Seeded())
        start = {name:value.clone() for name,value in learn.model.named_buffers()}
        learn.fit(1, 1e-3)
        return {name:(value-start[name]).abs().max().item() for name,value in learn.model.named_buffers() if 'running_mean' in name}, learn
    (averaged,learn),(latest,_) = after(True),after(False)
    most,last = (np.max([*moved.values()]) for moved in (averaged,latest))  # NaN if one is
    assert most<.01*last and last>0
    assert {value.item() for name,value in learn.model.named_buffers() if name.endswith('tracked')}=={3}, 'counts are no average'

def test_average_over_the_two_fits_of_fine_tune_and_a_search(make):
    learn = make(EMA(.9, 3))
    learn.freeze()
    before = flat(learn.model)
    learn.lr_find(num_it=3, show_plot=False)
    assert torch.equal(flat(learn.model), before) and learn.ema.other is None
    learn.fine_tune(2, 1e-3)
    assert learn.ema.n==6 and len(learn.history.rows)==3 and not torch.equal(flat(learn.model), before)

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_small_steps_of_half_precision_add_up(dtype):
    "A step of two in ten thousand is less than bfloat16 can say"
    from types import SimpleNamespace
    model,ema = torch.nn.Linear(2, 2).to(dtype),EMA(.9998, 0)
    with torch.no_grad(): model.weight.fill_(1.)
    ema.learn = SimpleNamespace(model=model)
    ema.before_train()
    with torch.no_grad(): model.weight.fill_(2.)
    for _ in range(2000): ema.after_step()
    assert ema.model.weight.float().mean().item()==pytest.approx(2-.9998**2000, abs=.01)

# continued

def test_a_continued_training_is_the_unbroken_one(make, tmp_path):
    def run(name, *cut):
        teacher = create_detector('rotated_fcos', 2, **{**TINY, 'fpn_channels':24})
        teacher.load_state_dict(torch.load(tmp_path/'teacher.pth'))
        learn = make(EMA(.9, 3), Distill(teacher), KeepBest(2), MultiScale((.5,1.), 2), Seeded(), *cut, run=name, runs=True)
        try: learn.fit_one_cycle(4, 1e-2, cbs=Checkpoint(tmp_path/f'{name}/last.pth'))
        except KeyboardInterrupt: pass
        return learn
    torch.save(create_detector('rotated_fcos', 2, **{**TINY, 'fpn_channels':24}).state_dict(), tmp_path/'teacher.pth')
    whole = run('whole')
    run('cut', Cut(2))
    on = run('cut')
    assert torch.equal(flat(on.model), flat(whole.model)) and on.ema.n==whole.ema.n==12
    rows = [[{key:value for key,value in row.items() if key!='seconds'} for row in learn.history.rows] for learn in (whole,on)]
    assert rows[0]==rows[1]
    assert [name for _,name in on.keep_best.kept]==[name for _,name in whole.keep_best.kept]

def test_every_state_is_plain(make, tmp_path):
    learn = holders(make, KeepBest(2), TimeBudget(60), LogRun())
    learn.fit(1, 1e-3, cbs=Checkpoint(tmp_path/'last.pth'))
    kept = torch.load(tmp_path/'last.pth', weights_only=True)['trackers']
    assert {'ema','distill','keep_best','time_budget','log_run','history','track_difficulty'}<=set(kept)==set(lasting_cbs(learn.cbs))
    assert 0<kept['time_budget']['spent']<600

# how often, how long

def test_no_tracker_complains_of_epochs_that_were_not_to_be_validated(make):
    stop = EarlyStoppingCallback('valid_loss', patience=3)
    learn = make(ValidateEvery(3), stop, runs=True)
    assert not [text for text in told(lambda: learn.fit(6, 1e-3)) if 'not a number' in text]
    assert [row['valid_loss'] is None for row in learn.history.rows]==[False,True,True,False,True,False]
    assert stop.wait<3 and learn.run_folder.best['epoch'] in (1,4,6)
    assert len(learn.validate())>=2 and learn.validate()[0]>0                     # asked for, it validates

def test_a_budget_that_ends_in_the_first_epoch(make):
    learn = make(TimeBudget(1e-6), EMA(.9, 3))
    learn.fit_one_cycle(50, 1e-2)
    assert len(learn.history.rows)==1 and learn.history.rows[0]['valid_loss']>0 and learn.history.rows[0]['steps']<=1
    for minutes in (0, -1, '5', math.nan):
        with pytest.raises(ValueError, match='minutes'): TimeBudget(minutes)

def test_a_schedule_ends_with_its_budget(make, monkeypatch):
    "By a clock that goes on by a hundredth of a second whenever it is asked: a busy machine has no say"
    clock = count(step=.01)
    monkeypatch.setattr('rotnb.learn.pace.time.perf_counter', lambda: next(clock))
    learn = make(TimeBudget(1/60), ValidateEvery(100))
    learn.fit_one_cycle(1000, 1e-2)
    rates = learn.recorder.lrs
    assert 10<len(rates)<100 and max(rates)>.9e-2 and rates[-1]<.02*max(rates) and learn.history.rows[-1]['valid_loss']>0

def test_a_budget_that_is_not_needed_changes_nothing(make):
    def run(*cbs):
        learn = make(Seeded(), *cbs)
        learn.fit_one_cycle(2, 1e-2)
        return flat(learn.model)
    assert torch.equal(run(), run(TimeBudget(600), Throughput(), ValidateEvery(2)))

def test_columns_stay_in_their_places(make):
    learn = make(Throughput(), ValidateEvery(2))
    learn.fit(2, 1e-3)
    names = list(learn.recorder.metric_names)
    assert names[-3:]==['img/s','GB','time'] and all(len(row)==len(names)-2 for row in learn.recorder.values)
    for row in learn.history.rows: assert row['img/s']>0 and .01<row['GB']<64 and row['loss_box']>0
    fig = plot_history(learn.history.rows)
    assert not [line for ax in fig.axes for line in ax.lines if line.get_label() in ('img/s','GB')]
    plt.close(fig)

@pytest.mark.parametrize('monitor,less', [('valid_loss',True), ('loss_box',False)])
def test_the_best_are_kept_and_the_others_go(make, monitor, less):
    learn = make(KeepBest(2, monitor, less), runs=True)
    learn.fit(4, 1e-2)
    values = sorted((row[monitor] for row in learn.history.rows), reverse=not less)[:2]
    assert [value for value,_ in learn.keep_best.kept]==values
    assert sorted(file.name for file in learn.run_path.glob('epoch_*.pth'))==sorted(name for _,name in learn.keep_best.kept)
    with pytest.raises(ValueError, match="'map', which is no column"): make(KeepBest(1, 'map'), runs=True).fit(1, 1e-3)

# classes, sizes, assigners, teachers

def test_a_head_of_other_classes(make):
    learn = make()
    learn.model.stages[0] = create_detector('rotated_fcos', 3, **TINY).stages[0]
    with pytest.raises(ValueError, match='has 5 classes, its stage 0 .* has 3'): learn.fit(1, 1e-3)

@pytest.mark.parametrize('arch', ['oriented_rcnn','s2anet','rotated_reppoints'])
def test_other_families_train_with_them(make, arch):
    learn = make(EMA(.9, 3), MultiScale((.5,1.5), 1), Distill(create_detector(arch, 5, backbone='test_resnet', fpn_channels=24)),
                 arch=create_detector(arch, 5, backbone='test_resnet', fpn_channels=16))
    learn.fit(1, 1e-3)
    assert flat(learn.model).isfinite().all() and learn.history.rows[0]['loss_teacher']>0

def test_a_teacher_of_another_family(make):
    "Heads, classes and widths may differ"
    teacher = create_detector('rotated_retinanet', 7, backbone='test_resnet', fpn_channels=24, strides=(8,16,32))
    learn = make(Distill(teacher))
    learn.fit(2, 1e-3)
    assert learn.history.rows[-1]['loss_teacher']>0 and not any(param.requires_grad for param in teacher.parameters())
    with pytest.raises(ValueError, match='strides'): make(Distill(create_detector('rotated_fcos', 2, **{**TINY, 'strides':(8,16)}))).fit(1)
