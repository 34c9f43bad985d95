"A figure for print: its size, letters, colours and close-ups; what is not given right is told"
from types import SimpleNamespace
import matplotlib.pyplot as plt, numpy as np, pytest
from PIL import Image
from rotnb.data.images.windows import open_scene
from rotnb.data.labels.records import Annot
from rotnb.geometry.boxes import rbox2qbox
from rotnb.predict.paper import OUTCOMES, _Boxes, _zoom_region, paper_figure

BOXES = np.array([[20,20,20,10,.3],[60,25,20,10,0],[30,70,16,8,1],[75,72,16,8,2.]])
IMAGE = np.full((100,120,3), 120, np.uint8)
VOCAB = ['ship','harbor']
SCORES,LABELS = np.linspace(.9, .6, 4),np.array([0,1,0,1])
def dets(keep=slice(None), shift=0.): return dict(boxes=BOXES[keep]+[shift,0,0,0,0], scores=SCORES[keep], labels=LABELS[keep])
def truth(difficult=(0,0,0,0), gsd=None): return Annot('a.png', rbox2qbox(BOXES), [*VOCAB,*VOCAB], np.array(difficult), gsd=gsd)

@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')

def legend(fig): return [text.get_text() for text in fig.legends[0].get_texts()]
def sizes(fig): return [text.get_fontsize() for text in fig.findobj(plt.Text) if text.get_text()]

@pytest.mark.parametrize('width,inches', [('column',86/25.4), ('page',178/25.4), (120,120/25.4)])
def test_the_figure_has_the_width_of_its_column(width, inches):
    fig = paper_figure([IMAGE]*2, {'a':[dets()]*2, 'b':[dets(slice(3))]*2}, VOCAB, width=width, names=['one','two'])
    assert fig.get_size_inches()[0]==pytest.approx(inches) and min(sizes(fig))>=6 and legend(fig)==VOCAB
    fig.canvas.draw()
    for item in (*fig.axes, *fig.legends):
        box = item.get_tightbbox() if hasattr(item, 'get_tightbbox') else item.get_window_extent()
        assert box.x0>=-1 and box.y0>=-1 and box.x1<=fig.bbox.x1+1 and box.y1<=fig.bbox.y1+1, item

def test_a_hundred_classes_have_their_lines():
    names = [f'a-long-name-of-class-{i}' for i in range(40)]
    many = dict(boxes=np.tile(BOXES, (10,1)), scores=np.ones(40), labels=np.arange(40))
    fig = paper_figure(IMAGE, {'a':many}, names, width='column')
    fig.canvas.draw()
    box = fig.legends[0].get_window_extent()
    assert len(legend(fig))==40 and box.x0>=0 and box.x1<=fig.bbox.x1 and box.y1<=min(ax.get_window_extent().y0 for ax in fig.axes)+1

def test_outcomes():
    boxes,true = _Boxes.of(dets([0,1,3], .5), VOCAB, .3),_Boxes.of(truth((0,0,0,1)), None, 0)
    boxes.quads[1] += 40
    boxes.compare(true, .5)
    assert boxes.hit.tolist()==[True,False,False] and boxes.ignored.tolist()==[False,False,True] and len(boxes.missed)==2
    fig = paper_figure(IMAGE, {'truth':truth(), 'ours':dets()}, VOCAB, color_by='outcome')
    assert legend(fig)==list(OUTCOMES)
    fig = paper_figure(IMAGE, {'ours':dets()}, VOCAB, color_by='outcome', truth=truth((0,0,0,1)))
    assert legend(fig)==[*OUTCOMES,'ignored']
    with pytest.raises(ValueError, match='ground truth'): paper_figure(IMAGE, {'ours':dets()}, VOCAB, color_by='outcome')

