"Files say the headings that their detector says"
import numpy as np, pytest, torch
from rotnb.interop.export import export_onnx, export_pt2
from rotnb.interop.runtime import ExportedDetector
from rotnb.models import create_detector
from rotnb.predict.predictor import Predictor

def made(name, **kw):
    torch.manual_seed(0)
    detector = create_detector(name, 3, backbone='test_resnet', heading=True, score_thr=.001, **kw).eval()
    last = detector.stages[-1].cls                                       # scores far apart: NMS does not choose among near ties
    for layer in last if isinstance(last, torch.nn.ModuleList) else [last]: torch.nn.init.normal_(layer.weight, std=.2)
    detector.vocab,detector.symmetry = ['court','plane','tank'],{'plane':360}
    return Predictor(detector, size=64, score_thr=.001)

@pytest.mark.parametrize('name,export,ending', [('rotated_tal_tiny',export_onnx,'.onnx'), *(pytest.param(*o, marks=pytest.mark.slow)
                         for o in (('rotated_tal_tiny',export_pt2,'.pt2'), ('oriented_rcnn',export_onnx,'.onnx')))])
def test_a_file_gives_headings(name, export, ending, tmp_path):
    "All forms are written from one ExportModule, which the file of ONNX holds"
    predictor,image = made(name),np.random.default_rng(0).integers(0, 255, (64,64,3), dtype=np.uint8)
    file = export(predictor, tmp_path/f'a{ending}', images=[image])                                # proves headings, too
    assert 'heading' in ExportedDetector(file).runtime.outputs
    own,found = predictor(image),Predictor(file)(image, score_thr=.001)
    is_plane = np.array(found.names)=='plane'
    assert is_plane.any() and (np.isfinite(found.heading.numpy())==is_plane).all()
    near = (own.boxes[:,None]-found.boxes).abs().amax(-1)+1e3*(own.labels[:,None]!=found.labels)   # equal scores come in any order
    off,at = near.min(1)
    like = off<.05
    assert like.float().mean()>.9 and abs(len(own)-len(found))<=1
    assert np.allclose(np.cos(own.heading-found.heading[at])[like], np.where(is_plane[at], 1, np.nan)[like], atol=1e-3, equal_nan=True)
