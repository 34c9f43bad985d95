"""Every family for the same processor time: the demo's scenes from random weights, one small backbone and neck for all (but where a
family has its own), each with the optimizer and rate that suit it:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python learning.py SECONDS [NAME ...] [--work FOLDER]`.
Writes learning/NAME.json as each ends, and the predictor to a folder that trained_files.py finds; those that are there are not run
again. `python learning.py --table` prints them. The rate goes by the processor seconds that are left (accuracy.py); a busy machine
makes a step dearer: see `steps`."""
import argparse, json, sys, tempfile
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.data.labels.atomic import atomic_path
from rotnb.learn.history import versions
from accuracy import WARM, trained

ROWS = Path(__file__).with_name('learning')
WORK = Path(tempfile.gettempdir())/'rotnb-trained'
# One width for all. Strides and stages are each family's own but for the finest level, which small objects need
SMALL = dict(backbone='test_resnet', fpn_channels=48, fpn_norm=True, strides=(4,8,16,32))
DENSE = dict(SMALL, feat_channels=48, stacked_convs=2)
REGION = dict(SMALL, fc_channels=256)
OWN = {**{name:{} for name in ('rotated_tal_tiny','rotated_fcos_tiny','yolov8_n','rotated_rtdetr_tiny')},
       'rotated_fcos':dict(DENSE, range_factor=6), 'rotated_atss':DENSE, 'rotated_reppoints':DENSE,
       # Without norms in their towers, as published, S2A-Net reached mAP50 0.089 and R3Det 0.002 in nine epochs:
       # they rely on pretrained weights
       **dict.fromkeys(['rotated_retinanet','s2anet','r3det'], dict(DENSE, norm=True)),
       'rtmdet_r_tiny':dict(backbone='test_resnet', fpn_channels=48, strides=(4,8,16,32)),
       **dict.fromkeys(['rotated_faster_rcnn','oriented_rcnn','roi_trans','gliding_vertex'], REGION)}
WAY = dict(opt=recipe['opt'], lr=recipe['lr'], ema=True)
# Queries rely on attention, which Muon was not tried on
WAYS = {'rotated_rtdetr_tiny':dict(opt='adamw', lr=1e-3, ema=True)}

def folder_of(name, seconds, work=WORK): return Path(work)/f'{name}-{seconds:g}'

def train(name, seconds, seed=0, work=WORK):
    "A row of figures; the predictor is saved"
    way = dict(model=name, **WAYS.get(name, WAY))
    row = dict(detector=name, settings={k:str(v) for k,v in OWN[name].items()}, **WAYS.get(name, WAY), seconds=seconds, seed=seed)
    try: learn,clock = trained(way, seconds, seed, **OWN[name])
    except NonFiniteLossError as e: return {**row, 'error':str(e)[:200]}
    learn.predictor().save(folder_of(name, seconds, work))
    losses = L(learn.recorder.values).itemgot(0)
    found = learn.evaluate(show=False)
    return {**row, 'params':sum(p.numel() for p in learn.model.parameters()), 'steps':clock.n-WARM,
            'mAP50':round(found.map50, 4), 'mAP50:95':round(found.map, 4), 'classes':found.df['AP50:95'].round(3).to_dict(),
            'loss':[losses[0],losses[-1]] if len(losses) else []}

def table(rows): return pd.DataFrame(rows)[['detector','params','steps','mAP50','mAP50:95']].sort_values('mAP50', ascending=False)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('seconds', nargs='?', type=float); p.add_argument('names', nargs='*'); p.add_argument('--work', default=WORK)
    p.add_argument('--table', action='store_true')
    a = p.parse_args()
    if a.table:
        rows = [json.loads(o.read_text()) for o in ROWS.glob('*.json')]
        sys.exit(print(table(rows).to_string(index=False, float_format='%.3f')))
    torch.set_num_threads(1)
    ROWS.mkdir(exist_ok=True)
    for name in a.names or OWN:
        file = ROWS/f'{name}.json'
        if file.exists(): continue
        row = train(name, a.seconds, work=a.work); print(row, flush=True)
        with atomic_path(file) as f: f.write_text(json.dumps({**row, 'versions':versions()}, indent=1))
