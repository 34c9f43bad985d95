"Results and labels on the map"
import json
import numpy as np, pytest
from PIL import Image
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.table import read_format, sniff_format
from rotnb.data.images.places import NoPlaceError, PlaceWarning, place_of, reproject
from rotnb.data.labels.records import LabelError
from rotnb.geometry.boxes import rbox2qbox
from rotnb.predict.results import geojson, write_predictions
from rotnb.cli.convert import convert
from rotnb.data.images import rasters
from rotnb.data.formats.geojson import layer_crs
from photos import rio, BOX, quiet, same

P = dict(boxes=np.array([[400,300,80,20,.35],[60,50,30,10,-1.]]), scores=np.array([.9,.8]), labels=np.array([0,0]))
def rings(g): return [np.array(f['geometry']['coordinates'][0]) for f in g['features']]
def area(q): q = q-q[0]; return ((q[:-1,0]*q[1:,1]-q[1:,0]*q[:-1,1])/2).sum()

def geotiff(file, **kw):
    with rio().open(file, 'w', driver='GTiff', width=600, height=400, count=1, dtype='uint8', **kw) as d:
        d.write(np.ones((1,400,600), np.uint8))
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
        np.testing.assert_allclose(reproject(ring[:4].mean(0), 'EPSG:4326', 'EPSG:32633'),
            t@tuple(b[:2]) if hasattr(t, '__matmul__') else t*tuple(b[:2]), atol=.01)
    write_predictions(P, tmp_path/'o.geojson', ['ship'], scene=f, crs='lonlat')
    assert json.loads((tmp_path/'o.geojson').read_text())['features']==g['features']

def test_across_the_antimeridian(tmp_path):
    # PDC Mercator, about 150 E: 180 E is in the middle
    r = rio(); f = geotiff(tmp_path/'a.tif', crs='EPSG:3832', transform=r.Affine(1,0,3339584.7-400,0,-1,1000000))
    g = geojson(dict(P, boxes=P['boxes'][:1], scores=P['scores'][:1], labels=P['labels'][:1]), ['ship'], f,
        crs='lonlat')['features'][0]['geometry']
    assert g['type']=='MultiPolygon' and len(g['coordinates'])==2
    lon = [np.array(o[0])[:,0] for o in g['coordinates']]
    assert (lon[0]>179).all() and (lon[1]<-179).all() and all(area(np.array(o[0]))>0 for o in g['coordinates'])

def test_control_points_give_the_place(tmp_path):
    r = rio(); from rasterio.control import GroundControlPoint as G
    at = lambda x,y: (10+x*1e-4+y*y*1e-8, 50-y*1e-4+x*x*1e-8)
    f = geotiff(tmp_path/'a.tif', gcps=[G(y, x, *at(x, y)) for y in (0,200,400) for x in (0,300,600)], crs='EPSG:4326')
    ring = rings(geojson(dict(P, boxes=np.array([[300,200,80,20,.35],[60,50,30,10,-1.]])), ['ship'], f))[0]
    np.testing.assert_allclose(ring[:4].mean(0), at(300, 200), atol=2e-5)

def test_a_map_of_no_told_system_is_not_in_pixels(tmp_path):
    t = rio().Affine(.5,0,5e5,0,-.5,4.6e6); g = geojson(P, ['ship'], geotiff(tmp_path/'a.tif', transform=t))
    np.testing.assert_allclose(rings(g)[0][:4].mean(0), (500200, 4599850), atol=.01); name = g['crs']['properties']['name']
    assert name.startswith('LOCAL_CS') and 'pixel' not in name and 'not name' in name

def test_places_that_lead_nowhere_are_errors(tmp_path):
    r = rio(); from rasterio.control import GroundControlPoint as G
    f = geotiff(tmp_path/'a.tif', gcps=[G(0, 0, 10, 50),G(0, 600, 11, 50)], crs='EPSG:4326')
    with pytest.raises(NoPlaceError, match='2 ground control points'): geojson(P, ['ship'], f)
    f = geotiff(tmp_path/'b.tif', crs='LOCAL_CS["works",UNIT["metre",1]]', transform=r.Affine(1,0,0,0,-1,0))
    with pytest.raises(NoPlaceError, match='cannot transform from LOCAL_CS'): geojson(P, ['ship'], f, crs='lonlat')

