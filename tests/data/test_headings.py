"Whatever a transform does to an image, corner 0 to 1 of a box points where the pixels say that its front is, and its class stays"
import math
import numpy as np, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from fastai.vision.all import DihedralItem, FlipItem, PILImage, Resize, TensorImage, aug_transforms
from rotnb.data.affine import AffineChain, Letterbox, RandomBoxCrop, RandomFlip, RandomResize, RandomRotate, RandomWarp
from rotnb.data.border import BorderRule, UprightBoxes, rotated_aug_transforms
from rotnb.data.images.windows import open_scene
from rotnb.data.labels.inside import keep_inside
from rotnb.data.labels.records import Annot
from rotnb.data.labels.tiles import tile_annots
from rotnb.data.mixing import CopyPaste, CutOut, MixUpBoxes, Mosaic
from rotnb.data.types import PAD, TensorBoxLabel, TensorQuad, class_index
from rotnb.data.yolo import yolo_tfms
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.fit import with_heading
from painted import front_half, mask

few = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**31-1)
W,H = 280,240

def picture(rng, label=0, theta=None):
    "An image with one box; red all over it, green in its front half; and the box"
    theta = rng.uniform(-math.pi, math.pi) if theta is None else theta
    box = [W/2+rng.uniform(-30, 30), H/2+rng.uniform(-30, 30), rng.uniform(60, 110), rng.uniform(50, 90), theta]
    quad, = rbox2qbox(np.array([box]))
    body,front = mask(quad, W, H, 4),mask(front_half(quad), W, H, 4)
    return PILImage.create(np.stack([body,front,0*body], -1)),TensorQuad.create(quad[None]),TensorBoxLabel([label])

def scaled(sample):
    im,quads,labels = sample
    return im,TensorQuad(quads.as_subclass(torch.Tensor)*2/torch.tensor(im.size)-1, img_size=im.size),labels

def seen_front(im, quad): # (h,w,3) 0..1; corners in px
    "The direction from the back to the front, as the pixels of a box say; None where too little of it is seen to tell"
    h,w = im.shape[:2]
    inside = mask(quad, w, h, 2)>127
    if inside.sum()<400: return None
    red,green = im[...,0]/max(im[inside,0].max(), 1e-6),im[...,1]/max(im[inside,1].max(), 1e-6)
    front,back = inside & (green>.5),inside & (red>.5) & (green<=.5)
    if (front|back).sum()<.85*inside.sum() or min(front.sum(), back.sum())<.3*inside.sum(): return None
    x,y = (np.argwhere(front).mean(0)-np.argwhere(back).mean(0))[::-1]
    return math.atan2(y, x)

def check(im, quads, labels, within=12.): # pixels -1..1 as a network has them, of a sample; degrees
    "How many boxes were seen to head where they say"
    im = np.asarray(im) if isinstance(im, PILImage) else im.as_subclass(torch.Tensor).float().permute(1,2,0).numpy()
    im = im/max(im.max(), 1)
    quads = (quads.as_subclass(torch.Tensor).double().numpy()+1)/2*im.shape[1::-1]
    quads = quads[labels.numpy()!=PAD]
    fronts = [seen_front(im, quad) for quad in quads]
    for theta,front in zip(with_heading(quads)[0][:,4], fronts):
        if front is not None: assert math.cos(theta-front)>math.cos(math.radians(within)), (math.degrees(theta), math.degrees(front))
    return sum(front is not None for front in fronts)

ITEM = dict(
    flip=lambda: RandomFlip(), flip_item=lambda: FlipItem(1.), dihedral=lambda: DihedralItem(1.), rotate=lambda: RandomRotate(180., p=1.),
    rotate_expand=lambda: RandomRotate(180., p=1., expand=True), quarters=lambda: RandomRotate([0,90,180,270], p=1.),
    resize=lambda: RandomResize((300,200), (.8,1.4)), squish=lambda: Resize(200, method='squish'), pad=lambda: Resize(200, method='pad'),
    letterbox=lambda: Letterbox((300,200)), crop=lambda: RandomBoxCrop((220,200)), cut_out=lambda: CutOut(p=1.),
    warp=lambda: RandomWarp(180, (.7,1.3), 0, .1), sheared=lambda: RandomWarp(180, (.7,1.3), 12, .1),
    tilted=lambda: RandomWarp(180, (.7,1.3), 0, .1, .15), clip=lambda: RandomWarp(180, (1.,1.6), 0, .2, rule=BorderRule('clip')),
    chain=lambda: AffineChain(RandomFlip(), RandomRotate(180., p=1.), RandomResize(300, (.7,1.5)), RandomBoxCrop(220)))
UNEVEN = 'sheared','tilted','squish','resize','clip' # of what is no rectangle any more, or cut, a side's direction is carried

