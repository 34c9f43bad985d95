"Label Studio: regions of several controls, the annotation that counts, JSON-MIN"
import json
import numpy as np, pytest
from hypothesis import given, strategies as st
from PIL import Image
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.label_studio_tasks import brush_mask
from rotnb.data.formats.table import sniff_format
from rotnb.data.mend.sources import label_sources
from rotnb.geometry.outlines import outline_mask
from format_checks import CHECKS, LabelSample
from label_sets import WANT, folder, gap, mended, quad, read

# ---- as exported ----

def control(kind, value, id, **more):
    return dict(id=id, type=kind, from_name='label', to_name='image', original_width=200, original_height=100, value=value, **more)
TANK = dict(x=60, y=20, width=15, height=35, rotation=0, rectanglelabels=['storage tank'])
RESULTS = [control('polygonlabels', dict(points=[[5,10],[25,12],[25,30],[5,28]], polygonlabels=['ship']), 'p', score=.5),
           control('rectanglelabels', TANK, 'r', meta=dict(text=['sure','difficult'])),
           dict(from_id='p', to_id='r', type='relation', direction='right'),
           control('ellipselabels', dict(x=20, y=70, radiusX=10, radiusY=8, rotation=0, ellipselabels=['ship']), 'e')]
def export(results):
    data = dict(image='/data/upload/3/0a1b2c3d-a.png')
    return json.dumps([dict(id=7, data=data, annotations=[dict(id=1, result=results)])])
TEXT = export(RESULTS)
ROWS = [([10,10,50,12,50,30,10,28],'ship',0), ([120,20,150,20,150,55,120,55],'storage tank',1), ([20,62,60,62,60,78,20,78],'ship',0)]
SAMPLE = LabelSample('label_studio', 'export.json', TEXT, ROWS, TEXT.replace('"width": 15', '"width": "x"'), ': [0] region 1',
                     export([]), other_name='tug')

@pytest.mark.parametrize('check', CHECKS)
def test_label_studio(tmp_path, check): check(tmp_path, SAMPLE)

VALUES = [{**TANK, 'rectanglelabels':[name], 'x':x} for x,name in ((60,'ship'),(10,'tank'))]
MINI = json.dumps([dict(id=1, photo='a.png', box=VALUES, note=['x'])])
MINI_ROWS = [([x,20,x+30,20,x+30,55,x,55],name,0) for x,name in ((120,'ship'),(20,'tank'))]
SHORT = LabelSample('label_studio', 'export.json', MINI, MINI_ROWS, MINI.replace('"x": 10', '"x": "ten"'), ': [0] region 1',
                    json.dumps([dict(id=1, photo='a.png', box=[])]), other_name='tug')

@pytest.mark.parametrize('check', [check for check in CHECKS if check.__name__!='empty'])
def test_json_min(tmp_path, check): check(tmp_path, SHORT)

# ---- regions ----

PLACE = dict(x=20, y=37.5, width=20, height=15, rotation=0)
def region(kind='rectanglelabels', control='label', id='r1', place=PLACE, **value):
    return dict(id=id, type=kind, from_name=control, to_name='image', original_width=400, original_height=200, value={**place, **value})
def task(*annotations, name='a.png', **kw): return dict(id=1, data=dict(image=name), annotations=list(annotations), **kw)
def done(*results, **kw): return dict(id=1, result=list(results), **kw)
def tasks(root, *some): return folder(root, {'a.png':None, 't.json':list(some)})
def results(file): return json.loads(file.read_text())[0]['annotations'][0]['result']

EXTRAS = [region('choices', 'c', choices=['x']), region('textarea', 't', text=['AB']), region('rating', 'n', rating=3),
          region('taxonomy', 'y', taxonomy=[['a','b']]), region('number', 'k', number=4),
          dict(id='im', type='choices', from_name='weather', to_name='image', value=dict(choices=['fog'])),
          dict(type='relation', from_id='r1', to_id='r2')]
DRAWN = [[region(rectanglelabels=['ship'])], [region('rectangle', 'bbox'), region('labels', labels=['ship'])],
         [region('labels', labels=['ship']), region('rectangle', 'bbox')]]

