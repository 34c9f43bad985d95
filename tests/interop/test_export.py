"A detector as a file of another runtime has the same boxes, whatever is in the image, and says what it is"
import json
from importlib.util import module_from_spec, spec_from_file_location
import numpy as np, pytest, torch
import rotnb.interop.export as mod
from exported import WRITERS, tiny_predictor
from families import FAMILIES
from rotnb.data.synth.scenes import make_scene
from rotnb.geometry.polygons import min_area_rect
from rotnb.interop.export import export_onnx
from rotnb.interop.export_module import ExportError, ExportModule
from rotnb.interop.proof import file_images, file_predictor, match_answers, prove
from rotnb.interop.runtime import ExportedDetector
from rotnb.models import create_detector
from rotnb.predict.predictor import Predictor
from paths import ROOT, SHARED

@pytest.fixture(scope='module')
def made():
    predictor = file_predictor(tiny_predictor())
    return predictor,ExportModule(predictor)

# --- the file

@pytest.mark.parametrize('own,k,most', [(7,300,7), (300,5,5), (300,300,300)])
def test_a_file_is_asked_for_no_more_than_it_has(own, k, most):
    "Upright detectors answer with 100 at most: a predictor of their file that asked for 300 was refused"
    predictor = tiny_predictor()
    predictor.detector.stages[-1].max_per_img = own
    shown = file_predictor(predictor, k=k)
    assert shown.max_dets==ExportModule(shown, k=k).k==most

def flat(value=90): return np.full((160,192,3), value, np.uint8)

def test_same_boxes_as_the_predictor(exported, made):
    predictor,module = made
    crowded = [make_scene(seed, 256)[0] for seed in range(2)]
    water,grain = flat(),np.random.default_rng(0).integers(0, 256, (160,192,3), np.uint8)         # equal scores; many and weak ones
    proof = prove(exported(), module, predictor, [*crowded, water, grain], runs=1)
    assert proof.fits(1e-2) and proof.match.n>40 and proof.match.close<=2, proof

@pytest.fixture(scope='module')
def spread():
    "Predictor of a small detector that says distributions, and knows what is round"
    torch.manual_seed(0)
    small = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
    detector = create_detector('rotated_tal_tiny', 3, **small)
    for name,weight in detector.stages.named_parameters():
        if name.split('.')[1] in ('cls','box'): torch.nn.init.normal_(weight, std=.1)
    detector.vocab,detector.symmetry = ['court','hall','tank'],{'hall':90, 'tank':'round'}
    return file_predictor(Predictor(detector, ['court','hall','tank'], size=(128,96), score_thr=.1, iou_thr=.8))

