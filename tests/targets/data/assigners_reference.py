"""What MMDetection's assigners answer on upright boxes, as a small file for tests/targets/test_assigners.py.

Run with an environment that has MMDetection 3.1 (and its operators):

    python assigners_reference.py OUT.npz

It is no test, and nothing imports it."""
import sys
import numpy as np, torch
import mmcv.ops
from mmengine.structures import InstanceData
from mmdet.registry import TASK_UTILS
from mmdet.utils import register_all_modules

STRIDES,SIZE,K = (8,16,32),160,4

def scene(seed):
    "Points, upright objects, and a network that has seen the objects from the points within them"
    rng = np.random.default_rng(seed)
    xy = [(np.stack(np.meshgrid(*[np.arange(SIZE//stride)]*2), -1).reshape(-1,2)+.5)*stride for stride in STRIDES]
    priors = np.concatenate([np.concatenate([at, np.full_like(at, stride)], 1) for at,stride in zip(xy, STRIDES)])
    wh = rng.uniform(14, 70, (7,2))
    objects = np.concatenate([(low:=rng.uniform(4, SIZE-wh-4)), low+wh], 1)
    labels,scores = rng.integers(0, K, 7),rng.uniform(.01, .99, (len(priors),K))
    boxes = np.concatenate([priors[:,:2]+1000, priors[:,:2]+1010], 1)                # of points in nothing: far away
    inside = ((priors[:,None,:2]>objects[:,:2]+.02) & (priors[:,None,:2]<objects[:,2:]-.02)).all(-1)
    for i in np.flatnonzero(inside.any(1)): boxes[i] = objects[rng.choice(np.flatnonzero(inside[i]))]+rng.normal(0, 4, 4)
    return [torch.tensor(o, dtype=torch.float32) for o in (priors, objects, boxes, scores)]+[torch.tensor(labels)]

def answers(priors, objects, boxes, scores, labels):
    """What each assigner answers: the object of each prior, 0 for none. TaskAlignedAssigner takes the best of all points and then
    those inside; with `inner` the best of those inside, as YOLOv6 and PPYOLOE do"""
    gt = InstanceData(bboxes=objects, labels=labels)
    def sides(n): return torch.cat([priors[:,:2]-n*priors[:,2:]/2, priors[:,:2]+n*priors[:,2:]/2], 1)
    inside = ((priors[:,None,:2]>objects[:,:2]) & (priors[:,None,:2]<objects[:,2:])).all(-1)
    def run(priors, scores, *first, kw={}, inner=False, **assigner):
        pred,assigner = InstanceData(priors=priors, bboxes=boxes, scores=scores),TASK_UTILS.build(assigner)
        if inner: assigner.iou_calculator = lambda a, b, own=assigner.iou_calculator: own(a, b)*inside
        return assigner.assign(pred, *first, gt, **kw).gt_inds.numpy()
    counts = [(SIZE//stride)**2 for stride in STRIDES]
    return dict(tal=run(sides(1), scores, type='TaskAlignedAssigner', topk=5, kw=dict(alpha=1, beta=6)),
                tal_half=run(sides(1), scores, type='TaskAlignedAssigner', topk=10, inner=True, kw=dict(alpha=.5, beta=6)),
                simota=run(priors, scores.sqrt(), type='SimOTAAssigner'), dsl=run(priors, scores.logit(), type='DynamicSoftLabelAssigner'),
                atss=run(sides(5), scores, counts, type='ATSSAssigner', topk=9))

if __name__=='__main__':
    register_all_modules()
    data = {}
    for seed in range(6):
        given = scene(seed)
        data |= {f'{seed}/{name}':part.numpy() for name,part in zip(('priors','objects','boxes','scores','labels'), given)}
        data |= {f'{seed}/{name}':found.astype(np.int8) for name,found in answers(*given).items()}
    np.savez_compressed(sys.argv[1], **data)
