"Set detectors: who answers for whom, what has noise, and files without NMS"
from itertools import permutations, product
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import tensor
from rotnb.models import create_detector
from rotnb.targets.assign import NEG
from rotnb.targets.set_assign import class_cost, corner_distance, hungarian_assign, kld_cost, noisy_objects
from rotnb.targets.objects import TargetError
from families import SETS

TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16), layers=2)
BOXES = tensor([[30.,40.,40.,20.,.4],[70.,60.,24.,24.,-.7],[20.,80.,30.,10.,1.2]])
def images(b=2): return torch.randn(b, 3, 96, 96, generator=torch.Generator().manual_seed(1))
def truth(): return [dict(boxes=BOXES, labels=tensor([0,1,2])), dict(boxes=BOXES[:1], labels=tensor([2]))]
def make(name='rotated_rtdetr_tiny', **kw):
    torch.manual_seed(0)
    return create_detector(name, 3, **{**TINY, **kw})

@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_no_other_assignment_costs_less(seed, n):
    g = torch.Generator().manual_seed(seed)
    said,objs = (torch.rand(k, 5, generator=g)*tensor([90.,90,40,20,3])+tensor([0.,0,4,4,0]) for k in (4,n))
    logits,labels = torch.randn(4, 2, generator=g),torch.randint(2, (n,), generator=g)
    matched = hungarian_assign(said, objs, labels=labels, logits=logits, decoded=said, size_wh=(96,96))
    cost = 2*class_cost(logits, labels)+5*corner_distance(said[:,None], objs, (96,96))+2*kld_cost(said, objs)
    def total(rows): return sum(cost[i,j].item() for j,i in enumerate(rows))
    assert sorted(matched[matched>=0].tolist())==list(range(n)) and (matched==NEG).sum()==4-n
    assert total([(matched==j).nonzero().item() for j in range(n)])<=min(map(total, permutations(range(4), n)))+1e-4

def test_more_objects_than_queries():
    many = dict(boxes=BOXES[:1].repeat(21, 1), labels=torch.zeros(21, dtype=torch.long))
    model = make(queries=20)
    with pytest.raises(TargetError, match=r'targets\[1\]: 21 objects for 20 queries.*queries=.*smaller windows'):
        model(images(), [truth()[0],many])
    left_out = torch.arange(21)<1
    assert all(v.isfinite() for v in model(images(), [truth()[0],{**many, 'ignore':left_out}]).values())

def test_what_has_noise_changes_no_answer():
    model = make(denoise=dict(n=12), score_thr=0.).eval()
    with torch.no_grad(): outs = list(model.stage_outs(images(), truth()))
    for learns,out in outs[1:]:
        first = int((learns.sample.groups>=0).sum())
        assert first==2*3*4 and learns.logits.shape[1]==first+out.logits.shape[1]
        assert torch.allclose(learns.logits[:,first:], out.logits, atol=1e-4)
        assert torch.allclose(learns.deltas[:,first:], out.deltas, atol=1e-2)
        matched = model.stages[1].assign(learns._replace(size_hw=(96,96)), truth())
        assert all((matched[0,first:]==j).sum()==1 and (matched[0,:first]==j).sum()==4 for j in range(3))

def test_no_two_boxes_are_compared():
    model = make(score_thr=0.).eval()
    last = model.stages[-1]
    with torch.no_grad():
        out = model.run_stages(images(1))[1]
        same = out._replace(deltas=out.deltas[:,:1].expand_as(out.deltas))
        assert len(last.detect(same)[0]['boxes'])==min(last.max_per_img, 3*out.logits.shape[1])
        with model.answering(iou_thr=.1) as answer: assert len(answer(images(1))[0]['boxes'])<last.max_per_img
    assert last.iou_thr is None

def test_noise_of_padding_is_padding():
    none = dict(boxes=BOXES[:0], labels=torch.zeros(0, dtype=torch.long))
    noisy = noisy_objects([truth()[0],none], 3)
    assert (noisy.boxes[1,:,2:4]==0).all() and (noisy.labels[1]==3).all() and (noisy.boxes[0,:,2:4]>0).all()

@pytest.mark.parametrize('name,dynamic', [(SETS[0],True), *(pytest.param(*o, marks=pytest.mark.slow)
                                                            for o in product(SETS, (False,True)) if o!=(SETS[0],True))])
