"Rasters written by rasterio"
import numpy as np, pytest

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
