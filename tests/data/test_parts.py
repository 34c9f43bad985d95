"What a loader takes of a set: a part of it, a split by class and by scene, upright boxes"
import json, warnings
import numpy as np, pytest
from PIL import Image
from rotnb.cli.convert import convert
from rotnb.data.formats.table import FORMATS, read_format
from rotnb.data.formats.yolo import read_yolo_obb
from rotnb.data.labels.records import Annot, LabelError, LabelWarning
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.mend.sources import label_sources
from rotnb.geometry.boxes import rbox2qbox

def made(root, n=20, split='', form='dota', name='{}', turn=.5):
    "A set of n images with ships, every fifth with a car as well"
    (root/'images'/split).mkdir(parents=True, exist_ok=True)
    annots = []
    for i in range(n):
        image = root/'images'/split/(name.format(i)+'.png')
        Image.new('RGB', (64,48), (i,90,60)).save(image)
        quads = rbox2qbox(np.array([[20.,20,24,10,turn],[40,30,16,8,-turn]][:1+(i%5==0)]))
        annots.append(Annot(image, quads, ['ship','car'][:len(quads)], np.zeros(len(quads), int)))
    FORMATS[form].write(annots, root, split, ['car','ship'])
    return root

def items(dl): return [one.image.name for one in dl.dataset.items]
kw = dict(bs=2, device='cpu')

def test_fraction_and_most(tmp_path, capsys):
    for split,n in (('train',20),('val',10)): made(tmp_path, n, split)
    dls = RotatedDataLoaders.from_dota(tmp_path, fraction=.25, **kw)
    assert (len(dls.train_ds),len(dls.valid_ds),dls.vocab)==(5,10,['car','ship'])
    assert '5 of 20 images for training' in capsys.readouterr().out
    assert sum('car' in one.names for one in dls.train_ds.items)==1
    assert items(dls.train)==items(RotatedDataLoaders.from_dota(tmp_path, fraction=.25, **kw).train)
    assert items(dls.train)!=items(RotatedDataLoaders.from_dota(tmp_path, fraction=.25, seed=1, **kw).train)
    for many in (dict(max_n=3), dict(max_n=3, fraction=.9), dict(fraction=.15)):
        dls = RotatedDataLoaders.from_format(tmp_path, **many, **kw)
        assert (len(dls.train_ds),len(dls.valid_ds),dls.vocab)==(3,10,['car','ship'])
    whole = RotatedDataLoaders.from_dota(tmp_path, max_n=900, **kw)
    part = RotatedDataLoaders.from_annots(whole.train_ds.items, whole.valid_ds.items, max_n=1, **kw)
    assert (len(whole.train_ds),len(part.train_ds),part.vocab)==(20,1,['car','ship'])      # classes are those of the whole set
    tiles = RotatedDataLoaders.from_dota(tmp_path, max_n=2, tile=32, **kw)
    assert len({id(one.whole) for one in tiles.train_ds.items})==2
    for name,bad,say in (('fraction',0,'fraction is 0'), ('fraction',30,'max_n='), ('max_n',0,'max_n is 0'), ('max_n','3','max_n is')):
        with pytest.raises(ValueError, match=say): RotatedDataLoaders.from_dota(tmp_path, **{name:bad}, **kw)

def test_a_part_of_made_scenes(tmp_path):
    dls = RotatedDataLoaders.from_synth(tmp_path/'s', n_train=4, n_valid=2, size=96, max_n=2, **kw)
    assert (len(dls.train_ds),len(dls.valid_ds))==(2,2)

def test_a_split_is_by_class_and_says_what_is_missing(tmp_path, capsys):
    dls = RotatedDataLoaders.from_dota(made(tmp_path), **kw)
    assert (len(dls.train_ds),len(dls.valid_ds))==(16,4) and sum('car' in one.names for one in dls.valid_ds.items)==1
    assert 'not in' not in capsys.readouterr().out
    label = tmp_path/'labelTxt/3.txt'
    label.write_text(label.read_text().replace('ship', 'yeti'))
    dls = RotatedDataLoaders.from_dota(tmp_path, **kw)
    assert 'not in validation: yeti (1 image)' in capsys.readouterr().out and '3.png' in items(dls.train)

