"""Run notebooks and keep what they show, small enough for a repository: `python .ci/outputs.py nbs/tutorials/*.ipynb`.
Of lessons all is kept but warnings, which name files of this machine; of other notebooks the figures alone. Images become JPEG,
or PNG of 256 colours where that is smaller; SVG stays as it is, and that of the boxes notebook is README's, too."""
import base64, io, subprocess, sys
from pathlib import Path
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

def figure(out): return {k:v for k,v in out.get('data', {}).items() if k.startswith('image/')}

for f in sys.argv[1:]:
    subprocess.run(['nbdev-test', '--save', '--ignore-fname', 'none', f], check=True)    # lessons too, which it leaves to pytest
    nb = read_nb(f)
    for c in nb.cells:
        if 'outputs' not in c: continue
        outs = [kept(o) for o in c.outputs if o.get('name')!='stderr']
        if 'tutorials' in Path(f).parts: c.outputs = [o for o in outs if o.get('text')!='']
        else: c.outputs = [dict(data=figure(o), metadata={}, output_type='display_data') for o in outs if figure(o)]
    write_nb(nb, f)
    if Path(f).stem=='01_boxes':
        svg = next(o['data']['image/svg+xml'] for c in nb.cells for o in c.get('outputs', []) if 'image/svg+xml' in o.get('data', {}))
        Path('nbs/images/convention.svg').write_text(''.join(svg))
subprocess.run(['nbdev-clean'], check=True)
