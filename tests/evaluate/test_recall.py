"COCO's twelve numbers against pycocotools, with crowds, sizes and limits; proposals of a detector"
import numpy as np, pytest, torch
from rotnb.evaluate import APAccumulator
from rotnb.evaluate.recall import average_recall, coco_summary, proposal_recall
from rotnb.models import create_detector
from coco_eval import coco_objects, flat_boxes

def stats(ps, ts, k, use_cats=1, limits=(1,10,100)):
    "The twelve numbers of pycocotools"
    cocoeval = pytest.importorskip('pycocotools.cocoeval')
    evaluation = cocoeval.COCOeval(*coco_objects(ps, ts, k), 'bbox')
    evaluation.params.useCats,evaluation.params.maxDets = use_cats,list(limits)
    evaluation.evaluate(); evaluation.accumulate()
    if limits==(1,10,100): evaluation.summarize(); return np.where(evaluation.stats<0, np.nan, evaluation.stats)
    recall = evaluation.eval['recall'][:,:,0]
    return np.array([recall[...,i][recall[...,i]>-1].mean() for i in range(len(limits))])

@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('crowds', [0, .2])
def test_twelve_numbers_are_those_of_pycocotools(seed, crowds):
    ps,ts = flat_boxes(n_gt=(60,90,80,0,20), seed=seed)
    rng = np.random.default_rng(seed)
    ts = [{**t, 'ignore':rng.random(len(t['labels']))<crowds} for t in ts]
    acc = APAccumulator(5)
    acc.add(ps, ts)
    ours,theirs = coco_summary(acc),stats(ps, ts, 5)
    assert np.isfinite(theirs).sum()>=10 and .05<ours['AR1']<ours['AR10']<ours['AR100']
    np.testing.assert_allclose(ours, theirs, atol=1e-6)

def test_proposals_are_those_of_pycocotools_without_classes():
    ps,ts = flat_boxes(n_gt=(60,90,80,0,20), seed=3)
    ps = [{**p, 'scores':np.linspace(1, .1, len(p['scores'])), 'labels':p['labels']*0} for p in ps]
    ts = [{**t, 'labels':t['labels']*0} for t in ts]
    ours = proposal_recall([p['boxes'] for p in ps], ts, (1,10,30), by=None)
    np.testing.assert_allclose(ours, stats(ps, ts, 1, 0, (1,10,30)), atol=1e-6)

def test_proposals_of_a_detector():
    model = create_detector('faster_rcnn', 3, backbone='test_resnet', fpn_channels=16, feat_channels=16, fc_channels=16).eval()
    with torch.no_grad():
        out = model.stages[0](model.neck(model.backbone(torch.randn(2, 3, 64, 64))))._replace(size_hw=(64,64))
        boxes = model.stages[0].boxes(out)
    targets = [dict(boxes=np.array([[32.,32.,40.,40.,0.]]), labels=[1]), dict(boxes=boxes[1,:1].numpy(), labels=[2])]
    found = proposal_recall(boxes, targets, (1,1000), by=None)
    assert .5<=found['AR1']<=found['AR1000']<=1

def test_turned_boxes_count_too():
    boxes = np.array([[20.,20,30,6,.7],[60,60,30,6,-.7]])
    acc = APAccumulator(1)
    acc.add([dict(boxes=boxes*[1,1,1,1,-1], scores=[.9,.8], labels=[0,0])], [dict(boxes=boxes, labels=[0,0])])
    assert average_recall(acc, 10).loc['all','AR10']==0
