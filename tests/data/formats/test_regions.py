"Angles that stand beside a box, regions of label tools, and fields that repeat a box kept in step when it is mended"
import json, warnings
import xml.etree.ElementTree as ET
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from rotnb.cli.convert import convert
from rotnb.data.labels.records import *
from rotnb.data.formats.table import FORMATS, has_split, read_format, sniff_format
from rotnb.data.doctor.report import doctor
from rotnb.data.mend.sources import label_sources
from rotnb.geometry.boxes import rbox2qbox

def quad(cx, cy, w, h, deg): return rbox2qbox(np.array([[cx,cy,w,h,np.deg2rad(deg)]]))[0]
def gap(a, b): return min(np.abs(np.roll(np.reshape(a, (4,2)), k, 0)-b).max() for k in range(4))
WANT = quad(120, 90, 80, 30, 30)

def folder(root, files, size=(400,200)):
    "Images where no text is given"
    for k,v in files.items():
        f = Path(root)/k; f.parent.mkdir(parents=True, exist_ok=True)
        if v is None: Image.new('RGB', size).save(f)
        else: f.write_text(v if isinstance(v, str) else json.dumps(v))
    return Path(root)

def read(root, *args, **kw):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always'); res = read_format(root, *args, **kw)
    return res,'\n'.join(str(o.message) for o in w if issubclass(o.category, LabelWarning))

def coco(root, *anns):
    anns = [dict(dict(id=i, image_id=1, category_id=1, iscrowd=0), **a) for i,a in enumerate(anns, 1)]
    return folder(root, {'images/a.png':None, 'a.json':dict(images=[dict(id=1, file_name='a.png', width=400, height=200)], categories=[dict(id=1, name='ship')], annotations=anns)})

def mended(root, new, i=0, **kw):
    "The set's file after one box was given other corners"
    s = label_sources(root, **kw)[0]; base = s.read(); rows = [(r,k) for k,r in enumerate(base.rows)]
    rows[i] = ((np.ravel(new).tolist(),*rows[i][0][1:]),i); s.save(base, rows)
    return s.file

# ---- angles ----

BOX,UNTURNED = [80.,75.,80.,30.],[[80.,75,160,75,160,105,80,105]]

@pytest.mark.parametrize('beside', [dict(attributes=dict(occluded=False, rotation=30.)), dict(attributes=dict(rotation='390')), dict(attributes=dict(Rotation=-330)),
                                    dict(attributes=[dict(name='rotation', value=30)]), dict(attributes=[dict(key='x', value=1), dict(key='rotation', value='30.0')])])
@pytest.mark.parametrize('seg', [[], UNTURNED, [WANT.ravel().tolist()], None])
def test_coco_with_the_angle_in_attributes(tmp_path, beside, seg):
    a,w = read(coco(tmp_path, dict(bbox=BOX, segmentation=seg, area=2400., **beside)))
    assert gap(a[0].quads[0], WANT)<1e-6 and w==''

def test_a_pivot_that_the_file_does_not_tell_is_asked_for(tmp_path):
    root = coco(tmp_path, dict(bbox=BOX, rotation=30.))
    with pytest.raises(LabelError, match="pass pivot='middle' or pivot='corner'"): read(root)
    with pytest.raises(ValueError, match="pivot is 'left'"): read(root, pivot='left')
    assert gap(read(root, pivot='middle')[0][0].quads[0], WANT)<1e-6
    c,s = np.cos(np.pi/6),np.sin(np.pi/6)
    assert np.allclose(read(root, pivot='corner')[0][0].quads[0], [[80+x*c-y*s, 75+x*s+y*c] for x,y in ((0,0),(80,0),(80,30),(0,30))])
    for p in ('middle','corner'): assert (doctor(root, images=False, pivot=p).findings.kind=='angle').sum()==0
    assert convert(root, tmp_path.parent/f'{tmp_path.name}o', 'dota', pivot='corner')['']==(1,1)
    f = mended(root, quad(100, 80, 60, 20, 70), pivot='corner'); o = json.loads(f.read_text())['annotations'][0]
    assert abs(o['rotation']-70)<1e-6 and gap(read(root, pivot='corner')[0][0].quads[0], quad(100, 80, 60, 20, 70))<1e-3

