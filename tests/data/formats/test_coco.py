"COCO: outlines, masks, five numbers, and what is mended in place"
import json
from pathlib import Path
import numpy as np, pytest
from rotnb.cli.convert import losses
from rotnb.data.formats.format import FORMATS
from rotnb.data.formats.table import read_format
from rotnb.data.labels.records import Annot, LabelError
from rotnb.geometry.boxes import rbox2qbox
from format_checks import CHECKS, LabelSample
from label_sets import NEW, WANT, coco, folder, gap, mended, quad, read

MASK = dict(size=[100,200], counts=[0,0]) # filled in below: columns 120 to 149, rows 20 to 54
MASK['counts'] = [120*100+20,35,*[65,35]*29,45+50*100]
ENTRIES = ['{"id": 1, "image_id": 7, "category_id": 3, "segmentation": [[10.0,10,50,12,50,30,10,28]], '
           '"bbox": [10,10,40,20], "area": 7e2, "who": "é"}',
           '{"id": 2, "image_id": 7, "category_id": 4, "segmentation": %s, "bbox": [120,20,30,35], "iscrowd": 1}'%json.dumps(MASK),
           '{"id": 5, "image_id": 7, "category_id": 3, "bbox": [-4,60,24,20]}']
HEAD = '{"info": {"year": 2.0e3}, "images": [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}],\n "annotations": ['
TAIL = '],\n "categories": [{"id": 3, "name": "ship"}, {"id": 4, "name": "storage tank"}]}\n'
TEXT = HEAD+',\n  '.join(ENTRIES)+TAIL
ROWS = [([10,10,50,12,50,30,10,28],'ship',0), ([120,20,150,20,150,55,120,55],'storage tank',1), ([-4,60,20,60,20,80,-4,80],'ship',0)]
BROKEN = TEXT.replace('[120,20,30,35]', '[120,20]').replace(json.dumps(MASK), 'null')
SAMPLE = LabelSample('coco', 'annotations/instances.json', TEXT, ROWS, BROKEN, ': annotations[1]', HEAD+TAIL, other_name='tug')
HRSID = LabelSample('hrsid', 'a.json', TEXT, ROWS, TEXT.replace('"category_id": 4', '"category_id": 9'), ': annotations[1]', HEAD+TAIL,
                    recognised='coco')

@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('sample', [SAMPLE,HRSID], ids=['coco','hrsid'])
def test_coco(tmp_path, sample, check): check(tmp_path, sample)

def test_five_numbers_are_not_guessed(tmp_path):
    root = coco(tmp_path, dict(bbox=[50,50,40,20,30]))
    with pytest.raises(LabelError, match=r"annotations\[0\].*pass rbox='deg'"): read_format(root)
    for rbox,sign in (('deg',1),('deg_ccw',-1)):
        wanted = rbox2qbox(np.array([[50,50,40,20,sign*np.pi/6]]))[0]
        np.testing.assert_allclose(read_format(root, rbox=rbox)[0].quads[0], wanted, atol=1e-6)

UNTURNED = [[80.,75.,160,75,160,105,80,105]]

@pytest.mark.parametrize('outline', [[], UNTURNED, [WANT.ravel().tolist()]])
def test_an_entry_stays_as_its_tool_wrote_it(tmp_path, outline):
    root = coco(tmp_path, dict(bbox=[80.,75.,80.,30.], segmentation=outline, area=2400., attributes=dict(rotation=30., id=7)))
    entry = json.loads(mended(root, NEW).read_text())['annotations'][0]
    assert np.allclose(entry['bbox'], [120,90,60,20]) and abs(entry['area']-1200)<.1
    assert abs(entry['attributes']['rotation']-75)<1e-6 and entry['attributes']['id']==7
    if outline: assert gap(entry['segmentation'][0], NEW if outline!=UNTURNED else quad(150, 100, 60, 20, 0))<1e-3
    else: assert not entry['segmentation']
    assert gap(read(root)[0][0].quads[0], NEW)<1e-3
    free = [[10,10],[90,14],[80,60],[12,50]]
    mended(root, free)
    assert gap(read(root)[0][0].quads[0], free)<1e-3

def test_losses_name_what_evaluators_overwrite():
    annot = Annot(Path('a.png'), WANT[None], ['ship'], np.ones(1, int))
    assert any('iscrowd' in said for said in losses([annot], FORMATS['coco']))
    assert not any('iscrowd' in said for said in losses([annot], FORMATS['labelme']))

def test_images_of_one_name_keep_their_folders(tmp_path):
    root = folder(tmp_path, {'images/p/a.png':None, 'images/q/a.png':None})
    annots = [Annot(root/f'images/{k}/a.png', WANT[None], [k], np.zeros(1, int)) for k in 'pq']
    with pytest.raises(LabelError, match='both called a.png'): FORMATS['coco'].write(annots, root, '', ['p','q'])
