"What is found in an image depends on the image alone: by every verb and command, with their defaults, in a terminal too"
import os, subprocess, sys, tracemalloc, warnings
import numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from PIL import Image
from fastcore.basics import first
from fastai.vision.all import TensorImage, set_seed
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.geometry.boxes import rbox2qbox
from rotnb.data.synth.scenes import make_scene, make_synth
from rotnb.data.images.windows import scene_windows
from rotnb.learn.callbacks import unpad_dets
from rotnb.predict.infer import predict_image, predict_images
from rotnb.learn.learner import rotated_learner
from rotnb.learn.metrics import RotatedMAP
from rotnb.predict.scene import predict_folder, predict_scene, predict_windows
from rotnb.predict.detections import Detections
from terminal import in_terminal, terminal
from paths import ROOT

few = settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
               suppress_health_check=list(HealthCheck))
KINDS = dict(own={}, letterbox=dict(size=96), rect=dict(size=96, rect=True))

@pytest.fixture(scope='module')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('synth')/'set', n_train=8, n_valid=4, size=96, seed=3)

@pytest.fixture(scope='module')
def trained(synth):
    "A detector after some steps, in learners that fit images in in different ways"
    set_seed(0)
    dls = {k:RotatedDataLoaders.from_dota(synth, bs=4, num_workers=0, **kw) for k,kw in KINDS.items()}
    learn = rotated_learner(dls['own'], 'rotated_fcos', backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=64,
                            stacked_convs=1, strides=(8,16,32), score_thr=.001, max_per_img=60)
    with learn.no_bar(), learn.no_logging(): learn.fit(6, 3e-3)
    return {k:rotated_learner(o, learn.model) for k,o in dls.items()}

@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    f = tmp_path_factory.mktemp('model')/'model.pkl'
    trained['own'].export(f.absolute())
    return f

def pixels_of(seed, w, h):
    "Part of a scene"
    side = max(w, h, 64)
    return make_scene(seed, side)[0][:h,:w]

def same(a, b, tol=1e-4):
    "The same boxes, of equal scores in any order"
    assert len(a['scores'])==len(b['scores'])
    if not len(a['scores']): return True
    row = lambda d: torch.cat([d['scores'][:,None]*100, d['labels'][:,None], d['boxes'][:,:4]/100,
                               torch.stack([(2*d['boxes'][:,4]).cos(), (2*d['boxes'][:,4]).sin()], 1)], 1).double()
    d = (row(a)[:,None]-row(b)).abs().amax(-1)
    assert d.amin(1).amax()<100*tol and d.amin(0).amax()<100*tol, (d.amin(1).amax(), a['scores'], b['scores'])
    return True

def beyond(d, w, h):
    x,y = d['boxes'][:,:2].T
    return int(((x<0)|(y<0)|(x>w)|(y>h)).sum())

sides = st.integers(1, 150)

@pytest.mark.parametrize('kind', KINDS)
@given(seed=st.integers(0, 50), w=sides, h=sides, others=st.lists(st.tuples(sides, sides), min_size=1, max_size=4), at=st.integers(0, 4))
@few
def test_a_image_alone_and_in_any_company(trained, tmp_path_factory, kind, seed, w, h, others, at):
    learn,pic = trained[kind],pixels_of(seed, w, h)
    want = predict_image(learn, pic, 0.)
    pics = [pixels_of(i, *o) for i,o in enumerate(others)]; at = min(at, len(pics)); pics.insert(at, pic)
    assert same(predict_images(learn, pics, 0., bs=3)[at], want)
    assert same(predict_scene(learn, pic, score_thr=0., progress=False), want)
    whole, = scene_windows(pic, 1024, 200, img_rate_thr=0, pad=False)
    rows = predict_windows(learn, [whole], 0., progress=False)[0]
    assert same(dict(boxes=torch.tensor(rows[:,:5]), scores=torch.tensor(rows[:,5]), labels=torch.tensor(rows[:,6])), want)
    d = tmp_path_factory.mktemp('folder')
    for i,o in enumerate(pics): Image.fromarray(o).save(d/f'{i}.png')
    preds,bad = predict_folder(learn, d, d/'out', 'csv', score_thr=0., progress=False)
    assert not bad and same(preds[f'{at}.png'], want)
    if kind!='own': assert not beyond(want, w, h)                          # what is filled up holds nothing

