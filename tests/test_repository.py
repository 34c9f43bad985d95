"What stands around the package: pages and their links, what is made from the source, the workflows that test and publish"
import re, runpy, subprocess
from fnmatch import fnmatch
from pathlib import Path
import pytest, yaml
from paths import ROOT
from source import NBS, code, room_of, settings

PAGES = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'nbs/benchmarks/README.md']
PAGES += [f'docs/{o.name}' for o in sorted((ROOT/'docs').glob('*.md'))]
MODULES = {o.relative_to(ROOT).as_posix():o.read_text(encoding='utf-8') for o in (ROOT/'rotnb').rglob('*.py') if o.name!='_modidx.py'}

# --- links

def links(text):
    "Targets of links and images of a piece of Markdown, without what stands in code"
    return re.findall(r'\]\(([^)\s]+)\)', re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.S))

def anchors(text):
    "What links to headings may name: as GitHub does, lower case, spaces as hyphens, without punctuation"
    return {re.sub(r'[^\w\- ]', '', o.lower()).replace(' ', '-') for o in re.findall(r'^#+ (.*)$', text, re.M)}

def prose(file):
    "The Markdown of a page or a notebook, None where that is none"
    if file.suffix=='.md': return file.read_text(encoding='utf-8')
    if file.suffix!='.ipynb': return None
    nb = NBS.get(file.relative_to(ROOT/'nbs').as_posix())
    return nb and '\n\n'.join(c.source for c in nb.cells if c.cell_type=='markdown')

def dead(file, text):
    "Relative links of a page that lead nowhere"
    for link in links(text):
        path,_,heading = link.partition('#')
        if re.match(r'\w+:', link): continue
        to = (file.parent/path).resolve() if path else file
        if not to.is_file() or heading and heading.lower() not in anchors(prose(to) or ''): yield link

@pytest.mark.parametrize('page', PAGES)
def test_links_of_pages_lead_somewhere(page):
    assert not (bad := list(dead(ROOT/page, prose(ROOT/page)))), bad

@pytest.mark.parametrize('room', sorted({room_of(o) for o in NBS}))
def test_links_of_notebooks_lead_somewhere(room):
    files = [ROOT/'nbs'/o for o in NBS if room_of(o)==room]
    bad = {f.name:left for f in files if (left := list(dead(f, prose(f))))}
    assert not bad, bad

def test_links_of_docstrings_lead_somewhere():
    found = [(o,link) for o,nb in NBS.items() for c in nb.cells if c.cell_type=='code'
             for link in re.findall(r'\]\(([\w./]+\.ipynb)', c.source)]
    assert found and not (bad := [one for one in found if not ((ROOT/'nbs'/one[0]).parent/one[1]).is_file()]), bad

def test_dead_links_are_found(tmp_path):
    page = tmp_path/'a.md'
    text = '# One Thing\n[a](#one-thing) [b](#other) [c](b.md) [d](https://x.org) ![e](c.png) `[f](g.md)`'
    page.write_text(text)
    assert list(dead(page, text))==['#other','b.md','c.png']

