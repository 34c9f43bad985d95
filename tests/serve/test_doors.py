"""Other people's servers: TorchServe's archive, Triton's model repository, a backend of Label Studio, a folder for Docker.
Held by hand with torchserve and torch-model-archiver 0.12.0, the core of Triton 2.51, and Label Studio 1.23.2"""
import asyncio, base64, importlib, io, json, math, os, re, subprocess, sys, threading, time, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen
import numpy as np, onnx, pytest, torch, yaml
from fastapi.testclient import TestClient
from PIL import Image
from rotnb.data.formats.label_studio_tasks import find_regions, label_studio_row
from rotnb.data.synth.scenes import make_scene
from rotnb.models.files import WeightsError
from rotnb.predict.detections import Detections
from rotnb.predict.load import load_weights
from rotnb.predict.predictor import Predictor
from rotnb.cli.serve import run_serve
from rotnb.serve.app import make_app, serve
from rotnb.serve.docker import docker_folder, pinned
from rotnb.serve.intake import RefusedError
from rotnb.serve.label_studio import TaskImages, add_label_studio, project_control, task_prediction
from rotnb.serve.torchserve import ask_torchserve, mm_rows, torchserve_archive
from rotnb.serve.triton import triton_folder
from web import without_proxies

SCENE = make_scene(2)[0][:256]

def coded(image=SCENE, kind='png'):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind)
    return stream.getvalue()

PNG = coded()
BASE64 = base64.b64encode(PNG).decode()

@pytest.fixture(scope='module')
def ships(): return load_weights('rotated_fcos_tiny_synth')

# --- TorchServe

@pytest.fixture(scope='module')
def archive(ships, tmp_path_factory):
    return torchserve_archive(ships, tmp_path_factory.mktemp('store')/'ships', bs=3, wait=.05, version='2.1')

def test_the_archive_is_as_the_archiver_makes_it(archive):
    with zipfile.ZipFile(archive) as z:
        names,manifest,config = set(z.namelist()),json.loads(z.read('MAR-INF/MANIFEST.json')),yaml.safe_load(z.read('model-config.yaml'))
        assert 'ships' in z.read('README.md').decode() and z.testzip() is None
    assert names=={'MAR-INF/MANIFEST.json','model-config.yaml','rotnb_handler.py','model.safetensors','config.json','README.md'}
    assert manifest['runtime']=='python' and re.fullmatch(r'\d\d/\d\d/\d{4} \d\d:\d\d:\d\d', manifest['createdOn'])
    assert manifest['model']==dict(modelName='ships', modelVersion='2.1', serializedFile='model.safetensors', handler='rotnb_handler.py',
                                   configFile='model-config.yaml')
    assert config==dict(minWorkers=1, maxWorkers=1, batchSize=3, maxBatchDelay=50, responseTimeout=120, handler=dict(score_thr=.5))

class Worker:
    "Loads an archive as `ts/model_loader.py` of TorchServe 0.12 does, and asks it as `ts/service.py` does"
    def __init__(self, archive, folder):
        with zipfile.ZipFile(archive) as z: z.extractall(folder)
        manifest = json.loads((folder/'MAR-INF/MANIFEST.json').read_text())
        sys.path.insert(0, str(folder))
        try: module = importlib.import_module(manifest['model']['handler'].removesuffix('.py'))
        finally: sys.path.remove(str(folder)); sys.modules.pop('rotnb_handler', None)
        made, = (own for own in vars(module).values() if isinstance(own, type) and own.__module__==module.__name__)
        self.states,self.handler = {},made()
        given = dict(model_dir=str(folder), gpu_id=None, batch_size=3, limit_max_image_pixels=True)
        config = yaml.safe_load((folder/manifest['model']['configFile']).read_text())
        self.context = SimpleNamespace(system_properties=given, manifest=manifest, model_yaml_config=config, set_response_status=self.note)
        self.handler.initialize(self.context)
    def note(self, code=200, phrase='', idx=0): self.states[idx] = code
    def __call__(self, *rows):
        self.states = {}
        answers = self.handler.handle([*rows], self.context)
        assert isinstance(answers, list) and len(answers)==len(rows)
        return json.loads(json.dumps(answers))

