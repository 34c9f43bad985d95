"Whatever is drawn, boxes lie on the pixels they lay on, with their heading and their flags; and two runs with one seed are one run"
import math, multiprocessing, os, pickle, subprocess, sys
from functools import partial
import numpy as np, pytest, torch
from PIL import Image
from hypothesis import HealthCheck, given, settings, strategies as st
from fastai.vision.all import PILImage, Resize, TensorImage, set_seed, tensor
from torchvision.transforms import v2
from rotnb.geometry.boxes import rbox2qbox
from rotnb.data.types import *
from rotnb.data.border import *
from rotnb.data.affine import *
from rotnb.data.colour import *
from rotnb.data.mixing import *
from rotnb.data.blocks import *
from rotnb.data.labels.records import Annot
from rotnb.data.samplers import *
from rotnb.data.cache import *
from rotnb.data.loaders import RotatedDataLoaders
from painted import COLOURS, check_pixels, front_half, mask, scene, soft_iou, tinted, write
from paths import ROOT

few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**31-1)

TFMS = dict(
    flip = lambda: RandomFlip(),
    rotate = lambda: RandomRotate(180., p=1.),
    rotate_range = lambda: RandomRotate((20.,70.), p=.8, fill=0),
    rotate_list = lambda: RandomRotate([0,90,180,270,45], p=1.),
    rotate_expand = lambda: RandomRotate(180., p=1., expand=True),
    rotate_rect = lambda: RandomRotate(180., p=1., rect_classes=[0]),
    resize = lambda: RandomResize(200, (.5,2.)),
    resize_rect = lambda: RandomResize((300,200), (.8,1.4), multiple=32),
    multi_scale = lambda: RandomResize(ratio=(.5,1.5), multiple=32),
    letterbox = lambda: Letterbox((300,200)),
    crop = lambda: RandomBoxCrop((180,160)),
    warp = lambda: RandomWarp(30, (.7,1.3), 12, .1, rule=BorderRule('keep', min_visible=0)),
    warp_tilted = lambda: RandomWarp(180, (.7,1.3), 12, .1, .15, rule=BorderRule('keep', min_visible=0)),
    crop_larger = lambda: RandomBoxCrop(400),
    crop_blind = lambda: RandomBoxCrop(200, p_object=0),
    chain = lambda: AffineChain(RandomFlip(), RandomRotate(180., p=1.), RandomResize(300, (.7,1.5)), RandomBoxCrop(220)))

def scaled(s): return s[0],TensorQuad(s[1].as_subclass(torch.Tensor)*2/torch.tensor(s[0].size)-1, img_size=s[0].size),s[2]
def pixels(q, size): return (np.asarray(q, np.float64)+1)/2*size

def check(im, quad, front=False, tilted=False):
    "`im` (h,w) 0..255 shows what `quad` says, unless hardly anything is left in the frame"
    h,w = np.asarray(im).shape
    want = mask(front_half(pixels(quad, (w,h))) if front else pixels(quad, (w,h)), w, h)
    if want.sum()/255<600: return
    iou = soft_iou(im, want)
    assert iou>=(.96 if tilted else .98 if min(h,w)>=150 and not front else .97), iou   # where it is tilted, edges are softer

# --- geometry

@pytest.mark.parametrize('name', TFMS)
@given(seed=seeds, front=st.booleans())
@few
def test_sample(name, seed, front):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    front &= name!='warp_tilted'                        # the middle of a side is not in its middle any more
    im,q,l = TFMS[name]()(scaled(scene(rng, 280, 240, front=front)), split_idx=0)
    assert (type(im),type(q),type(l)) == (PILImage,TensorQuad,TensorBoxLabel) and tuple(q.img_size)==im.size and l.tolist()==[0]
    check(np.asarray(im)[...,0], q[0], front, name=='warp_tilted')
    x,y = pixels(q[0], im.size).T
    assert (x*np.roll(y,-1)-y*np.roll(x,-1)).sum()>0, 'corners stay clockwise'

