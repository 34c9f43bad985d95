"""What a newcomer types by mistake, and the answer: one sentence, before anything starts, from the first frames below the user's own line.
The first table is the day of a newcomer, the second thinks as users of other libraries; both are read line by line:
call | exception | what it must say | ..."""
import os, traceback, warnings
import pytest
from types import FunctionType
from fastai.vision.all import PILImage, Path, Transform, first, np, torch
import rotnb.all as everything
from rotnb.all import RotatedDataLoaders, RotatedLearner, UnknownArgumentError, make_synth, rotated_learner
from rotnb.check.arguments import accepted_arguments
from rotnb.check.values import RULES
from rotnb.cli.convert import convert
from rotnb.data.labels.tiles import tile_annots
from source import chosen

FIRST_DAY = '''
load.from_dota('dotta')                             | DatasetLayoutError   | no such folder: | did you mean | dota'
load.from_dota('dota/train/images')                 | DatasetLayoutError   | expected | found
load.from_dota(columns)                             | LabelError           | train0000.txt:1
load.from_dota('dota', vocab=['harbour'])           | LabelError           | unknown class 'harbor', did you mean 'harbour'?
load.from_dota('dota', size='512')                  | ArgumentError        | from_dota: size is '512', expected | 512, without quotes
load.from_dota('dota', size=0)                      | ArgumentError        | size is 0 | 1 to 10000
load.from_dota('dota', bs='4')                      | ArgumentError        | bs is '4' | 4, without quotes
load.from_dota('dota', tile='512')                  | ArgumentError        | tile is '512'
load.from_dota('dota', tile=dict(gap=100))          | ArgumentError        | unknown setting 'gap', did you mean 'overlap'?
load.from_dota('dota', imgsz=512)                   | UnknownArgumentError | unknown argument 'imgsz', did you mean 'size'?
load.from_dota('dota', batch_size=2)                | UnknownArgumentError | did you mean 'bs'?
rotated_learner(dls, 'rotated_fcos', backbone='resnet19') | BackboneError  | timm has no model 'resnet19' | resnet18
rotated_learner(dls, 'rotated_fcos', backbone=resnet18)   | ArgumentError  | backbone is the function resnet18 | 'resnet18'
rotated_learner(dls, 'rotated_retina')              | ValueError           | did you mean 'rotated_retinanet'?
rotated_learner(dls, 'yolov8n-obb')                 | ValueError           | did you mean 'yolov8_n'
rotated_learner('rotated_fcos_tiny', dls)           | ArgumentError        | dls is 'rotated_fcos_tiny' | arch is one: are the two swapped?
create_detector('rotated_fcos_tiny', 3, leaning_rate=1e-3) | UnknownArgumentError | no setting 'leaning_rate' | recipe()
vision_learner(dls, resnet18, pretrained=False)     | RuntimeError         | rotated_learner(dls, arch)
load.from_yolo_obb(upright)                         | LabelError           | upright boxes of YOLO | upright=True
load.from_dota(yolo)                                | LabelError           | YOLO-OBB | from_yolo_obb
predict_images(learn, 'no_such_folder')             | FileNotFoundError    | no_such_folder
predict_image(learn, 'http://127.0.0.1:9/a.jpg')    | OSError              | cannot be fetched
learn.fit(1, cbs=EarlyStoppingCallback(monitor='map50')) | ValueError      | did you mean 'mAP50'?
convert('dota', 'out', 'yolo')                      | ValueError           | did you mean 'yolo_obb'?
load.from_dota(one)                                 | DatasetLayoutError   | 1 image cannot be split
rotated_learner(dls, 'rotated_fcos')                | MissingWeightsError  | pretrained=False'''

