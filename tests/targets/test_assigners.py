"Assigners of one-stage detectors beside MMDetection's, beside loops, and turned"
import math
from functools import partial
from inspect import signature
from pathlib import Path
import numpy as np, pytest, torch
from torch import tensor
from rotnb.ops.diff_iou import diff_iou_rotated
from rotnb.ops.iou import box_iou_rotated
from rotnb.targets.assign import IGN, NEG, atss_assign, shape_assign, shape_candidates
from rotnb.targets.dynamic_assign import aligned, dsl_assign, simota_assign, tal_assign
from rotnb.targets.priors import PointPriors, level_priors

DATA = np.load(Path(__file__).parent/'data'/'assigners.npz')

def scene(seed):
    "Points, levels, objects, and what the network says of them"
    names = 'priors','objects','boxes','scores','labels'
    priors,objects,boxes,scores,labels = (torch.from_numpy(DATA[f'{seed}/{name}']) for name in names)
    upright = lambda o: torch.cat([(o[:,:2]+o[:,2:])/2, o[:,2:]-o[:,:2], torch.zeros(len(o),1)], 1)
    points = torch.cat([priors, torch.zeros(len(priors),1)], 1)
    return points,points[:,2].log2().long()-3,upright(objects),dict(labels=labels, logits=scores.logit(), decoded=upright(boxes))

ASSIGNERS = dict(tal=partial(tal_assign, topk=5), tal_half=partial(tal_assign, topk=10, alpha=.5), simota=simota_assign, dsl=dsl_assign,
                 atss=lambda priors, boxes, ignore, lvls, **kw: atss_assign(priors, boxes, ignore, lvls, side=5.))

@pytest.mark.parametrize('name', ASSIGNERS)
def test_upright_objects_are_assigned_as_by_mmdetection(name):
    n = 0
    for seed in range(6):
        priors,lvls,boxes,said = scene(seed)
        want = torch.from_numpy(DATA[f'{seed}/{name}']).long()-1
        got = ASSIGNERS[name](priors, boxes, None, lvls, **said)
        assert torch.equal(got, want), (seed, (got!=want).nonzero()[:,0])
        n += (want>=0).sum()
    assert n>100

def turned(boxes, angle, about=80.):
    "Boxes turned about a middle"
    cos,sin = math.cos(angle),math.sin(angle)
    x,y = (boxes[:,:2]-about).unbind(1)
    return torch.cat([torch.stack([x*cos-y*sin, x*sin+y*cos], 1)+about, boxes[:,2:4], boxes[:,4:]+angle], 1)

@pytest.mark.parametrize('name', ['tal','tal_half','dsl','simota'])
def test_assigners_turn_with_the_scene(name):
    priors,lvls,boxes,said = scene(0)
    upright = ASSIGNERS[name](priors, boxes, None, lvls, **said)
    found = ASSIGNERS[name](turned(priors, .7), turned(boxes, .7), None, lvls, **{**said, 'decoded':turned(said['decoded'], .7)})
    assert (found==upright).float().mean()>.995                 # rounding moves a point on a side, or a tie
    assert (upright>=0).sum()>20

def test_thin_objects_need_a_width():
    priors,lvls = level_priors(PointPriors(), [(20,20),(10,10)], [8,16])
    lines = tensor([[60.,48.,50.,1.5,0.],[100.,100.,60.,1.,.3],[30.,120.,3.,3.,0.]])
    near = torch.cat([priors[:,:2], 2*priors[:,2:4], priors[:,4:]], 1)
    said = dict(labels=tensor([0,0,1]), logits=torch.zeros(len(priors), 2), decoded=near)
    assert tal_assign(priors, lines[[0,2]], **{**said, 'labels':tensor([0,1])}).max()==NEG
    found = tal_assign(priors, lines, radius=.75, **said)
    assert {0,1,2}<=set(found.tolist())
    wide = tal_assign(priors, tensor([[80.,80.,60.,50.,.2]]), radius=.75, **{**said, 'labels':tensor([0])})    # changes nothing of others
    assert torch.equal(wide, tal_assign(priors, tensor([[80.,80.,60.,50.,.2]]), **{**said, 'labels':tensor([0])})) and (wide==0).any()