@pytest.fixture(scope='module')
def worker(archive, tmp_path_factory): return Worker(archive, tmp_path_factory.mktemp('worker'))

def near(rows, found):
    assert [row['class_name'] for row in rows]==found.names
    np.testing.assert_allclose([row['bbox'] for row in rows], found.boxes.numpy(), atol=1e-3)
    np.testing.assert_allclose([row['score'] for row in rows], found.scores.numpy(), atol=1e-5)

@pytest.mark.parametrize('row', [dict(body=bytearray(PNG)), dict(data=PNG), dict(body=BASE64),
    dict(data=f'data:image/png;base64,{BASE64}'), dict(body=base64.encodebytes(PNG).decode()), dict(body=dict(data=BASE64)),
    dict(body=dict(image=BASE64, score_thr=None)),
    dict(image=bytearray(PNG), score_thr=b'.5')], ids=lambda row: '-'.join(row))
def test_all_ways_of_an_image(worker, ships, row):
    answer, = worker(row)
    near(answer, ships(SCENE, .5))
    assert len(answer)>1 and worker.states=={}

def test_requests_of_a_batch_keep_their_thresholds_and_errors(worker, ships):
    wide = np.tile(SCENE, (1,2,1))
    few,bad,wider,none = worker(dict(body=PNG, score_thr='.6'), dict(body=b'\x89PNG\r\n\x1a\nand no more'),
                                dict(body=coded(wide), score_thr=.3), {})
    near(few, ships(SCENE, .6)); near(wider, ships(wide, .3))
    assert 0<len(few)<len(ships(SCENE, .3))
    assert 'file whole?' in bad['error'] and 'there is no image' in none['error'] and worker.states=={1:422, 3:400}
    assert worker()==[]

@pytest.mark.parametrize('thr', [7, 'nan', b'much', '-.1', [1]])
def test_thresholds_that_cannot_be_meant(worker, thr):
    answer, = worker(dict(body=PNG, score_thr=thr))
    assert 'score_thr is' in answer['error'] and worker.states=={0:422}

def test_an_image_that_would_fill_the_memory(worker):
    bomb = io.BytesIO()
    Image.new('1', (8000,8000)).save(bomb, 'png')
    answer, = worker(dict(body=bomb.getvalue()))
    assert 'more than' in answer['error'] and worker.states=={0:413}

def test_the_predictor_stays_as_it_is_and_odd_names_are_refused(ships, archive, tmp_path):
    assert ships.score_thr==.3 and archive.name=='ships.mar'
    for name in ('my ships', '-a', 'schöne.mar', '.mar'):
        with pytest.raises(ValueError, match='names models by'): torchserve_archive(ships, tmp_path/name)
    with pytest.raises(ValueError, match='score_thr'): torchserve_archive(ships, tmp_path/'a', score_thr=2)
    assert not [*tmp_path.iterdir()]

class Answering(BaseHTTPRequestHandler):
    "`server.answer(handler, body)` writes the answer; `server.asked` are (path, authorization)"
    def log_message(self, *_): pass
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get('Authorization')))
        status,headers,body = self.server.answer(self.path, self.rfile.read(int(self.headers.get('Content-Length') or 0)))
        self.send_response(status)
        for name,value in {'Content-Length':len(body), **headers}.items(): self.send_header(name, f'{value}')
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET

@pytest.fixture
def web(monkeypatch):
    "Makes servers: `web(answer)` is one, with its address as `.at`"
    without_proxies(monkeypatch)
    servers = []
    def make(answer):
        server = ThreadingHTTPServer(('127.0.0.1',0), Answering)
        server.answer,server.asked,server.at = answer,[],f'http://127.0.0.1:{server.server_port}'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server
    yield make
    for server in servers: server.shutdown(); server.server_close()

def test_what_a_service_finds_is_an_object(web, worker, ships):
    def answer(path, body):
        rows, = worker(dict(body=json.loads(body)))
        return (200 if isinstance(rows, list) else 422),{},json.dumps(rows).encode()
    at = f'{web(answer).at}/predictions/ships'
    found = ask_torchserve(SCENE, at, ships.vocab, score_thr=.4)
    assert isinstance(found, Detections) and found.vocab==ships.vocab
    near(mm_rows(found), ships(SCENE, .4))
    assert len(ask_torchserve(np.zeros((64,64,3), np.uint8), at))==0
    gone = web(lambda path, body: (404,{},b'{"message": "Model not found: ships"}')).at
    with pytest.raises(ValueError, match='says 404.*Model not found'): ask_torchserve(SCENE, gone)

