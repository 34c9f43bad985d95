"Boxes move with the pixels, and the six places where fastai breaks on boxes (see the data notebooks) are mended"
import math, random
import numpy as np, pytest, torch
from PIL import Image
import matplotlib; matplotlib.use('agg')
from hypothesis import HealthCheck, given, settings, strategies as st
import matplotlib.pyplot as plt
from torch import nn
from fastai.vision.all import (Callback, CropPad, DataBlock, Dihedral, DihedralItem, Flip, FlipItem, ImageBlock, IndexSplitter,
    Interpretation, Learner, RandomCrop, RandomResizedCrop, RandomResizedCropGPU, RatioResize, Resize, Rotate, TensorImage, TensorPoint,
    Zoom, aug_transforms, rotate_mat, show_batch, show_results, to_np)
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.visible import clip_to_frame, quad_area, visible_fraction
from rotnb.data.labels.records import Difficult
from rotnb.data.types import *
from rotnb.data.border import *
from rotnb.data.blocks import *
from painted import mask

few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def image(quad, w, h): return np.repeat(mask(quad, w, h)[...,None], 3, -1)

def overlap(x, quad):
    "IoU of the bright pixels of `x` (3,h,w) and a scaled quad"
    h,w = x.shape[-2:]
    a = to_np(x[0])>.5
    b = mask((to_np(quad)+1)/2*[w,h], w, h)>127
    return (a&b).sum()/max((a|b).sum(), 1)

W,H = 640,480
RBOXES = [[320,240,260,120,.5],[300,250,200,150,-1.1],[350,230,240,90,2.4],[310,220,180,160,.1]]

def loaders(item_tfms=(), batch_tfms=(), rboxes=RBOXES, names=None, **kw):
    "One big bright box per image, in training and in validation"
    items = [rbox2qbox(np.array([r], float)) for r in rboxes]*2
    n = len(rboxes)
    db = DataBlock((ImageBlock, RBoxBlock(min_visible=0, **kw), RBoxLblBlock(['box'])), n_inp=1, get_x=lambda o: image(o[0], W, H),
                   get_y=[lambda o: o, lambda o: names or ['box']], splitter=IndexSplitter(range(n,2*n)),
                   item_tfms=list(item_tfms), batch_tfms=list(batch_tfms))
    return db.dataloaders(items, bs=n, num_workers=0, device='cpu')

def check(dls, least=.98):
    for dl in dls:
        for x,q,l in dl:
            assert (l==0).all()
            for im,quad in zip(x, q): assert overlap(im, quad[0])>=least, overlap(im, quad[0])
            x_,y_ = q.as_subclass(torch.Tensor).unbind(-1)
            assert ((x_*y_.roll(-1,-1)-y_*x_.roll(-1,-1)).sum(-1)>0).all(), 'corners must stay clockwise'

ITEM = dict(squish=[Resize((384,512), method='squish')], crop=[Resize(384, method='crop')],
    pad=[Resize(512, method='pad', pad_mode='zeros')],
    rrc=[RandomResizedCrop((400,480), min_scale=.6)], random_crop=[RandomCrop((420,560))], crop_pad=[CropPad((520,700))],
    crop_small=[CropPad((400,500))], flip=[FlipItem(.5)], flip_all=[FlipItem(1.)],
    dihedral=[DihedralItem(1.), Resize(512, method='pad', pad_mode='zeros')],
    ratio=[RatioResize(512)], chain=[DihedralItem(1.), FlipItem(.5), RandomResizedCrop((384,448), min_scale=.7)])

@pytest.mark.parametrize('name', ITEM)
def test_item_transforms_move_boxes_with_pixels(name):
    random.seed(1); check(loaders(ITEM[name]))

BATCH = dict(flip=lambda: [Flip(p=.5)], dihedral=lambda: [Dihedral(p=1.)], rotate=lambda: [Rotate(max_deg=180, p=1., pad_mode='zeros')],
    zoom=lambda: [Zoom(.8, 1.3, p=1., pad_mode='zeros')],
    size=lambda: aug_transforms(size=256, max_warp=0, max_rotate=30, max_lighting=0, pad_mode='zeros'),
    aug=lambda: aug_transforms(flip_vert=True, max_rotate=90, max_warp=0, max_lighting=0, p_affine=1., pad_mode='zeros'),
    gpu_crop=lambda: [RandomResizedCropGPU(400, min_scale=.7, ratio=(1,1))],
    rotated=lambda: rotated_aug_transforms(p_affine=1., max_lighting=0),
    rotated_size=lambda: rotated_aug_transforms(size=320, max_lighting=0))

