"Ground truth and results in COCO's format number images and classes alike: perfect detections get AP 1 from pycocotools"
import contextlib, io, json
import numpy as np, pytest, torch
from PIL import Image
from hypothesis import given, settings, strategies as st
from rotnb.data.labels.records import Annot
from rotnb.data.labels.ids import assign_image_ids
from rotnb.data.formats.coco import read_coco, write_coco
from rotnb.evaluate.task1 import read_task1, short_scores
from rotnb.geometry.boxes import qbox2rbox, rbox2qbox
from rotnb.predict.results import LABEL_FORMATS, RESULT_FORMATS, write_predictions

NAMES = dict(numbers=['0001.png','0002.png','0003.png'], words=['a.png','b b.png','é.png'],
             mixed=['7.png','P7.png','x7.png'], same_number=['1.png','01.png','2.png'],
             folders=['p/1.png','q/1.png','q/2.png'], suffixes=['1.png','1.tif','2.png'],
             windows=['P1__0.5__0___0.png','P1__0.5__0___412.png','P1__1__0___0.png'])

def a_set(folder, names, classes=('ship',)):
    truth,preds = [],{}
    for i,n in enumerate(names):
        f = folder/n; f.parent.mkdir(parents=True, exist_ok=True); Image.new('RGB', (200,100)).save(f)
        q = rbox2qbox(np.array([[30.+40*i,50,30,14,.35]]))
        truth.append(Annot(f, q, [classes[i%len(classes)]], np.zeros(1, int)))
        preds[n] = dict(boxes=qbox2rbox(q), scores=np.array([.9]), labels=np.array([i%len(classes)]))
    return truth,preds

def ap(truth, results):
    pytest.importorskip('pycocotools'); from pycocotools.coco import COCO; from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        g = COCO(str(truth)); e = COCOeval(g, g.loadRes(str(results)), 'bbox'); e.evaluate(); e.accumulate(); e.summarize()
    return e.stats[0]

@pytest.mark.parametrize('kind', NAMES)
def test_perfect_results_get_1(tmp_path, kind):
    truth,preds = a_set(tmp_path/'images', NAMES[kind]); file = write_coco(truth, tmp_path/'truth.json', ['ship'])
    ids = [o['id'] for o in json.loads(file.read_text())['images']]
    assert len(set(ids))==3 and all(type(o) is int for o in ids)
    assert ap(file, write_predictions(preds, tmp_path/'r.json', ['ship']))==pytest.approx(1)
    assert ap(file, write_predictions(preds, tmp_path/'s.json', ['ship'], image_ids=file))==pytest.approx(1)

def test_results_of_some_images_have_the_ids_of_the_whole_set(tmp_path):
    truth,preds = a_set(tmp_path/'images', NAMES['words']); file = write_coco(truth, tmp_path/'truth.json', ['ship'])
    ids = {o['file_name']:o['id'] for o in json.loads(file.read_text())['images']}
    for n,p in preds.items():
        (r,) = json.loads(write_predictions({n:p}, tmp_path/'r.json', ['ship']).read_text()); assert r['image_id']==ids[n]

