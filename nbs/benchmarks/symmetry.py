"""What a detector gains that knows what the angle of a class means:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python symmetry.py --json symmetry.json`; `--table` prints what is there, class by class.

The demo's scenes and recipe, but fewer epochs: two take about 150 processor seconds. Tanks are round there and some halls nearly square.
Pairs of trainings share scenes, seed, first weights and number of steps (a step costs the same both ways, and a busy machine does not
meddle with steps as it does with seconds); one is told `symmetry={'storage-tank':'round', 'building':90}`, the other nothing. Both are
measured alike on the same scenes. Rows are written one by one, and a run that is there is not done again."""
import argparse, json, sys, time, warnings
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.data.synth.scenes import SYNTH_SYMMETRY
from rotnb.learn.history import versions

WAYS = dict(plain=None, symmetry={name:SYNTH_SYMMETRY[name] for name in ('storage-tank','building')})

class TrainOnly(Callback):
    "Validated once, at the end"
    def before_validate(self): raise CancelValidException

def trained(way, seed, args):
    "Figures of one training, by class"
    set_seed(seed)
    dls = RotatedDataLoaders.from_synth(n_train=recipe['n_train'], n_valid=recipe['n_valid'], size=recipe['size'], bs=recipe['bs'],
        num_workers=0, batch_tfms=rotated_aug_transforms(**recipe['aug']), symmetry=WAYS[way])
    learn = rotated_learner(dls, recipe['model'], pretrained=False, metrics=[], run=False, opt_func=optimizer(recipe['opt']),
                            **recipe['learner'])
    learn.unfreeze()
    start = time.process_time()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(args.epochs, recipe['lr'], cbs=[TrainOnly(), FastSteps(), EMA(**recipe['ema'])], **recipe['fit'])
    seconds = time.process_time()-start
    found = learn.evaluate(symmetry=WAYS['symmetry'], show=False)
    own = {name:dict(AP50=round(row['AP50'], 4), AP50_95=round(row['AP50:95'], 4), angle_err=round(row['angle_err'], 2))
           for name,row in found.df.to_dict('index').items()}
    own = {name:{key:value for key,value in row.items() if value==value} for name,row in own.items()}
    return dict(way=way, seed=seed, seconds=round(seconds, 1), steps=args.epochs*len(dls.train), mAP50=round(found.map50, 4),
                mAP50_95=round(found.map, 4), classes=own)

def table(file):
    "Mean AP50:95 of the seeds by class and way, and what the symmetry changes, seed by seed"
    rows = json.loads(Path(file).read_text())['rows']
    own = pd.DataFrame([dict(way=row['way'], seed=row['seed'], cls=name, AP50_95=one['AP50_95'])
                        for row in rows for name,one in row['classes'].items()])
    by = own.pivot_table(index='cls', columns=['way','seed'], values='AP50_95')
    gain = (by['symmetry']-by['plain']).add_prefix('gain ')
    return pd.concat([own.pivot_table(index='cls', columns='way', values='AP50_95')[[*WAYS]],gain], axis=1).round(3)

def main(args):
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    file = Path(args.json)
    rows = json.loads(file.read_text())['rows'] if file.exists() else []
    for seed in args.seeds:
        for way in WAYS:
            if any((row['way'],row['seed'])==(way,seed) for row in rows): continue
            rows.append(trained(way, seed, args))
            print({key:value for key,value in rows[-1].items() if key!='classes'}, flush=True)
            settings = dict(epochs=args.epochs, recipe=recipe)
            file.write_text(json.dumps(dict(settings=settings, rows=rows, versions=versions()), indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--epochs', type=int, default=2, help='of both (2)')
    p.add_argument('--seeds', type=int, nargs='+', default=[0,1], help='a pair for each')
    p.add_argument('--json', default='symmetry.json', help='file to write, and to go on with')
    p.add_argument('--table', action='store_true', help='print what the file holds')
    args = p.parse_args()
    if args.table: sys.exit(print(table(args.json).to_string()))
    main(args)
