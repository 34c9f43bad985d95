"Labels find their images in any folder: links, equal names, spaces, empty files"
import json, unicodedata
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from rotnb.data.formats.table import *
from rotnb.data.doctor.report import doctor
from rotnb.data.labels.records import *
from rotnb.data.formats.dota import *
from rotnb.data.formats.cvat import *
from format_sets import Q, WRITTEN, folder, read, written

GOOD = '10 10 30 10 30 20 10 20 ship 0\n'

@pytest.mark.parametrize('text', [GOOD.replace('\n', '\r\n'), '\ufeff'+GOOD, '\n\n'+GOOD+'\n  \n', GOOD.strip(), GOOD.replace(' 0\n',
    '  \t\n'),
    'imagesource:GoogleEarth\ngsd:0.146\n'+GOOD, 'acquisition dates:2016-05-04\nimagesource:GoogleEarth\ngsd:null\n'+GOOD,
    GOOD.replace(' ', '\t')])
def test_dota_lines_as_they_come(tmp_path, text):
    a,w = read(folder(tmp_path, {'images/a.PNG':(40,30), 'labelTxt/a.TXT':text}))
    assert (a[0].names,a[0].quads[0].ravel().tolist(),w)==(['ship'],[10,10,30,10,30,20,10,20],'')

def test_commas_as_decimals_are_named(tmp_path):
    with pytest.raises(LabelError, match=r"a\.txt:1: expected .*numbers"):
        read(folder(tmp_path, {'images/a.png':(40,30), 'labelTxt/a.txt':GOOD.replace('10 10', '10,5 10,5')}), None, 'dota')

def test_numbers_as_class_names_are_recognised_as_dota(tmp_path):
    assert sniff_format(folder(tmp_path, {'images/a.png':(40,30), 'labelTxt/a.txt':GOOD.replace('ship', '7')}))=='dota'

@pytest.mark.parametrize('name', WRITTEN)
def test_linked_folders_and_what_systems_leave_behind(tmp_path, name):
    "A link to a folder of images is followed once, whichever way it goes; files of macOS and Jupyter are none of the set"
    root = written(tmp_path/'a', name, ['text' if name=='icdar' else 'ship'])
    (root/'images').rename(tmp_path/'pics'); (root/'images').symlink_to(tmp_path/'pics'); (tmp_path/'pics/up').symlink_to(tmp_path/'pics')
    folder(root, {'images/._0.png':b'Mac', 'images/.ipynb_checkpoints/0-checkpoint.png':(4,4), '__MACOSX/images/._0.png':b'Mac'})
    for o in list(root.rglob('*')):
        if o.suffix in ('.txt','.xml','.json','.csv'):
            folder(o.parent, {f'.ipynb_checkpoints/{o.stem}-checkpoint{o.suffix}':b'x', f'._{o.name}':b'Mac'})
    a,w = read(root, None, name)
    assert [o.image.name for o in a]==['0.png'] and len(a[0])==1 and w==''

@pytest.mark.parametrize('name', ['dota','yolo_obb','ssdd','labelme','icdar'])
def test_two_images_of_one_name_are_no_empty_scene(tmp_path, name):
    "a.png and a.jpg beside each other: whose the labels are cannot be told"
    root = written(tmp_path, name, ['text' if name=='icdar' else 'ship']); Image.new('RGB', (40,30)).save(root/'images/0.jpg')
    with pytest.raises(LabelError, match=r'0\.png: .*0\.jpg'): read(root, None, name)
    a,w = read(root, None, name, on_bad='warn')
    assert a==[] and '0.png' in w and '0.jpg' in w
    f = doctor(root, name, images=False).findings
    assert sorted(Path(o).name for o in f.image[f.kind=='shared'])==['0.jpg','0.png']

def test_a_label_belongs_to_the_nearer_image(tmp_path):
    "An image of another split does not borrow it"
    xml = written(tmp_path/'w', 'ssdd').joinpath('annotations/0.xml').read_text()
    root = folder(tmp_path/'a', {'train/1.png':(40,30), 'train/1.xml':xml, 'test/1.png':(40,30), 'test/2.png':(40,30), 'test/2.xml':xml})
    assert [len(o) for o in read(root, 'train')[0]]==[1]
    a,w = read(root, 'test'); assert [len(o) for o in a]==[0,1] and '1 images have no label file' in w

@pytest.mark.parametrize('name', WRITTEN)
def test_images_of_one_name_are_not_written_over_each_other(tmp_path, name):
    folder(tmp_path, {f'{d}/0.png':(40,30) for d in 'ab'})
    two = [Annot(tmp_path/d/'0.png', Q, ['ship'], np.array([0])) for d in 'ab']
    with pytest.raises(LabelError, match='called 0'): FORMATS[name].write(two, tmp_path/'out', '', ['ship'])

def test_names_with_spaces_and_accents(tmp_path):
    nfd = unicodedata.normalize('NFD', 'Köln 1.png')
    root = folder(tmp_path, {f'images/{nfd}':(40,30), 'images/sub/B.PNG':(40,30), 'ImageSets/train.txt':'Köln 1\n'})
    d = dict(images=[dict(id=5, file_name='Köln 1.png'), dict(id=9, file_name='sub\\b.png')], categories=[dict(id=7, name='ship'),
        dict(id=3, name='unused')],
             annotations=[dict(id=1, image_id=i, category_id=7, bbox=[1,2,10,8]) for i in (5,9)])
    (root/'a.json').write_text(json.dumps(d))
    a,w = read(root); assert [len(o) for o in a]==[1,1] and w=='' and coco_names(root/'a.json')==['ship','unused']

def test_lists_of_names_with_spaces(tmp_path):
    root = written(tmp_path, 'ssdd', n=2)
    for d,e in (('images','png'),('annotations','xml')): (root/d/f'0.{e}').rename(root/d/f'my scene 0.{e}')
    for text in ('my scene 0\n', 'my scene 0.png\n', 'images\\my scene 0.png\r\n', './images/my scene 0.png 1\n'):
        folder(root, {'ImageSets/Main/train.txt':text}); assert [o.image.stem for o in read(root, 'train')[0]]==['my scene 0'], text
    folder(root, {'ImageSets/Main/train.txt':'1 -1\n'}); assert [o.image.stem for o in read(root, 'train')[0]]==['1']

@pytest.mark.parametrize('name', WRITTEN)
def test_empty_files(tmp_path, name):
    "0 bytes: text without lines is an empty scene, any other an error that names it; so is an image"
    root = written(tmp_path, name, ['text' if name=='icdar' else 'ship'], n=2)
    for f in root.rglob('*'):
        if f.suffix in ('.txt','.xml','.json','.csv') and '1' not in f.stem: f.write_bytes(b'')
    if name in ('dota','srsdd','yolo_obb','yolo_seg','icdar'): assert [len(o) for o in read(root, None, name)[0]]==[0,1]
    else:
        with pytest.raises(LabelError, match=r'(?s)0\.xml|0\.json|all\.|annotations\.'): read(root, None, name)
    root = written(tmp_path/'b', name, ['text' if name=='icdar' else 'ship'], n=2); (root/'images/0.png').write_bytes(b'')
    with pytest.raises(LabelError, match=r'(?s)1 images cannot be read.*0\.png'): read(root, None, name)

def test_on_bad_takes_no_other_word(tmp_path):
    with pytest.raises(ValueError, match="on_bad is 'error'"):
        read_dota(folder(tmp_path, {'images/a.png':(40,30), 'labelTxt/a.txt':'x'}), on_bad='error')
