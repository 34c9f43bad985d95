"Exported detectors made by hand: whatever they are shown, they say the same boxes"
import json
import numpy as np, onnx, torch
from onnx import TensorProto, helper, numpy_helper

NOTES = dict(version='0.1.0', detector='made_by_hand', recipe=dict(name='made_by_hand', n_classes=2), angle='le90', k=4, pre=4,
             score_thr=.2, iou_thr=.1, predictor=dict(vocab=['plane','ship'], size=None, pad_to=32, stats=[[.5]*3,[.5]*3], score_thr=.3))

def values(found, rows=4):
    "`found` boxes, one beside the other, in an answer of `rows` rows"
    boxes,scores = np.zeros((1,rows,5), np.float32),np.zeros((1,rows), np.float32)
    for i in range(found): boxes[:,i],scores[:,i] = [12+8*i,24,10,6,.5],.9-.1*i
    labels = np.where(scores>0, 1, -1).astype(np.int64)
    return dict(boxes=boxes, scores=scores, labels=labels, count=np.array([found]))

def onnx_file(file, notes=NOTES, found=2, b='b', size=('h','w'), inputs=('image',)):
    "As `export_onnx` writes it"
    nodes,said = [helper.make_node('Shape', ['image'], ['n'], start=0, end=1)],values(found)
    for name,value in said.items():
        rest = numpy_helper.from_array(np.array(value.shape[1:], np.int64))
        nodes += [helper.make_node('Constant', [], [f'{name}_one'], value=numpy_helper.from_array(value)),
                  helper.make_node('Constant', [], [f'{name}_rest'], value=rest),
                  helper.make_node('Concat', ['n',f'{name}_rest'], [f'{name}_size'], axis=0),
                  helper.make_node('Expand', [f'{name}_one',f'{name}_size'], [name])]
    kinds = dict(boxes=TensorProto.FLOAT, scores=TensorProto.FLOAT, labels=TensorProto.INT64, count=TensorProto.INT64)
    outs = [helper.make_tensor_value_info(name, kinds[name], [b,*value.shape[1:]]) for name,value in said.items()]
    ins = [helper.make_tensor_value_info(name, TensorProto.UINT8, [b,3,*size]) for name in inputs]
    model = helper.make_model(helper.make_graph(nodes, 'one', ins, outs), opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    if notes: helper.set_model_props(model, dict(rotnb=json.dumps(notes), names=repr(dict(enumerate('ab')))))
    onnx.save(model, file)
    return file

def openvino_file(file, notes=NOTES, **kw):
    "As `export_openvino` writes it"
    import openvino as ov
    source = onnx_file(file.with_name(f'{file.stem}_source.onnx'), notes, **kw)
    model = ov.convert_model(source)
    if notes: model.set_rt_info(json.dumps(notes), ['rotnb'])
    ov.save_model(model, file, compress_to_fp16=False)
    source.unlink()
    return file

class Constant(torch.nn.Module):
    def __init__(self, found):
        super().__init__()
        self.said = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(value), False) for value in values(found).values()])
    def forward(self, image): return tuple(value.expand(image.shape[0], *value.shape[1:]).clone() for value in self.said)

def torch_file(file, notes=NOTES, found=2, b=None, size=None):
    "As `export_pt2` writes it"
    free = torch.export.Dim.DYNAMIC
    image,dims = torch.zeros(b or 2, 3, *(size or (64,96)), dtype=torch.uint8),{0:free, 2:free, 3:free}
    program = torch.export.export(Constant(found), (image,), dynamic_shapes=None if size else dict(image=dims), strict=False)
    torch.export.save(program, file, extra_files=dict(rotnb=json.dumps(notes)) if notes else {})
    return file

WRITES = {'.onnx':onnx_file, '.xml':openvino_file, '.pt2':torch_file}
