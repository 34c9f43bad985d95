"""Each protocol against the figures of the program it is named after, on sets where the programs differ.

`protocols.json` holds what they said of the sets below, made once: CAPTAIN-WHU/DOTA_devkit 9938855 (both Task-1 scripts with polyiou.cpp, `np.bool` written
`bool`), open-mmlab/mmrotate 0.3.4 b030f38 (`eval_rbbox_map` with mmdet 2.28.2's `average_precision`; IoU of rotnb in float32), pycocotools 2.0.11
(faster-coco-eval 1.8.0 gave the same). Boxes of the DOTA kit as corners in full, `difficulty` as its tenth field and as `iscrowd`."""
import json, math
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from rotnb.evaluate.ap import APAccumulator, average_precision, compare_runs, eval_map
from rotnb.evaluate.matching import FALSE, LEFT_OUT, TRUE, match
from rotnb.evaluate.protocols import ALWAYS, METRICS, PROTOCOLS, Protocol

REFERENCES = json.loads((Path(__file__).parent/'protocols.json').read_text())
GIVEN = [(r,k) for r in REFERENCES for k in r['protocols']]
quick = settings(max_examples=60, deadline=None)

def protocol_set(seed, upright=True, hard=True, many=0, n_img=4):
    "`(preds, targets)` with difficulties, five classes; `hard`: with equal overlaps, and such that lie on the threshold"
    r,ps,ts = np.random.default_rng(seed),[],[]
    n_gt = [10,20,7,0,3]
    truth,dets = [[] for _ in range(n_img)],[[] for _ in range(n_img)]
    for c,n in enumerate(n_gt):
        for j in range(n):
            i,at = int(r.integers(0, n_img-1)),np.array([60+90*int(r.integers(0, 10)), 60+90*int(r.integers(0, 10))])
            turn = 0 if upright else int(r.integers(-80, 80))/100
            level = 1 if c==4 else int(r.choice([0,0,0,1,2])) if c==2 else int(r.random()<.1)
            box,kind = np.array([*at,40,20,turn], float),int(r.integers(0, 7))
            step = lambda k: box+np.array([k*np.cos(turn),k*np.sin(turn),0,0,0])
            truth[i].append((c,level,box))
            if kind==0 and hard: truth[i].append((c,int(r.random()<.3),step(8))); dets[i] += [(c,step(4)),(c,step(0))]       # as far from both
            elif kind==1: dets[i].append((c,box*[1,1,.5 if hard else .6,1,1]))                                              # IoU exactly 1/2
            elif kind==2: dets[i] += [(c,step(3)),(c,step(1))]
            elif kind==3: dets[i].append((c,step(int(r.integers(6, 30)))))
            elif kind<6: dets[i].append((c if r.random()<.9 else int(r.integers(0, 5)),step(int(r.integers(-5, 6)))))
        for _ in range(6): dets[int(r.integers(0, n_img))].append((c,np.array([*r.integers(0, 1000, 2),40,20,0], float)))
    dets[0] += [(0,np.array([5*k,2000,4,4,0], float)) for k in range(many)]
    rank = iter(r.permutation(sum(map(len, dets))))
    for t,d in zip(truth, dets):
        ts.append(dict(boxes=np.array([o[2] for o in t]).reshape(-1,5), labels=np.array([o[0] for o in t], int), difficulty=np.array([o[1] for o in t], int)))
        ps.append(dict(boxes=np.array([o[1] for o in d]).reshape(-1,5), labels=np.array([o[0] for o in d], int), scores=np.array([(1+next(rank))/1000 for _ in d])))
    return ps,ts

def set_of(r):
    s = protocol_set(r['seed'], r['upright'], r['hard'], r['many'])
    assert sum(p['boxes'].sum()+p['scores'].sum() for p in s[0])==pytest.approx(r['check'], abs=1e-5), 'the set is another one than that the programs saw'
    return s

def same(got, want, tol=1e-6):
    "Equal class by class; nan where the program has none, and there alone"
    np.testing.assert_allclose(got, [math.nan if o is None else o for o in want], atol=tol, rtol=0)

@pytest.mark.parametrize('r,protocol', GIVEN, ids=lambda o: o if isinstance(o, str) else f"{o['seed']}{'u' if o['upright'] else 'r'}")
def test_figures_of_the_program_itself(r, protocol):
    res = eval_map(*set_of(r), protocol=protocol, n_classes=5); mean,aps = r['protocols'][protocol]
    same(res.ap, aps, 1e-6)
    if mean is not None: assert res.map==pytest.approx(mean, abs=1e-6)
    assert res.metric==protocol and f'{protocol} at IoU' in repr(res)

@pytest.mark.parametrize('r', [r for r in REFERENCES if 'sizes' in r], ids=lambda r: str(r['seed']))
def test_sizes_of_pycocotools(r):
    acc = APAccumulator(5); acc.add(*set_of(r))
    for k,o in acc.compute_by('size', protocol='coco').items(): same(o.ap, r['sizes'][k])
