"The image that is shown, trained and predicted is the one the boxes were drawn on, whatever the file holds, and lies where the file says"
import json, struct, warnings
import cv2, numpy as np, pytest
from PIL import Image
from rotnb.all import *
for _k in [k for k in globals() if k.startswith('test')]: del globals()[_k]   # fastcore's are no tests
from rotnb.cli.convert import convert
from rotnb.data.images import rasters
from rotnb.data.formats.geojson import layer_crs
from rotnb.data.images.orient import move_points, turn_pixels, turn_size
from rotnb.data.images.rasters import image_size
from rotnb.data.mend.sources import label_sources
from rotnb.explore.thumbs import whole_thumb

def rio(): return pytest.importorskip('rasterio', reason="rasterio is not installed: pip install 'rotnb[geo]'")
@pytest.fixture
def plain(monkeypatch): # as without the extra `geo`
    monkeypatch.setattr(rasters, 'find_spec', lambda name: None); rasters._READERS.clear()
    yield
    rasters._READERS.clear()

# --- which way up, and how large

BOX = np.array([[70,20],[110,30],[105,50],[65,40]], float)                    # in the displayed image of 160 x 100 px
def shown(): # bright where the box is
    a = np.full((100,160,3), 20, np.uint8); cv2.fillPoly(a, [np.rint(BOX).astype(int)], (230,230,230))
    return a

def photo(file, o): # stored so that EXIF shows it as `shown`
    back = {6:8, 8:6}.get(o, o); exif = Image.Exif(); exif[0x112] = o
    Image.fromarray(np.ascontiguousarray(turn_pixels(shown(), back))).save(file, exif=exif, **({'quality':98} if file.suffix=='.jpg' else {}))

def labels(form, q, wh, names=('ship',)): # file name and text as the tools write them
    w,h = wh; q = np.asarray(q, float)
    if form=='labelme': return 'a.json',json.dumps(dict(version='6.3.1', flags={}, imagePath='a.jpg', imageData=None, imageHeight=h, imageWidth=w,
        shapes=[dict(label='ship', points=q.tolist(), group_id=None, shape_type='polygon', flags={})]))
    if form=='coco': return 'a.json',json.dumps(dict(images=[dict(id=1, width=w, height=h, file_name='a.jpg')], categories=[dict(id=1, name='ship')],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0,0,1,1], segmentation=[q.ravel().tolist()], iscrowd=0)]))
    if form=='cvat': return 'a.xml',f'<annotations><image id="0" name="a.jpg" width="{w}" height="{h}"><polygon label="ship" points="{";".join(f"{x},{y}" for x,y in q)}"/></image></annotations>'
    if form=='fair1m': return 'a.xml',(f'<annotation><source><filename>a.jpg</filename></source><size><width>{w}</width><height>{h}</height></size><objects><object>'
        '<possibleresult><name>ship</name></possibleresult><points>'+''.join(f'<point>{x},{y}</point>' for x,y in q[[0,1,2,3,0]])+'</points></object></objects></annotation>')
    if form=='label_studio': return 'a.json',json.dumps([dict(id=1, data=dict(image='a.jpg'), annotations=[dict(result=[dict(id='r', type='polygonlabels', original_width=w,
        original_height=h, value=dict(points=(q/wh*100).tolist(), polygonlabels=['ship']))])])])
    r = with_heading(q[None])[0][0]
    return 'a.xml',(f'<annotation><filename>a</filename><size><width>{w}</width><height>{h}</height></size><object><type>robndbox</type><name>ship</name><robndbox>'
        +''.join(f'<{k}>{v:.8f}</{k}>' for k,v in zip('cx cy w h angle'.split(), r))+'</robndbox></object></annotation>')
TOLD = 'labelme coco cvat fair1m label_studio rolabelimg'.split()

def quiet(f, *a, **kw):
    with warnings.catch_warnings(record=True) as w: warnings.simplefilter('always'); return f(*a, **kw),' '.join(str(o.message) for o in w)
def same(a, b, tol=.1): return min(np.abs(np.roll(o, i, 0)-b).max() for o in (a,a[::-1]) for i in range(4))<tol
def bright(image, q): # mean inside the box, and around it
    m = np.zeros(image.shape[:2], np.uint8); cv2.fillPoly(m, [np.rint(q).astype(int)], 1); m = cv2.erode(m, np.ones((5,5), np.uint8))
    return image[m>0].mean(),image[cv2.dilate(m, np.ones((13,13), np.uint8))==0].mean()

