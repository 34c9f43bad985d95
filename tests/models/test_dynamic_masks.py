"Networks that priors write: what they compute, learn and answer, on any dense stage, and in a file"
from functools import cache, partial
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from torch import nn, tensor
from rotnb.data.labels.records import Annot
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.geometry.boxes import hbox2rbox, qbox2rbox, rbox2qbox
from rotnb.geometry.outlines import fit_outlines, outline_mask, paste_mask
from rotnb.learn.learner import rotated_learner
from rotnb.targets.objects import with_weights
from rotnb.models import create_detector
from rotnb.models.contract import StageOut
from rotnb.models.dynamic_masks import DynamicMasks, dice_loss, grid_masks
from rotnb.models.fast import fast_twin

few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))

def star(x, y, r, k, start=0., wide=1.): # an outline, px
    t = np.linspace(0, 2*np.pi, 49)
    r = r*(1-.3*np.sin(k*t/2+start)**2)
    return np.stack([x+wide*r*np.cos(t), y+r*np.sin(t)], -1)

def iou(a, b): return (a&b).sum()/max((a|b).sum(), 1)

def scenes(angle='le90'):
    "Two pictures of 64 px with three objects, and their targets: oriented boxes, or with 'hbb' upright ones"
    images,targets = [],[]
    for rings in ([star(20, 22, 14, 6, .3), star(46, 42, 15, 4, 1.)], [star(30, 34, 20, 6, .8, 1.3)]):
        image = torch.full((3,64,64), -1.)
        for ring,colour in zip(rings, ([1.,.3,-.2],[.2,1.,.5])):
            image[:,torch.from_numpy(outline_mask(ring, (64,64)))] = tensor(colour)[:,None]
        rings = torch.from_numpy(np.stack(rings))
        quads = fit_outlines(rings, torch.as_tensor(rbox2qbox(tensor([[1.,1,1,1,0]]*len(rings)))).double().view(-1,4,2))
        boxes = qbox2rbox(quads) if angle!='hbb' else hbox2rbox(torch.cat([rings.amin(1), rings.amax(1)], 1), 'hbb')
        images.append(image)
        targets.append(dict(boxes=boxes.float(), labels=torch.arange(len(rings)), outlines=rings.float()))
    return torch.stack(images),targets

@cache
def trained(name='rotated_condinst', steps=50, strides=(4,8), **kw): # a detector that has learnt them, and its mask losses on the way
    torch.manual_seed(0)
    model,losses = create_detector(name, 2, **{**TINY, 'strides':strides, **kw}),[]
    images,targets = scenes(model.angle)
    opt = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-2, total_steps=steps)
    for _ in range(steps):
        terms = model(images, targets)
        sum(terms.values()).backward(); opt.step(); opt.zero_grad(); schedule.step()
        losses.append(terms['loss_mask'].item())
    return model.eval().requires_grad_(False),losses

# --- what is computed

@given(st.floats(-20, 80), st.floats(-20, 80), st.floats(3, 40), st.integers(2, 7), st.sampled_from([1.,2.,4.]))
@few
def test_outlines_on_a_grid(x, y, r, k, stride):
    ring = torch.from_numpy(star(x, y, r, k))
    size,fine = int(64/stride),int(4/stride)
    shares, = grid_masks(ring[None], (size,size), stride, fine)
    truth = outline_mask(ring.numpy()/stride*fine, (size*fine,size*fine)).reshape(size, fine, size, fine).mean((1,3))
    assert np.abs(shares.numpy()-truth).max()<1e-6

def plain_stage(seed=0, **kw): # a part, and what a stage of two levels of 12 x 8 and 6 x 4 cells would say
    torch.manual_seed(seed)
    part = DynamicMasks(1, 6, (8,16), **kw).eval()
    levels = [torch.randn(2, 6, 8, 12), torch.randn(2, 6, 4, 6)]
    with torch.no_grad(): kernels,feats = part(levels)
    lvls = tensor([0]*96+[1]*24)
    priors = torch.cat([torch.rand(2, 120, 2)*64, torch.full((2,120,3), 8.)], -1)
    return part,StageOut(torch.zeros(2,120,1), torch.zeros(2,120,5), priors, lvls, feats=feats, kernels=kernels)

