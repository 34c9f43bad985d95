"""Reading RoIs in an exported file: a point of all cells after the other, as it was, beside one RoI after the other, in a loop.
`OMP_NUM_THREADS=1 python roi_rows.py --json roi_rows.json`: processor time, in turn, in ONNX Runtime and OpenVINO, one thread."""
import json, os, time
from argparse import ArgumentParser
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
import numpy as np, onnx, onnxruntime, openvino
from onnx import TensorProto as kinds, helper as make, numpy_helper

SIDE,CELLS,POINTS = 160,49,16 # px of the map; of a RoI; rows of the map that a cell reads: four points, four pixels each

def rois(n, seed=0):
    "Pixels and shares (n, CELLS, POINTS) of turned RoIs of 7 to 28 px"
    rng,at = np.random.default_rng(seed),(np.arange(14)+.5)/14-.5
    x,y,side,turn,long = (rng.uniform(*o, n)[:,None,None] for o in ((15,145),(15,145),(7,28),(-1.5,1.5),(.6,1.6)))
    across,down = np.meshgrid(at, at)
    u,v = across*side*long,down*side/long
    px,py = (o.clip(0, SIDE-1.1) for o in (x+u*np.cos(turn)-v*np.sin(turn),y+u*np.sin(turn)+v*np.cos(turn)))
    x0,y0 = px.astype(int),py.astype(int)
    fx,fy = px-x0,py-y0
    first = y0*SIDE+x0
    def by_cell(*corners):
        points = np.stack(corners, -1).reshape(n, 7, 2, 7, 2, 4)
        return points.transpose(0, 1, 3, 2, 4, 5).reshape(n, CELLS, POINTS)
    shares = by_cell((1-fy)*(1-fx), (1-fy)*fx, fy*(1-fx), fy*fx)/4
    return by_cell(first, first+1, first+SIDE, first+SIDE+1).astype(np.int64),shares.astype(np.float32)

def read(pixels, shares, name, axis): # nodes: rows of the map, their weighted sum
    node = make.make_node
    return [node('Gather', ['map',pixels], [f'{name}.rows'], axis=0), node('Unsqueeze', [shares,axis], [f'{name}.shares']),
            node('MatMul', [f'{name}.shares',f'{name}.rows'], [f'{name}.sums']), node('Squeeze', [f'{name}.sums',axis], [name])]

def by_point():
    node,nodes = make.make_node,[]
    for i in range(4):
        ends = [f'at{4*i}',f'at{4*i+4}','at2']
        nodes += [node('Slice', ['pixels',*ends], [f'p{i}']), node('Slice', ['shares',*ends], [f's{i}'])]
        nodes += read(f'p{i}', f's{i}', f'm{i}', 'at2')
    return [*nodes, node('Add', ['m0','m1'], ['a']), node('Add', ['a','m2'], ['b']), node('Add', ['b','m3'], ['out'])]

def by_roi():
    node,value = make.make_node,make.make_tensor_value_info
    body = [node('Gather', ['pixels','turn'], ['p'], axis=0), node('Gather', ['shares','turn'], ['s'], axis=0),
            *read('p', 's', 'one', 'at1'),
            node('Identity', ['on'], ['still'])]
    inner = make.make_graph(body, 'roi', [value('turn', kinds.INT64, []), value('on', kinds.BOOL, [])],
                            [value('still', kinds.BOOL, []), value('one', kinds.FLOAT, None)])
    return [node('Shape', ['pixels'], ['turns'], start=0, end=1), node('Loop', ['turns',''], ['out'], body=inner)]

def saved(nodes, channels, file):
    value = make.make_tensor_value_info
    ins = [value('map', kinds.FLOAT, [SIDE*SIDE,channels]), value('pixels', kinds.INT64, ['n',CELLS,POINTS]),
           value('shares', kinds.FLOAT, ['n',CELLS,POINTS])]
    numbers = [numpy_helper.from_array(np.array([i]), f'at{i}') for i in (0,1,2,4,8,12,16)]
    graph = make.make_graph(nodes, 'g', ins, [value('out', kinds.FLOAT, None)], numbers)
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid('', 20)], ir_version=10), file)
    return str(file)

def runners(file):
    "`{runtime: f(inputs)}`"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads,options.log_severity_level = 1,4
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    net = openvino.Core().compile_model(file, 'CPU', dict(INFERENCE_NUM_THREADS=1, INFERENCE_PRECISION_HINT='f32'))
    return {'ONNX Runtime':lambda given: session.run(None, given)[0], 'OpenVINO':lambda given: np.array(next(iter(net(given).values())))}

def row(channels, n, runs):
    pixels,shares = rois(n)
    given = dict(map=np.random.default_rng(1).normal(size=(SIDE*SIDE,channels)).astype(np.float32), pixels=pixels, shares=shares)
    with TemporaryDirectory() as folder:
        forms = dict(point=by_point(), roi=by_roi())
        made = {form:runners(saved(nodes, channels, Path(folder)/f'{form}.onnx')) for form,nodes in forms.items()}
        res = {}
        for runtime in made['roi']:
            times = {form:[] for form in made}
            for turn in range(runs+2):
                found = {}
                for form in made:
                    start = time.process_time()
                    found[form] = made[form][runtime](given)
                    if turn>1: times[form].append(time.process_time()-start)
                assert np.abs(found['roi'].reshape(found['point'].shape)-found['point']).max()<1e-4
            res[runtime] = {**{f'{form} ms':round(median(took)*1e3, 1) for form,took in times.items()},
                            'share':round(median(b/a for a,b in zip(times['point'], times['roi'])), 3)}
    return res

def main():
    p = ArgumentParser(description=__doc__)
    for key,value in dict(n=400, runs=7).items(): p.add_argument(f'--{key}', type=int, default=value)
    p.add_argument('--json')
    a = p.parse_args()
    rows = {f'{channels} channels':row(channels, a.n, a.runs) for channels in (256,48)}
    said = json.dumps(dict(rois=a.n, runs=a.runs, load=os.getloadavg()[0], rows=rows), indent=1)
    print(said)
    if a.json: Path(a.json).write_text(said+'\n')

if __name__=='__main__': main()
