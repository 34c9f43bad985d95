"Sizes that tables declare, and the readers of DroneVehicle, VOC, YOLO, SODA-A and corner boxes of COCO"
import json, shutil
import numpy as np, pytest
from PIL import Image
from rotnb.all import write_coco
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.table import read_format, sniff_format
from rotnb.data.labels.records import LabelError
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.geometry.boxes import rbox2qbox
from rotnb.cli.convert import convert
from rotnb.data.mend.sources import label_sources
from photos import annotation, BOX, quiet, same, image

@pytest.mark.parametrize('cols,size,k', [('image_width,image_height','320,200',.5), ('width,height','320,200',.5),
    ('img_w,img_h','160,100',1), ('width,height','30,15',1), ('width,height','4.5,2.1',1), ('width,height',',',1), ('width,height',
    '200,320',None)])
def test_sizes_that_a_table_tells(tmp_path, cols, size, k):
    Image.new('RGB', (160,100)).save(tmp_path/'a.png')
    (tmp_path/'a.csv').write_text(f'image,{cols},name,xmin,ymin,xmax,ymax\na.png,{size},ship,40,20,70,35\n')
    if k is None:
        with pytest.raises(LabelError, match='another shape'): read_format(tmp_path)
        return
    (a,),said = quiet(read_format, tmp_path)
    assert np.allclose(a.quads[0], np.array([[40,20],[70,20],[70,35],[40,35]])*k) and ('another size' in said)==(k!=1)
    s, = label_sources(tmp_path)
    base = s.read()
    s.save(base, [((a.quads[0]+4).ravel().tolist(),'ship',0)] and [(((a.quads[0]+4).ravel().tolist(),'ship',0),0)])
    (b,),_ = quiet(read_format, tmp_path); assert np.allclose(b.quads, a.quads+4) and size in (tmp_path/'a.csv').read_text()

def made(root, form):
    box = '<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>35</ymax></bndbox>'
    if form=='dronevehicle':
        image(root/'trainimg', '00001.jpg')
        (root/'trainlabel').mkdir()
        corners = ''.join(f'<x{i}>{x:.0f}</x{i}><y{i}>{y:.0f}</y{i}>' for i,(x,y) in enumerate(BOX, 1))
        objects = (('feright car',f'<polygon>{corners}</polygon>'), ('truvk',box), ('*',box))
        text = annotation(''.join(f'<object><name>{name}</name>{inside}</object>' for name,inside in objects), (160,100), '00001.jpg')
        (root/'trainlabel/00001.xml').write_text(text)
        return ['freight-car','truck']
    if form=='voc':
        image(root, 'a.jpg')
        (root/'a.xml').write_text(annotation(f'<object><name>ship</name><difficult>0</difficult>{box}</object>', (160,100)))
        return ['ship']
    if form=='yolo':
        image(root/'images', 'a.jpg')
        (root/'labels').mkdir()
        (root/'labels/a.txt').write_text('1 0.5 0.5 0.25 0.2\n0 0.1 0.2 0.05 0.1\n')
        (root/'data.yaml').write_text('names: [car, ship]\n')
        return ['ship','car']
    if form=='soda_a':
        image(root/'Images', '00001.jpg')
        (root/'Annotations').mkdir()
        boxes = [dict(poly=BOX.ravel().tolist(), category_id=4, area=1.), dict(poly=[1,1,5,1,5,4,1,4], category_id=9)]
        whole = dict(images=dict(file_name='00001.jpg', width=160, height=100, id=1), annotations=boxes, categories=[])
        (root/'Annotations/00001.json').write_text(json.dumps(whole))
        return ['ship']

@pytest.mark.parametrize('form', ['dronevehicle','voc','yolo','soda_a'])
def test_new_readers_are_found_read_and_examined(tmp_path, form):
    names = made(tmp_path/'set', form); assert sniff_format(tmp_path/'set')==form
    (a,),_ = quiet(read_format, tmp_path/'set'); assert a.names==names
    if form in ('dronevehicle','soda_a'): assert same(a.quads[0], BOX, .51)
    if form=='voc': assert same(a.quads[0], np.array([[10,20],[40,20],[40,35],[10,35]]))
    if form=='yolo': assert same(a.quads[0], np.array([[60,40],[100,40],[100,60],[60,60]]), 1e-6)
    rep,_ = quiet(doctor, tmp_path/'set'); assert rep.format==form and rep.errors==0, rep
    quiet(convert, tmp_path/'set', tmp_path/'out', 'dota'); (b,),_ = quiet(read_format, tmp_path/'out'); assert len(b)==len(a)
    assert callable(getattr(RotatedDataLoaders, f'from_{form}'))

def test_points_of_dronevehicle_are_no_boxes(tmp_path):
    made(tmp_path, 'dronevehicle'); f = tmp_path/'trainlabel/00001.xml'
    f.write_text(f.read_text().replace('</annotation>', '<object><name>car</name><point><x>5</x><y>6</y></point></object></annotation>'))
    (a,),w = quiet(read_format, tmp_path); assert len(a)==2 and '<point>' in w

def test_two_modalities_are_told_apart_by_their_folders(tmp_path):
    made(tmp_path, 'dronevehicle')
    for a,b in (('trainimg','trainimgr'),('trainlabel','trainlabelr')): shutil.copytree(tmp_path/a, tmp_path/b)
    for r in ('','r'):
        a, = quiet(read_format, tmp_path, images=f'trainimg{r}', labels=f'trainlabel{r}')[0]
        assert a.image.parent.name==f'trainimg{r}' and f'trainlabel{r}/' in a.where[0]

def test_yolo_with_confidences_are_no_labels(tmp_path):
    made(tmp_path, 'yolo'); (tmp_path/'labels/a.txt').write_text('1 0.5 0.5 0.25 0.2 0.9\n')
    with pytest.raises(LabelError, match='predictions'): read_format(tmp_path, format='yolo')

@pytest.mark.parametrize('unit', ['deg','deg_corner','deg_pivot','rad_corner','rad_ccw_corner','deg_ccw_pivot'])
def test_five_numbers_from_the_corner(tmp_path, unit):
    r = np.array([80,50,40,12,.6]); image(tmp_path, 'a.jpg'); w,h,t = r[2:]; c = rbox2qbox(r[None])[0,0]
    x,y = r[:2]-[w/2,h/2] if 'corner' in unit else c if 'pivot' in unit else r[:2]
    t = (np.rad2deg(t) if 'deg' in unit else t)*(-1 if 'ccw' in unit else 1)
    (tmp_path/'a.json').write_text(json.dumps(dict(images=[dict(id=1, file_name='a.jpg', width=160, height=100)], categories=[dict(id=1,
        name='ship')],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[x,y,w,h,t])])))
    a, = read_format(tmp_path, format='coco', rbox=unit); np.testing.assert_allclose(a.quads[0], rbox2qbox(r[None])[0], atol=1e-6)
    write_coco([a], tmp_path/'b/b.json', ['ship'], rbox=unit)
    np.testing.assert_allclose(json.loads((tmp_path/'b/b.json').read_text())['annotations'][0]['bbox'], [x,y,w,h,t], atol=1e-3)
    s, = label_sources(tmp_path/'a.json', format='coco', rbox=unit)
    base = s.read()
    s.save(base, [((a.quads[0]+2).ravel().tolist(),'ship',0)] and [(((a.quads[0]+2).ravel().tolist(),'ship',0),0)])
    a2, = read_format(tmp_path/'a.json', format='coco', rbox=unit); np.testing.assert_allclose(a2.quads, a.quads+2, atol=1e-3)
