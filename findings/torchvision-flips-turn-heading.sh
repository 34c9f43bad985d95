#!/usr/bin/env bash
# torchvision 0.29.1: a flip gives an oriented box the opposite of its mirrored direction, in all three rotated formats; two flips, one
# of each kind, give it the right one again.
#
# A good guess: of a plane whose nose points 30 degrees up from the right, r = 30 (counterclockwise). In the mirrored image the nose points
# up to the left, so horizontal_flip makes r = 150, and vertical_flip makes it -30; corners keep the same two of them in front.
# What happens: -30 and 150. The rectangle is right, its front has become its rear: the corners of a mirrored box are numbered clockwise
# again by exchanging the first two, not the two pairs. `rotate` by 180 degrees and both flips one after the other give -150 and 210, as
# they should. So half of the images of a random flip have noses where tails are.
# Who keeps a heading in r, from 0 to 360, or in the order of corners (both formats are meant to hold any r), teaches noise with
# `RandomHorizontalFlip`, and nothing shows it: boxes drawn over images fit.
# Seen on Linux, Python 3.11, torch 2.14.1. Takes minutes: torch is installed.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cat > "$dir/flip.py" <<'PY'
import warnings
warnings.filterwarnings('ignore')
import torch
from torchvision.tv_tensors import BoundingBoxes
from torchvision.transforms.v2 import functional as F

def direction(boxes): # degrees, counterclockwise, from the first corner to the second
    x1,y1,x2,y2 = F.convert_bounding_box_format(boxes, new_format='XYXYXYXY').flatten()[:4].tolist()
    return round(torch.rad2deg(torch.atan2(torch.tensor(y1-y2), torch.tensor(x2-x1))).item())

both = lambda boxes: F.vertical_flip(F.horizontal_flip(boxes))
box = BoundingBoxes(torch.tensor([[100.,80,60,20,30]]), format='CXCYWHR', canvas_size=(200,300), clamping_mode=None)
for format in ('CXCYWHR','XYWHR','XYXYXYXY'):
    boxes = F.convert_bounding_box_format(box, new_format=format)
    ways = dict(none=lambda o: o, horizontal=F.horizontal_flip, vertical=F.vertical_flip, both=both, half_turn=lambda o: F.rotate(o, 180))
    seen = {name:direction(way(boxes)) for name,way in ways.items()}
    print(format, seen)
    assert seen==dict(none=30, horizontal=-30, vertical=150, both=-150, half_turn=-150), 'flips turn it otherwise now: out of date'
PY
python3 -m venv "$dir/env"
"$dir/env/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 2>/dev/null
"$dir/env/bin/python" "$dir/flip.py"