@pytest.mark.parametrize('name', ITEM)
def test_a_sample(name):
    counts = []
    @given(seed=seeds)
    @few
    def one(seed):
        torch.manual_seed(seed)
        im,quads,labels = picture(np.random.default_rng(seed), 3)
        tfm = ITEM[name]()
        sample = scaled((im,quads,labels))
        new = tfm(sample, split_idx=0)
        assert set(new[2].tolist())<={3,-5,PAD}                                     # its class, maybe ignored
        counts.append(check(*new, 25. if name in UNEVEN else 12.))
    one()
    assert sum(counts)>=2, 'nothing was looked at'

BATCH = dict(ours=lambda: rotated_aug_transforms(max_rotate=180., max_lighting=0, p_affine=1.), fastai=lambda:
             aug_transforms(do_flip=True, flip_vert=True, max_rotate=180., max_lighting=0, max_warp=0, p_affine=1., pad_mode='zeros'))

@pytest.mark.parametrize('name', BATCH)
@given(seed=seeds)
@few
def test_a_batch(name, seed):
    torch.manual_seed(seed); np.random.seed(seed%2**32)
    rng = np.random.default_rng(seed)
    some = [scaled(picture(rng, i)) for i in range(3)]
    quads = TensorQuad(torch.stack([quads.as_subclass(torch.Tensor) for _,quads,_ in some]), img_size=(W,H))
    images = torch.stack([torch.tensor(np.asarray(im)).permute(2,0,1)/255 for im,*_ in some])
    batch = TensorImage(images),quads,TensorBoxLabel([[0],[1],[2]])
    for tfm in BATCH[name](): batch = tfm(batch, split_idx=0)
    assert class_index(batch[2]).flatten().tolist()==[0,1,2] or (batch[2]==PAD).any()
    for sample in zip(*batch): check(*sample)

MIXING = dict(mosaic=lambda: Mosaic((300,300), zoom=(.6,1.2), rule=BorderRule('clip', min_visible=0)),
              mix=lambda: MixUpBoxes(1., zoom=(1.,1.4)), paste=lambda: CopyPaste(1., most=3))

@pytest.mark.parametrize('name', MIXING)
def test_images_that_are_mixed(name):
    counts = []
    @given(seed=seeds)
    @few
    def one(seed):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        tfm,empty = MIXING[name](),(PILImage.create(np.zeros((H,W,3), np.uint8)),TensorQuad.create([]),TensorBoxLabel.create([]))
        tfm.dataset = [picture(rng, label) for label in range(4)]
        im,quads,labels = tfm(tfm.dataset[0] if name=='mosaic' else empty, split_idx=0)
        counts.append(check(*scaled((im,quads,labels)), 25.))                 # seams and neighbours cover parts of them
    one()
    assert sum(counts)>=2, 'nothing was looked at'

@given(seed=seeds)
@few
def test_the_whole_chain_of_yolo(seed):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    sample,dataset = picture(rng, 0),[picture(rng, label) for label in range(4)]
    for tfm in yolo_tfms(320, rotate=180., mixup=.2, copy_paste=.3):
        if hasattr(tfm, 'dataset'): tfm.dataset = dataset
        sample = tfm(sample, split_idx=0)
    im,quads,labels = sample
    if not len(labels): return                                                # all has left the picture
    check(im, quads if quads.as_subclass(torch.Tensor).abs().max()<3 else scaled(sample)[1], labels, 25.)

def test_tiles_and_boxes_brought_in(tmp_path):
    "Windows of a scene, and boxes that leave it clipped to it"
    rng,seen = np.random.default_rng(0),0
    for i in range(6):
        im,quads,_ = picture(rng)
        file = tmp_path/f'{i}.png'
        im.save(file)
        annot = Annot(file, quads.double().numpy(), ['plane'], np.zeros(1, int), (W,H))
        for tile in tile_annots([annot], 200, 60):
            assert set(tile.names)<={'plane'}
            window = np.asarray(tile.image.pixels())/255
            for quad in tile.quads:
                front = seen_front(window, quad)
                if front is None: continue
                assert math.cos(with_heading(quad[None])[0][0,4]-front)>math.cos(.2); seen += 1
    assert seen>=4
    boxes = np.stack([*rng.uniform(0, 200, (2,99)), *rng.uniform(20, 90, (2,99)), rng.uniform(-math.pi, math.pi, 99)], 1)
    inside,iou = keep_inside(rbox2qbox(boxes), (200,200))
    turned = with_heading(inside[iou>.3])[0][:,4]-boxes[iou>.3,4]
    assert (iou<1).any() and np.cos(turned).min()>.999

def test_round_things_lose_theirs_on_purpose():
    quads = TensorQuad.create([[140.,120,60,60,.7],[140,120,60,40,.7]])
    _,new,_ = UprightBoxes([4])(scaled((PILImage.create(np.zeros((H,W,3), np.uint8)),quads,TensorBoxLabel([4,0]))), split_idx=0)
    theta = with_heading(((new.as_subclass(torch.Tensor)+1)/2*torch.tensor([W,H])).numpy())[0][:,4]
    assert abs(theta[0])<1e-3 and abs(theta[1]-.7)<1e-3
