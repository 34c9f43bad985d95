"""Throughput and memory of `predict_scene` beside the bare model on the same windows in memory: `python scene.py --side 20000`.
Half of the bare run comes before the scene and half after it, so that a machine growing slower or faster favours neither.
Each part is a process of its own, whose peak memory is its own. `share_of_bare` is of the clock; `share_of_cpu` of processor time,
which other programs on the machine disturb least: what reading, storing and merging add to the model's work.
A GeoTIFF is made first (tiled, deflate, blocks of 500 px from `make_scene`) and kept for the next run."""
import argparse, json, re, resource, subprocess, sys, tempfile, time
from pathlib import Path
from rotnb.all import *
from rotnb.data.images.windows import scene_windows
from rotnb.data.labels.atomic import atomic_path
from rotnb.learn.history import versions

def make_tif(file, side, block=500, n=8):
    "A georeferenced scene from painted blocks, turned and shuffled"
    import rasterio
    rng,blocks = np.random.default_rng(0),[make_scene(i, block)[0] for i in range(n)]
    kw = dict(width=side, height=side, count=3, dtype='uint8', tiled=True, blockxsize=256, blockysize=256,
              compress='deflate', photometric='rgb', crs='EPSG:32633', transform=rasterio.Affine(.5,0,5e5,0,-.5,4.6e6))
    with atomic_path(file) as tmp, rasterio.open(tmp, 'w', driver='GTiff', **kw) as ds:
        for y in range(0, side, block):
            row = np.concatenate([np.rot90(blocks[rng.integers(n)], rng.integers(4)) for _ in range(0, side, block)], 1)[:side-y,:side]
            ds.write(np.moveaxis(row, -1, 0), window=rasterio.windows.Window(0, y, side, len(row)))

def make_learner(a):
    "A trained one if there is one; else weights of chance, whose 50 best boxes a window are to be merged"
    device = torch.device(a.device or default_device())
    if Path(a.model).is_file(): learn = load_learner(a.model, cpu=device.type=='cpu')
    else:
        set_seed(0)
        dls = RotatedDataLoaders.from_synth(Path(a.work)/'set', n_train=4, n_valid=4, size=a.size, bs=a.bs, num_workers=0)
        learn = rotated_learner(dls, a.model, pretrained=False, metrics=[], score_thr=0., max_per_img=50)
    learn.dls.to(device); learn.model.to(device).eval()
    return learn

def peak(): # MB; getrusage would tell the parent's, which a process inherits
    return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1])/2**10
def sync(learn): torch.cuda.synchronize() if learn.dls.device.type=='cuda' else None

def scene_part(a):
    learn = make_learner(a)
    predict_scene(learn, np.zeros((a.size,4*a.bs*a.size,3), np.uint8), a.size, 0, bs=a.bs, num_workers=0, progress=False)
    open_scene(a.file).read(0, 0, 8, 8)                             # imports rasterio
    before,t,cpu = peak(),time.perf_counter(),time.process_time()
    preds = predict_scene(learn, a.file, a.size, a.overlap, score_thr=a.score_thr, bs=a.bs, num_workers=a.workers, progress=False)
    t,cpu = time.perf_counter()-t,time.process_time()-cpu
    torch.save(preds, Path(a.work)/'scene.pth')
    return dict(seconds=t, cpu_seconds=cpu, peak_mb=peak(), peak_before_mb=before, detections=len(preds['scores']),
                peak_worker_mb=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/2**10 if a.workers else None)

def bare_part(a):
    "Batches are read and normalised in groups of eight, and then given to the model; only the latter is timed"
    learn = make_learner(a); windows = scene_windows(a.file, a.size, a.overlap, img_rate_thr=0)
    some,dets,t,cpu = windows[a.part::2],{},0,0
    dl = learn.dls.test_dl([PILImage.create(some[0].pixels())]*a.bs, bs=a.bs, num_workers=0); x = dl.one_batch()[0].as_subclass(Tensor)
    def batch(ws):
        items = [dl.after_item((PILImage.create(w.pixels()),)) for w in ws]
        return dl.after_batch(to_device(dl.create_batch(items), dl.device))[0].as_subclass(Tensor)
    with torch.no_grad():
        for _ in range(4): learn.model(x)
        for i in range(0, len(some), 8*a.bs):
            groups = [some[j:j+a.bs] for j in range(i, min(i+8*a.bs, len(some)), a.bs)]
            xs = [batch(g) for g in groups]
            sync(learn); t0,c0 = time.perf_counter(),time.process_time()
            ys = [learn.model(x) for x in xs]
            sync(learn); t += time.perf_counter()-t0; cpu += time.process_time()-c0
            dets.update({w.name:{k:v.cpu() for k,v in p.items()} for g,y in zip(groups, ys) for w,p in zip(g, y)})
    torch.save(dets, Path(a.work)/f'bare{a.part}.pth')
    return dict(seconds=t, cpu_seconds=cpu, windows=len(some))

