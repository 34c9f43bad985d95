"How threads of OpenMP wait, and settings of a step that hold for a fit and no longer"
import os, subprocess, sys
import pytest, torch
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.learn.fast_steps import FastSteps
from rotnb.learn.learner import rotated_learner
from paths import ROOT

def spins(code, **env):
    "How often GNU's OpenMP looks whether there is more to do before a thread sleeps, as it says itself"
    clean = {key:value for key,value in os.environ.items() if not key.startswith(('OMP_WAIT','GOMP_','KMP_'))}
    run = subprocess.run([sys.executable, '-c', code], env={**clean, 'PYTHONPATH':str(ROOT), 'OMP_DISPLAY_ENV':'VERBOSE', **env},
                         capture_output=True, text=True)
    said = [line.split("'")[1] for line in run.stderr.splitlines() if 'GOMP_SPINCOUNT' in line]
    if not said: pytest.skip('torch has another OpenMP here')
    return int(said[0])

def test_threads_sleep_while_they_wait():
    assert spins('import rotnb, torch')==0

def test_what_the_user_set_stays():
    assert spins('import rotnb, torch', OMP_WAIT_POLICY='ACTIVE')>10**6

@pytest.mark.parametrize('fails', [False, True])
def test_a_fit_leaves_the_detector_as_it_was(tmp_path, fails):
    dls = RotatedDataLoaders.from_synth(tmp_path/'data', n_train=2, n_valid=1, size=64, bs=2, num_workers=0)
    learn = rotated_learner(dls, 'rotated_fcos', pretrained=False, run=False, backbone='test_resnet', fpn_channels=16, feat_channels=16,
                            stacked_convs=1, strides=(8,16))
    fast = FastSteps(bf16=True)
    learn.add_cb(fast)
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
