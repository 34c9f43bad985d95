"Average precision against a plain loop written from the rules, and against MMRotate's figures"
import os
from pathlib import Path

import numpy as np, pytest, torch
from rotnb.evaluate.ap import COCO_IOUS, APAccumulator, average_precision, eval_map
from rotnb.ops.iou import box_iou_rotated

SHARED = Path(os.environ.get('ROTNB_SHARED', Path(__file__).parents[2]/'shared'))

def scenes(n_img=6, n_gt=25, n_det=70, n_cls=4, seed=0):
    r,ps,ts = np.random.default_rng(seed),[],[]
    for _ in range(n_img):
        g,lab = r.random((n_gt,5))*[150,150,60,30,3]+[0,0,20,10,-1.5],r.integers(0,n_cls,n_gt)
        i = r.integers(0,n_gt,n_det)
        ps.append(dict(boxes=g[i]+r.normal(0,1,(n_det,5))*[3,3,3,2,.1], scores=r.permutation(n_det)/n_det+r.random(n_det)*1e-3, labels=np.where(r.random(n_det)<.8, lab[i], r.integers(0,n_cls,n_det))))
        ts.append(dict(boxes=g, labels=lab, ignore=r.random(n_gt)<.2))
    return ps,ts

def loop(preds, targets, thr, c, free):
    "True/false of the ranked detections of class `c`, those left out removed; and the number to be found"
    todo,n = [],0
    for k,(p,t) in enumerate(zip(preds, targets)):
        ig = np.asarray(t.get('ignore', np.zeros(len(t['labels']), bool)))
        g = np.flatnonzero(t['labels']==c); n += (~ig[g]).sum(); d = np.flatnonzero(p['labels']==c)
        iou = box_iou_rotated(torch.tensor(p['boxes'][d]).double(), torch.tensor(t['boxes'][g]).double()).numpy()
        taken = np.zeros(len(g), bool)
        todo += [(-p['scores'][o],k,int(o),iou[q],ig[g],taken) for q,o in enumerate(d)]
    out,keys = [],[]
    for s,k,o,iou,ig,taken in sorted(todo, key=lambda x: x[:3]):
        st = 0
        if len(iou):
            if free:
                ok = np.flatnonzero((iou>=thr)&~taken&~ig)
                if not len(ok): ok = np.flatnonzero((iou>=thr)&ig)
                j = ok[iou[ok].argmax()] if len(ok) else -1
            else: j = iou.argmax() if iou.max()>=thr else -1
            if j>=0: st = 2 if ig[j] else int(not taken[j]); taken[j] = True
        if st!=2: out.append(st); keys.append(s)
    return np.array(out),int(n),np.array(keys)

@pytest.mark.parametrize('metric', ['voc07','voc12','coco'])
def test_against_plain_loop(metric):
    ps,ts = scenes(); acc = APAccumulator(4); acc.add(ps, ts)
    for thr in (.5,.75):
        r = acc.compute(thr, metric); row = list(r.iou_thresholds).index(thr)
        for c in range(4):
            tp,n,_ = loop(ps, ts, thr, c, metric=='coco')
            assert r.aps[row,c]==pytest.approx(average_precision(tp, n, metric), abs=1e-12) and r.n_gt[c]==n
            assert r.recalls[row,c]==pytest.approx(tp.sum()/n)

def test_ap_from_its_definition():
    "Best precision at a recall or beyond, sampled or integrated, written as the definition says it"
    r = np.random.default_rng(0)
    for _ in range(100):
        tp = r.random(r.integers(1,40))<.6; n = int(tp.sum()+r.integers(1,9)); found = tp.cumsum(); prec = found/np.arange(1,len(tp)+1)
        best = lambda num,den: max([p for p,f in zip(prec,found) if f*den>=num*n], default=0)
        assert average_precision(tp, n, 'voc07')==pytest.approx(np.mean([best(k,10) for k in range(11)]))
        assert average_precision(tp, n, 'coco')==pytest.approx(np.mean([best(k,100) for k in range(101)]))
        assert average_precision(tp, n)==pytest.approx(sum(max([p for p,f in zip(prec,found) if f>=k], default=0) for k in range(1,n+1))/n)

