"Images a second of rotnb's loaders beside fastai's plain one, on the same files"
import argparse, os, random, tempfile, time
from statistics import median
from rotnb.all import *

def loaders(annots, size, bs, workers):
    "What is compared: name -> training loader"
    kw = dict(bs=bs, num_workers=workers, device='cpu', drop_last=True)
    fit = dict(method='pad', pad_mode='zeros')
    plain = lambda tfms: DataBlock(ImageBlock, get_x=lambda o: o.image, splitter=IndexSplitter(range(2)),
                                   item_tfms=Resize(size, **fit), batch_tfms=tfms).dataloaders(annots, **kw)
    ours = lambda items=(), batch=None, **o: RotatedDataLoaders.from_annots(annots[2:], annots[:2],
                                   item_tfms=[*items, Resize(size, **fit)], batch_tfms=batch, **kw, **o)
    turn,big = [RandomFlip(),RandomRotate(180, p=1.)],[RandomResize(size, (.5,2.)),RandomBoxCrop(size)]
    return {'fastai: images only, no augmentation': plain([]),
            'rotnb: with boxes, no augmentation': ours(batch=[]),
            'cache in memory': ours(batch=[], cache='memory'),
            'fastai: images only, aug_transforms': plain(aug_transforms(max_warp=0)),
            'rotnb: with boxes, rotated_aug_transforms': ours(),
            'flip and rotate one by one': ours([AffineChain(*turn)], []),
            'flip and rotate the batch': ours([], [AffineChain(*turn)]),
            'resize, crop': ours(big, []),
            'resize, crop in a chain': ours([AffineChain(*big)], []),
            'RandomHSV one by one': ours([RandomHSV()], []),
            'RandomHSV on the batch': ours([], [RandomHSV()]),
            'Mosaic': ours([Mosaic(size)], []),
            'Mosaic, cache in memory': ours([Mosaic(size)], [], cache='memory'),
            'CopyPaste, Mosaic, MixUpBoxes, cache in memory': ours([CopyPaste(), Mosaic(size), MixUpBoxes()], [], cache='memory')}

def epoch(dl, clock):
    t = clock()
    n = sum(len(b[0]) for b in dl)
    return n/(clock()-t)

def main():
    p = argparse.ArgumentParser(description=__doc__)
    for k,v in dict(n=64, size=512, bs=8, workers=0, runs=5).items(): p.add_argument(f'--{k}', type=int, default=v)
    a = p.parse_args()
    # processor time does not change with what else the machine does, but counts no workers
    clock,unit = (time.perf_counter,'second') if a.workers else (time.process_time,'second of processor time')
    with tempfile.TemporaryDirectory() as tmp:
        make_synth(tmp+'/s', n_train=a.n+2, n_valid=1, size=a.size)
        dls = loaders(read_dota(tmp+'/s', 'train'), a.size, a.bs, a.workers)
        seen = {k:[] for k in dls}
        for run in range(a.runs+1):                                        # the first fills caches and compiles
            for k in random.sample(list(dls), len(dls)): seen[k].append(epoch(dls[k].train, clock))
    print(f'Images a {unit}: {a.n} PNG files of {a.size} px, batches of {a.bs}, {a.workers} workers, '
          f'median of {a.runs} epochs taking turns, '
          f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}')
    for k,v in seen.items():
        if k.startswith('fastai'): base = median(v[1:])
        print(f'{k:50} {median(v[1:]):8.1f}   {median(v[1:])/base:5.2f} of fastai')

if __name__=='__main__': main()
