"Every label format: round trips, malformed files, real samples where they are at hand"
import json, warnings
from pathlib import Path
import numpy as np, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from rotnb.cli.commands import UserError
from rotnb.cli.convert import convert
from rotnb.data.formats.table import *
from rotnb.data.labels.records import *
from rotnb.data.formats.dota import *
from rotnb.data.labels.search import *
from rotnb.data.formats.json_text import load_json
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.formats.xml_text import *
from rotnb.data.formats.cvat import *
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.fit import from_masks, from_polygons, with_heading
from paths import SHARED

DATA = SHARED/'data'

few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
WRITTEN = [k for k,f in FORMATS.items() if f.write]

def real(name):
    if not (DATA/name).exists(): pytest.skip(f'no reference data: {DATA.name}/{name} is absent (set ROTNB_SHARED)')
    return DATA/name

def quiet(f, *args, **kw):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); return f(*args, **kw)

def gap(a, b): # corners apart, whichever is first
    return min(np.abs(np.roll(a, k, 0)-b).max() for k in range(4))

def make_images(root, n=2, size=(731,433)):
    (root/'images').mkdir(parents=True)
    for i in range(n): Image.new('RGB', size).save(root/f'images/{i}.png')
    return [root/f'images/{i}.png' for i in range(n)]

# ---- round trips ----

coord = st.floats(-50,700).map(lambda v: round(v,2)); side = st.floats(2,300).map(lambda v: round(v,2))
box = st.tuples(coord, coord, side, side, st.floats(-3.14,3.14), st.sampled_from(['ship','storage tank','7']), st.integers(0,1))

@pytest.mark.parametrize('name', WRITTEN)
@few
@given(st.lists(box, max_size=4))
def test_round_trip(tmp_path_factory, name, rows):
    f,root = FORMATS[name],tmp_path_factory.mktemp('r')
    ims = make_images(root)
    q = rbox2qbox(np.array([r[:5] for r in rows], float).reshape(-1,5))
    names = ['ship' if 'hrsc' in name else r[5] for r in rows]
    a = Annot(ims[0], q, names, np.array([r[6] for r in rows], int))
    f.write([a, to_annot(ims[1], [])], root, '', ['ship','storage tank','7'], **(dict(border='keep') if FORMATS[name].clips else {}))
    b = {o.image.name:o for o in quiet(f.read, root, None, None, 'raise')}
    assert len(b['0.png'])==len(a) and len(b['1.png'])==0
    if 'names' in f.holds: assert b['0.png'].names==names
    if 'difficult' in f.holds: assert b['0.png'].difficult.tolist()==a.difficult.tolist()
    for u,v,r in zip(b['0.png'].quads, q, rows):
        tol = .51 if name=='icdar' else .01
        assert gap(u, v)<tol
        if 'heading' in f.holds and not ('hrsc' in name and r[2]<r[3]+.1): assert np.abs(u-v).max()<tol

@pytest.mark.parametrize('name', [k for k in WRITTEN if 'quad' in FORMATS[k].holds])
def test_free_quads_survive_where_it_is_said(tmp_path, name):
    ims = make_images(tmp_path, 1); q = np.array([[[10.,10],[60,12],[58,40],[12,33]]])
    FORMATS[name].write([Annot(ims[0], q, ['ship'], np.array([0]))], tmp_path, '', ['ship'])
    assert gap(quiet(FORMATS[name].read, tmp_path, None, None, 'raise')[0].quads[0], q[0])<.01

def test_every_pair_of_formats_through_the_converter(tmp_path):
    ims = make_images(tmp_path/'dota', 3); q = rbox2qbox(np.array([[300.,200,80,30,.4],[500,300,60,20,-1.2]]))
    annots = [Annot(o, q[:i], ['ship']*i, np.zeros(i, int)) for i,o in enumerate(ims)]
    FORMATS['dota'].write(annots, tmp_path/'dota', '', ['ship'])
    for k in WRITTEN:
        res = quiet(convert, tmp_path/'dota', tmp_path/f'd_{k}', k)
        assert res['']==(3,3), k
        quiet(convert, tmp_path/f'd_{k}', tmp_path/f'{k}_d', 'dota', format=k)
        back = {o.image.name:o for o in quiet(read_dota, tmp_path/f'{k}_d')}
        assert all(gap(u, v)<(1 if k=='icdar' else .01) for a in annots for u,v in zip(back[a.image.name].quads, a.quads)), k

