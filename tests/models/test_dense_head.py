"What settings of a dense stage change: qualities, averages, candidates, and levels with layers of their own"
import math
from functools import partial
import pytest, torch
import torch.nn.functional as F
from torch import nn, tensor
from rotnb.losses.focal import quality_focal_loss
from rotnb.models import create_detector
from rotnb.models.dense_head import DenseHead
from rotnb.models.rtmdet import LevelHead, RTMDetHead
from rotnb.ops.iou import box_iou_rotated
from rotnb.targets.angle_coders import PSCAngle
from rotnb.targets.assign import IGN, NEG, atss_assign, max_iou_assign
from rotnb.targets.coders import DeltaXYWHACoder, DistanceAngleCoder
from rotnb.targets.dynamic_assign import aligned, tal_assign
from rotnb.targets.priors import AnchorPriors, PointPriors

K = 3
OBJECTS = dict(boxes=tensor([[20.,20.,24.,12.,.4],[44.,40.,30.,20.,-.7]]), labels=tensor([0,2]))
SECOND = dict(boxes=tensor([[30.,34.,20.,16.,1.],[34.,30.,52.,44.,.1]]), labels=tensor([1,0]))

def feats(seed=0): return [torch.randn(2, 16, n, n, generator=torch.Generator().manual_seed(seed+n)) for n in (8,4)]

def make(kind=DenseHead, assigner=max_iou_assign, coder=None, seed=1, **kw):
    torch.manual_seed(seed)
    return kind(K, 16, AnchorPriors(3., 1, (1.,.5)), coder or DeltaXYWHACoder(), assigner, **{**dict(
        strides=(8,16), feat_channels=16, stacked_convs=1), **kw})

def stirred(head, seed=2):
    "Its answers, with a spread as of a network that has learnt something"
    out,gen = head(feats()),torch.Generator().manual_seed(seed)
    spread = lambda o, by: o.detach() + by*torch.randn(o.shape, generator=gen)
    return out._replace(logits=spread(out.logits, 2.), deltas=spread(out.deltas, .2),
                        quality=None if out.quality is None else spread(out.quality, 2.))

def positives(head, out, targets):
    "Matches, and of each positive: image, prior, object, level, IoU of its box"
    matched = head.assign(out, targets)
    rows = []
    for img,pri in (matched>=0).nonzero().tolist():
        obj = matched[img,pri].item()
        box = head.coder.decode(out.priors[img,pri][None], out.deltas[img,pri][None])
        rows.append((img, pri, obj, out.lvls[pri].item(), box_iou_rotated(box, targets[img]['boxes'][obj][None])[0,0].item()))
    return matched,rows

bce = lambda logit, p: F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, p)).item()

@pytest.mark.parametrize('object_iou', [True,False])
@pytest.mark.parametrize('average_by', ['level','batch'])
def test_objectness_is_learnt_everywhere_and_classes_on_positives(object_iou, average_by):
    head = make(quality='objectness', object_iou=object_iou, average_by=average_by, quality_weight=(4.,.5), loss_box='l1', cls_weight=.7)
    targets = [OBJECTS,SECOND]
    out = stirred(head)
    matched,rows = positives(head, out, targets)
    assert len(rows)>4 and {row[3] for row in rows}=={0,1} and (matched==IGN).any()
    iou_at = {row[:2]:row[4] for row in rows}
    n_pos = {level:sum(row[3]==level for row in rows) for level in (0,1)}
    n_all = {level:(matched[:,out.lvls==level]!=IGN).sum().item() for level in (0,1)}
    cls = box = there = 0.
    for img,pri,obj,level,iou in rows:
        over = n_pos[level] if average_by=='level' else len(rows)
        label = targets[img]['labels'][obj].item()
        want = 1. if object_iou else iou
        cls += .7*sum(bce(out.logits[img,pri,k], want if k==label else 0.) for k in range(K))/over/(K if average_by=='level' else 1)
        code = head.coder.encode(out.priors[img,pri][None], targets[img]['boxes'][obj][None])
        box += (code-out.deltas[img,pri]).abs().sum().item()/over
    for img,pri in (matched!=IGN).nonzero().tolist():
        level,want = out.lvls[pri].item(),iou_at.get((img,pri))
        want = 0. if want is None else want if object_iou else 1.
        there += (4.,.5)[level]*bce(out.quality[img,pri], want)/(n_all[level] if average_by=='level' else len(rows))
    losses = head.loss(out, targets)
    got = [losses[term].mean().item() for term in ('loss_cls','loss_quality','loss_box')]
    assert got==pytest.approx([cls,there,box], rel=1e-4)

