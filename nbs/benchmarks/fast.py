"""`predict_image` of this build beside an older one, in turn, in processor time: `python fast.py --base CHECKOUT`.
Each build is a process of its own that waits for its turn, so that both have the same machine; a ratio is that of the two calls of a turn.
Both have the same weights, of chance, with the bias of the classes moved until about `--boxes` candidates pass the threshold; boxes are
compared corner by corner. `--fast` gives the new build's ways: exact, bf16; and as files: onnx, openvino, int8 (of OpenVINO; with these
weights its lost boxes say nothing, its time does)."""
import argparse, json, os, subprocess, sys, tempfile, time
from contextlib import redirect_stdout
from pathlib import Path

DETECTORS = {'rotated_fcos_tiny':{}, 'rtmdet_r_tiny':{}, 'oriented_rcnn':dict(backbone='resnet18')}

def made(name, file, boxes, image):
    "A detector whose answers to an image are many; its weights in a file, for the other build"
    import torch
    from rotnb.all import create_detector, Predictor
    torch.manual_seed(0)
    detector = create_detector(name, 15, pretrained=False, **DETECTORS[name]).eval()
    if Path(file).exists():
        detector.load_state_dict(torch.load(file))
        return detector
    x = Predictor(detector).fit.batch([image], image.shape[1::-1])
    norms = [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms: norm.momentum = 1.; norm.train()             # as in a trained net, signals neither vanish nor explode
        detector.run_stages(torch.cat([x, x.flip(2)]))
        for norm in norms: norm.eval()
        head = detector.stages[-1]
        layers = [*head.cls] if isinstance(head.cls, torch.nn.ModuleList) else [head.cls]
        for layer in layers: layer.weight.mul_(20)
        logits = detector.run_stages(x)[1].logits[0]
        if logits.shape[1]>15: logits = logits[:,:15]-logits[:,15:]
        shift = -2.9-logits.flatten().topk(boxes)[0][-1]
        for layer in layers: layer.bias[:15] += shift
    torch.save(detector.state_dict(), file)
    return detector

def of_way(a, detector, folder):
    "A predictor of the new build: the detector, or a file of it"
    from rotnb.all import Predictor, export_onnx, export_openvino, make_scene, quantize
    if a.way in ('exact','bf16'): return Predictor(detector, score_thr=.05, fast=a.way)
    predictor = Predictor(detector, score_thr=.05)
    if a.way=='onnx': file = export_onnx(predictor, folder/'m.onnx', a.size, check=False)
    else: file = export_openvino(predictor, folder/'m.xml', size=a.size, check=False)
    if a.way=='int8': file = quantize(file, [make_scene(i, a.size)[0] for i in range(20)], max_lost=1.)
    return Predictor(file)

def serve(a):
    "One build: a line in, an answer out"
    import torch
    from rotnb.all import Predictor, make_scene
    image = make_scene(0, a.size)[0]
    detector = made(a.name, a.weights, a.boxes, image)
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(sys.stderr):                               # answers alone go out
            predictor = Predictor(detector, score_thr=.05) if a.way=='today' else of_way(a, detector, Path(folder))
        for _ in sys.stdin:
            start,wall = time.process_time(),time.perf_counter()
            found = predictor.predict_image(image)
            took = dict(cpu=time.process_time()-start, wall=time.perf_counter()-wall)
            answer = {key:getattr(found, key).tolist() for key in ('boxes','labels','scores')}
            print(json.dumps({**took, **answer}), flush=True)

def start(a, name, way, weights):
    root = a.base if way=='today' else Path(__file__).resolve().parents[2]
    env = {**os.environ, 'PYTHONPATH':str(root), 'OMP_NUM_THREADS':str(a.threads), 'NUMBA_NUM_THREADS':str(a.threads)}
    given = dict(name=name, way=way, weights=weights, size=a.size, boxes=a.boxes)
    args = [sys.executable, __file__, '--serve', *(part for key,value in given.items() for part in (f'--{key}',value))]
    return subprocess.Popen([*map(str, args)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def ask(process):
    process.stdin.write('\n'); process.stdin.flush()
    return json.loads(process.stdout.readline())

def compare(a, name):
    from statistics import median
    with tempfile.TemporaryDirectory() as tmp:
        ways = ['today', *a.fast]
        processes,weights = {},Path(tmp)/'weights.pth'
        for way in ways[1:]+ways[:1]:                                   # the first writes the weights
            processes[way] = start(a, name, way, weights)
            for _ in range(2): ask(processes[way])
        turns = [{way:ask(processes[way]) for way in ways} for _ in range(a.runs)]
        for process in processes.values(): process.stdin.close(); process.wait()
    return {way:row(turns, way, median) for way in ways}

def row(turns, way, median):
    import torch
    from rotnb.models.fast import moved
    found = [{key:torch.tensor(turns[-1][one][key]) for key in ('boxes','labels','scores')} for one in (way,'today')]
    far = moved([found[0]], [found[1]], 0.)
    ratio = {f'{kind} share':round(median(turn[way][kind]/turn['today'][kind] for turn in turns), 3) for kind in ('cpu','wall')}
    return {'cpu ms':round(median(turn[way]['cpu'] for turn in turns)*1e3), **ratio, 'boxes':len(far),
            'lost':int((~far.isfinite()).sum()), 'most px':round(far[far.isfinite()].max().item(), 6)}

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--base', help="another checkout of rotnb, today's")
    p.add_argument('--fast', nargs='+', default=['exact','bf16'])
    p.add_argument('--names', nargs='+', default=[*DETECTORS])
    p.add_argument('--threads', type=int, nargs='+', default=[1,2])
    for key,value in dict(size=640, boxes=200, runs=9).items(): p.add_argument(f'--{key}', type=int, default=value)
    p.add_argument('--json')
    for key in ('name','way','weights'): p.add_argument(f'--{key}', help=argparse.SUPPRESS)
    p.add_argument('--serve', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.serve: return serve(a)
    res = {}
    for threads in a.threads:
        for name in a.names:
            one = argparse.Namespace(**{**vars(a), 'threads':threads})
            res[f'{name}, {threads} threads'] = compare(one, name)
            print(json.dumps({f'{name}, {threads}':res[f'{name}, {threads} threads']}, indent=1), flush=True)
    if a.json: Path(a.json).write_text(json.dumps(dict(size=a.size, runs=a.runs, load=os.getloadavg()[0], rows=res), indent=1)+'\n')

if __name__=='__main__': main()
