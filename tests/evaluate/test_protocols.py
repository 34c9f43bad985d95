"""Each protocol against the figures of the program it is named after, on sets where the programs differ.

`protocols.json` holds what they said of the sets below, made once: CAPTAIN-WHU/DOTA_devkit 9938855 (both Task-1 scripts with polyiou.cpp,
`np.bool` written `bool`), open-mmlab/mmrotate 0.3.4 b030f38 (`eval_rbbox_map` with mmdet 2.28.2's `average_precision`; IoU of rotnb in
float32), pycocotools 2.0.11 (faster-coco-eval 1.8.0 gave the same). Boxes of the DOTA kit as corners in full, `difficulty` as its tenth
field and as `iscrowd`."""
import json, math
from dataclasses import replace
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from rotnb.evaluate import APAccumulator, eval_map
from rotnb.evaluate.ap import average_precision
from rotnb.evaluate.resampling import compare_runs
from rotnb.evaluate.matching import Outcome, match
from rotnb.evaluate.protocols import ALWAYS, PROTOCOLS
from paths import ROOT

REFERENCES = json.loads((ROOT/'tests/evaluate/protocols.json').read_text())
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
            if kind==0 and hard:                                                           # as far from both
                truth[i].append((c,int(r.random()<.3),step(8)))
                dets[i] += [(c,step(4)),(c,step(0))]
            elif kind==1: dets[i].append((c,box*[1,1,.5 if hard else .6,1,1]))             # IoU exactly 1/2
            elif kind==2: dets[i] += [(c,step(3)),(c,step(1))]
            elif kind==3: dets[i].append((c,step(int(r.integers(6, 30)))))
            elif kind<6: dets[i].append((c if r.random()<.9 else int(r.integers(0, 5)),step(int(r.integers(-5, 6)))))
        for _ in range(6): dets[int(r.integers(0, n_img))].append((c,np.array([*r.integers(0, 1000, 2),40,20,0], float)))
    dets[0] += [(0,np.array([5*k,2000,4,4,0], float)) for k in range(many)]
    rank = iter(r.permutation(sum(map(len, dets))))
    for t,d in zip(truth, dets):
        labels,levels = (np.array([o[k] for o in t], int) for k in (0,1))
        ts.append(dict(boxes=np.array([o[2] for o in t]).reshape(-1,5), labels=labels, difficulty=levels))
        labels,scores = np.array([o[0] for o in d], int),np.array([(1+next(rank))/1000 for _ in d])
        ps.append(dict(boxes=np.array([o[1] for o in d]).reshape(-1,5), labels=labels, scores=scores))
    return ps,ts

def set_of(r):
    s = protocol_set(r['seed'], r['upright'], r['hard'], r['many'])
    total = sum(p['boxes'].sum()+p['scores'].sum() for p in s[0])
    assert total==pytest.approx(r['check'], abs=1e-5), 'not the set that the programs saw'
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

# --- by hand: one rule at a time

def upright(*xs, y=20, w=40, h=20): return np.array([[x,y,w,h,0] for x in xs], float)
def pred(boxes, scores=None):
    return dict(boxes=boxes, scores=np.linspace(.9, .5, len(boxes)) if scores is None else scores, labels=np.zeros(len(boxes), int))
def truth(boxes, **kw): return dict(boxes=boxes, labels=np.zeros(len(boxes), int), **kw)

def test_exactly_at_the_threshold():
    "The kit asks for more than 0.5, all others for 0.5"
    p,t = pred(upright(20, w=20)),truth(upright(30))
    for k in PROTOCOLS: assert eval_map([p], [t], protocol=k).map_at(.5)==pytest.approx(float(not k.startswith('dota'))), k

@pytest.mark.parametrize('flag', [dict(ignore=[True,False]), dict(ignore=[1,0]), dict(difficulty=[1,0]), dict(difficulty=[2,0])])
def test_difficult_truth_that_is_missed(flag):
    "Left out by VOC, DOTA-v1.0 and COCO's crowds; ordinary in the kit for v1.5 and in MMRotate: 6 of 11 points"
    p,t = pred(upright(220)),truth(upright(20, 220), **flag)
    for k in PROTOCOLS: assert eval_map([p], [t], protocol=k).map_at(.5)==pytest.approx(6/11 if k in ('dota-1.5','mmrotate') else 1), k
    for d,want in ((0,1.), ('dota',1.), (1,1. if max(flag.get('difficulty', [1]))>1 else 6/11), ('mmrotate',6/11)):
        assert eval_map([p], [t], metric='voc07', difficulty=d).map==pytest.approx(want)
    assert eval_map([p], [t], metric='voc07').map==1

