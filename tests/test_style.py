"""How the source looks: its lines, its names, where its methods stand, what its parameters say. CONTRIBUTING.md has the rules in words.
Tests go by room, so that a failure names the room to tidy."""
import ast, importlib, inspect, json, re, subprocess, sys
from collections import Counter
from dataclasses import is_dataclass
from fnmatch import fnmatch
import pytest
from fastcore.docments import docments
from paths import ROOT
from source import LESSONS, NBS, ORDER, at, chosen, files_in, modules_in, nodes, room_of, tree

WIDTH = 140                                                          # a line is shorter
ROOMS = [*ORDER, *LESSONS, '']                                       # '': what belongs to no room
by_room = pytest.mark.parametrize('room', ROOMS)
by_folder = pytest.mark.parametrize('room', ORDER)

# --- lines

def pages(room):
    "Text files of a room: modules, tests, widgets' scripts and styles, benchmarks; at the top, what the repository itself needs"
    yield from (f for top in ('rotnb','tests') for f in files_in(ROOT/top/room, '.py'))
    if room=='explore': yield from files_in(ROOT/'rotnb/explore/static', '.js', '.css')
    if room=='benchmarks': yield from files_in(ROOT/'nbs/benchmarks', '.py', '.md')
    if not room:
        for o in ('.', '.ci', '.github/workflows', 'findings', 'tests/helpers', 'tests/tools'):
            yield from (f for f in files_in(ROOT/o, '.py', '.md', '.sh', '.yml', '.toml', '') if f.name not in ('LICENSE','.git'))

def lines(room):
    "(where, line) of all that people read"
    for f in pages(room):
        for i,line in enumerate(f.read_text(encoding='utf-8').splitlines(), 1): yield at(f, i),line
    for name,nb in NBS.items():
        if room_of(name)!=room: continue
        for c in nb.cells:
            for line in c.source.splitlines(): yield f'nbs/{name} cell {c.get("id")}',line

def foldable(line): return not line.lstrip().startswith(('|','![')) # rows of a table and images of a page are one line each

@by_room
def test_lines_are_short(room):
    wide = [f'{where}: {len(line)}' for where,line in lines(room) if len(line)>=WIDTH and foldable(line)]
    assert not wide, f'{len(wide)} lines of {WIDTH} characters or more: {wide[:25]}'

def test_lines_are_looked_at_everywhere():
    seen = {o.split(':')[0].split(' cell')[0] for room in ROOMS for o,_ in lines(room)}
    want = '''rotnb/all.py rotnb/ops/nms.py rotnb/explore/static/viewer.css tests/test_style.py tests/helpers/paths.py
        tests/ops/test_nms.py nbs/index.ipynb nbs/tutorials/quickstart.ipynb nbs/data/10_loaders.ipynb nbs/benchmarks/scene.py
        CONTRIBUTING.md .ci/run'''
    assert not set(want.split())-seen

# --- names

GIVEN_UP = {                                     # pattern of a name: what to write instead, and the rooms where the old one may stay
    'score_thresh*':('score_thr',()), 'nms_iou*':('iou_thr',()), 'iou_thresh':('iou_thr',()),
    'iou_threshold*':('iou_thr',('ops','evaluate','measure')),       # as in torchvision's signature
    'img_size*':('size_wh or size_hw',()), '*hbb*':('hbox',()), '*picture*':('image',()),
    '*qbox*':('quad',('geometry','plot','ops')),                     # `qbox2rbox` and its parameter
    'headed*':('with_heading',()), 'corners8':('quad',())}

def is_old(name, room):
    if '2' in name: return None                                      # `qbox2rbox` is a converter
    return next((new for old,(new,rooms) in GIVEN_UP.items() if fnmatch(name.lower(), old) and room not in rooms), None)

def named(file):
    "(line, name) of what a module names for others: functions and classes, parameters, fields"
    for o in nodes(file, ast.FunctionDef, ast.ClassDef, ast.arg, ast.AnnAssign):
        name = o.arg if isinstance(o, ast.arg) else getattr(o.target, 'id', '') if isinstance(o, ast.AnnAssign) else o.name
        yield o.lineno,name

@by_folder
def test_spellings_that_were_given_up(room):
    old = [f'{at(f, i)} {name}: write {new}' for f in modules_in(room) for i,name in named(f) if (new := is_old(name, room))]
    assert not old, old

def test_old_spellings_are_found(tmp_path):
    f = tmp_path/'a.py'
    f.write_text('class HBB:\n    img_size:int\ndef best(score_thresh, *, picture=None, rbox2qbox=None): pass\n')
    assert {n for _,n in named(f) if is_old(n, 'learn')}=={'HBB','img_size','score_thresh','picture'}

PAIR = re.compile(r'\(\s*(w|width|h|height)\s*,\s*(w|width|h|height)\s*\)')
EITHER = re.compile(r'px[^#]*\bor\b', re.I)                          # fastai's way: one side, or a pair; its comment says so

@by_folder
def test_a_pair_is_not_a_size(room):
    "A parameter `size` is one side; two numbers are `size_wh` or `size_hw`"
    bad = []
    for f in modules_in(room):
        text = f.read_text(encoding='utf-8').splitlines()
        for o in nodes(f, ast.arg):
            comment = text[o.end_lineno-1].partition('#')[2]
            if o.arg=='size' and PAIR.search(comment) and not EITHER.search(comment): bad.append(f'{at(f, o.lineno)}: {comment}')
    assert not bad, bad

