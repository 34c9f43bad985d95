"""Ultralytics' smallest detector of oriented boxes (`yolo11n-obb`) beside ours, on this machine: `python peer.py --json peer_cpu.json`.

The peer is AGPL: it is installed into a temporary environment that also sees the torch and the runtimes of this one (`--env FOLDER` keeps
and reuses it), runs in processes of its own, and nothing of rotnb imports it; what is used of it is its documented interface.

- **Latency**: one image of 640 px, one thread. A process for the peer and one for ours wait for their turns; in each turn every way is
  asked once, and a ratio is that of two calls of a turn. Both have five classes and weights that have learnt next to nothing, so nothing
  is found, and dropping overlaps costs neither of them anything.
- **Memory** (`--skip memory` leaves it out): the most that an epoch of batches of 8 at 256 px holds, above what imports do; Linux.
- `--train SECONDS`: the peer learns the demo's scenes from scratch, by its own defaults but for the number of epochs, which is what so
  many seconds of processor time allow (batches alone are counted, its validations are free); rotnb's evaluator judges what it finds."""
import argparse, json, os, subprocess, sys, tempfile, time, venv
from pathlib import Path
from statistics import median

PEER,MODEL = ['ultralytics==8.4.190','ultralytics-thop','ultralytics-platform','polars','polars-runtime-32'],'yolo11n-obb'
NAMES = ['rotated_tal_tiny','rotated_fcos_tiny','rtmdet_r_tiny','yolov8_n','yolov6_n','yolov5_n']

# --- both sides: a process that waits for its turn

def status(key): return 1024*int(next(line for line in open('/proc/self/status') if line.startswith(key+':')).split()[1])

class Held:
    "The most memory held since now, MB above what is held now; `note` keeps it by a name"
    def __init__(self):
        Path('/proc/self/clear_refs').write_text('5')
        self.before,self.found = status('VmRSS'),{}
    def note(self, name): self.found[name] = round((status('VmHWM')-self.before)/2**20)

def answers():
    "What is printed for the other process, while all else goes to the errors"
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return lambda answer: print(json.dumps(answer), file=out, flush=True)

def take_orders(say, ways):
    "A way in, its time out"
    say(sorted(ways))
    for line in sys.stdin:
        wall,cpu = time.perf_counter(),time.process_time()
        ways[line.strip()]()
        say(dict(cpu=1e3*(time.process_time()-cpu), wall=1e3*(time.perf_counter()-wall)))

def one_thread(a):
    import onnxruntime as ort, torch
    torch.set_num_threads(a.threads)
    made = ort.InferenceSession
    def session(file, sess_options=None, *args, **kw):
        "With as many threads, whoever asks"
        options = sess_options or ort.SessionOptions()
        options.intra_op_num_threads = a.threads
        return made(file, options, *args, **kw)
    ort.InferenceSession = session

def image_of(a):
    import numpy as np
    return np.random.default_rng(0).integers(0, 256, (a.size,a.size,3), np.uint8)

def gflops(run):
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter: run()
    return round(counter.get_total_flops()/1e9, 3)

# --- the peer

def peer(a, weights=None):
    from ultralytics import YOLO, settings
    settings.update(dict(sync=False, runs_dir=str(a.folder)))
    return YOLO(str(weights or f'{MODEL}.yaml'), task='obb')

def peer_latency(a, say):
    "Its `predict`, its bare network, and both of its ONNX file"
    import numpy as np, openvino as ov, torch
    one_thread(a)
    model,image,kw = peer(a, a.weights),image_of(a),dict(imgsz=a.size, device='cpu', verbose=False)
    x = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)/255
    file = model.export(format='onnx', imgsz=a.size, simplify=False, device='cpu')
    import onnxruntime as ort
    exported,session = peer(a, file),ort.InferenceSession(file, providers=['CPUExecutionProvider'])
    how = dict(INFERENCE_PRECISION_HINT='f32', INFERENCE_NUM_THREADS=a.threads)
    program = ov.Core().compile_model(ov.Core().read_model(file), 'CPU', how)
    model.predict(image, **kw)                                          # which folds its norms
    net,tensor = peer(a, a.weights).model.fuse().eval(),torch.from_numpy(x)
    def network():
        with torch.inference_mode(): return net(tensor)
    say(dict(parameters=sum(p.numel() for p in net.parameters()), GFLOPs=gflops(network), found=len(model.predict(image, **kw)[0].obb)))
    take_orders(say, {'peer predict':lambda: model.predict(image, **kw), 'peer network':network,
                      'peer ONNX predict':lambda: exported.predict(image, **kw),
                      'peer ONNX network':lambda: session.run(None, {'images':x}),
                      'peer OpenVINO network':lambda: program(x)})

