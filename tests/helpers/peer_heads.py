"""What whole upright detectors of the YOLO family answer and lose with formula weights in other packages, as small files for
tests/interop/test_yolo_files.py: keys and shapes, raw outputs of the head (thinned), and its loss terms for three objects.

Packages, each in an environment without compiled operations (`mmcv-lite`): `mmdet` 3.3 (Apache 2.0); `mmyolo` 0.6 (GPL 3.0), which is
only run, as a black box.

    python peer_heads.py mmdet yolox/yolox_tiny_8xb8-300e_coco.py OUT.npz

It is no test, and nothing imports it."""
import importlib.abc, importlib.machinery, json, os, sys, types
import numpy as np, torch
from formula import detector_value, formula_image

SIZE,N_CLASSES,KEPT = 128,80,60
# image, class, corners. No middle is on the border of a cell: there YOLOv5's and YOLOv7's rule counts the cell twice in MMYOLO
OBJECTS = [[(0,3,11,13,71,61), (0,17,60,40,124,118)], [(1,3,20,64,100,120)]]

class NoOps(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "Stands in for compiled operations, which none of these detectors runs"
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('prettytable','albumentations') or name.startswith('mmcv.ops'):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        class Empty(types.ModuleType):
            def __getattr__(self, what):
                if what.startswith('__'): raise AttributeError(what)
                return type(what, (torch.nn.Module,), {}) if what[0].isupper() else lambda *args, **kw: None
        module = Empty(spec.name)
        module.__path__ = []
        return module
    def exec_module(self, module): pass

def plain_norms(part):
    if isinstance(part, dict):
        if part.get('type')=='SyncBN': part['type'] = 'BN'
        part.pop('init_cfg', None)
        for value in part.values(): plain_norms(value)
    elif isinstance(part, (list,tuple)):
        for value in part: plain_norms(value)

def built(package, config):
    from mmengine.config import Config
    from mmengine.logging import MessageHub
    from mmengine.registry import init_default_scope
    import mmcv, mmdet.models
    from mmdet.registry import MODELS
    if package=='mmyolo':
        mmcv.__version__ = '2.0.1'
        import mmyolo.models
        from mmyolo.registry import MODELS
        MessageHub.get_current_instance().update_info('epoch', 399)        # after the warm-up of assignment
    root = os.path.dirname(sys.modules[package].__file__)
    cfg = Config.fromfile(f'{root}/.mim/configs/{config}')
    init_default_scope(package)
    plain_norms(cfg.model)
    model = MODELS.build(cfg.model).eval()
    if package=='mmyolo': model.bbox_head.head_module.training = True      # it gives more for its losses; norms stay as they are
    return model,cfg

def square(corners): # a mask with its borders between cells of 4 px
    x0,y0,x1,y1 = (corners//4*4).astype(int)
    mask = np.zeros((SIZE,SIZE), np.uint8)
    mask[y0:y1,x0:x1] = 1
    return mask

def lost(package, head, feats):
    rows = torch.tensor([row for rows in OBJECTS for row in rows], dtype=torch.float)
    metas = [dict(img_shape=(SIZE,SIZE), batch_input_shape=(SIZE,SIZE), pad_shape=(SIZE,SIZE,3), scale_factor=(1.,1.))]*2
    if package=='mmyolo': return head.loss(feats, dict(bboxes_labels=rows, img_metas=metas))
    from mmengine.structures import InstanceData
    objects = [InstanceData(bboxes=rows[rows[:,0]==i,2:], labels=rows[rows[:,0]==i,1].long()) for i in range(2)]
    if hasattr(head, 'mask_head'):
        from mmdet.structures.mask import BitmapMasks
        for one in objects: one.masks = BitmapMasks(np.stack([square(corners) for corners in one.bboxes.numpy()]), SIZE, SIZE)
    return head.loss_by_feat(*head(feats), batch_gt_instances=objects, batch_img_metas=metas)

def thin(tensor):
    flat = tensor.detach().flatten()
    return flat[::max(1, -(-len(flat)//KEPT))].numpy()

def total(value): return float(sum(value)) if isinstance(value, (list,tuple)) else float(value)

def run(package, config, out):
    model,cfg = built(package, config)
    twice = 'yolov7' in config and '-p6' in config                         # learns with a second head, which rotnb leaves out
    if twice: model.bbox_head.head_module.training = False
    shapes = {key:tuple(tensor.shape) for key,tensor in model.state_dict().items()}
    with torch.no_grad():
        one_tower = hasattr(model.bbox_head, 'mask_head')                  # classes and boxes are two names of the same layers
        named = {key:key.replace('reg_convs', 'cls_convs') if one_tower else key for key in shapes}
        model.load_state_dict({key:torch.tensor(detector_value(named[key], shape)) for key,shape in shapes.items()})
        feats = model.extract_feat(torch.tensor(formula_image(SIZE, 2)))
        answers = model.bbox_head(feats)
        losses = {} if twice else {key:total(value) for key,value in lost(package, model.bbox_head, feats).items()}
    colours = {key:cfg.model.data_preprocessor.get(key) for key in ('mean','std','bgr_to_rgb')}
    keys = '\n'.join(f"{key} {'x'.join(map(str, shape))}" for key,shape in shapes.items())
    parts = {f'{name}/{level}':thin(tensor) for name,levels in enumerate(answers) if levels[0] is not None
             for level,tensor in enumerate(levels)}
    np.savez_compressed(out, keys=keys, losses=json.dumps(losses), colours=json.dumps(colours), **parts)
    print(out, losses, colours, {key:float(np.abs(part).mean()) for key,part in parts.items()}, flush=True)

if __name__=='__main__':
    sys.meta_path.insert(0, NoOps())
    for at in range(2, len(sys.argv), 2): run(sys.argv[1], *sys.argv[at:at+2])
