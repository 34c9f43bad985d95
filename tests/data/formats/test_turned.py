"Angles beside a box, and fields that repeat a box kept in step when it is edited"
import json
import numpy as np, pytest
from rotnb.cli.convert import convert
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.table import sniff_format
from rotnb.data.labels.records import LabelError
from label_sets import NEW, WANT, coco, folder, gap, mended, quad, read

BOX,UNTURNED = [80.,75.,80.,30.],[[80.,75,160,75,160,105,80,105]]
UPRIGHT = quad(120, 90, 80, 30, 0)

@pytest.mark.parametrize('beside', [
    dict(attributes=dict(occluded=False, rotation=30.)), dict(attributes=dict(rotation='390')), dict(attributes=dict(Rotation=-330)),
    dict(attributes=[dict(name='rotation', value=30)]), dict(attributes=[dict(key='x', value=1), dict(key='rotation', value='30.0')])])
@pytest.mark.parametrize('outline', [[], UNTURNED, [WANT.ravel().tolist()], None])
def test_coco_with_the_angle_in_attributes(tmp_path, beside, outline):
    (annot,),said = read(coco(tmp_path, dict(bbox=BOX, segmentation=outline, area=2400., **beside)))
    assert gap(annot.quads[0], WANT)<1e-6 and said==''

def test_a_pivot_that_the_file_does_not_give_is_asked_for(tmp_path):
    root = coco(tmp_path, dict(bbox=BOX, rotation=30.))
    with pytest.raises(LabelError, match="pass pivot='middle' or pivot='corner'"): read(root)
    with pytest.raises(ValueError, match="pivot is 'left'"): read(root, pivot='left')
    assert gap(read(root, pivot='middle')[0][0].quads[0], WANT)<1e-6
    cos,sin = np.cos(np.pi/6),np.sin(np.pi/6)
    about_corner = [[80+x*cos-y*sin, 75+x*sin+y*cos] for x,y in ((0,0),(80,0),(80,30),(0,30))]
    assert np.allclose(read(root, pivot='corner')[0][0].quads[0], about_corner)
    for pivot in ('middle','corner'): assert (doctor(root, images=False, pivot=pivot).findings.kind=='angle').sum()==0
    assert convert(root, tmp_path.parent/f'{tmp_path.name}o', 'dota', pivot='corner')['']==(1,1)
    new = quad(100, 80, 60, 20, 70)
    entry = json.loads(mended(root, new, pivot='corner').read_text())['annotations'][0]
    assert abs(entry['rotation']-70)<1e-6 and gap(read(root, pivot='corner')[0][0].quads[0], new)<1e-3

def voc(beside):
    box = '<bndbox><xmin>80</xmin><ymin>75</ymin><xmax>160</xmax><ymax>105</ymax></bndbox>'
    return {'a.xml':f'<annotation><object><name>ship</name>{box}{beside}</object></annotation>'}

def cvat(beside):
    box = f'<box label="ship" xtl="80" ytl="75" xbr="160" ybr="105">{beside}</box>'
    return {'x.xml':f'<annotations><image name="a.png">{box}</image></annotations>'}

def label_studio(key):
    place = dict(x=20, y=37.5, width=20, height=15, rotation=0)
    results = [dict(id='r', type='rectanglelabels', from_name='l', value={**place, 'rectanglelabels':['ship']}),
               dict(id='r', type='number', from_name=key, value={**place, 'number':30})]
    return {'t.json':[dict(id=1, data=dict(image='a.png'), annotations=[dict(result=results)])]}

def coco_file(key):
    entry = dict(id=1, image_id=1, category_id=1, bbox=BOX, extra={key:30})
    return {'a.json':dict(images=[dict(id=1, file_name='a.png')], categories=[dict(id=1, name='ship')], annotations=[entry])}

BESIDE = dict(
    coco=coco_file, label_studio=label_studio, voc=lambda key: voc(f'<{key}>30</{key}>'),
    voc_attribute=lambda key: voc(f'<attributes><attribute><name>{key}</name><value>30</value></attribute></attributes>'),
    cvat=lambda key: cvat(f'<attribute name="{key}">30</attribute>'),
    labelme=lambda key: {'a.json':dict(shapes=[{'label':'ship', 'points':[[80,75],[160,105]], 'shape_type':'rectangle', key:.5}])},
    csv=lambda key: {'a.csv':f'image,name,xmin,ymin,xmax,ymax,{key}\na.png,ship,80,75,160,105,30\n'})

@pytest.mark.parametrize('key', ['angle','theta','direction','orientation','rotate','degree','box_rot','rotationDeg'])
@pytest.mark.parametrize('where', BESIDE)
def test_an_angle_that_is_not_understood_is_reported(tmp_path, key, where):
    root = folder(tmp_path, {'a.png':None, **BESIDE[where](key)})
    (annot,),said = read(root)
    assert len(annot)==1 and '1 boxes are read without something that looks like their angle' in said and key in said
    found = doctor(root, images=False).to_dataframe('angle')
    assert found.severity.tolist()==['warning'] and key in found.message.iloc[0]

