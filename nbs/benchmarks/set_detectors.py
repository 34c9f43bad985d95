"""A set detector beside a dense one for the same processor seconds, from random weights, on the demo's scenes:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python set_detectors.py SECONDS [SEED ...] --json set_detectors.json`.
Both have one thread and a rate that goes by the seconds that are left (accuracy.py). The set detector has AdamW at a rate of its own, the
dense one the demo's recipe. A busy machine makes a step dearer: compare what ran side by side, and see `steps`."""
import argparse, json
from pathlib import Path
from rotnb.all import *
from rotnb.learn.history import versions
import accuracy                                        # after `rotnb.all`, where fastai's `accuracy` has this name

accuracy.WAYS.update(dense=accuracy.WAYS['now'], set=dict(model='rotated_rtdetr_tiny', opt='adamw', lr=1e-3, ema=True))

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('seconds', type=float)
    parser.add_argument('seeds', type=int, nargs='*', default=[0])
    parser.add_argument('--lr', type=float, default=1e-3, help='of the set detector')
    parser.add_argument('--json')
    args = parser.parse_args()
    accuracy.WAYS['set']['lr'] = args.lr
    torch.set_num_threads(1)
    rows = []
    for seed in args.seeds:
        for name in ('dense','set'):                                          # side by side: a machine's mood changes
            rows.append(accuracy.train(name, args.seconds, seed))
            print({key:value for key,value in rows[-1].items() if 'classes' not in key}, flush=True)
    table = pd.DataFrame(rows)
    print(table.groupby('name')[['steps','ms','mAP50','mAP50_95']].mean().round(4).to_string())
    if args.json: Path(args.json).write_text(json.dumps(dict(rows=rows, versions=versions()), indent=1, default=str)+'\n')