def test_headings_of_an_archive_and_of_a_labelling_project(web):
    "A row of a class with a front has it, others not; a region turns all the way round"
    box = np.array([[60,50,40,16,.4],[60,50,40,16,.4]])
    found = Detections(box, [.9,.8], [0,1], ['plane','tank'], heading=[.4-math.pi,math.nan])
    rows = mm_rows(found)
    assert rows[0]['heading']==pytest.approx(.4-math.pi, abs=1e-5) and 'heading' not in rows[1]
    at = web(lambda path, body: (200,{},json.dumps(rows).encode())).at
    np.testing.assert_allclose(ask_torchserve(SCENE, at, found.vocab).heading, found.heading, atol=1e-5)
    plain = web(lambda path, body: (200,{},json.dumps(rows[1:]).encode())).at
    assert ask_torchserve(SCENE, plain, found.vocab).heading is None
    config = ('<View><Image name="i" value="$image"/><RectangleLabels name="l" toName="i"><Label value="plane"/><Label value="tank"/>'
              '</RectangleLabels></View>')
    regions = task_prediction(found, project_control(config, found.vocab), (120,100))['result']
    assert [o['value']['rotation'] for o in regions]==pytest.approx([math.degrees(.4)+180,math.degrees(.4)], abs=1e-3)

# --- Triton

VOCAB = ['ship','café "au lait"','a\\b\n']

def graph(folder, b='b', h='h', w='w', name='toy', notes=True, inputs='image', quads=False):
    "A file with the ends of a detector, that finds nothing"
    ends = [('boxes','float',0,('k','five')), ('scores','float',-1,('k',)), ('labels','int64',-1,('k',)), ('count','int64',0,())]
    ends += [('quads','float',0,('k','eight'))] if quads else []
    sides = dict(k=300, five=5, eight=8)
    made = ''.join(f'''{o}_shape = Concat<axis=0>({", ".join(("n",*rest))})
                       {o} = ConstantOfShape <value = {kind}[1] {{{value}}}>({o}_shape)
                       ''' for o,kind,value,rest in ends)
    outs = ', '.join(f'{kind}[{",".join(map(str, (b,*(sides[o] for o in rest))))}] {o}' for o,kind,_,rest in ends)
    text = f'''<ir_version: 9, opset_import: ["": 20]> detector (uint8[{b},3,{h},{w}] {inputs}) => ({outs}) {{
        n = Shape<start=0, end=1>({inputs})
        k = Constant<value_ints=[300]>()
        five = Constant<value_ints=[5]>()
        eight = Constant<value_ints=[8]>()
        {made}}}'''
    model = onnx.parser.parse_model(text)
    shown = dict(vocab=VOCAB, size=None, stats=((0.,)*3,(1.,)*3), notes=dict(name='my harbour'))
    said = dict(version='0.1.0', detector='toy', recipe=dict(n_classes=3), predictor=shown, angle='le90', k=300, score_thr=.05, iou_thr=.1)
    if notes: onnx.helper.set_model_props(model, dict(rotnb=json.dumps(said)))
    onnx.save(model, folder/f'{name}.onnx')
    return folder/f'{name}.onnx'

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.-]+|[\[\]{}:,]')

def parse_pbtxt(text):
    "Protobuf's text form as dictionaries; what repeats is a list"
    tokens = TOKEN.findall(text)[::-1]
    assert not TOKEN.sub('', text).strip()
    def value():
        one = tokens.pop()
        if one=='{': return message()
        if one=='[':
            some = []
            while tokens[-1]!=']':
                if tokens[-1]==',': tokens.pop()
                else: some.append(value())
            tokens.pop()
            return some
        return json.loads(one) if one[0]=='"' or one.lstrip('-').isdigit() else one
    def message():
        own = {}
        while tokens and tokens[-1]!='}':
            key = tokens.pop()
            if tokens[-1]==':': tokens.pop()
            read = value()
            own.setdefault(key, []).extend(read if isinstance(read, list) else [read])
        if tokens: tokens.pop()
        return own
    return message()

