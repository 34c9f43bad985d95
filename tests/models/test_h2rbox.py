"H2RBox and H2RBox-v2: MMRotate's numbers from formula weights, and what holds for any labels that merely surround objects"
import json, math
import numpy as np, pytest, torch
from formula import formula_image, formula_weights
from paths import ROOT
from reference import close, matched, rel
from rotnb.interop.mmrotate import detector_from_mmrotate

SEED = 3    # as in data/h2rbox_reference.py
UPRIGHT = [[[40,44,30,64,0],[92,84,52,26,0],[30,100,44,40,0],[100,28,22,18,0]], [[64,64,100,60,0],[26,30,24,40,0]]]
TURNED = [[[40,44,64,30,.5],[92,84,52,26,-1.2],[30,100,44,38,.9],[100,28,22,18,-.3]], [[64,64,100,60,.2],[26,30,40,24,1.1]]]
CASES = dict(upright=(UPRIGHT,128,0), turned=(TURNED,128,0), cropped=(UPRIGHT,160,16), none=([[[400,400,20,10,0]]]*2,128,0))
both = pytest.mark.parametrize('name', ['h2rbox','h2rbox_v2'])

def targets(case):
    boxes,_,shift = CASES[case]
    moved = [torch.tensor(of, dtype=torch.float)+torch.tensor([shift,shift,0,0,0]) for of in boxes]
    return [dict(boxes=o, labels=torch.tensor(labels)) for o,labels in zip(moved, [[0]]*2 if case=='none' else [[5,12,9,3],[1,11]])]

opened = {}
def reference(name):
    "MMRotate's arrays, and the detector that its configuration and weights open as"
    if name not in opened:
        z = np.load(ROOT/f'tests/interop/data/{name}.npz')
        sd = formula_weights(json.loads(str(z['keys'])))
        det = detector_from_mmrotate({key:torch.as_tensor(value) for key,value in sd.items()}, cfg=json.loads(str(z['settings'])))
        opened[name] = {key:torch.from_numpy(z[key]) for key in z.files if z[key].dtype.kind in 'fi'},det
    z,det = opened[name]
    return z,det.eval()

@both
def test_raw(name, recwarn):
    z,det = reference(name)
    assert det.name==name and not recwarn.list
    with torch.no_grad(): out = det.run_stages(torch.as_tensor(formula_image(128)))[1]
    maps = lambda kind: torch.cat([z[f'{kind}/{level}'].flatten(1).T for level in range(5)])
    sides = torch.cat([z[f'box/{level}'].flatten(1).T/stride for level,stride in enumerate(det.stages[0].strides)])
    close(dict(cls=rel(out.logits[0,:,::4], maps('cls')), box=rel(out.deltas[0,:,:4].clamp(min=0), sides),
               angle=rel(out.deltas[0,:,4:], maps('angle')), quality=rel(out.quality[0], maps('quality')[:,0])), 1e-4)

@both
def test_detections(name):
    z,det = reference(name)
    with torch.no_grad(): dets = det(torch.as_tensor(formula_image(128)))[0]
    theirs = dict(boxes=z['dets'][:,:5], scores=z['dets'][:,5], labels=z['labels'])
    assert len(theirs['boxes'])>500 and matched(theirs, dets).all() and matched(dets, theirs).all()

NAMES = dict(loss_bbox='loss_box', loss_centerness='loss_quality')

@both
@pytest.mark.parametrize('case', CASES)
def test_losses(name, case):
    "With the same seed the views are turned by the same angle"
    z,det = reference(name)
    torch.manual_seed(SEED)
    with torch.no_grad(): losses = det.train()(torch.as_tensor(formula_image(CASES[case][1], 2)), targets(case))
    want = {NAMES.get(key.split('/')[2], key.split('/')[2]):z[key].item() for key in z if key.startswith(f'loss/{case}/')}
    assert set(losses)==set(want) and len(want)==4
    print(name, case, {key:(losses[key].item(),want[key]) for key in want})
    close({key:abs(losses[key].item()-value)/max(abs(value), 1e-3) for key,value in want.items()}, 1e-3)