def peer_memory(a, say):
    import torch
    torch.set_num_threads(a.threads)
    peer(a)                                                             # which imports all that a training needs
    model,held = peer(a),Held()
    model.add_callback('on_train_epoch_end', lambda trainer: held.note('training'))
    model.train(data=f'{a.data}/data.yaml', epochs=1, batch=8, imgsz=256, workers=0, device='cpu', plots=False, pretrained=False)
    held.note('with validation')
    say(dict(memory=held.found, weights=str(model.trainer.last)))

def peer_train(a, say):
    "As many epochs as the time allows, told by the second epoch of a training that is thrown away"
    import torch
    torch.set_num_threads(a.threads)
    kw = dict(data=f'{a.data}/data.yaml', imgsz=a.size, workers=0, device='cpu', plots=False, pretrained=False, seed=a.seed)
    def train(epochs):
        model,spent = peer(a),[]
        model.add_callback('on_train_epoch_start', lambda trainer: spent.append(time.process_time()))
        model.add_callback('on_train_epoch_end', lambda trainer: spent.append(time.process_time()-spent.pop()))
        model.train(epochs=epochs, **kw)
        return model,spent
    epochs = max(1, round(a.train/train(2)[1][-1]))
    model,spent = train(epochs)
    found = peer(a, model.trainer.best).predict(f'{a.data}/val/images', conf=.001, imgsz=a.size, device='cpu', verbose=False)
    rows = {Path(o.path).stem:[o.obb.xyxyxyxy.flatten(1).tolist(),o.obb.conf.tolist(),o.obb.cls.int().tolist()] for o in found}
    say(dict(epochs=epochs, cpu_seconds=round(sum(spent)), found=rows))

# --- ours

def our_latency(a, say):
    "`predict_image` in torch, and of the files"
    from rotnb.all import Predictor, create_detector, export_onnx, set_seed
    from rotnb.interop.export import onnx_to_openvino
    from rotnb.learn.describe import part_table
    one_thread(a)
    image,ways,facts = image_of(a),{},{}
    def way(name, predictor): ways[name] = lambda: predictor.predict_image(image)
    for name in a.names:
        set_seed(0)
        predictor = Predictor(create_detector(name, 5, pretrained=False).eval())
        total = part_table(predictor.detector, (a.size,a.size)).loc['all']
        facts[name] = dict(parameters=int(total.parameters), GFLOPs=round(total.GFLOPs, 3), found=len(predictor.predict_image(image)))
        way(f'{name} predict_image', predictor)
        if name not in a.files: continue
        file = export_onnx(predictor, a.folder/f'{name}.onnx', a.size, check=False)
        vocab = list(map(str, range(5)))
        way(f'{name} ONNX', Predictor(file, vocab))
        way(f'{name} OpenVINO', Predictor(onnx_to_openvino(file, a.folder/f'{name}.xml'), vocab))
    say(facts)
    take_orders(say, ways)

def our_memory(a, say):
    import torch
    from rotnb.all import Callback, RotatedDataLoaders, rotated_learner
    torch.set_num_threads(a.threads)
    held = Held()
    class Note(Callback):
        def after_train(self): held.note('training')
    learn = rotated_learner(RotatedDataLoaders.from_dota(a.data, size=256, bs=8, num_workers=0), a.name, pretrained=False, run=False)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, cbs=Note())
    held.note('with validation')
    say(dict(memory=held.found))

# --- who asks

def environment(folder):
    "Python of an environment with the peer, which sees what is installed here"
    import sysconfig
    python = Path(folder).absolute()/'bin/python'
    if not python.exists():
        venv.create(folder, with_pip=True)
        site, = Path(folder).glob('lib/python*/site-packages')
        (site/'here.pth').write_text(sysconfig.get_path('purelib'))
        subprocess.run([python,'-m','pip','install','-q','--no-deps',*PEER], check=True)
    return str(python)