def ends(config): return {one['name'][0]:(one['data_type'][0],one['dims'],one.get('reshape')) for one in config['input']+config['output']}

def test_triton_is_told_what_is_in_the_file(tmp_path):
    made = triton_folder(graph(tmp_path, quads=True), tmp_path/'models', instances=2, device='cuda', threads=3, bs=4, wait=.001)
    config = parse_pbtxt((made/'config.pbtxt').read_text())
    assert made==tmp_path/'models/my_harbour' and config['name']==['my_harbour'] and config['backend']==['onnxruntime']
    assert config['max_batch_size']==[4] and config['dynamic_batching']==[dict(max_queue_delay_microseconds=[1000])]
    assert ends(config)==dict(image=('TYPE_UINT8',[3,-1,-1],None), boxes=('TYPE_FP32',[300,5],None), scores=('TYPE_FP32',[300],None),
        labels=('TYPE_INT64',[300],None), count=('TYPE_INT64',[1],[dict(shape=[])]), quads=('TYPE_FP32',[300,8],None))
    assert config['instance_group']==[dict(count=[2], kind=['KIND_GPU'])]
    told = {one['key'][0]:one['value'][0]['string_value'][0] for one in config['parameters']}
    assert told['intra_op_thread_count']=='3' and json.loads(told['names'])==VOCAB and json.loads(told['rotnb'])['angle']=='le90'
    page = (made/'README.md').read_text()
    assert "infer('my_harbour'" in page and 'of any size' in page and '0 ship' in page

@pytest.mark.parametrize('b,bs,most', [(1,8,0), ('b',0,0), ('b',1,1)])
def test_what_is_not_batched(tmp_path, b, bs, most):
    config = parse_pbtxt((triton_folder(graph(tmp_path, b, 512, 640, notes=False), tmp_path/'m', bs=bs)/'config.pbtxt').read_text())
    assert config['max_batch_size']==[most] and 'dynamic_batching' not in config and config['name']==['toy'] and 'parameters' not in config
    whole = [1 if b==1 else -1]*(most==0)
    assert ends(config)['image'][1]==[*whole,3,512,640]
    assert ends(config)['count'][1:]==((whole,None) if most==0 else ([1],[dict(shape=[])]))

def test_openvino_has_its_numbers_beside_it_and_its_whole_shape(tmp_path):
    ov = pytest.importorskip('openvino')
    model = ov.convert_model(graph(tmp_path))
    model.set_rt_info(json.dumps(dict(predictor=dict(vocab=VOCAB))), ['rotnb'])
    ov.save_model(model, tmp_path/'toy.xml')
    made = triton_folder(tmp_path/'toy.xml', tmp_path/'m', 'ov', threads=2)
    config = parse_pbtxt((made/'config.pbtxt').read_text())
    assert config['backend']==['openvino'] and config['max_batch_size']==[0]
    assert ends(config)['image']==('TYPE_UINT8',[-1,3,-1,-1],None) and ends(config)['count']==('TYPE_INT64',[-1],None)
    assert sorted(o.name for o in (made/'1').iterdir())==['model.bin','model.xml']
    assert {one['key'][0] for one in config['parameters']}=={'INFERENCE_NUM_THREADS','names','rotnb'}

def test_versions_stand_side_by_side_and_numbers_stay_with_their_file(tmp_path):
    file = graph(tmp_path)
    (tmp_path/'toy.onnx.data').write_bytes(b'numbers')
    made = triton_folder(file, tmp_path/'m')
    triton_folder(file, tmp_path/'m', version=2)
    assert sorted(o.relative_to(made).as_posix() for o in made.rglob('*') if o.is_file())==[
        '1/model.onnx','1/toy.onnx.data','2/model.onnx','2/toy.onnx.data','README.md','config.pbtxt']

def test_files_that_triton_cannot_serve_are_named(tmp_path):
    (tmp_path/'a.onnx').write_bytes(b'no graph'); (tmp_path/'a.pt2').write_bytes(b'')
    odd = graph(tmp_path, inputs='x')
    for file,said in ((tmp_path/'a.onnx','cannot be opened'), (tmp_path/'a.pt2','Triton takes .onnx'), (odd,'takes x')):
        with pytest.raises(WeightsError, match=said): triton_folder(file, tmp_path/'m')
    with pytest.raises(FileNotFoundError): triton_folder(tmp_path/'b.onnx', tmp_path/'m')
    with pytest.raises(ValueError, match='name a model'): triton_folder(graph(tmp_path), tmp_path/'m', '../out')
    assert not (tmp_path/'m').exists()

