"""The API reference, from docstrings and the comments of parameters: `python .ci/reference.py` writes docs/, a page a room.

Names of `rotnb.all` and the commands are described in full; of the other public names of a module a page has the first line."""
import ast, importlib, inspect, re, sys
from configparser import ConfigParser
from dataclasses import is_dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))                                        # this checkout, whatever is installed
from fastcore.docments import docments
from fastcore.nbio import read_nb

NOTE = '<!-- Made by .ci/reference.py from the source: edit docstrings and comments there, not here -->'
COMMANDS = 'commands'                                                # the page of console scripts

def chosen():
    "Modules of `rotnb.all` in its order, with the names it takes from each"
    for o in ast.parse((ROOT/'rotnb/all.py').read_text(encoding='utf-8')).body:
        if isinstance(o, ast.ImportFrom) and o.level: yield f'rotnb.{o.module}',[a.name for a in o.names if not a.asname]

def notebooks():
    "The notebook of each module, by the module's name"
    found = {}
    for f in sorted((ROOT/'nbs').rglob('[0-9][0-9]_*.ipynb')):
        module = Path('rotnb', f.relative_to(ROOT/'nbs').parent, f.stem[3:])
        if (ROOT/module).with_suffix('.py').exists(): found['.'.join(module.parts)] = f   # the others export nothing
    return found

def title(file):
    "Title and subtitle of a notebook"
    first = next(c.source for c in read_nb(file).cells if c.cell_type=='markdown')
    name,sub = re.match(r'# (.*)\n+(?:`.*`\n+)?((?:>.*\n?)+)', first).groups()
    return name,' '.join(o.strip('> ') for o in sub.splitlines()).rstrip('.')

# --- one name

def constructor(o):
    "What is called when `o` is: of a class that inherits its constructor there is nothing to say"
    if not isinstance(o, type) or is_dataclass(o): return o
    return o.__init__ if '__init__' in vars(o) else None

def parameters(o):
    "(name, default as text, comment) of each parameter"
    o = constructor(o)
    if o is None: return []
    try: said,params = docments(o, full=True, returns=False),inspect.signature(o).parameters.values()
    except (ValueError, TypeError, OSError): return []
    star = {inspect.Parameter.VAR_POSITIONAL:'*', inspect.Parameter.VAR_KEYWORD:'**'}
    own = [p for p in params if p.name not in ('self','cls')]
    return [(star.get(p.kind, '')+p.name, default(p), (said.get(p.name) or {}).get('docment') or '') for p in own]

def written(value):
    "A value as one would write it; of an object that has no such form, its type"
    if isinstance(value, tuple) and value: return f"({', '.join(map(written, value))}{',' if len(value)==1 else ''})"
    text = value.__name__ if isinstance(value, type) or inspect.isroutine(value) else repr(value)
    return type(value).__name__ if ' at 0x' in text or len(text)>60 else text

def default(p): return '' if p.default is p.empty else written(p.default)

def signature(name, params): return f"{name}({', '.join(n+(f'={d}' if d else '') for n,d,_ in params)})"

def doc(o):
    "The docstring of an object; a dataclass without one has its signature there"
    text = getattr(o, '__doc__', None) or inspect.getdoc(o) or ''
    text = inspect.cleandoc(getattr(text, 'short', text))            # without the parameters that `explore.help` adds
    return '' if text.startswith(f'{getattr(o, "__name__", "")}(') else text

def summary(o): return doc(o).partition('\n\n')[0].replace('\n', ' ')

def plain(text): # `<` would start a tag, except in code
    return '`'.join(o if i%2 else o.replace('<', '&lt;') for i,o in enumerate(text.split('`')))

def cell(text): return plain(' '.join(str(text).split())).replace('|', '\\|')

def table(heads, rows):
    rows = [[cell(o) for o in row] for row in rows]
    return '\n'.join(f"| {' | '.join(o)} |" for o in [heads, ['---']*len(heads), *rows])

def code(text): return f'`{text}`' if text else ''

def described(name, o):
    "A section about a function or a class"
    if not callable(o): return f'### {name}\n\nA table of the notebook.'
    params = parameters(o)
    parts = [f'### {name}', plain(doc(o))]
    if constructor(o): parts.append(f'```python\n{signature(name, params)}\n```')
    parts.append(parameter_table(params))
    return '\n\n'.join([*filter(None, parts), *methods(o)])