@pytest.mark.parametrize('kind', KINDS)
def test_get_preds_and_validation_of_mixed_sizes(trained, synth, kind):
    "A padded batch of other sizes changes neither detections nor the figures of validation"
    learn = trained[kind]
    pics = [pixels_of(i, *o) for i,o in enumerate([(96,64),(40,90),(96,64),(33,70),(64,64)])]
    alone = [learn.get_preds(dl=learn.dls.test_dl([o]))[0][0] for o in pics]
    for bs in (2,5):
        for a,b in zip(learn.get_preds(dl=learn.dls.test_dl(pics, bs=bs))[0], alone): assert same(unpad_dets(a), unpad_dets(b))

def test_validation_does_not_hang_on_the_batch(trained, tmp_path):
    root = make_synth(tmp_path/'s', n_train=2, n_valid=5, size=96, seed=5)
    for i,f in enumerate(sorted((root/'val/images').iterdir())):
        im = Image.open(f); im.crop((0, 0, 96-9*i, 96-5*i)).save(f)
    dls = RotatedDataLoaders.from_dota(root, vocab=list(trained['own'].dls.vocab), item_tfms=[], bs=1, num_workers=0)
    learn = rotated_learner(dls, trained['own'].model, metrics=RotatedMAP(iou=.1))
    seen = []
    with learn.no_bar(), learn.no_logging():
        for bs in (1,2,5): seen.append([*learn.validate(dl=dls.valid.new(bs=bs))])
    assert np.isfinite(seen).all() and seen[0][1]>0
    assert np.allclose(seen, seen[0], atol=1e-4)

def test_tiles_of_scenes_smaller_than_a_tile(synth):
    dls = RotatedDataLoaders.from_dota(synth, tile=dict(size=128, overlap=32), bs=2, num_workers=0)
    assert {o.image.size for o in dls.valid.items}=={(96,96)} and dls.valid.one_batch()[0].shape[-2:]==(96,96)

# --- what is an image

def test_numbers_of_arrays_and_tensors(trained):
    "Bytes, floats of 0 to 1 or 0 to 255, channels first or last: one image"
    learn,px = trained['own'],pixels_of(1, 90, 80)
    want = predict_image(learn, px, 0.)
    assert len(want['scores'])>10
    chw = torch.tensor(px).permute(2,0,1)
    for o in (px/255, (px/255).astype(np.float32), px.astype(float), px.astype(int), chw, chw/255, TensorImage(chw), TensorImage(chw/255.),
              torch.tensor(px), chw.to(torch.float16)/255, Image.fromarray(px)):
        assert same(predict_image(learn, o, 0.), want, 1e-3), type(o)
        assert same(predict_scene(learn, o, score_thr=0., progress=False), want, 1e-3)
    assert all(same(o, want) for o in predict_images(learn, torch.stack([chw,chw]), 0.))

@pytest.mark.parametrize('ext', ['png','jpg'])
def test_a_image_that_pil_has_opened_and_not_read(trained, tmp_path, ext):
    "`Image.open` reads nothing yet; the caller's image is left as it is"
    learn,f = trained['own'],tmp_path/f'x.{ext}'
    Image.fromarray(pixels_of(1, 60, 50)).save(f)
    im,want = Image.open(f),predict_image(learn, f, 0.)
    for _ in range(2): assert same(predict_image(learn, im, 0.), want)
    assert same(predict_scene(learn, Image.open(f), score_thr=0., progress=False), want)
    assert type(im) is type(Image.open(f)) and (np.asarray(im)==np.asarray(Image.open(f))).all()