SHARE = dict.fromkeys(ORDER, .25) | dict(measure=.3, plot=.3)        # geometry and ops are left out: mathematics has its letters
del SHARE['geometry'], SHARE['ops']

@pytest.mark.parametrize('room', SHARE)
def test_few_names_of_one_letter(room):
    short,worst = Counter(),Counter()
    for f in modules_in(room):
        for top in tree(f).body:
            for o in ast.walk(top):
                if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store):
                    short[len(o.id)==1] += 1
                    worst[f'{f.name}:{getattr(top, "name", "")}'] += len(o.id)==1
    share = short[True]/max(sum(short.values()), 1)
    assert share<=SHARE[room], f'{share:.0%} of the names assigned in {room} have one letter; most in {worst.most_common(8)}'

@by_folder
def test_no_lambda_in_a_lambda(room):
    def nested(o): return any(isinstance(n, ast.Lambda) for n in ast.walk(o.body))
    bad = [at(f, o.lineno) for f in modules_in(room) for o in nodes(f, ast.Lambda) if nested(o)]
    assert not bad, bad

# --- methods and imports

def from_ours(file):
    "Names that a module takes from other modules of rotnb"
    return {a.asname or a.name for o in nodes(file, ast.ImportFrom) if o.level or (o.module or '').startswith('rotnb') for a in o.names}

def called(o): return getattr(o, 'id', getattr(o, 'attr', ''))

def patched(file):
    "(line, class) of methods given to a class: `@patch` by annotation, `@patch_to`, or by assignment"
    for o in nodes(file, ast.FunctionDef):
        for d in o.decorator_list:
            name = called(d.func) if isinstance(d, ast.Call) else called(d)
            if name=='patch_to': yield from ((o.lineno, called(n)) for n in ast.walk(d.args[0]))
            if name=='patch' and o.args.args and (a := o.args.args[0].annotation): yield from ((o.lineno, called(n)) for n in ast.walk(a))
    for o in tree(file).body:
        if isinstance(o, ast.Assign): yield from ((o.lineno, called(t.value)) for t in o.targets if isinstance(t, ast.Attribute))

@by_folder
def test_methods_are_at_home(room):
    "No method is given to a class of another module of ours; classes of fastai have no home here"
    away = [f'{at(f, i)} {name}' for f in modules_in(room) for i,name in patched(f) if name in from_ours(f)]
    assert not away, away

def test_methods_away_from_home_are_found(tmp_path):
    f = tmp_path/'a.py'
    f.write_text('from .b import A, B, C\nfrom fastai.learner import Learner\n@patch\ndef f(self:A): pass\n'
                 '@patch_to(B)\ndef g(self): pass\nC.h = g\n@patch\ndef k(self:Learner): pass\n'
                 '@patch(as_prop=True)\ndef m(self:A|B): pass\n')
    assert {n for _,n in patched(f) if n in from_ours(f)}=={'A','B','C'} and 'Learner' in {n for _,n in patched(f)}

@by_folder
def test_imports_are_used(room):
    "Nothing is imported in vain or for its effect alone (a table of what registers itself says so with `# noqa: F401`)"
    files = [str(o) for o in modules_in(room) if o.name!='__init__.py']
    cmd = [sys.executable,'-m','ruff','check','--isolated','--no-cache','--select','F401','--output-format','json',*files]
    found = json.loads(subprocess.run(cmd, capture_output=True, text=True, cwd=ROOT).stdout)
    unused = [f"{o['filename'].removeprefix(str(ROOT))}:{o['location']['row']} {o['message']}" for o in found]
    assert files and not unused, unused

# --- what is said of public names

def public(room):
    "(name with its module, object) of what modules of a room export and can be called"
    for f in modules_in(room):
        if f.name in ('__init__.py','__main__.py'): continue
        name = '.'.join(f.relative_to(ROOT).with_suffix('').parts)
        mod = importlib.import_module(name)
        yield from ((f'{name}.{n}', o) for n in mod.__all__ if callable(o := getattr(mod, n)) and n not in ('encodes','decodes'))

@by_folder
def test_public_names_have_a_docstring(room):
    silent = [n for n,o in public(room) if not (doc := inspect.getdoc(o)) or doc.startswith(f'{getattr(o, "__name__", "")}(')]
    assert not silent, silent

def uncommented(o):
    "Parameters of a function or of a class's own constructor that no comment explains; `**kwargs` go elsewhere and are explained there"
    if isinstance(o, type) and not is_dataclass(o) and '__init__' not in vars(o): return []
    if not isinstance(o, type) and not hasattr(o, '__code__'): return []
    said = docments(o, full=True, returns=False)
    params = inspect.signature(o).parameters.values()
    own = getattr(o.__init__ if isinstance(o, type) else o, '__code__', None)
    written = own.co_varnames[:own.co_argcount+own.co_kwonlyargcount] if own and not is_dataclass(o) else None   # not those of `delegates`
    named = [p.name for p in params if p.kind not in (p.VAR_KEYWORD,p.VAR_POSITIONAL) and p.name!='self']
    named = [n for n in named if written is None or n in written]
    return [n for n in named if not (said.get(n) or {}).get('docment')]

@by_folder
def test_parameters_of_chosen_names_have_a_comment(room):
    "Shape, unit, range: of every parameter of every name in `rotnb.all`"
    prefix = 'rotnb.'+room.replace('/', '.')
    own = [(f'{m}.{n}', getattr(importlib.import_module(m), n)) for m,n in chosen() if m.rpartition('.')[0]==prefix]
    bare = {name:left for name,o in own if callable(o) and (left := uncommented(o))}
    assert not bare, bare
