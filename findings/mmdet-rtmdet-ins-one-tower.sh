#!/usr/bin/env bash
# mmdet 3.3.0: in the head of all RTMDet-Ins configurations (`RTMDetInsSepBNHead`), `reg_convs` are `cls_convs`: one tower, two names.
#
# A good guess: as in RTMDet without masks, whose head has the same settings, classes are read from one tower of two convolutions a level
# and boxes from another; both are listed in the state dict, under `cls_convs` and `reg_convs`, with shapes of their own.
# What happens: the list of boxes is given the layers of classes, so boxes are read from the classes' features, and the published counts
# (5.6 M parameters for the tiny one) are those of one tower. All keys of both are in a file, with equal numbers.
# Who ports the net by its keys gets two towers, 167,040 parameters too many in the tiny one, and the published boxes all the same, so
# nobody notices. Once such a port has been trained further, its file opens in mmdet without a word, and there the numbers that come last
# stand for both: classes are read from the tower of boxes.
# Seen on Linux, Python 3.11, torch 2.13.0, without compiled operations (mmcv-lite 2.1.0). Takes minutes: torch is installed.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cat > "$dir/towers.py" <<'PY'
import importlib.abc, importlib.machinery, sys, types, warnings
warnings.filterwarnings('ignore')

class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader): # compiled operations and what else no head here needs
    def find_spec(self, name, path=None, target=None):
        if name.startswith('mmcv.ops') or name.split('.')[0] in ('torchvision','prettytable','albumentations'):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        class Empty(types.ModuleType):
            def __getattr__(self, what):
                if what.startswith('__'): raise AttributeError(what)
                return type(what, (), {}) if what[0].isupper() else lambda *args, **kw: None
        module = Empty(spec.name)
        module.__path__,module.__version__ = [],'0.20.0'
        return module
    def exec_module(self, module): pass

sys.meta_path.insert(0, Absent())
import torch
from mmdet.models.dense_heads import RTMDetInsSepBNHead, RTMDetSepBNHead

points = dict(type='mmdet.MlvlPointGenerator', offset=0, strides=[8,16,32])
plain = dict(num_classes=80, in_channels=96, stacked_convs=2, feat_channels=96, bbox_coder=dict(type='mmdet.DistancePointBBoxCoder'),
             anchor_generator=points, loss_cls=dict(type='mmdet.QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
             loss_bbox=dict(type='mmdet.GIoULoss', loss_weight=2.0))
masks = dict(plain, loss_mask=dict(type='mmdet.DiceLoss', loss_weight=2.0, eps=5e-6, reduction='mean'))
for name,head in dict(boxes=RTMDetSepBNHead(**plain, exp_on_reg=False), masks=RTMDetInsSepBNHead(**masks)).items():
    one = head.reg_convs[0] is head.cls_convs[0]
    keys = [key for key in head.state_dict() if key.startswith('reg_convs')]
    print(f'RTMDet, {name}: {"one tower" if one else "two towers"}, {len(keys)} keys of reg_convs')
    assert keys and one==(name=='masks'), 'the towers are others now: the finding is out of date'
    if not one: continue
    state = {key:torch.full_like(value, 1. if key.startswith('cls_convs') else 2.) for key,value in head.state_dict().items()}
    print(head.load_state_dict(state))
    assert (head.cls_convs[0][0].conv.weight==2).all(), 'of two that differ another one stands now'
PY
python3 -m venv "$dir/env"
"$dir/env/bin/pip" install -q torch==2.13.0 'numpy<3' opencv-python-headless scipy shapely pycocotools matplotlib 2>/dev/null
"$dir/env/bin/pip" install -q addict yapf platformdirs termcolor rich pyyaml terminaltables tqdm packaging six requests 2>/dev/null
"$dir/env/bin/pip" install -q --no-deps mmdet==3.3.0 mmcv-lite==2.1.0 mmengine==0.10.7 2>/dev/null
"$dir/env/bin/python" "$dir/towers.py"
