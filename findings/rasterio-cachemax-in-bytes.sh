#!/usr/bin/env bash
# rasterio 1.4.4: `Env(GDAL_CACHEMAX=64)` keeps 64 bytes of decoded blocks, not 64 MB.
#
# A good guess: GDAL's manual says that a value below 100000 is in megabytes. 64 as a variable of the environment is 64 MB, so it is in
# Env, too.
# What happens: the number goes to GDALSetCacheMax, which takes bytes. Nothing fails or warns. Windows of a compressed file decode each
# block again for every window that touches it: reading a file of tiles in small windows takes many times as long.
# `Env(GDAL_CACHEMAX='64')`, the text of the manual, is refused (an integer is required); 64*2**20 is as fast as the default.
# Seen on Linux, Python 3.11.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/env"
"$dir/env/bin/pip" install -q rasterio==1.4.4 numpy==2.4.6
cd "$dir"
"$dir/env/bin/python" - <<'PY'
import numpy as np, rasterio, time, warnings
from rasterio.windows import Window
warnings.filterwarnings('ignore')
image = np.random.default_rng(0).integers(0, 64, (1,2048,2048), np.uint8)
with rasterio.open('a.tif', 'w', driver='GTiff', width=2048, height=2048, count=1, dtype='uint8', tiled=True, blockxsize=512,
                   blockysize=512, compress='deflate') as out: out.write(image)

def seconds(**options):
    "Processor time of reading a window that four blocks share, a hundred times"
    with rasterio.Env(**options), rasterio.open('a.tif') as file:
        start = time.process_time()
        for _ in range(100): file.read(window=Window(480, 480, 64, 64))
        return time.process_time()-start

default,small,large = seconds(),seconds(GDAL_CACHEMAX=64),seconds(GDAL_CACHEMAX=64*2**20)
took = f'as it is {default:.2f} s, 64 {small:.2f} s, 64*2**20 {large:.2f} s'
print(f'rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}: {took}')
assert small>5*default, 'the number is no longer in bytes: the finding is out of date'
assert large<small/5, 'so many bytes are no cache either'
try: seconds(GDAL_CACHEMAX='64')
except TypeError as e: print(f'as text: {e}')
else: raise AssertionError('a text is taken now')
PY
