"""What boxes that are fitted anew to the moved outlines teach, beside boxes moved by their corners:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python refit.py --json refit.json`; `--table refit.json` prints what is there.

Painted scenes of 160 px whose labels are outlines: boxes are the least ones around them, or the upright ones, in training and in
validation. The demo's detector, oriented or upright, learns them by the demo's recipe with the default transforms, which turn half of
the images by any angle, once with `refit=None` and once with it; the same seeds, first weights, images and steps. Rows are written one
by one, and a run that is there is not done again."""
import argparse, json, sys, time, warnings
from dataclasses import replace
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.learn.history import versions
from rotnb.predict.sources import user_cache

class TrainOnly(Callback):
    "Validated once, at the end"
    def before_validate(self): raise CancelValidException

def painted(seed, size, folder):
    "A record of a scene, with outlines; what hardly shows is not labelled"
    image,_,names,difficult,masks = make_scene(seed, size, masks=True)
    file,seen = folder/f'{seed}.png',np.flatnonzero(~difficult & masks.any((1,2)))
    if not file.exists(): Image.fromarray(image).save(file)
    boxes,_ = from_masks(masks[seen])
    return Annot(file, rbox2qbox(boxes), [names[i] for i in seen], np.zeros(len(seen), int), outlines=[mask_rings(masks[i]) for i in seen])

def scenes(args):
    "Records of training and validation, those without an object left out"
    folder = user_cache()/f'refit/{args.size}'
    folder.mkdir(parents=True, exist_ok=True)
    of = lambda first, n: [one for one in (painted(first+i, args.size, folder) for i in range(n)) if len(one)]
    return of(50_000, args.n_train),of(90_000, args.n_valid)

def around(annot):
    "The same with the upright boxes around its outlines"
    boxes = np.array([[*np.nanmin(outline, 0),*np.nanmax(outline, 0)] for outline in annot.outlines])
    return replace(annot, quads=hbox2qbox(boxes).reshape(-1,4,2))

def trained(form, refit, seed, sets, args):
    "Figures of one training"
    train,valid = sets if form=='oriented' else [[*map(around, some)] for some in sets]
    set_seed(seed)
    dls = RotatedDataLoaders.from_annots(train, valid, size=args.size, bs=recipe['bs'], num_workers=0, cut='clip',
                                         refit=form if refit else None)
    learn = rotated_learner(dls, recipe['model'], pretrained=False, metrics=[], opt_func=optimizer(recipe['opt']), run=False,
                            angle='le90' if form=='oriented' else 'hbb', **recipe['learner'])
    learn.unfreeze()
    epochs,start = max(1, round(args.steps/len(dls.train))),time.process_time()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, recipe['lr'], cbs=[EMA(**recipe['ema']), FastSteps(), TrainOnly()], **recipe['fit'])
    seconds = time.process_time()-start
    with learn.no_bar(): found = learn.evaluate(show=False)
    return dict(form=form, refit=refit, seed=seed, steps=epochs*len(dls.train), cpu_seconds=round(seconds, 1),
                mAP50=round(found.map50, 4), mAP50_95=round(found.map, 4))

def table(file):
    rows = pd.DataFrame(json.loads(Path(file).read_text())['rows'])
    return rows.pivot_table(index='form', columns='refit', values=['mAP50','mAP50_95'], aggfunc=['mean','min','max']).round(3)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--seeds', type=int, nargs='+', default=[0,1,2])
    p.add_argument('--forms', nargs='+', choices=['upright','oriented'], default=['upright','oriented'])
    for name,value in dict(steps=480, size=160, n_train=240, n_valid=80).items(): p.add_argument(f'--{name}', type=int, default=value)
    p.add_argument('--json', default='refit.json', help='file to write, and to go on with')
    p.add_argument('--table', action='store_true', help='print what the file holds')
    args = p.parse_args()
    if args.table: sys.exit(print(table(args.json).to_string()))
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    file,sets = Path(args.json),scenes(args)
    rows = json.loads(file.read_text())['rows'] if file.exists() else []
    for seed,form,refit in ((seed, form, refit) for seed in args.seeds for form in args.forms for refit in (False,True)):
        if any((row['form'],row['refit'],row['seed'])==(form,refit,seed) for row in rows): continue
        rows.append(trained(form, refit, seed, sets, args))
        print(rows[-1], flush=True)
        about = dict(size=args.size, n_train=len(sets[0]), n_valid=len(sets[1]), versions=versions())
        file.write_text(json.dumps(dict(about, rows=rows), indent=1)+'\n')
