"What pycocotools makes of the same detections"
import numpy as np, pytest


def flat_boxes(n_img=12, n_gt=(23,37,41,0,9), n_det=60, seed=0, levels=20):
    "Upright boxes of five classes, one of them without truth; scores of few levels, so that many are equal"
    r,k = np.random.default_rng(seed),len(n_gt)
    lab = np.repeat(np.arange(k), n_gt); img = r.integers(0, n_img-1, len(lab))      # the last image has no truth
    g = np.concatenate([r.random((len(lab),2))*250, 2.**(r.random((len(lab),2))*4+3), np.zeros((len(lab),1))], 1)
    ps,ts = [],[]
    for i in range(n_img):
        m = img==i; pick = r.integers(0, max(m.sum(),1), n_det if m.any() else 5)
        b = g[m][pick]+r.normal(0,1,(len(pick),5))*[3,3,0,0,0] if m.any() else r.random((5,5))*[250,250,40,40,0]+[0,0,5,5,0]
        b[:,2:4] *= np.exp(r.normal(0,.15,(len(b),2)))
        own = lab[m][pick] if m.any() else np.zeros(5,int)
        scores = r.integers(1,levels+1,len(b))/levels
        ps.append(dict(boxes=b, scores=scores, labels=np.where(r.random(len(b))<.8, own, r.integers(0,k,len(b)))))
        ts.append(dict(boxes=g[m], labels=lab[m], ignore=np.zeros(m.sum(),bool)))
    return ps,ts

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
