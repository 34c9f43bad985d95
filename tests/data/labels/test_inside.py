"Boxes that leave their image, and what is written for Ultralytics"
import warnings
import numpy as np, pytest, yaml
from rotnb.cli.commands import UserError
from rotnb.cli.convert import convert, losses, main
from rotnb.data.labels.records import *
from rotnb.data.formats.table import *
from rotnb.data.doctor.report import doctor
from rotnb.data.labels.inside import keep_inside
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.formats.yolo import *
from rotnb.geometry.boxes import rbox2qbox
from text_sets import DOTA, YOLO, folder, flat, sides, quick

def told_by(sets, root):
    for s in sets:
        FORMATS['yolo_obb'].write([Annot(folder(root, {f'images/{s}/{s}.png':(40,30)})/f'images/{s}/{s}.png',
            rbox2qbox(np.array([[20.,15,8,4,.3]])), ['ship'], np.zeros(1, int))], root, s, ['ship'])
    return yaml.safe_load((root/'data.yaml').read_text())

@pytest.mark.parametrize('sets, val', [(('train','val'),'images/val'), (('train','test'),'images/test'),
    (('train','val','test'),'images/val'), (('train',),'images/train'), (('test',),'images/test')])
def test_the_yaml_file_is_whole_and_reads_back(tmp_path, sets, val):
    d = told_by(sets, tmp_path)
    assert 'path' not in d and d['val']==val and d['train'] in ('images/train',val) and (tmp_path/'classes.txt').read_text()=='ship\n'
    assert list_splits(tmp_path, FORMATS['yolo_obb'])==list(sets)

def test_a_set_without_splits_stays_one(tmp_path):
    r = flat(tmp_path/'d', labels='labelTxt', line=DOTA)
    convert(r, tmp_path/'y', 'yolo_obb'); d = yaml.safe_load((tmp_path/'y/data.yaml').read_text())
    assert (d['train'],d['val'])==('images','images') and convert(tmp_path/'y', tmp_path/'b', 'dota')['']==(6,6)

def test_corners_inside_by_default(tmp_path):
    rng = np.random.default_rng(1); n = 300
    q = rbox2qbox(np.column_stack([rng.uniform(-30, 230, n), rng.uniform(-30, 130, n), rng.uniform(4, 300, n), rng.uniform(3, 60, n),
        rng.uniform(-2, 2, n)]))
    a = Annot(folder(tmp_path, {'images/a.png':(200,100)})/'images/a.png', q, ['ship']*n, np.zeros(n, int))
    FORMATS['yolo_obb'].write([a], tmp_path, '', ['ship'])
    v = np.array([o.split()[1:] for o in (tmp_path/'labels/a.txt').read_text().splitlines()], float)
    assert v.min()>=0 and v.max()<=1 and 0<len(v)<n
    inside = ((q>=0)&(q<=[200,100])).all((1,2)); new,iou = keep_inside(q, (200,100))
    np.testing.assert_array_equal(new[inside], q[inside])
    assert (iou[inside]==1).all() and len(v)==(iou>0).sum() and (iou<=1+1e-6).all() and 20<inside.sum()
    said = losses([a], FORMATS['yolo_obb'])
    assert f'{(~inside & (iou>0)).sum()} boxes leave their image and were cut' in said[0]
    assert f'{(iou==0).sum()} boxes lie outside' in said[1]
    FORMATS['yolo_obb'].write([a], tmp_path, '', ['ship'], border='keep')
    np.testing.assert_allclose(read_yolo_obb(tmp_path)[0].quads, q, atol=1e-3)
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
        r = flat(tmp_path/at.replace('/','_'), 2, **{at:'\ufeffplane\r\nschön 船\r\n\r\n'})
        (r/'labels/0.txt').write_text(YOLO.replace('0', '1', 1))
        with warnings.catch_warnings(): warnings.simplefilter('error'); a = read_format(r)
        assert [o.names for o in a]==[['schön 船'],['plane']]
        assert sides(RotatedDataLoaders.from_yolo_obb(r, **quick))
        assert doctor(r, images=False).errors==0
    (r/'data.yaml').write_text('names: [a, b]\n'); assert yolo_names(r)==['a','b']
