"The server as its clients see it: every way in, every form out, everything that is refused, and nothing lost when it is full or stops"
import base64, io, json, os, signal, socket, struct, subprocess, sys, threading, time, zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import httpx, numpy as np, pytest, torch
from fastapi.testclient import TestClient
from PIL import Image
from rotnb.models.contract import create_detector
from rotnb.predict.predictor import Predictor
from rotnb.predict.scene import predict_scene
from rotnb.serve.app import make_app, serve
from rotnb.serve.client import Served

SMALL = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))

def make_predictor(**kw):
    torch.manual_seed(0)
    detector = create_detector('rotated_fcos', 3, **SMALL, score_thr=0., max_per_img=10)
    return Predictor(detector, ['ship','plane','car'], **{**dict(score_thr=0.), **kw})

def noise(h=64, w=96, seed=0): return np.random.default_rng(seed).integers(0, 255, (h,w,3), np.uint8)
def stored(pixels, kind='PNG', **kw):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **kw)
    return file.getvalue()

PNG = stored(noise())
def client(app=None, **kw): return TestClient(app or make_app(make_predictor(), **kw), raise_server_exceptions=False)
def quads(rows): return torch.tensor([row['quad'] for row in rows])
def boxes(reply): return torch.tensor([row['box'] for row in reply.json()['detections']])

@pytest.fixture(scope='module')
def plain(): return client()

# --- ways in, forms out

@pytest.mark.parametrize('kind', ['PNG','JPEG','WEBP','BMP','TIFF','JPEG2000'])
def test_every_kind_of_image(plain, kind):
    data = stored(noise(), kind)
    assert torch.equal(boxes(plain.post('/predict', content=data)), make_predictor()(data).boxes)

def test_exif_and_sixteen_bits_are_as_the_predictor_has_them(plain):
    exif = Image.Exif(); exif[274] = 6
    turned,deep = stored(noise(), 'JPEG', exif=exif),io.BytesIO()
    Image.fromarray(noise()[...,0].astype(np.uint16)*200).save(deep, 'PNG')
    for data in (turned, deep.getvalue()):
        reply = plain.post('/predict', content=data)
        assert torch.equal(boxes(reply), make_predictor()(data).boxes)
    assert plain.post('/predict', content=turned).json()['image']==dict(width=64, height=96)

@pytest.mark.parametrize('header', ['image/png','application/octet-stream','application/x-www-form-urlencoded','text/plain',''])
def test_bytes_under_any_header(plain, header):
    assert len(boxes(plain.post('/predict', content=PNG, headers={'content-type':header})))==10

def test_options_come_in_the_address_in_a_form_and_in_json(plain):
    want = make_predictor()(PNG, max_dets=3, agnostic_nms=True, iou_thr=.5).boxes
    own = dict(max_dets=3, agnostic_nms=True, iou_thr=.5)
    text = {name:str(value).lower() for name,value in own.items()}
    replies = [plain.post('/predict', content=PNG, params=text), plain.post('/predict', files=dict(image=('a.png', PNG)), data=text),
               plain.post('/predict', json=dict(image=base64.b64encode(PNG).decode(), **own)),
               plain.post('/predict', params=text, json=dict(image='data:image/png;base64,'+base64.b64encode(PNG).decode()))]
    assert all(torch.equal(boxes(reply), want) for reply in replies)

def test_score_thr_of_a_request(plain):
    scores = make_predictor()(PNG).scores
    thr = float(scores[4])-1e-7
    assert len(boxes(plain.post('/predict', content=PNG, params=dict(score_thr=thr))))==len(make_predictor()(PNG, thr))==5
    assert plain.post('/predict', content=PNG, params=dict(score_thr=1)).json()['count']==0

