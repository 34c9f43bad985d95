"GeoJSON layers"
import json
import pytest
from format_checks import CHECKS, LabelSample
from label_sets import folder, read

def feature(ring, **properties):
    return dict(type='Feature', properties=properties, geometry=dict(type='Polygon', coordinates=[[*ring,ring[0]]]))
FEATURES = [feature([[10,10],[50,12],[50,30],[10,28]], kind='x', Class='ship'),
            feature([[120,20],[150,20],[150,55],[120,55]], Class='tank', difficult=1),
            dict(type='Feature', properties=dict(Class='mast'), geometry=dict(type='Point', coordinates=[1,1]))]
def text(features): return json.dumps(dict(type='FeatureCollection', crs=None, features=features))
ROWS = [([10,10,50,12,50,30,10,28],'ship',0), ([120,20,150,20,150,55,120,55],'tank',1)]
BROKEN = text(FEATURES).replace('[120, 20]', '[120, "x"]')
SAMPLE = LabelSample('geojson', 'a.geojson', text(FEATURES), ROWS, BROKEN, ': features[1]', text([]))

@pytest.mark.parametrize('check', CHECKS)
def test_geojson(tmp_path, check): check(tmp_path, SAMPLE)

@pytest.mark.parametrize('properties', [None, [], ['class'], 'class', 5])
def test_properties_that_are_no_object_are_malformed(tmp_path, properties):
    "The feature is read without a class, or named; the others are read"
    odd = dict(FEATURES[1], properties=properties)
    root = folder(tmp_path, {'a.png':None, 'a.geojson':text([FEATURES[0],odd])})
    (annot,),said = read(root, on_bad='warn')
    assert 'features[1]' in said and annot.names==['ship']

def test_a_layer_without_classes_reports_the_properties_of_text(tmp_path):
    root = folder(tmp_path, {'a.png':None, 'a.geojson':text([feature([[10,10],[50,12],[50,30],[10,28]], kind='ship')])})
    (annot,),said = read(root)
    assert annot.names==['object'] and "name='kind'" in said
    assert read(root, name='kind')[0][0].names==['ship']
