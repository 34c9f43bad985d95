"YOLO's augmentation: objects are dropped by what is seen of them, mosaics keep boxes on pixels, and it all goes through loaders"
import math
import cv2, numpy as np, pytest, torch
from hypothesis import HealthCheck, example, given, settings, strategies as st
from fastai.vision.all import PILImage, set_seed, tensor
from rotnb.all import CloseMixing, CutOut, MixUpBoxes, Mosaic, RandomWarp, RotatedDataLoaders, yolo_tfms
from rotnb.check.arguments import UnknownArgumentError
from rotnb.check.values import ArgumentError
from rotnb.data.affine import AffineChain, Letterbox, mapped, yolo_rule
from rotnb.data.border import BorderRule
from rotnb.data.mixing import MixTransform
from rotnb.data.types import PAD, TensorBoxLabel, TensorQuad, class_index, is_ignored, is_real
from rotnb.geometry.boxes import rbox2qbox
from painted import COLOURS, check_pixels, mask, scene, soft_iou, tinted, write

few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**31-1)

SEE_ALL = dict(rule=BorderRule('keep', min_visible=0))                     # nothing is dropped but what is not seen

# --- the filter of objects

def judged(quad, size_wh, max_aspect=100.):
    "(kept, how clearly) by YOLO's rule, from a polygon clipped by OpenCV and its extent along the sides of the box"
    frame = np.array([[0,0],[size_wh[0],0],size_wh,[0,size_wh[1]]], np.float32)
    area = cv2.contourArea(quad.astype(np.float32))
    inside,poly = cv2.intersectConvexConvex(quad.astype(np.float32), frame)
    if inside<=1e-6 or poly is None: return False,1.
    u,v = quad[1]-quad[0],quad[3]-quad[0]
    at = np.linalg.solve(np.stack([u,v], 1).astype(float), (poly[:,0]-quad[0]).T.astype(float))           # in shares of the sides
    w,h = np.ptp(at, axis=1)*[np.linalg.norm(u),np.linalg.norm(v)]
    sine = abs(u[0]*v[1]-u[1]*v[0])/np.linalg.norm(u)/np.linalg.norm(v)
    long,short = max(w, h),w*h*sine/max(w, h)
    facts = [inside/area/.1, short/2, max_aspect/(long/short)]
    return min(facts)>=1,abs(math.log(min(facts)))

@given(seed=seeds, shear=st.sampled_from([0.,20.]))
@few
def test_objects_are_dropped_by_what_is_seen_of_them(seed, shear):
    rng = np.random.default_rng(seed)
    n,size = 60,(160,120)
    sides = np.exp(rng.uniform(math.log(1.), math.log(150), (n,2)))
    boxes = np.concatenate([rng.uniform(-20,180,(n,1)), rng.uniform(-20,140,(n,1)), sides, rng.uniform(-3,3,(n,1))], 1)
    quads = TensorQuad(tensor(rbox2qbox(boxes)).float()*2/tensor(size)-1, img_size=size)
    warp = RandomWarp(30., (.6,1.4), shear, .2)
    torch.manual_seed(seed)
    m = warp.maps(1, size, size)[0]
    torch.manual_seed(seed)
    im,got,labels = warp((PILImage.create(np.zeros((120,160,3), np.uint8)), quads, TensorBoxLabel(torch.arange(n))), split_idx=0)
    moved = mapped((quads.as_subclass(torch.Tensor).double()+1)/2*tensor(size), m).numpy()
    verdicts = [judged(quad, size) for quad in moved]
    assert len(labels)==n and {kept for kept,_ in verdicts}=={True,False}
    for code,(kept,clearly) in zip(labels.tolist(), verdicts):
        if clearly>.02: assert (code!=PAD)==kept

@pytest.mark.parametrize('rotate', [0.,20.,180.])
def test_a_warp_without_shear_keeps_shapes(rotate):
    "It turns by one angle and zooms: no side is stretched beside the other, and the zoom is as asked"
    m = RandomWarp(rotate, (1.2,1.5)).maps(200, (160,120), (160,120))[:,:2,:2]
    stretch = torch.linalg.svdvals(m)
    assert (stretch[:,0]/stretch[:,1]-1).abs().amax()<1e-9 and (torch.linalg.det(m)>0).all()
    assert stretch.min()>=1.2 and stretch.max()<=1.5
    turned = torch.atan2(m[:,1,0], m[:,0,0]).rad2deg().abs()
    assert turned.max()<=rotate+1e-9 and turned.max()>=.9*rotate

@pytest.mark.parametrize('box,kept', [([60.,50,40,20,.4],True), ([60.,50,40,1.9,.4],False), ([60.,50,40,2.1,.4],True),
                                      ([60.,50,2.1,2.1,.4],True), ([0.,50,400,20,0],True), ([-184.,50,400,20,0],False),
                                      ([60.,50,100,4.9,0],False)])
