"Fine-tuning starts from published weights: classes by name, normalisation and order of colours as the weights know them"
import warnings
import pytest, torch
from fastai.vision.all import Normalize
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.evaluate.classes import ClassMismatchError
from rotnb.interop.mmrotate import detector_from_mmrotate
from rotnb.learn.learner import rotated_learner
from rotnb.predict.load import load_weights
from mmfile import config, made, write_checkpoint

@pytest.fixture(scope='module')
def place(tmp_path_factory): return tmp_path_factory.mktemp('published')

def loaders(place): return RotatedDataLoaders.from_synth(place/'s', n_train=4, n_valid=2, size=96, bs=2, num_workers=0, batch_tfms=[])

def published(place, classes):
    "Weights trained on BGR with a normalisation of their own"
    cfg = config(n_classes=len(classes))
    cfg['model']['data_preprocessor'] |= dict(mean=[100.,110.,120.], std=[50.,60.,70.], bgr_to_rgb=False)
    write_checkpoint(place/'some.pth', made(cfg), cfg, classes)
    return place/'some.pth'

def test_fine_tuning_starts_from_a_file_of_mmrotate(place, capsys):
    "Whose detector knows some of these classes, in another order, and one more"
    dls = loaders(place)
    a,b,c,d = dls.vocab[:4]
    file = published(place, ['windmill',c,a,b])
    learn = rotated_learner(dls, weights=file, metrics=[], run=False)
    said,theirs = capsys.readouterr().out,detector_from_mmrotate(file)
    assert f'keeps {a}, {b}, {c}; new in it: {d}' in said
    rows = lambda detector: detector.stages[0].cls.weight.detach().cpu().unflatten(0, (detector.stages[0].n,-1))
    assert torch.equal(rows(learn.model)[:,[2,0,1]], rows(theirs)[:,1:])
    assert learn.model.channels=='bgr' and learn.model.vocab==list(dls.vocab)
    norm = next(tfm for tfm in learn.dls.after_batch.fs if isinstance(tfm, Normalize))
    assert torch.allclose(norm.mean.flatten().cpu()*255, torch.tensor([120.,110.,100.]), atol=1e-3)
    deep = learn.model.backbone.body.layer4[0].conv1.weight
    assert not deep.requires_grad
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fine_tune(1)
    assert deep.requires_grad and all(map(torch.isfinite, learn.recorder.losses))

def test_an_opened_detector_is_measured_by_name(place):
    "Its classes stand in another order than the data's, which nobody has to know; one that it has never seen is an error"
    vocab = list(loaders(place).vocab)
    file = published(place, vocab[::-1])
    as_it_is = rotated_learner(loaders(place), load_weights(file).detector, run=False, metrics=[])
    moved = rotated_learner(loaders(place), weights=file, run=False, metrics=[])
    assert as_it_is.model.vocab==vocab[::-1] and moved.model.vocab==vocab
    losses = []
    for learn in (as_it_is,moved):
        with learn.no_bar(), learn.no_logging(): losses.append(learn.validate()[0])
    assert losses[0]==pytest.approx(losses[1], rel=1e-4)
    with pytest.raises(ClassMismatchError, match='does not'):
        rotated_learner(loaders(place), load_weights(published(place, vocab[1:])).detector, run=False)
