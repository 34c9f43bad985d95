"""Recipes of the YOLO family: what the papers print, and schedules value by value. Each formula is written down here as its paper or its
documentation has it, step by step, and compared with the rates and momenta that a fit really set"""
import math, warnings
import numpy as np, pytest, torch
from fastai.vision.all import Callback
from rotnb.all import Mosaic, list_detectors
from rotnb.data.mixing import MixUpBoxes
from rotnb.data.synth.scenes import make_synth
from rotnb.learn.many import ManyProcesses, SyncedNorm
from rotnb.learn.recipe import Recipe
from rotnb.learn.recipes import YOLO, YOLO_SIZES, recipe
from rotnb.learn.schedules import Schedule

# --- what is printed: epochs, images of a batch, rate, decay, momentum, last rate's share, warm-up epochs, epochs without mixing
PUBLISHED = dict(
    yolov5_300e=(300, 16, .01, 5e-4, .937, .01, 3, None), yolov6_400e=(400, 32, .01, 5e-4, .937, .01, 3, 15),
    yolov7_300e=(300, 16, .01, 5e-4, .937, .1, 3, None), yolov8_500e=(500, 16, .01, 5e-4, .937, .01, 3, 10),
    yolox_300e=(300, 8, .01, 5e-4, .9, .05, 5, 15), ppyoloe_plus_80e=(80, 8, .001, 5e-4, .9, 0., 5, None))

def test_all_are_compared(): assert PUBLISHED.keys()==YOLO.keys()

@pytest.mark.parametrize('name', PUBLISHED)
def test_values_of_the_papers(name):
    one = recipe(name)
    close = one.callbacks.get('CloseMixing', {}).get('last')
    assert (one.epochs, one.bs, one.lr, one.wd, one.opt_settings['mom'], one.schedule['end'], one.schedule['warmup_epochs'],
            close)==PUBLISHED[name]
    assert one.opt=='sgd' and one.size==640 and not one.pretrained and one.sync_bn and 'EMA' in one.callbacks
    assert (one.wd_for,one.gather)==((64,64) if name[:6] in ('yolov5','yolov6','yolov7','yolov8') else (None,None))

def test_larger_sizes_are_augmented_more():
    assert set(YOLO_SIZES)<=set(list_detectors()) and {values['arch'] for values in YOLO.values()}<=set(list_detectors())
    aug = lambda name,arch: recipe(name, arch=arch).item_aug['yolo_tfms']
    assert [aug('yolov5_300e', f'yolov5_{size}')['mixup'] for size in 'nsmlx']==[0,0,.1,.1,.1]
    assert [aug('yolov8_500e', f'yolov8_{size}')['mixup'] for size in 'nsmlx']==[0,0,.1,.15,.15]
    assert aug('yolov7_300e', 'yolov7_tiny')['zoom']==[.5,1.6] and aug('yolov7_300e', 'yolov7_x')['nine']==.2
    assert recipe('yolov6_400e', arch='yolov6_l').epochs==300 and recipe('yolov5_300e', arch='yolov5_x').schedule['end']==.1
    tiny = recipe('yolox_300e', arch='yolox_tiny')
    assert tiny.size==416 and tiny.item_aug['MixUpBoxes']['p']==0 and recipe('yolox_300e').item_aug['MixUpBoxes']['p']==1
    assert recipe('yolov8_500e', arch='rtmdet_r_s').item_aug==recipe('yolov8_500e').item_aug
    assert recipe('yolov5_300e', arch='yolov5_l', epochs=7, end=.5).schedule['end']==.5

def test_the_size_goes_into_the_transforms():
    items,batches = recipe('yolov8_500e', size=[96,64]).transforms()
    mosaic, = [tfm for tfm in items if isinstance(tfm, Mosaic)]
    assert mosaic.size_wh==(64,96) and mosaic.fill==114 and batches is None and recipe('yolov8_500e').loaders==dict(batch_tfms=[])
    mosaic,mixup = recipe('yolox_300e', size=64).transforms()[0][:2]
    assert mosaic.warp.rule.max_aspect==20 and not mosaic.alone and isinstance(mixup, MixUpBoxes)