def test_each_rule_by_itself(box, kept):
    quads = TensorQuad(rbox2qbox(tensor([box]))*2/tensor([120,100])-1, img_size=(120,100))
    warp = RandomWarp(zoom=(1.,1.), shift=0., rotate=1e-6, rule=yolo_rule(20.))
    labels = warp((PILImage.create(np.zeros((100,120,3), np.uint8)), quads, TensorBoxLabel([3])), split_idx=0)[2]
    assert labels.tolist()==([3] if kept else [PAD])

def test_the_filter_is_for_training_alone():
    small = TensorQuad(rbox2qbox(tensor([[60.,50,1,1,0]]))*2/tensor([120,100])-1, img_size=(120,100))
    sample = PILImage.create(np.zeros((100,120,3), np.uint8)),small,TensorBoxLabel([3])
    chain = AffineChain(RandomWarp(), Letterbox(64))
    assert [chain(sample, split_idx=i)[2].tolist() for i in (0,1)]==[[PAD],[3]]

# --- mosaics

@given(seed=seeds, nine=st.booleans(), warped=st.booleans(), tilt=st.booleans())
@example(seed=560, nine=True, warped=True, tilt=True)                       # a box that lies beyond what nine are laid on
@few
def test_boxes_lie_on_their_pixels(seed, nine, warped, tilt):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    some = [tinted(scene(rng, *rng.integers(280,360,2), label=i), COLOURS[i]) for i in range(4)]
    warp = RandomWarp(60., (.5,1.3), 10., perspective=.15*tilt, **SEE_ALL) if warped else None
    mos = Mosaic((260,300), (1.,1.) if warped else (.4,.9), nine=float(nine), warp=warp, rule=BorderRule('clip', min_visible=0))
    mos.dataset = some
    im,q,l = mos(some[0], split_idx=0)
    assert im.size==(300,260) and len(q)==len(l)
    check_pixels(im, q, l)

