"Commands used wrongly, on bad disks and stopped half-way: a line that says why, an exit code, and nothing lost"
import os, shutil, warnings
from pathlib import Path
import pytest
from PIL import Image
from rotnb.cli import convert, doctor, predict, split
from rotnb.data.formats.table import read_format

GOOD = '10 10 30 10 30 20 10 20 ship 0\n'

@pytest.fixture
def home(tmp_path, monkeypatch):
    "A set of three images, a file and a folder, in the current folder"
    for i in range(3):
        for d in ('set/images','set/labelTxt'): (tmp_path/d).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (60,40)).save(tmp_path/f'set/images/{i}.png'); (tmp_path/f'set/labelTxt/{i}.txt').write_text(GOOD)
    (tmp_path/'file').write_text('mine'); (tmp_path/'full').mkdir(); (tmp_path/'full/note').write_text('mine')
    monkeypatch.chdir(tmp_path)
    return tmp_path

def snapshot(root): return {str(o.relative_to(root)):o.read_bytes() for o in sorted(root.rglob('*')) if o.is_file()}

def run(capsys, module, *args, **kw):
    "Exit code and the last line that was said"
    code = 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: module.main(*args, **kw)
        except SystemExit as e: code = e.code
    o = capsys.readouterr()
    return code,(o.err or o.out).strip().split('\n')[-1]

WRONG = [(convert, ('none','out'), {}, 'no such folder'), (convert, ('set','file/out'), {}, 'file'), (convert, ('set','file'), dict(overwrite=True), 'is a file'),
    (convert, ('set','full'), {}, 'exists'), (convert, ('set','/proc/none/out'), {}, '/proc/none'), (convert, ('set','out'), dict(on_bad='skip'), "on_bad is 'skip'"),
    (convert, ('set/labelTxt/0.txt','out'), {}, 'is a file'), (convert, ('set','set/out'), {}, 'lie in each other'), (convert, ('set','out'), dict(to='x'), 'unknown format'),
    (convert, ('set','out'), dict(rbox='deg'), "no option 'rbox'"), (convert, ('set/images/0.png','out'), dict(format='ssdd'), 'is a file'),
    (doctor, ('none',), {}, 'no such folder'), (doctor, ('set',), dict(json='none/x.json'), 'none/x.json'), (doctor, ('set',), dict(json='full'), 'full'),
    (doctor, ('set',), dict(fix='file/x'), 'file'), (doctor, ('set',), dict(fix='full'), 'exists'), (doctor, ('set',), dict(fix='set/x'), 'lies in'),
    (doctor, ('set',), dict(fix='x', kinds='bogus'), 'unknown kinds'), (doctor, ('set',), dict(fix='x', names='a'), 'OLD=NEW'),
    (doctor, ('set',), dict(fix='x', names='='), 'OLD=NEW'), (doctor, ('set',), dict(fix='x', names='shp=boat'), "unknown class 'shp', did you mean 'ship'?"),
    (doctor, ('set',), dict(names='ship=boat'), '--fix'), (doctor, ('set',), dict(exif='raw'), '--fix'), (doctor, ('set/labelTxt/0.txt',), {}, 'is a file'),
    (split, ('none','out'), {}, 'no such folder'), (split, ('set','file/x'), {}, 'file'), (split, ('set','full'), {}, 'not empty'), (split, ('set','out'), dict(sizes=[9], gaps=[9]), 'overlap'),
    (split, ('set','out'), dict(n_workers=-1), 'n_workers is -1'), (split, ('set','out'), dict(on_bad='skip'), "on_bad is 'skip'"),
    (split, ('set','out'), dict(img_rate_thr=7.), 'img_rate_thr is 7'), (split, ('set','out'), dict(rates=[float('nan')]), 'positive'),
    (predict, ('none','set'), {}, 'no such file'), (predict, ('file','set'), {}, 'cannot be opened')]

@pytest.mark.parametrize('module,args,kw,why', WRONG, ids=[f'{m.__name__[10:]} {" ".join(a)} {k}' for m,a,k,_ in WRONG])
def test_used_wrongly(home, capsys, module, args, kw, why):
    before = snapshot(home); code,text = run(capsys, module, *args, **kw)
    assert code==2 and text.startswith(f'rotnb-{module.__name__[10:]}: ') and why in text, text
    assert snapshot(home)==before

