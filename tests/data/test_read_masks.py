"Images of masks as records: each way to keep them, and what can be wrong with them"
import warnings
import numpy as np, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from rotnb.check.values import ArgumentError
from rotnb.data.formats.coco import read_coco, write_coco
from rotnb.data.formats.yolo import read_yolo_obb, write_yolo_obb
from rotnb.data.labels.records import DatasetLayoutError, LabelError, LabelWarning
from rotnb.data.outlines import read_masks
from rotnb.explore.label_fixer import LabelFixer
from rotnb.geometry.fit import from_masks
from rotnb.geometry.boxes import qbox2rbox
from rotnb.geometry.outlines import outline_mask

SIZE = 60,40 # (width, height)
NAMES = {1:'ship', 2:'tank'}

def numbers():
    px = np.zeros(SIZE[::-1], np.uint8)
    px[5:15,4:40],px[20:35,30:38],px[20:30,5:15] = 1,2,2
    return px

@pytest.fixture
def root(tmp_path):
    for name in ('images','masks'): (tmp_path/name).mkdir()
    for name in 'ab': Image.new('RGB', SIZE).save(tmp_path/f'images/{name}.jpg')
    for name in 'ab': Image.fromarray(numbers()).save(tmp_path/f'masks/{name}.png')
    return tmp_path

def read(root, names=NAMES, **kw): return read_masks(root/'images', root/'masks', names, **kw)

def palette(px):
    im = Image.fromarray(px).convert('P')
    im.putdata(px.ravel().tolist()); im.putpalette([200,10,10]*256)
    return im

FORMS = dict(grey=Image.fromarray, deep=lambda px: Image.fromarray(px.astype(np.uint16)), palette=palette,
             colours=lambda px: Image.fromarray(np.repeat(px[...,None], 3, 2)), alpha=lambda px: Image.fromarray(px).convert('LA'),
             opaque=lambda px: Image.fromarray(np.repeat(px[...,None], 3, 2)).convert('RGBA'))

@pytest.mark.parametrize('form', FORMS)
def test_numbers_are_read_of_any_image(root, form):
    FORMS[form](numbers()).save(root/'masks/a.png')
    a,b = read(root, parts=True)
    assert a.names==b.names==['ship','tank','tank'] and a.size==SIZE and (a.quads==b.quads).all()
    assert np.ptp(a.quads, 1).tolist()==[[36,10],[10,10],[8,15]]

def test_colours_are_one_number_as_in_panoptic_images(root):
    px = np.zeros((*SIZE[::-1],3), np.uint8)
    px[5:15,4:40] = 3,1,0
    px[20:30,5:15] = 0,0,2
    Image.fromarray(px).save(root/'masks/a.png')
    assert read(root, {259:'ship', 131072:'tank', 1:'x', 2:'y'})[0].names==['ship','tank']

@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6))
def test_boxes_and_outlines_are_those_of_the_masks(tmp_path_factory, seed):
    root,rng = tmp_path_factory.mktemp('masks'),np.random.default_rng(seed)
    (root/'images').mkdir(); (root/'masks').mkdir()
    px = np.zeros(SIZE[::-1], np.uint16)
    for number in rng.choice(np.arange(1, 40000), 4, replace=False):
        (x,y),(w,h) = rng.integers(0, (50,30)),rng.integers(3, 20, 2)
        px[y:y+h,x:x+w] = number*(rng.random(px[y:y+h,x:x+w].shape)<.9)
    Image.new('RGB', SIZE).save(root/'images/a.png'); Image.fromarray(px).save(root/'masks/a.png')
    annot, = read(root, str)
    masks = [px==int(name) for name in annot.names]
    assert {*map(int, annot.names)}=={*np.unique(px[px>0]).tolist()}
    np.testing.assert_allclose(qbox2rbox(annot.quads)[:,2:4].prod(1), from_masks(masks)[0][:,2:4].prod(1), rtol=1e-6)
    for outline,mask in zip(annot.outlines or [], masks): assert outline is None or (outline_mask(outline, SIZE)==mask).all()

def test_from_masks_to_labels_of_others_and_into_the_fixer(root):
    annots = read(root)
    files = write_yolo_obb(annots, root/'labels', ['ship','tank'])
    assert len(files)==2 and all(len(file.read_text().splitlines())==2 for file in files)
    again = read_yolo_obb(root, vocab=['ship','tank'])
    np.testing.assert_allclose(again[0].quads, annots[0].quads, atol=.01)
    (tank,), = ([outline for outline,name in zip(one.outlines, one.names) if name=='tank']
                for one in read_coco(write_coco(annots, root/'coco.json', ['ship','tank']), images=root/'images')[:1])
    assert (outline_mask(tank, SIZE)==(numbers()==2)).all()                               # both parts of the one tank
    assert len(LabelFixer(annots).edits.boxes)==2

