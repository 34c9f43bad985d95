"An outline goes where its object goes: through every transform, mix and crop, and boxes fitted to it hold it"
import json, math
import cv2, numpy as np, pytest, torch
from functools import partial
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from fastai.vision.all import PILImage, TensorImage, set_seed, tensor
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.visible import quad_area
from rotnb.geometry.outlines import clip_outline, fit_outlines, joined_rings, mask_rings, mask_rle, outline_mask, rings_of
from rotnb.data.affine import *
from rotnb.data.blocks import OutlineBlock, PadImages, PadQuads, RBoxBlock, RBoxLblBlock
from rotnb.data.border import *
from rotnb.data.formats.coco import read_coco, write_coco
from rotnb.data.formats.table import FORMATS
from rotnb.data.labels.records import Annot
from rotnb.data.labels.tiles import tile_annots
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.mixing import *
from rotnb.data.types import *

few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**31-1)

def blob(rng, at, size, n=9):
    "A star-shaped ring"
    t = np.sort(rng.random(n))*2*np.pi
    r = size*(.35+.65*rng.random(n))
    return np.stack([at[0]+r*np.cos(t),at[1]+r*np.sin(t)], -1)

def scene(seed, side=96):
    "A black image with two bright objects apart from each other: image, quads, codes, outlines; pixels"
    rng = np.random.default_rng(seed)
    rings = [blob(rng, at, 20) for at in ((28,30),(66,64))]
    outlines = [joined_rings([ring]) for ring in rings]
    image = np.zeros((side,side,3), np.uint8)
    for outline,value in zip(outlines, (120,250)): image[outline_mask(outline, (side,side))] = value
    start = rbox2qbox(torch.tensor([[0.,0,2,1,0]]*2)).double()
    quads = fit_outlines(TensorOutline.create(outlines).as_subclass(torch.Tensor).double(), start)
    return PILImage.create(image),TensorQuad(quads.float()),TensorBoxLabel([0,1]),TensorOutline.create(outlines)

def scaled(sample):
    scaler = QuadScaler()
    return tuple(scaler(o) for o in sample)

def pixels(points, x): # in [-1,1] -> pixels of x
    return ((points.as_subclass(torch.Tensor)+1)/2*tensor([x.shape[-1],x.shape[-2]])).double().numpy()

def check_pixels_of(masks, image, values=(120,250)):
    "Inside each mask its object is seen, and nothing bright lies beside all masks; up to a rim of two pixels"
    kernel,image = np.ones((5,5), np.uint8),image.astype(float)
    beside = cv2.dilate(sum(mask.astype(np.uint8) for mask in masks), kernel)==0
    assert (image[beside]>40).sum()<=3                                                # the tip of a spike
    for mask,value in zip(masks, values):
        inside = cv2.erode(mask.astype(np.uint8), kernel, borderValue=0)>0  # the rim of the image is blended with nothing
        assert (np.abs(image[inside]-value)>40).sum()<=3

@given(seeds, st.integers(4, 14), st.integers(4, 14))
@few
def test_a_mask_is_its_outline(seed, h, w):
    mask = np.random.default_rng(seed).random((h,w))<.5
    outline = mask_rings(mask)
    assert (outline_mask(outline, (w,h))==mask).all()
    assert all((ring[0]==ring[-1]).all() and (ring==np.round(ring)).all() for ring in rings_of(outline))

@given(seeds)
@few
def test_a_cut_outline_fills_what_is_left(seed):
    rng = np.random.default_rng(seed)
    outline = joined_rings([blob(rng, (20,20), 25), blob(rng, (30,22), 12)])
    lo,hi = rng.integers(0, 12, 2),rng.integers(20, 40, 2)
    whole,cut = (outline_mask(one, (48,48)) for one in (outline, clip_outline(outline, lo, hi)))
    frame = np.zeros_like(whole); frame[lo[1]:hi[1],lo[0]:hi[0]] = True
    assert (cut==(whole&frame)).all()

