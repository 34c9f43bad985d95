"The image that is shown, trained and predicted is the one the boxes were drawn on"
import cv2, numpy as np, pytest, torch
from PIL import Image
from rotnb.data.blocks import open_image
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.table import read_format
from rotnb.data.images.orient import move_points
from rotnb.data.images.rasters import image_size, read_rgb
from rotnb.data.images.windows import open_scene
from rotnb.data.labels.records import LabelError
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.cli.convert import convert
from rotnb.data.images import rasters
from rotnb.data.images.orient import turn_pixels, turn_size
from rotnb.data.mend.sources import label_sources
from rotnb.explore.thumbs import whole_thumb
from photos import BOX, photo, labels, quiet, same, bright

@pytest.fixture
def plain(monkeypatch): # as without the extra `geo`
    monkeypatch.setattr(rasters, 'find_spec', lambda name: None); rasters._READERS.clear()
    yield
    rasters._READERS.clear()

TOLD = 'labelme coco cvat fair1m label_studio rolabelimg'.split()

@pytest.mark.parametrize('o', [1,2,3,4,5,6,7,8])
@pytest.mark.parametrize('form', TOLD)
def test_boxes_lie_on_the_image_however_exif_turns_it(tmp_path, form, o):
    "Counted in displayed pixels by default; in stored ones where the told size or the tool says so"
    photo(tmp_path/'a.jpg', o); stored = o!=1 and form=='rolabelimg'
    name,text = labels(form, move_points(BOX, inverse(o)) if stored else BOX, turn_size((160,100), o) if stored else (160,100))
    (tmp_path/name).write_text(text)
    (a,),_ = quiet(read_format, tmp_path, format=form)
    assert a.size==(160,100) and same(a.quads[0], BOX), a.quads
    for im in (np.asarray(open_image(a.image)), open_scene(a.image).pixels(), read_rgb(a.image.read_bytes()),
        cv2.imdecode(np.frombuffer(whole_thumb(a.image, 200)[0], np.uint8), 1)):
        inside,outside = bright(im, a.quads[0]); assert im.shape==(100,160,3) and inside>220 and outside<40, (form, o)

def inverse(o):
    from rotnb.data.images.orient import inverse_map, turn_map
    return inverse_map(turn_map(turn_size((160,100), o), o))

@pytest.mark.parametrize('o', [5,6,7,8])
@pytest.mark.parametrize('form', TOLD)
@pytest.mark.parametrize('k', [1,2])
def test_a_size_told_as_stored_turns_the_boxes(tmp_path, form, o, k):
    photo(tmp_path/'a.jpg', o); name,text = labels(form, k*move_points(BOX, inverse(o)), (100*k,160*k)); (tmp_path/name).write_text(text)
    (a,),said = quiet(read_format, tmp_path, format=form)
    assert same(a.quads[0], BOX) and ('turned' in said or 'scaled' in said)

@pytest.mark.parametrize('form', TOLD)
def test_another_size_scales_and_another_shape_is_an_error(tmp_path, form):
    photo(tmp_path/'a.jpg', 1); name,text = labels(form, BOX*2.5, (400,250)); (tmp_path/name).write_text(text)
    (a,),said = quiet(read_format, tmp_path, format=form); assert same(a.quads[0], BOX) and (form=='label_studio' or 'size' in said)
    kinds = set(quiet(doctor, tmp_path, format=form)[0].findings.kind); assert form=='label_studio' or 'scaled' in kinds
    for wh in ((100,160),(160,130)):
        (tmp_path/name).write_text(labels(form, BOX, wh)[1])
        with pytest.raises(LabelError, match='labelled at'): read_format(tmp_path, format=form)
        left,said = quiet(read_format, tmp_path, format=form, on_bad='warn')
        assert left==[] and 'another shape' in said and 'a.jpg' in said
        assert 'size' in set(quiet(doctor, tmp_path, format=form)[0].findings.kind)
    if form not in ('label_studio','coco'):                                                  # a size that says nothing
        (tmp_path/name).write_text(labels(form, BOX, (0,0))[1])
        (a,),said = quiet(read_format, tmp_path, format=form)
        assert same(a.quads[0], BOX) and not said

