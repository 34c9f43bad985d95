#!/usr/bin/env bash
# fastai 2.8.12: an affine transform of a batch blurs every image that is more than twice as high as wide.
#
# A good guess: turning a batch by 0 degrees, at its own size, gives the same pixels, whatever the aspect of the images.
# What happens: at 64 x 256 (width x height) a black and white chequerboard of single pixels comes back as an even grey, and at
# 256 x 64 it comes back as it was.
# Why: `_grid_sample` means to average before it shrinks by more than half. It compares the image's height with `coords.shape[-2]` and
# its width with `coords.shape[-1]`, but sampling coordinates are (n, height, width, 2): height is compared with width, and width
# with 2. From height > 2 * width on it takes every image for one that is being shrunk. It concerns `Rotate`, `Zoom`, `Dihedral` and
# all that is built by `affine_transforms`, so `aug_transforms` too.
# Source: fastai/vision/augment.py of the release. Seen with torch 2.14.1, Python 3.11, on the CPU.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/env"
"$dir/env/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 fastai==2.8.12
cd "$dir"
"$dir/env/bin/python" - <<'PY'
import torch, warnings; warnings.filterwarnings('ignore')
from importlib.metadata import version
from fastai.vision.augment import Rotate
from fastai.torch_core import TensorImage

def turned_by_nothing(w, h):
    "Largest difference to itself of a chequerboard turned by 0 degrees"
    y,x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
    board = ((x+y)%2).float().expand(1, 3, h, w)
    out = Rotate(max_deg=0, p=1., draw=0.)(TensorImage(board.clone()), split_idx=0)
    return (out.as_subclass(torch.Tensor)-board).abs().max().item()

wide,square,tall = turned_by_nothing(256, 64),turned_by_nothing(128, 128),turned_by_nothing(64, 256)
print(f"fastai {version('fastai')}: largest change of a pixel, 256 x 64: {wide:.3f}, 128 x 128: {square:.3f}, 64 x 256: {tall:.3f}")
assert wide<1e-3 and square<1e-3, 'wide and square images are changed too'
assert abs(tall-.5)<.05, 'tall images are no longer averaged to grey: the finding is out of date'
PY