@pytest.mark.parametrize('kw', [{}, dict(width=4, depth=2, offset=0.)])
def test_each_prior_has_a_network_of_its_own(kw):
    "Written out as layers of convolutions they say the same"
    part,out = plain_stage(**kw)
    width,depth = part.width,part.depth
    assert out.kernels.shape[2]==(169 if not kw else (4+2)*4+4+4*1+1)
    for img,pri in ((0,3),(1,119)):
        numbers,at,ends = out.kernels[img,pri],0,[width+2]+[width]*(depth-1)+[1]
        layers = [nn.Conv2d(i, o, 1) for i,o in zip(ends, ends[1:])]
        for name in ('weight','bias'):
            for layer in layers:
                own = getattr(layer, name)
                own.data = numbers[at:at+own.numel()].view(own.shape)
                at += own.numel()
        assert at==len(numbers)
        y,x = torch.meshgrid((torch.arange(8)+part.offset)*8, (torch.arange(12)+part.offset)*8, indexing='ij')
        away = (out.priors[img,pri,:2,None,None]-torch.stack([x, y]))/(8*(8 if pri<96 else 16))
        seen = torch.cat([away, out.feats[0][img]])[None]
        for i,layer in enumerate(layers): seen = layer(seen.relu() if i else seen)
        assert torch.allclose(part.logits(out, tensor([img]), tensor([pri]))[0], seen[0,0], atol=1e-4)

@given(st.integers(0, 100), st.floats(-1.5, 1.5), st.floats(10, 90), st.floats(10, 60))
@few
def test_masks_in_boxes_are_the_image_s_own(seed, theta, w, h):
    "What stands in the frame of a box is what the enlarged map of the image says there, and boxes asked together change nothing"
    part,out = plain_stage(seed)
    boxes = tensor([[48.,32.,w,h,theta],[20.,30.,20.,30.,0.]])
    img,pri = tensor([1,0]),tensor([40,100])
    with torch.no_grad():
        framed = part.framed(out, img, boxes, img, pri)
        whole = F.interpolate(part.logits(out, img, pri)[:,None], scale_factor=8, mode='bilinear')[0,0].sigmoid()
        alone = part.framed(out, img[1:], boxes[1:], img[1:], pri[1:])
    assert framed.shape==(2,56,56) and torch.allclose(framed[1], alone[0], atol=1e-4)
    inside = paste_mask(boxes[0], torch.ones(56,56), (96,64))>.999
    off = np.abs(paste_mask(boxes[0], framed[0].sigmoid(), (96,64))-whole.numpy())[inside]
    assert np.isfinite(off).all() and off.mean()<.02

# --- what is learnt

def test_a_part_that_cannot_be():
    with pytest.raises(ValueError, match='depth 1'): DynamicMasks(1, 8, (8,16), depth=1)
    with pytest.raises(ValueError, match='cannot share'): DynamicMasks(1, (8,16), (8,16), share=True)

@cache
def untrained(): # a stage, and what it says about both pictures
    torch.manual_seed(0)
    model = create_detector('rotated_condinst', 2, **{**TINY, 'strides':(4,8)}).eval().requires_grad_(False)
    return model.stages[0],model.run_stages(scenes()[0])[1]

def losses_of(targets):
    stage,out = untrained()
    return stage.loss(out, with_weights(targets))

def test_objects_without_an_outline_teach_no_mask():
    targets = scenes()[1]
    two,one = targets
    bare = {**two, 'outlines':torch.where(tensor([True,False])[:,None,None], two['outlines'], torch.nan)}
    with_all,without = losses_of([two,one]),losses_of([bare,one])
    stage,out = untrained()
    matched = stage.assign(out, [two,one])
    img,pri = (matched>=0).nonzero(as_tuple=True)
    keep = (img==1) | (matched[img,pri]==0)
    rings = torch.stack([two['outlines'][0], one['outlines'][0]])[img[keep]]
    said = F.interpolate(stage.masks.logits(out, img[keep], pri[keep])[:,None], scale_factor=2, mode='bilinear')[:,0].sigmoid()
    wrong = dice_loss(said, grid_masks(rings, said.shape[1:], 2.))
    by_image = torch.stack([wrong[img[keep]==i].sum() for i in range(2)])*2/keep.sum()
    assert torch.allclose(without['loss_mask'], by_image, rtol=1e-4) and not torch.allclose(with_all['loss_mask'], by_image, rtol=1e-3)
    for term in ('loss_cls','loss_box','loss_quality'): assert torch.equal(with_all[term], without[term])
    nobody = [{**o, 'outlines':o['outlines'][:,:0]} for o in targets]
    assert losses_of(nobody)['loss_mask'].tolist()==[0,0]
    bare = losses_of([{key:o[key] for key in ('boxes','labels')} for o in targets])                     # no outlines at all: boxes
    boxes = [{**o, 'outlines':torch.as_tensor(rbox2qbox(o['boxes'])).view(-1,4,2)[:,[0,1,2,3,0]]} for o in targets]
    assert torch.allclose(bare['loss_mask'], losses_of(boxes)['loss_mask'], rtol=1e-5) and (bare['loss_mask']>0).all()

