"MMRotate's numbers, as tests read them: checkpoints whose weights a formula gives, and what its networks made of them"
import importlib.util, json, warnings
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from paths import SHARED
from rotnb.geometry.boxes import qbox2rbox, rbox2qbox
from rotnb.interop.mmrotate import detector_from_mmrotate

ORACLE = SHARED/'oracle'
needs_oracle = pytest.mark.skipif(not ORACLE.exists(), reason='needs the reference folder shared/')

def oracle_files(pattern):
    "Files of the reference folder, none where it is absent"
    return sorted(ORACLE.glob(pattern))

def formula():
    "The module that knows the formula"
    spec = importlib.util.spec_from_file_location('oracle_weights', ORACLE/'weights.py')
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    return m

def checkpoint(name, folder='keys'):
    "The weights under `folder/name.txt`, or under the keys of a file"
    file = name if isinstance(name, Path) else ORACLE/folder/f'{name}.txt'
    return {k:torch.as_tensor(v) for k,v in formula().fake_checkpoint(file).items()}

def checkpoint_of(lines):
    "The weights of keys: lines `key TAB shape`"
    spec = importlib.util.spec_from_file_location('oracle_weights', ORACLE/'weights.py')
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    rows = [line.split('\t') for line in lines]
    return {key:torch.as_tensor(m.value(key, () if shape=='scalar' else tuple(map(int, shape.split('x'))))) for key,shape in rows}

def shapes(name, folder='keys'):
    "Tensors without numbers under `folder/name.txt`"
    rows = [o.rstrip('\n').split('\t') for o in (ORACLE/folder/f'{name}.txt').open() if o.strip() and o[0]!='#']
    return {k:torch.empty(() if s=='scalar' else tuple(map(int, s.split('x'))), device='meta') for k,s,*_ in rows}

def n_params(sd): return sum(v.numel() for k,v in sd.items() if not k.endswith(('running_mean','running_var','num_batches_tracked')))

def settings(name):
    "The resolved settings of a reference"
    return json.loads((ORACLE/f'settings/{name}.json').read_text())

def quietly(sd, **kw):
    "A detector from weights alone, without the warning that tells what is assumed"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return detector_from_mmrotate(sd, **kw)

def first_n(det):
    "Samplers that take the first candidates, as those of the references do"
    for o in det.stages:
        if hasattr(o, 'sampler'): o.sampler = partial(o.sampler, first=True)
    return det

@pytest.fixture(scope='session')
def image():
    "The input of the references"
    return torch.from_numpy(np.random.RandomState(20240).standard_normal((1,3,128,128)).astype(np.float32))

cache = {}
def opened(name):
    "The reference as tensors, and our detector with its weights and settings, in evaluation mode"
    if name not in cache:
        cache.clear()
        z = np.load(ORACLE/f'models/{name}.npz')
        det = detector_from_mmrotate(checkpoint(name), cfg=settings(name))
        cache[name] = {k:torch.from_numpy(z[k]) for k in z.files if k!='meta'},first_n(det)
    z,det = cache[name]
    return z,det.eval()

def targets(z): return [dict(boxes=z['gt_bboxes'], labels=z['gt_labels'])]

def rel(a, b):
    "Largest difference over the largest number of `b`"
    return ((a-b).abs().max()/b.abs().max()).item()

def close(errs, tol):
    "Assert that there are errors, a dictionary or a list, and that each is a number below `tol`: `max()` passes over NaN"
    errs = dict(errs) if isinstance(errs, dict) else dict(enumerate(errs))
    assert errs and all(0<=v<tol for v in errs.values()), errs

def neck_errors(z, feats):
    "Largest relative error of each level of the neck"
    errs = {}
    for i,f in enumerate(feats):
        key,step = (f'out/neck/{i}',1) if f'out/neck/{i}' in z else (f'out/neck/{i}[::8]',8)
        errs[f'neck {i}'] = rel(f[:,::step], z[key])
    return errs

def their_dets(z):
    "The reference's detections in our form; quadrilaterals become the boxes around them"
    d = z['out/pred/dets']
    if d.shape[1]==9: d = torch.cat([qbox2rbox(d[:,:8].view(-1,4,2)), d[:,8:]], 1)
    return dict(boxes=d[:,:5], scores=d[:,5], labels=z['out/pred/labels'])

def unscored(boxes): return dict(boxes=boxes, scores=boxes[:,0]*0, labels=boxes[:,0]*0)

def matched(a, b):
    "For each detection of `b` whether `a` has one of the same class, score and corners within 1e-3 of the box's size"
    q,r = rbox2qbox(a['boxes']),rbox2qbox(b['boxes'])
    found = torch.zeros(len(r), dtype=torch.bool)
    for i in range(len(r)):
        on = (a['labels']==b['labels'][i]) & ((a['scores']-b['scores'][i]).abs()<1e-3)
        turns = torch.stack([q[on].roll(k, 1) for k in range(4)])  # the spelling of a rectangle is no difference
        if on.any(): found[i] = ((turns-r[i]).abs().amax((2,3)).amin(0)/b['boxes'][i,2:4].max().clamp(min=1)).min() < 1e-3
    return found

def nearly_all(found):
    "All but one in two hundred: what lies at a threshold is decided by the rounding of a CPU, and theirs was another"
    return (~found).sum()<=len(found)//200
