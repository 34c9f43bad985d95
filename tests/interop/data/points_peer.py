"""Numbers of MMRotate's own point set detectors, for `tests/interop/test_points.py`: raw outputs, losses, gradients and detections of two
images under formula weights. Run where MMRotate (0.x or 1.x, as found) and stand-ins for its CUDA-only operators can be imported:

    PYTHONPATH=... python points_peer.py FOLDER_OF_CONFIGS FOLDER_OF_FORMULA_WEIGHTS CONFIG...

`peer_ops` are the stand-ins. Convex overlaps, least rectangles and points in polygons are therefore not mmcv's arithmetic but ours."""
import json, sys
from pathlib import Path
import numpy as np, torch
configs,formula,*names = sys.argv[1:]
sys.path.insert(0, formula)
import mmcv.ops, peer_ops, weights
import mmrotate

SIZE = 384                              # nine locations on the coarsest level, as ATSS-like assigners of MMRotate need
OLD = mmrotate.__version__[0]=='0'
torch.Tensor.cuda = lambda self,*args,**kw: self           # SASM's loss moves to a GPU whatever it is given
OBJECTS = [[[101.7,90.4,150,60,.3],[253.1,121.3,90,70,-.5],[298.2,302.9,120,30,1.1],[61.3,297.2,40,30,.8],[203.4,229.1,220,160,-.2]],
           [[193.1,186.7,300,90,.6],[58.8,70.9,60,50,-1.2]]]           # no centre halfway between locations: which of two is no rule
LABELS = [[3,7,0,14,3],[1,9]]

def corners(boxes):
    x,y,w,h,a = torch.tensor(boxes, dtype=torch.float32).T[...,None]
    u,v = torch.tensor([[-1.,1,1,-1],[-1,-1,1,1]])/2
    return torch.stack([x+u*w*a.cos()-v*h*a.sin(), y+u*w*a.sin()+v*h*a.cos()], -1).flatten(1)

def smaller(model): # ResNet-18 without weights from elsewhere
    model['backbone'] = dict(model['backbone'], depth=18, init_cfg=None)
    model['neck'] = dict(model['neck'], in_channels=[64,128,256,512])
    return model

def filled(model):
    params = dict(model.named_parameters())
    stats = 'running_mean','running_var','num_batches_tracked'
    model.load_state_dict({key:torch.tensor(weights.value(key, tuple(tensor.shape))) for key,tensor in model.state_dict().items()
                           if key in params or key.endswith(stats)}, strict=False)
    return model

def old_one(name):
    from mmcv import Config
    from mmrotate.models import build_detector
    cfg = Config.fromfile(f'{configs}/{name}.py')
    text = json.dumps(smaller(cfg.model), default=list)        # before building writes into it
    model = filled(build_detector(cfg.model))
    meta = dict(img_shape=(SIZE,SIZE,3), ori_shape=(SIZE,SIZE,3), pad_shape=(SIZE,SIZE,3), scale_factor=np.ones(4, np.float32), flip=False)
    def losses(x): return model.forward_train(x, [meta]*2, [torch.tensor(boxes, dtype=torch.float32) for boxes in OBJECTS],
                                              [torch.tensor(label) for label in LABELS])
    def detections(x):
        found = model.simple_test(x[:1], [meta])[0]
        return np.concatenate([np.c_[rows,np.full(len(rows), label)] for label,rows in enumerate(found)])
    return text,model,losses,detections

def new_one(name):
    from mmengine.config import Config
    from mmengine.structures import InstanceData
    from mmdet.structures import DetDataSample
    from mmrotate.utils import register_all_modules
    from mmrotate.registry import MODELS
    register_all_modules()
    cfg = Config.fromfile(f'{configs}/{name}.py')
    text = json.dumps(smaller(cfg.model), default=list)        # before building writes into it
    model = filled(MODELS.build(cfg.model))
    size = SIZE,SIZE
    samples = [DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size, scale_factor=(1.,1.)),
                             gt_instances=InstanceData(bboxes=corners(boxes), labels=torch.tensor(label)))
               for boxes,label in zip(OBJECTS, LABELS)]
    def detections(x):
        found = model.predict(x[:1], samples[:1])[0].pred_instances
        boxes = found.bboxes if torch.is_tensor(found.bboxes) else found.bboxes.tensor
        return torch.cat([boxes, found.scores[:,None], found.labels[:,None]], 1).numpy()
    return text,model,lambda x: model.loss(x, samples),detections

def plain(loss): return float(sum(part.sum() for part in loss)) if isinstance(loss, (list,tuple)) else float(loss.sum())

def keys(model): # as `fake_checkpoint` reads them
    params = dict(model.named_parameters())
    for key,tensor in model.state_dict().items():
        yield f"{key}\t{'x'.join(map(str, tensor.shape)) or 'scalar'}\t{str(tensor.dtype)[6:]}\t{'param' if key in params else 'buffer'}\n"

for name in names:
    text,model,losses,detections = (old_one if OLD else new_one)(name)
    Path(__file__).with_name('points_keys.txt').write_text(''.join(key for key in keys(model) if 'moment_transfer' not in key))
    x = torch.tensor(weights.image(SIZE, 2))
    kept = dict(model=text, boxes=np.concatenate(OBJECTS).astype(np.float32), labels=np.concatenate(LABELS))
    model.train()
    got = losses(x)
    kept |= {f'loss/{key}':plain(value) for key,value in got.items()}
    sum(part.sum() for value in got.values() for part in (value if isinstance(value, (list,tuple)) else [value])).backward()
    for key,param in model.bbox_head.named_parameters():
        if 'reppoints' in key and key.endswith('_out.bias'): kept[f'grad/{key}'] = param.grad.numpy()
    kept['grad/norm'] = np.array([param.grad.norm() for key,param in model.named_parameters()
                                   if key.startswith(('neck','bbox_head')) and param.grad is not None])
    with torch.no_grad():
        outs = model.bbox_head(model.extract_feat(x[:1]))[:3]                  # class scores, first and refined points
        for kind,maps in zip(('cls','first','refined'), outs):
            kept[f'out/{kind}'] = torch.cat([o[0].flatten(1) for o in maps], 1).T[::40].numpy()
        model.eval()
        test = (model.test_cfg if OLD else model.bbox_head.test_cfg)
        if OLD: model.bbox_head.test_cfg.score_thr = .13
        else: test.score_thr = .13
        kept['dets'] = detections(x).astype(np.float32)
    file = Path(__file__).with_name(f"points_{'0x' if OLD else '1x'}_{name.split('/')[0]}.npz")
    np.savez_compressed(file, **kept)
    print(name, file.name, {key:round(value, 5) for key,value in kept.items() if key.startswith('loss')}, len(kept['dets']))
