"""Every detector as one file, beside itself:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python export.py [NAME ...] --images FOLDER --json export.json`.
Random weights, spread until some hundred boxes are kept; images are those of the folder with grain, a synthetic scene and noise; and,
counted apart, a flat one, where scores are equal but for the last digit. `bright_cells` and `bright_proposals` are made by hand: on
scenes with nothing, one object, equals everywhere and noise, the last two with more candidates than reach the NMS.
Detectors that are in the JSON file are not run again.
`python export.py --table export.json` prints it."""
import copy, json, os, sys, time
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
import cv2, numpy as np, torch
from torch import nn
from rotnb.data.images.rasters import read_rgb
from rotnb.data.labels.atomic import write_atomic
from rotnb.data.synth.scenes import make_scene
from rotnb.geometry.boxes import rbox2qbox
from rotnb.interop.export import export_onnx, onnx_to_openvino
from rotnb.interop.export_module import ExportError, ExportModule
from rotnb.interop.proof import file_predictor, prove
from rotnb.models import create_detector, list_detectors
from rotnb.models.contract import Detector
from rotnb.models.dense_head import DenseHead
from rotnb.models.roi_head import RoIHead
from rotnb.models.rpn import RPNHead
from rotnb.models.yolo import yolo_rows
from rotnb.predict.predictor import Predictor
from rotnb.targets.coders import DeltaXYWHACoder, DistanceAngleCoder
from rotnb.targets.priors import AnchorPriors, PointPriors
from rotnb.targets.roi_coders import MidpointOffsetCoder

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
    if name in yolo_rows: return name,{}
    return name,REGION if name in TWO_STAGE else DENSE

OTHER_SIZES = {'rtmdet_r_s','rtmdet_r_l', *set(yolo_rows)-{'yolov5_n','yolov6_n','yolov7_tiny','yolov8_n','yolox_tiny','ppyoloe_s'}}

class Brightness(nn.Module):
    "A backbone of one map: how bright cells of 8 px are"
    def forward(self, x): return [nn.functional.avg_pool2d(x.mean(1, keepdim=True), 8)]

