"MMRotate's detectors, opened here: neck, raw outputs, detections and losses against its own numbers, from formula weights"
import pytest, torch
from reference import ORACLE, checkpoint, close, matched, nearly_all, neck_errors, opened, oracle_files, rel, settings, targets, their_dets
from rotnb.interop.mmconfig import ConfigError, settings_from_config
from rotnb.interop.mmrotate import WeightsError, KeysError, load_mmrotate
from rotnb.models import create_detector

pytestmark = pytest.mark.skipif(not ORACLE.exists(), reason='needs the reference folder shared/')

def known(name):
    "Whether it is a detector of one stage that can be had here; of more: test_two_stage.py, test_refine.py"
    try: return not {'rois_kw','refine'} & set(settings_from_config(settings(name)))
    except ConfigError: return False

CONFIGS = [f.stem for f in oracle_files('models/*.npz') if known(f.stem)]
every = pytest.mark.parametrize('name', CONFIGS)

def raw_outputs(z):
    "Their head's outputs, a list of `(h, w, c)` maps for each kind"
    key = lambda kind,lvl: z[f'out/bbox_head/{kind}/{lvl}'][0]
    kinds = sorted({int(k.split('/')[2]) for k in z if k.startswith('out/bbox_head/')})
    lvls = range(sum(k.startswith('out/bbox_head/0/') for k in z))
    return [[key(k, l).permute(1,2,0) for l in lvls] for k in kinds]

def compare_raw(z, det, out):
    "Largest relative error of each output"
    head,raw = det.stages[0],raw_outputs(z)
    n = head.n
    flat = lambda maps,per: torch.cat([m.reshape(-1, per) for m in maps])
    errs = dict(cls=rel(out.logits[0], flat(raw[0], head.n_classes)))
    sides = [m.reshape(-1, m.shape[-1]//n) for m in raw[1]]
    deltas = out.deltas[0]
    # theirs are pixels in evaluation, ours strides
    if det.name.startswith(('rotated_fcos','rtmdet')): sides = [m/t for m,t in zip(sides, head.strides)]
    box = torch.cat(sides)
    mine = deltas[:,:box.shape[1]]
    errs['box'] = rel(mine.clip(min=0) if 'fcos' in det.name else mine, box)
    rest = raw[2:]
    if deltas.shape[1]>box.shape[1]: errs['angle'] = rel(deltas[:,box.shape[1]:], flat(rest.pop(0), deltas.shape[1]-box.shape[1]))
    if out.quality is not None: errs['quality'] = rel(out.quality[0], flat(rest.pop(0), 1)[:,0])
    assert not rest
    return errs

@every
def test_raw(name):
    z,det = opened(name)
    with torch.no_grad():
        feats = det.neck(det.backbone(z['input']))
        errs = compare_raw(z, det, det.stages[0](feats))
    errs |= neck_errors(z, feats)
    print(name, 'largest relative error', max(errs.values()), errs)
    close(errs, 1e-4)

@every
def test_detections(name):
    z,det = opened(name)
    with torch.no_grad(): dets = det.eval()(z['input'])[0]
    ref = their_dets(z)
    ours,theirs = matched(ref, dets),matched(dets, ref)
    print(name, f'{int(theirs.sum())} of {len(theirs)} detections, {len(ours)} here')
    assert len(theirs) and nearly_all(ours) and nearly_all(theirs)

NAMES = dict(loss_bbox='loss_box', loss_centerness='loss_quality')

@every
def test_losses(name):
    z,det = opened(name)
    with torch.no_grad(): losses = det.train()(z['input'], targets(z))
    want = {NAMES.get(k[5:], k[5:]):z[k].sum().item() for k in z if k.startswith('loss/')}
    errs = {k:abs(losses[k].item()-v)/abs(v) for k,v in want.items()}
    print(name, errs)
    assert set(losses)==set(want)
    close(errs, 1e-3)

# opening

def test_training_is_frozen_as_theirs():
    det = opened('rotated-retinanet-rbox-le90_r50_fpn_1x_dota')[1].train()
    assert not any(p.requires_grad for p in det.backbone.body.layer1.parameters()) and not det.backbone.body.layer4[0].bn1.training

def test_what_does_not_fit_is_named():
    name = 'rotated-fcos-le90_r50_fpn_1x_dota'
    sd = checkpoint(name)
    det = create_detector('rotated_fcos', 15, backbone='resnet18')
    with pytest.raises(KeysError, match='(?s)stages.0.quality_conv.bias.*bbox_head.wrong'):
        load_mmrotate(det, {k.replace('conv_centerness.bias', 'wrong'):v for k,v in sd.items()})
    with pytest.raises(KeysError, match=r'bbox_head|\(15,\) in the checkpoint, \(3,\) here'):
        load_mmrotate(create_detector('rotated_fcos', 3, backbone='resnet18'), sd)
    with pytest.raises(WeightsError, match='no family known'): load_mmrotate(det, {'a.b':torch.ones(1)})
