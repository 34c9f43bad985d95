"Settings of a step hold for a fit and no longer"
import itertools
from collections import namedtuple
import psutil, pytest, torch
from fastai.callback.core import Callback
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.learn.fast_steps import FastSteps
from rotnb.learn.learner import rotated_learner

def small_learner(folder, *cbs):
    dls = RotatedDataLoaders.from_synth(folder/'data', n_train=2, n_valid=1, size=64, bs=2, num_workers=0)
    return rotated_learner(dls, 'rotated_fcos', pretrained=False, run=False, backbone='test_resnet', fpn_channels=16, feat_channels=16,
                           stacked_convs=1, strides=(8,16), cbs=cbs)

Times = namedtuple('Times', 'user nice system idle guest')        # as psutil tells them: seconds since the machine was started

@pytest.fixture
def two_threads():
    had = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(had)

@pytest.mark.parametrize('busy,n', [(0,2), (55,1), (100,1)])
def test_a_fit_takes_the_cores_that_are_free(tmp_path, monkeypatch, two_threads, capsys, busy, n):
    monkeypatch.setattr(psutil, 'cpu_count', lambda: 2)
    spent = Times(user=busy/2, nice=(100-busy)/2, system=busy/2, idle=(100-busy)/2, guest=busy/2)   # of a guest is of a user, too
    times = itertools.cycle([Times(7, 7, 7, 7, 7), Times(*(7+.4*part/100 for part in spent))])      # two cores for a fifth of a second
    monkeypatch.setattr(psutil, 'cpu_times', lambda: next(times))
    seen = []
    class Look(Callback):
        def after_batch(self): seen.append(torch.get_num_threads())
    learn = small_learner(tmp_path, FastSteps(threads='free'), Look())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4)
    assert set(seen)=={n} and torch.get_num_threads()==2
    assert ('cores are busy' in capsys.readouterr().out)==(n<2)

def test_a_training_goes_on_in_as_many_threads(two_threads):
    cb = FastSteps(threads='free')
    cb.load_state_dict(dict(n_threads=1))
    assert torch.get_num_threads()==1 and cb.state_dict()==dict(n_threads=1)

@pytest.mark.parametrize('fails', [False, True])
def test_a_fit_leaves_the_detector_as_it_was(tmp_path, fails):
    fast = FastSteps(bf16=True)
    learn = small_learner(tmp_path, fast)
    if fails:
        whole = learn.model.neck.forward
        learn.model.neck.forward = lambda *args: (_ for _ in ()).throw(RuntimeError('stopped'))
    with learn.no_bar(), learn.no_logging():
        if not fails: learn.fit(1, 1e-4)
        else:
            with pytest.raises(RuntimeError, match='stopped'): learn.fit(1, 1e-4)
            fast.put_back()
            learn.model.neck.forward = whole
    assert not torch.is_autocast_enabled('cpu')
    assert all(param.dtype==torch.float32 and param.is_contiguous() for param in learn.model.parameters())
