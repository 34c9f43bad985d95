"Small sets in every format"
import warnings
from pathlib import Path
import numpy as np
from PIL import Image
from rotnb.data.formats.table import FORMATS, read_format
from rotnb.data.labels.records import Annot, LabelWarning
from rotnb.geometry.boxes import rbox2qbox

Q = rbox2qbox(np.array([[20.,15,20,10,.3]]))
WRITTEN = [k for k,f in FORMATS.items() if f.write]

def folder(root, files):
    "Paths to text, bytes, or the size of an image"
    for k,v in files.items():
        f = Path(root)/k; f.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(v, tuple): Image.new('RGB', v).save(f, 'PNG')
        else: f.write_bytes(v if isinstance(v, bytes) else v.encode())
    return Path(root)

def read(root, *args, **kw):
    "Records, and the warnings"
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always'); res = read_format(root, *args, **kw)
    return res,'\n'.join(str(o.message) for o in w if issubclass(o.category, LabelWarning))

def written(root, name, names=('ship',), n=1):
    "A set of one image in a format"
    folder(root, {f'images/{i}.png':(40,30) for i in range(n)})
    annots = [Annot(root/f'images/{i}.png', np.repeat(Q, len(names), 0), list(names), np.zeros(len(names), int)) for i in range(n)]
    FORMATS[name].write(annots, root, '', list(dict.fromkeys(names)))
    return root
