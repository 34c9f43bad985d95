"A detector with all it needs to see an image: the same boxes as its learner, in a folder and back, from whatever people have"
import json, os, pickle, subprocess, sys
from functools import partial
import cv2, numpy as np, pytest, torch
from PIL import Image
from torch import nn
from fastai.vision.all import CropPad, Resize, set_seed
from rotnb.all import (ArgumentError, ClassMismatchError, Letterbox, Predictor, RandomResize, RotatedDataLoaders, WeightsError,
                       create_detector, eval_map, predict_folder, predict_image, predict_scene, rotated_learner)
from rotnb.data.images.windows import open_scene
from rotnb.data.synth.scenes import make_scene, make_synth
from rotnb.learn.predictor import TransformError
from rotnb.models.contract import Detector
from rotnb.models.files import DamagedFile
from rotnb.predict.fit import ImageFit
from rotnb.predict.sources import image_pixels
from paths import ROOT

TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16), score_thr=.001, max_per_img=30)
KINDS = dict(own={}, letterbox=dict(size=96), flat=dict(size=(64,96)), rect=dict(size=96, rect=True), odd=dict(size=90, rect=True))

@pytest.fixture(scope='module')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('synth')/'set', n_train=6, n_valid=3, size=96, seed=3)

@pytest.fixture(scope='module')
def trained(synth):
    set_seed(0)
    dls = RotatedDataLoaders.from_dota(synth, bs=3, num_workers=0)
    learn = rotated_learner(dls, 'rotated_fcos', pretrained=False, **TINY)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 3e-3)
    return learn

@pytest.fixture(scope='module')
def predictor(trained): return trained.predictor(score_thr=.001)

def loaders(synth, **kw): return RotatedDataLoaders.from_dota(synth, bs=2, num_workers=0, **kw)

def images(*sizes): return [make_scene(i, max(w, h, 64))[0][:h,:w] for i,(w,h) in enumerate(sizes)]

def same(a, b, tol=1e-3):
    "The same boxes to `tol` px; two of one score may change places"
    assert len(a)==len(b)>0 and torch.allclose(a.scores, b.scores, atol=1e-4)
    far = (a.quads.flatten(1)[:,None]-b.quads.flatten(1)).abs().amax(-1) + 9*(a.labels[:,None]!=b.labels)
    assert far.amin(1).max()<tol and far.amin(0).max()<tol, far.amin(1).max()
    return True

# --- the same as the learner

@pytest.mark.parametrize('kind', KINDS)
def test_the_same_as_the_learner(trained, synth, kind):
    learn = rotated_learner(loaders(synth, **KINDS[kind]), trained.model)
    pics = images((96,96), (60,90), (150,40), (31,17), (96,96))
    ours = learn.predictor()(pics, score_thr=0.)
    for a,b,image in zip(ours, learn.predict(pics, score_thr=0.), pics):
        assert same(a, b) and a.image is image and a.vocab==b.vocab
    assert same(learn.predictor().predict_scene(pics[2], score_thr=0.), learn.predict_scene(pics[2], score_thr=0.))

@pytest.mark.parametrize('batch_tfms', [[], [Letterbox(96)]], ids=['none','letterbox'])
def test_what_the_batch_does_is_tried_too(trained, synth, batch_tfms):
    "A transform of the batch that leaves validation as it is does no harm"
    dls = loaders(synth, size=96, batch_tfms=[RandomResize(ratio=(.5,1.5), multiple=32), *batch_tfms])
    learn = rotated_learner(dls, trained.model)
    assert same(learn.predictor()(images((70,50))[0], 0.), learn.predict(images((70,50))[0], 0.))

@pytest.mark.parametrize('name,kw', [('Resize', dict(item_tfms=Resize(64, 'squish'))), ('CropPad', dict(item_tfms=CropPad(200))),
                                     ('RandomResize', dict(size=96, batch_tfms=RandomResize(64, (1,1))))], ids=['squish','pad','batch'])
def test_transforms_that_cannot_be_said_are_named(trained, synth, name, kw):
    learn = rotated_learner(loaders(synth, **kw), trained.model)
    with pytest.raises(TransformError, match=f'what .*{name}.* of the learner'): learn.predictor()
    assert len(learn.predictor(size=96)(images((70,50))[0], 0.))          # said by the user instead

