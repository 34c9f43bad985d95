"Cost and worth of detectors side by side: what is on the front, what can be measured, and what is said of the rest"
import json, math, shutil
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from rotnb.check.values import ArgumentError
from rotnb.data.formats.dota import read_dota
from rotnb.data.labels.records import LabelError
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.synth.scenes import make_synth
from rotnb.evaluate.classes import ClassMismatchError
from rotnb.learn.learner import rotated_learner
from rotnb.learn.run_folder import keep_weights
from rotnb.learn.speed_accuracy import COSTS, SpeedAccuracy, candidate, pareto_front, speed_accuracy, turn_times, valid_annots
from rotnb.models import create_detector
from rotnb.predict.load import load_weights
from rotnb.predict.predictor import Predictor
from exported import tiny_predictor

MODEL = 'rotated_fcos_tiny_synth'
few = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8)

@given(few)
@settings(deadline=None)
def test_the_front_is_what_nothing_beats(points):
    cost,value = np.array(points, float).reshape(-1,2).T
    def beats(one, other): return one[0]<=other[0] and one[1]>=other[1] and one!=other
    assert pareto_front(cost, value).tolist()==[not any(beats(other, own) for other in points) for own in points]

@given(few, st.integers(0, 7))
@settings(deadline=None)
def test_what_is_unknown_neither_stands_nor_beats(points, at):
    cost,value = np.array(points, float).reshape(-1,2).T
    at = min(at, len(cost))
    for whose in ((math.nan,9.), (-1.,math.nan)):
        with_one = pareto_front(np.insert(cost, at, whose[0]), np.insert(value, at, whose[1]))
        assert not with_one[at] and np.delete(with_one, at).tolist()==pareto_front(cost, value).tolist()

def table(**rows): # name=(family, mAP50_95, ms)
    row = lambda family,value,ms: dict(family=family, mAP50=value, mAP50_95=value, ms=ms, cpu_ms=ms, GFLOPs=math.nan, parameters=math.nan,
                                       MB=1., runs_on='torch, cpu')
    return SpeedAccuracy(pd.DataFrame([row(*given) for given in rows.values()], pd.Index([*rows])), {})

def test_choosing():
    found = table(slow=('a',.6,90.), quick=('a',.3,10.), bad=('b',.2,50.), nothing=('b',math.nan,1.))
    assert found.front()==['quick','slow'] and found.choose(90)=='slow' and found.choose(60)=='quick' and not found.front('GFLOPs')
    with pytest.raises(ArgumentError, match="none takes at most 5 ms an image: the cheapest, quick, takes 10"): found.choose(5)
    with pytest.raises(ArgumentError, match="by is 'second', expected 'ms', 'cpu_ms'"): found.choose(5, by='second')
    with pytest.raises(ArgumentError, match='no candidate has both GFLOPs'): found.plot('GFLOPs')

def drawn(ax):
    import matplotlib.colors as colors
    texts = {text.get_text():text for text in ax.texts}
    curves = {line.get_label():line.get_xdata().tolist() for line in ax.lines if not line.get_label().startswith('_')}
    return texts,curves,lambda text: colors.to_hex(text.get_color())

def test_the_plot():
    ax = table(slow=('a',.6,90.), quick=('a',.3,10.), bad=('b',.2,50.)).plot()
    texts,curves,color = drawn(ax)
    assert {*texts}=={'slow','quick','bad'} and curves=={'worth it':[10,90], 'a':[10,90], 'b':[50]}
    assert color(texts['bad'])!=color(texts['slow'])==color(texts['quick'])
    assert ax.get_xscale()=='log' and ax.get_xlabel()=='ms an image' and ax.get_ylabel()=='mAP50:95'

def test_names_do_not_hide_each_other():
    ax = table(**{f'number{i}':('a',.5+.001*i,10+.01*i) for i in range(4)}).plot()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not [(i,j) for i in range(4) for j in range(i) if boxes[i].overlaps(boxes[j])]

def test_turns():
    called = []
    times = turn_times({name:lambda image,name=name: called.append((name,image)) for name in 'ab'}, [1,2], turns=3)
    assert called==[('a',1),('a',2),('b',1),('b',2)]*4
    assert all(len(times[name][kind])==3 and min(times[name][kind])>=0 for name in 'ab' for kind in ('ms','cpu_ms'))

@pytest.fixture(scope='module')
def data(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('set')/'set', n_train=2, n_valid=2, size=96)

