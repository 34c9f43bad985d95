"""What is learnt from upright labels alone, measured by oriented ones, beside the same training with oriented labels:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python h2rbox.py [EPOCHS] [--json FILE]`. Small on purpose: scenes of harbours, whose objects
are long and thin, and one narrow network from nothing."""
import argparse, json, tempfile, time
from rotnb.all import *
from rotnb.data.labels.subsets import upright_annots
from rotnb.data.synth.layouts import harbour
from rotnb.learn.history import versions

VOCAB = ['harbor','large-vehicle','ship']
SMALL = dict(backbone='test_resnet', fpn_channels=48, fpn_norm=True, strides=(8,16), feat_channels=48, stacked_convs=2, range_factor=6)
COSINES = dict(coder=DistanceAngleCoder('le90', 'exp', PSCAngle()), scale_angle=None)
FCOS = dict(COSINES, loss_angle=box_loss('l1', weight=.2))
RUNS = {'rotated_fcos, oriented labels':('rotated_fcos', False, FCOS), 'rotated_fcos, upright labels':('rotated_fcos', True, FCOS),
        'h2rbox, upright labels':('h2rbox', True, dict(coder=DistanceAngleCoder('le90', 'exp'))),
        'h2rbox_v2, upright labels':('h2rbox_v2', True, COSINES)}

def scenes(folder, seeds, size):
    "Records of painted harbours"
    res = []
    for seed in seeds:
        pixels,quads,names,difficult = make_scene(seed, size, harbour)
        PILImage.create(pixels).save(file := folder/f'{seed}.png')
        keep = [i for i,name in enumerate(names) if name in VOCAB]
        res.append(Annot(file, quads[keep], [names[i] for i in keep], difficult[keep].astype(int)))
    return res

class TrainOnly(Callback):
    "Validated once, at the end"
    def before_validate(self): raise CancelValidException

def run(name, epochs, train, valid, seed=0):
    arch,upright,own = RUNS[name]
    set_seed(seed)
    symmetries = rotated_aug_transforms(max_rotate=0, min_zoom=1, max_zoom=1, max_lighting=0)
    dls = RotatedDataLoaders.from_annots(upright_annots(train) if upright else train, valid, VOCAB, bs=4, batch_tfms=symmetries,
                                         num_workers=0, cache='memory')
    learn = rotated_learner(dls, arch, pretrained=False, metrics=[], wd=.05, run=False, **{**SMALL, **own})
    start = time.process_time()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 4e-3, pct_start=.2, div=10, cbs=[TrainOnly(), GradientClip(10.)])
        spent = time.process_time()-start
        learn.metrics = [RotatedMAP(), RotatedMAP('coco'), AngleError()]
        _,m50,m,angle = learn.validate()
    return dict(run=name, mAP50=m50, mAP=m, angle_error=angle, seconds=spent, epochs=epochs, scenes=len(train), seed=seed)

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('epochs', type=int, nargs='?', default=20)
    parser.add_argument('--runs', default='', help='part of the names of those to run')
    parser.add_argument('--n', type=int, default=160, help='scenes to train on')
    parser.add_argument('--json', help='file of the results')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        train,valid = (scenes(Path(folder), seeds, 128) for seeds in (range(args.n), range(10_000, 10_060)))
        rows = []
        for name in RUNS:
            if args.runs not in name: continue
            rows.append(run(name, args.epochs, train, valid))
            print(rows[-1], flush=True)
    if args.json: Path(args.json).write_text(json.dumps(dict(rows=rows, versions=versions()), indent=1)+'\n')
