"Commands used wrongly, on bad disks and stopped half-way: a line that says why, an exit code, and nothing lost"
import inspect, json, os, shutil, subprocess, sys, warnings
from importlib import import_module
from pathlib import Path
import pytest
from PIL import Image
from rotnb.cli import compare, convert, doctor, predict, split
from rotnb.cli.rotnb import COMMANDS
from rotnb.cli.typed import read_command
from rotnb.data.doctor.fix import SAFE
from rotnb.data.formats.table import read_format
from rotnb.learn.history import NOT_DRAWN
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

def loaded(code, home, **env):
    "What a process that runs this code has imported at the end, of what takes long to import"
    heavy = 'torch','torchvision','fastai','matplotlib','timm','IPython','numpy','cv2','pandas','scipy','numba'
    code = f"import sys\nfrom rotnb.cli.rotnb import main\n{code}\nprint(*[name for name in {heavy} if name in sys.modules])"
    env = {**os.environ, 'PYTHONPATH':str(ROOT), **env}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=home, env=env)
    assert done.returncode==0, done.stderr
    return {*done.stdout.splitlines()[-1].split()},done.stdout

def test_help_loads_nothing(home):
    "All of them in one process: nothing that takes long was imported at its end"
    ask = """
from rotnb.cli.rotnb import COMMANDS
main(['--help']); main(['--version'])
for args in [[name, '--help'] for name in COMMANDS]+[['convert','a','b','--fromat','x'], ['nothing']]:
    try: main(args)
    except SystemExit as e: assert e.code in ((0,None) if '--help' in args else (2,)), args
"""
    found,said = loaded(ask, home)
    assert not found and said.count('show this help message and exit')==len(COMMANDS), found

WORK = dict(convert="'convert','set','out'", to_coco="'convert','set','coco','--to','coco'",
            to_yolo="'convert','set','yolo','--to','yolo_obb'",
            split="'split','set','windows','--sizes','32','--gaps','8'", doctor="'doctor','set'", mend="'doctor','set','--fix','mended'")

@pytest.mark.parametrize('name', WORK)
def test_the_tools_for_labels_run_without_torch(home, name):
    "Not only their help, and also where boxes leave their image"
    (home/'set/labelTxt/0.txt').write_text('50 10 70 10 70 20 50 20 ship 0\n-5 3 20 9 18 17 -7 11 ship 0\n')
    found,_ = loaded(f"""
try: main([{WORK[name]}])
except SystemExit as e: assert not e.code, e.code""", home)
    assert not found&{'torch','fastai','matplotlib','timm','IPython'} and 'numpy' in found, found
    if name in ('convert','to_coco'): assert found=={'numpy'}

def test_polygons_and_masks_are_read_without_torch(home):
    "COCO with outlines and run lengths, to boxes"
    outline = dict(id=1, image_id=1, category_id=1, bbox=[5,5,30,20], segmentation=[[5,5,30,8,35,20,20,25,6,18]], area=500, iscrowd=0)
    mask = dict(id=2, image_id=1, category_id=1, bbox=[0,0,2,3], area=40, iscrowd=0,
                segmentation=dict(size=[40,60], counts=[100,20,20,20,2240]))
    data = dict(images=[dict(id=1, file_name='0.png', width=60, height=40)], annotations=[outline,mask],
                categories=[dict(id=1, name='ship')])
    (home/'c/images').mkdir(parents=True)
    shutil.copy(home/'set/images/0.png', home/'c/images')
    (home/'c/labels.json').write_text(json.dumps(data))
    found,_ = loaded("""
try: main(['convert','c','from_coco'])
except SystemExit as e: assert not e.code""", home)
    assert len(read_format(home/'from_coco')[0])==2 and 'torch' not in found

def test_old_names_and_a_module(home):
    "`rotnb-split` is `rotnb split`, whatever starts it; a fault of spelling is one line"
    env = {**os.environ, 'PYTHONPATH':str(ROOT)}
    (home/'rotnb-split').write_text('import sys\nfrom rotnb.cli.rotnb import main\nif __name__=="__main__": sys.exit(main())')
    more = '; rotnb-split --help says what it takes\n'
    for start in (['rotnb-split'], ['-m','rotnb.cli','split'], ['-m','rotnb.cli.split']):
        args = [sys.executable, *start, 'set', 'out', '--img-rate-thr', '.5', '--siez', '9']
        done = subprocess.run(args, capture_output=True, text=True, cwd=home, env=env)
        assert done.returncode==2 and not (home/'out').exists()
        assert done.stderr==f'rotnb-split: unknown option --siez, did you mean --sizes?{more}', done.stderr
    done = subprocess.run([sys.executable, '-m', 'rotnb.cli', 'split', 'set'], capture_output=True, text=True, cwd=home, env=env)
    assert (done.returncode,done.stderr)==(2,f'rotnb-split: the following arguments are required: dst{more}')

ENDS = dict(pipe=(141,''), full=(2,'the output cannot be written: No space left on device'))

@pytest.mark.parametrize('buffered', ['','1'])
@pytest.mark.parametrize('way', ENDS)
def test_output_that_nobody_takes(home, way, buffered):
    "A reader that left, as `head` does, and a full disk: no traceback, whether Python writes at once or at the end"
    if way=='full' and not Path('/dev/full').exists(): pytest.skip('this system has no /dev/full')
    env = {**os.environ, 'PYTHONPATH':str(ROOT), 'PYTHONUNBUFFERED':buffered}
    for args in (['rotnb.cli','--help'], ['rotnb.cli','doctor','--help'], ['rotnb.cli.split','--help'], ['rotnb.cli','doctor','set']):
        reading,out = os.pipe() if way=='pipe' else (os.open(os.devnull, os.O_RDONLY),os.open('/dev/full', os.O_WRONLY))
        os.close(reading)
        done = subprocess.run([sys.executable, '-m', *args], stdout=out, stderr=subprocess.PIPE, text=True, cwd=home, env=env)
        os.close(out)
        code,said = ENDS[way]
        assert done.returncode==code and said in done.stderr and done.stderr.count('\n')<=1, (args, done.returncode, done.stderr)

def test_every_command_has_its_function():
    "What is typed and what is called are one function, with the same defaults; each has help beside each option"
    for name,place in COMMANDS.items():
        module,function = place.split(':')
        func = getattr(import_module(module), function)
        params,(said,options) = inspect.signature(func).parameters.values(),read_command(place)
        assert inspect.getdoc(func).startswith(said) and all(option.said for option in options), name
        expected = [(param.name, none := param.default is param.empty, None if none else param.default) for param in params]
        assert [(option.name, option.required, option.default) for option in options]==expected, name

def test_columns_that_are_no_result_are_the_tables(): assert compare._NO_RESULT==NOT_DRAWN

def test_defaults_that_are_said_twice():
    assert {o.name:o.default for o in read_command('rotnb.cli.doctor:main')[1]}['kinds']==','.join(SAFE)

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

def test_least_scores():
    "What is judged begins at one score and what is looked at at another, in every door"
    from inspect import signature
    from rotnb.explore.result_explorer import ResultsExplorer
    from rotnb.learn.infer import Learner
    from rotnb.predict.infer import SHOWN, WRITTEN
    from rotnb.predict.predictor import Predictor
    from rotnb.predict.scene import predict_folder
    least = lambda f, name='score_thr': signature(f).parameters[name].default
    assert WRITTEN==least(predict.main)==least(predict_folder)<SHOWN
    assert SHOWN==least(Predictor.__init__)==Learner.score_thr==least(ResultsExplorer.__init__, 'score')
