"torchvision's own upright detectors with formula weights: what they answer and lose, ours does, opened from their state dict"
import re
from functools import partial
import pytest, torch
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, RPNHead, _default_anchorgen
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from formula import formula_image, formula_value
import rotnb.models.masks as mod
from rotnb.geometry.boxes import hbox2rbox, rbox2hbox
from rotnb.geometry.outlines import outline_mask, whole_masks
from rotnb.interop.upright_files import detector_from_upright, fill_upright, find_upright
from rotnb.models import create_detector
from rotnb.models.files import WeightsError
from rotnb.predict.catalogue import published_weights
from rotnb.predict.load import detector_from_weights
from rotnb.targets.sample import random_sample

K,H,W = 5,128,256
HBOXES = torch.tensor([[10.3,12,70.1,60.2], [40.2,60.7,123.9,118.4], [150.3,20.6,240.2,110.1], [8.3,90.1,40.7,119.2]])
LABELS = torch.tensor([1,4,2,1])
PLAIN = dict(min_size=H, max_size=W, image_mean=[0.]*3, image_std=[1.]*3)
EVERY = 10**6

def body(levels, extra=None, **kw):
    return resnet_fpn_backbone(backbone_name='resnet18', weights=None, returned_layers=levels, extra_blocks=extra, **kw)

def theirs_of(name):
    if name=='fcos': return FCOS(body([2,3,4], LastLevelP6P7(256, 256)), K, **PLAIN)
    if name=='retinanet': return RetinaNet(body([2,3,4], LastLevelP6P7(256, 256)), K, **PLAIN)
    if name=='retinanet_v2':
        head = RetinaNetHead(256, 9, K, norm_layer=partial(torch.nn.GroupNorm, 32))
        head.regression_head._loss_type = 'giou'
        return RetinaNet(body([2,3,4], LastLevelP6P7(512, 256)), K, head=head, **PLAIN)
    more = {}
    if name=='faster_v2':
        more = dict(rpn_head=RPNHead(256, 3, conv_depth=2), rpn_anchor_generator=_default_anchorgen(),
                    box_head=FastRCNNConvFCHead((256,7,7), [256]*4, [1024], norm_layer=torch.nn.BatchNorm2d))
    neck = body([1,2,3,4])
    if name=='faster_v2': neck.fpn = FeaturePyramidNetwork([64,128,256,512], 256, LastLevelMaxPool(), torch.nn.BatchNorm2d)
    made = (MaskRCNN if name.startswith('mask') else FasterRCNN)(
        neck, K+1, rpn_pre_nms_top_n_train=1000, rpn_post_nms_top_n_train=1000, rpn_batch_size_per_image=EVERY,
        box_batch_size_per_image=EVERY, **more, **PLAIN)
    if name.startswith('mask'):                                          # narrow layers: theirs have 256 channels, as the levels
        norm = torch.nn.BatchNorm2d if name=='mask_v2' else None
        made.roi_heads.mask_head = MaskRCNNHeads(256, (24,)*(2 if norm else 4), 1, norm)
        made.roi_heads.mask_predictor = MaskRCNNPredictor(24, 24, K+1)
    return made

NAMES = 'fcos','retinanet','retinanet_v2','faster','faster_v2','mask','mask_v2'
def two_stages(name): return name.startswith(('faster','mask'))

def weight_of(key, shape):
    "Of the formula, with last layers that say little, so that few scores are alike; the sides of FCOS begin with some length"
    last = 'cls_logits.weight','bbox_reg.weight','bbox_pred.weight','cls_score.weight'
    little = .1 if key.endswith(last) else 1.
    long = 2. if key.endswith('regression_head.bbox_reg.bias') and tuple(shape)==(4,) else 0.
    return little*torch.tensor(formula_value(key, tuple(shape)))+long

@pytest.fixture(scope='module', params=[pytest.param(name, marks=pytest.mark.slow) if name.endswith('_v2') else name for name in NAMES])
def pair(request):
    "torchvision's detector and ours, in evaluation mode"
    theirs = theirs_of(request.param)
    theirs.load_state_dict({key:weight_of(key, value.shape) for key,value in theirs.state_dict().items()})
    return request.param,theirs.eval(),detector_from_upright(theirs.state_dict())

def off(ours, wanted): return ((ours-wanted).abs().max()/wanted.abs().max()).item()

