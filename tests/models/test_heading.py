"Detectors that say where the front of an object is"
import copy, math
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import tensor
from rotnb.geometry.boxes import canonicalize, rbox2qbox
from rotnb.geometry.symmetry import along_side, fold_angle, headings
from rotnb.models import create_detector
from rotnb.models.contract import HeadingError
from rotnb.models.weights import detector_from_weights, save_weights
from rotnb.targets.priors import AnchorPriors
from families import FAMILIES

TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
TWO_STAGE = ('oriented_rcnn','roi_trans','redet','rotated_faster_rcnn','gliding_vertex')
SMALL = dict(fc_channels=64, rpn_kw=dict(priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None))
UPRIGHT = 'h2rbox','h2rbox_v2'                                         # learn from labels that have no front
VOCAB,SYMMETRY = ['court','plane','tank'],{'plane':360, 'tank':'round'}
COURT,PLANE,TANK = [30.,40.,40.,20.,.4],[64.,60.,24.,36.,2.4],[24.,74.,28.,28.,.3]    # the plane heads along its short side

KINDS = 'rotated_fcos','rotated_tal_tiny','oriented_rcnn','rotated_reppoints','s2anet','rotated_rtdetr_tiny'
every_family = pytest.mark.parametrize('name', [pytest.param(o, marks=() if o in KINDS else pytest.mark.slow)
                                                for o in FAMILIES if o not in UPRIGHT])

def make(name, heading=True, symmetry=SYMMETRY, **kw):
    torch.manual_seed(0)
    more = dict(heading=True) if heading else {}
    model = create_detector(name, 3, **{**TINY, **(SMALL if name in TWO_STAGE else {}), 'angle':'le90', **more, **kw})
    model.vocab,model.symmetry = VOCAB,symmetry
    return model

def images(): return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))

def losses(model, plane=PLANE, labels=(0,1,2)):
    target = dict(boxes=canonicalize(tensor([COURT,plane,TANK]), model.angle), labels=tensor(labels), heading=tensor([1.,plane[4],2.]))
    torch.manual_seed(5)                                               # samples of proposals
    return model(images(), [target]*2)

def fronts(model): return {key:p for key,p in model.named_parameters() if '.front.' in key}
def found(model):
    with torch.no_grad(), model.answering(score_thr=0., max_dets=300) as answer: return answer(images())[0]

@every_family
def test_a_family_learns_and_says_headings(name):
    "Its losses are finite, the new output learns from planes alone, and each plane's heading is along a side of its box"
    model = make(name)
    seen = losses(model)
    assert all(loss.isfinite() for loss in seen.values())
    term, = (key for key in seen if key.endswith('heading'))
    grads = torch.autograd.grad(seen[term], [*fronts(model).values()], retain_graph=True)
    assert grads and max(float(g.abs().sum()) for g in grads)>0
    assert not torch.allclose(seen[term], losses(model, [*PLANE[:4],PLANE[4]+math.pi])[term])      # the front is not the rear
    assert losses(model, labels=(0,0,2))[term]==0                                                   # no plane: nothing to learn
    there = found(model)
    is_plane = there['labels']==1
    assert is_plane.any() and (~there['heading'].isnan()==is_plane).all()
    off = (there['heading']-there['boxes'][:,4])[is_plane]/(math.pi/2)
    assert (off-off.round()).abs().max()<1e-4 and there['heading'][is_plane].abs().max()<=math.pi+1e-5

@pytest.mark.parametrize('name', ['rotated_fcos','oriented_rcnn','rotated_tal_tiny','rotated_deformable_detr_tiny'])
def test_all_else_of_a_detector_is_as_without(name):
    "The same weights give the same boxes, scores and losses; names of weights change for the new layer alone"
    plain,model = make(name, heading=False),make(name)
    new = [*fronts(model)]
    assert {*model.state_dict()}-{*plain.state_dict()}=={*new} and not {*plain.state_dict()}-{*model.state_dict()}
    model.load_state_dict({**model.state_dict(), **plain.state_dict()})
    one,two = losses(plain),losses(model)
    for term in one: assert torch.equal(one[term], two[term]), term
    one,two = found(plain),found(model)
    assert {*two}=={*one,'heading'}
    for key in one: assert torch.equal(one[key].nan_to_num(-9), two[key].nan_to_num(-9)), key