def test_perfect_and_hopeless():
    ps,ts = scenes()
    best = [dict(boxes=t['boxes'], labels=t['labels'], scores=np.ones(len(t['labels']))) for t in ts]
    none = [dict(boxes=np.zeros((0,5)), labels=[], scores=[]) for _ in ts]
    for m in ('voc07','voc12','coco'):
        assert eval_map(best, ts, .5, m).map==pytest.approx(1) and eval_map(none, ts, .5, m, n_classes=4).map==0

def test_ignored_truth():
    b = np.array([[20.,20,20,10,0], [60,20,20,10,0]]); t = dict(boxes=b, labels=[0,0], ignore=[False,True])
    many = dict(boxes=b[[1,1,1,0]], scores=[.9,.8,.7,.6], labels=[0]*4)
    for m in ('voc07','voc12','coco'): assert eval_map([many], [t], .5, m).map==pytest.approx(1)
    only = dict(boxes=b, labels=[0,0], ignore=[True,True])
    assert np.isnan(eval_map([many], [only]).map)

@pytest.mark.parametrize('dt', [torch.float16, torch.float32, torch.float64])
def test_torch_and_numpy(dt):
    b = torch.tensor([[20,20,20,10,0.]], dtype=dt)
    p,t = dict(boxes=b, scores=torch.ones(1, dtype=dt), labels=torch.zeros(1, dtype=torch.long)),dict(boxes=b, labels=torch.zeros(1, dtype=torch.int32))
    assert eval_map([p], [t]).map==1 and eval_map([p], [t], metric='coco').map==pytest.approx(1)

def test_bad_boxes_count_as_false_and_missed():
    nan = float('nan'); b = [[20,20,20,10,0], [nan,20,20,10,0], [20,20,0,10,0]]
    p = dict(boxes=b, scores=[.9,.8,.7], labels=[0,0,0]); t = dict(boxes=[[20,20,20,10,0],[nan,0,9,9,0]], labels=[0,0])
    r = eval_map([p], [t]); assert r.map==pytest.approx(.5) and r.n_gt[0]==2 and r.n_det[0]==3

def test_clear_errors():
    ps,ts = scenes(2)
    for bad,say in [(dict(boxes=np.zeros((3,4))), 'image 1'), (dict(scores=np.zeros(3)), 'image 1'), (dict(labels=np.zeros(3)), 'image 1')]:
        with pytest.raises(ValueError, match=say): eval_map([ps[0],{**ps[1],**bad}], ts)
    with pytest.raises(ValueError, match='one target'): eval_map(ps, ts[:1])
    with pytest.raises(ValueError, match='labels must'): eval_map(ps, ts, n_classes=3)
    with pytest.raises(ValueError, match='iou_threshold'): eval_map(ps, ts, 50)

def test_reference_figures():
    """MMRotate sorts with an unstable sort and many scores of this set are equal (0.99), so its figures depend on the machine:
    ours must bracket them, with the true ones first and with the false ones first among equals."""
    f = SHARED/'oracle/ops/eval_40img.npz'
    if not f.exists(): pytest.skip('no reference folder')
    d = np.load(f)
    ps = [{k:d[n][d['det_img']==i] for k,n in dict(boxes='det', scores='det_scores', labels='det_labels').items()} for i in range(40)]
    ts = [{k:d[n][d['gt_img']==i] for k,n in dict(boxes='gt', labels='gt_labels').items()} for i in range(40)]
    acc,exact = APAccumulator(15),0; acc.add(ps, ts)
    for thr in COCO_IOUS:
        for c in range(15):
            tp,n,key = loop(ps, ts, thr, c, False)
            hi,lo = tp[np.lexsort((-tp,key))],tp[np.lexsort((tp,key))]
            for metric,name in (('voc07','voc07'),('voc12','area')):
                if metric=='voc07' and n%10==0: continue  # a recall lies on a level, and float rounding costs MMRotate that level
                ref = d[f'ap_{thr:.2f}_{name}'][c]; a,b = average_precision(lo, n, metric),average_precision(hi, n, metric)
                assert a-2e-6<=ref<=b+2e-6, (thr, c, metric)
                exact += b-a<1e-6
        for metric in ('voc07','voc12'):
            m = acc.compute(thr, metric).map; assert abs(m-d[f'map_{thr:.2f}_'+('area' if metric=='voc12' else metric)])<4e-3
    assert exact>10     # where no tie matters the figures agree
