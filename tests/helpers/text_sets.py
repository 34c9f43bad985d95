"Small sets of text labels"
from pathlib import Path
from PIL import Image
from rotnb.data.labels.records import *
from rotnb.data.formats.table import *
from rotnb.data.formats.yolo import *

YOLO,DOTA = '0 .1 .1 .5 .1 .5 .5 .1 .5\n','10 10 30 10 30 20 10 20 ship 0\n'

def folder(root, files):
    "Paths to text, or to the size of an image"
    for k,v in files.items():
        f = Path(root)/k; f.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(v, tuple): Image.new('RGB', v).save(f, 'PNG')
        else: f.write_text(v, encoding='utf-8')
    return Path(root)

def flat(root, n=6, labels='labels', line=YOLO, **more):
    "Images in one folder, labels in another"
    return folder(root, {**{f'images/{i}.png':(40,30) for i in range(n)}, **{f'{labels}/{i}.txt':line for i in range(n)}, **more})

def sides(dls): return [sorted(o.image.stem for o in ds.items) for ds in (dls.train_ds,dls.valid_ds)]
quick = dict(bs=2, num_workers=0, device='cpu')