def test_a_file_without_nms(tmp_path, name, dynamic):
    onnx = pytest.importorskip('onnx')
    from rotnb.interop.export import export_onnx
    from rotnb.predict.predictor import Predictor
    model = make(name, score_thr=0., heading=True)
    model.vocab,model.symmetry = list('abc'),{'b':360}
    predictor = Predictor(model.eval(), list('abc'), size=None if dynamic else 96)
    file = export_onnx(predictor, tmp_path/'set.onnx', dynamic=dynamic, k=40)               # which proves itself
    graph = onnx.load(file).graph
    kinds = {node.op_type for node in graph.node}
    assert 'heading' in [out.name for out in graph.output]
    assert 'GridSample' in kinds and not kinds&{'NonMaxSuppression','Loop','Scan'}

def test_fronts_are_learnt_of_queries_alone():
    "The last stage says them: a plane that is turned about is another, objects with noise teach it too, and classes without do not"
    model = make('rotated_dino_tiny', heading=True, score_thr=0.)
    model.vocab,model.symmetry = list('abc'),{'b':360}
    assert [stage.heading for stage in model.stages]==[False,False,True]
    def loss(front, labels=(0,1,2)):
        torch.manual_seed(0)
        return model(images(1), [dict(boxes=BOXES, labels=tensor(labels), heading=tensor([0.,front,0.]))])['s2_loss_heading'].mean()
    opt = torch.optim.Adam(model.stages[-1].front.parameters(), 1e-2)
    before = loss(2.4).item()
    for _ in range(30): opt.zero_grad(); loss(2.4).backward(); opt.step()
    assert loss(2.4)<.2*before and loss(2.4+3.14)>1. and loss(2.4, (0,0,2))==0
    with model.answering(score_thr=0.) as answer: found = answer(images(1))[0]
    assert (found['heading'].isnan()==(found['labels']!=1)).all() and (found['labels']==1).any()

# --- what Deformable DETR and DINO have of their own

def test_first_boxes_of_each_kind_learn():
    "Cells, rows that are learnt and boxes: what queries know at first gets a gradient, also through stages after it"
    for name,part in (('rotated_deformable_detr_tiny','known.0.weight'),('rotated_dino_tiny','known')):
        model = make(name)
        losses = model(images(), truth())
        sum(loss for term,loss in losses.items() if not term.startswith('s0_')).backward()
        assert model.stages[0].get_parameter(part).grad.abs().sum()>0, name

def test_a_stage_without_classes_knows_no_class():
    model = make('rotated_deformable_detr_tiny')
    assert model.stages[0].cls.weight.shape[0]==1 and model.stages[0].class_layers()=={} and model.stages[0].n_classes==3
    turned = [{**t, 'labels':(t['labels']+1)%3} for t in truth()]
    torch.manual_seed(0); ours = model(images(), truth())
    torch.manual_seed(0); others = model(images(), turned)
    assert ours['s0_loss_cls']==others['s0_loss_cls'] and ours['s1_loss_cls']!=others['s1_loss_cls']

def test_boxes_learn_from_the_next_stage():
    "With `twice`, and else not"
    for twice in (False,True):
        model = make('rotated_dino_tiny', layers=2, denoise=False, later=dict(where='waves', twice=twice))
        losses = model(images(), truth())
        (losses['s2_loss_dist']+losses['s2_loss_box']).backward()
        grad = model.stages[1].box[-1].weight.grad
        assert (grad is not None and bool(grad.abs().sum()>0))==twice
        assert not model.stages[1].twice and model.stages[2].twice==twice

def test_positions_are_kept_or_made_anew():
    kept,anew = make('rotated_deformable_detr_tiny').eval(),make('rotated_dino_tiny').eval()
    with torch.no_grad(): (_,first),*later = kept.stage_outs(images())
    assert all(torch.equal(out.queries[...,:16], first.queries[...,:16]) for _,out in later)
    assert not hasattr(kept.stages[1], 'position') and anew.stages[1].position[0].weight.shape[1]==4*8+2
    with pytest.raises(ValueError, match='denoise=False'): make('rotated_deformable_detr_tiny', denoise={})
    with pytest.raises(ValueError, match="content is 'tokens'"): make('rotated_dino_tiny', first=dict(content='tokens'))

def test_levels_that_a_backbone_lacks():
    model = make('rotated_dino_tiny', strides=(8,16,32,64), score_thr=0.)
    assert len(model.neck.entry)==4 and model.neck.entry[3][0].stride==(2,2)
    assert all(loss.isfinite() for loss in model(images(), truth()).values())
    assert len(model.eval()(images(1))[0]['boxes'])>0