def test_a_place_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    r = rio(); f = geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=r.Affine(.5,0,5e5,0,-.5,4.6e6))
    from rotnb.data.images import places
    rasters._READERS.clear()
    for m in (rasters, places): monkeypatch.setattr(m, 'find_spec', lambda name: None)
    with pytest.warns(PlaceWarning, match='rasterio'): g = geojson(P, ['ship'], f)
    assert g['crs']['properties']['name'].startswith('LOCAL_CS'); rasters._READERS.clear()
    with pytest.raises(ImportError, match='rasterio'): reproject([15,42], 'EPSG:4326', 'EPSG:32633')

@pytest.mark.parametrize('crs', ['EPSG:32633','EPSG:4326',None,'EPSG:3857'])
def test_polygons_on_the_map(tmp_path, crs):
    r = rio(); t = r.Affine(.5,.02,5e5,.01,-.5,4.6e6); f = geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=t)
    place = place_of(f); xy = place.to_map(BOX); xy = xy if crs in ('EPSG:32633',None) else reproject(xy, 'EPSG:32633', crs)
    member = {} if crs=='EPSG:4326' else dict(crs=crs and dict(type='name', properties=dict(name=f'urn:ogc:def:crs:EPSG::{crs[5:]}')))
    poly = lambda q, **k: dict(type='Feature', properties=k, geometry=dict(type='Polygon', coordinates=[[*q.tolist(),q[0].tolist()]]))
    (tmp_path/'a.geojson').write_text(json.dumps(dict(type='FeatureCollection', **member,
        features=[poly(xy, **{'class':'ship', 'difficult':1}), dict(type='Feature', properties={'class':'x'}, geometry=dict(type='Point',
        coordinates=[0,0]))])))
    assert sniff_format(tmp_path)=='geojson'
    (a,),said = quiet(read_format, tmp_path); assert a.names==['ship'] and a.difficult.tolist()==[1] and 'have no area' in said
    np.testing.assert_allclose(min((np.roll(a.quads[0], i, 0) for i in range(4)), key=lambda o: np.abs(o-BOX).max()), BOX, atol=.02)
    rep,_ = quiet(doctor, tmp_path); assert rep.errors==0; quiet(convert, tmp_path, tmp_path.parent/f'{tmp_path.name}-out', 'dota')

def test_detections_written_on_the_map_are_read_as_labels(tmp_path):
    r = rio(); f = geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=r.Affine(.5,0,5e5,0,-.5,4.6e6))
    for crs in (None,'lonlat'):
        write_predictions(P, tmp_path/'a.geojson', ['ship'], scene=f, crs=crs); (a,),_ = quiet(read_format, tmp_path)
        for q,b in zip(a.quads, rbox2qbox(P['boxes'])): assert same(q, b, .02)

@pytest.mark.parametrize('told,name,said', [(dict(CLASS='ship'), 'ship', False), (dict(vehicle='ship'), 'object', True),
    (dict(id=3), 'object', False)])
def test_the_property_that_tells_the_class(tmp_path, told, name, said):
    Image.new('RGB', (160,100)).save(tmp_path/'a.png')
    f = dict(type='Feature', properties=told, geometry=dict(type='Polygon', coordinates=[[*BOX.tolist(),BOX[0].tolist()]]))
    (tmp_path/'a.geojson').write_text(json.dumps(dict(type='FeatureCollection', crs=None, features=[f])))
    (a,),w = quiet(read_format, tmp_path); assert a.names==[name] and ("name='vehicle'" in w)==said
    if said: (a,),w = quiet(read_format, tmp_path, name='vehicle'); assert a.names==['ship'] and not w
    assert layer_crs(dict(crs=dict(type='EPSG', properties=dict(code=32633))))=='EPSG:32633'

def test_a_layer_without_its_system_is_an_error(tmp_path):
    r = rio()
    geotiff(tmp_path/'a.tif', crs='EPSG:32633', transform=r.Affine(.5,0,5e5,0,-.5,4.6e6))
    xy = [[500010,4599990],[500030,4599990],[500030,4599980],[500010,4599980],[500010,4599990]]
    (tmp_path/'a.geojson').write_text(json.dumps(dict(type='FeatureCollection',
        features=[dict(type='Feature', properties={}, geometry=dict(type='Polygon', coordinates=[xy]))])))
    with pytest.raises(LabelError, match='does not give its system'): read_format(tmp_path)
