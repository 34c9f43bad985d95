"An exported file as a predictor: what its detector says of an image, a scene, a folder and a labelled set, and what is made of it"
import warnings
import numpy as np, onnx, pytest
from PIL import Image
from rotnb.all import (Calibrator, Predictor, ResultsExplorer, RotatedInterpretation, eval_map, load_weights, predict_folder, read_format,
                       write_report)
from rotnb.cli.commands import open_model, open_predictor
from rotnb.data.synth.scenes import make_synth
from rotnb.interop.export import file_notes
from rotnb.interop.export_module import ExportModule
from rotnb.interop.proof import file_predictor
from rotnb.predict.predictor import HiddenWarning
from exported import WRITERS, tiny_predictor
from paths import ROOT

DEMO = ROOT/'nbs/images/demo.jpg'

def twin(file):
    "The predictor of which a file was made, with the settings that it says"
    return Predictor(tiny_predictor().detector, **Predictor(file).settings())

def same(ours, theirs, tol=1e-2):
    "The same boxes to `tol` px, in an order that may differ where scores are equal"
    assert len(ours)==len(theirs), (len(ours), len(theirs))
    if not len(ours): return True
    assert np.allclose(ours.scores, theirs.scores, atol=1e-4)
    apart = (ours.quads.flatten(1)[:,None]-theirs.quads.flatten(1)).abs().amax(-1)+99*(ours.labels[:,None]!=theirs.labels)
    assert apart.amin(1).max()<tol and apart.amin(0).max()<tol, apart.amin(1).max()
    return ours.vocab==theirs.vocab

@pytest.fixture(scope='module')
def data(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('labelled')/'set', n_train=1, n_valid=3, size=192, seed=5)

def check_alike(file, data, tmp_path):
    "All verbs"
    mine,other = Predictor(file, score_thr=.1),twin(file)
    other.score_thr = .1
    annots = read_format(data, 'val')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', HiddenWarning)
        assert same(mine(DEMO), other(DEMO)) and len(mine(DEMO))
        scenes = [one.predict_scene(DEMO, size=160, overlap=40, progress=False) for one in (mine,other)]
        assert same(*scenes) and len(scenes[0])>9
        found = [one.predict_folder(data/'val/images', tmp_path/str(i), 'csv', progress=False)[0] for i,one in enumerate((mine,other))]
        assert all(same(a, found[1][name]) for name,a in found[0].items()) and sum(map(len, found[0].values()))>9
        assert (tmp_path/'0/results.csv').exists()
        a,b = (eval_map(one, annots) for one in (mine,other))
    assert a.map==pytest.approx(b.map, abs=1e-4) and a.map>.1
    return mine,annots

def test_the_same_boxes(exported, data, tmp_path):
    mine,annots = check_alike(exported('.onnx'), data, tmp_path)
    interp = RotatedInterpretation.from_predictor(mine, annots)
    assert len(interp.summary())==len(mine.vocab)+1 and ResultsExplorer(interp).table is not None
    page = write_report(mine, tmp_path/'r.html', annots=annots, n_images=1, n_boxes=2).read_text()
    assert 'in a file' in page and 'ONNX Runtime on cpu' in page

@pytest.mark.slow
@pytest.mark.parametrize('suffix,dynamic', [('.onnx',True), ('.xml',False), ('.xml',True), ('.pt2',False), ('.pt2',True)])
def test_the_same_boxes_elsewhere(exported, data, tmp_path, suffix, dynamic): check_alike(exported(suffix, dynamic), data, tmp_path)

def test_by_a_path_wherever_a_model_is_meant(exported, tmp_path):
    file = exported('.onnx')
    for made in (load_weights(file), open_model(str(file)), open_predictor(file)): assert same(made(DEMO), Predictor(file)(DEMO))
    folder = tiny_predictor().save(tmp_path/'folder')
    assert same(Predictor(folder)(DEMO), tiny_predictor()(DEMO)) and Predictor(folder, score_thr=.5).score_thr==.5
    assert same(Predictor('rotated_fcos_tiny_synth', size=(192,160))(DEMO), tiny_predictor()(DEMO))

def test_an_interrupted_run_of_another_file(exported, tmp_path):
    "A journal knows which file it is of"
    Image.open(DEMO).crop((0,0,200,160)).save(tmp_path/'a.png')
    run = dict(out=tmp_path/'out', format='csv', progress=False)
    predict_folder(Predictor(exported('.onnx')), tmp_path/'a.png', **run)
    with pytest.raises(ValueError, match='was begun with weights'): predict_folder(tiny_predictor(), tmp_path/'a.png', **run)

SAID = Calibrator({'ship':[[0,.5,1],[0,.4,.6]]}, [[0,.5,1],[0,.8,1]])

def check_calibrated(file, ours):
    "A file says what its predictor says: calibrated scores, from a threshold in their own terms on"
    mine,raw = Predictor(file),Predictor(file).uncalibrated
    assert mine.calibrator==SAID and mine.score_thr==ours.score_thr==.12 and raw.calibrator is None
    found,before = mine(DEMO),raw(DEMO, score_thr=ours.raw_score())
    assert same(found, Predictor(ours.detector, **mine.settings())(DEMO)) and len(found)>2
    want = np.sort(SAID(before.scores, before.labels, mine.vocab))
    assert np.allclose(np.sort(found.scores), want[want>=.12], atol=1e-6) and len(before)>len(found)
    assert not np.allclose(found.scores, before.scores[:len(found)], atol=.01)

def test_scores_of_a_file_are_calibrated(exported, tmp_path):
    "Of a file with the metadata that an export writes: the graph is that of the raw scores"
    ours = tiny_predictor(calibrator=SAID, score_thr=.12)
    whole,shown = onnx.load(exported('.onnx')),file_predictor(ours)
    assert shown.calibrator==SAID and ExportModule(shown).score_thr==ExportModule(file_predictor(tiny_predictor())).score_thr
    onnx.helper.set_model_props(whole, file_notes(ExportModule(shown), shown, False))
    onnx.save(whole, tmp_path/'said.onnx')
    check_calibrated(tmp_path/'said.onnx', ours)

@pytest.mark.slow
@pytest.mark.parametrize('suffix', WRITERS)
def test_scores_are_calibrated_in_every_file(suffix, tmp_path):
    ours = tiny_predictor(calibrator=SAID, score_thr=.12)
    check_calibrated(WRITERS[suffix](ours, tmp_path/f'said{suffix}', check=False), ours)