def test_rbox_that_is_no_unit(home, capsys):
    assert run(capsys, convert, 'set', 'c', to='coco')[0]==0
    code,text = run(capsys, convert, 'c', 'd', rbox='degrees'); assert code==2 and "rbox is 'degrees'" in text and 'deg_ccw' in text

def interrupted(monkeypatch, where, name, after):
    "Let the call of a function after some others be Ctrl-C"
    real,left = getattr(where, name),[after]
    def f(*args, **kw):
        left[0] -= 1
        if left[0]<0: raise KeyboardInterrupt
        return real(*args, **kw)
    monkeypatch.setattr(where, name, f)

@pytest.mark.parametrize('where,name,after', [(shutil,'copyfile',2), (Path,'rename',0), (Path,'rename',1), (Path,'write_text',1)])
@pytest.mark.parametrize('overwrite', [False,True])
def test_convert_stopped(home, capsys, monkeypatch, where, name, after, overwrite):
    "The old target is there as it was, or the new one whole; nothing else"
    if overwrite: run(capsys, convert, 'set', 'out', to='coco')
    before = snapshot(home)
    with monkeypatch.context() as m:
        interrupted(m, where, name, after); code,text = run(capsys, convert, 'set', 'out', overwrite=overwrite)
    if code: assert (code,text)==(130,'rotnb-convert: stopped; nothing was written') and snapshot(home)==before
    else: assert len(read_format(home/'out'))==3
    assert not [o for o in home.iterdir() if o.name.startswith('.')]

@pytest.mark.parametrize('where,name,after', [(shutil,'copy2',2), (Path,'rename',0)])
def test_mending_stopped(home, capsys, monkeypatch, where, name, after):
    before = snapshot(home)
    with monkeypatch.context() as m:
        interrupted(m, where, name, after); code,text = run(capsys, doctor, 'set', fix='out')
    assert (code,text)==(130,'rotnb-doctor: stopped; nothing was written') and snapshot(home)==before and not (home/'out').exists()

def test_split_stopped_and_gone_on_with(home, capsys, monkeypatch):
    with monkeypatch.context() as m:
        interrupted(m, os, 'replace', 4); code,text = run(capsys, split, 'set', 'out', sizes=[32], gaps=[8], n_workers=1)
    assert code==130 and 'same command goes on' in text
    assert not [o for o in (home/'out').rglob('*') if o.suffix in ('.png','.txt') and not o.stat().st_size]
    assert run(capsys, split, 'set', 'out', sizes=[16], gaps=[8])==(2, 'rotnb-split: '+f'{home}/out was begun with other settings (sizes [32] then and [16] now): choose another name')
    assert run(capsys, split, 'set', 'out', sizes=[32], gaps=[8])[0]==0
    run(capsys, split, 'set', 'whole', sizes=[32], gaps=[8])
    a,b = (snapshot(home/o) for o in ('out','whole')); assert a.keys()==b.keys() and all(a[k]==b[k] for k in a)

@pytest.mark.parametrize('to', ['dota','coco','labelme','csv','yolo_obb'])
def test_a_report_replaces_nothing_of_the_set(home, capsys, to):
    assert run(capsys, convert, 'set', 'a', to=to)[0]==0
    (home/'far').mkdir(); shutil.copytree(home/'a', home/'b'); shutil.rmtree(home/'b/images'); (home/'b/images').symlink_to(home/'a/images')
    before = snapshot(home)
    for d in ('a','b'):
        for f in [o for o in (home/d).rglob('*') if o.is_file()]+[home/'a/images/1.png']:
            code,text = run(capsys, doctor, d, json=str(f)); assert code==2 and ('is read' in text or 'lies in the set' in text), (f, text)
    assert snapshot(home)==before
    for _ in range(2): assert run(capsys, doctor, 'a', json='report.json')[0]==0
    for _ in range(2):                                               # beside labels of another ending it is no label
        code,text = run(capsys, doctor, 'a', json='a/report.json'); assert code==(2 if to in ('coco','labelme') else 0), text
    assert len(read_format(home/'a'))==3