def test_objectness_decides_on_answers_and_assignment():
    seen = {}
    def look(priors, boxes, ignore=None, lvls=None, *, logits):
        seen['logits'] = logits
        return torch.full((len(priors),), NEG)
    head = make(quality='objectness', score_thr=.003, assigner=look, iou_thr=1., coder=DeltaXYWHACoder())
    out = stirred(head)
    score = out.logits.sigmoid()*out.quality.sigmoid()[...,None]
    found = head.detect(out)
    for i,one in enumerate(found):
        want = score[i][score[i]>.003].sort(descending=True)[0]
        torch.testing.assert_close(one['scores'], want)
        assert len(want)>3
    head.assign(out, [OBJECTS,SECOND])
    torch.testing.assert_close(seen['logits'].sigmoid(), score[1])

def test_aligned_quality_teaches_classes_and_weighs_boxes():
    head = make(assigner=partial(max_iou_assign, pos=.3, neg=.2), quality=aligned(.5, 2.), loss_box='l1', loss_sides='l1', loss_angle='l1')
    targets = [OBJECTS,SECOND]
    out = stirred(head)
    matched,rows = positives(head, out, targets)
    by_object = {}
    for img,pri,obj,_,iou in rows:
        t = out.logits[img,pri,targets[img]['labels'][obj]].sigmoid().item()**.5 * iou**2
        by_object.setdefault((img,obj), []).append((pri, t, iou))
    target = {(img,pri):t/max(o[1] for o in own)*max(o[2] for o in own) for (img,_),own in by_object.items() for pri,t,_ in own}
    assert len(target)>5 and len(by_object)>2
    total = max(1., sum(target.values()))
    labels,quality = torch.full(matched.shape, K),torch.zeros(matched.shape)
    sides = 0.
    for img,pri,obj,*_ in rows:
        labels[img,pri],quality[img,pri] = targets[img]['labels'][obj],target[img,pri]
        code = head.coder.encode(out.priors[img,pri][None], targets[img]['boxes'][obj][None])
        sides += target[img,pri]*(code-out.deltas[img,pri])[:,:4].abs().sum().item()/total
    cls = (quality_focal_loss(out.logits.flatten(0,1), labels.flatten(), quality.flatten())*(matched!=IGN).flatten()).sum()/total
    losses = head.loss(out, targets)
    assert losses['loss_cls'].mean().item()==pytest.approx(cls.item(), rel=1e-4)
    assert losses['loss_sides'].mean().item()==pytest.approx(sides, rel=1e-4)
    torch.testing.assert_close(losses['loss_box'], losses['loss_sides'])          # 'deltas' beside loss_angle: the sides alone

def test_levels_have_means_of_their_own():
    head = make(average_by='level', loss_box='l1')
    out,targets = stirred(head),[OBJECTS,SECOND]
    matched,rows = positives(head, out, targets)
    want = 0.
    for level in (0,1):
        on = [head.coder.encode(out.priors[img,pri][None], targets[img]['boxes'][obj][None])-out.deltas[img,pri]
              for img,pri,obj,lvl,_ in rows if lvl==level]
        want += torch.cat(on).abs().sum(1).mean().item()
    assert head.loss(out, targets)['loss_box'].mean().item()==pytest.approx(want, rel=1e-5)
    nothing = head.loss(out, [dict(boxes=torch.zeros(0,5), labels=torch.zeros(0, dtype=torch.long))]*2)
    assert all(loss.isfinite().all() for loss in nothing.values()) and nothing['loss_box'].eq(0).all()

def test_candidates_of_an_image_and_one_class_a_box():
    out = stirred(make())
    scores = out.logits.sigmoid()
    few = dict(score_thr=0., iou_thr=1., nms_pre=5)
    def found(**kw): return make(**few, **kw).detect(out)[0]
    best = scores[0].flatten().sort(descending=True)[0]
    torch.testing.assert_close(found(nms_pre_by='image')['scores'], best[:5])
    assert len(found()['scores'])==10
    one = found(nms_pre_by='image', multi_label=False)
    top,labels = scores[0].max(1)
    order = top.argsort(descending=True)[:5]
    torch.testing.assert_close(one['scores'], top[order]); assert torch.equal(one['labels'], labels[order])
    both = found(nms_pre_by='image', multi_label=False, nms_pre_of='priors')
    assert torch.equal(both['labels'], one['labels'])

@pytest.mark.parametrize('bad,says', [(dict(quality='iuo'), 'quality'), (dict(average_by='levels'), 'average_by'),
                                      (dict(nms_pre_by='batch'), 'nms_pre_by')])
def test_wrong_settings_are_named(bad, says):
    with pytest.raises(ValueError, match=says): make(**bad)

def test_a_stage_whose_quality_is_taken_away_for_a_time():
    "What `EarlyAssigner` does, both ways"
    targets = [OBJECTS,SECOND]
    for quality in ('iou', aligned()):
        head = make(quality=quality)
        before = head.loss(head(feats()), targets)
        head.quality,head.assigner = None,partial(max_iou_assign, pos=.4, neg=.4)
        assert all(loss.isfinite().all() for loss in head.loss(head(feats()), targets).values())
        head.quality,head.assigner = 'iou',atss_assign
        assert all(loss.isfinite().all() for loss in head.loss(head(feats()), targets).values())
        head.quality,head.assigner = quality,max_iou_assign
        after = head.loss(head(feats()), targets)
        assert all(torch.equal(before[term], after[term]) for term in before)