@given(seeds)
@few
def test_area_of_a_cut_outline_is_shapelys(seed):
    from shapely.geometry import Polygon, box
    rng = np.random.default_rng(seed)
    ring = blob(rng, (20,20), 25, 7)
    frame = rng.random(2)*15,25+rng.random(2)*15
    (x,y) = clip_outline(joined_rings([ring]), *frame).T
    area = abs((x[:-1]*y[1:]-x[1:]*y[:-1]).sum())/2
    assert np.isfinite(area) and abs(area-Polygon(ring).intersection(box(*frame[0], *frame[1])).area)<1e-6

@given(seeds, st.booleans())
@few
def test_fitted_boxes_hold_their_outlines_and_are_the_least(seed, upright):
    from shapely.geometry import MultiPoint
    rng = np.random.default_rng(seed)
    ring = blob(rng, (50,50), 30)
    quad = rbox2qbox(np.array([[50,50,20,10,rng.uniform(-3, 3)]]))
    new = fit_outlines(joined_rings([ring])[None], quad, upright)[0]
    d = np.roll(new, -1, 0)-new
    side = d[:,None,0]*(ring[None,:,1]-new[:,None,1])-d[:,None,1]*(ring[None,:,0]-new[:,None,0])
    assert (side>-1e-6*np.linalg.norm(d, axis=1)[:,None]).all()                       # clockwise, and nothing is outside
    hull = MultiPoint(ring)
    least = hull.envelope.area if upright else hull.minimum_rotated_rectangle.area
    assert abs(np.linalg.norm(d[0])*np.linalg.norm(d[1])-least)<1e-6*least
    old = quad[0,1]-quad[0,0]
    turn = np.abs(np.angle(np.exp(1j*(np.arctan2(d[0,1], d[0,0])-np.arctan2(old[1], old[0])))))
    assert turn<=np.pi/4+1e-6

TFMS = dict(
    flip=lambda: RandomFlip(.4, .3, .3), rotate=lambda: RandomRotate(180., p=1.), expand=lambda: RandomRotate(180., p=1., expand=True),
    resize=lambda: RandomResize(150, (.6,1.6)), letterbox=lambda: Letterbox((130,110)), crop=lambda: RandomBoxCrop(60),
    warp=lambda: RandomWarp(90, (.7,1.4), 20, .2, .1),
    chain=lambda: AffineChain(RandomRotate(180., p=1.), RandomFlip(.5, .25, .25), RandomResize(128, (.7,1.3))))

@pytest.mark.parametrize('name', TFMS)
@given(seeds)
@few
def test_outlines_move_with_the_pixels(name, seed):
    set_seed(seed)
    sample = scaled(scene(seed))
    tfm = TFMS[name]()
    x,quads,codes,outlines = tfm(sample, split_idx=0)
    image = np.asarray(x)[...,0]
    size_wh = image.shape[::-1]
    assert isinstance(outlines, TensorOutline) and len(outlines)==len(quads)==len(codes)
    check_pixels_of([outline_mask(pixels(one, torch.zeros(1,*image.shape)), size_wh) for one in outlines], image)

@given(seeds)
@few
def test_outlines_move_with_the_pixels_of_a_batch(seed):
    set_seed(seed)
    samples = [scaled(scene(seed+i)) for i in range(3)]
    x = TensorImage(torch.stack([tensor(np.array(s[0])).permute(2,0,1) for s in samples]).float()/255)
    batch = (x, *(type(samples[0][i])(torch.stack([s[i].as_subclass(torch.Tensor) for s in samples])) for i in (1,2,3)))
    for o in batch[1::2]: o.img_size = (96,96)
    for tfm in rotated_aug_transforms(max_lighting=0., p_affine=1.): batch = tfm(batch, split_idx=0)
    x,quads,codes,outlines = batch
    for i in range(3):
        image = (x[i,0]*255).numpy()
        check_pixels_of([outline_mask(pixels(one, x), (96,96)) for one in outlines[i]], np.asarray(image))
    fitted = FitBoxes()(batch)
    assert len(fitted)==3 and fitted[1].shape==quads.shape
    areas = [quad_area(torch.from_numpy(pixels(o, x))) for o in (fitted[1],quads)]
    torch.testing.assert_close(*areas, rtol=1e-3, atol=0)     # similarities keep least boxes least; of a triangle there are three

