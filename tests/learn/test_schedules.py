"""Schedules beside MMEngine's, value by value, and in a fit. `schedules.json` is what its schedulers (0.10.7) set at each step of eight
epochs of seven, before that step: LinearLR times MultiStepLR and so on, the rate 1"""
import json, math, warnings
from pathlib import Path
import numpy as np, pytest
from rotnb.learn.schedules import FALLS, WARMUPS, Schedule

THEIRS = json.loads(Path(__file__).with_name('schedules.json').read_text())
OURS = dict(
    step=Schedule('step', at=(4,6), warmup=10),
    flat=Schedule('cosine', flat=.5, end=.05, warmup=10, warmup_start=1e-5),
    cosine=Schedule('cosine', end=.01),
    cosine_epoch=Schedule('cosine', end=.01, by_epoch=True),
    poly=Schedule('poly', end=.04),
    poly_epoch=Schedule('poly', power=2., end=.04, by_epoch=True),
    constant=Schedule('constant', warmup=10, warmup_kind='constant', warmup_start=.25))

def curve(schedule, n_epoch, n_iter): return [schedule.factor(step, n_epoch, n_iter) for step in range(n_epoch*n_iter)]

def test_all_of_mmengine_are_compared(): assert OURS.keys()==THEIRS['values'].keys()

@pytest.mark.parametrize('kind', OURS)
def test_as_mmengine(kind):
    ours = curve(OURS[kind], THEIRS['n_epoch'], THEIRS['n_iter'])
    np.testing.assert_allclose(ours, THEIRS['values'][kind], rtol=1e-9)

# warm-ups of mmcv 1.7: a factor for each step before number `n`
MMCV = dict(linear=lambda share,start: 1-(1-share)*(1-start), exponential=lambda share,start: start**(1-share),
            constant=lambda share,start: start)

@pytest.mark.parametrize('kind', MMCV)
def test_warmups_of_mmcv_are_a_step_longer(kind):
    n,start = 20,.1
    ours = curve(Schedule('constant', warmup=n+1, warmup_kind=kind, warmup_start=start), 3, 15)
    theirs = [MMCV[kind](step/n, start) if step<n else 1. for step in range(45)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)

@pytest.mark.parametrize('kind', WARMUPS)
@pytest.mark.parametrize('n', [0,1,2,7])
def test_a_warmup_ends_at_one(kind, n):
    ours = curve(Schedule('constant', warmup=n, warmup_kind=kind, warmup_start=.2), 1, 12)
    assert all(math.isclose(factor, 1.) for factor in ours[max(n-1, 0):])
    if n>1: assert math.isclose(ours[0], .2) and ours==sorted(ours)

@pytest.mark.parametrize('kind', FALLS)
def test_a_curve_falls_from_one_towards_its_end(kind):
    ours = curve(Schedule(kind, end=.25), 4, 50)
    assert math.isclose(ours[0], 1.) and ours==sorted(ours, reverse=True)
    if kind!='constant': assert .25<=ours[-1]<.27

def test_the_longer_warmup_counts():
    "YOLOv5's rule: three epochs, but a thousand steps at least"
    schedule = Schedule('linear', warmup=1000, warmup_epochs=3)
    assert (schedule.warmup_steps(100), schedule.warmup_steps(500))==(1000,1500)

def test_milestones_may_lie_within_an_epoch():
    ours = curve(Schedule('step', at=(.5,1)), 2, 4)
    np.testing.assert_allclose(ours, [1,1,.1,.1,.01,.01,.01,.01])

def test_flat_all_the_way(): assert curve(Schedule('cosine', flat=1.), 2, 3)==[1.]*6