def test_the_close_up_is_where_columns_differ():
    one,two = _Boxes.of(dets(), VOCAB, 0),_Boxes.of(dets([0,1,3]), VOCAB, 0)
    x,y,w,h = _zoom_region([one,two], (120,100))
    assert x<=30<=x+w and y<=70<=y+h and w==h and 0<=x and x+w<=120 and 0<=y and y+h<=100
    assert _zoom_region([one,one], (120,100)) is not None
    fig = paper_figure(IMAGE, {'a':dets(slice(0, 0)), 'b':dets(slice(0, 0))}, VOCAB)
    assert len(fig.axes)==2                                                # nothing to look at closer
    assert len(paper_figure(IMAGE, {'a':dets()}, VOCAB, zoom=None).axes)==1
    assert len(paper_figure([IMAGE]*2, {'a':[dets()]*2}, VOCAB, zoom=[(0,0,50,50),None]).axes)==3

@pytest.mark.parametrize('kw,said', [(dict(gsd=.5),'m'), (dict(),'px'), (dict(gsd=False),None)])
def test_scale_bar(kw, said):
    texts = [text.get_text() for text in paper_figure(IMAGE, {'a':dets()}, VOCAB, **kw).axes[0].texts]
    assert texts==[] if said is None else texts[0].split()[-1]==said

def test_the_length_of_a_pixel_comes_from_labels_and_map():
    assert paper_figure(IMAGE, {'truth':truth(gsd=.1)}).axes[0].texts[0].get_text()=='2 m'
    from dataclasses import replace
    scene = replace(open_scene(IMAGE), crs='EPSG:4326', transform=(9e-6,0,0,0,-9e-6,0))
    assert paper_figure(scene, {'a':dets()}, VOCAB).axes[0].texts[0].get_text()=='20 m'

@pytest.mark.parametrize('ending', ['pdf','svg','png'])
def test_saved(tmp_path, ending):
    file = tmp_path/f'f.{ending}'
    paper_figure(Image.fromarray(IMAGE), {'a':dets()}, ['$x$','<b>'], file=file)
    data = file.read_bytes()
    if ending=='pdf': assert b'/FontFile2' in data and b'/Type3' not in data
    if ending=='svg': assert data.count(b'<path')>8
    assert [o.name for o in tmp_path.iterdir()]==[file.name]

def test_detectors_and_functions():
    asked = []
    learn = SimpleNamespace(predict_images=lambda images, score_thr: asked.append(score_thr) or [dets() for _ in images])
    fig = paper_figure([IMAGE]*2, {'learner':learn, 'function':lambda image: dets(slice(2))}, VOCAB, score_thr=dict(learner=.5))
    assert asked==[.5] and len(fig.axes)>=4

@pytest.mark.parametrize('args,kw,said', [
    (([IMAGE]*2, {'a':[dets()]}), {}, "column 'a' has boxes of 1 images, there are 2"), (([], {'a':[]}), {}, 'needs an image'),
    ((IMAGE, {}), {}, 'a column'), ((IMAGE, {'a':dets()}), dict(zoom='best'), "'auto'"),
    ((IMAGE, {'a':dets()}), dict(zoom=(100,0,50,50)), '120 x 100'),
    ((IMAGE, {'a':dets()}), dict(width='pages'), "'page'"), ((IMAGE, {'a':dets()}), dict(score_thr=30), 'score_thr'),
    ((IMAGE, {'a':dets()}), dict(color_by='kind'), "'outcome'"), (([IMAGE]*2, {'a':[dets()]*2}), dict(zoom=[None]), '1 regions for 2')])
def test_what_makes_no_sense_is_told(args, kw, said):
    with pytest.raises(ValueError, match=said): paper_figure(*args, vocab=VOCAB, **kw)

def test_matplotlib_is_left_as_it_was():
    before = dict(plt.rcParams)
    paper_figure(IMAGE, {'a':dets()}, VOCAB)
    with pytest.raises(ValueError): paper_figure(IMAGE, {'a':dets()}, VOCAB, zoom='x')
    assert dict(plt.rcParams)==before
