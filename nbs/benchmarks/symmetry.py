"""What a detector gains that knows what the angle of a class means:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python symmetry.py --json symmetry.json`.

Painted scenes, where tanks are round and some halls nearly square. Pairs of trainings share scenes, seed, first weights and number of
steps; one is told `symmetry={'storage-tank':'round', 'building':90}`, the other nothing. Both are measured alike on the same scenes, which
are turned in training and stand as they are in validation. Rows are written one by one, and a run that is there is not done again."""
import argparse, json, time, warnings
from pathlib import Path
from rotnb.all import *
from rotnb.learn.history import versions

WAYS = dict(plain=None, symmetry={'storage-tank':'round', 'building':90})

class TrainOnly(Callback):
    "Validated once, at the end"
    def before_validate(self): raise CancelValidException

def trained(way, seed, args):
    "Figures of one training, by class"
    set_seed(seed)
    dls = RotatedDataLoaders.from_synth(args.data, args.train, args.valid, args.size, symmetry=WAYS[way], bs=args.bs)
    how = dict(weights=args.weights) if args.weights!='none' else dict(arch=args.arch, pretrained=False)
    learn = rotated_learner(dls, **how, run=False, metrics=[], cbs=TrainOnly())
    learn.unfreeze()
    start = time.process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(args.epochs, args.lr)
    seconds = time.process_time()-start
    learn.remove_cb(TrainOnly)
    found = learn.evaluate(symmetry=WAYS['symmetry'], show=False)
    own = {name:dict(AP50=round(row['AP50'], 4), AP50_95=round(row['AP50:95'], 4), angle_err=round(row['angle_err'], 2))
           for name,row in found.df.to_dict('index').items()}
    own = {name:{key:value for key,value in row.items() if value==value} for name,row in own.items()}
    return dict(way=way, seed=seed, seconds=round(seconds, 1), mAP50=round(found.map50, 4), mAP50_95=round(found.map, 4), classes=own)

def main(args):
    warnings.filterwarnings('ignore')
    file,keys = Path(args.json),('arch','weights','train','valid','size','bs','epochs','lr')
    rows = json.loads(file.read_text())['rows'] if file.exists() else []
    for seed in args.seeds:
        for way in WAYS:
            if any((row['way'],row['seed'])==(way,seed) for row in rows): continue
            rows.append(trained(way, seed, args))
            print({key:value for key,value in rows[-1].items() if key!='classes'}, flush=True)
            settings = {key:getattr(args, key) for key in keys}
            file.write_text(json.dumps(dict(settings=settings, rows=rows, versions=versions()), indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', default='symmetry_scenes', help='folder of the scenes, painted if absent')
    p.add_argument('--arch', default='rotated_fcos_tiny', help='detector, where it begins with nothing')
    p.add_argument('--weights', default='rotated_fcos_tiny_synth', help="trained ones to begin with, or 'none'")
    for name,value,text in (('train',60,'scenes to train on'), ('valid',60,'scenes to measure on'), ('size',320,'side of a scene, px'),
                            ('bs',4,'images in a batch'), ('epochs',8,'of both')):
        p.add_argument('--'+name, type=int, default=value, help=f'{text} ({value})')
    p.add_argument('--lr', type=float, default=1e-3, help='largest learning rate (0.001)')
    p.add_argument('--seeds', type=int, nargs='+', default=[0,1], help='a pair for each')
    p.add_argument('--json', default='symmetry.json', help='file to write, and to go on with')
    main(p.parse_args())
