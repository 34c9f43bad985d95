"""What bodies of the YOLO family make of formula weights in other packages, as small files for tests/models/test_yolo.py.

`mmdet` (Apache 2.0) has YOLOX's backbone and neck, `super_gradients` (Apache 2.0) those of PPYOLOE. Of the latter only the files of
its layers are loaded, from an unpacked wheel whose folder is given; the rest of that package is left out by empty stand-ins.

    python peer_yolo.py mmdet OUT.npz
    python peer_yolo.py super_gradients OUT.npz FOLDER

It is no test, and nothing imports it."""
import sys, types
import numpy as np, torch
from torch import nn
from formula import formula_image, formula_value

SIZE,KEPT = 96,400

class Both(nn.Module):
    def __init__(self, backbone, neck):
        super().__init__()
        self.backbone,self.neck = backbone,neck

def yolox():
    "Of size tiny"
    from mmdet.models.backbones import CSPDarknet
    from mmdet.models.necks import YOLOXPAFPN
    return Both(CSPDarknet('P5', .33, .375), YOLOXPAFPN([96,192,384], 96, 1))

class Anything:
    "Stands in for what is not loaded: as a decorator it changes nothing"
    def __init__(self, *args, **kw): pass
    def __call__(self, f): return f

def ppyoloe(folder):
    "Narrower than any published size, and as deep as m"
    sys.path.insert(0, folder)
    import importlib.util as loader
    def stand_in(name, **has):
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(has)
    def load(name):
        spec = loader.spec_from_file_location(name, f"{folder}/{name.replace('.', '/')}.py")
        sys.modules[name] = module = loader.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    sg = 'super_gradients'
    for name in (sg, f'{sg}.training', f'{sg}.training.models', f'{sg}.training.models.detection_models', f'{sg}.modules', f'{sg}.common'):
        stand_in(name, __path__=[])
    for name,what in {'common.registry.registry':'register_detection_module', 'common.decorators.factory_decorator':'resolve_param',
                      'common.factories.activations_type_factory':'ActivationsTypeFactory',
                      'common.environment.ddp_utils':'get_local_rank',
                      'training.utils.distributed_training_utils':'wait_for_the_master', 'training.utils.utils':'infer_model_device',
                      'modules.utils':'autopad'}.items(): stand_in(f'{sg}.{name}', **{what:Anything})
    stand_in(f'{sg}.module_interfaces', SupportsReplaceInputChannels=type('SupportsReplaceInputChannels', (), {}))
    for file,what in dict(repvgg_block='RepVGGBlock', se_blocks='EffectiveSEBlock', conv_bn_act_block='ConvBNAct').items():
        setattr(sys.modules[f'{sg}.modules'], what, getattr(load(f'{sg}.modules.{file}'), what))
    body = load(f'{sg}.training.models.detection_models.csp_resnet').CSPResNetBackbone
    neck = load(f'{sg}.training.models.detection_models.pp_yolo_e.pan').PPYoloECSPPAN
    return Both(body((3,6,6,3), (64,128,256,512,1024), nn.SiLU, (1,2,3), True, .25, .67, False),
                neck((256,512,1024), (768,384,192), nn.SiLU, 1, 3, True, .25, .67))

def thin(tensor):
    flat = tensor.flatten()
    return flat[::max(1, -(-len(flat)//KEPT))].numpy()

if __name__=='__main__':
    model = (yolox() if sys.argv[1]=='mmdet' else ppyoloe(sys.argv[3])).eval()
    shapes = {key:tuple(tensor.shape) for key,tensor in model.state_dict().items()}
    model.load_state_dict({key:torch.tensor(formula_value(key, shape)) for key,shape in shapes.items()})
    with torch.no_grad():
        maps = model.backbone(torch.tensor(formula_image(SIZE)))
        levels = model.neck(list(maps))
    params = sum(p.numel() for p in model.parameters())
    np.savez_compressed(sys.argv[2], params=params, keys='\n'.join(shapes), **{f'map/{i}':thin(part) for i,part in enumerate(maps)},
                        **{f'level/{i}':thin(part) for i,part in enumerate(levels)})
    print(sys.argv[2], params, [tuple(part.shape) for part in levels], [float(part.std()) for part in levels])
