"""What DINO of `mmdet` 3.3 (Apache 2.0), small, makes of formula weights, as a small file for tests/interop/test_dino.py: answers of all
stages and losses without objects with noise, which are drawn. Attention that looks around, which is compiled in mmcv, is written out here
in plain torch, as its paper has it; `mmcv-lite` holds the rest.

    python peer_dino.py OUT.npz

It is no test, and nothing imports it."""
import json, sys
import numpy as np, torch, torch.nn.functional as F
from formula import formula_image, formula_value
from peer_heads import OBJECTS, NoOps, plain_norms, thin, total

SIZE,K,QUERIES,LAYERS,WIDE = 128,80,30,2,256

def dino_value(key, shape):
    "The formula's, but places that are read elsewhere than in a star, and boxes that move"
    value = formula_value(key, shape)
    if key.endswith('sampling_offsets.bias'): value *= np.float32(4)
    return value

class Looking(torch.nn.Module):
    "Deformable attention: each head reads each level at a few places and adds up"
    def __init__(self, embed_dims=256, num_heads=8, num_levels=4, num_points=4, batch_first=True, dropout=0., **kw):
        super().__init__()
        self.embed_dims,self.shape = embed_dims,(num_heads,num_levels,num_points)
        n = num_heads*num_levels*num_points
        self.sampling_offsets,self.attention_weights = torch.nn.Linear(embed_dims, 2*n),torch.nn.Linear(embed_dims, n)
        self.value_proj,self.output_proj = torch.nn.Linear(embed_dims, embed_dims),torch.nn.Linear(embed_dims, embed_dims)
    def init_weights(self): pass
    def forward(self, query, key=None, value=None, identity=None, query_pos=None, key_padding_mask=None, reference_points=None,
                spatial_shapes=None, level_start_index=None, **kw):
        heads,levels,points = self.shape
        value,identity = query if value is None else value,query if identity is None else identity
        if query_pos is not None: query = query+query_pos
        b,n,c = query.shape
        assert key_padding_mask is None or not key_padding_mask.any()
        value = self.value_proj(value).view(b, -1, heads, c//heads)
        offsets = self.sampling_offsets(query).view(b, n, heads, levels, points, 2)
        counts = self.attention_weights(query).view(b, n, heads, levels*points).softmax(-1).view(b, n, heads, levels, points)
        near = reference_points[:,:,None,:,None]
        if near.shape[-1]==2: at = near+offsets/spatial_shapes.flip(1)[None,None,None,:,None]
        else: at = near[...,:2]+offsets/points*near[...,2:]*.5
        seen,first = 0,0
        for level,(h,w) in enumerate(spatial_shapes.tolist()):
            level_value = value[:,first:first+h*w].permute(0, 2, 3, 1).reshape(b*heads, -1, h, w); first += h*w
            grid = (2*at[:,:,:,level]-1).transpose(1, 2).reshape(b*heads, n, points, 2)
            read = F.grid_sample(level_value, grid, align_corners=False).view(b, heads, -1, n, points)
            seen = seen+(read*counts[:,:,:,level].permute(0, 2, 1, 3)[:,:,None]).sum(-1)
        return self.output_proj(seen.flatten(1, 2).transpose(1, 2))+identity

def built():
    sys.meta_path.insert(0, NoOps())
    import mmcv, mmcv.ops
    mmcv.__version__ = '2.1.0'                                             # mmdet 3.3 refuses what came later, for no part of this
    mmcv.ops.MultiScaleDeformableAttention = Looking
    import mmdet, mmdet.models
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmdet.registry import MODELS
    from pathlib import Path
    cfg = Config.fromfile(Path(mmdet.__file__).parent/'.mim/configs/dino/dino-4scale_r50_8xb2-12e_coco.py')
    init_default_scope('mmdet')
    plain_norms(cfg.model)
    cfg.model.backbone.update(depth=18)
    cfg.model.neck.update(in_channels=[128,256,512])
    cfg.model.num_queries = QUERIES
    for part in (cfg.model.encoder,cfg.model.decoder):
        part.num_layers = LAYERS
        part.layer_cfg.ffn_cfg.feedforward_channels = 512
    return MODELS.build(cfg.model).eval()

class NoNoise:
    "Objects with noise, none of them"
    def __init__(self, generator): self.label_embedding = generator.label_embedding
    def __call__(self, samples): return torch.zeros(2, 0, WIDE),torch.zeros(2, 0, 4),None,None

if __name__=='__main__':
    model = built()
    from mmengine.structures import InstanceData
    from mmdet.structures import DetDataSample
    shapes = {key:tuple(tensor.shape) for key,tensor in model.state_dict().items()}
    model.load_state_dict({key:torch.tensor(dino_value(key, shape)) for key,shape in shapes.items()})
    noise = model._modules.pop('dn_query_generator')
    model.dn_query_generator = NoNoise(noise)
    model.bbox_head.split_outputs = lambda logits, boxes, _: (logits, boxes, None, None)
    model.training = True                                                  # it gives more for its losses; norms stay as they are
    meta = dict(img_shape=(SIZE,SIZE), batch_input_shape=(SIZE,SIZE), pad_shape=(SIZE,SIZE,3), scale_factor=(1.,1.))
    objects = [InstanceData(bboxes=torch.tensor([row[2:] for row in own], dtype=torch.float), labels=torch.tensor([row[1] for row in own]))
               for own in OBJECTS]
    samples = [DetDataSample(metainfo=meta, gt_instances=own) for own in objects]
    with torch.no_grad():
        feats = model.extract_feat(torch.tensor(formula_image(SIZE, 2)))
        out = model.forward_transformer(feats, samples)
        logits,boxes = model.bbox_head(out['hidden_states'], out['references'])
        losses = model.bbox_head.loss_by_feat(logits, boxes, out['enc_outputs_class'], out['enc_outputs_coord'], objects, [meta]*2, None)
    losses = {key:total(value) for key,value in losses.items()}
    cells = out['enc_outputs_class'].amax(-1)
    print(losses, logits.shape, logits.std(), boxes.std(), (cells[:,:-1]-cells[:,1:]).amin(), flush=True)
    np.savez_compressed(sys.argv[1], losses=json.dumps(losses),
                        cells=thin(out['enc_outputs_class']), starts=thin(out['enc_outputs_coord']), logits=thin(logits.transpose(0, 1)),
                        boxes=thin(boxes.transpose(0, 1)),
                        keys='\n'.join(f"{key} {' '.join(map(str, shape))}" for key,shape in shapes.items()))