def test_views():
    "A request asks for views, in every way; or the server has them, and a request that there be one; scenes too"
    predictor,other = make_predictor(),dict(params=dict(tta='flips'))
    one,four = (looks(PNG, max_dets=5).boxes for looks in (predictor, predictor.with_views('flips')))
    scene = predict_scene(predictor.with_views('flips'), noise(), size=64, overlap=16, score_thr=0., progress=False)
    assert not torch.allclose(one, four)
    with client(tta='flips') as served, client() as plain:
        for web,params,want in ((plain,{},one), (plain,dict(tta='flips'),four), (plain,dict(tta='none'),one), (served,{},four),
                                (served,dict(tta='none'),one)):
            assert torch.allclose(boxes(web.post('/predict', content=PNG, params={**params, 'max_dets':5})), want, atol=1e-3), params
            assert web.get('/model').json()['tta']==('flips' if web is served else None)
        for web,tta in ((plain,dict(tta='flips')), (served,{})):
            found = boxes(web.post('/scene', content=PNG, params={**tta, 'size':64, 'overlap':16}))
            assert len(found)==len(scene) and torch.allclose(found, scene.boxes, atol=1e-2)
        reply = plain.post('/predict', content=PNG, params=dict(tta='flip'))
        assert reply.status_code==422 and "'flips'" in reply.json()['detail'] and not plain.post('/scene', content=PNG).is_error
    refused = client(max_windows=4).post('/scene', content=PNG, params=dict(tta='all'))
    assert refused.status_code==413 and 'views' in refused.json()['detail']
    with pytest.raises(ValueError, match="tta is 'flip'"): make_app(predictor, tta='flip')

def test_forms_of_answers(plain):
    want = make_predictor()(PNG)
    ask = lambda form, **kw: plain.post('/predict', content=PNG, params=dict(format=form, **kw))
    assert ask('coco', image_id=9, rbox='deg').json()==want.to_coco(9, rbox='deg')
    assert ask('geojson').json()['features']==want.to_geojson()['features']
    assert ask('geojson').headers['content-type']=='application/geo+json'
    assert ask('csv').text==want.df.to_csv(index=False)
    rows = ask('json').json()['detections']
    assert torch.equal(quads(rows), want.quads.float().reshape(-1,4,2)) and [row['name'] for row in rows]==want.names
    assert torch.equal(torch.tensor([row['score'] for row in rows]), want.scores)

def test_a_detector_of_corners():
    torch.manual_seed(0)
    detector = create_detector('gliding_vertex', 2, backbone='test_resnet', pretrained=False, fpn_channels=16, score_thr=0., max_per_img=5)
    predictor = Predictor(detector, score_thr=0.)                    # without names as well
    rows = client(make_app(predictor)).post('/predict', content=PNG).json()['detections']
    want = predictor(PNG)
    assert torch.allclose(quads(rows), want.quads.float().reshape(-1,4,2), atol=1e-3) and rows[0]['name'].startswith('class ')

def test_headings_reach_every_client():
    "In each form, of the class that has a front, and in what a program far away takes for a predictor"
    torch.manual_seed(0)
    detector = create_detector('rotated_fcos', 3, **SMALL, heading=True, score_thr=0., max_per_img=20)
    detector.vocab,detector.symmetry = ['ship','plane','tank'],{'plane':360, 'tank':'round'}
    predictor = Predictor(detector, score_thr=0.)
    want,web = predictor(PNG),client(make_app(predictor))
    fronts,is_plane = want.heading.tolist(),np.array(want.names)=='plane'
    assert 0<is_plane.sum()<len(want) and (np.isfinite(fronts)==is_plane).all()
    reply = web.post('/predict', content=PNG).json()
    said = [row.get('heading') for row in reply['detections']]
    assert reply['has_heading'] and [o is not None for o in said]==is_plane.tolist()
    np.testing.assert_allclose(np.array(said)[is_plane].astype(float), np.array(fronts)[is_plane], atol=2e-6)
    features = web.post('/predict', content=PNG, params=dict(format='geojson')).json()['features']
    assert ['heading' in o['properties'] for o in features]==is_plane.tolist()
    coco = web.post('/predict', content=PNG, params=dict(format='coco')).json()
    degrees = [o['attributes']['heading'] for o in coco if 'attributes' in o]
    np.testing.assert_allclose(np.radians(degrees), np.array(fronts)[is_plane], atol=1e-5)
    said = web.get('/openapi.json').json()['paths']['/predict']['post']['responses']['200']
    row = said['content']['application/json']['schema']
    assert 'has_heading' in row['properties'] and 'heading' in row['properties']['detections']['items']['properties']
    with serve(predictor, port=0, wait=False, linger=0) as server:
        far = Served(server.url)
        found,many = far.predict_image(noise()),far.predict_images([noise(),noise(seed=1)], progress=False)
    np.testing.assert_allclose(found.heading, want.heading, atol=1e-5)
    assert all('heading' in o for o in many) and 'heading' not in client().post('/predict', content=PNG).json()['detections'][0]

