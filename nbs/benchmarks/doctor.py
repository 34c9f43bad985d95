"""Time of the doctor on many label files: python nbs/benchmarks/doctor.py [--files 20000] [--boxes 10] [--images]

Writes a DOTA folder of that many label files (and small images) into a temporary folder, examines the labels, and prints the wall clock
and the CPU time of this process. With --images it then looks at the images too, and prints a line for that."""
import argparse, os, tempfile, time
from pathlib import Path
import numpy as np
from PIL import Image
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.dota import DOTA_CLASSES
from rotnb.geometry.boxes import rbox2qbox

def write_set(root, n, boxes, size=64, seed=0):
    "`n` images of noise, every fifth for validation, and their labels, a duplicate in every hundredth file"
    rng,names = np.random.default_rng(seed),DOTA_CLASSES['1.0']
    for s in ('train','val'):
        for d in ('images','labelTxt'): (root/s/d).mkdir(parents=True)
    for i in range(n):
        s,k = 'val' if i%5==4 else 'train',rng.poisson(boxes)
        r = np.c_[rng.uniform(12, size-12, (k,2)),rng.uniform(6, 16, (k,2)),rng.uniform(-np.pi, np.pi, k)]
        rows = [' '.join(f'{v:.1f}' for v in q.ravel())+f' {names[rng.integers(15)]} {int(rng.random()<.05)}' for q in rbox2qbox(r)]
        (root/s/f'labelTxt/P{i:05}.txt').write_text('\n'.join(['imagesource:made','gsd:0.3',*rows,*(rows[:1] if i%100==0 else [])])+'\n')
        noise = Image.fromarray(rng.integers(0, 256, (8,8), dtype=np.uint8))
        noise.resize((size,size), Image.Resampling.BICUBIC).save(root/s/f'images/P{i:05}.png')

def main():
    p = argparse.ArgumentParser(description=__doc__)
    for k,v in dict(files=20000, boxes=10).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--images', action='store_true')
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        write_set(Path(d)/'warm', 200, 10); doctor(Path(d)/'warm', images=False)    # numba compiles or loads its kernels once
        write_set(Path(d)/'set', args.files, args.boxes)
        for images in (False,True)[:1+args.images]:
            clock,cpu = time.perf_counter(),time.process_time()
            rep = doctor(Path(d)/'set', images=images)
            clock,cpu = time.perf_counter()-clock,time.process_time()-cpu
            what = 'labels and images' if images else 'labels only'
            parts,load = ', '.join(f'{k} {v:.1f} s' for k,v in rep.seconds.items()),os.getloadavg()[0]
            print(f"{what}: {args.files} files, {len(rep.boxes)} boxes: {clock:.1f} s, CPU {cpu:.1f} s ({parts}); "
                  f"load {load:.1f} on {os.cpu_count()} cores; {rep.findings.kind.value_counts().to_dict()}")

if __name__=='__main__': main()