def test_settings_of_a_prediction_that_cannot_be_meant(trained):
    learn,px = trained['own'],pixels_of(1, 40, 40)
    for kw in (dict(bs=0), dict(bs=-1), dict(bs=1.5), dict(score_thr='high'), dict(score_thr=30)):
        with pytest.raises(ValueError, match=first(kw)): predict_images(learn, [px], **kw)
    for kw in (dict(size=0), dict(size=100.5), dict(size='a'), dict(num_workers=-1)):
        with pytest.raises(ValueError, match=f'{first(kw)} is'): predict_scene(learn, px, **kw, progress=False)

def test_a_strip_takes_no_square(trained, synth):
    "Memory with the length of an image, in prediction and in loaders"
    learn,strip = trained['letterbox'],np.full((20,12000,3), 90, np.uint8)
    tracemalloc.start()
    try: predict_image(learn, strip); most = tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()
    assert most<60e6
    r = subprocess.run([sys.executable, '-c', STRIP, str(synth)], capture_output=True, text=True, cwd=ROOT,
                       env={**os.environ, 'PYTHONPATH':str(ROOT)})
    assert r.returncode==0, r.stderr[-1500:]
    assert float(r.stdout.split()[-1])<250, r.stdout

STRIP = '''
import sys, resource, numpy as np
from rotnb.data.loaders import RotatedDataLoaders
from PIL import Image
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
f = sorted(__import__('pathlib').Path(sys.argv[1]).glob('train/images/*'))
dls = RotatedDataLoaders.from_dota(sys.argv[1], size=96, bs=2, num_workers=0, device='cpu')
before = most()
dls.test_dl([np.zeros((20,16000,3), np.uint8), np.zeros((50000,1,3), np.uint8)]).one_batch()
print(most()-before)
'''

@pytest.mark.parametrize('w,h', [(1,1),(1,40),(300,1),(3,3)])
@pytest.mark.parametrize('kind', KINDS)
def test_images_of_hardly_a_pixel(trained, kind, w, h):
    d = predict_image(trained[kind], np.full((h,w,3), 200, np.uint8), 0.)
    assert d['boxes'].isfinite().all()

# --- whatever people have, and as methods

def test_every_source_by_every_verb(trained, folder, tmp_path, monkeypatch):
    "A folder, a pattern, a list: as many results; one image where several are given is told where they go"
    learn = trained['own']
    want = [predict_image(learn, file, .01) for file in sorted(folder.iterdir())]
    files = sorted(folder.iterdir())
    for several in (folder, str(folder), f'{folder}/*.png', files, [np.array(Image.open(file)) for file in files]):
        for verb in (learn.predict_images, learn.predict):
            got = verb(several, score_thr=.01)
            assert len(got)==3 and all(map(same, got, want)) and all(type(o) is Detections for o in got)
        preds,bad = learn.predict_folder(several, score_thr=.01, progress=False)
        assert not bad and [*map(same, preds.values(), want)]==[True]*3
    monkeypatch.chdir(tmp_path)
    assert not list(tmp_path.iterdir())                                     # without a folder for results nothing is written
    for verb in (learn.predict_image, learn.predict_scene):
        with pytest.raises(ValueError, match='3 images, expected one: predict_.* takes several'): verb(folder)
    one = learn.predict(folder/'1.png', score_thr=.01)
    assert type(one) is Detections and same(one, want[1]) and one.image==folder/'1.png' and one.vocab==list(learn.dls.vocab)
    assert learn.predict_images([])==[] and learn.predict([folder/'1.png'])[0].names==learn.predict(folder/'1.png').names
    for nothing in ('none.png','none','none/*.png'):
        for verb in (learn.predict, learn.predict_image, learn.predict_images, learn.predict_scene, learn.predict_folder):
            with pytest.raises(FileNotFoundError, match='no such'): verb(nothing)

