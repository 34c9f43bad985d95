"Small sets of text labels"
from format_sets import folder

YOLO,DOTA = '0 .1 .1 .5 .1 .5 .5 .1 .5\n','10 10 30 10 30 20 10 20 ship 0\n'

def flat(root, n=6, labels='labels', line=YOLO, **more):
    "Images in one folder, labels in another"
    return folder(root, {**{f'images/{i}.png':(40,30) for i in range(n)}, **{f'{labels}/{i}.txt':line for i in range(n)}, **more})

def sides(dls): return [sorted(o.image.stem for o in ds.items) for ds in (dls.train_ds,dls.valid_ds)]
quick = dict(bs=2, num_workers=0, device='cpu')
