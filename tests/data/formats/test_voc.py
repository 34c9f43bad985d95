"VOC and its relatives: one XML file per image, as the sets and label tools write it"
import xml.etree.ElementTree as ET
import numpy as np, pytest
from rotnb.data.formats.format import FORMATS, LabelProbe
from rotnb.data.formats.voc import ObjectXml
from rotnb.data.formats.xml_text import parse_xml
from rotnb.data.labels.records import Annot, LabelError
from rotnb.geometry.boxes import rbox2qbox
from format_checks import CHECKS, LabelSample
from label_sets import NEW, WANT, folder, gap, mended, read

FIRST,SECOND,THIRD = (50.,40.,40.,12.,.4),(130.,50.,50.,16.,-.7),(20.,70.,24.,10.,0.) # cx, cy, w, h, radians
FLAGS = 0,1,0

def corners(box): return rbox2qbox(np.array([box]))[0]
def element(tag, text): return f'<{tag}>{text}</{tag}>'
def elements(names, values): return ''.join(element(name, f'{value:.6f}') for name,value in zip(names.split(), values))

def lines(objects, tag, own): return ''.join(f'<{tag}>{body}{own}</{tag}>\n' for body in objects)

def voc_text(objects): # with what tools add: comments, ids, an indentation of their own
    head = ('<annotation verified="no"><!-- by hand -->\n\t<filename>a.png</filename>\n'
            '\t<size><width>200</width><height>100</height></size>\n\t')
    return head+lines(objects, 'object', '<pose>Left</pose><id>7</id>').replace('\n', '\n\t')+'<odd/>\n</annotation>\n'

def hrsc_text(objects):
    head = ('<HRSC_Image>\n<Img_FileName>a</Img_FileName><Img_SizeWidth>200</Img_SizeWidth><Img_SizeHeight>100</Img_SizeHeight>\n'
            '<HRSC_Objects>\n')
    return head+lines(objects, 'HRSC_Object', '<Object_ID>7</Object_ID>')+'</HRSC_Objects></HRSC_Image>\n'

def fair_text(objects):
    return ('<annotation><source><filename>a.png</filename></source><size><width>200</width><height>100</height></size><objects>\n'
            +''.join(f'<object>{body}</object>\n' for body in objects)+'</objects></annotation>\n')

def described(names, box): # name and flag of a VOC object, and its box
    return [element('name', name)+element('difficult', flag)+box(b) for name,flag,b in zip(names, FLAGS, (FIRST,SECOND,THIRD))]

def robndbox(fields): # cx cy w h angle in the order of a set
    def box(b):
        values = dict(zip('cx cy w h angle'.split(), b))
        return element('robndbox', ''.join(element(tag, f'{values[name]:.6f}') for tag,name in fields.items()))
    return box

def polygon(tag, names): return lambda b: element(tag, elements(names, corners(b).ravel()))
def ssdd_box(b): return element('rotated_bndbox', elements('x1 y1 x2 y2 x3 y3 x4 y4', corners(b).ravel()))
def fair_box(b): return element('points', ''.join(element('point', f'{x:.4f},{y:.4f}') for x,y in corners(b)[[0,1,2,3,0]]))
def rotated_voc(b):
    cx,cy,w,h,t = b
    box = element('bndbox', elements('xmin ymin xmax ymax', (cx-w/2,cy-h/2,cx+w/2,cy+h/2)))
    return box+element('attributes', element('attribute', element('name', 'rotation')+element('value', np.rad2deg(t))))

NAMES = 'ship','storage tank','ship'
DIOR = ' '.join(f'{xy}_{side}' for side in ('left_top','right_top','right_bottom','left_bottom') for xy in 'xy')
OBJECTS = dict(
    rolabelimg=described(NAMES, robndbox(dict(cx='cx', cy='cy', w='w', h='h', angle='angle'))),
    rsdd=described(NAMES, robndbox(dict(cx='cx', cy='cy', h='w', w='h', angle='angle'))),   # the h side lies along the angle
    ssdd=described(NAMES, ssdd_box),
    dior=described(NAMES, polygon('robndbox', DIOR)),
    voc=described(NAMES, rotated_voc),
    dronevehicle=described(('car','truvk','feright car'), polygon('polygon', 'x1 y1 x2 y2 x3 y3 x4 y4')),
    fair1m=[element('difficult', flag)+element('possibleresult', element('name', name))+fair_box(b)
            for name,flag,b in zip(NAMES, FLAGS, (FIRST,SECOND,THIRD))],
    hrsc_types=[element('Class_ID', code)+element('difficult', flag)+elements('mbox_cx mbox_cy mbox_w mbox_h mbox_ang', b)
                for code,flag,b in zip((100000007,100000001,100000027), FLAGS, (FIRST,SECOND,THIRD))])
OBJECTS['hrsc'] = OBJECTS['hrsc_types']
READ_AS = dict(hrsc=['ship']*3, hrsc_types=['Arleigh Burke','ship','submarine'], dronevehicle=['car','truck','freight-car'])

def sample(name):
    whole = dict(hrsc=hrsc_text, hrsc_types=hrsc_text, fair1m=fair_text).get(name, voc_text)
    objects,names = OBJECTS[name],READ_AS.get(name, NAMES)
    bad = [objects[0], objects[1].replace('.', 'x.'), objects[2]]
    text,rows = whole(objects),[(corners(b).ravel().tolist(),label,flag) for b,label,flag in zip((FIRST,SECOND,THIRD), names, FLAGS)]
    line = next(n for n,(a,b) in enumerate(zip(text.splitlines(), whole(bad).splitlines()), 1) if a!=b)
    other_name = dict(hrsc=None, hrsc_types='Perry', dronevehicle='bus').get(name, 'tug')
    return LabelSample(name, 'annotations/a.xml', text, rows, whole(bad), f':{line}', whole([]),
                       recognised='hrsc' if 'hrsc' in name else None, other_name=other_name)

