"A training that was stopped anywhere goes on to the weights it would have had, bit for bit"
import errno, json, random, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from fastai.vision.all import Callback, DataLoader, DisplayedTransform, EarlyStoppingCallback, L, PILImage, set_seed
from killed import EPOCHS, STEPS, callbacks, tiny
from paths import ROOT
from rotnb.all import Annot, CheckpointError, Resume, ResumeWarning, RotatedDataLoaders, Schedule, open_learner
from rotnb.data.synth.scenes import make_synth
from rotnb.learn import resume as module
from rotnb.learn.resume import find_run
from rotnb.learn.states import batches_from, data_mark, random_state, set_random_state, settings_differ

@pytest.fixture(scope='module')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('resume')/'set', n_train=9, n_valid=2, size=64, seed=3)

@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    "Where a name alone is a folder, for no runs are kept"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('ROTNB_RUNS', '0')
    return tmp_path

@pytest.fixture
def runs(here, monkeypatch):
    "Runs leave folders, with plots, which take most of a test's time"
    monkeypatch.setenv('ROTNB_RUNS', str(here/'runs'))
    return here/'runs'

class Stop(Callback):
    "Ctrl-C after so many steps of this process"
    order = 99
    def __init__(self, after, event='after_batch'):
        self.after,self.n = after,0
        if event!='after_batch': self.after_batch,self.__dict__[event] = self._count,self._stop
    def _count(self): self.n += self.training
    def _stop(self):
        if self.n>=self.after: raise KeyboardInterrupt
    def after_batch(self):
        self._count()
        if self.training: self._stop()

class Steps(Callback):
    "Which steps are taken"
    def __init__(self): self.taken = []
    def before_backward(self): self.taken.append((self.epoch, self.iter))

def state(learn): return {key:value.clone() for key,value in learn.model.state_dict().items()}
def same(a, b): return a.keys()==b.keys() and all(torch.equal(a[key], b[key]) for key in a)
def rows(learn): return [{key:value for key,value in row.items() if key!='seconds'} for row in learn.history.rows]
def one_cycle(learn, *cbs, epochs=EPOCHS, **kw):
    learn.fit_one_cycle(epochs, 1e-2, cbs=L(cbs)+L(callbacks()), **kw)
    return learn
def stopped(fit, *args, **kw):
    with pytest.raises(KeyboardInterrupt): fit(*args, **kw)

@pytest.fixture(scope='module')
def whole(synth):
    "A training that nobody stopped, and where its random numbers began"
    begin = random_state()
    learn = one_cycle(tiny(synth))
    return learn,begin

def test_a_schedule_that_works_out_its_own_rates(synth):
    def train(*cbs, **kw):
        learn = tiny(synth)
        learn.fit(EPOCHS, 1e-2, cbs=L(cbs)+L(callbacks())+L(Schedule('step', at=(1,), warmup=3)), **kw)
        return learn
    begin = random_state()
    whole = train()
    set_random_state(begin)
    stopped(train, Resume('s', steps=2), Stop(4))
    on = train(Resume('s', steps=2))
    assert same(state(whole), state(on)) and np.array_equal(whole.recorder.lrs, on.recorder.lrs)
    other = L(callbacks())+[Schedule('step', at=(2,), warmup=3),Resume('s', steps=2)]
    with pytest.raises(CheckpointError, match='at'): tiny(synth).fit(EPOCHS, 1e-2, cbs=other)

def test_killed_at_three_random_steps_with_workers(tmp_path):
    with open(tmp_path/'log', 'w') as log:
        done = subprocess.run([sys.executable, ROOT/'tests/helpers/killed.py', tmp_path], stdout=log, stderr=log, timeout=900)
    assert not done.returncode, (tmp_path/'log').read_text()
    told = json.loads((tmp_path/'told.json').read_text())
    assert told['codes']==[0,-9,-9,-9,0], (told, (tmp_path/'log').read_text())
    whole,killed = (torch.load(tmp_path/f'{name}.pth', weights_only=False) for name in ('whole','killed'))
    assert same(whole['model'], killed['model']), told
    assert whole['rows']==killed['rows'] and len(whole['rows'])==EPOCHS, told

