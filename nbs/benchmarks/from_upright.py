"""What upright boxes teach for oriented ones: a dense, a two-stage and a set family, trained on painted scenes for equal processor
seconds, from nothing and from a detector of upright boxes that was trained on other scenes:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python from_upright.py SECONDS [SEED ...] --upright SECONDS --json from_upright.json`.
The upright training is not counted: it stands for weights that one finds, such as those of COCO. With `--whole` there is a third start,
which trains for both budgets from nothing, for those who would have to pay for it. Layers of classes are new in all. `--dry` tries all
of it in a few seconds. A busy machine makes a step dearer: compare what ran side by side, and see `steps`."""
import argparse, json
from functools import partial
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.data.border import rotated_aug_transforms
from rotnb.interop.rtdetr_files import SetNet, fill_set
from rotnb.interop.upright_files import UprightNet, fill_upright
from rotnb.learn.history import versions
import accuracy                                        # after `rotnb.all`, where fastai's `accuracy` has this name
from rotnb.targets.priors import AnchorPriors

NET = dict(backbone='test_resnet', strides=(4,8,16,32), fpn_channels=48, fpn_norm=True, feat_channels=48)
FAMILIES = dict(dense=('fcos','rotated_fcos',dict(NET, stacked_convs=2, conv_bias=False)),
                two_stage=('faster_rcnn','rotated_faster_rcnn',dict(NET, fc_channels=128,
                           rpn_kw=dict(priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None))),
                set=('rotated_rtdetr_tiny','rotated_rtdetr_tiny',{}))         # the same, asked for upright boxes first
WAY,RATES = dict(opt='adamw', lr=3e-3, ema=True),dict(rotated_rtdetr_tiny=1e-3)   # queries want a smaller rate

def scenes(seed, small):
    kw = dict(n_train=8, n_valid=4, size=128, bs=2) if small else {key:recipe[key] for key in ('n_train','n_valid','size','bs')}
    return RotatedDataLoaders.from_synth(**kw, seed=seed, num_workers=0, batch_tfms=rotated_aug_transforms(**recipe['aug']))

def own_names(weights, detector): return {key:([key],value) for key,value in weights.items()}

def start_of(first, name, options, oriented):
    "What fills a detector from a trained one of upright boxes"
    weights = first.model.state_dict()
    if name==oriented: return partial(fill_set, net=SetNet(name, options, len(first.dls.vocab), weights, [], 'rotnb'))
    return partial(fill_upright, net=UprightNet(name, options, len(first.dls.vocab), partial(own_names, weights), 'rotnb', (oriented,)))

def trained(name, options, angle, seconds, seed, dls, start=None):
    "A learner that has learnt for so many seconds, what it did not take from `start`, and its steps"
    set_seed(seed)
    detector = create_detector(name, len(dls.vocab), angle=angle, **options)
    said = '' if start is None else start(detector, classes=False)
    learn,clock = accuracy.trained(dict(WAY, model=detector, lr=RATES.get(name, WAY['lr'])), seconds, seed, dls)
    return learn,said,clock.n-accuracy.WARM

def compare(family, seconds, upright, seed, small, whole):
    name,oriented,options = FAMILIES[family]
    first,steps = trained(name, options, 'hbb', upright, seed, scenes(1000+seed, small))[::2]
    print(f'{name}: {steps} steps, of upright boxes mAP50 {first.evaluate(show=False).map50:.3f}', flush=True)
    dls = scenes(0, small)
    budgets = dict(nothing=seconds, upright=seconds) | (dict(whole=seconds+upright) if whole else {})
    for start,budget in budgets.items():
        learn,said,steps = trained(oriented, options, 'le90', budget, seed, dls,
                                     start_of(first, name, options, oriented) if start=='upright' else None)
        found = learn.evaluate(show=False)
        yield dict(family=family, start=start, seconds=budget, seed=seed, steps=steps, mAP50=round(found.map50, 4),
                   mAP50_95=round(found.map, 4), said=said)

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('seconds', type=float)
    parser.add_argument('seeds', type=int, nargs='*', default=[0])
    parser.add_argument('--upright', type=float, default=150, help='seconds of the upright training')
    parser.add_argument('--family', choices=FAMILIES, nargs='*', default=[*FAMILIES])
    parser.add_argument('--whole', action='store_true', help='a third start: from nothing, for both budgets')
    parser.add_argument('--dry', action='store_true', help='tiny scenes, and seconds that mean nothing')
    parser.add_argument('--json')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in args.seeds:
        for family in args.family:
            for row in compare(family, args.seconds, args.upright, seed, args.dry, args.whole):
                print(row, flush=True)
                rows.append(row)
    print(pd.DataFrame(rows).groupby(['family','start'])[['steps','mAP50','mAP50_95']].mean().round(4).to_string())
    if args.json: Path(args.json).write_text(json.dumps(dict(rows=rows, versions=versions()), indent=1, default=str)+'\n')