def mixing(mix, samples, seed):
    set_seed(seed)
    mix.dataset = samples
    return mix(samples[0], split_idx=0)

MIXES = dict(mosaic=lambda: Mosaic(160, (.7,1.3)), nine=lambda: Mosaic(160, (.7,1.3), nine=1.),
             warped=lambda: Mosaic(160, (.7,1.3), warp=dict(rotate=90, zoom=(.6,1.2))),
             mixup=lambda: MixUpBoxes(1., zoom=(.8,1.2)), paste=lambda: CopyPaste(1.), cutout=lambda: CutOut(1., most=2))

@pytest.mark.parametrize('name', MIXES)
@given(seeds)
@few
def test_mixing_keeps_an_outline_for_each_box(name, seed):
    samples = [scene(seed+i) for i in range(4)]
    x,quads,codes,outlines = mixing(MIXES[name](), samples, seed)
    assert isinstance(outlines, TensorOutline) and len(outlines)==len(quads)==len(codes)
    if name!='paste':                                         # which tries spots until an outline, not a box, covers little
        plain = mixing(MIXES[name](), [s[:3] for s in samples], seed)
        torch.testing.assert_close(plain[1].as_subclass(torch.Tensor), quads.as_subclass(torch.Tensor))
    if name in ('mixup','cutout') or not len(quads): return
    image,size_wh = np.asarray(x)[...,0],x.size
    masks = [outline_mask(one.double().numpy(), size_wh) for one in outlines.as_subclass(torch.Tensor)]
    for box,mask in zip(quads, masks):
        if mask.sum()<60: continue
        covered = np.any([m for m in masks if m is not mask]+[mask&False], axis=0)
        assert (image[mask&~covered]>30).mean()>.8 or (mask&~covered).sum()<60
    if name!='paste': assert ((image>100)&~np.any([*masks, image<0], axis=0)).mean()<.02 # none lies beside all outlines

def test_a_paste_takes_the_object_alone():
    "The image that is pasted from is grey around its object: nothing of that comes along"
    im,quads,codes,outlines = scene(3)
    grey = np.asarray(im).copy(); grey[grey==0] = 60
    sample = PILImage.create(grey),quads,codes,outlines
    def pasted(samples):
        paste = CopyPaste(1., most=1, classes=[0], zoom=(1,1))
        paste.vocab = ['a','b']
        blank = PILImage.create(np.zeros((200,200,3), np.uint8)),*(type(o)(o.as_subclass(torch.Tensor)[:0]) for o in samples[0][1:])
        set_seed(1)
        paste.dataset = samples
        return np.asarray(paste(blank, split_idx=0)[0])[...,0]
    by_box,by_outline = pasted([sample[:3]]),pasted([sample])
    grey_of = lambda image: ((image>40)&(image<80)).sum()
    assert grey_of(by_box)>100 and grey_of(by_outline)<.2*grey_of(by_box)
    assert (by_outline>100).sum()>100

def annots_with_outlines(root, n=6):
    res = []
    for i in range(n):
        im,quads,_,outlines = scene(i)
        Image.fromarray(np.asarray(im)).save(root/f'{i}.png')
        rings = [one[np.isfinite(one).all(1)] for one in outlines.as_subclass(torch.Tensor).double().numpy()]
        res.append(Annot(root/f'{i}.png', quads.as_subclass(torch.Tensor).double().numpy(), ['a','b'], np.zeros(2, int), (96,96),
                         outlines=[rings[0],None] if i==1 else rings))
    return res

@pytest.mark.parametrize('refit', ['oriented','upright'])
def test_loaders_fit_boxes_to_outlines(tmp_path, refit):
    annots = annots_with_outlines(tmp_path)
    set_seed(0)
    load = partial(RotatedDataLoaders.from_annots, annots, annots[:2], bs=3, device='cpu', size=128)
    dls = load(refit=refit, item_tfms=[Letterbox(128), RandomRotate(180., p=1.)])
    for split in (dls.train, dls.valid):
        for x,quads,codes in split:
            for image,boxes,labels in zip(x[:,0]*255, pixels(quads, x), codes):
                for box,code in zip(boxes, labels):
                    if code<0: continue
                    rows,cols = np.nonzero(np.abs(np.asarray(image)-(120,250)[int(class_index(code))])<40)
                    if not len(rows): continue
                    low,high = np.array([cols.min(),rows.min()]),np.array([cols.max(),rows.max()])
                    if code==1: assert (box.min(0)<low+3).all() and (box.max(0)>high-3).all() # the dim one is also a rim of the bright
    dls.show_batch()
    assert len(dls.one_batch())==3

