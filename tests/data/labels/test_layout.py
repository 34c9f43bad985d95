"Splits of yaml files and lists, also those that moved with a set from another machine"
import json
import numpy as np, pytest, yaml
from rotnb.cli.convert import convert
from rotnb.data.labels.records import *
from rotnb.data.formats.table import *
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.dota import read_dota
from rotnb.data.labels.layout import LostSplitError
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.formats.yolo import *
from rotnb.geometry.boxes import rbox2qbox
from text_sets import DOTA, YOLO, folder, flat, sides, quick

WAYS = ['./images/{}.png','/data/of/somebody/images/{}.png','images\\{}.png','C:\\Users\\ann\\set\\images\\{}.png','{}.png','{}',
    './datasets/x/images/{}.png','IMAGES/{}.PNG','"images/{}.png"','/home/train/images/{}']

@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('how', ['yaml','lists','imagesets'])
def test_lists_that_travelled_are_followed(tmp_path, way, how):
    at = 'ImageSets/Main/' if how=='imagesets' else ''
    more = {f'{at}train.txt':''.join(way.format(i)+'\n' for i in (0,1,2,3)), f'{at}val.txt':''.join(way.format(i)+'\r\n' for i in (4,5))}
    if how=='yaml': more['data.yaml'] = 'path: /on/another/machine\ntrain: ./train.txt\nval: val.txt\nnames: [ship]\n'
    r = flat(tmp_path, **more)
    for dls in (RotatedDataLoaders.from_yolo_obb(r, vocab=['ship'], **quick), RotatedDataLoaders.from_format(r, vocab=['ship'], **quick)):
        assert sides(dls)==[['0','1','2','3'],['4','5']]

@pytest.mark.parametrize('told', ['/data/set/images/train', 'D:\\sets\\x\\images\\train', '../images/train', './datasets/x/images/train',
    'images/train/', '"images\\\\train"', '[images/train]'])
def test_folders_that_moved_are_found(tmp_path, told):
    r = folder(tmp_path, {**{f'images/{s}17/{i}.png':(40,30) for i,s in enumerate(('train','train','val'))},
        **{f'labels/{s}17/{i}.txt':YOLO for i,s in enumerate(('train','train','val'))}})
    told = told.replace('train', 'train17')
    (r/'data.yaml').write_text(f"names: [ship]\ntrain: {told}\nval: {told.replace('train', 'val')}\n")
    assert sides(RotatedDataLoaders.from_yolo_obb(r, **quick))==[['0','1'],['2']]

LOST = ['/data/tr/images', 'tr/images', '/data/pics', 'images/va2018', 'somewhere/else', 'lists/val.txt', 'E:\\val', 'val/images',
    'images/*.png', '/home/x/val/images']

@pytest.mark.parametrize('lost', LOST)
@pytest.mark.parametrize('key', ['train','val'])
def test_a_split_that_leads_nowhere_is_an_error(tmp_path, lost, key):
    "In loaders, readers, doctor, converter, by folder and by yaml file; no other is drawn"
    told = dict(train='first.txt', val='second.txt', names=['ship']) | {key:lost}
    r = flat(tmp_path/'s', **{'first.txt':'0.png\n1.png\n', 'second.txt':'2.png\n', 'data.yaml':yaml.safe_dump(told)})
    for p in (r, r/'data.yaml'):
        for f in (lambda: RotatedDataLoaders.from_yolo_obb(p, **quick), lambda: RotatedDataLoaders.from_format(p, **quick),
            lambda: doctor(p, images=False),
                  lambda: convert(p, tmp_path/'o', 'dota'), lambda: read_yolo_obb(p, key), lambda: RotatedDataLoaders.from_yolo_seg(p,
                  **quick)):
            with pytest.raises(LostSplitError, match=rf"(?s)data.yaml says {key}: .*(looked below|neither by path)"): f()
    assert not (tmp_path/'o').exists()

def test_lists_that_lead_nowhere_are_errors(tmp_path):
    r = flat(tmp_path/'a', **{'train.txt':'x/0.png\n1.png\n', 'val.txt':'/gone/z.png\n', 'classes.txt':'ship\n'})
    with pytest.raises(LostSplitError, match=r"val.txt: none of its 1 images, such as '/gone/z.png'"):
        RotatedDataLoaders.from_yolo_obb(r, **quick)
    xml = ('<annotation><object><name>s</name><robndbox><cx>9</cx><cy>9</cy><w>5</w><h>4</h><angle>1</angle></robndbox></object>'
        '</annotation>')
    v = folder(tmp_path/'v', {**{f'JPEGImages/{o}.png':(40,30) for o in 'abc'}, **{f'Annotations/{o}.xml':xml for o in 'abc'},
                              'ImageSets/Main/train.txt':'a\nb\nlost\n', 'ImageSets/Main/val.txt':'7\n'})
    with pytest.raises(LostSplitError, match='none of its 1 images'): RotatedDataLoaders.from_rolabelimg(v, **quick)
    with pytest.warns(LabelWarning, match=r'(?s)1 names in the list of a split have no image.*lost'):
        assert [o.image.stem for o in read_format(v, 'train')]==['a','b']