def test_an_exported_file_is_served_as_it_is(tmp_path):
    file = graph(tmp_path)
    (tmp_path/'toy.onnx.data').write_bytes(b'numbers')
    predictor = Predictor(file)
    archive = torchserve_archive(predictor, tmp_path/'toy.mar', score_thr=.6)
    with zipfile.ZipFile(archive) as z:
        assert {'model.onnx','toy.onnx.data','rotnb_handler.py'}<={*z.namelist()} and 'config.json' not in z.namelist()
    worker = Worker(archive, tmp_path/'worker')
    assert worker(dict(body=PNG), dict(body=b'')) == [[], dict(error=worker(dict(body=b''))[0]['error'])]
    assert worker.handler.predictor.score_thr==.6 and worker.handler.predictor.detector.file.name=='model.onnx'
    said = (docker_folder(predictor, tmp_path/'docker')/'Dockerfile').read_text()
    assert "Predictor('model/model.onnx')" in said and '"rotnb.cli.serve", "model/model.onnx"' in said
    assert (tmp_path/'docker/model/toy.onnx.data').is_file() and 'onnxruntime==' in (tmp_path/'docker/requirements.txt').read_text()

# --- Label Studio

def interface(labels, control='RectangleLabels', more='', image='$image'):
    inside = ''.join(f'<Label value="{label}"/>' for label in labels)
    return (f'<View><Header value="Ships"/><Image name="image" value="{image}"/>'
            f'<{control} name="label" toName="image"{more}>{inside}</{control}></View>')

def asked_by_label_studio(config, *images): # as 1.23.2 sends it
    at = '2026-11-29T17:25:16.855456Z'
    tasks = [dict(id=i, data=dict(image=image), meta={}, created_at=at, updated_at=at, is_labeled=False, overlap=1,
                  inner_id=i, total_annotations=0, cancelled_annotations=0, total_predictions=0,
                  comment_count=0, unresolved_comment_count=0, last_comment_updated_at=None, project=4, updated_by=None, file_upload=None,
                  comment_authors=[], annotations=[], predictions=[]) for i,image in enumerate(images, 1)]
    return dict(tasks=tasks, project='4.1795972316', label_config=config, params=dict(login=None, password=None, context=None))

SETUP = dict(project='4.1795972316', hostname='http://localhost:8080', access_token='0123456789abcdef', extra_params=None)

@pytest.fixture
def studio(ships, tmp_path):
    (tmp_path/'files').mkdir()
    (tmp_path/'files/a.png').write_bytes(PNG)
    with TestClient(add_label_studio(make_app(ships), root=tmp_path/'files')) as client: yield client

LOCAL = '/data/local-files/?d=a.png'

def test_label_studio_connects_and_gets_regions(studio, ships):
    config,at = interface(ships.vocab),'/label-studio'
    assert studio.get(f'{at}/health').json()['status']=='UP' and studio.get(f'{at}/').status_code==200
    version = studio.post(f'{at}/setup', json=dict(SETUP, schema=config)).json()['model_version']
    assert re.fullmatch(r'rotated_fcos_tiny_synth [0-9a-f]{8}', version)
    answer = studio.post(f'{at}/predict', json=asked_by_label_studio(config, LOCAL, f'data:image/png;base64,{BASE64}'))
    assert answer.status_code==200
    (one,),(two,) = answer.json()['results']
    found = ships(SCENE)
    assert len(one['result'])==len(found)>5 and one['model_version']==version
    assert one['score']==pytest.approx(float(found.scores.mean()), abs=1e-5)
    assert len({row['id'] for row in one['result']})==len(found)
    regions = find_regions([('', i, row) for i,row in enumerate(one['result'])])
    rows = [label_studio_row(region, SCENE.shape[1::-1]) for region in regions]
    np.testing.assert_allclose([row[0] for row in rows], found.quads.reshape(-1,8).numpy(), atol=.01)
    assert [row[1] for row in rows]==found.names
    assert all((row['from_name'],row['to_name'],row['type'],row['original_width'],row['original_height'])==
               ('label','image','rectanglelabels',320,256) for row in one['result'])
    np.testing.assert_allclose([row['score'] for row in one['result']], found.scores.numpy(), atol=1e-5)
    assert studio.get(f'{at}/versions').json()==dict(versions=[version])
    assert studio.post(f'{at}/webhook', json=dict(action='START_TRAINING', project=dict(id=4))).status_code==200
    assert studio.get('/health').json()['ready']                                 # our own routes are there as well