@pytest.mark.parametrize('key', ['angle','theta','direction','orientation','rotate','degree','box_rot','rotationDeg'])
@pytest.mark.parametrize('where', ['coco','voc','voc attribute','cvat','labelme','label_studio','csv'])
def test_an_angle_that_is_not_understood_is_told(tmp_path, key, where):
    obj = '<object><name>ship</name><bndbox><xmin>80</xmin><ymin>75</ymin><xmax>160</xmax><ymax>105</ymax></bndbox>{}</object>'
    place = dict(x=20, y=37.5, width=20, height=15, rotation=0)
    def voc(s): return {'a.xml':f'<annotation>{obj.format(s)}</annotation>'}
    files = dict(coco=lambda: {'a.json':json.loads((coco(tmp_path/'c', dict(bbox=BOX, extra={key:30}))/'a.json').read_text())},
        cvat=lambda: {'x.xml':f'<annotations><image name="a.png"><box label="ship" xtl="80" ytl="75" xbr="160" ybr="105"><attribute name="{key}">30</attribute></box></image></annotations>'},
        labelme=lambda: {'a.json':dict(shapes=[{'label':'ship', 'points':[[80,75],[160,105]], 'shape_type':'rectangle', key:.5}])},
        label_studio=lambda: {'t.json':[dict(id=1, data=dict(image='a.png'), annotations=[dict(result=[
            dict(id='r', type='rectanglelabels', from_name='l', value={**place, 'rectanglelabels':['ship']}), dict(id='r', type='number', from_name=key, value={**place, 'number':30})])])]},
        csv=lambda: {'a.csv':f'image,name,xmin,ymin,xmax,ymax,{key}\na.png,ship,80,75,160,105,30\n'})
    root = folder(tmp_path/'s', {'a.png':None, **(voc(f'<{key}>30</{key}>') if where=='voc' else voc(f'<attributes><attribute><name>{key}</name><value>30</value></attribute></attributes>')
                                                  if where=='voc attribute' else files[where]())})
    a,w = read(root); assert len(a[0])==1 and '1 boxes are read without something that looks like their angle' in w and key in w
    f = doctor(root, images=False).to_dataframe('angle'); assert len(f)==1 and f.severity[f.index[0]]=='warning' and key in f.message[f.index[0]]

def test_what_is_no_angle_is_not_told(tmp_path):
    quiet = dict(bbox=BOX, attributes=dict(occluded=True, rotated=False, rotation=0.0, rectangle=7, triangle_id=5, orientation='left', truncated=1)),dict(bbox=BOX, angle=90), \
            dict(segmentation=[WANT.ravel().tolist()], bbox=[1,1,2,2], theta=.3)
    assert read(coco(tmp_path, *quiet))[1]==''

@pytest.mark.parametrize('beside', [dict(rbox=[120,90,80,30,.52]), dict(obb=WANT.ravel().tolist()), dict(meta=dict(corners=WANT.tolist())), dict(poly=WANT.ravel().tolist()), dict(tilt=30), dict(ang='30 deg')])
def test_another_turned_box_beside_an_upright_one_is_told(tmp_path, beside):
    root = coco(tmp_path, dict(bbox=BOX, **beside)); assert sniff_format(root)=='coco'
    (a,),w = read(root); assert gap(a.quads[0], quad(120, 90, 80, 30, 0))<1e-6 and 'looks like their angle' in w and [*beside][0] in w
    assert (doctor(root, images=False).findings.kind=='angle').sum()==1
    same = dict(rbox=[120,90,80,30,0.], corners=[80,75,160,75,160,105,80,105], keypoints=[1,2,2])
    assert read(coco(tmp_path/'same', dict(bbox=BOX, **same)))[1]==''

