"labelme and X-AnyLabeling"
import base64, io, json
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from rotnb.cli.convert import convert
from rotnb.data.formats.format import FORMATS
from rotnb.data.formats.labelme import labelme_row
from rotnb.data.formats.table import read_format, sniff_format
from rotnb.data.labels.records import Annot
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.fit import with_heading
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

# --- X-AnyLabeling

TURNED = [dict(label='ship', points=[[10,10],[50,12],[50,30],[10,28]], shape_type='polygon', difficult=False, flags={}),
          dict(label='ship', points=rbox2qbox(np.array([[60.,60,40,16,.4]]))[0].round(4).tolist(), shape_type='rotation', direction=.4,
               difficult=True, flags={}, group_id=None)]
TURNED_TEXT = json.dumps(dict(version='4.2.1', flags={}, shapes=TURNED, **IMAGE), indent=2)
TURNED_ROWS = [([10,10,50,12,50,30,10,28],'ship',0), (np.ravel(TURNED[1]['points']).tolist(),'ship',1)]
TURNED_BROKEN = TURNED_TEXT.replace('[\n          50,', '[\n          "x",', 1)
TURNED_SAMPLE = LabelSample('x_anylabeling', 'images/a.json', TURNED_TEXT, TURNED_ROWS, TURNED_BROKEN, ': shapes[0]', EMPTY,
                            other_name='tug')

@pytest.mark.parametrize('check', CHECKS)
def test_x_anylabeling(tmp_path, check): check(tmp_path, TURNED_SAMPLE)

def along(quad): return with_heading(np.reshape(quad, (1,4,2)))[0][0,4]

@settings(max_examples=80, deadline=None)
@given(theta=st.floats(-3.1, 3.1), first=st.integers(0, 3), quarters=st.integers(-5, 5), back=st.booleans())
def test_the_direction_is_the_heading_whatever_corner_is_first(theta, first, quarters, back):
    "Of any corner, of either way round, in any turn; and the place is the same"
    quad = np.roll(rbox2qbox(np.array([[60.,60,40,16,theta]]))[0], first, 0)
    points = (quad[::-1] if back else quad).tolist()
    row = labelme_row(dict(label='a', shape_type='rotation', points=points, direction=theta+quarters*np.pi/2))
    assert np.cos(along(row[0])-theta-quarters*np.pi/2)>1-1e-6
    assert np.allclose(sorted(np.reshape(row[0], (4,2)).tolist()), sorted(quad.tolist()))

@pytest.mark.parametrize('direction', [0, 40., -1.1, None, 'north', True, float('nan'), [1]])
def test_a_direction_along_no_side_says_nothing(direction):
    "Scripts write 0, or degrees: then corner 0 to 1 counts, as before"
    quad = rbox2qbox(np.array([[60.,60,40,16,.4-np.pi]]))[0]
    assert np.allclose(labelme_row(dict(label='a', shape_type='rotation', points=quad.tolist(), direction=direction))[0], quad.ravel())
    assert np.allclose(labelme_row(dict(label='a', shape_type='polygon', points=quad.tolist(), direction=.4))[0], quad.ravel())

def test_what_is_written_for_x_anylabeling(tmp_path):
    "A rectangle with its direction, another outline as a polygon; both read back by content, and set right when a box is mended"
    root = folder(tmp_path/'a', {'images/x.png':None})
    outlines = np.stack([WANT, [[10,10],[90,14],[80,60],[12,50]]])
    FORMATS['x_anylabeling'].write([Annot(root/'images/x.png', outlines, ['ship','ship'], np.array([1,0]))], root, '', ['ship'])
    turned,odd = json.loads((root/'labels/x.json').read_text())['shapes']
    assert turned['shape_type']=='rotation' and turned['difficult'] is True and odd['shape_type']=='polygon' and 'direction' not in odd
    assert np.cos(turned['direction']-along(WANT))>1-1e-9 and 0<=turned['direction']<2*np.pi+1e-6
    assert sniff_format(root)=='x_anylabeling' and np.allclose(read_format(root)[0].quads[0], WANT, atol=1e-3)
