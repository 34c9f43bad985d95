"The commands around a training, each for real on a small folder and with bad input"
import json, os, re, signal, subprocess, sys
from functools import reduce
from importlib import import_module
import numpy as np, pytest, torch
from PIL import Image
from rotnb import all as rotnb_all
from rotnb.cli import rotnb
from rotnb.data.synth.moving import make_video
from rotnb.data.formats.yolo import read_yolo_obb
from rotnb.data.labels.records import LabelError
from rotnb.data.synth.scenes import make_scene, make_synth
from rotnb.evaluate.robustness import CORRUPTIONS
from rotnb.explore.label_fixer import LabelFixer
from rotnb.predict.load import load_weights
from constant_files import onnx_file
from paths import ROOT

MODEL = 'rotated_fcos_tiny_synth'

@pytest.fixture(scope='module')
def data(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('set')/'set', n_train=2, n_valid=1, size=96)

@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['rotnb'])
    def run(*args):
        "Exit code, output and errors of `rotnb ...`"
        code = 0
        try: rotnb.main([*map(str, args)])
        except SystemExit as e: code = e.code or 0
        return code,*capsys.readouterr()
    return run

def leave_run(folder, *maps, lr=.1):
    "What a training leaves, as far as it is compared"
    folder.mkdir(parents=True)
    (folder/'settings.json').write_text(json.dumps(dict(detector=dict(name='fcos'), lr=lr)))
    rows = [f'{i},{2/i},{value}' for i,value in enumerate(maps, 1)]
    (folder/'history.csv').write_text('\n'.join(['epoch,valid_loss,mAP50',*rows])+'\n')

def test_validate(run, data, tmp_path):
    code,out,err = run('validate', MODEL, data, '--json', 'm.json', '--device', 'cpu')
    assert code==0 and 'AP50' in out and '1 images' in out, err
    assert json.loads((tmp_path/'m.json').read_text())

def test_validate_on_spoilt_images(run, data, tmp_path, monkeypatch):
    from rotnb.predict import measure
    real,asked = measure.accumulate,[]
    def watched(learn, annots, *args, **kwargs): asked.append(annots); return real(learn, annots, *args, **kwargs)
    monkeypatch.setattr(measure, 'accumulate', watched)
    code,out,err = run('validate', MODEL, data, '--robustness', '--protocol', 'coco', '--json', 'm.json', '--device', 'cpu')
    assert code==0 and 'mPC' in out and all(name in out for name in CORRUPTIONS), err
    numbers = json.loads((tmp_path/'m.json').read_text())
    left = numbers['robustness']
    assert left['clean']==numbers['map'] and left['what']=='AP50:95'
    assert {*left['corruptions']}=={*CORRUPTIONS,'all'} and len(left['corruptions']['noise'])==8
    images = [str(annot.image) for annots in asked for annot in annots]
    assert len(asked)==1+45 and len({*images})==46                                        # the images as they are are measured once

def test_predictions_of_yolo_beside_their_images_are_mended(run, tmp_path):
    (tmp_path/'set/images').mkdir(parents=True)
    Image.fromarray(make_scene(3, 160)[0]).save(tmp_path/'set/images/a.png')
    code,_,err = run('predict', MODEL, 'set/images', '--out', 'set', '--format', 'yolo_obb', '--score-thr', '.1', '--device', 'cpu')
    assert code==0, err
    label,vocab = tmp_path/'set/labels/a.txt',load_weights(MODEL).vocab
    before = label.read_text().splitlines()
    sure = [line for line in before if float(line.split()[-1])>=.3]
    assert 0<len(sure)<len(before)
    with pytest.raises(LabelError, match='score_thr='): LabelFixer('set', 'yolo_obb', vocab=vocab, journal='journal')
    opened = dict(format='yolo_obb', vocab=vocab, journal='journal', options=dict(score_thr=.3))
    fixer = LabelFixer('set', **opened)
    assert len(fixer.edits.boxes)==len(sure)
    was = fixer.edits.boxes[0]
    fixer.edit('move', id=was.id, dx=3, dy=-2)
    assert fixer.save()==[label.relative_to(tmp_path)]
    changed = [(old,new) for old,new in zip(before, label.read_text().splitlines(), strict=True) if old!=new]
    (old,new), = changed
    assert len(old.split())==10 and len(new.split())==9 and old.split()[0]==new.split()[0]   # somebody has looked: no confidence
    again = LabelFixer('set', **opened).edits.boxes
    assert len(again)==len(sure) and np.abs(np.subtract(again[0].quad, was.quad)-[3,-2]*4).max()<.01
    assert len(read_yolo_obb('set', vocab=vocab, score_thr=.3)[0])==len(sure)

