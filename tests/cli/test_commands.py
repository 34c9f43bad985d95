"Commands used wrongly, on bad disks and stopped half-way: a line that says why, an exit code, and nothing lost"
import os, shutil, subprocess, sys, warnings
from pathlib import Path
import pytest
from PIL import Image
from rotnb.cli import convert, doctor, predict, split
from rotnb.data.formats.table import read_format
from paths import ROOT

GOOD = '10 10 30 10 30 20 10 20 ship 0\n'

@pytest.fixture
def home(tmp_path, monkeypatch):
    "A set of three images, a file and a folder, in the current folder"
    for name in ('set/images','set/labelTxt','full'): (tmp_path/name).mkdir(parents=True)
    for i in range(3):
        Image.new('RGB', (60,40)).save(tmp_path/f'set/images/{i}.png')
        (tmp_path/f'set/labelTxt/{i}.txt').write_text(GOOD)
    for name in ('file','full/note'): (tmp_path/name).write_text('mine')
    monkeypatch.chdir(tmp_path)
    return tmp_path

def snapshot(root): return {str(file.relative_to(root)):file.read_bytes() for file in sorted(root.rglob('*')) if file.is_file()}

def run(capsys, module, *args, **kw):
    "Exit code and the last line that was said"
    code = 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: module.main(*args, **kw)
        except SystemExit as e: code = e.code
    said = capsys.readouterr()
    return code,(said.err or said.out).strip().split('\n')[-1]

# --- used wrongly

WRONG = [
    (convert, ('none','out'), {}, 'no such folder'),
    (convert, ('set','file/out'), {}, 'file'),
    (convert, ('set','file'), dict(overwrite=True), 'is a file'),
    (convert, ('set','full'), {}, 'exists'),
    (convert, ('set','/proc/none/out'), {}, '/proc/none'),
    (convert, ('set','out'), dict(on_bad='skip'), "on_bad is 'skip'"),
    (convert, ('set/labelTxt/0.txt','out'), {}, 'is a file'),
    (convert, ('set','set/out'), {}, 'lie in each other'),
    (convert, ('set','out'), dict(to='x'), 'unknown format'),
    (convert, ('set','out'), dict(rbox='deg'), "no option 'rbox'"),
    (convert, ('set/images/0.png','out'), dict(format='ssdd'), 'is a file'),
    (doctor, ('none',), {}, 'no such folder'),
    (doctor, ('set',), dict(json='none/x.json'), 'none/x.json'),
    (doctor, ('set',), dict(json='full'), 'full'),
    (doctor, ('set',), dict(fix='file/x'), 'file'),
    (doctor, ('set',), dict(fix='full'), 'exists'),
    (doctor, ('set',), dict(fix='set/x'), 'lies in'),
    (doctor, ('set',), dict(fix='x', kinds='bogus'), 'unknown kinds'),
    (doctor, ('set',), dict(fix='x', names='a'), 'OLD=NEW'),
    (doctor, ('set',), dict(fix='x', names='='), 'OLD=NEW'),
    (doctor, ('set',), dict(fix='x', names='shp=boat'), "unknown class 'shp', did you mean 'ship'?"),
    (doctor, ('set',), dict(names='ship=boat'), '--fix'),
    (doctor, ('set',), dict(exif='raw'), '--fix'),
    (doctor, ('set/labelTxt/0.txt',), {}, 'is a file'),
    (split, ('none','out'), {}, 'no such folder'),
    (split, ('set','file/x'), {}, 'file'),
    (split, ('set','full'), {}, 'not empty'),
    (split, ('set','out'), dict(sizes=[9], gaps=[9]), 'overlap'),
    (split, ('set','out'), dict(n_workers=-1), 'n_workers is -1'),
    (split, ('set','out'), dict(on_bad='skip'), "on_bad is 'skip'"),
    (split, ('set','out'), dict(img_rate_thr=7.), 'img_rate_thr is 7'),
    (split, ('set','out'), dict(rates=[float('nan')]), 'positive'),
    (predict, ('none','set'), {}, "no weights are called 'none'"),
    (predict, ('file','set'), {}, 'cannot be opened')]

@pytest.mark.parametrize('module,args,kw,why', WRONG, ids=[f'{m.__name__[10:]} {" ".join(a)} {k}' for m,a,k,_ in WRONG])
def test_used_wrongly(home, capsys, module, args, kw, why):
    before = snapshot(home)
    code,text = run(capsys, module, *args, **kw)
    assert code==2 and text.startswith(f'rotnb-{module.__name__[10:]}: ') and why in text, text
    assert snapshot(home)==before

def test_rbox_that_is_no_unit(home, capsys):
    assert run(capsys, convert, 'set', 'c', to='coco')[0]==0
    code,text = run(capsys, convert, 'c', 'd', rbox='degrees')
    assert code==2 and "rbox is 'degrees'" in text and 'deg_ccw' in text

# --- what starting a command costs

COMMANDS = 'demo bench convert doctor split predict report export'.split()