@pytest.mark.parametrize('o', [1,2,3,4,5,6,7,8])
@pytest.mark.parametrize('form', TOLD)
def test_boxes_lie_on_the_image_however_exif_turns_it(tmp_path, form, o):
    "Counted in displayed pixels by default; in stored ones where the told size or the tool says so"
    photo(tmp_path/'a.jpg', o); stored = o!=1 and form=='rolabelimg'
    name,text = labels(form, move_points(BOX, inverse(o)) if stored else BOX, turn_size((160,100), o) if stored else (160,100)); (tmp_path/name).write_text(text)
    (a,),_ = quiet(read_format, tmp_path, format=form)
    assert a.size==(160,100) and same(a.quads[0], BOX), a.quads
    for im in (np.asarray(open_image(a.image)), open_scene(a.image).pixels(), read_rgb(a.image.read_bytes()), cv2.imdecode(np.frombuffer(whole_thumb(a.image, 200)[0], np.uint8), 1)):
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
        left,said = quiet(read_format, tmp_path, format=form, on_bad='warn'); assert left==[] and 'another shape' in said and 'a.jpg' in said
        assert 'size' in set(quiet(doctor, tmp_path, format=form)[0].findings.kind)
    if form not in ('label_studio','coco'):                                                  # a size that says nothing
        (tmp_path/name).write_text(labels(form, BOX, (0,0))[1]); (a,),said = quiet(read_format, tmp_path, format=form); assert same(a.quads[0], BOX) and not said

@pytest.mark.parametrize('form', ['labelme','coco','cvat','rolabelimg'])
def test_what_is_edited_goes_back_in_the_numbers_of_its_file(tmp_path, form):
    photo(tmp_path/'a.jpg', 6); name,text = labels(form, 2*move_points(BOX, inverse(6)), (200,320)); (tmp_path/name).write_text(text)
    s, = label_sources(tmp_path, format=form); base = s.read(); (xy,n,d), = base.rows
    assert same(np.reshape(xy, (4,2)), BOX)
    s.save(base, [((np.reshape(xy, (4,2))+[3,5]).ravel().tolist(),n,d)][:1] and [(((np.reshape(xy, (4,2))+[3,5]).ravel().tolist(),n,d),0)])
    (a,),_ = quiet(read_format, tmp_path, format=form); assert same(a.quads[0], BOX+[3,5])
    rep,_ = quiet(doctor, tmp_path, format=form); done,_ = quiet(rep.fix, tmp_path.parent/f'{tmp_path.name}-mended', names=dict(ship='boat'))
    (a,),_ = quiet(read_format, tmp_path.parent/f'{tmp_path.name}-mended', format=form); assert a.names==['boat'] and same(a.quads[0], BOX+[3,5])

@pytest.mark.parametrize('to', ['dota','yolo_obb','coco','labelme','cvat','rolabelimg','label_studio'])
def test_converted_with_the_image_beside_them(tmp_path, to):
    (tmp_path/'set').mkdir(); photo(tmp_path/'set/a.jpg', 6); (tmp_path/'set/a.json').write_text(labels('labelme', BOX, (160,100))[1])
    res,_ = quiet(convert, tmp_path/'set', tmp_path/to, to); assert 'EXIF' in ' '.join(res['losses'])
    (a,),said = quiet(read_format, tmp_path/to, format=to); assert same(a.quads[0], BOX) and 'scaled' not in said
    if to=='yolo_obb': # as Ultralytics reads: sizes by exif_size, pixels by cv2.imread
        v = np.array((tmp_path/to/'labels/a.txt').read_text().split()[1:], float).reshape(4,2); im = cv2.imread(str(tmp_path/to/'images/a.jpg'))
        inside,outside = bright(im, v*im.shape[1::-1]); assert inside>220 and outside<40

def test_loaders_train_on_the_image_that_is_shown(tmp_path):
    for i in range(4): photo(tmp_path/f'{i}.jpg', (1,3,6,8)[i]); (tmp_path/f'{i}.json').write_text(labels('labelme', BOX, (160,100))[1].replace('a.jpg', f'{i}.jpg'))
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
        np.testing.assert_array_equal(s.pixels(), want); np.testing.assert_array_equal(s.read(3, 5, 9, 7), want[5:12,3:12]); np.testing.assert_array_equal(np.asarray(open_image(f)), want)

def test_turned_tiffs_without_rasterio(tmp_path, plain): test_windows_of_a_tiff_that_is_turned(tmp_path)

# --- what the pixels are

