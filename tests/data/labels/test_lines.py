"The format of label lines is recognised by their values"
import numpy as np, pytest
from rotnb.data.labels.records import *
from rotnb.data.formats.table import *
from rotnb.data.formats.dota import read_dota
from rotnb.data.labels.lines import line_kind
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.formats.yolo import *
from rotnb.data.formats.yolo_preds import read_yolo_preds
from rotnb.geometry.boxes import rbox2qbox
from text_sets import YOLO, flat, quick

BOX = '.1 .1 .5 .1 .5 .3 .1 .3'
LINES = dict(dota='10 10 30 10 30 20 10 20 ship 0\n', dota_shares=f'{BOX} ship 0\n', yolo_obb=f'0 {BOX}\n', yolo_preds=f'1 {BOX} .8\n',
    yolo_seg=f'0 {BOX} .05 .2\n', yolo='0 .2 .2 .1 .1\n',
             yolo_pixels='0 10 10 30 10 30 20 10 20\n', yolo_commas=f'0 {BOX}\n'.replace(' ', ','),
             dota_commas='10,10,30,10,30,20,10,20,ship,0\n', icdar='10,10,30,10,30,20,10,20,word\n',
             ucas_aod='10 10 30 10 30 20 10 20 0 10 10 20 10\n')

@pytest.mark.parametrize('have', LINES)
@pytest.mark.parametrize('reader, takes', [('dota',{'dota'}), ('yolo',{'yolo'}), ('yolo_obb',{'yolo_obb'}),
    ('yolo_seg',{'yolo_seg','yolo_obb'}), ('icdar',{'icdar'}), ('ucas_aod',{'ucas_aod'}), ('srsdd',{'dota'})])
def test_a_reader_names_the_format_that_is_there(tmp_path, have, reader, takes):
    r = flat(tmp_path, 3, line=LINES[have], **{'data.yaml':'names: [ship, boat]\n'})
    assert line_kind(LINES[have])==have
    if have in takes: assert all(len(o)==1 for o in read_format(r, format=reader)); return
    with pytest.raises(LabelError, match=r'(?s)0.txt and 2 more files hold ') as e: read_format(r, format=reader)
    said = str(e.value)
    assert dict(dota_shares='multiply', yolo_pixels='divide', yolo_commas='blanks', dota_commas='blanks',
        yolo_preds='read_yolo_preds').get(have, f'from_{have}') in said

@pytest.mark.parametrize('line, kind', [('10 10 30 10 30 20 10 20 3 0','dota'), ('7 10 10 30 10 30 20 10 20 .9','yolo_pixels'),
    (f'0 {BOX} 91.5','yolo_preds'), (f'3 {BOX} 17','yolo_preds'), (f'3 {BOX} .9 17','yolo_preds'),
    (f'{BOX} 2','dota_shares'), ('0 0 1 0 1 1 0 1 ship 0','dota'), (f'-1 {BOX}','yolo_obb'), ('10,10,30,10,30,20,10,20,###','icdar'),
    ('10,10,30,10,30,20,10,20,12,0','icdar')])
def test_columns_are_told_by_values(line, kind): assert line_kind(line+'\n')==kind and line_kind(f'{line}\n{line}\nbroken\n1 2\n')==kind

@pytest.mark.parametrize('good, bad', [('dota','yolo_obb'), ('dota','dota_shares'), ('dota','yolo_pixels'), ('yolo_obb','dota'),
    ('yolo_obb','yolo_pixels'), ('yolo_obb','yolo'), ('icdar','yolo_commas')])
def test_files_of_another_format_among_others_are_left_out_and_named(tmp_path, good, bad):
    r = flat(tmp_path, 6, line=LINES[good], **{'classes.txt':'ship\n'})
    for i in range(3): (r/f'labels/{i}.txt').write_text(LINES[bad])
    with pytest.raises(LabelError, match=r'(?s)3 label files cannot be read.*0.txt: holds '): read_format(r, format=good)
    with pytest.warns(LabelWarning, match='left out'):
        assert [o.image.stem for o in read_format(r, format=good, on_bad='warn')]==['3','4','5']

def test_a_score_is_no_part_of_a_class(tmp_path):
    r = flat(tmp_path, 1, labels='labelTxt', line='10 10 30 10 30 20 10 20 ship 0.93\n10 10 30 10 30 20 10 20 Boeing 747 1\n')
    with pytest.raises(LabelError, match='(?s)1 lines do not parse.*0.txt:1: .*difficult is 0.93: with a score'): read_dota(r)

def test_plain_yolo_with_scores(tmp_path):
    r = flat(tmp_path, 2, line='0 .5 .5 .2 .2 .9\n0 .5 .5 .4 .4 .1\n', **{'classes.txt':'ship\n'})
    with pytest.raises(LabelError, match='predictions, not labels'): read_format(r)
    assert [len(a) for a in read_format(r, score_thr=.5)]==[1,1]
    assert len(RotatedDataLoaders.from_yolo(r, score_thr=.5, **quick).valid_ds)==1
    with pytest.raises(LabelError, match='expected a confidence'):
        (r/'labels/0.txt').write_text('0 .5 .5 .2 .2 90\n'); read_format(r, format='yolo', score_thr=.5)

def test_names_are_text_as_written(tmp_path):
    r = flat(tmp_path, 1, **{'data.yaml':'names: [no, 07, 1_000, 2020-01-01, null]\n'})
    assert yolo_names(r)==['no','07','1_000','2020-01-01','null']
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
    line = LINES[fmt]
    r = flat(tmp_path, 1, line=line*2+(line.replace('10', bad, 1) if fmt!='yolo_obb' else line.replace('.1', bad, 1)),
        **{'classes.txt':'ship'})
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
