"Deformable DETR as `transformers` computes it, from formula weights (tests/helpers/peer_deformable.py)"
from pathlib import Path
import numpy as np, pytest, torch
from rotnb.interop.rtdetr_files import detector_from_set
from rotnb.models.files import WeightsError
from formula import formula_image, formula_value
from peer_deformable import K, QUERIES, SIZE, key_once
from peer_rtdetr import BOXES, LABELS, thin

DATA = np.load(Path(__file__).parent/'data/deformable_detr_r18.npz')
SHAPES = {key:tuple(map(int, shape)) for key,*shape in map(str.split, str(DATA['keys']).splitlines())}

@pytest.fixture(scope='module')
def published():
    return {key:torch.tensor(formula_value(key_once(key), shape)) for key,shape in SHAPES.items()}

@pytest.fixture(scope='module')
def model(published): return detector_from_set(published, queries=QUERIES)

def close(ours, theirs, tol): assert np.abs(ours-theirs).max()<tol*max(1, np.abs(theirs).max())

def test_the_same_outputs(model):
    x = torch.tensor(formula_image(SIZE, 2))
    with torch.no_grad(): first,*others = [out for _,out in model.stage_outs(x)]
    def share(out): return out.deltas[...,:4]/SIZE
    close(thin(first.logits), DATA['cells'], 1e-4); close(thin(share(first)), DATA['starts'], 1e-4)
    close(thin(torch.stack([out.logits for out in others], 1)), DATA['logits'], 1e-4)
    close(thin(torch.stack([*map(share, others)], 1)), DATA['boxes'], 1e-4)
    assert DATA['logits'].std()>.1 and DATA['boxes'].std()>.05                       # something is compared
    assert model.n_classes==K and len(others)==2

def test_the_same_losses(model):
    "Of the stages that `transformers` has losses for: not of the cells. Weights are those that it adds them up with, 2, 5 and 2"
    boxes = [torch.tensor([[*(SIZE*side for side in box),0.] for box in own]) for own in BOXES]
    targets = [dict(boxes=own, labels=torch.tensor(labels)) for own,labels in zip(boxes, LABELS)]
    with torch.no_grad(): losses,_ = model(torch.tensor(formula_image(SIZE, 2)), targets)
    for i,aux in ((1,'_0'),(2,'')):
        for ours,(theirs,weight) in dict(cls=('ce',2), dist=('bbox',5), box=('giou',2)).items():
            wanted = weight*float(DATA[f'loss/loss_{theirs}{aux}'])
            assert losses[f's{i}_loss_{ours}'].mean().item()==pytest.approx(wanted, rel=1e-3), (i,ours)

def test_older_names_and_layers_that_stand_there_once(published, model):
    old = {key.replace('backbone.model', 'backbone.conv_encoder.model').replace('o_proj', 'out_proj').replace('mlp.fc', 'fc'):value
           for key,value in published.items() if 'decoder.class_embed' not in key and 'decoder.bbox_embed' not in key}
    assert set(old)!=set(published)
    again = detector_from_set(old, queries=QUERIES)
    assert all(torch.equal(a, b) for a,b in zip(again.state_dict().values(), model.state_dict().values()))

def test_a_start_for_oriented_boxes(published, model):
    with pytest.warns(UserWarning, match='new in it: the angle'):
        turned = detector_from_set(published, angle='le90', queries=QUERIES)
    assert torch.equal(turned.stages[1].box[4].weight[:4], model.stages[1].box[4].weight) and turned.stages[1].box[4].weight.shape[0]==5
    assert torch.equal(turned.neck.layers[1].look.value.weight, model.neck.layers[1].look.value.weight)
    assert all(torch.isfinite(o['boxes']).all() for o in turned(torch.tensor(formula_image(SIZE))))

def test_other_weights_are_refused(published):
    with pytest.raises(WeightsError, match='no set detector'): detector_from_set({'a.weight':torch.zeros(3)})
    one = {key:value for key,value in published.items() if 'pos_trans' not in key}
    with pytest.raises(WeightsError, match='two_stage'): detector_from_set(one)

def test_a_file_by_load_weights(published, model, tmp_path):
    from rotnb.predict.load import load_weights
    torch.save(published, tmp_path/'deformable.pth')
    predictor = load_weights(tmp_path/'deformable.pth')
    assert predictor.detector.name=='deformable_detr' and predictor.detector.angle=='hbb'
    assert torch.equal(predictor.detector.stages[2].cls.weight, model.stages[2].cls.weight)