def test_windows_on_disk_stay_together(tmp_path):
    root = made(tmp_path, 30, name='P00{0:02d}')
    for i,file in enumerate(sorted((root/'images').iterdir())):
        for old in (file, root/'labelTxt'/f'{file.stem}.txt'): old.rename(old.with_stem(f'P{i//6:04d}__1__{i%6*512}___0'))
    scenes = lambda dl: {name[:5] for name in items(dl)}
    for seed in range(4):
        dls = RotatedDataLoaders.from_dota(root, seed=seed, **kw)
        assert not scenes(dls.train)&scenes(dls.valid) and len(dls.valid_ds)==6
    dls = RotatedDataLoaders.from_dota(root, group=None, **kw)
    assert scenes(dls.train)&scenes(dls.valid)
    dls = RotatedDataLoaders.from_dota(root, group=lambda one: int(one.image.stem[4])//2, valid_pct=.4, **kw)
    assert len({int(name[4])//2 for name in items(dls.train)}&{int(name[4])//2 for name in items(dls.valid)})==0

# ---- upright boxes ----

def yolo(root, n=12, extra=''):
    (root/'images').mkdir(parents=True); (root/'labels').mkdir()
    for i in range(n):
        Image.new('RGB', (64,48), (i,90,60)).save(root/f'images/{i}.png')
        (root/f'labels/{i}.txt').write_text('0 .5 .5 .25 .5\n'+extra)
    (root/'data.yaml').write_text('names: [ship]\n')
    return root

def said(func):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', LabelWarning)
        res = func()
    return res,[str(one.message) for one in caught if issubclass(one.category, LabelWarning) and 'upright' in str(one.message)]

def test_upright_lines_are_taken_with_a_word(tmp_path):
    root = yolo(tmp_path/'yolo')
    with pytest.raises(LabelError, match='upright=True'): RotatedDataLoaders.from_yolo_obb(root, **kw)
    dls,notices = said(lambda: RotatedDataLoaders.from_yolo_obb(root, upright=True, **kw))
    assert dls.train_ds.items[0].quads.tolist()==[[[24,12],[40,12],[40,36],[24,36]]] and not notices
    assert len(read_yolo_obb(root, upright=True))==12
    mixed = yolo(tmp_path/'mixed', extra='0 .5 .1 .9 .5 .5 .9 .1 .5\n')
    with pytest.raises(LabelError): read_format(mixed, format='yolo_obb')
    quads = read_format(mixed, format='yolo_obb', upright=True)[0].quads
    assert np.allclose(quads[1], [[6.4,4.8],[57.6,4.8],[57.6,43.2],[6.4,43.2]])                # around the oriented one
    with pytest.raises(LabelError, match='convert'): label_sources(root, format='yolo_obb', upright=True)

def test_upright_sets_are_noticed(tmp_path):
    root = yolo(tmp_path/'yolo', 12)
    call = lambda **o: RotatedDataLoaders.from_format(root, **o, **kw)
    dls,(notice,) = said(call)
    assert 'all 12 boxes are upright' in notice and str(root) in notice
    assert not said(lambda: call(upright=True))[1]
    assert not said(lambda: RotatedDataLoaders.from_yolo(root, **kw))[1]                       # the name says it
    assert not said(lambda: RotatedDataLoaders.from_dota(made(tmp_path/'turned'), **kw))[1]
    assert said(lambda: RotatedDataLoaders.from_dota(made(tmp_path/'flat', turn=0), **kw))[1]
    assert said(lambda: RotatedDataLoaders.from_dior(made(tmp_path/'dior', form='dior', turn=np.pi/2), **kw))[1]

def test_other_formats_give_their_upright_boxes(tmp_path):
    for form in ('dota','rolabelimg','labelme'):
        annots = read_format(made(tmp_path/form, form=form), upright=True)
        assert np.allclose(annots[1].quads[0][[0,2]], [[7.07,9.86],[32.93,30.14]], atol=.1), form
    root = made(tmp_path/'coco', form='coco')
    file = next(root.rglob('*.json'))
    doc = json.loads(file.read_text())
    for entry in doc['annotations']: entry['bbox'] = [1,2,30,20]
    file.write_text(json.dumps(doc))
    assert read_format(root, upright=True)[0].quads[0].tolist()==[[1,2],[31,2],[31,22],[1,22]]  # of the file, not around the outline
    assert read_format(root)[0].quads[0][0].tolist()!=[1,2]
    dior = made(tmp_path/'dior', form='dior')
    for xml in dior.rglob('*.xml'):
        box = '<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>23</xmax><ymax>14</ymax></bndbox><robndbox>'
        xml.write_text(xml.read_text().replace('<robndbox>', box))
    assert read_format(dior, upright=True)[0].quads[0].tolist()==[[3,4],[23,4],[23,14],[3,14]]

def test_an_upright_set_is_converted(tmp_path):
    res = convert(yolo(tmp_path/'yolo'), tmp_path/'out', 'dota', format='yolo_obb', upright=True)
    assert res['']==(12,12) and len(read_format(tmp_path/'out'))==12
    convert(made(tmp_path/'turned'), tmp_path/'flat', 'yolo_obb', upright=True)
    quads = [quad.round(3) for one in read_format(tmp_path/'flat') for quad in one.quads]
    assert all(np.ptp(quad, 0).prod()>0 and set(quad[:,0])==set(quad[[0,2],0]) for quad in quads)
