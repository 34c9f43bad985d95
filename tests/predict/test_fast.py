"A predictor's fast twin: the same boxes, whatever becomes of the detector meanwhile"
import copy, pickle, threading
from functools import partial
import numpy as np, pytest, torch
from torch import nn
from families import FAMILIES
from rotnb.check.values import ArgumentError
from rotnb.data.synth.scenes import make_scene
from rotnb.models import create_detector
from rotnb.models.fast import Faster, Flow, PackedLayer, best_way, compare_ways, fast_twin
from rotnb.predict.fit import ImageFit
from rotnb.predict.journal import JournalError
from rotnb.predict.predictor import Predictor

SMALL = dict(backbone='test_resnet', fpn_channels=16, strides=(8,16))
KINDS = dict(rotated_fcos=dict(feat_channels=16, stacked_convs=1, fpn_norm=True, score_thr=0., max_per_img=30),
             oriented_rcnn=dict(feat_channels=16, fc_channels=32, score_thr=0., max_per_img=30, fpn_norm=True))
IMAGE = make_scene(3, 160)[0]

def stirred(detector, seed=0):
    "With weights that tell: untrained, all boxes are their priors and all norms do nothing"
    torch.manual_seed(seed)
    for module in detector.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(std=.1)
            module.running_var.uniform_(.5, 2)
    return detector

@pytest.fixture(params=KINDS)
def detector(request):
    torch.manual_seed(1)
    return stirred(create_detector(request.param, 2, **SMALL, **KINDS[request.param]))

def near(ours, theirs, by): torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), atol=by, rtol=0)

def same(ours, theirs, px=1e-3):
    assert len(ours)==len(theirs)
    assert len(ours), 'nothing to compare'
    near(ours.boxes, theirs.boxes, px)
    near(ours.scores, theirs.scores, 1e-5)
    assert ours.labels.tolist()==theirs.labels.tolist()

def both(detector, **kw): return [Predictor(detector, score_thr=0., fast=fast, **kw) for fast in (None,False)]

def test_the_same_boxes_and_the_detector_as_it_was(detector):
    before,kinds = copy.deepcopy(detector.state_dict()),[type(module) for module in detector.modules()]
    detector.train()
    fast,plain = both(detector)
    same(fast(IMAGE), plain(IMAGE))
    assert fast._faster.said is None and '_faster' not in vars(plain)
    twin = fast._faster.twin
    assert not any(type(module) in (nn.Conv2d,nn.Linear,nn.BatchNorm2d) for module in twin.modules())
    for key,value in detector.state_dict().items(): assert torch.equal(value, before[key])
    assert [type(module) for module in detector.modules()]==kinds
    assert detector.training and all(param.requires_grad for param in detector.parameters())