@pytest.mark.parametrize('every,after', [(1,1), (2,4), (2,8), (1,10)])
def test_goes_on_at_any_step(synth, whole, every, after):
    "Before a first step is written, within an epoch, at its end, in the last; gradients wait for more at each of these"
    undisturbed,begin = whole
    set_random_state(begin)
    stopped(one_cycle, tiny(synth), Resume('r', steps=every), Stop(after))
    set_seed(5)
    steps = Steps()
    learn = one_cycle(tiny(synth), Resume('r', steps=every), steps)
    first = after//every*every if after<STEPS else STEPS+(after-STEPS)//every*every
    assert steps.taken==[divmod(i, STEPS) for i in range(first, EPOCHS*STEPS)]
    assert same(state(learn), state(undisturbed)) and rows(learn)==rows(undisturbed)
    for a,b in zip(learn.opt.state_dict()['state'], undisturbed.opt.state_dict()['state']):
        assert a.keys()==b.keys() and all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in a)
    mine,theirs = learn.recorder,undisturbed.recorder
    assert mine.lrs==theirs.lrs and mine.iters==theirs.iters and torch.equal(torch.stack(mine.losses), torch.stack(theirs.losses))
    assert mine.values==theirs.values and learn.pct_train==undisturbed.pct_train
    flat = lambda recorder: {key:np.ravel(value).tolist() for key,value in recorder.hps.items()}
    assert flat(mine)==flat(theirs)

def test_looks_on_only(synth, whole):
    undisturbed,begin = whole
    set_random_state(begin)
    assert same(state(one_cycle(tiny(synth), Resume('r', steps=3))), state(undisturbed))

@pytest.mark.parametrize('event', ['before_validate','after_fit'])
def test_stopped_where_nothing_is_trained(synth, whole, event):
    undisturbed,begin = whole
    set_random_state(begin)
    stopped(one_cycle, tiny(synth), Resume('r', steps=1), Stop(EPOCHS*STEPS, event))
    steps = Steps()
    learn = one_cycle(tiny(synth), Resume('r', steps=1), steps)
    assert steps.taken==[] and same(state(learn), state(undisturbed)) and rows(learn)==rows(undisturbed)
    assert learn.recorder.values==undisturbed.recorder.values

def test_the_two_fits_of_fine_tune(synth):
    begin = random_state()
    tune = lambda learn,*cbs,**kw: learn.fine_tune(1, 1e-2, cbs=L(cbs), **kw)
    undisturbed = tiny(synth)
    tune(undisturbed)
    for after in (3,5,8):                                                   # in the first, at its end, in the second
        set_random_state(begin)
        name = f'r{after}'
        stopped(tune, tiny(synth), Resume(name, steps=1), Stop(after))
        learn = tiny(synth)
        tune(learn, Resume(name, steps=1))
        assert same(state(learn), state(undisturbed)) and rows(learn)==rows(undisturbed), after

def test_the_folder_goes_on(synth, runs, capsys):
    stopped(one_cycle, tiny(synth), Resume('ships', steps=1), Stop(7))
    assert not {'state.pth','history.csv','last.pth'}-{path.name for path in (runs/'ships').iterdir()}
    learn = one_cycle(tiny(synth), resume='ships')
    assert f"going on in {runs/'ships'}: 1 of 2 epochs are done, 2 of 5 steps of the next" in capsys.readouterr().out
    assert [path.name for path in runs.iterdir()]==['ships'] and learn.run_path==runs/'ships'
    assert len((runs/'ships/history.csv').read_text().splitlines())==3
    assert len(json.loads((runs/'ships/settings.json').read_text())['fits'])==1
    before = state(learn)
    again = one_cycle(tiny(synth), resume='runs/ships')
    assert same(state(again), before) and rows(again)==rows(learn), 'a training that is over is not begun again'
    assert not [path for path in (runs/'ships').iterdir() if path.name[0]=='.']

def test_the_newest_run(synth, runs):
    one_cycle(tiny(synth), epochs=1)
    assert find_run(True, 'rotated_fcos') is None, 'it left no state'
    stopped(one_cycle, tiny(synth), Stop(3), resume=True)
    assert not (runs/'rotated_fcos_2/state.pth').exists(), 'three steps are not worth it'
    stopped(one_cycle, tiny(synth), Resume(steps=1), Stop(3))
    steps = Steps()
    learn = one_cycle(tiny(synth), steps, resume=True)
    assert steps.taken[0]==(0,3) and learn.run_path.name=='rotated_fcos_3'
    for name in ('rotated_fcos_x','rotated_fcos_33_a'): (runs/name).mkdir(); (runs/name/'state.pth').touch()
    assert find_run(True, 'rotated_fcos').name=='rotated_fcos_3'

def test_all_fits_take_it(synth, here):
    for name,args in dict(fit_flat_cos=(1,), fit_sgdr=(1,1), fine_tune=(1,)).items():
        getattr(tiny(synth), name)(*args, resume=f'f_{name}')
        assert (here/f'f_{name}/state.pth').exists(), name
    learn = tiny(synth)
    learn.fit(1, resume='a')
    learn.fit(1)
    assert torch.load(here/'a/state.pth', weights_only=True)['fit']==1, 'it stays with the learner'
    learn.fit(1, resume=False)
    assert not learn.cbs.filter(lambda cb: isinstance(cb, Resume))