def test_a_rotation_of_zero_hides_no_other_angle(tmp_path):
    zero = dict(attributes=dict(rotation=0.))
    assert gap(read(coco(tmp_path/'a', dict(bbox=BOX, rotation=30., **zero)), pivot='middle')[0][0].quads[0], WANT)<1e-6
    with pytest.raises(LabelError, match='pass pivot'): read(coco(tmp_path/'b', dict(bbox=BOX, rotation=30., **zero)))
    assert 'angle is 30' in read(coco(tmp_path/'c', dict(bbox=BOX, angle=30., **zero)))[1]

@pytest.mark.parametrize('text,turned', [('<attributes><attribute name="rotation" value="30"/></attributes>', True), ('<pose rotation="30"/>', False), ('<angle unit="deg">30</angle>', False)])
def test_angles_in_attributes_of_xml(tmp_path, text, turned):
    box = '<bndbox><xmin>80</xmin><ymin>75</ymin><xmax>160</xmax><ymax>105</ymax></bndbox>'
    root = folder(tmp_path, {'a.png':None, 'a.xml':f'<annotation><object><name>ship</name>{box}{text}</object></annotation>'}); (a,),w = read(root)
    assert gap(a.quads[0], WANT if turned else quad(120, 90, 80, 30, 0))<1e-6 and bool(w)!=turned
    if turned: assert b'value="75.' in mended(root, NEW).read_bytes() and gap(read(root)[0][0].quads[0], NEW)<1e-3

def test_an_angle_beside_the_corners_of_a_table(tmp_path):
    row = lambda q: f'image,name,x1,y1,x2,y2,x3,y3,x4,y4,angle\na.png,ship,{",".join(map(str, q.ravel()))},30\n'
    assert 'angle is 30' in read(folder(tmp_path/'a', {'a.png':None, 'a.csv':row(quad(120, 90, 80, 30, 0))}))[1] and read(folder(tmp_path/'b', {'a.png':None, 'a.csv':row(WANT)}))[1]==''
    with pytest.raises(LabelError, match='expected columns'): read(folder(tmp_path/'c', {'a.png':None, 'a.csv':'image,name,x1,y1,x2,y2\na.png,ship,1,2,3,4\n'}))

def test_an_outline_at_another_angle_is_told(tmp_path):
    a,w = read(coco(tmp_path, dict(segmentation=[WANT.ravel().tolist()], bbox=BOX, attributes=dict(rotation=-30.))))
    assert gap(a[0].quads[0], WANT)<1e-6 and 'the outline lies at 30.0 degrees' in w

# ---- regions of Label Studio ----

PLACE = dict(x=20, y=37.5, width=20, height=15, rotation=0)
def region(kind='rectanglelabels', control='label', id='r1', place=PLACE, **v): return dict(id=id, type=kind, from_name=control, to_name='image', original_width=400, original_height=200, value={**place, **v})
def task(*annotations, name='a.png', **kw): return dict(id=1, data=dict(image=name), annotations=list(annotations), **kw)
def done(*results, **kw): return dict(id=1, result=list(results), **kw)
def tasks(root, *some): return folder(root, {'a.png':None, 't.json':list(some)})

EXTRAS = [region('choices', 'c', choices=['x']), region('textarea', 't', text=['AB']), region('rating', 'n', rating=3), region('taxonomy', 'y', taxonomy=[['a','b']]), region('number', 'k', number=4),
          dict(id='im', type='choices', from_name='weather', to_name='image', value=dict(choices=['fog'])), dict(type='relation', from_id='r1', to_id='r2')]

@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('drawn', [[region(rectanglelabels=['ship'])], [region('rectangle', 'bbox'), region('labels', labels=['ship'])], [region('labels', labels=['ship']), region('rectangle', 'bbox')]])
def test_what_is_said_of_a_region_is_no_region(tmp_path, drawn, first):
    a,w = read(tasks(tmp_path, task(done(*(drawn+EXTRAS if first else EXTRAS+drawn)))))
    assert a[0].names==['ship'] and w=='' and gap(a[0].quads[0], [[80,75],[160,75],[160,105],[80,105]])<1e-6
    f = mended(tmp_path, WANT)                                                   # every result of the region has the new place
    places = [(r['value']['x'],r['value']['rotation']) for r in json.loads(f.read_text())[0]['annotations'][0]['result'] if 'width' in r.get('value', {})]
    assert len(places)==len(drawn)+5 and len(set(places))==1 and gap(read(tmp_path)[0][0].quads[0], WANT)<1e-3
    s = label_sources(tmp_path)[0]; s.save(s.read(), [])
    assert [r.get('id') for r in json.loads(f.read_text())[0]['annotations'][0]['result']]==['im',None]

