"Upright detectors from oriented labels: what they learn from, are measured by, predict, and become as a file"
import numpy as np, pytest, torch
from rotnb.data.labels.records import Annot
from rotnb.data.types import to_targets
from rotnb.evaluate import eval_map
from rotnb.geometry.boxes import qbox2rbox, rbox2qbox, spelt_corners
from rotnb.models import create_detector
from rotnb.predict.predictor import Predictor
from rotnb.predict.measure import truth_of
from PIL import Image

NAMES = 'car','ship'
TINY = dict(strides=(8,16), fpn_channels=16, feat_channels=16, stacked_convs=1)
QUAD = rbox2qbox(np.array([[60.,50,60,20,.5],[30,90,24,12,-.9]]))

@pytest.fixture(scope='module')
def predictor():
    torch.manual_seed(0)
    detector = create_detector('rotated_fcos_tiny', 2, angle='hbb', score_thr=0., **TINY)
    detector.vocab = list(NAMES)
    return Predictor(detector, size=128, score_thr=0., max_dets=20)

@pytest.fixture(scope='module')
def annots(tmp_path_factory):
    folder,res = tmp_path_factory.mktemp('upright'),[]
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (128,160,3), np.uint8)).save(folder/f'{i}.png')
        res.append(Annot(folder/f'{i}.png', QUAD, list(NAMES), np.zeros(2, int)))
    return res

def test_targets_are_the_boxes_around():
    quads = torch.tensor(QUAD).float()[None]/64-1
    target, = to_targets(quads, torch.tensor([[0,1]]), (128,128), 'hbb')
    want = torch.tensor(qbox2rbox(QUAD, 'hbb')).float()
    assert torch.allclose(target['boxes'], want, atol=1e-4) and (target['boxes'][:,4]==0).all()
    assert torch.allclose(target['quads'], torch.tensor(spelt_corners(QUAD, 'hbb')).float().flatten(1), atol=1e-4)

def test_ground_truth_of_an_upright_detector_is_upright(predictor, annots):
    "A perfect upright answer is worth 1, beside oriented labels"
    truth = [truth_of(annot, list(NAMES), 'hbb') for annot in annots]
    preds = [dict(boxes=qbox2rbox(QUAD, 'hbb'), scores=np.array([.9,.8]), labels=np.array([0,1]))]*2
    assert eval_map(preds, truth, iou_threshold=.95, n_classes=2).map==1
    acc = predictor.accumulate(annots)
    for record in acc.images: assert np.allclose(np.asarray(record.gt_boxes)[:,4], 0)

def test_predictions_are_upright_corners(predictor, annots, tmp_path):
    found = predictor.predict_image(annots[0].image, score_thr=0.)
    assert len(found)>0 and (found.boxes[:,4]==0).all()
    quads = found.quads.reshape(-1,4,2)
    assert torch.allclose(quads, spelt_corners(quads, 'hbb'))

@pytest.mark.slow
def test_an_exported_file_answers_alike(predictor, annots, tmp_path):
    from rotnb.interop.export import export_onnx
    export_onnx(predictor, tmp_path/'upright.onnx', check=False)
    served = Predictor(tmp_path/'upright.onnx')
    a,b = (o.predict_image(annots[0].image, score_thr=0.) for o in (predictor, served))
    assert served.detector.angle=='hbb' and len(b)>0 and (b.boxes[:,4]==0).all()
    n = min(5, len(a), len(b))                                            # ties of an untrained net aside, the best
    assert torch.allclose(a.scores[:n], b.scores[:n], atol=1e-3)
