"Masks: run lengths and average precision against pycocotools"
import numpy as np, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from rotnb.evaluate import APAccumulator, eval_map
from rotnb.evaluate.masks import mask_iou
from rotnb.evaluate.recall import coco_summary
from rotnb.geometry.fit import from_masks
from rotnb.geometry.outlines import mask_rle, rle_counts, rle_mask

few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
tools = lambda: pytest.importorskip('pycocotools.mask')

@given(st.integers(0, 2**31-1), st.integers(1, 70), st.integers(1, 70), st.floats(0, 1))
@few
def test_run_lengths_are_those_of_pycocotools(seed, h, w, density):
    mask = np.random.default_rng(seed).random((h,w))<density
    theirs = tools().encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = mask_rle(mask)
    assert ours['counts']==theirs['counts'].decode() and ours['size']==theirs['size']
    assert (rle_mask(theirs)==mask).all() and (rle_mask(mask_rle(mask, compressed=False))==mask).all()
    assert (tools().decode(ours)==mask).all()

def blobs(rng, n, size_hw):
    y,x = np.mgrid[:size_hw[0],:size_hw[1]]
    for _ in range(n):
        cx,cy,a,b,t = *(rng.random(2)*size_hw[::-1]),*(2.**(rng.random(2)*4+1.5)),rng.random()*3
        u,v = (x+.5-cx)*np.cos(t)+(y+.5-cy)*np.sin(t),(y+.5-cy)*np.cos(t)-(x+.5-cx)*np.sin(t)
        yield (u/a)**2+(v/b)**2<1

def scenes(seed, n_img=6, n_classes=3, crowds=0., size_hw=(110,130)):
    "Blobs, and detections that are shifted, some of another class; scores with ties"
    rng,preds,targets = np.random.default_rng(seed),[],[]
    for _ in range(n_img):
        gts = [mask for mask in blobs(rng, 9, size_hw) if mask.any()]
        labels = rng.integers(0, n_classes, len(gts))
        pick = rng.integers(0, len(gts), 20)
        dets = [np.roll(gts[i], rng.integers(-2, 3, 2), (0,1)) for i in pick]
        box = lambda masks: np.nan_to_num(from_masks(masks)[0])
        preds.append(dict(boxes=box(dets), masks=dets, scores=rng.integers(1, 12, 20)/12,
                          labels=np.where(rng.random(20)<.8, labels[pick], 0)))
        targets.append(dict(boxes=box(gts), masks=gts, labels=labels, ignore=rng.random(len(gts))<crowds))
    return preds,targets

def stats(preds, targets, n_classes):
    "The twelve numbers of pycocotools, and AP by threshold and class"
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    def entry(i, mask, label, **more): return dict(image_id=i+1, category_id=int(label)+1, segmentation=mask_rle(mask), **more)
    anns = [entry(i, m, l, iscrowd=int(c), area=int(m.sum()), bbox=[0,0,1,1])
            for i,t in enumerate(targets) for m,l,c in zip(t['masks'], t['labels'], t['ignore'])]
    gt = COCO()
    images = [dict(id=i+1, height=110, width=130) for i in range(len(targets))]
    gt.dataset = dict(info={}, images=images, categories=[dict(id=c+1) for c in range(n_classes)],
                      annotations=[dict(a, id=i+1) for i,a in enumerate(anns)])
    gt.createIndex()
    dt = gt.loadRes([entry(i, m, l, score=s) for i,p in enumerate(preds) for m,l,s in zip(p['masks'], p['labels'], p['scores'])])
    evaluation = COCOeval(gt, dt, 'segm')
    evaluation.evaluate(); evaluation.accumulate(); evaluation.summarize()
    ap = evaluation.eval['precision'][:,:,:,0,2].mean(1)
    return np.where(evaluation.stats<0, np.nan, evaluation.stats),np.where(ap<0, np.nan, ap)

@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('crowds', [0, .2])
def test_mask_ap_is_that_of_pycocotools(seed, crowds):
    tools()
    preds,targets = scenes(seed, crowds=crowds)
    acc = APAccumulator(3, iou=mask_iou)
    acc.add(preds, targets)
    twelve,ap = stats(preds, targets, 3)
    assert np.isfinite(twelve).sum()>=10 and .1<twelve[0]<.95
    np.testing.assert_allclose(coco_summary(acc), twelve, atol=1e-6)
    np.testing.assert_allclose(acc.compute(protocol='coco').aps, ap, atol=1e-6)

def test_masks_of_any_form_give_one_answer():
    preds,targets = scenes(5)
    one = eval_map(preds, targets, iou=mask_iou, metric='coco')
    tensors = [{**p, 'masks':torch.from_numpy(np.stack(p['masks']))} for p in preds]
    runs = [{**t, 'masks':[mask_rle(mask) for mask in t['masks']]} for t in targets]
    assert .1<one.map<1 and eval_map(tensors, runs, iou=mask_iou, metric='coco').map==one.map

def test_iou_of_pycocotools():
    preds,targets = scenes(7, 1)
    encode = lambda masks: [mask_rle(mask) for mask in masks]
    theirs = tools().iou(encode(preds[0]['masks']), encode(targets[0]['masks']), [0]*len(targets[0]['masks']))
    np.testing.assert_allclose(mask_iou(preds[0]['masks'], targets[0]['masks']), theirs, atol=1e-12)

@pytest.mark.parametrize('change, text', [(dict(masks=None), "preds have no 'masks'"), (dict(masks=np.zeros((1,4,4))), 'one per box'),
                                          (dict(masks=[np.zeros((4,4))]*20), 'one size')])
def test_mistakes_are_named(change, text):
    preds,targets = scenes(1, 1)
    with pytest.raises(ValueError, match=text): eval_map([{**preds[0], **change}], targets, iou=mask_iou)