def test_a_region_with_two_labels_is_two_boxes_and_stays_one_region(tmp_path):
    root = tasks(tmp_path, task(done(region(rectanglelabels=['ship','plane']), region(id='r2', rectanglelabels=['car'])))); s = label_sources(root)[0]
    assert read(root)[0][0].names==['ship','plane','car']
    base = s.read(); r = base.rows
    base = s.save(base, [(r[0],0),((r[1][0],'boat',0),1),(r[2],2)]); got = json.loads(s.file.read_text())[0]['annotations'][0]['result']
    assert [o['value']['rectanglelabels'] for o in got]==[['ship','boat'],['car']]
    base = s.save(base, [(base.rows[0],0),((WANT.ravel().tolist(),'boat',0),1),(base.rows[2],2)]); got = json.loads(s.file.read_text())[0]['annotations'][0]['result']
    assert [o['value']['rectanglelabels'] for o in got]==[['ship'],['boat'],['car']] and len({o['id'] for o in got})==3 and gap(base.rows[1][0], WANT)<1e-3
    s.save(base, [(base.rows[1],1)]); assert read(root)[0][0].names==['boat']

def test_one_of_two_labels_dropped(tmp_path):
    s = label_sources(tasks(tmp_path, task(done(region(rectanglelabels=['ship','plane'])))))[0]; base = s.read()
    s.save(base, [(base.rows[1],1)]); r, = json.loads(s.file.read_text())[0]['annotations'][0]['result']; assert r['value']['rectanglelabels']==['plane']

A,B,NONE = [done(region(rectanglelabels=[n])) for n in ('boat','ship')]+[done()]

@pytest.mark.parametrize('first, second, name, told', [
    (A, dict(B, ground_truth=True), 'ship', False), (dict(A, was_cancelled=True), B, 'ship', False), (dict(A, skipped=True), B, 'ship', False),
    (A, dict(B, reviews=[dict(accepted=True)]), 'ship', False), (dict(A, reviews=[dict(accepted=False)]), B, 'ship', False),
    (dict(A, reviews=[dict(accepted=True, created_at='2026-01-01'), dict(accepted=False, created_at='2026-02-01')]), B, 'ship', False),
    (A, dict(B, last_action='accepted'), 'ship', False), (NONE, B, 'ship', True), (B, A, 'ship', True), (B, B, 'ship', False), (dict(B, ground_truth=True), A, 'ship', False)])
def test_the_annotation_that_counts(tmp_path, first, second, name, told):
    a,w = read(tasks(tmp_path, task(first, second))); assert a[0].names==[name] and ('several annotations of equal standing' in w)==told
    assert (doctor(tmp_path, images=False).findings.kind=='several').sum()==told
    s, = label_sources(tmp_path); base = s.read(); assert base.rows[0][1]==name
    s.save(base, [((base.rows[0][0],'tug',0),0)]); assert read(tmp_path)[0][0].names==['tug']

def test_predictions_and_drafts_are_nobodys_word(tmp_path):
    a,w = read(tasks(tmp_path, task(predictions=[done(region(rectanglelabels=['ship']))], drafts=[done()])))
    assert len(a[0])==0 and '1 predictions and 1 drafts, which nobody submitted' in w

def test_json_min_by_any_control(tmp_path):
    v = region(rectanglelabels=['ship'])['value']
    root = tasks(tmp_path, dict(id=1, photo='/data/upload/1/0a1b2c3d-a.png', where=[PLACE], what=[{**PLACE, 'labels':['ship']}], note=['x'], annotator=1), )
    assert sniff_format(root)=='label_studio' and read(root)[0][0].names==['ship']
    (root/'t.json').write_text(json.dumps([dict(id=9, image='a.png'), dict(id=1, image='a.png', tag=[v])]))
    assert sniff_format(root)=='label_studio'
    (root/'t.json').write_text(json.dumps([dict(id=1, image='a.png', tag=[v])])); s, = label_sources(root); base = s.read()
    s.save(base, [((WANT.ravel().tolist(),'ship',0),0),((quad(200, 100, 50, 20, 0).ravel().tolist(),'car',0),None)]); assert read(root)[0][0].names==['ship','car']

