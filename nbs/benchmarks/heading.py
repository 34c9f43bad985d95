"""Headings for processor time: painted scenes, one thread, and a rate that goes by the processor seconds that are left:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python heading.py NAME SECONDS [SEED ...]`, NAME one of `WAYS`; appends to heading_cpu.jsonl.
Planes, ships and vehicles have a front there. Right is within 15 degrees, of what is found at IoU .5 in scenes that were held out."""
import json, sys
from pathlib import Path
from rotnb.all import *
from accuracy import SecondsLeft, TrainOnly, WARM
from rotnb.cli.recipe import recipe
from rotnb.data.border import rotated_aug_transforms

LOG = Path(__file__).with_name('heading_cpu.jsonl')
FRONTS = {name:360 for name in ('plane','ship','small-vehicle','large-vehicle')}
WAYS = dict(now=dict(arch=recipe['model'], lr=recipe['lr'], opt='muon'),            # from nothing, as the demo
            shipped=dict(weights='rotated_tal_tiny_synth', lr=4e-3, opt='muon'))    # the layer of headings alone is new

def scenes():
    kw = {key:recipe[key] for key in ('n_train','n_valid','size','bs')}
    return RotatedDataLoaders.from_synth(**kw, num_workers=0, batch_tfms=rotated_aug_transforms(**recipe['aug']), symmetry=FRONTS)

def train(name, seconds, seed):
    way = dict(WAYS[name])
    set_seed(seed)
    lr,opt = way.pop('lr'),way.pop('opt')
    learn = rotated_learner(scenes(), **way, pretrained=False, heading=True, opt_func=optimizer(opt), metrics=[], run=False,
                            **recipe['learner'])
    learn.unfreeze()
    clock = SecondsLeft(seconds, lr)
    with learn.no_bar(), learn.no_logging(), learn.no_mbar():
        learn.fit(10_000, lr, cbs=[clock, TrainOnly(), FastSteps(), EMA(**recipe['ema'])])
    found = learn.evaluate(show=False)
    return dict(name=name, **WAYS[name], seconds=seconds, seed=seed, steps=clock.n-WARM, mAP50=round(found.map50, 4),
                mAP50_95=round(found.map, 4), heading={key:round(value, 4) for key,value in found.df['heading'].dropna().items()})

if __name__=='__main__':
    torch.set_num_threads(1)
    for seed in map(int, sys.argv[3:] or [0]):
        row = train(sys.argv[1], float(sys.argv[2]), seed)
        print(row, flush=True)
        with LOG.open('a') as f: f.write(json.dumps(row)+'\n')