@torch.no_grad()
def test_outputs(pair):
    name,theirs,model = pair
    x = torch.tensor(formula_image(W, 2))[:,:,:H]
    feats = list(theirs.backbone(x).values())
    own = model.neck(model.backbone(x))
    assert len(own)==len(feats) and max(off(*pair) for pair in zip(own, feats))<1e-4
    out = model.stages[0](own)
    if two_stages(name):
        logits,deltas = theirs.rpn.head(feats)
        for part,wanted,width in ((out.logits,logits,1), (out.deltas,deltas,4)):
            wanted = torch.cat([o.unflatten(1, (-1,width)).permute(0,3,4,1,2).flatten(1, 3) for o in wanted], 1)
            assert off(part, wanted)<1e-4
    else:
        said = theirs.head(feats)
        assert off(out.logits, said['cls_logits'])<1e-4
        assert off(out.deltas.relu() if name=='fcos' else out.deltas, said['bbox_regression'])<1e-4
        if name=='fcos': assert off(out.quality, said['bbox_ctrness'][...,0])<1e-4

TURN = torch.linspace(0, 2*torch.pi, 40)
OUTLINES = (HBOXES[:,None,:2]+HBOXES[:,None,2:])/2+(HBOXES[:,None,2:]-HBOXES[:,None,:2])/2*torch.stack([TURN.cos(), TURN.sin()], -1)
BITMAPS = torch.stack([torch.from_numpy(outline_mask(one.numpy(), (W,H))) for one in OUTLINES]).to(torch.uint8)

def their_targets(outlines, rois, side):
    "What torchvision learns masks from: the bitmap of each outline, read in the RoI"
    bitmaps = torch.stack([torch.from_numpy(outline_mask(one.numpy(), (W,H))) for one in outlines]).float()
    rois = torch.cat([torch.arange(len(rois))[:,None].float(), rbox2hbox(rois)], 1)
    return roi_align(bitmaps[:,None], rois, side, 1.)[:,0]

def targets(one):
    own = dict(boxes=hbox2rbox(HBOXES, 'hbb'), labels=LABELS-1 if one else LABELS, outlines=OUTLINES)
    return own,dict(boxes=HBOXES, labels=LABELS, masks=BITMAPS)

TERMS = dict(fcos=dict(classification='loss_cls', bbox_regression='loss_box', bbox_ctrness='loss_quality'),
             retinanet=dict(classification='loss_cls', bbox_regression='loss_box'),
             faster=dict(loss_objectness='s0_loss_cls', loss_rpn_box_reg='s0_loss_box', loss_classifier='s1_loss_cls',
                         loss_box_reg='s1_loss_box'))
TERMS['mask'] = dict(TERMS['faster'], loss_mask='s1_loss_mask')

@torch.no_grad()
def test_losses(pair, monkeypatch):
    "Masks from the bitmaps that torchvision reads them from: from the outlines themselves the loss is another, by a hundredth"
    name,theirs,model = pair
    x = torch.tensor(formula_image(W, 1))[:,:,:H]
    own,other = targets(two_stages(name))
    for stage,fraction in zip(model.stages, (.5,.25)):
        if hasattr(stage, 'sampler'): stage.sampler = partial(random_sample, num=EVERY, pos_fraction=fraction)
    exact,_ = model(x, [own])
    monkeypatch.setattr(mod, 'framed_masks', their_targets)
    ours,_ = model(x, [own])
    if 's1_loss_mask' in ours: assert 0<abs(exact['s1_loss_mask']/ours['s1_loss_mask']-1)<.03
    theirs.train()
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm2d): part.eval()
    wanted = theirs(list(x), [other])
    theirs.eval()
    terms = TERMS[name.split('_')[0]]
    assert set(terms)==set(wanted)
    for term,value in wanted.items():
        assert value>1e-4 and abs(ours[terms[term]].item()-value.item())<=1e-3*value.item(), (term, ours, wanted)

@torch.no_grad()
def test_detections(pair):
    "Each of theirs is one of ours, but for rounding that decides about a candidate"
    name,theirs,model = pair
    x = torch.tensor(formula_image(W, 2))[:,:,:H]
    for own,wanted in zip(model(x), theirs(list(x))):
        assert len(wanted['scores'])>=10 and abs(len(own['scores'])-len(wanted['scores']))<=1, (len(own['scores']),len(wanted['scores']))
        labels = wanted['labels']-int(two_stages(name))
        apart = (rbox2hbox(own['boxes'])[:,None]-wanted['boxes']).abs().amax(-1)
        same = (apart<.01) & ((own['scores'][:,None]-wanted['scores']).abs()<1e-4) & (own['labels'][:,None]==labels)
        shares = [same.any(dim).float().mean().item() for dim in (0,1)]
        assert min(shares)>=.98, shares