def test_half_trusted_objects_count_half():
    targets = scenes()[1]
    half = [{**o, 'weights':torch.full((len(o['labels']),), .5)} for o in targets]
    assert torch.allclose(losses_of(half)['loss_mask'], losses_of(targets)['loss_mask']/2, rtol=1e-5)

def test_images_without_objects():
    none = dict(boxes=torch.zeros(0,5), labels=torch.zeros(0).long())
    targets = scenes()[1]
    for o in (none, {**none, 'outlines':torch.zeros(0,0,2)}, {**none, 'outlines':torch.zeros(0,9,2)}):
        both = losses_of([targets[0],o])['loss_mask']
        assert both[0]>0==both[1]
        assert losses_of([o,o])['loss_mask'].tolist()==[0,0]

def test_of_many_positives_some_learn(monkeypatch):
    rows,own = [],DynamicMasks.logits
    monkeypatch.setattr(DynamicMasks, 'logits', lambda self, out, img, pri: rows.append(len(img)) or own(self, out, img, pri))
    whole = losses_of(scenes()[1])['loss_mask']
    monkeypatch.setattr(untrained()[0].masks, 'most', 5)
    some = losses_of(scenes()[1])['loss_mask']
    assert rows[0]>5==rows[1]
    assert some.isfinite().all() and .5<some.mean()/whole.mean()<2

@pytest.mark.parametrize('name,kw', [('rotated_condinst',{}), ('condinst',{}),
    ('rtmdet_ins_tiny',dict(steps=80, strides=(8,16))), ('rtmdet_ins_tiny',dict(steps=80, strides=(8,16), angle='le90'))])
def test_two_pictures_are_learnt(name, kw):
    "Upright where that is the default, and each with boxes of its own kind: an upright detector cannot learn oriented boxes"
    model,losses = trained(name, **kw) if kw or name=='condinst' else trained()
    assert model.angle==kw.get('angle', 'le90' if name.startswith('rotated') else 'hbb')
    assert losses[-1]<.1*losses[0]
    images,targets = scenes(model.angle)
    for found,target in zip(model(images), targets):
        for label,ring in zip(target['labels'], target['outlines']):
            best = (found['labels']==label).nonzero()[0,0]
            assert found['scores'][best]>.2
            mask = paste_mask(found['boxes'][best], found['masks'][best], (64,64))>=.5
            assert iou(mask, outline_mask(ring.double().numpy(), (64,64)))>.8

@pytest.mark.parametrize('size,theirs', [('tiny',5_638_187), ('s',10_183_311), ('m',27_575_111), ('l',57_365_663)])
def test_numbers_of_the_published_sizes(size, theirs):
    "As many as MMDetection 3.3 has for 80 classes"
    assert sum(map(torch.numel, create_detector(f'rtmdet_ins_{size}', 80).parameters()))==theirs

def test_one_tower_is_of_one_width():
    for wrong in (dict(widths=(8,16)), dict(stem=lambda channels: torch.nn.Identity())):
        with pytest.raises(ValueError, match='one_tower is of one width'): create_detector('rtmdet_ins_tiny', 2, **wrong)

# --- with any dense stage

@pytest.mark.parametrize('name', ['rotated_retinanet','s2anet','yolov8_n','tood'])
def test_any_dense_stage_takes_the_part(name):
    "Several anchors, levels of several widths, and of a chain the last stage alone"
    torch.manual_seed(0)
    own = {key:value for key,value in TINY.items() if name!='yolov8_n'}
    model = create_detector(name, 2, masks=partial(DynamicMasks, n_convs=1, channels=8), score_thr=0., max_per_img=9, **own)
    images,targets = scenes()
    if name=='yolov8_n': images = F.interpolate(images, scale_factor=2)
    terms = model(images, targets)
    assert sum('mask' in term for term in terms)==1
    last, = (value for term,value in terms.items() if 'mask' in term)
    last.backward()
    assert 0<last<=2 and all(p.grad is not None for p in model.stages[-1].masks.parameters())
    for one in model.eval()(images): assert one['masks'].shape==(len(one['scores']),56,56) and len(one['scores'])

