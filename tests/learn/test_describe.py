"What a learner says of itself"
import pytest, torch
from torch import nn
from fastai.vision.all import DataLoaders, Learner
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.learn.describe import LearnerSummary, loss_terms, part_table
from rotnb.learn.learner import open_learner, rotated_learner
from rotnb.models import create_detector
from rotnb.targets.priors import AnchorPriors

TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
TWO_STAGE = dict(fc_channels=64, rpn_kw=dict(priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None))

@pytest.mark.parametrize('name', ['rotated_fcos','oriented_rcnn','gliding_vertex','r3det','rotated_reppoints','rtmdet_r_tiny'])
def test_parts_and_losses_of_detectors(name):
    two = name in ('oriented_rcnn','gliding_vertex')
    model = create_detector(name, 3, **TINY, **(TWO_STAGE if two else {}))
    table = part_table(model, (128,96))
    parts = table.loc[['backbone','neck','heads']]
    assert parts.parameters.sum()==table.parameters['all']==sum(o.numel() for o in model.parameters())
    assert (parts.GFLOPs>0).all() and parts.GFLOPs.sum()==pytest.approx(table.GFLOPs['all'])
    image,target = torch.zeros(1,3,128,128),dict(boxes=torch.tensor([[60.,60,40,20,.3]]), labels=torch.tensor([1]))
    assert model.training and loss_terms(model)==list(model(image.expand(2,-1,-1,-1), [target,target]))

@pytest.fixture(scope='module')
def dls(tmp_path_factory):
    return RotatedDataLoaders.from_synth(tmp_path_factory.mktemp('synth')/'s', n_train=4, n_valid=2, size=96, bs=2, num_workers=0)

@pytest.fixture
def learn(dls): return rotated_learner(dls, 'rotated_fcos', pretrained=False, lr=.002, **TINY)

def test_in_a_line_and_on_a_page(learn, dls):
    first,second = repr(learn).splitlines()
    assert first.startswith('RotatedLearner: rotated_fcos on test_resnet, ') and f'{len(dls.vocab)} classes' in first and second==repr(dls)
    s = learn.summary()
    assert isinstance(s, LearnerSummary) and s.size_wh==(96,96) and s.strides==(8,16) and s.angle=='le90' and s.vocab==list(dls.vocab)
    text,page = repr(s),s._repr_html_()
    assert 'lr 0.002' in text and 'loss_box' in text and 'mAP50' in text and '<table' in page and 'frozen: nothing' in text
    learn.freeze()
    assert learn.summary().frozen=='backbone' and '(0.' in repr(learn)

def test_a_summary_changes_nothing(learn):
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4)
    before = [list(o) for o in learn.recorder.values],[o.detach().clone() for o in learn.model.state_dict().values()]
    learn.summary(); repr(learn); learn.summary(layers=True)
    assert [list(o) for o in learn.recorder.values]==before[0]
    assert all(map(torch.equal, before[1], learn.model.state_dict().values()))

def test_layers_stay_reachable(learn): assert 'Layer (type)' in str(learn.summary(layers=True))

def test_an_exported_learner(learn, tmp_path):
    learn.export(tmp_path/'model.pkl')
    again = open_learner(tmp_path/'model.pkl', 'cpu')
    assert 'rotated_fcos on test_resnet' in repr(again) and '0 + 0 images' in repr(again) and again.summary().size_wh==(512,512)

def test_other_learners_keep_their_words():
    x = [(torch.zeros(3),torch.zeros(1))]*2
    other = Learner(DataLoaders.from_dsets(x, x, bs=1, device='cpu'), nn.Linear(3,1), nn.MSELoss())
    assert repr(other).startswith('<fastai.learner.Learner object at') and 'Layer (type)' in str(other.summary())
