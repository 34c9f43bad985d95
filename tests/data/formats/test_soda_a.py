"SODA-A: one JSON file per image"
import json
import pytest
from rotnb.data.formats.soda_a import is_soda
from format_checks import CHECKS, LabelSample

IMAGE = dict(file_name='a.jpg', height=100, width=200, id=1)
OBJECTS = [dict(poly=[10,10,50,12,50,30,10,28], category_id=4), dict(poly=[120,20,150,20,150,55,120,55], category_id=6),
           dict(poly=[1,1,9,1,9,5,1,5], category_id=9)]                    # ground to ignore
def text(objects): return json.dumps(dict(images=IMAGE, annotations=objects))
ROWS = [([10,10,50,12,50,30,10,28],'ship',0), ([120,20,150,20,150,55,120,55],'storage-tank',0)]
BROKEN = text(OBJECTS).replace('120, 20', '120, "x"')
SAMPLE = LabelSample('soda_a', 'annotations/a.json', text(OBJECTS), ROWS, BROKEN, ': annotations[1]', text([]))

@pytest.mark.parametrize('check', CHECKS)
def test_soda_a(tmp_path, check): check(tmp_path, SAMPLE)

@pytest.mark.parametrize('doc', [None, [], 5, {}, dict(annotations={}), dict(images=[], annotations=[dict(bbox=[1,1,2,2], poly=[])]),
                                 dict(images=[], annotations=[]), dict(images=[], annotations=[None])])
def test_other_json_is_not_taken_for_soda(doc): assert not is_soda(doc)