def test_upright_boxes_do_not_grow_with_a_turn(tmp_path):
    annots = annots_with_outlines(tmp_path)[2:]
    area = {}
    for refit in (None,'upright'):
        set_seed(0)
        dls = RotatedDataLoaders.from_annots(annots, annots[:2], bs=4, device='cpu', batch_tfms=[], refit=refit, num_workers=0,
                                             item_tfms=[RandomRotate([45], p=1., expand=True)], shuffle=False)
        x,quads,_ = dls.train.one_batch()
        boxes = pixels(quads, x)
        area[refit] = np.prod(np.ptp(boxes, axis=2), axis=-1).sum()
    assert area['upright']<.95*area[None]

def test_windows_take_their_part_of_an_outline(tmp_path):
    annot = annots_with_outlines(tmp_path, 1)[0]
    for tile in tile_annots([annot], size=64, overlap=16, empty='keep'):
        for quad,outline in zip(tile.quads, tile.outlines):
            again = fit_outlines(outline[None], quad[None])[0]
            assert np.abs(again-quad).max()<1e-3

def test_wrong_refit_is_named(tmp_path):
    annots = annots_with_outlines(tmp_path, 2)
    with pytest.raises(ValueError, match="refit is 'both', expected 'oriented' or 'upright'"):
        RotatedDataLoaders.from_annots(annots, annots, refit='both', device='cpu')

# ---- files

def written(root, name):
    "A folder with one image whose labels have an outline, one with two rings, and a plain box; and what comes back of it"
    Image.new('RGB', (96,96)).save(root/'a.png')
    _,quads,_,outlines = scene(2)
    rings = [one[np.isfinite(one).all(1)] for one in outlines.as_subclass(torch.Tensor).double().numpy()]
    holed = joined_rings([rings[1], rings[1][:-1].mean(0)+.2*(rings[1]-rings[1][:-1].mean(0))])
    box = rbox2qbox(np.array([[70,20,20,10,.3]]))
    quads = np.concatenate([quads.as_subclass(torch.Tensor).double().numpy(), box])
    annot = Annot(root/'a.png', quads, ['a','b','a'], np.zeros(3, int), (96,96), outlines=[rings[0],holed,None])
    fmt = FORMATS[name]
    out = root/'out'; (out/'images').mkdir(parents=True); Image.new('RGB', (96,96)).save(out/'images/a.png')
    fmt.write([annot], out, '', ['a','b'])
    return annot,fmt.read(out)[0]

@pytest.mark.parametrize('name', ['coco','yolo_seg'])
def test_outlines_survive_writing(tmp_path, name):
    annot,back = written(tmp_path, name)
    assert back.outlines[2] is None and back.names==annot.names
    for one,other in zip(annot.outlines[:2], back.outlines): assert (outline_mask(one, (96,96))!=outline_mask(other, (96,96))).sum()<=2
    assert np.abs(back.quads[2]-annot.quads[2]).max()<1e-3

def test_run_lengths_and_polygons_of_coco_are_the_same_masks(tmp_path):
    "On the whole pixels of a painted mask, with and without a hole"
    Image.new('RGB', (40,30)).save(tmp_path/'1.png')
    mask = outline_mask(joined_rings([[[3.2,4],[35,6],[30,27],[8,22]]]), (40,30))
    holed = mask & ~outline_mask(joined_rings([[[14,10],[24,10],[24,17],[14,17]]]), (40,30))
    outlines = [mask_rings(mask),mask_rings(holed)]
    quads = np.stack([fit_outlines(one[None], np.zeros((1,4,2)))[0] for one in outlines])
    annot = Annot(tmp_path/'1.png', quads, ['a','a'], np.zeros(2, int), outlines=outlines)
    for rle in (False,True):
        file = write_coco([annot], tmp_path/f'{rle}.json', ['a'], rle=rle)
        kinds = [type(entry['segmentation']) for entry in json.loads(file.read_text())['annotations']]
        assert kinds==([dict,dict] if rle else [list,dict])
        back, = read_coco(file, images=tmp_path)
        for outline,want in zip(back.outlines, (mask,holed)): assert (outline_mask(outline, (40,30))==want).all()

