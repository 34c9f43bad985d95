"timm's models as backbones: maps that cover an image of any size at the strides of the priors, or a refusal when they are made"
import pytest, timm, torch
from rotnb.models import create_detector
from rotnb.models.backbones import BackboneError, TimmBackbone

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
                         [('test_vit','is wanted'),('levit_128s','is wanted'),
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
