"""References for detectors that the reference folder lacks, made with the real MMRotate 1.x (dev-1.x 3ff004e, mmdet 3.1.0) on the CPU.

    python mmrotate_1x.py CONFIGS ORACLE NAME ...

CONFIGS is the folder `configs` of MMRotate, ORACLE the reference folder with `weights.py`; NAME is a configuration without suffix.
ResNet-18 stands in for ResNet-50, the image has 128 px, samplers take the first candidates (`peer_ops.take_first`), and weights are
those of the formula. Operators of mmcv that are compiled were torchvision's or exact geometry: its own arithmetic did not run.
Written is NAME.npz: raw outputs, detections, losses, ground truth with four corners, settings and keys."""
import json, sys, warnings
from pathlib import Path
import numpy as np, torch
warnings.simplefilter('ignore')
sys.path.insert(0, sys.argv[2])
import mmcv.ops, peer_ops, weights
peer_ops.take_first()
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmdet.structures import DetDataSample
from mmrotate.utils import register_all_modules
register_all_modules()
from mmrotate.registry import MODELS
from mmrotate.structures.bbox import QuadriBoxes, RotatedBoxes

KEPT = 'running_mean','running_var','num_batches_tracked'

def small(cfg):
    "With ResNet-18 and nothing to download"
    cfg.backbone.update(depth=18, init_cfg=None)
    cfg.neck.in_channels = [64,128,256,512]
    return cfg

def state_of(model):
    params = dict(model.named_parameters())
    shapes = {key:tuple(value.shape) for key,value in model.state_dict().items() if key in params or key.endswith(KEPT)}
    model.load_state_dict({key:torch.tensor(weights.value(key, shape)) for key,shape in shapes.items()}, strict=False)
    return shapes

def corners(n=5, seed=956):
    "Objects that are no rectangles, and one that is upright; none has two anchors that are equally good, which rounding would choose from"
    rs = np.random.RandomState(seed)
    ctr,size,t = rs.uniform(30, 98, (n,2)),rs.uniform(12, 40, (n,2)),rs.uniform(-1.4, 1.4, n)
    unit = np.array([[-1,-1],[1,-1],[1,1],[-1,1]])/2*size[:,None]
    turned = np.stack([unit[...,0]*np.cos(t)[:,None]-unit[...,1]*np.sin(t)[:,None],
                       unit[...,0]*np.sin(t)[:,None]+unit[...,1]*np.cos(t)[:,None]], -1)
    quads = turned+ctr[:,None]+rs.uniform(-3, 3, (n,4,2))
    quads[-1] = ctr[-1]+unit[-1]
    return quads.reshape(n, 8).astype(np.float32),rs.randint(0, 15, n)

def noted(model, store):
    "Keep what heads and RoI extractors give"
    def keep(name):
        def hook(module, given, out):
            for i,part in enumerate(out if isinstance(out, (tuple,list)) else [out]):
                for j,level in enumerate(part if isinstance(part, (tuple,list)) else [part]):
                    if torch.is_tensor(level): store[f'out/{name}/{i}/{j}'] = level.detach().numpy().copy()
        return hook
    heads = [name for name,_ in model.named_modules() if name.split('.')[-1] in ('rpn_head','bbox_head','bbox_head_init')
             or name.startswith('bbox_head_refine.') and name.count('.')==1]
    return [model.get_submodule(name).register_forward_hook(keep(name)) for name in heads]

def reference(file):
    cfg = small(Config.fromfile(str(file)).model)
    text = json.dumps(cfg.to_dict())
    model = MODELS.build(cfg)
    shapes,x,res = state_of(model),torch.tensor(weights.image(128)),{}
    sample = DetDataSample(metainfo=dict(img_shape=(128,128), ori_shape=(128,128), batch_input_shape=(128,128), pad_shape=(128,128),
                                         scale_factor=(1.,1.)))
    hooks = noted(model.eval(), res)
    with torch.no_grad(): found = model.predict(x, [sample], rescale=False)[0].pred_instances
    for hook in hooks: hook.remove()
    boxes = found.bboxes if torch.is_tensor(found.bboxes) else found.bboxes.tensor
    order = found.scores.argsort(descending=True, stable=True)[:300]
    res |= {'pred/boxes':boxes[order].numpy(), 'pred/scores':found.scores[order].numpy(), 'pred/labels':found.labels[order].numpy()}
    quads,labels = corners()
    truth = QuadriBoxes(torch.tensor(quads))
    if 'qbox' not in file.stem and 'rbox' not in file.stem:
        truth = truth.convert_to('rbox')
        truth.regularize_boxes('le135')
    plain = cfg.data_preprocessor.get('boxtype2tensor', True)
    sample.gt_instances = InstanceData(bboxes=truth.tensor if plain else truth, labels=torch.tensor(labels).long())
    none = dict(bboxes=truth.tensor[:0] if plain else type(truth)(truth.tensor[:0]), labels=torch.zeros(0).long())
    sample.ignored_instances = InstanceData(**none)
    losses = model.train().loss(x, [sample])
    for key,value in losses.items():
        values = value if isinstance(value, (list,tuple)) else [value]
        res[f'loss/{key}'] = np.array([float(o) for o in values])
    lines = '\n'.join(f'{key}\t{"x".join(map(str, shape)) or "scalar"}' for key,shape in shapes.items())
    truths = dict(gt_quads=quads, gt_boxes=truth.tensor.numpy(), gt_labels=labels)
    return {**res, **truths, 'n_found':len(boxes), 'settings':text, 'keys':lines}

if __name__=='__main__':
    for name in sys.argv[3:]:
        file = next(Path(sys.argv[1]).rglob(f'{name}.py'))
        res = reference(file)
        np.savez_compressed(Path(__file__).with_name(f'{name}.npz'), **res)
        print(name, {key:value.shape if hasattr(value, 'shape') else value if isinstance(value, int) else '' for key,value in res.items()},
              {key:value.sum() for key,value in res.items() if key.startswith('loss')})