def test_ellipses_stay_ellipses(tmp_path):
    e = dict(x=30, y=45, radiusX=10, radiusY=7.5, rotation=30)
    root = tasks(tmp_path/'ls', task(done(region('ellipselabels', place=e, ellipselabels=['tank'])))); assert gap(read(root)[0][0].quads[0], WANT)<1e-6
    v = json.loads(mended(root, quad(150, 100, 60, 40, -20)).read_text())[0]['annotations'][0]['result'][0]['value']
    assert np.allclose([v[k] for k in ('x','y','radiusX','radiusY','rotation')], [37.5,50,7.5,10,340])
    root = folder(tmp_path/'cvat', {'a.png':None, 'x.xml':'<annotations><image name="a.png"><ellipse label="tank" cx="120" cy="90" rx="40" ry="15" rotation="30"/></image></annotations>'})
    assert gap(read(root)[0][0].quads[0], WANT)<1e-6
    o = ET.parse(mended(root, quad(150, 100, 60, 40, -20))).getroot()[0][0]; assert o.tag=='ellipse' and np.allclose([float(o.get(k)) for k in ('cx','cy','rx','ry','rotation')], [150,100,30,20,340])
    mended(root, [[10,10],[90,14],[80,60],[12,50]]); assert ET.parse(root/'x.xml').getroot()[0][0].tag=='polygon'

# ---- subsets ----

def project(root, *subsets, head=''):
    x = ''.join(f'<image id="{i}" name="a.png" subset="{s}"><box label="ship" xtl="80" ytl="75" xbr="160" ybr="105" rotation="{30*i}"/></image>' for i,s in enumerate(subsets))
    return folder(root, {**{f'images/{s}/a.png':None for s in subsets}, 'annotations.xml':f'<annotations><meta>{head}</meta>{x}</annotations>'})

def test_subsets_of_a_project_are_its_splits(tmp_path):
    "By folder or file; converted, edited, examined; images of one name"
    root = project(tmp_path/'p', 'Train', 'Validation')
    for p in (root, root/'annotations.xml'):
        assert [has_split(p, s, FORMATS['cvat']) for s in ('train','val','test')]==[True,True,False]
        (a,),_ = read(p, 'val'); assert a.image==root/'images/Validation/a.png' and gap(a.quads[0], WANT)<1e-4
    assert convert(root, tmp_path/'o', 'dota')|{'losses':0}==dict(train=(1,1), val=(1,1), losses=0)
    s, = label_sources(root, 'val'); assert s.image.parent.name=='Validation'; base = s.read()
    s.save(base, [((base.rows[0][0],'tug',0),0)]); assert [read(root, k)[0][0].names for k in ('train','val')]==[['ship'],['tug']]
    assert doctor(root, images=False).splits==['train','val']

def test_a_job_tells_its_subset_at_the_head(tmp_path):
    text = '<annotations><meta><job><subset>Train</subset></job></meta><image id="0" name="a.png" width="400" height="200"><box label="ship" xtl="80" ytl="75" xbr="160" ybr="105" rotation="30"/></image></annotations>'
    root = folder(tmp_path, {'a.png':None, 'annotations.xml':text}); assert len(read(root, 'train')[0])==1 and not has_split(root, 'val', FORMATS['cvat'])
    mended(root, NEW, split='train'); assert gap(read(root, 'train')[0][0].quads[0], NEW)<1e-3

