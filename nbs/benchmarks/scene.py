"""Throughput and memory of `predict_scene` beside the bare model on the same windows in memory: `python scene.py --side 20000`.
`--by predictor` is what users have, `--by learner` a fastai learner; both answer by the detector's fast twin, and so does the bare model.
Each part is a process of its own, whose peak memory is its own. Half of the bare run comes before the scene and half after it, so that
a machine growing slower or faster favours neither. `share_of_bare` is of the clock; `share_of_cpu` of processor time, which other
programs on the machine disturb least: what reading, storing and merging add to the model's work. `share_inside` is the processor time
within the model beside all that the same run took.
A GeoTIFF is made first (deflate, tiled or with `--strips`, blocks of 500 px from `make_scene`) and kept for the next run."""
import argparse, json, os, re, resource, subprocess, sys, tempfile, time
from contextlib import contextmanager
from pathlib import Path
import numpy as np, torch
from rotnb.data.images.rasters import close_reader
from rotnb.data.images.windows import open_scene, scene_windows
from rotnb.data.labels.atomic import atomic_path
from rotnb.data.synth.scenes import make_scene
from rotnb.evaluate.task1 import merge_windows
from rotnb.geometry.boxes import rbox2qbox
from rotnb.models import create_detector
from rotnb.models.fast import Faster
from rotnb.predict.load import load_weights
from rotnb.predict.predictor import Predictor
from rotnb.predict.scene import predict_scene

def make_tif(file, side, strips=False, block=500, n=8):
    "A georeferenced scene from painted blocks, turned and shuffled"
    import rasterio
    rng,blocks = np.random.default_rng(0),[make_scene(i, block)[0] for i in range(n)]
    lie = dict(blockysize=8) if strips else dict(tiled=True, blockxsize=256, blockysize=256)
    kw = dict(width=side, height=side, count=3, dtype='uint8', **lie, interleave='pixel',
              compress='deflate', photometric='rgb', crs='EPSG:32633', transform=rasterio.Affine(.5,0,5e5,0,-.5,4.6e6))
    with atomic_path(file) as tmp, rasterio.open(tmp, 'w', driver='GTiff', **kw) as ds:
        for y in range(0, side, block):
            row = np.concatenate([np.rot90(blocks[rng.integers(n)], rng.integers(4)) for _ in range(0, side, block)], 1)[:side-y,:side]
            ds.write(np.moveaxis(row, -1, 0), window=rasterio.windows.Window(0, y, side, len(row)))

def make_predictor(a):
    "Trained weights by name or folder; else weights of chance, whose 50 best boxes a window are to be merged"
    torch.manual_seed(0)
    if a.weights: detector = load_weights(a.weights).detector           # windows as they are, as the bare model sees them
    else: detector = create_detector(a.model, 15, pretrained=False, score_thr=0., max_per_img=50).eval()
    return Predictor(detector, score_thr=a.score_thr, pad_to=1, device=a.device)

def make_learner(a):
    "A learner of the same detector, whose validation shows windows as they are"
    from rotnb.data.loaders import RotatedDataLoaders
    from rotnb.learn.learner import rotated_learner
    dls = RotatedDataLoaders.from_synth(Path(a.work)/'set', n_train=4, n_valid=4, size=a.size, bs=a.bs, num_workers=0, device=a.device)
    return rotated_learner(dls, make_predictor(a).detector, metrics=[])

@contextmanager
def timed_model():
    "Processor time of the thread within the twin's answers, added up"
    spent,answering = [0.],Faster.answering
    @contextmanager
    def timed(self, *args, **kw):
        with answering(self, *args, **kw) as answer:
            def f(*args, **kw):
                start = time.thread_time()
                found = answer(*args, **kw)
                spent[0] += time.thread_time()-start
                return found
            yield f
    Faster.answering = timed
    try: yield spent
    finally: Faster.answering = answering

def peak(): return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1])/2**10         # MB, its own

def scene_part(a):
    learn = make_learner(a) if a.by=='learner' else make_predictor(a)
    before_first = peak()
    how = dict(score_thr=a.score_thr, bs=a.bs, progress=False)
    predict_scene(learn, np.zeros((a.size,4*a.bs*a.size,3), np.uint8), a.size, 0, num_workers=0, **how)
    open_scene(a.file).read(0, 0, 8, 8)                             # imports rasterio
    before,wall,cpu = peak(),time.perf_counter(),time.process_time()
    with timed_model() as spent: preds = predict_scene(learn, a.file, a.size, a.overlap, num_workers=a.workers, **how)
    wall,cpu = time.perf_counter()-wall,time.process_time()-cpu
    torch.save(dict(preds), Path(a.work)/'scene.pth')
    return dict(seconds=wall, cpu_seconds=cpu, share_inside=spent[0]/cpu if a.by=='predictor' else None, peak_mb=peak(),
                peak_before_mb=before, peak_imports_mb=before_first, detections=len(preds['scores']),
                peak_worker_mb=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/2**10 if a.workers else None)

