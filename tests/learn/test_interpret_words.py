"What an interpretation says of itself, and the names that fastai has for the same"
from functools import partial
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from rotnb.evaluate.accumulator import APAccumulator
from rotnb.learn.interpret import RotatedInterpretation

BOXES = np.array([[20,20,20,10,.1],[60,20,20,10,.2],[20,60,20,10,.3],[60,60,20,10,.4]])

def interpretation(labels, vocab=('ship','tank')):
    "Four ships, of which the first ones are found, as classes `labels`"
    acc,n = APAccumulator(vocab=list(vocab)),len(labels)
    found = dict(boxes=BOXES[:n], scores=np.linspace(.9, .8, n), labels=np.array(labels, int))
    acc.add([found], [dict(boxes=BOXES, labels=np.zeros(4, int), ignore=np.zeros(4, bool))])
    learn = SimpleNamespace(dls=SimpleNamespace(vocab=acc.vocab), model=SimpleNamespace(vocab=acc.vocab), get_preds=None)
    return RotatedInterpretation(learn, None, acc, None)

def test_in_a_line():
    assert repr(interpretation([0,0,1])).startswith('RotatedInterpretation: 1 images, 4 objects, 3 detections, mAP50 0.5')
    assert repr(interpretation([0,0,1])).endswith('; mistakes: 1 class, 1 missed') or '1 missed, 1 class' in repr(interpretation([0,0,1]))
    assert repr(interpretation([0,0,0,0])).endswith('mAP50 1.000; mistakes: none')
    assert '0 detections' in repr(interpretation([])) and '4 missed' in repr(interpretation([]))

def test_most_confused():
    assert interpretation([0,1,1]).most_confused()==[('ship','tank',2)] and interpretation([0,1,1]).most_confused(min_val=3)==[]
    assert interpretation([]).most_confused()==[]

def test_names_that_fastai_has(capsys):
    it = interpretation([0,1])
    it.print_classification_report()
    assert 'tank' in capsys.readouterr().out
    assert RotatedInterpretation.plot_pr_curve is RotatedInterpretation.plot_pr
    assert it.plot_f1_curve(classes=['ship']).get_xlabel()=='score threshold'

@pytest.mark.parametrize('name', 'plot_top_losses plot_confusion_matrix most_confused print_classification_report from_learner'.split())
def test_every_one_is_there(name): assert callable(getattr(RotatedInterpretation, name))

def test_captions_may_repeat():
    "The captions of kinds and classes with which mistakes are drawn: correct and ignored boxes bear the name of the class alone"
    import matplotlib.pyplot as plt
    from rotnb.plot.draw import show_boxes
    _,ax = plt.subplots()
    show_boxes(ax, np.array([[[0,0],[5,0],[5,5],[0,5.]]]), np.array([3]), vocab=interpretation([0])._captions()[1])
    plt.close('all')

def test_worst_takes_the_number_first():
    it = interpretation([0,1,1])
    it.to_dataframe = partial(pd.DataFrame, dict(what=['detection']*3+['truth'], cls=['ship','ship','tank','ship'], w=4., h=2.,
                                                 kind=['background']*3+['missed'], score=[.5,.9,.7,np.nan]))
    assert list(it.worst(2).score)==[.9,.7] and len(it.worst())==4
    assert len(it.worst(2))==2 and it.worst(2).equals(it.worst(n=2)) and it.worst('ship', n=1).equals(it.worst(cls='ship', n=1))
    with pytest.raises(ValueError, match="'shp' is not among"): it.worst('shp')
