"""What labels are worth that a queue asks for, beside labels in random order:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python active.py --json active.json`; `--table` prints what is there.

Painted scenes of 128 px, a few of them labelled. A small detector is trained on these, asks for as many more, goes on with all that
are labelled, and so on; each round takes the same number of steps, however many labels there are. The ways share scenes, the first labels,
first weights and steps, and all are measured on the same other scenes after each round. `queue` is `worth_labelling` as it is by default,
with two views; `scores` is the same without its look at the images; `mistakes` goes by expected mistakes in place of disagreement. Rows
are written one by one, and a run that is there is not done again. A way takes some 140 processor seconds for a seed."""
import argparse, json, sys, time, warnings
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.explore.active import worth_labelling
from rotnb.learn.history import versions
from rotnb.predict.sources import user_cache

WAYS = dict(random=None, queue={}, scores=dict(diverse=False), mistakes=dict(by='mistakes'))

class TrainOnly(Callback):
    "Not validated in training"
    def before_validate(self): raise CancelValidException

def loaders(labelled, valid, args, vocab):
    "As many images as the steps of a round take"
    rows = (labelled*(args.steps*args.bs//len(labelled)+1))[:args.steps*args.bs]
    return RotatedDataLoaders.from_annots(rows, valid, vocab, size=128, bs=args.bs, num_workers=0,
                                          batch_tfms=rotated_aug_transforms(**recipe['aug']))

def chosen(way, learn, labelled, rest, n, rng):
    "Which of the images without labels are labelled next"
    if WAYS[way] is None: return [rest[i] for i in rng.permutation(len(rest))[:n]]
    by_file = {str(annot.image):annot for annot in rest}
    queue = worth_labelling(learn, [*by_file], n, views='hflip', progress=False, labelled=[annot.image for annot in labelled], **WAYS[way])
    return [by_file[file] for file in queue.file]

def trained(way, seed, args):
    "Figures after each round"
    data = make_synth(user_cache()/f'active/{seed}', n_train=args.pool, n_valid=args.valid, size=128, seed=1000+seed, workers=1)
    pool,valid = (read_format(data, split) for split in ('train','val'))
    vocab = sorted({name for annot in pool for name in annot.names})
    valid = [annot for annot in valid if {*annot.names}<={*vocab}]
    set_seed(seed)
    rng,start,rounds,learn = np.random.default_rng(seed),time.process_time(),[],None
    first = rng.permutation(len(pool))[:args.first].tolist()
    labelled,rest = [pool[i] for i in first],[annot for i,annot in enumerate(pool) if i not in first]
    for nth in range(args.rounds+1):
        if nth:
            new = chosen(way, learn, labelled, rest, args.more, rng)
            labelled,rest = labelled+new,[annot for annot in rest if annot not in new]
        dls = loaders(labelled, valid, args, vocab)
        if learn is None: learn = rotated_learner(dls, recipe['model'], pretrained=False, metrics=[], run=False,
                                                  opt_func=optimizer(recipe['opt']), **recipe['learner'])
        learn.dls = dls
        learn.unfreeze()
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, recipe['lr'], cbs=TrainOnly())
        with learn.no_bar(): found = learn.evaluate(show=False)
        rounds.append(dict(images=len(labelled), boxes=sum(map(len, labelled)), mAP50=round(found.map50, 4), mAP50_95=round(found.map, 4)))
        print(way, seed, rounds[-1], flush=True)
    return dict(way=way, seed=seed, seconds=round(time.process_time()-start, 1), rounds=rounds)

def table(file):
    "mAP50 by way and number of labelled images: the mean of the seeds, and the boxes that were labelled"
    rows = json.loads(Path(file).read_text())['rows']
    every = pd.DataFrame([dict(way=row['way'], seed=row['seed'], **one) for row in rows for one in row['rounds']])
    by = every.groupby(['way','images'])
    return by[['mAP50','mAP50_95','boxes']].mean().round(3).join(by.size().rename('seeds'))

def main(args):
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    file,settings = Path(args.json),{name:getattr(args, name) for name in 'pool valid first more rounds steps bs'.split()}
    rows = json.loads(file.read_text())['rows'] if file.exists() else []
    for seed,way in ((seed,way) for seed in args.seeds for way in args.ways):
        if any((row['way'],row['seed'])==(way,seed) for row in rows): continue
        rows.append(trained(way, seed, args))
        file.write_text(json.dumps(dict(settings=settings, rows=rows, versions=versions()), indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    numbers = dict(pool=(120,'images that may be labelled'), valid=(40,'images to measure on'), first=(8,'images labelled at first'),
                   more=(8,'images labelled in each round'), rounds=(3,'rounds of labelling'), steps=(45,'steps of each round'),
                   bs=(8,'images in a step'))
    for name,(value,text) in numbers.items(): p.add_argument(f'--{name}', type=int, default=value, help=f'{text} ({value})')
    p.add_argument('--seeds', type=int, nargs='+', default=[0,1,2], help='a training of each way for each (0 1 2)')
    p.add_argument('--ways', nargs='+', choices=[*WAYS], default=['random','queue'], help=f"of {', '.join(WAYS)} (random queue)")
    p.add_argument('--json', default='active.json', help='file to write, and to go on with')
    p.add_argument('--table', action='store_true', help='print what the file holds')
    args = p.parse_args()
    if args.table: sys.exit(print(table(args.json).to_string()))
    main(args)
