"Masks: what is learnt in the frame of a box, and the way back into the image, through all that users ask of detections"
import json, math
from functools import partial
import numpy as np, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from rotnb.data.formats.coco import read_coco, write_coco
from rotnb.data.labels.records import Annot
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.geometry.boxes import canonicalize, from_frame, rbox2qbox
from rotnb.geometry.fit import from_masks
from rotnb.geometry.outlines import mask_rings, moved_masks, outline_mask, paste_mask, rle_mask, whole_masks
from rotnb.learn.learner import rotated_learner
from rotnb.models import create_detector
from rotnb.models.dynamic_masks import DynamicMasks
from rotnb.models.masks import RoIMasks, framed_masks, outlines_of
from rotnb.plot.draw import draw
from rotnb.predict.detections import Detections
from rotnb.predict.rows import map_boxes
from rotnb.targets.priors import AnchorPriors
from rotnb.targets.objects import TargetError

few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, fc_channels=32, strides=(8,16),
            rpn_kw=dict(priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None, max_per_img=60))
SIZE = 160,140 # (width, height) of images

def blob(seed): # a star-shaped outline in a box of its own
    rng = np.random.default_rng(seed)
    box = np.array([rng.uniform(60, 100), rng.uniform(55, 85), rng.uniform(40, 80), rng.uniform(24, 60), rng.uniform(-1.5, 1.5)])
    t = np.linspace(0, 2*np.pi, 33)
    r = 1-.3*np.sin(rng.integers(2, 6)*t+rng.random()*6)**2
    return box,from_frame(np.stack([r*np.cos(t), r*np.sin(t)], -1)*box[2:4]/2, box)

def iou(a, b): return (a&b).sum()/max((a|b).sum(), 1)

@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(.9, 1.4))
@few
def test_from_outline_to_frame_and_back(seed, turn, wider):
    "Whatever the frame, if it holds the object"
    box,outline = blob(seed)
    frame = box*[1,1,wider,wider,1]+[0,0,0,0,turn*(box[2]==box[3])]
    share = framed_masks(torch.from_numpy(outline)[None], torch.from_numpy(frame)[None].float(), 28)
    assert share.shape==(1,28,28) and 0<=share.min() and share.max()<=1
    inside = outline_mask(outline, SIZE)
    assert abs(float(share.mean()*frame[2]*frame[3])/inside.sum()-1)<.05
    assert iou(paste_mask(frame, share[0], SIZE)>=.5, inside)>.93

@given(st.integers(0, 10**6), st.sampled_from(['le90','le135','oc']), st.integers(0, 3), st.booleans(), st.floats(.5, 2))
@few
def test_masks_go_with_their_boxes(seed, angle, turns, mirror, scale):
    "A quarter turn, a mirror, a zoom: pasted before and moved, and moved and pasted, are the same"
    box,outline = blob(seed)
    box = canonicalize(box[None], angle)
    mask = framed_masks(torch.from_numpy(outline)[None], torch.from_numpy(box).float(), 28).numpy()
    c,s = [(1,0),(0,1),(-1,0),(0,-1)][turns]
    turn = scale*np.array([[c,-s],[s,c]])@np.diag([1.-2*mirror,1])
    mat = np.concatenate([turn, (np.array([200,200])-turn@[80,70])[:,None]], 1)
    new = map_boxes(box, mat, angle)
    again = moved_masks(mask, box, new, mat)
    assert abs(again.sum()-mask.sum())<1e-3*mask.sum() and np.abs(np.sort(again.ravel())-np.sort(mask.ravel())).max()<1e-4 # on cells
    assert iou(paste_mask(new[0], again[0], (400,400))>=.5, outline_mask(outline@turn.T+mat[:,2], (400,400)))>.9