# --- what can be wrong

def test_an_empty_image_is_an_empty_scene(root):
    Image.new('L', SIZE).save(root/'masks/a.png')
    with warnings.catch_warnings():
        warnings.simplefilter('error', LabelWarning)
        a,b = read(root, parts=True)
    assert (len(a),len(b))==(0,3) and a.quads.shape==(0,4,2)

def test_an_image_without_masks_is_said(root):
    (root/'masks/b.png').unlink()
    with pytest.warns(LabelWarning, match='no label file.*\n.*b.jpg'): a,b = read(root)
    assert len(b)==0
    (root/'masks/a.png').unlink()
    with pytest.raises(DatasetLayoutError, match='neither a.png nor a folder a, nor what would be of 1 more images: named='): read(root)
    with pytest.raises(DatasetLayoutError, match='no such folder'): read_masks(root/'images', root/'none', NAMES)
    with pytest.raises(DatasetLayoutError, match='no such folder'): read_masks(root/'none', root/'masks', NAMES)
    with pytest.raises(DatasetLayoutError, match='no images'): read_masks([], root/'masks', NAMES)

def test_a_mask_of_another_size(root):
    Image.new('L', (30,30), 1).save(root/'masks/a.png')
    with pytest.raises(LabelError, match='another shape.*\n.*a.jpg.*30 x 30'): read(root)
    with pytest.warns(LabelWarning, match='another shape'): assert [o.image.stem for o in read(root, on_bad='warn')]==['b']
    Image.fromarray(numbers()[::2,::2]).save(root/'masks/a.png')                           # half as large: boxes grow with it
    with pytest.warns(LabelWarning, match='another size'): a,b = read(root)
    assert np.abs(a.quads.mean(1)-b.quads.mean(1)).max()<=1.5

def test_an_unknown_number(root):
    with pytest.raises(LabelError, match=r"a.png: 2: 2 has no class: give names=\{..., 2: its class\}, or None"): read(root, {1:'ship'})
    assert [o.names for o in read(root, {1:'ship', 2:None})]==[['ship']]*2
    with pytest.warns(LabelWarning, match='do not parse'): assert read(root, {1:'ship'}, on_bad='warn')[0].names==['ship']

def test_masks_of_objects_that_are_empty_or_of_another_size(root):
    for name in 'ab': (root/f'masks/{name}.png').unlink(); (root/f'masks/{name}').mkdir()
    Image.fromarray((numbers()==1).astype(np.uint8)*255).save(root/'masks/a/0.png')
    Image.new('1', SIZE).save(root/'masks/a/1.png')
    with pytest.warns(LabelWarning, match='no area.*\n.*1.png'): a,b = read(root, 'ship')
    assert a.names==['ship'] and np.ptp(a.quads[0], 0).tolist()==[36,10] and len(b)==0
    Image.new('L', (20,20), 1).save(root/'masks/a/1.png')
    with pytest.raises(LabelError, match='1.png.*the mask is 20 x 20, others of its image are 60 x 40'): read(root, 'ship')
    (root/'masks/a/1.png').write_bytes(b'none')
    with pytest.raises(LabelError, match='1.png'): read(root, 'ship')

def test_what_is_no_image_of_numbers(root):
    Image.fromarray(numbers()/7).save(root/'masks/a.tif'); (root/'masks/b.png').rename(root/'masks/b.tif')
    with pytest.raises(LabelError, match='a.tif.*broken numbers'): read(root, named='{}.tif')
    (root/'masks/a.png').write_bytes(b'none')
    with pytest.raises(LabelError, match='label files cannot be read.*\n.*a.png'): read(root, named='{}.png')

@pytest.mark.parametrize('kw,why', [(dict(names=['ship']),"{1: 'ship'}"), (dict(names=3),'a class'), (dict(named='a.png'),'_mask.png'),
                                    (dict(on_bad='hush'),"'raise' or 'warn'"), (dict(part=True),"parts")])
def test_mistakes(root, kw, why):
    with pytest.raises((ArgumentError,ValueError,TypeError), match=why):
        read_masks(**dict(images=root/'images', masks=root/'masks', names=NAMES)|kw)
