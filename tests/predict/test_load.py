"From a name to boxes: through catalogue, download, checksum, file, configuration and pre-processing; and what goes wrong on the way"
import json, re
import numpy as np, pytest, timm, torch, torchvision
from PIL import Image
from rotnb.data.formats.known_sets import KNOWN_SETS
from rotnb.data.labels.download import DownloadError
from rotnb.interop.mmrotate import detector_from_mmrotate, families
from rotnb.models import create_detector, list_detectors
from rotnb.models.files import WeightsError
from rotnb.models.weights import detector_from_weights, save_weights, shipped_weights
from rotnb.predict import catalogue
from rotnb.predict.catalogue import file_of, find_row, list_weights, published_weights
from rotnb.predict.load import load_weights
from rotnb.predict.predictor import Predictor
from mmfile import config, made, write_checkpoint
from paths import ROOT
from reference import ORACLE, checkpoint, needs_oracle, settings
from web import serving, without_proxies

NAMES = ['ship','plane','car']
ROWS = json.loads((ROOT/'rotnb/weights/published.json').read_text(encoding='utf-8'))

@pytest.fixture(scope='module')
def zoo(tmp_path_factory):
    "A folder with a picture and a file as MMRotate publishes them; the file, its detector, its row, what it finds in the picture"
    folder = tmp_path_factory.mktemp('zoo')
    cfg = config()
    detector = made(cfg)
    sha8 = write_checkpoint(folder/'part', detector, cfg, NAMES)[:8]
    file = (folder/'part').rename(folder/f'rotated_retinanet_test_le90-{sha8}.pth')
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100,200,3), np.uint8)).save(folder/'scene.png')
    row = dict(name='rotated_retinanet_test_le90', kind='detector', detector='rotated_retinanet', backbone='resnet18', data='dota-1.0',
               classes=3, mAP50=.5, angle='le90', size=[160,160], licence='Apache-2.0', source='here', sha8=sha8, also=['other-name'])
    want = Predictor(detector_from_mmrotate(file), size=160, score_thr=.05)(folder/'scene.png')
    return folder,file,detector,row,want

@pytest.fixture
def web(zoo, tmp_path, monkeypatch):
    "A server of that folder, a catalogue that knows the file, and a cache without it"
    folder,row = zoo[0],zoo[3]
    without_proxies(monkeypatch)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path/'hub'))
    monkeypatch.delenv('ROTNB_WEIGHTS', raising=False)
    with serving(folder) as server:
        own = dict(row, address=f'{server.at}/v1/{row["name"]}-{row["sha8"]}.pth')
        monkeypatch.setattr(catalogue, 'published_weights', lambda: {own['name']:own})
        server.cache,server.name = tmp_path/'hub/checkpoints',own['name']
        yield server

def answers(zoo, predictor):
    "Whether a predictor says what the detector itself says of the picture, prepared by hand as the configuration has it"
    found,want = predictor(zoo[0]/'scene.png'),zoo[4]
    return len(found)>5 and torch.equal(found.boxes, want.boxes) and torch.equal(found.labels, want.labels) and found.vocab==NAMES

# --- by name

@pytest.mark.parametrize('name', ['other-name','address'])
def test_a_name_becomes_boxes(web, zoo, name):
    name = web.at+'/v1/'+zoo[1].name if name=='address' else name
    predictor = load_weights(name)
    assert answers(zoo, predictor) and predictor.fit.size==(160,160) and predictor.fit.pad_to==32
    assert [o.name for o in web.cache.iterdir()]==[zoo[1].name] and len(web.asked)==1
    load_weights(name, score_thr=.4)
    assert len(web.asked)==1, 'it was here already'

def test_what_is_known_goes_along(web):
    predictor = load_weights(web.name, score_thr=.25, max_dets=7)
    assert predictor.score_thr==.25 and predictor.max_dets==7 and predictor.notes['licence']=='Apache-2.0'
    assert predictor.notes['name']==web.name and predictor.notes['metrics']==dict(mAP50=.5)

def test_a_download_goes_on_where_it_broke_off(web, zoo):
    size = zoo[1].stat().st_size
    web.cut = size//2
    with pytest.raises(DownloadError, match='broken off after .* Call again to go on with it, or get http.* as .*checkpoints'):
        load_weights(web.name)
    assert answers(zoo, load_weights(web.name)) and web.asked[1][1]==f'bytes={size//2}-'

