"S2A-Net and R3Det: against MMRotate's numbers, from formula weights, and what stages that refine owe each other"
import copy
import pytest, torch
from reference import checkpoint, close, matched, nearly_all, neck_errors, needs_oracle, opened, rel, settings, targets, their_dets
from rotnb.interop.mmconfig import settings_from_config
from rotnb.interop.mmrotate import KeysError, load_mmrotate
from rotnb.models import create_detector
from rotnb.models.r3det import better

HEADS = {'s2anet-le135_r50_fpn_1x_dota':('bbox_head_init','bbox_head_refine.0'), 's2anet_r50_fpn_1x_dota_le135':('fam_head','odm_head'),
         'r3det-oc_r50_fpn_1x_dota':('bbox_head_init','bbox_head_refine.0'), 'r3det_r50_fpn_1x_dota_oc':('bbox_head','refine_head.0')}
every = pytest.mark.parametrize('name', HEADS)

def stage_outputs(det, x):
    with torch.no_grad(): out = det.eval().run_stages(x)[1]
    return out.before,out

@needs_oracle
@every
def test_raw(name):
    z,det = opened(name)
    x = z['input']
    with torch.no_grad(): feats = det.neck(det.backbone(x))
    errs = neck_errors(z, feats)
    for h,o in zip(HEADS[name], stage_outputs(det, x)):
        for kind,ours in enumerate((o.logits[0], o.deltas[0])):
            theirs = [z[f'out/{h}/{kind}/{l}'][0].permute(1,2,0).reshape(-1, ours.shape[1]) for l in range(len(feats))]
            errs[f'{h} {kind}'] = rel(ours, torch.cat(theirs))
    print(name, 'largest relative error', max(errs.values()), errs)
    close(errs, 1e-4)

@needs_oracle
@every
def test_detections(name):
    z,det = opened(name)
    with torch.no_grad(): dets = det(z['input'])[0]
    ref = their_dets(z)
    ours,theirs = matched(ref, dets),matched(dets, ref)
    print(name, f'{int(theirs.sum())} of {len(theirs)} detections, {len(ours)} here')
    assert nearly_all(ours) and nearly_all(theirs)

@needs_oracle
@every
def test_losses(name):
    z,det = opened(name)
    with torch.no_grad(): losses = det.train()(z['input'], targets(z))
    tags = [('s0',('_init','fam.','s0.')), ('s1',('_refine_0','odm.','sr0.'))]
    want = {f"{s}_loss_{kind.replace('bbox','box')}":z[k].sum().item() for s,ts in tags for kind in ('cls','bbox') for k in z
            if k.startswith('loss/') and f'loss_{kind}' in k and any(t in k for t in ts)}
    assert set(losses)==set(want)
    errs = {k:abs(losses[k].item()-v)/abs(v) for k,v in want.items()}
    print(name, errs)
    close(errs, 1e-3)

@needs_oracle
def test_published_r3det_reads_the_swapped_place():
    z,det = opened('r3det-oc_r50_fpn_1x_dota')
    frm,x = det.stages[1].align,z['input']
    assert frm.swapped and det.recipe()['stages'][1]['align']['swapped'], "loading says so"
    small = load_mmrotate(create_detector('r3det', 15, 'resnet18', angle='oc'), checkpoint('r3det-oc_r50_fpn_1x_dota'))
    assert small.stages[1].align.swapped
    right = stage_outputs(det, x)[1]
    frm.swapped = False
    try: assert rel(stage_outputs(det, x)[1].logits, right.logits)>.01
    finally: frm.swapped = True

@needs_oracle
def test_configurations_of_more_stages():
    cfg = copy.deepcopy(settings('r3det-oc_r50_fpn_1x_dota'))
    second = {**copy.deepcopy(cfg['bbox_head_refine'][0]), 'stacked_convs':2}
    cfg['bbox_head_refine'].append(second)
    cfg['train_cfg']['refine'].append(dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=.7, neg_iou_thr=.6)))
    cfg['train_cfg']['stage_loss_weights'] = [1.,.5]
    kw = settings_from_config(cfg)
    assert [set(o) for o in kw['refine']]==[{'assigner'}, {'assigner','stacked_convs','loss_box','cls_weight'}]
    assert [o['assigner'].keywords for o in kw['refine']]==[dict(pos=.6, neg=.5), dict(pos=.7, neg=.6)]
    assert (kw['refine'][1]['loss_box'].weight, kw['refine'][1]['cls_weight'])==(.5,.5)
    s2a = settings_from_config(settings('s2anet_r50_fpn_1x_dota_le135'))
    assert (s2a['name'], s2a['refine'], s2a['shared'], s2a['hbox'], s2a['scales_per_octave'])==('s2anet', ({},), False, False, 1)
    found = settings_from_config(settings('r3det_r50_fpn_1x_dota_oc'))
    assert found['hbox'], "0.x compares anchors with circumscribed hboxes unless the config says otherwise"

@needs_oracle
def test_misfits_are_named():
    sd = checkpoint('s2anet_r50_fpn_1x_dota_le135')
    with pytest.raises(KeysError, match='4 not in the detector: align_conv.ac.1.deform_conv.weight'):
        load_mmrotate(create_detector('s2anet', 15, backbone='resnet18'), sd)

@pytest.mark.parametrize('name,kw,n', [
    ('s2anet',{},36_466_024), ('s2anet',dict(refine=({},{})),39_020_156),
    ('r3det',{},42_129_416), ('r3det',dict(stacked_convs=2),37_408_776),
    ('r3det',dict(refine=(better(.6, .5, stacked_convs=2),)),39_769_096),
    ('r3det',dict(refine=(better(.6, .5),better(.7, .6))),47_617_820)])
def test_parameters_as_published(name, kw, n):
    m = create_detector(name, 15, **kw)
    assert sum(p.numel() for p in m.parameters())==n

TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))

@pytest.mark.parametrize('name', ['s2anet','r3det'])
def test_a_stage_learns_nothing_through_its_priors(name):
    "The boxes that a stage refines are taken as they are: its losses do not reach the head before"
    torch.manual_seed(0)
    m = create_detector(name, 3, **TINY)
    losses = m(torch.randn(1,3,64,64), [dict(boxes=torch.tensor([[30.,30.,30.,16.,.4]]), labels=torch.tensor([1]))])
    (losses['s1_loss_cls']+losses['s1_loss_box']).backward()
    assert all(p.grad is None for p in m.stages[0].parameters())
    assert all(p.grad is not None and p.grad.abs().sum()>0 for p in m.stages[1].align.parameters() if p.ndim>1)

@pytest.mark.parametrize('name', ['s2anet','r3det'])
def test_features_follow_the_boxes(name):
    "What the last stage says of a location depends on the box that it was handed"
    torch.manual_seed(0)
    m = create_detector(name, 3, **TINY).eval()
    for p in m.stages[1].align.parameters(): torch.nn.init.normal_(p)
    feats = m.neck(m.backbone(torch.randn(1,3,64,64)))
    with torch.no_grad():
        boxes = m.stages[0].boxes(m.stages[0](feats))
        moved = boxes.clone(); moved[:,20,:2] += 24
        a,b = (m.stages[1](feats, o).logits[0] for o in (boxes,moved))
    far = (a-b).abs().amax(1)>1e-6
    assert far[20] and 0<far.sum()<len(far)
