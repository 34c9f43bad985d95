"`Detections`: one object an index, a dict to old code, and every way on works with nothing found, on any image"
import base64, io, json, pickle, time, tracemalloc
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from hypothesis import HealthCheck, given, settings, strategies as st
from rotnb.data.labels.records import Annot
from rotnb.data.images.windows import open_scene
from rotnb.data.synth.scenes import make_scene
from rotnb.geometry.boxes import rbox2qbox
from rotnb.plot.draw import draw
from rotnb.predict.detections import Detections, _in_words
from rotnb.predict.results import results_df, write_predictions
from rotnb.predict.kept import read_results

VOCAB = ['ship','small-vehicle','harbor']

def some(n=5, side=100, seed=0, image=None, vocab=VOCAB):
    r = np.random.default_rng(seed)
    boxes = r.random((n,5))*[side,side,30,12,3]+[0,0,4,3,-1.5]
    return Detections(torch.tensor(boxes).float(), np.sort(r.random(n))[::-1].copy(), r.integers(0, 3, n), vocab, image)

@pytest.mark.parametrize('names,words', [
    ([],''), (['ship'],'1 ship'), (['ship']*1234,'1,234 ships'), (['bus']*2,'2 x bus'), (['box']*2,'2 x box'),
    (['small-vehicle']*3,'3 small-vehicles'), (['ferry']*2,'2 x ferry'), (['chimney']*2,'2 chimneys'), (['aircraft']*2,'2 x aircraft'),
    (['person']*2,'2 x person'), (['Boeing737']*2,'2 x Boeing737'), (['SU-35']*2,'2 x SU-35'), (['船']*2,'2 x 船'), (['']*2,'2 x '),
    (['a b']*2,'2 x a b'), (['storage tank']*2,'2 storage tanks'), (['overpass']*2,'2 x overpass'),
    (['bridge','ship','ship'],'2 ships, 1 bridge')])
def test_counts_in_words(names, words): assert _in_words(names)==words

def test_the_sentence_is_short_with_many_classes():
    found = Detections(np.ones((300,5)), np.linspace(0, 1, 300), np.arange(300)%100)
    assert len(repr(found))<160 and repr(found).endswith('other classes (best 1.00)')

def test_it_unpacks_as_the_dict_it_was():
    found = some()
    def old(boxes, scores, labels): return len(boxes),len(scores),len(labels)
    assert old(**found)==(5,5,5) and [*dict(found)]==[*{**found}]==['boxes','scores','labels']==found.keys()
    assert {key:len(rows) for key,rows in found.items()}==dict.fromkeys(found.keys(), 5)
    assert {**found, 'labels':None}['labels'] is None and found.get('boxes') is found.boxes and found.get('masks') is None
    assert 'scores' in found and 'masks' not in found and 0 not in found
    with pytest.raises(KeyError): found['masks']

@pytest.mark.parametrize('at,want', [(0,[0]), (-1,[4]), (slice(None,None,-2),[4,2,0]), ([3,1],[3,1]), ([],[]), (np.array([2]),[2]),
    (torch.tensor([0,4]),[0,4]), (torch.tensor([True,False,False,True,False]),[0,3]), ([True,False,False,False,False],[0]),
    (torch.tensor(2),[2]), (np.int64(3),[3])], ids=str)
def test_an_index_picks_from_all(at, want):
    found = some(image='a.png')
    got = found[at]
    assert torch.equal(got.boxes, found.boxes[want]) and torch.equal(got.scores, found.scores[want])
    assert got.names==[found.names[i] for i in want]
    assert type(got) is Detections and got.image=='a.png' and got.vocab==VOCAB

@pytest.mark.parametrize('at', [5, -6, [0,9], [True]*4, torch.ones(7).bool(), 1.5, [.5], None and 0 or 'masks'], ids=str)
def test_an_index_that_is_none(at):
    with pytest.raises((IndexError,KeyError)): some()[at]

