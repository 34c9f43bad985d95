"`rotnb-demo` as a user runs it: files, options, errors, interruption, own data"
import json, os, runpy, shutil, signal, subprocess, sys, time, warnings
from pathlib import Path
import pytest, torch
from PIL import Image
from fastai.vision.all import load_learner
from rotnb.data.formats.dota import read_dota, write_dota
from rotnb.data.synth.scenes import make_synth
from rotnb.data.formats.table import FORMATS
from rotnb.predict.infer import predict_image
from rotnb.predict.predictor import Predictor
from paths import ROOT

SHARED = Path(os.environ.get('ROTNB_SHARED', ROOT.parent/'shared'))
TINY = '--model rotated_fcos --backbone test_resnet --n-train 8 --n-valid 4 --size 128 --bs 4 --epochs 1 --workers 0'.split()
FILES = 'loss.png metrics.json model.pkl prediction.png results.png'.split()

def command(args, home):
    "What starts the command in a process of its own"
    env = {**os.environ, 'ROTNB_HOME':str(home), 'MPLBACKEND':'agg', 'PYTHONPATH':str(ROOT)}
    return dict(args=[sys.executable, '-m', 'rotnb.cli.demo', *map(str, args)], env=env, cwd=home, text=True)

def in_process(args, monkeypatch, capsys, home):
    "The same without the seconds that importing takes: (exit code, stdout, stderr)"
    monkeypatch.setenv('ROTNB_HOME', str(home)); monkeypatch.chdir(home)
    monkeypatch.setattr(sys, 'argv', ['rotnb-demo', *map(str, args)])
    monkeypatch.setattr('warnings.showwarning', warnings.showwarning)    # the command sets its own, which is not to last
    try: runpy.run_module('rotnb.cli.demo', run_name='__main__'); code = 0
    except SystemExit as e: code = e.code or 0
    return code, *capsys.readouterr()

@pytest.fixture(scope='module')
def home(tmp_path_factory): return tmp_path_factory.mktemp('home')

@pytest.fixture
def cli(monkeypatch, capsys, home): return lambda *args: in_process(args, monkeypatch, capsys, home)

@pytest.fixture(scope='module')
def run(home):
    "One finished run"
    r = subprocess.run(**command(['--path','out',*TINY], home), capture_output=True)
    assert r.returncode==0, r.stderr
    return home/'out', r

@pytest.fixture(scope='module')
def dota(tmp_path_factory):
    "A small DOTA folder whose labels `write_dota` wrote"
    root = make_synth(tmp_path_factory.mktemp('dota')/'d', n_train=4, n_valid=2, size=96)
    for s in ('train','val'): write_dota(read_dota(root, s), root/s/'labelTxt')
    return root

def test_files(run):
    path,r = run
    assert sorted(o.name for o in path.iterdir())==sorted([*FILES,'checkpoint','predictor'])
    assert 'mAP50 (VOC12)' in r.stdout and 'mAP50:95 (COCO)' in r.stdout and 'large-vehicle' in r.stdout
    assert 'train_loss' in r.stdout and 'Traceback' not in r.stderr

def test_metrics(run):
    m = json.loads((run[0]/'metrics.json').read_text())
    assert {'mAP50','mAP50_95','seconds','classes','settings','seed','versions','history','detector'} <= set(m)
    assert 0<=m['mAP50']<=1 and 0<=m['mAP50_95']<=m['mAP50'] and m['seconds']>0
    assert len(m['history'])==1 and {'epoch','seconds','train_loss','valid_loss','mAP50','mAP50:95'} <= set(m['history'][0])
    assert m['settings']['n_train']==8 and m['settings']['backbone']=='test_resnet' and m['detector']['name']=='rotated_fcos'
    assert {'rotnb','torch','fastai','python','threads'} <= set(m['versions'])
    assert all({'ap','recall','n_gt','n_det'}==set(o) for o in m['classes'].values())

def test_images(run):
    sizes = {o:Image.open(run[0]/o).size for o in FILES if o.endswith('.png')}
    assert sizes['prediction.png']==(128,128)
    assert min(sizes['results.png'])>=600 and min(sizes['loss.png'])>=300

def test_exported_learner_predicts(run, home):
    learn = load_learner(run[0]/'model.pkl')
    dets = predict_image(learn, next(home.rglob('val/images/*.png')), score_thr=0.)
    assert dets['boxes'].shape==(len(dets['scores']),5)

def test_what_it_leaves_predicts_without_a_pickle(run, home):
    "The folder, by the command too, finds what the learner finds"
    image = next(home.rglob('val/images/*.png'))
    ours,theirs = Predictor.load(run[0]/'predictor')(image, 0.),predict_image(load_learner(run[0]/'model.pkl'), image, 0.)
    assert len(ours)==len(theirs)>0 and torch.allclose(ours.boxes, theirs.boxes, atol=1e-3)
    assert not [file for file in (run[0]/'predictor').iterdir() if file.suffix in ('.pkl','.pth')]
    assert 0<=json.loads((run[0]/'predictor/config.json').read_text())['predictor']['notes']['metrics']['mAP50']<=1

