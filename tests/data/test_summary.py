"What loaders say of themselves: counts, sizes as the network sees them, advice"
import numpy as np
import pytest
from fastai.vision.all import DataBlock, DataLoaders, Image, ImageBlock, IndexSplitter, PILImage, Resize, ResizeMethod
from rotnb.data.border import rotated_aug_transforms
from rotnb.data.blocks import RBoxBlock, RBoxLblBlock
from rotnb.data.labels.records import Annot
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.summary import DataSummary

def upright_box(x, y, w, h): return [[x,y],[x+w,y],[x+w,y+h],[x,y+h]]

def scene(folder, name, boxes, names, size_wh=(100,80), difficult=None):
    "A record with its image"
    PILImage.create(np.zeros((*size_wh[::-1],3), np.uint8)).save(folder/f'{name}.png')
    quads = np.array(boxes, float).reshape(-1,4,2)
    return Annot(folder/f'{name}.png', quads, names, np.array(difficult or [0]*len(names)))

@pytest.fixture
def annots(tmp_path):
    "Two images with a box of 40 x 10 and one of 20 x 20, one of them ignored; an empty one; and one for validation"
    one = [scene(tmp_path, name, [upright_box(10,10,40,10), upright_box(20,40,20,20)], ['ship','tank'], difficult=[0,i])
           for i,name in enumerate('ab')]
    return [*one, scene(tmp_path, 'empty', [], [])],[scene(tmp_path, 'valid', [upright_box(0,0,40,10)], ['ship'])]

def summary_of(annots, **kwargs): return RotatedDataLoaders.from_annots(*annots, num_workers=0, bs=2, **kwargs).summary()

def test_counts(annots):
    s = summary_of(annots)
    assert s.splits.loc['training'].tolist()==[3,1,4,1,2,2] and s.splits.loc['validation'].tolist()==[1,0,1,0,1,1]
    assert s.classes[['training','validation','images']].values.tolist()==[[2,1,3],[1,0,1]]
    assert s.classes.aspect.tolist()==pytest.approx([4,1]) and s.classes['size'].tolist()==pytest.approx([20,20], rel=1e-4)
    assert s.counted.upright.all() and '100% upright' in repr(s)

@pytest.mark.parametrize('tfms,scale', [
    (dict(size=50), (.5,.5)), (dict(size=(40,200)), (.5,.5)), (dict(size=200), (2,2)), (dict(size=64, rect=True), (.64,.64)),
    (dict(item_tfms=Resize((40,50), ResizeMethod.Squish)), (.5,.5)), (dict(item_tfms=Resize((80,50), ResizeMethod.Squish)), (.5,1)),
    (dict(item_tfms=[], batch_tfms=rotated_aug_transforms(size=(160,200))), (2,2)), (dict(tile=dict(size=100, empty='keep')), (1,1))])
def test_sizes_are_those_of_the_network(annots, tfms, scale):
    "Of the four transforms that resize: letterbox, batches of like aspect, fastai's, one on the device; and of windows"
    dls = RotatedDataLoaders.from_annots(*annots, num_workers=0, bs=2, drop_last=False, **tfms)
    s = dls.summary()
    ship = s.boxes[s.boxes.cls=='ship']
    assert ship.long.tolist()==pytest.approx([40*scale[0]]*3, rel=.02) and ship.short.tolist()==pytest.approx([10*scale[1]]*3, rel=.02)
    x = dls.valid.one_batch()[0]
    if 'rect' not in tfms and 'tile' not in tfms: assert {*zip(s.images.net_w, s.images.net_h)}=={x.shape[:1:-1]}

def test_small_objects_are_told_with_the_way_out(annots):
    many = [annots[0][0]]*12,annots[1]
    assert not [o for o in summary_of(many).advice if 'under 8 px' in o]
    told = ' '.join(summary_of(many, size=32).advice)
    assert '100% of ship' in told and '32 x 32 px' in told and 'tile=' in told and 'size' in told
    own = ' '.join(summary_of((many[0], many[1]), size=None, tile=dict(size=128, scales=(.25,), empty='keep')).advice)
    assert 'under 8 px' in own