@pytest.fixture(scope='module')
def learn(data):
    return rotated_learner(RotatedDataLoaders.from_dota(data, bs=2, num_workers=0), weights=MODEL, run=False)

def test_all_that_can_be_measured(data, learn, tmp_path):
    "A learner, a predictor, a name, a run's folder, a saved folder; each gives what it gives alone"
    run = tmp_path/'my_run'
    run.mkdir()
    keep_weights(learn, run/'best.pth')
    saved = load_weights(MODEL).save(tmp_path/'saved')
    found = speed_accuracy([learn,tiny_predictor(),MODEL,str(run),saved], learn.dls, turns=1, n_images=1, progress=False)
    both = [f'{MODEL} (1)',f'{MODEL} (2)']
    assert [*found.df.index]==['rotated_fcos_tiny',*both,'my_run','saved']
    def alone(predictor): return predictor.evaluate(read_dota(data, 'val'), progress=False).map
    learnt,small,named = alone(learn.predictor()),alone(tiny_predictor()),alone(load_weights(MODEL))
    assert len({learnt,small,named})==3 and min(learnt,small,named)>0      # the same weights: what differs is how images are fitted
    values = found.df.mAP50_95
    for names,value in ((['rotated_fcos_tiny','my_run'],learnt), (both[:1],small), ([both[1],'saved'],named)):
        assert values[names].tolist()==pytest.approx([value]*len(names))
    assert found.df.family['my_run']=='rotated_fcos' and (found.df[['ms','cpu_ms','MB','GFLOPs']]>0).all(axis=None)

def test_a_file(data, exported, tmp_path):
    "It is as good as what it was made of, and hides what it does"
    file = shutil.copy(exported(), tmp_path/'tiny.onnx')
    fitted = Predictor(tiny_predictor().detector, **Predictor(str(file)).settings())       # a file of one size fills images up to it
    found = speed_accuracy([fitted,str(file)], data, turns=1, n_images=1, progress=False)
    assert [*found.df.index]==[MODEL,'tiny.onnx'] and found.df.mAP50_95[MODEL]>0
    assert found.df.mAP50_95['tiny.onnx']==pytest.approx(found.df.mAP50_95[MODEL], abs=1e-3)
    assert found.df.family['tiny.onnx']=='rotated_fcos, ONNX Runtime' and math.isnan(found.df.parameters['tiny.onnx'])
    assert found.df.MB['tiny.onnx']==pytest.approx(file.stat().st_size/1e6)
    again = json.loads(found.save(tmp_path/'found.json').read_text())
    assert again['models']['tiny.onnx']['GFLOPs'] is None and again['threads']==torch.get_num_threads() and again['images']==2
    assert {*again['front']}=={*COSTS} and 'ms of one image of 96 x 96 px' in repr(found) and '<table' in found._repr_html_()

def test_where_the_images_are(data, learn):
    names = [annot.image.name for annot in read_dota(data, 'val')]
    for place in (data, str(data), learn.dls, learn.dls.valid, read_dota(data, 'val')):
        assert [annot.image.name for annot in valid_annots(place)]==names
    assert [annot.image.name for annot in valid_annots(learn.dls.train)]!=names

def test_used_wrongly(data, learn, tmp_path):
    other = create_detector('rotated_fcos', 1, backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,))
    other.vocab = ['zebra']
    measure = speed_accuracy
    for said,call in {"no weights are called 'zz'":lambda: measure('zz', data), 'models is empty':lambda: measure([], data),
                      'no such folder':lambda: measure(MODEL, tmp_path/'none'),
                      'turns is 0':lambda: measure(MODEL, data, turns=0), 'holds no images':lambda: measure(MODEL, []),
                      'holds a int, expected records':lambda: measure(MODEL, [1]),
                      "unknown argument|'turn'":lambda: measure(MODEL, data, turn=1),
                      'expected a learner, a Predictor':lambda: candidate(torch.nn.Linear(1,1)),
                      'learn.predictor|open_learner':lambda: candidate('a.pkl')}.items():
        with pytest.raises((ValueError,TypeError,OSError), match=said): call()
    for place,error,said in ((learn.dls,ClassMismatchError,'^mine: '), (data,LabelError,'unknown class .*The vocab is: zebra')):
        with pytest.raises(error, match=said): speed_accuracy({'mine':other.eval()}, place, turns=1, n_images=1)
