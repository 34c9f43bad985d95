"Text labels as they come: splits that travelled, columns of other formats, words of other tools"
import inspect, json, time, warnings
from pathlib import Path
import numpy as np, pytest, yaml
from PIL import Image
from rotnb.cli.commands import UserError
from rotnb.cli.convert import convert, losses, main
from rotnb.data.labels.records import *
from rotnb.data.labels.arguments import SYNONYMS, ELSEWHERE, UnknownArgumentError
from rotnb.data.formats.table import *
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.dota import read_dota
from rotnb.data.labels.layout import LostSplitError
from rotnb.data.labels.inside import keep_inside
from rotnb.data.labels.lines import line_kind
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.images.walk import walk_files
from rotnb.data.labels.tiles import tile_annots
from rotnb.data.formats.yolo import *
from rotnb.data.formats.yolo_preds import read_yolo_preds
from rotnb.geometry.boxes import rbox2qbox

YOLO,DOTA = '0 .1 .1 .5 .1 .5 .5 .1 .5\n','10 10 30 10 30 20 10 20 ship 0\n'

def folder(root, files):
    "Paths to text, or to the size of an image"
    for k,v in files.items():
        f = Path(root)/k; f.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(v, tuple): Image.new('RGB', v).save(f, 'PNG')
        else: f.write_text(v, encoding='utf-8')
    return Path(root)

def flat(root, n=6, labels='labels', line=YOLO, **more):
    "Images in one folder, labels in another"
    return folder(root, {**{f'images/{i}.png':(40,30) for i in range(n)}, **{f'{labels}/{i}.txt':line for i in range(n)}, **more})

def sides(dls): return [sorted(o.image.stem for o in ds.items) for ds in (dls.train_ds,dls.valid_ds)]
quick = dict(bs=2, num_workers=0, device='cpu')

# ---- keywords ----

READERS = [o for o in dir(RotatedDataLoaders) if o.startswith('from_') and o not in ('from_dblock','from_dsets')]

@pytest.mark.parametrize('name', READERS)
@pytest.mark.parametrize('word, near', [('imgsz','size'), ('batch_size','bs'), ('workers','num_workers'), ('min_visibel','min_visible'), ('epochs','fine_tune'), ('foo','')])
def test_no_reader_swallows_a_keyword(tmp_path, name, word, near):
    "Nothing is read before: there is no such set"
    args = ([],[]) if name=='from_annots' else (tmp_path/'none',)
    with pytest.raises(UnknownArgumentError, match=f'unknown argument {word!r}.*{near}'): getattr(RotatedDataLoaders, name)(*args, **{word:8})

def test_keywords_of_fastai_travel(tmp_path):
    r = flat(tmp_path, names='')
    (r/'names').unlink()
    dls = RotatedDataLoaders.from_yolo_obb(r, vocab=['ship'], val_bs=1, shuffle=False, drop_last=False, pin_memory=False, **quick)
    assert dls.valid.bs==1 and not dls.train.shuffle

def test_hints_name_arguments_that_exist():
    known = {k for f in (RotatedDataLoaders.from_annots, RotatedDataLoaders.from_format, tile_annots) for k in inspect.signature(f).parameters}
    known |= {'val_bs','shuffle','score_thr','iou_thr','iou_threshold','max_dets'}
    assert all(o in known for v in SYNONYMS.values() for o in v.split()) and not set(SYNONYMS) & set(ELSEWHERE)

@pytest.mark.parametrize('kw, say', [(dict(size='64'), "size is '64'"), (dict(size=(64,)), 'height, width'), (dict(bs=0), 'bs is 0'), (dict(tile='64'), 'tile is'), (dict(num_workers='2'), 'num_workers is'),
                                     (dict(size=0), 'size is 0'), (dict(tile=dict(gap=3)), "did you mean 'overlap'"), (dict(tile=dict(size='64')), "'64'")])
def test_values_that_are_no_numbers(tmp_path, kw, say):
    r = flat(tmp_path, labels='labelTxt', line=DOTA)
    with pytest.raises((ValueError,TypeError), match=say): RotatedDataLoaders.from_dota(r, **{**quick, **kw})

