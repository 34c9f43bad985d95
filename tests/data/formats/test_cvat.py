"CVAT for images: shapes, subsets of a project, classes that are declared"
import xml.etree.ElementTree as ET
import numpy as np, pytest
from rotnb.cli.convert import convert
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.table import FORMATS, has_split
from rotnb.data.labels.records import Annot, DatasetLayoutError
from rotnb.data.mend.sources import label_sources
from rotnb.geometry.boxes import rbox2qbox
from format_checks import CHECKS, LabelSample
from label_sets import NEW, WANT, folder, gap, mended, quad, read

BOX = ('<box label="ship" occluded="0" xtl="80" ytl="35" xbr="120" ybr="55" rotation="30" z_order="4">'
       '<attribute name="id">9</attribute></box>')
POLYGON = '<polygon label="storage tank" points="10,10;40,12;38,30;8,28"><attribute name="difficult">true</attribute></polygon>'
ELLIPSE = '<ellipse label="ship" cx="150" cy="70" rx="20" ry="8" rotation="0"/>'
TEXT = ('<annotations>\n  <version>1.1</version>\n  <image id="0" name="a.png" width="200" height="100">\n'
        f'    {BOX}\n    {POLYGON}\n    <points label="ship" points="1,2"/>\n    {ELLIPSE}\n  </image>\n</annotations>\n')
ROWS = [(rbox2qbox(np.array([[100.,45,40,20,np.pi/6]])).ravel().tolist(),'ship',0), ([10,10,40,12,38,30,8,28],'storage tank',1),
        ([130,62,170,62,170,78,130,78],'ship',0)]
EMPTY = '<annotations><image id="0" name="a.png" width="200" height="100"/></annotations>'
SAMPLE = LabelSample('cvat', 'annotations.xml', TEXT, ROWS, TEXT.replace('10,10;40,12', '10,x;40,12'), ':5', EMPTY, other_name='tug')

@pytest.mark.parametrize('check', CHECKS)
def test_cvat(tmp_path, check): check(tmp_path, SAMPLE)

def test_ellipses_stay_ellipses(tmp_path):
    text = '<annotations><image name="a.png"><ellipse label="tank" cx="120" cy="90" rx="40" ry="15" rotation="30"/></image></annotations>'
    root = folder(tmp_path, {'a.png':None, 'x.xml':text})
    assert gap(read(root)[0][0].quads[0], WANT)<1e-6
    shape = ET.parse(mended(root, quad(150, 100, 60, 40, -20))).getroot()[0][0]
    assert shape.tag=='ellipse' and np.allclose([float(shape.get(key)) for key in ('cx','cy','rx','ry','rotation')], [150,100,30,20,340])
    mended(root, [[10,10],[90,14],[80,60],[12,50]])
    assert ET.parse(root/'x.xml').getroot()[0][0].tag=='polygon'

# ---- subsets ----

SHIP = '<box label="ship" xtl="80" ytl="75" xbr="160" ybr="105" rotation="{}"/>'

def project(root, *subsets):
    images = ''.join(f'<image id="{i}" name="a.png" subset="{name}">{SHIP.format(30*i)}</image>' for i,name in enumerate(subsets))
    text = f'<annotations><meta/>{images}</annotations>'
    return folder(root, {**{f'images/{name}/a.png':None for name in subsets}, 'annotations.xml':text})

def test_subsets_of_a_project_are_its_splits(tmp_path):
    "By folder or file; converted, edited, examined; images of one name"
    root = project(tmp_path/'p', 'Train', 'Validation')
    for path in (root, root/'annotations.xml'):
        assert [has_split(path, split, FORMATS['cvat']) for split in ('train','val','test')]==[True,True,False]
        (annot,),_ = read(path, 'val')
        assert annot.image==root/'images/Validation/a.png' and gap(annot.quads[0], WANT)<1e-4
    assert convert(root, tmp_path/'o', 'dota')|{'losses':0}==dict(train=(1,1), val=(1,1), losses=0)
    source, = label_sources(root, 'val')
    assert source.image.parent.name=='Validation'
    base = source.read()
    source.save(base, [((base.rows[0][0],'tug',0),0)])
    assert [read(root, split)[0][0].names for split in ('train','val')]==[['ship'],['tug']]
    assert doctor(root, images=False).splits==['train','val']

def test_a_job_names_its_subset_at_the_head(tmp_path):
    text = ('<annotations><meta><job><subset>Train</subset></job></meta>'
            f'<image id="0" name="a.png" width="400" height="200">{SHIP.format(30)}</image></annotations>')
    root = folder(tmp_path, {'a.png':None, 'annotations.xml':text})
    assert len(read(root, 'train')[0])==1 and not has_split(root, 'val', FORMATS['cvat'])
    mended(root, NEW, split='train')
    assert gap(read(root, 'train')[0][0].quads[0], NEW)<1e-3

def test_other_subsets_are_reported(tmp_path):
    root = project(tmp_path, 'Train', 'Batch 7')
    said = read(root, 'train')[1]
    assert 'left out' in said and 'Batch 7' in said and len(read(root)[0])==2
    with pytest.raises(DatasetLayoutError): read(root, 'val')
    text = '<annotations><meta><task><subset>Test</subset></task></meta><image name="a.png"/></annotations>'
    one = folder(tmp_path/'t', {'images/a.png':None, 'annotations.xml':text})
    assert has_split(one, 'test', FORMATS['cvat']) and not has_split(one, 'train', FORMATS['cvat'])

def test_classes_that_are_added_later_are_declared(tmp_path):
    root = folder(tmp_path, {'images/a.png':None})
    FORMATS['cvat'].write([Annot(root/'images/a.png', WANT[None], ['ship'], np.zeros(1, int))], root, '', ['ship'])
    source, = label_sources(root)
    base = source.read()
    source.save(base, [((base.rows[0][0],'tug',0),0)])
    declared = [label.findtext('name') for label in ET.parse(source.file).getroot().iter('label')]
    assert declared==['ship','tug'] and read(root)[0][0].names==['tug']
