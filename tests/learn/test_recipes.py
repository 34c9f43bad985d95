"Recipes: the values of the papers, what a fit makes of them, and their journey through files"
import json, subprocess
from dataclasses import asdict
import numpy as np, pytest, torch
from fastai.vision.all import Callback, Path, params
from rotnb.all import RotatedDataLoaders, list_detectors, open_learner, rotated_learner
from rotnb.check.arguments import UnknownArgumentError
from rotnb.check.values import ArgumentError
from rotnb.data.synth.scenes import make_synth
from rotnb.learn.callbacks import DetectionLoss
from rotnb.learn.history import git_state
from rotnb.learn.optimizers import NoDecay, stage_splitter, undecayed
from rotnb.learn.recipe import Recipe, detector_settings, get_recipe
from rotnb.learn.recipes import CSPNEXT, RATES, list_recipes, recipe
from rotnb.learn.schedules import Schedule
from rotnb.models import create_detector

SMALL = dict(backbone='test_resnet', pretrained=False, size=64, bs=2, batch_aug={},
             detector=dict(fpn_channels=8, feat_channels=8, stacked_convs=1, strides=[8,16], act='exp'))

@pytest.fixture(scope='module')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('recipes')/'set', n_train=6, n_valid=2, size=64, seed=3)

@pytest.fixture
def dls(synth): return RotatedDataLoaders.from_dota(synth, bs=2, batch_tfms=[], shuffle=False, num_workers=0, device='cpu')

def small(name='dota_1x', **over): return recipe(name, arch='rotated_fcos', **{**SMALL, 'tile':None, **over})

def quietly(learn, func):
    with learn.no_bar(), learn.no_logging(): return func(learn)

# MMRotate's and MMDetection's configurations, read on 2026-11-29: epochs, where the rate falls, optimizer, rate, decay, warm-up, its start
PUBLISHED = dict(
    dota_1x=(12, [8,11], 'sgd', .0025, 1e-4, 500, 1/3), dota_3x=(36, [24,33], 'sgd', .0025, 1e-4, 500, 1/3),
    dota_6x=(72, [48,66], 'sgd', .0025, 1e-4, 500, 1/3), dota_40e=(40, [24,32,38], 'sgd', .0025, 1e-4, 500, 1/3),
    hrsc_6x=(72, [48,66], 'sgd', .0025, 1e-4, 500, 1/3), ssdd_6x=(72, [48,66], 'sgd', .005, 1e-4, 500, 1/3),
    dior_1x=(12, [8,11], 'sgd', .0025, 1e-4, 500, 1/3), dota_1x_swin=(12, [8,11], 'adamw', 1e-4, .05, 500, 1/3),
    rtmdet_r_3x_dota=(36, None, 'adamw', .00025, .05, 1000, 1e-5), rtmdet_r_100e_dota=(100, None, 'adamw', .00025, .05, 1000, 1e-5))

@pytest.mark.parametrize('name', PUBLISHED)
def test_values_of_the_papers(name):
    one = recipe(name)
    schedule = one.schedule
    assert (one.epochs, schedule.get('at'), one.opt, one.lr, one.wd, schedule['warmup'], schedule['warmup_start'])==PUBLISHED[name]
    if one.opt=='sgd': assert (one.clip,one.lr_for,one.bs,one.frozen,one.norm_eval,one.no_decay)==(35.,2,2,1,True,[])

def test_scales_and_turns():
    assert recipe('dota_1x').tile==dict(size=1024, overlap=200, below='drop')
    assert recipe('dota_3x_ms_rr').tile==dict(size=1024, overlap=500, scales=[.5,1.,1.5], below='drop')
    assert recipe('dota_3x_ms_rr').batch_aug['RandomRotate']['rect_classes']==['storage-tank','roundabout']
    assert list(recipe('dota_1x_ms').diff('dota_1x').index)==['tile.overlap','tile.scales']