def test_stages_with_losses_of_their_own_refuse():
    with pytest.raises(ValueError, match='H2RBoxHead has losses of its own'): create_detector('h2rbox', 2, masks=DynamicMasks, **TINY)
    with pytest.raises(TypeError, match='masks'): create_detector('rotated_reppoints', 2, masks=DynamicMasks, **TINY)

# --- what users do with them

def test_a_fast_twin_has_the_same_masks():
    model,_ = trained()
    images,_ = scenes()
    twin = fast_twin(model)
    for own,found in zip(model(images), twin(images)):
        n = len(own['scores'])
        assert n and len(found['scores'])==n and torch.allclose(own['masks'], found['masks'], atol=1e-3)

def exportable():
    from rotnb.interop.proof import file_predictor
    from rotnb.predict.predictor import Predictor
    model,_ = trained()
    model.vocab,model.stages[0].max_per_img = ['a','b'],20
    return file_predictor(Predictor(model, ['a','b'], size=64, score_thr=.2))

def as_bytes():
    std,mean = (tensor(o).view(3,1,1) for o in ((.229,.224,.225),(.485,.456,.406)))
    return ((scenes()[0]*std+mean)*255).round().clamp(0, 255).byte()

def same_masks(own, found):
    assert len(found['scores'])==len(own['scores'])>0
    assert torch.allclose(found['boxes'], own['boxes'], atol=1e-2) and torch.allclose(found['masks'], own['masks'], atol=1e-3)

def test_rows_of_an_export_have_the_same_masks():
    from rotnb.interop.export_module import ExportModule, RawMaps
    module,images = ExportModule(exportable()),as_bytes()[:1]
    assert module.outputs[-1]=='masks'
    raw = RawMaps(module, (64,64))
    assert raw.names[-2:]==['kernels','feats']
    with torch.no_grad():
        for rows in (module(images), raw.answer(*raw(images))):
            rows = dict(zip(module.outputs, rows))
            n = int(rows.pop('count')[0])
            assert rows['masks'].shape==(1,20,56,56) and not rows['masks'][0,n:].any()
            same_masks(module.eager(images)[0], {key:part[0,:n] for key,part in rows.items()})

@pytest.mark.slow
def test_a_file_has_the_same_masks(tmp_path):
    pytest.importorskip('onnx'); pytest.importorskip('onnxruntime')
    from rotnb.interop.export import export_onnx
    from rotnb.interop.export_module import ExportModule
    from rotnb.interop.runtime import ExportedDetector
    from rotnb.predict.predictor import Predictor
    predictor = exportable()
    file = export_onnx(predictor, tmp_path/'m.onnx', check=False, score_thr=.2)
    detector = ExportedDetector(file)
    for image in as_bytes():
        (own,),(found,) = ExportModule(predictor, score_thr=.2).eager(image[None]),detector(image[None])
        same_masks(own, found)
    (nothing,) = detector(torch.full_like(image[None], 90))
    assert len(nothing['scores'])==len(nothing['masks'])==0
    assert Predictor(file)(image.permute(1,2,0).numpy()).masks.shape[1:]==(56,56)

def test_from_labels_to_mask_ap(tmp_path):
    annots = []
    for i,ring in enumerate([star(40, 30, 20, 5), star(50, 40, 22, 4, .4)]):
        image = np.full((80,96,3), 40, np.uint8); image[outline_mask(ring, (96,80))] = 200
        Image.fromarray(image).save(tmp_path/f'{i}.png')
        box = np.array([[*ring.mean(0), *np.ptp(ring, axis=0), 0.]])
        annots.append(Annot(tmp_path/f'{i}.png', rbox2qbox(box), ['a'], np.zeros(1, int), (96,80), outlines=[ring]))
    dls = RotatedDataLoaders.from_annots(annots, annots, bs=2, device='cpu', size=64, num_workers=0, path=tmp_path, masks=True)
    learn = rotated_learner(dls, 'condinst', pretrained=False, score_thr=.001, max_per_img=10, run=False, **TINY)
    learn.fit(1, 1e-3)
    assert learn.evaluate(masks=True, show=False).df is not None
    found = learn.predict_image(annots[0].image, 0.)
    assert len(found) and found.masks.shape[1:]==(56,56) and found.whole_masks()[0].shape==(80,96)
