"A module of tensors as others run it: exported, and in ONNX Runtime and OpenVINO"
import warnings
import numpy as np, torch
from rotnb.interop.export import save_onnx
from rotnb.interop.runtime import openvino_core

def plain(monkeypatch):
    "The operators take the forms that they take while exporting, without the minutes that an export takes"
    def loop(cond, body, carried):
        while cond(*carried): carried = body(*carried)
        return carried
    def scan(step, carried, rows):
        turns = [step(carried, row)[1] for row in zip(*rows)]
        return carried,torch.stack(turns)
    monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True)
    monkeypatch.setattr(torch._higher_order_ops, 'scan', scan)
    monkeypatch.setattr(torch, 'while_loop', loop)

def traced(module, args, axes=None):
    "`module` exported, with the first axis of every argument free; `axes`: the free axes of each"
    free = [{a:torch.export.Dim.DYNAMIC for a in o} for o in axes or [(0,)]*len(args)]
    return torch.export.export(module.eval(), tuple(args), dynamic_shapes=tuple(free), strict=False)

def operators(program):
    "Names of what an exported program calls, in its loops too"
    graphs = [o.graph for o in program.graph_module.modules() if isinstance(o, torch.fx.GraphModule)]
    return {str(node.target) for graph in graphs for node in graph.nodes if node.op=='call_function'}

def as_onnx(program, path):
    "Write an exported program; -> the domains of its operators"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        done = torch.onnx.export(program, dynamo=True, verbose=False)
    save_onnx(done, path)
    return {node.domain for node in done.model.graph}

def in_ort(path):
    "`f(*tensors) -> list of arrays` in ONNX Runtime"
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    names = [o.name for o in session.get_inputs()]
    return lambda *args: session.run(None, dict(zip(names, [o.numpy() for o in args])))

def in_openvino(path):
    "The same in OpenVINO, in float32"
    net = openvino_core().compile_model(path, 'CPU', {'INFERENCE_PRECISION_HINT':'f32'})
    return lambda *args: [np.array(o) for o in net([o.numpy() for o in args]).values()]
