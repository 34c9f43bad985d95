"Objects and images that count in part: weight 0 is as ignored, weight 1 changes no bit, and between them losses are as large"
import pytest, torch
from hypothesis import given, settings, strategies as st
from rotnb.models import create_detector
from rotnb.targets.priors import AnchorPriors
from rotnb.targets.objects import TargetError
from families import TWO_STAGE

SMALL = dict(fc_channels=64, rpn_kw=dict(priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None))
BOXES = torch.tensor([[30.,40.,40.,20.,.4],[20.,20.,24.,14.,-.7]])

# One detector for each loss of its own: dense, by quality, with objectness, of point sets, of RoIs, of sets, and of views
KINDS = 'rotated_retinanet','rotated_tal_tiny','yolov5_n','rotated_reppoints','oriented_rcnn','rotated_rtdetr_tiny','vfnet','h2rbox'
NETS = {}

def make(name):
    torch.manual_seed(0)
    return create_detector(name, 3, backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16),
                           **(SMALL if name in TWO_STAGE else {}))
def images(b): return torch.randn(b, 3, 64, 64, generator=torch.Generator().manual_seed(1))

def losses(name, *targets):
    if name not in NETS: NETS[name] = make(name).eval()   # norms at rest
    torch.manual_seed(0)                                                # samples and views are drawn
    with torch.no_grad(): return NETS[name].run_stages(images(len(targets)), list(targets))[0]

def objects(ignore=None, **kw):
    more = {} if ignore is None else dict(ignore=torch.tensor(ignore))
    return dict(boxes=BOXES, labels=torch.tensor([0,1]), **more, **kw)
def same(a, b): return a.keys()==b.keys() and all(torch.equal(a[key], b[key]) and a[key].isfinite().all() for key in a)

@pytest.mark.parametrize('name', KINDS)
def test_weights_of_one_and_nought(name):
    plain = losses(name, objects(), objects())
    assert same(losses(name, objects(weights=torch.ones(2)), objects(weight=1.)), plain), 'full weight changes no bit'
    assert same(losses(name, objects(weights=torch.tensor([1.,0.])), objects()), losses(name, objects([False,True]), objects()))
    half = losses(name, objects(weights=torch.full((2,2), .5)), objects())
    apart = losses(name, objects(weights=torch.tensor([[1.,.5]]*2)), objects())
    for key,value in plain.items():
        if key.endswith(('box','sides','angle','dist')): torch.testing.assert_close(half[key][0], value[0]/2, rtol=1e-4, atol=1e-7)
        if key.endswith('cls'):
            # the first boxes of VFNet overlap nothing, so that no score is taught
            less = half[key][0]<=value[0] if name=='vfnet' else half[key][0]<value[0]
            assert less, 'objects count half, the background as before'
            assert torch.equal(apart[key], value), 'the weight of the box is none of the class'
        assert torch.equal(half[key][1], value[1]), 'the other image stays'

@settings(max_examples=6, deadline=None)
@given(st.lists(st.sampled_from([0.,.25,.5,1.,2.]), min_size=2, max_size=2), st.sampled_from(['rotated_tal_tiny','rotated_retinanet']))
def test_losses_are_linear_in_weights(weights, name):
    "What objects of weights (a, b) cost lies on the line through those of (0, 0) and (1, 1), where none is left out"
    weights = [weight or .125 for weight in weights]                    # 0 is another thing: the priors are given back
    alone = [losses(name, objects(weights=torch.tensor(pair)), objects())['loss_box'][0] for pair in ([1.,1e-9],[1e-9,1.])]
    both = losses(name, objects(weights=torch.tensor(weights)), objects())['loss_box'][0]
    assert torch.isfinite(both) and both>0
    torch.testing.assert_close(both, sum(weight*loss for weight,loss in zip(weights, alone)), rtol=1e-3, atol=1e-6)

@settings(max_examples=5, deadline=None)
@given(st.floats(0, 4))
def test_the_weight_of_an_image(weight):
    plain,some = (losses('rotated_tal_tiny', objects(), objects(**kw)) for kw in ({}, dict(weight=weight)))
    for key in plain:
        assert torch.equal(plain[key][0], some[key][0])
        torch.testing.assert_close(some[key][1], plain[key][1]*weight)

@pytest.mark.parametrize('wrong,message', [(dict(weights=torch.ones(3)),'weights are'),
                                           (dict(weights=torch.tensor([1.,-1.])),'weights are'),
                                           (dict(weights=torch.tensor([1.,float('nan')])),'weights are'), (dict(weight=-1.),'weight is')])
def test_wrong_weights(wrong, message):
    with pytest.raises(TargetError, match=message): make('rotated_tal_tiny')(images(1), [objects(**wrong)])