def planar(a, e='<'): # bands one behind the other, 16 bits
    n,m = a.shape[:2]; planes = [a[...,k].astype(e+'u2').tobytes() for k in range(3)]; size,ex = len(planes[0]),8+2+12*11+4
    tags = [(256,3,1,m),(257,3,1,n),(258,3,3,ex),(259,3,1,1),(262,3,1,2),(273,4,3,ex+6),(277,3,1,3),(278,4,1,n),(279,4,3,ex+18),(284,3,1,2),(339,3,1,1)]
    def entry(t,k,c,v): return struct.pack(e+'HHI', t, k, c)+(struct.pack(e+'HH', v, 0) if k==3 and c==1 else struct.pack(e+'I', v))
    return (struct.pack(e+'2sHI', b'II' if e=='<' else b'MM', 42, 8)+struct.pack(e+'H', 11)+b''.join(entry(*t) for t in tags)+struct.pack(e+'I3H3I3I', 0, 16, 16, 16, *[ex+30+i*size for i in range(3)], *[size]*3)+b''.join(planes))

@pytest.mark.parametrize('e', ['<','>'])
def test_planar_colours_of_16_bits_are_right_or_refused(tmp_path, e, monkeypatch):
    a = np.arange(40)[:,None,None]*500+np.arange(60)[None,:,None]*90+np.array([0,3000,9000]); (f := tmp_path/'a.tif').write_bytes(planar(a, e))
    monkeypatch.setattr(rasters, 'find_spec', lambda name: None)
    for of in (f, f.read_bytes()):
        with pytest.raises(CorruptImageError if of is f else (CorruptImageError,ValueError), match='PlanarConfiguration'): read_rgb(of)
    monkeypatch.undo(); rio()
    for k in range(3): assert np.corrcoef(read_rgb(f)[...,k].ravel(), a[...,k].ravel())[0,1]>.99

@pytest.mark.parametrize('kind,value', [('uint8',0),('uint8',255),('uint16',0),('uint16',65535),('int16',-32768),('int16',32767),('float32',-9999),('float32',1e20),
    ('float32',-3.4028234663852886e38),('float32',np.nan),('float64',7.)])
@pytest.mark.parametrize('bands', [1,3])
def test_no_data_is_black_and_no_signal(tmp_path, kind, value, bands):
    r = rio(); a = np.random.default_rng(0).integers(20, 240, (bands,80,100)).astype(kind)*(1 if kind=='uint8' else 10); holes = a.copy(); holes[:,:,:50] = value
    with r.open(f := tmp_path/'a.tif', 'w', driver='GTiff', height=80, width=100, count=bands, dtype=kind, nodata=value) as d: d.write(holes)
    px = read_rgb(f); assert px[:,:50].max()==0 and px[:,50:].std()>50
    np.testing.assert_array_equal(open_scene(f).read(30, 10, 40, 40), px[10:50,30:70])
    np.testing.assert_allclose(open_scene(f).read(0, 0, 100, 80, .25)[:,:12], 0)
    if kind!='uint8': # stretched as if only the other half were there
        np.testing.assert_allclose(open_scene(f).limits, np.percentile(a[:,:,50:].astype(float), (2,98), axis=(1,2)).T.repeat(3 if bands==1 else 1, 0), rtol=.03)

def test_white_in_one_band_is_a_colour(tmp_path):
    r = rio(); a = np.full((3,20,20), 255, np.uint8); a[1] = 40
    with r.open(tmp_path/'a.tif', 'w', driver='GTiff', height=20, width=20, count=3, dtype='uint8', nodata=255) as d: d.write(a)
    assert (read_rgb(tmp_path/'a.tif')==[255,40,255]).all()

def test_what_a_mask_covers_is_no_data(tmp_path):
    r = rio(); a = np.random.default_rng(0).integers(1000, 3000, (3,40,60)).astype('uint16'); a[:,:,:30] = 65000; m = np.full((40,60), 255, np.uint8); m[:,:30] = 0
    with r.open(tmp_path/'a.tif', 'w', driver='GTiff', height=40, width=60, count=3, dtype='uint16') as d: d.write(a); d.write_mask(m)
    px = read_rgb(tmp_path/'a.tif'); assert px[:,:30].max()==0 and px[:,30:].std()>50

@pytest.fixture(params=['rasterio','pillow'])
def reader(request, monkeypatch):
    rasters._READERS.clear()
    if request.param=='pillow': monkeypatch.setattr(rasters, 'find_spec', lambda name: None)
    else: rio()
    yield request.param
    rasters._READERS.clear()

def holes(f, kind, value): # one band, its left half without data
    a = np.random.default_rng(0).integers(20, 120, (40,60)).astype(kind); a[:,:30] = value
    Image.fromarray(a).save(f, tiffinfo={42113:str(value)})

