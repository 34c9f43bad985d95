"""The lesson `tutorials/find_and_mend.ipynb` at another size, and two runs beside it: as many random images mended, and all of them.
`python find_and_mend.py [--n_train 240 --n_valid 60 --size 320 --epochs 18 --k 60 --seed 0] [--short] [--out FILE]`
runs the cells of the notebook, so there is one recipe."""
import argparse, json, tempfile, time
from pathlib import Path
import matplotlib; matplotlib.use('agg')
from rotnb.all import *
from rotnb.data.labels.atomic import atomic_path
from rotnb.learn.history import versions

LESSON = Path(__file__).parents[1]/'tutorials/find_and_mend.ipynb'

def cells(): # code that runs outside Jupyter
    code = [''.join(c['source']) for c in json.loads(LESSON.read_text())['cells'] if c['cell_type']=='code']
    return [o for o in code if not o.startswith('#| eval: false') and 'COLAB' not in o]

def lesson(at):
    "All variables of the lesson"
    ns = {}
    for o in cells():
        if o.startswith('at = '): o = f'at = {at!r}'
        exec(compile(o, str(LESSON), 'exec'), ns)
        plt.close('all')
    return ns

def mended(ns, to, images):
    "mAP50 of a training in which other images were mended"
    spoilt = ns['bad'].with_name(to); shutil.copytree(ns['bad'], spoilt)
    for bak in (spoilt/'.rotnb/backup').rglob('*.bak'): shutil.copy(bak, spoilt/bak.relative_to(spoilt/'.rotnb/backup').with_suffix(''))
    fixer = LabelFixer(spoilt, 'dota', 'train', ns['vocab'], queue=images, journal='journal')
    for i in range(len(fixer.items)): fixer.goto(i); ns['mend'](fixer, ns['truth'], ns['planted'])
    fixer.save()
    acc = RotatedInterpretation.from_learner(ns['train'](spoilt)).acc
    return dict(errors=ns['wrong_in'](images)[0], **told(ns['before'].acc, acc))

def told(a, b):
    d = compare_runs(a, b)
    return dict(mAP50=b.compute().map, mAP=b.compute(metric='coco').map, gain=d.map, interval=d.interval())

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    for k,v in dict(n_train=240, n_valid=60, size=320, epochs=18, k=60, seed=0).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--short', action='store_true', help='without the two runs beside it')
    p.add_argument('--out', type=Path, help='JSON to write')
    o = vars(p.parse_args()); short,out = o.pop('short'),o.pop('out')
    out,start = out and out.absolute(),time.perf_counter()
    os.chdir(tempfile.mkdtemp())
    ns = lesson(dict(o, lr=4e-3, kinds=('harbour','airport'), start=dict(arch='rotated_fcos_tiny', pretrained=False, wd=.05)))
    res = dict(settings=o, versions=versions(), labels=int(ns['n_boxes']), planted=len(ns['planted']),
               careless=len(ns['careless']), images=len(ns['truth']),
               queue=dict(images=len(ns['first']), careless=sum(i in ns['careless'] for i in ns['first']),
                          wrong=ns['n_first'], labels=ns['of_first']),
               spoilt=dict(mAP50=ns['before'].acc.compute().map, mAP=ns['before'].acc.compute(metric='coco').map),
               mended=told(ns['before'].acc, ns['after'].acc))
    def write(**kw):
        res.update(kw, seconds=round(time.perf_counter()-start))
        if out:
            with atomic_path(out) as f: f.write_text(json.dumps(res, indent=1)+'\n')
    write()
    if not short:
        write(all=mended(ns, 'all', sorted(ns['truth'])))
        drawn = np.random.default_rng(o['seed']+1).choice(sorted(ns['truth']), len(ns['first']), replace=False)
        write(random=mended(ns, 'random', drawn.tolist()))
    print(json.dumps(res, indent=1))
