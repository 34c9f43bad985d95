"""A box against itself made one pixel wider, by the operators that MMRotate and detectron2 call, beside exact values:
`python one_pixel.py --mmcv CLONE --detectron2 CLONE > one_pixel_cpu.txt`, each a clone of its repository.

mmcv and detectron2 need not be built: the header in which each computes an IoU is plain C++ and is compiled here as it stands."""
import argparse, ctypes, subprocess, tempfile
from pathlib import Path
import numpy as np, torch
from rotnb.measure.stress import iou_implementations, measure_iou, stress_pairs

# Where the header is, and how it is called: mmcv has a mode (0: IoU) and radians, detectron2 degrees
PEERS = dict(mmcv=('mmcv/ops/csrc/common/box_iou_rotated_utils.hpp', 'single_box_iou_rotated<float>(a, b, 0)', 1.),
             detectron2=('detectron2/layers/csrc/box_iou_rotated/box_iou_rotated_utils.h',
                         'detectron2::single_box_iou_rotated<float>(a, b)', 180/np.pi))
LOOP = '#include "ious.h"\nextern "C" void ious(const float* a, const float* b, float* out, int n) '

def compiled(clone, name):
    "IoU of pairs by the header of a clone"
    header,call,unit = PEERS[name]
    folder = Path(tempfile.mkdtemp())
    (folder/'ious.h').write_bytes(subprocess.check_output(['git', '-C', clone, 'show', f'HEAD:{header}']))
    (folder/'loop.cpp').write_text(LOOP+f'{{ for (; n--; a+=5, b+=5) *out++ = {call}; }}\n')
    subprocess.run(['g++', '-O2', '-shared', '-fPIC', '-o', folder/'loop.so', folder/'loop.cpp'], check=True)
    ious,pointer = ctypes.CDLL(str(folder/'loop.so')).ious,np.ctypeslib.ndpointer(np.float32, flags='C')
    ious.argtypes = [pointer, pointer, pointer, ctypes.c_int]
    def f(a, b):
        a,b = (np.ascontiguousarray(o*[1,1,1,1,unit], np.float32) for o in (a, b))
        out = np.empty(len(a), np.float32)
        ious(a, b, out, len(a))
        return out
    return f

def version(clone): return subprocess.check_output(['git', '-C', clone, 'log', '-1', '--format=%h of %as'], text=True).strip()

def trained_boxes(n, seed=0):
    "Boxes as a detector meets them: anywhere in 1024 px, sides of 8 to 256 px, any angle"
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(8), np.log(256), (n,2)))
    return torch.tensor(np.concatenate([rng.uniform(0, 1024, (n,2)), sides, rng.uniform(-np.pi/2, np.pi/2, (n,1))], 1)).float()

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    for o in PEERS: p.add_argument(f'--{o}', help='clone of its repository')
    p.add_argument('--n', type=int, default=20_000)
    args = p.parse_args()
    impls,names = iou_implementations(),{}
    for o in PEERS:
        if clone := getattr(args, o): impls[f'{o} {version(clone)}'] = compiled(clone, o)
    boxes = trained_boxes(args.n)
    wider = torch.tensor([0.,0,1,0,0])
    pairs = {'w + 1 px, 8 to 256 px':(boxes, boxes+wider), 'w + 1 px, stress set':stress_pairs('w + 1 px', args.n)}
    print(f'{args.n} boxes, each against itself one pixel wider; float32 in, error against exact IoU')
    for title,(a,b) in pairs.items():
        print(f'\n{title}')
        for name,f in impls.items():
            o = measure_iou(f, a, b)
            print(f"  {name:34} {o['wrong']:6} off by more than 0.01, largest error {o['max_err']:.1e}")
