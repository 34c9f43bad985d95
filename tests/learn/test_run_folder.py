"A training leaves a folder: whole, one for a learner, none where nothing is trained, and never at the cost of the training"
import csv, errno, json
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from fastai.vision.all import Callback, CancelValidException, set_seed
from rotnb.all import (AngleError, Checkpoint, RotatedDataLoaders, RotatedMAP, create_detector, open_learner, predict_image,
    rotated_learner)
from rotnb.data.synth.scenes import make_synth
from rotnb.learn import run_folder
from rotnb.learn.history import history
from rotnb.learn.run_folder import RunWarning, new_run

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16,32), act='exp')
FILES = 'best.pth confusion_matrix.png curves.png f1.png history.csv last.pth pr.png predictions.jpg settings.json train_batch.jpg'.split()

@pytest.fixture(scope='module')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('runs')/'set', n_train=4, n_valid=3, size=64, seed=3)

@pytest.fixture
def make(synth, tmp_path, monkeypatch):
    "A function that makes learners whose runs lie in `tmp_path/runs`"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('ROTNB_RUNS')
    def f(arch='rotated_fcos', **kw):
        set_seed(0)
        dls = RotatedDataLoaders.from_dota(synth, bs=2, num_workers=0, batch_tfms=[])
        learn = rotated_learner(dls, arch, path=tmp_path, **{**(TINY if isinstance(arch, str) else {}), **kw})
        learn.remove_cb(learn.progress)
        return learn
    return f

# fastai warns where a callback's attribute hides one of the learner
pytestmark = pytest.mark.filterwarnings('error:You are shadowing')

def names(folder): return sorted(path.name for path in Path(folder).iterdir())
def runs(tmp_path): return names(tmp_path/'runs') if (tmp_path/'runs').exists() else []
def table(folder): return list(csv.DictReader((folder/'history.csv').open()))
class Stop(Callback):
    "Ctrl-C in the middle of an epoch"
    def __init__(self, epoch, error=KeyboardInterrupt): self.at,self.error = epoch,error
    def after_pred(self):
        if self.training and self.epoch==self.at and self.iter==1: raise self.error

def test_files_and_the_line_that_names_them(make, tmp_path, capsys):
    learn = make()
    learn.fit_one_cycle(2, 1e-2)
    folder = tmp_path/'runs/rotated_fcos'
    assert learn.run_path==folder and names(folder)==FILES
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith('runs/rotated_fcos: best mAP50 ') and all(name in line for name in FILES), line
    told = json.loads((folder/'settings.json').read_text())
    assert told['detector']==json.loads(json.dumps(learn.model.recipe(), default=str)) and told['data']['images']==dict(train=4, valid=3)
    assert told['data']['classes']==list(learn.dls.vocab) and told['data']['input_wh']==[64,64] and told['versions']['torch']
    assert told['fits'][0]['epochs']==2 and told['fits'][0]['groups'][0]['wd']==pytest.approx(.01)
    rows = table(folder)
    assert [row['epoch'] for row in rows]==['1','2'] and float(rows[1]['mAP50'])==learn.recorder.values[1][2]
    assert max(float(row['lr']) for row in rows)==pytest.approx(max(learn.recorder.lrs)) and [row['steps'] for row in rows]==['2','2']
    for name in FILES:
        if name.endswith(('jpg','png')): assert min(Image.open(folder/name).size)>=64, name

def test_weights_are_safe_and_come_back(make, tmp_path):
    learn = make()
    learn.fit(2, 1e-2)
    kept = torch.load(learn.run_path/'last.pth', weights_only=True)
    notes = kept['notes']
    assert notes['classes']==list(learn.dls.vocab) and notes['detector']=='rotated_fcos' and notes['epoch']['epoch']==1
    assert all(torch.equal(value, learn.model.state_dict()[key]) for key,value in kept['model'].items())
    best = torch.load(learn.run_path/'best.pth', weights_only=True)
    other = make()
    assert other.load_best(learn.run_path) is other
    assert all(torch.equal(value, other.model.state_dict()[key]) for key,value in best['model'].items())
    learn.fit(1, 1e-2)
    learn.load_best()
    with pytest.raises(FileNotFoundError, match="learn.load_best\\('runs/NAME'\\)"): make().load_best('runs/no_such')
    small = {key:value for key,value in TINY.items() if key!='act'}
    another = make(create_detector('rotated_retinanet', len(learn.dls.vocab), **small))
    with pytest.raises(ValueError, match='of rotated_fcos, this is rotated_retinanet'): another.load_best(learn.run_path)
    renamed = make()
    renamed.model.vocab = [f'{name}s' for name in renamed.model.vocab]
    with pytest.raises(ValueError, match="this one's classes are"): renamed.load_best(learn.run_path)
    (tmp_path/'bad.pth').write_bytes((learn.run_path/'best.pth').read_bytes()[:-3000])
    with pytest.raises(ValueError, match='damaged'): learn.load_best(tmp_path/'bad.pth')