@pytest.mark.parametrize('name', BATCH)
@pytest.mark.parametrize('size', [512,(448,512)])
def test_batch_transforms_move_boxes_with_pixels(name, size):
    torch.manual_seed(2); random.seed(2)
    check(loaders([Resize(size, method='pad', pad_mode='zeros')], BATCH[name]()))

@few
@given(st.floats(-180,180), st.floats(.7,1.4), st.floats(-.3,.3), st.booleans(), st.booleans(), st.floats(-3.1,3.1))
def test_any_affine_map_moves_quads_as_it_moves_pixels(deg, zoom, shift, mirror, ac, theta):
    q = TensorQuad(rbox2qbox(torch.tensor([[[256.,256,220,120,theta]]]))/256-1, img_size=(512,512))
    c,s = math.cos(math.radians(deg))/zoom,math.sin(math.radians(deg))/zoom
    m = torch.tensor([[[-c if mirror else c, s, shift],[-(-s if mirror else s)*1., c, -shift]]])
    x = TensorImage(torch.tensor(image((to_np(q[0,0])+1)*256, 512, 512)).permute(2,0,1)[None].float()/255)
    moved = q.affine_coord(m, align_corners=ac)
    assert overlap(x.affine_coord(m, pad_mode='zeros', align_corners=ac)[0], moved[0,0])>=.98
    e = moved.roll(-1,-2)-moved
    assert ((e*e.roll(-1,-2)).sum(-1).abs()/e.norm(dim=-1).clamp_min(1e-6)**2).max()<1e-3, 'a rectangle stays a rectangle'

@pytest.mark.parametrize('ac', [True,False])
def test_resizing_a_batch_is_exact_to_a_fraction_of_a_pixel(ac):
    "With `align_corners=True` the border of the frame is not at -1: boxes near it would be off by a sixth of a pixel"
    px = rbox2qbox(torch.tensor([[60.,70,80,50,.3]]))
    q = TensorQuad(px[None]/256-1, img_size=(512,512)).affine_coord(sz=288, align_corners=ac)
    x = torch.tensor(image(px[0], 512, 512)[...,0])[None,None].float()
    x = to_np(TensorImage(x.expand(1,3,-1,-1)).affine_coord(sz=288, align_corners=ac, pad_mode='zeros')[0,0])
    yy,xx = np.mgrid[:288,:288]+.5
    centre = np.array([(x*xx).sum(),(x*yy).sum()])/x.sum()
    np.testing.assert_allclose((to_np(q[0,0].mean(0))+1)*144, centre, atol=.03)

@few
@given(st.lists(st.tuples(*[st.floats(-1.5,1.5)]*2, *[st.floats(.02,2)]*2, st.floats(-3,3)), min_size=1, max_size=6))
def test_visible_fraction_is_exact(boxes):
    shapely = pytest.importorskip('shapely')
    q = rbox2qbox(torch.tensor(boxes, dtype=torch.float64))
    frame = shapely.box(-1,-1,1,1)
    want = [(p:=shapely.Polygon(o)).intersection(frame).area/p.area for o in q.numpy()]
    np.testing.assert_allclose(visible_fraction(q).numpy(), want, atol=1e-5)
    c = clip_to_frame(q)                                     # holds the visible part, lies in the box, and is a fixed point
    for o,k,f in zip(q.numpy(), c.numpy(), want):
        if f<1e-6: continue
        p,r = shapely.Polygon(o),shapely.Polygon(k)
        assert r.buffer(1e-6).contains(p.intersection(frame)) and p.buffer(1e-6).contains(r)
    ok = torch.tensor(want)>1e-3
    torch.testing.assert_close(clip_to_frame(c)[ok], c[ok], atol=1e-6, rtol=0)

