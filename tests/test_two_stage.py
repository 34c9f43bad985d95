"Detectors of two and three stages: what is their own, and MMRotate's numbers from formula weights"
import importlib.util, os, warnings
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from rotnb.geometry.boxes import qbox2rbox, rbox2qbox
from rotnb.interop.mmrotate import KeysError, detector_from_mmrotate, load_mmrotate
from rotnb.models import create_detector
from rotnb.targets.priors import AnchorPriors
from rotnb.targets.sample import random_sample

SHARED = Path(os.environ.get('ROTNB_SHARED', Path(__file__).parents[2]/'shared'))
ORACLE = SHARED/'oracle'
NAMES = dict(rotated_faster_rcnn='rotated-faster-rcnn-le90_r50_fpn_1x_dota', oriented_rcnn='oriented-rcnn-le90_r50_fpn_1x_dota',
             roi_trans='roi-trans-le90_r50_fpn_1x_dota', gliding_vertex='gliding-vertex-rbox_r50_fpn_1x_dota')
every = pytest.mark.parametrize('name', NAMES)
oracle = pytest.mark.skipif(not ORACLE.exists(), reason='needs the reference folder shared/')

# --- parity

def checkpoint(file):
    spec = importlib.util.spec_from_file_location('oracle_weights', ORACLE/'weights.py')
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    return m.fake_checkpoint(file)

def first_n(det):
    "Samplers that take the first candidates, as those of the references do"
    for o in det.stages: o.sampler = partial(o.sampler, first=True)
    return det

cache = {}
def opened(config):
    "The reference and our detector with its weights and settings"
    if config not in cache:
        cache.clear()
        z = np.load(ORACLE/f'models/{config}.npz')
        cache[config] = z,first_n(detector_from_mmrotate(checkpoint(ORACLE/f'keys/{config}.txt'), cfg=ORACLE/f'settings/{config}.json'))
    z,det = cache[config]
    return {k:torch.from_numpy(z[k]) for k in z.files if k!='meta'},det.eval()

def rel(a, b): return ((a-b).abs().max()/b.abs().max()).item()

def as_rbox(rois): # their RoIs: picture, then x1 y1 x2 y2 or a rotated box
    r = rois[:,1:]
    return r if r.shape[1]==5 else torch.cat([(r[:,:2]+r[:,2:])/2, r[:,2:]-r[:,:2], torch.zeros(len(r),1)], 1)

def proposals(z, det):
    feats = det.neck(det.backbone(z['input']))
    out = det.stages[0](feats)._replace(size=tuple(z['input'].shape[-2:]))
    return feats,out,det.stages[0].boxes(out)[0]

def matched(dets, boxes, scores, labels):
    "For each reference detection whether there is one of the same class, score and corners within 1e-3 of the box's size"
    q,r = rbox2qbox(dets['boxes']),rbox2qbox(boxes)
    found = torch.zeros(len(r), dtype=torch.bool)
    for i in range(len(r)):
        on = (dets['labels']==labels[i]) & ((dets['scores']-scores[i]).abs()<1e-3)
        turns = torch.stack([q[on].roll(k, 1) for k in range(4)])  # the spelling of a rectangle is no difference
        if on.any(): found[i] = ((turns-r[i]).abs().amax((2,3)).amin(0)/boxes[i,2:4].max().clamp(min=1)).min() < 1e-3
    return found