@pytest.mark.parametrize('suffix', ['.onnx', pytest.param('.xml', marks=pytest.mark.slow)])
def test_round_classes_are_upright_in_the_file_and_deviations_are_said(spread, tmp_path, suffix):
    file = WRITERS[suffix](spread, tmp_path/f'm{suffix}', check=False)
    x = torch.randint(0, 256, (1,3,96,128), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    module = ExportModule(spread)
    own, = module.eager(x)
    found, = ExportedDetector(file)(x)
    n = len(found['boxes'])
    assert n>20 and own['std'][:n,:4].min()>0 and own['std'][:,4].isnan().all()          # its angle has no distribution
    def rows(o): return torch.cat([o['boxes'],1000.*o['labels'][:,None]], 1).double()
    pairs = torch.cdist(rows(own), rows(found)).argmin(0)                             # equal scores may change places
    for key,off in dict(boxes=1e-2, scores=1e-3, std=1e-2).items():
        assert found[key].shape==own[key][:n].shape and torch.allclose(found[key], own[key][pairs], rtol=0, atol=off, equal_nan=True), key
    tanks = found['boxes'][found['labels']==2]
    near = tanks[tanks[:,2:4].amax(1)<=1.19*tanks[:,2:4].amin(1)]
    assert len(near)>2 and (near[:,4]==0).all()
    other,scene = Predictor(file),make_scene(0, 256)[0]
    assert other.symmetry==spread.symmetry=={'hall':90, 'tank':'round'}
    seen,known = other(scene),spread(scene)
    assert len(seen)==len(known)>5 and seen.std[:,:4].isfinite().all()
    assert torch.allclose(seen.std.sum(0), known.std.sum(0), rtol=1e-2, equal_nan=True)

def test_an_empty_answer(exported):
    found = ExportedDetector(exported()).run(torch.zeros(1, 3, 160, 192, dtype=torch.uint8))
    n = int(found['count'][0])
    assert n<300 and (found['labels'][0,n:]==-1).all() and not found['boxes'][0,n:].any() and not found['scores'][0,n:].any()
    assert {key:(o.shape,o.dtype) for key,o in found.items()}==dict(boxes=((1,300,5),torch.float32), scores=((1,300),torch.float32),
                                                                         labels=((1,300),torch.int64), count=((1,),torch.int64))

def test_what_stands_in_the_file(exported, made):
    onnx = pytest.importorskip('onnx')
    model,predictor = onnx.load(exported()),made[0]
    assert [(o.domain,o.version) for o in model.opset_import]==[('',20)]
    notes = ExportedDetector(exported()).runtime.notes
    said = json.loads(notes['rotnb'])
    again = type(predictor)(predictor.detector, **said['predictor'])
    assert again.settings()==predictor.settings() and again.fit==predictor.fit
    assert (said['k'],said['score_thr'],said['iou_thr'],said['angle'],said['dynamic'])==(300,.05,.1,'le90',False)
    assert said['recipe']==json.loads(json.dumps(predictor.detector.recipe(), default=str))
    assert notes['names']==repr(dict(enumerate(predictor.vocab)))

# --- the module

def answers(module, x, **kw):
    "What the module and its detector say of an image, as `match_answers` compares them"
    boxes,scores,labels,count = (o[0] for o in module(x))
    return module.eager(x)[0],dict(boxes=boxes[:count], scores=scores[:count], labels=labels[:count])

@torch.no_grad()
def test_only_the_best_candidates_are_needed_for_the_best_boxes(made):
    x = torch.from_numpy(file_images(made[0], [make_scene(1, 192)[0]]))
    module = ExportModule(made[0], pre=40)
    own,found = answers(module, x)
    n = len(found['boxes'])
    assert 3<n<len(own['boxes'])
    assert torch.equal(found['boxes'], own['boxes'][:n]) and torch.equal(found['labels'], own['labels'][:n])

@torch.no_grad()
@pytest.mark.parametrize('name,kw', [
    ('rotated_fcos_tiny',{}), ('rotated_retinanet_tiny',dict(nms_pre_of='priors')), ('h2rbox',dict(square_classes=[0])),
    ('gliding_vertex',dict(box_type='quad')), ('oriented_rcnn',{}), ('rotated_tal_tiny',{})])
def test_the_module_answers_as_its_detector(name, kw):
    torch.manual_seed(0)
    size = {} if 'tiny' in name else dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, strides=(8,16))
    detector = create_detector(name, 3, **size, **kw, **(dict(fc_channels=32) if name in ('gliding_vertex','oriented_rcnn') else {}))
    for part,weight in detector.stages.named_parameters():
        if {'cls','box'}&{*part.split('.')[-3:-1]}: torch.nn.init.normal_(weight, std=.04)
    module = ExportModule(detector, k=2000, pre=10_000)
    x = torch.randint(0, 256, (2,3,96,128), dtype=torch.uint8)
    own = module.eager(x)
    found = dict(zip(module.outputs, module(x)))
    assert [len(o['boxes']) for o in own]==found.pop('count').tolist() and any(len(o['boxes'])>5 for o in own)
    for i,one in enumerate(own):
        for key,rows in one.items(): assert torch.allclose(found[key][i,:len(rows)], rows, atol=1e-4, equal_nan=True), key

def test_the_detector_is_left_as_it_is(made):
    detector = made[0].detector.train()
    ExportModule(made[0], score_thr=.7, iou_thr=.3)
    assert detector.training and (detector.stages[-1].score_thr,detector.stages[-1].iou_thr)==(.05,.1)
    detector.eval()

# --- how images go in

@pytest.mark.parametrize('kw', [{}, dict(pad_value=114), dict(rule='letterbox', pad_value=7), dict(rule='rect'), dict(size=None)])
def test_images_are_shown_as_the_predictor_shows_them(kw):
    predictor = file_predictor(tiny_predictor(**kw))
    image = make_scene(3, 128)[0][:70]
    ours = file_images(predictor, [image])
    want = predictor.fit.batch([predictor.fit.resized(image)], predictor.fit.way((128,70)).out)
    assert ours.shape[:2]==(1,3) and ours.shape[2:]==(640,640) if kw.get('size', 1) is None else ours.shape==(1,3,160,192)
    assert (ExportModule(predictor).normalised(torch.from_numpy(ours))-want).abs().max()<1e-6

def test_in_a_graph_of_any_size_padding_is_inside():
    predictor = file_predictor(tiny_predictor(size=None, pad_value=30), dynamic=True)
    image = make_scene(3, 128)[0][:70]
    ours = file_images(predictor, [image])
    assert ours.shape==(1,3,70,128) and predictor.fit.pad_value==30
    want = predictor.fit.batch([image], predictor.fit.way((128,70)).out)
    assert (ExportModule(predictor).normalised(torch.from_numpy(ours))-want).abs().max()<1e-6

# --- the comparison

