"""Is the installed rotnb whole, its own, and light where it must be?

Run by the python of the environment to look at, from outside the repository: `python installed.py REPOSITORY`"""
import importlib, pkgutil, sys
from importlib.metadata import version
from pathlib import Path

import rotnb.geometry.boxes, rotnb.ops.iou, rotnb.models
assert 'fastai' not in sys.modules, 'geometry, ops or models import fastai'

src,home = Path(sys.argv[1]).resolve()/'rotnb',Path(rotnb.__file__).resolve().parent
assert home.is_relative_to(Path(sys.prefix).resolve()), f'rotnb comes from {home}, not from {sys.prefix}'
assert version('rotnb')==rotnb.__version__, f"installed as {version('rotnb')}, says {rotnb.__version__}"

def files(root): return {str(o.relative_to(root)) for o in root.rglob('*') if o.suffix in ('.py','.js','.css','.safetensors','.json')}
assert files(home)==files(src), f'installed and repository differ in {sorted(files(home)^files(src))}'

mods = [o.name for o in pkgutil.walk_packages(rotnb.__path__, 'rotnb.')]
for o in mods: importlib.import_module(o)
print(f'rotnb {rotnb.__version__} in {home}: all {len(mods)} modules import')
