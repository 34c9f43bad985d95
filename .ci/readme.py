"README.md from nbs/index.ipynb, without quarto: `python .ci/readme.py`"
import re
from pathlib import Path
from posixpath import join, normpath
from fastcore.nbio import read_nb, render_text

ROOT = Path(__file__).parents[1]
NOTE = '<!-- Made from nbs/index.ipynb by .ci/readme.py: edit there, not here -->'

def from_root(md):
    "Links are relative to `nbs` in the notebook and to the root in README.md"
    return re.sub(r'\]\((?!\w+:|#)([^)\s]+)\)', lambda m: f']({normpath(join("nbs", m[1]))})', md)

def fenced(text, lang=''): return f'```{lang}\n{text}\n```' if text else ''

def cell2md(cell):
    "Prose as it is, code without its directives, outputs as text; nothing of a hidden cell"
    if 'hide' in cell.directives: return ''
    if cell.cell_type=='markdown': return from_root(cell.source)
    code = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
    out = render_text(cell.get('outputs') or []).strip()
    return '\n\n'.join(filter(None, [fenced(code, 'python'), fenced(out)]))

def readme():
    title,*rest = map(cell2md, read_nb(ROOT/'nbs/index.ipynb').cells)
    return '\n\n'.join([title, NOTE, *filter(None, rest)]) + '\n'

if __name__=='__main__': (ROOT/'README.md').write_text(readme(), encoding='utf-8')