def test_converter_replaces_only_when_told_and_wholly(tmp_path):
    ims = make_images(tmp_path/'a', 1); q = rbox2qbox(np.array([[300.,200,80,30,.4]]))
    FORMATS['dota'].write([Annot(ims[0], q, ['ship'], np.array([1]))], tmp_path/'a', '', ['ship'])
    FORMATS['dota'].write([Annot(o, q, ['ship'], np.array([1])) for o in make_images(tmp_path/'b', 1)], tmp_path/'b', '', ['ship'])
    had = {o:o.read_bytes() for o in (tmp_path/'b').rglob('*') if o.is_file()}
    with pytest.raises(UserError, match='--overwrite'): convert(tmp_path/'a', tmp_path/'b', 'coco')
    (tmp_path/'a/labelTxt/0.txt').write_text('broken line\n')
    with pytest.raises(LabelError): convert(tmp_path/'a', tmp_path/'b', 'coco', format='dota', overwrite=True)
    assert {o:o.read_bytes() for o in (tmp_path/'b').rglob('*') if o.is_file()}==had and sorted(o.name for o in tmp_path.iterdir())==['a',
        'b']

# ---- boxes around shapes ----

@few
@given(box)
def test_polygon_and_heading_round_trip(r):
    r = np.array([r[:5]], float); q = rbox2qbox(r)
    b,iou = from_polygons(q)
    assert gap(rbox2qbox(b)[0], q[0])<1e-6 and iou[0]>1-1e-9
    assert np.abs(rbox2qbox(with_heading(q)[0])-q).max()<1e-6

def test_mask_without_pixels_and_bad_shape():
    assert np.isnan(from_masks(np.zeros((1,4,4)))[0]).all()
    with pytest.raises(ValueError, match=r'\(h, w\)'): from_masks([np.zeros(3)])

# ---- malformed ----

GOOD = dict(coco='{"images":[{"id":1,"file_name":"0.png"}],"categories":[{"id":1,"name":"s"}],"annotations":[{"image_id":1'
    ',"category_id":1,'
                 '"segmentation":[[0,0,9,0,9,5,0,5]]}]}',
    labelme='{"shapes":[{"label":"s","points":[[0,0],[9,0],[9,5],[0,5]]}]}',
    label_studio='[{"data":{"image":"0.png"},"annotations":[{"result":[{"value":{"x":1,"y":1,"width":9,"height":5,"rotation":0'
    ',"rectanglelabels":["s"]}}]}]}]',
    cvat='<annotations><image name="0.png"><box label="s" xtl="0" ytl="0" xbr="9" ybr="5" rotation="3"/></image></annotations>',
    csv='image,name,x1,y1,x2,y2,x3,y3,x4,y4\n0.png,s,0,0,9,0,9,5,0,5\n', icdar='0,0,9,0,9,5,0,5,word\n', rolabelimg=
    '<annotation><object><name>s</name><robndbox><cx>9</cx><cy>9</cy><w>5</w><h>4</h><angle>1</angle></robndbox></object></annotation>',
    hrsc='<HRSC_Image><HRSC_Objects><HRSC_Object><Class_ID>100000001</Class_ID><mbox_cx>9</mbox_cx><mbox_cy>9</mbox_cy><mbox_w>5</mbox_w>'
         '<mbox_h>3</mbox_h><mbox_ang>.3</mbox_ang></HRSC_Object></HRSC_Objects></HRSC_Image>')
EXT = dict(coco='0.json', labelme='0.json', label_studio='0.json', cvat='0.xml', csv='0.csv', icdar='gt_0.txt', rolabelimg='0.xml',
    hrsc='0.xml')

@pytest.mark.parametrize('name', GOOD)
def test_fuzzed_files_never_crash(tmp_path, name):
    make_images(tmp_path, 1); f = tmp_path/'labels'/EXT[name]; f.parent.mkdir(); f.write_text(GOOD[name])
    assert len(read_format(tmp_path, format=name)[0])==1 and sniff_format(f)==name
    rng = np.random.default_rng(0); s = GOOD[name]
    for _ in range(60):
        i,j = sorted(rng.integers(0, len(s)+1, 2)); kind = rng.integers(3)
        bad = s[:i]+s[j:] if kind==0 else s[:i]+rng.choice(list('0-"{}[],<>/.a\x00é'))+s[i+1:] if kind==1 else s[:i]+s[i:j]*2+s[j:]
        f.write_text(bad, encoding='utf-8')
        try: assert all(np.isfinite(o.quads).all() for o in quiet(read_format, tmp_path, format=name, on_bad='warn'))
        except (LabelError, DatasetLayoutError): pass
        try: sniff_format(f)
        except FormatError: pass

# ---- real samples ----

def read_real(name, **kw): return quiet(read_format, real(name), **kw)

def test_ssdd_is_complete():
    assert sniff_format(real('ssdd'))=='ssdd'
    n = [read_real('ssdd', split=s) for s in ('train','test')]
    assert [len(o) for o in n]==[928,232] and sum(len(a) for o in n for a in o)==2587
    assert read_real('ssdd', split='test_inshore') and len(read_real('ssdd', split='test_inshore'))==46