@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('name', OBJECTS)
def test_every_relative(tmp_path, name, check):
    if name=='voc' and check.__name__=='edited': pytest.skip('a new object of VOC is upright, see test_turned')
    check(tmp_path, sample(name))

def test_each_file_is_recognised_by_one_relative(tmp_path):
    for name in OBJECTS.keys()-{'hrsc_types'}:
        (file := tmp_path/f'{name}.xml').write_text(sample(name).text)
        relatives = [key for key,fmt in FORMATS.items() if isinstance(fmt, ObjectXml)]
        assert [key for key in relatives if FORMATS[key].recognises(LabelProbe(file))]==[name]

@pytest.mark.parametrize('text', ['<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
                                  '<!DOCTYPE a SYSTEM "http://localhost/x.dtd"><a/>'])
def test_entities_are_refused(text):
    with pytest.raises(ValueError, match='DTD'): parse_xml(text)

def test_a_class_that_the_format_does_not_have_is_named_with_those_it_has(tmp_path):
    editor = FORMATS['hrsc_types'].editor()
    with pytest.raises(ValueError, match="no class 'tug': use one of ship, aircraft carrier"):
        editor.new_entry(([0,0,9,0,9,5,0,5],'tug',0))

BROKEN = dict(hrsc='<HRSC_Image>\n<HRSC_Objects><HRSC_Object><Class_ID>1</Class_ID></HRSC_Object></HRSC_Objects></HRSC_Image>',
    ssdd='<annotation>\n<object><name>s</name><rotated_bndbox><x1>1</x1></rotated_bndbox></object></annotation>',
    rsdd='<annotation>\n<object><name>s</name><robndbox><cx>x</cx></robndbox></object></annotation>',
    dior='<annotation>\n<object><name>s</name></object></annotation>',
    fair1m='<annotation><objects>\n<object><possibleresult><name>s</name></possibleresult><points><point>1,x</point></points></object>'
           '</objects></annotation>',
    rolabelimg='<annotation>\n<object><name>s</name><robndbox><cx>1</cx></robndbox></object></annotation>')

@pytest.mark.parametrize('name', BROKEN)
def test_what_an_object_lacks_is_named_with_file_and_line(tmp_path, name):
    root = folder(tmp_path, {'images/0.png':None, 'annotations/0.xml':BROKEN[name]})
    with pytest.raises(LabelError, match=r'0\.xml:2: .*(expected|lacks|none of)'): read(root, format=name)
    assert len(read(root, format=name, on_bad='warn')[0][0])==0

def test_a_file_that_is_not_xml_takes_its_image_out(tmp_path):
    texts = {'annotations/0.xml':'<annotation><object>', 'annotations/1.xml':'<annotation/>'}
    root = folder(tmp_path, {'images/0.png':None, 'images/1.png':None, **texts})
    with pytest.raises(LabelError, match='0.xml: no XML'): read(root, format='rolabelimg')
    assert [annot.image.name for annot in read(root, format='rolabelimg', on_bad='warn')[0]]==['1.png']

def test_two_class_names_are_refused(tmp_path):
    box = '<robndbox><cx>9</cx><cy>9</cy><w>8</w><h>4</h><angle>0</angle></robndbox>'
    root = folder(tmp_path, {'a.png':None, 'a.xml':f'<annotation><object><name>a</name><name>b</name>{box}</object></annotation>'})
    with pytest.raises(LabelError, match='2 class names: a, b'): read(root)

def test_voc_of_cvat_stays_voc(tmp_path):
    box = '<bndbox><xmin>80.0</xmin><ymin>75.0</ymin><xmax>160.0</xmax><ymax>105.0</ymax></bndbox>'
    angle = '<attributes><attribute><name>rotation</name><value>30.0</value></attribute></attributes>'
    root = folder(tmp_path, {'a.png':None, 'a.xml':f'<annotation><object><name>ship</name>{box}{angle}</object></annotation>'})
    assert gap(read(root)[0][0].quads[0], WANT)<1e-6
    node = ET.parse(mended(root, NEW)).getroot()[0]
    assert [float(side.text) for side in node.find('bndbox')]==[120,90,180,110] and float(node.findtext('.//value'))==75
    assert node.find('robndbox') is None and gap(read(root)[0][0].quads[0], NEW)<1e-3

@pytest.mark.parametrize('name, tag, was, value', [('dior','angle','22.0',-15), ('hrsc','box_xmin','71',NEW[:,0].min())])
def test_fields_that_are_not_read_follow_the_box(tmp_path, name, tag, was, value):
    root = folder(tmp_path, {'images/a.png':None})
    FORMATS[name].write([Annot(root/'images/a.png', WANT[None], ['ship'], np.zeros(1, int))], root, '', None)
    tree = ET.parse(root/'annotations/a.xml')
    node = next(tree.getroot().iter('HRSC_Object' if name=='hrsc' else 'object'))
    ET.SubElement(node, tag).text = was
    tree.write(root/'annotations/a.xml')
    assert abs(float(ET.parse(mended(root, NEW, format=name)).getroot().findtext(f'.//{tag}'))-value)<1

def test_a_new_relative_is_its_paths():
    class Own(ObjectXml): objects,class_path,rbox,angle_unit = 'marks/mark','@is',('box@cx','box@cy','box@w','box@h','box@turn'),'deg'
    row = Own().parse(parse_xml('<mark is="tank"><box cx="10" cy="20" w="8" h="4" turn="90"/></mark>'))
    assert row[1]=='tank' and np.allclose(row[0], [12,16,12,24,8,24,8,16])