@torch.no_grad()
def test_masks(pair, monkeypatch):
    "Each of theirs is ours, in the frame of the box; pasted they are alike, but that theirs are put into boxes of whole pixels"
    name,theirs,model = pair
    if not name.startswith('mask'): pytest.skip('it has none')
    monkeypatch.setattr(theirs.transform, 'postprocess', lambda found, *_: found)
    x = torch.tensor(formula_image(W, 2))[:,:,:H]
    n = 0
    for own,wanted in zip(model(x), theirs(list(x))):
        apart = (rbox2hbox(own['boxes'])[:,None]-wanted['boxes']).abs().amax(-1)+(own['labels'][:,None]!=wanted['labels']-1)*99
        apart,at = apart.min(0)
        same = apart<1e-3
        assert same.float().mean()>.95 and (own['masks'][at[same]]-wanted['masks'][same,0]).abs().max()<1e-4
        assert wanted['masks'].std()>.02                                      # they say something
        n += int(same.sum())
    assert n>=20

def test_pasted_masks():
    "Theirs is a pixel wider, and put to whole pixels: of a large box that is little"
    box,size_wh = torch.tensor([[56.,56.,1176.,616.]]),(1300,700)
    y,x = torch.meshgrid(*[(torch.arange(28)+.5)/28*2-1]*2, indexing='ij')
    for mask in (x**2+y**2<.9, (x.abs()<.8)&(y>-.7), x+y<.4):
        theirs = paste_masks_in_image(mask[None,None].float(), box, size_wh[::-1])[0,0]>=.5
        ours = torch.from_numpy(whole_masks(mask[None].float(), hbox2rbox(box), size_wh)[0])
        assert (ours&theirs).sum()>=.99*(ours|theirs).sum()

# --- files

def coco_file(name, tmp_path):
    "A file with 91 classes as torchvision publishes them, in a catalogue's name"
    theirs = theirs_of(name)
    sd = {key:weight_of(key, value.shape) for key,value in theirs.state_dict().items()}
    for key in [*sd]:
        times = 91/K if 'cls_logits' in key and 'rpn' not in key else 91/(K+1) if 'box_predictor' in key or 'mask_fcn_logits' in key else 1
        if times!=1: sd[key] = weight_of(key, (round(len(sd[key])*times), *sd[key].shape[1:]))
    torch.save(sd, tmp_path/'weights.pth')
    return tmp_path/'weights.pth',sd

@pytest.mark.parametrize('name', ['fcos','faster','mask'])
def test_a_file_of_coco_answers_and_is_a_start(name, tmp_path, capsys):
    file,sd = coco_file(name, tmp_path)
    model = detector_from_weights(file)
    assert len(model.vocab)==model.n_classes==80 and model.vocab[0]=='person' and model.vocab[-1]=='toothbrush' and model.angle=='hbb'
    kin = dict(fcos='rotated_fcos', faster='rotated_faster_rcnn', mask='oriented_mask_rcnn')[name]
    for arch in (model.name, kin):
        new = detector_from_weights(file, ['ship','person'], arch, angle='le90')
        assert 'the angle' in (said := capsys.readouterr().out) and 'the classes' in said
        assert (new.name,new.angle,new.n_classes)==(arch,'le90',2)
        own,old = new.state_dict(),model.state_dict()
        taken = [key for key in own if key.startswith(('backbone','neck')) or 'tower' in key or '.fcs.' in key]
        assert len(taken)>100 and all(torch.equal(own[key], old[key]) for key in taken)
        if name=='fcos': assert torch.equal(own['stages.0.box.weight'][:4], old['stages.0.box.weight'])
        x = torch.tensor(formula_image(128))
        losses,_ = new(x, [dict(boxes=torch.tensor([[60.,60,50,20,.5]]), labels=torch.tensor([1]))])
        assert all(value.isfinite().all() for value in losses.values())
    with pytest.raises(WeightsError, match='not of rotated_atss'): detector_from_weights(file, ['ship'], 'rotated_atss')

def test_rows_of_the_catalogue():
    rows = [row for name,row in published_weights().items() if row['source']=='torchvision' and row['kind']=='upright']
    assert len(rows)==5 and {row['detector'] for row in rows}=={'fcos','retinanet','faster_rcnn'}

def test_numbers_of_classes_that_coco_left_out(tmp_path):
    sd = {key:weight_of(key, value.shape) for key,value in theirs_of('fcos').state_dict().items()}
    every = detector_from_upright(sd)
    assert every.n_classes==K and every.vocab is None and find_upright(dict(a=torch.zeros(1))) is None
    odd = {**sd, 'backbone.body.conv1.weight':sd['backbone.body.conv1.weight'][:,:1]}
    with pytest.raises(WeightsError, match='backbone.body.conv1.weight'): detector_from_upright(odd)

