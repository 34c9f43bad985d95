"DINO as `mmdet` computes it, from formula weights (tests/helpers/peer_dino.py), and Deformable DETR in the same names"
import json, re
from pathlib import Path
import numpy as np, pytest, torch
from rotnb.interop.rtdetr_files import detector_from_set, find_set
from rotnb.models.files import WeightsError
from formula import formula_image, formula_value
from peer_deformable import key_once
from peer_dino import K, LAYERS, QUERIES, SIZE, dino_value
from peer_heads import OBJECTS, thin

DATA = np.load(Path(__file__).parent/'data/dino_r18.npz')
SHAPES = {key:tuple(map(int, shape)) for key,*shape in map(str.split, str(DATA['keys']).splitlines())}

@pytest.fixture(scope='module')
def published(): return {key:torch.tensor(dino_value(key, shape)) for key,shape in SHAPES.items()}

@pytest.fixture(scope='module')
def model(published): return detector_from_set(published)

def close(ours, theirs, tol=1e-4): assert theirs.std()>.02 and np.abs(ours-theirs).max()<tol*max(1, np.abs(theirs).max())

def test_the_same_outputs(model):
    with torch.no_grad(): first,*others = [out for _,out in model.stage_outs(torch.tensor(formula_image(SIZE, 2)))]
    def share(out): return out.deltas[...,:4]/SIZE
    close(thin(first.logits), DATA['cells']); close(thin(share(first)), DATA['starts'])
    close(thin(torch.stack([out.logits for out in others], 1)), DATA['logits'])
    close(thin(torch.stack([*map(share, others)], 1)), DATA['boxes'])
    assert (model.name,model.n_classes,len(others),first.logits.shape[1])==('dino',K,LAYERS,QUERIES)

def targets():
    rows = [torch.tensor([row[2:] for row in own], dtype=torch.float) for own in OBJECTS]
    boxes = [torch.cat([(own[:,:2]+own[:,2:])/2, own[:,2:]-own[:,:2], 0*own[:,:1]], 1) for own in rows]
    return [dict(boxes=box, labels=torch.tensor([row[1] for row in own])) for box,own in zip(boxes, OBJECTS)]

def test_the_same_losses(model, monkeypatch):
    "Of the cells and of both stages, without objects with noise, which are drawn"
    monkeypatch.setattr(model.stages[1], 'denoise', None)
    with torch.no_grad(): losses,_ = model(torch.tensor(formula_image(SIZE, 2)), targets())
    wanted,seen = json.loads(str(DATA['losses'])),set()
    for i,theirs in enumerate(['enc_loss','d0.loss','loss']):
        for ours,term in dict(cls='cls', dist='bbox', box='iou').items():
            assert losses[f's{i}_loss_{ours}'].mean().item()==pytest.approx(wanted[f'{theirs}_{term}'], rel=1e-3), (i,ours)
            seen.add(f'{theirs}_{term}')
    assert seen==set(wanted)

def test_a_start_for_oriented_boxes(published, model):
    with pytest.warns(UserWarning, match='new in it: the angle'): turned = detector_from_set(published, angle='le90', heading=True)
    assert torch.equal(turned.stages[1].box[4].weight[:4], model.stages[1].box[4].weight) and turned.stages[1].box[4].weight.shape[0]==5
    assert torch.equal(turned.stages[1].embed.weight[:K], published['dn_query_generator.label_embedding.weight'])
    x = torch.tensor(formula_image(SIZE))
    assert all(torch.isfinite(one['boxes']).all() and len(one['heading'])==len(one['boxes']) for one in turned(x))

def test_a_file_by_load_weights(published, model, tmp_path):
    from rotnb.predict.load import load_weights
    torch.save(dict(meta=dict(), state_dict=published), tmp_path/'dino.pth')
    detector = load_weights(tmp_path/'dino.pth').detector
    ours,theirs = (one.stages[2].norm_answer.weight for one in (detector, model))
    assert (detector.name,detector.angle)==('dino','hbb') and torch.equal(ours, theirs)

# --- Deformable DETR, whose file in the names of `transformers` is compared in test_deformable.py

_NAMES = [(r'^backbone\.conv_encoder\.model\.|^backbone\.model\.', 'backbone.'), (r'^input_proj\.([012])\.0\.', r'neck.convs.\1.conv.'),
          (r'^input_proj\.([012])\.1\.', r'neck.convs.\1.gn.'), (r'^input_proj\.3\.0\.', 'neck.extra_convs.0.conv.'),
          (r'^input_proj\.3\.1\.', 'neck.extra_convs.0.gn.'), (r'^enc_output\.', 'memory_trans_fc.'),
          (r'^enc_output_norm\.', 'memory_trans_norm.'),
          (r'^pos_trans\.', 'pos_trans_fc.'), (r'^class_embed\.', 'bbox_head.cls_branches.'),
          (r'^bbox_embed\.(\d)\.layers\.(\d)\.', lambda m: f'bbox_head.reg_branches.{m[1]}.{2*int(m[2])}.'),
          (r'^(encoder\..*)self_attn_layer_norm', r'\1norms.0'), (r'^(encoder\..*)final_layer_norm', r'\1norms.1'),
          (r'^(decoder\..*)self_attn_layer_norm', r'\1norms.0'), (r'encoder_attn_layer_norm', 'norms.1'),
          (r'^(decoder\..*)final_layer_norm', r'\1norms.2'), (r'\.encoder_attn\.', '.cross_attn.'),
          (r'\.(mlp\.)?fc1\.', '.ffn.layers.0.0.'), (r'\.(mlp\.)?fc2\.', '.ffn.layers.1.'),
          (r'^(decoder\..*)self_attn\.o(ut)?_proj\.', r'\1self_attn.attn.out_proj.')]

def in_other_names(sd):
    "The numbers of a file of `transformers` under MMDetection's names"
    new = {}
    for key,value in sd.items():
        key = re.sub(r'^decoder\.(?=(class|bbox)_embed)', '', re.sub(r'^model\.', '', key))
        for pat,to in _NAMES: key = re.sub(pat, to, key)
        if found := re.match(r'(decoder\..*self_attn)\.([qkv])_proj\.(.*)', key):
            new.setdefault(f'{found[1]}.attn.in_proj_{found[3]}', {})[found[2]] = value
        else: new[key] = value
    return {key:value if torch.is_tensor(value) else torch.cat([value[part] for part in 'qkv']) for key,value in new.items()}

def test_deformable_detr_in_these_names():
    keys = str(np.load(Path(__file__).parent/'data/deformable_detr_r18.npz')['keys']).splitlines()
    sd = {key:torch.tensor(formula_value(key_once(key), tuple(map(int, shape)))) for key,*shape in map(str.split, keys)}
    one,two = detector_from_set(sd, queries=20),detector_from_set(in_other_names(sd), queries=20)
    assert find_set(in_other_names(sd)).source=='MMDetection' and two.name=='deformable_detr'
    assert {*one.state_dict()}=={*two.state_dict()}
    assert all(torch.equal(a, b) for a,b in zip(one.state_dict().values(), two.state_dict().values()))

def test_others_are_refused(published):
    bare = {key:value for key,value in published.items() if 'memory_trans' not in key}
    with pytest.raises(WeightsError, match='two_stage'): detector_from_set(bare)
    oriented = {key:torch.cat([value, value[:1]]) if re.search(r'reg_branches\.\d\.4', key) else value for key,value in published.items()}
    with pytest.raises(WeightsError, match='oriented boxes in numbers that are not known'): detector_from_set(oriented)
