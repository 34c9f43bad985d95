"A small set in any format, written"
import numpy as np
from PIL import Image
from rotnb.data.formats.table import FORMATS
from rotnb.data.labels.records import Annot
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.fit import with_heading

FORMS = [k for k,f in FORMATS.items() if k!='hrsid' and (f.write or k=='ucas_aod')]

BOXES = rbox2qbox(np.array([[40.,30,24,10,.4],[90,60,30,12,-.7],[120,25,16,8,1.2],[60,80,22,9,.1],[30,70,18,8,-1.1]]))

VOCAB = ['ship','car']

def write_ucas(annots, root):
    (root/'ship').mkdir()
    for a,(r,_) in ((a, with_heading(a.quads)) for a in annots):
        rows = ['\t'.join(f'{v:.4f}' for v in (*q.ravel(),np.rad2deg(b[4]),*b[:4])) for q,b in zip(a.quads, r)]
        (root/f'ship/{a.image.stem}.txt').write_text(''.join(o+'\n' for o in rows))

def good_set(root, name):
    "Three images, five labels"
    (root/'images').mkdir(parents=True); rng = np.random.default_rng(0)
    ims = [root/f'images/p{i}.png' for i in range(3)]
    for p in ims: Image.fromarray(rng.integers(0, 255, (100,150), dtype=np.uint8)).save(p)
    one = name in ('hrsc','hrsc_types','icdar','ucas_aod'); names = ['ship']*5 if one else ['ship','car','ship','ship','car']
    annots = [Annot(p, BOXES[a:b], names[a:b], np.zeros(b-a, int)) for p,(a,b) in zip(ims, ((0,3),(3,5),(5,5)))]
    if name=='ucas_aod': write_ucas(annots, root)
    else: FORMATS[name].write(annots, root, '', VOCAB, **(dict(border='keep') if FORMATS[name].clips else {}))
    return {p.relative_to(root).as_posix():p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}