OF_OTHERS = '''
load.from_dota('dota', conf=.3)                     | UnknownArgumentError | unknown argument 'conf'
load.from_dota('dota', epochs=3)                    | UnknownArgumentError | it goes to `learn.fine_tune
load.from_dota('dota', samples_per_gpu=2)           | UnknownArgumentError | did you mean 'bs'?
load.from_dota('dota', img_scale=(64,64))           | UnknownArgumentError | did you mean 'size'?
load.from_dota('dota', bs=-1)                       | ArgumentError        | bs is -1
load.from_dota('dota', val_bs='2')                  | ArgumentError        | val_bs is '2'
load.from_dota('dota', size=(64,))                  | ArgumentError        | (height, width)
load.from_dota('dota', size=64.5)                   | ArgumentError        | size is 64.5
load.from_dota('dota', size=51200)                  | ArgumentError        | 1 to 10000
load.from_dota('dota', tile=dict(size='64'))        | ArgumentError        | size, which is '64'
load.from_dota('dota', valid_pct=20)                | ArgumentError        | 0.2 for 20 %
load.from_dota('dota', valid_pct=2)                 | ArgumentError        | a share between 0 and 1
load.from_dota('dota', fraction=10)                 | ArgumentError        | 0.1 for 10 %
load.from_dota('dota', max_n=0)                     | ArgumentError        | max_n is 0
load.from_dota('dota', seed='42')                   | ArgumentError        | 42, without quotes
load.from_dota('dota', vocab='ship')                | ArgumentError        | ['ship']
load.from_dota('dota', vocab=['ship','ship'])       | ArgumentError        | 'ship' is there twice
load.from_dota('dota', vocab={0:'ship'})            | ArgumentError        | in their order: ['ship']
load.from_dota('dota', vocab={'ship','harbor'})     | ArgumentError        | a set has no order
load.from_dota('dota', device='gpu')                | ArgumentError        | device is 'gpu' | 'cuda'?
load.from_dota('dota', device=7)                    | ArgumentError        | 'cuda:7'?
load.from_dota('dota', num_workers='2')             | ArgumentError        | num_workers is '2'
load.from_dota('dota', cut='crop')                  | ArgumentError        | 'clip'?
load.from_dota('dota', refit=True)                  | ArgumentError        | refit is True | 'oriented'?
load.from_dota('dota', min_visible=30)              | ArgumentError        | 0.3 for 30 %
load.from_dota('dota', on_bad='skip')               | ArgumentError        | 'warn'?
load.from_dota('dota', item_tfms='resize')          | ArgumentError        | item_tfms is 'resize'
load.from_dota('dota', train='trian')               | DatasetLayoutError   | 'trian'
load.from_dota(None)                                | ArgumentError        | path is None
load.from_dota(b'dota')                             | ArgumentError        | 'dota'
load.from_dota('model.pkl')                         | DatasetLayoutError   | open_learner(file)
load.from_dota(Path('dota.zip'))                    | DatasetLayoutError   | unpack it
load.from_dota('https://example.org/dota')          | DatasetLayoutError   | download
load.from_csv('bare.csv')                           | LabelError           | bare.csv
read_format('~/no_such_set')                        | DatasetLayoutError   | no such folder
read_format('dota', 'trian')                        | DatasetLayoutError   | trian
read_format('dota', format='yolov8')                | FormatError          | did you mean 'yolo_obb'?
doctor('dotta')                                     | DatasetLayoutError   | did you mean
rotated_learner(dls.train, 'rotated_fcos_tiny')     | ArgumentError        | dls itself
rotated_learner('dota', 'rotated_fcos_tiny')        | ArgumentError        | data loaders
rotated_learner(RotatedDataLoaders, 'rotated_fcos_tiny') | ArgumentError   | the class RotatedDataLoaders
rotated_learner(None, 'rotated_fcos_tiny')          | ArgumentError        | dls is None
rotated_learner(dls, rotated_fcos_tiny)             | ArgumentError        | 'rotated_fcos_tiny'
rotated_learner(dls, resnet18)                      | ArgumentError        | arch is the function resnet18 | list_detectors()
rotated_learner(dls)                                | TypeError            | list_detectors()
rotated_learner(dls, 'rotated_fcos_tiny', angle='le135deg') | ArgumentError | 'le135'?
rotated_learner(dls, 'rotated_fcos_tiny', angle='v1')       | ArgumentError | 'oc'?
rotated_learner(dls, 'rotated_fcos_tiny', pretrained='w.pth') | ArgumentError | True or False
rotated_learner(dls, 'rotated_fcos_tiny', lr=float('nan'))  | ArgumentError | lr is nan
rotated_learner(dls, 'rotated_fcos_tiny', lr=0)     | ArgumentError        | a learning rate above 0
rotated_learner(dls, 'rotated_fcos_tiny', imgsz=64, pretrained=False)    | UnknownArgumentError | RotatedDataLoaders
rotated_learner(dls, 'rotated_fcos_tiny', device='cpu', pretrained=False) | UnknownArgumentError | RotatedDataLoaders
create_detector('rotated_fcos_tiny', '3')           | ArgumentError        | n_classes is '3'
learn.fine_tune('12')                               | ArgumentError        | epochs is '12' | 12, without quotes
learn.fine_tune(-1)                                 | ArgumentError        | epochs is -1
learn.fine_tune(3, lr=1e-3)                         | UnknownArgumentError | did you mean 'base_lr'?
learn.fine_tune(3, base_lr=0)                       | ArgumentError        | base_lr is 0
learn.fit_one_cycle(0)                              | ArgumentError        | n_epoch is 0
learn.fit_one_cycle(3, float('nan'))                | ArgumentError        | lr_max is nan
learn.fit_one_cycle(epochs=3)                       | UnknownArgumentError | did you mean 'n_epoch'?
learn.fit(2.5)                                      | ArgumentError        | n_epoch is 2.5
learn.fit(1, -1e-3)                                 | ArgumentError        | lr is -0.001
learn.lr_find(iters=3)                              | UnknownArgumentError | unknown argument 'iters'
learn.show_results(score_thresh=.3)                 | UnknownArgumentError | did you mean 'score_thr'?
dls.show_batch(n=4)                                 | UnknownArgumentError | did you mean 'max_n'?
dls.show_batch(max_n=0)                             | ArgumentError        | max_n is 0
learn.report('r.html', iou_thres=.5)                | UnknownArgumentError | unknown argument 'iou_thres'
learn.report(Path('dota'))                          | ValueError           | is a folder
learn.evaluate(conf=.3)                             | UnknownArgumentError | did you mean 'score_thr'?
learn.evaluate(score_thr=30)                        | ArgumentError        | 0.3 for 30 %
predict_image(image, learn)                         | ArgumentError        | image is one: are the two swapped?
predict_image(None, image)                          | ArgumentError        | learn is None
predict_image(learn.model, image)                   | ArgumentError        | open_learner(file)
predict_image(learn, 'dota')                        | ValueError           | 6 images, expected one
predict_folder(learn, 'dotta', 'out')               | FileNotFoundError    | did you mean
predict_image(learn, image, score_thr=30)           | ArgumentError        | 0.3 for 30 %
predict_image(learn, image, conf=.3)                | UnknownArgumentError | did you mean 'score_thr'?
predict_scene(learn, image, iou_thr=1.5)            | ArgumentError        | iou_thr is 1.5
predict_scene(learn, image, imgsz=512)              | UnknownArgumentError | did you mean 'size'?
predict_scene(learn, image, cut='clip')             | ArgumentError        | 'keep' or 'drop'
predict_folder(learn, 'dota', 'out', shard=4)       | ArgumentError        | (index, of)
predict_folder(learn, 'dota', 'out', conf=.3)       | UnknownArgumentError | did you mean 'score_thr'?
predict_folder('dota', learn, 'out')                | ArgumentError        | are the two swapped?
open_learner(image, device='gpu')                   | ArgumentError        | 'cuda'?
open_learner('dota')                                | FileNotFoundError    | it is a folder
open_learner('modle.pkl')                           | FileNotFoundError    | did you mean | model.pkl
RotatedInterpretation.from_learner(dls)             | ArgumentError        | rotated_learner(dls, arch)
draw(pixels, torch.tensor([[1.,1,20,20]]))          | ArgumentError        | hbox2rbox
draw(pixels, torch.tensor([30.,30,20,10,.3]))       | ArgumentError        | boxes[None]
draw(pixels, np.array([[30,30,20,10,45]]))          | ArgumentError        | radians | np.deg2rad
draw(boxes, pixels)                                 | ArgumentError        | image is one: are the two swapped?
draw(pixels, boxes, labels=[0,1])                   | ValueError           | 2 labels for 1 boxes
draw(pixels, boxes, vocab='ship', labels=[0])       | ArgumentError        | ['ship']
nms_rotated(boxes, torch.ones(1), iou_thr=.5)       | UnknownArgumentError | did you mean 'iou_threshold'?
nms_rotated(boxes[:,:4], torch.ones(1), .5)         | ValueError           | (n, 5)
nms_rotated(boxes, torch.ones(1), 50)               | ArgumentError        | 0.5 for 50 %
box_iou_rotated(boxes[0], boxes)                    | ValueError           | (n, 5)
canonicalize(boxes, angle_version='le90')           | UnknownArgumentError | did you mean 'angle'?
eval_map(truth, found)                              | ArgumentError        | targets is one: are the two swapped?
eval_map(found[0], truth)                           | ArgumentError        | a list
eval_map(found, truth, iou_threshold=50)            | ArgumentError        | 0.5 for 50 %
RotatedMAP(conf=.3)                                 | UnknownArgumentError | unknown argument 'conf'
write_predictions(found, 'out.json', 'ship')        | ArgumentError        | ['ship']
view(pixels, found[0], conf=.3)                     | UnknownArgumentError | unknown argument 'conf'
DatasetExplorer('dotta')                            | DatasetLayoutError   | did you mean
ResultsExplorer(learn)                              | ArgumentError        | RotatedInterpretation.from_learner(learn)
suspicious('dota')                                  | ArgumentError        | to_dataframe()
subset_annots('dota')                                 | ArgumentError        | read_format('dota')
make_synth('out', n_train=0)                        | ArgumentError        | n_train is 0
Mosaic('512')                                       | ArgumentError        | 512, without quotes
rotated_aug_transforms(flip_vert=True)              | UnknownArgumentError | unknown argument 'flip_vert'
SceneMAP(iou_thr=50)                                | ArgumentError        | 0.5 for 50 %'''