def apart(a):
    "Detections of the scene beside those of the windows merged: how many without a fellow within 0.5 px, largest distance of the others"
    load = lambda n: torch.load(Path(a.work)/n)
    windows = {**load('bare0.pth'), **load('bare1.pth')}
    good = lambda p: {k:v[p['scores']>=a.score_thr] for k,v in p.items()}
    windows = {w.name:good(windows[w.name]) for w in scene_windows(a.file, a.size, a.overlap, img_rate_thr=0)}
    ours,theirs = load('scene.pth'),merge_windows(windows)[Path(a.file).stem]
    q,r,l = rbox2qbox(ours['boxes'].double()),torch.as_tensor(theirs['boxes']),torch.as_tensor(theirs['labels'])
    if not len(q) or not len(r): return dict(scene=len(q), windows=len(r))
    d = []
    for i in range(0, len(q), 256):
        far = torch.cdist(q[i:i+256].mean(1), r.mean(1)) + 1e9*(ours['labels'][i:i+256,None]!=l)
        k = far.topk(min(4, len(r)), largest=False).indices
        d += torch.cdist(q[i:i+256,None].expand(-1,k.shape[1],-1,-1), r[k]).min(-1).values.amax(-1).amin(-1).tolist()
    d = np.array(d)
    return dict(scene=len(q), windows=len(r), alone=int((d>=.5).sum()), largest_px=float(d[d<.5].max()) if (d<.5).any() else None)

def run_part(a, name, part=0):
    cmd = [sys.executable, __file__, *a.argv, '--only', name, '--part', str(part)]
    r = subprocess.run(cmd, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(r.stdout.splitlines()[-1])

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    for name,default in dict(side=20000, size=512, overlap=100, bs=4).items(): p.add_argument(f'--{name}', type=int, default=default)
    p.add_argument('--workers', type=int, help='reading processes')
    p.add_argument('--model', default='rotated_fcos_tiny', help='a detector, or an exported learner')
    p.add_argument('--device')
    p.add_argument('--score-thr', type=float, help='0.05 for an exported learner, else 0')
    p.add_argument('--work', default=str(Path(tempfile.gettempdir())/'rotnb-scene'), help='folder for the scene')
    p.add_argument('--json', help='file for the result')
    p.add_argument('--only', choices=['scene','bare'], help=argparse.SUPPRESS)
    p.add_argument('--part', type=int, default=0, help=argparse.SUPPRESS)
    a = p.parse_args(); a.argv,a.file = sys.argv[1:],Path(a.work)/f'scene_{a.side}.tif'
    if a.score_thr is None: a.score_thr = .05 if Path(a.model).is_file() else 0.
    Path(a.work).mkdir(parents=True, exist_ok=True)
    if a.only: sys.exit(print(json.dumps(scene_part(a) if a.only=='scene' else bare_part(a))))
    if not a.file.exists(): make_tif(a.file, a.side)
    b0,s,b1 = run_part(a, 'bare', 0),run_part(a, 'scene'),run_part(a, 'bare', 1)
    bare,n = b0['seconds']+b1['seconds'],b0['windows']+b1['windows']
    res = dict(side=a.side, size=a.size, overlap=a.overlap, model=str(a.model), windows=n, file_mb=a.file.stat().st_size/2**20,
               windows_per_s=n/s['seconds'], bare_windows_per_s=n/bare, share_of_bare=bare/s['seconds'],
               share_of_cpu=(b0['cpu_seconds']+b1['cpu_seconds'])/s['cpu_seconds'], bare_halves_s=[b0['seconds'],b1['seconds']],
               **s, compared=apart(a), versions=versions())
    print(json.dumps(res, indent=1))
    if a.json:
        with atomic_path(a.json) as f: f.write_text(json.dumps(res, indent=1)+'\n')