@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('drawn', DRAWN)
def test_what_is_said_of_a_region_is_no_region(tmp_path, drawn, first):
    (annot,),said = read(tasks(tmp_path, task(done(*(drawn+EXTRAS if first else EXTRAS+drawn)))))
    assert annot.names==['ship'] and said=='' and gap(annot.quads[0], [[80,75],[160,75],[160,105],[80,105]])<1e-6
    file = mended(tmp_path, WANT)                                                # every result of the region has the new place
    places = [(result['value']['x'],result['value']['rotation']) for result in results(file) if 'width' in result.get('value', {})]
    assert len(places)==len(drawn)+5 and len(set(places))==1 and gap(read(tmp_path)[0][0].quads[0], WANT)<1e-3
    source = label_sources(tmp_path)[0]
    source.save(source.read(), [])
    assert [result.get('id') for result in results(file)]==['im',None]

def test_a_region_with_two_labels_is_two_boxes_and_stays_one_region(tmp_path):
    root = tasks(tmp_path, task(done(region(rectanglelabels=['ship','plane']), region(id='r2', rectanglelabels=['car']))))
    source = label_sources(root)[0]
    assert read(root)[0][0].names==['ship','plane','car']
    base = source.read(); rows = base.rows
    base = source.save(base, [(rows[0],0),((rows[1][0],'boat',0),1),(rows[2],2)])
    assert [result['value']['rectanglelabels'] for result in results(source.file)]==[['ship','boat'],['car']]
    base = source.save(base, [(base.rows[0],0),((WANT.ravel().tolist(),'boat',0),1),(base.rows[2],2)])
    got = results(source.file)
    assert [result['value']['rectanglelabels'] for result in got]==[['ship'],['boat'],['car']]
    assert len({result['id'] for result in got})==3 and gap(base.rows[1][0], WANT)<1e-3
    source.save(base, [(base.rows[1],1)])
    assert read(root)[0][0].names==['boat']

def test_one_of_two_labels_dropped(tmp_path):
    source = label_sources(tasks(tmp_path, task(done(region(rectanglelabels=['ship','plane'])))))[0]
    base = source.read()
    source.save(base, [(base.rows[1],1)])
    assert [result['value']['rectanglelabels'] for result in results(source.file)]==[['plane']]

def test_ellipses_stay_ellipses(tmp_path):
    ellipse = dict(x=30, y=45, radiusX=10, radiusY=7.5, rotation=30)
    root = tasks(tmp_path, task(done(region('ellipselabels', place=ellipse, ellipselabels=['tank']))))
    assert gap(read(root)[0][0].quads[0], WANT)<1e-6
    value = results(mended(root, quad(150, 100, 60, 40, -20)))[0]['value']
    assert np.allclose([value[key] for key in ('x','y','radiusX','radiusY','rotation')], [37.5,50,7.5,10,340])

def test_numbers_and_texts_of_controls_follow_the_box(tmp_path):
    place = dict(x=float(WANT[0,0]/4), y=float(WANT[0,1]/2), width=20, height=15, rotation=30)
    def part(name, **value): return dict(id='r', from_name=name, to_name='image', type=name, value={**place, **value})
    said = part('rectanglelabels', rectanglelabels=['ship']),part('heading', number=30),part('angle', text=['30']),part('count', number=30)
    values = [result['value'] for result in results(mended(tasks(tmp_path, task(done(*said))), quad(150, 100, 60, 20, 75)))]
    assert (values[1]['number'],values[2]['text'],values[3]['number'])==(75,['75'],30)

# ---- annotations ----

A,B,NONE = [done(region(rectanglelabels=[name])) for name in ('boat','ship')]+[done()]
REVIEWED = dict(A, reviews=[dict(accepted=True, created_at='2026-01-01'), dict(accepted=False, created_at='2026-02-01')])

@pytest.mark.parametrize('first, second, name, several', [
    (A, dict(B, ground_truth=True), 'ship', False),
    (dict(A, was_cancelled=True), B, 'ship', False), (dict(A, skipped=True), B, 'ship', False),
    (A, dict(B, reviews=[dict(accepted=True)]), 'ship', False), (dict(A, reviews=[dict(accepted=False)]), B, 'ship', False),
    (REVIEWED, B, 'ship', False), (A, dict(B, last_action='accepted'), 'ship', False), (NONE, B, 'ship', True), (B, A, 'ship', True),
    (B, B, 'ship', False), (dict(B, ground_truth=True), A, 'ship', False)])
