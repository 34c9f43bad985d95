"""Trained detectors as files, beside themselves, on the demo's held-out scenes:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python trained_files.py NAME --json trained_files.json`, NAME one of those of
learning.py, which is trained for `--seconds` of processor time unless it was; or the folder of a predictor, such as `rotnb-demo` writes.
Files of ONNX Runtime and OpenVINO in f32, and in int8 by training scenes: mean average precision, boxes beside those of the detector
from a score of .3 on (a like one has their class and an IoU above .5), and processor time of an image, all in turn on each scene.
`--proposals` instead: the detector itself, of two stages, with fewer proposals.
A detector that is in the JSON file is measured again. `python trained_files.py --table trained_files.json` prints it."""
import argparse, json, os, sys, tempfile, time
from copy import deepcopy
from pathlib import Path
from statistics import median
from rotnb.all import *
from rotnb.cli.demo_run import demo_loaders
from rotnb.cli.recipe import recipe
from rotnb.data.images.rasters import read_rgb
from rotnb.data.labels.atomic import write_atomic
from rotnb.interop.export import onnx_to_openvino
from rotnb.models.fast import moved
from rotnb.predict.measure import truth_of
from learning import NETS, WORK, net

AT = .3                                                                 # least score of the boxes that are compared

def files(predictor, folder, images, size=recipe['size']):
    "What answers, by name: the detector, and files of it"
    onnx = export_onnx(predictor, folder/'m.onnx', size, check=False)
    xml = onnx_to_openvino(onnx, folder/'m.xml')
    made = {'onnx f32':onnx, 'openvino f32':xml}
    for name,file in (('onnx int8',onnx), ('openvino int8',xml)):
        try: made[name] = quantize(file, images, max_lost=1.)
        except ExportError as e: print(f'{name}: {e}')
    return {'torch':Predictor(predictor.detector, **predictor.settings()), **{name:Predictor(file) for name,file in made.items()}}

def with_proposals(predictor, counts):
    "What answers, by name: the detector with so many proposals, the first as it is"
    res = {}
    for count in counts:
        detector = deepcopy(predictor.detector)
        detector.stages[0].max_per_img = count
        detector.stages[0].nms_pre = min(detector.stages[0].nms_pre, count)
        res[str(count)] = Predictor(detector, **predictor.settings())
    return res

def measured(ways, annots):
    "A row of each that answers, in turn; the first is what others are compared with"
    truth = [truth_of(annot, next(iter(ways.values())).vocab) for annot in annots]
    found,times = {name:[] for name in ways},{name:[] for name in ways}
    for n,annot in enumerate(annots[:1]+annots):                        # the first is seen twice: numba compiles, files are opened
        image = read_rgb(annot.image)
        for name,predictor in ways.items():
            start = time.process_time()
            dets = predictor.predict_image(image, score_thr=.05)
            if n: times[name].append(time.process_time()-start); found[name].append(dict(dets))
    first = next(iter(ways))
    return {name:row(found[name], found[first], truth, times[name], times[first]) for name in ways}

def row(found, own, truth, times, base):
    maps = [eval_map(found, truth, metric=metric).map for metric in ('voc12','coco')]
    far,back = moved(found, own, AT),moved(own, found, AT)
    like = far[far.isfinite()]
    corner = [round(like.quantile(q).item(), 5) for q in (.5,.9,1.)] if len(like) else None
    return {'mAP50':round(maps[0], 4), 'mAP50:95':round(maps[1], 4), 'boxes':len(far), 'lost':int((~far.isfinite()).sum()),
            'new':int((~back.isfinite()).sum()), 'corner':corner, 'ms':round(1e3*median(times), 1),
            'time':round(median(a/b for a,b in zip(times, base)), 3)}

def table(log):
    for name,rows in log.items():
        print(f'\n{name}\n\n| | mAP50 | mAP50:95 | boxes | lost | new | corners, px: median, 90 %, most | ms | time |\n{"|---"*9}|')
        for way,o in rows.items():
            corner = ', '.join(f'{x:.2g}' for x in o['corner'] or [])
            print('|', ' | '.join(map(str, [way, *(o[key] for key in ('mAP50','mAP50:95','boxes','lost','new')), corner, o['ms'],
                                             o['time']])), '|')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('names', nargs='*'); p.add_argument('--json'); p.add_argument('--table'); p.add_argument('--work', default=str(WORK))
    p.add_argument('--seconds', type=float, default=240); p.add_argument('--proposals', type=int, nargs='*')
    p.add_argument('--n', type=int, help='scenes; all 60 if absent')
    a = p.parse_args()
    if a.table: sys.exit(table(json.loads(Path(a.table).read_text())))
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 1)))
    log = json.loads(Path(a.json).read_text()) if a.json and Path(a.json).exists() else {}
    dls = demo_loaders(workers=0)
    images,annots = [o.image for o in dls.train_ds.items[:24]],list(dls.valid_ds.items)[:a.n]
    for name in a.names:
        predictor = net(name, a.seconds, a.work) if name in NETS else load_weights(name)
        kind = predictor.detector.name
        with tempfile.TemporaryDirectory() as folder:
            if a.proposals is not None:
                kind,ways = f'{kind}, proposals',with_proposals(predictor, a.proposals or (2000,1000,500,300))
            else: ways = files(predictor, Path(folder), images)
            log[kind] = measured(ways, annots)
        if a.json: write_atomic(a.json, json.dumps(log, indent=1)+'\n')
    table(log)
