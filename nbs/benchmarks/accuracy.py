"""Accuracy for processor time: the demo's scenes, one thread, and a rate that goes by the processor seconds that are left:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python accuracy.py NAME SECONDS [SEED ...]`, NAME one of `WAYS`; appends to accuracy_cpu.jsonl.
A busy machine makes a step dearer: compare what ran side by side, or by `steps`. `python accuracy.py --table` prints what is there."""
import json, math, sys, time
from pathlib import Path
from rotnb.all import *
from rotnb.cli.demo_run import demo_loaders
from rotnb.cli.recipe import recipe

LOG = Path(__file__).with_name('accuracy_cpu.jsonl')
BEFORE = dict(model='rotated_fcos_tiny', opt='adamw', lr=3e-3, ema=False)
WAYS = dict(before=BEFORE, ema={**BEFORE, 'ema':True}, muon={**BEFORE, 'opt':'muon', 'lr':5e-3, 'ema':True},
            adamw=dict(model=recipe['model'], opt='adamw', lr=3e-3, ema=True),
            now=dict(model=recipe['model'], opt=recipe['opt'], lr=recipe['lr'], ema=True))
WARM = 4                                                                  # steps before the clock starts: numba compiles in them

class SecondsLeft(Callback):
    "One cycle over processor seconds instead of steps"
    order,run_valid = 95,False
    def __init__(self, seconds, lr): self.seconds,self.lr,self.n,self.start = seconds,lr,0,None
    def spent(self): return 0. if self.start is None else (time.process_time()-self.start)/self.seconds
    def before_batch(self):
        up,done = recipe['fit']['pct_start'],min(self.spent(), 1)
        low,at = (1/recipe['fit']['div'],done/up) if done<up else (1e-3,1-(done-up)/(1-up))
        self.opt.set_hypers(lr=self.lr*(low+(1-low)*(1-math.cos(math.pi*at))/2))
    def after_batch(self):
        self.n += 1
        if self.n==WARM: self.start = time.process_time()
        if self.spent()>=1: raise CancelFitException
    def before_validate(self): raise CancelValidException

class TrainOnly(Callback):
    "Validated once, at the end"
    def before_validate(self): raise CancelValidException

def trained(way, seconds, seed, dls=None, **kw):
    "A learner that has learnt for so many processor seconds, and its clock"
    set_seed(seed)
    dls = demo_loaders(workers=0) if dls is None else dls
    learn = rotated_learner(dls, way['model'], pretrained=False, metrics=[], run=False, opt_func=optimizer(way['opt']),
                            **recipe['learner'], **kw)
    learn.unfreeze()
    clock = SecondsLeft(seconds, way['lr'])
    cbs = [clock, TrainOnly(), FastSteps()] + [EMA(**recipe['ema'])]*way['ema']
    with learn.no_bar(), learn.no_logging(), learn.no_mbar(): learn.fit(10_000, way['lr'], cbs=cbs)
    return learn,clock

def train(name, seconds, seed):
    way = WAYS[name]
    learn,clock = trained(way, seconds, seed)
    learn.metrics = [RotatedMAP(), RotatedMAP('coco')]
    with learn.no_bar(), learn.no_logging(), learn.no_mbar(): learn.validate()
    voc,coco = (metric.compute().to_dict() for metric in learn.metrics)
    return dict(name=name, **way, seconds=seconds, seed=seed, steps=clock.n-WARM, ms=round(1e3*seconds/(clock.n-WARM), 1),
                mAP50=round(voc['map'], 4), mAP50_95=round(coco['map'], 4), params=sum(p.numel() for p in learn.model.parameters()),
                least=min((o['ap'],name) for name,o in voc['classes'].items()), classes=voc['classes'], classes_50_95=coco['classes'])

if __name__=='__main__':
    if '--table' in sys.argv:
        rows = pd.DataFrame([json.loads(line) for line in LOG.read_text().splitlines()])
        sys.exit(print(rows[['name','seconds','seed','steps','ms','mAP50','mAP50_95','least']].to_string(index=False)))
    torch.set_num_threads(1)
    for seed in map(int, sys.argv[3:] or [0]):
        row = train(sys.argv[1], float(sys.argv[2]), seed)
        print({key:value for key,value in row.items() if 'classes' not in key}, flush=True)
        with LOG.open('a') as f: f.write(json.dumps(row)+'\n')