def test_the_learner_goes_on(trained):
    "Predicting changes nothing in it, and what it learns its predictor knows"
    predictor,image = trained.predictor(score_thr=.001, max_dets=3, iou_thr=.9),images((96,96))[0]
    frozen = [module for module in trained.model.modules() if isinstance(module, nn.BatchNorm2d)][0]
    trained.model.train(); frozen.eval()
    before = predictor(image)
    assert trained.model.training and not frozen.training and len(before)==3
    head = trained.model.stages[-1]
    assert (head.score_thr,head.iou_thr,head.max_per_img)==(.001,.1,30)
    bias = head.cls.bias.detach().clone()
    with torch.no_grad(): head.cls.bias += 2
    assert predictor(image).scores[0]>before.scores[0]
    with torch.no_grad(): head.cls.bias.copy_(bias)

# --- as MMDetection shows images

@pytest.mark.parametrize('size_wh', [(200,120), (120,200), (64,64), (31,90)], ids=str)
def test_pixels_as_mmcv_makes_them(size_wh):
    "cv2's bilinear on bytes, whole pixels, mean colour at the right and below"
    image,stats = images(size_wh)[0],((.485,.456,.406),(.229,.224,.225))
    fit,k = ImageFit((128,96), stats=stats),min(128/max(size_wh), 96/min(size_wh))
    w,h = (int(side*k+.5) for side in size_wh)
    out_wh = fit.way(size_wh).out
    x = fit.batch([fit.resized(image)], out_wh)[0].permute(1,2,0).numpy()
    mean,std = (np.array(part)*255 for part in stats)
    assert out_wh==(-(-w//32)*32, -(-h//32)*32)
    assert np.abs(x[:h,:w]-(cv2.resize(image, (w,h)).astype(np.float32)-mean)/std).max()<1e-5 and not x[h:].any() and not x[:,w:].any()

class Seen(nn.Module):
    "A backbone that notes what it is given"
    def __init__(self, body): super().__init__(); self.body,self.seen,self.strides,self.name = body,[],body.strides,body.name
    def forward(self, x): self.seen.append(x.clone()); return self.body(x)

def test_colours_and_batches():
    detector = create_detector('rotated_fcos', 2, **TINY)
    detector.backbone,detector.channels = Seen(detector.backbone),'bgr'
    red = np.zeros((64,64,3), np.uint8); red[...,0] = 255
    Predictor(detector, size=64, bs=2, stats=((0,)*3,(1,)*3), fast=False)([red, red[:30], red, red])
    assert [tuple(x.shape) for x in detector.backbone.seen]==[(2,3,64,64),(1,3,64,64),(1,3,32,64)]
    assert detector.backbone.seen[0][:,2].min()==1 and not detector.backbone.seen[0][:,:2].any()

def test_boxes_in_what_is_padded(trained):
    "Given as MMRotate gives them, unless they are not wanted"
    wide = images((96,96))[0][:30]
    every,inside = (Predictor(trained.model, size=96, pad_full=True, inside=inside, score_thr=0.)(wide) for inside in (False,True))
    assert every.boxes[:,1].max()>31 and len(inside)<len(every) and inside.boxes[:,1].max()<=30

# --- whatever people have

def test_every_source_and_every_verb(predictor, tmp_path):
    pics = images((96,96), (60,90), (150,40))
    for i,pixels in enumerate(pics): Image.fromarray(pixels).save(tmp_path/f'{i}.png')
    want = predictor(pics)
    chw = torch.tensor(pics[1]).permute(2,0,1)
    file = tmp_path/'1.png'
    for one in (file, str(file), Image.open(file), pics[1]/255, chw, chw/255, open_scene(file), file.read_bytes()):
        assert same(predictor(one), want[1]) and same(predict_image(predictor, one), want[1])
    for several in (tmp_path, f'{tmp_path}/*.png', pics): assert all(map(same, predictor(several), want))
    preds,bad = predictor.predict_folder(tmp_path, tmp_path/'out', 'csv', score_thr=.001, progress=False)
    assert not bad and all(map(same, preds.values(), want)) and (tmp_path/'out/results.csv').exists()
    assert all(map(same, predict_folder(predictor, pics, progress=False, score_thr=.001)[0].values(), want))
    assert predictor([])==[] and same(predict_scene(predictor, pics[0]), want[0])
    with pytest.raises(ValueError, match='3 images, expected one'): predictor.predict_image(tmp_path)

def test_settings_that_cannot_be_meant(predictor):
    detector = predictor.detector
    for said,kw in {'0.3 for 30 %':dict(score_thr=30), 'the vocab 1':dict(vocab=['a']), 'size is':dict(size='big'), 'mmcv':dict(rule='x'),
                    'max_dets':dict(max_dets=0), 'iou_thr':dict(iou_thr=2), 'give the size':dict(pad_full=True),
                    "'cuda'?":dict(device='gpu')}.items():
        with pytest.raises(ArgumentError, match=said): Predictor(detector, **kw)
    with pytest.raises(ArgumentError, match='learn.predictor'): Predictor(type('Learner', (), dict(dls=0))())
    with pytest.raises(ArgumentError, match='or a Predictor'): predict_image(detector, images((64,64))[0])
    with pytest.raises(OSError, match='cannot read|no such'): predictor(['none.png'])

def test_reading_processes_and_a_broken_image(predictor, tmp_path):
    pics = images(*[(64,64)]*6)
    for i,pixels in enumerate(pics): Image.fromarray(pixels).save(tmp_path/f'{i}.png')
    want = predictor(pics)
    got = {}
    predictor.detect_rows(sorted(tmp_path.iterdir()), got.update, .001, bs=2, num_workers=2, progress=False)
    assert all(np.allclose(got[i][:,5], one.scores, atol=1e-5) for i,one in enumerate(want))
    (tmp_path/'3.png').write_bytes((tmp_path/'3.png').read_bytes()[:500])
    with pytest.raises(OSError, match='3.png'): predictor(tmp_path)
    preds,bad = predictor.predict_folder(tmp_path, score_thr=.001, progress=False)
    assert list(bad)==['3.png'] and len(preds)==5

def test_an_interrupted_scene_is_gone_on_with(predictor, tmp_path):
    image = make_scene(5, 200)[0]
    kw = dict(size=96, overlap=32, progress=False)
    want = predictor.predict_scene(image, **kw)
    predictor.predict_scene(image, resume=tmp_path, **kw)
    with pytest.raises(ValueError, match='begun with images ImageFit'):
        Predictor(predictor.detector, size=64, score_thr=.001).predict_scene(image, resume=tmp_path, **kw)
    assert same(predictor.predict_scene(image, resume=tmp_path, **kw), want)

SMALL = {key:TINY[key] for key in ('backbone','fpn_channels','strides','score_thr')}
MORE = dict(heading=('rotated_fcos',dict(TINY, heading=True)),
            masks=('oriented_mask_rcnn',dict(SMALL, feat_channels=16, max_per_img=6, fc_channels=16)))

@pytest.mark.parametrize('part', MORE)
def test_what_else_is_found_is_kept(part, tmp_path):
    "A scene and a folder that are gone on with have headings and masks as if they had been predicted at once"
    name,kw = MORE[part]
    set_seed(0)
    detector = create_detector(name, 2, pretrained=False, **kw)
    detector.vocab,detector.symmetry = ['plane','ship'],dict(plane=360, ship=360)
    predictor,image = Predictor(detector, size=96, score_thr=.001),make_scene(5, 160)[0]
    kw = dict(size=96, overlap=32, progress=False)
    want = predictor.predict_scene(image, **kw)
    for again in range(2):
        found = predictor.predict_scene(image, resume=tmp_path/'scene', **kw)
        assert same(found, want) and torch.isfinite(getattr(found, part)).all() and len(getattr(found, part))==len(want), again
    (tmp_path/'images').mkdir()
    for i in range(2): Image.fromarray(images((96,96))[0]).save(tmp_path/f'images/{i}.png')
    how = dict(out=tmp_path/'found', score_thr=.001, progress=False)
    first,then = ([*predict_folder(predictor, tmp_path/'images', **how)[0].values()] for again in range(2))
    assert [*map(len, then)]==[*map(len, first)] and all(len(getattr(o, part))==len(o)>0 for o in then)

# --- as files

def test_a_folder_and_back(predictor, tmp_path):
    image = images((96,80))[0]
    want = predictor(image)
    folder = predictor.save(tmp_path/'new/ships')
    assert sorted(file.name for file in folder.iterdir())==['README.md','config.json','model.safetensors']
    src = f"""from rotnb.predict.predictor import Predictor
import sys, numpy as np
found = Predictor.load({str(folder)!r})(np.load({str(tmp_path/'image.npy')!r}))
print('fastai' in sys.modules, len(found), *found.scores[:3].tolist())"""
    np.save(tmp_path/'image.npy', image)
    r = subprocess.run([sys.executable, '-c', src], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH':str(ROOT)})
    assert r.returncode==0, r.stderr[-2000:]
    fastai,n,*scores = r.stdout.split()
    assert (fastai,int(n))==('False',len(want)) and np.allclose([*map(float, scores)], want.scores[:3], atol=1e-5)
    again = Predictor.load(folder, score_thr=.002, notes=dict(name='mine'))
    assert again.score_thr==.002 and 'mine' in repr(again) and again.vocab==predictor.vocab and not again.detector.training
    assert same(pickle.loads(pickle.dumps(again))(image, .001), want)

def test_half_the_size(predictor, tmp_path):
    whole,half = predictor.save(tmp_path/'whole'),predictor.save(tmp_path/'half', half=True)
    size = lambda folder: (folder/'model.safetensors').stat().st_size
    assert size(half)<.6*size(whole) and len(Predictor.load(half)(images((96,96))[0]))

@pytest.mark.parametrize('vocab', [None, ['plane','ship']])
def test_classes_are_the_predictors(vocab, tmp_path):
    "Names that only the predictor knows, or none; nothing is moved in the class layer"
    torch.manual_seed(1)
    detector,image = create_detector('rotated_fcos', 2, **TINY),images((96,96))[0]
    want = Predictor(detector, vocab, score_thr=0.)(image)
    again = Predictor.load(Predictor(detector, vocab, score_thr=0.).save(tmp_path/'p'))
    assert again.vocab==vocab and same(again(image), want)
    detector.vocab = ['a','b']
    again = Predictor.load(Predictor(detector, vocab, score_thr=0.).save(tmp_path/'p'))
    assert again.vocab==(vocab or ['a','b']) and same(again(image), want)

def test_settings_that_no_file_can_hold(tmp_path):
    "Weights and all else are kept; the detector is to be given"
    def none(priors, boxes, ignore, lvls): return priors.new_full(priors.shape[:1], -1).long()
    made = partial(create_detector, 'rotated_fcos', 2, assigner=none, **TINY)
    torch.manual_seed(1)
    detector,image = made(),images((96,96))[0]
    folder = Predictor(detector, ['a','b'], size=96, score_thr=0.).save(tmp_path/'p')
    with pytest.raises(WeightsError, match='give assigner'): Predictor.load(folder)
    assert same(Predictor.load(folder, made())(image), Predictor(detector, size=96, score_thr=0.)(image))

def spoil(folder, name, how):
    file = folder/name
    if how=='missing': file.unlink()
    elif how=='cut': file.write_bytes(file.read_bytes()[:-9])
    elif how=='empty': file.write_bytes(b'')
    elif how=='other': file.write_text('{"model_type": "bert"}')
    elif how=='list': file.write_text('[]')
    elif how=='lacks': file.write_text(json.dumps({**json.loads(file.read_text()), 'predictor':{}}))

@pytest.mark.parametrize('name,how', [(name,how) for name in ('config.json','model.safetensors') for how in ('missing','cut','empty')]+
                                     [('config.json','other'), ('config.json','list'), ('config.json','lacks')])
def test_damaged_parts_are_named(predictor, tmp_path, name, how):
    folder = predictor.save(tmp_path/'p'); spoil(folder, name, how)
    with pytest.raises((WeightsError,DamagedFile), match=name.replace('.', '[.]')): Predictor.load(folder)
    with pytest.raises(FileNotFoundError, match='no such folder.*did you mean'): Predictor.load(tmp_path/'pp')

def test_saved_whole_or_not_at_all(predictor, tmp_path, monkeypatch):
    folder,image = predictor.save(tmp_path/'p'),images((96,96))[0]
    before = {file.name:file.read_bytes() for file in folder.iterdir()}
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('rotnb.predict.predictor._card', full)
    for to in (folder, tmp_path/'new'):
        with pytest.raises(OSError): Predictor(predictor.detector, size=64).save(to)
    assert {file.name:file.read_bytes() for file in folder.iterdir()}==before and same(Predictor.load(folder)(image), predictor(image))
    assert not (tmp_path/'new').exists() or not list((tmp_path/'new').iterdir())
    (tmp_path/'bert').mkdir(); (tmp_path/'bert/config.json').write_text('{"model_type": "bert"}')
    with pytest.raises(FileExistsError, match='of something else'): predictor.save(tmp_path/'bert')

# --- the Hub's words

def test_the_hubs_words_on_a_folder(predictor, tmp_path):
    predictor.save_pretrained(tmp_path/'p')
    image = images((96,96))[0]
    assert same(Predictor.from_pretrained(tmp_path/'p')(image), predictor(image))
    assert Predictor.from_pretrained(str(tmp_path/'p'), score_thr=.4).score_thr==.4
    import yaml
    head = yaml.safe_load((tmp_path/'p/README.md').read_text().split('---')[1])
    assert head['library_name']=='rotnb' and head['pipeline_tag']=='object-detection'

def test_what_would_be_pushed(predictor, monkeypatch):
    "The library's own calls are stood in for: no server was asked"
    sent = {}
    class Api:
        def __init__(self, token=None): pass
        def create_repo(self, repo_id, private=None, exist_ok=False): return type('Repo', (), dict(repo_id=repo_id))
        def upload_folder(self, folder_path, repo_id, **kw):
            sent.update({file.name:file.stat().st_size for file in folder_path.iterdir()}, repo=repo_id)
    monkeypatch.setattr('huggingface_hub.hub_mixin.HfApi', Api)
    predictor.push_to_hub('me/ships')
    assert sent.pop('repo')=='me/ships' and sorted(sent)==['README.md','config.json','model.safetensors'] and all(sent.values())

def test_training_begins_with_a_saved_predictor(synth, tmp_path, capsys):
    "Its classes are known by name, also where only the predictor knew them"
    torch.manual_seed(1)
    detector = create_detector('rotated_fcos', 2, **TINY)
    folder = Predictor(detector, ['ship','zeppelin'], stats=((.1,.2,.3),(.4,.5,.6))).save(tmp_path/'p')
    learn = rotated_learner(loaders(synth), weights=folder)
    assert 'keeps ship; new in it' in capsys.readouterr().out and np.allclose(learn.model.stats, ((.1,.2,.3),(.4,.5,.6)))
    row = learn.model.vocab.index('ship')
    assert torch.equal(learn.model.stages[0].cls.weight[row], detector.stages[0].cls.weight[0])

def test_measured_on_records(trained, predictor, synth):
    "By image, classes by name: as the learner measures where images are shown as they are"
    annots = trained.dls.valid_ds.items
    theirs,ours = trained.evaluate(show=False),predictor.evaluate(annots)
    assert abs(theirs.map50-ours.map50)<1e-6 and (ours.df['objects']==theirs.df['objects']).all() and ours.images==len(annots)
    order = predictor.vocab[::-1]
    assert eval_map(predictor, annots).map==pytest.approx(ours.map50)
    with pytest.raises(ClassMismatchError, match='does not'): Predictor(trained.model, [f'{name}s' for name in order]).evaluate(annots)
    with pytest.raises(ClassMismatchError, match='no class names'):
        Predictor(create_detector('rotated_fcos', 2, **TINY)).evaluate(annots)
    with pytest.raises(ValueError): predictor.evaluate(annots, iou_thr=2)

def test_what_looks_at_results_takes_a_predictor(predictor, tmp_path):
    import rasterio
    from rotnb.all import paper_figure, show_map, view
    image = images((96,96))[0]
    want = predictor(image)
    viewer = view(image, predictor)
    assert viewer.vocab==predictor.vocab and len(viewer.shown()[0])==len(want)
    kw = dict(width=96, height=96, count=3, dtype='uint8', crs='EPSG:32633', transform=rasterio.Affine(.5,0,5e5,0,-.5,4.6e6))
    with rasterio.open(tmp_path/'a.tif', 'w', driver='GTiff', **kw) as out: out.write(np.moveaxis(image, -1, 0))
    for scenes in (tmp_path/'a.tif', [tmp_path/'a.tif'], dict(a=tmp_path/'a.tif')): assert len(show_map(scenes, predictor).collections)>=2
    assert paper_figure([image], dict(ours=predictor), score_thr=.001)

def test_mistakes_of_a_predictor(predictor, trained):
    "Tables and the explorer, on records"
    from rotnb.all import ResultsExplorer, RotatedInterpretation
    annots = trained.dls.valid_ds.items
    interp = RotatedInterpretation.from_predictor(predictor, annots)
    theirs = RotatedInterpretation.from_learner(trained)
    assert np.allclose(interp.summary()['AP'], theirs.summary()['AP'], equal_nan=True, atol=1e-6)
    explorer = ResultsExplorer(interp, score=.001)
    assert np.array_equal(np.asarray(explorer.image(0)).transpose(1,2,0), image_pixels(annots[0].image))
    assert len(explorer.files)==len(annots)
