"What predicts, with views: every box lies where it lies without, for images, scenes, folders, exported files and learners"
import json, warnings
import numpy as np, pytest, torch
from PIL import Image
from rotnb.all import ArgumentError, CorruptImageError, Predictor, ImageView, create_detector, load_weights, read_format, with_views
from rotnb.cli.predict import main as predict_main
from rotnb.data.synth.scenes import make_scene, make_synth
from rotnb.predict import tta
from rotnb.predict.predictor import HiddenWarning
from rotnb.predict.tta import SYMMETRIES


def apart(ours, theirs, mat=torch.eye(3)):
    "How far each box of `theirs`, moved, is from the nearest of its class in `ours`, px of a corner; two spellings of a rectangle are one"
    corners = (ours.quads[:,None,:,None]-(theirs.quads@mat[:2,:2].T+mat[:2,2])[None,:,None]).norm(dim=-1).amin(3).amax(2)
    return (corners+999*(ours.labels[:,None]!=theirs.labels)).amin(0)

@pytest.fixture(scope='module')
def predictor(): return load_weights('rotated_fcos_tiny_synth')

@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    "A scene of four windows"
    file = tmp_path_factory.mktemp('scene')/'scene.png'
    Image.fromarray(make_scene(5, 448)[0]).save(file)
    return file

@pytest.fixture(scope='module')
def annots(tmp_path_factory):
    return read_format(make_synth(tmp_path_factory.mktemp('tta')/'set', n_train=1, n_valid=8, size=320, seed=9), 'val')

@pytest.mark.parametrize('view', SYMMETRIES)
def test_an_image_turned_by_hand(predictor, view):
    "The boxes of a view are those of the turned image, brought back; an image of two sides tells the turns apart"
    image = np.ascontiguousarray(make_scene(5, 320)[0][:256])
    seen = SYMMETRIES[view].see(image)
    there,back = predictor(seen),predictor.with_views([view])(image)
    far = apart(back, there, SYMMETRIES[view].back((320,256)).float())
    assert len(back)==len(there)>5 and torch.allclose(back.scores, there.scores) and far.max()<1e-3

@pytest.mark.parametrize('views,scales,merge', [('all',(1,),'wbf'), ('flips',(1,),'nms'), (['none'],(1.5,),None)])
def test_near_to_what_one_view_says(predictor, views, scales, merge):
    image = make_scene(5, 320)[0]
    sure,found = predictor(image, .5),predictor.with_views(views, scales, merge)(image, .2)
    far = apart(found, sure)
    assert len(sure)>5 and (far<8).float().mean()>.8, far

def test_better_than_one_view(predictor, annots):
    one,many = (learn.evaluate(annots, progress=False).acc.compute(.75).map for learn in (predictor,predictor.with_views()))
    assert many>one+.02, (one,many)