def test_readers_keep_polygons_and_masks(tmp_path):
    import base64, io
    mask = np.zeros((12,16), bool); mask[2:9,3:12] = True; mask[4:6,5:7] = False; mask[2:4,3:6] = False
    png = io.BytesIO(); Image.fromarray(mask).save(png, 'png')
    bent = [[10,10],[40,12],[42,30],[25,20],[12,30]]
    for name in ('labelme','cvat','coco'):
        (tmp_path/name/'images').mkdir(parents=True)
        Image.new('RGB', (96,96)).save(tmp_path/name/'images/a.png')
    shapes = [dict(label='a', points=bent, shape_type='polygon'),
              dict(label='b', points=[[50,40],[66,52]], shape_type='mask', mask=base64.b64encode(png.getvalue()).decode())]
    (tmp_path/'labelme/a.json').write_text(json.dumps(dict(shapes=shapes, imagePath='images/a.png', imageWidth=96, imageHeight=96)))
    runs = mask_rle(mask.T, compressed=False)['counts']                               # CVAT's go row by row
    points = ';'.join(f'{x},{y}' for x,y in bent)
    (tmp_path/'cvat/annotations.xml').write_text(f"""<annotations><image id="0" name="a.png" width="96" height="96">
<polygon label="a" points="{points}"/><mask label="b" rle="{','.join(map(str, runs))}" left="50" top="40" width="16" height="12"/>
</image></annotations>""")
    whole = np.zeros((96,96), bool); whole[40:52,50:66] = mask
    doc = dict(images=[dict(id=1, file_name='a.png', width=96, height=96)], categories=[dict(id=1, name='a'),dict(id=2, name='b')],
               annotations=[dict(id=1, image_id=1, category_id=1, segmentation=[np.ravel(bent).tolist()]),
                            dict(id=2, image_id=1, category_id=2, segmentation=mask_rle(whole))])
    (tmp_path/'coco/a.json').write_text(json.dumps(doc))
    for name in ('labelme','cvat','coco'):
        annot, = FORMATS[name].read(tmp_path/name)
        assert annot.names==['a','b'], name
        assert annot.outlines[0][:-1].tolist()==bent and (outline_mask(annot.outlines[1], (96,96))==whole).all(), name
        again = fit_outlines(TensorOutline.create(annot.outlines).double().numpy(), annot.quads)
        assert np.abs(again-annot.quads).max()<1e-3, name

def test_a_changed_box_is_written_in_place_of_its_outline(tmp_path):
    from dataclasses import replace
    annot = annots_with_outlines(tmp_path, 1)[0]
    out = tmp_path/'out'; (out/'images').mkdir(parents=True); Image.new('RGB', (96,96)).save(out/'images/0.png')
    moved = replace(annot, quads=annot.quads+5)
    FORMATS['coco'].write([moved], out, '', ['a','b'])
    assert np.abs(FORMATS['coco'].read(out)[0].quads-moved.quads).max()<1e-3

def test_what_is_drawn_of_outlines_and_masks_leaves_the_view_to_the_image():
    import matplotlib.pyplot as plt
    from rotnb.data.types import TensorDets, TensorQuad
    far = torch.tensor([[[-20.,-20],[30,-20],[30,20],[-20,20]]])
    dets = torch.cat([tensor([[5.,5,50,40,.3,.9,0]]), torch.ones(1, 784)], 1)
    _,ax = plt.subplots()
    ax.imshow(np.zeros((40,60,3), np.uint8)); view = ax.axis()
    TensorQuad.create(far).show(ctx=ax); TensorOutline(far).show(ctx=ax); TensorDets(dets).show(ctx=ax, vocab=['a'])
    ax.figure.canvas.draw()
    assert ax.axis()==view and len(ax.patches)>1
    plt.close(ax.figure)