def test_track(run, tmp_path):
    make_video(tmp_path/'film.mp4', 1, n_frames=3, size=96, n_objects=3, classes=['plane'])
    code,out,err = run('track', MODEL, 'film.mp4', '--out', 'found', '--format', 'csv,json', '--video', '--device', 'cpu')
    assert code==0 and 'followed in 3 frames' in out, err
    assert {'tracks.csv','tracks.json','tracks.mp4'}<={path.name for path in (tmp_path/'found').iterdir()}
    wrong = {'no such video':['none.mp4'], 'symmetry 45: expected 360':['film.mp4','--symmetry','45'],
             'oblong: expected 360':['film.mp4','--symmetry','oblong'],
             'low is 0.9':['film.mp4','--low','.9'], "'csv' or 'json'":['film.mp4','--format','xml'],
             'score_thr':['film.mp4','--out','found','--low','.12']}
    for words,args in wrong.items():
        code,out,err = run('track', MODEL, *args)
        assert code==2 and words in err and err.count('\n')==1, (args,err)

def test_train_and_what_follows(run, data, tmp_path, monkeypatch):
    monkeypatch.setenv('ROTNB_RUNS', str(tmp_path/'runs'))
    code,out,err = run('train', data, '--weights', MODEL, '--epochs', 1, '--bs', 2, '--size', 96, '--workers', 0, '--run', 'ships')
    assert code==0 and 'ships' in out, err
    kept = (tmp_path/'runs/ships/last.pth').read_bytes()
    assert {'recipe.json','train.json','history.csv','state.pth','predictor'}<={path.name for path in (tmp_path/'runs/ships').iterdir()}
    code,out,err = run('resume', 'ships')
    assert code==0 and '1 of 1 epochs are done' in out and (tmp_path/'runs/ships/last.pth').read_bytes()==kept, err
    assert run('recipe', 'runs/ships')[0]==0 and run('validate', 'runs/ships/predictor', data)[0]==0
    code,_,err = run('browse', 'runs/ships', '--other', MODEL, '--no-show')
    assert code==0, err
    page = (tmp_path/'browse.html').read_text()
    assert 'confusion' in page and MODEL in page
    (tmp_path/'runs/ships/train.json').unlink()
    assert 'rotnb browse SET --found runs/ships' in run('browse', 'runs/ships')[2]
    assert run('browse', data, '--found', 'runs/ships', '--no-show')[0]==0

KILLED = """
import os, signal, sys
from rotnb.learn.resume import Resume
after = Resume.after_batch
def after_batch(self):
    after(self)
    if self.training and self.learn.train_iter==3: os.kill(os.getpid(), signal.SIGKILL)
Resume.after_batch,Resume._due = after_batch,lambda self: self.since>=2
from rotnb.cli.rotnb import main
main(sys.argv[1:])
"""

def test_a_training_that_was_killed(run, tmp_path, monkeypatch):
    "kill -9 within an epoch, and `rotnb resume`: the weights and the table are those of a training that nobody killed"
    monkeypatch.setenv('ROTNB_RUNS', str(tmp_path/'runs'))
    data = make_synth(tmp_path/'set', n_train=4, n_valid=1, size=64)
    how = ['train', data, '--weights', MODEL, '--epochs', 2, '--bs', 1, '--size', 64, '--workers', 0, '--seed', 5, '--run']
    env = {**os.environ, 'PYTHONPATH':str(ROOT), 'OMP_NUM_THREADS':str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', KILLED, *map(str, how), 'killed'], cwd=tmp_path, env=env,
                          capture_output=True, text=True)
    killed,whole = (tmp_path/'runs'/name for name in ('killed','whole'))
    assert done.returncode==-signal.SIGKILL and (killed/'state.pth').is_file() and not (killed/'predictor').exists(), done.stderr
    code,out,err = run('resume', 'killed')
    assert code==0 and '0 of 2 epochs are done, 2 of 4 steps of the next' in out, err
    assert run(*how, 'whole')[0]==0
    ours,theirs = (torch.load(folder/'last.pth', weights_only=True) for folder in (killed,whole))
    ours,theirs = (dict(o['model'] if 'model' in o else o) for o in (ours,theirs))
    assert ours.keys()==theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    rows = [[row.split(',')[:3] for row in (folder/'history.csv').read_text().splitlines()] for folder in (killed,whole)]
    assert rows[0]==rows[1] and len(rows[0])==3