def table(text): return [[part.strip() for part in line.split(' | ')] for line in text.strip().splitlines()]

CASES = table(FIRST_DAY)+table(OF_OTHERS)

def write_set(folder, line, labels, n=3):
    for part in ('images',labels): (folder/part).mkdir(parents=True)
    for i in range(n):
        PILImage.create(np.zeros((32,32,3), np.uint8)).save(folder/'images'/f'train{i:04}.png')
        (folder/labels/f'train{i:04}.txt').write_text(line)
    return folder

@pytest.fixture(scope='module')
def typed(tmp_path_factory):
    "What the calls may name, in a folder of its own"
    root,before = tmp_path_factory.mktemp('mistakes'),os.getcwd()
    os.chdir(root)
    make_synth('dota', n_train=4, n_valid=2, size=64, seed=1)
    for name in ('dota.zip','model.pkl'): Path(name).touch()
    Path('bare.csv').write_text('a.png,1,2,3,4,5,6,7,8,ship\n')
    dls = RotatedDataLoaders.from_dota('dota', size=64, bs=2, num_workers=0, device='cpu')
    learn = rotated_learner(dls, 'rotated_fcos_tiny', pretrained=False, cbs=[])
    boxes = torch.tensor([[30.,30,20,10,.3]])
    quad = '2 2 20 2 20 9 2 9'
    yolo = write_set(root/'yolo', '0 .1 .1 .6 .1 .6 .3 .1 .3\n', 'labels')
    (yolo/'data.yaml').write_text('path: .\ntrain: images\nnames: [ship]\n')
    upright = write_set(root/'upright', '0 .5 .5 .2 .1\n', 'labels')
    (upright/'data.yaml').write_text('path: .\ntrain: images\nnames: [ship]\n')
    own = dict(load=RotatedDataLoaders, dls=dls, learn=learn, boxes=boxes, pixels=np.zeros((64,64,3), np.uint8),
        yolo=yolo, upright=upright, truth=[dict(boxes=boxes, labels=torch.tensor([0]))],
        found=[dict(boxes=boxes, labels=torch.tensor([0]), scores=torch.tensor([.9]))],
        columns=write_set(root/'columns', quad+'\n', 'labelTxt'), one=write_set(root/'one', f'{quad} ship 0\n', 'labelTxt', n=1),
        image=first(sorted((root/'dota/val/images').iterdir())))
    with learn.no_bar(), learn.no_logging(): yield {**vars(everything), 'convert':convert, **own}
    os.chdir(before)

