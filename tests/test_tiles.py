"Scenes read by windows, windows as training items, and the splitter that writes them as files"
import os, pickle, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from rotnb.data.blocks import CorruptImageError, open_image
from rotnb.data.windows import Window, open_scene, scene_windows

ROOT = Path(__file__).parents[1]

# --- rasters

@pytest.fixture
def rio(): return pytest.importorskip('rasterio', reason="rasterio is not installed: pip install 'rotnb[geo]'")

def write_tif(rio, path, a, **kw):
    "Channels last; tiled unless told otherwise"
    a = a if a.ndim==3 else a[...,None]
    kw = {**dict(tiled=True, blockxsize=64, blockysize=64, compress='deflate'), **kw}
    with rio.open(path, 'w', driver='GTiff', height=a.shape[0], width=a.shape[1], count=a.shape[2], dtype=a.dtype, **kw) as ds:
        ds.write(np.moveaxis(a, -1, 0))
        if kw.get('photometric')=='palette': ds.write_colormap(1, {i:(i,255-i,i//2,255) for i in range(256)})
    return path

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

def test_alpha_is_left_out_and_palettes_are_looked_up(rio, tmp_path):
    f = write_tif(rio, tmp_path/'a.tif', np.dstack([RGB,RGB[...,0]]), photometric='rgb', alpha='yes')
    assert np.array_equal(open_scene(f).read(0,0,200,150), RGB)
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
    monkeypatch.setattr('rotnb.data.windows.MOST_PIXELS', 1000)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(CorruptImageError, match='tiled GeoTIFF'): open_scene(f).read(0,0,9,9)
    assert Image.MAX_IMAGE_PIXELS==before

def test_without_rasterio_tifs_go_through_pillow(rio, tmp_path, monkeypatch):
    f,deep = write_tif(rio, tmp_path/'a.tif', RGB, tiled=False, compress='none'),write_tif(rio, tmp_path/'d.tif', RGB.astype(np.uint16)*9)
    monkeypatch.setattr('rotnb.data.windows.find_spec', lambda _: None)
    assert np.array_equal(open_scene(f).read(5,6,50,40), RGB[6:46,5:55])
    with pytest.raises(CorruptImageError, match=r'rotnb\[geo\]'): open_scene(deep)

def test_workers_read_for_themselves(rio, tmp_path):
    "Windows of rasters and of pictures, in forked and in spawned processes, after the parent has read from them"
    import multiprocessing as mp
    f = write_tif(rio, tmp_path/'a.tif', RGB); Image.fromarray(RGB).save(tmp_path/'a.png')
    ws = scene_windows(f, 64, 16)+scene_windows(tmp_path/'a.png', 64, 16)+[Window(f, 3, 4, 50, 60)]
    here = [w.pixels() for w in ws]
    for how in ('fork','spawn'):
        with mp.get_context(how).Pool(2) as p: there = p.map(Window.pixels, ws)
        assert all(np.array_equal(a, b) for a,b in zip(here, there)), how

def test_very_large_windows_are_thinned_out(tmp_path):
    a = np.lib.format.open_memmap(tmp_path/'a.npy', 'w+', np.uint8, (12000,12000))
    a[6000:,6000:] = 255; a.flush(); del a
    v = open_scene(tmp_path/'a.npy').read(-1000, -1000, 14000, 14000, .01)[...,0]
    assert v.shape==(140,140) and (v[71:129,71:129]==255).all() and (v[:69]==0).all() and (v[131:]==0).all()

MEMORY = '''
import sys
import numpy as np
from rotnb.data.windows import open_scene, scene_windows
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
    "Every window of a tiled scene whose pixels would take 432 MB: at most 120 MB more than a small one. A quarter of the tiles is written, the others are empty"
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