def test_a_wrong_checksum_is_refused(web, zoo):
    web.spoil = b'x'
    with pytest.raises(DownloadError, match=f"SHA-256 begins with .{{8}}, not with {zoo[3]['sha8']}, and it is not kept.* put it there"):
        load_weights(web.name)
    assert not [*web.cache.iterdir()]

def test_404_and_no_network_say_where_to_put_the_file(web, zoo, monkeypatch):
    place = re.escape(str(web.cache/zoo[1].name))
    monkeypatch.setenv('ROTNB_WEIGHTS', web.at+'/none/')
    web.folder = zoo[0]/'nothing'
    with pytest.raises(DownloadError, match=f'the server says 404 .*put it there as {place}$'): load_weights(web.name)
    monkeypatch.setenv('ROTNB_WEIGHTS', 'http://127.0.0.1:1')
    with pytest.raises(DownloadError, match=f'cannot be fetched: .*network.* put it there as {place}$') as e: load_weights(web.name)
    assert '\n' not in str(e.value)
    web.cache.mkdir(parents=True, exist_ok=True)
    (web.cache/zoo[1].name).write_bytes(zoo[1].read_bytes())                # by hand
    assert answers(zoo, load_weights(web.name)) and list_weights().loc[web.name].here

def test_a_folder_of_weights(web, zoo, tmp_path, monkeypatch):
    "`ROTNB_WEIGHTS` as a folder; what is not in it comes from the web, what is damaged is named"
    monkeypatch.setenv('ROTNB_WEIGHTS', str(zoo[0]))
    assert answers(zoo, load_weights(web.name)) and not web.asked and list_weights().loc[web.name].here
    (tmp_path/'mine').mkdir()
    monkeypatch.setenv('ROTNB_WEIGHTS', str(tmp_path/'mine'))
    assert not list_weights().loc[web.name].here
    load_weights(web.name)
    assert len(web.asked)==1
    (tmp_path/'mine'/zoo[1].name).write_bytes(b'something else')
    with pytest.raises(DownloadError, match='mine.* is damaged, or not rotated_retinanet_test_le90: .* Delete it'): load_weights(web.name)
    monkeypatch.setenv('ROTNB_WEIGHTS', str(tmp_path/'absent'))
    with pytest.raises(FileNotFoundError, match='ROTNB_WEIGHTS names .*absent'): load_weights(web.name)

def test_a_mirror_has_files_by_their_names(web, zoo, monkeypatch):
    monkeypatch.setattr(catalogue, 'published_weights', lambda: {web.name:dict(zoo[3], address=f'http://127.0.0.1:1/{zoo[1].name}')})
    monkeypatch.setenv('ROTNB_WEIGHTS', web.at+'/mirror')
    assert answers(zoo, load_weights(web.name))

# --- by file and folder

def test_a_file_becomes_boxes(zoo, tmp_path, monkeypatch):
    "Under any name, of MMRotate or of rotnb"
    (tmp_path/'w.pth').write_bytes(zoo[1].read_bytes())
    assert answers(zoo, load_weights(tmp_path/'w.pth'))
    monkeypatch.chdir(tmp_path)
    assert answers(zoo, load_weights('w.pth'))
    file = save_weights(made(config()), tmp_path/'own', size=[160,160])
    with pytest.raises(WeightsError, match='does not say'): load_weights(file)              # it had no class names
    small = load_weights('rotated_fcos_tiny_synth')
    assert small.fit.size==(320,320) and small.notes['licence']=='Apache-2.0' and 'ship' in small.vocab

@pytest.mark.parametrize('name,words', [('rotated_retinanet_test_le9', "did you mean 'rotated_retinanet_test_le90'"),
                                        ('no such', 'no weights are called'), ('timm/resnet18.a1_in1k', 'rotated_learner.dls, DETECTOR')])
def test_names_that_are_none(web, name, words):
    with pytest.raises(WeightsError, match=words): load_weights(name)

