"The tables that lead from MMRotate to here: every name in their last column exists"
import re, runpy, pytest
import rotnb.all
from paths import ROOT
from source import NBS, settings
from rotnb.models import list_detectors

PAGE = next(cell.source for name,nb in NBS.items() if name.endswith('_mmrotate.ipynb') for cell in nb.cells
            if cell.source.startswith('### From MMRotate'))
ROWS = [[cell.strip() for cell in line.strip('| ').split(' | ')] for line in PAGE.split('\n') if line.startswith('| `')]
WORDS = {'loss_box','angle_coder','backbone',"box_type='quad'",'save','summary','fit_one_cycle'}
COMMANDS = re.findall(r'(\S+)=', settings()['console_scripts'])

@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[0])
def test_names_exist(row):
    names = [name for name in re.findall(r'`([^`]+)`', row[1]) if name not in WORDS]
    assert names or row[1].startswith('not here')
    assert not [name for name in names if not (hasattr(rotnb.all, name) or name in list_detectors() or name in COMMANDS)]

def test_the_page_of_configurations_is_in_step():
    page = runpy.run_path(str(ROOT/'.ci/from_mmrotate.py'))['page']()
    assert page==(ROOT/'nbs/interop/from_mmrotate.md').read_text(encoding='utf-8') and page.count('\n| `')==187
