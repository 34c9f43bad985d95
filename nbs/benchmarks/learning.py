"""Every family trained on the demo's scenes for the same processor seconds, each by the recipe that suits it:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python learning.py SECONDS [NAME ...]`, NAME one of `NETS`.
Appends to learning_cpu.jsonl as each ends and keeps the predictors, for trained_files.py; `python learning.py --table`
prints what is there. A busy machine makes a step dearer: compare what ran side by side, and see `steps`."""
import json, os, sys, tempfile
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.learn.history import versions
from accuracy import WARM, trained

LOG = Path(__file__).with_name('learning_cpu.jsonl')
WORK = Path(tempfile.gettempdir())/'rotnb-trained'
# One backbone and neck for all that have no tiny form of their own. Strides and stages are each family's own but for the finest level,
# which small objects need
SMALL = dict(backbone='test_resnet', fpn_channels=48, fpn_norm=True, strides=(4,8,16,32))
DENSE = dict(SMALL, feat_channels=48, stacked_convs=2)
TOWERS = dict(DENSE, norm=True)          # without norms, as published, these rely on pretrained weights
REGION = dict(SMALL, fc_channels=256)
QUERIES = dict.fromkeys(['rotated_rtdetr_tiny','rotated_deformable_detr_tiny','rotated_dino_tiny'], {})
NETS = {'rotated_tal_tiny':{}, 'rotated_fcos_tiny':{}, 'rotated_retinanet_tiny':{},
        'rotated_fcos':dict(DENSE, range_factor=6), 'rotated_atss':DENSE, 'rotated_gfl':DENSE, 'rotated_reppoints':DENSE,
        'rotated_retinanet':TOWERS, 's2anet':TOWERS, 'r3det':TOWERS,
        'rtmdet_r_tiny':dict(backbone='test_resnet', fpn_channels=48, strides=(4,8,16,32)),
        'yolov5_n':{}, 'yolov6_n':{}, 'yolov8_n':{}, 'yolox_nano':{}, 'ppyoloe_r_s':{},
        **dict.fromkeys(['rotated_faster_rcnn','oriented_rcnn','roi_trans','gliding_vertex'], REGION),
        **QUERIES}

def way(name):
    "Detector, optimizer and rate: AdamW for queries, the demo's recipe for the rest"
    opt,lr = ('adamw',1e-3) if name in QUERIES else (recipe['opt'],recipe['lr'])
    return dict(model=name, opt=opt, lr=lr, ema=True)

def net(name, seconds, work=WORK):
    "A trained predictor, from its folder where it was trained before"
    folder = Path(work)/f'{name}-{seconds:g}'
    if not folder.exists(): train(name, seconds, work)
    return load_weights(folder)

def train(name, seconds, work=WORK, seed=0):
    "A learner, whose predictor is kept, and how many steps it took"
    learn,clock = trained(way(name), seconds, seed, **NETS[name])
    learn.predictor().save(Path(work)/f'{name}-{seconds:g}')
    return learn,clock.n-WARM

def row(name, seconds, seed=0):
    "What one training came to"
    learn,steps = train(name, seconds, seed=seed)
    with learn.no_bar(): found = learn.evaluate(show=False)
    classes = {key:round(value, 3) for key,value in found.df['AP50'].drop('all').items()}
    return dict(detector=name, seconds=seconds, seed=seed, steps=steps, ms=round(1e3*seconds/steps), mAP50=round(found.map50, 4),
                mAP50_95=round(found.map, 4), params=sum(p.numel() for p in learn.model.parameters()), AP50=classes,
                way={key:o for key,o in way(name).items() if key!='model'}, settings={key:str(o) for key,o in NETS[name].items()})

def table(rows):
    return pd.DataFrame(rows)[['detector','params','seconds','steps','ms','mAP50','mAP50_95']].sort_values('mAP50_95', ascending=False)

if __name__=='__main__':
    if '--table' in sys.argv: sys.exit(print(table(map(json.loads, LOG.read_text().splitlines())).to_string(index=False)))
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', 1)))
    for name in sys.argv[2:] or NETS:
        one = row(name, float(sys.argv[1]))
        print(one, flush=True)
        with LOG.open('a') as f: f.write(json.dumps({**one, 'versions':versions()})+'\n')