def test_browse(run, data, tmp_path):
    code,out,_ = run('browse', data, '--no-show', '--doctor')
    assert code==0 and 'wrote browse.html' in out and '<html' in (tmp_path/'browse.html').read_text()[:400].lower()

def test_browse_what_was_found(run, data, tmp_path):
    "A detector, files of its detections, and both beside each other"
    assert run('predict', MODEL, data/'val', '--out', 'found', '--format', 'dota,coco', '--device', 'cpu')[0]==0
    for args in (['--found',MODEL], ['--found','found'], ['--found','found/Task1.zip','--other',MODEL]):
        code,out,err = run('browse', data, *args, '--out', 'p.html', '--no-show')
        assert code==0 and 'confusion' in (tmp_path/'p.html').read_text() and out.endswith('wrote p.html\n'), err
    for args,said in ((['--found','found/results.json'],'classes by number'), (['--found','nothing'],"no weights are called 'nothing'"),
                      (['--other',MODEL],'give --found'), (['--image-ids','found/results.json'],'--image-ids is for results'),
                      (['--found','found','--doctor'],'without --found'),
                      (['--found','found','--out','found/Task1.zip'],'would be replaced by'),
                      (['--found','found','--image-ids','none.json'],'there is no none.json')):
        code,_,err = run('browse', data, *args, '--no-show')
        assert code==2 and said in err and err.count('\n')==1, err

def test_export(run, tmp_path):
    "For real, where that takes no minutes"
    onnx_file(tmp_path/'one.onnx')
    code,out,err = run('export', 'one.onnx', '--half')
    assert code==0 and 'wrote one_f16.onnx' in out and (tmp_path/'one_f16.onnx').stat().st_size, err
    code,out,err = run('export', 'one.onnx', '--to', 'triton', '--out', 'served')
    assert code==0 and [*(tmp_path/'served').rglob('config.pbtxt')], err

def test_flops(run):
    code,out,_ = run('flops', 'rotated_fcos_tiny', '--size', '64', '--n-classes', 2)
    rows = {line.split()[0]:line.split()[1:] for line in out.splitlines()[1:]}
    assert code==0 and {*rows}=={'backbone','neck','heads','all'}
    assert abs(float(rows['all'][-1])-sum(float(rows[part][-1]) for part in ('backbone','neck','heads')))<.05

def test_weights(run):
    assert MODEL in run('weights')[1] and MODEL in run('weights', '*synth*')[1]
    code,out,_ = run('weights', MODEL, '--fetch')
    assert code==0 and out.strip().endswith(f'{MODEL}.safetensors')

def test_publish(run, tmp_path):
    code,out,_ = run('publish', MODEL, '--name', 'ships', '--licence', 'MIT', '--half')
    file, = tmp_path.glob('ships-*.safetensors')
    notes = json.loads(file.with_suffix('.json').read_text())
    assert code==0 and f'wrote {file.name}' in out and notes['licence']=='MIT' and notes['sha256'].startswith(file.stem[-8:])
    assert run('validate', file.name, 'none')[2].startswith('rotnb-validate: there is no none')         # the file opens

def test_compare(run, tmp_path):
    leave_run(tmp_path/'runs/a', .1, .3, .2)
    leave_run(tmp_path/'runs/b', .2, lr=.2)
    code,out,_ = run('compare', 'runs/a', 'runs/b')
    rows = {line.rsplit(None, 2)[0].strip():line.split()[-2:] for line in out.splitlines() if len(line.split())>2}
    assert code==0 and rows['best mAP50']==['0.3','0.2'] and rows['lr']==['0.1','0.2'] and 'detector.name' not in rows
    assert (tmp_path/'compare.png').stat().st_size>5000
    assert run('compare', 'runs', '--out', 'c.svg', '--columns', 'mAP50')[0]==0 and '<svg' in (tmp_path/'c.svg').read_text()

