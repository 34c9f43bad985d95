"`rotnb-bench` as a user runs it, small; and the pieces that its numbers stand on"
import json, math, runpy, subprocess, sys
from pathlib import Path

import pytest, torch
import rotnb.measure.stress
from rotnb.ops.iou import box_iou_rotated
from rotnb.measure.speed import SCENES, bench_scene, count_operations, iou_floor, machine_peaks
from rotnb.measure.stress import DEGENERATE, STRESS
from paths import ROOT


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    "Runs the command in `tmp_path`: (exit code, stdout, stderr)"
    monkeypatch.chdir(tmp_path)
    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['rotnb-bench', *map(str, args)])
        try: runpy.run_module('rotnb.cli.bench', run_name='__main__'); code = 0
        except SystemExit as e: code = e.code or 0
        return code, *capsys.readouterr()
    return run

def test_iou(bench):
    code,out,err = bench('iou', '--n', 30, '--json', 'wall.json')
    assert code==0 and not err, err
    assert all(o in out for o in STRESS) and 'on every set' in out
    raw = json.loads(Path('wall.json').read_text())
    assert raw['kept_promise'] and raw['machine']['device']=='cpu' and {o['set'] for o in raw['rows']}==set(STRESS)
    ours = [o for o in raw['rows'] if o['impl']=='rotnb']
    assert len(ours)==len(STRESS) and all(o['max_err']<=1e-5 and o['asymmetric']==0 for o in ours)

def test_iou_guards_the_promise(bench, monkeypatch):
    "A rotnb that is off by 2e-5, or not symmetric, or says NaN ends the command with 1"
    good = rotnb.measure.stress.box_iou_rotated
    for bad in (lambda x,a: x+2e-5, lambda x,a: x+1e-7*a[:,0].nan_to_num(), lambda x,a: torch.where(a.isfinite().all(1), x, math.nan)):
        monkeypatch.setattr('rotnb.measure.stress.box_iou_rotated', lambda a,b,aligned: bad(good(a, b, aligned=aligned), a))
        code,out,_ = bench('iou', '--n', 30)
        assert code==1 and 'NOT as promised' in out and DEGENERATE in out

def test_speed(bench):
    code,out,err = bench('speed', '--n', 60, '--nms-max', 2500, '--runs', 3, '--json', 'speed.json')
    assert code==0 and not err, err
    assert 'peaks measured' in out and 'over floor' in out and 'n^' in out
    raw = json.loads(Path('speed.json').read_text())
    assert raw['peaks']['write']>0 and raw['peaks']['flops']>0
    rows = raw['rows']
    assert {o['work'] for o in rows}>={'IoU matrix','NMS','batched NMS'}
    for o in rows: assert len(o['runs'])==3 and o['seconds']==sorted(o['runs'])[1]>0
    for o in rows:
        if 'floor' in o: assert o['over_floor']==pytest.approx(o['seconds']/o['floor']) and o['over_floor']>.5
    assert [o['n'] for o in rows if o['work']=='NMS' and o['scene']=='sparse']==[1000,2000,2500]

def test_eval(bench):
    "Small; the target itself, a quarter of the yardstick, is for a machine that does nothing else"
    code,out,err = bench('eval', '--n', 20, '--runs', 3, '--json', 'eval.json')
    assert code==0 and not err and 'AP at ten IoUs' in out and 'AP, streamed' in out
    rows = json.loads(Path('eval.json').read_text())['rows']
    assert [o['n'] for o in rows]==[4000,5000,10_000,20_000,40_000] and all(o['seconds']>0 for o in rows)
    if rows[-1]['memory']: assert rows[-1]['bytes_each']<1000

@pytest.mark.parametrize('args,say', [
    (['map'], "no weights are called 'map'"), (['iou','--n','0'], '--n is 0'), (['speed','--runs','0'], '--runs is 0'),
    (['speed','--nms-max','-1'], '--nms-max'), (['iou','--device','tpu'], 'cpu or cuda'),
    (['iou','--json','nowhere/x.json'], 'no folder'), (['iou','--json','.'], 'is a folder')])
def test_errors_are_plain(bench, args, say):
    code,out,err = bench(*args)
    assert code==2 and say in err and err.startswith('rotnb-bench: ') and err.count('\n')==1 and not out

@pytest.mark.skipif(torch.cuda.is_available(), reason='has a GPU')
def test_no_gpu(bench):
    for what in ('iou','speed'):
        code,_,err = bench(what, '--device', 'cuda')
        assert code==2 and 'no GPU' in err

def test_command_starts_without_fastai():
    code = "import sys, rotnb.cli.bench; assert not [o for o in ('fastai','matplotlib','cv2','shapely') if o in sys.modules]"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)

def test_scenes():
    "Repeatable, of any size, and as dense as their names say"
    for kind in SCENES:
        for n in (1,7,500):
            (b,s),(c,_) = bench_scene(kind, n),bench_scene(kind, n)
            assert b.shape==(n,5) and s.shape==(n,) and torch.equal(b, c) and b[:,2:4].min()>0
    share = {k:(lambda b: (box_iou_rotated(b, b)>0).float().mean().item())(bench_scene(k, 1000)[0]) for k in SCENES}
    assert share['sparse']<.01 and share['sparse']<share['clustered'] and share['sparse']<share['car park'] and share['overlapping']==1

def test_counted_operations():
    "Few for a pair far apart, as many for each overlapping pair, and the mean in between"
    b,far = bench_scene('overlapping', 10)[0],bench_scene('overlapping', 10)[0]+torch.tensor([1e4,0,0,0,0])
    near_ops,far_ops = count_operations(b, b),count_operations(b, far)
    assert far_ops<10<100<near_ops<500
    assert count_operations(b, torch.cat([b, far]))==pytest.approx((near_ops+far_ops)/2)

def test_floor():
    "The larger of the time to write and the time to reckon"
    peaks = machine_peaks(runs=3, n=512, mb=64)
    b = bench_scene('sparse', 50)[0]
    f = iou_floor(b, b, peaks)
    memory,arithmetic = 2500*f['bytes']/peaks['write'],2500*f['ops']/peaks['flops']
    assert f['floor']==pytest.approx(max(memory, arithmetic)) and f['bound']==('memory' if memory>arithmetic else 'arithmetic')
