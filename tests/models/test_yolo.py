"""Bodies of the YOLO family: parameters as published, outputs as those of other packages (tests/helpers/peer_yolo.py made the numbers),
and of timm's own classes"""
import re
import numpy as np, pytest, timm, torch
from timm.models.byobnet import ByobNet, ByoBlockCfg, ByoModelCfg
from timm.models.cspnet import CspNet, CspModelCfg, CspStemCfg, CspStagesCfg
from torch import nn
from formula import formula_image, formula_value
from paths import ROOT
from rotnb.geometry.boxes import canonicalize
from rotnb.models import create_detector, list_detectors
from rotnb.models.backbones import TimmBackbone
from rotnb.models.yolo import yolo_rows
from rotnb.models.yolo_backbones import NetRow, StagedNet, net_rows, yolo_nets
from rotnb.models.yolo_necks import neck_rows, yolo_neck
from rotnb.targets.priors import PointPriors, ShapePriors

def count(module): return sum(p.numel() for p in module.parameters())

def fused(module):
    "Parameters to answer with: each RepVGG block and each convolution with its norm is one convolution"
    total = 0
    for name,part in module.named_modules():
        one = isinstance(part, (nn.Conv2d,nn.ConvTranspose2d)) and not name.endswith('conv_1x1.conv')
        if one: total += part.weight.numel()+part.out_channels
    return total

def bodies(net, neck, n_maps=3):
    "Backbone and neck of a size, without numbers"
    _,depth,width = yolo_nets[net]
    with torch.device('meta'):
        body = timm.create_model(net, num_classes=0)
        return body,yolo_neck(neck, [info['num_chs'] for info in body.feature_info][-n_maps:], depth, width)

# --- parameters of whole nets of 80 classes: heads are counted here, by what their papers say of them

def conv(ni, nf, ks=1): return ni*nf*ks**2+2*nf  # with a batch norm

def coupled(channels): return sum((c+1)*3*85 for c in channels)

