#!/usr/bin/env bash
# onnxscript 0.7.2, whose rules `torch.onnx.export` applies to every model: two Clips in a row become one, which is another function where
# their ranges do not overlap, and an invalid file where one tensor is clipped in two ways.
#
# A good guess: an optimizer keeps what a model computes; a rule that cannot, like this one for ranges apart, does not apply.
# What happens: the fused Clip has the larger of the minima and the smaller of the maxima. `x.clamp(max=3).clamp(min=5)`, which is 5
# everywhere, is 3 everywhere in the file, and `x.clamp(-5, -1).relu()` is -1 in place of 0: no error, no warning. And the new limits are
# named after the tensor that is clipped: of `x.clamp(min=0).clamp(max=w)` beside `x.clamp(min=0).clamp(max=h)`, as borders of an image are
# kept, one pair of names is overwritten. The checker and ONNX Runtime then refuse the file: "x_min_1 is not a graph input".
# Way out: one clamp with both limits where they belong together, else `torch.maximum` and `torch.minimum`, which keep their order.
# Seen on Linux, Python 3.11; torch 2.14.1 exports the same three models to the same effect.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/env"
"$dir/env/bin/pip" install -q onnxscript==0.7.2 onnx==1.23.2 onnx-ir==1.1.0 onnxruntime==1.32.0 numpy==2.4.6
cd "$dir"
"$dir/env/bin/python" - <<'PY'
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference
from onnxscript.rewriter import rewrite

def model(*chains):
    "Each chain clips or rectifies `x` several times: `(minimum, maximum)`, either of which may be None, or 'relu'"
    nodes,limits,outs = [],[],[]
    for c,chain in enumerate(chains):
        at = 'x'
        for i,step in enumerate(chain):
            out,names = f'out{c}_{i}',[]
            for which,value in zip(('lo','hi'), () if step=='relu' else step):
                names.append('' if value is None else f'{which}{c}_{i}')
                if value is not None: limits.append(numpy_helper.from_array(np.float32(value), names[-1]))
            nodes.append(helper.make_node('Relu' if step=='relu' else 'Clip', [at,*names], [out]))
            at = out
        outs.append(helper.make_tensor_value_info(at, TensorProto.FLOAT, [5]))
    graph = helper.make_graph(nodes, 'g', [helper.make_tensor_value_info('x', TensorProto.FLOAT, [5])], outs, limits)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)

X = np.linspace(-8, 8, 5, dtype=np.float32)
def run(m): return ort.InferenceSession(m.SerializeToString(), providers=['CPUExecutionProvider']).run(None, {'x':X})
def both(m):
    checker.check_model(m)
    return run(m),rewrite(shape_inference.infer_shapes(m))

for name,chain,true,seen in [('at most 3, then at least 5', [(None,3),(5,None)], 5, 3), ('-5 to -1, then relu', [(-5,-1),'relu'], 0, -1),
                             ('at least 0, then at most 3', [(0,None),(None,3)], None, None)]:
    (before,),new = both(model(chain))
    after = run(new)[0]
    print(f'{name:28} {before} -> {after}')
    if true is None: assert (before==after).all() and (before==X.clip(0, 3)).all()
    else: assert (before==true).all() and (after==seen).all(), 'the finding is out of date'

(wide,high),new = both(model([(0,None),(None,6)], [(0,None),(None,4)]))
assert (wide==X.clip(0, 6)).all() and (high==X.clip(0, 4)).all()
try: run(new)
except Exception as e: said = str(e)
else: said = ''
print('one tensor, two ranges:', said)
assert 'not a graph input' in said, 'the finding is out of date'
PY