# --- schedules: (step, steps of an epoch, epochs, warm-up steps) -> rate of weights, of biases, momentum;
# the full rate is 1, biases start at 10
def by_epoch(lf):
    "YOLOv5's loop: all three are interpolated while the warm-up lasts, its last step included"
    def rates(step, n_iter, epochs, warmup):
        full = lf(step//n_iter/epochs)
        inside = lambda start,end: float(np.interp(step, [0,warmup], [start,end]))
        return (inside(0, full),inside(10., full),inside(.8, .937)) if step<=warmup else (full,full,.937)
    return rates

def yolox(step, n_iter, epochs, warmup):
    total,weak = epochs*n_iter,.05*epochs*n_iter
    if step<=warmup: rate = (step/warmup)**2
    elif step>=total-weak: rate = .05
    else: rate = .05+.5*(1-.05)*(1+math.cos(math.pi*(step-warmup)/(total-warmup-weak)))
    return rate,rate,.9

def ppyoloe(step, n_iter, epochs, warmup):
    rate = step/warmup if step<=warmup else .5*(math.cos((step-warmup)*math.pi/(1.2*epochs*n_iter-warmup))+1)
    return rate,rate,.9

FORMULAS = dict(yolov5_300e=by_epoch(lambda done: (1-done)*(1-.01)+.01), yolov8_500e=by_epoch(lambda done: (1-done)*(1-.01)+.01),
                yolov6_400e=by_epoch(lambda done: (1-math.cos(done*math.pi))/2*(.01-1)+1),
                yolov7_300e=by_epoch(lambda done: (1-math.cos(done*math.pi))/2*(.1-1)+1), yolox_300e=yolox, ppyoloe_plus_80e=ppyoloe)

@pytest.mark.parametrize('name', FORMULAS)
def test_schedules_value_by_value(name):
    "At the published length, with steps enough that the warm-up goes by the epoch"
    one,n_iter = recipe(name),400
    schedule = Schedule(**one.schedule)
    warmup = schedule.warmup_steps(n_iter)
    assert warmup==round(one.schedule['warmup_epochs']*n_iter)>=1000
    for step in sorted({*range(0, 2*warmup, 7), warmup-1, warmup, warmup+1, *range(0, one.epochs*n_iter, 997), one.epochs*n_iter-1}):
        want,bias,mom = FORMULAS[name](step, n_iter, one.epochs, warmup)
        warmed = schedule.warmed(step, n_iter)
        assert schedule.factor(step, one.epochs, n_iter)==pytest.approx(want, rel=1e-9, abs=1e-12), step
        if schedule.warmup_bias is None: assert schedule.warmup_mom is None
        else:
            assert schedule.warmup_bias==10*one.lr and schedule.warmup_mom==.8
            assert 10*(1-warmed)+schedule.fallen(step, one.epochs, n_iter)*warmed==pytest.approx(bias)
            assert .8*(1-warmed)+.937*warmed==pytest.approx(mom)

# --- in a fit
@pytest.fixture(scope='module')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('yolo')/'set', n_train=6, n_valid=2, size=64, seed=3)

SMALL = dict(backbone='test_resnet', size=64, bs=2, item_aug={}, callbacks={}, gather=None,
             detector=dict(fpn_channels=8, feat_channels=8, stacked_convs=1, strides=[8,16], act='exp'))

class Hypers(Callback):
    "Hypers of all groups at each step"
    order = 100
    def __init__(self): self.seen = []
    def after_batch(self):
        if self.training: self.seen.append([(hyper['lr'],hyper['mom'],hyper['wd']) for hyper in self.opt.hypers])

def fitted(synth, name, cbs=(), **over):
    one = recipe(name, arch='rotated_fcos', **{**SMALL, **over})
    learn = one.learner(one.loaders_of(synth, num_workers=0, device='cpu'), metrics=[], run=False, cbs=list(cbs))
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        one.fit(learn)
    return learn