def test_another_training_starts_from_a_run(make):
    "Its best weights are a file for `weights=` like any other: which detector, with which settings, is noted in it"
    learn = make()
    learn.fit(1, 1e-2)
    best = learn.run_path/'best.pth'
    again = rotated_learner(learn.dls, weights=best)
    assert all(again.model.recipe()[part]==make().model.recipe()[part] for part in ('neck','stages'))
    assert all(torch.equal(value, again.model.state_dict()[key]) for key,value in torch.load(best)['model'].items())
    few = copy(learn.dls)
    few.vocab = ['tractor', learn.dls.vocab[2]]
    rows = rotated_learner(few, weights=best).model.stages[0].cls.weight
    assert torch.equal(rows[1], torch.load(best)['model']['stages.0.cls.weight'][2])

def test_one_learner_has_one_folder(make, tmp_path, capsys):
    learn = make()
    learn.fine_tune(1, 1e-2)
    assert runs(tmp_path)==['rotated_fcos'] and len(table(learn.run_path))==2, 'the frozen epoch is one of its own'
    assert capsys.readouterr().out.count('runs/rotated_fcos: ')==1
    learn.fit(1, 1e-2)
    assert runs(tmp_path)==['rotated_fcos'] and [row['epoch'] for row in table(learn.run_path)]==['1','2','3']
    assert len(json.loads((learn.run_path/'settings.json').read_text())['fits'])==3
    make().fit(1, 1e-2)
    make(run='ships').fit(1, 1e-2)
    assert runs(tmp_path)==['rotated_fcos','rotated_fcos_2','ships']

def test_where_nothing_is_trained_there_is_none(make, tmp_path):
    learn = make()
    learn.lr_find(num_it=20, show_plot=False)
    learn.validate(); learn.get_preds(); learn.evaluate(show=False)
    predict_image(learn, learn.dls.valid_ds.items[0].image)
    learn.show_results()
    assert runs(tmp_path)==[] and learn.run_path is None

def test_it_can_be_switched_off_and_moved(make, tmp_path, monkeypatch):
    make(run=False).fit(1, 1e-2)
    for name in ('ROTNB_RUNS','IN_TEST'):
        with monkeypatch.context() as m:
            m.setenv(name, '0' if name=='ROTNB_RUNS' else '1')
            make().fit(1, 1e-2)
    assert runs(tmp_path)==[]
    monkeypatch.setenv('ROTNB_RUNS', str(tmp_path/'elsewhere'))
    learn = make(run='a')
    learn.fit(1, 1e-2)
    assert runs(tmp_path)==[] and learn.run_path==tmp_path/'elsewhere/a'
    for bad in ('a/b','..','',3,True):
        with pytest.raises(ValueError, match='ROTNB_RUNS=FOLDER'): make(run=bad)

@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError('CUDA out of memory')])
def test_an_interrupted_run_keeps_what_it_has(make, tmp_path, capsys, error):
    learn = make()
    with pytest.raises(type(error) if isinstance(error, Exception) else error): learn.fit(4, 1e-2, cbs=Stop(2, error))
    assert names(learn.run_path)==FILES and len(table(learn.run_path))==2
    assert 'runs/rotated_fcos: best mAP50' in capsys.readouterr().out
    learn.remove_cbs(Stop)
    learn.fit(1, 1e-2)
    assert runs(tmp_path)==['rotated_fcos'] and [row['epoch'] for row in table(learn.run_path)]==['1','2','3']
    assert not [name for name in names(learn.run_path) if name.startswith('.')]

