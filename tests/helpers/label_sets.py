"Small sets of labels written by hand: a folder, what is read of it, and the file after a box was edited"
import json, warnings
from pathlib import Path
import numpy as np
from PIL import Image
from rotnb.data.formats.table import read_format
from rotnb.data.labels.records import LabelWarning
from rotnb.data.mend.sources import label_sources
from rotnb.geometry.boxes import rbox2qbox

def quad(cx, cy, w, h, deg): return rbox2qbox(np.array([[cx,cy,w,h,np.deg2rad(deg)]]))[0]
def gap(a, b): return min(np.abs(np.roll(np.reshape(a, (4,2)), k, 0)-b).max() for k in range(4)) # whichever corner is first
WANT,NEW = quad(120, 90, 80, 30, 30),quad(150, 100, 60, 20, 75)

def folder(root, files, size_wh=(400,200)):
    "Paths to text, to what becomes JSON, or to None for an image"
    for name,content in files.items():
        file = Path(root)/name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None: Image.new('RGB', size_wh).save(file)
        else: file.write_text(content if isinstance(content, str) else json.dumps(content))
    return Path(root)

def read(root, *args, **kw):
    "Records, and what was said"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        annots = read_format(root, *args, **kw)
    return annots,'\n'.join(str(o.message) for o in said if issubclass(o.category, LabelWarning))

def coco(root, *entries):
    "A COCO set of one image"
    entries = [dict(dict(id=i, image_id=1, category_id=1, iscrowd=0), **entry) for i,entry in enumerate(entries, 1)]
    images,categories = [dict(id=1, file_name='a.png', width=400, height=200)],[dict(id=1, name='ship')]
    return folder(root, {'images/a.png':None, 'a.json':dict(images=images, categories=categories, annotations=entries)})

def mended(root, new, i=0, **kw):
    "The set's file after one box was given other corners"
    source = label_sources(root, **kw)[0]
    base = source.read()
    rows = [(row,k) for k,row in enumerate(base.rows)]
    rows[i] = (np.ravel(new).tolist(),*rows[i][0][1:]),i
    source.save(base, rows)
    return source.file