@pytest.mark.parametrize('kind,value', [('float32','inf'),('float32','-inf'),('float32','nan'),('float32','-9999'),('uint8','255'),('int32','-2147483648'),('uint16','65535')])
def test_no_data_is_the_same_whatever_reads_it(tmp_path, reader, kind, value):
    holes(f := tmp_path/'a.tif', kind, (float if kind[0]=='f' else int)(value))
    px = read_rgb(f); assert px[:,:30].max()==0 and px[:,30:].mean()>50
    if kind!='uint8': np.testing.assert_allclose(open_scene(f).limits[0], (21,118), atol=2)

@pytest.mark.parametrize('none', [0,3,255])
def test_no_data_of_a_palette_is_a_number_not_a_colour(tmp_path, reader, none):
    a = np.tile(np.array([none,1,2], np.uint8), (9,4)); p = Image.fromarray(a, 'P'); colours = np.full((256,3), 77, np.uint8)
    colours[1:3] = [none]*3,(255,255,255); p.putpalette(colours.tobytes()); p.save(f := tmp_path/'a.tif', tiffinfo={42113:str(none)})
    assert read_rgb(f)[0,:3].tolist()==[[0]*3,[none]*3,[255]*3]

@pytest.mark.parametrize('none', [0,255])
def test_no_data_where_white_is_0(tmp_path, reader, none):
    f = tmp_path/'a.tif'; a = np.tile(np.array([none,255-none,99], np.uint8), (9,4))
    with rio().open(f, 'w', driver='GTiff', width=12, height=9, count=1, dtype='uint8', photometric='miniswhite', nodata=none) as d: d.write(a[None])
    assert read_rgb(f)[0,:3,0].tolist()==[0,none,156]

@pytest.mark.parametrize('kind', ['uint8','uint16'])
def test_what_alpha_hides_is_no_data(tmp_path, reader, kind):
    r = rio(); a = np.random.default_rng(0).integers(20, 200, (4,40,60)).astype(kind); a[3] = np.iinfo(kind).max; a[:,:,:30] = np.array([250,250,250,0])[:,None,None]
    with r.open(f := tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=4, dtype=kind, photometric='rgb', alpha='yes') as d: d.write(a)
    px = read_rgb(f); assert px[:,:30].max()==0 and px[:,30:].std()>50

@pytest.mark.parametrize('kind,low', [('int8',-100),('uint32',2**31-20)])
def test_numbers_that_pillow_takes_for_others(tmp_path, reader, kind, low):
    r = rio(); a = (np.arange(60)[None]+np.arange(40)[:,None]+low).astype(kind)
    with r.open(f := tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=1, dtype=kind) as d: d.write(a[None])
    np.testing.assert_array_equal(np.diff(read_rgb(f)[20,:,0].astype(int))>=0, True)

def test_bands_are_all_there_or_refused(tmp_path, reader):
    r = rio(); a = (np.arange(40)[:,None]*3+np.arange(60)*np.array([1,2,5])[:,None,None]).astype('uint16')*50
    with r.open(f := tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=3, dtype='uint16', interleave='band', compress='deflate') as d: d.write(a)
    if reader=='pillow':
        with pytest.raises(CorruptImageError, match='first of its 3 bands.*geo'): read_rgb(f)
    else: assert (read_rgb(f).std(axis=-1)>0).any()

@pytest.mark.parametrize('kind', ['complex_int16','complex64','complex128'])
def test_radar_is_shown_by_its_amplitude(tmp_path, kind):
    r = rio(); rng = np.random.default_rng(0); a = (rng.normal(0, 200, (40,60))+1j*rng.normal(0, 200, (40,60))).round().astype(np.complex64)
    with r.open(tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=1, dtype=kind) as d: d.write(a[None])
    np.testing.assert_array_equal(read_rgb(tmp_path/'a.tif'), read_rgb(np.abs(a))); np.testing.assert_array_equal(read_rgb(a), read_rgb(np.abs(a)))
    assert open_scene(tmp_path/'a.tif').read(0, 0, 60, 40, .25).mean()>60                  # waves do not cancel