def test_dior_corners_are_those_of_the_xml():
    assert len(read_real('dior_r', format='dior'))==12 and sniff_format(real('dior_r'))=='dior'
    import xml.etree.ElementTree as E
    for a in read_real('dior_r', format='dior'):
        want = [[float(v.text) for v in o] for o in E.parse(real('dior_r')/f'oriented/{a.image.stem}.xml').getroot().iter('robndbox')]
        np.testing.assert_array_equal(a.quads.reshape(-1,8), want)

def test_hrsc_xml_agrees_with_the_other_labels_and_points_to_the_bow():
    a = next(o for o in read_real('hrsc', format='hrsc') if o.image.stem=='100000006')
    d = a.quads[0,1]-a.quads[0,0]
    assert a.names==['ship'] and d@(np.array([143,776])-a.quads[0].mean(0))>0
    q = np.array((real('hrsc')/'yolo_obb/100000006.txt').read_text().split()[1:9], float).reshape(4,2)*[1172,816]
    assert np.median([np.abs(a.quads[0]-p).sum(1).min() for p in q])<.1     # but for the corner that is clipped there

def test_rsdd_boxes_are_the_outlines_of_its_coco_file():
    folder = real('labels_only')/'labels'; d = load_json(folder/'rsdd_coco/test_inshore.json')
    want = {}
    for a in d['annotations']: want.setdefault(a['image_id'], []).append(np.array(a['segmentation'][0]).reshape(4,2))
    n = 0
    for i in d['images']:
        f = folder/'rsdd_xml'/(Path(i['file_name']).stem+'.xml')
        for _,_,parse in FORMATS['rsdd'].entries(f) if f.exists() else ():
            q = np.array(parse()[0]).reshape(4,2); n += 1
            assert min(gap(q, o) for o in want[i['id']])<1e-3
    assert n==596 and sniff_format(folder/'rsdd_xml')=='rsdd'

def test_rolabelimg_samples_and_coco_in_degrees_agree():
    a = read_real('rolabelimg_piglet', format='rolabelimg')
    assert (len(a),sum(map(len, a)))==(9,91)
    x,c = read_real('fisheye_person', format='rolabelimg')[0],read_real('fisheye_person', format='coco', rbox='deg')[0]
    assert len(x)==len(c)==89 and all(min(gap(q, o) for o in x.quads)<1e-6 for q in c.quads)
    with pytest.raises(LabelError, match='rbox='): read_format(real('fisheye_person'), format='coco')
    n = [len(FORMATS['rolabelimg'].entries(f)) for f in sorted((real('rolabelimg_demo')/'labels').glob('*.xml'))]
    assert len(n)==4 and all(n)

def test_scene_text_is_the_same_in_three_formats():
    p = real('icdar2015_toy')
    txt,lm = (quiet(read_format, p, format=k, **o) for k,o in (('icdar',dict(labels='icdar_txt')),('labelme',{})))
    co = read_format(p/'labels/coco/instances_test.json', images=p/'images')
    assert len(txt)==len(lm)==len(co)==10 and sum(map(len, txt))==sum(map(len, lm))==sum(map(len, co))
    co = {o.image.stem:o for o in co}
    for a,b in zip(txt, lm):
        np.testing.assert_array_equal(a.quads, b.quads)
        assert all(min(gap(q, o) for o in co[a.image.stem].quads)<1e-9 for q in a.quads)
        assert int(a.difficult.sum())==int(co[a.image.stem].difficult.sum())
    with pytest.raises(FormatError, match='several formats'): sniff_format(p)

def test_outlines_become_boxes():
    a = read_real('polygons_kopi', format='yolo_seg')
    assert len(a)==3 and sum(map(len, a))==23 and sniff_format(real('polygons_kopi'))=='yolo_seg'

def test_dota_and_yolo_are_recognised():
    assert (sniff_format(real('dota')),sniff_format(real('dota8')))==('dota','yolo_obb')
    assert sum(len(a) for s in ('train','val') for a in read_real('dota8', split=s))==133

def test_ssdd_converted_to_coco_and_loaded(tmp_path):
    res = quiet(convert, real('ssdd'), tmp_path/'c', 'coco', images='link')
    assert (res['train'][0],res['test'][0])==(928,232) and res['train'][1]+res['test'][1]==2587
    dls = quiet(RotatedDataLoaders.from_coco, tmp_path/'c', valid='test', size=256, bs=2, num_workers=0, device='cpu')
    assert (len(dls.train_ds),len(dls.valid_ds),dls.vocab)==(928,232,['ship'])