def test_the_map_is_true():
    "Every row of CONTRIBUTING's map whose answer is a name in a notebook: the notebook has that name"
    text = (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8')
    rows = [o for o in text[text.index('## Map'):].splitlines() if o.startswith('| ') and o.endswith(' |')][1:]
    answers = [re.search(r'`([\w.]+)` in \[.*\]\(nbs/(.*)\)', o) for o in rows]
    wrong = [m[0] for m in answers if m and not re.search(rf'\b{m[1].rpartition(".")[2]}\b', code(NBS[m[2]]))]
    assert len(rows)==24 and len([m for m in answers if m])>7 and not wrong, wrong

OURS = r'https?://[\w.-]*rotnb[\w.-]*\.(?:github\.io|org|dev|ai|io)|readthedocs\.(?:io|org)/\S*rotnb'

def test_no_link_leads_to_a_site_of_ours():
    "There is none yet. When there is, its address stands in pyproject.toml, from which nbdev makes every link"
    texts = {o:prose(ROOT/o) for o in PAGES}|{o:prose(ROOT/'nbs'/o) for o in NBS}
    texts['pyproject.toml'] = (ROOT/'pyproject.toml').read_text(encoding='utf-8')
    assert not [o for o,text in texts.items() if re.search(OURS, text)]
    assert not [o for o,text in MODULES.items() if re.search(r'^# Docs:', text, re.M)]

def test_installing_is_said_in_one_place():
    "README says how rotnb is installed, since a release changes that; so does the first cell of lessons. Messages name what is missing"
    texts = MODULES|{o:'\n'.join(c.source for c in nb.cells) for o,nb in NBS.items()}
    said = {o for o,text in texts.items() if re.search(r'pip install[^\n]*rotnb\b(?!-)', text)}
    said -= {o for o in said if room_of(o)=='tutorials'}               # tests/test_lessons.py holds them to one cell
    assert said<={'index.ipynb'}, f'they tell how to install rotnb: {sorted(said)}'

# --- what is made

def test_readme_is_what_the_notebook_makes():
    made = runpy.run_path(str(ROOT/'.ci/readme.py'))['readme']()
    assert made==(ROOT/'README.md').read_text(encoding='utf-8'), 'run `python .ci/readme.py`'

def test_reference_is_what_the_source_makes():
    made = runpy.run_path(str(ROOT/'.ci/reference.py'))['pages']()
    have = {o.name:o.read_text(encoding='utf-8') for o in (ROOT/'docs').glob('*.md')}
    old = sorted(o for o in made.keys()|have.keys() if made.get(o)!=have.get(o))
    assert not old, f'run `python .ci/reference.py`: {old}'

def test_reference_has_every_parameter():
    text = (ROOT/'docs/predict.md').read_text(encoding='utf-8')
    section = re.search(r'^### predict_image\n(.*?)^### ', text, re.M|re.S)[1]
    assert '`score_thr`' in section and '```python\npredict_image(learn, ' in section

def test_pages_of_a_site(tmp_path):
    "Markdown and notebooks become pages whose links follow"
    site = runpy.run_path(str(ROOT/'.ci/site.py'))
    site['build'](tmp_path, [Path(o) for o in ('README.md', 'docs/README.md', 'nbs/tutorials/quickstart.ipynb', 'nbs/images/demo.jpg')])
    readme,lesson = (tmp_path/'index.html').read_text(), (tmp_path/'nbs/tutorials/quickstart.html').read_text()
    assert 'href="nbs/tutorials/quickstart.html' in readme and 'src="nbs/images/demo.jpg"' in readme
    assert (tmp_path/'docs/index.html').exists()
    assert '<table' in readme and '.ipynb"' not in readme and 'href="../models/01_contract.html"' in lesson
    known = {o.as_posix() for o in site['files']()}
    assert {'docs/learn.md','nbs/index.ipynb','rotnb/explore/static/explorer.js'}<=known

def test_ci_finds_both_commands_in_the_readme():
    main_job,tests = subprocess.check_output([ROOT/'.ci/run', '--show'], text=True).split('\n\n')
    assert main_job.endswith('rotnb-demo --path rotnb-demo') and tests.strip().endswith('pytest -n 2')

# --- workflows

WORKFLOWS = {o.stem:yaml.safe_load(o.read_text(encoding='utf-8')) for o in (ROOT/'.github/workflows').glob('*.yml')}

def when(name): return WORKFLOWS[name][True]                         # `on` is a truth value in YAML 1.1
def steps(name): return [s for job in WORKFLOWS[name]['jobs'].values() for s in job['steps']]
def commands(name): return '\n'.join(s.get('run', '') for s in steps(name))

def test_workflows():
    assert set(WORKFLOWS)=={'test','release','pages'}
    assert 'pull_request' in when('test') and when('release')=={'push':{'tags':['v*']}}

@pytest.mark.parametrize('name', WORKFLOWS)
def test_a_workflow_is_bounded_and_has_few_rights(name):
    flow = WORKFLOWS[name]
    assert flow['permissions']=={'contents':'read'}
    assert all(0<job['timeout-minutes']<=90 for job in flow['jobs'].values())
    assert all(re.fullmatch(r'[\w-]+/[\w-]+@(v\d+|release/v\d+)', s['uses']) for s in steps(name) if 'uses' in s)
    for s in re.findall(r'\.ci/\w+(?:\.py)?', commands(name)): assert (ROOT/s).is_file(), s

def test_workflow_tests_run_what_readme_says():
    assert '.ci/run' in commands('test')
    pythons = WORKFLOWS['test']['jobs']['oldest-and-newest']['strategy']['matrix']['python']
    assert pythons[0]==settings()['min_python'] and all(isinstance(o, str) for o in pythons)

def test_only_a_tag_publishes():
    release = WORKFLOWS['release']['jobs']
    publish = release['publish']
    assert publish['needs']=='build' and publish['permissions']=={'id-token':'write'} and publish['environment']=='pypi'
    assert any(fnmatch(s.get('uses', ''), 'pypa/gh-action-pypi-publish@*') for s in publish['steps'])
    assert not re.search(r'secrets\.|password|api[-_]token', ''.join(o.read_text() for o in (ROOT/'.github/workflows').glob('*.yml')))
    assert 'GITHUB_REF_NAME' in commands('release') and 'CHANGELOG.md' in commands('release')

def test_links_follow_renumbered_notebooks(tmp_path):
    followed = runpy.run_path(str(ROOT/'.ci/links.py'))['followed']
    (tmp_path/'room').mkdir()
    for o in ('05_alpha.ipynb','06_beta.ipynb'): (tmp_path/'room'/o).touch()
    text = '[a](room/04_alpha.ipynb#loss) [b](room/06_beta.ipynb) [c](room/01_gone.ipynb) [d](https://x.org/04_alpha.ipynb)'
    assert followed(text, tmp_path)==text.replace('04_alpha.ipynb#', '05_alpha.ipynb#')