def test_pages_are_told_and_jp2_is_a_image(tmp_path):
    ims = [Image.new('RGB', (60,40), c) for c in ('red','green','blue')]; ims[0].save(tmp_path/'a.tif', save_all=True, append_images=ims[1:])
    (tmp_path/'a.json').write_text(labels('labelme', BOX/4, (60,40))[1])
    (a,),said = quiet(read_format, tmp_path, format='labelme'); assert 'several pages' in said and '3 pages' in said
    assert 'pages' in set(quiet(doctor, tmp_path)[0].findings.kind)
    (tmp_path/'b').mkdir(); Image.fromarray(shown()).save(tmp_path/'b/a.jp2'); (tmp_path/'b/a.json').write_text(labels('labelme', BOX, (160,100))[1])
    (a,),_ = quiet(read_format, tmp_path/'b', format='labelme'); assert a.image.suffix=='.jp2' and bright(np.asarray(open_image(a.image)), a.quads[0])[0]>200

# --- on the map

P = dict(boxes=np.array([[400,300,80,20,.35],[60,50,30,10,-1.]]), scores=np.array([.9,.8]), labels=np.array([0,0]))
def rings(g): return [np.array(f['geometry']['coordinates'][0]) for f in g['features']]
def area(q): q = q-q[0]; return ((q[:-1,0]*q[1:,1]-q[1:,0]*q[:-1,1])/2).sum()

def geotiff(file, **kw):
    with rio().open(file, 'w', driver='GTiff', width=600, height=400, count=1, dtype='uint8', **kw) as d: d.write(np.ones((1,400,600), np.uint8))
    return file

def test_pixels_do_not_pretend_to_be_longitudes():
    g = geojson(P, ['ship']); assert g['crs']['properties']['name'].startswith('LOCAL_CS') and 'pixel' in g['crs']['properties']['name']
    with pytest.raises(NoPlaceError, match='no place'): geojson(P, ['ship'], crs='lonlat')

@pytest.mark.parametrize('north', [1,-1])
def test_longitude_and_latitude(tmp_path, north):
    r = rio(); t = r.Affine(.5,0,500000,0,-.5*north,4600000); f = geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=t)
    g = geojson(P, ['ship'], f, crs='lonlat'); assert 'crs' not in g
    for ring,b in zip(rings(g), P['boxes']):
        assert (abs(ring-[15,41.55])<.05).all() and area(ring)>0 and (ring[0]==ring[-1]).all()
        np.testing.assert_allclose(reproject(ring[:4].mean(0), 'EPSG:4326', 'EPSG:32633'), t@tuple(b[:2]) if hasattr(t, '__matmul__') else t*tuple(b[:2]), atol=.01)
    write_predictions(P, tmp_path/'o.geojson', ['ship'], scene=f, crs='lonlat'); assert json.loads((tmp_path/'o.geojson').read_text())['features']==g['features']

def test_across_the_antimeridian(tmp_path):
    r = rio(); f = geotiff(tmp_path/'a.tif', crs='EPSG:3832', transform=r.Affine(1,0,3339584.7-400,0,-1,1000000))      # PDC Mercator, about 150 E: 180 E is in the middle
    g = geojson(dict(P, boxes=P['boxes'][:1], scores=P['scores'][:1], labels=P['labels'][:1]), ['ship'], f, crs='lonlat')['features'][0]['geometry']
    assert g['type']=='MultiPolygon' and len(g['coordinates'])==2
    lon = [np.array(o[0])[:,0] for o in g['coordinates']]; assert (lon[0]>179).all() and (lon[1]<-179).all() and all(area(np.array(o[0]))>0 for o in g['coordinates'])

def test_control_points_give_the_place(tmp_path):
    r = rio(); from rasterio.control import GroundControlPoint as G
    at = lambda x,y: (10+x*1e-4+y*y*1e-8, 50-y*1e-4+x*x*1e-8)
    f = geotiff(tmp_path/'a.tif', gcps=[G(y, x, *at(x, y)) for y in (0,200,400) for x in (0,300,600)], crs='EPSG:4326')
    ring = rings(geojson(dict(P, boxes=np.array([[300,200,80,20,.35],[60,50,30,10,-1.]])), ['ship'], f))[0]; np.testing.assert_allclose(ring[:4].mean(0), at(300, 200), atol=2e-5)

def test_a_map_of_no_told_system_is_not_in_pixels(tmp_path):
    t = rio().Affine(.5,0,5e5,0,-.5,4.6e6); g = geojson(P, ['ship'], geotiff(tmp_path/'a.tif', transform=t))
    np.testing.assert_allclose(rings(g)[0][:4].mean(0), (500200, 4599850), atol=.01); name = g['crs']['properties']['name']
    assert name.startswith('LOCAL_CS') and 'pixel' not in name and 'not tell' in name