def test_other_subsets_are_told(tmp_path):
    root = project(tmp_path, 'Train', 'Batch 7'); assert 'left out' in read(root, 'train')[1] and 'Batch 7' in read(root, 'train')[1]
    assert len(read(root)[0])==2
    with pytest.raises(DatasetLayoutError): read(root, 'val')
    one = folder(tmp_path/'t', {'images/a.png':None, 'annotations.xml':'<annotations><meta><task><subset>Test</subset></task></meta><image name="a.png"/></annotations>'})
    assert has_split(one, 'test', FORMATS['cvat']) and not has_split(one, 'train', FORMATS['cvat'])

# ---- in step ----

NEW = quad(150, 100, 60, 20, 75)

@pytest.mark.parametrize('seg', [[], UNTURNED, [WANT.ravel().tolist()]])
def test_coco_stays_as_its_tool_wrote_it(tmp_path, seg):
    root = coco(tmp_path, dict(bbox=BOX, segmentation=seg, area=2400., attributes=dict(rotation=30., id=7)))
    o = json.loads(mended(root, NEW).read_text())['annotations'][0]
    assert np.allclose(o['bbox'], [120,90,60,20]) and abs(o['attributes']['rotation']-75)<1e-6 and o['attributes']['id']==7 and abs(o['area']-1200)<.1
    assert not o['segmentation'] if not seg else gap(o['segmentation'][0], NEW if seg!=UNTURNED else quad(150, 100, 60, 20, 0))<1e-3
    assert gap(read(root)[0][0].quads[0], NEW)<1e-3
    free = [[10,10],[90,14],[80,60],[12,50]]; mended(root, free); assert gap(read(root)[0][0].quads[0], free)<1e-3

def test_voc_of_cvat_stays_voc(tmp_path):
    root = folder(tmp_path, {'a.png':None, 'a.xml':'<annotation><object><name>ship</name><bndbox><xmin>80.0</xmin><ymin>75.0</ymin><xmax>160.0</xmax><ymax>105.0</ymax></bndbox>'
                             '<attributes><attribute><name>rotation</name><value>30.0</value></attribute></attributes></object></annotation>'})
    assert gap(read(root)[0][0].quads[0], WANT)<1e-6
    o = ET.parse(mended(root, NEW)).getroot()[0]; assert [float(v.text) for v in o.find('bndbox')]==[120,90,180,110] and float(o.findtext('.//value'))==75 and o.find('robndbox') is None
    assert gap(read(root)[0][0].quads[0], NEW)<1e-3

def test_fields_that_repeat_a_box_follow_it(tmp_path):
    hull = lambda q: [*q.min(0),*q.max(0)]
    root = folder(tmp_path/'lm', {'a.png':None, 'a.json':dict(shapes=[dict(label='s', shape_type='rotation', points=WANT.tolist(), direction=np.pi/6, attributes=dict(angle=30, track=30), bbox=hull(WANT))])})
    s = json.loads(mended(root, NEW).read_text())['shapes'][0]; assert abs(s['direction']-np.deg2rad(75))<1e-4 and abs(s['attributes']['angle']-75)<1e-4 and s['attributes']['track']==30 and np.allclose(s['bbox'], hull(NEW), atol=1e-3)
    s = json.loads(mended(root, [[10,10],[90,14],[80,60],[12,50]]).read_text())['shapes'][0]; assert s['shape_type']=='polygon' and 'direction' not in s
    for k,extra in (('dior','angle'), ('hrsc','box_xmin')):
        root = folder(tmp_path/k, {'a.png':None}); FORMATS[k].write([Annot(root/'a.png', WANT[None], ['ship'], np.zeros(1, int))], root, '', None)
        f = root/'annotations/a.xml'; tree = ET.parse(f); o = next(iter(tree.getroot().iter('HRSC_Object' if k=='hrsc' else 'object'))); ET.SubElement(o, extra).text = '22.0' if k=='dior' else '71'; tree.write(f)
        got = ET.parse(mended(root, NEW, format=k)).getroot().find(f'.//{extra}').text; assert abs(float(got)-(-15 if k=='dior' else NEW[:,0].min()))<1, (k,got)