def test_what_a_border_has_cut_is_ignored_by_all():
    "Ignored with no difficulty of its own, as loaders mark it, and `ALWAYS`"
    p = pred(upright(220))
    for flag in (dict(ignore=[True,False], difficulty=[0,0]), dict(difficulty=[ALWAYS,0])):
        for k in PROTOCOLS: assert eval_map([p], [truth(upright(20, 220), **flag)], protocol=k).map_at(.5)==pytest.approx(1), k

def test_every_metric_has_the_setting():
    "The difficult ship is missed, and found by what lies turned on it"
    from rotnb.learn.metrics import AngleError, RotatedF1
    t = truth(upright(20, 220), difficulty=[1,0], ignore=[True,False]); turned = upright(20, 220); turned[0,4] = .2
    for d,f1 in ((None,1), (0,1), (1,2/3), ('mmrotate',2/3)):
        m = RotatedF1(score=.1, difficulty=d); m._acc.add([pred(upright(220))], [t]); assert m.figure()==pytest.approx(f1)
        m = AngleError(difficulty=d)
        m._acc.add([pred(turned)], [t])
        assert m.figure()==pytest.approx(np.rad2deg(.1) if f1<1 else 0, abs=1e-4)
    for cls in (RotatedF1, AngleError):
        with pytest.raises(ValueError, match='highest that still counts'): cls(difficulty='hard')

@pytest.mark.parametrize('form', ['dota','cvat','csv','labelme','rolabelimg'])
def test_records_of_any_format_have_the_setting(tmp_path, form):
    from PIL import Image
    from rotnb.data.labels.records import Annot
    from rotnb.data.formats.table import FORMATS, read_format
    from rotnb.geometry.boxes import rbox2qbox
    (tmp_path/'images').mkdir(); Image.new('RGB', (300,60)).save(im := tmp_path/'images/1.png')
    FORMATS[form].write([Annot(im, rbox2qbox(upright(40, 220)), ['a','a'], np.array([0,1]))], tmp_path, '', ['a'])
    read = lambda **kw: read_format(tmp_path, format=form, **kw)[0]
    assert read().ignored.tolist()==[False,True] and read(difficulty='mmrotate').ignored.tolist()==[False,False]
    assert read(difficulty=1).difficult.tolist()==[0,1]

def test_flags_that_are_none():
    for bad in (dict(ignore=[True]), dict(difficulty=[0,math.nan])):
        with pytest.raises(ValueError, match='image 0: (ignore|difficulty) must be'):
            eval_map([pred(upright(220))], [truth(upright(20, 220), **bad)])

def test_class_without_truth_and_class_all_ignored():
    p,t = pred(upright(20)),truth(upright(20))
    p = {**p, 'boxes':upright(20, 220, 420), 'scores':np.array([.9,.8,.7]), 'labels':np.array([0,1,2])}
    t = dict(boxes=upright(20, 420), labels=[0,2], ignore=[False,True])
    want = {'dota-1.0':1/3, 'dota-1.5':2/3, 'mmrotate':1, 'voc07':1, 'voc12':1, 'coco':1}
    assert {k:eval_map([p], [t], protocol=k, n_classes=3).map for k in PROTOCOLS}=={k:pytest.approx(v) for k,v in want.items()}

def test_a_hundred_detections_of_a_class_in_an_image():
    p,t = pred(upright(*range(1000, 1300, 2), 20, w=1)),truth(upright(20))
    p['boxes'][-1] = upright(20)
    assert eval_map([p], [t], protocol='coco').map==0 and eval_map([p], [t], metric='coco').map>0
    assert eval_map([p], [t], protocol=replace(PROTOCOLS['coco'], limit=151)).map>0
    acc = APAccumulator(); acc.add([p], [t])
    assert (match(acc, rules=PROTOCOLS['coco']).status==Outcome.LEFT_OUT).sum()==51

def test_recall_on_a_level():
    "Seven of ten reach 7/10, but for programs that compare floats"
    assert [average_precision([1]*7, 10, PROTOCOLS[k]) for k in ('voc07','dota-1.0','coco')]==pytest.approx([8/11, 7/11, 70/101])
    assert average_precision([1]*7, 10, 'coco')==pytest.approx(71/101)