@oracle
@every
def test_raw_outputs_and_rois(name):
    z,det = opened(NAMES[name])
    assert det.name==name
    rpn,rois = det.stages[0],det.stages[1:]
    maps = lambda kind: torch.cat([z[f'out/rpn_head/{kind}/{i}'].permute(0,2,3,1).flatten(1,2).reshape(1, -1, (1,rpn.coder.n)[kind]) for i in range(5)], 1)
    with torch.no_grad():
        feats,out,boxes = proposals(z, det)
        errs = {f'neck {i}':rel(feats[i], z[f'out/neck/{i}']) for i in (2,3,4)} | dict(rpn_cls=rel(out.logits, maps(0)), rpn_reg=rel(out.deltas, maps(1)))
        for i,stage in enumerate(rois):
            tag = f'.{i}' if len(rois)>1 else ''
            theirs = as_rbox(z[f'out/roi_head.bbox_roi_extractor{tag}/rois'])
            same = matched(dict(boxes=boxes, scores=boxes[:,0]*0, labels=boxes[:,0]*0), theirs, theirs[:,0]*0, theirs[:,0]*0)
            assert len(boxes)==len(theirs) and same.all(), (len(boxes), len(theirs), (~same).sum())
            res = stage(feats, theirs[None])._replace(size=out.size)
            cut = stage.cut(feats, torch.zeros(2).long(), theirs[:2], res.lvls[0,:2])
            kinds = sorted(k for k in z if k.startswith(f'out/roi_head.bbox_head{tag}/'))
            errs |= {f'roi features {i}':rel(cut, z[f'out/roi_head.bbox_roi_extractor{tag}/roi_feats_first2']), f'class {i}':rel(res.logits[0], z[kinds[0]]),
                     f'deltas {i}':rel(res.deltas[0], torch.cat([z[k] for k in kinds[1:]], 1))}
            boxes = stage.boxes(res)[0]
    print(name, 'largest relative error', max(errs.values()), errs)
    assert max(errs.values())<1e-4, errs

@oracle
@every
def test_detections(name):
    """Every reference detection is a candidate of ours, to a thousandth. Which candidates are left after NMS agrees too where MMRotate's own NMS is sound: it is not for boxes of thousands
    of pixels, which formula weights make of rotated proposals, and drops nearly all of the quadrilaterals"""
    z,det = opened(NAMES[name])
    ref,labels = z['out/pred/dets'],z['out/pred/labels']
    if ref.shape[1]==9: ref = torch.cat([qbox2rbox(ref[:,:8].view(-1,4,2)), ref[:,8:]], 1)
    last = det.stages[-1]
    iou_thr,n = last.iou_thr,last.max_per_img
    with torch.no_grad():
        kept = det(z['input'])[0]
        last.iou_thr,last.max_per_img = 1.,10**6
        all_ = det(z['input'])[0]
    last.iou_thr,last.max_per_img = iou_thr,n
    candidates,survivors = (matched(o, ref[:,:5], ref[:,5], labels) for o in (all_, kept))
    print(name, f'{len(ref)} detections: {int(candidates.sum())} among our candidates, {int(survivors.sum())} among our {len(kept["scores"])} detections')
    assert candidates.float().mean()>=(.99 if name=='oriented_rcnn' else 1.)
    if name in ('rotated_faster_rcnn','roi_trans'): assert len(kept['scores'])==len(ref) and survivors.float().mean()>.98

@oracle
@every
def test_losses(name, monkeypatch):
    """Some rotated proposals stand exactly upright, and rounding decides which of their ends is the first: 14 of 2000 are the same rectangles, but turned by half a turn, and so are the
    features in them. There the proposals are given."""
    z,det = opened(NAMES[name])
    given = as_rbox(z['out/roi_head.bbox_roi_extractor/rois'])[None] if name=='oriented_rcnn' else None
    if given is not None: monkeypatch.setattr(det.stages[0], 'boxes', lambda out: given)
    targets = [dict(boxes=z['gt_bboxes'], labels=z['gt_labels'])]
    with torch.no_grad(): losses = det.train()(z['input'], targets)
    det.eval()
    s = 'loss/s{}.loss_{}' if name=='roi_trans' else 'loss/loss_{1}'
    want = dict(s0_loss_cls=z['loss/loss_rpn_cls'].sum(), s0_loss_box=z['loss/loss_rpn_bbox'].sum())
    for i in range(len(det.stages)-1):
        box = ['bbox','fix','ratio'] if name=='gliding_vertex' else ['bbox']
        want |= {f's{i+1}_loss_cls':z[s.format(i, 'cls')].sum(), f's{i+1}_loss_box':sum(z[s.format(i, o)].sum() for o in box)}
    errs = {k:abs(losses[k].item()/v.item()-1) for k,v in want.items()}
    print(name, errs)
    assert set(losses)==set(want) and max(errs.values())<1e-3, (errs, losses, want)

