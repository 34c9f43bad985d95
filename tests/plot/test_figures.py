"What notebooks of targets and models decide is drawn, and the figures are kept, small"
import json
import pytest
from paths import ROOT

NBS = sorted(o for room in ('targets','models') for o in (ROOT/'nbs'/room).glob('*.ipynb') if o.stem!='02_files')
ROOMS = 'geometry','plot','ops','measure','targets','losses','models'

def outputs(nb): return [o for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', [])]

@pytest.mark.parametrize('nb', NBS, ids=lambda o: f'{o.parent.name}/{o.stem}')
def test_a_figure_is_kept(nb):
    kinds = [set(o.get('data', ())) for o in outputs(nb)]
    assert kinds and all(kind<={'image/png','image/jpeg','image/svg+xml'} for kind in kinds), \
        f'python .ci/outputs.py {nb.relative_to(ROOT)} keeps its figures'

def test_kept_figures_are_small():
    sizes = {nb.name:len(json.dumps(outputs(nb))) for room in ROOMS for nb in (ROOT/'nbs'/room).glob('*.ipynb')}
    assert sum(sizes.values())<18_000*len(sizes) and max(sizes.values())<150_000, sizes
