"""What trained weights are worth to somebody with few labelled images:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python finetune.py --jobs 4 --json finetune.json`.

A detector is trained on synthetic scenes and saved; its classes and its scenes' seeds are others than those below. On a few scenes with
classes of their own it is then trained on (`rotated_learner(dls, weights=file)`) and, beside it, from random weights: the same scenes,
epochs, learning rate and augmentation, all layers learning. Each pair has its own scenes and seed; all are measured on the same scenes."""
import argparse, json, tempfile, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.data.formats.dota import read_dota
from rotnb.data.synth.scenes import make_synth
from rotnb.learn.history import versions

FIRST = ['bridge','building','harbor','large-vehicle','storage-tank','swimming-pool']       # classes that are learnt before
THEN = ['court','plane','ship','small-vehicle']                                            # and those that are wanted

def of_classes(annots, classes): return [annot.keep([i for i,name in enumerate(annot.names) if name in classes]) for annot in annots]

def scenes(place, seed, n_train, n_valid, size, classes):
    "Synthetic scenes of a seed, with the labels of some classes"
    make_synth(place, n_train=n_train, n_valid=n_valid, size=size, seed=seed)
    return [of_classes(read_dota(place/part), classes) for part in ('train','val')]

def trained(train, valid, classes, epochs, seed, weights=None):
    "A learner after its training"
    set_seed(seed)
    tfms = rotated_aug_transforms(**recipe['aug'])
    dls = RotatedDataLoaders.from_annots(train, valid, classes, bs=recipe['bs'], num_workers=0, batch_tfms=tfms)
    kw = dict(weights=weights) if weights else dict(arch=recipe['model'], pretrained=False)
    learn = rotated_learner(dls, metrics=[], run=False, opt_func=optimizer(recipe['opt']), **recipe['learner'], **kw)
    learn.unfreeze()
    class TrainOnly(Callback):
        "Validated once, at the end"
        def before_validate(self): raise CancelValidException
    with learn.no_bar(), learn.no_logging(), learn.no_mbar(): learn.fit_one_cycle(epochs, recipe['lr'], cbs=TrainOnly(), **recipe['fit'])
    return learn

def measured(learn):
    learn.metrics = [RotatedMAP(), RotatedMAP('coco')]
    with learn.no_bar(), learn.no_logging(): _,map50,map = learn.validate()
    return dict(mAP50=map50, mAP50_95=map)

def interval(values): # 95 % of the mean by Student's t
    "Mean, and how far it may be off"
    from scipy.stats import t
    values = np.array(values)
    return values.mean(), t.ppf(.975, len(values)-1)*values.std(ddof=1)/len(values)**.5

def pair(seed, place, weights, args):
    "Both trainings on the scenes of a seed, measured"
    train,_ = scenes(place/f'few{seed}', 200+seed, args.few, 1, args.size, THEN)
    rows,valid = [],of_classes(read_dota(place/'valid/val'), THEN)
    for kind,start_from in (('from random weights',None), ('from trained weights',weights)):
        began = time.process_time()
        learn = trained(train, valid, THEN, args.epochs, seed, start_from)
        seconds = time.process_time()-began
        rows.append(dict(kind=kind, seed=seed, boxes=sum(len(annot.names) for annot in train), seconds=round(seconds, 1),
                         **{key:round(float(value), 4) for key,value in measured(learn).items()}))
        print(rows[-1], flush=True)
    return rows

def main(args):
    start,tmp = time.process_time(),tempfile.TemporaryDirectory()
    place = Path(tmp.name)
    weights = args.weights and Path(args.weights).absolute()
    if weights is None:
        train,valid = scenes(place/'first', 100, args.first, 4, args.size, FIRST)
        weights = trained(train, valid, FIRST, args.first_epochs, 0).save_weights(args.keep or place/'first')
    before = time.process_time()-start
    scenes(place/'valid', 7, 1, args.valid, args.size, THEN)
    with ProcessPoolExecutor(args.jobs, get_context('spawn')) as pool:
        rows = [row for job in [pool.submit(pair, seed, place, weights, args) for seed in range(args.runs)] for row in job.result()]
    table = pd.DataFrame(rows)
    gains = {key:interval([b-a for a,b in zip(table[key][::2], table[key][1::2])]) for key in ('mAP50','mAP50_95')}
    text = {key:f'{mean:+.3f} +- {off:.3f}' for key,(mean,off) in gains.items()}
    means = {kind:{key:round(group[key].mean(), 4) for key in gains} for kind,group in table.groupby('kind')}
    print(json.dumps(means, indent=1), 'gain, 95 % of the mean of pairs:', text)
    note = dict(settings={key:value for key,value in vars(args).items() if key not in ('weights','keep','json')}, classes_before=FIRST,
                classes=THEN, seconds_before=round(before, 1), rows=rows, means=means,
                gain={key:dict(mean=round(mean, 4), off=round(off, 4)) for key,(mean,off) in gains.items()}, versions=versions())
    if args.json: Path(args.json).write_text(json.dumps(note, indent=1)+'\n')
    tmp.cleanup()

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    for name,value,text in (('first',160,'scenes to train on before'), ('first_epochs',12,'epochs of it'), ('few',16,'labelled scenes'),
                            ('epochs',15,'epochs on them'), ('valid',40,'scenes to measure on'), ('runs',4,'pairs'),
                            ('size',256,'side of a scene, px'), ('jobs',1,'processes')):
        p.add_argument('--'+name.replace('_', '-'), type=int, default=value, help=f'{text} ({value})')
    p.add_argument('--keep', help='file for the weights trained before')
    p.add_argument('--weights', help='such a file, in place of that training')
    p.add_argument('--json', help='file to write')
    main(p.parse_args())
