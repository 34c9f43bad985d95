"Every coder's boxes and corners come out of an exported graph as they are"
import pytest, torch
from torch import nn
from rotnb.geometry.boxes import rbox2qbox
from rotnb.models.reppoints import PointSetCoder
from rotnb.targets.angle_coders import CSLAngle, DCLAngle, DFLAngle, PSCAngle
from rotnb.targets.coders import DeltaXYWHACoder, DistanceAngleCoder
from rotnb.targets.roi_coders import DeltaXYWHCoder, GlidingVertexCoder, MidpointOffsetCoder
from rotnb.targets.point_coders import PointXYWHACoder, SigmoidXYWHACoder
from runtimes import as_onnx, in_openvino, in_ort, operators, plain, traced

ANGLES = dict(psc=PSCAngle(), dual=PSCAngle(dual_freq=True, min_mod=.4), csl=CSLAngle(), rect=CSLAngle('le135', window='rect'),
              dcl=DCLAngle('oc'), binary=DCLAngle(gray=False))
CODERS = dict(upright=DeltaXYWHCoder(), gauss=PointSetCoder(box='gaussian'), exp=DistanceAngleCoder(act='exp', keep_sides=True),
              next_stage=DeltaXYWHACoder(norm_factor=2, keep_sides=True, proj_xy=False), oc_new=DeltaXYWHACoder('oc', oc='new'),
              **{f'{o.__name__}_{form}':o(form) for form in ('le90','le135','oc','hbb')
                 for o in (DeltaXYWHACoder,MidpointOffsetCoder,GlidingVertexCoder,DistanceAngleCoder,PointSetCoder)},
              dfl=DistanceAngleCoder('oc', 'dfl', DFLAngle(), bins=8), yolox=PointXYWHACoder('hbb'),
              elu=PointXYWHACoder('oc', 'elu', DFLAngle()), yolov5=SigmoidXYWHACoder('oc'),
              **{f'{o.__name__}_{k}':o(angle_coder=angle) for k,angle in ANGLES.items() for o in (DistanceAngleCoder,DeltaXYWHACoder)})
N = max(o.n for o in CODERS.values())

def said(n, seed=0):
    "Scores, upright priors, and what a network may say; some sets of points are triangles"
    g = torch.Generator().manual_seed(seed)
    wh = torch.rand(n, 2, generator=g)*80+2
    deltas = torch.randn(n, N, generator=g)*.6
    deltas[::3,42:] = deltas[::3,36:].repeat(1,5)[:,:N-42]
    return torch.rand(n, generator=g),torch.cat([torch.rand(n, 2, generator=g)*300, wh, wh[:,:1]*0], 1),deltas

class Decoder(nn.Module):
    "Corners of the candidates above a score, of several coders"
    def __init__(self, *names): super().__init__(); self.coders = [CODERS[o] for o in names]
    def forward(self, scores, priors, deltas):
        at,out = (scores>.1).nonzero()[:,0],[]
        for coder in self.coders:
            p,d = priors[at],deltas[at,:coder.n]
            if hasattr(coder, 'squash'): d = coder.squash(d)
            out.append(rbox2qbox(coder.decode(p, d)))
            if hasattr(coder, 'quads'): out.append(coder.quads(p, d))
        return tuple(out)

def hold(run, net, tol=1e-2):
    "The same corners within `tol` px, wherever they start"
    for n in (200,30,1):
        for got,want in zip(run(*said(n, n)), net(*said(n, n))):
            got = torch.as_tensor(got)
            assert got.shape==want.shape and got.isfinite().all()
            gap = torch.stack([(got-want.roll(i, 1)).abs().amax((1,2)) for i in range(4)]).amin(0)
            assert (gap<=tol).all(), gap.max()

@pytest.mark.parametrize('name', CODERS)
def test_forms_of_an_export(name, monkeypatch):
    net = Decoder(name); want = {n:net(*said(n, n)) for n in (200,30,1)}
    plain(monkeypatch); hold(net, lambda scores,*_: want[len(scores)], 1e-4)

@pytest.mark.parametrize('name', [o if o=='GlidingVertexCoder_le90' else pytest.param(o, marks=pytest.mark.slow) for o in CODERS])
def test_in_runtimes(name, tmp_path):
    net = Decoder(name); program = traced(net, said(50)); path = tmp_path/'coder.onnx'
    assert all(o.startswith(('aten.','<built-in','_operator')) for o in operators(program)), operators(program)
    assert as_onnx(program, path)=={''}
    for run in (program.module(),in_ort(path),in_openvino(path)): hold(run, net)