def test_images_that_are_shrunk_and_objects_that_do_not_fit(tmp_path):
    wide = [scene(tmp_path, name, [upright_box(10,10,500,20)], ['ship'], (600,100)) for name in 'ab']
    assert 'shrunk 6.0 times' in ' '.join(summary_of((wide[:1], wide[1:]), size=100).advice)
    told = ' '.join(summary_of((wide[:1], wide[1:]), tile=dict(size=100, iof_thr=.05)).advice)
    assert 'longer than the input of 100 px' in told

def test_rare_missing_and_upright(annots):
    advice = ' '.join(summary_of(annots).advice)
    assert 'ship (2) and tank (1)' in advice and 'nothing is measured for them: tank' in advice
    same = [annots[0][0]]*12,annots[1]
    assert 'are upright: are these horizontal labels?' in ' '.join(summary_of(same).advice)

def test_a_class_without_boxes_and_names_with_markup(annots):
    named = [replace_names(o) for o in annots[0]],[replace_names(o) for o in annots[1]]
    s = summary_of(named, vocab=['<b>ship</b>','tank','nowhere'])
    page = s._repr_html_()
    assert '<b>ship' not in page and '&lt;b&gt;ship' in page and '<svg' in page
    assert 'nowhere (0)' in ' '.join(s.advice) and np.isnan(s.classes.loc['nowhere','size']) and 'nan' not in repr(s).lower()

def replace_names(o): return Annot(o.image, o.quads, [f'<b>{n}</b>' if n=='ship' else n for n in o.names], o.difficult)

def test_nothing_to_sum_up(annots, tmp_path):
    dls = RotatedDataLoaders.from_annots(*annots, num_workers=0, bs=2)
    assert repr(dls.new_empty().summary())=='no images' and dls.new_empty().summary()._repr_html_()
    bare = [scene(tmp_path, f'bare{i}', [], []) for i in range(2)]
    s = summary_of((bare[:1], bare[1:]), vocab=['ship'])
    assert '2 images' not in repr(s) and '0 boxes of 1 class' in repr(s) and s._repr_html_() and 'ship (0)' in ' '.join(s.advice)
    with pytest.raises(TypeError, match='RBoxBlock'): DataLoaders.from_dsets([(1,2)], [(1,2)], bs=1).summary()

def test_of_a_data_block_whose_images_are_arrays():
    boxes = [upright_box(10,10,40,10)]
    block = DataBlock((ImageBlock, RBoxBlock(), RBoxLblBlock(['ship'])), n_inp=1, splitter=IndexSplitter([2]),
                      get_x=lambda i: np.zeros((80,100,3), np.uint8), get_y=[lambda i: boxes, lambda i: ['ship']])
    dls = block.dataloaders(range(3), bs=1, num_workers=0, item_tfms=Resize(50, ResizeMethod.Squish))
    s = dls.summary()
    assert isinstance(s, DataSummary) and s.images[['width','height','net_w','net_h']].values.tolist()==[[100,80,100,80]]*3
    assert repr(dls).startswith('DataLoaders: 2 + 1 images, 100 x 80 px, 1 class (ship), batches of 1')

def test_no_image_is_decoded(annots, monkeypatch):
    dls = RotatedDataLoaders.from_annots(*annots, num_workers=0, bs=2, size=64)
    monkeypatch.setattr(Image.Image, 'load', lambda self: pytest.fail('decoded'))
    line = 'RotatedDataLoaders: 3 + 1 images, 64 x 64 px, 5 boxes of 2 classes (ship and tank), batches of 2 on'
    assert repr(dls)==f'{line} {dls.device}'
    assert len(dls.summary().boxes)==5

def test_other_loaders_keep_their_words():
    assert repr(DataLoaders.from_dsets([(1,2)], [(1,2)], bs=1)).startswith('<fastai.data.core.DataLoaders object at')
    assert repr(DataLoaders()).startswith('<fastai')
