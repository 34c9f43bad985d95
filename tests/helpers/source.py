"The repository's own source as tests read it: notebooks, modules, their order, and their syntax"
import ast, re
from configparser import ConfigParser
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from fastcore.nbio import read_nb
from paths import ROOT

# A folder imports only from those before it, a notebook only from those and from lower numbers of its own folder
ORDER = ('check geometry plot ops targets losses models evaluate measure data/images data/labels data/formats data/synth '
         'data/doctor data/mend interop predict data serve learn explore cli').split()
LIGHT = [*ORDER[:ORDER.index('data')], 'serve']                      # these never import fastai
LESSONS = ('tutorials','benchmarks')                                 # folders of notebooks that export nothing and bear no number

def settings():
    "Package metadata"
    cp = ConfigParser(delimiters=['='])
    cp.read(ROOT/'settings.ini', encoding='utf-8')
    return cp['DEFAULT']

def read_notebooks():
    "All notebooks by their path below nbs"
    files = sorted(o for o in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in o.parts)
    return {o.relative_to(ROOT/'nbs').as_posix():read_nb(o) for o in files}

NBS = read_notebooks()

def room_of(name):
    "The folder of a notebook or module below nbs, rotnb or tests"
    folder = Path(name).parent.as_posix()
    return '' if folder=='.' else folder

def place(name):
    "(position of its folder, its number) of a notebook; None for lessons, benchmarks and the index"
    folder,m = room_of(name),re.match(r'(\d\d)_', Path(name).name)
    return (ORDER.index(folder),int(m[1])) if folder in ORDER and m else None

def code(nb):
    "All code of a notebook, without what only IPython reads"
    src = '\n'.join(c.source for c in nb.cells if c.cell_type=='code')
    return re.sub(r'^(\s*)[%!].*$', r'\1pass', src, flags=re.M)

def module(nb):
    "The module a notebook exports, or None"
    m = re.search(r'^#\|\s*default_exp:?\s+(\S+)', code(nb), re.M)
    return m and f'rotnb.{m[1]}'

PLACES = {module(nb):place(f) for f,nb in NBS.items() if place(f) and module(nb)}

def imports(src, package=''):
    "Full names of what a piece of source imports; `from a import b` gives `a` and `a.b`"
    for o in ast.walk(ast.parse(src)):
        if isinstance(o, ast.Import): yield from (a.name for a in o.names)
        elif isinstance(o, ast.ImportFrom):
            base = resolve_name('.'*o.level+(o.module or ''), package) if o.level else o.module
            yield base
            yield from (f'{base}.{a.name}' for a in o.names)

@cache
def height(mod):
    "The place of a module's notebook; a file written by hand stands as high as what it imports"
    if mod in PLACES: return PLACES[mod]
    path = ROOT.joinpath(*mod.split('.'))
    file,package = (path/'__init__.py', mod) if path.is_dir() else (path.with_suffix('.py'), mod.rpartition('.')[0])
    if not mod.startswith('rotnb.') or not file.exists(): return (-1,0)
    return max((height(o) for o in imports(file.read_text(encoding='utf-8'), package) if o!=mod), default=(-1,0))

def chosen():
    "(module, name) of every name of ours that rotnb/all.py hands on"
    for o in ast.parse((ROOT/'rotnb/all.py').read_text(encoding='utf-8')).body:
        if isinstance(o, ast.ImportFrom) and o.level: yield from ((f'rotnb.{o.module}', a.name) for a in o.names if not a.asname)

def files_in(folder, *suffixes):
    "Files of a folder, without those of its subfolders and what nbdev makes"
    return sorted(o for o in folder.glob('*') if o.is_file() and o.suffix in suffixes and o.name!='_modidx.py')

def modules_in(room): return files_in(ROOT/'rotnb'/room, '.py')

@cache
def tree(file): return ast.parse(file.read_text(encoding='utf-8'))
def nodes(file, *kinds): return (o for o in ast.walk(tree(file)) if isinstance(o, kinds))
def at(file, line): return f'{file.relative_to(ROOT).as_posix()}:{line}'