def test_iteration_goes_object_by_object():
    assert [found.names[0] for found in some()]==some().names and all(len(found)==1 for found in some()) and [*some(0)]==[]

@pytest.mark.parametrize('boxes,scores,labels', [(np.zeros((2,4)),[1,1],[0,0]), (np.zeros((2,5)),[1],[0,0]), (np.zeros((2,5)),[1,1],[0]),
                                                 (np.zeros(5),[1],[0]), (np.zeros((1,5)),[1],[-1])])
def test_rows_that_do_not_fit(boxes, scores, labels):
    with pytest.raises(ValueError, match='expected'): Detections(boxes, scores, labels)

@pytest.mark.parametrize('form', [
    lambda px, f: px, lambda px, f: f, lambda px, f: str(f), lambda px, f: Image.open(f), lambda px, f: open_scene(f),
    lambda px, f: torch.tensor(px).permute(2,0,1), lambda px, f: torch.tensor(px).permute(2,0,1)/255, lambda px, f: px/255.,
    lambda px, f: f.read_bytes()])
@pytest.mark.parametrize('n', [0,5])
def test_every_way_on(form, n, tmp_path):
    "Of any image, and where nothing was found"
    px,file = make_scene(3, 100)[0],tmp_path/'in.png'
    Image.fromarray(px).save(file)
    found = some(n, image=form(px, file))
    assert found.plot().shape==px.shape and (found.plot()==px).all()==(n==0)
    assert found.plot(200).shape==(200,200,3) and found.plot(50).shape==(50,50,3)
    assert len(found.crops())==n==len(found.df)==len(found.to_coco(1))==len(found.to_geojson()['features'])==len(found.names)
    assert found.quads.shape==(n,4,2) and list(found.df)[:3]==['name','score','cx']
    for ending in ('jpg','JPG','png','webp','tif','geojson','json','csv','txt','zip'): assert found.save(tmp_path/f'o.{ending}').exists()
    assert len(pd.read_csv(tmp_path/'o.csv'))==n==len(json.loads((tmp_path/'o.json').read_text()))
    with Image.open(tmp_path/'o.png') as im: assert (np.asarray(im)==found.plot()).all()
    shown = found._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(shown['image/jpeg']))).size==(640,640) and shown['text/plain']==repr(found)
    again = pickle.loads(pickle.dumps(found)) if not isinstance(found.image, Image.Image) else found
    assert (again.plot()==found.plot()).all() and repr(again)==repr(found)

def test_without_its_image(tmp_path):
    for image in (None, tmp_path/'gone.png'):
        found = some(image=image)
        assert set(found._repr_mimebundle_())=={'text/plain'} and len(found.df)==5
        with pytest.raises((ValueError,OSError), match='image'): found.plot()
    assert len(json.loads(some().save(tmp_path/'a.geojson').read_text())['features'])==5
    with pytest.raises(ValueError, match='no known format'): some().save(tmp_path/'a.docx')
    assert not list(tmp_path.glob('a.docx'))

def test_filter_takes_words():
    found = some(20)
    assert len(found.filter())==20 and min(found.filter(.5).scores)>=.5 and set(found.filter(classes='ship').names)=={'ship'}
    assert set(found.filter(classes=('ship',2)).names)=={'ship','harbor'} and len(found.filter(classes=[]))==0
    assert len(some(0).filter(.3, ['ship']))==0
    for kw,words in [(dict(classes='shp'),"did you mean 'ship'"), (dict(score_thr=30),'score_thr'), (dict(score_thr='high'),'score_thr'),
                     (dict(classes=['ship','boat']),'unknown class')]:
        with pytest.raises(ValueError, match=words): found.filter(**kw)

def test_a_class_without_a_name_is_called_by_its_number(tmp_path):
    found = Detections(np.ones((2,5))*9, [.5,.4], [0,4], ['ship'], np.zeros((40,40,3), np.uint8))
    assert found.names==['ship','class 4'] and found.df.name.tolist()==found.names
    assert found.save(tmp_path/'a.csv') and found.to_coco(1)[1]['category_id']==5 and found.plot().any()