# --- what is refused

def chunk(kind, data): return struct.pack('>I', len(data))+kind+data+struct.pack('>I', zlib.crc32(kind+data))
def claims(w, h): # a PNG whose header says so
    return b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0))+chunk(b'IDAT', b'')+chunk(b'IEND', b'')

def test_what_cannot_be_meant(plain):
    text,form = {'content-type':'application/json'},{'content-type':'multipart/form-data'}
    def image(data, **params): return dict(content=data, params=params)
    cases = [(dict(), 400, 'there is no image'), (image(b'hello'), 415, 'send one of jpg'), (image(b'%!PS-Adobe-3.0'), 415, 'no image'),
        (image(PNG[:50]), 422, 'whole'), (image(PNG[:-60]), 422, 'whole'), (image(stored(noise(), 'JPEG')[:300]), 422, 'whole'),
        (image(claims(20_000, 20_000)), 413, '/scene'), (image(claims(2**31-1, 2**31-1)), 413, 'px'),
        (image(claims(5000, 5000)), 413, 'is seen as'), (image(claims(0, 5)), 422, 'read'), (image(bytes(2**25+1)), 413, 'smaller'),
        (image(PNG, score_thr=30), 422, '0.3 for 30 %'), (image(PNG, score_thr='nan'), 422, '0 to 1'),
        (image(PNG, score_thrs=.3), 422, "did you mean 'score_thr'?"), (image(PNG, max_dets=-1), 422, '1 or more'),
        (image(PNG, format='shp'), 422, 'csv'), (image(PNG, format='geojson', crs='lonlat'), 422, 'no place'),
        (dict(content=b'{', headers=text), 400, 'no JSON'), (dict(content=b'['*10**5, headers=text), 400, 'no JSON'),
        (dict(json=[]), 422, 'object'), (dict(json={}), 400, 'no image'), (dict(json=dict(image=5)), 422, 'base64'),
        (dict(json=dict(image='no base64!')), 422, 'base64'),
        (dict(json=dict(image=base64.b64encode(PNG).decode(), max_dets='x')), 422, 'whole number'),
        (dict(data=dict(a=1), files=dict(b=('', b''))), 400, 'no'), (dict(files=[('a',('a',PNG)),('b',('b',PNG))]), 400, 'files'),
        (dict(content=PNG, headers=form), 400, '')]
    for sent,status,says in cases:
        reply = plain.post('/predict', **sent)
        assert reply.headers['content-type']=='application/problem+json', (sent, reply.text[:200])
        problem = reply.json()
        assert reply.status_code==status and problem['status']==reply.status_code, (status, problem)
        assert says in problem['detail'], problem
        assert '/work' not in reply.text and 'BytesIO' not in reply.text and 'Traceback' not in reply.text
    assert len(boxes(plain.post('/predict', content=PNG)))==10                                       # and it still works

