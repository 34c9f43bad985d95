"Exported files as detectors: what they say, what is asked of them in vain, and files that somebody has tampered with"
import io, json, pickle, subprocess, sys, warnings, zipfile
from pathlib import Path
import numpy as np, pytest, torch
from rotnb.all import ArgumentError, Predictor, WeightsError, create_detector
from rotnb.interop.runtime import ExportedDetector, NotExported
from rotnb.models.files import DamagedFile, UnsafeFile, checked_program, seal_file
from rotnb.predict.predictor import HiddenWarning, SeesImages
from constant_files import NOTES, WRITES, onnx_file, torch_file

ENDINGS = list(WRITES)

def bytes_of(*shape): return torch.zeros(*shape, dtype=torch.uint8)

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    return {ending:write(folder/f'made{ending}') for ending,write in WRITES.items()}

# --- a detector like any other

@pytest.mark.parametrize('ending', ENDINGS)
def test_a_file_is_a_detector(files, ending):
    detector = ExportedDetector(files[ending])
    assert isinstance(detector, SeesImages) and detector.size_wh is None and detector.device.type=='cpu'
    assert (detector.name,detector.n_classes,detector.vocab,detector.angle,detector.most)==('made_by_hand',2,['plane','ship'],'le90',4)
    with detector.answering() as answer: found = answer(bytes_of(3, 3, 40, 56))
    assert len(found)==3 and all(det['labels'].tolist()==[1,1] and det['boxes'].shape==(2,5) for det in found)
    assert torch.allclose(found[2]['scores'], torch.tensor([.9,.8])) and found[0]['labels'].dtype==torch.int64

def test_both_have_what_a_predictor_asks_for():
    assert isinstance(create_detector('rotated_retinanet_tiny', 2), SeesImages) and not isinstance(torch.nn.Linear(2, 2), SeesImages)

def test_a_detector_is_lent():
    "Thresholds and modes are another's for a time, also where it fails"
    detector = create_detector('rotated_retinanet_tiny', 2)
    head = detector.stages[-1]
    own = head.score_thr,head.iou_thr,head.max_per_img
    with pytest.raises(ZeroDivisionError), detector.answering(.01, .7, 3) as answer:
        assert not detector.training and (head.score_thr,head.iou_thr,head.max_per_img)==(.01,.7,3)
        assert len(answer(torch.zeros(1, 3, 64, 64), (60,60))[0]['boxes'])<=3 and detector.shown_hw==(60,60)
        1/0
    assert detector.training and detector.shown_hw is None and own==(head.score_thr,head.iou_thr,head.max_per_img)

@pytest.mark.parametrize('ending', ENDINGS)
def test_a_fixed_number_of_images(tmp_path, ending):
    file = WRITES[ending](tmp_path/f'two{ending}', b=2, size=(32,64))
    detector = ExportedDetector(file)
    assert detector.size_wh==(64,32)
    for n in (1,2,5): assert {len(rows) for rows in detector.run(bytes_of(n, 3, 32, 64)).values()}=={n}
    with pytest.raises(ArgumentError, match='takes images of 64 x 32 px, not of 32 x 64'): detector.run(bytes_of(2, 3, 64, 32))

def test_a_predictor_takes_what_the_file_says(files, tmp_path):
    image = np.zeros((40,70,3), np.uint8)
    for ending,file in files.items():
        for predictor in (Predictor(file), Predictor(str(file)), Predictor(ExportedDetector(file))):
            assert predictor.settings()['stats']==((.5,)*3,)*2 and predictor.score_thr==.3 and predictor.vocab==['plane','ship']
            found = predictor(image)
            assert found.names==['ship','ship'] and torch.allclose(found.boxes[0], torch.tensor([12.,24,10,6,.5]), atol=1e-3)
    asked = Predictor(file, ['a','b'], score_thr=.85, max_dets=1, bs=3, notes=dict(name='mine'))
    assert (len(asked(image)),asked.vocab,asked.bs) == (1,['a','b'],3) and 'mine' in repr(asked)
    assert Predictor(file, size=140)(image).boxes[0,0]<12                          # enlarged twice, so the box lies at half

def test_sizes_of_a_file_that_takes_any(files):
    "It pads by itself: the image comes as it is"
    seen = []
    predictor = Predictor(files['.onnx'])
    runtime = predictor.detector.runtime
    predictor.detector.runtime = type('Seen', (), dict(shape=runtime.shape, device=runtime.device,
                                                       __call__=lambda self, x: (seen.append(tuple(x.shape)), runtime(x))[1]))()
    predictor([np.zeros((33,47,3), np.uint8)]*2+[np.zeros((64,64,3), np.uint8)])
    assert seen==[(2,3,33,47),(1,3,64,64)]

