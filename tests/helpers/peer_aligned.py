"""What VFNet and TOOD of `mmdet` 3.3 (Apache 2.0) make of formula weights, as small files for tests/interop/test_aligned.py. Deformable
convolution, which is compiled in mmcv, is torchvision's; `mmcv-lite` holds the rest.

    python peer_aligned.py OUT.npz [NAME ...]

It is no test, and nothing imports it."""
import json, sys
import numpy as np, torch
from torchvision.ops import deform_conv2d
from formula import formula_image
import peer_heads
from peer_heads import NoOps, lost, plain_norms, thin

SIZE = 128

class DeformConv2d(torch.nn.Conv2d):
    def __init__(self, ni, nf, ks, stride=1, padding=0): super().__init__(ni, nf, ks, stride, padding, bias=False)
    def forward(self, x, offset): return deform_conv2d(x, offset, self.weight, padding=self.padding)

def sampled(x, offset, weight, stride, padding, dilation, groups, deform_groups): return deform_conv2d(x, offset, weight)

def aligned_value(key, shape):
    "The formula's, but boxes of some size, places that are read elsewhere, and classes that are rare"
    from formula import formula_value
    value = formula_value(key, shape)
    if key.endswith(('tood_reg.bias','vfnet_reg.bias')): value += .7 if 'tood' in key else -1.5
    if key.endswith(('reg_offset_module.2.weight','vfnet_reg.weight','tood_reg.weight')): value *= np.float32(.5)
    return value

def built(name):
    sys.meta_path.insert(0, NoOps())
    import mmcv, mmcv.ops
    mmcv.__version__ = '2.1.0'                                             # mmdet 3.3 refuses what came later, for no part of this
    mmcv.ops.DeformConv2d,mmcv.ops.deform_conv2d = DeformConv2d,sampled
    import mmdet, mmdet.models
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmdet.registry import MODELS
    from pathlib import Path
    cfg = Config.fromfile(Path(mmdet.__file__).parent/f'.mim/configs/{name}/{name}_r50_fpn_1x_coco.py')
    init_default_scope('mmdet')
    plain_norms(cfg.model)
    cfg.model.backbone.update(depth=18)
    cfg.model.neck.update(in_channels=[64,128,256,512])
    return MODELS.build(cfg.model).eval()

def run(name):
    model = built(name)
    from mmengine.logging import MessageHub
    MessageHub.get_current_instance().update_info('epoch', 10)             # past the epochs of ATSS
    head = model.bbox_head
    head.training = True                                                   # it gives more for its losses; norms stay as they are
    shapes = {key:tuple(tensor.shape) for key,tensor in model.state_dict().items()}
    with torch.no_grad():
        model.load_state_dict({key:torch.tensor(aligned_value(key, shape)) for key,shape in shapes.items()})
        feats = model.extract_feat(torch.tensor(formula_image(SIZE, 2)))
        answers = head(feats)
    losses = {key:peer_heads.total(value) for key,value in lost('mmdet', head, feats).items()}
    parts = {f'{i}/{level}':thin(tensor) for i,levels in enumerate(answers) for level,tensor in enumerate(levels)}
    print(name, losses, {key:(round(float(part.mean()), 3),round(float(part.std()), 3)) for key,part in parts.items()}, flush=True)
    keys = '\n'.join(f"{key} {'x'.join(map(str, shape))}" for key,shape in shapes.items())
    return dict(keys=keys, losses=json.dumps(losses), **parts)

if __name__=='__main__':
    found = {f'{name}/{key}':value for name in sys.argv[2:] or ('vfnet','tood') for key,value in run(name).items()}
    np.savez_compressed(sys.argv[1], **found)
