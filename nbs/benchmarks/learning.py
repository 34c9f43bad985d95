"""Every family trained on the demo's scenes by the demo's recipe, with one small backbone and neck for all:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python learning.py EPOCHS [NAME ...]`.
Writes learning/NAME.json as each ends; those that are there are not run again. `python learning.py --table` prints them."""
import json, sys, time
from pathlib import Path
from rotnb.all import *
from rotnb.cli.demo_run import demo_loaders
from rotnb.cli.recipe import recipe
from rotnb.data.labels.atomic import atomic_path
from rotnb.learn.history import versions

ROWS = Path(__file__).with_name('learning')
# One width for all. Strides and stages are each family's own but for the finest level, which small objects need
SMALL = dict(backbone='test_resnet', fpn_channels=48, fpn_norm=True, strides=(4,8,16,32))
DENSE = dict(SMALL, feat_channels=48, stacked_convs=2)
REGION = dict(SMALL, fc_channels=256)
OWN = {'rotated_fcos_tiny':{}, 'rotated_retinanet_tiny':{}, 'rotated_fcos':dict(DENSE, range_factor=6),
       'rotated_atss':DENSE, 'rotated_reppoints':DENSE,
       # Without norms in their towers, as published, S2A-Net reached mAP50 0.089 and R3Det 0.002 in nine epochs:
       # they rely on pretrained weights
       **dict.fromkeys(['rotated_retinanet','s2anet','r3det'], dict(DENSE, norm=True)),
       'rtmdet_r_tiny':dict(backbone='test_resnet', fpn_channels=48, strides=(4,8,16,32)),
       **dict.fromkeys(['rotated_faster_rcnn','oriented_rcnn','roi_trans','gliding_vertex'], REGION)}

def train(name, epochs, seed=0):
    set_seed(seed)
    dls = demo_loaders(None, None, recipe['bs'], recipe['n_train'], recipe['n_valid'], 0)
    learn = rotated_learner(dls, name, pretrained=False, metrics=[], opt_func=optimizer(recipe['opt']), **recipe['learner'], **OWN[name])
    learn.unfreeze()
    row = dict(detector=name, settings={k:str(v) for k,v in OWN[name].items()}, epochs=epochs, seed=seed, threads=torch.get_num_threads(),
               params=sum(p.numel() for p in learn.model.parameters()))
    class Clock(Callback):
        "Processor time in training batches alone: on one thread that of the clock, whatever else the machine does"
        run_valid = False
        order = 90
        def before_fit(self): self.times = []
        def before_train(self): self.t = time.process_time()
        def after_train(self): self.times.append(time.process_time()-self.t)
    class TrainOnly(Callback):
        "Validated once, at the end"
        def before_validate(self): raise CancelValidException
    clock = Clock()
    with learn.no_bar(), learn.no_logging(), learn.no_mbar():
        try: learn.fit_one_cycle(epochs, recipe['lr'], cbs=[clock, TrainOnly()], **recipe['fit'])
        except NonFiniteLossError as e: return {**row, 'error':str(e)[:200]}
        losses = L(learn.recorder.values).itemgot(0)
        learn.metrics = [RotatedMAP(), RotatedMAP('coco')]
        _,m50,m = learn.validate()
    return {**row, 'mAP50':m50, 'mAP50:95':m, 's_epoch':sorted(clock.times)[len(clock.times)//2], 'loss':[losses[0],losses[-1]]}

def table(rows): return pd.DataFrame(rows)[['detector','params','s_epoch','mAP50','mAP50:95']].sort_values('mAP50', ascending=False)

if __name__=='__main__':
    if '--table' in sys.argv:
        rows = [json.loads(o.read_text()) for o in ROWS.glob('*.json')]
        sys.exit(print(table(rows).to_string(index=False, float_format='%.3f')))
    ROWS.mkdir(exist_ok=True)
    for name in sys.argv[2:] or OWN:
        file = ROWS/f'{name}.json'
        if file.exists(): continue
        row = train(name, int(sys.argv[1])); print(row, flush=True)
        with atomic_path(file) as f: f.write_text(json.dumps({**row, 'versions':versions()}, indent=1))