def test_a_scene_and_a_folder_that_goes_on(predictor, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(tta, 'PART', 2)
    many,kw = predictor.with_views('hflip'),dict(size=256, overlap=64, progress=False)
    want = many.predict_scene(scene, **kw)
    assert (apart(want, predictor.predict_scene(scene, score_thr=.6, **kw))<8).float().mean()>.8
    parts,whole = [],many.learn.detect_rows
    def stops(*args):
        if parts: raise KeyboardInterrupt
        parts.append(1)
        return whole(*args)
    monkeypatch.setattr(many.learn, 'detect_rows', stops, raising=False)
    with pytest.raises(KeyboardInterrupt): many.predict_folder(scene, tmp_path, 'csv', score_thr=.3, **kw)
    monkeypatch.undo()
    found = many.predict_folder(scene, tmp_path, 'csv', score_thr=.3, **kw)[0][scene.name]
    assert len(found)==len(want)>9 and torch.allclose(found.boxes, want.boxes, atol=1e-3)
    with pytest.raises(ValueError, match='views'): predictor.with_views('flips').predict_folder(scene, tmp_path, 'csv', score_thr=.3, **kw)

def test_an_exported_file(exported, predictor):
    image = make_scene(5, 192)[0][:160]
    mine,twin = Predictor(exported('.onnx')),Predictor(predictor.detector, **Predictor(exported('.onnx')).settings())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', HiddenWarning)
        ours,theirs = (one.with_views('all')(image, .1) for one in (mine,twin))
    assert len(ours)==len(theirs)>3 and apart(ours, theirs).max()<.05 and torch.allclose(ours.scores, theirs.scores, atol=1e-3)
    with pytest.raises(ArgumentError, match='dynamic=True'): mine.with_views(scales=(1,1.5))

def test_corners_stay_corners():
    "What a gliding vertex says is kept by NMS, clockwise in every view; averages of rectangles are refused"
    torch.manual_seed(0)
    detector = create_detector('gliding_vertex', 2, backbone='test_resnet', fpn_channels=16, score_thr=.001, box_type='quad')
    image,predictor = make_scene(1, 96)[0],Predictor(detector, ['a','b'], score_thr=.001, max_dets=20)
    found = predictor.with_views('all')(image)
    x,y = found['quads'].view(-1,4,2).unbind(-1)
    area = (x*y.roll(-1, 1)-x.roll(-1, 1)*y).sum(1)/2
    assert 5<len(found)<=20 and (area>=0).all() and area.max()>1
    with pytest.raises(ArgumentError, match="take 'nms'"): predictor.with_views(merge='wbf')(image)

def test_what_cannot_be_read_or_meant(predictor, tmp_path):
    (tmp_path/'no.png').write_bytes(b'no image')
    Image.fromarray(make_scene(1, 96)[0]).save(tmp_path/'yes.png')
    Image.fromarray(make_scene(1, 96)[0]).save(tmp_path/'cut.png')
    (tmp_path/'cut.png').write_bytes((tmp_path/'cut.png').read_bytes()[:2000])
    many = predictor.with_views('turns')
    with pytest.raises(CorruptImageError, match='cut.png'): many([tmp_path/'yes.png',tmp_path/'cut.png'])
    preds,bad = many.predict_folder(tmp_path, progress=False)
    assert [*preds]==['yes.png'] and sorted(bad)==['cut.png','no.png']
    assert many([])==[] and len(many(np.zeros((5,400,3), np.uint8)))<5
    for wrong in ('flip', [], 4, ['hflip',3]):
        with pytest.raises(ArgumentError, match="expected one of 'hflip', 'flips', 'turns', 'all'"): predictor.with_views(wrong)
    with pytest.raises(ArgumentError, match='scale is nan'): predictor.with_views(scales=(float('nan'),))
    with pytest.raises(ArgumentError, match='scale is 0'): ImageView(scale=0)
    with pytest.raises(ArgumentError, match='a Predictor'): with_views(np.zeros((9,9,3)))

def test_zoom_is_kept_with_the_predictor(predictor, tmp_path):
    image = make_scene(5, 200)[0]
    near = Predictor(predictor.detector, **{**predictor.settings(), 'zoom':1.5})
    again = Predictor.load(near.save(tmp_path/'near'))
    assert again.fit.zoom==1.5 and '480 x 480' in repr(again) and torch.equal(again(image).boxes, near(image).boxes)
    assert torch.equal(predictor.scaled(1.5)(image).boxes, near(image).boxes) and len(near(image))
    with pytest.raises(ArgumentError, match='zoom is 0'): Predictor(predictor.detector, zoom=0)

def test_the_command(scene, tmp_path):
    run = dict(model='rotated_fcos_tiny_synth', path=str(scene), format='coco', size=320, overlap=80, score_thr=.3, device='cpu')
    for out,tta_ in (('one',None), ('many','flips')): predict_main(**run, out=str(tmp_path/out), tta=tta_)
    one,many = (json.loads((tmp_path/out/'results.json').read_text()) for out in ('one','many'))
    assert len(one)>5 and len(many)>5 and one!=many
    with pytest.raises(SystemExit): predict_main(**run, out=str(tmp_path/'no'), tta='flop')

def test_an_image_is_decoded_once(predictor, tmp_path, monkeypatch):
    "For all views and scales, of images on end and on side, and no more of them at a time than fit"
    files,read = [tmp_path/f'{i}.png' for i in range(3)],[]
    for i,file in enumerate(files): Image.fromarray(make_scene(i, 128)[0][:96 if i else 128]).save(file)
    def decoded(item, decode=tta.image_pixels):
        read.append(item)
        return decode(item)
    views = predictor.with_views('turns', (1,1.5))
    want = views(files)
    monkeypatch.setattr(tta, 'image_pixels', decoded)
    for most in (tta.PART_PX,20_000):
        monkeypatch.setattr(tta, 'PART_PX', most)
        found = views(files)
        assert sorted(read)==files and all(torch.equal(one.boxes, two.boxes) for one,two in zip(found, want)), read
        read.clear()
    assert [len(part) for _,part in tta.parts_of(files)]==[1,1,1]
