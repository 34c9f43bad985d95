"""What detectors of the real MMRotate make of formula weights, as small files for tests/interop/test_backbone_weights.py.

Run with an environment that has MMRotate (either line) and its operators, and `weights.py` of the reference folder on the path:

    python peer_backbones.py CONFIG.py OUT.npz [package that registers the backbone]

It is no test, and nothing imports it."""
import importlib, json, sys
import numpy as np, torch
import mmcv.ops, weights

HW = 96,160                                                    # multiples of 32, whose maps no window of 7 divides
BOXES = [[64,48,40,20,.3],[30,60,30,12,-.5],[110,40,60,34,1.2]]
LABELS = [1,3,0]

def build(file):
    "The model of a configuration without trained weights, and its settings as plain data"
    try: from mmcv import Config
    except ImportError: from mmengine.config import Config
    cfg = Config.fromfile(file)
    model = cfg.model
    model.pop('pretrained', None); model.backbone.pop('init_cfg', None); model.backbone.pop('pretrained', None)
    if new:
        from mmrotate.registry import MODELS
        plain = model.to_dict()                                # building adds to it
        return MODELS.build(model),plain
    from mmrotate.models import build_detector
    plain = {**model.to_dict(), **{part:cfg[part].to_dict() for part in ('train_cfg','test_cfg') if cfg.get(part)}}
    return build_detector(model, train_cfg=cfg.get('train_cfg'), test_cfg=cfg.get('test_cfg')),plain

def fill(model):
    "Formula weights; the lines `key TAB shape` of what was filled"
    params,lines = dict(model.named_parameters(remove_duplicate=False)),[]
    for key,tensor in model.state_dict().items():
        if key in params or key.endswith(('running_mean','running_var')):
            tensor.copy_(torch.tensor(weights.value(key, tuple(tensor.shape))))
            lines.append(f"{key}\t{'x'.join(map(str, tensor.shape))}")
    return '\n'.join(lines)

def thin(tensor, most=3000):
    "At most so many numbers of a tensor, evenly"
    flat = tensor.detach().flatten()
    return flat[::max(1, -(-len(flat)//most))].numpy()

def run_new(model, x):
    from mmengine.structures import InstanceData
    from mmdet.structures import DetDataSample
    from mmrotate.structures.bbox import RotatedBoxes
    sample = DetDataSample(metainfo=dict(img_shape=HW, ori_shape=HW, batch_input_shape=HW, pad_shape=HW, scale_factor=(1.,1.)))
    pred = model.eval().predict(x, [sample])[0].pred_instances
    boxes = pred.bboxes if torch.is_tensor(pred.bboxes) else pred.bboxes.tensor
    sample.gt_instances = InstanceData(bboxes=RotatedBoxes(torch.tensor(BOXES)), labels=torch.tensor(LABELS))
    sample.ignored_instances = InstanceData(bboxes=RotatedBoxes(torch.zeros(0,5)), labels=torch.zeros(0).long())
    return torch.cat([boxes, pred.scores[:,None]], 1),pred.labels,model.train().loss(x, [sample])

def run_old(model, x):
    hw = (*HW,3)
    meta = dict(img_shape=hw, ori_shape=hw, pad_shape=hw, scale_factor=np.ones(4, np.float32), flip=False, batch_input_shape=HW)
    found = [torch.tensor(part) for part in model.eval().simple_test(x, [meta])[0]]
    labels = torch.cat([torch.full((len(part),), label) for label,part in enumerate(found)])
    losses = model.train().forward_train(x, [meta], [torch.tensor(BOXES)], [torch.tensor(LABELS)])
    return torch.cat(found),labels,losses

def still(model): # without what is left out at random
    for part in model.modules():
        if 'Drop' in type(part).__name__: part.eval()
        if type(part).__name__=='DropPath': part.drop_prob = 0.
        if type(part).__name__=='Dropout': part.p = 0.

if __name__=='__main__':
    import mmrotate
    new = int(mmrotate.__version__.split('.')[0])>=1
    if new: from mmrotate.utils import register_all_modules; register_all_modules()
    import peer_ops; peer_ops.take_first()
    for package in sys.argv[3:]: importlib.import_module(package)
    with torch.no_grad():
        model,plain = build(sys.argv[1])
        keys = fill(model)
        still(model)
        x = torch.tensor(np.random.RandomState(20240).standard_normal((1,3,*HW)).astype(np.float32))
        maps = model.eval().backbone(x)
        levels = model.neck(maps)
        dets,labels,losses = run_new(model, x) if new else run_old(model, x)
    total = {key:float(sum(map(float, value))) if isinstance(value, (list,tuple)) else float(value)
             for key,value in losses.items() if 'loss' in key}
    arrays = {f'map/{i}':thin(part) for i,part in enumerate(maps)} | {f'level/{i}':thin(part) for i,part in enumerate(levels)}
    np.savez_compressed(sys.argv[2], dets=dets.numpy(), labels=labels.numpy(), gt_bboxes=np.float32(BOXES), gt_labels=np.int64(LABELS),
                        meta=json.dumps(dict(keys=keys, model=plain, losses=total, line='1.x' if new else '0.x', size_hw=HW)), **arrays)
    print(sys.argv[2], len(dets), total, {key:float(np.abs(part).max()) for key,part in arrays.items()})