@pytest.mark.parametrize('form', ['labelme','coco','cvat','rolabelimg'])
def test_what_is_edited_goes_back_in_the_numbers_of_its_file(tmp_path, form):
    photo(tmp_path/'a.jpg', 6); name,text = labels(form, 2*move_points(BOX, inverse(6)), (200,320)); (tmp_path/name).write_text(text)
    s, = label_sources(tmp_path, format=form); base = s.read(); (xy,n,d), = base.rows
    assert same(np.reshape(xy, (4,2)), BOX)
    s.save(base, [((np.reshape(xy, (4,2))+[3,5]).ravel().tolist(),n,d)][:1] and [(((np.reshape(xy, (4,2))+[3,5]).ravel().tolist(),n,d),0)])
    (a,),_ = quiet(read_format, tmp_path, format=form); assert same(a.quads[0], BOX+[3,5])
    rep,_ = quiet(doctor, tmp_path, format=form)
    done,_ = quiet(rep.fix, tmp_path.parent/f'{tmp_path.name}-mended', names=dict(ship='boat'))
    (a,),_ = quiet(read_format, tmp_path.parent/f'{tmp_path.name}-mended', format=form)
    assert a.names==['boat'] and same(a.quads[0], BOX+[3,5])

@pytest.mark.parametrize('to', ['dota','yolo_obb','coco','labelme','cvat','rolabelimg','label_studio'])
def test_converted_with_the_image_beside_them(tmp_path, to):
    (tmp_path/'set').mkdir(); photo(tmp_path/'set/a.jpg', 6); (tmp_path/'set/a.json').write_text(labels('labelme', BOX, (160,100))[1])
    res,_ = quiet(convert, tmp_path/'set', tmp_path/to, to); assert 'EXIF' in ' '.join(res['losses'])
    (a,),said = quiet(read_format, tmp_path/to, format=to); assert same(a.quads[0], BOX) and 'scaled' not in said
    if to=='yolo_obb': # as Ultralytics reads: sizes by exif_size, pixels by cv2.imread
        v = np.array((tmp_path/to/'labels/a.txt').read_text().split()[1:], float).reshape(4,2)
        im = cv2.imread(str(tmp_path/to/'images/a.jpg'))
        inside,outside = bright(im, v*im.shape[1::-1]); assert inside>220 and outside<40

def test_loaders_train_on_the_image_that_is_shown(tmp_path):
    for i in range(4):
        photo(tmp_path/f'{i}.jpg', (1,3,6,8)[i])
        (tmp_path/f'{i}.json').write_text(labels('labelme', BOX, (160,100))[1].replace('a.jpg', f'{i}.jpg'))
    for kw in (dict(size=160), dict(size=64, tile=dict(size=64, overlap=0, empty='keep', iof_thr=.1))):
        dls,_ = quiet(RotatedDataLoaders.from_labelme, tmp_path, valid_pct=.5, bs=2, batch_tfms=[], num_workers=0, **kw)
        seen = []
        for im,quads,lab in ((*o,) for b in dls.valid for o in zip(*(t.cpu().as_subclass(torch.Tensor).numpy() for t in b))):
            im = im.transpose(1,2,0)*255; px = (quads+1)/2*im.shape[1::-1]
            seen += [bright(im, o) for o in px[lab>=0] if (o>2).all() and (o<im.shape[0]-2).all()]
        assert all(i>200 and o<45 for i,o in seen) and (seen or 'tile' in kw), seen

def test_windows_of_a_tiff_that_is_turned(tmp_path):
    "With rasterio and without, by windows and whole"
    a = np.random.default_rng(0).integers(0, 255, (30,50,3), np.uint8)
    for o in range(1, 9):
        Image.fromarray(a).save(f := tmp_path/f'{o}.tif', tiffinfo={0x112:o}); want = turn_pixels(a, o)
        s = open_scene(f); assert s.size==want.shape[1::-1]==image_size(f)
        np.testing.assert_array_equal(s.pixels(), want)
        np.testing.assert_array_equal(s.read(3, 5, 9, 7), want[5:12,3:12])
        np.testing.assert_array_equal(np.asarray(open_image(f)), want)

def test_turned_tiffs_without_rasterio(tmp_path, plain): test_windows_of_a_tiff_that_is_turned(tmp_path)