def test_an_opened_learner_has_the_verbs(exported, folder):
    "In a process that imports nothing of ours but what opens it"
    src = f"""import warnings; warnings.simplefilter('ignore')
from fastai.learner import load_learner
learn = load_learner({str(exported)!r})
print(repr(learn.predict({str(folder/'1.png')!r}, score_thr=.01)), len(learn.predict_folder({str(folder)!r}, progress=False)[0]))
for name in ('predict_image','predict_images','predict_scene','report'): getattr(learn, name)"""
    r = subprocess.run([sys.executable, '-c', src], capture_output=True, text=True, cwd=ROOT, env={**os.environ, 'PYTHONPATH':str(ROOT)})
    assert r.returncode==0 and '(best 0.' in r.stdout and r.stdout.strip().endswith(' 3'), (r.stdout, r.stderr[-2000:])

def overlaps(found):
    from rotnb.ops.iou import box_iou_rotated
    iou = box_iou_rotated(found.boxes, found.boxes).fill_diagonal_(0)
    return float(iou.max()) if len(found) else 0.

def test_most_of_them_and_no_two_in_one_place(trained, folder):
    learn,file = trained['own'],folder/'0.png'
    every = learn.predict_image(file, 0.)
    assert len(every)>10
    for verb in (learn.predict_image, learn.predict_scene, lambda *a, **kw: learn.predict_images(*a, **kw)[0],
                 lambda *a, **kw: learn.predict_folder(*a, **kw)[0]['0.png']):
        few = verb(file, score_thr=0., max_dets=4)
        assert len(few)==4 and torch.allclose(few.scores, every.scores[:4], atol=1e-5)
        alone = verb(file, score_thr=0., agnostic_nms=True, iou_thr=.05)
        assert 0<len(alone)<=len(every) and overlaps(alone)<=.05+1e-5 and alone.scores[0]==every.scores[0]
        for bad in (dict(max_dets=0), dict(max_dets=1.5), dict(iou_thr=2)):
            with pytest.raises(ValueError, match=first(bad)): verb(file, **bad)

@pytest.mark.parametrize('n', [1,3])
def test_a_bar_for_many_and_none_for_one(trained, n):
    learn,px = trained['own'],pixels_of(1, 60, 50)
    with terminal() as said: learn.predict_images([px]*n)
    assert ('%' in ''.join(said))==(n>1)
    with terminal() as said: learn.predict_images([px]*n, progress=n==1)
    assert ('%' in ''.join(said))==(n==1)
    with terminal() as said: learn.predict(px); learn.predict_image(px); learn.predict_scene(px)
    assert not ''.join(said).strip()

def test_a_folder_as_yolo_reads_back(trained, folder, tmp_path):
    "As `yolo predict save_txt save_conf` writes them: a file an image, shares of its size, the confidence last"
    from rotnb.data.formats.yolo_preds import read_yolo_preds
    from rotnb.data.labels.records import Annot
    learn = trained['own']
    preds,_ = learn.predict_folder(folder, tmp_path/'out', ['yolo_obb','csv'], score_thr=.01, progress=False)
    assert sorted(o.name for o in (tmp_path/'out/labels').iterdir())==['0.txt','1.txt','2.txt'] and (tmp_path/'out/results.csv').exists()
    annots = [Annot(folder/name, np.zeros((0,4,2)), [], np.zeros(0, int)) for name in preds]
    for back,found in zip(read_yolo_preds(tmp_path/'out/labels', annots, list(learn.dls.vocab)), preds.values()):
        assert len(found) and np.allclose(back['scores'], found.scores, atol=1e-4) and (back['labels']==found.labels.numpy()).all()
        assert np.allclose(np.sort(rbox2qbox(back['boxes'])[:,:,0]), np.sort(found.quads[:,:,0].numpy()), atol=.01)
    found.save(tmp_path/'one.txt')
    assert (tmp_path/'one.txt').read_text()==(tmp_path/'out/labels/2.txt').read_text()

# --- with their defaults, in a terminal

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp('pics')
    for i,(w,h) in enumerate([(96,96),(60,90),(150,40)]): Image.fromarray(pixels_of(i, w, h)).save(d/f'{i}.png')
    return d

