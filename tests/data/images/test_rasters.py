"Pixels of any file: planes, nodata, masks, alpha, bands, pages"
import struct
import numpy as np, pytest
from PIL import Image
from rotnb.data.blocks import open_image
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.table import read_format
from rotnb.data.images.rasters import CorruptImageError, read_rgb
from rotnb.data.images.windows import open_scene
from rotnb.data.images import rasters
from photos import rio, BOX, shown, labels, quiet, bright

def planar(a, e='<'): # bands one behind the other, 16 bits
    n,m = a.shape[:2]; planes = [a[...,k].astype(e+'u2').tobytes() for k in range(3)]; size,ex = len(planes[0]),8+2+12*11+4
    tags = [(256,3,1,m),(257,3,1,n),(258,3,3,ex),(259,3,1,1),(262,3,1,2),(273,4,3,ex+6),(277,3,1,3),(278,4,1,n),(279,4,3,ex+18),
        (284,3,1,2),(339,3,1,1)]
    def entry(t,k,c,v): return struct.pack(e+'HHI', t, k, c)+(struct.pack(e+'HH', v, 0) if k==3 and c==1 else struct.pack(e+'I', v))
    return (struct.pack(e+'2sHI', b'II' if e=='<' else b'MM', 42, 8)+struct.pack(e+'H',
        11)+b''.join(entry(*t) for t in tags)+struct.pack(e+'I3H3I3I', 0, 16, 16, 16, *[ex+30+i*size for i in range(3)],
        *[size]*3)+b''.join(planes))

@pytest.mark.parametrize('e', ['<','>'])
def test_planar_colours_of_16_bits_are_right_or_refused(tmp_path, e, monkeypatch):
    a = np.arange(40)[:,None,None]*500+np.arange(60)[None,:,None]*90+np.array([0,3000,9000])
    (f := tmp_path/'a.tif').write_bytes(planar(a, e))
    monkeypatch.setattr(rasters, 'find_spec', lambda name: None)
    for of in (f, f.read_bytes()):
        with pytest.raises(CorruptImageError if of is f else (CorruptImageError,ValueError), match='PlanarConfiguration'): read_rgb(of)
    monkeypatch.undo(); rio()
    for k in range(3): assert np.corrcoef(read_rgb(f)[...,k].ravel(), a[...,k].ravel())[0,1]>.99

@pytest.mark.parametrize('kind,value', [('uint8',0),('uint8',255),('uint16',0),('uint16',65535),('int16',-32768),('int16',32767),
    ('float32',-9999),('float32',1e20),
    ('float32',-3.4028234663852886e38),('float32',np.nan),('float64',7.)])
@pytest.mark.parametrize('bands', [1,3])
def test_no_data_is_black_and_no_signal(tmp_path, kind, value, bands):
    r = rio()
    a = np.random.default_rng(0).integers(20, 240, (bands,80,100)).astype(kind)*(1 if kind=='uint8' else 10)
    holes = a.copy()
    holes[:,:,:50] = value
    with r.open(f := tmp_path/'a.tif', 'w', driver='GTiff', height=80, width=100, count=bands, dtype=kind, nodata=value) as d:
        d.write(holes)
    px = read_rgb(f); assert px[:,:50].max()==0 and px[:,50:].std()>50
    np.testing.assert_array_equal(open_scene(f).read(30, 10, 40, 40), px[10:50,30:70])
    np.testing.assert_allclose(open_scene(f).read(0, 0, 100, 80, .25)[:,:12], 0)
    if kind!='uint8': # stretched as if only the other half were there
        np.testing.assert_allclose(open_scene(f).limits, np.percentile(a[:,:,50:].astype(float), (2,98),
            axis=(1,2)).T.repeat(3 if bands==1 else 1, 0), rtol=.03)

def test_white_in_one_band_is_a_colour(tmp_path):
    r = rio(); a = np.full((3,20,20), 255, np.uint8); a[1] = 40
    with r.open(tmp_path/'a.tif', 'w', driver='GTiff', height=20, width=20, count=3, dtype='uint8', nodata=255) as d: d.write(a)
    assert (read_rgb(tmp_path/'a.tif')==[255,40,255]).all()