@given(seed=seeds)
@few
def test_an_image_alone_is_warped_exactly(seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mos = Mosaic((260,300), p=0., warp=RandomWarp(180., (.7,1.3), 15., perspective=.1, **SEE_ALL))
    im,q,l = mos(scene(rng, 280, 240), split_idx=0)
    assert im.size==(300,260)
    if len(q) and (want := mask(q[0], 300, 260)).sum()/255>3000: assert soft_iou(np.asarray(im)[...,0], want)>.97

def test_only_what_is_seen_is_read():
    rng = np.random.default_rng(0)
    some = [tinted(scene(rng, 100, 80, label=i), COLOURS[i]) for i in range(4)]
    class Counted(list):
        read = 0
        def __getitem__(self, i):
            self.read += 1
            return list.__getitem__(self, i)
    counted = {}
    for zoom in (.5,2.):
        mos = Mosaic(100, (1.,1.), nine=1., warp=dict(zoom=(zoom,zoom), shift=0., rotate=30))
        mos.dataset = counted[zoom] = Counted(some)
        torch.manual_seed(0)
        for _ in range(10): mos(some[0], split_idx=0)
    assert counted[2.].read<counted[.5].read<=80

@pytest.mark.parametrize('seed', range(6))
def test_the_part_that_is_laid_is_that_of_the_whole_canvas(seed):
    rng = np.random.default_rng(seed)
    some = [tinted(scene(rng, 100, 80), COLOURS[0])]
    res = []
    for whole in (False,True):
        mos = Mosaic(100, (1.,1.), warp=RandomWarp(40., (.7,1.4), **SEE_ALL))
        mos.dataset = some
        if whole: mos._seen = lambda m, canvas_wh: ([0,0],list(canvas_wh))
        torch.manual_seed(seed)
        res.append(mos(some[0], split_idx=0))
    (a,q,_),(b,p,_) = res
    assert torch.equal(q, p) and np.abs(np.asarray(a, float)-np.asarray(b, float)).mean()<.6

def test_settings_of_a_warp_may_be_plain_values():
    mos = Mosaic(64, warp=dict(zoom=[.5,1.5], shear=2.))
    assert isinstance(mos.warp, RandomWarp) and mos.warp.shear==2.
    with pytest.raises(UnknownArgumentError, match='shear'): Mosaic(64, warp=dict(sheer=2.))

def test_rectangles_hide_objects():
    dark = PILImage.create(np.zeros((100,120,3), np.uint8))
    codes = set()
    for seed in range(40):
        torch.manual_seed(seed)
        sample = dark,TensorQuad.create([[60.,50,30,20,.5]]),TensorBoxLabel([4])
        im,q,l = CutOut(1., most=3, sides=(.2,.8), fill=255)(sample, split_idx=0)
        seen = (np.asarray(im)[mask(rbox2qbox(tensor([[60.,50,30,20,.5]]))[0], 120, 100)>127]==0).all(-1).mean()
        if abs(seen-.3)>.03 and seen>.01: assert l.tolist()==([4] if seen>.3 else [-6])
        codes |= set(l.tolist())
    assert codes=={4,-6}

# --- in loaders

ALL = dict(nine=.5, rotate=20, shear=5, perspective=.1, mixup=.5, copy_paste=.3, cut_out=.2, flip_ud=.5)

def loaders(tmp_path, workers=0, **kw):
    annots = write(tmp_path, 20, (96,96))
    set_seed(3)
    return RotatedDataLoaders.from_annots(annots[:16], annots[16:], item_tfms=yolo_tfms(96, **kw), batch_tfms=[], bs=4,
                                          num_workers=workers, device='cpu')

@pytest.mark.parametrize('workers', [0,2])
def test_same_seed_same_batches(tmp_path, workers):
    one,two = ([b for b in loaders(tmp_path, workers, **ALL).train] for _ in range(2))
    assert len(one)==4 and all(torch.equal(o, p) for a,b in zip(one, two) for o,p in zip(a, b))

def test_labels_and_validation_stay(tmp_path):
    dls = loaders(tmp_path, **ALL)
    codes = torch.cat([b[2].flatten() for _ in range(4) for b in dls.train])
    codes = codes[is_real(codes)]
    assert set(zip(class_index(codes).tolist(), is_ignored(codes).tolist()))=={(0,False),(1,False),(0,True),(1,True)}
    assert {tuple(b[0].shape[-2:]) for b in dls.train}=={(96,96)}=={tuple(b[0].shape[-2:]) for b in dls.valid}
    valid = sorted(c for b in dls.valid for c in b[2].flatten().tolist() if c!=PAD)
    assert valid==sorted(c for o in dls.valid_ds for c in o[2].tolist())

def test_mixup_takes_mosaics_and_the_loader_takes_all_back(tmp_path):
    dls = loaders(tmp_path, mixup=1.)
    mosaic,mixup = [o for o in dls.train.after_item.fs if isinstance(o, MixTransform)]
    assert isinstance(mosaic, Mosaic) and isinstance(mixup, MixUpBoxes)
    seen = []
    mosaic.mix = lambda *sample: (seen.append(1), Mosaic.mix(mosaic, *sample))[1]
    dls.train.one_batch()
    assert len(seen)==8, 'each of four images, and the one that is laid over it'
    assert mixup.dataset is None and mixup.before==()

def test_closing_leaves_the_map(tmp_path):
    "No mosaic and no mixup any more, but single images are still zoomed and shifted; YOLOX's are not"
    for alone in (True,False):
        dls = loaders(tmp_path, mixup=1., alone=alone, hue=0, saturation=0, value=0, flip=0)
        for tfm in dls.train.after_item.fs:
            if isinstance(tfm, MixTransform): tfm.switch(False)
        a,b = ([x for x,*_ in dls.train.new(shuffle=False)] for _ in range(2))
        assert all(torch.equal(x, y) for x,y in zip(a, b))==(not alone)

@pytest.mark.parametrize('call,error,said', [
    (lambda: yolo_tfms(64, mixup=15), ArgumentError, '0.15 for 15 %'),
    (lambda: yolo_tfms(64, mixup_prob=.1), UnknownArgumentError, "'mixup'"),
    (lambda: RandomWarp(rotate='5'), ArgumentError, 'without quotes'), (lambda: RandomWarp(shift=5), ArgumentError, 'a share'),
    (lambda: Mosaic(64, nine=2), ArgumentError, '0 to 1'), (lambda: BorderRule(min_side=-1), ArgumentError, '0 or more')])
def test_mistakes(call, error, said):
    with pytest.raises(error) as told: call()
    assert said in str(told.value)

def test_a_predictor_repeats_the_validation(tmp_path):
    "The last of them fits images in, within a chain; a `Predictor` finds it there"
    from rotnb.learn.predictor import _acting, _shape
    dls = loaders(tmp_path, **ALL)
    assert [type(o).__name__ for o in _acting(dls.valid.after_item.fs) if type(o).__name__=='Letterbox']==['Letterbox']
    assert _shape(dls.valid)==dict(rule='letterbox', size=(96,96), pad_value=114)
    image = PILImage.create(np.random.default_rng(0).integers(0, 256, (50,80,3), np.uint8))
    own = Letterbox(96, 114)(image, split_idx=1)
    chain, = [o for o in dls.valid.after_item.fs if isinstance(o, AffineChain)]
    assert np.array_equal(chain(image, split_idx=1), own)
    assert np.array_equal(AffineChain(chain, Letterbox(96, 114), fill=114)(image, split_idx=1), own)