def test_tal_by_another_overlap():
    priors,lvls,boxes,said = scene(1)
    ciou = tal_assign(priors, boxes, overlap=partial(diff_iou_rotated, mode='ciou'), **said)
    assert (ciou>=0).any() and set(ciou.tolist())!={NEG} and not torch.equal(ciou, tal_assign(priors, boxes, **said))

@pytest.mark.parametrize('bad', [dict(topk=0), dict(alpha=-1.), dict(beta='6'), dict(radius=-.5)])
def test_tal_names_settings_that_cannot_be_meant(bad):
    priors,_,boxes,said = scene(0)
    with pytest.raises(ValueError, match=f'tal_assign: {next(iter(bad))} is'): tal_assign(priors, boxes, **said, **bad)

# targets of scores

def test_aligned_targets_object_by_object():
    gen = torch.Generator().manual_seed(0)
    scores,overlaps,objects = torch.rand(60, generator=gen),torch.rand(60, generator=gen),torch.randint(0, 9, (60,), generator=gen)
    overlaps[objects==3] = 0.                                               # an object that nobody overlaps yet
    found = aligned(.5, 6.)(scores, overlaps, objects)
    for obj in range(9):
        t,u = scores[objects==obj]**.5*overlaps[objects==obj]**6,overlaps[objects==obj]
        want = t/t.max()*u.max() if u.max()>0 else torch.zeros_like(t)
        torch.testing.assert_close(found[objects==obj], want, rtol=1e-3, atol=1e-6)
    assert found.isfinite().all() and found.max()<=1

# YOLOv5's match, written as its rule is told: a cell, its two neighbours, the ratio of sides

STRIDES = 8,16,32
ANCHORS = ((10,13),(16,30),(33,23)),((30,61),(62,45),(59,119)),((116,90),(156,198),(373,326))

