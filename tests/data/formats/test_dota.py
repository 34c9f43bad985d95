"DOTA and SRSDD"
import pytest
from format_checks import CHECKS, LabelSample

TEXT = ('imagesource:GoogleEarth\ngsd:0.146\n10.0 10.0 50.5 10.0 50.5 30.0 10.0 30.0 large-vehicle 0\n'
        '120 20 150.0 25 145 55 115 50 storage tank 1\n-4 60 20 60 20 80 -4 80 ship\n')
ROWS = [([10,10,50.5,10,50.5,30,10,30],'large-vehicle',0),
        ([120,20,150,25,145,55,115,50],'storage tank',1), ([-4,60,20,60,20,80,-4,80],'ship',0)]
DOTA = LabelSample('dota', 'labelTxt/a.txt', TEXT, ROWS, TEXT.replace('150.0 25', '150.0 x'), ':4', 'imagesource:GoogleEarth\ngsd:null\n',
                   other_name='ship')

@pytest.mark.parametrize('check', CHECKS)
def test_dota(tmp_path, check): check(tmp_path, DOTA)

@pytest.mark.parametrize('check', CHECKS)
def test_srsdd(tmp_path, check):
    sample = LabelSample('srsdd', 'Annotations/a.txt', TEXT, ROWS, DOTA.broken, ':4', DOTA.empty, 'dota', other_name='ship')
    check(tmp_path, sample)