def test_random_damage_is_never_a_fault_of_the_server(plain):
    rng = np.random.default_rng(0)
    tiff = stored(noise(), 'TIFF', compression='tiff_deflate')
    for data in (PNG, tiff, *(stored(noise(), kind) for kind in ('JPEG','WEBP','BMP','JPEG2000'))):
        for _ in range(12):
            bad = bytearray(data)
            for at in rng.integers(4, len(bad), 8): bad[at] = rng.integers(256)
            assert plain.post('/predict', content=bytes(bad[:rng.integers(8, len(bad))])).status_code in (200,413,415,422)

def test_routes_that_are_not_there(plain):
    asked = [(plain.get('/x'),404), (plain.get('/predict'),405), (plain.post('/model'),405), (plain.get('/../etc/passwd'),404)]
    for reply,status in asked:
        assert (reply.status_code,reply.json()['status'])==(status,status)

def test_what_fails_inside_says_nothing_of_it(caplog):
    predictor = make_predictor()
    app = make_app(predictor)
    def broken(*_, **__): raise RuntimeError('secret of the machine')
    predictor.detect_rows = broken
    reply = client(app).post('/predict', content=PNG)
    assert reply.status_code==500 and 'secret' not in reply.text and 'log' in reply.json()['detail']

@pytest.mark.parametrize('path', ['/predict','/scene'])
def test_a_client_that_goes_while_it_sends_is_no_fault(path, caplog):
    with serve(make_predictor(), port=0, wait=False, linger=0) as server:
        where = server.url.split('/')[-1].split(':')
        with socket.create_connection((where[0],int(where[1]))) as line:
            line.sendall(f'POST {path} HTTP/1.1\r\nHost: {where[0]}\r\nContent-Length: 1000\r\n\r\nabc'.encode())
            time.sleep(.2)
        ends = time.monotonic()+60
        while not server.service.answered and time.monotonic()<ends: time.sleep(.05)
        assert server.service.answered==1 and httpx.post(f'{server.url}/predict', content=PNG, trust_env=False).status_code==200
    assert 'Exception' not in caplog.text

def test_rate_of_a_client():
    own = client(rate=2)
    codes = [own.post('/predict', content=PNG).status_code for _ in range(4)]
    reply = own.post('/predict', content=PNG)
    assert codes[:2]==[200,200] and reply.status_code==429 and int(reply.headers['retry-after'])>=1 and own.get('/health').status_code==200

def test_arguments_of_make_app():
    for kw,says in ((dict(queue=0),'queue is 0'), (dict(timeout='5'),'timeout'), (dict(max_batches=2),"did you mean 'max_batch'?"),
                    (dict(rate=-1),'rate'), (dict(max_batch=0),'max_batch')):
        with pytest.raises((ValueError,TypeError), match=says.replace('?', r'\?')): make_app(make_predictor(), **kw)
    with pytest.raises(ValueError, match='predictor'): make_app('rotated_fcos')
    with pytest.raises(FileNotFoundError): make_app(make_predictor(), roots=['no_such_folder'])

def test_no_other_origin_reads_it_unless_allowed(plain):
    ask = dict(origin='https://maps.example')
    assert 'access-control-allow-origin' not in plain.get('/model', headers=ask).headers
    assert client(cors='https://maps.example').get('/model', headers=ask).headers['access-control-allow-origin']=='https://maps.example'
    assert client(hosts=['a.example']).get('/model').status_code==400

def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'fastapi', None)
    with pytest.raises(ImportError, match="rotnb's extra 'serve'"): make_app(make_predictor())

# --- scenes