def anchors(w, h):
    rows,lvls = [],[]
    for level,(stride,shapes) in enumerate(zip(STRIDES, ANCHORS)):
        for row in range(h//stride):
            for col in range(w//stride):
                for shape in shapes: rows.append(((col+.5)*stride, (row+.5)*stride, *shape, 0.)); lvls.append(level)
    return tensor(rows),tensor(lvls)

def by_loop(boxes, w, h, ratio, reach):
    "Which object each anchor answers for"
    matched = []
    for stride,shapes in zip(STRIDES, ANCHORS):
        n_x,n_y = w//stride,h//stride
        best = {}
        for obj,(x,y,bw,bh,_) in enumerate(boxes.tolist()):
            x,y = min(max(x/stride, .5), n_x-.5),min(max(y/stride, .5), n_y-.5)        # a middle beyond the border is at its cell
            col,row = int(x),int(y)
            cells = [(col,row)]
            for at,cell,step in ((x,col,(1,0)),(y,row,(0,1))):
                if cell<=at<cell+reach: cells.append((col-step[0],row-step[1]))
                if cell+1-reach<at<cell+1: cells.append((col+step[0],row+step[1]))
            for cell in cells:
                if not (0<=cell[0]<n_x and 0<=cell[1]<n_y): continue
                for number,(aw,ah) in enumerate(shapes):
                    worst = max(bw/aw, aw/bw, bh/ah, ah/bh)
                    if worst<ratio: best.setdefault((cell[1],cell[0],number), []).append((worst, obj))
        matched += [min(best[row,col,number])[1] if (row,col,number) in best else NEG
                    for row in range(n_y) for col in range(n_x) for number in range(3)]
    return tensor(matched)

@pytest.mark.parametrize('ratio,reach', [(4.,.5),(2.,.5),(4.,1.)])
def test_shapes_are_matched_as_by_a_loop(ratio, reach):
    rng = np.random.default_rng(3)
    priors,lvls = anchors(160, 96)
    for _ in range(4):
        boxes = np.concatenate([rng.uniform(0, (160,96), (12,2)), np.exp(rng.uniform(2, 5, (12,2))), np.zeros((12,1))], 1)
        boxes[0,:2],boxes[1,:2] = (-5,30),(170.,99.)                        # middles beyond the border
        boxes[:,2:4] = np.sort(boxes[:,2:4], 1)[:,::-1]                     # as 'le90' spells them
        boxes = tensor(boxes, dtype=torch.float)
        got = shape_assign(priors, boxes, lvls=lvls, ratio=ratio, reach=reach)
        assert torch.equal(got, by_loop(boxes, 160, 96, ratio, reach)) and (got>=0).sum()>20

def test_shapes_are_compared_in_canonical_form():
    priors,lvls = anchors(96, 96)
    box = tensor([[40.,44.,60.,12.,.3]])
    swapped = tensor([[40.,44.,12.,60.,.3-math.pi/2]])
    assert torch.equal(shape_assign(priors, box, lvls=lvls, ratio=3.), shape_assign(priors, swapped, lvls=lvls, ratio=3.))
    assert not torch.equal(shape_assign(priors, box, lvls=lvls, ratio=3., angle='le135').ge(0),
                           shape_assign(priors, tensor([[40.,44.,60.,12.,2.]]), lvls=lvls, ratio=3., angle='oc').ge(0))

def test_simota_among_shapes():
    priors,lvls = anchors(96, 96)
    boxes = tensor([[40.,44.,60.,30.,0.],[70.,20.,20.,14.,0.]])
    gen = torch.Generator().manual_seed(0)
    decoded = priors+torch.randn(priors.shape, generator=gen)*tensor([2.,2.,2.,2.,0.])
    said = dict(labels=tensor([0,1]), logits=torch.randn(len(priors), 2, generator=gen), decoded=decoded)
    fits = shape_candidates(priors, boxes, lvls)
    found = simota_assign(priors, boxes, lvls=lvls, candidates=shape_candidates, **said)
    assert {0,1}<=set(found.tolist()) and fits[found>=0].any(1).all()
    # the same by a loop over the costs
    at = fits.any(1).nonzero()[:,0]
    iou,p = box_iou_rotated(decoded[at], boxes),said['logits'][at].sigmoid().sqrt()
    cost = torch.stack([-p[:,j].log()-(1-p[:,1-j]).log() for j in range(2)], 1) - 3*(iou+1e-7).log()
    k = [max(1, int(iou[:,j].topk(min(10, len(at)))[0].sum())) for j in range(2)]
    takers = [set(cost[:,j].argsort()[:k[j]].tolist()) for j in range(2)]
    want = torch.full((len(priors),), NEG)
    for i in range(len(at)):
        own = [j for j in range(2) if i in takers[j]]
        if own: want[at[i]] = own[0] if len(own)==1 else int(cost[i].argmin())
    assert torch.equal(found, want)

@pytest.mark.parametrize('assigner', [shape_assign, partial(atss_assign, side=5.), tal_assign, simota_assign, dsl_assign])
def test_nothing_ignored_and_broken(assigner):
    priors,lvls,boxes,said = scene(2)
    if 'labels' not in signature(assigner).parameters: said = {}
    def run(n, ignore=None, boxes=boxes):
        return assigner(priors, boxes[:n], ignore, lvls, **{name:part[:n] if name=='labels' else part for name,part in said.items()})
    assert run(0).eq(NEG).all()
    only = run(3, tensor([True,False,True]))
    assert set(only.tolist())<={1,NEG,IGN} and (only==IGN).any()
    broken = boxes.clone()
    broken[0] = math.nan
    assert 0 not in run(3, boxes=broken).tolist()
    none = {name:part if name=='labels' else part[:0] for name,part in said.items()}
    assert len(assigner(priors[:0], boxes, None, lvls[:0], **none))==0