def test_a_disk_that_takes_nothing_stops_no_training(make, tmp_path, monkeypatch):
    (tmp_path/'runs').write_text('a file in its place')
    learn = make()
    with pytest.warns(RunWarning, match='the training goes on; ROTNB_RUNS=FOLDER') as said: learn.fit(3, 1e-2)
    assert len(learn.recorder.values)==3 and len([w for w in said if w.category is RunWarning])==1
    (tmp_path/'runs').unlink()
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device')
    learn = make()
    with monkeypatch.context() as m, pytest.warns(RunWarning, match='No space left') as said:
        m.setattr(run_folder, 'keep_weights', full)
        learn.fit(3, 1e-2)
    assert len(history(learn))==3 and len([w for w in said if w.category is RunWarning])==1
    learn.fit(1, 1e-2)
    assert len(table(learn.run_path))==4, 'with room again it goes on'

def test_an_image_that_fails_costs_only_itself(make, monkeypatch):
    def broken(*args, **kwargs): raise TypeError('five channels')
    monkeypatch.setattr(run_folder, 'draw', broken)
    learn = make()
    with pytest.warns(RunWarning, match='five channels'): learn.fit(1, 1e-2)
    assert names(learn.run_path)==[name for name in FILES if not name.endswith('jpg')]

def test_training_is_the_same_with_it_and_without(make):
    losses = []
    for run in (False,None):
        learn = make(run=run)
        learn.fit(2, 1e-2)
        losses.append([loss.item() for loss in learn.recorder.losses])
    assert losses[0]==losses[1]

@pytest.mark.parametrize('metrics,name,less',
    [([AngleError()], 'angle_err', True), ([], 'valid_loss', True), ([RotatedMAP('coco')], 'mAP50:95', False)])
def test_best_is_judged_by_the_first_metric(make, metrics, name, less):
    learn = make(metrics=metrics)
    assert learn.run_folder.judged_by()==(name, less)
    values = iter([.5,.7,None,float('nan'),.3,.7])
    for i,value in enumerate(values): learn.run_folder._is_best({'epoch':i, name:value})
    assert learn.run_folder.best==dict(name=name, value=.3 if less else .7, epoch=5 if less else 2)

def test_no_validation_no_best(make, capsys):
    class Skip(Callback):
        def before_validate(self): raise CancelValidException
    learn = make(cbs=Skip())
    learn.fit(1, 1e-2)
    row, = table(learn.run_path)
    assert row['valid_loss']==row['mAP50']=='' and float(row['loss_cls'])>0 and 'best.pth' not in names(learn.run_path)
    assert 'runs/rotated_fcos: 1 epoch; ' in capsys.readouterr().out

def test_quiet_where_the_learner_is(make, capsys):
    learn = make()
    with learn.no_logging(): learn.fit(1, 1e-2)
    assert not capsys.readouterr().out

def test_two_processes_never_share_a_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool: made = list(pool.map(lambda _: [new_run(tmp_path, 'a').name for _ in range(20)], range(8)))
    assert len({name for some in made for name in some})==160

def test_only_the_first_process_writes(make, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, 'rank_distrib', lambda: 1)
    make().fit(1, 1e-2)
    assert runs(tmp_path)==[]

def test_an_exported_learner_starts_anew(make, tmp_path):
    learn = make()
    learn.fit(1, 1e-2)
    learn.export((tmp_path/'m.pkl').absolute())
    again = open_learner(tmp_path/'m.pkl', 'cpu')
    assert again.run_path is None and len(history(again))==1 and learn.run_path is not None
    again.dls = learn.dls
    with again.no_bar(): again.fit(1, 1e-2)
    assert runs(tmp_path)==['rotated_fcos','rotated_fcos_2'] and len(table(again.run_path))==2, 'the history goes on'

def test_a_checkpoint_keeps_the_history(make, tmp_path):
    first = make()
    with pytest.raises(KeyboardInterrupt): first.fit(3, 1e-2, cbs=[Checkpoint(tmp_path/'c.pth'), Stop(2)])
    again = make()
    again.fit(3, 1e-2, cbs=Checkpoint(tmp_path/'c.pth'))
    assert [row['epoch'] for row in table(again.run_path)]==['1','2','3'] and history(again)[:2]==history(first)

def test_bgr_detectors_and_several_sizes_show_right_colours(make, tmp_path):
    learn = make()
    learn.model.channels = 'bgr'
    learn.fit(1, 0.)
    seen = np.asarray(Image.open(learn.run_path/'train_batch.jpg'), float)
    learn2 = make()
    learn2.fit(1, 0.)
    rgb = np.asarray(Image.open(learn2.run_path/'train_batch.jpg'), float)
    assert abs(seen-rgb).mean()<abs(seen[...,::-1]-rgb).mean()
