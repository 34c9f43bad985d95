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
from rotnb.models.fast import fast_twin
from rotnb.models.yolo import upright_ciou, yolo_rows
from rotnb.models.yolo_backbones import NetRow, StagedNet, net_rows, yolo_nets
from rotnb.models.yolo_necks import neck_rows, yolo_neck
from rotnb.ops.iou import box_iou_rotated
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

@pytest.mark.parametrize('size,n', dict(n=3_246_940, s=12_626_620, m=35_731_932, l=76_770_172, x=140_794_780).items())
def test_parameters_of_yolov5_for_large_pictures(size, n):
    "As those that MMYOLO builds"
    body,neck = bodies(f'cspdarknet_v5_p6_{size}', 'v5', 4)
    assert neck.out_channels==[info['num_chs'] for info in body.feature_info][-4:]
    assert count(body)+count(neck)+coupled(neck.out_channels)==n

# as MMYOLO builds them, without its second head and without the vectors that fold into the last convolutions
LARGE_V7 = dict(w6=82_312_436-11_882_620-3_580, e6=111_898_292-14_647_420-4_220)
@pytest.mark.parametrize('size,millions', dict(w6=70.4, e6=97.2).items())
def test_parameters_of_yolov7_for_large_pictures(size, millions):
    body,neck = bodies(f'elan_{size}', f'v7_{size}', 4)
    assert count(body)+count(neck)+coupled(neck.out_channels)==LARGE_V7[size]
    assert abs((fused(body)+fused(neck)+coupled(neck.out_channels))/1e6-millions)<.051

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

def decoupled_ppyoloe_r(channels, n_classes=15): return sum(6*(c*c+c)+(9*c+1)*(n_classes+4+91) for c in channels)

@pytest.mark.parametrize('size,millions', dict(s=8.09, m=23.96, l=53.29, x=100.27).items())
def test_parameters_of_ppyoloe_r(size, millions):
    "Of DOTA's 15 classes"
    body,neck = bodies(f'cspresnet_{size}', 'ppyoloe')
    assert abs((fused(body)+fused(neck)+decoupled_ppyoloe_r(neck.out_channels))/1e6/millions-1)<.01

def test_the_stage_of_ppyoloe_r_is_what_is_counted():
    "Gates and last convolutions of three branches"
    model = create_detector('ppyoloe_r_s', 15, angle='oc')
    assert fused(model.stages[0])==decoupled_ppyoloe_r(model.neck.out_channels)

def test_the_smallest_yolox_is_a_million_less_a_tenth(): assert round(counted('yolox_nano')/1e6, 2)==.91

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
@pytest.mark.parametrize('name', ['yolov5_n','yolov6_n','yolov6_m','yolov7_tiny','yolov8_n','yolox_nano','yolox_tiny','ppyoloe_s'])
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
    assert {name for name in list_detectors() if re.match('yolo|ppyoloe', name)}==set(yolo_rows) and len(yolo_rows)==43

def test_settings_win():
    model = create_detector('yolov8_n', 2, **TINY, score_thr=.3, feat_channels=12, priors=PointPriors(0.))
    assert (model.stages[0].score_thr,model.stages[0].priors.offset,model.stages[0].cls[0].in_channels)==(.3,0.,12)
    own = ShapePriors({8:((12,8),(20,12)), 16:((40,20),(60,30))})
    model = create_detector('yolov5_n', 2, **TINY, priors=own)
    assert model.stages[0].n==2 and model.stages[0].coder.priors==own
    with pytest.raises(ValueError, match='v7_tiny'): create_detector('yolov8_n', 2, head='v9')

def test_the_fast_twin_answers_with_one_convolution_for_three():
    "Where RepVGG blocks learn with three; and the detector that it was made of can go on to learn"
    model = create_detector('yolov6_n', 2, **TINY).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d): nn.init.uniform_(part.weight, .5, 1.), nn.init.normal_(part.running_mean, std=.1)
    twin,x = fast_twin(model),torch.randn(1,3,128,96)
    assert not any(hasattr(part, 'conv_1x1') for part in twin.modules()) and all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        for ours,theirs in zip(twin.neck(twin.backbone(x)), model.neck(model.backbone(x))): assert off(ours, theirs.numpy())<1e-4
    assert sum(hasattr(part, 'conv_1x1') for part in model.modules())==8