def test_an_object_without_an_outline_has_its_box():
    box = torch.tensor([[40.,30.,20.,10.,.4],[40.,30.,20.,10.,.4]])
    ring = torch.full((2,9,2), torch.nan); ring[1,:4] = torch.tensor([[0.,0],[4,0],[4,4],[0,0]])
    own = outlines_of(dict(boxes=box, outlines=ring))
    assert torch.allclose(own[0,:4], torch.as_tensor(rbox2qbox(box[0])), atol=1e-4) and torch.equal(own[1,:4], ring[1,:4])
    assert outlines_of(dict(boxes=box[:0])).shape==(0,5,2) and outlines_of(dict(boxes=box, outlines=ring[:,:0])).shape==(2,5,2)
    model = create_detector('mask_rcnn', 2, **TINY)
    with pytest.raises(TargetError, match=r'outlines are \(9, 2\)'):
        model(torch.zeros(1,3,64,64), [dict(boxes=box, labels=torch.zeros(2).long(), outlines=ring[0])])

@pytest.mark.parametrize('weights', [None,(1.,.5)])
def test_an_object_without_an_outline_beside_others_teaches_no_mask(weights):
    "Its box would be a wrong mask; and an object counts as its weight says"
    model = create_detector('mask_rcnn', 2, **TINY)
    box = torch.tensor([[20.,20.,24.,20.,0.],[44.,44.,20.,24.,0.]])
    ring = torch.full((2,4,2), torch.nan); ring[0] = torch.tensor([[10.,12.],[30.,12.],[20.,28.],[10.,12.]])
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    def loss(ring, **kw):
        torch.manual_seed(1)
        return model(x, [dict(boxes=box, labels=torch.tensor([0,1]), outlines=ring, **kw)])['s1_loss_mask'].item()
    far = torch.where(torch.tensor([True,False])[:,None,None], ring, torch.full((2,4,2), 500.))
    ours,boxes = loss(ring),loss(torch.cat([ring[:1], box[1:,None,:2]+torch.tensor([[-10.,-12],[10,-12],[10,12],[-10,12]])]))
    assert math.isfinite(ours) and ours!=boxes and ours!=loss(far)
    if weights:
        own = torch.tensor([weights,(1.,0.)])
        assert loss(ring, weights=own)==pytest.approx(.5*ours, rel=1e-5) and loss(ring*torch.nan)==0

def test_masks_of_few_cells_are_refused():
    "As rows of numbers they could not be told from corners and deviations: `row_parts`"
    with pytest.raises(ValueError, match='roi_size is 3'): RoIMasks(2, 8, roi_size=3)
    with pytest.raises(ValueError, match='side is 7'): DynamicMasks(1, 8, (8,16), side=7)