def rows(*boxes): # (cx, cy, w, h, theta, score, label)
    o = torch.tensor(boxes).reshape(-1, 7)
    return dict(boxes=o[:,:5], scores=o[:,5], labels=o[:,6].long())

A,B = (20.,20.,10.,6.,.3,.9,0.),(60.,20.,10.,6.,.3,.6,1.)
turned = (20.,20.,6.,10.,.3-np.pi/2,.9,0.)                                 # the same corners, named otherwise

@pytest.mark.parametrize('own,found,want', [
    ((A,B), (A,B), (2,0,0,0)),
    ((A,B), (turned,B), (2,0,0,0)),
    ((A,B), (A,), (1,0,1,0)),
    ((A,), (A,B), (1,0,0,1)),
    ((A,B), (A,(66.,*B[1:])), (1,0,1,1)),                                   # six pixels away
    ((A,B), (A,(*B[:6],0.)), (1,0,1,1)),                                    # of another class
    ((A,B), (A,(float('nan'),*B[1:])), (1,0,1,1)),
    ((A,(21.,*A[1:])), (A,(21.,*A[1:])), (2,0,0,0)),
    ((A,), ((21.,20.,13.,6.,.3,.9,0.),), (0,0,1,1)),                        # an equal score is no excuse for another box
    ((A,(60.,20.,10.,6.,.3,.05001,1.)), (A,), (1,1,0,0)),                   # at the threshold
    ((), (), (0,0,0,0)), ((), (A,), (0,0,0,1)), ((A,), (), (0,0,1,0))])
def test_what_counts_as_the_same(own, found, want):
    match = match_answers(rows(*own), rows(*found), k=9, score_thr=.05, iou_thr=.1)
    assert (match.n,match.close,match.lost,match.new)==want

def test_equal_scores_leave_either():
    "Of two candidates that overlap and score the same, NMS may keep one or the other; of others not"
    near,weaker,chain = (24.,*A[1:]),(24.,*A[1:5],.8,0.),(28.,*A[1:5],.7,0.)
    def match(own, found, *candidates): return match_answers(rows(*own), rows(*found), 9, .05, .1, rows(*candidates))
    assert (match([A], [near], A, near).close,match([A], [near], A, near).lost)==(2,0)
    assert match([A], [near], A).new==1 and match([A], [near], A).lost==1                                # it was no candidate
    assert (match([A], [weaker], A, weaker).lost,match([A], [weaker], A, weaker).new)==(1,1)
    assert match([A,chain], [near], A, near, chain).lost==0                                              # which the other one covers

def test_equal_scores_at_the_cut():
    "Where not all candidates reach the NMS, and some score as the last that does, either of them may"
    one,other,more = (20.,20.,9.,6.,.3,.5,0.),(60.,20.,9.,6.,.3,.5,0.),(60.,60.,9.,6.,.3,.5,0.)
    def match(own, found, *candidates, pre=2): return match_answers(rows(*own), rows(*found), 9, .05, .1, rows(*candidates), pre=pre)
    told = match([A,one], [A,other], A, one, other)
    assert (told.n,told.close,told.lost,told.new)==(1,1,0,0)
    assert match([A,one], [A,other], A, one).new==1                                                  # it was no candidate
    assert match([A,one], [A,other], A, one, other, pre=3).new==1                                    # all of them reach it
    assert match([A,one], [A,(*other[:5],.6,0.)], A, (*other[:5],.6,0.), one, more, pre=3).new==1    # it scores more than the last

def test_a_full_answer_is_the_head():
    assert match_answers(rows(A,B), rows(A), k=1, score_thr=.05, iou_thr=.1).lost==0
    assert match_answers(rows(B,A), rows(B), k=1, score_thr=.05, iou_thr=.1).lost==1                    # but not another part

def test_numbers_that_are_none_are_no_proof(exported, made):
    proof = prove(exported(), made[1], made[0], [flat()], runs=1)
    for key in ('corner','score'):
        setattr(proof.match, key, float('nan'))
        assert not proof.fits(1e-2)
        setattr(proof.match, key, 0.)
    assert proof.fits(1e-2)

# --- errors

def test_a_file_that_fails_is_not_left(made, tmp_path):
    @torch.no_grad()
    def worse(plan, file):
        plan.module.k = 3                                                   # not what it says
        torch.export.save(torch.export.export(plan.module, (plan.example,), strict=False), file, extra_files=plan.notes)
        plan.module.k = 300
    with pytest.raises(ExportError, match='lost'):
        mod._export(worse, mod._plan(tiny_predictor(), images=[make_scene(1, 192)[0]]), tmp_path/'m.pt2')
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('call,said', [
    (lambda p,out: export_onnx(p, out/'m.pt'), 'ends in .onnx'),
    (lambda p,out: export_onnx(p.detector, out/'m.onnx'), 'Predictor'),
    (lambda p,out: export_onnx(p, out/'m.onnx', score_thr=5), 'score_thr'),
    (lambda p,out: export_onnx(p, out/'m.onnx', k=0), 'k is 0')])
