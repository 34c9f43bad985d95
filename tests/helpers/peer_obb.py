"""What nets with layers of their own for the angle answer with formula weights in other packages, as small files for
tests/interop/test_yolo_files.py: keys and shapes, and raw maps by level, thinned. Packages are run as black boxes:

    python peer_obb.py ultralytics yolov8n-obb.yaml OUT.npz     # ultralytics 8.4 (AGPL 3.0); answers decoded, too
    python peer_obb.py paddle FOLDER OUT.npz                    # paddlepaddle 2.6, and an unpacked wheel of paddledet 2.6 (Apache 2.0)

It is no test, and nothing imports it."""
import importlib.abc, importlib.machinery, sys, types
import numpy as np
from formula import detector_value, formula_image

SIZE,KEPT = 128,60

def thin(flat):
    flat = np.asarray(flat).ravel()
    return flat[::max(1, -(-len(flat)//KEPT))]

def save(out, shapes, maps, **more):
    "`maps`: of each level those of classes, sides and angle"
    parts = {f'{i}/{level}':thin(part) for level,row in enumerate(maps) for i,part in enumerate(row)}
    keys = '\n'.join(f"{key} {'x'.join(map(str, shape))}" for key,shape in shapes.items())
    np.savez_compressed(out, keys=keys, losses='{}', **parts, **more)
    print(out, {key:float(np.abs(part).mean()) for key,part in parts.items()}, flush=True)

def ultralytics(yaml, out):
    import torch
    from ultralytics.nn.tasks import OBBModel
    model = OBBModel(yaml, verbose=False).eval()
    shapes = {key:tuple(tensor.shape) for key,tensor in model.state_dict().items() if not key.endswith('dfl.conv.weight')}
    model.load_state_dict({key:torch.tensor(detector_value(key, shape)) for key,shape in shapes.items()}, strict=False)
    seen = {}
    def keep(name): return lambda module,given,answer: seen.update({name:answer})
    head = f'model.{len(model.model)-1}'
    for branch in ('cv3','cv2','cv4'):
        for level in range(3): model.get_submodule(f'{head}.{branch}.{level}.2').register_forward_hook(keep((branch,level)))
    with torch.no_grad(): answer = model(torch.tensor(formula_image(SIZE, 2)))
    answer = answer[0] if isinstance(answer, (list,tuple)) else answer
    maps = [[seen[branch,level].numpy() for branch in ('cv3','cv2','cv4')] for level in range(3)]
    save(out, shapes, maps, boxes=torch.cat([answer[:,:4], answer[:,-1:]], 1).transpose(1, 2)[:,::7].numpy())

class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "Stands in for what the layers do not need"
    names = ('pycocotools','motmetrics','lap','typeguard','terminaltables','sklearn','numba','visualdl','pyclipper','imgaug','cv2',
             'ppdet.utils.download','ppdet.data','ppdet.metrics','ppdet.engine','ppdet.slim','ppdet.optimizer')
    def find_spec(self, name, path=None, target=None):
        if any(name==part or name.startswith(part+'.') for part in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        class Empty(types.ModuleType):
            def __getattr__(self, what):
                if what.startswith('__'): raise AttributeError(what)
                return type(what, (), {}) if what[0].isupper() else lambda *args, **kw: args[0] if args and callable(args[0]) else None
        module = Empty(spec.name)
        module.__path__ = []
        return module
    def exec_module(self, module): pass

def layers_of_paddle(folder):
    sys.meta_path.insert(0, Absent())
    sys.path.insert(0, folder)
    for name in ('bool','int','float'): setattr(np, name, getattr(__builtins__, name))        # gone from numpy
    for name in ('', '.modeling', *(f'.modeling.{part}' for part in ('backbones','necks','heads','losses','assigners')),
                 '.utils', '.core'):
        sys.modules['ppdet'+name] = module = types.ModuleType('ppdet'+name)
        module.__path__ = [f"{folder}/{('ppdet'+name).replace('.', '/')}"]
    import ppdet.modeling.initializer, ppdet.modeling.ops as ops
    sys.modules['ppdet.modeling'].ops = ops
    from ppdet.modeling.losses import iou_loss
    from ppdet.modeling.losses.probiou_loss import ProbIoULoss
    sys.modules['ppdet.modeling.losses'].ProbIoULoss,sys.modules['ppdet.modeling.losses'].GIoULoss = ProbIoULoss,iou_loss.GIoULoss
    from ppdet.modeling.backbones.cspresnet import CSPResNet
    from ppdet.modeling.heads.ppyoloe_r_head import PPYOLOERHead
    from ppdet.modeling.necks.custom_pan import CustomCSPPAN
    kw = dict(depth_mult=.33, width_mult=.5)
    return dict(backbone=CSPResNet(layers=[3,6,6,3], channels=[64,128,256,512,1024], return_idx=[1,2,3], use_large_stem=True,
                                   use_alpha=True, **kw),
                neck=CustomCSPPAN(in_channels=[128,256,512], out_channels=[768,384,192], stage_num=1, block_num=3, act='swish',
                                  spp=True, **kw),
                yolo_head=PPYOLOERHead(in_channels=[384,192,96], num_classes=15))

def paddle(folder, out):
    import paddle
    parts = layers_of_paddle(folder)
    shapes = {f'{name}.{key}':tuple(value.shape) for name,part in parts.items() for key,value in part.state_dict().items()}
    for name,part in parts.items():
        part.eval()
        part.set_state_dict({key:paddle.to_tensor(detector_value(f'{name}.{key}', tuple(value.shape)))
                             for key,value in part.state_dict().items() if not key.endswith('proj_conv.weight')})
    seen = {}
    def keep(name): return lambda layer,given,answer: seen.update({name:answer.numpy()})
    head = parts['yolo_head']
    for branch in ('cls','reg','angle'):
        for i,layer in enumerate(getattr(head, f'pred_{branch}')): layer.register_forward_post_hook(keep((branch,2-i)))
    body = parts['backbone'](dict(image=paddle.to_tensor(formula_image(SIZE, 2))))
    head(parts['neck'](body), dict(scale_factor=paddle.ones([2,2]), im_shape=paddle.full([2,2], SIZE)))
    save(out, shapes, [[seen[branch,level] for branch in ('cls','reg','angle')] for level in range(3)])

if __name__=='__main__': dict(ultralytics=ultralytics, paddle=paddle)[sys.argv[1]](*sys.argv[2:])