# --- what each family learns by, and when

def stage_of(name, angle='le90', **kw): return create_detector(name, 3, angle=angle, **{**TINY, **kw}).stages[0]

def test_losses_of_yolov6_by_size():
    "The two smallest have SIoU, the two largest distributions of distances"
    small,middle,large = (stage_of(f'yolov6_{size}', 'hbb') for size in 'nsm')
    assert [stage.loss_box.kwargs['mode'] for stage in (small,middle,large)]==['siou','giou','giou']
    assert [stage.coder.n for stage in (small,middle,large)]==[4,4,4*17] and large.loss_sides.weight==.5 and small.loss_sides is None
    assert [yolo_rows[f'yolov6_{size}'][0] for size in 'ntsml']==['v6_small','v6_small','v6','v6_large','v6_large']

def test_overlap_of_upright_boxes_is_ciou():
    "In YOLOv8's alignment and in what YOLOv5's objectness learns; of oriented boxes it is the exact IoU"
    stage = stage_of('yolov8_n', 'hbb')
    assert stage.overlap is upright_ciou and stage.assigner.keywords['overlap'] is upright_ciou
    assert stage_of('yolov5_n', 'hbb').overlap is upright_ciou and stage_of('ppyoloe_s', 'hbb').overlap is not upright_ciou
    assert stage_of('yolov8_n').overlap is not upright_ciou and 'overlap' not in stage_of('yolov8_n').assigner.keywords
    a = torch.tensor([[10.,10.,8.,8.,0.],[10.,10.,8.,4.,0.]])
    b = torch.tensor([[12.,10.,8.,8.,0.],[10.,10.,4.,8.,0.]])
    wide = np.arctan(2)-np.arctan(.5)
    v = 4/np.pi**2*wide**2
    want = [.6-4/(10**2+8**2), 1/3-v*v/(1-1/3+v)]                            # IoU, and less by the middles' offset or by the shape
    assert upright_ciou(a, b).tolist()==pytest.approx(want, abs=1e-4)

def test_yolov8_obb_has_layers_for_the_angle():
    "Which learn from the overlap of boxes alone, and upright boxes have none"
    torch.manual_seed(0)
    model = create_detector('yolov8_n', 3, angle='le135', head='v8_obb', **TINY)
    losses = model(torch.randn(2,3,96,96), [{**OBJECTS, 'boxes':canonicalize(OBJECTS['boxes'], 'le135')}]*2)
    assert set(losses)=={'loss_cls','loss_box','loss_sides'}
    sum(losses.values()).backward()
    angle = [p for name,p in model.named_parameters() if '.angle' in name]
    assert len(angle)==2*(2*3+2) and all(p.grad.isfinite().all() and p.grad.any() for p in angle)
    with pytest.raises(ValueError, match="v8_obb.*'v8'"): create_detector('yolov8_n', 3, angle='hbb', head='v8_obb', **TINY)

def test_objectness_of_sizes_for_large_pictures_counts_four_times():
    large = stage_of('yolov5_n6', backbone='cspdarknet_v5_p6_n', strides=(8,16,32,64))
    assert np.allclose(large.quality_weight, np.array([16,4,1,.24])*3/4)

def test_who_has_settings_for_a_part_of_a_training():
    names = 'yolov5_n','yolov6_n','yolov8_n','yolox_tiny','ppyoloe_s','ppyoloe_plus_s'
    has = {name:(bool(stage.early),bool(stage.late)) for name in names for stage in [stage_of(name, 'hbb')]}
    assert has==dict(yolov5_n=(False,False), yolov6_n=(True,False), yolov8_n=(False,False), yolox_tiny=(False,True),
                     ppyoloe_s=(True,False), ppyoloe_plus_s=(True,False))
    assert stage_of('yolov6_n').early['epochs']==4 and stage_of('ppyoloe_plus_s', 'hbb').early['epochs']==30/80
    assert stage_of('ppyoloe_r_s').early is None