def start(a, work, **given):
    "A process for a part of the work"
    ours = work.startswith('our')
    env = {key:value for key,value in os.environ.items() if key!='PYTHONPATH'}
    env |= dict(OMP_NUM_THREADS=str(a.threads), NUMBA_NUM_THREADS=str(a.threads), YOLO_CONFIG_DIR=str(a.folder), YOLO_AUTOINSTALL='false')
    if ours: env['PYTHONPATH'] = str(Path(__file__).resolve().parents[2])
    given = dict(work=work, threads=a.threads, size=a.size, seed=a.seed, folder=a.folder, **given)
    args = [sys.executable if ours else a.python, str(Path(__file__).resolve())]
    for key,value in given.items(): args += [f'--{key}', *map(str, value if isinstance(value, list) else [value])]
    return subprocess.Popen(args, cwd=a.folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def hear(process):
    line = process.stdout.readline()
    if not line: raise SystemExit(f'{process.args[3]} ended: what it said is above')
    return json.loads(line)

def once(*args, **kw):
    process = start(*args, **kw)
    answer = hear(process)
    process.stdin.close(); process.wait()
    return answer

def scenes(a, n_train, n_valid, size, n_classes=None):
    "Painted scenes with labels for both: DOTA's for ours, and YOLO's, whose boxes lie in the image, for the peer"
    from rotnb.all import make_synth, read_dota, write_dota, write_yolo_obb
    from rotnb.data.synth.canvas import CLASSES
    folder,names = a.folder/f'scenes_{n_train}_{size}',CLASSES[:n_classes]
    make_synth(folder, n_train=n_train, n_valid=n_valid, size=size)
    for split in ('train','val'):
        annots = read_dota(folder, split)
        if n_classes:
            annots = [annot.keep([i for i,name in enumerate(annot.names) if name in names]) for annot in annots]
            write_dota(annots, folder/split/'labelTxt')
        write_yolo_obb(annots, folder/split/'labels', names)
    said = [f'path: {folder}', 'train: train/images', 'val: val/images', 'names:', *(f'  {i}: {name}' for i,name in enumerate(names))]
    (folder/'data.yaml').write_text('\n'.join(said)+'\n')
    return folder

def latency(a, weights):
    both = dict(peer=start(a, 'peer_latency', weights=weights), ours=start(a, 'our_latency', names=a.names, files=a.files))
    facts = {**{MODEL:hear(both['peer'])}, **hear(both['ours'])}
    ways = {way:process for process in both.values() for way in hear(process)}
    def ask(way):
        ways[way].stdin.write(way+'\n'); ways[way].stdin.flush()
        return hear(ways[way])
    for way in ways: ask(way)
    turns = [{way:ask(way) for way in ways} for _ in range(a.runs)]
    for process in both.values(): process.stdin.close(); process.wait()
    def row(way):
        first = {kind:round(median(turn[way][kind]/turn['peer predict'][kind] for turn in turns), 3) for kind in ('cpu','wall')}
        return {f'{kind} ms':round(median(turn[way][kind] for turn in turns), 1) for kind in first} | {
            f'{kind} of peer predict':share for kind,share in first.items()}
    return dict(models=facts, ways={way:row(way) for way in ways})

def judged(a, data, found):
    "The peer's boxes by our evaluator"
    import torch
    from rotnb.all import APAccumulator, Evaluation, qbox2rbox, read_dota
    from rotnb.data.synth.canvas import CLASSES
    from rotnb.predict.measure import truth_of
    acc,annots = APAccumulator(vocab=CLASSES),read_dota(data, 'val')
    for annot in annots:
        quads,scores,labels = map(torch.tensor, found[Path(annot.image).stem])
        acc.add([dict(boxes=qbox2rbox(quads.reshape(-1,4,2)), scores=scores, labels=labels.long())], [truth_of(annot, CLASSES)])
    result = Evaluation(acc)
    print(result)
    return dict(mAP50=result.map50, mAP50_95=result.map, classes=result.df['AP50:95'].to_dict())

def measure(a):
    from rotnb.learn.history import versions
    found = dict(peer=[*PEER], size=a.size, threads=a.threads, runs=a.runs, load=[os.getloadavg()[0]], versions=versions())
    if a.train:
        a.size,data = 320,scenes(a, 240, 60, 320)
        answer = once(a, 'peer_train', data=data, train=a.train)
        found['training'] = {**judged(a, data, answer.pop('found')), **answer, 'asked_cpu_seconds':a.train}
    else:
        data = scenes(a, 16, 8, 256, 5)
        first = once(a, 'peer_memory', data=data)
        if 'memory' not in a.skip:
            found['memory MB'] = {MODEL:first['memory']}
            for name in a.names: found['memory MB'][name] = once(a, 'our_memory', data=data, name=name)['memory']
            print(json.dumps(found['memory MB'], indent=1), flush=True)
        if 'latency' not in a.skip: found |= latency(a, first['weights'])
    found['load'].append(os.getloadavg()[0])
    print(json.dumps(found, indent=1))
    if a.json: Path(a.json).write_text(json.dumps(found, indent=1)+'\n')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--names', nargs='*', default=NAMES, help='detectors of ours')
    p.add_argument('--files', nargs='*', default=NAMES[:3], help='those of them that are exported, too: a minute each')
    p.add_argument('--skip', nargs='*', default=[], choices=['memory','latency'])
    p.add_argument('--train', type=float, help='processor seconds that the peer learns the scenes of the demo')
    p.add_argument('--env', help='folder of an environment with the peer, made if absent; a temporary one when not given')
    for key,value in dict(size=640, runs=9, threads=1, seed=0).items(): p.add_argument(f'--{key}', type=int, default=value)
    p.add_argument('--json', help='file for the numbers')
    for key in ('work','weights','data','name'): p.add_argument(f'--{key}', help=argparse.SUPPRESS)
    p.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.work: return globals()[a.work](a, answers())
    with tempfile.TemporaryDirectory() as folder:
        a.folder,a.python = Path(folder),environment(a.env or f'{folder}/env')
        measure(a)

if __name__=='__main__': main()