@pytest.mark.parametrize('change', ['data','in place','file','statistics','setting','threshold'])
def test_what_changes_in_the_detector_is_seen(detector, change):
    fast,plain = both(detector)
    first = fast(IMAGE)
    with torch.no_grad():
        if change=='data': [param.data.mul_(1.05) for param in detector.parameters()]
        if change=='in place': [param.mul_(1.05) for param in detector.backbone.parameters()]
        if change=='file': detector.load_state_dict({key:value*1.05 if value.is_floating_point() else value
                                                     for key,value in detector.state_dict().items()})
        if change=='statistics': [module.running_var.mul_(1.5) for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
        if change=='setting': detector.stages[0].nms_pre = 7
        if change=='threshold': detector.stages[-1].max_per_img = 3
    now = fast(IMAGE)
    same(now, plain(IMAGE))
    assert len(now)!=len(first) or not torch.equal(now.boxes, first.boxes)

WIDE = dict(rotated_fcos=dict(KINDS['rotated_fcos'], feat_channels=64), oriented_rcnn=dict(KINDS['oriented_rcnn'], feat_channels=64))

@pytest.mark.parametrize('name', WIDE)
def test_wide_layers_go_by_winograd(name):
    "On maps of 20 px and more, of any shape; and smaller levels by the same layers"
    torch.manual_seed(2)
    detector = stirred(create_detector(name, 2, **{**SMALL, 'fpn_channels':64}, **WIDE[name]))
    fast,plain = both(detector)
    for image in (IMAGE, np.ascontiguousarray(IMAGE[:,:120])): same(fast(image), plain(image))
    assert 'winograd' in {module.way for module in fast._faster.twin.modules() if isinstance(module, PackedLayer)}

@pytest.mark.parametrize('most', [1,7])
def test_proposals_a_few_at_a_time(monkeypatch, most):
    torch.manual_seed(1)
    detector = stirred(create_detector('oriented_rcnn', 2, **SMALL, **KINDS['oriented_rcnn'])).eval()
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad(): whole = detector(images)
    monkeypatch.setattr('rotnb.models.roi_head.AT_ONCE', most)
    with torch.no_grad(): pieces = detector(images)
    for ours,theirs in zip(pieces, whole):
        assert len(ours['boxes'])==len(theirs['boxes'])>0
        near(ours['boxes'], theirs['boxes'], 1e-3)

def test_sizes_and_batches(detector):
    fast,plain = both(detector, bs=2)
    images = [IMAGE, IMAGE[:70,:130].copy(), IMAGE[:70,:130].copy(), IMAGE[:33,:40].copy()]
    for ours,theirs in zip(fast(images), plain(images)): same(ours, theirs)
    same(fast.predict_scene(IMAGE, size=96, progress=False), plain.predict_scene(IMAGE, size=96, progress=False))

def test_no_proposals(detector):
    detector.stages[0].min_size = 1e6
    fast,plain = both(detector)
    assert len(fast(IMAGE))==len(plain(IMAGE))

def test_hooks_of_others_are_called(detector):
    seen = []
    detector.neck.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    norm = next(module for module in detector.modules() if isinstance(module, nn.BatchNorm2d))
    norm.register_forward_hook(lambda module, args, out: out*2)
    fast,plain = both(detector)
    same(fast(IMAGE), plain(IMAGE))
    assert seen

class Reads(nn.Module):
    "A layer whose weight is read past its call"
    def __init__(self, conv):
        super().__init__()
        self.conv = conv
    def forward(self, x): return self.conv(x)*self.conv.weight.mean().exp()

def test_what_has_no_twin_answers_itself(detector):
    detector.neck.out[0][0] = Reads(detector.neck.out[0][0])
    fast,plain = both(detector)
    same(fast(IMAGE), plain(IMAGE), 0)
    assert 'has no twin' in fast._faster.said

class Twice(nn.Module):
    "One norm behind two convolutions, and one convolution before two readers"
    def __init__(self):
        super().__init__()
        self.a,self.b,self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norm,self.other = nn.BatchNorm2d(3),nn.BatchNorm2d(3)
    def forward(self, x):
        y = self.c(x)
        return self.norm(self.a(x))+self.norm(self.b(x))+self.other(y)*y.shape[0]+y.mean()

def test_only_what_alone_follows_is_folded():
    net = Twice().eval()
    flow = Flow(net, torch.rand(1, 3, 5, 4))
    assert [flow.after(conv) for conv in (net.a,net.b,net.c)]==[None]*3
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())

def test_ways_are_checked_and_kept(detector, tmp_path):
    for wrong in ('int8','fast',2):
        with pytest.raises(ArgumentError, match='fast is'): Predictor(detector, fast=wrong)
    predictor = Predictor(detector, fast='bf16')
    assert predictor.settings()['fast']=='bf16'
    assert Predictor.load(predictor.save(tmp_path/'it')).fast=='bf16'
    assert Predictor.load(tmp_path/'it', fast=False).fast==False
    assert predictor.fingerprint()!=Predictor(detector).fingerprint()==Predictor(detector, fast=False).fingerprint()

