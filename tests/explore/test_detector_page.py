"A page with a detector: pixels, boxes and windows as in Python, and what a person meets in Chromium"
import base64, hashlib, json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
import numpy as np, pytest, torch
from PIL import Image
from legible import faint, unnamed
from exported import tiny_predictor
from scripts import node
from spot import spot_network, spot_notes
from rotnb.data.images.windows import window_grid
from rotnb.data.labels.download import DownloadError
from rotnb.data.synth.scenes import make_scene
from rotnb.explore.detector_page import PageError, export_page, fetch_runtime
from rotnb.geometry.boxes import canonicalize, qbox2rbox, rbox2qbox
from rotnb.ops.convex import box_iou_quad
from rotnb.ops.iou import box_iou_rotated
from rotnb.ops.nms import batched_nms_rotated
from rotnb.predict.fit import ImageFit
from rotnb.predict.results import geojson
from rotnb.predict.rows import rows_back

rng = np.random.default_rng

# --- pixels

FITS = dict(resized=dict(size=(320,256)), turned=dict(size=(200,320)), kept=dict(size=None), small=dict(size=(600,600), grow=False),
            full=dict(size=(320,256), pad_full=True, pad_value=114), letterbox=dict(size=(320,256), rule='letterbox', pad_value=114),
            square=dict(size=(96,96), rule='letterbox'))
SIZES = (300,200),(480,640),(133,100),(320,256),(640,512),(5,7),(1,1),(217,333),(100,320)

INPUTS = """data.map(({ fit, wh, rgba }) => {
    const own = inputOf(fit), way = wayOf(own, wh), pixels = { data: Buffer.from(rgba, 'base64'), width: wh[0], height: wh[1] }
    const { pixels: planes, wh: out } = inputFor(own, way, pixels)
    return { planes: Buffer.from(planes).toString('base64'), out, scale: way.scale, shift: way.shift } })"""

@pytest.mark.parametrize('name', FITS)
def test_pixels_as_image_fit_makes_them(name):
    settings,cases,wants = dict(grow=True, pad_to=32, pad_full=False, pad_value=None, inside=False, rule='mmcv') | FITS[name],[],[]
    fit = ImageFit(**settings, stats=((0,0,0),(1,1,1)))
    fixed = settings['pad_full'] or settings['rule']=='letterbox'
    for i,(w,h) in enumerate(SIZES):
        px = rng(i).integers(0, 256, (h,w,3), dtype=np.uint8)
        about = dict(dynamic=not fixed, size=settings['size'], predictor=dict(settings, stats=fit.stats))
        rgba = base64.b64encode(np.dstack([px, np.full((h,w), 255, np.uint8)]).tobytes()).decode()
        cases.append(dict(fit=about, wh=(w,h), rgba=rgba))
        ready,way = fit.resized(px),fit.way((w,h))
        if settings['pad_full']:
            whole = np.full((*way.out[::-1],3), 114, np.uint8)
            whole[:ready.shape[0],:ready.shape[1]] = ready
            ready = whole
        wants.append((ready, torch.linalg.inv(way.back)))
    for got,(want,mat) in zip(node(['common','fit'], INPUTS, cases), wants):
        assert got['out']==list(want.shape[1::-1])
        planes = np.frombuffer(base64.b64decode(got['planes']), np.uint8).reshape(3, *want.shape[:2]).transpose(1,2,0)
        differ = np.abs(planes.astype(int)-want)
        assert differ.max()<=settings['rule'].count('letterbox') and (differ>0).mean()<2e-3        # Pillow's last bit, OpenCV's never
        np.testing.assert_allclose([got['scale'],got['shift']], [mat.diag()[:2],mat[:2,2]], atol=1e-9)

PLACED = """data.cases.map(({ fit, wh }) => {
    const own = inputOf(fit), way = wayOf(own, wh)
    const found = data.rows.map(row => placed(row, own, way, [30, 50], 'le90')).filter(Boolean)
    return found.map(o => [...o.box, o.score, o.label, ...o.quad]) })"""

