"""Headings for processor time: painted scenes, one thread, and a rate that goes by the processor seconds that are left:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python heading.py NAME SECONDS [SEED ...]`, NAME one of `WAYS`; appends to heading_cpu.jsonl.
Planes, ships and vehicles have a front there. Right is within 15 degrees, of what is found at IoU .5 in scenes that were held out."""
import json, math, sys
from pathlib import Path
from rotnb.all import *
from accuracy import SecondsLeft, TrainOnly, WARM
from rotnb.cli.recipe import recipe
from rotnb.data.border import rotated_aug_transforms

LOG = Path(__file__).with_name('heading_cpu.jsonl')
FRONTS = {name:360 for name in ('plane','ship','small-vehicle','large-vehicle')}
NOW = dict(arch=recipe['model'], lr=recipe['lr'], opt='muon')
WAYS = dict(now=NOW, without={**NOW, 'heading':False},                              # from nothing, as the demo
            shipped=dict(weights='rotated_tal_tiny_synth', lr=4e-3, opt='muon'))    # the layer of headings alone is new

def scenes():
    kw = {key:recipe[key] for key in ('n_train','n_valid','size','bs')}
    return RotatedDataLoaders.from_synth(**kw, num_workers=0, batch_tfms=rotated_aug_transforms(**recipe['aug']), symmetry=FRONTS)

class HeadingLoss(Callback):
    "The loss of headings by step; 1 where nothing is known"
    order,run_valid = 90,False
    def __init__(self): self.all = []
    def after_loss(self): self.all.append(float(self.pred['loss_heading'].detach()) if 'loss_heading' in self.pred else math.nan)
    def tenths(self): return [round(float(np.mean(part)), 3) for part in np.array_split(self.all, 10)]

def train(name, seconds, seed):
    way = {'heading':True, **WAYS[name]}
    set_seed(seed)
    lr,opt = way.pop('lr'),way.pop('opt')
    learn = rotated_learner(scenes(), **way, pretrained=False, opt_func=optimizer(opt), metrics=[], run=False, **recipe['learner'])
    learn.unfreeze()
    clock,losses = SecondsLeft(seconds, lr),HeadingLoss()
    with learn.no_bar(), learn.no_logging(), learn.no_mbar():
        learn.fit(10_000, lr, cbs=[clock, losses, TrainOnly(), FastSteps(), EMA(**recipe['ema'])])
    found = learn.evaluate(show=False)
    row = dict(name=name, **WAYS[name], seconds=seconds, seed=seed, steps=clock.n-WARM, mAP50=round(found.map50, 4),
               mAP50_95=round(found.map, 4), ap50={key:round(value, 4) for key,value in found.df['AP50'].items()})
    if not way['heading']: return row
    shares = found.df['heading'].dropna().items()
    return {**row, 'heading':{key:round(value, 4) for key,value in shares}, 'loss_heading':losses.tenths()}

if __name__=='__main__':
    torch.set_num_threads(1)
    for seed in map(int, sys.argv[3:] or [0]):
        row = train(sys.argv[1], float(sys.argv[2]), seed)
        print(row, flush=True)
        with LOG.open('a') as f: f.write(json.dumps(row)+'\n')