def test_unknown_names_are_told():
    for kw in (dict(protocol='dota'), dict(metric='map'), dict(difficulty='hard'), dict(difficulty=-1)):
        with pytest.raises(ValueError, match='use one of|highest that still counts'):
            eval_map([pred(upright(20))], [truth(upright(20))], **kw)

# --- properties

@st.composite
def crowded(draw):
    "Whole boxes on a lattice, so that overlaps are equal often; distinct scores"
    side = st.sampled_from([8,16])
    box = st.tuples(st.integers(0, 6), st.integers(0, 3), side, side).map(lambda o: [4.*o[0],4.*o[1],*map(float, o[2:]),0.])
    t,d = draw(st.lists(st.tuples(box, st.integers(0, 2)), max_size=7)),draw(st.lists(box, max_size=10))
    order = draw(st.permutations(range(len(d))))
    return (dict(boxes=np.array(d).reshape(-1,5), scores=(1+np.array(order, float))/100, labels=np.zeros(len(d), int)),
            dict(boxes=np.array([o for o,_ in t]).reshape(-1,5), labels=np.zeros(len(t), int), difficulty=np.array([k for _,k in t], int)))

def slow(p, t, r, thr):
    "Status of each detection as the rules say it, over whole-number overlaps"
    lo,hi = (lambda b: b[:,:2]-b[:,2:4]/2),(lambda b: b[:,:2]+b[:,2:4]/2)
    d,g,ig = p['boxes'],t['boxes'],t['difficulty']>r.difficulty
    wh = np.clip(np.minimum(hi(d)[:,None], hi(g))-np.maximum(lo(d)[:,None], lo(g)), 0, None)
    inter,da,ga = wh.prod(-1),d[:,2]*d[:,3],g[:,2]*g[:,3]
    over = np.where(ig&r.crowds, inter/da[:,None], inter/(da[:,None]+ga-inter))
    res,taken = np.zeros(len(d), int),np.zeros(len(g), bool)
    for i in np.argsort(-p['scores']):
        ok = [j for j in range(len(g)) if over[i,j]>0 and (over[i,j]>thr or not r.above and over[i,j]==thr)]
        if r.free: ok = [j for j in ok if not taken[j] and not ig[j]] or [j for j in ok if ig[j]]
        if not ok: continue
        best = [j for j in ok if over[i,j]==max(over[i,k] for k in ok)]
        j = best[-1] if r.ties=='last' else min(best, key=lambda j: (ig[j] if r.ties=='counted' else 0, j))
        res[i] = Outcome.LEFT_OUT if ig[j] else Outcome.FALSE if taken[j] else Outcome.TRUE
        taken[j] = taken[j] or not ig[j]
    return res

@quick
@given(crowded(), st.sampled_from(list(PROTOCOLS)), st.sampled_from([.5,.75]))
def test_matching_is_what_the_table_says(s, name, thr):
    acc = APAccumulator(1); acc.add([s[0]], [s[1]])
    assert match(acc, thr, rules=PROTOCOLS[name]).status.tolist()==slow(*s, PROTOCOLS[name], thr).tolist()

@quick
@given(crowded(), st.sampled_from(list(PROTOCOLS)))
def test_difficulty_of_a_protocol_is_that_of_its_truth(s, name):
    "As if the truth above the threshold had been flagged as ignored, and the rest not at all"
    p,t = s; d = PROTOCOLS[name].difficulty
    flagged = {**t, 'difficulty':np.where(t['difficulty']>d, ALWAYS, 0)}
    aps = [eval_map([p], [o], protocol=name, n_classes=1).aps for o in (t,flagged)]
    np.testing.assert_array_equal(*aps)

def test_the_coco_evaluators_with_equal_overlaps():
    "All sets of two truths and three detections on a lattice, beside pycocotools: crowds, equal overlaps"
    pytest.importorskip('pycocotools')
    from coco_eval import coco
    r,differ = np.random.default_rng(0),0
    for k in range(150):
        b = lambda n: np.c_[r.integers(0, 4, (n,1))*4., np.zeros((n,1)), np.full((n,2), 16.), np.zeros((n,1))]
        t,p = truth(b(3), ignore=r.random(3)<.25),pred(b(4), r.permutation(4)/10+.1)
        if t['ignore'].all(): continue
        ours = eval_map([p], [t], protocol='coco', n_classes=1).aps[:,0]
        np.testing.assert_allclose(ours, coco([p], [t], 1, own_crowd=True)[:,0,0], atol=1e-9)
        differ += not np.allclose(ours, eval_map([p], [t], protocol=replace(PROTOCOLS['coco'], ties='first'), n_classes=1).aps[:,0])
    assert differ>2      # the sets do hold what the rule is about