def test_boxes_and_corners_come_back_as_in_python():
    sides,cases,wants = dict(grow=True, pad_to=32, pad_full=False, pad_value=None, stats=((0,0,0),(1,1,1))),[],[]
    box = boxes(60, 7, 300)
    box[:,4] %= np.pi/2
    quads = (rbox2qbox(box)+rng(8).uniform(-2, 2, (60,4,2))).reshape(-1,8)
    scores,labels = rng(9).uniform(size=60),rng(9).integers(0, 3, 60)
    rows = torch.tensor(np.c_[box,scores,labels,quads])
    for rule,inside,wh in (('mmcv',False,(333,217)), ('mmcv',True,(300,150)), ('letterbox',True,(217,333)), ('letterbox',False,(500,100))):
        fit = ImageFit((320,256), rule=rule, inside=inside, **sides)
        predictor = dict(sides, size=(320,256), rule=rule, inside=inside)
        cases.append(dict(wh=wh, fit=dict(size=(320,256), dynamic=rule=='mmcv', predictor=predictor)))
        wants.append(rows_back(rows, fit.way(wh), torch.tensor([[1.,0,30],[0,1,50]])))
    given = [dict(box=b, quad=q, score=s, label=int(c)) for b,q,s,c in zip(box.tolist(), quads.tolist(), scores, labels)]
    got = node(['common','boxes','fit','merge'], PLACED, dict(cases=cases, rows=given))
    assert [len(o) for o in got]==[len(o) for o in wants] and len(wants[0])==60 and min(map(len, wants))<60
    for own,want in zip(got, wants): np.testing.assert_allclose(own, want, rtol=1e-5, atol=1e-4)

# --- boxes

def boxes(n, seed, span=120):
    o = rng(seed)
    return np.c_[o.uniform(0, span, (n,2)), o.uniform(4, 60, (n,2)), o.uniform(-4, 4, n)]

def test_overlap():
    a,b = boxes(200, 0),boxes(200, 1)
    b[:40] = a[:40]+rng(2).normal(0, .5, (40,5))*[1,1,1,1,.02]
    b[40:50] = a[40:50]
    quads = rbox2qbox(a)+rng(3).uniform(-3, 3, (200,4,2))
    along,ahead = np.roll(quads, -1, 1)-quads,np.roll(quads, -2, 1)-np.roll(quads, -1, 1)
    convex = (along[...,0]*ahead[...,1]>along[...,1]*ahead[...,0]).all(1)
    pairs = [[rbox2qbox(p).reshape(-1).tolist(),rbox2qbox(q).reshape(-1).tolist()] for p,q in zip(a, b)]
    bent = [[q.reshape(-1)[::-1].reshape(4,2)[:,::-1].reshape(-1).tolist() if i%2 else q.reshape(-1).tolist(),pairs[i][1]]
            for i,q in enumerate(quads) if convex[i]]
    code = 'data.map(list => list.map(([p, q]) => iou(p, q)))'
    got = node(['common','boxes','fit','merge'], code, [pairs,bent])
    np.testing.assert_allclose(got[0], box_iou_rotated(torch.tensor(a), torch.tensor(b), aligned=True), atol=1e-6)
    want = box_iou_quad(torch.tensor([p for p,_ in bent]).double(), torch.tensor([q for _,q in bent]).double(), aligned=True)
    assert len(bent)>50
    np.testing.assert_allclose(got[1], want, atol=1e-6)

def test_nms_windows_and_spelling():
    o = boxes(400, 4, 300)
    scores,labels = rng(5).uniform(size=400),rng(6).integers(0, 3, 400)
    scores[:50] = .5
    found = [dict(quad=q, score=s, label=int(c), i=i) for i,(q,s,c) in enumerate(zip(rbox2qbox(o).reshape(-1,8).tolist(), scores, labels))]
    forms,grids = ('le90','le135','oc'),[(900,700,320),(320,320,320),(100,5000,1024),(1025,1024,1024),(640,641,256),(8,9,32)]
    code = """({ kept: nms(data.found, .1).map(o => o.i), windows: data.grids.map(([w, h, size]) => windowsOf([w, h], size)),
        rects: data.forms.map(form => data.quads.map(q => leastRect(q, form))),
        spelt: data.forms.map(form => data.boxes.map(o => spelt(o, form))) })"""
    quads = rbox2qbox(o[:100])*[1.01,.99]+3
    got = node(['common','boxes','fit','merge'], code, dict(found=found, grids=grids, forms=forms, quads=quads.reshape(-1,8).tolist(),
                                                            boxes=o.tolist()))
    t = torch.tensor
    assert got['kept']==batched_nms_rotated(t(o), t(scores), t(labels), .1).tolist()
    for windows,(w,h,size) in zip(got['windows'], grids):
        want = window_grid(h, w, size)
        want[:,2:] = np.minimum(want[:,2:], np.array([w,h])-want[:,:2])
        assert windows==want.tolist()
    for form,rects,spelt in zip(forms, got['rects'], got['spelt']):
        np.testing.assert_allclose(rects, qbox2rbox(quads, form), atol=1e-8)
        np.testing.assert_allclose(spelt, canonicalize(o, form), atol=1e-9)

# --- the file