def _sees(conv, weights, bias): # each output is what lies below, times its weight
    nn.init.zeros_(conv.weight)
    middle = conv.weight[:,:,conv.weight.shape[2]//2,conv.weight.shape[3]//2] if conv.weight.dim()==4 else conv.weight
    with torch.no_grad():
        middle.copy_(torch.as_tensor(weights)[:,None].expand_as(middle)/middle.shape[1])
        conv.bias.copy_(torch.as_tensor(bias))

def bright_cells():
    "Finds cells that are bright, of two classes: one stage, nothing learnt"
    head = DenseHead(2, 1, PointPriors(), DistanceAngleCoder(act='exp'), None, 'iou', strides=(8,), stacked_convs=0)
    _sees(head.cls, [3.,2.], [-1.,-1.5])
    _sees(head.box, [.1,.2,.1,.0,.3], [0.]*5)
    return Detector(Brightness(), nn.Identity(), [head], 2, name='bright_cells')

def bright_proposals():
    "The same in two stages; of equal anchors fewer are taken than there are"
    rpn = RPNHead(1, MidpointOffsetCoder(), AnchorPriors(1., 1, offset=.5), strides=(8,), stacked_convs=0, nms_pre=300, max_per_img=200)
    _sees(rpn.cls, [1.,1.2,.8], [0.]*3)
    _sees(rpn.box, [.05,.04,.03,.05,.06,.1]*3, [0.]*18)         # no parallelogram has equal diagonals, or either could be the longer
    roi = RoIHead(2, 1, DeltaXYWHACoder(), hbox=False, strides=(8,), roi_size=2, fc_channels=2)
    for fc in roi.fcs: _sees(fc, [1.,1.], [0.,0.])
    _sees(roi.cls, [8.,7.,0.], [-3.5,-3.5,0.])
    _sees(roi.box, [.1,0.,.1,.0,.3], [0.]*5)
    return Detector(Brightness(), nn.Identity(), [rpn, roi], 2, name='bright_proposals')

def scenes():
    "What `BY_HAND` is tried on"
    none = np.zeros((128,128,3), np.uint8)
    one = none.copy()
    one[40:48,64:72] = 255
    noise = np.random.default_rng(0).integers(0, 256, (16,16,1), np.uint8).repeat(8, 0).repeat(8, 1).repeat(3, 2)
    half = noise.copy()
    half[:,64:] = 128
    return dict(none=none, one=one, ties=none+np.uint8(128), noise=noise, half=half)

BY_HAND = dict(bright_cells=bright_cells, bright_proposals=bright_proposals)

def scene_row(name, pre=100):
    "A line of a detector of `BY_HAND`: what each runtime makes of each scene"
    predictor = Predictor(BY_HAND[name]().eval(), ['a','b'], size=128, score_thr=.05)
    twin,res = file_predictor(predictor, 128),dict(detector=name, scenes={})
    module = ExportModule(twin, pre=pre)
    with TemporaryDirectory() as folder:
        file = export_onnx(predictor, Path(folder)/'m.onnx', 128, pre=pre, check=False)
        for path in (file, onnx_to_openvino(file, file.with_suffix('.xml'))):
            for scene,image in scenes().items():
                x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
                proof = prove(path, module, twin, [image], runs=1)
                res['scenes'].setdefault(scene, dict(candidates=len(module.eager_candidates(module.seen(x))[0]['boxes'])))
                res['scenes'][scene][path.suffix[1:]] = dict(vars(proof.match), fits=proof.fits(1e-2))
    return res

def images_of(folder, size=SIZE):
    "What the files are tried on"
    rng = np.random.default_rng(0)
    files = sorted(Path(folder).rglob('*.jpg'))[:3] if folder else []
    shown = [cv2.resize(read_rgb(file)[:2*size,:2*size], (size,size), interpolation=cv2.INTER_AREA) for file in files]
    shown.append(make_scene(1, size)[0])
    grainy = [np.clip(o.astype(int)+rng.integers(-4, 5, o.shape), 0, 255).astype(np.uint8) for o in shown]
    return [*grainy, rng.integers(0, 256, (size,size,3), np.uint8)]

def spread(detector, images, least=80):
    "Scale the last layers of random weights until boxes are found: scores as far as it takes, boxes as far as trained ones go"
    x = torch.stack([torch.from_numpy(o).permute(2, 0, 1).float()/255*4-2 for o in images])
    for norm in detector.modules():
        if isinstance(norm, nn.BatchNorm2d): norm.momentum = None                                       # the mean of all that it sees
    last = lambda names: [p for name,p in detector.stages.named_parameters() if names&{*name.split('.')} and p.dim()>1]
    with torch.no_grad():
        for _ in range(3): detector.train().run_stages(x)
        for p in last({'box','first','move','angle'}): p.mul_(4)
        for _ in range(40):
            counts = [len(found['boxes']) for found in detector.eval()(x)]
            if sum(counts)>=least*len(counts): break
            for p in last({'cls','quality_conv'}): p.mul_(1.6)
    return detector

def own_rounding(module, images, score_thr):
    "What float32 makes of a dense detector's boxes: largest distance of a corner from that in float64, px"
    twice,last,far = copy.deepcopy(module.detector).double(),module.detector.stages[-1],0.
    for image in images:
        x = module.normalised(torch.from_numpy(image).permute(2, 0, 1)[None])
        with torch.no_grad(): once,exact = module.detector.run_stages(x)[1],twice.run_stages(x.double())[1]
        at = last.scored(exact)[0][0].sigmoid().amax(-1)>score_thr
        if not at.any(): continue
        boxes = [last.coder.decode(out.priors[0][at].to(out.deltas.dtype), out.deltas[0][at]).double() for out in (once,exact)]
        far = max(far, (rbox2qbox(boxes[0])-rbox2qbox(boxes[1])).norm(dim=-1).max().item())
    return far

def row(name, images):
    "One detector's line"
    if name in BY_HAND: return scene_row(name)
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
    if not all(res[kind]['fits'] for kind in ('onnx','xml')) and len(detector.stages)==1: res['own'] = own_rounding(module, images, .05)
    return res

def table(rows):
    "As a page shows it"
    one = 'lost, new | corners, px | scores | time | flat: lost, new'
    print(f'| detector | boxes | ONNX Runtime: {one} | OpenVINO: {one} | MB |')
    print('|'+'---|'*13)
    for one in rows:
        if 'scenes' in one: continue
        if 'error' in one: print(f"| {one['detector']} | {one['error']} |")
        else:
            said = [f"{o['lost']}, {o['new']} | {o['corner']:.1g} | {o['score']:.1g} | {o['ratio']:.2f} | "
                    f"{o['flat']['lost']}, {o['flat']['new']}" for o in (one['onnx'], one['xml'])]
            own = f" (float32 alone: {one['own']:.1g} px)" if 'own' in one else ''
            print(f"| {one['detector']}{own} | {one['onnx']['n']} | {' | '.join(said)} | {one['mb']:.1f} |")
    print('\n| made by hand | scene | candidates | boxes | ONNX Runtime: lost, new, equal by a digit | OpenVINO |\n'+'|---'*6+'|')
    for one in rows:
        for scene,o in one.get('scenes', {}).items():
            said = [f"{o[kind]['lost']}, {o[kind]['new']}, {o[kind]['close']}" for kind in ('onnx','xml')]
            print(f"| {one['detector']} | {scene} | {o['candidates']} | {o['onnx']['n']} | {' | '.join(said)} |")

if __name__=='__main__':
    args = ArgumentParser()
    args.add_argument('names', nargs='*'); args.add_argument('--images'); args.add_argument('--json'); args.add_argument('--table')
    args = args.parse_args()
    if args.table: sys.exit(table(json.loads(Path(args.table).read_text())['rows']))
    done = json.loads(Path(args.json).read_text())['rows'] if args.json and Path(args.json).exists() else []
    images = images_of(args.images)
    for name in args.names or [*BY_HAND, *FULL, *(o for o in list_detectors() if o not in FULL and o not in OTHER_SIZES)]:
        if name in {one['detector'] for one in done}: continue
        done.append(row(name, images))
        print(done[-1], flush=True)
        if args.json: write_atomic(args.json, json.dumps(dict(rows=done, torch=torch.__version__, load=os.getloadavg()[0]), indent=1))
    table(done)
