"The hand-written scripts and styles: one style, one way to make an element, colours of the palette, and every class has its style"
import re, shutil, subprocess
import pytest
from rotnb.explore.script import COLORS, STATIC

SCRIPTS,STYLES = ({o.name:o.read_text(encoding='utf-8') for o in STATIC.iterdir() if o.name.endswith(ending)} for ending in ('.js','.css'))

@pytest.mark.parametrize('name', [*SCRIPTS,*STYLES])
def test_lines_are_short(name):
    long = [i for i,line in enumerate((SCRIPTS|STYLES)[name].splitlines(), 1) if len(line)>=140 or line.rstrip()!=line]
    assert not long, f'{name}: lines {long}'

@pytest.mark.parametrize('name', SCRIPTS)
def test_one_style(name):
    code = re.sub(r'//.*', '', SCRIPTS[name])
    assert not re.findall(r';\s*$', code, re.M), 'semicolons at line ends'
    assert not re.findall(r'\b(?:const|let|function|class) [a-z]+_\w+', code), 'camelCase'
    assert not re.findall(r'^ {2}(?!save_changes)[a-z]+_\w+\(', code, re.M), 'camelCase'
    if name not in ('common.js','page.js'): assert 'document.createElement' not in code, '`make` makes elements'
    assert not re.findall(r'[\'"` ](?:rx|box|rotnb)-[a-z]', code), 'classes begin with rn-'

@pytest.mark.parametrize('name', SCRIPTS)
def test_syntax(name):
    if not shutil.which('node'): pytest.skip('node is not installed')
    run = subprocess.run(['node','--check',str(STATIC/name)], capture_output=True, text=True)
    assert run.returncode==0, run.stderr

def test_classes_are_ours_and_have_a_style():
    text = '\n'.join(STYLES.values())
    styled = set(re.findall(r'\.(rn-[a-z-]+)', text))
    assert not set(re.findall(r'\.([a-z][a-z-]+)', re.sub(r'/\*.*?\*/', '', text, flags=re.S)))-styled
    used = {name for script in SCRIPTS.values() for name in re.findall(r'(?<!-)\brn-[a-z]+(?:-[a-z]+)*', script)}
    hooks = {'rn-edit','rn-in','rn-late','rn-page-number','rn-panel','rn-sliders-panel','rn-matrix-panel','rn-curves-panel'}   # for tests
    assert styled<=used, f'no script uses {sorted(styled-used)}'
    assert used-styled-hooks==set(), f'no style for {sorted(used-styled-hooks)}'

def test_viewer_and_explorer_do_not_style_each_other():
    "Both stand on one page: the large image under a grid"
    of = lambda name: set(re.findall(r'\.(rn-[a-z-]+)', STYLES[name]))
    assert not (of('viewer.css')|of('editor.css'))&of('explorer.css')

def test_colours_come_from_the_palette():
    for name,text in STYLES.items():
        assert set(re.findall(r'--rn-([a-z]+)', text))<=set(COLORS)|{'border','soft','alarm','bar'}, name
        greys = {o for o in re.findall(r'#[0-9a-fA-F]{3,8}\b', text)}
        assert all(len(set(re.findall('..' if len(o)>4 else '.', o[1:])))==1 for o in greys), f'{name}: {greys}'
