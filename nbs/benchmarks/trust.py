"""Whether calibrated scores and conformal promises hold on scenes that had no part in them:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python trust.py --json trust.json`.

The weights that ship with the package look at three sets of painted scenes, each of another seed. Each set in turn is measured: scores
are calibrated, and margins and thresholds promised, by what was seen in the other two."""
import argparse, json, tempfile, warnings
from pathlib import Path
from rotnb.all import *
from rotnb.data.labels.atomic import write_atomic
from rotnb.learn.history import versions

def detections(predictor, folder, n, seed):
    "What the detector finds in new scenes, beside the truth"
    path = make_synth(Path(folder)/f'{seed}', n_train=1, n_valid=n, seed=seed, workers=1)
    return predictor.accumulate(read_dota(path, 'val'), progress=False)

def error(acc): # of all classes together, and the mean of those that have detections
    every = [calibration(acc, label=i).ece for i in range(len(acc.vocab))]
    return dict(ece=round(calibration(acc).ece, 4), ece_of_classes=round(float(np.nanmean(every)), 4))

def recall(acc, threshold):
    curves = pr_curves(acc)
    n = {name:curve.n_gt for name,curve in curves.items()}
    return sum(curve.at(threshold)['recall']*n[name] for name,curve in curves.items())/sum(n.values())

def measured(seen, new, args):
    "Figures of one seed"
    row = dict(raw=error(new), raw_AP=round(new.compute(metric='coco').map, 5))
    for method in ('isotonic','temperature'):
        calibrator = calibrate(seen, method=method)
        after = calibrator.judged(new)
        row[method] = error(after) | dict(AP=round(after.compute(metric='coco').map, 5), said=[round(ece, 4) for ece in calibrator.ece])
    row['covered'] = {}
    for coverage in args.coverage:
        table = conformal(seen, coverage=coverage, score_thr=args.score_thr).covered(new)
        row['covered'][coverage],row['found'] = round(float(table.covered['all']), 4),int(table.objects['all'])
    row['recall'] = {share:round(recall(new, threshold_for(seen, recall=share)), 4) for share in args.recall}
    return row

def main(args):
    warnings.filterwarnings('ignore')
    predictor,sets,rows = load_weights(args.weights),{},[]
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds: sets[seed] = detections(predictor, folder, args.scenes, seed)
    for seed,new in sets.items():
        seen = APAccumulator(vocab=predictor.vocab)
        for other in sets: seen = seen if other==seed else seen.merge(sets[other])
        rows.append(dict(seed=seed, **measured(seen, new, args)))
        print(rows[-1], flush=True)
    settings = dict(weights=args.weights, scenes=args.scenes, score_thr=args.score_thr)
    write_atomic(args.json, json.dumps(dict(settings=settings, rows=rows, versions=versions()), indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--weights', default='rotated_fcos_tiny_synth', help='trained ones')
    p.add_argument('--scenes', type=int, default=90, help='in each set (90)')
    p.add_argument('--seeds', type=int, nargs='+', default=[201,202,203], help='of the sets')
    p.add_argument('--coverage', type=float, nargs='+', default=[.8,.9,.95], help='that is promised')
    p.add_argument('--recall', type=float, nargs='+', default=[.7,.8], help='that is promised')
    p.add_argument('--score_thr', type=float, default=.3, help='of the boxes that bounds are put around')
    p.add_argument('--json', default='trust.json', help='file to write')
    main(p.parse_args())