@pytest.mark.parametrize('said,kw', [('stats is .*computed into', dict(stats=((0,)*3,(1,)*3))), ('pad_to is 64', dict(pad_to=64)),
    ('gives scores from 0.2', dict(score_thr=.1)), ('the NMS in made.onnx is of 0.1', dict(iou_thr=.4)),
    ('gives 4 at most', dict(max_dets=5)), ('2 classes, the vocab 3', dict(vocab=list('abc'))), ('cuda', dict(device='cuda'))],
    ids=lambda o: str(o)[:20])
def test_what_a_file_cannot(files, said, kw):
    if 'device' in kw and torch.cuda.is_available(): pytest.skip('CUDA is here')
    with pytest.raises(ArgumentError, match=said): Predictor(files['.onnx'], **kw)(np.zeros((40,40,3), np.uint8))

def test_what_it_was_exported_with_may_be_said_again(files):
    predictor = Predictor(files['.onnx'])
    assert Predictor(files['.onnx'], **predictor.settings()).settings()==predictor.settings()
    assert Predictor(files['.onnx'], stats=[(.5,.5,.5)]*2, iou_thr=.1, score_thr=.2, max_dets=4)

def test_detections_that_are_hidden(tmp_path):
    "As many as the file gives, and scores below its own"
    image = np.zeros((40,70,3), np.uint8)
    full = Predictor(onnx_file(tmp_path/'full.onnx', found=4))
    with pytest.warns(HiddenWarning, match='4 detections, which is all'): full(image)
    with pytest.warns(HiddenWarning, match='gives those from 0.2'): Predictor(onnx_file(tmp_path/'some.onnx'))(image, score_thr=.1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        full(image, score_thr=.7); full(image, max_dets=2, score_thr=.61); Predictor(tmp_path/'some.onnx')(image, score_thr=0)

def test_no_image_no_boxes(tmp_path):
    assert len(Predictor(onnx_file(tmp_path/'none.onnx', found=0))(np.zeros((9,9,3), np.uint8)))==0

def test_threads_are_those_of_torch(files):
    before = torch.get_num_threads()
    try:
        for n in (1,2):
            torch.set_num_threads(n)
            runtimes = [ExportedDetector(files[ending]).runtime for ending in ('.onnx','.xml')]
            assert runtimes[0].session.get_session_options().intra_op_num_threads==n
            assert runtimes[1].program.get_property('INFERENCE_NUM_THREADS')==n
    finally: torch.set_num_threads(before)

def test_openvino_computes_in_float32_unless_asked(files):
    hint = lambda **kw: str(ExportedDetector(files['.xml'], **kw).runtime.program.get_property('INFERENCE_PRECISION_HINT'))
    assert 'float32' in hint() or 'f32' in hint()
    with pytest.raises(ArgumentError, match="expected 'f32', 'bf16' or 'f16'"): ExportedDetector(files['.xml'], precision='float16')
    for ending in ('.onnx','.pt2'):
        with pytest.raises(ArgumentError, match='has its own'): ExportedDetector(files[ending], precision='bf16')

def test_what_detections_depend_on(files, tmp_path):
    sums = [Predictor(file).fingerprint()['weights'] for file in files.values()]
    other = Predictor(onnx_file(tmp_path/'made.onnx', found=1)).fingerprint()['weights']
    assert len({*sums, other})==4 and Predictor(files['.onnx']).fingerprint()['weights']==sums[0]

def test_a_file_is_not_saved_as_a_folder(files, tmp_path):
    with pytest.raises(WeightsError, match='is a file already'): Predictor(files['.onnx']).save(tmp_path/'x')

# --- files that are not what they seem

@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize('share', [0, .01, .5, .99])
def test_cut_off(files, tmp_path, ending, share):
    whole = files[ending].with_suffix('.bin' if ending=='.xml' else ending)
    for part in {files[ending],whole}: (tmp_path/part.name).write_bytes(part.read_bytes())
    data = whole.read_bytes()
    (tmp_path/whole.name).write_bytes(data[:int(share*len(data))])
    with pytest.raises(WeightsError, match='damaged|cannot open'): Predictor(tmp_path/files[ending].name)

def test_cut_off_xml(files, tmp_path):
    data = files['.xml'].read_bytes()
    (tmp_path/'made.bin').write_bytes(files['.xml'].with_suffix('.bin').read_bytes())
    (tmp_path/'made.xml').write_bytes(data[:len(data)//2])
    with pytest.raises(DamagedFile, match='OpenVINO cannot open'): Predictor(tmp_path/'made.xml')
    (tmp_path/'made.bin').unlink()
    with pytest.raises(FileNotFoundError, match='lacks its numbers, made.bin'): Predictor(tmp_path/'made.xml')

@pytest.mark.parametrize('ending,changed', [('.onnx','.onnx'), ('.xml','.xml'), ('.xml','.bin')])
def test_a_sealed_file_knows_that_it_changed(tmp_path, ending, changed):
    "Whatever byte it is, also where the file could be opened"
    file = seal_file(WRITES[ending](tmp_path/f'made{ending}'))
    assert len(Predictor(file)(np.zeros((40,40,3), np.uint8)))==2
    part = file.with_suffix(changed)
    whole = part.read_bytes()
    for at in np.linspace(9, len(whole)-30, 12).astype(int):
        part.write_bytes(whole[:at]+bytes([whole[at]^1])+whole[at+1:])
        with pytest.raises(DamagedFile, match='checksum does not fit'): Predictor(file)
    part.write_bytes(whole)
    assert seal_file(file).read_bytes()==file.read_bytes() and Predictor(file).detector.name=='made_by_hand'

@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize('as_if', ENDINGS)
def test_renamed(files, tmp_path, ending, as_if):
    if ending==as_if: return
    (tmp_path/f'made{as_if}').write_bytes(files[ending].read_bytes())
    with pytest.raises(DamagedFile, match=f'begins as a {ending} does, rename it'): Predictor(tmp_path/f'made{as_if}')

@pytest.mark.parametrize('ending', ENDINGS)
def test_of_somebody_else(tmp_path, ending):
    file = WRITES[ending](tmp_path/f'bare{ending}', notes=None)
    with pytest.raises(NotExported, match='which classes it knows: give their names'): Predictor(file)
    assert Predictor(file, ['a','b'], size=64)(np.zeros((32,32,3), np.uint8)).names==['b','b']
    assert ExportedDetector(file, ['a','b']).vocab==['a','b']

@pytest.mark.parametrize('lacks', ['recipe','predictor','score_thr'])
def test_notes_that_are_not_whole(tmp_path, lacks):
    file = onnx_file(tmp_path/'part.onnx', {key:value for key,value in NOTES.items() if key!=lacks})
    with pytest.raises(DamagedFile, match=f'not whole, it lacks {lacks}: export it again'): Predictor(file)

def test_files_of_openvino_end_in_any_order(files):
    "OpenVINO's own cores must not: signals would then find no stack"
    code = f"""
import faulthandler, gc, signal, subprocess
from rotnb.interop.runtime import ExportedDetector
faulthandler.enable()
signal.signal(signal.SIGCHLD, lambda *_: None)                             # as a loader with workers does
one,two = (ExportedDetector({str(files['.xml'])!r}) for _ in range(2))
del one; gc.collect()
del two; gc.collect()
for _ in range(3): subprocess.run(['true'], capture_output=True)
print('well')"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert (done.returncode,done.stdout)==(0,'well\n'), done.stderr

def test_another_graph(tmp_path):
    two = onnx_file(tmp_path/'two.onnx', inputs=('image','size'))
    with pytest.raises(NotExported, match=r'expected image \(b, 3, h, w\) in'): Predictor(two)
    with pytest.raises(DamagedFile, match='what .* says of itself'):
        import onnx
        model = onnx.load(onnx_file(tmp_path/'odd.onnx'))
        model.metadata_props[0].value = '{'
        onnx.save(model, tmp_path/'odd.onnx')
        Predictor(tmp_path/'odd.onnx')

def test_settings_of_a_newer_rotnb(tmp_path):
    "A setting that is not known here is passed over"
    notes = {**NOTES, 'predictor':{**NOTES['predictor'], 'of_tomorrow':7}}
    assert Predictor(onnx_file(tmp_path/'new.onnx', notes)).score_thr==.3

def test_paths_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'): Predictor(tmp_path/'none.onnx')
    with pytest.raises(WeightsError, match='no weights are called'): Predictor('no_such_name')
    with pytest.raises(WeightsError, match='is a learner, which can run code'): Predictor(tmp_path/'model.pkl')
    with pytest.raises(FileNotFoundError): Predictor(tmp_path/'dir.onnx'/'x.pt2')

# --- files that would run something

class Evil:
    "Leaves a trace where it is unpickled"
    def __init__(self, trace): self.trace = trace
    def __reduce__(self): return (Path.touch, (self.trace,))

def pickled(trace):
    out = io.BytesIO()
    torch.save((Evil(trace),), out)
    return out.getvalue()

SIZES = {'a call for a size':'{call}', 'an attribute for a size':'Integer.__class__', 'text for a size':'Symbol("{call}")',
         'a size that takes for ever':'Integer(9)**Integer(9)**Integer(99)',
         'powers of powers':'Pow(Pow(Integer(9), Integer(9)), Integer(9))'}

def tampered(kind, parts, root, trace):
    model,weights,constants = (root+name for name in ('models/model.json','data/weights/model_weights_config.json',
                                                      'data/constants/model_constants_config.json'))
    call = f'__import__("pathlib").Path({str(trace)!r}).touch()'
    def text(old, new): parts[model] = parts[model].replace(old.encode(), new.encode())
    if kind=='example inputs': parts[root+'data/sample_inputs/model.pt'] = pickled(trace)
    if kind=='weights':
        config = json.loads(parts[weights])
        first = next(iter(config['config'].values()))
        first['use_pickle'] = True
        parts[weights],parts[f'{root}data/weights/{first["path_name"]}'] = json.dumps(config).encode(),pickled(trace)
    if kind=='old weights': parts[root+'data/weights/model.pt'] = pickled(trace)
    if kind=='constants':
        odd = dict(path_name='opaque_obj_0', is_param=False, use_pickle=True, tensor_meta=None)
        parts[constants] = json.dumps(dict(config=dict(x=odd))).encode()
        parts[root+'data/constants/opaque_obj_0'] = pickle.dumps(Evil(trace))
    if kind in SIZES: text('"as_int": 3', f'"as_expr": {{"expr_str": {json.dumps(SIZES[kind].format(call=call))}, "hint": null}}')
    if kind=='names': text('"image"', json.dumps(f'image = {call}; x'))
    if kind=='functions': text('torch.ops.aten.clone.default', 'torch.hub.load')
    if kind=='files': text('torch.ops.aten.clone.default', 'torch.ops.aten.from_file.default')
    if kind=='library': parts[root+'data/aotinductor/model/x.so'] = b'\x7fELF'

KINDS = ['example inputs','weights','old weights','constants',*SIZES,'names','functions','files','library']

@pytest.mark.parametrize('kind', KINDS)
def test_nothing_runs(files, tmp_path, kind):
    with zipfile.ZipFile(files['.pt2']) as archive: parts = {name:archive.read(name) for name in archive.namelist()}
    before,root,trace = dict(parts),next(iter(parts)).split('/')[0]+'/',tmp_path/'trace'
    tampered(kind, parts, root, trace)
    assert parts!=before
    with zipfile.ZipFile(tmp_path/'odd.pt2', 'w') as archive:
        for name,data in parts.items(): archive.writestr(name, data)
    with pytest.raises(UnsafeFile, match='could run code'): Predictor(tmp_path/'odd.pt2')
    assert not trace.exists()

def test_the_guard_lets_in_what_torch_writes(files): assert checked_program(files['.pt2']).getbuffer().nbytes==files['.pt2'].stat().st_size

def test_two_parts_of_one_name(files, tmp_path):
    "Two readers may take different ones"
    file = tmp_path/'twice.pt2'
    file.write_bytes(files['.pt2'].read_bytes())
    with zipfile.ZipFile(file, 'a') as archive:
        name = next(name for name in archive.namelist() if name.endswith('model.json'))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            archive.writestr(name, b'{}')
    with pytest.raises(WeightsError): Predictor(file)

def test_numbers_elsewhere(files, tmp_path):
    "An ONNX file cannot read what lies outside of its folder"
    import onnx
    (tmp_path/'secret').write_bytes(bytes(160)); (tmp_path/'in').mkdir()
    model = onnx.load(files['.onnx'])
    node = next(node for node in model.graph.node if node.output[0]=='boxes_one')
    own = onnx.TensorProto(name='boxes_one', data_type=1, dims=[1,4,5], data_location=onnx.TensorProto.EXTERNAL)
    own.external_data.add(key='location', value='../secret')
    model.graph.node.remove(node)
    model.graph.initializer.append(own)
    (tmp_path/'in/m.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(DamagedFile, match='ONNX Runtime cannot open'): Predictor(tmp_path/'in/m.onnx')