def test_names_of_lists_do_not_cross_splits(tmp_path):
    "The same names below train and val: the words of a path decide, and where there are none it is asked"
    r = folder(tmp_path, {**{f'pics/{s}/images/{i}.png':(40,30) for s in ('train','val') for i in 'ab'},
        **{f'pics/{s}/labels/{i}.txt':YOLO for s in ('train','val') for i in 'ab'},
                          'train.txt':'/x/train/images/a.png\n/x/train/images/b.png\n', 'val.txt':'D:\\val\\images\\a.png\n',
                          'd.yaml':'names: [s]\ntrain: train.txt\nval: val.txt\n'})
    assert [[o.image.parts[-3:] for o in read_yolo_obb(r, s)] for s in ('train','val')]==[[('train','images','a.png'),
        ('train','images','b.png')],[('val','images','a.png')]]
    (r/'val.txt').write_text('/x/val/images/c.png\n')
    with pytest.raises(LostSplitError): read_yolo_obb(r, 'val')

def test_train_and_val_of_the_same_images_are_no_split(tmp_path, capsys):
    r = flat(tmp_path, **{'data.yaml':'train: images\nval: images\nnames: [ship]\n'})
    dls = RotatedDataLoaders.from_yolo_obb(r, **quick)
    assert [len(o) for o in sides(dls)]==[5,1] and 'drawn at random' in capsys.readouterr().out and doctor(r, images=False).splits==['']

def test_a_test_split_that_is_not_there_is_told(tmp_path):
    "Roboflow's yaml files name one always"
    r = folder(tmp_path/'s', {**{f'{s}/images/{s[0]}.png':(40,30) for s in ('train','valid')},
        **{f'{s}/labels/{s[0]}.txt':YOLO for s in ('train','valid')},
                              'data.yaml':'train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [ship]\n'})
    with pytest.warns(LabelWarning, match='says test: ../test/images'):
        assert {k for k in convert(r, tmp_path/'o', 'dota') if k!='losses'}=={'train','val'}
    assert sides(RotatedDataLoaders.from_yolo_obb(r, **quick))==[['t'],['v']]
    with pytest.raises(LostSplitError): read_yolo_obb(r, 'test')

def test_validation_without_training_is_asked_about(tmp_path):
    r = folder(tmp_path, {'images/val/a.png':(40,30), 'labels/val/a.txt':YOLO, 'images/b.png':(40,30), 'labels/b.txt':YOLO,
        'classes.txt':'ship'})
    with pytest.raises(DatasetLayoutError, match="a split 'val', but none called 'train'"): RotatedDataLoaders.from_yolo_obb(r, **quick)

def test_half_a_split_is_no_set(tmp_path):
    r = folder(tmp_path, {f'{s}/{d}/a.{e}':v for s in ('train','val') for d,e,v in (('images','png',(40,30)),('annfiles','txt',DOTA))})
    (r/'split.json').write_text(json.dumps(dict(finished=False)))
    for f in (lambda: read_dota(r, 'train'), lambda: read_dota(r/'train'), lambda: RotatedDataLoaders.from_dota(r, **quick),
        lambda: sniff_format(r), lambda: read_format(r, 'val', 'srsdd'),
              lambda: doctor(r, images=False), lambda: convert(r, tmp_path.parent/'o', 'coco')):
        with pytest.raises(DatasetLayoutError, match='an interrupted rotnb-split left'): f()
    (r/'split.json').write_text(json.dumps(dict(finished=True))); assert len(read_dota(r, 'train'))==1

@pytest.mark.parametrize('fmt', ['coco','cvat','csv','label_studio','labelme','rsdd'])
@pytest.mark.parametrize('how', ['','lists/','folders'])
def test_splits_of_one_label_file_are_told_by_lists_and_folders(tmp_path, fmt, how):
    "The split of the list, not one drawn at random; what no split has is said"
    at = (lambda i: 'train/' if i<3 else 'val/' if i<5 else 'more/') if how=='folders' else lambda i: ''
    r = folder(tmp_path/'s', {f'images/{at(i)}{i}.png':(60,50) for i in range(6)}); q = rbox2qbox(np.array([[30.,20,20,8,.3]]))
    FORMATS[fmt].write([Annot(r/f'images/{at(i)}{i}.png', q, ['ship'], np.zeros(1, int)) for i in range(6)], r, '', ['ship'])
    if how!='folders': folder(r, {f'{how}train.txt':'0\n1.jpg\nC:\\x\\2.png\n', f'{how}val.txt':'3\n4\n'})
    assert sides(RotatedDataLoaders.from_format(r, **quick))==[['0','1','2'],['3','4']] and doctor(r, images=False).splits==['train','val']
    res = convert(r, tmp_path/'o', 'dota')
    assert res['train']==(3,3)
    assert res['val']==(2,2)
    assert '1 images belong to none of the splits' in res['losses'][0]
    assert '5.png' in res['losses'][0]
    if how!='folders':
        (r/f'{how}val.txt').write_text('gone\n')
        with pytest.raises(LostSplitError): RotatedDataLoaders.from_format(r, **quick)

def test_two_lists_of_one_split_are_asked_about(tmp_path):
    r = flat(tmp_path, **{'classes.txt':'ship', 'a/train.txt':'0\n', 'b/train.txt':'1\n'})
    with pytest.raises(LostSplitError, match='may both be the list of train'): RotatedDataLoaders.from_yolo_obb(r, **quick)

def test_a_set_of_splits_says_which_to_name(tmp_path):
    files = {k:v for s in ('train','val') for k,v in {f'{s}/images/{s}.png':(40,30), f'{s}/labelTxt/{s}.txt':DOTA}.items()}
    with pytest.raises(DatasetLayoutError, match="pass split='train' or 'val'"): read_dota(folder(tmp_path, files))
    assert len(read_dota(tmp_path, 'val'))==1