def test_rates_go_with_the_family():
    known = set(list_detectors())
    assert RATES.keys()<=known and CSPNEXT.keys()<=known
    assert [recipe('dota_1x', arch=arch).lr for arch in ('roi_trans','s2anet','cfa')]==[.005,.0025,.008]
    assert recipe('dota_1x', arch='roi_trans', lr=.01).lr==.01
    assert recipe('rtmdet_r_3x_dota', arch='rtmdet_r_s').weights=='cspnext-s_imagenet_600e'

@pytest.mark.parametrize('name', list_recipes())
def test_every_recipe_can_be_kept_printed_and_built(name, tmp_path):
    one = recipe(name)
    one.to_json(tmp_path/'a.json')
    assert Recipe.from_json(tmp_path/'a.json')==one and one.diff(name).empty
    text = str(one)
    assert all(f'  {key} ' in text for key in asdict(one)) and max(map(len, text.splitlines()))<160
    items,batches = one.transforms()
    assert (items is None)==(one.size is None and not one.item_aug) and (batches is None)==(not one.batch_aug)
    assert [type(cb) for cb in one.fit_callbacks()][:2]==[Schedule,NoDecay]

class Watch(Callback):
    "Batches and rates of a fit"
    order = 100
    def __init__(self): self.batches,self.lrs = [],[]
    def before_batch(self):
        if self.training: self.lrs.append(self.opt.hypers[-1]['lr'])
    def after_loss(self):
        if self.training: self.batches.append((self.xb[0].clone(), self.learn.truth))

def test_a_fit_is_that_of_a_plain_loop(dls):
    "SGD of torch with L2 decay, clipped gradients, and the schedule's rates, on the batches that the learner saw"
    one = small(epochs=4, at=(2,3), warmup=3, clip=.5, lr=.02)
    torch.manual_seed(0)
    watch = Watch()
    learn = one.learner(dls, metrics=[], run=False, cbs=watch)
    model = create_detector('rotated_fcos', len(dls.vocab), 'test_resnet', **one.detector)
    model.load_state_dict(learn.model.state_dict())
    quietly(learn, one.fit)
    assert len(watch.batches)==12
    np.testing.assert_allclose(watch.lrs, .02*np.array([1/3,2/3,1,1,1,1,.1,.1,.1,.01,.01,.01]), rtol=1e-6)
    opt = torch.optim.SGD(model.parameters(), lr=1., momentum=.9, weight_decay=1e-4)
    model.train()
    for (x,truth),lr in zip(watch.batches, watch.lrs):
        opt.param_groups[0]['lr'] = lr
        opt.zero_grad()
        DetectionLoss()(model(x, truth)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), .5)
        opt.step()
    for (name,ours),theirs in zip(learn.model.named_parameters(), model.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)

def test_decay_is_as_named(dls):
    learn = small('rtmdet_r_3x_dota', weights=None, callbacks={}, epochs=1, warmup=1, no_decay=['norm','bias'], fill=0).learner(
        dls, metrics=[], run=False)
    quietly(learn, learn.recipe.fit)
    without = {id(learn.model.get_parameter(name)) for name in undecayed(learn.model, ['norm','bias'])}
    assert without and all(state['do_wd']==(id(param) not in without) for param,_,state,_ in learn.opt.all_params())
    learn.opt = None
    quietly(learn, lambda learn: learn.recipe.but(no_decay=()).fit(learn))
    assert all(state['do_wd'] for _,_,state,_ in learn.opt.all_params())

def test_layers_learn_at_their_own_rates(dls):
    learn = small(epochs=1, warmup=1, layer_decay=.5, lr=.01, backbone_lr=.5).learner(dls, metrics=[], run=False)
    quietly(learn, learn.recipe.fit)
    rates = learn.opt.hypers.attrgot('lr')
    assert len(rates)==len(stage_splitter(learn.model))>3 and rates[-1]==pytest.approx(.01)
    np.testing.assert_allclose(np.array(rates[1:-1])/np.array(rates[:-2]), 2.)
    assert rates[-2]==pytest.approx(.01*.5*.5)

