"An exported detector that costs nothing: a graph whose one box lies on the brightest pixel"
import json
import numpy as np, pytest

NOTES = dict(version='0.1.0', detector='brightest_spot', angle='le90', k=1, pre=1, score_thr=.05, iou_thr=.1, size=None, dynamic=True,
             precision='f32', quads=False, recipe={}, predictor=dict(
    vocab=['lamp','star'], size=None, grow=True, pad_to=32, pad_full=False, pad_value=None, stats=[[0,0,0],[1,1,1]], rule='mmcv',
    inside=False, score_thr=.3, iou_thr=None, max_dets=None, bs=None, notes={}))

def spot_notes(**predictor): return {**NOTES, 'predictor':{**NOTES['predictor'], **predictor}}

def spot_network(file, notes=NOTES, **also):
    "Write the graph: a box (x, y, 20, 8, .3) of class 1, its score the brightness of its pixel"
    onnx = pytest.importorskip('onnx')
    h,n = onnx.helper,onnx.numpy_helper
    const = dict(channel=np.array([1]), flat=np.array([-1]), sides=np.float32([20,8,.3]), one=np.array([[1]]), full=np.float32([255]),
                 n=np.array([1]), last=np.array([3]), end=np.array([4]), half=np.float32([.5]), boxes_shape=np.array([1,1,5]),
                 score_shape=np.array([1,1]))
    ops = ['Cast image->x:to=1', 'ReduceMax x,channel->grey:keepdims=0', 'Reshape grey,flat->row', 'ArgMax row->at:keepdims=1',
           'Shape image->shape', 'Slice shape,last,end->w', 'Div at,w->y', 'Mul y,w->skipped', 'Sub at,skipped->x_at',
           'Cast x_at->xf:to=1', 'Cast y->yf:to=1', 'Add xf,half->cx', 'Add yf,half->cy', 'Concat cx,cy,sides->box:axis=0',
           'Reshape box,boxes_shape->boxes', 'ReduceMax row->top:keepdims=1', 'Div top,full->bright', 'Reshape bright,score_shape->scores',
           'Identity one->labels', 'Identity n->count']
    def made(op):
        kind,_,rest = op.partition(' ')
        wires,_,attrs = rest.partition(':')
        ins,out = wires.split('->')
        return h.make_node(kind, ins.split(','), [out], **{k:int(v) for k,v in (o.split('=') for o in attrs.split() if o)})
    kinds = dict(boxes=1, scores=1, labels=7, count=7)
    graph = h.make_graph([*map(made, ops)], 'spot', [h.make_tensor_value_info('image', 2, [1,3,None,None])],
                         [h.make_tensor_value_info(name, kind, None) for name,kind in kinds.items()],
                         [n.from_array(value, name) for name,value in const.items()])
    model = h.make_model(graph, opset_imports=[h.make_opsetid('', 20)])
    model.ir_version = 10
    h.set_model_props(model, dict(also, **({} if notes is None else dict(rotnb=json.dumps(notes)))))
    onnx.save(model, file)
    return file