def test_another_training_is_named(synth, tmp_path, here):
    begun = lambda: Resume('r', steps=1)
    stopped(one_cycle, tiny(synth), begun(), Stop(3))
    was = (here/'r/state.pth').read_bytes()
    def refused(match, learn, *cbs, **kw):
        with pytest.raises(CheckpointError, match=match): one_cycle(learn, begun(), *cbs, **kw)
        assert (here/'r/state.pth').read_bytes()==was
    refused('fit.epochs was 2, now 3', tiny(synth), epochs=3)
    refused('data.bs was 2, now 3', tiny(synth, bs=3))
    refused('detector.', tiny(synth, feat_channels=8))
    refused('callbacks.with_state', tiny(synth), EarlyStoppingCallback())
    with pytest.raises(CheckpointError, match='fit.lr was'): tiny(synth).fit_one_cycle(2, 1e-3, cbs=[begun(), *callbacks()])
    other = make_synth(tmp_path/'other', n_train=9, n_valid=2, size=64, seed=4)
    refused('data.mark was', tiny(other))
    learn = one_cycle(tiny(synth), begun())
    assert len(learn.history.rows)==2

def test_a_damaged_file_and_a_foreign_folder(synth, runs):
    stopped(one_cycle, tiny(synth), Resume('r', steps=1), Stop(3))
    file = runs/'r/state.pth'
    good = file.read_bytes()
    for junk in (b'', b'no state', good[:1000], good[:-100]):
        file.write_bytes(junk)
        with pytest.raises(CheckpointError, match='not readable.*delete it'): one_cycle(tiny(synth), resume='r')
        assert file.read_bytes()==junk
    torch.save(dict(fit=0), file)
    with pytest.raises(CheckpointError, match='not readable'): one_cycle(tiny(synth), resume='r')
    one_cycle(tiny(synth, run='old'), epochs=1)
    kept = (runs/'old/best.pth').read_bytes()
    with pytest.raises(CheckpointError, match='holds a run that left no state.pth'): one_cycle(tiny(synth), resume='old')
    assert (runs/'old/best.pth').read_bytes()==kept
    for bad in (3, '', '..', 1.5):
        with pytest.raises(ValueError, match='resume is'): one_cycle(tiny(synth), resume=bad)

def test_no_runs_are_kept(synth, tmp_path):
    with pytest.raises(ValueError, match='resume=.folder/of/a_run'): one_cycle(tiny(synth), resume=True)
    one_cycle(tiny(synth), resume=tmp_path/'here', epochs=1)
    assert [path.name for path in (tmp_path/'here').iterdir()]==['state.pth']

def test_a_full_disk(synth, whole, here, monkeypatch):
    undisturbed,begin = whole
    set_random_state(begin)
    save,n = torch.save,[0]
    def full(obj, file, *args, **kw):
        if 'callbacks' not in obj: return save(obj, file, *args, **kw)
        n[0] += 1
        if n[0]<4: return save(obj, file, *args, **kw)
        Path(file).write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device', str(file))
    monkeypatch.setattr(torch, 'save', full)
    with pytest.warns(ResumeWarning, match='state.pth'): learn = one_cycle(tiny(synth), Resume('r', steps=1))
    assert same(state(learn), state(undisturbed)), 'the training goes on'
    assert n[0]>4 and not [path for path in (here/'r').iterdir() if path.name[0]=='.']
    monkeypatch.setattr(torch, 'save', save)
    steps = Steps()
    learn = one_cycle(tiny(synth), Resume('r', steps=1), steps)
    assert steps.taken[0]==(0,3) and same(state(learn), state(undisturbed))

def test_what_callbacks_hold(synth, here):
    class Count(Callback):
        def before_fit(self): self.seen = torch.zeros(1)
        def after_batch(self): self.seen = self.seen*.9+float(self.training)
        def state_dict(self): return dict(seen=self.seen)
        def load_state_dict(self, state): self.seen = state['seen']
    def fit(cbs, stop=None):
        count,stopper = Count(),EarlyStoppingCallback(monitor='train_loss', patience=3, min_delta=99)
        learn = tiny(synth)
        try: learn.fit(6, 1e-3, cbs=[count, stopper, *cbs])
        except KeyboardInterrupt: pass
        return learn,count,stopper
    begin = random_state()
    a,count,stopper = fit([])
    set_random_state(begin)
    fit([Resume('r', steps=1), Stop(12)])
    b,count2,stopper2 = fit([Resume('r', steps=1)])
    assert torch.equal(count.seen, count2.seen) and len(rows(a))==4 and rows(a)==rows(b) and stopper.wait==stopper2.wait==3
    steps = Steps()
    c,*_ = fit([Resume('r', steps=1), steps])
    assert steps.taken==[] and same(state(b), state(c)), 'stopped early is over'

