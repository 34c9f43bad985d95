"Trained weights as files: what is written opens, for the same classes and for others; what does not fit is named"
import json, pickle
from functools import partial
import numpy as np, pytest, torch
from rotnb.models import create_detector
from rotnb.models.files import DamagedFile, WeightsError
from rotnb.models.contract import settings
from rotnb.models.weights import (detector_from_weights, kept_classes, open_weights, plain_setting, save_weights, setting_of,
                                  shipped_weights)
from rotnb.predict.catalogue import list_weights
from rotnb.data.labels.records import Annot
from rotnb.data.synth.scenes import make_scene, suburb
from rotnb.predict.detections import Detections
from rotnb.losses.boxes import box_loss, smooth_l1_loss
from rotnb.targets.angle_coders import PlainAngle, PSCAngle
from rotnb.targets.assign import max_iou_assign
from rotnb.targets.coders import DeltaXYWHACoder
from rotnb.targets.priors import AnchorPriors
from detections import shares_right
from families import SETS, TWO_STAGE, every_family
from paths import ROOT

TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
PRIORS = dict(rpn_kw=dict(priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None))
NAMES = ['ship','plane','car']
FOLDER = ROOT/'rotnb/weights'

def made(name, classes=NAMES, **kw):
    "A detector whose class rows all differ"
    torch.manual_seed(0)
    detector = create_detector(name, len(classes), **{**TINY, **(dict(fc_channels=32, **PRIORS) if name in TWO_STAGE else {}), **kw})
    with torch.no_grad():
        for stage in detector.stages:
            for part in (stage.cls, getattr(stage, 'box', None)):
                for weight in part.parameters() if part is not None else (): weight.add_(torch.randn_like(weight)*.05)
    detector.vocab = list(classes)
    return detector.eval()

def outputs(detector):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(): return detector.run_stages(images)[1]

def by_class(deltas, order=slice(None)): # of boxes for each of three classes
    return deltas.unflatten(-1, (3,-1))[...,order,:] if deltas.shape[-1] in (12,15) else deltas

@every_family
def test_every_family_opens_for_its_own_classes_and_for_others(name, tmp_path, capsys):
    first = made(name)
    file = save_weights(first, tmp_path/'w')
    turned = detector_from_weights(file, ['car','ship','plane'])
    assert turned.vocab==['car','ship','plane'] and not capsys.readouterr().out
    want,got = outputs(first),outputs(turned)
    assert torch.allclose(by_class(got.deltas), by_class(want.deltas, [2,0,1]), atol=1e-5)
    assert torch.allclose(got.logits[...,:3], want.logits[...,[2,0,1]], atol=1e-5)
    assert torch.allclose(got.logits[...,3:], want.logits[...,3:], atol=1e-5)                            # the background's, if any
    other = detector_from_weights(file, ['tank','ship','pier','car'])
    if name not in SETS: assert torch.allclose(outputs(other).logits[...,[1,3]], want.logits[...,[0,2]], atol=1e-5)
    assert 'keeps ship, car; new in it: tank, pier' in capsys.readouterr().out

def test_deltas_of_each_class_move_with_it(tmp_path):
    rois = dict(agnostic=False)
    first = made('rotated_faster_rcnn', **rois)
    file = save_weights(first, tmp_path/'w.safetensors')
    turned = detector_from_weights(file, ['car','tank','ship','plane'])
    ours,theirs = (outputs(detector).deltas.unflatten(-1, (n,-1)) for detector,n in ((turned,4),(first,3)))
    assert torch.allclose(ours[...,[0,2,3],:], theirs[...,[2,0,1],:], atol=1e-5)

def test_half_is_half_the_size_and_nearly_the_same(tmp_path):
    first = made('rotated_fcos_tiny')
    whole,half = (save_weights(first, tmp_path/name, half=half) for name,half in (('whole',False),('half',True)))
    assert half.stat().st_size < .6*whole.stat().st_size
    a,b = outputs(detector_from_weights(half)).logits,outputs(first).logits
    assert 0 < (a-b).abs().max() < .02
    assert all(value.dtype!=torch.half for value in open_weights(half)[0].values())
    with torch.no_grad(): first.neck.lateral[0][0].weight[0] = 1e6
    with pytest.raises(ValueError, match='half=False'): save_weights(first, tmp_path/'large', half=True)
    assert not list(tmp_path.glob('large*'))

