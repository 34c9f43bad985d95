"labelme and X-AnyLabeling"
import base64, io, json
import numpy as np, pytest
from PIL import Image
from rotnb.cli.convert import convert
from rotnb.data.formats.format import FORMATS
from rotnb.data.labels.records import Annot
from format_checks import CHECKS, LabelSample
from label_sets import NEW, WANT, folder, mended

def mask(h, w):
    out = io.BytesIO(); Image.fromarray(np.full((h,w), 255, np.uint8)).save(out, 'png')
    return base64.b64encode(out.getvalue()).decode()

SHAPES = [dict(label='ship', points=[[10,10],[50,12],[50,30],[10,28]], shape_type='polygon', flags={}, group_id=3),
          dict(label='storage tank', points=[[150,55],[120,20]], shape_type='rectangle', flags=dict(difficult=True)),
          dict(label='pier', points=[[1,1],[9,9]], shape_type='line', flags={}),
          dict(label='ship', points=[[60,70],[79,79]], shape_type='mask', mask=mask(10, 20), flags={})]
IMAGE = dict(imagePath='a.png', imageData=None, imageHeight=100, imageWidth=200)
TEXT = json.dumps(dict(version='5.5.0', flags={}, shapes=SHAPES, **IMAGE), indent=2)
ROWS = [([10,10,50,12,50,30,10,28],'ship',0), ([120,20,150,20,150,55,120,55],'storage tank',1), ([60,70,80,70,80,80,60,80],'ship',0)]
EMPTY = json.dumps(dict(version='5.5.0', shapes=[], **IMAGE))
SAMPLE = LabelSample('labelme', 'images/a.json', TEXT, ROWS, TEXT.replace('150,', '"x",'), ': shapes[1]', EMPTY, other_name='tug')

@pytest.mark.parametrize('check', CHECKS)
def test_labelme(tmp_path, check): check(tmp_path, SAMPLE)

def test_the_image_is_found_in_every_layout(tmp_path):
    root = folder(tmp_path/'a', {'images/train/x.png':None, 'images/val/y.png':None})
    for split,name in (('train','x'),('val','y')):
        FORMATS['dota'].write([Annot(root/f'images/{split}/{name}.png', WANT[None], ['ship'], np.ones(1, int))], root, split, ['ship'])
    for how in ('copy','link','none'):
        convert(root, tmp_path/how, 'labelme', images=how)
        for file in (tmp_path/how).rglob('*.json'):
            doc = json.loads(file.read_text())
            assert (file.parent/doc['imagePath']).exists() and doc['shapes'][0]['flags']=={'difficult':True}, how
            if how=='copy': assert doc['imagePath']==f'../../images/{file.parent.name}/{file.stem}.png'

def test_a_turned_rectangle_stays_one_with_its_direction(tmp_path):
    def hull(q): return [*q.min(0),*q.max(0)]
    shape = dict(label='s', shape_type='rotation', points=WANT.tolist(), direction=np.pi/6, bbox=hull(WANT),
                 attributes=dict(angle=30, track=30))
    root = folder(tmp_path, {'a.png':None, 'a.json':dict(shapes=[shape])})
    shape = json.loads(mended(root, NEW).read_text())['shapes'][0]
    assert abs(shape['direction']-np.deg2rad(75))<1e-4 and abs(shape['attributes']['angle']-75)<1e-4
    assert shape['attributes']['track']==30 and np.allclose(shape['bbox'], hull(NEW), atol=1e-3)
    shape = json.loads(mended(root, [[10,10],[90,14],[80,60],[12,50]]).read_text())['shapes'][0]
    assert shape['shape_type']=='polygon' and 'direction' not in shape
