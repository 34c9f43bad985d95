"DOTA and YOLO-OBB folders: round trips, the policy for bad labels, and real data where it is at hand"
import warnings
from pathlib import Path
import numpy as np, pytest, torch
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image
from rotnb.data.blocks import CorruptImageError
from rotnb.data.labels.records import *
from rotnb.data.formats.dota import *
from rotnb.data.formats.yolo import *
from rotnb.data.loaders import *
from rotnb.data.types import TensorBoxLabel, TensorQuad, is_ignored, to_targets
from rotnb.data.labels.records import Difficult
from paths import SHARED

DATA = SHARED/'data'

few = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
GOOD = '10 10 30 10 30 20 10 20 ship 0\n'

def real(name):
    if not (DATA/name).is_dir(): pytest.skip(f'no reference data: {DATA.name}/{name} is absent (set ROTNB_SHARED)')
    return DATA/name

def folder(root, **files):
    "Names (with __ for /, _dot_ for .) to text, bytes, or the size of an image"
    for k,v in files.items():
        f = Path(root)/k.replace('__','/').replace('_dot_','.'); f.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(v, str): f.write_text(v)
        elif isinstance(v, bytes): f.write_bytes(v)
        else: Image.new('RGB', v).save(f)
    return Path(root)

def warned(f):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always'); res = f()
    return res,[str(o.message) for o in w if issubclass(o.category, LabelWarning)]

# ---- round trips ----

quad = st.lists(st.floats(-200,4000).map(lambda v: round(v,2)), min_size=8, max_size=8)
name = st.sampled_from(['ship','small-vehicle','storage tank','Tennis_court','7'])

@few
@given(st.lists(st.tuples(quad,name,st.integers(0,2)), max_size=5))
@example([([0.,0,3,0,0,1,1,0],'7',0)])      # a class that is a number, and a quad that is no rectangle
def test_dota_text_round_trip(tmp_path_factory, rows):
    rows = [r for r in rows if area_of(r[0])>1e-3]
    r = folder(tmp_path_factory.mktemp('d'), images__a_dot_png=(40,30))
    a = to_annot(r/'images/a.png', rows)
    write_dota([a], r/'labelTxt', decimals=2)
    b = read_dota(r)[0]
    np.testing.assert_allclose(b.quads, a.quads, atol=1e-9)
    assert (b.names,list(b.difficult))==(a.names,list(a.difficult))

@few
@given(st.lists(st.tuples(quad,st.sampled_from(['a','b c']),st.just(0)), max_size=5))
def test_yolo_text_round_trip(tmp_path_factory, rows):
    # farther out they are taken for pixels
    rows = [r for r in rows if area_of(r[0])>1e-1 and (abs(np.reshape(r[0], (4,2)))<=[2*731,2*433]).all()]
    r = folder(tmp_path_factory.mktemp('y'), images__a_dot_png=(731,433))
    a = to_annot(r/'images/a.png', rows)
    write_yolo_obb([a], r/'labels', ['a','b c'], border='keep')
    b = read_yolo_obb(r, vocab=['a','b c'])[0]
    np.testing.assert_allclose(b.quads, a.quads, atol=1e-3)
    assert b.names==a.names

# ---- the policy ----

def test_missing_folder(tmp_path):
    for f in (read_dota, lambda p: read_yolo_obb(p, vocab=['a']), RotatedDataLoaders.from_dota, RotatedDataLoaders.from_yolo_obb):
        with pytest.raises(FileNotFoundError, match='no such folder'): f(tmp_path/'none')
    (tmp_path/'images').mkdir()
    with pytest.raises(DatasetLayoutError, match=r'expected train/images/ and train/labelTxt/.*found images/'):
        RotatedDataLoaders.from_dota(tmp_path)

def test_image_without_label_is_an_empty_scene_said_once(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30), images__b_dot_JPG=(40,30), images__c_dot_png=(40,30), labelTxt__a_dot_txt=GOOD)
    a,w = warned(lambda: read_dota(r))
    assert [len(o) for o in a]==[1,0,0] and len(w)==1 and '2 images have no label file' in w[0]

def test_line_that_does_not_parse_names_file_line_and_text(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30), labelTxt__a_dot_txt=GOOD+'1 2 three ship\n'+GOOD+'1,2,3\n')
    with pytest.raises(LabelError) as e: read_dota(r)
    for s in ('2 lines do not parse','a.txt:2',"'x1 y1 x2 y2 x3 y3 x4 y4 class [difficult]'","'1 2 three ship'",'a.txt:4'):
        assert s in str(e.value)
    a,w = warned(lambda: read_dota(r, on_bad='warn'))
    assert len(a[0])==2 and len(w)==1 and 'a.txt:2' in w[0]

