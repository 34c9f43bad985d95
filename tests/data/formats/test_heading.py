"The table of formats says which hold a heading: written and read back it is there, or the format does not say so"
import math
from pathlib import Path
import numpy as np, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from rotnb.cli.convert import convert
from rotnb.cli.split import split_scenes
from rotnb.data.formats.csv_table import csv_table
from rotnb.data.formats.format import FORMATS
from rotnb.data.formats.table import format_table, read_format
from rotnb.data.formats.voc import HRSC_TYPES
from rotnb.data.formats.label_studio import region_result
from rotnb.data.labels.records import Annot
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.fit import with_heading
from rotnb.predict.results import geojson, results_df
from paths import SHARED

few = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
WRITTEN = [name for name,fmt in FORMATS.items() if fmt.write]
HELD = [name for name in WRITTEN if 'heading' in FORMATS[name].holds]
box = st.tuples(st.floats(60, 140), st.floats(60, 90), st.floats(20, 40), st.floats(8, 18), st.floats(-3.14, 3.14))
boxes = st.lists(box, min_size=1, max_size=5)

def there_and_back(root, name, rboxes):
    "Headings of boxes, radians, written in a format and read"
    fmt = FORMATS[name]
    (root/'images').mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (200,150)).save(root/'images/a.png')
    classes = ['ship'] if name=='hrsc' else [next(iter(HRSC_TYPES.values()))] if name=='hrsc_types' else ['plane']
    annot = Annot(root/'images/a.png', rbox2qbox(np.array(rboxes, float)), classes*len(rboxes), np.zeros(len(rboxes), int), (200,150))
    fmt.write([annot], root, '', classes, **(dict(border='keep') if fmt.clips else {}))
    back, = read_format(root, format=name, **(dict(vocab=classes) if fmt.numbered else {}))
    return with_heading(back.quads)[0][:,4]

@pytest.mark.parametrize('name', HELD)
def test_a_heading_stays(name, tmp_path):
    numbers = iter(range(1000))
    @given(rboxes=boxes)
    @few
    def one(rboxes):
        found = there_and_back(tmp_path/str(next(numbers)), name, rboxes)
        assert len(found)==len(rboxes)
        most = .08 if FORMATS[name].tolerance>.5 else .02                                  # whole pixels turn the side of 20 px
        apart = np.arccos(np.clip(np.cos(found-np.array(rboxes)[:,4]), -1, 1))
        assert (apart<most).all(), np.degrees(apart)
    one()

@pytest.mark.parametrize('name', [name for name in WRITTEN if name not in HELD])
def test_the_table_is_not_too_modest(name, tmp_path):
    "What is said to be lost is lost, of one box at least"
    thetas = np.linspace(-3, 3, 9)
    found = there_and_back(tmp_path, name, [[100,75,40,14,theta] for theta in thetas])
    assert (np.cos(found-thetas)<.9).any() or name=='soda_a'                               # which keeps the order of corners, by accident

def test_the_table_says_it():
    for line in format_table().splitlines()[2:]:
        name,*_,lost = (cell.strip() for cell in line.strip('|').split('|'))
        if FORMATS[name].write: assert ('heading' in lost)==(name not in HELD), line

# --- from one format to another

THETAS = np.linspace(-3, 3, 7)

def front_left_first(root, names):
    "A set of DOTA whose boxes begin at the front left, as there"
    (root/'images').mkdir(parents=True)
    Image.new('RGB', (200,150)).save(root/'images/a.png')
    quads = rbox2qbox(np.array([[30+22.*i,30+14.*i,40,16,theta] for i,theta in enumerate(THETAS)]))
    annot = Annot(root/'images/a.png', np.roll(quads, -1, 1), names, np.zeros(len(THETAS), int), front='across')
    FORMATS['dota'].write([annot], root, '', sorted(set(names)))
    return root

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', HELD)
def test_the_converter_keeps_fronts(name, tmp_path):
    "Of a set that begins boxes at the front edge: in the other format the front is where it was, and so it is on the way back"
    classes = ['ship'] if name=='hrsc' else [next(iter(HRSC_TYPES.values()))] if name=='hrsc_types' else ['plane']
    was, = read_format(front_left_first(tmp_path/'a', classes*len(THETAS)), format='dota')
    assert was.front=='across' and np.allclose(np.cos(was.heading-THETAS), 1, atol=1e-4)
    more = dict(border='keep') if FORMATS[name].clips else {}
    convert(tmp_path/'a', tmp_path/'b', name, images='link', **more)
    now, = read_format(tmp_path/'b', format=name)
    most = .08 if FORMATS[name].tolerance>.5 else .02
    assert now.front==FORMATS[name].front and (np.arccos(np.clip(np.cos(now.heading-THETAS), -1, 1))<most).all()
    convert(tmp_path/'b', tmp_path/'c', 'dota', format=name, images='link')
    back, = read_format(tmp_path/'c', format='dota')
    assert np.abs(back.quads-was.quads).max()<max(.02, 1.5*FORMATS[name].tolerance)

@pytest.mark.filterwarnings('ignore')
def test_windows_of_any_set_begin_as_those_of_dota(tmp_path):
    "They are written as DOTA, whose reader takes corner 0 to 1 for the front edge"
    front_left_first(tmp_path/'a', ['plane']*len(THETAS))
    convert(tmp_path/'a', tmp_path/'b', 'yolo_obb', images='link', border='keep')
    for of in 'ab':
        split_scenes(tmp_path/of, tmp_path/f'{of}_windows', (200,), (50,), n_workers=1)
        window, = read_format(tmp_path/f'{of}_windows', format='dota')
        assert len(window)==len(THETAS) and np.allclose(np.cos(window.heading-THETAS), 1, atol=1e-3)