def test_the_annotation_that_counts(tmp_path, first, second, name, several):
    (annot,),said = read(tasks(tmp_path, task(first, second)))
    assert annot.names==[name] and ('several annotations of equal standing' in said)==several
    assert (doctor(tmp_path, images=False).findings.kind=='several').sum()==several
    source, = label_sources(tmp_path)
    base = source.read()
    assert base.rows[0][1]==name
    source.save(base, [((base.rows[0][0],'tug',0),0)])
    assert read(tmp_path)[0][0].names==['tug']

def test_predictions_and_drafts_were_never_submitted(tmp_path):
    (annot,),said = read(tasks(tmp_path, task(predictions=[done(region(rectanglelabels=['ship']))], drafts=[done()])))
    assert len(annot)==0 and '1 predictions and 1 drafts, which nobody submitted' in said

def test_json_min_by_any_control(tmp_path):
    value = region(rectanglelabels=['ship'])['value']
    mini = dict(id=1, photo='/data/upload/1/0a1b2c3d-a.png', where=[PLACE], what=[{**PLACE, 'labels':['ship']}], note=['x'], annotator=1)
    root = tasks(tmp_path, mini)
    assert sniff_format(root)=='label_studio' and read(root)[0][0].names==['ship']
    (root/'t.json').write_text(json.dumps([dict(id=9, image='a.png'), dict(id=1, image='a.png', tag=[value])]))
    assert sniff_format(root)=='label_studio'
    (root/'t.json').write_text(json.dumps([dict(id=1, image='a.png', tag=[value])]))
    source, = label_sources(root)
    base = source.read()
    source.save(base, [((WANT.ravel().tolist(),'ship',0),0),((quad(200, 100, 50, 20, 0).ravel().tolist(),'car',0),None)])
    assert read(root)[0][0].names==['ship','car']

# ---- painted ----

# 16 x 12 pixels, an L, as encode_rle of label-studio-converter 0.0.59 writes it
STROKE = [0,0,3,0, 57,27,254,139,0,196,127,248,108,3,17,255,225,176,12,71,255,134,192,49,31,254,27,0,183,255,140,192,45,255,227,48,11,
          127,248,204,2,223,254,167,0,0]

def painted(root, scale=1):
    value = dict(format='rle', rle=STROKE, brushlabels=['ship'])
    one = dict(id='b', type='brushlabels', from_name='brush', to_name='image', original_width=16, original_height=12, value=value)
    tasks(root, task(done(one)))
    Image.new('RGB', (16*scale,12*scale)).save(root/'a.png')
    return root

@pytest.mark.parametrize('scale', [1, 3])
def test_a_brush_stroke_is_an_outline(tmp_path, scale):
    "In pixels of the image, though it was painted on a smaller one"
    (annot,),said = read(painted(tmp_path, scale))
    mask = np.zeros((12,16), bool)
    mask[2:6,3:12] = mask[6:10,3:6] = True
    assert annot.names==['ship'] and (outline_mask(annot.outlines[0]/scale, (16,12))==mask).all()
    assert gap(annot.quads[0], scale*np.array([[3,2],[12,2],[12,10],[3,10]]))<1e-6

def test_a_stroke_that_is_edited_becomes_a_rectangle(tmp_path):
    source, = label_sources(painted(tmp_path))
    base = source.read()
    source.save(base, [(([3,2,13,2,13,10,3,10],'ship',0),0)])
    new, = results(tmp_path/'t.json')
    assert new['type']=='rectanglelabels' and new['value']['rectanglelabels']==['ship']
    assert not {'rle','format','brushlabels'}&{*new['value']}
    (annot,),_ = read(tmp_path)
    assert gap(annot.quads[0], [[3,2],[13,2],[13,10],[3,10]])<1e-6

@given(st.integers(1, 9), st.integers(1, 7), st.binary(max_size=40))
def test_broken_strokes_raise_value_errors(width, height, data):
    head = (4*width*height).to_bytes(4, 'big')
    for bad in (data, head+data):
        try: assert brush_mask([*bad], (width,height)).shape==(height,width)
        except ValueError: pass
