"The package as a whole: metadata agree, every module has its notebook, notebooks build on earlier ones, layers keep their distance"
import ast, importlib, json, os, re, subprocess, sys
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import median
import pytest
from fastcore.nbio import read_nb
import rotnb
from paths import ROOT
from source import LESSONS, LIGHT, NBS, ORDER, PLACES, code, height, imports, module, place, room_of, settings

IMPORT_AS = dict(cv2='opencv-python-headless', PIL='pillow', yaml='pyyaml')  # where the package index has another name

def python(src, **env):
    "Run `src` in an interpreter of its own, with the repository first on its path; what it prints"
    env = {**os.environ, 'PYTHONPATH':str(ROOT), 'PYTHONWARNINGS':'ignore', **env}
    r = subprocess.run([sys.executable, '-c', src], capture_output=True, text=True, cwd=ROOT, env=env)
    assert r.returncode==0, r.stderr
    return r.stdout

# --- metadata

def test_metadata_agree():
    cfg,toml = settings(),(ROOT/'pyproject.toml').read_text(encoding='utf-8')
    assert cfg['version']==rotnb.__version__
    for key,want in [('name', cfg['lib_name']), ('lib_path', cfg['lib_name']), ('Repository', cfg['git_url'])]:
        assert re.findall(rf'^{key} = "(.*)"$', toml, re.M)==[want], key
    assert cfg['version'] in (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')

def test_what_is_imported_is_required():
    have = {re.split('[<>=]', o)[0] for o in settings()['requirements'].split()}
    tops = {o.split('.')[0] for f in (ROOT/'rotnb').rglob('*.py') for o in imports(f.read_text(encoding='utf-8'), 'rotnb.x.y')}
    need = {IMPORT_AS.get(o, o) for o in tops-{'rotnb'}-set(sys.stdlib_module_names)}
    assert need<=have, f'settings.ini does not require {sorted(need-have)}'

def test_console_scripts_resolve():
    scripts = settings()['console_scripts'].split()
    assert scripts
    for o in scripts:
        mod,func = o.split('=')[1].split(':')
        assert callable(getattr(importlib.import_module(mod), func)), o

# --- notebooks and modules

@pytest.mark.parametrize('nb', NBS)
def test_title_and_subtitle(nb):
    first = next(c.source for c in NBS[nb].cells if c.cell_type=='markdown')
    own = module(NBS[nb])
    wanted = rf'# \S.*\n+(`{own}`\n+)?> \S'
    assert re.match(wanted, first), f'starts with {first[:80]!r}; a title, the module in backticks and `> one line` are wanted'

def test_one_notebook_for_each_module():
    exported = Counter(filter(None, map(module, NBS.values())))
    assert max(exported.values())==1, exported.most_common(3)
    by_hand = ('__init__', '__main__', '_modidx', 'all')
    files = {'.'.join(o.relative_to(ROOT).with_suffix('').parts) for o in (ROOT/'rotnb').rglob('*.py') if o.stem not in by_hand}
    assert files==set(exported)

@pytest.mark.parametrize('nb', [o for o in NBS if place(o)])
def test_imports_only_what_stands_before(nb):
    late = {o:height(o) for o in imports(code(NBS[nb])) if height(o)>=place(nb)}
    assert not late, f'{nb} imports {late}'

def test_every_notebook_has_a_place():
    assert not [o for o in NBS if o!='index.ipynb' and room_of(o) not in LESSONS and not place(o)]
    twice = [o for o,n in Counter(filter(None, map(place, NBS))).items() if n>1]
    assert not twice, twice

@pytest.mark.parametrize('folder', ORDER)
def test_numbers_have_no_gaps(folder):
    own = sorted(place(o)[1] for o in NBS if room_of(o)==folder)
    assert own==list(range(1, len(own)+1))

def test_a_notebook_is_named_as_its_module():
    odd = {f:module(nb) for f,nb in NBS.items() if place(f) and module(nb)
           and module(nb)!=f'rotnb.{room_of(f)}.{Path(f).stem[3:]}'.replace('/', '.')}
    assert not odd, odd

@pytest.mark.parametrize('room', sorted({room_of(o) for o in NBS}))
def test_jupyter_knows_the_kernel(room):
    "Without it JupyterLab asks for a kernel before anything can be read"
    own = {o:nb.metadata.get('kernelspec', {}) for o,nb in NBS.items() if room_of(o)==room}
    assert not [o for o,spec in own.items() if (spec.get('name'),spec.get('language'))!=('python3','python')]

# --- imports

def test_layers_without_fastai():
    light = {ORDER.index(o) for o in LIGHT}
    mods = [o for o,(folder,_) in PLACES.items() if folder in light]
    assert len(mods)>50
    python(f'''
import importlib, sys
for o in {mods}:
    importlib.import_module(o)
    if 'fastai' in sys.modules: sys.exit(o+' imports fastai')''')

@pytest.mark.slow
@pytest.mark.parametrize('ours,theirs', [('rotnb.ops.iou','torch'), ('rotnb.all','fastai.vision.all')])
def test_import_time(ours, theirs):
    "Processor time, which other programs on the machine disturb least; the runs take turns"
    runs = [[float(python(f'import {o}, time; print(time.process_time())')) for o in (ours,theirs)] for _ in range(3)]
    a,b = map(median, zip(*runs))
    print(f'import {ours} {a:.2f} s, import {theirs} {b:.2f} s, ratio {a/b:.2f}')
    assert a<=1.4*b

def test_import_says_nothing():
    "What is printed on import is the first thing that a notebook shows"
    cmd = [sys.executable, '-c', 'from rotnb.all import *']
    out = subprocess.run(cmd, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert (out.stdout,out.stderr)==('','')

def test_failures_are_expected_of_something():
    "fastcore's `expect_fail` is a context manager: handed a function it never calls it, and the test cannot fail"
    lines = [(name, line) for name,nb in NBS.items() for line in code(nb).splitlines()]
    bad = [f'{name}: {line.strip()}' for name,line in lines if 'expect_fail(' in line and 'with ' not in line]
    assert not bad, bad

# --- names

PYTHON = [*(f for o in ('rotnb','tests','.ci','nbs') for f in (ROOT/o).rglob('*.py')), ROOT/'setup.py']

def undefined(files):
    "(where, name) of names that nothing defines; in a file with `import *` ruff only suspects, so the star imports themselves are asked"
    cmd = ['ruff','check','--isolated','--no-cache','--select','F821,F822,F823,F405','--output-format','json', *map(str, files)]
    found = json.loads(subprocess.run([sys.executable,'-m',*cmd], capture_output=True, text=True, cwd=ROOT).stdout)
    assert not (bad := [o for o in found if o['code'] not in ('F821','F822','F823','F405')]), bad
    for o in found:
        name,file = o['message'].split('`')[1],Path(o['filename'])
        if name in ('display','get_ipython') and file.suffix=='.ipynb' or o['code']=='F405' and name in star_names(file): continue
        yield f"{file.name}:{o['cell'] or ''}:{o['location']['row']}",name

@cache
def star_names(file):
    "What the star imports of a file or a notebook bring"
    src,ns = code(read_nb(file)) if file.suffix=='.ipynb' else file.read_text(encoding='utf-8'),{}
    ns['__package__'] = '.'.join(file.relative_to(ROOT).parent.parts) if file.is_relative_to(ROOT/'rotnb') else ''
    for o in ast.walk(ast.parse(src)):
        if isinstance(o, ast.ImportFrom) and o.names[0].name=='*': exec(ast.unparse(o), ns)
    return set(ns)

@pytest.mark.parametrize('what', ['modules','notebooks'])
def test_every_name_is_defined(what):
    assert not (bad := list(undefined(PYTHON if what=='modules' else (ROOT/'nbs').rglob('*.ipynb')))), bad

def test_an_undefined_name_is_found(tmp_path):
    (tmp_path/'a.py').write_text('from fastai.vision.all import *\ndef f(): return nullcontext(noop)\n')
    (tmp_path/'b.py').write_text('def f(): return nothing\n')
    assert {n for _,n in undefined(tmp_path.glob('*.py'))}=={'nullcontext','nothing'}
