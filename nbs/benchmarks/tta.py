"""What several views gain on photographs: `OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python tta.py --data DOTA8 --json tta.json`.
A detector learns dota8's four training tiles, for `--seconds` of processor time by the demo's recipe, from weights that know painted
scenes; then these tiles, which it knows by heart, and the four that it has not seen are looked at in each set of views. Eight pictures
say whether something breaks, and not what views are worth."""
import argparse, json, time
from pathlib import Path
from rotnb.all import *
from rotnb.cli.recipe import recipe
from rotnb.data.labels.atomic import write_atomic
from accuracy import trained

SETS = {'one':None, 'hflip':dict(views='hflip'), 'flips':dict(views='flips'), 'turns':dict(views='turns'), 'all':dict(views='all'),
        'one, 1 and 1.5':dict(views='none', scales=(1.,1.5)), 'flips, 1 and 1.5':dict(views='flips', scales=(1.,1.5))}

def row(predictor, annots):
    "Average precision of some pictures, and processor seconds for each"
    start = time.process_time()
    acc = predictor.accumulate(annots, progress=False)
    seconds = (time.process_time()-start)/len(annots)
    return {'mAP50':round(acc.compute().map, 4), 'mAP50:95':round(acc.compute(metric='coco').map, 4), 's':round(seconds, 3)}

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True, help='folder of dota8'); p.add_argument('--weights', default='rotated_fcos_tiny_synth')
    p.add_argument('--size', type=int, default=384); p.add_argument('--seconds', type=float, default=100); p.add_argument('--json')
    p.add_argument('--model', default='rotated_fcos_tiny')
    a = p.parse_args()
    torch.set_num_threads(1)
    dls = RotatedDataLoaders.from_yolo_obb(a.data, size=a.size, bs=4, num_workers=0, batch_tfms=rotated_aug_transforms(**recipe['aug']))
    way = dict(model=a.model, opt=recipe['opt'], lr=recipe['lr'], ema=False)
    learn,clock = trained(way, a.seconds, 0, dls, weights=a.weights)
    predictor,log = learn.predictor(),dict(steps=clock.n, size=a.size, weights=Path(a.weights).name, rows={})
    predictor(np.zeros((64,64,3), np.uint8))                            # numba compiles
    for name,how in SETS.items():
        seen = predictor.with_views(**how) if how else predictor
        log['rows'][name] = {kind:row(seen, list(items)) for kind,items in (('training',dls.train_ds.items),('unseen',dls.valid_ds.items))}
        print(name, log['rows'][name], flush=True)
    if a.json: write_atomic(a.json, json.dumps(log, indent=1)+'\n')
