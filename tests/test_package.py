"The package as a whole: metadata agree, every module has its notebook, notebooks build on earlier ones, layers keep their distance"
import ast, importlib, json, os, re, runpy, subprocess, sys
from collections import Counter, defaultdict
from configparser import ConfigParser
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from statistics import median
import pytest
from fastcore.nbio import read_nb
import rotnb
from paths import ROOT

NBS = {str(o.relative_to(ROOT/'nbs')): read_nb(o) for o in sorted((ROOT/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in o.parts}
IMPORT_AS = dict(cv2='opencv-python-headless', PIL='pillow', yaml='pyyaml')  # where the package index has another name

def settings():
    cp = ConfigParser(delimiters=['='])
    cp.read(ROOT/'settings.ini', encoding='utf-8')
    return cp['DEFAULT']

def code(nb):
    "All code of a notebook, without what only IPython reads"
    src = '\n'.join(c.source for c in nb.cells if c.cell_type=='code')
    return re.sub(r'^(\s*)[%!].*$', r'\1pass', src, flags=re.M)

def module(nb):
    "The module a notebook exports, or None"
    m = re.search(r'^#\|\s*default_exp:?\s+(\S+)', code(nb), re.M)
    return m and f'rotnb.{m[1]}'

def imports(src, package=''):
    "Full names of what a piece of source imports; `from a import b` gives `a` and `a.b`"
    for o in ast.walk(ast.parse(src)):
        if isinstance(o, ast.Import): yield from (a.name for a in o.names)
        elif isinstance(o, ast.ImportFrom):
            base = resolve_name('.'*o.level+(o.module or ''), package) if o.level else o.module
            yield base
            yield from (f'{base}.{a.name}' for a in o.names)

# A folder imports only from those before it, a notebook only from those and from lower numbers of its own folder
ORDER = ('geometry plot ops targets losses models evaluate measure data/images data/labels data/formats data/synth data/doctor data/mend '
         'data learn explore interop cli').split()
LIGHT = ORDER[:ORDER.index('data')]        # these never import fastai

def place(f): # a notebook, relative to nbs
    "(position of its folder, its number), or None for lessons, benchmarks and the index"
    folder,m = Path(f).parent.as_posix(),re.match(r'(\d\d)_', Path(f).name)
    return (ORDER.index(folder),int(m[1])) if folder in ORDER and m else None

PLACES = {module(nb):place(f) for f,nb in NBS.items() if place(f) and module(nb)}

@cache
def height(mod):
    "The place of a module's notebook; a file written by hand stands as high as what it imports"
    if mod in PLACES: return PLACES[mod]
    path = ROOT.joinpath(*mod.split('.'))
    file,package = (path/'__init__.py', mod) if path.is_dir() else (path.with_suffix('.py'), mod.rpartition('.')[0])
    if not mod.startswith('rotnb.') or not file.exists(): return (-1,0)
    return max((height(o) for o in imports(file.read_text(encoding='utf-8'), package) if o!=mod), default=(-1,0))

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
    assert re.match(r'# \S.*\n+(`\S+`\n+)?> \S', first), f'starts with {first[:80]!r}; `# what it is for`, the module path in backticks and `> one line` are wanted'

def test_one_notebook_for_each_module():
    exported = Counter(filter(None, map(module, NBS.values())))
    assert max(exported.values())==1, exported.most_common(3)
    by_hand = ('__init__', '_modidx', 'all')
    files = {'.'.join(o.relative_to(ROOT).with_suffix('').parts) for o in (ROOT/'rotnb').rglob('*.py') if o.stem not in by_hand}
    assert files==set(exported)

@pytest.mark.parametrize('nb', [o for o in NBS if place(o)])
def test_imports_only_what_stands_before(nb):
    late = {o:height(o) for o in imports(code(NBS[nb])) if height(o)>=place(nb)}
    assert not late, f'{nb} imports {late}'

def test_every_notebook_has_a_place():
    free = ('tutorials','benchmarks')
    assert not [o for o in NBS if o!='index.ipynb' and Path(o).parts[0] not in free and not place(o)]
    twice = [o for o,n in Counter(filter(None, map(place, NBS))).items() if n>1]
    assert not twice, twice

@pytest.mark.parametrize('folder', ORDER)
def test_numbers_have_no_gaps(folder):
    own = sorted(place(o)[1] for o in NBS if Path(o).parent.as_posix()==folder)
    assert own==list(range(1, len(own)+1))

def test_a_notebook_is_named_as_its_module():
    odd = {f:module(nb) for f,nb in NBS.items() if place(f) and module(nb)
           and module(nb)!='rotnb.'+Path(f).parent.as_posix().replace('/','.')+'.'+Path(f).stem[3:]}
    assert not odd, odd

def test_readme_is_what_the_notebook_makes():
    made = runpy.run_path(str(ROOT/'.ci/readme.py'))['readme']()
    assert made==(ROOT/'README.md').read_text(encoding='utf-8'), 'run `python .ci/readme.py`'

def test_ci_finds_both_commands_in_the_readme():
    main_job,tests = subprocess.check_output([ROOT/'.ci/run', '--show'], text=True).split('\n\n')
    assert main_job.endswith('rotnb-demo --path rotnb-demo') and tests.strip().endswith('pytest')

@pytest.mark.parametrize('page', ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'])
def test_links_lead_somewhere(page):
    links = re.findall(r'\]\((?!\w+:|#)([^)\s#]+)', (ROOT/page).read_text(encoding='utf-8'))
    assert not [o for o in links if not (ROOT/o).exists()]

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

@pytest.mark.parametrize('ours,theirs', [('rotnb.ops.iou','torch'), ('rotnb.all','fastai.vision.all')])
def test_import_time(ours, theirs):
    "Processor time, which other programs on the machine disturb least; the runs take turns"
    runs = [[float(python(f'import {o}, time; print(time.process_time())')) for o in (ours,theirs)] for _ in range(3)]
    a,b = map(median, zip(*runs))
    print(f'import {ours} {a:.2f} s, import {theirs} {b:.2f} s, ratio {a/b:.2f}')
    assert a<=1.4*b

def test_import_says_nothing():
    "What is printed on import is the first thing that a notebook shows"
    out = subprocess.run([sys.executable, '-c', 'from rotnb.all import *'], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert (out.stdout,out.stderr)==('','')

def test_all_has_the_public_names():
    ns = {}
    exec('from rotnb.all import *', ns)
    names = '''rbox2qbox qbox2rbox rbox2hbox hbox2rbox canonicalize box_iou_rotated nms_rotated batched_nms_rotated
        create_detector list_detectors eval_map RotatedDataLoaders RBoxBlock RBoxLblBlock
        rotated_learner RotatedMAP predict_image draw load_learner'''.split()
    assert not [o for o in names if not callable(ns.get(o))]

def test_all_is_unambiguous():
    "A name has one meaning in all modules that `rotnb.all` opens: of two, the later import would win in silence"
    found = defaultdict(dict)
    for o in ast.parse((ROOT/'rotnb/all.py').read_text(encoding='utf-8')).body:
        if not isinstance(o, ast.ImportFrom) or not o.level: continue
        mod = importlib.import_module(f'rotnb.{o.module}')
        for n in (mod.__all__ if o.names[0].name=='*' else [a.name for a in o.names]): found[n].setdefault(id(getattr(mod, n)), o.module)
    two = {n:sorted(by.values()) for n,by in found.items() if len(by)>1 and n not in ('encodes','decodes')}   # cases added to fastai's transforms
    assert len(found)>300 and not two, two

def test_failures_are_expected_of_something():
    "fastcore's `expect_fail` is a context manager: handed a function it never calls it, and the test cannot fail"
    bad = [f'{p.relative_to(ROOT)}: {l.strip()}' for p in sorted(ROOT.glob('nbs/**/*.ipynb')) for l in p.read_text(encoding='utf-8').splitlines()
           if 'expect_fail(' in l and 'with ' not in l]
    assert not bad, bad

# --- names

PYTHON = [*(ROOT/'rotnb').rglob('*.py'), *(ROOT/'tests').rglob('*.py'), *(ROOT/'.ci').glob('*.py'), *(ROOT/'nbs').rglob('*.py'), ROOT/'setup.py']

def undefined(files):
    "(file, line, name) of names that nothing defines; of a file with `import *` ruff only suspects: there the star imports themselves are asked"
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