def test_only_the_first_ten_problems_are_listed(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30), labelTxt__a_dot_txt='x\n'*25)
    with pytest.raises(LabelError, match='... and 15 more'): read_dota(r)

def test_unknown_class(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30), labelTxt__a_dot_txt=GOOD)
    with pytest.raises(LabelError, match=r"a.txt:1: unknown class 'ship', did you mean 'ships'\? The vocab is: plane, ships"):
        read_dota(r, vocab=['plane','ships'])
    assert [len(o) for o in warned(lambda: read_dota(r, vocab=['plane'], on_bad='warn'))[0]]==[0]

def test_corrupt_images(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30), images__bad_dot_png=b'no image', labelTxt__a_dot_txt=GOOD, labelTxt__bad_dot_txt=GOOD)
    with pytest.raises(LabelError, match='bad.png'): read_dota(r)
    a,w = warned(lambda: read_dota(r, on_bad='warn'))
    assert [o.image.name for o in a]==['a.png'] and '1 images cannot be read' in w[0]

def test_truncated_image_names_the_file_when_it_is_read(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30), images__b_dot_png=(40,30), labelTxt__a_dot_txt=GOOD, labelTxt__b_dot_txt=GOOD)
    rng = np.random.default_rng(0); f = r/'images/b.png'
    Image.fromarray(rng.integers(0,255,(30,40,3),dtype=np.uint8)).save(f); f.write_bytes(f.read_bytes()[:2000])
    a = read_dota(r)
    dls = RotatedDataLoaders.from_annots(a[:1], a[1:], bs=1, device='cpu')
    with pytest.raises(CorruptImageError, match='b.png'): dls.valid.one_batch()

def test_degenerate_boxes_are_counted_and_named(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30),
               labelTxt__a_dot_txt=GOOD+'1 1 1 1 9 1 9 1 ship 2\nnan 1 2 1 2 2 1 2 ship 0\ninf 1 2 1 2 2 1 2 ship 0\n')
    a,w = warned(lambda: read_dota(r))
    assert len(a[0])==1 and '3 boxes have NaN or no area: left out' in w[0] and 'a.txt:2' in w[0]

def test_label_without_image(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30), labelTxt__a_dot_txt=GOOD, labelTxt__lost_dot_txt=GOOD)
    assert 'lost.txt' in warned(lambda: read_dota(r))[1][0]

def told(root, tell):
    "A YOLO set whose yaml file names folders of its own"
    line = '0 .1 .1 .5 .1 .5 .5 .1 .5\n'
    for i in ('tr17__a','tr17__b','va17__c'): folder(root, **{f'images__{i}_dot_png':(40,30), f'labels__{i}_dot_txt':line})
    return folder(root, data_dot_yaml='names: [ship]\n'+tell)

@pytest.mark.parametrize('tell', ['train: images/tr17\nval: images/va17',
    'path: /home/somebody/set\ntrain: ../images/tr17\nval: [images/va17]', 'path: .\ntrain: tr.txt\nvalid: images/va17'])
def test_yolo_folders_of_the_yaml_file(tmp_path, tell):
    "By the set's folder or by its yaml file: loaders, explorer's splits, doctor, sources that can be edited"
    from rotnb.data.formats.table import has_split, get_format
    from rotnb.data.doctor.report import doctor
    from rotnb.data.mend.sources import label_sources
    from rotnb.explore.dataset_explorer import splits_of
    r = told(tmp_path/'s', tell); (r/'tr.txt').write_text('images/tr17/a.png\n./images/tr17/b.png\n')
    for path in (r, r/'data.yaml'):
        assert get_format(path)[0]=='yolo_obb' and has_split(path, 'train', get_format(path)[1]) and not has_split(path, 'test',
            get_format(path)[1])
        for dls in (RotatedDataLoaders.from_yolo_obb(path, bs=2, num_workers=0, device='cpu'), RotatedDataLoaders.from_format(path, bs=2,
            num_workers=0, device='cpu')):
            assert [[o.image.name for o in ds.items] for ds in (dls.train_ds,dls.valid_ds)]==[['a.png','b.png'],['c.png']] and dls.path==r
        assert {k:len(v) for k,v in splits_of(path)[0].items()}==dict(train=2, val=1)
        assert [o.image.name for o in label_sources(path, 'val')]==['c.png']
        assert doctor(path).splits==['train','val']

