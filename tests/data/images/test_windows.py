"Scenes read by windows: files of rasterio and Pillow, arrays and memory maps"
import os, pickle, subprocess, sys
import cv2, numpy as np, pytest
from PIL import Image, ImageOps
from rotnb.geometry.boxes import rbox2qbox
from rotnb.evaluate.task1 import merge_windows
from rotnb.data.images.rasters import CorruptImageError, image_size, open_reader
from rotnb.data.blocks import open_image
from rotnb.data.images.windows import Window, open_scene, scene_windows, window_grid
from rotnb.data.loaders import RotatedDataLoaders
from paths import ROOT
from rasters_made import rio, write_tif

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 255, (150,200,3), np.uint8)

@pytest.mark.parametrize('kw', [dict(), dict(tiled=False), dict(compress='jpeg', photometric='ycbcr'), dict(BIGTIFF='YES')], ids=str)
def test_rgb_tif_equals_the_plain_reader(rio, tmp_path, kw):
    smooth = np.stack(np.broadcast_arrays(np.arange(200), np.arange(150)[:,None], 90), -1).astype(np.uint8)
    f = write_tif(rio, tmp_path/'a.tif', smooth if 'jpeg' in str(kw) else RGB, **kw)
    s = open_scene(f)
    assert s.size==(200,150) and s.limits is None and s.bands==(1,2,3)
    whole = np.array(open_image(f)).astype(int)
    tol = 4 if 'jpeg' in str(kw) else 0                         # two libraries decode JPEG
    for x,y,w,h in [(0,0,200,150), (37,41,80,70), (199,149,1,1)]: assert abs(s.read(x,y,w,h)-whole[y:y+h,x:x+w]).max()<=tol
    assert np.array_equal(s.read(-30,-20,260,200)[20:170,30:230], s.read(0,0,200,150))

