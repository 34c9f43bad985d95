#!/usr/bin/env bash
# fasttransform 0.0.5 (under fastai 2.8): a Transform of a `functools.partial`, or of an object with `__call__`, cannot be pickled, though
# the partial can, and a Transform of the same function without arguments can too.
#
# A good guess: what can be pickled by itself can be pickled inside a Transform, as it could in fastcore 1.7, where Transform came from.
# fastai hands callables to Transform everywhere (`get_items`, `get_y`, `item_tfms` of a DataBlock), and `Learner.export` pickles them.
# What happens: plum wants a `__name__`, which a partial has not; the constructor wraps it in a function defined inside itself, and pickle
# finds no such name in the module. `DataBlock(get_y=partial(read_boxes, root=...))` trains, and `learn.export()` fails at the end of the
# training. (It warns of nothing on making. A lambda would fail in both, which everybody knows; a partial is the remedy for it.)
# Way out: a function of a module, or a Transform subclass whose `encodes` calls what it holds.
# Seen on Linux, Python 3.11.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cat > "$dir/readers.py" <<'PY'
try: from fasttransform import Transform
except ImportError: from fastcore.transform import Transform

def read_boxes(name, root=''): return f'{root}/{name}.txt'

class Reader:
    def __init__(self, root): self.root = root
    def __call__(self, name): return read_boxes(name, self.root)

class Reads(Transform):
    def __init__(self, f): self.f = f
    def encodes(self, name): return self.f(name)
PY
cat > "$dir/keep.py" <<'PY'
import pickle
from functools import partial
from readers import Reader, Reads, Transform, read_boxes

def kept(o):
    try: return pickle.loads(pickle.dumps(o))('p1')
    except Exception as e: return type(e).__name__

part,obj = partial(read_boxes, root='labels'),Reader('labels')
rows = dict(partial=kept(part), object=kept(obj), **{'Transform(function)':kept(Transform(read_boxes)),
            'Transform(partial)':kept(Transform(part)), 'Transform(object)':kept(Transform(obj)),
            'subclass that holds the partial':kept(Reads(part))})
for name,res in rows.items(): print(f'{name:34} {res}')
assert Transform(part)('p1')==Transform(obj)('p1')=='labels/p1.txt'
assert rows['partial']==rows['object']==rows['subclass that holds the partial']=='labels/p1.txt' and rows['Transform(function)']=='/p1.txt'
lost = [rows[name] in ('AttributeError','PicklingError') for name in ('Transform(partial)','Transform(object)')]
assert all(lost) if Transform.__module__.startswith('fasttransform') else not any(lost), 'the finding is out of date'
PY
for what in 'before fastcore==1.7.29' 'now fasttransform==0.0.5 fastcore==2.2.41 plum-dispatch==2.9.0'; do
  set -- $what
  python3 -m venv "$dir/$1"
  "$dir/$1/bin/pip" install -q "${@:2}" numpy==2.4.6
  echo "$what"
  (cd "$dir" && "$dir/$1/bin/python" keep.py)
done