def test_mistakes_are_answered_before_it_starts(call, said, made, tmp_path):
    with pytest.raises(ValueError, match=said): call(made[0], tmp_path)
    assert not list(tmp_path.iterdir())

def test_what_cannot_be_traced_is_named(tmp_path):
    predictor = tiny_predictor()
    predictor.detector.stages[-1].soft_nms = {}
    with pytest.raises(ExportError, match='soft_nms'): export_onnx(predictor, tmp_path/'m.onnx')

def test_least_rectangles_of_point_sets(tmp_path):
    "What point-set detectors decode by has no operation that ONNX lacks"
    need = [pytest.importorskip(name) for name in ('onnx','onnxscript','onnxruntime')]
    class Rect(torch.nn.Module):
        def forward(self, points): return min_area_rect(points)
    points = torch.cat([torch.rand(20, 9, 2)*50, torch.tensor([[[0.,0],[4,0],[4,2]]*3, [[1.,1]]*9])])
    torch.onnx.export(Rect(), (points,), tmp_path/'m.onnx', dynamo=True, opset_version=20, verbose=False)
    session = need[-1].InferenceSession(tmp_path/'m.onnx', providers=['CPUExecutionProvider'])
    found, = session.run(None, {session.get_inputs()[0].name:points.numpy()})
    np.testing.assert_allclose(found, min_area_rect(points).numpy(), atol=1e-4)

# --- every runtime, every detector

@pytest.mark.slow
@pytest.mark.parametrize('suffix,dynamic', [('.xml',False), ('.pt2',False), ('.onnx',True), ('.xml',True), ('.pt2',True)])
def test_the_other_forms(exported, suffix, dynamic):
    predictor = file_predictor(tiny_predictor(**(dict(size=None) if dynamic else {})), dynamic=dynamic)
    scenes = [make_scene(seed, 224)[0][:200-32*seed] for seed in range(3)]
    proof = prove(exported(suffix, dynamic), ExportModule(predictor), predictor, scenes, runs=1)
    assert proof.fits(1e-2) and proof.match.n>20, proof
    if dynamic:                                                             # several at once as each alone
        file = ExportedDetector(exported(suffix, dynamic))
        x = torch.from_numpy(np.stack([make_scene(seed, 160)[0].transpose(2, 0, 1) for seed in range(3)]))
        for i,together in enumerate(file(x)):
            alone, = file(x[i:i+1])
            assert len(alone['boxes'])==len(together['boxes'])>0 and (together['boxes']-alone['boxes']).abs().max()<1e-3

@pytest.mark.slow
def test_two_stages_for_images_of_any_size(tmp_path):
    "Proposals are thinned image by image, so the file takes one at a time, of any size"
    bench = benchmark()
    torch.manual_seed(0)
    detector = bench.spread(create_detector('oriented_rcnn', bench.K, **bench.REGION), bench.images_of(None))
    predictor = file_predictor(Predictor(detector, [f'c{i}' for i in range(bench.K)], size=None, score_thr=.05), dynamic=True)
    file = export_onnx(predictor, tmp_path/'m.onnx', dynamic=True, pre=1000, check=False)
    assert ExportedDetector(file).runtime.shape==(1,3,None,None)
    scenes = [make_scene(seed, 224)[0][:200-32*seed] for seed in range(3)]
    proof = prove(file, ExportModule(predictor, pre=1000), predictor, scenes, runs=1)
    assert proof.fits(1e-2) and proof.match.n>100 and proof.match.close==0, proof

def benchmark():
    spec = spec_from_file_location('export_benchmark', ROOT/'nbs/benchmarks/export.py')
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found

@pytest.mark.parametrize('name', ['bright_cells', pytest.param('bright_proposals', marks=pytest.mark.slow)])
def test_nothing_one_object_equals_and_more_than_reach_the_nms(name):
    "In ONNX Runtime and OpenVINO, to the box: not even of equals another one"
    found = benchmark().row(name, [])['scenes']
    some = {scene:o['candidates'] for scene,o in found.items()}
    assert some['none']==0<some['one']<100 and min(some['ties'], some['noise'])>100
    for scene,o in found.items():
        for match in (o['onnx'],o['xml']):
            assert match['fits'] and match['close']==0 and (match['n']>0)==(scene!='none'), (scene,o)

@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_every_detector_has_the_same_boxes(name):
    "Or says which part of it cannot go"
    bench = benchmark()
    row = bench.row(name, bench.images_of(SHARED/'data/dota8'))
    if 'error' in row: assert name in row['error'] or 'cannot' in row['error']
    else: assert all(row[kind]['fits'] and row[kind]['n']>20 for kind in ('onnx','xml')), row
