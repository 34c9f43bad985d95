"Scenes on longitude and latitude: where boxes lie, turned, in UTM, across the antimeridian, by control points; no place is told"
from dataclasses import replace
import matplotlib.pyplot as plt, numpy as np, pytest
from matplotlib.collections import PathCollection, PolyCollection
from rotnb.data.images.places import NoPlaceError, place_of, reproject
from rotnb.data.images.scale import degree_metres
from rotnb.data.images.windows import open_scene
from rotnb.data.labels.records import Annot
from rotnb.explore.map import degrees_text, show_map
from rotnb.geometry.boxes import rbox2qbox

IMAGE = np.random.default_rng(0).integers(0, 255, (60,80,3), np.uint8)
BOXES = np.array([[20,20,20,10,.3],[60,25,20,10,0],[30,40,16,8,1]])
FOUND = dict(boxes=BOXES, scores=np.array([.9,.5,.2]), labels=np.array([0,1,1]))
VOCAB = ['ship','harbor']
STEP = 1e-5

def scene(lon=10, lat=50, name='a', step=STEP, **kw):
    return replace(open_scene(IMAGE, name=name), **{**dict(crs='EPSG:4326', transform=(step,0,lon,0,-step,lat)), **kw})
def outlines(ax):
    first = next(o for o in ax.collections if isinstance(o, PolyCollection))
    return np.array([path.vertices[:4] for path in first.get_paths()])

@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')

@pytest.mark.parametrize('transform', [(STEP,0,10,0,-STEP,50), (STEP*.8,STEP*.6,10,STEP*.6,-STEP*.8,50), (-STEP,0,10,0,STEP,-50),
                                       (0,STEP,10,STEP,0,0)])
def test_boxes_lie_where_the_map_has_them(transform):
    one = scene(transform=transform)
    ax = show_map(one, FOUND, VOCAB)
    np.testing.assert_allclose(outlines(ax), place_of(one).to_map(rbox2qbox(BOXES)), atol=1e-12)
    corners = place_of(one).to_map([[0,0],[80,0],[80,60],[0,60]])
    (x0,x1),(y0,y1) = ax.get_xlim(),ax.get_ylim()
    assert x0<corners[:,0].min() and corners[:,0].max()<x1 and y0<corners[:,1].min() and corners[:,1].max()<y1
    east,north = degree_metres((y0+y1)/2)
    assert ax.get_aspect()==pytest.approx(north/east, rel=1e-4)

def test_a_projected_scene():
    pytest.importorskip('rasterio')
    one = scene(crs='EPSG:32633', transform=(.5,0,5e5,0,-.5,5.5e6))
    want = reproject(place_of(one).to_map(rbox2qbox(BOXES)), 'EPSG:32633')
    np.testing.assert_allclose(outlines(show_map(one, FOUND, VOCAB)), want, atol=1e-12)

def test_what_is_drawn():
    ax = show_map(scene(), FOUND, VOCAB, score_thr=.4)
    ax.figure.canvas.draw()
    assert len(outlines(ax))==2 and [text.get_text() for text in ax.figure.legends[0].get_texts()]==['ship (1)','harbor (1)']
    texts = [text.get_text() for text in ax.texts]
    assert any(text.endswith(' m') for text in texts) and any('N' in text for text in texts)
    for axis,end in ((ax.xaxis,'E'), (ax.yaxis,'N')): assert all(end in label.get_text() for label in axis.get_ticklabels()[1:-1])

def test_small_boxes_get_dots():
    far = scene(lon=10.2, name='b')
    count = lambda ax: sum(isinstance(o, PathCollection) for o in ax.collections)
    assert count(show_map([scene(),far], [FOUND,FOUND], VOCAB))==2 and count(show_map(scene(), FOUND, VOCAB))==0

@pytest.mark.parametrize('lons', [(179.9995,-179.9999), (-179.9999,179.9995), (179.9998,)])
def test_the_antimeridian_is_no_border(lons):
    ax = show_map([scene(lon, -17, str(lon)) for lon in lons], [FOUND]*len(lons), VOCAB)
    ax.figure.canvas.draw()
    said = {label.get_text().split()[-1] for label in ax.get_xticklabels() if label.get_text()}
    assert np.ptp(ax.get_xlim())<.01 and np.ptp(outlines(ax)[...,0])<.01 and {'E','W'}<=said

def test_classes_of_several_scenes_have_one_legend():
    truth = Annot('a.png', rbox2qbox(BOXES[:1]), ['harbor'], np.zeros(1, int))
    from types import SimpleNamespace
    class Found(dict): vocab = ['harbor','ship']
    ax = show_map([scene(), scene(10.002, name='b'), scene(10.004, name='c')], [truth, Found(FOUND), None])
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()]==['harbor (2)','ship (2)']

def test_control_points():
    rasterio = pytest.importorskip('rasterio')
    points = [rasterio.control.GroundControlPoint(r, c, 10+c*1e-4+1e-7*r*c, 50-r*1e-4) for r in (0,30,60) for c in (0,40,80)]
    one = scene(transform=None, gcps=points)
    np.testing.assert_allclose(outlines(show_map(one, FOUND, VOCAB)), place_of(one).to_map(rbox2qbox(BOXES)), atol=1e-9)

def test_files_and_dicts(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    file = tmp_path/'a.tif'
    with rasterio.open(file, 'w', driver='GTiff', width=80, height=60, count=3, dtype='uint8', crs='EPSG:32633',
                       transform=rasterio.Affine(.5, 0, 5e5, 0, -.5, 5.5e6)) as ds: ds.write(IMAGE.transpose(2,0,1))
    assert len(outlines(show_map(file, FOUND, VOCAB)))==3
    assert len(outlines(show_map({'a.tif':file}, {'a.tif':FOUND}, VOCAB)))==3
    assert show_map(str(file)).get_xlabel()=='longitude'
    empty = dict(boxes=np.zeros((0,5)), scores=np.zeros(0), labels=np.zeros(0, int))
    assert not show_map(file, empty, VOCAB).figure.legends

@pytest.mark.parametrize('args,error,said', [
    ((open_scene(IMAGE, name='photo'), FOUND), NoPlaceError, 'photo has no place on the map'),
    ((replace(open_scene(IMAGE), transform=(1,0,0,0,-1,0)), FOUND), NoPlaceError, 'crs'),
    (([], []), ValueError, 'at least one'), (([scene()], [FOUND,FOUND]), ValueError, 'one result for each')])
def test_no_place_is_told(args, error, said):
    with pytest.raises(error, match=said): show_map(*args, vocab=VOCAB)

def test_labels_of_the_graticule():
    assert degrees_text(-0., 'EW', 1)=='0°' and degrees_text(-180, 'EW', 1)=='180°' and degrees_text(540.5, 'EW', .5)=='179.5° W'
    assert degrees_text(51.92849999, 'NS', .0005)=='51.9285° N'

def test_an_axis_of_ones_own():
    fig,axs = plt.subplots(1, 2)
    assert show_map(scene(), FOUND, VOCAB, ax=axs[1]) is axs[1] and axs[1].get_legend() and not axs[0].collections