def test_compare_speed(run, data, tmp_path):
    "What each costs and is worth: a table, a figure, the numbers"
    code,out,err = run('compare', MODEL, '--speed', data, '--turns', 1, '--by', 'GFLOPs', '--json', 'numbers.json', '--out', 'speed.svg')
    numbers = json.loads((tmp_path/'numbers.json').read_text())
    assert code==0 and 'mAP50_95' in out and 'wrote speed.svg, numbers.json' in out and '<svg' in (tmp_path/'speed.svg').read_text(), err
    assert numbers['models'][MODEL]['ms']>0 and numbers['turns']==1 and numbers['front']['GFLOPs']==[MODEL]

WRONG = {'there is no none':'validate MODEL none', 'no weights are called':'validate no_such DATA',
         'voc12':'validate MODEL DATA --protocol vooc',
         'would be replaced by':'browse DATA --out LABEL', 'there is no nowhere':'browse nowhere',
         '--n-images is 0':'browse DATA --n-images 0',
         'no such file':'flops none.onnx', '--size x':'flops rotated_fcos --size x', '--n-classes is 0':'flops rotated_fcos --n-classes 0',
         'no weights are called \'zzz\'':'weights zzz', 'name one':'weights * --fetch', 'without a folder':'publish MODEL --name a/b',
         'no such folder':'compare none', 'holds no epoch':'compare .', 'expected .png':'compare . --out x.txt',
         'there is no nothing':'compare MODEL --speed nothing', '--columns is for':'compare MODEL --speed DATA --columns mAP50',
         '--by zz':'compare MODEL --speed DATA --by zz', '--json x: expected':'compare MODEL --speed DATA --json x',
         '--json is for':'compare . --json x.json', 'rotnb-compare: no weights are called':'compare zz --speed DATA',
         'rotnb-track: no such video':'track MODEL none.mp4',
         "rotnb-predict: no weights are called 'zz'":'predict zz DATA', 'rotnb-split: no such folder':'split none out',
         'rotnb-convert: no such folder':'convert none out', 'rotnb-doctor: no such folder':'doctor none',
         'rotnb-report: there is no none':'report MODEL none', 'each model once':'bench a a', "no recipe 'zz'":'recipe zz',
         'expected one of onnx':'export MODEL --to tflite', "rotnb-serve: no weights are called 'zz'":'serve zz',
         "tta is 'flip'":'serve MODEL --tta flip', 'rotnb-demo: --epochs is 0':'demo --epochs 0',
         'did you mean --out':'compare . --uot x.png', 'did you mean \'compare\'':'comparre a b',
         'lacks train.json':'resume .', 'says no detector':'train DATA'}

@pytest.mark.parametrize('said', WRONG)
def test_used_wrongly(run, data, tmp_path, said):
    "One line, exit code 2, and nothing written"
    label = next(data.rglob('*.txt'))
    args = [dict(MODEL=MODEL, DATA=data, LABEL=label).get(word, word) for word in WRONG[said].split()]
    code,_,err = run(*args)
    assert code==2 and said in err and err.startswith('rotnb') and err.count('\n')==1, err
    assert not [*tmp_path.iterdir()]

def test_a_server_that_did_not_start_leaves_signals_alone(run):
    "Processes forked afterwards inherit what SIGTERM does; a pool waits for ever for one that it does not end"
    before = signal.getsignal(signal.SIGTERM)
    assert run('serve', 'zz')[0]==2 and signal.getsignal(signal.SIGTERM) is before

def test_all_are_used_wrongly(): assert {*rotnb.COMMANDS}<={words.split()[0] for words in WRONG.values()}

def test_the_same_in_a_notebook():
    "The table of commands and functions names every command, and what there is"
    text = (ROOT/'nbs/cli/13_rotnb.ipynb').read_text(encoding='utf-8')
    rows = dict(re.findall(r'"\| `(\w+)` \| (.+) \|\\n"', text))
    assert rows.keys()==rotnb.COMMANDS.keys()
    for name,said in rows.items():
        for path in re.findall(r'`([\w.]+)`', said):
            module,_,last = path.rpartition('.')
            where = import_module(module) if module.startswith('rotnb.') else rotnb_all
            reduce(getattr, [last] if where is not rotnb_all else path.split('.'), where)
