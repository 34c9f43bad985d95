"timm's models as backbones: maps that cover an image of any size at the strides of the priors, or a refusal when they are made"
import subprocess, sys
import pytest, timm, torch
from paths import ROOT
from rotnb.models import create_detector
from rotnb.models.backbones import BackboneError, TimmBackbone
from rotnb.models.lsknet import published_key

TINY = dict(fpn_channels=16, feat_channels=16, stacked_convs=1)
SIZES = (101,139),(64,96),(33,200)

def check(m, sizes=SIZES):
    m.eval()
    for h,w in sizes:
        with torch.no_grad(): fs = m(torch.zeros(1,3,h,w))
        assert [tuple(f.shape[1:]) for f in fs]==[(c,-(-h//s),-(-w//s)) for c,s in zip(m.channels, m.strides)]

@pytest.mark.parametrize('name', ['test_resnet','test_convnext','test_efficientnet','test_byobnet','dla46_c',
                                  'ese_vovnet19b_slim_dw','hrnet_w18_small','pvt_v2_b0','starnet_s050'])
def test_maps_have_their_strides(name): check(TimmBackbone(name, strides=(4,8,16,32)))

@pytest.mark.slow
@pytest.mark.parametrize('module', [m for m in timm.list_modules() if timm.list_models(module=m)])
def test_a_model_of_each_module_serves_or_is_refused(module):
    name = min(timm.list_models(module=module), key=lambda o: ('test_' not in o, 'tiny' not in o, len(o)))
    try: m = TimmBackbone(name)
    except BackboneError as e: assert 'is wanted' in str(e) or 'img_size' in str(e)
    else: check(m, SIZES[:2])

@pytest.mark.parametrize('name,says',
                         [('cait_xxs24_224','one size of image only'),('levit_128s','is wanted'),
                          ('efficientformer_l1','224 x 224 px and no others.*img_size'),('visformer_tiny','img_size'),
                                       ('mvitv2_tiny','img_size'),('resnet_none','no model')])
def test_what_cannot_serve_is_refused_when_it_is_made(name, says):
    "Not at the first batch, and in our words"
    with pytest.raises(BackboneError, match=says): create_detector('rotated_fcos', 2, backbone=name, **TINY)

def test_one_made_for_a_size_takes_no_larger_image():
    m = TimmBackbone('visformer_tiny', img_size=(96,128))
    check(m, [(96,128),(50,70)])
    with pytest.raises(BackboneError, match='up to 128 x 96 px, this one has 128 x 97'): m(torch.zeros(1,3,97,128))

@pytest.mark.parametrize('name,arch',
                         [('dla46_c','rotated_retinanet'),('dla46_c','rotated_fcos'),('test_convnext','rotated_fcos'),
                          ('test_convnext','rtmdet_r_tiny')])
def test_priors_lie_in_the_image_and_learn(name, arch):
    "Of an image that no stride divides: one prior location for each cell that begins in it"
    det = create_detector(arch, 2, backbone=name, **({} if 'rtmdet' in arch else TINY))
    h,w = 101,139
    with torch.no_grad(): out = det.eval().stages[0](det.neck(det.backbone(torch.zeros(1,3,h,w))), None)
    for s,lvl in zip(det.stages[0].strides, range(9)):
        xy = out.priors[0,out.lvls==lvl,:2] if out.priors.ndim==3 else out.priors[out.lvls==lvl,:2]
        assert len(xy.unique(dim=0))==-(-h//s)*-(-w//s) and xy[:,0].max()<w+s and xy[:,1].max()<h+s
    losses = det.train()(torch.rand(2,3,h,w), [dict(boxes=torch.tensor([[60.,50.,40.,24.,.4]]), labels=torch.tensor([1]))]*2)
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values()) and next(p for p in det.backbone.parameters()
                                                               if p.requires_grad).grad.isfinite().all()

# --- plain transformers

SHALLOW = dict(depth=3)
rest = [pytest.param(name, SHALLOW, marks=pytest.mark.slow) for name in (
    'vit_small_patch32_224','vit_small_patch8_224','vit_small_patch16_dinov3','eva02_tiny_patch14_224','vit_base_patch16_clip_224')]

@pytest.mark.parametrize('name,kw', [('test_vit',{}),('test_vit',dict(img_size=(96,160))),('xcit_nano_12_p16_224',SHALLOW),
                                     ('vit_small_patch14_dinov2',SHALLOW),*rest])
def test_a_plain_transformer_has_maps_of_every_stride(name, kw): check(TimmBackbone(name, strides=(4,8,16,32), **kw), SIZES[:2])

@pytest.mark.parametrize('arch', ['rotated_retinanet',*(pytest.param(name, marks=pytest.mark.slow) for name in (
    'rotated_fcos','oriented_rcnn','s2anet','rotated_reppoints'))])
def test_every_kind_of_detector_learns_on_a_plain_transformer(arch):
    kw = dict(fpn_channels=16) if arch=='oriented_rcnn' else TINY
    det = create_detector(arch, 2, backbone='test_vit', **kw)
    losses = det(torch.rand(2,3,72,96), [dict(boxes=torch.tensor([[60.,50.,40.,24.,.4]]), labels=torch.tensor([1]))]*2)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in det.backbone.body.scales.parameters())
    assert any(p.grad is not None and p.grad.abs().max()>0 for p in det.backbone.body.vit.parameters())

def test_a_plain_transformer_sees_what_timm_makes_of_it():
    "The map of its own stride is timm's last one, but for the norm behind"
    torch.manual_seed(0)
    m = TimmBackbone('test_vit', strides=(8,16)).eval()
    x = torch.rand(1,3,96,160)
    with torch.no_grad(): ours,whole = m(x)[1],m.body.vit.model.forward_intermediates(x, norm=False, intermediates_only=True)[-1]
    want = torch.nn.functional.layer_norm(whole.permute(0,2,3,1), (64,), eps=1e-6).permute(0,3,1,2)
    assert (ours-want).abs().max()<1e-5

@pytest.mark.parametrize('name', ['test_vit','cspnext_tiny','lsknet_t','pkinet_t'])
def test_frozen_counts_stages(name):
    "Of models whose maps timm takes in another way as well: none, the stem, more and more, in the end all but what is ours"
    kw = dict(depths=(1,1,1,1)) if name in ('lsknet_t','pkinet_t') else {}
    made = [TimmBackbone(name, frozen=n, **kw) for n in (-1,0,1,99)]
    counts = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in made]
    assert counts[0]>=counts[1]>counts[2]>counts[3]==(name=='test_vit')*8544
    m = TimmBackbone(name, frozen=99, **kw).train()
    m.requires_grad_(True)
    assert not any(part.training for part in m.train()._stages()[0])

# --- for aerial images

@pytest.mark.parametrize('name', ['lsknet_t','stripnet_t','pkinet_v2_t','pkinet_t'])
def test_those_for_aerial_images_are_timm_models(name):
    small = dict(depths=(1,1,1,1))
    check(TimmBackbone(name, strides=(4,8,16,32), **small), SIZES[:1])
    assert name in timm.list_models(name.rsplit('_', 1)[0]+'*')
    m = TimmBackbone(name, strides=(8,16), drop_path_rate=.5, **small)
    assert len(m.channels)==2 and any(part.drop_prob for part in m.modules() if type(part).__name__=='DropPath')
    out = timm.create_model(name, num_classes=3, **small)(torch.rand(2,3,64,64))
    assert out.shape==(2,3) and out.isfinite().all()

@pytest.mark.parametrize('name', ['lsknet_t','pkinet_t'])
def test_files_of_their_weights_open(name, tmp_path):
    "In published words or in ours; those of another size are refused"
    small = dict(depths=(1,1,1,1))
    ours = timm.create_model(name, **small).state_dict()
    torch.save(dict(state_dict=ours), tmp_path/'ours.pth')
    opened = TimmBackbone(name, True, pretrained_cfg_overlay=dict(file=str(tmp_path/'ours.pth')), **small)
    assert (opened.body.stages_2.state_dict()['blocks.0.scale1']==ours['stages.2.blocks.0.scale1']).all()
    with pytest.raises(ValueError, match=f'no weights of {name}'):
        timm.create_model(name, True, pretrained_cfg_overlay=dict(file=str(tmp_path/'ours.pth')), depths=(2,1,1,1))
    assert published_key('resnet50', 'block1.0.norm1.weight')=='block1.0.norm1.weight'

def test_weights_that_nobody_has_are_named():
    with pytest.raises(RuntimeError, match='pkinet_s'): TimmBackbone('pkinet_s', True, depths=(1,1,1,1))

def test_a_picture_may_have_its_channels_side_by_side():
    "As `FastSteps` gives it: a step in a process of its own, which PyTorch's own 1x1 convolution of stride 2 can end"
    code = """import torch
from rotnb.models.backbones import SteppedConv, TimmBackbone
torch.manual_seed(0)
body,x = TimmBackbone('efficientrep_n', strides=(8,)).eval(),torch.rand(2,3,64,96)
want = body(x)[0]
body,x = body.to(memory_format=torch.channels_last),x.contiguous(memory_format=torch.channels_last)
assert torch.allclose(body(x)[0], want, rtol=1e-4, atol=1e-5) and sum(type(part) is SteppedConv for part in body.modules())==1
body.train()(x)[0].square().mean().backward()
assert all(p.grad is not None and p.grad.isfinite().all() for p in body.parameters())"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode==0, done.stderr
