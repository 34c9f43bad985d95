"""The pages of a web site, from README.md, the reference and all notebooks as they are: `python .ci/site.py FOLDER`.

Nothing is run. Each Markdown file and notebook becomes a page of the same path; links between them follow."""
import re, shutil, sys
from html import escape
from pathlib import Path
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).parents[1]
PAGES = ('.md','.ipynb')
BESIDE = ('.jpg','.png','.svg','.json','.txt','.py','.js','.css')     # what pages show or link to

STYLE = HtmlFormatter().get_style_defs('.highlight')+'''
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff }
nav { border-bottom: 1px solid #ccc; padding-bottom: .5rem } nav a { margin-right: 1rem }
pre { overflow-x: auto; padding: .6rem; background: #f6f6f6 } code { font-size: .9em } img, svg { max-width: 100%; height: auto }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { border: 1px solid #ddd; padding: .25rem .5rem; text-align: left }
.jp-InputPrompt, .jp-OutputPrompt, .anchor-link { display: none }
'''
MATH = 'https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js'

def files():
    "What the site is made of, relative to the repository"
    tops = [ROOT/o for o in ('README.md','CONTRIBUTING.md','CHANGELOG.md','LICENSE')]
    folders = [o for folder in ('docs','nbs','rotnb/explore/static') for o in (ROOT/folder).rglob('*')]
    return [o.relative_to(ROOT) for o in sorted(tops+folders) if o.is_file() and '.ipynb_checkpoints' not in o.parts]

def target(file):
    "Where a page lies in the site: README.md of a folder is its index"
    return file.with_name('index.html') if file.name=='README.md' else file.with_suffix('.html')

def linked(body):
    "Relative links to Markdown files and notebooks lead to their pages"
    def to_page(m): return f'{m[1]}{target(Path(m[2])).as_posix()}{m[3]}'
    return re.sub(r'((?:href|src)=")(?!\w+:|#|/)([^"#]+\.(?:md|ipynb))(["#])', to_page, body)

def body(file):
    if file.suffix=='.md': return markdown2html((ROOT/file).read_text(encoding='utf-8'))
    return HTMLExporter(template_name='basic').from_filename(str(ROOT/file))[0]

def page(file):
    "One page, whole"
    up = '../'*(len(file.parts)-1)
    tops = dict(rotnb='index.html', lessons='nbs/tutorials/quickstart.html', reference='docs/index.html', contribute='CONTRIBUTING.html')
    nav = ''.join(f'<a href="{up}{link}">{name}</a>' for name,link in tops.items())
    head = f'<meta charset="utf-8"><title>rotnb: {escape(file.stem)}</title><style>{STYLE}</style><script async src="{MATH}"></script>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><nav>{nav}</nav>\n{linked(body(file))}</body></html>\n'

def build(out, only=None):
    "Write the site, or some of its files, into a folder"
    for file in only or files():
        dst = Path(out)/(target(file) if file.suffix in PAGES else file)
        if file.suffix not in PAGES+BESIDE and file.name!='LICENSE': continue
        dst.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in PAGES: dst.write_text(page(file), encoding='utf-8')
        else: shutil.copy(ROOT/file, dst)

if __name__=='__main__': build(sys.argv[1])