def test_a_journal_is_not_continued_with_other_numbers(detector, tmp_path):
    scene = partial(Predictor.predict_scene, path=IMAGE, size=96, resume=tmp_path, progress=False)
    scene(Predictor(detector, fast=False))
    scene(Predictor(detector))
    with pytest.raises(JournalError, match='bf16'): scene(Predictor(detector, fast='bf16'))

def test_bfloat16_is_near(detector):
    rows = compare_ways(detector, torch.randn(1, 3, 96, 96), ('exact','bf16'), 0., n=1)
    assert rows['exact']['lost']==0 and rows['exact']['most']<1e-3
    assert rows['bf16']['boxes']>0 and rows['bf16']['moved']<8

def test_speed_up_says_what_it_does(detector):
    predictor = Predictor(detector, score_thr=0.)
    said = predictor.speed_up(IMAGE)
    assert predictor.fast in ('exact','bf16') and said.startswith(f'{predictor.fast}: ') and 'of the time' in said

def test_the_best_is_taken(capsys):
    rows = dict(exact=dict(share=.7), bf16=dict(share=.4, boxes=100, lost=2, moved=.4))
    assert best_way(rows)=='bf16'
    for worse in (dict(lost=3), dict(moved=1.5), dict(moved=float('nan')), dict(boxes=0, lost=0), dict(share=.6)):
        assert best_way({**rows, 'bf16':{**rows['bf16'], **worse}})=='exact'
    detector = create_detector('rotated_fcos', 2, **SMALL, **KINDS['rotated_fcos'])
    predictor = Predictor(detector, fast=True)
    predictor(IMAGE)
    assert predictor.fast in ('exact','bf16') and 'of the time' in capsys.readouterr().out
    predictor(IMAGE)
    assert capsys.readouterr().out==''

def test_copied_and_pickled_after_an_answer(detector):
    predictor = Predictor(detector, score_thr=0.)
    found = predictor(IMAGE)
    same(copy.deepcopy(predictor)(IMAGE), found)
    same(Predictor(pickle.loads(pickle.dumps(predictor._faster)).detector, score_thr=0.)(IMAGE), found)

def test_from_several_threads(detector):
    predictor,found = Predictor(detector, score_thr=0.),[]
    threads = [threading.Thread(target=lambda: found.append(predictor(IMAGE))) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for one in found: same(one, found[0])
    assert len(found)==3

@pytest.mark.parametrize('pad_value', [None,114.])
def test_bytes_are_looked_up(pad_value):
    mean,std = (.485,.456,.406),(.229,.224,.225)
    fit,images = ImageFit(stats=(mean,std), pad_value=pad_value),[IMAGE, IMAGE[:60,:100]]
    batch = fit.batch(images, (192,160))
    mean,std = torch.tensor(mean),torch.tensor(std)
    fill = torch.zeros(3) if pad_value is None else (pad_value/255-mean)/std
    for whole,image in zip(batch, images):
        truth = fill.repeat(160, 192, 1)
        truth[:image.shape[0],:image.shape[1]] = (torch.from_numpy(image).float()/255-mean)/std
        assert torch.equal(whole, truth.permute(2,0,1))
    assert batch.is_contiguous(memory_format=torch.channels_last)

@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_every_detector(name):
    small = {} if 'tiny' in name or name.startswith(('rtmdet','redet')) else dict(backbone='resnet18')
    detector,images = stirred(create_detector(name, 4, **small)).eval(),torch.randn(1, 3, 160, 160)
    twin = fast_twin(detector)
    assert sum(isinstance(module, PackedLayer) for module in twin.modules())>20
    with torch.inference_mode():
        for ours,theirs in zip(twin.neck(twin.backbone(images)), detector.neck(detector.backbone(images))):
            assert (ours-theirs).abs().max()<1e-4*theirs.abs().max()
        feats = detector.neck(detector.backbone(images))
        ours,theirs = twin.stages[0](feats, None),detector.stages[0](feats, None)
        for key in ('logits','deltas'): near(getattr(ours, key), getattr(theirs, key), 1e-3)
        twin(images)