def test_files_that_are_none(web, tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file of weights'): load_weights(tmp_path/'none.pth')
    for content in (b'', b'<html>', b'PK\x03\x04 half an archive'):
        (tmp_path/'w.pth').write_bytes(content)
        with pytest.raises(WeightsError): load_weights(tmp_path/'w.pth')

# --- to train on

def test_rows_of_classes_move_by_name(web, zoo, capsys):
    detector = zoo[2]
    turned = detector_from_weights(web.name, ['car','tank','Ship'])
    assert 'keeps car, Ship; new in it: tank' in capsys.readouterr().out
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(): got,want = (model.eval().run_stages(images)[1].logits for model in (turned,detector))
    assert torch.allclose(got[...,[0,2]], want[...,[2,0]], atol=1e-5) and turned.vocab==['car','tank','Ship']
    assert turned.backbone.pretrained and turned.stats==detector_from_mmrotate(zoo[1]).stats

@pytest.mark.parametrize('name,part', [('r3det', lambda detector: detector.stages[1].align),
                                       ('rotated_reppoints', lambda detector: detector.stages[0])])
def test_what_their_weights_need_is_among_the_options(name, part):
    "So that a detector for other classes, or from a saved file, reads features where theirs does"
    detector = create_detector(name, 3, backbone='test_resnet')
    next(family for family in families if family.name==name).apply(detector)
    assert part(detector).swapped and part(create_detector(name, 2, **detector.options)).swapped

@needs_oracle
def test_upright_rtmdet_is_a_start(tmp_path, capsys):
    theirs = {key:weight for key,weight in checkpoint('rotated_rtmdet_tiny-3x-dota').items() if '.rtm_ang.' not in key}
    for level in range(3):
        for kind in ('weight','bias'):
            key = f'bbox_head.rtm_cls.{level}.{kind}'
            theirs[key] = theirs[key].repeat(6, *[1]*(theirs[key].ndim-1))[:80]
    torch.save(dict(state_dict=theirs, meta={}), tmp_path/'rtmdet_tiny_8xb32-300e_coco.pth')
    detector = detector_from_weights(tmp_path/'rtmdet_tiny_8xb32-300e_coco.pth', NAMES)
    assert 'backbone, neck and the sides of boxes' in capsys.readouterr().out and detector.name=='rtmdet_r_tiny'
    whole = detector_from_mmrotate(checkpoint('rotated_rtmdet_tiny-3x-dota'), cfg=settings('rotated_rtmdet_tiny-3x-dota'))
    assert detector.channels==whole.channels=='bgr' and detector.n_classes==3
    for key,weight in whole.state_dict().items():
        if key.startswith('stages.0.cls.'): continue
        rows = slice(4) if key.startswith('stages.0.box.') else slice(None)
        assert torch.equal(detector.state_dict()[key][rows], weight[rows]) if weight.ndim else True, key
    with pytest.raises(WeightsError, match="rotated_learner.dls, weights='"): load_weights(tmp_path/'rtmdet_tiny_8xb32-300e_coco.pth')

def test_bodies(tmp_path, monkeypatch, capsys):
    "Torchvision's by name, from a folder; RTMDet's own; one that does not fit the detector"
    body,csp = torchvision.models.resnet18(weights=None),create_detector('rtmdet_r_tiny', 3)
    rows = {name:dict(name=name, kind='backbone', backbone=backbone, detector=detector, sha8='', address=f'http://127.0.0.1:1/{name}.pth')
            for name,backbone,detector in (('torchvision/resnet18','resnet18',''), ('cspnext-tiny','cspnext_tiny','rtmdet_r_tiny'))}
    monkeypatch.setattr(catalogue, 'published_weights', lambda: rows)
    monkeypatch.setenv('ROTNB_WEIGHTS', str(tmp_path))
    torch.save(body.state_dict(), tmp_path/file_of(rows['torchvision/resnet18']))
    detector = detector_from_weights('torchvision/resnet18', NAMES, 'rotated_fcos')
    assert torch.equal(detector.backbone.body.layer4[1].conv2.weight, body.layer4[1].conv2.weight) and detector.backbone.pretrained
    assert 'neck and head are new' in capsys.readouterr().out
    with pytest.raises(WeightsError, match='does not say which detector'): detector_from_weights('torchvision/resnet18', NAMES)
    theirs = {re.sub(r'^model\.stages\.(\d)', lambda m: f'stage{int(m[1])+1}', key.removeprefix('body.')).removeprefix('model.'):weight
              for key,weight in csp.backbone.state_dict().items()}
    torch.save(dict(state_dict={f'backbone.{key}':weight for key,weight in theirs.items()} | {'head.fc.weight':torch.zeros(1)}),
               tmp_path/file_of(rows['cspnext-tiny']))
    ours = detector_from_weights('cspnext-tiny', NAMES)
    assert ours.name=='rtmdet_r_tiny'
    assert all(torch.equal(weight, ours.backbone.state_dict()[key]) for key,weight in csp.backbone.state_dict().items())

# --- the catalogue

def test_the_catalogue_is_sound():
    assert len(ROWS)>140 and (ROOT/'rotnb/weights/published.json').stat().st_size<1e5
    names = [name for row in ROWS for name in (row['name'], *row.get('also', ()))]
    assert len(set(names))==len(names) and len({file_of(row) for row in ROWS})==len(ROWS)
    for row in ROWS:
        assert row['address'].startswith('https://') and row['address'].endswith('.pth') and row['licence'] and row['source']
        assert not row.get('sha8') or row['address'].endswith(f"-{row['sha8']}.pth")
        if row.get('kind')!='backbone': assert row['detector'] and row['classes']
        if 'mAP50' in row: assert .1<row['mAP50']<1 and row['angle'] in ('le90','le135','oc')
        if 'mAP50' in row: assert row['classes']==len(KNOWN_SETS[row['data']].classes)
    shas = [row['sha8'] for row in ROWS if 'sha8' in row]
    assert len(set(shas))==len(shas)>100

def test_list_weights(monkeypatch):
    monkeypatch.delenv('ROTNB_WEIGHTS', raising=False)
    table = list_weights()
    assert table.index.name=='name' and table.index.is_unique and {*shipped_weights()}<={*table.index}
    assert set(table.detector.replace('', None).dropna())<={*list_detectors()}
    assert all(map(timm.is_model, set(table.backbone)-{'re_resnet50'}))
    dota = list_weights('*RTMDET*dota*')
    assert len(dota)==10 and dota.mAP50.max()==.8133 and set(dota.data)=={'dota-1.0'} and set(dota['size'])=={'1024 x 1024'}
    assert list(list_weights('oriented-rcnn-le90_r50_fpn_1x_dota').index)==['oriented_rcnn_r50_fpn_1x_dota_le90']
    assert not len(list_weights('nothing*')) and 'timm/resnet18.a1_in1k' in list_weights('timm/resnet18*').index
    assert 'oriented_rcnn' in repr(list_weights('*oriented_rcnn*dota*')) and '...' not in repr(dota)

def test_each_row_is_found_by_all_its_names():
    for name,row in published_weights().items():
        for other in (name, *row.get('also', ()), file_of(row), file_of(row).removesuffix('.pth')): assert find_row(other)['name']==name

# --- the real thing, at its real size

@pytest.mark.slow
@needs_oracle
@pytest.mark.parametrize('name,line', [('oriented_rcnn_r50_fpn_1x_dota_le90','keys_0x'), ('rotated_rtmdet_tiny-3x-dota','keys')])
def test_published_names_at_their_size(tmp_path, monkeypatch, name, line):
    "Formula weights of the published keys, from a server and by hand, to boxes in a picture"
    from hashlib import sha256
    row,there = published_weights()[name],tmp_path/'there'
    there.mkdir()
    known = next((ORACLE/'settings').glob(f"{row.get('also', [name])[0]}.json"), None)
    torch.save(dict(state_dict=checkpoint(name, line), meta=dict(CLASSES=KNOWN_SETS['dota-1.0'].classes) | (
        dict(cfg=json.loads(known.read_text())) if known and line=='keys' else {})), there/file_of(row))
    row = dict(row, sha8=sha256((there/file_of(row)).read_bytes()).hexdigest()[:8])
    monkeypatch.setattr(catalogue, 'published_weights', lambda: {name:row})
    monkeypatch.setattr(catalogue, 'file_of', lambda row: row['address'].rpartition('/')[2])
    without_proxies(monkeypatch)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path/'hub'))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300,400,3), np.uint8)).save(tmp_path/'scene.png')
    with serving(there) as server:
        monkeypatch.setenv('ROTNB_WEIGHTS', server.at)
        found = load_weights(name)(tmp_path/'scene.png')
        assert found.vocab==KNOWN_SETS['dota-1.0'].classes and len(found)>0
    monkeypatch.setenv('ROTNB_WEIGHTS', str(there))
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path/'none'))
    again = load_weights(name)(tmp_path/'scene.png')
    assert len(again)==len(found) and torch.allclose(again.boxes, found.boxes, atol=.1)