def picture(file, wh=(200,120), spots=((150,40),), value=230):
    px = np.full((*wh[::-1],3), 60, np.uint8)
    for x,y in spots: px[y,x] = value
    Image.fromarray(px).save(file)
    return file

@pytest.fixture(scope='module')
def runtime():
    "The files of the runtime; tests that need them are skipped where it cannot be fetched"
    try: return fetch_runtime()
    except DownloadError as e: pytest.skip(f'{e}')

def test_checksums_of_the_web(runtime, tmp_path):
    html = export_page(spot_network(tmp_path/'d.onnx'), tmp_path/'p.html', runtime='cdn').read_text()
    for file in runtime.values():
        assert f'sha256-{base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()}' in html
        assert f'@1.30.0/dist/{file.name}' in html

def test_files_that_are_no_detectors(tmp_path):
    for file,notes,words in (('a',None,'export_onnx'), ('b',spot_notes(rule='rect', size=64),'dynamic=False')):
        network = spot_network(tmp_path/f'{file}.onnx', notes)
        with pytest.raises(PageError, match=words): export_page(network, tmp_path/'p.html', runtime='cdn')
    (tmp_path/'c.onnx').write_bytes(b'not a graph')
    with pytest.raises(PageError, match='c.onnx'): export_page(tmp_path/'c.onnx', tmp_path/'p.html', runtime='cdn')
    with pytest.raises(FileNotFoundError, match='d.onnx'): export_page(tmp_path/'d.onnx', tmp_path/'p.html', runtime='cdn')
    assert not (tmp_path/'p.html').exists()

# --- in Chromium

DONE = '.rn-status:not([data-kind=busy])'
def ready(page):
    page.wait_for_selector(DONE, timeout=60_000)
    return page.inner_text('.rn-status')
def give(page, file):
    page.set_input_files('input[type=file]', str(file))
    return ready(page)
def found(page): return page.evaluate('() => document.querySelector("[data-widget]").rotnb.found')

