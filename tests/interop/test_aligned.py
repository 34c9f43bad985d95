"VFNet and TOOD as `mmdet` computes them, from formula weights (tests/helpers/peer_aligned.py)"
import json
from pathlib import Path
import numpy as np, pytest, torch
from rotnb.geometry.boxes import to_frame
from rotnb.interop.upright_files import detector_from_upright
from rotnb.ops.iou import box_iou_rotated
from rotnb.targets.assign import NEG
from formula import formula_image
from peer_aligned import SIZE, aligned_value
from peer_heads import OBJECTS, thin

DATA = np.load(Path(__file__).parent/'data/aligned.npz')
def shapes(name): return {key:tuple(map(int, shape.split('x'))) if shape else () for key,shape in
                          (line.split(' ') for line in str(DATA[f'{name}/keys']).splitlines())}
def weights(name): return {key:torch.tensor(aligned_value(key, shape)) for key,shape in shapes(name).items()}

@pytest.fixture(scope='module', params=['vfnet','tood'])
def model(request): return detector_from_upright(weights(request.param))

def targets():
    rows = [torch.tensor([row[2:] for row in own], dtype=torch.float) for own in OBJECTS]
    boxes = [torch.cat([(own[:,:2]+own[:,2:])/2, own[:,2:]-own[:,:2], 0*own[:,:1]], 1) for own in rows]
    return [dict(boxes=box, labels=torch.tensor([row[1] for row in own])) for box,own in zip(boxes, OBJECTS)]

def close(ours, theirs, tol=1e-4):
    assert theirs.std()>0 and np.abs(ours-theirs).max()<tol*max(1, np.abs(theirs).max())

@torch.no_grad()
def test_the_same_outputs(model):
    head,name = model.stages[0],model.name
    out = model.run_stages(torch.tensor(formula_image(SIZE, 2)))[1]
    sizes = [(SIZE//stride,)*2 for stride in head.strides]
    def maps(rows): return [part.transpose(1, 2).unflatten(2, size) for part,size in zip(rows.split(list(out.counts), 1), sizes)]
    def sides(deltas): # px
        px = head.coder.px(out.priors.flatten(0, 1)).view(*deltas.shape[:2], 1)
        return head.coder.distances(deltas.flatten(0, 1)).view_as(deltas)*px
    boxes = sides(out.deltas)
    said = [out.logits.sigmoid() if name=='tood' else out.logits]
    if name=='vfnet': said += [sides(out.first), boxes]
    else: said += [torch.cat([out.priors[...,:2]-boxes[...,:2], out.priors[...,:2]+boxes[...,2:]], -1)/out.priors[...,2:3]]
    for i,rows in enumerate(said):
        for level,part in enumerate(maps(rows)): close(thin(part), DATA[f'{name}/{i}/{level}'])

def ranked_everywhere(priors, boxes, ignore=None, lvls=None, *, labels, logits, decoded):
    "As MMDetection ranks: all locations, those outside of an object take places and answer for none; `tal_assign` asks those inside"
    overlap = box_iou_rotated(decoded, boxes).to(logits.dtype)
    t,inside = logits.sigmoid()[:,labels]*overlap**6,(to_frame(priors[:,None,:2], boxes).abs()<boxes[:,2:4]/2).all(-1)
    taken = torch.zeros_like(inside).scatter_(0, t.topk(13, 0)[1], True) & (t>0) & inside
    most,obj = torch.where(taken, overlap, -1.).max(1)
    return torch.where(most>=0, obj, NEG)

@torch.no_grad()
def test_the_same_losses(model, monkeypatch):
    wanted = json.loads(str(DATA[f'{model.name}/losses']))
    if model.name=='tood':
        ours = model(torch.tensor(formula_image(SIZE, 2)), targets())[0]['loss_cls'].mean().item()
        assert ours==pytest.approx(wanted['loss_cls'], rel=.01)
        monkeypatch.setattr(model.stages[0], 'assigner', ranked_everywhere)
    losses,_ = model(torch.tensor(formula_image(SIZE, 2)), targets())
    terms = dict(loss_cls='loss_cls', loss_bbox='loss_first', loss_bbox_rf='loss_box') if model.name=='vfnet' else dict(
        loss_cls='loss_cls', loss_bbox='loss_box')
    assert set(terms)==set(wanted) and set(terms.values())==set(losses)
    for theirs,ours in terms.items(): assert losses[ours].mean().item()==pytest.approx(wanted[theirs], rel=1e-3), theirs

def test_a_start_for_oriented_boxes(model):
    with pytest.warns(UserWarning, match='the angle'): turned = detector_from_upright(weights(model.name), angle='le90')
    layer = 'first_tower' if model.name=='vfnet' else 'stack'
    ours,theirs = (getattr(one.stages[0], layer).state_dict() for one in (turned, model))
    assert ours and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(turned.stages[0].box.weight[:4], model.stages[0].box.weight) and len(turned.stages[0].box.weight)>4
    losses,_ = turned(torch.tensor(formula_image(SIZE)), targets()[:1])
    assert all(loss.isfinite().all() for loss in losses.values())