def test_flags_classes_and_headings_survive():
    "Every box keeps its class, its flag and its heading through all transforms"
    torch.manual_seed(0); random.seed(0)
    rb = np.array([[200,240,80,40,.3],[320,200,60,60,1.],[430,260,90,30,-2.]]); names = ['a',Difficult('b'),Difficult('a')]
    tfms = [DihedralItem(1.),FlipItem(.5),Resize(512, method='pad', pad_mode='zeros')]
    db = DataBlock((ImageBlock, RBoxBlock, RBoxLblBlock), n_inp=1, get_x=lambda o: heads(rb, W, H), get_y=[lambda o: rb, lambda o: names],
                   splitter=IndexSplitter([7]), item_tfms=tfms,
                   batch_tfms=rotated_aug_transforms(max_lighting=0, min_zoom=.8, max_zoom=.9, p_affine=1.))
    x,q,l = db.dataloaders([0]*8, bs=7, num_workers=0, device='cpu').train.one_batch()
    assert (l==torch.tensor([0,-3,-2])).all()
    px = (q.as_subclass(torch.Tensor)+1)/2*511
    for im,quads in zip(x, px):
        for k,o in enumerate(quads):                           # the channel of box k is bright only in its front half
            at = lambda t: im[:, int(t[1]), int(t[0])]
            c = o.mean(0); fwd = (o[1]-o[0])/4
            assert at(c+fwd)[k]>.5>at(c-fwd)[k]

def heads(rboxes, w, h):
    "Channel k holds the front half of box k"
    im = np.zeros((h,w,3), np.uint8)
    for k,(cx,cy,bw,bh,t) in enumerate(rboxes):
        half = [[cx+bw/4*math.cos(t), cy+bw/4*math.sin(t), bw/2, bh, t]]
        im[...,k] = mask(rbox2qbox(np.array(half))[0], w, h, 4)
    return im

# ---- the six faults of fastai 2.8.12 ----

def test_fault1_prediction_batches_hold_only_images():
    dls = loaders([Resize(64, method='squish')])
    assert [o.shape for o in dls.test_dl([Image.new('RGB', (64,48))]*2).one_batch()]==[(2,3,64,64)]

class Dets(Callback):
    "Stands for a detector: replaces the prediction by two detections per image"
    def after_pred(self):
        if not self.yb: self.after_loss()                  # no labels: fastai computes no loss

    def after_loss(self):
        if self.training: return
        d = torch.tensor([[32.,32,20,10,.3,.9,0],[10,10,5,5,0,.1,0]])
        self.learn.pred = TensorDets(d.expand(len(self.x),2,7))

def test_fault1_predict(learn):
    dets = learn.predict(Image.new('RGB', (64,48)))[0]
    assert type(dets)==TensorDets and dets.shape==(2,7)

def loss(p, q, l, reduction='mean'):
    r = p.flatten(1).mean(1)+q.flatten(1).mean(1)
    return r.mean() if reduction=='mean' else r

@pytest.fixture
def learn():
    return Learner(loaders([Resize(64, method='squish')]), nn.Conv2d(3,2,1), loss_func=loss, cbs=Dets())

def test_fault2_show_results_with_tuple_targets(learn):
    learn.show_results(max_n=2)
    axs = plt.gcf().axes
    assert [a.get_title().split('\n')[0] for a in axs[:2]]==['truth','prediction, score >= 0.3']
    assert [t.get_text() for t in axs[0].texts+axs[1].texts]==['box','box 0.90']
    plt.close('all')

def test_fault3_show_dispatches_on_our_pair_only():
    "A foreign tuple target still gets fastai's own function"
    x,ours = TensorImage(torch.zeros(1,3,8,8)),(TensorQuad(torch.zeros(1,0,4,2)),TensorBoxLabel(torch.zeros(1,0).long()))
    foreign = [(torch.zeros(1),torch.zeros(1)), (TensorPoint(torch.zeros(1,2)),TensorBoxLabel(torch.zeros(1,0).long())),
               ours[:1], ours+ours, ()]
    for f,extra in ((show_batch,([],)), (show_results,([],[]))):
        where = lambda y: f._resolve_method_with_cache((x,y,*extra))[0].__module__
        assert where(ours)=='rotnb.data.types'
        for y in foreign: assert where(y).startswith('fastai.'), (f, y)

@pytest.mark.parametrize('tfm', [FlipItem(1.), DihedralItem(1.), CropPad(400)])
def test_fault4_order_zero_item_transforms(tfm):
    random.seed(3)
    check(loaders([tfm, Resize(384, method='squish')]))

