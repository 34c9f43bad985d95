"A detector as a file of another runtime has the same boxes, whatever is in the image, and says what it is"
import json
import numpy as np, pytest, torch
from exported import tiny_predictor
from rotnb.data.synth.scenes import make_scene
from rotnb.interop.export import ExportModule, file_images, file_predictor, match_answers, prove, run_exported
from rotnb.ops.iou import box_iou_rotated

@pytest.fixture(scope='module')
def made():
    predictor = file_predictor(tiny_predictor())
    return predictor,ExportModule(predictor)

def test_same_boxes_as_the_predictor(exported, made):
    predictor,module = made
    proof = prove(exported(), module, predictor, [make_scene(seed, 256)[0] for seed in range(2)], runs=1)
    assert proof.fits(1e-2) and proof.match.n>10 and not proof.match.close
    assert proof.match.score<1e-4

def test_nothing_found_is_an_empty_answer(exported, made):
    found = run_exported(exported())(np.zeros((1,3,160,192), np.uint8))
    n = int(found['count'][0])
    assert (found['labels'][0,n:]==-1).all() and (found['boxes'][0,n:]==0).all() and (found['scores'][0,n:]==0).all()
    assert found['boxes'].shape==(1,300,5) and found['labels'].dtype==np.int64 and found['count'].dtype==np.int64

def test_what_stands_in_the_file(exported, made):
    onnx = pytest.importorskip('onnx')
    model = onnx.load(exported())
    assert [(o.domain,o.version) for o in model.opset_import]==[('',20)]
    notes = {o.key:o.value for o in model.metadata_props}
    said = json.loads(notes['rotnb'])
    assert type(made[0])(made[0].detector, **said['predictor']).settings()==made[0].settings()
    assert said['predictor']['vocab']==made[0].vocab and eval(notes['names'])==dict(enumerate(made[0].vocab))

def test_images_are_padded_as_the_predictor_pads(made):
    predictor,_ = made
    image = make_scene(3, 128)[0][:70]
    ours = file_images(predictor, [image])
    want = predictor.fit.batch([predictor.fit.resized(image)], predictor.fit.way((128,70)).out)
    mean,std = (torch.tensor(part).view(3,1,1) for part in predictor.fit.stats)
    assert ours.shape==(1,3,160,192)
    assert ((torch.from_numpy(ours)/255-mean)/std-want).abs().max()<1e-6