@pytest.mark.parametrize('name,part', [('yolov6_n','early'),('ppyoloe_s','early'),('yolox_tiny','late')])
@pytest.mark.parametrize('angle', ['le90','hbb'])
def test_losses_with_the_settings_of_a_part(name, part, angle):
    "They are finite and reach every parameter; of YOLOX one more"
    torch.manual_seed(0)
    model = create_detector(name, 3, angle=angle, **TINY)
    stage = model.stages[0]
    given = getattr(stage, part)
    if name=='ppyoloe_s' and angle=='le90': assert given is None; return
    x,targets = torch.randn(2,3,96,96),[{**OBJECTS, 'boxes':canonicalize(OBJECTS['boxes'], angle)}]*2
    own = set(model(x, targets))
    for key,value in given.items():
        if key!='epochs': setattr(stage, key, value)
    losses = model(x, targets)
    assert set(losses)-own==({'loss_sides'} if part=='late' else set()) and all(value.isfinite() and value>0 for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

def test_running_statistics_are_of_what_was_seen():
    "After one step a net in evaluation sees its own batch as it did in training, not through the numbers that norms are made with"
    torch.manual_seed(0)
    model,x = create_detector('yolov8_n', 3, **TINY),torch.randn(4,3,96,96)
    model(x, [OBJECTS]*4)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms}=={1.}
    with torch.no_grad():
        seen = [model.stages[0](model.neck(model.train(mode).backbone(x))).logits for mode in (False,True)]
    assert (seen[0]-seen[1]).abs().max()<.05*seen[1].std()
    with torch.no_grad():
        for _ in range(63): model.train()(x[:2], [OBJECTS]*2)
    assert {norm.momentum for norm in norms}=={.1,.03}                       # timm's test net has .1

# --- what it is for

def painted(size=128):
    "Two noisy pictures with three objects each, in the colours of their classes"
    import cv2
    noise,images,targets = np.random.default_rng(0),[],[]
    for boxes in ([(36,34,44,18,.4),(92,40,26,26,-.7),(60,96,60,14,1.2)],[(30,92,40,22,-.5),(90,96,30,30,.3),(64,34,70,16,.15)]):
        image = noise.normal(0, .3, (size,size,3)).astype(np.float32)
        for label,(cx,cy,w,h,theta) in enumerate(boxes):
            corners = cv2.boxPoints(((cx,cy),(w,h),np.degrees(theta))).astype(np.int32)
            cv2.fillConvexPoly(image, corners, [2.*(channel==label) for channel in range(3)])
        images.append(image.transpose(2,0,1)); targets.append(dict(boxes=torch.tensor(boxes), labels=torch.arange(3)))
    return torch.tensor(np.stack(images)).contiguous(),targets

def overlap_of_sure(found, target):
    "Of each object its IoU with the best box of its class that has a score of .3"
    sure = (target['labels'][:,None]==found['labels'])*(found['scores']>.3)
    return torch.cat([box_iou_rotated(target['boxes'], found['boxes'])*sure, torch.zeros(len(sure),1)], 1).amax(1)

@pytest.mark.slow
@pytest.mark.parametrize('name', ['yolov5_n','yolov6_n','yolov7_tiny','yolov8_n','yolox_tiny','ppyoloe_s'])
def test_two_pictures_are_learnt_by_heart(name):
    "All six objects in evaluation, from scratch in 210 steps of a plain loop at most, with the published net and its defaults"
    x,targets = painted()
    torch.manual_seed(0)
    model = create_detector(name, 3)
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    for step in range(1, 211):
        loss = sum(model.train()(x, targets).values())
        opt.zero_grad(); loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.)
        opt.step()
        if step%15 or step<75: continue
        with torch.no_grad(): found = model.eval()(x)
        best = [overlap_of_sure(one, target) for one,target in zip(found, targets)]
        if min(o.min() for o in best)>.7: return print(name, step)
    raise AssertionError(best)