def parameter_table(params):
    "Rows of parameters; bare `**kwargs` say nothing"
    rows = [(code(n), code(d), c) for n,d,c in params if c or n[0]!='*']
    return table(['parameter','default','meaning'], rows) if rows else ''

def methods(o):
    "What a class defines itself: methods with comments in full, then a table of the others"
    own = [getattr(o, n) for n in vars(o) if n[0]!='_'] if isinstance(o, type) else []
    own = [f for m in own if inspect.isfunction(f := getattr(m, '__func__', m)) and f.__doc__ and f.__module__.startswith('rotnb')]
    long = [f for f in own if any(c for _,_,c in written_out(f))]
    yield from map(method, long)
    if rows := [(code(f"{f.__name__}({', '.join(n for n,_,_ in written_out(f))})"), summary(f)) for f in own if f not in long]:
        yield table(['method',''], rows)

def written_out(f):
    "The parameters in a function's own text, without those that `@delegates` brings"
    names = f.__code__.co_varnames[:f.__code__.co_argcount+f.__code__.co_kwonlyargcount]
    return [o for o in parameters(f) if o[0] in names or o[0][0]=='*']

def method(f):
    params,more = written_out(f),getattr(f, '__delwrap__', None)
    also = more and f'Also takes what `{more.__name__}` takes.'
    return '\n\n'.join(filter(None, [f"#### {f.__qualname__.rpartition('.')[2]}", plain(doc(f)), parameter_table(params), also]))

# --- pages

def is_own(o, module): return callable(o) and getattr(o, '__module__', None)==module

def section(module, names, notebook):
    "A module: its chosen names in full, the others by their first line"
    mod,(name,subtitle) = importlib.import_module(module),title(notebook)
    link = notebook.relative_to(ROOT).as_posix()
    parts = [f'## {plain(name)}', f'{plain(subtitle)}. Module `{module}`, notebook [{link}](../{link}).']
    parts += [described(n, getattr(mod, n)) for n in names]
    others = [n for n in mod.__all__ if n not in names and is_own(getattr(mod, n), module)]
    if others: parts.append(table(['also in this module',''], [(code(n), summary(getattr(mod, n))) for n in others]))
    return '\n\n'.join(parts)

def page(name, sections): return '\n\n'.join([f'# {name}', NOTE, *sections])+'\n'

def commands():
    "The page of the commands, which settings.ini lists"
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    for script in cfg['DEFAULT']['console_scripts'].split():
        name,_,target = script.partition('=')
        module,_,func = target.partition(':')
        f = getattr(importlib.import_module(module), func)
        rows = [(code('--'+n if d else n), code(d), c) for n,d,c in parameters(f)]
        yield f'## {name}\n\n{plain(doc(f))}\n\n'+table(['argument','default','meaning'], rows)

def top_room(module): return module.split('.')[1]

def pages():
    "{file name: text} of the whole reference"
    names = dict(chosen())
    rooms,found = {},notebooks()
    for module,notebook in found.items():
        rooms.setdefault(top_room(module), []).append(section(module, names.get(module, []), notebook))
    order = dict.fromkeys([*map(top_room, names), *rooms])
    made = {f'{room}.md':page(room, rooms[room]) for room in order if room!='cli'}
    made[f'{COMMANDS}.md'] = page('Commands', commands())
    return {'README.md':index(made, names)}|made

def index(made, names):
    "The list of pages, with the names that `from rotnb.all import *` brings"
    rows = []
    for file in made:
        room = file.removesuffix('.md')
        own = [n for module,some in names.items() if top_room(module)==room for n in some]
        rows.append((f'[{room}]({file})', ', '.join(f'[{n}]({file}#{n.lower()})' for n in own)))
    about = ('What `from rotnb.all import *` brings beside fastai, by room. Each page gives shapes, units and ranges, '
             'and links to the notebook that explains and tests the module.')
    return page('API reference', [about, table(['page','names'], rows)])

if __name__=='__main__':
    docs = ROOT/'docs'
    docs.mkdir(exist_ok=True)
    for old in docs.glob('*.md'): old.unlink()
    for name,text in pages().items(): (docs/name).write_text(text, encoding='utf-8')
