"UCAS-AOD: the class is the folder's name"
import pytest
from rotnb.data.doctor.report import doctor
from format_checks import CHECKS, LabelSample, make_set

TEXT = ('10\t10\t50\t10\t50\t30\t10\t30\t0.0\t10\t10\t40\t20\n'
        '120\t20\t150\t25\t145\t55\t115\t50\t0.16\t115\t20\t35\t35\n')
ROWS = [([10,10,50,10,50,30,10,30],'car',0), ([120,20,150,25,145,55,115,50],'car',0)]
SAMPLE = LabelSample('ucas_aod', 'CAR/a.txt', TEXT, ROWS, TEXT.replace('150\t25', '150\tx'), ':2', '\n')

@pytest.mark.parametrize('check', CHECKS)
def test_ucas(tmp_path, check): check(tmp_path, SAMPLE)

def test_objects_can_be_dropped_in_place(tmp_path):
    make_set(tmp_path/'set', SAMPLE, TEXT+TEXT[:TEXT.index('\n')+1])
    done = doctor(tmp_path/'set', images=False).fix(tmp_path/'mended')
    assert done.done.tolist()==['dropped'] and (tmp_path/'mended/CAR/a.txt').read_text()==TEXT