def test_damage_is_named(tmp_path):
    file = save_weights(made('rotated_fcos_tiny'), tmp_path/'w')
    whole,notes = file.read_bytes(),file.with_suffix('.json').read_text()
    for at in np.random.default_rng(0).integers(0, len(whole), 20):
        bad = bytearray(whole); bad[at] ^= 4
        file.write_bytes(bad)
        with pytest.raises(DamagedFile, match='checksums differ'): detector_from_weights(file)
    for cut in (0, 7, len(whole)//2):
        file.write_bytes(whole[:cut])
        with pytest.raises(DamagedFile, match='checksums differ'): detector_from_weights(file)
    file.write_bytes(whole)
    for text in ('', '{', notes[:len(notes)//2]):
        file.with_suffix('.json').write_text(text)
        with pytest.raises(DamagedFile, match='w.json is damaged'): detector_from_weights(file)
    file.with_suffix('.json').write_text('[]')
    with pytest.raises(DamagedFile, match='w.json'): detector_from_weights(file)
    file.with_suffix('.json').unlink()
    with pytest.raises(WeightsError, match='w.json belongs beside it'): detector_from_weights(file)

def test_what_cannot_be_meant_is_refused(tmp_path):
    first = made('rotated_fcos_tiny')
    file = save_weights(first, tmp_path/'w')
    with pytest.raises(WeightsError, match="mean 'rotated_fcos_tiny_synth'"): detector_from_weights('rotated_fcos_tiny_sinth')
    with pytest.raises(WeightsError, match='no weights are called'): detector_from_weights('dota')
    with pytest.raises(FileNotFoundError, match='no such file of weights'): detector_from_weights(tmp_path/'none.pth')
    with pytest.raises(FileNotFoundError, match='no such file of weights'): detector_from_weights(tmp_path)
    with pytest.raises(WeightsError, match='of rotated_fcos_tiny, not of rotated_fcos'): detector_from_weights(file, arch='rotated_fcos')
    with pytest.raises(WeightsError, match='trained with angle'): detector_from_weights(file, angle='oc')
    with pytest.raises(WeightsError, match='trained with backbone'): detector_from_weights(file, backbone='resnet18')
    with pytest.raises(WeightsError, match='do not fit this rotated_fcos_tiny'): detector_from_weights(file, feat_channels=24)
    with pytest.raises(TypeError, match='no setting'): detector_from_weights(file, colour='red')
    assert str(detector_from_weights(file, score_thr=.3).recipe()['stages'][0]['score_thr'])=='0.3'
    own = create_detector('rotated_fcos_tiny', 5, **TINY)
    with pytest.raises(WeightsError, match='5 classes'): detector_from_weights(file, NAMES, own)

def test_settings_that_a_file_cannot_hold_are_asked_for(tmp_path):
    "Those of rotnb are kept by name; a function of one's own is not"
    first = made('oriented_rcnn')
    file = save_weights(first, tmp_path/'w')
    assert torch.allclose(outputs(detector_from_weights(file)).logits, outputs(first).logits, atol=1e-5)
    assert torch.allclose(outputs(detector_from_weights(file, arch=made('oriented_rcnn'))).logits, outputs(first).logits, atol=1e-5)
    def own(*args): return max_iou_assign(*args)
    file = save_weights(made('rotated_fcos_tiny', assigner=own), tmp_path/'own')
    with pytest.raises(WeightsError, match='give assigner'): detector_from_weights(file)
    assert detector_from_weights(file, assigner=own).stages[0].assigner is own

@pytest.mark.parametrize('value', [
    DeltaXYWHACoder('oc'), DeltaXYWHACoder('le135', angle_coder=PSCAngle(3)), AnchorPriors(3., 1, (.5,1.,2.)), box_loss('kld', weight=2.),
    partial(max_iou_assign, pos_iou=.4), smooth_l1_loss, dict(a=[1,(2.5,None)], b=dict(c=float('inf'), d=PlainAngle())), ('x',True)])
def test_settings_survive_json(value):
    again = setting_of(json.loads(json.dumps(plain_setting(value))))
    assert settings(again)==settings(value) and type(again) is type(value)

@pytest.mark.parametrize('asked', [{'$is':['os','system']}, {'$is':['rotnb.models.weights','save_weights']},
    {'$is':['rotnb.models.none','f']},
    {'$is':['rotnb.models.fcos','torch']}, {'$partial':['rotnb.data.labels.atomic','write_atomic'], 'args':[], 'kw':{}}, {'$is':[3,4]},
    {'$new':['subprocess','Popen'], 'kw':dict(args='x')}, {'$is':['rotnb.ops.iou.os','system']}])
def test_a_file_names_parts_of_detectors_alone(asked):
    "Whatever else a file asks for is neither called nor handed on"
    with pytest.raises(WeightsError, match='no part of a detector'): setting_of(dict(assigner=asked))

def test_files_of_torch(tmp_path):
    "State dicts, as torch.save, learn.save and a training's folder write them; nothing else, and no code runs"
    first = made('rotated_fcos_tiny')
    for held in (first.state_dict(), dict(model=first.state_dict(), opt={})):
        torch.save(held, tmp_path/'w.pth')
        again = detector_from_weights(tmp_path/'w.pth', NAMES, 'rotated_fcos_tiny', **TINY)
        assert torch.allclose(outputs(again).logits, outputs(first).logits, atol=1e-5)
        with pytest.raises(WeightsError, match='which detector'): detector_from_weights(tmp_path/'w.pth', NAMES)
        with pytest.raises(WeightsError, match='its classes'): detector_from_weights(tmp_path/'w.pth', arch='rotated_fcos_tiny')
        with pytest.raises(WeightsError, match='do not fit'):
            detector_from_weights(tmp_path/'w.pth', NAMES[:2], 'rotated_fcos_tiny', **TINY)
    torch.save(dict(model=first.state_dict(), notes=dict(detector='rotated_fcos_tiny', options=TINY, classes=NAMES)), tmp_path/'w.pth')
    assert detector_from_weights(tmp_path/'w.pth').vocab==NAMES
    for held in ([1,2], {}, dict(model=3), dict(a='text')):
        torch.save(held, tmp_path/'w.pth')
        with pytest.raises(WeightsError, match='holds no weights'): detector_from_weights(tmp_path/'w.pth', NAMES, 'rotated_fcos_tiny')
    (tmp_path/'w.pth').write_bytes(pickle.dumps(Ellipsis.__class__))
    with pytest.raises(WeightsError, match='holds no plain tensors'): detector_from_weights(tmp_path/'w.pth', NAMES, 'rotated_fcos_tiny')

def test_a_class_is_known_however_its_words_are_joined(tmp_path, capsys):
    "DOTA writes storage-tank, Ultralytics' DOTA8 storage tank, others Storage_Tank; a name that is there as it stands wins"
    theirs = ['ship','storage-tank','small-vehicle']
    first = made('rotated_fcos_tiny', theirs)
    file = save_weights(first, tmp_path/'w')
    other = detector_from_weights(file, ['Small_Vehicle','storage tank','tank'])
    assert torch.allclose(outputs(other).logits[...,:2], outputs(first).logits[...,[2,1]], atol=1e-5)
    assert 'keeps Small_Vehicle, storage tank; new in it: tank' in capsys.readouterr().out
    assert kept_classes(['storage tank'], theirs)=='' and 'new' in kept_classes(['tank-storage'], theirs)
    both = made('rotated_fcos_tiny', ['storage tank','storage-tank'])
    file = save_weights(both, tmp_path/'both')
    turned = detector_from_weights(file, ['storage-tank','storage tank'])
    assert torch.allclose(outputs(turned).logits[...,:2], outputs(both).logits[...,[1,0]], atol=1e-5)

def test_the_sentence_about_classes():
    assert kept_classes(['a','b'], ['b','a','c'])==''
    assert kept_classes(['a','d'], ['b','a'])=='the class layer keeps a; new in it: d'
    assert kept_classes(['d'], ['b','a']).startswith("none of the weights' classes")

# --- those that come with the package

def within(noted, made):
    "Whether all that was noted is so; a setting that came later has a default that changes nothing"
    if isinstance(noted, dict): return isinstance(made, dict) and all(key in made and within(noted[key], made[key]) for key in noted)
    if isinstance(noted, list): return isinstance(made, list) and len(noted)==len(made) and all(map(within, noted, made))
    return noted==made

def test_shipped_weights_say_where_they_come_from():
    "Small, whole, with all that is needed to judge them and to make them again"
    table = list_weights('*_synth')
    assert {'detector','data','classes','mAP50','mAP50_95','size','parameters','licence','source'} <= set(table.columns)
    assert 'rotated_fcos_tiny_synth' in table.index and {*shipped_weights()}=={*table.index} and table.notna().all(axis=None)
    for name in table.index:
        _,notes = open_weights(name)
        assert notes['command'].startswith('rotnb-demo') and notes['bits'] in (16,32) and notes['stats'] and notes['made_with']
        made = json.loads(json.dumps(detector_from_weights(name).recipe()))
        assert within(notes['recipe']|dict(backbone=0), made|dict(backbone=0)), 'the detector of this name is another now: train it again'
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 3e6

def test_shipped_weights_are_packed(monkeypatch):
    "Every file of the folder is named by setup.py, for the wheel, and by MANIFEST.in, for the source archive"
    import setuptools
    said = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, 'setup', said.update)
    exec(compile((ROOT/'setup.py').read_text(encoding='utf-8'), str(ROOT/'setup.py'), 'exec'), dict(__file__=str(ROOT/'setup.py')))
    packed = {file for pattern in said['package_data']['rotnb'] for file in (ROOT/'rotnb').glob(pattern)}
    assert set(FOLDER.iterdir())==packed
    line = next(line for line in (ROOT/'MANIFEST.in').read_text().splitlines() if 'rotnb/weights' in line)
    assert packed=={file for pattern in line.split()[2:] for file in FOLDER.glob(pattern)}

def test_shipped_weights_find_things():
    "On a scene that they were not trained on"
    found,annot = detector_from_weights('rotated_fcos_tiny_synth'),make_scene(7, size=320, kind=suburb)
    image,quads,names,difficult = annot
    mean,std = (torch.tensor(part)[:,None,None] for part in found.stats)
    with torch.no_grad(): dets, = found((torch.tensor(image).permute(2,0,1)[None]/255-mean)/std)
    sure = dets['scores']>=.3
    dets = Detections(**{key:value[sure] for key,value in dets.items()}, vocab=found.vocab)
    objects,right = shares_right(dets, Annot('x', quads, names, difficult.astype(int)))
    assert objects>=.4 and right>=.7, (objects, right)
