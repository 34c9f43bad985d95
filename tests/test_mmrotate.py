"MMRotate's detectors, opened here: neck, raw outputs, detections and losses against its own numbers, from formula weights"
import importlib.util, json, os, warnings
from pathlib import Path
import numpy as np, pytest, torch
from rotnb.geometry.boxes import rbox2qbox
from rotnb.interop.mmconfig import ConfigError, settings_from_config
from rotnb.interop.mmrotate import CheckpointError, KeysError, detector_from_mmrotate, load_mmrotate
from rotnb.models import create_detector

SHARED = Path(os.environ.get('ROTNB_SHARED', Path(__file__).parents[2]/'shared'))
ORACLE = SHARED/'oracle'
pytestmark = pytest.mark.skipif(not ORACLE.exists(), reason='needs the reference folder shared/')

def known(name):
    try: return 'refine' not in settings_from_config((ORACLE/f'settings/{name}.json').read_text())  # those are in test_refine
    except ConfigError: return False

CONFIGS = sorted(f.stem for f in (ORACLE/'models').glob('*.npz') if known(f.stem)) if ORACLE.exists() else []
every = pytest.mark.parametrize('name', CONFIGS)

def weights():
    spec = importlib.util.spec_from_file_location('oracle_weights', ORACLE/'weights.py')
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    return m

cache = {}
def opened(name):
    "The reference and our detector with its weights"
    if name not in cache:
        cache.clear()
        sd = weights().fake_checkpoint(ORACLE/f'keys/{name}.txt')
        cache[name] = np.load(ORACLE/f'models/{name}.npz'),detector_from_mmrotate(sd, cfg=ORACLE/f'settings/{name}.json')
    return cache[name]

def rel(a, b): return float(np.abs(np.asarray(a)-b).max()/np.abs(b).max())

def raw_outputs(z):
    "Their head's outputs, a list of `(h, w, c)` maps for each kind"
    key = lambda kind,lvl: z[f'out/bbox_head/{kind}/{lvl}'][0]
    kinds = sorted({int(k.split('/')[2]) for k in z.files if k.startswith('out/bbox_head/')})
    lvls = range(sum(k.startswith('out/bbox_head/0/') for k in z.files))
    return [[key(k, l).transpose(1,2,0) for l in lvls] for k in kinds]