def test_places_that_lead_nowhere_are_errors(tmp_path):
    r = rio(); from rasterio.control import GroundControlPoint as G
    f = geotiff(tmp_path/'a.tif', gcps=[G(0, 0, 10, 50),G(0, 600, 11, 50)], crs='EPSG:4326')
    with pytest.raises(NoPlaceError, match='2 ground control points'): geojson(P, ['ship'], f)
    f = geotiff(tmp_path/'b.tif', crs='LOCAL_CS["works",UNIT["metre",1]]', transform=r.Affine(1,0,0,0,-1,0))
    with pytest.raises(NoPlaceError, match='no way from LOCAL_CS'): geojson(P, ['ship'], f, crs='lonlat')

def test_a_place_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    r = rio(); f = geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=r.Affine(.5,0,5e5,0,-.5,4.6e6))
    from rotnb.data.images import places
    rasters._READERS.clear()
    for m in (rasters, places): monkeypatch.setattr(m, 'find_spec', lambda name: None)
    with pytest.warns(PlaceWarning, match='geo'): g = geojson(P, ['ship'], f)
    assert g['crs']['properties']['name'].startswith('LOCAL_CS'); rasters._READERS.clear()
    with pytest.raises(ImportError, match='geo'): reproject([15,42], 'EPSG:4326', 'EPSG:32633')

# --- sizes in tables

@pytest.mark.parametrize('cols,size,k', [('image_width,image_height','320,200',.5), ('width,height','320,200',.5), ('img_w,img_h','160,100',1), ('width,height','30,15',1), ('width,height','4.5,2.1',1), ('width,height',',',1), ('width,height','200,320',None)])
def test_sizes_that_a_table_tells(tmp_path, cols, size, k):
    Image.new('RGB', (160,100)).save(tmp_path/'a.png'); (tmp_path/'a.csv').write_text(f'image,{cols},name,xmin,ymin,xmax,ymax\na.png,{size},ship,40,20,70,35\n')
    if k is None:
        with pytest.raises(LabelError, match='another shape'): read_format(tmp_path)
        return
    (a,),said = quiet(read_format, tmp_path); assert np.allclose(a.quads[0], np.array([[40,20],[70,20],[70,35],[40,35]])*k) and ('another size' in said)==(k!=1)
    s, = label_sources(tmp_path); base = s.read(); s.save(base, [((a.quads[0]+4).ravel().tolist(),'ship',0)] and [(((a.quads[0]+4).ravel().tolist(),'ship',0),0)])
    (b,),_ = quiet(read_format, tmp_path); assert np.allclose(b.quads, a.quads+4) and size in (tmp_path/'a.csv').read_text()

# --- readers

def image(folder, name, wh=(160,100)): folder.mkdir(parents=True, exist_ok=True); Image.new('RGB', wh, 'grey').save(folder/name)

def made(root, form):
    if form=='dronevehicle':
        image(root/'trainimg', '00001.jpg'); (root/'trainlabel').mkdir(); poly = ''.join(f'<x{i}>{x:.0f}</x{i}><y{i}>{y:.0f}</y{i}>' for i,(x,y) in enumerate(BOX, 1))
        box = '<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>35</ymax></bndbox>'
        (root/'trainlabel/00001.xml').write_text('<annotation><filename>00001.jpg</filename><size><width>160</width><height>100</height><depth>3</depth></size>'
            f'<object><name>feright car</name><polygon>{poly}</polygon></object><object><name>truvk</name>{box}</object><object><name>*</name>{box}</object></annotation>')
        return ['freight-car','truck']
    if form=='voc':
        image(root, 'a.jpg'); (root/'a.xml').write_text('<annotation><filename>a.jpg</filename><size><width>160</width><height>100</height></size><object><name>ship</name><difficult>0</difficult>'
            '<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>35</ymax></bndbox></object></annotation>'); return ['ship']
    if form=='yolo':
        image(root/'images', 'a.jpg'); (root/'labels').mkdir(); (root/'labels/a.txt').write_text('1 0.5 0.5 0.25 0.2\n0 0.1 0.2 0.05 0.1\n'); (root/'data.yaml').write_text('names: [car, ship]\n'); return ['ship','car']
    if form=='soda_a':
        image(root/'Images', '00001.jpg'); (root/'Annotations').mkdir(); (root/'Annotations/00001.json').write_text(json.dumps(dict(images=dict(file_name='00001.jpg', width=160, height=100, id=1),
            annotations=[dict(poly=BOX.ravel().tolist(), category_id=4, area=1.), dict(poly=[1,1,5,1,5,4,1,4], category_id=9)], categories=[]))); return ['ship']