def decoupled_v8(channels):
    box,cls = max(16, channels[0]//4, 64),max(channels[0], 80)
    return 16+sum(conv(c, box, 3)+conv(box, box, 3)+(box+1)*64 + conv(c, cls, 3)+conv(cls, cls, 3)+(cls+1)*80 for c in channels)

def decoupled_x(channels): return sum(4*conv(c, c, 3)+(c+1)*85 for c in channels)

WHOLE = dict( # Ultralytics' tables and logs, unfused
    v5_n=1_872_157, v5_s=7_235_389, v5_m=21_190_557, v5_l=46_563_709, v5_x=86_749_405,
    v8_n=3_157_200, v8_s=11_166_560, v8_m=25_902_640, v8_l=43_691_520, v8_x=68_229_648)

@pytest.mark.parametrize('name', WHOLE)
def test_parameters_to_the_last_one(name):
    kind = name.split('_')[0]
    body,neck = bodies(f'cspdarknet_{name}', kind)
    assert count(body)+count(neck)+dict(v5=coupled, v8=decoupled_v8)[kind](neck.out_channels)==WHOLE[name]

@pytest.mark.parametrize('size,millions', dict(t=5.06, s=8.97, m=25.33, l=54.21, x=99.07).items())
def test_parameters_of_yolox(size, millions):
    body,neck = bodies(f'cspdarknet_x_{size}', 'x')
    assert round((count(body)+count(neck)+decoupled_x(neck.out_channels))/1e6, 2)==millions

@pytest.mark.parametrize('size,millions', dict(tiny=6.2, l=36.9, x=71.3).items())
def test_parameters_of_yolov7(size, millions):
    "The last convolutions of size l are RepVGG, counted as one each"
    body,neck = bodies(f'elan_{size}', {'tiny':'v7_tiny', 'l':'v7', 'x':'v7_x'}[size])
    total = count(body)+(count(neck)-count(neck.out_convs)+fused(neck.out_convs))+coupled(neck.out_channels)
    assert abs(total/1e6-millions)<.051

def decoupled_v6(channels): return sum(c*c+c+2*(9*c*c+c)+(c+1)*84 for c in channels)

V6 = [('efficientrep_n','v6',4.3),('efficientrep_s','v6',17.2),('cspbep_m','v6_m',34.3),('cspbep_l','v6_l',58.5),
      ('efficientrep_n','v6_bi',4.7),('efficientrep_s','v6_bi',18.5),('cspbep_m','v6_bi_m',34.9),('cspbep_l','v6_bi_l',59.6)]

@pytest.mark.parametrize('net,neck,millions', V6)
def test_parameters_of_yolov6(net, neck, millions):
    "Of releases 2.0 and 3.0, as nets that answer"
    body,neck = bodies(net, neck, 3+('bi' in neck))
    total = (fused(body)+fused(neck)+decoupled_v6(neck.out_channels))/1e6
    print(net, total, millions)
    assert abs(total-millions)<.1

def decoupled_ppyoloe(channels): return sum(4*(c*c+c)+(9*c+1)*(80+68) for c in channels)

@pytest.mark.parametrize('size,millions', dict(s=7.93, m=23.43, l=52.20, x=98.42).items())
def test_parameters_of_ppyoloe(size, millions):
    body,neck = bodies(f'cspresnet_{size}', 'ppyoloe')
    total = (fused(body)+fused(neck)+decoupled_ppyoloe(neck.out_channels))/1e6
    print(size, total, millions)
    assert abs(total/millions-1)<.01

# --- outputs

def renamed(rows, key):
    "The other package's name of a tensor"
    for pattern,theirs in rows: key = re.sub(pattern, theirs, key)
    return key

def filled(module, rows, prefix):
    "Formula weights, by the names of the other package; and these names"
    state,seen = module.state_dict(),[]
    for key,tensor in state.items():
        seen.append(renamed(rows, f'{prefix}.{key}'))
        shape = (tensor.shape[0],12,3,3) if 'stem' in key and tensor.shape[1:]==(3,6,6) else tuple(tensor.shape)
        value = torch.tensor(formula_value(seen[-1], shape))
        if shape!=tensor.shape: value = value.view(-1,2,2,3,3,3).permute(0,3,4,2,5,1).reshape(tensor.shape)  # column, row, colour, 3 x 3
        tensor.copy_(value)
    return module.eval(),seen

def thin(tensor): return tensor.flatten()[::max(1, -(-tensor.numel()//400))]

def off(ours, theirs): return ((ours-torch.tensor(theirs)).abs().max()/np.abs(theirs).max()).item()

MMDET = [(r'stem\.', 'stem.conv.'), (r'stages\.3\.1\.1\.', 'stage4.2.'), (r'stages\.3\.1\.0\.', 'stage4.1.'),
         (r'stages\.(\d)\.', lambda found: f'stage{int(found[1])+1}.')]
SUPER_GRADIENTS = [
    (r'stem\.(\d)\.', lambda found: f'stem.conv{int(found[1])+1}.seq.'), (r'(stages\.\d)\.0\.', r'\1.conv_down.seq.'),
    (r'(stages\.\d)\.1\.', r'\1.'), ('conv_kxk', 'branch_3x3'), ('conv_1x1', 'branch_1x1'),
    (r'blocks\.(\d)\.conv1\.', r'blocks.\1.conv1.seq.'),
    (r'short_conv', 'conv1.seq'), (r'main_conv', 'conv2.seq'), (r'final_conv', 'conv3.seq'), (r'attention\.fc', 'attn.project'),
    (r'entry_layer\.blocks\.1\.conv2', 'entry_layer.blocks.spp.conv.seq'), (r'entry_layer\.blocks\.2', 'entry_layer.blocks.1'),
    (r'neck\.(.*)\.blocks\.', r'neck.\1.convs.'), (r'entry_layer', 'fpn_stages.0.0'),
    (r'reduce_layers\.(\d)', r'fpn_routes.\1.seq'), (r'top_down_blocks\.(\d)', lambda found: f'fpn_stages.{int(found[1])+1}.0'),
    (r'downsamples\.(\d)', lambda found: f'pan_routes.{1-int(found[1])}.seq'),
    (r'bottom_up_blocks\.(\d)', lambda found: f'pan_stages.{1-int(found[1])}.0')]

@pytest.mark.parametrize('name,net,neck,factors,rows', [('yolox','cspdarknet_x','x',(.33,.375),MMDET),
                                                        ('ppyoloe','cspresnet','ppyoloe',(.67,.25),SUPER_GRADIENTS)])
def test_outputs_are_those_of_another_package(name, net, neck, factors, rows):
    theirs = np.load(ROOT/f'tests/models/data/{name}.npz')
    body,keys = filled(StagedNet(net_rows[net], *factors, num_classes=0), rows, 'backbone')
    channels = [info['num_chs'] for info in body.feature_info[-3:]]
    neck,more = filled(yolo_neck(neck, channels, *factors), rows, 'neck')
    assert sorted(keys+more)==sorted(str(theirs['keys']).split('\n')) and count(body)+count(neck)==theirs['params']
    with torch.no_grad():
        x,maps = body.stem(torch.tensor(formula_image(96))),[]
        for stage in body.stages: maps.append(x := stage(x))
        levels = neck(maps[-3:])
    order = -1 if name=='ppyoloe' else 1                                   # there the coarsest level is first
    errs = [off(thin(ours), theirs[f'map/{i}']) for i,ours in enumerate(maps[-3:])]
    errs += [off(thin(ours), theirs[f'level/{i}']) for i,ours in enumerate(levels[::order])]
    assert max(errs)<1e-4, errs

def varied(module):
    "No norm is as it was made"
    for key,tensor in module.state_dict().items():
        if not key.endswith('num_batches_tracked'): tensor.copy_(torch.tensor(formula_value(key, tuple(tensor.shape))))
    return module.eval()

def test_v5_is_what_timm_makes_of_its_settings():
    "Whose one convolution at the head of a stage is the two of ours"
    settings = CspModelCfg(CspStemCfg(16, 2, 6, 2), CspStagesCfg((1,2,3,1), (32,64,128,256), 2, block_ratio=.5, stage_type='cs3',
                                                                 block_type='dark', down_growth=True), act_layer='silu')
    theirs,ours = varied(CspNet(settings, num_classes=0)),timm.create_model('cspdarknet_v5_n', num_classes=0).eval()
    state = theirs.state_dict()
    for key,tensor in ours.state_dict().items():
        key = key.replace('stem.', 'stem.conv1.')
        key = re.sub(r'(stages\.\d)\.0\.', r'\1.conv_down.', key)
        key = re.sub(r'(stages\.\d)\.1\.', r'\1.', key).replace('final_conv', 'conv_transition')
        value = state[key.replace('main_conv', 'conv_exp').replace('short_conv', 'conv_exp')]
        if value.ndim and 'main_conv' in key: value = value[:len(value)//2]
        if value.ndim and 'short_conv' in key: value = value[len(value)//2:]
        tensor.copy_(value)
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d): part.eps = 1e-3
    x = torch.tensor(formula_image(64))
    with torch.no_grad(): assert off(ours.forward_features(x), theirs.forward_features(x).numpy())<1e-5

def test_v6_is_what_timm_makes_of_its_settings():
    blocks = tuple(ByoBlockCfg(type='rep', d=1+d, c=c, s=2, gs=0) for d,c in zip((2,4,6,2), (32,64,128,256)))
    theirs = varied(ByobNet(ByoModelCfg(blocks=blocks, stem_type='rep', stem_chs=16, act_layer='relu'), num_classes=0))
    ours = timm.create_model('efficientrep_n', num_classes=0).eval()
    state = theirs.state_dict()
    for key,tensor in ours.state_dict().items():
        tensor.copy_(state[re.sub(r'(stages\.\d)\.1\.(\d+)', lambda found: f'{found[1]}.{int(found[2])+1}', key)])
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d): part.eps = 1e-3
    x = torch.tensor(formula_image(64))
    with torch.no_grad(): assert off(ours.forward_features(x), theirs.forward_features(x).numpy())<1e-5

# --- as users take them

ONE_OF_EACH = ['cspdarknet_v5_n','cspdarknet_v8_n','cspdarknet_x_t','efficientrep_n','elan_tiny','cspresnet_s']

@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_they_are_timm_models(name):
    "With maps of an image of any size, frozen stages, and a classifier"
    body = TimmBackbone(name, strides=(4,8,16,32), frozen=1).train()
    with torch.no_grad(): maps = body.eval()(torch.rand(1,3,101,139))
    assert [tuple(feat.shape[1:]) for feat in maps]==[(c,-(-101//s),-(-139//s)) for c,s in zip(body.channels, body.strides)]
    still = [p for p in body.parameters() if not p.requires_grad]
    assert 0<sum(p.numel() for p in still)<count(body)/2
    assert name in timm.list_models(name[:4]+'*')

def test_nets_can_be_trained_as_classifiers():
    net = StagedNet(NetRow(((16,16,2),(24,32,1)), net_rows['cspdarknet_v5'].mix, stem_channels=8), num_classes=3)
    net(torch.rand(2,3,32,32)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())

def test_six_levels_have_six_maps():
    assert TimmBackbone('cspdarknet_v5_p6_n', strides=(8,16,32,64)).channels==[64,128,192,256]

@pytest.mark.parametrize('kind', neck_rows)
def test_every_level_of_a_neck_hears_of_every_map(kind):
    torch.manual_seed(0)
    xs = [torch.rand(1,c,h,w) for c,h,w in ((16,41,53),(16,21,27),(32,11,14),(64,6,7))]['bi' not in kind:]
    neck = yolo_neck(kind, [x.shape[1] for x in xs], .33, .125).eval()
    with torch.no_grad():
        before = neck(xs)
        for i in range(len(xs)):
            changed = neck([x+(i==j) for j,x in enumerate(xs)])
            assert [not torch.equal(*both) for both in zip(before, changed)]==[True]*3
            assert all(level.isfinite().all() for level in changed)

def test_a_neck_nobody_has_is_refused():
    with pytest.raises(ValueError, match='v7_tiny'): yolo_neck('v10', [64,128,256])

# --- whole detectors

TINY = dict(backbone='test_resnet', fpn_channels=16, strides=(8,16), factors=(.33,.25))
OBJECTS = dict(boxes=torch.tensor([[30.,40.,40.,20.,.4],[70.,60.,24.,24.,-.7],[20.,80.,30.,10.,1.2]]), labels=torch.tensor([0,1,2]))

def counted(name, n_classes=80):
    "Parameters of the published net, upright; the numbers of its stage are made, which the meta device cannot do, so small ones alone"
    return count(create_detector(name, n_classes, angle='hbb'))

@pytest.mark.parametrize('name,n', dict(yolov5_n=1_872_157, yolov8_n=3_157_200-16).items())
def test_parameters_of_detectors(name, n):
    "Without the 16 numbers that Ultralytics keeps as a layer"
    assert counted(name)==n

def test_parameters_of_detectors_to_two_digits(): assert round(counted('yolox_tiny')/1e6, 2)==5.06

@pytest.mark.parametrize('angle', ['le90','hbb'])
@pytest.mark.parametrize('name', ['yolov5_n','yolov6_n','yolov6_m','yolov7_tiny','yolov8_n','yolox_tiny','ppyoloe_s'])
def test_a_family_learns_and_detects(name, angle):
    "Oriented and upright: losses that reach every parameter, and upright boxes whose angle is zero"
    torch.manual_seed(0)
    model = create_detector(name, 3, angle=angle, **TINY)
    target = {**OBJECTS, 'boxes':canonicalize(OBJECTS['boxes'], angle)}
    losses = model(torch.randn(2,3,96,96), [target]*2)
    assert all(value.isfinite() and value>0 for value in losses.values()), losses
    sum(losses.values()).backward()
    assert not [name for name,p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    model.stages[0].score_thr = 0.
    with torch.no_grad(): found = model.eval()(torch.randn(1,3,75,101))[0]
    assert len(found['boxes']) and found['boxes'].isfinite().all() and (angle!='hbb' or not found['boxes'][:,4].any())

def test_every_size_is_registered():
    assert {name for name in list_detectors() if re.match('yolo|ppyoloe', name)}==set(yolo_rows) and len(yolo_rows)==27

def test_settings_win():
    model = create_detector('yolov8_n', 2, **TINY, score_thr=.3, feat_channels=12, priors=PointPriors(0.))
    assert (model.stages[0].score_thr,model.stages[0].priors.offset,model.stages[0].cls[0].in_channels)==(.3,0.,12)
    own = ShapePriors({8:((12,8),(20,12)), 16:((40,20),(60,30))})
    model = create_detector('yolov5_n', 2, **TINY, priors=own)
    assert model.stages[0].n==2 and model.stages[0].coder.priors==own
    with pytest.raises(ValueError, match='v7_tiny'): create_detector('yolov8_n', 2, head='v9')