def test_help_needs_no_fastai():
    "Eight helps in one process of their own; what they import is there at the end"
    src = f"""
import runpy, sys
for name in {COMMANDS}:
    sys.argv = [f'rotnb-{{name}}', '--help']
    try: runpy.run_module(f'rotnb.cli.{{name}}', run_name='__main__')
    except SystemExit as e: assert not e.code, name
heavy = [o for o in ('fastai','matplotlib','timm','IPython') if o in sys.modules]
assert not heavy, heavy
"""
    env = {**os.environ, 'PYTHONPATH':str(ROOT)}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', src], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode==0, done.stderr
    assert done.stdout.count('show this help message and exit')==len(COMMANDS)

def test_the_tools_for_labels_run_without_fastai(home):
    "Not only their help"
    src = """
import sys
from rotnb.cli import convert, doctor, split
convert.main('set', 'as_coco', to='coco')
split.main('set', 'windows', sizes=[32], gaps=[8])
try: doctor.main('set')
except SystemExit: pass
assert 'fastai' not in sys.modules
"""
    env = {**os.environ, 'PYTHONPATH':str(ROOT)}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', src], capture_output=True, text=True, cwd=home, env=env)
    assert done.returncode==0, done.stderr
    assert (home/'as_coco/annotations').is_dir() and (home/'windows/annfiles').is_dir() and 'set: dota, 3 images' in done.stdout

# --- stopped half-way

def interrupted(monkeypatch, where, name, after):
    "Let the call of a function after some others be Ctrl-C"
    real,left = getattr(where, name),[after]
    def call(*args, **kw):
        left[0] -= 1
        if left[0]<0: raise KeyboardInterrupt
        return real(*args, **kw)
    monkeypatch.setattr(where, name, call)

@pytest.mark.parametrize('where,name,after', [(shutil,'copyfile',2), (Path,'rename',0), (Path,'rename',1), (Path,'write_text',1)])
@pytest.mark.parametrize('overwrite', [False,True])
def test_convert_stopped(home, capsys, monkeypatch, where, name, after, overwrite):
    "The old target is there as it was, or the new one whole; nothing else"
    if overwrite: run(capsys, convert, 'set', 'out', to='coco')
    before = snapshot(home)
    with monkeypatch.context() as m:
        interrupted(m, where, name, after)
        code,text = run(capsys, convert, 'set', 'out', overwrite=overwrite)
    if code: assert (code,text)==(130,'rotnb-convert: stopped; nothing was written') and snapshot(home)==before
    else: assert len(read_format(home/'out'))==3
    assert not [path for path in home.iterdir() if path.name.startswith('.')]

@pytest.mark.parametrize('where,name,after', [(shutil,'copy2',2), (Path,'rename',0)])
def test_mending_stopped(home, capsys, monkeypatch, where, name, after):
    before = snapshot(home)
    with monkeypatch.context() as m:
        interrupted(m, where, name, after)
        code,text = run(capsys, doctor, 'set', fix='out')
    assert (code,text)==(130,'rotnb-doctor: stopped; nothing was written') and snapshot(home)==before and not (home/'out').exists()

def test_split_stopped_and_resumed(home, capsys, monkeypatch):
    with monkeypatch.context() as m:
        interrupted(m, os, 'replace', 4)
        code,text = run(capsys, split, 'set', 'out', sizes=[32], gaps=[8], n_workers=1)
    assert code==130 and 'same command resumes' in text
    assert not [file for file in (home/'out').rglob('*') if file.suffix in ('.png','.txt') and not file.stat().st_size]
    why = f'{home}/out was begun with other settings (sizes [32] then and [16] now): choose another name'
    assert run(capsys, split, 'set', 'out', sizes=[16], gaps=[8])==(2, f'rotnb-split: {why}')
    assert run(capsys, split, 'set', 'out', sizes=[32], gaps=[8])[0]==0
    run(capsys, split, 'set', 'whole', sizes=[32], gaps=[8])
    assert snapshot(home/'out')==snapshot(home/'whole')

# --- nothing that is read is replaced

@pytest.mark.parametrize('to', ['dota','coco','labelme','csv','yolo_obb'])
def test_a_report_replaces_nothing_of_the_set(home, capsys, to):
    assert run(capsys, convert, 'set', 'a', to=to)[0]==0
    shutil.copytree(home/'a', home/'b')
    shutil.rmtree(home/'b/images')
    (home/'b/images').symlink_to(home/'a/images')
    before = snapshot(home)
    for folder in ('a','b'):
        for file in [o for o in (home/folder).rglob('*') if o.is_file()]+[home/'a/images/1.png']:
            code,text = run(capsys, doctor, folder, json=str(file))
            assert code==2 and ('is read' in text or 'lies in the set' in text), (file, text)
    assert snapshot(home)==before
    for _ in range(2): assert run(capsys, doctor, 'a', json='report.json')[0]==0
    for _ in range(2):                                               # beside labels of another suffix it is no label
        code,text = run(capsys, doctor, 'a', json='a/report.json')
        assert code==(2 if to in ('coco','labelme') else 0), text
    assert len(read_format(home/'a'))==3