def test_options_of_readers_are_refused_everywhere(tmp_path):
    r = flat(tmp_path/'s', labels='labelTxt', line=DOTA)
    for f in (lambda: read_format(r, rbox='deg'), lambda: doctor(r, rbox='deg'), lambda: convert(r, tmp_path/'o', 'coco', rbox='deg'), lambda: RotatedDataLoaders.from_format(r, rbox='deg')):
        with pytest.raises(ValueError, match="dota has no option 'rbox'"): f()

# ---- splits that are told ----

WAYS = ['./images/{}.png','/data/of/somebody/images/{}.png','images\\{}.png','C:\\Users\\ann\\set\\images\\{}.png','{}.png','{}','./datasets/x/images/{}.png','IMAGES/{}.PNG','"images/{}.png"','/home/train/images/{}']

@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('how', ['yaml','lists','imagesets'])
def test_lists_that_travelled_are_followed(tmp_path, way, how):
    at = 'ImageSets/Main/' if how=='imagesets' else ''
    more = {f'{at}train.txt':''.join(way.format(i)+'\n' for i in (0,1,2,3)), f'{at}val.txt':''.join(way.format(i)+'\r\n' for i in (4,5))}
    if how=='yaml': more['data.yaml'] = 'path: /on/another/machine\ntrain: ./train.txt\nval: val.txt\nnames: [ship]\n'
    r = flat(tmp_path, **more)
    for dls in (RotatedDataLoaders.from_yolo_obb(r, vocab=['ship'], **quick), RotatedDataLoaders.from_format(r, vocab=['ship'], **quick)):
        assert sides(dls)==[['0','1','2','3'],['4','5']]

@pytest.mark.parametrize('told', ['/data/set/images/train', 'D:\\sets\\x\\images\\train', '../images/train', './datasets/x/images/train', 'images/train/', '"images\\\\train"', '[images/train]'])
def test_folders_that_moved_are_found(tmp_path, told):
    r = folder(tmp_path, {**{f'images/{s}17/{i}.png':(40,30) for i,s in enumerate(('train','train','val'))}, **{f'labels/{s}17/{i}.txt':YOLO for i,s in enumerate(('train','train','val'))}})
    told = told.replace('train', 'train17')
    (r/'data.yaml').write_text(f"names: [ship]\ntrain: {told}\nval: {told.replace('train', 'val')}\n")
    assert sides(RotatedDataLoaders.from_yolo_obb(r, **quick))==[['0','1'],['2']]

LOST = ['/data/tr/images', 'tr/images', '/data/pics', 'images/va2018', 'somewhere/else', 'lists/val.txt', 'E:\\val', 'val/images', 'images/*.png', '/home/x/val/images']

@pytest.mark.parametrize('lost', LOST)
@pytest.mark.parametrize('key', ['train','val'])
def test_a_split_that_leads_nowhere_is_an_error(tmp_path, lost, key):
    "In loaders, readers, doctor, converter, by folder and by yaml file; no other is drawn"
    told = dict(train='first.txt', val='second.txt', names=['ship']) | {key:lost}
    r = flat(tmp_path/'s', **{'first.txt':'0.png\n1.png\n', 'second.txt':'2.png\n', 'data.yaml':yaml.safe_dump(told)})
    for p in (r, r/'data.yaml'):
        for f in (lambda: RotatedDataLoaders.from_yolo_obb(p, **quick), lambda: RotatedDataLoaders.from_format(p, **quick), lambda: doctor(p, images=False),
                  lambda: convert(p, tmp_path/'o', 'dota'), lambda: read_yolo_obb(p, key), lambda: RotatedDataLoaders.from_yolo_seg(p, **quick)):
            with pytest.raises(LostSplitError, match=rf"(?s)data.yaml says {key}: .*(looked below|neither by path)"): f()
    assert not (tmp_path/'o').exists()

