"""What images without labels are worth: `OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python teacher.py --seeds 0 1 2 --json teacher.json`.

The demo's painted scenes, of 160 px, that a run is short. One in ten of the 400 training scenes has labels. The demo's detector learns by
the demo's recipe from these, once alone and once with `MeanTeacher` on the other 360, for the same number of steps on the same labelled
images. Of both the average of the weights is measured, which `EMA` keeps. Rows are written one by one, and a run that is there is not done
again; `--ways` and `--set` try other settings of `MeanTeacher`."""
import argparse, json, time, warnings
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.learn.history import versions

class TrainOnly(Callback):
    "Validated once, at the end"
    def before_validate(self): raise CancelValidException

def trained(way, seed, args):
    "Figures of one training"
    settings = json.loads(args.set)
    set_seed(seed)
    every = RotatedDataLoaders.from_synth(n_train=400, n_valid=80, size=args.size, num_workers=0)
    train,valid = (list(ds.items) for ds in (every.train_ds,every.valid_ds))
    labelled = subset_annots(train, args.fraction, seed)
    others = [record for record in train if not any(record is one for one in labelled)]
    set_seed(seed)
    dls = RotatedDataLoaders.from_annots(labelled, valid, list(every.vocab), bs=recipe['bs'], num_workers=0,
                                         batch_tfms=rotated_aug_transforms(**recipe['aug']))
    learn = rotated_learner(dls, recipe['model'], pretrained=False, metrics=[], opt_func=optimizer(recipe['opt']), run=False,
                            **recipe['learner'])
    learn.unfreeze()
    epochs = max(1, round(args.steps/len(dls.train)))
    cbs = [EMA(decay=.99, warmup=50), FastSteps(), TrainOnly()]
    if way!='supervised': cbs.append(MeanTeacher(others, **settings))
    start = time.process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, recipe['lr'], cbs=cbs, **recipe['fit'])
    seconds = time.process_time()-start
    learn.metrics = [RotatedMAP(), RotatedMAP('coco')]
    with learn.no_bar(), learn.no_logging(): _,map50,map = learn.validate()
    more = {} if way=='supervised' else dict(settings=settings, unlabelled=len(others))
    return dict(way=way, seed=seed, labelled=len(labelled), steps=epochs*len(dls.train), cpu_seconds=round(seconds, 1),
                mAP50=round(float(map50), 4), mAP50_95=round(float(map), 4), **more)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--seeds', type=int, nargs='+', default=[0,1,2], help='a pair for each')
    p.add_argument('--ways', nargs='+', default=['supervised','mean_teacher'], help='names of rows; all but "supervised" have a teacher')
    p.add_argument('--set', default='{}', help='settings of MeanTeacher in place of its own, as JSON')
    p.add_argument('--steps', type=int, default=900, help='on labelled images')
    p.add_argument('--fraction', type=float, default=.1, help='of the training images, those with labels')
    p.add_argument('--size', type=int, default=160, help='of a scene, px')
    p.add_argument('--json', default='teacher.json', help='file to write, and to go on with')
    args = p.parse_args()
    warnings.filterwarnings('ignore')
    file = Path(args.json)
    rows = json.loads(file.read_text())['rows'] if file.exists() else []
    for way,seed in ((way, seed) for seed in args.seeds for way in args.ways):
        if any((row['way'],row['seed'])==(way,seed) for row in rows): continue
        rows.append(trained(way, seed, args))
        print(rows[-1], flush=True)
        file.write_text(json.dumps(dict(fraction=args.fraction, size=args.size, rows=rows, versions=versions()), indent=1)+'\n')