def test_degrees_are_degrees():
    found = some()
    assert np.allclose(found.df.angle_deg, np.degrees(found.boxes[:,4].numpy()), atol=1e-3)
    assert np.allclose(found.df[['x1','y1']], found.quads[:,0], atol=1e-3)

def test_a_crop_shows_its_object_level():
    px = np.zeros((200,200,3), np.uint8)
    found = Detections([[100,90,60,20,.7],[100,90,20,60,.7+np.pi/2]], [.9,.8], [0,0], VOCAB, px)
    import cv2
    cv2.fillPoly(px, [found.quads[0].numpy().round().astype(np.int32)], (255,255,255))
    for crop in found.crops(side=90):
        lit = np.argwhere(crop[...,0]>128)
        assert np.allclose(np.ptp(lit, 0), (20,60), atol=3) and np.allclose(lit.mean(0), 44.5, atol=2)

def test_thousands_are_quick():
    found = some(5000, 3000, image=np.zeros((3000,3000,3), np.uint8))
    start = time.process_time()
    repr(found); found.df; found.filter(.5); found[:100]; found.to_coco(1)
    assert time.process_time()-start<3

def test_a_large_scene_is_read_reduced(tmp_path):
    "Half a gigabyte of pixels, never in memory together"
    big = np.lib.format.open_memmap(tmp_path/'big.npy', mode='w+', dtype=np.uint8, shape=(2000,100000,3))
    big[1000:1200,50000:50200] = 255
    del big
    found = Detections([[50100,1100,200,200,0]], [.9], [0], VOCAB, tmp_path/'big.npy')
    tracemalloc.start()
    shown,(crop,) = found._repr_mimebundle_(),found.crops()
    most = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert most<100e6 and Image.open(io.BytesIO(base64.b64decode(shown['image/jpeg']))).size[0]==1024
    assert crop.shape==(300,300,3) and crop[150,150].tolist()==[255]*3 and not crop[5,5].any()

def test_a_prediction_among_dicts(tmp_path):
    found = some()
    assert len(results_df({'a':found, 'b':dict(found)}, VOCAB))==10
    ours,theirs = (write_predictions(o, tmp_path/name/'x.csv', VOCAB).read_text() for name,o in dict(a=found, b=dict(found)).items())
    assert ours==theirs

def test_one_box_in_a_place():
    box = [60.,40,40,16,.3]
    found = Detections([box,box,[61,40,40,16,.3],[20,90,30,10,0]], [.6,.9,.8,.7], [0,1,2,1], VOCAB)
    assert found.nms().scores.tolist()==pytest.approx([.9,.7]) and len(found.nms(.99))==3 and len(found[:0].nms())==0
    with pytest.raises(ValueError, match='iou_thr'): found.nms(2)

def test_going_over_objects_as_if_they_were_names_is_answered():
    found = some(2)
    with pytest.raises(TypeError, match='found.keys'): [found[key] for key in found]

def test_a_list_is_written_by_the_names_of_its_files(tmp_path):
    found = [some(3, seed=1, image=tmp_path/'a/x.png'), some(2, seed=2, image=tmp_path/'b/y.png')]
    write_predictions(found, tmp_path/'found.csv')
    write_predictions({'x.png':found[0], 'y.png':found[1]}, tmp_path/'same.csv', VOCAB)
    assert (tmp_path/'found.csv').read_text()==(tmp_path/'same.csv').read_text() and len(pd.read_csv(tmp_path/'found.csv'))==5
    with pytest.raises(ValueError, match='several images are called x.png'): write_predictions([found[0]]*2, tmp_path/'twice.csv')
    with pytest.raises(ValueError, match='dict of name'): write_predictions([some(2)], tmp_path/'nameless.csv')
    with pytest.raises(ValueError, match='vocab='): write_predictions(dict(some(2)), tmp_path/'classless.csv')

