"RT-DETR as `transformers` computes it, from formula weights (tests/helpers/peer_rtdetr.py)"
from pathlib import Path
import numpy as np, pytest, torch
from rotnb.interop.export_module import ExportModule
from rotnb.interop.rtdetr_files import detector_from_set
from rotnb.models.files import WeightsError
from rotnb.predict.predictor import Predictor
from formula import formula_image, formula_value
from peer_rtdetr import BOXES, LABELS, QUERIES, SIZE, thin

DATA = np.load(Path(__file__).parent/'data/rtdetr_r18.npz')
SHAPES = {key:tuple(map(int, shape)) for key,*shape in map(str.split, str(DATA['keys']).splitlines())}

@pytest.fixture(scope='module')
def published(): return {key:torch.tensor(formula_value(key, shape)) for key,shape in SHAPES.items()}

@pytest.fixture(scope='module')
def model(published): return detector_from_set(published, queries=QUERIES)

def targets():
    boxes = [torch.tensor([[*(SIZE*side for side in box),0.] for box in own]) for own in BOXES]
    return [dict(boxes=own, labels=torch.tensor(labels)) for own,labels in zip(boxes, LABELS)]

def close(ours, theirs, tol): assert np.abs(ours-theirs).max()<tol*max(1, np.abs(theirs).max())

def test_the_same_outputs(model):
    x = torch.tensor(formula_image(SIZE, 2))
    with torch.no_grad(): first,*others = [out for _,out in model.stage_outs(x)]
    def share(out): return out.deltas[...,:4]/SIZE
    close(thin(first.logits), DATA['cells'], 1e-4); close(thin(share(first)), DATA['starts'], 1e-4)
    close(thin(torch.stack([out.logits for out in others], 1)), DATA['logits'], 1e-4)
    close(thin(torch.stack([*map(share, others)], 1)), DATA['boxes'], 1e-4)
    assert DATA['logits'].std()>.1 and DATA['boxes'].std()>.05                       # something is compared

def test_the_same_losses(model):
    "Of queries, without objects with noise, which are drawn"
    x,last = torch.tensor(formula_image(SIZE, 2)),len(model.stages)-1
    noise,model.stages[1].denoise = model.stages[1].denoise,None
    try:
        with torch.no_grad(): losses,_ = model(x, targets())
    finally: model.stages[1].denoise = noise
    for i in range(last+1):
        aux = '' if i==last else f'_aux_{(i-1)%last}'
        for ours,theirs in dict(cls='vfl', dist='bbox', box='giou').items():
            assert losses[f's{i}_loss_{ours}'].mean().item()==pytest.approx(float(DATA[f'loss/loss_{theirs}{aux}']), rel=1e-3), (i,ours)

def test_older_names(published, model):
    old = {key.replace('aifi', 'encoder').replace('o_proj', 'out_proj').replace('mlp.fc', 'fc'):value for key,value in published.items()}
    assert set(old)!=set(published)
    again = detector_from_set(old)
    assert all(torch.equal(a, b) for a,b in zip(again.state_dict().values(), model.state_dict().values()))

def test_a_start_for_oriented_boxes(published, model):
    with pytest.warns(UserWarning, match='new in it: the angle'): turned = detector_from_set(published, angle='le90')
    assert torch.equal(turned.stages[1].box[4].weight[:4], model.stages[1].box[4].weight) and turned.stages[1].box[4].weight.shape[0]==5
    assert torch.equal(turned.backbone.body.conv1[0].weight, model.backbone.body.conv1[0].weight)
    assert all(torch.isfinite(o['boxes']).all() for o in turned(torch.tensor(formula_image(SIZE))))

def test_other_weights_are_refused(published):
    with pytest.raises(WeightsError, match='no set detector'): detector_from_set({'a.weight':torch.zeros(3)})
    less = {key:value for key,value in published.items() if '.stages.2.' not in key}
    with pytest.raises(WeightsError, match='none of the sizes'): detector_from_set(less)

def test_a_file_by_load_weights(published, model, tmp_path):
    from rotnb.predict.load import load_weights
    file = tmp_path/'rtdetr.pth'
    torch.save(published, file)
    predictor = load_weights(file)
    assert predictor.detector.name=='rtdetr_r18' and predictor.detector.angle=='hbb'
    assert torch.equal(predictor.detector.stages[3].cls.weight, model.stages[3].cls.weight)

def test_images_are_shown_as_published(model):
    "`transformers` divides by 255 and no more"
    image = torch.arange(3*64*64).reshape(1,3,64,64)%256
    assert torch.allclose(ExportModule(Predictor(model, size=64)).normalised(image)[...,:64,:64], image/255, atol=1e-6)