def test_what_a_mask_covers_is_no_data(tmp_path):
    r = rio()
    a = np.random.default_rng(0).integers(1000, 3000, (3,40,60)).astype('uint16')
    a[:,:,:30] = 65000
    m = np.full((40,60), 255, np.uint8)
    m[:,:30] = 0
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

@pytest.mark.parametrize('kind,value', [('float32','inf'),('float32','-inf'),('float32','nan'),('float32','-9999'),('uint8','255'),
    ('int32','-2147483648'),('uint16','65535')])
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
    with rio().open(f, 'w', driver='GTiff', width=12, height=9, count=1, dtype='uint8', photometric='miniswhite', nodata=none) as d:
        d.write(a[None])
    assert read_rgb(f)[0,:3,0].tolist()==[0,none,156]

@pytest.mark.parametrize('kind', ['uint8','uint16'])
def test_what_alpha_hides_is_no_data(tmp_path, reader, kind):
    r = rio()
    a = np.random.default_rng(0).integers(20, 200, (4,40,60)).astype(kind)
    a[3] = np.iinfo(kind).max
    a[:,:,:30] = np.array([250,250,250,0])[:,None,None]
    with r.open(f := tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=4, dtype=kind, photometric='rgb',
        alpha='yes') as d:
        d.write(a)
    px = read_rgb(f); assert px[:,:30].max()==0 and px[:,30:].std()>50

@pytest.mark.parametrize('kind,low', [('int8',-100),('uint32',2**31-20)])
def test_numbers_that_pillow_takes_for_others(tmp_path, reader, kind, low):
    r = rio(); a = (np.arange(60)[None]+np.arange(40)[:,None]+low).astype(kind)
    with r.open(f := tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=1, dtype=kind) as d: d.write(a[None])
    np.testing.assert_array_equal(np.diff(read_rgb(f)[20,:,0].astype(int))>=0, True)

def test_bands_are_all_there_or_refused(tmp_path, reader):
    r = rio(); a = (np.arange(40)[:,None]*3+np.arange(60)*np.array([1,2,5])[:,None,None]).astype('uint16')*50
    with r.open(f := tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=3, dtype='uint16', interleave='band',
        compress='deflate') as d:
        d.write(a)
    if reader=='pillow':
        with pytest.raises(CorruptImageError, match='first of its 3 bands.*rasterio'): read_rgb(f)
    else: assert (read_rgb(f).std(axis=-1)>0).any()

@pytest.mark.parametrize('kind', ['complex_int16','complex64','complex128'])
def test_radar_is_shown_by_its_amplitude(tmp_path, kind):
    r = rio()
    rng = np.random.default_rng(0)
    a = (rng.normal(0, 200, (40,60))+1j*rng.normal(0, 200, (40,60))).round().astype(np.complex64)
    with r.open(tmp_path/'a.tif', 'w', driver='GTiff', width=60, height=40, count=1, dtype=kind) as d: d.write(a[None])
    np.testing.assert_array_equal(read_rgb(tmp_path/'a.tif'), read_rgb(np.abs(a)))
    np.testing.assert_array_equal(read_rgb(a), read_rgb(np.abs(a)))
    assert open_scene(tmp_path/'a.tif').read(0, 0, 60, 40, .25).mean()>60                  # waves do not cancel

def test_pages_are_told_and_jp2_is_a_image(tmp_path):
    ims = [Image.new('RGB', (60,40), c) for c in ('red','green','blue')]
    ims[0].save(tmp_path/'a.tif', save_all=True, append_images=ims[1:])
    (tmp_path/'a.json').write_text(labels('labelme', BOX/4, (60,40))[1])
    (a,),said = quiet(read_format, tmp_path, format='labelme'); assert 'several pages' in said and '3 pages' in said
    assert 'pages' in set(quiet(doctor, tmp_path)[0].findings.kind)
    (tmp_path/'b').mkdir()
    Image.fromarray(shown()).save(tmp_path/'b/a.jp2')
    (tmp_path/'b/a.json').write_text(labels('labelme', BOX, (160,100))[1])
    (a,),_ = quiet(read_format, tmp_path/'b', format='labelme')
    assert a.image.suffix=='.jp2' and bright(np.asarray(open_image(a.image)), a.quads[0])[0]>200