# --- MMDetection

MADE = dict(backbone='resnet18', fpn_channels=16, feat_channels=16)

def mm_stages(model):
    "Weights of a detector with proposals under MMDetection's names"
    heads = [f'roi_head.bbox_head{f".{i}" if len(model.stages)>2 else ""}' for i in range(len(model.stages)-1)]
    their = dict(cls='cls', box='reg')
    moves = {r'^backbone\.body\.':'backbone.', r'^neck\.lateral\.(\d)\.':r'neck.lateral_convs.\1.conv.',
             r'^neck\.out\.(\d)\.':r'neck.fpn_convs.\1.conv.', r'^stages\.0\.tower\.0\.':'rpn_head.rpn_conv.',
             r'^stages\.0\.(cls|box)\.':lambda m: f"rpn_head.rpn_{their[m[1]]}.",
             r'^stages\.1\.masks\.convs\.(\d)\.':lambda m: f'roi_head.mask_head.convs.{int(m[1])//2}.conv.',
             r'^stages\.1\.masks\.up\.':'roi_head.mask_head.upsample.', r'^stages\.1\.masks\.out\.':'roi_head.mask_head.conv_logits.',
             r'^stages\.(\d)\.fcs\.':lambda m: f'{heads[int(m[1])-1]}.shared_fcs.',
             r'^stages\.(\d)\.(cls|box)\.':lambda m: f"{heads[int(m[1])-1]}.fc_{their[m[2]]}."}
    sd = {}
    for key,value in model.state_dict().items():
        for pattern,to in moves.items(): key = re.sub(pattern, to, key)
        sd[key] = value
    return sd

def mm_names(model):
    "Its weights under MMDetection's names, for a ResNet, a FPN and one dense head"
    name = dict(retinanet='retina', atss='atss', fcos='conv', gfl='gfl')[model.name]
    n_maps,sd = len(model.neck.out),{}
    layers = {f'{kind}_tower':[module for module in getattr(model.stages[0], f'{kind}_tower') if not isinstance(module, torch.nn.ReLU)]
              for kind in ('cls','box')}
    step,theirs = 2 if model.stages[0].norm else 1,dict(cls_tower='cls', box_tower='reg')
    where = {id(part):f"bbox_head.{theirs[kind]}_convs.{i//step}.{'conv' if isinstance(part, torch.nn.Conv2d) else 'gn'}"
             for kind,parts in layers.items() for i,part in enumerate(parts)}
    named = {f"{name_}.{key}":f'{where[id(part)]}.{key}' for name_,part in model.named_modules() if id(part) in where
             for key,_ in part.named_parameters()}
    for key,value in model.state_dict().items():
        if key in named: sd[named[key]] = value
        elif key=='stages.0.level_scale': sd |= {f'bbox_head.scales.{i}.scale':one for i,one in enumerate(value)}
        else:
            key = key.replace('backbone.body.', 'backbone.').replace('stages.0.cls.', f'bbox_head.{name}_cls.')
            key = key.replace('stages.0.box.', f'bbox_head.{name}_reg.').replace('stages.0.quality_conv.', f'bbox_head.{name}_centerness.')
            key = re.sub(r'^neck\.lateral\.(\d)\.', r'neck.lateral_convs.\1.conv.', key)
            key = re.sub(r'^neck\.out\.(\d)\.', r'neck.fpn_convs.\1.conv.', key)
            sd[re.sub(r'^neck\.extra_convs\.(\d)\.', lambda m: f'neck.fpn_convs.{n_maps+int(m[1])}.conv.', key)] = value
    return sd

@pytest.mark.parametrize('name', ['retinanet','atss','fcos','gfl','faster_rcnn','cascade_rcnn','mask_rcnn'])
def test_names_of_mmdetection(name):
    "A detector's own weights, renamed, come back as that detector"
    torch.manual_seed(0)
    two = name.endswith('rcnn')
    model = create_detector(name, 4, **MADE, **(dict(fc_channels=32) if two else {})).eval()
    again = detector_from_upright(mm_stages(model) if two else mm_names(model))
    assert (again.name,again.angle,again.n_classes)==(name,'hbb',4)
    old,new = model.state_dict(),again.state_dict()
    assert old.keys()==new.keys() and all(torch.equal(old[key], new[key]) for key in old)
    assert again.recipe()['stages']==model.recipe()['stages'] and again.recipe()['neck']==model.recipe()['neck']