@pytest.mark.parametrize('form', ['dronevehicle','voc','yolo','soda_a'])
def test_new_readers_are_found_read_and_examined(tmp_path, form):
    names = made(tmp_path/'set', form); assert sniff_format(tmp_path/'set')==form
    (a,),_ = quiet(read_format, tmp_path/'set'); assert a.names==names
    if form in ('dronevehicle','soda_a'): assert same(a.quads[0], BOX, .51)
    if form=='voc': assert same(a.quads[0], np.array([[10,20],[40,20],[40,35],[10,35]]))
    if form=='yolo': assert same(a.quads[0], np.array([[60,40],[100,40],[100,60],[60,60]]), 1e-6)
    rep,_ = quiet(doctor, tmp_path/'set'); assert rep.format==form and rep.errors==0, rep
    quiet(convert, tmp_path/'set', tmp_path/'out', 'dota'); (b,),_ = quiet(read_format, tmp_path/'out'); assert len(b)==len(a)
    assert callable(getattr(RotatedDataLoaders, f'from_{form}'))

def test_points_of_dronevehicle_are_no_boxes(tmp_path):
    made(tmp_path, 'dronevehicle'); f = tmp_path/'trainlabel/00001.xml'
    f.write_text(f.read_text().replace('</annotation>', '<object><name>car</name><point><x>5</x><y>6</y></point></object></annotation>'))
    (a,),w = quiet(read_format, tmp_path); assert len(a)==2 and '<point>' in w

def test_two_modalities_are_told_apart_by_their_folders(tmp_path):
    made(tmp_path, 'dronevehicle')
    for a,b in (('trainimg','trainimgr'),('trainlabel','trainlabelr')): shutil.copytree(tmp_path/a, tmp_path/b)
    for r in ('','r'):
        a, = quiet(read_format, tmp_path, images=f'trainimg{r}', labels=f'trainlabel{r}')[0]; assert a.image.parent.name==f'trainimg{r}' and f'trainlabel{r}/' in a.where[0]

def test_yolo_with_confidences_are_no_labels(tmp_path):
    made(tmp_path, 'yolo'); (tmp_path/'labels/a.txt').write_text('1 0.5 0.5 0.25 0.2 0.9\n')
    with pytest.raises(LabelError, match='predictions'): read_format(tmp_path, format='yolo')

@pytest.mark.parametrize('unit', ['deg','deg_corner','deg_pivot','rad_corner','rad_ccw_corner','deg_ccw_pivot'])
def test_five_numbers_from_the_corner(tmp_path, unit):
    r = np.array([80,50,40,12,.6]); image(tmp_path, 'a.jpg'); w,h,t = r[2:]; c = rbox2qbox(r[None])[0,0]
    x,y = r[:2]-[w/2,h/2] if 'corner' in unit else c if 'pivot' in unit else r[:2]
    t = (np.rad2deg(t) if 'deg' in unit else t)*(-1 if 'ccw' in unit else 1)
    (tmp_path/'a.json').write_text(json.dumps(dict(images=[dict(id=1, file_name='a.jpg', width=160, height=100)], categories=[dict(id=1, name='ship')],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[x,y,w,h,t])])))
    a, = read_format(tmp_path, format='coco', rbox=unit); np.testing.assert_allclose(a.quads[0], rbox2qbox(r[None])[0], atol=1e-6)
    write_coco([a], tmp_path/'b/b.json', ['ship'], rbox=unit); np.testing.assert_allclose(json.loads((tmp_path/'b/b.json').read_text())['annotations'][0]['bbox'], [x,y,w,h,t], atol=1e-3)
    s, = label_sources(tmp_path/'a.json', format='coco', rbox=unit); base = s.read(); s.save(base, [((a.quads[0]+2).ravel().tolist(),'ship',0)] and [(((a.quads[0]+2).ravel().tolist(),'ship',0),0)])
    a2, = read_format(tmp_path/'a.json', format='coco', rbox=unit); np.testing.assert_allclose(a2.quads, a.quads+2, atol=1e-3)