@pytest.fixture(scope='module')
def spot_page(runtime, tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    network = spot_network(folder/'spot.onnx', spot_notes(size=256, grow=False))
    return export_page(network, folder/'page.html', sample=picture(folder/'sample.png'), title='Lamps & stars')

def test_a_page_opened_as_a_file(spot_page, page, tmp_path):
    page.goto(spot_page.as_uri())
    assert page.title()=='Lamps & stars' and ready(page)=='Ready.'
    page.get_by_role('button', name='Try the sample').click()
    assert ready(page).startswith('1 box. Looked at whole in')
    assert page.locator('tbody tr').inner_text().split('\t')[1:]==[' star','0.902','150.5, 40.5','20.0 × 8.0','17.2°']
    assert give(page, picture(tmp_path/'dim.png', value=70)).startswith('No boxes with a score of 0.30 or more, 1 with less.')
    page.locator('.rn-sliders input').first.fill('0.1')
    page.wait_for_selector('tbody tr')
    with page.expect_download() as down: page.get_by_role('button', name='GeoJSON').click()
    geo = json.loads(open(down.value.path()).read())
    own = found(page)[0]
    want = geojson(dict(boxes=np.array([own['box']]), scores=np.array([own['score']]), labels=np.array([1])), ['lamp','star'],
                   tmp_path/'dim.png')
    assert down.value.suggested_filename=='dim.geojson' and len(geo['features'])==1
    (one,),(other,) = geo.pop('features'),want.pop('features')
    assert geo==want and one['properties'].pop('class')==other['properties'].pop('class')
    np.testing.assert_allclose(one.pop('geometry')['coordinates'], other.pop('geometry')['coordinates'], atol=2e-3)
    assert one.pop('properties')==pytest.approx(other.pop('properties'), abs=1e-4) and one==other
    with page.expect_download() as down: page.get_by_role('button', name='JSON', exact=True).click()
    said = json.loads(open(down.value.path()).read())
    assert said['detections'][0]['class']=='star' and said['width']==200

def test_large_pictures_in_windows(spot_page, page, tmp_path):
    spots = [(40,50),(300,280),(700,600),(715,640)]
    page.goto(spot_page.as_uri())
    assert 'in 16 windows' in give(page, picture(tmp_path/'large.png', (740,700), spots))
    bright = sorted((o['box'][0],o['box'][1]) for o in found(page) if o['score']>.5)
    assert bright==[(x+.5,y+.5) for x,y in spots[:3]]             # the last two are in one window, which says one box
    page.get_by_label('Look at it').select_option('whole')
    assert 'Looked at whole' in ready(page)
    assert len(found(page))==1

def test_what_a_page_refuses(spot_page, page, tmp_path):
    page.goto(spot_page.as_uri())
    (tmp_path/'text.png').write_text('no picture')
    assert '“text.png” cannot be opened' in give(page, tmp_path/'text.png')
    Image.new('RGB', (20,20)).save(tmp_path/'scan.tif')
    assert '“scan.tif” cannot be opened' in give(page, tmp_path/'scan.tif')
    assert give(page, picture(tmp_path/'good.png')).startswith('1 box.')
    page.evaluate('() => dispatchEvent(new DragEvent("drop", { dataTransfer: new DataTransfer() }))')
    assert 'no file' in ready(page)

def test_dropped_and_pasted(spot_page, page, tmp_path):
    page.goto(spot_page.as_uri())
    ready(page)
    raw = base64.b64encode(picture(tmp_path/'x.png', spots=[(20,30)]).read_bytes()).decode()
    for event in ('new DragEvent("drop", { dataTransfer: data })','new ClipboardEvent("paste", { clipboardData: data })'):
        page.evaluate(f"""raw => {{ const data = new DataTransfer(), bytes = Uint8Array.from(atob(raw), c => c.charCodeAt(0))
            data.items.add(new File([bytes], 'x.png', {{ type: 'image/png' }})); dispatchEvent({event}) }}""", raw)
        assert ready(page).startswith('1 box.') and found(page)[0]['box'][:2]==[20.5,30.5]

def test_by_keyboard_and_in_both_themes(spot_page, page):
    page.goto(spot_page.as_uri())
    ready(page)
    page.keyboard.press('Tab'); page.keyboard.press('Tab')
    assert page.evaluate('() => document.activeElement.textContent')=='Try the sample'
    page.keyboard.press('Enter')
    ready(page)
    page.locator('.rn-pick').focus()
    page.keyboard.press('Enter')
    assert page.locator('tbody tr').get_attribute('aria-current')=='true'
    for scheme in ('light','dark'):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(100)
        bad,seen = faint(page, '.rn-detector')
        assert seen>15 and not bad, (scheme, bad)
    assert not (bad := unnamed(page, '.rn-detector')), bad

def test_beside(runtime, page, tmp_path):
    sample = picture(tmp_path/'sample.png')
    html = export_page(spot_network(tmp_path/'spot.onnx'), tmp_path/'page.html', runtime='beside', sample=sample)
    assert 'MIT License' in (tmp_path/'page_files'/'LICENSE-onnxruntime-web.txt').read_text()
    page.goto(html.as_uri())
    assert 'python -m http.server' in ready(page)
    quiet = type('Quiet', (SimpleHTTPRequestHandler,), dict(log_message=lambda *_: None))
    server = ThreadingHTTPServer(('127.0.0.1',0), partial(quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.goto(f'http://127.0.0.1:{server.server_port}/page.html')
        assert ready(page)=='Ready.'
        page.get_by_role('button', name='Try the sample').click()
        assert ready(page).startswith('1 box.')
    finally: server.shutdown(); server.server_close()

# --- a real detector

def near(rows, want, least):
    "Largest distance of a corner from that of the same box in Python, px, and of scores; the same boxes in the same order"
    rows = [o for o in rows if o['score']>=least]
    want = want.filter(score_thr=least)
    assert [o['label'] for o in rows]==want['labels'].tolist() and len(rows)>3
    corners,others = rbox2qbox(np.array([o['box'] for o in rows])),rbox2qbox(want['boxes'].double()).numpy()
    turns = np.stack([np.abs(np.roll(corners, k, 1)-others).max((1,2)) for k in range(4)])
    return turns.min(0).max(),np.abs(np.array([o['score'] for o in rows])-want['scores'].numpy()).max()

def test_the_boxes_of_a_predictor(exported, runtime, page, tmp_path):
    predictor,html = tiny_predictor(),export_page(exported(dynamic=True), tmp_path/'page.html')
    page.goto(html.as_uri())
    assert ready(page)=='Ready.'
    for i,(wh,way) in enumerate({(192,160):'whole', (300,220):'auto', (160,250):'auto', (430,300):'windows'}.items()):
        image = tmp_path/f'{i}.png'
        Image.fromarray(make_scene(i, size=max(wh))[0][:wh[1],:wh[0]]).save(image)
        give(page, image)
        page.get_by_label('Look at it').select_option(way)
        ready(page)
        as_scene = way=='windows'
        want = predictor.predict_scene(image, 192, score_thr=.15, progress=False) if as_scene else predictor(image, score_thr=.15)
        corner,score = near(found(page), want, .15)
        assert corner<1e-2 and score<1e-4, wh