def test_second_run_says_that_it_overwrites(run, cli):
    before = (run[0]/'metrics.json').stat().st_mtime_ns
    code,out,_ = cli('--path','out',*TINY)
    assert code==0 and 'it is overwritten' in out
    assert (run[0]/'metrics.json').stat().st_mtime_ns>before

def test_resume_refuses_other_settings(run, cli):
    code,_,err = cli('--path','out',*TINY,'--resume','--lr','0.5')
    assert code==2 and 'begun with --lr' in err and 'Traceback' not in err

def test_help_tells_every_option(cli):
    code,out,_ = cli('--help')
    assert code==0
    for o in 'path data format model backbone pretrained epochs size bs lr seed n-train n-valid resume workers'.split():
        assert f'--{o} ' in out, o

def test_user_errors(cli, dota, tmp_path):
    (tmp_path/'photos').mkdir(); (tmp_path/'file').write_text('')
    bad = tmp_path/'bad'; shutil.copytree(dota, bad)
    label = next((bad/'train/labelTxt').iterdir()); label.write_text('1 2 3 ship\n')
    for args,words in [(['--data',tmp_path/'nowhere'], ['no such folder']),
                       (['--data',tmp_path/'photos'], ['no label file of a known format','DOTA','YOLO-OBB','labelTxt']),
                       (['--data',dota,'--format','dotta'], ['dotta','rolabelimg']),
                       (['--data',bad], [label.name, ':1:', 'expected']),
                       (['--model','rotated_fkos'], ['rotated_fkos','rotated_retinanet']),
                       (['--backbone','resnot18'], ['resnot18']),
                       (['--path',tmp_path/'file'], ['is a file']),
                       (['--epochs','0'], ['--epochs is 0']),
                       (['--n-train','0'], ['--n-train is 0'])]:
        code,_,err = cli('--path',tmp_path/'o',*TINY,*args)
        assert code==2 and err.startswith('rotnb-demo: ') and 'Traceback' not in err, (args, err)
        for w in words: assert w in err, (w, err)

def test_ctrl_c_and_resume(home, cli):
    args = ['--path','stopped',*TINY,'--epochs','9','--size','64','--n-valid','2']  # so many that a busy machine stops them in time
    p = subprocess.Popen(**command(args, home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log,end = home/'stopped/checkpoint/log.json',time.time()+120
    while not log.exists() and p.poll() is None and time.time()<end: time.sleep(.02)
    p.send_signal(signal.SIGINT)
    err = p.communicate(timeout=60)[1]
    assert p.returncode==130 and '--resume' in err and 'Traceback' not in err, err
    assert 1<=len(json.loads(log.read_text())['epochs'])<9 and not (home/'stopped/metrics.json').exists()
    code,out,err = cli(*args,'--resume')
    assert code==0, err
    assert 'of 9 epochs are done' in out
    assert [o['epoch'] for o in json.loads((home/'stopped/metrics.json').read_text())['history']]==[*range(9)]

def own(path, size=96):
    return ['--data', path, *f'--model rotated_fcos --backbone test_resnet --epochs 1 --bs 2 --workers 0 --size {size}'.split()]

def test_dota_folder(cli, dota):
    code,_,err = cli('--path','own_dota',*own(dota))
    assert code==0, err

@pytest.mark.parametrize('name', ['coco',*(pytest.param(o, marks=pytest.mark.slow) for o in ('yolo_obb','rolabelimg'))])
def test_other_formats(cli, dota, home, tmp_path, name):
    annots = {s:read_dota(dota, s) for s in ('train','val')}
    names = sorted({n for a in annots.values() for r in a for n in r.names})
    for s,a in annots.items():
        shutil.copytree(dota/s/'images', tmp_path/'images'/s)
        FORMATS[name].write(a, tmp_path, s, names, **(dict(border='keep') if FORMATS[name].clips else {}))
    code,_,err = cli('--path',f'own_{name}',*own(tmp_path))
    assert code==0, err
    m = json.loads((home/f'own_{name}/metrics.json').read_text())
    assert set(m['classes'])==set(names) and m['settings']['data']==str(tmp_path)
    assert sum(o['n_gt'] for o in m['classes'].values())>0

@pytest.mark.skipif(not (SHARED/'data/dota8').exists(), reason='needs the reference folder shared/')
def test_dota8(cli, home):
    code,_,err = cli('--path','own_dota8',*own(SHARED/'data/dota8', 256))
    assert code==0, err
    assert all((home/'own_dota8'/o).stat().st_size for o in FILES)
    assert Image.open(home/'own_dota8/prediction.png').size==(1024,1024)