def test_yolo_yaml_that_does_not_fit(tmp_path):
    "Folders that are not there are named; `train: images` of a set without splits is no split; a listed image that is missing is named"
    r = told(tmp_path/'s', 'train: images/tr18\nval: images/va17')
    with pytest.raises(DatasetLayoutError, match='data.yaml says train: images/tr18'): read_yolo_obb(r, 'train')
    (r/'data.yaml').write_text('names: [ship]\ntrain: images')
    assert len(read_yolo_obb(r))==3
    with pytest.raises(DatasetLayoutError): read_yolo_obb(r, 'train')
    (r/'data.yaml').write_text('names: [ship]\ntrain: tr.txt'); (r/'tr.txt').write_text('images/tr17/a.png\nimages/tr17/gone.png\n')
    with pytest.raises(LabelError, match='gone.png'): read_yolo_obb(r, 'train')
    assert [o.image.name for o in warned(lambda: read_yolo_obb(r, 'train', on_bad='warn'))[0]]==['a.png']

def test_yolo_names_missing_and_out_of_range(tmp_path):
    r = folder(tmp_path, images__a_dot_png=(40,30), labels__a_dot_txt='3 0 0 1 0 1 1 0 1\n')
    with pytest.raises(DatasetLayoutError, match='pass vocab='): read_yolo_obb(r)
    folder(tmp_path, data_dot_yaml='names: [a, b]\n')
    with pytest.raises(LabelError, match=r"a.txt:1: unknown class 'number 3'"): read_yolo_obb(r)
    assert warned(lambda: read_yolo_obb(r, on_bad='warn'))[0][0].names==[]

def test_folders_of_both_layouts_and_cases(tmp_path):
    r = folder(tmp_path/'a', Images__Train__a_dot_PNG=(40,30), LabelTxt__Train__a_dot_txt=GOOD,
               Images__valid__b_dot_TIF=(40,30), LabelTxt__valid__b_dot_txt=GOOD)
    assert [len(o) for s in ('train','val') for o in read_dota(r, s)]==[1,1]

def test_random_split_is_seeded_and_said(tmp_path, capsys):
    r = folder(tmp_path, **{f'images__{i}_dot_png':(40,30) for i in range(10)}, **{f'labelTxt__{i}_dot_txt':GOOD for i in range(10)})
    names = lambda seed: [o.image.name for o in RotatedDataLoaders.from_dota(r, seed=seed, device='cpu').valid_ds.items]
    assert names(1)==names(1)!=names(2)
    assert '8 images for training, 2 for validation, drawn at random (valid_pct=0.2, seed=1)' in capsys.readouterr().out

def test_workers_give_the_same_batches(tmp_path):
    r = folder(tmp_path, **{f'images__{i}_dot_png':(40,30) for i in range(6)}, **{f'labelTxt__{i}_dot_txt':GOOD*(i%3) for i in range(6)})
    both = [RotatedDataLoaders.from_dota(r, num_workers=n, bs=2, batch_tfms=[], device='cpu') for n in (0,2)]
    for a,b in zip(both[0].valid, both[1].valid):
        for u,v in zip(a, b): assert type(u)==type(v) and torch.equal(u.as_subclass(torch.Tensor), v.as_subclass(torch.Tensor))

# ---- real data ----

def test_dota8_is_read_and_shown(tmp_path):
    dls = RotatedDataLoaders.from_yolo_obb(real('dota8'), size=256, bs=4, device='cpu')
    assert (len(dls.vocab),len(dls.train_ds),len(dls.valid_ds))==(15,4,4)
    assert sum(len(o) for dl in dls for o in dl.dataset.items)==133
    for x,q,l in (b for dl in dls for b in dl):
        assert tuple(x.shape)==(4,3,256,256) and type(q)==TensorQuad and type(l)==TensorBoxLabel and l.dtype==torch.int64
        assert all(t['boxes'].isfinite().all() and (t['boxes'][:,2:4]>0).all() for t in to_targets(q, l, x.shape[-2:]))
    dls.show_batch(max_n=2); assert len(plt.gcf().axes)==2; plt.close('all')

def test_dota_is_read_with_its_oddities():
    a,w = warned(lambda: read_dota(real('dota')))
    assert len(a)==5 and all(len(o) for o in a)
    assert len(w)==1 and '2 boxes have NaN or no area' in w[0] and 'P1478' in w[0]
    assert {0,1,2}>={int(d) for o in a for d in o.difficult} and any(isinstance(n, Difficult) for o in a for n in o.labels)

def test_real_dota_batch_carries_ignored_boxes():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dls = RotatedDataLoaders.from_dota(real('dota'), size=256, bs=5, valid_pct=.2, device='cpu', batch_tfms=[])
    ignored = sum(int(is_ignored(l).sum()) for dl in dls for x,q,l in dl)
    assert ignored>=sum(int((o.difficult>0).sum()) for dl in dls for o in dl.dataset.items)-2
