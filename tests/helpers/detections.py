"Detections and ground truth that tests evaluate, and what an accumulator makes of them"
import numpy as np, torch
from hypothesis import settings, strategies as st
from rotnb.evaluate import APAccumulator
from rotnb.geometry.boxes import qbox2rbox
from rotnb.ops.iou import box_iou_rotated


def scenes(n_img=5, n_gt=20, n_det=40, n_cls=3, seed=0, rounded=False):
    "Crowded random scenes; `rounded` scores make ties"
    r,ps,ts = np.random.default_rng(seed),[],[]
    for _ in range(n_img):
        g,lab = r.random((n_gt,5))*[150,150,60,30,3]+[0,0,20,10,-1.5],r.integers(0,n_cls,n_gt)
        i = r.integers(0,max(n_gt,1),n_det) if n_gt else np.zeros(0,int)
        s = r.random(len(i)); s = s.round(1) if rounded else s
        ps.append(dict(boxes=g[i]+r.normal(0,1,(len(i),5))*[3,3,3,2,.2], scores=s,
                       labels=np.where(r.random(len(i))<.7, lab[i], r.integers(0,n_cls,len(i)))))
        ts.append(dict(boxes=g, labels=lab, ignore=r.random(n_gt)<.15))
    return ps,ts

def accumulate(ps, ts, n=3, **kw):
    acc = APAccumulator(n, **kw); acc.add(ps, ts)
    return acc

sets = st.builds(scenes, st.integers(1,4), st.integers(0,12), st.integers(0,25), st.just(3), st.integers(0,10**6), st.booleans())
fast = settings(max_examples=25, deadline=None)


def shares_right(found, annot, iou_thr=.5):
    "Share of an image's objects, but for difficult ones, that `Detections` hold, and share of the detections that are right"
    same = torch.tensor(np.array(annot.names)[:,None]==np.array(found.names))
    hits = same & (box_iou_rotated(qbox2rbox(torch.as_tensor(annot.quads)), found.boxes.float())>=iou_thr)
    return hits.any(1)[torch.as_tensor(annot.difficult)==0].float().mean().item(),hits.any(0).float().mean().item()