def test_the_rate_goes_with_the_images_of_a_step():
    one = recipe('dota_1x')
    assert [one.rate(bs) for bs in (2,8)]==[.0025,.01]
    assert one.but(gather=16).rate(2)==.02 and one.but(lr_scaling='sqrt').rate(8)==.005 and one.but(lr_for=None).rate(8)==.0025

def test_gathered_batches_step_together(dls):
    learn = small(epochs=2, warmup=1, gather=6).learner(dls, metrics=[], run=False)
    steps = []
    class Count(Callback):
        def after_step(self): steps.append(self.iter)
    learn.add_cb(Count())
    quietly(learn, learn.recipe.fit)
    assert steps==[2,2]

def test_frozen_stages_stay(dls):
    "As with ImageNet's weights; here of random ones, which a recipe would not freeze"
    one = small(epochs=1, warmup=1, detector={**SMALL['detector'], 'backbone_kw':dict(frozen=1, norm_eval=True)})
    learn = one.learner(dls, metrics=[], run=False)
    before = {key:value.clone() for key,value in learn.model.state_dict().items()}
    quietly(learn, one.fit)
    stem,first,*rest = [[id(param) for part in stage for param in params(part)] for stage in learn.model.backbone._stages()]
    for name,param in learn.model.named_parameters():
        if id(param) in stem+first: assert torch.equal(param, before[name]), name
    assert any(not torch.equal(param, before['backbone.'+name]) for name,param in learn.model.backbone.named_parameters())
    assert all(torch.equal(value, before[key]) for key,value in learn.model.state_dict().items() if 'running_mean' in key)

def test_a_recipe_without_imagenet_freezes_nothing():
    assert detector_settings(recipe('dota_1x'))['backbone_kw']==dict(frozen=1, norm_eval=True)
    assert 'backbone_kw' not in detector_settings(small())

def test_the_run_folder_holds_it(dls, tmp_path, monkeypatch):
    monkeypatch.setenv('ROTNB_RUNS', str(tmp_path/'runs'))
    one = small(epochs=1, warmup=1)
    learn = one.learner(dls, metrics=[])
    quietly(learn, one.fit)
    assert Recipe.from_json(learn.run_path)==Recipe.from_json(learn.run_path/'recipe.json')==one
    settings = json.loads((learn.run_path/'settings.json').read_text())
    assert settings['optimizer']=='SGD mom=0.9 decouple_wd=False' and {'git','gpus','torch','cpus'}<=settings['versions'].keys()

def test_any_learner_follows_a_recipe(dls):
    learn = rotated_learner(dls, 'rotated_fcos', backbone='test_resnet', pretrained=False, metrics=[], run=False, **SMALL['detector'])
    quietly(learn, lambda learn: learn.fit_recipe('dota_1x', epochs=1, warmup=1, lr=1e-4))
    assert learn.recipe.name=='dota_1x' and learn.opt.hypers[-1]['lr']==1e-4
    quietly(learn, lambda learn: learn.fit_recipe(epochs=2))                     # its own again
    assert len(learn.recorder.values)==2 and learn.recipe.lr==1e-4

def test_a_learner_without_a_recipe_takes_that_for_few_images(dls):
    "A learner lends its detector's `recipe`, which is another thing"
    learn = rotated_learner(dls, 'rotated_fcos', backbone='test_resnet', pretrained=False, metrics=[], run=False, **SMALL['detector'])
    quietly(learn, lambda learn: learn.fit_recipe(epochs=1, warmup=1))
    assert learn.recipe.name=='few_images'

def test_an_exported_learner_keeps_its_recipe(dls, tmp_path):
    learn = small(epochs=1, warmup=1).learner(dls, metrics=[], run=False)
    quietly(learn, learn.recipe.fit)
    learn.export(tmp_path/'a.pkl')
    assert open_learner(tmp_path/'a.pkl', device='cpu').recipe==learn.recipe