def test_a_scene_by_upload_and_by_path(tmp_path, plain):
    data = stored(noise(200, 300))
    (tmp_path/'in/deep').mkdir(parents=True)
    (tmp_path/'in/deep/a.png').write_bytes(data); (tmp_path/'out.png').write_bytes(data); (tmp_path/'in/secret.txt').write_bytes(data)
    (tmp_path/'in/link.png').symlink_to(tmp_path/'out.png'); (tmp_path/'in/dir.png').mkdir()
    own,how = client(roots=[tmp_path/'in']),dict(size=128, overlap=32, max_dets=20)
    want = predict_scene(make_predictor(), tmp_path/'out.png', size=128, overlap=32, max_dets=20, bs=2, progress=False)
    replies = [own.post('/scene', params=dict(how, path='deep/a.png')), own.post('/scene', json=dict(how, path='deep/a.png')),
               own.post('/scene', params=dict(how, path=str(tmp_path/'in/deep/a.png'))), plain.post('/scene', content=data, params=how),
               plain.post('/scene', files=dict(scene=('a.tif', data)), data=how)]
    for reply in replies: assert torch.equal(boxes(reply), want.boxes) and reply.json()['image']==dict(width=300, height=200), reply.text
    for path in ('../out.png', str(tmp_path/'out.png'), 'link.png', 'secret.txt', 'dir.png', 'no.png', 'deep', '', '\0',
                 'a'*5000+'.png', '/etc/passwd', 'deep/../../out.png', '%2e%2e/out.png', '~/a.png', '*.png'):
        reply = own.post('/scene', params=dict(path=path))
        assert reply.status_code==404 and 'below the folders' in reply.json()['detail'], (path, reply.text)
    assert plain.post('/scene', params=dict(path='a.png')).status_code==403

def test_progress_of_a_scene(plain):
    reply = plain.post('/scene', content=stored(noise(200, 300)), params=dict(size=128, overlap=32, progress=True, format='csv'))
    *lines,last = map(json.loads, reply.text.splitlines())
    assert reply.headers['content-type']=='application/x-ndjson' and lines[-1]==dict(done=6, of=6) and last['answer'].startswith('name,')
    broken = plain.post('/scene', content=claims(300, 200), params=dict(size=128, progress=True)).text.splitlines()
    assert json.loads(broken[-1])['error']['status']==422

def test_what_is_no_scene(tmp_path, plain):
    cases = [(b'', {}, 400), (b'<VRTDataset rasterXSize="9" rasterYSize="9">', {}, 415), (PNG[:60], {}, 422), (PNG, dict(size=9), 422),
             (PNG, dict(overlap=2000), 422), (PNG, dict(scales='0'), 422), (PNG, dict(scales='1e9'), 422),
             (PNG, dict(scales='1e-9'), None),
             (PNG, dict(format='geojson', crs='lonlat'), 422), (PNG, dict(cut='no'), 422), (PNG, dict(scales=',,'), 422),
             (claims(10**5, 10**5), {}, 422), (stored(noise(200, 300)), dict(size=64, overlap=63, scales='32'), 413)]
    for data,params,status in cases:
        reply = plain.post('/scene', content=data, params=params)
        assert reply.status_code==status if status else reply.status_code<500, (params, reply.text)
        assert str(tmp_path) not in reply.text and 'tmp' not in reply.text, reply.text

def test_what_must_be_decoded_at_once():
    "A PNG and a TIFF of one strip are decoded as a whole for any window, a tiled TIFF is not"
    pytest.importorskip('rasterio')
    from rasterio.io import MemoryFile
    own,pixels = client(max_at_once=20_000),noise(200, 300)
    with MemoryFile() as tiled:
        with tiled.open(driver='GTiff', width=300, height=200, count=3, dtype='uint8', tiled=True, blockxsize=64, blockysize=64) as ds:
            ds.write(pixels.transpose(2, 0, 1))
        assert own.post('/scene', content=tiled.read()).status_code==200
    for data in (stored(pixels), stored(pixels, 'TIFF', compression='tiff_deflate', strip_size=10**6)):
        reply = own.post('/scene', content=data)
        assert reply.status_code==413 and 'TILED=YES' in reply.json()['detail']