def test_one_broken_task_spoils_no_other(studio, ships, caplog):
    config = interface(ships.vocab)
    images = [LOCAL, '/data/local-files/?d=../secret.png', 'http://10.0.0.7/a.png', 'data:image/png;base64,aGk=', None, 7]
    results = studio.post('/label-studio/predict', json=asked_by_label_studio(config, *images)).json()['results']
    assert len(results[0])==1 and results[1:]==[[]]*5                             # no prediction: it is asked for again
    assert 'task 3: images are not fetched from 10.0.0.7' in caplog.text
    answer = studio.post('/label-studio/predict', json=asked_by_label_studio(config, *images[1:]))
    assert answer.status_code==422 and 'no image of 5 tasks' in answer.json()['detail']
    assert studio.post('/label-studio/predict', json=asked_by_label_studio(config)).json()['results']==[]
    for odd in ({}, dict(tasks=7), dict(tasks=[7]), dict(tasks=[dict(id=1)], label_config='<a')):
        assert studio.post('/label-studio/predict', json=odd).status_code==422

@pytest.mark.parametrize('config,said', [('', 'cannot be read'), ('<View/>', 'add one'), (interface(['cat']), 'predicted_values'),
    (interface(['ship'], image='a.png'), 'add one'), (interface(['ship'], more=' model_score_threshold="high"'), 'score_thr'),
    (interface(['ship'], 'KeyPointLabels'), 'RectangleLabels'), ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', 'not allowed')])
def test_projects_that_cannot_be_helped(studio, config, said):
    answer = studio.post('/label-studio/setup', json=dict(SETUP, schema=config))
    assert answer.status_code==422 and said in answer.json()['detail']

def test_labels_find_their_classes():
    config = ('<View><Image name="a" value="$one"/><Image name="b" value="$two"/>'
              '<Labels name="l" toName="b"><Label value="ship"/></Labels>'
              '<PolygonLabels name="p" toName="b"><Label value="Storage Tank"/><Label alias="vessel" value="Ship"/>'
              '<Label value="Anything" predicted_values="small-vehicle, Large_Vehicle"/></PolygonLabels>'
              '<RectangleLabels name="r" toName="a"><Label value="tree"/></RectangleLabels></View>')
    control = project_control(config, ['ship','storage-tank','small-vehicle','large-vehicle','plane'])
    assert (control.from_name,control.to_name,control.key,control.polygons,control.score_thr)==('p','b','two',True,None)
    assert control.labels=={'ship':'vessel','storage-tank':'Storage Tank','small-vehicle':'Anything','large-vehicle':'Anything'}

def test_the_project_says_the_least_score(studio, ships):
    asked = [asked_by_label_studio(interface(ships.vocab, more=more), LOCAL) for more in (' model_score_threshold="0.6"', '')]
    results = [studio.post('/label-studio/predict', json=one).json()['results'][0][0] for one in asked]
    assert [len(one['result']) for one in results]==[len(ships(SCENE, .6)),len(ships(SCENE))]

def test_quadrilaterals_keep_their_corners_where_polygons_are_drawn():
    quads = torch.tensor([[10.,10,50,12,48,40,12,30]])
    found = Detections(torch.tensor([[30.,23,40,22,.1]]), torch.tensor([.5]), torch.tensor([0]), ['ship'], quads=quads)
    for control in ('PolygonLabels','RectangleLabels'):
        row, = task_prediction(found, project_control(interface(['ship'], control), ['ship']), (100,50))['result']
        place, = [label_studio_row(region, (100,50))[0] for region in find_regions([('', 0, row)])]
        want = quads if control=='PolygonLabels' else found[0:1].boxes
        if control=='PolygonLabels': np.testing.assert_allclose(place, quads[0], atol=1e-4)
        else: assert row['value']['width']==pytest.approx(40) and row['value']['height']==pytest.approx(44)
        assert len(want)==1
    empty = task_prediction(found[:0], project_control(interface(['ship']), ['ship']), (100,50))
    assert empty['result']==[] and empty['score']==0

def refused(images, url, said):
    with pytest.raises(RefusedError, match=said): images(url)

def test_tokens_go_to_label_studio_alone(web):
    elsewhere = web(lambda path, body: (200,{},PNG))
    def answer(path, body):
        if path.startswith('/api/token/refresh'): return 200,{},json.dumps(dict(access=f'short {json.loads(body)["refresh"]}')).encode()
        if 'away' in path: return 303,dict(Location=f'{elsewhere.at}/signed.png'),b''
        if 'file' in path: return 302,dict(Location='file:///etc/passwd'),b''
        if 'round' in path: return 302,dict(Location=path),b''
        return (200,{},PNG) if 'upload' in path else (401,{},b'')
    own = web(answer)
    legacy,personal = TaskImages(own.at, 'abc'),TaskImages(f'{own.at}/', 'a.b.c')
    assert legacy('/data/upload/1/a%20b.png')==PNG and own.asked[-1]==('/data/upload/1/a%20b.png','Token abc')
    assert personal('/data/upload/1/a.png')==PNG and own.asked[-1][1]=='Bearer short a.b.c' and own.asked[-2][1] is None
    assert TaskImages(own.at)('/data/upload/1/a.png')==PNG and own.asked[-1][1] is None
    refused(legacy, '/away', 'not fetched from 127.0.0.1')                        # another port is another server
    for path,said in (('/file','cannot be fetched|only http'), ('/round','cannot be fetched'), ('/nothing','401')):
        refused(legacy, path, said)
    assert not elsewhere.asked
    assert TaskImages(own.at, 'abc', hosts='127.0.0.1')('/away')==PNG and elsewhere.asked==[('/signed.png',None)]
    assert TaskImages(own.at, 'abc', hosts=['*'])(f'{elsewhere.at}/b.png')==PNG and elsewhere.asked[-1]==('/b.png',None)
    refused(TaskImages(own.at, most=9), '/data/upload/1/a.png', 'larger than')
    refused(TaskImages('http://127.0.0.1:9'), '/data/upload/1/a.png', 'cannot be fetched')

def test_local_files_stay_below_their_root(tmp_path):
    (tmp_path/'files/a').mkdir(parents=True); (tmp_path/'files/a/1 ä.png').write_bytes(PNG); (tmp_path/'secret.png').write_bytes(PNG)
    os.symlink(tmp_path/'secret.png', tmp_path/'files/link.png')
    images = TaskImages(root=tmp_path/'files')
    assert images('/data/local-files/?d=a/1%20%C3%A4.png')==images('http://any/data/local-files/?d=a/1+ä.png')==PNG
    for name in ('../secret.png', '%2e%2e/secret.png', f'{tmp_path}/secret.png', 'link.png', 'a', '', '%00'):
        refused(images, f'/data/local-files/?d={name}', 'no image')
    refused(TaskImages(root=tmp_path/'files', most=9), '/data/local-files/?d=a/1+ä.png', 'larger than')

def test_the_environment_says_where_label_studio_is(monkeypatch):
    monkeypatch.setenv('LABEL_STUDIO_URL', 'http://studio:8080/'); monkeypatch.setenv('LABEL_STUDIO_API_KEY', 'key')
    images = TaskImages()
    assert (images.address,images.token)==('http://studio:8080','key') and TaskImages('http://other', 'own').token=='own'
    for url in ('http://studio/a.png', 'https://studio:8080/a.png', 'http://studio:8080@10.0.0.1/a.png', 'http://studio.evil.org:8080/a'):
        refused(images, url, 'not fetched from')
    for url in ('s3://bucket/a.png', 'file:///etc/passwd', 'ftp://studio:8080/a', 'http:///a.png', 'http://studio:port/a',
                'http://studio:8080.evil.org/a'):
        refused(images, url, 'only http|no address')
    monkeypatch.delenv('LABEL_STUDIO_URL')
    refused(TaskImages(), '/data/upload/1/a.png', 'LABEL_STUDIO_URL')

def test_the_command_opens_this_door_too(ships, monkeypatch):
    monkeypatch.setenv('LABEL_STUDIO_API_KEY', 'key')
    with monkeypatch.context() as patched:
        patched.setattr('rotnb.serve.app.serve', lambda predictor, **kw: kw)
        how = run_serve('rotated_fcos_tiny_synth', 'cpu', label_studio='http://studio:8080', task_hosts=('s3.example.org',), port=0)
        assert 'extend' not in run_serve('rotated_fcos_tiny_synth', 'cpu', port=0)
    without_proxies(monkeypatch)
    with serve(ships, wait=False, linger=0, port=0, extend=how['extend']) as server:
        with urlopen(f'{server.url}/label-studio/health', timeout=30) as reply: assert json.load(reply)['status']=='UP'
        body = json.dumps(asked_by_label_studio(interface(ships.vocab), 'http://elsewhere/a.png')).encode()
        asked = Request(f'{server.url}/label-studio/predict', body, {'Content-Type':'application/json'})
        with pytest.raises(HTTPError) as e: urlopen(asked, timeout=30)
        assert 'not fetched from elsewhere' in json.load(e.value)['detail']

# --- Docker

@pytest.fixture(scope='module')
def folder(ships, tmp_path_factory): return docker_folder(ships, tmp_path_factory.mktemp('docker')/'Ships at sea', port=8123)

def instructions(folder):
    lines = [line for line in (folder/'Dockerfile').read_text().splitlines() if not line.startswith('#')]
    return [tuple(line.split(' ', 1)) for line in lines]

def test_the_folder_holds_what_its_dockerfile_copies(folder, ships):
    said = instructions(folder)
    assert said[0][0]=='FROM' and said[-1][0]=='CMD' and {word for word,_ in said}<=set(
        'FROM WORKDIR RUN COPY USER ENV EXPOSE HEALTHCHECK CMD'.split())
    for word,rest in said:
        if word=='COPY': assert (folder/rest.split()[0]).exists()
    assert (folder/'rotnb/weights').is_dir() and not [*folder.rglob('__pycache__')]
    assert '-t ships-at-sea ' in (folder/'Dockerfile').read_text()
    needs = dict(line.split('==') for line in (folder/'requirements.txt').read_text().split())
    assert {'fastai','timm','fastapi','uvicorn'}<=needs.keys() and not {'torch','torchvision','pytest'}&needs.keys()
    libs = pinned('serve')
    assert f'torch=={libs["torch"]} torchvision=={libs["torchvision"]}' in (folder/'Dockerfile').read_text() and '+' not in libs['torch']

def test_a_gpu_has_the_usual_torch(ships, tmp_path):
    text = (docker_folder(ships, tmp_path/'a', device='cuda')/'Dockerfile').read_text()
    assert '--gpus all' in text and 'index-url' not in text
    with pytest.raises(ValueError, match='cpu'): docker_folder(ships, tmp_path/'b', device='tpu')

@pytest.mark.slow
def test_the_lines_of_the_dockerfile_run(folder, ships):
    "What needs neither root nor an index: the trial of the build, the service, its check of health, its stop"
    said,env = instructions(folder),{**os.environ, 'PYTHONPATH':str(folder), 'no_proxy':'*'}
    trial, = (rest for word,rest in said if word=='RUN' and rest.startswith('python '))
    subprocess.run(trial.replace('python', sys.executable, 1), shell=True, cwd=folder, env=env, check=True, timeout=300)
    def words(rest): return [sys.executable if word=='python' else word for word in json.loads(rest[rest.index('['):])]
    health = words(next(rest for word,rest in said if word=='HEALTHCHECK'))
    service = subprocess.Popen(words(said[-1][1]), cwd=folder, env=env)
    try:
        for _ in range(120):
            time.sleep(1)
            if not (down := subprocess.run(health, env=env, capture_output=True).returncode): break
        assert not down
        with urlopen('http://127.0.0.1:8123/predict', PNG, timeout=60) as reply: assert json.load(reply)['count']==len(ships(SCENE))
    finally: service.terminate()
    assert service.wait(60)==0
