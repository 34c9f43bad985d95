"""Run lessons and keep what they show, small enough for a repository: `python .ci/outputs.py nbs/tutorials/*.ipynb`.
Images become JPEG, or PNG of 256 colours where that is smaller; warnings, which name files of this machine, are left out."""
import base64, io, subprocess, sys
from fastcore.nbio import read_nb, write_nb
from PIL import Image

def small(png, side=1000):
    "`{mime type: base64}` of an image"
    im = Image.open(io.BytesIO(base64.b64decode(png)))
    if im.mode=='RGBA': im = Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im)
    im = im.convert('RGB'); im.thumbnail((side,2*side))
    def coded(im, **kw): f = io.BytesIO(); im.save(f, optimize=True, **kw); return f.getvalue()
    kinds = {'image/jpeg':coded(im, format='JPEG', quality=75), 'image/png':coded(im.quantize(256), format='PNG')}
    kind = min(kinds, key=lambda o: len(kinds[o]))
    return {kind:base64.b64encode(kinds[kind]).decode()}

def kept(out):
    if 'text' in out:                                                # what a terminal is left with when bars have run through
        lines = [o.split('\r')[-1].rstrip() for o in ''.join(out['text']).split('\n')]
        out['text'] = '\n'.join(o for o in lines if '█' not in o).strip('\n')
    data = out.get('data', {})
    for k in [k for k in data if 'widget' in k]: del data[k]
    if png := data.pop('image/png', None) or data.pop('image/jpeg', None):
        data.pop('image/jpeg', None)
        data.update(small(''.join(png)))
    return out

for f in sys.argv[1:]:
    subprocess.run(['nbdev-test', '--save', f], check=True)
    nb = read_nb(f)
    for c in nb.cells:
        if 'outputs' not in c: continue
        outs = [kept(o) for o in c.outputs if o.get('name')!='stderr']
        c.outputs = [o for o in outs if o.get('text')!='']
    write_nb(nb, f)
subprocess.run(['nbdev-clean'], check=True)