def test_resampling_by_a_protocol():
    run = APAccumulator(5); run.add(*protocol_set(3, many=150))
    for k in PROTOCOLS:
        assert run.bootstrap(n=3, protocol=k).map==pytest.approx(run.compute(protocol=k).map)
        assert compare_runs(run, run, n=3, protocol=k).map==pytest.approx(0)

# --- from labels to the training table

def test_difficulty_travels_from_labels_to_metrics(tmp_path):
    "Loaders ignore by their threshold, metrics by their own; what the border has cut is ignored by all"
    from types import SimpleNamespace
    from PIL import Image
    from rotnb.data.formats.dota import read_dota
    from rotnb.data.loaders import RotatedDataLoaders
    from rotnb.data.types import to_targets
    from rotnb.learn.callbacks import pad_dets
    from rotnb.learn.metrics import RotatedMAP
    (tmp_path/'images').mkdir(); (tmp_path/'labelTxt').mkdir()
    for k in range(2):
        Image.new('RGB', (128,128)).save(tmp_path/f'images/{k}.png')
        where = (20,0),(60,1),(100,2),(137,0)     # the last lies mostly outside
        rows = [f'{x-10} 20 {x+10} 20 {x+10} 30 {x-10} 30 ship {d}' for x,d in where]
        (tmp_path/f'labelTxt/{k}.txt').write_text('\n'.join(rows))
    for difficulty,counts in ((None,1), (1,2), ('mmrotate',3)):
        annots = read_dota(tmp_path, difficulty=difficulty)
        assert [int((~a.ignored).sum()) for a in annots]==[counts+1]*2           # the border is the loader's
        dls = RotatedDataLoaders.from_annots(annots, annots, bs=2, batch_tfms=[], num_workers=0, device='cpu')
        kw = dict(bs=2, batch_tfms=[], num_workers=0, device='cpu', difficulty=difficulty)
        same_dls = RotatedDataLoaders.from_annots(read_dota(tmp_path), read_dota(tmp_path), **kw)
        for loader in (dls.valid, same_dls.valid):
            x,q,l = next(iter(loader)); t = to_targets(q, l, x.shape[-2:])
            assert [int((~o['ignore']).sum()) for o in t]==[counts]*2 and t[0]['labels'].tolist()==[0]*4
            first = [dict(boxes=o['boxes'][:1], scores=o['boxes'].new_tensor([.9]), labels=o['labels'][:1]) for o in t]
            ms = [RotatedMAP(), RotatedMAP(difficulty=0), RotatedMAP(difficulty=1)]
            ms += [RotatedMAP(protocol=k) for k in ('dota-1.0','dota-1.5','mmrotate')]
            for m in ms: m.reset()
            for m in ms: m.accumulate(SimpleNamespace(training=False, pred=pad_dets(first, 5), truth=t, metrics=ms, dl=None, dls=dls))
            assert [int(m.compute().n_gt[0]) for m in ms]==[2*counts,2,4,2,6,6]
            assert ms[3].compute().metric=='dota-1.0' and ms[3].compute('voc12').metric=='voc12'
            assert ms[0].compute(protocol='mmrotate').n_gt[0]==6

def test_windows_ignore_what_counts_elsewhere_whatever_the_difficulty(tmp_path):
    from rotnb.data.labels.records import Annot
    from rotnb.data.labels.tiles import tile_annots
    from rotnb.data.images.windows import open_scene
    from rotnb.data.types import box_code, class_index, difficulty_of, is_ignored
    import torch
    from rotnb.geometry.boxes import rbox2qbox
    boxes = rbox2qbox(np.array([[50.,50,20,10,0],[98,50,20,10,0],[20,20,20,10,0]]))
    for d,want in ((0,[False,True,True]), (100,[False,True,False])):
        a = Annot(open_scene(np.zeros((100,200,3), np.uint8), name='A'), boxes, ['ship']*3, np.array([0,0,1]), difficulty=d)
        tile = next(o for o in tile_annots([a], size=100, overlap=10) if o.image.x==0)
        codes = torch.tensor([box_code(0, o) for o in tile.labels])
        assert tile.ignored.tolist()==want==is_ignored(codes).tolist()
        assert class_index(codes).tolist()==[0,0,0] and difficulty_of(codes).tolist()==[0,0,1]