@pytest.mark.parametrize('name,here', [('conf','scores'), ('obb','quads'), ('xywhr','boxes'), ('xyxyxyxy','quads'), ('cls','names'),
                                       ('to_df','df'), ('save_txt','found.txt'), ('save_crop','crops')])
def test_the_names_of_ultralytics_are_answered(name, here):
    found = some()
    with pytest.raises(AttributeError, match=f"no attribute '{name}': here it is .*{here}"): getattr(found, name)
    assert not hasattr(found, name) and name not in dir(found)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'$"): found.nonsense
    assert len(pickle.loads(pickle.dumps(found)))==len(found)

def test_a_filter_refuses_what_it_does_not_know():
    wrongs = (dict(conf=.5),"'conf', did you mean 'score_thr'"),(dict(min_score=.5),'score_thr'),(dict(score_thr=50),'score_thr')
    for wrong,said in wrongs:
        with pytest.raises((TypeError,ValueError), match=said): some().filter(**wrong)

def test_all_that_a_detector_answers_can_be_drawn():
    "`draw(image, **found)` draws what `draw(image, found)` does, with every key that a detector has"
    rows = torch.tensor([[60.,40,50,20,.4],[130,80,60,30,-.8]])
    own = dict(quads=rbox2qbox(rows)+2, ids=torch.tensor([3,12]), std=torch.full((2,5), .5), heading=torch.tensor([.4-np.pi,float('nan')]))
    found = Detections(rows, torch.tensor([.9,.6]), torch.tensor([0,1]), ['ship','plane'], **own)
    black = np.zeros((120,200,3), np.uint8)
    pictures = [draw(black, found), draw(black, **found, vocab=['ship','plane']), draw(black, dict(found.items()), vocab=['ship','plane'])]
    assert all((picture==pictures[0]).all() for picture in pictures)
    bare = Detections(rows, found.scores, found.labels, ['ship','plane'])
    assert all((draw(black, Detections(rows, bare.scores, bare.labels, bare.vocab, **{key:own[key]}))!=draw(black, bare)).any()
               for key in ('quads','ids','heading'))

@given(thetas=st.lists(st.floats(-6.2, 6.2), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_heading_is_a_row_and_comes_back_from_files(thetas, tmp_path):
    "Within (-pi, pi] whatever was given, in order after slicing, in degrees in the table, and the same in each file that has a place"
    n,rng = len(thetas),np.random.default_rng(0)
    boxes = np.stack([*rng.uniform(30, 90, (2,n)), *rng.uniform(8, 20, (2,n)), rng.uniform(-1.5, 1.5, n)], 1)
    found = Detections(boxes, np.sort(rng.uniform(.1, 1, n))[::-1].copy(), np.zeros(n, int), ['plane'], np.zeros((120,120,3), np.uint8),
                       heading=np.array(thetas))
    own = found.heading.numpy()
    assert (own>-np.pi).all() and (own<=np.pi).all() and np.allclose(np.cos(own-thetas), 1)
    assert np.allclose(found[::-1].heading, own[::-1]) and np.allclose(np.radians(found.df.heading_deg), own)
    Image.fromarray(found.image).save(tmp_path/'a.png')
    annots = [Annot(tmp_path/'a.png', np.zeros((0,4,2)), [], np.zeros(0, int))]
    for file,more in {'found.csv':{}, 'found.json':{}, 'found.zip':dict(heading=True)}.items():
        write_predictions({'a.png':found}, tmp_path/file, **more)
        back, = read_results(tmp_path/file, annots, ['plane']).found.values()
        order = np.argsort(-back['scores'])
        assert np.cos(back['heading'][order]-own).min()>1-1e-6

def test_headings_that_are_none():
    for wrong,said in (([0.,1],'2 headings for 1 boxes'), ([90.],'np.deg2rad'), ([np.inf],'within one turn')):
        with pytest.raises(ValueError, match=said): Detections([[60,40,40,16,.3]], [.9], [0], heading=wrong)
    none = Detections(np.zeros((0,5)), [], [], heading=[])
    assert len(none.heading)==0 and 'heading_deg' in none.df