@pytest.mark.parametrize('crs', ['EPSG:32633','EPSG:4326',None,'EPSG:3857'])
def test_polygons_on_the_map(tmp_path, crs):
    r = rio(); t = r.Affine(.5,.02,5e5,.01,-.5,4.6e6); f = geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=t)
    place = place_of(f); xy = place.to_map(BOX); xy = xy if crs in ('EPSG:32633',None) else reproject(xy, 'EPSG:32633', crs)
    member = {} if crs=='EPSG:4326' else dict(crs=crs and dict(type='name', properties=dict(name=f'urn:ogc:def:crs:EPSG::{crs[5:]}')))
    poly = lambda q, **k: dict(type='Feature', properties=k, geometry=dict(type='Polygon', coordinates=[[*q.tolist(),q[0].tolist()]]))
    (tmp_path/'a.geojson').write_text(json.dumps(dict(type='FeatureCollection', **member, features=[poly(xy, **{'class':'ship', 'difficult':1}), dict(type='Feature', properties={'class':'x'}, geometry=dict(type='Point', coordinates=[0,0]))])))
    assert sniff_format(tmp_path)=='geojson'
    (a,),said = quiet(read_format, tmp_path); assert a.names==['ship'] and a.difficult.tolist()==[1] and 'no areas' in said
    np.testing.assert_allclose(min((np.roll(a.quads[0], i, 0) for i in range(4)), key=lambda o: np.abs(o-BOX).max()), BOX, atol=.02)
    rep,_ = quiet(doctor, tmp_path); assert rep.errors==0; quiet(convert, tmp_path, tmp_path.parent/f'{tmp_path.name}-out', 'dota')

def test_detections_written_on_the_map_are_read_as_labels(tmp_path):
    r = rio(); f = geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=r.Affine(.5,0,5e5,0,-.5,4.6e6))
    for crs in (None,'lonlat'):
        write_predictions(P, tmp_path/'a.geojson', ['ship'], scene=f, crs=crs); (a,),_ = quiet(read_format, tmp_path)
        for q,b in zip(a.quads, rbox2qbox(P['boxes'])): assert same(q, b, .02)

@pytest.mark.parametrize('told,name,said', [(dict(CLASS='ship'), 'ship', False), (dict(vehicle='ship'), 'object', True), (dict(id=3), 'object', False)])
def test_the_property_that_tells_the_class(tmp_path, told, name, said):
    Image.new('RGB', (160,100)).save(tmp_path/'a.png')
    f = dict(type='Feature', properties=told, geometry=dict(type='Polygon', coordinates=[[*BOX.tolist(),BOX[0].tolist()]]))
    (tmp_path/'a.geojson').write_text(json.dumps(dict(type='FeatureCollection', crs=None, features=[f])))
    (a,),w = quiet(read_format, tmp_path); assert a.names==[name] and ("name='vehicle'" in w)==said
    if said: (a,),w = quiet(read_format, tmp_path, name='vehicle'); assert a.names==['ship'] and not w
    assert layer_crs(dict(crs=dict(type='EPSG', properties=dict(code=32633))))=='EPSG:32633'

def test_a_layer_without_its_system_is_an_error(tmp_path):
    r = rio(); geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=r.Affine(.5,0,5e5,0,-.5,4.6e6)); xy = [[500010,4599990],[500030,4599990],[500030,4599980],[500010,4599980],[500010,4599990]]
    (tmp_path/'a.geojson').write_text(json.dumps(dict(type='FeatureCollection', features=[dict(type='Feature', properties={}, geometry=dict(type='Polygon', coordinates=[xy]))])))
    with pytest.raises(LabelError, match='does not tell its system'): read_format(tmp_path)

# --- crops

def test_a_crop_is_exactly_its_box():
    "Analytic image: colours are coordinates"
    rng = np.random.default_rng(0); y,x = np.mgrid[:250,:250]; im = np.stack([x,y,0*x], -1).astype(np.uint8)
    b = np.c_[rng.uniform(80, 170, (40,2)),rng.uniform(3, 70, (40,2)),rng.uniform(-7, 7, 40)]
    for c,(cx,cy,w,h,t) in zip(crops(im, b), b):
        H,W = c.shape[:2]; assert (W,H)==(max(1, round(w)),max(1, round(h)))
        v,u = np.mgrid[:H,:W]+.5; u,v = u*w/W-w/2,v*h/H-h/2
        assert np.abs(c[...,0]-(cx+u*np.cos(t)-v*np.sin(t)-.5)).max()<.52 and np.abs(c[...,1]-(cy+u*np.sin(t)+v*np.cos(t)-.5)).max()<.52

def test_crops_of_files_scenes_and_turned_photos(tmp_path):
    photo(tmp_path/'a.jpg', 6); q = BOX[None]
    for o in (tmp_path/'a.jpg', open_scene(tmp_path/'a.jpg'), open_image(tmp_path/'a.jpg'), shown()):
        c, = crops(o, q); assert c.shape[:2]==(21,41) and c[3:-3,3:-3].min()>200
    assert [o.shape for o in crops(shown(), np.concatenate([q,q]), size_wh=(32,16))]==[(16,32,3)]*2