@pytest.mark.parametrize('name', TFMS)
@pytest.mark.parametrize('dtype', [torch.uint8,torch.float32,torch.float16])
@given(seed=seeds)
@settings(few, max_examples=6)
def test_batch(name, dtype, seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    half = 2 if name!='warp_tilted' else None
    some = [scaled(scene(rng, 280, 240, front=i==half)) for i in range(3)]
    x = torch.stack([torch.tensor(np.asarray(s[0])).permute(2,0,1) for s in some])
    x = TensorImage(x if dtype==torch.uint8 else (x/255).to(dtype))
    b = x,TensorQuad(torch.stack([s[1].as_subclass(torch.Tensor) for s in some]), img_size=(280,240)),TensorBoxLabel([[0],[0],[0]])
    x,q,l = TFMS[name]()(b, split_idx=0)
    assert x.dtype==dtype and type(q) is TensorQuad and tuple(q.img_size)==(x.shape[-1],x.shape[-2])
    for i in range(3): check(x[i,0].float().numpy()*(1 if dtype==torch.uint8 else 255), q[i,0], i==half, name=='warp_tilted')

@pytest.mark.parametrize('name', TFMS)
def test_no_boxes_and_boxes_outside(name):
    torch.manual_seed(0)
    im = PILImage.create(np.zeros((240,280,3), np.uint8))
    for codes in ([],[PAD,PAD],[3,-5]):
        q = TensorQuad(torch.full((len(codes),4,2), 7.), img_size=(280,240))
        for _ in range(3):
            r = TFMS[name]()((im, q, TensorBoxLabel.create(codes)), split_idx=0)
            want = codes if r[0] is im else [PAD]*len(codes)                   # nothing of them is seen
            assert r[1].shape==q.shape and r[2].tolist()==want and r[1].isfinite().all()
            labels = TensorBoxLabel(torch.tensor([codes,codes]).long())
            b = TensorImage(torch.zeros(2,3,240,280)),TensorQuad(torch.stack([q,q]), img_size=(280,240)),labels
            r = TFMS[name]()(b, split_idx=0)
            want = b[2] if r[0] is b[0] else torch.full_like(b[2], PAD)
            assert r[1].shape==b[1].shape and torch.equal(r[2], want) and len(r[0])==2
    if not name.startswith(('resize','letter','multi','chain')):
        assert TFMS[name]()((im,q,TensorBoxLabel.create(codes)), split_idx=1)[0] is im
    assert isinstance(TFMS[name]()((im,), split_idx=1), tuple)             # prediction: no boxes at all

@given(seed=seeds)
@few
def test_upright_boxes_around_discs(seed):
    "A rotation of an image with a disc: the upright box holds it exactly"
    torch.manual_seed(seed)
    yy,xx = np.mgrid[:240,:280]+.5
    disc = (((xx-150)**2+(yy-110)**2)<50**2)*np.uint8(255)
    s = PILImage.create(np.repeat(disc[...,None],3,-1)),TensorQuad.create([[150.,110,100,100,0]]),TensorBoxLabel([4])
    im,q,l = UprightBoxes([4])(RandomRotate(180, p=1., expand=True)(scaled(s), split_idx=0), split_idx=0)
    y,x = np.nonzero(np.asarray(im)[...,0]>127)
    p = pixels(q[0], im.size)
    assert np.abs(np.r_[p.min(0),p.max(0)]-[x.min(),y.min(),x.max()+1,y.max()+1]).max()<1.6

@pytest.mark.parametrize('tfm', [RandomHSV(), PixelTfm(v2.RandomPhotometricDistort(p=1.)), PixelTfm(v2.GaussianBlur(3))])
def test_colour_moves_nothing(tfm):
    s = scaled(scene(np.random.default_rng(0), 280, 240))
    im,q,l = tfm(s, split_idx=0)
    assert torch.equal(q, s[1]) and im.size==s[0].size and soft_iou(np.asarray(im.convert('L'))>100, np.asarray(s[0])[...,0]>100)>.98

# --- mixing

@given(seed=seeds)
@few
def test_mosaic(seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    some = [tinted(scene(rng, *rng.integers(180,320,2), label=i), COLOURS[i]) for i in range(4)]
    mos = Mosaic((260,300), zoom=(.6,1.5), rule=BorderRule('clip', min_visible=0))
    mos.dataset = some
    im,q,l = mos(some[0], split_idx=0)
    assert im.size==(300,260) and len(q)==len(l)
    check_pixels(im, q, l)

@given(seed=seeds)
@few
def test_mixup(seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mix = MixUpBoxes(1., zoom=(1.,1.8))
    mix.dataset = [scene(rng, 300, 200, label=3)]
    box = mix.dataset[0][1].as_subclass(torch.Tensor)
    whole = bool(((box>=0) & (box<=torch.tensor([300,200]))).all())         # what hangs over its own border has no pixels to bring
    im,q,l = mix((PILImage.create(np.zeros((240,280,3),np.uint8)), TensorQuad.create([]), TensorBoxLabel.create([])), split_idx=0)
    assert l.tolist()==[3] and im.size==(280,240)
    a = np.asarray(im)[...,0].astype(float)
    want = mask(q[0], 280, 240)
    if whole and want.sum()/255>3000: assert soft_iou(a*255/a.max(), want)>.97

@given(seed=seeds)
@few
def test_copy_paste(seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    cp = CopyPaste(1., most=3)
    cp.dataset = [(lambda s: (PILImage.create(np.full((240,280,3), 255, np.uint8)), *s[1:]))(scene(rng, 280, 240, label=2))]
    im,q,l = cp((PILImage.create(np.zeros((200,260,3),np.uint8)), TensorQuad.create([]), TensorBoxLabel.create([])), split_idx=0)
    a = np.asarray(im)[...,0]
    if not len(q): assert not a.any()
    else: assert l.tolist()==[2] and ((want:=mask(q[0], 260, 200)).sum()/255<600 or soft_iou(a, want)>.98)

def test_copy_paste_covers():
    "Covered truths are ignored, dropped or gone, by the share that is still seen"
    big = PILImage.create(np.full((100,100,3), 255, np.uint8)),TensorQuad.create([[50.,50,60,60,0]]),TensorBoxLabel([1])
    small = PILImage.create(np.zeros((100,100,3), np.uint8)),TensorQuad.create([[50.,50,50,50,0],[5,5,6,6,0]]),TensorBoxLabel([0,-5])
    for below in ('ignore','drop'):
        cp = CopyPaste(1., most=1, angle=0., zoom=(1.,1.), tries=1, rule=BorderRule(below=below, min_visible=.6))
        cp.dataset = [big]
        for seed in range(30):
            torch.manual_seed(seed)
            im,q,l = cp(small, split_idx=0)
            bright = np.asarray(im)[...,0]>127
            seen = 1-bright[25:75,25:75].mean()
            want = [] if seen==0 or (below=='drop' and seen<.6) else [-2] if seen<.6 else [0]
            hidden = bright[2:8,2:8].all()
            gone = hidden or (below=='drop' and 1-bright[2:8,2:8].mean()<.6)
            assert abs(seen-.6)<.03 or l.tolist()==want+([] if gone else [-5])+[1]

def test_anticlockwise_quads_are_pasted_and_covered():
    "Label files have them; an object comes with its pixels, and what it covers is noticed"
    turn = lambda s: (s[0], TensorQuad(s[1].as_subclass(torch.Tensor).flip(1)), s[2])
    big = turn((PILImage.create(np.full((100,100,3), 255, np.uint8)), TensorQuad.create([[50.,50,60,60,0]]), TensorBoxLabel([1])))
    small = turn((PILImage.create(np.zeros((100,100,3), np.uint8)), TensorQuad.create([[50.,50,30,30,0]]), TensorBoxLabel([0])))
    cp,codes = CopyPaste(1., most=1, angle=0., zoom=(1.,1.), tries=1),set()
    cp.dataset = [big]
    for seed in range(10):
        torch.manual_seed(seed)
        im,q,l = cp(small, split_idx=0)
        assert soft_iou(np.asarray(im)[...,0], mask(q[-1], 100, 100))>.98
        codes |= {tuple(l[:-1].tolist())}
    assert {(-2,),(0,)}<=codes                                             # covered by some, not by others

def test_a_box_without_numbers_spoils_no_other():
    torch.manual_seed(0)
    quads = TensorQuad.create([[40.,30,30,20,.3],[float('nan'),20,10,8,.1]])
    s = PILImage.create(np.zeros((60,80,3), np.uint8)),quads,TensorBoxLabel([1,2])
    mos = Mosaic((120,160), zoom=(.5,.5), centre=(.5,.5)); mos.dataset = [s]
    q,l = mos(s, split_idx=0)[1:]
    assert l.tolist()==[1]*4 and q.isfinite().all()

# --- in loaders

def everything(annots, workers, **kw):
    set_seed(3)
    items = [CopyPaste(), Mosaic(96, p=.5), MixUpBoxes(), RandomResize(96, (.7,1.3)), RandomRotate(30), RandomBoxCrop(96), RandomHSV(),
             PixelTfm(v2.RandomPhotometricDistort()), Resize(96, method='pad', pad_mode='zeros')]
    batch = [RandomFlip(), RandomRotate(rect_classes=['ship']), UprightBoxes(['car']), RandomResize(ratio=(.6,1.5), multiple=32, every=2)]
    kw |= dict(bs=4, num_workers=workers, device='cpu')
    return RotatedDataLoaders.from_annots(annots[:16], annots[16:], item_tfms=items, batch_tfms=batch, **kw)

@pytest.mark.parametrize('workers', [0,2])
@pytest.mark.parametrize('kw', [dict(sampler=WeightedSampler), dict(cache='memory')])
def test_same_seed_same_batches(tmp_path, workers, kw):
    annots,runs = write(tmp_path, 20),[]
    for _ in range(2):
        dls = everything(annots, workers, **{k:v() if callable(v) else v for k,v in kw.items()})
        runs.append([b for _ in range(2) for b in dls.train])
    assert len(runs[0])==8
    for a,b in zip(*runs):
        for o,p in zip(a, b): assert torch.equal(o, p)
    assert any(a[0].shape!=b[0].shape or not torch.equal(a[0], b[0]) for a,b in zip(runs[0][:4], runs[0][4:]))

def test_labels_survive(tmp_path):
    "Classes and ignore flags that come out are those that went in"
    dls = everything(write(tmp_path, 20), 0)
    codes = torch.cat([b[2].flatten() for _ in range(3) for b in dls.train])
    codes = codes[is_real(codes)]
    assert set(zip(class_index(codes).tolist(), is_ignored(codes).tolist()))=={(0,False),(1,False),(0,True),(1,True)}
    valid = sorted(c for b in dls.valid for c in b[2].flatten().tolist() if c!=PAD)
    assert valid==sorted(c for o in dls.valid_ds for c in o[2].tolist())
    dls.show_batch()

def test_two_transforms_of_one_class_both_act(tmp_path):
    "A `DataBlock` keeps only the last of them; a given one takes the place of the block's own"
    annots,seen = write(tmp_path, 6),[]
    def note(what, x): seen.append(what); return x
    tfms = lambda *o: [PixelTfm(partial(note, k)) for k in o]
    dls = RotatedDataLoaders.from_annots(annots[:4], annots[4:], bs=4, device='cpu',
                                         item_tfms=tfms('a','b'), batch_tfms=[*tfms('c','d'), BorderRule('drop')])
    dls.train.one_batch()
    assert seen==['a','b']*4+['c','d']
    assert [o.cut for o in dls.train.after_batch.fs if isinstance(o, BorderRule)]==['drop']

OUT = dict(rotate=[RandomRotate(90, p=1.)], mixup=[MixUpBoxes(1., alpha=None)], mosaic=[Mosaic((100,160))], crop=[RandomBoxCrop((60,80))])

@pytest.mark.parametrize('room', [Resize(240, method='pad', pad_mode='zeros'), AffineChain(RandomBoxCrop(240))], ids=['pad','window'])
@pytest.mark.parametrize('name', OUT)
def test_boxes_moved_out_do_not_come_back_without_pixels(tmp_path, name, room):
    "Bright objects on grey: after padding no box that counts lies on the black rim, but slivers of boxes that were cut"
    annots = []
    for i,(w,h) in enumerate([(160,60),(60,160),(160,60),(60,160)]):
        x,y = (o.ravel()+.5 for o in np.meshgrid(np.arange(5, w, 15), np.arange(5, h, 15)))
        q = rbox2qbox(np.stack([x, y, *np.full((2,len(x)), 8.), np.zeros(len(x))], 1))
        a = np.full((h,w,3), 60, np.uint8)
        for o in q: a[mask(o, w, h)>127] = 255
        Image.fromarray(a).save(tmp_path/f'{i}.png')
        annots.append(Annot(tmp_path/f'{i}.png', q, ['car']*len(q), np.zeros(len(q), int)))
    set_seed(0)
    dls = RotatedDataLoaders.from_annots(annots, annots[:1], item_tfms=[*OUT[name], room], batch_tfms=[], bs=4, device='cpu')
    bright = []
    for x,q,l in [b for _ in range(3) for b in dls.train]:
        size = tensor([x.shape[-1],x.shape[-2]])
        for im,o,c in zip(x, (q.as_subclass(torch.Tensor)+1)/2*size, l):
            for b in o[c>=0]:
                m = quad_mask(b, (0,0), size.tolist())>.5
                if m.sum()>12: bright.append(im[0].numpy()[m].max())
    without = np.mean(np.array(bright)<=.2)
    assert len(bright)>100 and without<.04, f'{without:.0%} of {len(bright)} boxes have no pixels'

def test_partners_are_of_the_training_set(tmp_path):
    annots = write(tmp_path, 20)
    class Watch(MixTransform):
        seen = set()
        def mix(self, *s):
            self.seen.add(len(self.dataset))
            return s
    dls = RotatedDataLoaders.from_annots(annots[:16], annots[16:], item_tfms=[Watch()], batch_tfms=[], bs=4, device='cpu')
    train,valid = iter(dls.train),iter(dls.valid)
    next(train),next(valid),next(train)
    assert Watch.seen=={16}

SHARED = '''
import multiprocessing, sys
from pathlib import Path
from rotnb.data.cache import MemoryCache
from rotnb.data.loaders import RotatedDataLoaders
if __name__=='__main__':
    how,root,mem = sys.argv[1],Path(sys.argv[2]),MemoryCache()
    multiprocessing.set_start_method(how)
    tile = dict(size=48, overlap=0, empty='keep')
    dls = RotatedDataLoaders.from_dota(root, bs=2, num_workers=1, batch_tfms=[], device='cpu', cache=mem, tile=tile)
    for b in dls.train: pass
    have = {o for o in mem.places if mem.load(*o) is not None}
    assert len(mem.places)==len(dls.train_ds)+len(dls.valid_ds) and len(have)==len(dls.train_ds)==8
    for f in root.glob('images/*'): f.unlink()
    assert all(b[0].shape[1:]==(3,48,48) for b in dls.train)
'''

@pytest.mark.parametrize('how', ['fork',pytest.param('spawn', marks=pytest.mark.slow)])
def test_memory_is_shared_with_workers_however_they_start(tmp_path, how):
    "Windows of scenes in a worker; then the files are gone, and new workers still have the pixels"
    if how not in multiprocessing.get_all_start_methods(): pytest.skip(f'no {how} on this system')
    for o in ('images','labelTxt'): (tmp_path/'set'/o).mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (96,96,3), np.uint8)).save(tmp_path/f'set/images/{i}.png')
        (tmp_path/f'set/labelTxt/{i}.txt').write_text('10 10 40 10 40 30 10 30 ship 0\n')
    script = tmp_path/'shared.py'; script.write_text(SHARED)
    env = {**os.environ, "PYTHONPATH":str(ROOT)}
    r = subprocess.run([sys.executable, script, how, tmp_path/"set"], capture_output=True, text=True, env=env)
    assert r.returncode==0, r.stderr[-2000:]

def test_nothing_of_the_data_is_exported(tmp_path):
    dls = everything(write(tmp_path, 20), 0, cache='memory', sampler=WeightedSampler(np.ones(16)))
    dls.one_batch()
    text = pickle.dumps(dls.new_empty())
    assert b'.png' not in text and len(text)<100_000
    back = pickle.loads(text)
    assert back.test_dl([tmp_path/'0.png']).one_batch()[0].shape==(1,3,96,96)
