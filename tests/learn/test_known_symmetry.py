"A symmetry goes from the loaders through training, files and measures, and back"
import json, math
import matplotlib.pyplot as plt, numpy as np, pytest
from PIL import Image
from rotnb.all import (DatasetExplorer, Predictor, ResultsExplorer, RotatedDataLoaders, RotatedInterpretation, create_detector, draw,
                       guess_symmetry, open_learner, rotated_learner, view)
from rotnb.data.labels.records import Annot
from rotnb.data.synth.canvas import CLASSES
from rotnb.evaluate.accumulator import APAccumulator
from rotnb.evaluate.curves import box_errors
from rotnb.evaluate.errors import ERROR_KINDS, find_errors
from rotnb.geometry.boxes import rbox2qbox
from rotnb.predict.detections import Detections

SYMMETRY = {'building':90, 'storage-tank':'round'}

@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    dls = RotatedDataLoaders.from_synth(tmp_path_factory.mktemp('scenes'), 4, 2, 96, vocab=CLASSES, symmetry=SYMMETRY, bs=2)
    return rotated_learner(dls, 'rotated_fcos_tiny', pretrained=False, run=False)

def test_from_loaders_to_files(learn, tmp_path):
    assert learn.dls.symmetry==learn.model.symmetry==learn.symmetry==SYMMETRY
    learn.export(tmp_path/'a.pkl')
    assert open_learner(tmp_path/'a.pkl', 'cpu').symmetry==SYMMETRY
    predictor = learn.predictor()
    assert predictor.symmetry==SYMMETRY
    predictor.save(tmp_path/'kept')
    assert json.loads((tmp_path/'kept/config.json').read_text())['predictor']['symmetry']==SYMMETRY
    again = Predictor(tmp_path/'kept')
    assert again.symmetry==again.detector.symmetry==SYMMETRY
    file = learn.save_weights(tmp_path/'w.safetensors')
    assert rotated_learner(RotatedDataLoaders(*learn.dls.loaders), weights=file, run=False).symmetry==SYMMETRY
    found = again(np.zeros((96,96,3), np.uint8), score_thr=0.)
    assert found.symmetry==found[:1].symmetry==SYMMETRY

def test_loaders_in_another_order_keep_what_they_know(tanks):
    detector = create_detector('rotated_fcos_tiny', 3, pretrained=False)
    detector.vocab = ['tank','ship','hall']
    learn = rotated_learner(RotatedDataLoaders(*tanks.dls.loaders), detector, run=False)
    assert learn.dls.vocab==detector.vocab and learn.dls.symmetry==detector.symmetry=={'tank':'round'}

def test_the_angle_of_what_is_round_is_measured_nowhere(learn):
    found = learn.evaluate(show=False)
    assert found.acc.symmetry==SYMMETRY and math.isnan(found.df.loc['storage-tank','angle_err'])
    with pytest.raises(ValueError, match='unknown classes'): learn.evaluate(symmetry={'shop':90}, show=False)
    assert RotatedInterpretation.from_learner(learn).acc.symmetry==SYMMETRY

def test_a_wrong_name_raises_before_the_work(tmp_path):
    with pytest.raises(ValueError, match="unknown classes \\['tanc'\\]"):
        RotatedDataLoaders.from_synth(tmp_path, 2, 1, 96, symmetry={'tanc':'round'})

def test_a_tank_has_no_angle_error():
    "Two squares whose overlap is .6 because they are turned: wrong by angle if a class has one, by place if it has none"
    square,turned = [50.,50,40,40,0.],[54.,50,40,40,math.pi/4]
    acc = APAccumulator(vocab=['hall','tank'], symmetry={'tank':'round'})
    acc.add([dict(boxes=np.array([turned,turned])+[[0,0,0,0,0],[100,0,0,0,0]], scores=[.9,.8], labels=[0,1])],
            [dict(boxes=np.array([square,square])+[[0,0,0,0,0],[100,0,0,0,0]], labels=[0,1])])
    kinds = lambda symmetry=None: [int(kind) for kind in find_errors(acc, .7, symmetry=symmetry).kind]
    assert [ERROR_KINDS[kind] for kind in kinds()]==['angle','localisation']
    assert [ERROR_KINDS[kind] for kind in kinds(180)]==['angle','angle']
    off = box_errors(acc, .5)
    assert off.angle[0]==pytest.approx(45) and math.isnan(off.angle[1])
    other = acc.renamed(['ship','tank','hall'])
    assert other.periods().tolist()==[180,0,180]

def test_circles_are_drawn():
    blank,box = np.zeros((80,80,3), np.uint8),np.array([[40.,40,40,40,.5]])
    circle,tick = (draw(blank, box, [0], vocab=['tank'], symmetry=symmetry, text=False) for symmetry in ({'tank':'round'},None))
    assert (circle[40,58:63].max(-1)>100).any() and not (tick[40,58:61].max(-1)>100).any() and (circle!=tick).any()
    assert (draw(blank, Detections(box, [.5], [0], ['tank'], symmetry={'tank':'round'}), text=False)==circle).all()
    shown = view(blank, dict(boxes=box, labels=['tank']), symmetry={'tank':'round'})
    assert shown.symmetry=={'tank':'round'} 
    assert (shown.to_array()!=view(blank, dict(boxes=box, labels=['tank'])).to_array()).any()

@pytest.fixture(scope='module')
def tanks(tmp_path_factory):
    "A learner around an image with a tank and a hall"
    folder = tmp_path_factory.mktemp('tanks')
    Image.fromarray(np.full((96,96,3), 90, np.uint8)).save(folder/'a.png')
    quads = rbox2qbox(np.array([[30.,40,30,30,.5],[70.,60,30,20,.5]]))
    annots = [Annot(folder/'a.png', quads, ['tank','hall'], np.zeros(2, int))]*2
    dls = RotatedDataLoaders.from_annots(annots, annots, ['hall','tank'], batch_tfms=[], symmetry={'tank':'round'}, bs=2)
    return rotated_learner(dls, 'rotated_fcos_tiny', pretrained=False, run=False)

def circles(axs): return [sum(len(patch.get_xy())>20 for patch in ax.patches) for ax in np.ravel(axs)]

def test_what_is_round_has_a_circle_wherever_boxes_are_drawn(tanks):
    tanks.dls.show_batch(max_n=2)
    assert circles(plt.gcf().axes)==[1,1]
    truth = RotatedInterpretation.from_learner(tanks)
    assert circles(truth.plot_truth([0,1]).axes)==[1,1]
    assert circles(truth.plot_images([0]).axes)[0]==1
    tanks.show_results(max_n=1)
    assert circles(plt.gcf().axes)[0]==1
    plt.close('all')

def test_small_pictures_of_explorers_know_what_is_round(tanks):
    shown = DatasetExplorer(tanks.dls)
    boxes = shown.cell(0)['boxes']
    assert shown.symmetry=={'tank':'round'} and boxes['round']==[label==1 for label in boxes['label']] and True in boxes['round']
    assert shown.large(0).symmetry=={'tank':'round'}
    assert DatasetExplorer(tanks.dls, symmetry={'hall':90}).rounds==[]
    assert ResultsExplorer(RotatedInterpretation.from_learner(tanks)).rounds==[1]
    with pytest.raises(ValueError, match='unknown classes'): DatasetExplorer(tanks.dls, symmetry={'tanc':'round'})

def test_guess_from_loaders(learn): assert guess_symmetry(learn.dls)=={}                # four scenes are too few to tell
