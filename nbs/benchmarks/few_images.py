"""What the recipe `few_images` gains over `fine_tune`, on fifty windows of real pictures:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python few_images.py --data SSDD --json few_images.json`.

SSDD's ships in radar pictures, cut to windows of 128 px that show one at least. The package's own weights, which know painted scenes
alone, are trained on with fifty windows for the same number of steps, once by fastai's `fine_tune`, once by the recipe. Pairs share
windows and seed; all are measured on the same windows of the test set. Rows are written one by one, and a run that is there is not
done again."""
import argparse, json, time, warnings
from pathlib import Path
from rotnb.all import *
from rotnb.data.labels.tiles import tile_annots
from rotnb.learn.history import versions

class TrainOnly(Callback):
    "Validated once, at the end"
    def before_validate(self): raise CancelValidException

def windows(annots, n, seed, size=128):
    "Some windows of some pictures, one of each picture at most on average"
    rng = np.random.default_rng(seed)
    tiles = tile_annots([annots[i] for i in rng.permutation(len(annots))[:n]], size=size, overlap=0, empty='drop')
    return [tiles[i] for i in rng.permutation(len(tiles))[:n]]

def trained(way, seed, train, valid, args):
    "Figures of one training"
    set_seed(seed)
    dls = RotatedDataLoaders.from_annots(windows(train, args.few, seed), valid, ['ship'], size=128, bs=4)
    learn = rotated_learner(dls, weights=args.weights, run=False, metrics=[], cbs=TrainOnly())
    start = time.process_time()
    with learn.no_bar(), learn.no_logging():
        if way=='fine_tune': learn.fine_tune(args.epochs-1)                      # an epoch of it is with the backbone frozen
        else: learn.fit_recipe(way, epochs=args.epochs)
    seconds = time.process_time()-start
    learn.remove_cb(TrainOnly)
    learn.metrics = [RotatedMAP(), RotatedMAP('coco')]
    with learn.no_bar(), learn.no_logging(): _,map50,map = learn.validate()
    return dict(way=way, seed=seed, seconds=round(seconds, 1), mAP50=round(float(map50), 4), mAP50_95=round(float(map), 4))

def rows_of(args, cases, row, settings):
    "Figures of each case, written one by one; those of an earlier run stay"
    warnings.filterwarnings('ignore')
    file = Path(args.json)
    rows = json.loads(file.read_text())['rows'] if file.exists() else []
    train,test = (read_format(args.data, split) for split in ('train','test'))
    valid = windows(test, args.valid, 1)
    settings = {name:getattr(args, name) for name in settings} | dict(bs=4, size=128)
    for case in cases:
        if any(case.items()<=old.items() for old in rows): continue
        rows.append(row(**case, train=train, valid=valid, args=args))
        print(rows[-1], flush=True)
        file.write_text(json.dumps(dict(settings=settings, rows=rows, versions=versions()), indent=1)+'\n')

def arguments(doc, **defaults):
    "A parser of what both scripts ask for; defaults are given by name, with their help"
    p = argparse.ArgumentParser(description=doc)
    p.add_argument('--data', required=True, help='folder of SSDD')
    p.add_argument('--weights', default='rotated_fcos_tiny_synth', help='trained ones to start from')
    common = dict(few=(50,'windows to train on'), epochs=(13,'epochs of each'))
    for name,(value,text) in (common|defaults).items():
        p.add_argument(f'--{name}', type=type(value), default=value, help=f'{text} ({value})')
    return p

if __name__=='__main__':
    p = arguments(__doc__, valid=(150,'windows to measure on'))
    p.add_argument('--seeds', type=int, nargs='+', default=[0,1,2], help='a pair for each')
    p.add_argument('--json', default='few_images.json', help='file to write, and to go on with')
    args = p.parse_args()
    cases = [dict(way=way, seed=seed) for seed in args.seeds for way in ('fine_tune','few_images')]
    rows_of(args, cases, trained, ('few','epochs','valid','weights'))
