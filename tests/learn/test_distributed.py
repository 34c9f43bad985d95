"Several processes train one detector: the gradients of one, the figure of all, and an end that is clear"
import os, subprocess, sys
import numpy as np, pytest, torch
from unittest.mock import patch
from rotnb.cli.train import in_all, is_first
from rotnb.learn.many import check_agreement
from paths import ROOT

pytest.importorskip('accelerate')
pytestmark = pytest.mark.skipif(sys.platform!='linux' or not torch.distributed.is_available(), reason='forks, and wants gloo')

def run(*args, **env):
    helpers = str(ROOT/'tests/helpers')
    path = os.pathsep.join([str(ROOT), helpers])
    return subprocess.run([sys.executable, *map(str, args)], env={**os.environ, 'PYTHONPATH':path, 'OMP_NUM_THREADS':'1', **env},
                          capture_output=True, text=True, timeout=900)

@pytest.fixture(scope='module')
def told(tmp_path_factory):
    "What two processes found, and one alone; see `helpers/ranks.py`"
    folder = tmp_path_factory.mktemp('ranks')
    done = run(ROOT/'tests/helpers/ranks.py', folder)
    assert done.returncode==0, done.stderr[-4000:]
    one = torch.load(folder/'alone.pth', weights_only=False)
    assert one['codes']==[0,0], done.stderr[-6000:]
    return one,[torch.load(folder/f'{rank}.pth', weights_only=False) for rank in (0,1)],folder

def equal(a, b): return a.keys()==b.keys() and all(torch.equal(a[key], b[key]) for key in a)

def as_said(row): return {key:str(value) for key,value in row.items() if key!='seconds'}       # NaN is NaN

def test_gradients_are_those_of_one_process(told):
    "Four images with 3, 0, 1 and 2 objects; two in each process"
    one,both,_ = told
    for name,want in one['grads'].items():
        for own in both:
            got = own['grads'][name]
            assert got.keys()==want.keys()
            scale = max(float(value.abs().max()) for value in want.values() if value is not None)
            for key,value in want.items():
                if value is None: assert got[key] is None or not got[key].any(), (name, key)
                else: assert (got[key]-value).norm()<=1e-3*value.norm().clamp(min=1e-4*scale), (name, key)

def test_what_is_counted(told):
    (a,b) = [own['counted'] for own in told[1]]
    assert (a['alone'],b['alone'])==([1,0],[0,1]) and a['gt']==b['gt']==[1,1]

def test_a_validation_says_the_figure_of_all(told):
    one,both,_ = told
    a,b = [own['validated'] for own in both]
    assert a['images']==b['images']==5, 'the image that is read twice counts once'
    assert a['values']==b['values'] and a['values'][1:]==pytest.approx(one['values'][1:]) and one['values'][1]>0
    assert np.isfinite(a['values'][0]) and a['values'][0]==pytest.approx(one['values'][0], rel=.2)       # batches are others
    assert a['alone']==pytest.approx(one['values'][1], abs=.2) and a['found'] is not None, 'one process predicts by itself'

def test_a_training_with_all_that_holds_something(told):
    a,b = [own['trained'] for own in told[1]]
    assert np.isfinite(a['losses']).all(), 'what the other process saw counts too'
    assert np.array_equal(a['losses'], b['losses']) and np.array_equal(a['weights'], b['weights'])
    assert a['on']==b['on']==[True,False,True] and a['norms']==b['norms']==1
    assert len(a['read'])==len(b['read'])==6, 'three images an epoch each'
    assert a['kinds']=={(True,'DistributedDataParallel'),(False,'Detector')}
    assert equal(a['model'], b['model']) and a['same'] and b['same'] and 'many_processes' not in a['cbs']
    assert [*map(as_said, a['rows'])]==[*map(as_said, b['rows'])]
    folder = told[2]
    assert (folder/'check.pth').is_file() and [kept[1] for kept in a['kept']]==[file.name for file in (folder/'best').iterdir()]
    assert not b['kept'] and [o.name for o in (folder/'runs').iterdir()]==['whole']

def test_goes_on_to_the_same_weights(told):
    for own in told[1]: assert equal(own['resumed']['whole'], own['resumed']['on'])
    a,b = [own['resumed']['on'] for own in told[1]]
    assert equal(a, b) and not equal(a, told[1][0]['resumed']['broken'])

def test_all_leave_out_a_batch(told):
    a,b = [own['left_out'] for own in told[1]]
    assert a['finite'] and b['finite'] and equal(a['model'], b['model'])
    assert len(a['said'])==len(b['said'])==1 and 'pixels are not finite' in b['said'][0]

def test_what_differs_is_said_before_the_first_step(told):
    for own in told[1]: assert 'batch size: 2 in process 0, 3 in process 1' in own['disagreed']

def test_families(told):
    for name,(model,row) in told[1][0]['families'].items():
        other,theirs = told[1][1]['families'][name]
        assert equal(model, other), name
        assert as_said(row)==as_said(theirs) and np.isfinite(row['train_loss']), name

def test_the_death_of_one_is_the_end_of_all(told):
    one = told[0]
    assert one['dead'][1]==-9 and one['dead'][0] not in (0,-9) and one['seconds']<60

def test_agreement():
    check_agreement([dict(images=5, epochs=2)]*3)
    with pytest.raises(ValueError, match='epochs: 2 in process 0, 3 in process 2'):
        check_agreement([dict(images=5, epochs=2)]*2+[dict(images=5, epochs=3)])

def test_a_process_alone():
    with patch.dict(os.environ):
        os.environ.pop('RANK', None); os.environ.pop('WORLD_SIZE', None)
        assert is_first() and in_all(lambda: 7)==7

def test_torchrun_starts_the_command(tmp_path):
    "As it is typed, on a small folder; and what is wrong is one line"
    from rotnb.data.synth.scenes import make_synth
    make_synth(tmp_path/'set', n_train=4, n_valid=3, size=64, seed=3)
    start = '-m','torch.distributed.run','--standalone','--nproc-per-node','2','-m','--','rotnb','train'
    done = run(*start, tmp_path/'set', '--recipe', 'ssdd_6x', '--run', 'ships', '--arch', 'rotated_fcos_tiny', '--epochs', 1, '--bs', 1,
               '--size', 64, '--workers', 0, '--seed', 0, '--set', 'pretrained=False', 'backbone=test_resnet',
               ROTNB_RUNS=str(tmp_path/'runs'))
    assert done.returncode==0, done.stderr[-3000:]
    assert [o.name for o in (tmp_path/'runs').iterdir()]==['ships'] and done.stdout.count('wrote')==1
    assert {'best.pth','state.pth','recipe.json','predictor'}<={o.name for o in (tmp_path/'runs/ships').iterdir()}