def test_lists_units_and_controls_follow_a_box(tmp_path):
    lo,wh = WANT.min(0),np.ptp(WANT, axis=0); hull = [*lo.tolist(),*wh.tolist()]
    beside = dict(rbox=[120,90,80,30,np.pi/6], xywha=[80,75,80,30,30], attributes=dict(rotation=[30], angle='30°', speed=[30]), embedding=[1.,2,3,4,5])
    root = coco(tmp_path/'coco', dict(bbox=hull, segmentation=[WANT.ravel().tolist()], area=2400., **beside)); o = json.loads(mended(root, NEW).read_text())['annotations'][0]
    assert np.allclose(o['rbox'], [150,100,60,20,np.deg2rad(75)], atol=1e-3) and np.allclose(o['xywha'], [120,90,60,20,75], atol=1e-3) and o['embedding']==[1,2,3,4,5]
    assert o['attributes']==dict(rotation=[75.], angle='75°', speed=[30]) and np.allclose(o['bbox'], [*NEW.min(0),*np.ptp(NEW, axis=0)], atol=1e-3)       # the bbox lies around the outline still
    place = dict(x=float(WANT[0,0]/4), y=float(WANT[0,1]/2), width=20, height=15, rotation=30)
    part = lambda name, **v: dict(id='r', from_name=name, to_name='image', type=name, value={**place, **v})
    root = folder(tmp_path/'ls', {'a.png':None, 'a.json':[dict(id=1, data=dict(image='a.png'), annotations=[dict(id=1, result=[part('rectanglelabels', rectanglelabels=['ship']), part('heading', number=30), part('angle', text=['30']), part('count', number=30)])])]})
    v = [r['value'] for r in json.loads(mended(root, NEW).read_text())[0]['annotations'][0]['result']]; assert (v[1]['number'],v[2]['text'],v[3]['number'])==(75,['75'],30)
    root = folder(tmp_path/'csv', {'a.png':None, 'a.csv':'image,name,cx,cy,w,h,angle_deg,area,rotation\na.png,ship,120,90,80,30,30,2400,30\n'})
    assert mended(root, NEW).read_text().splitlines()[1].split(',')[-2:]==['1200','75'] and gap(read(root)[0][0].quads[0], NEW)<1e-3

def test_two_class_names_are_refused(tmp_path):
    root = folder(tmp_path, {'a.png':None, 'a.xml':'<annotation><object><name>a</name><name>b</name><robndbox><cx>9</cx><cy>9</cy><w>8</w><h>4</h><angle>0</angle></robndbox></object></annotation>'})
    with pytest.raises(LabelError, match='2 class names: a, b'): read(root)

# ---- what is written ----

def test_losses_name_what_evaluators_overwrite(tmp_path):
    from rotnb.cli.convert import losses
    a = Annot(Path('a.png'), WANT[None], ['ship'], np.ones(1, int))
    assert any('iscrowd' in s for s in losses([a], FORMATS['coco'])) and not any('iscrowd' in s for s in losses([a], FORMATS['labelme']))

def test_labelme_finds_its_image_in_every_layout(tmp_path):
    root = folder(tmp_path/'a', {'images/train/x.png':None, 'images/val/y.png':None})
    for s,n in (('train','x'),('val','y')): FORMATS['dota'].write([Annot(root/f'images/{s}/{n}.png', WANT[None], ['ship'], np.ones(1, int))], root, s, ['ship'])
    for how in ('copy','link','none'):
        convert(root, tmp_path/how, 'labelme', images=how)
        for f in (tmp_path/how).rglob('*.json'):
            d = json.loads(f.read_text()); assert (f.parent/d['imagePath']).exists() and d['shapes'][0]['flags']=={'difficult':True}, how
            if how=='copy': assert d['imagePath']==f'../../images/{f.parent.name}/{f.stem}.png'

def test_cvat_declares_classes_that_are_added_later(tmp_path):
    root = folder(tmp_path, {'images/a.png':None}); FORMATS['cvat'].write([Annot(root/'images/a.png', WANT[None], ['ship'], np.zeros(1, int))], root, '', ['ship'])
    s, = label_sources(root); base = s.read(); s.save(base, [((base.rows[0][0],'tug',0),0)])
    assert [o.findtext('name') for o in ET.parse(s.file).getroot().iter('label')]==['ship','tug'] and read(root)[0][0].names==['tug']