def test_lists_that_lead_nowhere_are_errors(tmp_path):
    r = flat(tmp_path/'a', **{'train.txt':'x/0.png\n1.png\n', 'val.txt':'/gone/z.png\n', 'classes.txt':'ship\n'})
    with pytest.raises(LostSplitError, match=r"val.txt: none of its 1 images, such as '/gone/z.png'"): RotatedDataLoaders.from_yolo_obb(r, **quick)
    xml = '<annotation><object><name>s</name><robndbox><cx>9</cx><cy>9</cy><w>5</w><h>4</h><angle>1</angle></robndbox></object></annotation>'
    v = folder(tmp_path/'v', {**{f'JPEGImages/{o}.png':(40,30) for o in 'abc'}, **{f'Annotations/{o}.xml':xml for o in 'abc'},
                              'ImageSets/Main/train.txt':'a\nb\nlost\n', 'ImageSets/Main/val.txt':'7\n'})
    with pytest.raises(LostSplitError, match='none of its 1 images'): RotatedDataLoaders.from_rolabelimg(v, **quick)
    with pytest.warns(LabelWarning, match=r'(?s)1 names in the list of a split have no image.*lost'): assert [o.image.stem for o in read_format(v, 'train')]==['a','b']

def test_names_of_lists_do_not_cross_splits(tmp_path):
    "The same names below train and val: the words of a path decide, and where there are none it is asked"
    r = folder(tmp_path, {**{f'pics/{s}/images/{i}.png':(40,30) for s in ('train','val') for i in 'ab'}, **{f'pics/{s}/labels/{i}.txt':YOLO for s in ('train','val') for i in 'ab'},
                          'train.txt':'/x/train/images/a.png\n/x/train/images/b.png\n', 'val.txt':'D:\\val\\images\\a.png\n', 'd.yaml':'names: [s]\ntrain: train.txt\nval: val.txt\n'})
    assert [[o.image.parts[-3:] for o in read_yolo_obb(r, s)] for s in ('train','val')]==[[('train','images','a.png'),('train','images','b.png')],[('val','images','a.png')]]
    (r/'val.txt').write_text('/x/val/images/c.png\n')
    with pytest.raises(LostSplitError): read_yolo_obb(r, 'val')

def test_train_and_val_of_the_same_images_are_no_split(tmp_path, capsys):
    r = flat(tmp_path, **{'data.yaml':'train: images\nval: images\nnames: [ship]\n'})
    dls = RotatedDataLoaders.from_yolo_obb(r, **quick)
    assert [len(o) for o in sides(dls)]==[5,1] and 'drawn at random' in capsys.readouterr().out and doctor(r, images=False).splits==['']

def test_a_test_split_that_is_not_there_is_told(tmp_path):
    "Roboflow's yaml files name one always"
    r = folder(tmp_path/'s', {**{f'{s}/images/{s[0]}.png':(40,30) for s in ('train','valid')}, **{f'{s}/labels/{s[0]}.txt':YOLO for s in ('train','valid')},
                              'data.yaml':'train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [ship]\n'})
    with pytest.warns(LabelWarning, match='says test: ../test/images'): assert {k for k in convert(r, tmp_path/'o', 'dota') if k!='losses'}=={'train','val'}
    assert sides(RotatedDataLoaders.from_yolo_obb(r, **quick))==[['t'],['v']]
    with pytest.raises(LostSplitError): read_yolo_obb(r, 'test')

def test_validation_without_training_is_asked_about(tmp_path):
    r = folder(tmp_path, {'images/val/a.png':(40,30), 'labels/val/a.txt':YOLO, 'images/b.png':(40,30), 'labels/b.txt':YOLO, 'classes.txt':'ship'})
    with pytest.raises(DatasetLayoutError, match="a split 'val', but none called 'train'"): RotatedDataLoaders.from_yolo_obb(r, **quick)