@pytest.mark.parametrize('call, error, words', [(call, error, words) for call,error,*words in CASES], ids=[case[0] for case in CASES])
def test_a_mistake_is_answered(typed, call, error, words, capsys, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.try_to_load_from_cache', lambda *args, **kwargs: None)
    with warnings.catch_warnings(), pytest.raises((ValueError,TypeError,OSError,RuntimeError)) as caught:
        warnings.simplefilter('ignore')
        eval(call, typed)
    said = f'{caught.value}'
    assert error in [o.__name__ for o in type(caught.value).__mro__], f'{type(caught.value).__name__}: {said}'
    assert not [word for word in words if word not in said], said
    if error.endswith('ArgumentError'): assert len(traceback.extract_tb(caught.tb))<=10, 'many frames'
    assert 'Could not do one pass' not in capsys.readouterr().out

def test_what_looks_like_a_mistake_and_is_none(typed):
    "`learn.predict(file)`, which gave three tensors of 2000 rows of -1"
    assert type(typed['learn'].predict(typed['image'])).__name__=='Detections'

def test_enough_mistakes():
    calls = [call for call,*_ in CASES]
    assert len(table(FIRST_DAY))>=24 and len(table(OF_OTHERS))>=50 and len(set(calls))==len(calls)

# --- every verb

OWN = [(name, getattr(everything, name)) for _,name in chosen()]

def constructor(o): return vars(o).get('__init__') if isinstance(o, type) else o

def looks(o):
    "Whether a function or the constructor of a class is to look at its arguments"
    return isinstance(constructor(o), FunctionType) and not (isinstance(o, type) and issubclass(o, Exception))

def test_every_verb_looks_at_its_arguments():
    careless = [name for name,o in OWN if looks(o) and not getattr(constructor(o), 'checked', False)]
    assert not careless, f'without @checked: {careless}'

# to functions that look themselves
PASSED_ON = '''TimmBackbone box_loss create_detector dense_detector detector_from_mmrotate detector_from_weights df2annots doctor
    gaussian_loss
    gliding_vertex kld_loss oriented_rcnn r3det read_format roi_trans rotated_atss rotated_faster_rcnn rotated_fcos rotated_fcos_tiny
    rotated_learner rotated_reppoints cfa sasm oriented_reppoints g_rep redet h2rbox h2rbox_v2 cascade_s2anet
    rotated_retinanet rotated_retinanet_tiny rtmdet_r_l rtmdet_r_m rtmdet_r_s rtmdet_r_tiny s2anet
    two_stage_detector view yolo_detector BoxViewer LabelFixer save_weights load_weights show_map paper_figure EarlyAssigner WandB
    MLflow'''.split()

@pytest.mark.parametrize('name, verb', [(name, constructor(o)) for name,o in OWN if looks(o) and name not in PASSED_ON])
def test_an_unknown_keyword_is_refused_everywhere(name, verb):
    known = accepted_arguments(verb)
    typo = known[-1][:-1]+'xq' if known else 'xq'
    with pytest.raises(UnknownArgumentError, match=f"unknown argument '{typo}'"): verb(**{typo:None})

def test_rules_are_of_names_that_exist():
    "A rule for a name that no verb has would never be asked"
    verbs = [tile_annots, *(constructor(o) for _,o in OWN if looks(o))]
    verbs += [getattr(RotatedDataLoaders, name) for name in ('from_annots','from_format','from_synth')]
    verbs += [getattr(RotatedLearner, name) for name in ('fit','fine_tune','fit_one_cycle','show_results','evaluate','report')]
    known = {name for verb in verbs for name in accepted_arguments(verb)} | {'val_bs','device'}
    assert not (lost := set(RULES)-known), lost

# --- one item of a set

def test_an_item_that_fails_is_named(tmp_path, capsys):
    "One sentence with the file; fastai's line above it and its frames are gone"
    make_synth(tmp_path/'dota', n_train=4, n_valid=2, size=64)
    def stumble(image:PILImage): raise RuntimeError('no such filter')
    with pytest.raises(RuntimeError, match='train0000.png.*no such filter') as caught:
        RotatedDataLoaders.from_dota(tmp_path/'dota', item_tfms=[Transform(stumble)], num_workers=0)
    assert len(traceback.extract_tb(caught.tb))<=8 and 'Could not do one pass' not in capsys.readouterr().out