@oracle
@pytest.mark.parametrize('file', ['rotated_faster_rcnn_r50_fpn_1x_dota_le90', 'oriented_rcnn_r50_fpn_1x_dota_le90', 'roi_trans_r50_fpn_1x_dota_le90', 'gliding_vertex_r50_fpn_1x_dota_le90'])
def test_published_keys_without_configuration(file):
    sd = checkpoint(ORACLE/f'keys_0x/{file}.txt')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        det = detector_from_mmrotate(sd)
    assert file.startswith(det.name) and det.n_classes==15
    plain = create_detector(det.name, 15)
    a,b = ({**o.recipe(), 'backbone':None} for o in (det, plain))
    for s in (*a['stages'], *b['stages']): s.pop('clip', None)
    assert a==b, 'what is guessed from the keys is what the entry point has for defaults'
    assert sum(p.numel() for p in det.parameters())==sum(v.size for k,v in sd.items() if not k.endswith(('running_mean','running_var','num_batches_tracked')))
    if det.name=='oriented_rcnn':
        with pytest.raises(KeysError, match='stages.0.box.bias'): load_mmrotate(create_detector('rotated_faster_rcnn', 15), sd)

# --- what is their own

TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, fc_channels=32, strides=(8,16), rpn_kw=dict(priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None))
A = torch.tensor([[30.,40.,40.,20.,.4],[70.,60.,24.,24.,-.7],[20.,80.,30.,10.,1.2]])
def target(n): return dict(boxes=A[:n], labels=torch.arange(n))
def images(b, h=96, w=96): return torch.randn(b, 3, h, w, generator=torch.Generator().manual_seed(1))

@every
def test_a_picture_without_proposals(name):
    "No anchor survives where the network says nothing finite; the other picture does not notice"
    torch.manual_seed(0)
    m,x = create_detector(name, 3, score_thr=0., **TINY).eval(),images(2)
    bad = x.clone(); bad[0] = float('nan')
    with torch.no_grad(): (none,one),(_,alone) = m(bad),m(x)
    assert len(none['scores'])==0 and len(one['scores'])==len(alone['scores'])>0
    with torch.no_grad(): losses,_ = m(bad, [target(0),target(3)])
    assert all(v[1].isfinite() for v in losses.values())

@every
def test_proposals_fill_up_with_nothing(name):
    torch.manual_seed(0)
    m = create_detector(name, 3, **TINY).eval()
    with torch.no_grad():
        feats = m.neck(m.backbone(images(1)))
        rpn = m.stages[0]
        p = rpn.boxes(rpn(feats)._replace(size=(96,96)))
        padded = torch.cat([p, torch.zeros(1,7,5)], 1)
        for stage in m.stages[1:]:
            a,b = (stage(feats, o)._replace(size=(96,96)) for o in (p, padded))
            for u,v in zip(stage.detect(a), stage.detect(b)): assert all(torch.equal(u[k], v[k]) for k in u)
            p,padded = stage.boxes(a),stage.boxes(b)
            assert torch.equal(p, padded[:,:p.shape[1]]) and (padded[:,p.shape[1]:,2:4]==0).all()

@every
def test_sample_has_its_share(name):
    torch.manual_seed(0)
    m = create_detector(name, 3, sampler=partial(random_sample, num=40, pos_fraction=.25), **TINY)
    stage = m.stages[1]
    props = torch.cat([A[None].repeat(1,20,1), torch.rand(1,200,5)*torch.tensor([90.,90.,20.,20.,0.])+torch.tensor([0.,0.,2.,2.,0.])], 1)
    s = stage.sample(props, [target(3)])
    assert s.priors.shape==(1,40,5) and (s.matched>=0).sum()==10
    assert stage.sample(props, [target(0)]).matched.eq(-1).all()

@every
def test_ignored_objects_are_in_no_sample(name):
    torch.manual_seed(0)
    m = create_detector(name, 3, **TINY)
    rpn,stage = m.stages[:2]
    t = dict(target(3), ignore=torch.tensor([True,False,False]))
    with torch.no_grad():
        feats = m.neck(m.backbone(images(1)))
        out = rpn(feats)._replace(size=(96,96))
        on = (out.priors[0,:,:2]-A[0,:2]).abs().amax(1)<4
        assert on.any() and (rpn.assign(out, [t])[0][on]!=-1).all() and not (rpn.assign(out, [t])==0).any()
        s = stage.sample(rpn.boxes(out), [t])
    assert s.added.sum()==2 and not (s.matched==0).any()
