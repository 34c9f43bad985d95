"What pycocotools makes of the same detections"
import numpy as np, pytest


def coco_objects(ps, ts, k):
    "Ground truth and detections of upright boxes as its objects"
    from pycocotools.coco import COCO
    xywh = lambda b: [b[0]-b[2]/2, b[1]-b[3]/2, b[2], b[3]]
    anns = [dict(image_id=i+1, category_id=int(l)+1, bbox=xywh(b), area=b[2]*b[3], iscrowd=int(c))
            for i,t in enumerate(ts) for b,l,c in zip(t['boxes'],t['labels'],t['ignore'])]
    gt = COCO(); gt.dataset = dict(info={}, images=[dict(id=i+1) for i in range(len(ts))], categories=[dict(id=c+1) for c in range(k)],
                                   annotations=[dict(a, id=i+1) for i,a in enumerate(anns)]); gt.createIndex()
    dt = gt.loadRes([dict(image_id=i+1, category_id=int(l)+1, bbox=xywh(b), score=s)
                     for i,p in enumerate(ps) for b,s,l in zip(p['boxes'],p['scores'],p['labels'])])
    return gt,dt

def coco(ps, ts, k, levels=None, own_crowd=False):
    "(10, k, 4) AP by class and size as pycocotools has it; `own_crowd`: crowds measured as it does, by the share of the detection"
    pytest.importorskip('pycocotools')
    from pycocotools import mask
    from pycocotools.cocoeval import COCOeval
    class IoU(COCOeval):
        def computeIoU(self, img, cat):
            d,g = self._dts[img,cat],self._gts[img,cat]; d = [d[i] for i in np.argsort([-o['score'] for o in d], kind='mergesort')]
            return mask.iou([o['bbox'] for o in d], [o['bbox'] for o in g], [0]*len(g)) if d and g else []
    gt,dt = coco_objects(ps, ts, k)
    e = (COCOeval if own_crowd else IoU)(gt, dt, 'bbox'); e.params.maxDets = [10**6]
    if levels is not None: e.params.recThrs = levels
    e.evaluate(); e.accumulate()
    ap = e.eval['precision'][:,:,:,:,0].mean(1); ap[ap<0] = np.nan
    return ap