def bare_part(a):
    "Batches are read and normalised in groups of eight, and then given to the model; only the latter is timed"
    predictor = make_predictor(a)
    windows,found,wall,cpu = scene_windows(a.file, a.size, a.overlap, img_rate_thr=0, pad=False)[a.part::2],{},0,0
    def batch(some):
        x = predictor.fit.batch([window.pixels() for window in some], some[0].size)
        return x.contiguous(memory_format=torch.channels_last)
    with Faster(predictor.detector).answering(min(a.score_thr, predictor.detector.score_thr)) as answer, torch.no_grad():
        for _ in range(4): answer(batch(windows[:a.bs]))
        for i in range(0, len(windows), 8*a.bs):
            groups = [windows[j:j+a.bs] for j in range(i, min(i+8*a.bs, len(windows)), a.bs)]
            batches = [batch(group) for group in groups]
            wall0,cpu0 = time.perf_counter(),time.process_time()
            answers = [answer(x) for x in batches]
            wall,cpu = wall+time.perf_counter()-wall0,cpu+time.process_time()-cpu0
            found |= {window.name:dict(dets) for group,own in zip(groups, answers) for window,dets in zip(group, own)}
    torch.save(found, Path(a.work)/f'bare{a.part}.pth')
    return dict(seconds=wall, cpu_seconds=cpu, windows=len(windows))

def apart(a):
    "Detections of the scene beside those of the windows merged: how many without a fellow within 0.5 px, largest distance of the others"
    load = lambda name: torch.load(Path(a.work)/name, weights_only=False)
    windows = {**load('bare0.pth'), **load('bare1.pth')}
    good = lambda found: {key:rows[found['scores']>=a.score_thr] for key,rows in found.items()}
    windows = {w.name:good(windows[w.name]) for w in scene_windows(a.file, a.size, a.overlap, img_rate_thr=0, pad=False)}
    ours,theirs = load('scene.pth'),merge_windows(windows)[Path(a.file).stem]
    quads,others,labels = rbox2qbox(ours['boxes'].double()),torch.as_tensor(theirs['boxes']),torch.as_tensor(theirs['labels'])
    if not len(quads) or not len(others): return dict(scene=len(quads), windows=len(others))
    far = []
    for i in range(0, len(quads), 256):
        dist = torch.cdist(quads[i:i+256].mean(1), others.mean(1))+1e9*(ours['labels'][i:i+256,None]!=labels)
        near = dist.topk(min(4, len(others)), largest=False).indices
        far += torch.cdist(quads[i:i+256,None].expand(-1,near.shape[1],-1,-1), others[near]).min(-1).values.amax(-1).amin(-1).tolist()
    far = np.array(far)
    near = far[far<.5]
    return dict(scene=len(quads), windows=len(others), alone=int((far>=.5).sum()), largest_px=float(near.max()) if len(near) else None)

def run_part(a, name, part=0):
    cmd = [sys.executable, __file__, *a.argv, '--only', name, '--part', str(part)]
    done = subprocess.run(cmd, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])

def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name,default in dict(side=20000, size=512, overlap=100, bs=4).items(): p.add_argument(f'--{name}', type=int, default=default)
    p.add_argument('--by', choices=['predictor','learner'], default='predictor')
    p.add_argument('--workers', type=int, help='reading processes')
    p.add_argument('--model', default='rotated_fcos_tiny', help='a detector, with weights of chance')
    p.add_argument('--weights', help='trained ones in its place: a name, a folder, a file')
    p.add_argument('--strips', action='store_true', help='a file of strips, as most programs write it')
    p.add_argument('--device', default='cpu')
    p.add_argument('--score-thr', type=float, help='0.05 for trained weights, else 0')
    p.add_argument('--work', default=str(Path(tempfile.gettempdir())/'rotnb-scene'), help='folder for the scene')
    p.add_argument('--scene-alone', action='store_true', help='without the bare model, which takes as long')
    p.add_argument('--json', help='file for the result')
    p.add_argument('--only', choices=['scene','bare'], help=argparse.SUPPRESS)
    p.add_argument('--part', type=int, default=0, help=argparse.SUPPRESS)
    a = p.parse_args()
    a.argv,a.file = sys.argv[1:],Path(a.work)/f"scene_{a.side}{'_strips'*a.strips}.tif"
    if a.score_thr is None: a.score_thr = .05 if a.weights else 0.
    Path(a.work).mkdir(parents=True, exist_ok=True)
    if a.only: return print(json.dumps(scene_part(a) if a.only=='scene' else bare_part(a)))
    if not a.file.exists(): make_tif(a.file, a.side, a.strips)
    res = summary(a)
    print(json.dumps(res, indent=1))
    if a.json:
        with atomic_path(a.json) as file: file.write_text(json.dumps(res, indent=1)+'\n')

def summary(a):
    first = None if a.scene_alone else run_part(a, 'bare', 0)
    said = run_part(a, 'scene')
    res = dict(side=a.side, size=a.size, overlap=a.overlap, by=a.by, strips=a.strips, model=a.weights or a.model, bs=a.bs,
               file_mb=a.file.stat().st_size/2**20, **said, torch=torch.__version__, threads=torch.get_num_threads(),
               load=os.getloadavg()[0])
    if not first: return res
    halves = [first,run_part(a, 'bare', 1)]
    seconds,cpu,n = (sum(half[key] for half in halves) for key in ('seconds','cpu_seconds','windows'))
    return dict(res, windows=n, share_of_bare=seconds/said['seconds'], share_of_cpu=cpu/said['cpu_seconds'],
                bare_cpu_halves=[half['cpu_seconds'] for half in halves], compared=apart(a))

if __name__=='__main__': main()