def test_the_part_learns_what_it_sees():
    "Features that show the object: after a few steps masks are its outline, of its own class"
    torch.manual_seed(0)
    scenes = [blob(seed) for seed in range(8)]
    boxes = torch.tensor(np.stack([box for box,_ in scenes])).float()
    rings = torch.tensor(np.stack([ring for _,ring in scenes])).float()
    maps = torch.stack([torch.from_numpy(outline_mask(ring.double().numpy()/2, (SIZE[0]//2,SIZE[1]//2))) for ring in rings]).float()
    from rotnb.ops.roi_align import roi_align_rotated
    part = RoIMasks(2, 1, strides=(2,), channels=8, n_convs=1, pool=partial(roi_align_rotated, sampling_ratio=2))
    feats,img,labels = [maps[:,None]-.5],torch.arange(8),torch.arange(8)%2
    want,opt = framed_masks(rings, boxes, 28),torch.optim.Adam(part.parameters(), .02)
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(part(feats, img, boxes, labels), want)
        opt.zero_grad(); loss.backward(); opt.step()
    found = part.eval().of(feats, [dict(boxes=box[None], labels=label[None], scores=torch.ones(1)) for box,label in zip(boxes, labels)])
    for one,box,ring in zip(found, boxes, rings):
        assert iou(paste_mask(box, one['masks'][0], SIZE)>=.5, outline_mask(ring.double().numpy(), SIZE))>.8

@pytest.mark.parametrize('name', ['mask_rcnn','oriented_mask_rcnn'])
def test_each_box_has_the_mask_of_its_own(name):
    "However many images and boxes are asked at once, and in training's way too"
    torch.manual_seed(0)
    model,x = create_detector(name, 3, score_thr=0., max_per_img=12, **TINY).eval(),torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        found,out = model(x),model.run_stages(x)[1]
        part = model.stages[-1].masks
        for i,one in enumerate(found):
            assert len(one['masks'])==len(one['boxes'])==12
            alone = part([feat[i:i+1] for feat in out.feats], torch.zeros(1).long(), one['boxes'][5:6], one['labels'][5:6]).sigmoid()
            assert torch.allclose(alone[0], one['masks'][5], atol=1e-5)

# --- what users do with them

def found_with_masks(image=None):
    scenes = [blob(seed) for seed in (1,2)]
    boxes = torch.tensor(np.stack([box for box,_ in scenes])).float()
    masks = framed_masks(torch.tensor(np.stack([ring for _,ring in scenes])), boxes, 28)
    found = Detections(boxes, torch.tensor([.9,.8]), torch.tensor([0,1]), ['a','b'], image, masks=masks)
    return found,[outline_mask(ring, SIZE) for _,ring in scenes]

def test_masks_become_labels(tmp_path):
    "What a detector said of masks: outlines, and the least boxes around them, whatever box it said"
    Image.new('RGB', SIZE).save(tmp_path/'a.png')
    found,inside = found_with_masks(tmp_path/'a.png')
    annot = found.to_annot()
    for outline,quad,mask in zip(annot.outlines, annot.quads, found.whole_masks()):
        assert (outline_mask(outline, SIZE)==mask).all() and iou(mask, inside[0])+iou(mask, inside[1])>.93
        want = rbox2qbox(from_masks([mask])[0])[0]
        assert np.abs(np.sort(quad, 0)-np.sort(want, 0)).max()<.01
    assert len(found.to_annot(.85))==1 and found.to_annot(.95).outlines is None and len(found.to_annot(.95))==0
    empty = Detections(found.boxes, found.scores, found.labels, found.vocab, found.image, masks=found.masks*0)
    assert empty.to_annot().outlines is None and np.allclose(empty.to_annot().quads, rbox2qbox(found.boxes), atol=1e-3)
    coco, = read_coco(write_coco([annot], tmp_path/'a.json', ['a','b']), images=tmp_path)
    assert np.abs(np.sort(coco.quads, 1)-np.sort(annot.quads, 1)).max()<.01                  # COCO knows no first corner

def test_detections_have_masks_and_draw_them():
    found,inside = found_with_masks(np.full((*SIZE[::-1],3), 90, np.uint8))
    assert all(iou(own, other)>.93 for own,other in zip(found.whole_masks(), inside))
    assert found[1:].masks.shape==(1,28,28) and torch.equal(found.filter(.85).masks, found.masks[:1]) and 'masks' in found.keys()
    plain = Detections(found.boxes, found.scores, found.labels, found.vocab, found.image)
    tinted = (found.plot(text=False)!=plain.plot(text=False)).any(-1)
    assert tinted[inside[0]&~inside[1]].mean()>.75 and (tinted&~inside[0]&~inside[1]).sum()<.15*inside[0].sum()
    drawn = [draw(found.image, o, text=False) for o in (found, plain)]
    assert ((drawn[0]!=drawn[1]).any(-1)==tinted).mean()>.97
    with pytest.raises(ValueError, match='have boxes and no masks'): plain.whole_masks()
    with pytest.raises(ValueError, match=r'masks \(1, 28, 28\) for 2 boxes'):
        Detections(found.boxes, found.scores, found.labels, masks=found.masks[:1])

def test_written_as_run_lengths_or_as_polygons(tmp_path):
    found,inside = found_with_masks(np.full((*SIZE[::-1],3), 90, np.uint8))
    rows = json.loads(found.save(tmp_path/'a.json').read_text())
    for row,own in zip(rows, inside): assert iou(rle_mask(row['segmentation']), own)>.93
    bare,_ = found_with_masks()
    for row,own in zip(bare.to_coco(), inside):
        ring = np.reshape(row['segmentation'][0], (-1,2))
        assert iou(outline_mask(np.concatenate([ring, ring[:1]]), SIZE), own)>.93

def labelled(root, n=6):
    annots = []
    for i in range(n):
        box,ring = blob(i)
        image = np.full((*SIZE[::-1],3), 40, np.uint8); image[outline_mask(ring, SIZE)] = 200
        Image.fromarray(image).save(root/f'{i}.png')
        annots.append(Annot(root/f'{i}.png', rbox2qbox(box[None]), ['a'], np.zeros(1, int), SIZE, outlines=[ring]))
    return annots

def test_from_labels_to_mask_ap(tmp_path):
    annots = labelled(tmp_path)
    load = partial(RotatedDataLoaders.from_annots, annots, annots[:2], bs=2, device='cpu', size=96, num_workers=0, path=tmp_path)
    dls = load(masks=True)
    assert len(dls.one_batch())==4
    dls.show_batch(); dls.valid.show_batch()
    learn = rotated_learner(dls, 'oriented_mask_rcnn', pretrained=False, score_thr=.01, max_per_img=20, run=False, **TINY)
    learn.fit(1, 1e-3)
    assert learn.evaluate(masks=True, show=False).df is not None
    learn.show_results()
    found = learn.predict_image(annots[0].image, 0.)
    assert len(found) and found.masks.shape[1:]==(28,28) and found.whole_masks()[0].shape==SIZE[::-1]
    perfect = RotatedDataLoaders.from_annots(annots, annots[:2], bs=2, device='cpu', size=96, num_workers=0)
    with pytest.warns(UserWarning, match='each box counts as one'): bare = rotated_learner(perfect, learn.model, run=False)
    with pytest.raises(ValueError, match='keeps no outlines'): bare.evaluate(masks=True)
    plain = rotated_learner(dls, 'rotated_fcos', pretrained=False, backbone='test_resnet', fpn_channels=16, feat_channels=16, run=False)
    with pytest.raises(ValueError, match='boxes alone'): plain.evaluate(masks=True)

def test_loaders_without_any_outline_are_named(tmp_path):
    from dataclasses import replace
    annots = [replace(annot, outlines=None) for annot in labelled(tmp_path, 2)]
    with pytest.raises(ValueError, match='no object of the training set has an outline'):
        RotatedDataLoaders.from_annots(annots, annots, masks=True, device='cpu')

def exportable():
    from rotnb.interop.proof import file_predictor
    from rotnb.predict.predictor import Predictor
    torch.manual_seed(0)
    model = create_detector('oriented_mask_rcnn', 2, score_thr=.3, max_per_img=8, **TINY)
    model.vocab = ['a','b']
    return file_predictor(Predictor(model, ['a','b'], size=(96,64), score_thr=.3))

def same_masks(own, found):
    assert len(found['scores'])==len(own['scores'])>0
    at = torch.cdist(found['boxes'].double(), own['boxes'].double()).argmin(1)
    assert torch.allclose(found['boxes'], own['boxes'][at], atol=1e-2) and torch.allclose(found['masks'], own['masks'][at], atol=1e-3)

def test_rows_of_an_export_have_the_same_masks():
    from rotnb.interop.export_module import ExportModule
    module,x = ExportModule(exportable()),torch.randint(0, 256, (1,3,64,96), dtype=torch.uint8)
    assert module.outputs[-1]=='masks'
    with torch.no_grad(): rows = dict(zip(module.outputs, module(x)))
    n = int(rows.pop('count')[0])
    assert rows['masks'].shape==(1,8,28,28) and not rows['masks'][0,n:].any()
    same_masks(module.eager(x)[0], {key:part[0,:n] for key,part in rows.items()})

@pytest.mark.slow
def test_a_file_has_the_same_masks(tmp_path):
    pytest.importorskip('onnx'); pytest.importorskip('onnxruntime')
    from rotnb.interop.export import export_onnx
    from rotnb.interop.export_module import ExportModule
    from rotnb.interop.runtime import ExportedDetector
    from rotnb.predict.predictor import Predictor
    predictor = exportable()
    file = export_onnx(predictor, tmp_path/'m.onnx', check=False)
    x = torch.randint(0, 256, (1,3,64,96), dtype=torch.uint8)
    (own,),(found,) = ExportModule(predictor).eager(x),ExportedDetector(file)(x)
    same_masks(own, found)
    assert Predictor(file)(x[0].permute(1,2,0).numpy()).masks.shape[1:]==(28,28)            # which asks for no more than it has