def test_searches_validations_and_predictions_leave_it_alone(synth, here):
    learn = tiny(synth)
    learn.add_cb(Resume('r', steps=1))
    learn.validate(); learn.get_preds(); learn.lr_find(num_it=6, show_plot=False)
    assert not (here/'r').exists()
    learn.fit(1, 1e-3)
    was = (here/'r/state.pth').read_bytes()
    learn.validate(); learn.get_preds(); learn.lr_find(num_it=6, show_plot=False); learn.validate()
    assert (here/'r/state.pth').read_bytes()==was
    learn.path = here
    learn.export('a.pkl')
    assert open_learner(here/'a.pkl', 'cpu').resume.state is None

def test_predictions_within_a_fit(synth, whole, here):
    "A callback that looks at results neither ends the training nor sends it back"
    undisturbed,begin = whole
    class Look(Callback):
        order = 68
        def after_batch(self):
            if not self.training or self.iter!=2 or self.learn.lock.locked(): return
            with self.learn.lock: self.learn.resume.before_fit(); self.learn.resume.after_epoch(); self.learn.resume.after_fit()
    set_random_state(begin)
    stopped(one_cycle, tiny(synth), Resume('r', steps=1), Look(), Stop(8))
    learn = one_cycle(tiny(synth), Resume('r', steps=1))
    assert same(state(learn), state(undisturbed)) and rows(learn)==rows(undisturbed)

def test_the_cost_is_kept_low(synth, monkeypatch):
    "By time, writing takes one part in a hundred; a clock that the test turns"
    now,wrote = [0.],[]
    monkeypatch.setattr(module.time, 'perf_counter', lambda: now[0])
    def write(self, epoch, at):
        wrote.append(now[0])
        self.cost,self.since,self.written = .5,0,True
        now[0] += .5
        self.last = now[0]
    class Tick(Callback):
        order = 0
        def after_batch(self): now[0] += 10.*self.training
    monkeypatch.setattr(Resume, '_write', write)
    tiny(synth).fit(7, 1e-3, cbs=[Resume('r'), Tick()])
    assert 5<=len(wrote)<=8 and max(np.diff(wrote)[:-1])<=60.5
    assert .5*len(wrote)/now[0]<.02
    wrote.clear()
    tiny(synth).fit(2, 1e-3, cbs=[Resume('s', seconds=25), Tick()])
    assert np.allclose(np.diff(wrote)[:2], 30.5)

class _Drawn(DisplayedTransform):
    "An image of one random colour"
    def encodes(self, x:PILImage):
        rgb = [int(value*255) for value in (random.random(), np.random.rand(), torch.rand(1))]
        return PILImage.create(np.full((64,64,3), rgb, np.uint8))

def test_workers_draw_by_batch(synth):
    "The same batches from any number of workers, from any batch on"
    def batches(workers, first=0):
        dls = RotatedDataLoaders.from_dota(synth, bs=2, num_workers=workers, batch_tfms=[], item_tfms=[_Drawn()], shuffle=True)
        dls.train.rng.seed(7)
        dls.train.first_batch = first
        return [x[:,:,0,0].tolist() for x,*_ in dls.train]
    one,three = batches(1),batches(3)
    assert one==three and all(len(set(values))>6 for values in zip(*sum(one, [])))
    assert batches(3, 1)==one[1:] and batches(2, 3)==one[3:]
    assert batches(1)==one

def test_other_loaders_are_read_up_to_there():
    def noisy(i): return torch.tensor([float(i), torch.rand(1).item(), np.random.rand()])
    dl = DataLoader(list(range(9)), bs=2, shuffle=True, after_item=noisy)
    begun,rng = random_state(),dl.rng.getstate()
    batches,states = [],[]
    for batch in dl:
        torch.rand(3)                                                       # a step draws too
        batches.append(batch); states.append(random_state())
    for first in (1,4):
        set_seed(3)
        dl.rng.setstate(rng)
        rest = list(batches_from(dl, first, begun, states[first-1]))
        assert torch.equal(rest[0], batches[first]) and len(rest)==5-first

def test_marks_of_data():
    one = lambda name='a.png',x=1.,cls='ship': Annot(Path('here')/name, np.full((1,4,2), x), [cls], np.zeros(1, int))
    mark = data_mark([one()])
    moved = one(); moved.image = Path('there/a.png')
    assert data_mark([moved])==mark
    others = [[one('b.png')], [one(x=2.)], [one(cls='plane')], [one(), one()], []]
    assert len({mark, *map(data_mark, others)})==6
    assert settings_differ(dict(a=1, b=2), dict(a=1, b=3, c='x'*90))==['b was 2, now 3', f"c was None, now {'x'*57}..."]