def test_a_perfect_output_is_answered():
    "Whatever the box is spelt like, the heading is that of the side which the output points along"
    model = make('rotated_fcos').eval()
    head = model.stages[-1]
    for towards in (-3.,-1.2,.1,2.):
        for p in head.front.parameters(): torch.nn.init.zeros_(p)
        with torch.no_grad(): head.front[-1].bias.copy_(tensor([math.cos(towards),math.sin(towards)]))
        there = found(model)
        own = there['labels']==1
        want = along_side(torch.full_like(there['scores'][own], towards), there['boxes'][own,4])
        assert fold_angle(there['heading'][own]-want, torch.full_like(want, 360)).abs().max()<1e-4

def test_upright_boxes_have_a_free_heading():
    model = make('rotated_fcos', angle='hbb')
    losses(model)['loss_heading'].backward()
    with torch.no_grad(): model.stages[-1].front[-1].bias.copy_(tensor([.6,.8])); model.stages[-1].front[-1].weight.zero_()
    there = found(model)
    assert (there['heading'][there['labels']==1]-math.atan2(.8, .6)).abs().max()<1e-5

def test_headings_are_of_targets_or_of_theta():
    model = make('rotated_fcos')
    given = losses(model)['loss_heading']
    torch.manual_seed(5)
    plain = [dict(boxes=tensor([COURT,PLANE,TANK]), labels=tensor([0,1,2]))]*2      # theta that is not folded is the heading
    assert torch.isclose(model(images(), plain)['loss_heading'], given, atol=1e-6)
    with pytest.raises(ValueError, match='heading is'): model(images(), [dict(o, heading=torch.zeros(2)) for o in plain])

def test_no_class_with_a_front():
    "Harmless in a detector: nothing is learnt, and nothing said"
    model = make('rotated_fcos', symmetry=None)
    assert losses(model)['loss_heading']==0 and found(model)['heading'].isnan().all()

@pytest.mark.parametrize('name', UPRIGHT)
def test_who_cannot_says_so(name):
    with pytest.raises(HeadingError, match='upright labels'): make(name)

def test_headings_are_kept_with_weights(tmp_path):
    model = make('rotated_fcos')
    file = save_weights(model, tmp_path/'a.safetensors')
    other = detector_from_weights(file)
    one,two = found(model.eval()),found(other)
    assert torch.equal(one['heading'].nan_to_num(), two['heading'].nan_to_num()) and copy.deepcopy(model).symmetry==SYMMETRY
    plain = save_weights(make('rotated_fcos', heading=False), tmp_path/'b.safetensors')
    begun = detector_from_weights(plain, heading=True)                                          # the layer alone is new
    assert found(begun)['heading'].isnan().sum()==(found(begun)['labels']!=1).sum()

def test_the_fast_twin_says_the_same():
    from rotnb.models.fast import fast_twin
    model = make('rotated_fcos').eval()
    one,two = found(model),found(fast_twin(model))
    assert torch.equal(one['labels'], two['labels'])
    assert torch.allclose(one['heading'].nan_to_num(9.).cos(), two['heading'].nan_to_num(9.).cos(), atol=1e-3)

@settings(max_examples=200, deadline=None)
@given(st.floats(-math.pi, math.pi), st.floats(-10, 10))
def test_the_nearest_side(heading, theta):
    heading,theta = tensor(heading, dtype=torch.float64),tensor(theta, dtype=torch.float64)
    side,full = along_side(heading, theta),tensor(360)
    assert fold_angle(side-heading, full).abs()<=math.pi/4+1e-9 and -math.pi-1e-9<=side<=math.pi+1e-9
    assert fold_angle(side-theta, tensor(90)).abs()<1e-9

@settings(max_examples=200, deadline=None)
@given(st.floats(-math.pi+.001, math.pi), st.floats(1, 50), st.floats(1, 50))
def test_the_heading_of_corners(theta, w, h):
    quad = rbox2qbox(tensor([50,40,w,h,theta], dtype=torch.float64))
    assert abs(float(headings(quad))-theta)<1e-9
