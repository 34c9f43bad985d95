"""MMRotate 1.x's H2RBox and H2RBox-v2, small, from formula weights: what they give and what they lose.
Run where mmrotate (dev-1.x), mmdet and mmcv can be imported; writes h2rbox.npz and h2rbox_v2.npz beside this file.
A view's angle is the first number that torch draws after `torch.manual_seed(SEED)`."""
import json, sys, warnings
from pathlib import Path
import numpy as np, torch
warnings.simplefilter('ignore')
import mmcv.ops
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmdet.structures import DetDataSample
from mmrotate.utils import register_all_modules
from mmrotate.registry import MODELS
from mmrotate.structures.bbox import RotatedBoxes

HERE,SEED = Path(__file__).parent,3
sys.path.insert(0, str(HERE.parents[1]/'helpers'))
from formula import formula_image, formula_weights

# tall, wide, square-like, small; the last two of the third set lie in classes with rules of their own
UPRIGHT = [[[40,44,30,64,0],[92,84,52,26,0],[30,100,44,40,0],[100,28,22,18,0]], [[64,64,100,60,0],[26,30,24,40,0]]]
TURNED = [[[40,44,64,30,.5],[92,84,52,26,-1.2],[30,100,44,38,.9],[100,28,22,18,-.3]], [[64,64,100,60,.2],[26,30,40,24,1.1]]]
LABELS = [[5,12,9,3],[1,11]]

def sample(boxes, labels, size):
    res = DetDataSample(metainfo=dict(img_shape=(size,)*2, ori_shape=(size,)*2, batch_input_shape=(size,)*2, pad_shape=(size,)*2,
                                      scale_factor=(1.,1.)))
    res.gt_instances = InstanceData(bboxes=RotatedBoxes(torch.tensor(boxes).float()), labels=torch.tensor(labels).long())
    res.ignored_instances = InstanceData(bboxes=RotatedBoxes(torch.zeros(0,5)), labels=torch.zeros(0).long())
    return res

def losses(model, boxes, labels, size, shift=0):
    moved = [[[cx+shift,cy+shift,w,h,a] for cx,cy,w,h,a in of] for of in boxes]
    torch.manual_seed(SEED)
    found = model.loss(torch.tensor(formula_image(size, len(boxes))), [sample(*o, size) for o in zip(moved, labels)])
    return {name:float(value) for name,value in found.items()}

def small(file):
    cfg = Config.fromfile(file).model
    cfg.backbone.update(depth=18, init_cfg=None); cfg.neck.update(in_channels=[64,128,256,512], out_channels=64)
    cfg.bbox_head.update(in_channels=64, feat_channels=64, stacked_convs=2)
    cfg.crop_size = (128,128)
    if 'crop_size' in cfg.bbox_head: cfg.bbox_head.crop_size = (128,128)
    return cfg

def reference(file, **more):
    cfg = small(file); cfg.bbox_head.update(more)
    model = MODELS.build(cfg)
    keys = {key:tuple(value.shape) for key,value in model.state_dict().items()}
    model.load_state_dict({key:torch.as_tensor(value) for key,value in formula_weights(keys).items()})
    out = dict(settings=json.dumps(cfg.to_dict()), keys=json.dumps(keys))
    model.eval()
    with torch.no_grad():
        image = torch.tensor(formula_image(128, 1))
        for kind,maps in zip(('cls','box','angle','quality'), model.bbox_head(model.extract_feat(image))):
            for level,found in enumerate(maps): out[f'{kind}/{level}'] = found[0,::4 if kind=='cls' else 1].numpy()
        pred = model.predict(image, [sample(UPRIGHT[0], LABELS[0], 128)])[0].pred_instances
    boxes = pred.bboxes if torch.is_tensor(pred.bboxes) else pred.bboxes.tensor
    out |= {'dets':torch.cat([boxes, pred.scores[:,None]], 1).numpy(), 'labels':pred.labels.numpy()}
    model.train()
    cases = dict(upright=(UPRIGHT, LABELS, 128), turned=(TURNED, LABELS, 128), cropped=(UPRIGHT, LABELS, 160, 16),
                 none=([[[400.,400.,20.,10.,0.]]]*2, [[0]]*2, 128))
    for name,case in cases.items(): out |= {f'loss/{name}/{term}':value for term,value in losses(model, *case).items()}
    return out

if __name__=='__main__':
    register_all_modules()
    configs = Path(sys.argv[1])
    v1,v2 = 'h2rbox/h2rbox-le90_r50_fpn_adamw-1x_dota.py','h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota.py'
    for name,file,more in (('h2rbox',v1,dict(rotation_agnostic_classes=[5])), ('h2rbox_v2',v2,{})):
        out = reference(configs/file, **more)
        np.savez_compressed(HERE/f'{name}.npz', **out)
        print(name, len(out['dets']), {key:value for key,value in out.items() if key.startswith('loss')})