def test_half_a_split_is_no_set(tmp_path):
    r = folder(tmp_path, {f'{s}/{d}/a.{e}':v for s in ('train','val') for d,e,v in (('images','png',(40,30)),('annfiles','txt',DOTA))})
    (r/'split.json').write_text(json.dumps(dict(finished=False)))
    for f in (lambda: read_dota(r, 'train'), lambda: read_dota(r/'train'), lambda: RotatedDataLoaders.from_dota(r, **quick), lambda: sniff_format(r), lambda: read_format(r, 'val', 'srsdd'),
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
    res = convert(r, tmp_path/'o', 'dota'); assert res['train']==(3,3) and res['val']==(2,2) and '1 images belong to none of the splits' in res['losses'][0] and '5.png' in res['losses'][0]
    if how!='folders':
        (r/f'{how}val.txt').write_text('gone\n')
        with pytest.raises(LostSplitError): RotatedDataLoaders.from_format(r, **quick)

def test_two_lists_of_one_split_are_asked_about(tmp_path):
    r = flat(tmp_path, **{'classes.txt':'ship', 'a/train.txt':'0\n', 'b/train.txt':'1\n'})
    with pytest.raises(LostSplitError, match='may both be the list of train'): RotatedDataLoaders.from_yolo_obb(r, **quick)

# ---- lines that are of another format ----

BOX = '.1 .1 .5 .1 .5 .3 .1 .3'
LINES = dict(dota='10 10 30 10 30 20 10 20 ship 0\n', dota_shares=f'{BOX} ship 0\n', yolo_obb=f'0 {BOX}\n', yolo_preds=f'1 {BOX} .8\n', yolo_seg=f'0 {BOX} .05 .2\n', yolo='0 .2 .2 .1 .1\n',
             yolo_pixels='0 10 10 30 10 30 20 10 20\n', yolo_commas=f'0 {BOX}\n'.replace(' ', ','), dota_commas='10,10,30,10,30,20,10,20,ship,0\n', icdar='10,10,30,10,30,20,10,20,word\n', ucas_aod='10 10 30 10 30 20 10 20 0 10 10 20 10\n')

@pytest.mark.parametrize('have', LINES)
@pytest.mark.parametrize('reader, takes', [('dota',{'dota'}), ('yolo',{'yolo'}), ('yolo_obb',{'yolo_obb'}), ('yolo_seg',{'yolo_seg','yolo_obb'}), ('icdar',{'icdar'}), ('ucas_aod',{'ucas_aod'}), ('srsdd',{'dota'})])
def test_a_reader_names_the_format_that_is_there(tmp_path, have, reader, takes):
    r = flat(tmp_path, 3, line=LINES[have], **{'data.yaml':'names: [ship, boat]\n'})
    assert line_kind(LINES[have])==have
    if have in takes: assert all(len(o)==1 for o in read_format(r, format=reader)); return
    with pytest.raises(LabelError, match=r'(?s)0.txt and 2 more files hold ') as e: read_format(r, format=reader)
    said = str(e.value)
    assert dict(dota_shares='multiply', yolo_pixels='divide', yolo_commas='blanks', dota_commas='blanks', yolo_preds='read_yolo_preds').get(have, f'from_{have}') in said

@pytest.mark.parametrize('line, kind', [('10 10 30 10 30 20 10 20 3 0','dota'), ('7 10 10 30 10 30 20 10 20 .9','yolo_pixels'), (f'0 {BOX} 91.5','yolo_preds'), (f'3 {BOX} 17','yolo_preds'), (f'3 {BOX} .9 17','yolo_preds'),
    (f'{BOX} 2','dota_shares'), ('0 0 1 0 1 1 0 1 ship 0','dota'), (f'-1 {BOX}','yolo_obb'), ('10,10,30,10,30,20,10,20,###','icdar'), ('10,10,30,10,30,20,10,20,12,0','icdar')])
def test_columns_are_told_by_values(line, kind): assert line_kind(line+'\n')==kind and line_kind(f'{line}\n{line}\nbroken\n1 2\n')==kind

@pytest.mark.parametrize('good, bad', [('dota','yolo_obb'), ('dota','dota_shares'), ('dota','yolo_pixels'), ('yolo_obb','dota'), ('yolo_obb','yolo_pixels'), ('yolo_obb','yolo'), ('icdar','yolo_commas')])
def test_files_of_another_format_among_others_are_left_out_and_named(tmp_path, good, bad):
    r = flat(tmp_path, 6, line=LINES[good], **{'classes.txt':'ship\n'})
    for i in range(3): (r/f'labels/{i}.txt').write_text(LINES[bad])
    with pytest.raises(LabelError, match=r'(?s)3 label files cannot be read.*0.txt: holds '): read_format(r, format=good)
    with pytest.warns(LabelWarning, match='left out'): assert [o.image.stem for o in read_format(r, format=good, on_bad='warn')]==['3','4','5']

def test_a_score_is_no_part_of_a_class(tmp_path):
    r = flat(tmp_path, 1, labels='labelTxt', line='10 10 30 10 30 20 10 20 ship 0.93\n10 10 30 10 30 20 10 20 Boeing 747 1\n')
    with pytest.raises(LabelError, match='(?s)1 lines do not parse.*0.txt:1: .*difficult is 0.93: with a score'): read_dota(r)

def test_plain_yolo_with_scores(tmp_path):
    r = flat(tmp_path, 2, line='0 .5 .5 .2 .2 .9\n0 .5 .5 .4 .4 .1\n', **{'classes.txt':'ship\n'})
    with pytest.raises(LabelError, match='predictions, not labels'): read_format(r)
    assert [len(a) for a in read_format(r, score_thr=.5)]==[1,1] and len(RotatedDataLoaders.from_yolo(r, score_thr=.5, **quick).valid_ds)==1
    with pytest.raises(LabelError, match='expected a confidence'): (r/'labels/0.txt').write_text('0 .5 .5 .2 .2 90\n'); read_format(r, format='yolo', score_thr=.5)

def test_names_are_text_as_written(tmp_path):
    r = flat(tmp_path, 1, **{'data.yaml':'names: [no, 07, 1_000, 2020-01-01, null]\n'}); assert yolo_names(r)==['no','07','1_000','2020-01-01','null']
    (r/'data.yaml').write_text('names: {ship: 0, boat: 1}\n')
    with pytest.raises(DatasetLayoutError, match='expected a list, or numbers with names'): yolo_names(r)

@pytest.mark.parametrize('name', ['from_dota','from_yolo_obb','from_yolo_seg'])
def test_loaders_do_not_train_on_another_format(tmp_path, name):
    have = 'yolo_obb' if name=='from_dota' else 'dota'
    r = flat(tmp_path, 4, line=LINES[have])                                     # no yaml: the names are not what is missing
    with pytest.raises(LabelError, match=f'from_{have}'): getattr(RotatedDataLoaders, name)(r, **quick)

def test_single_lines_of_another_format_are_named(tmp_path):
    r = flat(tmp_path, 1, line=YOLO*3+'0 .2 .2 .1 .1\n'+f'0 {BOX} .9\n', **{'classes.txt':'ship'})
    with pytest.raises(LabelError, match=r"(?s)0.txt:4: .*from_yolo.*0.txt:5: .*score_thr"): read_yolo_obb(r)

@pytest.mark.parametrize('bad', ['1_0','１０','0x10','1e','--1'])
@pytest.mark.parametrize('fmt', ['dota','yolo_obb','icdar'])
def test_spellings_that_only_python_takes(tmp_path, bad, fmt):
    line = LINES[fmt]; r = flat(tmp_path, 1, line=line*2+(line.replace('10', bad, 1) if fmt!='yolo_obb' else line.replace('.1', bad, 1)), **{'classes.txt':'ship'})
    with pytest.raises(LabelError, match=r'0.txt:3: expected'): read_format(r, format=fmt)

def test_predictions_are_asked_for(tmp_path):
    r = flat(tmp_path, 2, **{'classes.txt':'plane\nship\n'})
    (r/'labels/0.txt').write_text(f'1 {BOX} .9\n0 {BOX} .2\n1 {BOX} 1 17\n'); (r/'labels/1.txt').unlink()
    annots = [Annot(r/f'images/{i}.png', np.zeros((0,4,2)), [], np.zeros(0, int), (40,30)) for i in range(2)]
    p,none = read_yolo_preds(r/'labels', annots, r)
    assert (p['labels'].tolist(),p['scores'].tolist(),p['boxes'].shape,none['boxes'].shape)==([1,0,1],[.9,.2,1.],(3,5),(0,5))
    np.testing.assert_allclose(rbox2qbox(p['boxes'])[0], np.array(BOX.split(), float).reshape(4,2)*[40,30], atol=1e-6)
    (r/'labels/0.txt').write_text(f'1 {BOX} .9\n0 {BOX} .2\n')
    assert read_format(r, score_thr=.5)[0].names==['ship'] and sniff_format(r)=='yolo_obb'
    with pytest.raises(DatasetLayoutError, match='no text file'): read_yolo_preds(r/'images', annots, r)
    (r/'labels/0.txt').write_text(f'1 {BOX} 90\n')
    with pytest.raises(LabelError, match='0.txt:1: expected a confidence'): read_yolo_preds(r/'labels', annots, r)

# ---- written for Ultralytics ----

def told_by(sets, root):
    for s in sets: FORMATS['yolo_obb'].write([Annot(folder(root, {f'images/{s}/{s}.png':(40,30)})/f'images/{s}/{s}.png', rbox2qbox(np.array([[20.,15,8,4,.3]])), ['ship'], np.zeros(1, int))], root, s, ['ship'])
    return yaml.safe_load((root/'data.yaml').read_text())

@pytest.mark.parametrize('sets, val', [(('train','val'),'images/val'), (('train','test'),'images/test'), (('train','val','test'),'images/val'), (('train',),'images/train'), (('test',),'images/test')])
def test_the_yaml_file_is_whole_and_reads_back(tmp_path, sets, val):
    d = told_by(sets, tmp_path); assert 'path' not in d and d['val']==val and d['train'] in ('images/train',val) and (tmp_path/'classes.txt').read_text()=='ship\n'
    assert list_splits(tmp_path, FORMATS['yolo_obb'])==list(sets)

def test_a_set_without_splits_stays_one(tmp_path):
    r = flat(tmp_path/'d', labels='labelTxt', line=DOTA)
    convert(r, tmp_path/'y', 'yolo_obb'); d = yaml.safe_load((tmp_path/'y/data.yaml').read_text())
    assert (d['train'],d['val'])==('images','images') and convert(tmp_path/'y', tmp_path/'b', 'dota')['']==(6,6)

def test_corners_inside_by_default(tmp_path):
    rng = np.random.default_rng(1); n = 300
    q = rbox2qbox(np.column_stack([rng.uniform(-30, 230, n), rng.uniform(-30, 130, n), rng.uniform(4, 300, n), rng.uniform(3, 60, n), rng.uniform(-2, 2, n)]))
    a = Annot(folder(tmp_path, {'images/a.png':(200,100)})/'images/a.png', q, ['ship']*n, np.zeros(n, int))
    FORMATS['yolo_obb'].write([a], tmp_path, '', ['ship'])
    v = np.array([o.split()[1:] for o in (tmp_path/'labels/a.txt').read_text().splitlines()], float)
    assert v.min()>=0 and v.max()<=1 and 0<len(v)<n
    inside = ((q>=0)&(q<=[200,100])).all((1,2)); new,iou = keep_inside(q, (200,100))
    np.testing.assert_array_equal(new[inside], q[inside]); assert (iou[inside]==1).all() and len(v)==(iou>0).sum() and (iou<=1+1e-6).all() and 20<inside.sum()
    said = losses([a], FORMATS['yolo_obb']); assert f'{(~inside & (iou>0)).sum()} boxes leave their image and were cut' in said[0] and f'{(iou==0).sum()} boxes lie outside' in said[1]
    FORMATS['yolo_obb'].write([a], tmp_path, '', ['ship'], border='keep'); np.testing.assert_allclose(read_yolo_obb(tmp_path)[0].quads, q, atol=1e-3)
    assert any('middle lies outside' in o for o in losses([a], FORMATS['yolo_obb'], 'keep'))
    with pytest.raises(ValueError, match="border is 'cut'"): FORMATS['yolo_obb'].write([a], tmp_path, '', ['ship'], border='cut')

def test_cut_boxes_keep_direction_and_heading():
    t = np.linspace(-3, 3, 25); b = np.column_stack([np.full(25, 97.), np.full(25, 50.), np.full(25, 40.), np.full(25, 12.), t])
    new,iou = keep_inside(rbox2qbox(b), (100,100)); e = new[:,1]-new[:,0]
    turn = (np.arctan2(e[:,1], e[:,0])-t+np.pi)%(2*np.pi)-np.pi
    assert iou.min()>.4 and np.median(np.abs(turn))<.2 and (np.abs(turn)<.8).all()

def test_the_command_takes_names_and_border(tmp_path, capsys):
    r = flat(tmp_path/'s', 2, line='1 -.1 .1 .5 .1 .5 .5 -.1 .5\n'); (tmp_path/'n.txt').write_text('plane\nsmall ship\n')
    for names in ('plane, small ship', str(tmp_path/'n.txt')):
        for border,low in (('clip',0), ('keep',-.1)):
            main(str(r), str(tmp_path/'o'), 'yolo_obb', names=names, border=border, overwrite=True)
            assert float((tmp_path/'o/labels/0.txt').read_text().split()[1])==low and yolo_names(tmp_path/'o')==['plane','small ship']
    with pytest.raises(SystemExit): main(str(r), str(tmp_path/'o'), 'dota', names='gone.txt', overwrite=True)
    assert 'boxes leave their image' in capsys.readouterr().out
    with pytest.raises(UserError, match='border= is for YOLO'): convert(r, tmp_path/'p', 'dota', vocab=['a','b'], border='clip')

def test_classes_txt_as_label_tools_write_it(tmp_path):
    "Beside images/ and labels/ (Label Studio), in labels/ (LabelImg); a yaml file goes before it; it is no label file"
    for at in ('classes.txt','labels/classes.txt'):
        r = flat(tmp_path/at.replace('/','_'), 2, **{at:'\ufeffplane\r\nschön 船\r\n\r\n'}); (r/'labels/0.txt').write_text(YOLO.replace('0', '1', 1))
        with warnings.catch_warnings(): warnings.simplefilter('error'); a = read_format(r)
        assert [o.names for o in a]==[['schön 船'],['plane']] and sides(RotatedDataLoaders.from_yolo_obb(r, **quick)) and doctor(r, images=False).errors==0
    (r/'data.yaml').write_text('names: [a, b]\n'); assert yolo_names(r)==['a','b']

# ---- windows and links ----

def test_the_overlap_is_in_proportion():
    a = [Annot(np.zeros((1024,1024,3), np.uint8), rbox2qbox(np.array([[500.,500,20,10,.3]])), ['s'], np.zeros(1, int))]
    n = {s:len(tile_annots(a, s, empty='keep')) for s in (100,200,256,512,1024)}
    assert n=={100:169,200:49,256:25,512:9,1024:1}

def test_what_no_window_shows_is_said_once(tmp_path):
    a = Annot(folder(tmp_path, {'a.png':(900,700)})/'a.png', rbox2qbox(np.array([[450.,350,600,200,0],[100,100,20,10,0]])), ['port','ship'], np.zeros(2, int))
    with warnings.catch_warnings(record=True) as w: warnings.simplefilter('always'); RotatedDataLoaders.from_annots([a], [a], tile=256, **quick)
    said = [str(o.message) for o in w if issubclass(o.category, LabelWarning)]
    assert len(said)==1 and 'training: 1 boxes count in no window, of 2' in said[0] and 'validation: 1 boxes' in said[0] and 'overlap=600' in said[0]

def test_each_real_folder_is_visited_once_behind_links(tmp_path):
    for k in range(40):
        d = folder(tmp_path/'far', {f'{k}/{k}.png':(2,2)})/f'{k}'
        for o in 'ab'[:2 if k<39 else 0]: (d/o).symlink_to(tmp_path/f'far/{k+1}')
    (tmp_path/'set').mkdir(); (tmp_path/'set/pics').symlink_to(tmp_path/'far/0')
    t = time.perf_counter(); files = walk_files(tmp_path/'set'); assert time.perf_counter()-t<10 and len(files)==40
    for s in ('train','val'): (tmp_path/f'two/{s}').mkdir(parents=True); (tmp_path/f'two/{s}/images').symlink_to(tmp_path/'far/39')
    assert len(walk_files(tmp_path/'two'))==2                                    # two splits may share their images