def test_a_scene_on_the_map(tmp_path, plain):
    rasterio = pytest.importorskip('rasterio')
    file = tmp_path/'a.tif'
    with rasterio.open(file, 'w', driver='GTiff', width=96, height=64, count=3, dtype='uint8', crs='EPSG:32633',
                       transform=rasterio.Affine(.5, 0, 5e5, 0, -.5, 4.6e6)) as ds: ds.write(noise().transpose(2, 0, 1))
    want = make_predictor().predict_scene(file, progress=False)
    for crs in (None, 'lonlat'):
        got = plain.post('/scene', content=file.read_bytes(), params=dict(format='geojson', **(dict(crs=crs) if crs else {})))
        assert got.json()['features']==want.to_geojson(crs=crs)['features']

# --- many at once

@contextmanager
def held(predictor):
    "The detector waits until the block ends"
    gate,look = threading.Event(),predictor.detect_rows
    def waits(*args, **kwargs): gate.wait(30); return look(*args, **kwargs)
    predictor.detect_rows = waits
    try: yield gate
    finally: gate.set(); del predictor.detect_rows

@contextmanager
def running(predictor, **kw):
    with serve(predictor, port=0, wait=False, linger=0, **kw) as server:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as web: yield server,web

def wait_for(what, seconds=20):
    end = time.monotonic()+seconds
    while not what():
        assert time.monotonic()<end, 'it did not happen'
        time.sleep(.005)

def metric(web, name): return sum(float(line.split()[-1]) for line in web.get('/metrics').text.splitlines() if line.startswith(name))

def test_many_clients_share_batches():
    predictor = make_predictor()
    images = [noise(64, 64+32*(i%3==0), i) for i in range(12)]
    want = [predictor(image) for image in images]
    with running(predictor, max_batch=4) as (server,web), ThreadPoolExecutor(12) as pool:
        with held(predictor) as gate:
            replies = [pool.submit(web.post, '/predict', content=stored(image)) for image in images]
            wait_for(lambda: len(server.service.shared.batcher.line)==11-0 or len(server.service.shared.batcher.line)>=8)
            gate.set()
            for one,reply in zip(want, replies): torch.testing.assert_close(boxes(reply.result()), one.boxes, atol=1e-3, rtol=0)
        assert metric(web, 'rotnb_batch_size_sum')==metric(web, 'rotnb_images_total')==13              # with the black one
        assert metric(web, 'rotnb_batch_size_count')<=8 and metric(web, 'rotnb_requests_total{route="/predict"')==12

def test_more_than_the_line_holds():
    "Who comes late is told so at once; all others are answered, and the counts add up"
    predictor = make_predictor()
    with running(predictor, queue=5) as (server,web), ThreadPoolExecutor(20) as pool:
        with held(predictor) as gate:
            replies = [pool.submit(web.post, '/predict', content=PNG) for _ in range(20)]
            wait_for(lambda: sum(reply.done() for reply in replies)==15)
            assert web.get('/health').json()==dict(ready=True, open=5, scenes=0)
            gate.set()
            codes = [reply.result().status_code for reply in replies]
        late = next(reply.result() for reply in replies if reply.result().status_code==503)
        assert sorted(codes)==[200]*5+[503]*15 and late.headers['retry-after']=='1' and 'come again' in late.json()['detail']
        assert [server.service.open, web.post('/predict', content=PNG).status_code]==[0,200]

def test_an_answer_that_comes_too_late():
    predictor = make_predictor()
    with running(predictor, timeout=.3) as (server,web):
        with held(predictor):
            reply = web.post('/predict', content=PNG)
            assert reply.status_code==504 and 'retry-after' in reply.headers
        def slowly():
            yield PNG[:100]; time.sleep(.8); yield PNG[100:]
        assert web.post('/predict', content=slowly()).status_code==408
        assert web.post('/scene', content=slowly()).status_code==408
        wait_for(lambda: server.service.open==server.service.scenes_open==0)
        assert web.post('/predict', content=PNG).status_code==200

def test_images_do_not_wait_for_a_whole_scene():
    predictor = make_predictor()
    with running(predictor) as (server,web), ThreadPoolExecutor(1) as pool:
        scene = pool.submit(web.post, '/scene', content=stored(noise(600, 600)), params=dict(size=64, overlap=0))
        wait_for(lambda: metric(web, 'rotnb_windows_total')>0)
        assert web.post('/predict', content=PNG).status_code==200 and not scene.done()
        assert scene.result().status_code==200 and metric(web, 'rotnb_windows_total')==100

