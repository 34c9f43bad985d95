"Settings that are proposed: what decides them, and that the lines run"
import numpy as np, pytest
from fastai.vision.all import DataBlock, ImageBlock, IndexSplitter, Resize
import rotnb.all as everything
from rotnb.data.blocks import RBoxBlock, RBoxLblBlock
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.synth.scenes import make_scene
from rotnb.learn import suggest as module
from rotnb.learn.suggest import RULES, _Facts, suggest
from paths import SHARED

def decided(**facts):
    given = dict(n_train=1000, sizes=np.full(50, 20.), longs=np.full(50, 40.), longest=1000., tiled=False, device='cuda', memory=24.)
    facts,values = _Facts(**{**given, **facts}),{}
    for name,rule in RULES.items(): values[name],_ = rule(facts, values)
    return values

@pytest.fixture(autouse=True)
def weights(monkeypatch): monkeypatch.setattr(module, '_has_weights', lambda name: True)

def test_windows_where_objects_would_vanish():
    assert decided(longest=4000.)['tile']==1024 and decided(longest=4000.)['size'] is None
    assert decided(longest=1200.)['tile'] is None and decided(longest=2000., sizes=np.full(9, 300.))['tile'] is None
    assert decided(longest=20_000., sizes=np.full(9, 300.))['tile']==1024       # a scene is a scene
    cpu = decided(longest=4000., memory=None, device='cpu')
    assert 512<=cpu['tile']<=1024 and cpu['arch']=='rotated_fcos_tiny'
    assert decided(longest=4000., tiled=True)['tile'] is None

def test_size_follows_the_small_objects():
    sizes = [decided(sizes=np.full(50, size), longest=500.)['size'] for size in (4., 8., 16., 64.)]
    assert sizes==sorted(sizes, reverse=True) and sizes[0]>500>sizes[-1] and all(size%32==0 for size in sizes)

def test_the_machine_decides_too():
    assert decided(memory=80.)['bs']>decided(memory=8.)['bs']>=1 and decided(n_train=3)['bs']<=3
    assert decided()['arch']=='oriented_rcnn' and decided(n_train=100)['arch']=='rotated_fcos'
    assert decided(n_train=100)['epochs']>decided(n_train=20_000)['epochs']>=12

def test_without_weights_it_proposes_to_start_from_nothing(monkeypatch):
    monkeypatch.setattr(module, '_has_weights', lambda name: False)
    assert decided()['pretrained'] is False and decided()['lr']==3e-3
    monkeypatch.setattr(module, '_has_weights', lambda name: True)
    assert decided()['pretrained'] is True and decided()['lr']==1e-3

def run(dls, s):
    "What the proposed lines make, but for the training itself"
    ns = dict(vars(everything), dls=dls)
    *lines,fit = s.code.splitlines()
    exec('\n'.join(lines), ns)
    assert fit.startswith(('learn.fine_tune(','learn.fit_one_cycle('))
    return ns['learn'],ns['dls']

def test_the_lines_run(tmp_path):
    dls = RotatedDataLoaders.from_synth(tmp_path/'s', n_train=4, n_valid=2, size=64, num_workers=0)
    s = suggest(dls, measure=True)
    learn,again = run(dls, s)
    assert (again.bs,again.train.one_batch()[0].shape[-1])==(s.bs,s.size) and s.epoch_seconds>0
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)
    assert all(str(value) in s._repr_html_() for value in (s.arch,s.bs,s.epochs)) and 'rules of thumb' in repr(s)

def test_of_windows_and_of_a_data_block(tmp_path):
    RotatedDataLoaders.from_synth(tmp_path/'s', n_train=2, n_valid=1, size=96, num_workers=0)
    tiled = RotatedDataLoaders.from_dota(tmp_path/'s', tile=dict(size=64, empty='keep'), num_workers=0)
    scenes = [make_scene(seed, 96) for seed in range(3)]
    block = DataBlock((ImageBlock, RBoxBlock(), RBoxLblBlock()), n_inp=1, get_x=lambda i: scenes[i][0], splitter=IndexSplitter([2]),
                      get_y=[lambda i: scenes[i][1], lambda i: scenes[i][2]], item_tfms=Resize(64, method='squish'))
    for dls in (tiled, block.dataloaders(range(3), bs=1, num_workers=0)):
        s = suggest(dls)
        assert not s.rebuilt and 'stay as they are' in repr(s)
        learn,same = run(dls, s)
        assert same is dls and learn.model is not None

def test_of_nothing(tmp_path):
    dls = RotatedDataLoaders.from_synth(tmp_path/'s', n_train=2, n_valid=1, size=64, num_workers=0)
    with pytest.raises(ValueError, match='no training images'): suggest(dls.new_empty())

@pytest.mark.slow
@pytest.mark.parametrize('name,options', [('dota', {}), ('dota', dict(tile=512)), ('dior_r', {}), ('dota8', {}), ('ssdd', {})])
def test_of_real_sets(name, options):
    if not (SHARED/'data'/name).exists(): pytest.skip('no shared data here')
    dls = RotatedDataLoaders.from_format(SHARED/'data'/name, num_workers=0, on_bad='warn', **options)
    learn,again = run(dls, suggest(dls))
    batch = again.train.one_batch()
    assert batch[0].shape[-1]%32==0 and len(batch[0])==again.bs and learn.model.n_classes==len(dls.vocab)