def test_few_images_train_the_whole_of_trained_weights(dls):
    learn = recipe('few_images', weights='rotated_fcos_tiny_synth', epochs=1, warmup=1).learner(dls, metrics=[], run=False)
    assert learn.model.name=='rotated_fcos_tiny'
    before = {name:param.detach().clone() for name,param in learn.model.named_parameters()}
    quietly(learn, learn.recipe.fit)
    moved = {name for name,param in learn.model.named_parameters() if not torch.equal(param, before[name])}
    assert len(moved)>.9*len(before) and any('backbone' in name for name in moved)

MISTAKES = [
    (lambda: recipe('dota1x'), ValueError, "'dota_1x'"),
    (lambda: recipe('dota_1x', learning_rate=.1), UnknownArgumentError, "'lr'"),
    (lambda: recipe('dota_1x', batch_size=4), UnknownArgumentError, "'bs'"),
    (lambda: recipe('dota_1x', milestones=[3]), UnknownArgumentError, 'milestones'),
    (lambda: recipe('dota_1x', lr=0), ArgumentError, 'above 0'),
    (lambda: recipe('dota_1x', opt='AdamW'), ArgumentError, "'adamw'?"),
    (lambda: recipe('dota_1x', kind='multistep'), ArgumentError, "'step'?"),
    (lambda: recipe('dota_1x', item_aug=dict(Mozaic={})), ValueError, "'Mosaic'"),
    (lambda: recipe('dota_1x', bs=1.5), ArgumentError, 'whole number'),
    (lambda: recipe('dota_1x', lr_scaling='root'), ArgumentError, "'sqrt'"),
    (lambda: recipe('dota_1x', epochs=2, steps=100), ValueError, 'epochs or steps'),
    (lambda: recipe('dota_1x', epochs=0), ArgumentError, '1 or more'),
    (lambda: recipe('dota_1x', callbacks=dict(CloseMixin={})), ValueError, "'CloseMixing'")]

@pytest.mark.parametrize('i', range(len(MISTAKES)))
def test_mistakes_are_named_before_anything_starts(i):
    call,error,said = MISTAKES[i]
    with pytest.raises(error) as told: call()
    assert said in str(told.value)

@pytest.mark.parametrize('text,said', [('', 'holds no recipe'), ('[1]', 'holds no recipe'), ('{"epochs":1}', 'holds no recipe'),
    ('{"name":"a","epochs":1,"schedule":{"kind":"constant"},"wings":2,"rotnb":"9.0"}', 'wings'), ('{"name":"a","epochs":-1}', 'epochs')])
def test_a_file_that_holds_no_recipe(text, said, tmp_path):
    (tmp_path/'recipe.json').write_text(text)
    with pytest.raises(ValueError, match=said): Recipe.from_json(tmp_path)

def test_but_leaves_the_old_one_as_it_was():
    one = recipe('dota_1x')
    other = one.but(at=(3,), steps=100)
    assert (one.schedule['at'],one.epochs)==([8,11],12) and (other.schedule['at'],other.epochs,other.steps)==([3],None,100)
    assert other.but(epochs=3).steps is None and get_recipe(one) is one

def test_the_state_of_the_code(tmp_path):
    me = ['-c','user.name=a','-c','user.email=a@b']
    def git(*words): subprocess.run(['git','-C',str(tmp_path),*me,*words], check=True, capture_output=True)
    assert git_state(tmp_path/'nowhere')=={}
    git('init', '-q')
    (tmp_path/'a.py').write_text('1')
    git('add', 'a.py')
    git('commit', '-qm', 'first')
    assert len(git_state(tmp_path)['commit'])==40 and git_state(tmp_path)['n_changed']==0
    (tmp_path/'a.py').write_text('2')
    assert git_state(tmp_path)['changed']==['a.py']