def compare_raw(z, det, out):
    "Largest relative error of each output"
    head,raw = det.stages[0],raw_outputs(z)
    n = head.n
    flat = lambda maps,per: np.concatenate([m.reshape(-1, per) for m in maps])
    errs = dict(cls=rel(out.logits[0].numpy(), flat(raw[0], head.n_classes)))
    sides = [m.reshape(-1, m.shape[-1]//n) for m in raw[1]]
    deltas = out.deltas[0].numpy()
    if 'fcos' in det.name: sides = [m/t for m,t in zip(sides, head.strides)]  # theirs are pixels in evaluation, ours strides
    box = np.concatenate(sides)
    mine = deltas[:,:box.shape[1]]
    errs['box'] = rel(mine.clip(min=0) if 'fcos' in det.name else mine, box)
    rest = raw[2:]
    if deltas.shape[1]>box.shape[1]: errs['angle'] = rel(deltas[:,box.shape[1]:], flat(rest.pop(0), deltas.shape[1]-box.shape[1]))
    if out.quality is not None: errs['quality'] = rel(out.quality[0].numpy(), flat(rest.pop(0), 1)[:,0])
    assert not rest
    return errs

@every
def test_raw(name):
    z,det = opened(name)
    with torch.no_grad():
        feats = det.neck(det.backbone(torch.from_numpy(z['input'])))
        errs = compare_raw(z, det, det.stages[0](feats))
    for i,f in enumerate(feats):
        key,step = (f'out/neck/{i}',1) if f'out/neck/{i}' in z.files else (f'out/neck/{i}[::8]',8)
        errs[f'neck {i}'] = rel(f[:,::step].numpy(), z[key])
    print(name, 'largest relative error', max(errs.values()), errs)
    assert max(errs.values())<1e-4, errs

def match(dets, boxes, scores, labels):
    "How many of each side have a counterpart: the same class, score and corners within 1e-3"
    if not len(boxes) or not len(dets['boxes']): return 0,0
    q,r = rbox2qbox(dets['boxes']),rbox2qbox(boxes)
    turns = torch.stack([r.roll(k, 1) for k in range(4)], 1)  # the spelling of a rectangle is no difference
    far = (q[:,None,None]-turns[None]).abs().flatten(3).amax(3).amin(2)/r.abs().flatten(1).amax(1).clamp(min=1)
    same = (far<1e-3) & ((dets['scores'][:,None]-scores).abs()<1e-3) & (dets['labels'][:,None]==labels)
    return int(same.any(1).sum()),int(same.any(0).sum())

@every
def test_detections(name):
    z,det = opened(name)
    with torch.no_grad(): dets = det.eval()(torch.from_numpy(z['input']))[0]
    ref,labels = torch.from_numpy(z['out/pred/dets']),torch.from_numpy(z['out/pred/labels'])
    ours,theirs = match(dets, ref[:,:5], ref[:,5], labels)
    print(name, f'{theirs} of {len(ref)} detections, {len(dets["boxes"])} here')
    assert (ours,theirs)==(len(dets['boxes']),len(ref))

NAMES = dict(loss_bbox='loss_box', loss_centerness='loss_quality')

@every
def test_losses(name):
    z,det = opened(name)
    targets = [dict(boxes=torch.from_numpy(z['gt_bboxes']), labels=torch.from_numpy(z['gt_labels']))]
    with torch.no_grad(): losses = det.train()(torch.from_numpy(z['input']), targets)
    want = {NAMES.get(k[5:], k[5:]):z[k].sum() for k in z.files if k.startswith('loss/')}
    errs = {k:abs(losses[k].item()-v)/abs(v) for k,v in want.items()}
    print(name, errs)
    assert set(losses)==set(want) and max(errs.values())<1e-3, (errs, losses, want)

# opening

def test_training_is_frozen_as_theirs():
    if not CONFIGS: pytest.skip('no reference of a family known here')
    det = opened(CONFIGS[0])[1].train()
    assert not any(p.requires_grad for p in det.backbone.body.layer1.parameters()) and not det.backbone.body.layer4[0].bn1.training

ZOO = sorted(f for f in (ORACLE/'keys_0x').glob('*.txt') if f.stem.startswith(('rotated_retinanet','rotated_fcos','rotated_atss'))) if ORACLE.exists() else []

@pytest.mark.parametrize('file', ZOO, ids=lambda f: f.stem)
def test_published_0x_keys(file):
    "Every key of the published configurations finds its place, with no configuration at hand"
    sd = weights().fake_checkpoint(file)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        det = detector_from_mmrotate(sd)
    assert det.n_classes==15
    theirs = sum(v.size for k,v in sd.items() if not k.endswith(('running_mean','running_var','num_batches_tracked')))
    assert abs(sum(p.numel() for p in det.parameters())-theirs) <= 2*96  # ConvNeXt's norm of a map that the neck does not read

def test_what_does_not_fit_is_named():
    name = 'rotated-fcos-le90_r50_fpn_1x_dota'
    if name not in CONFIGS: pytest.skip('no such reference')
    sd = weights().fake_checkpoint(ORACLE/f'keys/{name}.txt')
    det = create_detector('rotated_fcos', 15, backbone='resnet18')
    with pytest.raises(KeysError, match='(?s)stages.0.quality_conv.bias.*bbox_head.wrong'):
        load_mmrotate(det, {k.replace('conv_centerness.bias', 'wrong'):v for k,v in sd.items()})
    with pytest.raises(KeysError, match=r'bbox_head|\(15,\) in the checkpoint, \(3,\) here'): load_mmrotate(create_detector('rotated_fcos', 3, backbone='resnet18'), sd)
    with pytest.raises(CheckpointError, match='no family known'): load_mmrotate(det, {'a.b':torch.ones(1)})
