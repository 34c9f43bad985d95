"Scenes and folders predicted window by window: the same as files cut out and merged, with workers, interruptions and broken images"
import json, os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from torch import nn
from fastai.vision.all import Learner, load_learner
from rotnb.data.labels.atomic import BusyError, file_lock
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.synth.scenes import make_scene, make_synth
from rotnb.data.images.windows import scene_windows
from rotnb.evaluate.task1 import merge_windows, read_task1
from rotnb.geometry.boxes import rbox2hbox, rbox2qbox
from rotnb.learn.callbacks import DetectionCallback, DetectionLoss
from rotnb.predict.infer import predict_images
from rotnb.predict.journal import Journal
from rotnb.learn.learner import rotated_learner
from rotnb.predict.results import coco_results, geojson, write_predictions
from rotnb.predict.scene import *
from paths import ROOT

KW = dict(size=128, overlap=48, progress=False)

class Bright(nn.Module):
    "Finds bright upright boxes, each of a brightness of its own: that is its score, the strongest colour its label"
    angle = 'le90'
    def __init__(self): super().__init__(); self.p,self.seen = nn.Parameter(torch.zeros(1)),0
    def forward(self, x, targets=None):
        self.seen += len(x)
        return [self.find(o) for o in x]
    def find(self, o):
        at = (o.amax(0)>.5).nonzero().double()
        if not len(at): return dict(boxes=torch.zeros(0,5), scores=torch.zeros(0), labels=torch.zeros(0).long())
        key = at.new_tensor([o[:,int(i),int(j)].argmax()*1000+(o[:,int(i),int(j)].amax()*255).round() for i,j in at])
        rows = []
        for k in key.unique():                                       # every square has a colour of its own
            p = at[key==k]; lo,hi = p.min(0).values,p.max(0).values+1
            (h,w),(cy,cx) = (hi-lo).tolist(),((hi+lo)/2).tolist()
            rows.append([cx, cy, w, h, 0., float(k%1000)/255, float(k//1000)])
        t = torch.tensor(sorted(rows, key=lambda r: -r[5]))
        return dict(boxes=t[:,:5], scores=t[:,5], labels=t[:,6].long())

@pytest.fixture(scope='session')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('synth')/'set', n_train=4, n_valid=2, size=96, seed=3)

def bright(synth, size=128, model=None, bs=3):
    dls = RotatedDataLoaders.from_dota(synth, size=size, bs=bs, num_workers=0)
    return Learner(dls, model or Bright(), loss_func=DetectionLoss(), cbs=DetectionCallback(max_dets=100), metrics=[])

@pytest.fixture
def learn(synth): return bright(synth)

def squares(h=400, w=560, n=24, seed=0):
    "Squares of 10 to 40 px, each of its own brightness, far enough from each other; their upright boxes"
    rng,im,boxes = np.random.default_rng(seed),np.full((h,w,3), 20, np.uint8),[]
    while len(boxes)<n:
        s = int(rng.integers(10, 40)); x,y = int(rng.integers(0, w-s)),int(rng.integers(0, h-s))
        if any(x<b[2]+4 and y<b[3]+4 and b[0]<x+s+4 and b[1]<y+s+4 for b in boxes): continue
        im[y:y+s,x:x+s,len(boxes)%3] = 250-4*len(boxes)
        boxes.append((x,y,x+s,y+s))
    return im,np.array(boxes, float)

def same(a, b): return all(torch.equal(a[key], b[key]) for key in ('boxes','scores','labels'))

def apart(ours, theirs):
    "Largest distance from a corner to the nearest corner of the fellow, both ways one to one"
    a,b = rbox2qbox(ours['boxes'].double()),torch.as_tensor(theirs['boxes'])
    assert len(a)==len(b)
    d = (a.mean(1)[:,None]-b.mean(1)).norm(dim=-1) + 1e6*(ours['labels'][:,None]!=torch.as_tensor(theirs['labels']))
    k = d.argmin(1)
    assert len(k.unique())==len(k) and np.allclose(ours['scores'], theirs['scores'][k], atol=1e-5)
    return torch.cdist(a, b[k]).min(-1).values.max().item()

def offline(learn, scene, folder, score_thr=.05, scales=(1.,), size=128, overlap=48, iou_thr=.1, **_):
    folder.mkdir(); ws = scene_windows(scene, size, overlap, scales, img_rate_thr=0)
    files = [folder/f'{w.name}.png' for w in ws]
    for w,f in zip(ws, files): Image.fromarray(w.pixels()).save(f)
    preds = predict_images(learn, files, score_thr)
    return preds,merge_windows({f.stem:p for f,p in zip(files, preds)}, iou_thr)[ws[0].name.split('__')[0]]

# --- the same as offline

def test_every_square_is_found_once_and_where_it_is(learn):
    im,truth = squares()
    d = predict_scene(learn, im, cut='drop', **KW)
    got = rbox2hbox(d['boxes']).numpy()
    assert len(got)==len(truth)
    k = np.abs(got[:,None]-truth).max(-1).argmin(1)
    assert sorted(k)==list(range(len(truth))) and np.abs(got-truth[k]).max()<.01

@pytest.mark.parametrize('size,scales', [pytest.param(128, (1.,), marks=pytest.mark.slow), pytest.param(96, (1.,), marks=pytest.mark.slow),
                                         (128,(.5,1.,1.5)), (128,(.75,))], ids=str)
def test_equals_offline_tiles_and_merge(synth, tmp_path, size, scales):
    learn,(im,_) = bright(synth, size),squares(seed=1)
    _,want = offline(learn, im, tmp_path/'w', scales=scales)
    got = predict_scene(learn, im, scales=scales, **KW)
    assert len(want['boxes'])>=20 and apart(got, want)<.01

@pytest.fixture(scope='module')
def fcos(synth):
    torch.manual_seed(0)
    dls = RotatedDataLoaders.from_dota(synth, size=96, bs=3, num_workers=0)
    return rotated_learner(dls, 'rotated_fcos', backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16,
                           stacked_convs=1,
                           strides=(8,16), score_thr=0., max_per_img=30)

def test_a_real_detector_in_every_window(fcos, tmp_path):
    "Window by window, before the merge: nothing is near a threshold that rounding could cross"
    im = make_scene(5, 300)[0]
    want,_ = offline(fcos, im, tmp_path/'w', 0.)
    windows = scene_windows(im, 128, 48)
    rows = predict_windows(fcos, windows, 0., bs=4, progress=False)
    for w,r,p in zip(windows, rows, want):
        assert len(r)==len(p['scores'])==30 and np.allclose(r[:,5], p['scores'], atol=1e-4)
        q = rbox2qbox(p['boxes'].double()).numpy()/w.scale+[w.x,w.y]
        close = np.linalg.norm(rbox2qbox(r[:,:5].astype(float))[:,:,None]-q[:,None], axis=-1).min(-1).max()
        assert close<.05

def test_an_exported_learner_gives_the_same(fcos, tmp_path):
    im = make_scene(6, 200)[0]
    want = predict_scene(fcos, im, score_thr=0., **KW)
    fcos.export((tmp_path/'m.pkl').absolute())
    again = load_learner(tmp_path/'m.pkl')
    got = predict_scene(again, im, score_thr=0., **KW)
    assert len(want['scores']) and same(got, want)

READERS = '''
import sys
from test_scene import *
l,(im,_) = bright(sys.argv[1]),squares()
assert same(predict_scene(l, im, num_workers=2, **KW), predict_scene(l, im, **KW))'''

def test_reading_processes_give_the_same(synth):
    "In a process of its own: one that hundreds of other tests have run in does not fork well"
    r = subprocess.run([sys.executable, '-c', READERS, str(synth)], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)
    assert r.returncode==0, r.stderr[-2000:]

def test_the_learner_is_as_it_was(fcos):
    "Training goes on after a prediction"
    cbs = {type(o) for o in fcos.cbs}
    predict_scene(fcos, make_scene(5, 150)[0], **KW)
    assert {type(o) for o in fcos.cbs}==cbs
    fcos.remove_cb(fcos.progress); fcos.logger = lambda _: None
    fcos.fit(1, 1e-4)

# --- GeoTIFF

@pytest.fixture
def rio(): return pytest.importorskip('rasterio', reason="rasterio is not installed: pip install rasterio")

def write_tif(rio, path, a, block=64, **kw):
    kw = dict(height=a.shape[0], width=a.shape[1], count=3, dtype=a.dtype, blockxsize=block, blockysize=block, **kw)
    with rio.open(path, 'w', driver='GTiff', tiled=True, compress='deflate', photometric='rgb', **kw) as ds:
        ds.write(np.moveaxis(a, -1, 0))
    return path

def test_a_geotiff_on_the_map(rio, learn, tmp_path):
    im,truth = squares()
    t = rio.Affine.translation(5e5, 4.6e6)*rio.Affine.rotation(20)*rio.Affine.scale(.3, -.3)
    f = write_tif(rio, tmp_path/'harbour.tif', im, crs='EPSG:32633', transform=t)
    d = predict_scene(learn, f, **KW)
    assert same(d, predict_scene(learn, im, **KW))
    write_predictions(d, tmp_path/'out.geojson', learn.dls.vocab, scene=f)
    g = json.loads((tmp_path/'out.geojson').read_text())
    assert g['name']=='harbour' and g['crs']['properties']['name']=='urn:ogc:def:crs:EPSG::32633' and len(g['features'])==len(d['scores'])
    for feat,box in zip(g['features'], d['boxes']):
        ring = np.array(feat['geometry']['coordinates'][0])
        back = np.array([~t*tuple(p) for p in ring[:4]])
        assert np.linalg.norm(back[:,None]-rbox2qbox(box[None].double())[0].numpy(), axis=-1).min(0).max()<.002      # px
        x,y = (ring-ring[0]).T
        assert (ring[0]==ring[4]).all() and (x[:-1]*y[1:]-x[1:]*y[:-1]).sum()>0, 'counterclockwise'

def test_crs_members(rio, tmp_path):
    a,none = np.zeros((64,64,3), np.uint8),dict(boxes=torch.zeros(0,5), scores=torch.zeros(0), labels=torch.zeros(0).long())
    t = rio.Affine(1e-5,0,15,0,-1e-5,42)
    assert 'crs' not in geojson(none, ['a'], write_tif(rio, tmp_path/'w.tif', a, crs='EPSG:4326', transform=t))
    own = rio.crs.CRS.from_string('+proj=aea +lat_1=20 +lat_2=60 +lat_0=40 +lon_0=17 +datum=WGS84')
    assert 'Albers' in geojson(none, ['a'], write_tif(rio, tmp_path/'o.tif', a, crs=own, transform=t))['crs']['properties']['name']
    assert 'LOCAL_CS' in geojson(none, ['a'], write_tif(rio, tmp_path/'n.tif', a))['crs']['properties']['name'] # pixels, and says so

def test_a_window_that_cannot_be_read_is_named_and_the_rest_goes_on(rio, learn, tmp_path):
    pics = tmp_path/'pics'; pics.mkdir()
    rng = np.random.default_rng(0)
    f = write_tif(rio, pics/'bad.tif', rng.integers(0, 255, (512,512,3), np.uint8).astype(np.uint8), 128)
    data = bytearray(f.read_bytes()); n = len(data)
    data[int(n*.7):int(n*.9)] = bytes(int(n*.9)-int(n*.7)); f.write_bytes(data)
    im,_ = squares(); write_tif(rio, pics/'good.tif', im)
    learn.model.find = lambda o: dict(boxes=torch.zeros(0,5), scores=torch.zeros(0), labels=torch.zeros(0).long())
    for workers in (0,2):
        with pytest.raises(WindowError, match=r'window of 128 x 128 px at \(\d+, \d+\) of .*bad\.tif') as e:
            predict_scene(learn, f, num_workers=workers, **KW)
        assert e.value.window.scene.source==f
    del learn.model.find
    preds,bad = predict_folder(learn, pics, tmp_path/'out', 'csv', **KW)
    assert [*preds]==['good.tif'] and [*bad]==['bad.tif'] and 'px at (' in bad['bad.tif']
    assert same(preds['good.tif'], predict_scene(learn, pics/'good.tif', **KW))

# --- what may go wrong

class Odd(Bright):
    "Detections that are no numbers, among good ones"
    def find(self, o):
        t = torch.tensor([[20.,20,9,9,0],[np.nan,20,9,9,0],[40,40,9,9,0],[60,60,np.inf,9,0]])
        return dict(boxes=t, scores=torch.tensor([.9,.8,np.nan,.7]), labels=torch.zeros(4).long())

def test_nan_and_inf_are_left_out(synth):
    d = predict_scene(bright(synth, model=Odd()), np.zeros((128,128,3), np.uint8), **KW)
    assert d['boxes'].tolist()==[[20,20,9,9,0]] or torch.allclose(d['boxes'], torch.tensor([[20.,20,9,9,0]]), atol=1e-4)

def test_an_error_of_the_model_is_not_blamed_on_a_image(learn):
    learn.model.find = lambda o: 1/0
    with pytest.raises(ZeroDivisionError): predict_scene(learn, np.zeros((300,300,3), np.uint8), **KW)

@pytest.mark.parametrize('kw,words', [
    (dict(overlap=128),'overlap < size'), (dict(score_thr=-1),'score_thr'), (dict(iou_thr=2),'iou_thr'),
    (dict(scales=()),'no scales'), (dict(scales=(0,)),'positive'), (dict(cut='clip'),"'keep' or 'drop'")], ids=str)
def test_settings_that_make_no_sense(learn, kw, words):
    with pytest.raises(ValueError, match=words): predict_scene(learn, np.zeros((300,300,3), np.uint8), **{**KW, **kw})
    assert learn.model.seen==0

def test_a_journal_after_any_damage(learn, tmp_path):
    "Flipped bytes, a lost tail, zeros from a full disk: what is left is right, and the result the same"
    im,_ = squares(260, 260, 8)
    want = predict_scene(learn, im, resume=tmp_path, **KW)
    f = tmp_path/'scene.windows'; data = f.read_bytes(); first = data.index(b'\n')+1
    rng = np.random.default_rng(0)
    for i in range(12):
        n = int(rng.integers(first, len(data))); b = bytearray(data)
        if i%3==0: b = b[:n]
        elif i%3==1: b[n] ^= 1<<int(rng.integers(8))
        else: b[n:] = bytes(len(b)-n)
        f.write_bytes(b)
        assert same(predict_scene(learn, im, resume=tmp_path, **KW), want)
        assert f.read_bytes()==data

def test_a_scene_replaced_is_looked_at_again(learn, tmp_path):
    f = tmp_path/'s.png'
    Image.fromarray(squares(seed=1)[0]).save(f); predict_scene(learn, f, resume=tmp_path, **KW)
    Image.fromarray(squares(seed=2)[0]).save(f); os.utime(f, (1,1))
    assert same(predict_scene(learn, f, resume=tmp_path, **KW), predict_scene(learn, squares(seed=2)[0], **KW))

ENV = {**os.environ, 'PYTHONPATH':os.pathsep.join(str(ROOT/o) for o in ('','tests/helpers','tests/learn'))}
CHILD = '''
import sys, time
from fastai.vision.all import Callback
from test_scene import *
learn = bright(Path(sys.argv[1]))
class Slow(Callback):
    def after_batch(self): time.sleep(.3)
learn.add_cb(Slow())
predict_scene(learn, squares()[0], resume=sys.argv[2], **KW)
'''

def test_killed_and_started_again(learn, synth, tmp_path):
    "A real kill, wherever it hits"
    f = tmp_path/'scene.windows'
    p = subprocess.Popen([sys.executable, '-c', CHILD, str(synth), str(tmp_path)], cwd=ROOT, env=ENV,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    t = time.time()
    while time.time()-t<100 and p.poll() is None and (not f.exists() or f.read_bytes().count(b'rnb\n')<4): time.sleep(.05)
    p.send_signal(signal.SIGKILL); err = p.communicate()[1]
    im,_ = squares(); n = len(scene_windows(im, 128, 48))
    done = f.read_bytes().count(b'rnb\n')
    assert 4<=done<n, err[-2000:]
    got = predict_scene(learn, im, resume=tmp_path, **KW)
    assert learn.model.seen==n-done and same(got, predict_scene(learn, im, **KW))

FLAT = '''
import sys, resource
from test_scene import *
import rasterio
learn = bright(Path(sys.argv[1]), size=1024)
learn.model.find = lambda o: dict(boxes=torch.zeros(0,5), scores=torch.zeros(0), labels=torch.zeros(0).long())
def scene(side):
    f = Path(sys.argv[2])/f'{side}.tif'
    with rasterio.open(f, 'w', driver='GTiff', width=side, height=side, count=3, dtype='uint8', tiled=True, compress='deflate',
                       photometric='rgb', SPARSE_OK=True) as ds: pass
    predict_scene(learn, f, size=1024, overlap=0, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
print(scene(4000), scene(12000))
'''

def test_memory_stays_flat(rio, synth, tmp_path):
    "A scene with 384 MB more of pixels takes not half of them more"
    r = subprocess.run([sys.executable, '-c', FLAT, str(synth), str(tmp_path)], cwd=ROOT, env=ENV,
                       capture_output=True, text=True)
    assert r.returncode==0, r.stderr[-2000:]
    small,large = map(float, r.stdout.split()[-2:])
    assert large-small<190, (small, large)

# --- folders and files

def test_a_folder_of_all_sorts(learn, tmp_path):
    pics = tmp_path/'pics'; (pics/'sub').mkdir(parents=True)
    for i in range(5): Image.fromarray(squares(100, 90, 2, i)[0]).save(pics/f'{i}.png')
    Image.fromarray(squares(seed=9)[0]).save(pics/'sub/large.png')
    Image.fromarray(squares(80, 80, 1)[0]).convert('RGBA').save(pics/'sub/alpha.png')
    for mode in ('L','CMYK'): Image.new(mode, (50,60)).save(pics/f'{mode}.jpg')
    (pics/'empty.png').write_bytes(b''); (pics/'notes.txt').write_text('no image')
    out = pics/'results'                                              # within the folder: must not be taken for images
    preds,bad = predict_folder(learn, pics, out, ['dota','coco'], **KW)
    assert len(preds)==9 and [*bad]==['empty.png']
    seen = learn.model.seen
    assert same(preds['sub/large.png'], predict_scene(learn, pics/'sub/large.png', **KW))
    learn.model.seen = 0
    again,_ = predict_folder(learn, pics, out, 'csv', **KW)
    assert learn.model.seen==0 and all(same(again[k], preds[k]) for k in preds)
    task1 = read_task1(out/'Task1.zip', learn.dls.vocab)
    assert {k:len(v['scores']) for k,v in task1.items()}=={Path(k).stem:len(v['scores']) for k,v in preds.items() if len(v['scores'])}

def test_pycocotools_takes_the_results(learn, tmp_path):
    coco = pytest.importorskip('pycocotools.coco', reason='pycocotools is not installed')
    im,truth = squares(n=6)
    preds = {'a.png':predict_scene(learn, im, cut='drop', **KW)}
    cats = [dict(id=i, name=n) for i,n in enumerate(learn.dls.vocab, 1)]
    images = [dict(id=7, file_name='a.png', width=560, height=400)]
    (tmp_path/'gt.json').write_text(json.dumps(dict(info={}, images=images, annotations=[], categories=cats)))
    write_predictions(preds, tmp_path/'r.json', learn.dls.vocab, image_ids={'a.png':7})
    got = coco.COCO(tmp_path/'gt.json').loadRes(str(tmp_path/'r.json'))
    assert len(got.anns)==6
    for a in got.anns.values():
        x,y,w,h = a['bbox']
        assert np.abs(np.array([x,y,x+w,y+h])-truth).max(1).min()<.01

def one(x=9.): return dict(boxes=torch.tensor([[x,9,4,4,.1]], dtype=torch.float64), scores=torch.tensor([.5]), labels=torch.tensor([0]))

def test_two_images_never_share_an_id():
    "A number is the id where it tells the image from all others, else a checksum of the name"
    ids = lambda *names: [o['image_id'] for o in coco_results({n:one() for n in names}, ['a'])]
    assert ids('train/1.png', 'val/2.png', 'x.png')[:2]==[1,2] and ids('12.5')[0]>=2**52
    for names in (('train/1.png','val/1.png','x.png'), ('1.png','001.png'), ('1.png','1.tif')):
        assert len({*ids(*names)})==len(names) and min(ids(*names))>=2**52
        assert all(type(o) is int and float(o)==o for o in ids(*names))

def test_names_without_suffix_stay_whole(tmp_path):
    "Windows at half scale have a point in their name"
    names = ['P1__0.5__0___0','P2__0.5__0___412','v1.2.png']
    f = write_predictions({n:one() for n in names}, tmp_path/'r.zip', ['a'])
    assert set(merge_windows(read_task1(f, ['a'])))=={'P1','P2','v1.2'}

def test_a_table_of_a_large_scene_is_as_fine_as_that_of_a_small_one(tmp_path):
    import pandas as pd
    for x in (9.1234,98765.4321):
        df = pd.read_csv(write_predictions({'a':one(x)}, tmp_path/'a.csv', ['a']))
        assert abs(df.cx[0]-x)<1e-3 and abs(df[['x1','x2','x3','x4']].to_numpy().mean()-x)<1e-3

def test_what_is_returned_is_there(tmp_path):
    with pytest.raises(ValueError, match='one scene, these are 0'): write_predictions({}, tmp_path/'r.geojson', ['a'])
    assert write_predictions({'a':one()}, tmp_path/'R.ZIP', ['a']).is_file()

def test_a_journal_that_lost_the_end_of_its_first_line(tmp_path):
    "Gone on with, and again: what was noted in between is still known"
    f = tmp_path/'j'; Journal(f, dict(size=1)); f.write_bytes(f.read_bytes()[:-1])
    Journal(f, dict(size=1)).add([('a', np.ones((1,7), np.float32))])
    assert [*Journal(f, dict(size=1)).done]==['a']

def test_names_that_dota_cannot_hold_are_told_before_the_work(learn, tmp_path):
    Image.fromarray(squares(80, 80, 1)[0]).save(tmp_path/'my image.png')
    with pytest.raises(ValueError, match='spaces'): predict_folder(learn, tmp_path, tmp_path/'out', **KW)
    assert learn.model.seen==0
    predict_folder(learn, tmp_path, tmp_path/'out', 'csv', **KW)

def test_a_writer_that_fails_leaves_the_old_file(learn, tmp_path):
    good = dict(boxes=torch.tensor([[9.,9,4,4,0]]), scores=torch.tensor([.5]), labels=torch.tensor([0]))
    for f in ('a.zip','a.geojson','a.json','a.csv'):
        write_predictions(good, tmp_path/f, learn.dls.vocab); old = (tmp_path/f).read_bytes()
        with pytest.raises(ValueError): write_predictions({**good, 'labels':torch.tensor([99])}, tmp_path/f, learn.dls.vocab)
        assert (tmp_path/f).read_bytes()==old
    assert not list(tmp_path.glob('.tmp*'))

def test_in_memory_journals_hold_nothing_on_disk(tmp_path):
    j = Journal(); j.add([('a', np.zeros((1,7), np.float32))])
    assert j.file is None and [*j.done]==['a']

def test_other_transforms_do_not_go_on_with_a_journal(learn, synth, tmp_path):
    im,_ = squares(n=4, h=100, w=200)
    predict_scene(learn, im, **KW, resume=tmp_path)
    with pytest.raises(ValueError, match='was begun with transforms'): predict_scene(bright(synth, size=64), im, **KW, resume=tmp_path)
    again = bright(synth); predict_scene(again, im, **KW, resume=tmp_path); assert again.model.seen==0         # the same, made anew, does

def test_classes_that_are_no_file_names_are_told_before_the_work(learn, tmp_path):
    Image.fromarray(squares(n=2, h=50, w=60)[0]).save(tmp_path/'a.png'); (tmp_path/'._a.png').write_bytes(b'Mac')
    learn.dls.vocab[0] = 'Boeing/737'
    with pytest.raises(ValueError, match='Boeing/737'): predict_folder(learn, tmp_path, tmp_path/'out', **KW)
    assert learn.model.seen==0
    preds,bad = predict_folder(learn, tmp_path, tmp_path/'out', 'csv', **KW); assert list(preds)==['a.png'] and not bad

def test_a_folder_as_coco_takes_the_ids_of_the_truth(learn, tmp_path):
    "Images that the truth has not are told before the work"
    (tmp_path/'in').mkdir(); Image.fromarray(squares(128, 128, 4)[0]).save(tmp_path/'in/x.png')
    vocab = [str(o) for o in learn.dls.vocab]; file = tmp_path/'truth.json'
    file.write_text(json.dumps(dict(images=[dict(id=71, file_name='val/x.png')], annotations=[],
                                    categories=[dict(id=10+i, name=n) for i,n in enumerate(vocab[::-1])])))
    preds,_ = predict_folder(learn, tmp_path/'in', tmp_path/'out', 'coco', image_ids=file, **KW)
    got = json.loads((tmp_path/'out/results.json').read_text())
    assert len(got)==len(preds['x.png']['labels'])>0 and {o['image_id'] for o in got}=={71}
    assert [o['category_id'] for o in got]==[9+len(vocab)-int(l) for l in preds['x.png']['labels']]
    with pytest.raises(ValueError, match='no image id for x.png'):
        predict_folder(learn, tmp_path/'in', tmp_path/'no', 'coco', image_ids={'y.png':1}, **KW)
    assert not (tmp_path/'no').exists()

@pytest.mark.parametrize('format,name', [('dota','Task1.zip'), ('coco','results.json'), ('csv','results.csv'), ('geojson','0.geojson')])
def test_results_replace_nothing_but_results(learn, tmp_path, format, name):
    pics = tmp_path/'pics'; pics.mkdir(); Image.fromarray(squares(100, 90, 2)[0]).save(pics/'0.png')
    (pics/name).write_text('mine')
    for resume in (True,False):
        with pytest.raises(FileExistsError, match='not from a prediction'): predict_folder(learn, pics, pics, format, resume=resume, **KW)
    assert (pics/name).read_text()=='mine' and len(list(pics.iterdir()))==2
    for _ in range(2): predict_folder(learn, pics, tmp_path/'out', format, resume=False, **KW)
    assert sorted(o.name for o in (tmp_path/'out').iterdir())==sorted([name,'windows.journal'])

def test_the_truth_is_not_replaced_by_its_results(learn, tmp_path):
    Image.fromarray(squares(100, 90, 2)[0]).save(tmp_path/'0.png'); predict_folder(learn, tmp_path/'0.png', tmp_path/'out', **KW)
    truth = tmp_path/'out/results.json'
    text = json.dumps(dict(images=[dict(id=7, file_name='0.png', width=90, height=100)], annotations=[],
        categories=[dict(id=i, name=n) for i,n in enumerate(learn.dls.vocab)])); truth.write_text(text)
    with pytest.raises(ValueError, match='is read'): predict_folder(learn, tmp_path/'0.png', tmp_path/'out', 'coco', image_ids=truth, **KW)
    assert truth.read_text()==text

def test_one_prediction_in_a_folder_at_a_time(learn, tmp_path):
    Image.fromarray(squares(100, 90, 2)[0]).save(tmp_path/'0.png')
    (tmp_path/"out").mkdir()
    p = subprocess.Popen([sys.executable, '-c',
                          'from pathlib import Path\nfrom rotnb.data.labels.atomic import part_name\n'
                          f"part_name(Path({str(tmp_path/'out/results.csv')!r})).write_text('half')"])
    assert p.wait()==0
    with file_lock(tmp_path/'out/.lock'), pytest.raises(BusyError, match=f'process {os.getpid()}'):
        predict_folder(learn, tmp_path/'0.png', tmp_path/'out', **KW)
    predict_folder(learn, tmp_path/'0.png', tmp_path/'out', 'csv', **KW)
    assert sorted(o.name for o in (tmp_path/'out').iterdir())==['results.csv','windows.journal']
    with file_lock(tmp_path/'j/.0.windows.lock'), pytest.raises(BusyError): predict_scene(learn, tmp_path/'0.png', resume=tmp_path/'j',
        **KW)
    predict_scene(learn, tmp_path/'0.png', resume=tmp_path/'j', **KW); assert [o.name for o in (tmp_path/'j').iterdir()]==['0.windows']