def test_alpha_marks_no_data_and_palettes_are_looked_up(rio, tmp_path):
    f = write_tif(rio, tmp_path/'a.tif', np.dstack([RGB,RGB[...,0]]), photometric='rgb', alpha='yes')
    assert np.array_equal(open_scene(f).read(0,0,200,150), np.where(RGB[...,:1]>0, RGB, 0))
    f = write_tif(rio, tmp_path/'p.tif', RGB[...,0], photometric='palette')
    p = RGB[...,0].astype(int)
    assert np.array_equal(open_scene(f).read(0,0,200,150), np.stack([p,255-p,p//2], -1))

@pytest.mark.parametrize('dtype', ['uint16','int16','float32'])
def test_deep_bands_are_stretched_and_never_wrap(rio, tmp_path, dtype):
    base = RNG.normal(1000, 300, (300,400,4)).clip(1, 4000)
    base[:40] = 0
    f = write_tif(rio, tmp_path/'d.tif', base.astype(dtype), nodata=0)
    s = open_scene(f)
    out = s.read(0,0,400,300)
    assert (out[:40]==0).all()
    want = np.percentile(base[40:,:,:3].astype(dtype).reshape(-1,3), (2,98), axis=0).T
    assert abs(s.limits-want).max()<25                           # of patches, not of all pixels
    for b in range(3):                                          # brighter stays brighter
        order = np.argsort(base[...,b].astype(dtype).ravel())
        assert (np.diff(out[...,b].ravel()[order].astype(int))>=0).all()
    assert open_scene(f, bands=(4,3,2)).bands==(4,3,2) and not np.array_equal(open_scene(f, bands=(4,3,2)).read(0,0,9,300), out[:,:9])
    assert np.array_equal(pickle.loads(pickle.dumps(s)).read(100,100,50,50), out[100:150,100:150])

def test_single_band_and_place_on_earth(rio, tmp_path):
    t = rio.transform.from_origin(500000, 4600000, .5, .5)
    s = open_scene(write_tif(rio, tmp_path/'g.tif', RGB[...,1], crs='EPSG:32633', transform=t))
    assert np.array_equal(s.read(0,0,200,150), np.repeat(RGB[...,1:2], 3, 2))
    assert s.crs.to_epsg()==32633 and s.transform==t
    s = pickle.loads(pickle.dumps(s))
    assert s.crs.to_epsg()==32633 and s.transform*(2,0)==(500001,4600000)

def modes(rio, d):
    "Images of every kind by name: the file, and its pixels; 'deep' where percentiles decide, None where Pillow does"
    im,grey,rgba = Image.fromarray(RGB),RGB[...,0],np.dstack([RGB,RGB[...,0]])
    thrice = lambda a: np.repeat(a[...,None], 3, -1)
    def pil(name, o, **kw): o.save(d/name, **kw); return d/name
    def tif(name, a, **kw): return write_tif(rio, d/name, a, tiled=False, **kw)
    def deep(name, a): cv2.imwrite(str(d/name), a); return d/name
    note = Image.Exif(); note[0x112] = 6
    bits,four = (grey>128).astype(np.uint8),grey//16
    cmyk = np.asarray(im.convert('CMYK').convert('RGB'))
    return dict(
        one_bit_png=(pil('1.png', Image.fromarray(grey>128)), thrice(bits*255)), one_bit_tif=(tif('1.tif', bits, nbits=1),
        thrice(bits*255)),
        four_bits=(tif('4.tif', four, nbits=4), thrice(four*17)), white_is_zero=(tif('w.tif', 255-grey, photometric='MINISWHITE'),
        thrice(grey)),
        palette_png=(pil('p.png', im.convert('P')), np.asarray(im.convert('P').convert('RGB'))),
        alpha_png=(pil('a.png', Image.fromarray(rgba)), RGB), alpha_tif=(tif('a.tif', rgba, photometric='rgb', alpha='yes'),
        np.where(rgba[...,3:]>0, RGB, 0)),
        cmyk_jpg=(pil('c.jpg', im.convert('CMYK')), None), cmyk_tif=(tif('c.tif', np.asarray(im.convert('CMYK')), photometric='cmyk'),
        cmyk),
        turned_jpg=(pil('t.jpg', im, exif=note), None), turned_tif=(pil('t.tif', im, exif=note), np.rot90(RGB, -1)),
        four_bands=(tif('b4.tif', rgba, photometric='minisblack'), RGB), two_bands=(tif('b2.tif', RGB[...,:2]), thrice(grey)),
        grey16_png=(pil('g16.png', Image.fromarray(grey.astype(np.uint16)*9)), 'deep'), grey16_tif=(tif('g16.tif',
        grey.astype(np.uint16)*9), 'deep'),
        rgb16_png=(deep('c16.png', RGB.astype(np.uint16)*9), 'deep'), rgba16_png=(deep('a16.png', rgba.astype(np.uint16)*9), 'deep'),
        eight_bands=(tif('b8.tif', np.dstack([RGB,RGB,RGB[...,:2]]).astype(np.uint16)*9), 'deep'),
        int16=(tif('i.tif', grey.astype(np.int16)-90), 'deep'), int32=(pil('i32.tif', Image.fromarray(grey.astype(np.int32)*999)), 'deep'),
        float=(tif('f.tif', np.where(grey<9, np.nan, grey/np.float32(255))), 'deep'))

def test_an_opened_image_equals_the_windows_of_its_scene(rio, tmp_path):
    "Every kind of file: as an image, as a scene, as bytes, as the item of a data set"
    for name,(f,want) in modes(rio, tmp_path).items():
        a,s = np.array(open_image(f)),open_scene(f)
        h,w = (200,150) if 'turned' in name else (150,200)                     # as displayed
        assert a.shape==(h,w,3) and a.dtype==np.uint8 and image_size(f)==(w,h), name
        assert np.array_equal(s.read(37,41,80,70), a[41:111,37:117]) and np.array_equal(s.pixels(), a), name
        if want is None: assert np.array_equal(a, np.asarray(ImageOps.exif_transpose(Image.open(f)).convert('RGB'))), name
        elif isinstance(want, str): assert (a.min(),a.max())==(0,255) and 90<a.mean()<160, name             # neither clipped nor dark
        else: assert np.array_equal(a, want), name
        if f.suffix!='.tif': assert np.array_equal(np.array(open_image(f.read_bytes())), a), name
    rgb16,again = (np.array(open_image(tmp_path/o)).astype(int) for o in ('c16.png','b8.tif'))
    assert abs(rgb16[...,::-1]-again).max()<=1                                # OpenCV wrote blue first

def test_deep_images_train_and_are_predicted(rio, tmp_path):
    "A set of 8-band TIFF and one of 16-bit PNG, without `tile`"
    from rotnb.predict.infer import predict_images
    from rotnb.learn.learner import rotated_learner
    for kind,write in dict(tif=lambda f, a: write_tif(rio, f, np.dstack([a,a,a[...,:2]]).astype(np.uint16)*9),
                           png=lambda f, a: cv2.imwrite(str(f), a.astype(np.uint16)*9)).items():
        for o in ('images','labelTxt'): (tmp_path/kind/o).mkdir(parents=True)
        for i in range(3):
            write(tmp_path/kind/f'images/{i}.{kind}', RGB[:128,:128])
            (tmp_path/kind/f'labelTxt/{i}.txt').write_text('20 20 80 20 80 60 20 60 ship 0\n')
        dls = RotatedDataLoaders.from_dota(tmp_path/kind, bs=2, num_workers=0, batch_tfms=[], device='cpu')
        x = dls.valid.one_batch()[0]
        assert x.shape[1:]==(3,128,128) and x.min()==0 and x.max()==1 and x.mean()<.7
        learn = rotated_learner(dls, 'rotated_fcos_tiny', pretrained=False, score_thr=0.)
        file = dls.valid_ds.items[0].image
        a,b = predict_images(learn, [file, np.array(open_image(file))], score_thr=0)
        assert len(a['boxes']) and all((a[k]==b[k]).all() for k in a.keys())

def test_broken_tif_is_named(rio, tmp_path):
    f = write_tif(rio, tmp_path/'b.tif', RGB)
    data = f.read_bytes()
    f.write_bytes(data[:len(data)//2])
    with pytest.raises(CorruptImageError, match='b.tif'): open_scene(f).read(0,0,200,150)
    f.write_bytes(b'II*\0'+b'\xff'*50)
    with pytest.raises(CorruptImageError, match='b.tif'): open_scene(f)

def test_a_changed_file_is_read_anew(tmp_path):
    f = tmp_path/'a.png'
    Image.fromarray(RGB).save(f)
    assert np.array_equal(open_scene(f).read(0,0,9,9), RGB[:9,:9])
    Image.fromarray(255-RGB[:100]).save(f); os.utime(f, (1,1))
    assert np.array_equal(open_scene(f).read(0,0,9,9), 255-RGB[:9,:9])

def test_too_many_pixels_are_refused_and_the_limit_is_put_back(tmp_path, monkeypatch):
    f = tmp_path/'a.png'
    Image.fromarray(RGB).save(f)
    monkeypatch.setattr('rotnb.data.images.rasters.MOST_PIXELS', 1000)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(CorruptImageError, match='tiled GeoTIFF'): open_scene(f).read(0,0,9,9)
    assert Image.MAX_IMAGE_PIXELS==before

def test_without_rasterio_tifs_go_through_pillow(rio, tmp_path, monkeypatch):
    f,deep = write_tif(rio, tmp_path/'a.tif', RGB, tiled=False, compress='none'),write_tif(rio, tmp_path/'d.tif', RGB.astype(np.uint16)*9)
    monkeypatch.setattr('rotnb.data.images.rasters.find_spec', lambda _: None)
    assert np.array_equal(open_scene(f).read(5,6,50,40), RGB[6:46,5:55])
    with pytest.raises(CorruptImageError, match='rasterio'): open_scene(deep)

def test_workers_read_for_themselves(rio, tmp_path):
    "Windows of rasters and of images, in forked and in spawned processes, after the parent has read from them"
    import multiprocessing as mp
    f = write_tif(rio, tmp_path/'a.tif', RGB); Image.fromarray(RGB).save(tmp_path/'a.png')
    ws = scene_windows(f, 64, 16)+scene_windows(tmp_path/'a.png', 64, 16)+[Window(f, 3, 4, 50, 60)]
    here = [w.pixels() for w in ws]
    for how,n in (('fork',2),('spawn',1)):
        with mp.get_context(how).Pool(n) as p: there = p.map(Window.pixels, ws)
        assert all(np.array_equal(a, b) for a,b in zip(here, there)), how

def test_very_large_windows_are_thinned_out(tmp_path):
    a = np.lib.format.open_memmap(tmp_path/'a.npy', 'w+', np.uint8, (12000,12000))
    a[6000:,6000:] = 255; a.flush(); del a
    v = open_scene(tmp_path/'a.npy').read(-1000, -1000, 14000, 14000, .01)[...,0]
    assert v.shape==(140,140) and (v[71:129,71:129]==255).all() and (v[:69]==0).all() and (v[131:]==0).all()

MEMORY = '''
import sys
import numpy as np
from rotnb.data.images.windows import open_scene, scene_windows
rss = lambda: int(open('/proc/self/statm').read().split()[1])*4096/2**20
scene = open_scene(sys.argv[1])
scene.read(0, 0, 64, 64)
before,most,total = rss(),0,0
for w in scene_windows(scene, 1024, 200):
    total += int(w.pixels().sum())
    most = max(most, rss()-before)
print(most, total)
'''

@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='resident memory is read from /proc')
def test_memory_stays_flat(rio, tmp_path, side=12000):
    """Every window of a tiled scene whose pixels would take 432 MB: at most 120 MB more than a small one.
    A quarter of the tiles is written, the others are empty"""
    f = tmp_path/'big.tif'
    with rio.open(f, 'w', driver='GTiff', height=side, width=side, count=3, dtype='uint8', tiled=True, blockxsize=512, blockysize=512,
                  compress='deflate', zlevel=1, sparse_ok=True) as ds:
        tile = RNG.integers(0, 4, (3,512,512), np.uint8)
        for y in range(0, side-512, 1024):
            for x in range(0, side-512, 1024): ds.write(tile, window=rio.windows.Window(x, y, 512, 512))
    r = subprocess.run([sys.executable, '-c', MEMORY, str(f)], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH':str(ROOT)})
    assert r.returncode==0, r.stderr
    mb,total = r.stdout.split()
    print(f'{side} px: {float(mb):.0f} MB')
    assert float(mb)<120 and int(total)>=tile.sum()*144

def test_grid_equals_the_definition():
    "Written once more, one window after the other: steps of size-overlap, the last one moved back to the border"
    def along(length, size, overlap):
        at,res = 0,[]
        while True:
            res.append(at)
            if at+size>=length: break
            at += size-overlap
        if len(res)>1: res[-1] = length-size
        return res
    rng = np.random.default_rng(1)
    for _ in range(300):
        h,w = rng.integers(1, 3000, 2).tolist()
        size = int(rng.integers(1+max(h,w)//15, 1200))
        overlap,scale = int(rng.integers(0, max(1, size*4//5))),float(rng.choice([.5,.75,1,1.25,1.5]))
        s,o = int(size/scale),int(overlap/scale)
        if o>=s: continue
        want = [[x,y,s,s] for x in along(w, s, o) for y in along(h, s, o)]
        got = window_grid(h, w, size, overlap, scale).tolist()
        assert got==want and len({*map(tuple, got)})==len(got)

def test_windows_of_every_scale_have_the_size_asked_for():
    for size in (31,512,800,1024):
        for s in scene_windows(np.zeros((3000,2500), np.uint8), size, size//5, (.3,.5,.7,1,1.5,1.7,2.)): assert s.size==(size,size)

def test_names_lead_back_to_the_scene():
    "Boxes of windows at odd scales, merged by name alone"
    ws = scene_windows(open_scene(np.zeros((3000,2500), np.uint8), name='P 1__x'), 1000, 150, (.7,1.5))
    box = np.array([[1200.,1400,60,20,.4]])
    for w in ws:
        q = w.to_window(rbox2qbox(box))
        merged = merge_windows({w.name: dict(boxes=q, scores=[1.], labels=[0])})
        assert list(merged)==['P 1__x'] and abs(merged['P 1__x']['boxes']-rbox2qbox(box)).max()<1e-8

@pytest.mark.parametrize('kw', [dict(tiled=False), dict()], ids=str)
def test_gdal_keeps_the_blocks_of_a_row_of_windows(rio, tmp_path, kw, monkeypatch):
    "rasterio takes bytes where GDAL takes MB: 64 of them were no cache, and each window decoded whole strips anew"
    monkeypatch.delenv('GDAL_CACHEMAX', raising=False)
    reader = open_reader(write_tif(rio, tmp_path/'a.tif', np.zeros((64,9000,3), np.uint8), **kw))
    assert reader._env(1024).options['GDAL_CACHEMAX']>=1024*9000*3
    assert reader._env(10**6).options['GDAL_CACHEMAX']<=2**28           # memory has an end
    monkeypatch.setenv('GDAL_CACHEMAX', '100')
    assert 'GDAL_CACHEMAX' not in reader._env(64).options               # who has said it is obeyed
