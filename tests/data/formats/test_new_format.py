"A label format of one's own: the class of the lesson `nbs/tutorials/new_format.ipynb`, end to end"
import re, warnings
import numpy as np, pytest
from fastcore.nbio import read_nb
from rotnb.cli.convert import main as rotnb_convert
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.format import FORMATS, LabelFormat, register_format
from rotnb.data.formats.table import format_table, read_format, sniff_format
from rotnb.data.loaders import RotatedDataLoaders
from format_checks import CHECKS, LabelSample, make_set
from paths import ROOT

TEXT = ('# fleet\ntanker at 120,80 length 60 beam 14 course 75\ntug at 40.5,30 length 20 beam 8 course 0 doubtful  // or a barge?\n'
        'tanker at 60,50 length 30 beam 10 course 90\n')
TANKER = np.array([[-30,-7],[30,-7],[30,7],[-30,7]])@np.array([[np.cos(np.pi/12),-np.sin(np.pi/12)],[np.sin(np.pi/12),np.cos(np.pi/12)]])
ROWS = [((TANKER+[120,80]).ravel().tolist(),'tanker',0), ([36.5,40,36.5,20,44.5,20,44.5,40],'tug',1), ([45,45,75,45,75,55,45,55],'tanker',
    0)]
SAMPLE = LabelSample('fleet', 'labels/a.fleet', TEXT, ROWS, TEXT.replace('40.5,30', '40.5 30'), ':3', '# fleet\n', other_name='ferry')

@pytest.fixture(scope='module', autouse=True)
def fleet():
    "The lesson's format, known while these tests run"
    cell, = [cell.source for cell in read_nb(ROOT/'nbs/tutorials/new_format.ipynb').cells if '@register_format' in cell.source]
    names = {}
    exec('from rotnb.all import *', names)
    exec(cell, names)
    yield FORMATS['fleet']
    del FORMATS['fleet']

@pytest.mark.parametrize('check', CHECKS)
def test_checks(tmp_path, check): check(tmp_path, SAMPLE)

def test_listed(): assert '| fleet | px | deg, clockwise from the top, [0, 360) | length | kept | free quads |' in format_table()

def test_mended_converted_and_loaded(tmp_path, capsys):
    for split in ('train','val'): make_set(tmp_path/'set'/split, SAMPLE)
    labels = tmp_path/'set/train/labels/a.fleet'
    labels.write_text(TEXT+TEXT.splitlines(keepends=True)[1])               # the first ship once more
    assert sniff_format(tmp_path/'set')=='fleet'
    done = doctor(tmp_path/'set', images=False).fix(tmp_path/'mended', names={'tug':'harbour tug'})
    assert 'dropped' in set(done.done)
    assert (tmp_path/'mended/train/labels/a.fleet').read_text()==TEXT.replace('tug at', 'harbour tug at')
    rotnb_convert(str(tmp_path/'mended'), str(tmp_path/'dota'), to='dota')
    rotnb_convert(str(tmp_path/'dota'), str(tmp_path/'again'), to='fleet')
    rotnb_convert(str(tmp_path/'set'), str(tmp_path/'again'), to='fleet', overwrite=True)      # its own files are replaced
    a,b = (read_format(tmp_path/name, 'val')[0] for name in ('set','again'))
    assert a.names==b.names and np.abs(a.quads-b.quads).max()<.02
    dls = RotatedDataLoaders.from_format(tmp_path/'mended', size=64, bs=1, num_workers=0, device='cpu')
    assert list(dls.vocab)==['harbour tug','tanker','tug'] or list(dls.vocab)==['harbour tug','tanker']

def test_a_name_that_is_taken_is_warned_of():
    old = FORMATS['dota']
    try:
        with pytest.warns(UserWarning, match="format 'dota' of rotnb.data.formats.dota is replaced"):
            @register_format
            class Dota(LabelFormat): "Another"
    finally: FORMATS['dota'] = old
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        register_format(type(FORMATS['fleet']))                             # a cell that runs again

def test_the_lesson_is_short():
    cells = [cell for cell in read_nb(ROOT/'nbs/tutorials/new_format.ipynb').cells if cell.cell_type=='code']
    lines = [line for cell in cells[1:] for line in cell.source.splitlines() if line.strip() and not re.match(r'\s*#', line)]
    assert len(lines)<=60