@pytest.mark.parametrize('name', ['yolov5_300e','yolov7_300e','yolox_300e'])
def test_a_fit_sets_the_published_rates(synth, name):
    watch = Hypers()
    learn = fitted(synth, name, [watch], epochs=4, warmup=7, warmup_epochs=0, clip=1., lr_for=None)
    n_iter = len(learn.dls.train)
    assert len(watch.seen)==4*n_iter
    for step,groups in enumerate(watch.seen):
        want,bias,mom = FORMULAS[name](step, n_iter, 4, 7)
        grouped = name!='yolox_300e'
        rates = [bias,want,want] if grouped else [want]*len(groups)
        np.testing.assert_allclose([lr for lr,_,_ in groups], .01*np.array(rates), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose([own for _,own,_ in groups], mom, rtol=1e-6)
        assert {wd for *_,wd in groups}=={5e-4}
    assert [o['mom'] for o in learn.opt.hypers]==[recipe(name).opt_settings['mom']]*len(learn.opt.hypers)
    assert learn.recorder.hps.keys()==({'lr','mom'} if name!='yolox_300e' else {'lr'})

def test_groups_are_kinds_and_only_weights_decay(synth):
    learn = fitted(synth, 'yolov5_300e', epochs=1, warmup=1, warmup_epochs=0)
    names = {id(param):name for name,param in learn.model.named_parameters()}
    biases,*others = learn.opt.param_lists
    assert len(others)==2 and all(names[id(param)].endswith('bias') for param in biases) and len(biases)>3
    assert not any(names[id(param)].endswith('bias') for group in others for param in group)
    decays = {id(param):state['do_wd'] for param,_,state,_ in learn.opt.all_params()}
    assert not any(decays[id(param)] for param in [*biases, *others[0]]) and all(decays[id(param)] for param in others[1])

def test_decay_and_gathering_go_with_the_images_of_a_step(synth):
    one = recipe('yolov5_300e')
    assert [one.decay(bs) for bs in (16,64,96,128)]==pytest.approx([5e-4,5e-4,7.5e-4,1e-3]) and one.but(wd_for=None).decay(128)==5e-4
    kinds = lambda bs: [type(cb).__name__ for cb in one.fit_callbacks(bs)]
    assert 'GradientAccumulation' in kinds(16) and 'GradientAccumulation' not in kinds(64)
    watch = Hypers()
    fitted(synth, 'yolov5_300e', [watch], epochs=1, warmup=1, warmup_epochs=0, wd_for=1)
    assert watch.seen[0][0][2]==pytest.approx(1e-3)

def test_a_fit_that_is_broken_off_leaves_the_momentum(synth):
    class Stop(Callback):
        order = 200
        def after_batch(self):
            if self.training: raise KeyboardInterrupt
    one = recipe('yolov5_300e', arch='rotated_fcos', **SMALL, epochs=1, warmup=50)
    learn = one.learner(one.loaders_of(synth, num_workers=0, device='cpu'), metrics=[], run=False, cbs=Stop())
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: one.fit(learn)
        except KeyboardInterrupt: pass
    assert {o['mom'] for o in learn.opt.hypers}=={.937}

@pytest.mark.parametrize('over,said', [(dict(backbone_lr=.1), 'groups of layers'), (dict(layer_decay=.5), 'groups of layers')])
def test_groups_of_one_kind_at_a_time(over, said):
    with pytest.raises(ValueError, match=said): recipe('yolov5_300e', **over)

def test_an_older_file_is_a_recipe_still(tmp_path):
    (tmp_path/'recipe.json').write_text('{"name":"old","epochs":1,"schedule":{"kind":"constant"}}')
    old = Recipe.from_json(tmp_path)
    assert old.sync_bn is True and old.wd_for is None

# --- norms of several processes
@pytest.mark.parametrize('given,of_recipe,synced', [
    (None,True,True), (None,False,False), (True,False,True), (False,True,False), (None,None,True)])
def test_a_recipe_says_whether_norms_are_synced(synth, tmp_path, given, of_recipe, synced):
    "A group of one process, in which everything but the number of processes is real"
    class Look(Callback):
        def before_batch(self): seen.append(any(isinstance(module, SyncedNorm) for module in self.learn.model.modules()))
    seen = []
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        one = recipe('dota_1x', arch='rotated_fcos', **{**SMALL, 'batch_aug':{}}, pretrained=False, tile=None, epochs=1, warmup=1)
        if of_recipe is not None: one = one.but(sync_bn=of_recipe)
        learn = one.learner(one.loaders_of(synth, num_workers=0, device='cpu', batch_tfms=[]), metrics=[], run=False,
                            cbs=[ManyProcesses(given), Look()])
        if of_recipe is None: del learn.__dict__['recipe']
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
    finally: torch.distributed.destroy_process_group()
    assert seen and all(own==synced for own in seen[:3])
    assert not any(isinstance(module, SyncedNorm) for module in learn.model.modules())