@given(st.lists(box, max_size=3), st.sampled_from(['along','across']), st.sampled_from(['along','across']))
@settings(deadline=None)
def test_corners_begun_elsewhere_are_the_same_corners(rboxes, front, other):
    annot = Annot(Path('a.png'), rbox2qbox(np.array(rboxes).reshape(-1,5)), ['plane']*len(rboxes), np.zeros(len(rboxes), int), front=front)
    there = annot.begun(other)
    assert there.front==other and np.array_equal(there.heading, annot.heading)
    assert np.array_equal(there.begun(front).quads, annot.quads) and (front==other)==(there is annot)

# --- as tools write it

def test_a_table_of_detections_is_read_as_labels_with_their_fronts(tmp_path):
    "Of `found.df` and of `write_predictions`: the box is spelt in le90, the front beside it, upright boxes too"
    Image.new('RGB', (200,150)).save(tmp_path/'a.png')
    rows = np.array([[60.,60,40,20,.3],[120,90,40,20,0],[60,110,30,20,0]])
    fronts = np.array([.3+math.pi,math.pi/2,.2])
    found = dict(boxes=rows, scores=np.ones(3), labels=np.zeros(3, int), heading=fronts)
    table = results_df({'a.png':found}, ['plane'])
    (tmp_path/'labels.csv').write_text(csv_table(table))
    back, = read_format(tmp_path, format='csv')
    assert np.allclose(np.cos(with_heading(back.quads)[0][:,4]-[.3+math.pi,math.pi/2,0]), 1)
    degrees = table.assign(heading_deg=np.degrees(table.pop('heading')))
    (tmp_path/'labels.csv').write_text(csv_table(degrees))
    assert np.allclose(read_format(tmp_path, format='csv')[0].quads, back.quads)

def test_geojson_of_detections_is_read_as_labels_with_their_fronts(tmp_path):
    Image.new('RGB', (200,150)).save(tmp_path/'a.png')
    found = dict(boxes=np.array([[60.,60,20,40,.3]]), scores=np.ones(1), labels=np.zeros(1, int), heading=np.array([.3-math.pi]))
    (tmp_path/'a.geojson').write_text(__import__('json').dumps(geojson(found, ['plane'])))
    back, = read_format(tmp_path, format='geojson')
    assert math.cos(with_heading(back.quads)[0][0,4]-(.3-math.pi))>.9999

@pytest.mark.parametrize('theta', np.linspace(-3.1, 3.1, 9))
def test_label_studio_turns_all_the_way(theta):
    "Its rotation runs through a whole turn, about the corner that the turned box begins at"
    quad, = rbox2qbox(np.array([[100,75,40,14,theta]]))
    value = region_result('a', quad, 'plane', (200,150), 'label', 'image')['value']
    assert abs(value['rotation']-np.degrees(theta)%360)<1e-6 and abs(value['x']-quad[0,0]/2)<1e-9

REAL = pytest.mark.skipif(not (SHARED/'data').exists(), reason='needs the reference folder shared/')

@REAL
def test_roLabelImg_turns_beyond_half():
    "Angles above pi occur in the set of piglets, and corner 0 to 1 runs along them"
    annots = read_format(SHARED/'data/rolabelimg_piglet', format='rolabelimg', on_bad='warn')
    angles = np.concatenate([annot.angle for annot in annots])
    along = np.concatenate([with_heading(annot.quads)[0][:,4] for annot in annots])
    assert (angles>math.pi).any() and np.cos(along-angles).min()>.9999

@REAL
def test_the_head_of_a_ship_of_hrsc_is_a_point():
    import xml.etree.ElementTree as ET
    from rotnb.data.formats.voc import HRSC_TYPES
    file = next((SHARED/'data/hrsc/xml').glob('*.xml'))
    rows = [parse() for _,_,parse in FORMATS['hrsc'].entries(file)]
    heads = [(float(o.findtext('header_x')),float(o.findtext('header_y'))) for o in ET.parse(file).getroot().iter('HRSC_Object')]
    for row,head in zip(rows, heads):
        (x,y,*_,theta), = with_heading(np.reshape(row[0], (1,4,2)))[0]
        assert math.cos(theta)*(head[0]-x)+math.sin(theta)*(head[1]-y)>0

@REAL
def test_the_corners_of_dota_say_headings_and_those_of_others_do_not():
    "The trap that the doctor names: over how much of the circle corner 0 to 1 points, in real sets"
    from rotnb.data.doctor.boxes import check_headings, gather_boxes
    from rotnb.data.labels.subsets import fronted_annots
    def said(folder, format, name, front='along'):
        annots = read_format(SHARED/'data'/folder, format=format, on_bad='warn')
        return check_headings(gather_boxes(dict(train=annots)), {name:360}, front)
    for name in ('ship','small-vehicle','large-vehicle'): # all the way round, and the front edge is first
        found, = said('dota', 'dota', name)
        assert "front='across'" in found.message and not said('dota', 'dota', name, FORMATS['dota'].front)
    mended = fronted_annots(read_format(SHARED/'data/dota', format='dota', on_bad='warn'))
    assert not check_headings(gather_boxes(dict(train=mended)), {'ship':360})
    trap = said('ssdd', 'ssdd', 'ship')
    assert any('no heading' in found.message for found in trap)
    assert any('no heading' in found.message for found in said('dior_r', 'dior', 'ship'))