def test_a_set_read_from_coco_keeps_its_ids_and_results_take_its_classes(tmp_path):
    "Ids of images in no order, categories with gaps and in another order than the learner's"
    truth,preds = a_set(tmp_path/'images', NAMES['mixed'], ('ship','plane'))
    file = write_coco(truth, tmp_path/'first.json', ['ship','plane'])
    d = json.loads(file.read_text()); new = {o['id']:k for o,k in zip(d['images'], (900,7,41))}
    for o in d['images']: o['id'] = new[o['id']]
    for o in d['annotations']: o['image_id'] = new[o['image_id']]; o['category_id'] = {1:50,2:3}[o['category_id']]
    for o in d['categories']: o['id'] = {1:50,2:3}[o['id']]
    theirs = tmp_path/'theirs.json'; theirs.write_text(json.dumps(d))
    assert [a.id for a in read_coco(theirs)]==[900,7,41]
    again = write_coco(read_coco(theirs), tmp_path/'again.json', ['ship','plane'])
    assert [o['id'] for o in json.loads(again.read_text())['images']]==[900,7,41]
    turned = {n:{**p, 'labels':1-p['labels']} for n,p in preds.items()}              # the learner's vocab: plane, ship
    assert ap(theirs, write_predictions(turned, tmp_path/'r.json', ['plane','ship'], image_ids=theirs))==pytest.approx(1)
    with pytest.raises(ValueError, match="no category 'car'"):
        write_predictions(preds, tmp_path/'r.json', ['ship','car'], image_ids=theirs)
    with pytest.raises(ValueError, match='no image id for new.png'):
        write_predictions({'new.png':preds['7.png']}, tmp_path/'r.json', ['ship'], image_ids=theirs)

def test_sets_put_together_share_no_id(tmp_path):
    a,_ = a_set(tmp_path/'one', NAMES['numbers']); b,_ = a_set(tmp_path/'two', NAMES['words'])
    for k,o in enumerate(a+b): o.id = k%3
    ids = [o['id'] for o in json.loads(write_coco(a+b, tmp_path/'all.json', ['ship']).read_text())['images']]
    assert len(set(ids))==6

@settings(max_examples=100, deadline=None)
@given(st.lists(st.text('ab01/.é 二٣', min_size=1, max_size=6), unique=True, max_size=12), st.integers(0, 5))
def test_ids_differ_and_hang_on_no_order(names, k):
    names = [n for n in names if n.strip('/. ') and n.strip('/')==n and '//' not in n and '/.' not in f'/{n}']
    ids = assign_image_ids(names)
    assert len(set(ids.values()))==len(names) and assign_image_ids(names[k:]+names[:k])==ids and all(0<=o<2**53 for o in ids.values())

# --- scores

@pytest.mark.parametrize('format', [name for name in RESULT_FORMATS if name not in LABEL_FORMATS])     # those have no scores
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_scores_are_written_whole(tmp_path, format, dtype):
    "The scores next to 1 that a float32 tells apart, and small ones"
    s = torch.tensor([1.,1-2**-24,1-2**-23,1-2**-22,.1,1e-7,1.2345678e-5,.30000001192092896], dtype=dtype)
    p = dict(boxes=torch.tensor([[50.,50,20,10,.1]]*len(s)), scores=s, labels=torch.zeros(len(s), dtype=torch.long))
    Image.new('RGB', (100,100)).save(tmp_path/'r.png')
    names = dict(dota='r.zip', geojson='r.geojson', coco='r.json', csv='r.csv', yolo_obb='r.txt')
    f = write_predictions(p, tmp_path/names[format], ['ship'], **(dict(scene=tmp_path/'r.png') if format=='yolo_obb' else {}))
    if format=='dota': got = read_task1(f, ['ship'])['r']['scores']
    elif format=='yolo_obb': got = np.array([float(line.split()[-1]) for line in f.read_text().splitlines()])
    elif format=='csv':
        import pandas as pd; got = pd.read_csv(f, float_precision='round_trip').score.to_numpy()
    else:
        d = json.loads(f.read_text())
        got = np.array([o['score'] for o in d] if format=='coco' else [o['properties']['score'] for o in d['features']])
    assert torch.equal(torch.tensor(got, dtype=torch.float64).to(dtype), s) and (np.diff(got[:4])<0).all()

@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=9))
def test_short_scores_keep_order_and_value(x):
    s = np.array(x, np.float32); d = short_scores(s)
    assert np.array_equal(d.astype(np.float32), s) and np.array_equal(np.argsort(d, kind='stable'), np.argsort(s, kind='stable'))
    assert short_scores(np.array([.9], np.float32))[0]==.9 and short_scores([.9,1])[1]==1 and len(short_scores(torch.zeros(0)))==0
