"""Every detector as one file, beside itself:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python export.py [NAME ...] --images FOLDER --json export.json`.
Random weights, spread until some hundred boxes are kept; images are those of the folder with grain, a synthetic scene and noise; and,
counted apart, a flat one, where scores are equal but for the last digit. Detectors that are in the JSON file are not run again.
`python export.py --table export.json` prints it."""
import json, os, sys, time
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
import cv2, numpy as np, torch
from rotnb.data.images.rasters import read_rgb
from rotnb.data.labels.atomic import write_atomic
from rotnb.data.synth.scenes import make_scene
from rotnb.interop.export import export_onnx, onnx_to_openvino
from rotnb.interop.export_module import ExportError, ExportModule
from rotnb.interop.proof import file_predictor, prove
from rotnb.models import create_detector, list_detectors
from rotnb.predict.predictor import Predictor

K,SIZE,PRE = 15,256,1000
SMALL = dict(backbone='test_resnet', fpn_channels=48, strides=(4,8,16,32))
DENSE = dict(SMALL, feat_channels=48, stacked_convs=2)
REGION = dict(SMALL, fc_channels=256)
TWO_STAGE = 'oriented_rcnn','roi_trans','redet','rotated_faster_rcnn','gliding_vertex'
FULL = {'oriented_rcnn_r18':('oriented_rcnn', dict(backbone='resnet18')), 'rtmdet_r_tiny':('rtmdet_r_tiny', {}),
        'rotated_fcos_tiny':('rotated_fcos_tiny', {}), 'rotated_retinanet_tiny':('rotated_retinanet_tiny', {})}

def settings_of(name):
    "Entry point and settings of a row"
    if name in FULL: return FULL[name]
    if name.startswith('rtmdet'): return name,dict(SMALL)
    return name,REGION if name in TWO_STAGE else DENSE

def images_of(folder, size=SIZE):
    "What the files are tried on"
    rng = np.random.default_rng(0)
    files = sorted(Path(folder).rglob('*.jpg'))[:3] if folder else []
    shown = [cv2.resize(read_rgb(file)[:2*size,:2*size], (size,size), interpolation=cv2.INTER_AREA) for file in files]
    shown.append(make_scene(1, size)[0])
    grainy = [np.clip(o.astype(int)+rng.integers(-4, 5, o.shape), 0, 255).astype(np.uint8) for o in shown]
    return [*grainy, rng.integers(0, 256, (size,size,3), np.uint8)]

def spread(detector, images, least=80):
    "Scale the last layers of random weights until boxes are found"
    x = torch.stack([torch.from_numpy(o).permute(2, 0, 1).float()/255*4-2 for o in images])
    names = 'cls','box','first','move','angle'
    last = [p for name,p in detector.stages.named_parameters() if name.split('.')[-2] in names and p.dim()>1]
    with torch.no_grad():
        for _ in range(14):
            counts = [len(found['boxes']) for found in detector.eval()(x)]
            if sum(counts)>=least*len(counts): break
            for p in last: p.mul_(1.6)
    return detector

def row(name, images):
    "One detector's line"
    arch,kw = settings_of(name)
    torch.manual_seed(0)
    detector = spread(create_detector(arch, K, **kw), images)
    predictor = Predictor(detector, [f'c{i}' for i in range(K)], size=SIZE, score_thr=.05)
    start,res = time.perf_counter(),dict(detector=name, settings={key:str(value) for key,value in kw.items()})
    twin = file_predictor(predictor, SIZE)
    module = ExportModule(twin, pre=PRE)
    with TemporaryDirectory() as folder:
        try: file = export_onnx(predictor, Path(folder)/'m.onnx', SIZE, pre=PRE, check=False)
        except (ExportError, NotImplementedError) as e: return {**res, 'error':f'{type(e).__name__}: {e}'}
        res |= dict(seconds=time.perf_counter()-start, mb=file.stat().st_size/1e6)
        for path in (file, onnx_to_openvino(file, file.with_suffix('.xml'))):
            proof,flat = prove(path, module, twin, images),prove(path, module, twin, [np.full_like(images[0], 90)], runs=1)
            res[path.suffix[1:]] = dict(vars(proof.match), ratio=proof.ratio, ms=proof.file_s*1000, fits=proof.fits(1e-2),
                                        flat=vars(flat.match))
    return res

def table(rows):
    "As a page shows it"
    one = 'lost, new | corners, px | scores | time | flat: lost, new'
    print(f'| detector | boxes | ONNX Runtime: {one} | OpenVINO: {one} | MB |')
    print('|'+'---|'*13)
    for one in rows:
        if 'error' in one: print(f"| {one['detector']} | {one['error']} |")
        else:
            said = [f"{o['lost']}, {o['new']} | {o['corner']:.1g} | {o['score']:.1g} | {o['ratio']:.2f} | "
                    f"{o['flat']['lost']}, {o['flat']['new']}" for o in (one['onnx'], one['xml'])]
            print(f"| {one['detector']} | {one['onnx']['n']} | {' | '.join(said)} | {one['mb']:.1f} |")

if __name__=='__main__':
    args = ArgumentParser()
    args.add_argument('names', nargs='*'); args.add_argument('--images'); args.add_argument('--json'); args.add_argument('--table')
    args = args.parse_args()
    if args.table: sys.exit(table(json.loads(Path(args.table).read_text())['rows']))
    done = json.loads(Path(args.json).read_text())['rows'] if args.json and Path(args.json).exists() else []
    images = images_of(args.images)
    for name in args.names or [*FULL, *(o for o in list_detectors() if o not in FULL and o not in ('rtmdet_r_s','rtmdet_r_l'))]:
        if name in {one['detector'] for one in done}: continue
        done.append(row(name, images))
        print(done[-1], flush=True)
        if args.json: write_atomic(args.json, json.dumps(dict(rows=done, torch=torch.__version__, load=os.getloadavg()[0]), indent=1))
    table(done)