def test_fault5_rotation_keeps_area_and_padding_stays_padding():
    q = TensorQuad(rbox2qbox(torch.tensor([[[0,0,1,.2,0.]]])), img_size=(64,64))
    r = q.affine_coord(rotate_mat(torch.zeros(1,1), draw=45., p=1.)[:,:2])
    torch.testing.assert_close(quad_area(r.as_subclass(torch.Tensor)), torch.tensor([[.2]]))
    x,l = TensorImage(torch.zeros(2,3,64,64)),TensorBoxLabel(torch.tensor([[0,PAD],[PAD,PAD]]))
    q = TensorQuad(torch.cat([torch.cat([q,q*0],1),torch.zeros(1,2,4,2)]), img_size=(64,64))
    for t in rotated_aug_transforms(p_affine=1., max_lighting=0)+[BorderRule()]: x,q,l = t((x,q,l), split_idx=0)
    assert (q[l==PAD]==0).all() and (l==torch.tensor([[0,PAD],[PAD,PAD]])).all()

def test_fault5_boxes_pushed_out_of_the_frame_do_not_stay():
    dls = loaders([RandomCrop(150)], rboxes=[[320,240,80,40,.3]]*4)
    random.seed(0)
    counts = []
    for x,q,l in (b for dl in dls for _ in range(4) for b in dl):
        assert (visible_fraction(q)[l!=PAD]>0).all() and (q[l==PAD]==0).all()
        counts.append(int((l!=PAD).sum()))
    assert 0<sum(counts)<4*len(counts), 'some crops hold the box, some do not'

def test_fault6_padded_detections_pass_get_preds_and_interpretation(learn):
    p,t = learn.get_preds(dl=learn.dls.test_dl(learn.dls.valid_ds.items*2, with_labels=True, bs=3))
    assert p.shape==(8,2,7) and type(p)==TensorDets
    assert len(Interpretation.from_learner(learn).losses)==4

def test_labels_of_an_all_empty_batch_are_long():
    db = DataBlock((ImageBlock, RBoxBlock, RBoxLblBlock(['a'])), n_inp=1, get_x=lambda o: np.zeros((16,16,3),np.uint8),
                   get_y=[lambda o: [], lambda o: []], splitter=IndexSplitter([1]), batch_tfms=rotated_aug_transforms())
    dls = db.dataloaders([0,1], bs=1, num_workers=0, device='cpu')
    for x,q,l in (b for dl in dls for b in dl):
        assert (q.shape,l.shape,l.dtype)==((1,0,4,2),(1,0),torch.int64)
        assert len(to_targets(q, l, (16,16))[0]['boxes'])==0

def test_perspective_is_refused():
    with pytest.raises(PerspectiveError, match='max_warp=0'): loaders([Resize(64, method='squish')], aug_transforms())

def test_workers_and_image_size():
    "The image size of quads, which exact affine maps need, survives collation and worker processes"
    dls = loaders([Resize((48,64), method='squish')])
    for n in (0,2):
        for x,q,l in dls.valid.new(num_workers=n): assert tuple(q.img_size)==(64,48), n

def test_fewer_labels_than_boxes_is_named():
    with pytest.raises(BoxCountError): loaders([Resize(64, method='squish')], names=['box','box']).train.one_batch()

def test_cut_rules_at_the_border():
    "keep, clip and drop, by the share that is visible"
    cut = [[0,240,200,80,0.]]*2                             # half of the box is left of the image
    def labels_and_width(**kw):
        db = DataBlock((ImageBlock, RBoxBlock(**kw), RBoxLblBlock(['box'])), n_inp=1, get_x=lambda o: np.zeros((H,W,3),np.uint8),
                       get_y=[lambda o: cut[:1], lambda o: ['box']], splitter=IndexSplitter([1]))
        x,q,l = db.dataloaders([0,1], bs=1, num_workers=0, device='cpu').valid.one_batch()
        t = to_targets(q, l, x.shape[-2:])[0]
        return [(round(float(b[2])),bool(i)) for b,i in zip(t['boxes'],t['ignore'])]
    assert labels_and_width()==[(200,False)]
    assert labels_and_width(cut='clip')==[(100,False)]
    assert labels_and_width(cut='drop')==[]
    assert labels_and_width(min_visible=.6)==[(200,True)]
    assert labels_and_width(min_visible=.6, below='drop')==[]
