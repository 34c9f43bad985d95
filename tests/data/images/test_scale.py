"Metres of a pixel: from the map, from DOTA's header, through windows and tiles; None where nobody knows"
from dataclasses import replace
import numpy as np, pandas as pd, pytest
from PIL import Image
from rotnb.data.formats.dota import read_dota
from rotnb.data.formats.table import read_format
from rotnb.data.images.places import NoPlaceError, Place
from rotnb.data.images.scale import add_metres, degree_metres, gsd_of, place_gsd
from rotnb.data.images.windows import Window, open_scene
from rotnb.data.labels.tiles import tile_annots
from paths import SHARED

BOX = '10 10 30 10 30 20 10 20 ship 0\n'

def folder(root, head):
    (root/'images').mkdir(parents=True); (root/'labelTxt').mkdir()
    Image.new('RGB', (80,60)).save(root/'images/a.png'); (root/'labelTxt/a.txt').write_text(head+BOX)
    return root

@pytest.mark.parametrize('head,gsd', [('imagesource:x\ngsd:0.25\n',.25), ('imagesource:x\nGSD: 1.5\n',1.5),
    ('gsd:null\n',None), ('gsd:None\n',None), ('gsd:nan\n',None), ('gsd:0\n',None), ('gsd:\n',None), ('gsd:-.3\n',None),
    ('gsd:inf\n',None), ('gsd:1_0\n',None), ('',None)])
def test_header_of_dota(tmp_path, head, gsd):
    annot, = read_dota(folder(tmp_path/'d', head))
    assert annot.gsd==gsd and gsd_of(annot)==gsd and len(annot)==1
    assert [o.gsd for o in read_format(tmp_path/'d')]==[gsd]

def test_tiles_and_their_scales(tmp_path):
    annots = read_dota(folder(tmp_path/'d', 'gsd:0.2\n'))
    tiles = tile_annots(annots, size=40, overlap=10, scales=(.5,1), empty='keep', iof_thr=.1)
    assert {round(tile.gsd, 6) for tile in tiles}=={.2,.4} and all(gsd_of(tile)==tile.gsd for tile in tiles)
    assert all(tile.keep([]).gsd==tile.gsd for tile in tiles)

@pytest.mark.parametrize('lat', [0,37.5,-60,89])
def test_a_map_in_degrees(lat):
    "East and north differ; the root of a pixel's area is what counts"
    step = 1e-5
    east,north = degree_metres(lat)*step
    assert place_gsd(Place('EPSG:4326', (step,0,10,0,-step,lat)), step=1)==pytest.approx(np.sqrt(east*north), rel=1e-3)
    turned = Place('EPSG:4326', (0,step,10,step,0,lat))
    assert place_gsd(turned, step=1)==pytest.approx(np.sqrt(east*north), rel=1e-3)

def test_a_projected_map_is_measured_on_the_ground(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    file = tmp_path/'a.tif'
    with rasterio.open(file, 'w', driver='GTiff', width=64, height=48, count=1, dtype='uint8', crs='EPSG:3857',
                       transform=rasterio.Affine(2, 0, 1e6, 0, -2, 8399738)) as ds: ds.write(np.ones((1,48,64), np.uint8))
    assert gsd_of(file)==pytest.approx(1, rel=5e-3)                        # 60 degrees north: half of what Web Mercator says
    assert gsd_of(Window(open_scene(file), 0, 0, 32, 32, .25))==pytest.approx(4, rel=5e-3)

def test_nobody_knows(tmp_path):
    Image.new('RGB', (8,8)).save(tmp_path/'a.png'); Image.new('RGB', (8,8)).save(tmp_path/'a.tif')
    scene = replace(open_scene(np.zeros((8,8), np.uint8)), transform=(1,0,0,0,-1,0))           # a transform without a system
    assert [gsd_of(o) for o in (tmp_path/'a.png', tmp_path/'a.tif', scene, None, Image.new('RGB', (8,8)), np.zeros((8,8)))]==[None]*6

def test_metres_of_boxes():
    df = pd.DataFrame(dict(w=[4.,10], h=[8.,2]))
    assert add_metres(df, [.5,2]).length_m.tolist()==[4,20] and add_metres(df, .5).width_m.tolist()==[2,1] and 'length_m' not in df
    assert add_metres(df[:0], .5).columns.tolist()==['w','h','length_m','width_m']
    for bad,error,said in ((0,ValueError,'more than 0'), ('x.png',NoPlaceError,'gsd=0.3'), (float('nan'),ValueError,'more than 0')):
        with pytest.raises(error, match=said): add_metres(df, bad)

def test_a_real_folder():
    if not (root := SHARED/'data/dota').exists(): pytest.skip('data sets are not here')
    annots = read_format(root, on_bad='warn')
    assert all(annot.gsd is None or .05<annot.gsd<10 for annot in annots)
