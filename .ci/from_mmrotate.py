"""nbs/interop/from_mmrotate.md: each configuration of MMRotate, and what it is here. `python .ci/from_mmrotate.py` writes it."""
import gzip, json, sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))                                        # this checkout, whatever is installed
from rotnb.interop.mmconfig import settings_from_config
from rotnb.models.contract import settings

HEAD = """<!-- Made by .ci/from_mmrotate.py from the configurations: edit the script, not this page -->
# From MMRotate: every configuration

What each configuration of MMRotate 0.3.4 and 1.x (dev-1.x) is here: name of the detector, form of the angle, loss of boxes, coder of
angles where it is not the plain angle, backbone, and the name by which `load_weights` and `rotated_learner(dls, weights=)` find what was
published for it. `create_detector(**settings_from_config(text))` makes the very detector; 1.x's
`gwd/rotated-retinanet-rbox-le135_r50_fpn_gwd_1x_dota.py` is left out, as its `_base_` does not exist. Tools are in
[08_mmrotate](08_mmrotate.ipynb).

| configuration | detector | angle | boxes | angle coder | backbone | weights |
|---|---|---|---|---|---|---|
"""

def loss_of(kw):
    "Name of the loss of boxes"
    loss = settings(kw.get('loss_box') or kw.get('loss_points') or (kw.get('rois_kw') or [{}])[-1].get('loss_box'))
    if not isinstance(loss, dict): return str(loss or '').removesuffix('_loss')
    distance = loss.get('kwargs', {}).get('distance')
    return (distance or loss['func']).removesuffix('_loss')

def coder_of(kw):
    "Name of the coder of angles, if it codes"
    coder = kw.get('angle_coder') or getattr(kw.get('coder'), 'angle_coder', None)
    name = type(coder).__name__ if coder is not None else 'PlainAngle'
    return '' if name=='PlainAngle' else name.removesuffix('Angle')

def row(name, cfg, published):
    "A line of the table"
    kw,own = settings_from_config(cfg),Path(name).stem
    found = next((o['name'] for o in published if own in (o['name'], *o.get('also', ()))), '')
    quads = ", `box_type='quad'`" if kw.get('box_type')=='quad' else ''
    return (f"| `{name}` | `{kw['name']}`{quads} | {kw['angle']} | {loss_of(kw)} | {coder_of(kw)} | {kw['backbone']} | "
            f"{f'`{found}`' if found else ''} |")

def page():
    "The whole page"
    configs = json.loads(gzip.decompress((ROOT/'tests/interop/data/configs.json.gz').read_bytes()))
    published = json.loads((ROOT/'rotnb/weights/published.json').read_text(encoding='utf-8'))
    return HEAD+'\n'.join(row(name, cfg, published) for name,cfg in sorted(configs.items()))+'\n'

if __name__=='__main__': (ROOT/'nbs/interop/from_mmrotate.md').write_text(page(), encoding='utf-8')