# levels with layers of their own

HEADS = dict(rtmdet=dict(kind=RTMDetHead, quality='iou'), yolo5=dict(stacked_convs=0, quality='objectness', average_by='level'),
             yolox=dict(stem=partial(nn.Conv2d, out_channels=16, kernel_size=1), quality='objectness', object_iou=False),
             yolo8=dict(quality=aligned(.5), widths=(24,(16,12)), stacked_convs=2),
             gated=dict(stacked_convs=0, kernel=3, stem=(nn.BatchNorm2d,nn.BatchNorm2d), quality=aligned(), scales=True))

@pytest.mark.parametrize('name', HEADS)
def test_every_layout_learns_and_answers(name):
    head = make(**{**dict(kind=LevelHead, loss_box='l1', assigner=tal_assign if 'yolo8' in name else max_iou_assign), **HEADS[name]})
    losses = head.loss(head(feats()), [OBJECTS,SECOND])
    sum(loss.mean() for loss in losses.values()).backward()
    for key,p in head.named_parameters(): assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum()>0, key
    assert len(head.eval().detect(head(feats())))==2
    again = make(seed=5, **{**dict(kind=LevelHead, loss_box='l1'), **HEADS[name]})
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.eval()(feats()).logits, head(feats()).logits)

def test_levels_of_different_widths():
    kw = dict(strides=(8,16), feat_channels=16, stacked_convs=1, quality='iou')
    head = LevelHead(K, (8,24), PointPriors(), DistanceAngleCoder(), tal_assign, **kw)
    maps = [torch.randn(1,8,8,8),torch.randn(1,24,4,4)]
    assert head(maps).logits.shape==(1,80,K)
    with pytest.raises(ValueError, match='cannot share'):
        LevelHead(K, (8,24), PointPriors(), DistanceAngleCoder(), tal_assign, share='convs', **kw)
    with pytest.raises(ValueError, match='share'): make(LevelHead, share='norms')

def test_rtmdet_keeps_its_names():
    names = set(create_detector('rtmdet_r_tiny', 2, backbone='test_resnet', fpn_channels=16, strides=(8,16)).stages[0].state_dict())
    norms = {f'norms.{level}.{i}.{part}' for level in range(2) for i in range(2)
             for part in ('weight','bias','running_mean','running_var','num_batches_tracked')}
    want = {f'{branch}_tower.{rest}' for branch in ('cls','box') for rest in norms | {'convs.0.weight','convs.1.weight'}}
    assert names==want | {f'{branch}.{level}.{part}' for branch in ('cls','box') for level in range(2) for part in ('weight','bias')}

# what it is for

def paint(boxes, labels, size=96):
    "An image on which each object is a rectangle in its class's colour, brighter in front"
    y,x = torch.meshgrid(torch.arange(size)+.5, torch.arange(size)+.5, indexing='ij')
    image = torch.zeros(3, size, size)
    for (cx,cy,w,h,theta),label in zip(boxes.tolist(), labels.tolist()):
        u,v = (x-cx)*math.cos(theta)+(y-cy)*math.sin(theta),(y-cy)*math.cos(theta)-(x-cx)*math.sin(theta)
        image[label] += ((u.abs()<w/2) & (v.abs()<h/2)).float()*(2+u/w)
    return image

@pytest.mark.slow
@pytest.mark.parametrize('name,kw', [
    ('tal', dict(assigner=partial(tal_assign, topk=10, radius=.5), quality=aligned())),
    ('tal_psc', dict(assigner=tal_assign, quality=aligned(), angle_coder=PSCAngle(), loss_angle='l1'))])
def test_two_pictures_are_learnt_by_heart(name, kw):
    targets = [dict(boxes=tensor([[30.,40.,44.,20.,.4],[70.,64.,24.,20.,-.7]]), labels=tensor([0,1])),
               dict(boxes=tensor([[50.,50.,60.,16.,-1.]]), labels=tensor([2]))]
    images = torch.stack([paint(**target) for target in targets])
    torch.manual_seed(0)
    det = create_detector('rtmdet_r_tiny', 3, backbone='test_resnet', fpn_channels=24, strides=(8,16), act='exp', **kw)
    opt = torch.optim.AdamW(det.parameters(), 4e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(opt, 8e-3, total_steps=120)
    for _ in range(120):
        opt.zero_grad()
        sum(det(images, targets).values()).backward()
        opt.step(); rate.step()
    for found,target in zip(det.eval()(images), targets):
        iou = box_iou_rotated(target['boxes'], found['boxes'])*(target['labels'][:,None]==found['labels'])*(found['scores']>.3)
        assert (iou.amax(1)>.85).all(), iou.amax(1)