@pytest.mark.parametrize('tty', [True,False], ids=['terminal','pipe'])
def test_every_verb_with_its_defaults(trained, folder, tmp_path, capsys, tty):
    learn = trained['own']
    def verbs():
        f = folder/'1.png'
        return (predict_image(learn, f), predict_images(learn, [f])[0], predict_scene(learn, f),
                predict_folder(learn, folder, tmp_path/'out')[0]['1.png'],
                predict_windows(learn, scene_windows(f)))
    if tty:
        with terminal() as said: res = verbs()
        assert '%' in ''.join(said)                                         # there was a bar
    else: res = verbs()
    strong = lambda d: {k:v[d['scores']>=.3] for k,v in d.items()}
    assert all(same(strong(o), res[0]) for o in res[1:4])
    assert (tmp_path/'out/Task1.zip').stat().st_size

def test_an_error_in_a_terminal_is_the_error(trained):
    "Not one about what the handler needs"
    learn = trained['own']
    def find(*_): raise ZeroDivisionError('of the model')
    h,learn.fast = learn.model.register_forward_pre_hook(find),False            # the fast twin has no hooks
    try:
        with terminal(), pytest.raises(ZeroDivisionError, match='of the model'): predict_scene(learn, np.zeros((64,64,3), np.uint8))
    finally:
        h.remove()
        del learn.fast

def test_the_command_finds_what_the_verbs_find(trained, exported, folder, tmp_path, monkeypatch):
    "As typed into a terminal, with its defaults"
    monkeypatch.chdir(tmp_path)
    code,said = in_terminal('rotnb.cli.predict', exported, folder)
    assert code==0 and '%' in said and 'detections in 3 images' in said and 'Traceback' not in said, said
    assert (tmp_path/'predictions/Task1.zip').exists()
    code,said = in_terminal('rotnb.cli.predict', exported, folder, '--format', 'csv', '--score-thr', '.01')
    assert code==2 and 'begun with' in said, said
    code,said = in_terminal('rotnb.cli.predict', exported, folder, '--format', 'csv', '--score-thr', '.01', '--out', 'o')
    df = pd.read_csv(tmp_path/'o/results.csv')
    for f in sorted(folder.iterdir()):
        want = predict_image(trained['own'], f, .01)
        got = df[df.image.astype(str).isin([f.name, f.stem])]
        assert len(got)==len(want['scores'])>0
        assert np.allclose(np.sort(got.cx), np.sort(want['boxes'][:,0]), atol=.01)

def test_a_shell_starts_the_command(exported, folder, tmp_path):
    "A process of its own behind a pty"
    import pty
    main,sub = pty.openpty()
    env = {**os.environ, 'PYTHONPATH':str(ROOT)}
    p = subprocess.Popen([sys.executable, '-m', 'rotnb.cli.predict', str(exported), str(folder)], cwd=tmp_path, env=env, stdin=sub,
                         stdout=sub, stderr=sub)
    os.close(sub); said = b''
    try:
        while o := os.read(main, 65536): said += o
    except OSError: pass
    os.close(main)
    assert p.wait(60)==0 and b'detections in 3 images' in said, said.decode()

@pytest.mark.parametrize('module,args', [
    ('demo', ['--n-train','4','--n-valid','2','--epochs','1','--size','64']), ('bench', ['iou','--n','20']),
                                         ('convert', ['{set}','as_coco','--to','coco']),
    ('doctor', ['{set}']), ('split', ['{set}','tiles']), ('report', ['{model}','{set}'])], ids=lambda o: o if isinstance(o, str) else '')
def test_every_command_with_its_defaults_in_a_terminal(synth, exported, tmp_path, monkeypatch, module, args):
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('ROTNB_HOME', str(tmp_path/'home'))
    monkeypatch.setattr('warnings.showwarning', warnings.showwarning)
    code,said = in_terminal(f'rotnb.cli.{module}', *(o.format(set=synth, model=exported) for o in args))
    assert code==0 and 'Traceback' not in said, said[-3000:]