@pytest.mark.parametrize('progress', [False,True])
def test_a_scene_ends_when_its_client_goes(progress):
    predictor = make_predictor()
    with running(predictor, scenes=1) as (server,web):
        sent = dict(content=stored(noise(1000, 1000)), params=dict(size=64, overlap=32, progress=progress))
        with pytest.raises(httpx.TimeoutException):
            with web.stream('POST', '/scene', timeout=.5, **sent) as reply:
                for _ in reply.iter_lines(): time.sleep(.2); raise httpx.ReadTimeout('gone')
        wait_for(lambda: server.service.scenes_open==0)
        done = metric(web, 'rotnb_windows_total')
        assert done<900
        assert web.post('/scene', content=PNG).status_code==200

def test_one_scene_more_than_is_taken():
    predictor = make_predictor()
    with running(predictor, scenes=1) as (server,web), ThreadPoolExecutor(1) as pool, held(predictor) as gate:
        first = pool.submit(web.post, '/scene', content=PNG)
        wait_for(lambda: server.service.scenes_open==1)
        late = web.post('/scene', content=PNG)
        assert (late.status_code,late.headers['retry-after'])==(503,'30')
        gate.set()
        assert first.result().status_code==200

def test_it_stops_when_all_is_answered():
    predictor = make_predictor()
    with ThreadPoolExecutor(8) as pool:
        with running(predictor, max_batch=2) as (server,web), held(predictor) as gate:
            replies = [pool.submit(web.post, '/predict', content=stored(noise(seed=i))) for i in range(6)]
            replies.append(pool.submit(web.post, '/scene', content=PNG))
            wait_for(lambda: server.service.open==6 and server.service.scenes_open==1)
            end = pool.submit(server.stop)
            wait_for(lambda: server.uvicorn.should_exit)
            time.sleep(.3)
            assert not end.done()
            gate.set()
            end.result()
            assert [reply.result().status_code for reply in replies]==[200]*7
        assert server.service.taken==server.service.answered and server.service.open==0

def test_newcomers_are_told_that_it_stops():
    with running(make_predictor()) as (server,web):
        server.service.stopping = True
        replies = [web.post('/predict', content=PNG), web.post('/scene', content=PNG), web.get('/health/ready')]
        assert [reply.status_code for reply in replies]==[503]*3 and 'stopping' in replies[0].json()['detail']
        assert replies[0].headers['connection']=='close' and web.get('/health/live').status_code==200

@pytest.mark.parametrize('sig', [signal.SIGTERM,pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_command_under_load_and_a_signal(sig):
    "The real command in a process of its own: what it took it answered, and it says so"
    cmd = [sys.executable,'-m','rotnb.cli.serve','rotated_fcos_tiny_synth','--port','0','--device','cpu','--queue','4']
    env = {**os.environ, 'OMP_NUM_THREADS':'1', 'NUMBA_NUM_THREADS':'1'}
    with subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        line = process.stdout.readline()
        url,codes,stop = line.split(' at ')[1].split(',')[0],[],threading.Event()
        def ask():
            while not stop.is_set():
                try: codes.append(httpx.post(f'{url}/predict', content=PNG, trust_env=False, timeout=60).status_code)
                except httpx.TransportError: return                          # nobody listens any more
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads: thread.start()
        wait_for(lambda: codes.count(200)>=4, 60)
        process.send_signal(sig)
        out,err = process.communicate(timeout=60)
        stop.set()
        for thread in threads: thread.join()
    n = len(codes)
    assert process.returncode==(0 if sig==signal.SIGTERM else 130), err
    assert f'{n} of {n} requests are answered' in out, (out, n, err)
    assert set(codes)<={200,503} and 'Traceback' not in err