def test_what_is_no_angle_is_not_reported(tmp_path):
    attributes = dict(occluded=True, rotated=False, rotation=0.0, rectangle=7, triangle_id=5, orientation='left', truncated=1)
    outlined = dict(segmentation=[WANT.ravel().tolist()], bbox=[1,1,2,2], theta=.3)
    assert read(coco(tmp_path, dict(bbox=BOX, attributes=attributes), dict(bbox=BOX, angle=90), outlined))[1]==''

@pytest.mark.parametrize('beside', [dict(rbox=[120,90,80,30,.52]), dict(obb=WANT.ravel().tolist()), dict(meta=dict(corners=WANT.tolist())),
                                    dict(poly=WANT.ravel().tolist()), dict(tilt=30), dict(ang='30 deg')])
def test_another_turned_box_beside_an_upright_one_is_reported(tmp_path, beside):
    root = coco(tmp_path, dict(bbox=BOX, **beside))
    assert sniff_format(root)=='coco'
    (annot,),said = read(root)
    assert gap(annot.quads[0], UPRIGHT)<1e-6 and 'looks like their angle' in said and [*beside][0] in said
    assert (doctor(root, images=False).findings.kind=='angle').sum()==1
    same = dict(rbox=[120,90,80,30,0.], corners=[80,75,160,75,160,105,80,105], keypoints=[1,2,2])
    assert read(coco(tmp_path/'same', dict(bbox=BOX, **same)))[1]==''

def test_a_rotation_of_zero_hides_no_other_angle(tmp_path):
    zero = dict(attributes=dict(rotation=0.))
    assert gap(read(coco(tmp_path/'a', dict(bbox=BOX, rotation=30., **zero)), pivot='middle')[0][0].quads[0], WANT)<1e-6
    with pytest.raises(LabelError, match='pass pivot'): read(coco(tmp_path/'b', dict(bbox=BOX, rotation=30., **zero)))
    assert 'angle is 30' in read(coco(tmp_path/'c', dict(bbox=BOX, angle=30., **zero)))[1]

@pytest.mark.parametrize('beside, turned', [('<attributes><attribute name="rotation" value="30"/></attributes>', True),
                                            ('<pose rotation="30"/>', False), ('<angle unit="deg">30</angle>', False)])
def test_angles_in_attributes_of_xml(tmp_path, beside, turned):
    root = folder(tmp_path, {'a.png':None, **voc(beside)})
    (annot,),said = read(root)
    assert gap(annot.quads[0], WANT if turned else UPRIGHT)<1e-6 and bool(said)!=turned
    if turned: assert b'value="75.' in mended(root, NEW).read_bytes() and gap(read(root)[0][0].quads[0], NEW)<1e-3

def test_an_angle_beside_the_corners_of_a_table(tmp_path):
    def table(q): return f'image,name,x1,y1,x2,y2,x3,y3,x4,y4,angle\na.png,ship,{",".join(map(str, q.ravel()))},30\n'
    assert 'angle is 30' in read(folder(tmp_path/'a', {'a.png':None, 'a.csv':table(UPRIGHT)}))[1]
    assert read(folder(tmp_path/'b', {'a.png':None, 'a.csv':table(WANT)}))[1]==''
    with pytest.raises(LabelError, match='expected columns'):
        read(folder(tmp_path/'c', {'a.png':None, 'a.csv':'image,name,x1,y1,x2,y2\na.png,ship,1,2,3,4\n'}))

def test_an_outline_at_another_angle_is_reported(tmp_path):
    (annot,),said = read(coco(tmp_path, dict(segmentation=[WANT.ravel().tolist()], bbox=BOX, attributes=dict(rotation=-30.))))
    assert gap(annot.quads[0], WANT)<1e-6 and 'the outline lies at 30.0 degrees' in said

# ---- in step ----

def test_lists_and_units_follow_a_box(tmp_path):
    hull = [*WANT.min(0).tolist(),*np.ptp(WANT, axis=0).tolist()]
    beside = dict(rbox=[120,90,80,30,np.pi/6], xywha=[80,75,80,30,30], embedding=[1.,2,3,4,5],
                  attributes=dict(rotation=[30], angle='30°', speed=[30]))
    root = coco(tmp_path, dict(bbox=hull, segmentation=[WANT.ravel().tolist()], area=2400., **beside))
    entry = json.loads(mended(root, NEW).read_text())['annotations'][0]
    assert np.allclose(entry['rbox'], [150,100,60,20,np.deg2rad(75)], atol=1e-3)
    assert np.allclose(entry['xywha'], [120,90,60,20,75], atol=1e-3) and entry['embedding']==[1,2,3,4,5]
    assert entry['attributes']==dict(rotation=[75.], angle='75°', speed=[30])
    assert np.allclose(entry['bbox'], [*NEW.min(0),*np.ptp(NEW, axis=0)], atol=1e-3)       # the bbox lies around the outline still

def test_columns_of_a_table_follow_a_box(tmp_path):
    text = 'image,name,cx,cy,w,h,angle_deg,area,rotation\na.png,ship,120,90,80,30,30,2400,30\n'
    root = folder(tmp_path, {'a.png':None, 'a.csv':text})
    assert mended(root, NEW).read_text().splitlines()[1].split(',')[-2:]==['1200','75'] and gap(read(root)[0][0].quads[0], NEW)<1e-3
