"ReDet: filters that turn, files of e2cnn, and the numbers of MMRotate's own (0.3.4 and 1.x, e2cnn 0.2.3), made by `redet_peer.py`"
import copy, gzip, json, math, pickle, warnings
import numpy as np, pytest, timm, torch
from torch import nn
from paths import ROOT
from redet_peer import BOXES, LABELS, picture, value
from reference import checkpoint, close, first_n, matched, needs_oracle, quietly, rel, shapes, unscored
from rotnb.interop.imagenet import load_backbone
from rotnb.interop.mmconfig import settings_from_config
from rotnb.interop.mmguess import guess_config
from rotnb.interop.mmread import ConfigError
from rotnb.interop.mmrotate import KeysError, WeightsError, detector_from_mmrotate, find_family, load_mmrotate, steerable_weights
from rotnb.models import create_detector
from rotnb.models.backbones import BackboneError, MissingWeightsError, TimmBackbone
from rotnb.models.equivariant import FieldNorm, SteerableConv, filter_modes, fuse_equivariant, make_equivariant, steerable_basis
from rotnb.models.redet import ReFPN

# --- MMRotate's numbers

LINES = ['0x','1x']
both = pytest.mark.parametrize('line', LINES)
cache = {}

def state_dict(z):
    "A checkpoint of MMRotate by formula, as its keys and shapes are; without what e2cnn makes of coefficients"
    keys = json.loads(str(z['keys']))
    made = ('filter','expanded_bias','bias_expansion','sampled_basis','indices_8')
    return {key:torch.as_tensor(value(key, tuple(shape))) for key,shape in keys.items() if not key.endswith(made)}

def opened(line):
    "The reference, and the detector that its configuration and its weights are"
    if line not in cache:
        z = np.load(ROOT/f'tests/interop/data/redet_{line}.npz')
        meta = dict(mmcv_version='1.7.2') if line=='0x' else dict(mmengine_version='0.10.7')
        with warnings.catch_warnings():
            warnings.simplefilter('error')                       # a file with its configuration leaves nothing to assume
            text = json.dumps(dict(model=json.loads(str(z['cfg']))))
            det = detector_from_mmrotate(dict(state_dict=state_dict(z), meta=dict(meta, cfg=text)))
        noted = {key:json.loads(str(z[key])) for key in ('losses','cfg','keys')} | dict(sd=state_dict(z))
        cache[line] = {key:torch.from_numpy(z[key]) for key in z.files if z[key].dtype.kind=='f'} | noted,first_n(det)
    z,det = cache[line]
    return z,det.eval()

def their_rois(rois):
    boxes = rois[:,1:]
    if boxes.shape[1]==5: return boxes
    return torch.cat([(boxes[:,:2]+boxes[:,2:])/2, boxes[:,2:]-boxes[:,:2], torch.zeros(len(boxes), 1)], 1)

@both
def test_raw_outputs_and_rois(line):
    z,det = opened(line)
    assert det.name=='redet' and det.backbone.name=='re_resnet18' and det.backbone.frozen==1
    with torch.no_grad():
        feats = det.neck(det.backbone(torch.tensor(picture())))
        errs = {f'neck {i}':rel(feats[i][:,::16], z[f'neck{i}']) for i in (1,2,3,4)}
        for i in (2,3,4):
            logits,deltas,*_ = det.stages[0].forward_level(i, feats[i])
            errs |= {f'rpn {i}':rel(logits, z[f'rpn0{i}']), f'rpn deltas {i}':rel(deltas, z[f'rpn1{i}'])}
        boxes = det.stages[0].boxes(det.stages[0](feats)._replace(size_hw=(128,128)))[0]
        for i,stage in enumerate(det.stages[1:]):
            theirs = their_rois(z[f'rois{i}'])
            real = (theirs[:,2:4]>0).all(1)
            ours = boxes[(boxes[:,2:4]>0).all(1)]
            assert matched(unscored(theirs[real]), unscored(ours)).all() and real.sum()>100
            out = stage(feats, theirs[None])._replace(size_hw=(128,128))
            n,order = real[:60],out.lvls[0,:2].argsort()
            errs |= {f'class {i}':rel(out.logits[0,:60][n], z[f'logits{i}'][n]),
                     f'deltas {i}':rel(out.deltas[0,:60][n], z[f'deltas{i}'][n]),
                     f'cut {i}':rel(stage.pooled(feats, torch.zeros(2).long(), theirs[order], out.lvls[0,order])[:,::4],
                                    z[f'cut{i}'][order])}
            boxes = stage.boxes(out)[0]
    print(line, max(errs.values()), errs)
    close(errs, 1e-4)

@both
def test_detections(line):
    z,det = opened(line)
    with torch.no_grad(): dets = det(torch.tensor(picture()))[0]
    theirs = dict(boxes=z['dets'][:,:5], scores=z['dets'][:,5], labels=z['dets'][:,6].long())
    print(line, len(dets['scores']), len(theirs['scores']))
    assert len(theirs['scores'])>50 and matched(dets, theirs).all() and matched(theirs, dets).all()

@both
def test_losses(line):
    z,det = opened(line)
    det = copy.deepcopy(det).train()                             # whose norms move on
    with torch.no_grad(): losses = det(torch.tensor(picture()), [dict(boxes=torch.tensor(BOXES), labels=torch.tensor(LABELS))])
    want = dict(s0_loss_cls='loss_rpn_cls', s0_loss_box='loss_rpn_bbox', s1_loss_cls='s0.loss_cls', s1_loss_box='s0.loss_bbox',
                s2_loss_cls='s1.loss_cls', s2_loss_box='s1.loss_bbox')
    errs = {key:abs(losses[key].item()/z['losses'][theirs]-1) for key,theirs in want.items()}
    print(line, errs)
    close(errs, 1e-3)

# --- files

def with_e2cnn(sd, keys, drop=()):
    "What e2cnn writes beside coefficients when nothing is learnt: basis, filters and biases made of it, indices of norms"
    more = {}
    for key,shape in keys.items():
        layer,kind = key.rpartition('.')[::2]
        if kind=='sampled_basis': more[key] = steerable_basis(round(shape[-1]**.5), shape[2]==1).flatten(-2)
        elif kind=='filter':
            basis = steerable_basis(shape[-1], shape[1]%8>0)
            weights = sd[f'{layer}.weights'].view(shape[0]//8, -1, len(basis))
            more[key] = torch.einsum('OIb,boihw->OoIihw', weights, basis).reshape(shape)
        elif kind=='expanded_bias': more[key] = (sd[f'{layer}.bias']/8**.5).repeat_interleave(8)
        elif kind=='bias_expansion': more[key] = torch.eye(shape[1]).repeat_interleave(8, 0)/8**.5
        elif kind=='indices_8': more[key] = torch.tensor([0, 64])
    return {key:weight for key,weight in {**sd, **more}.items() if not key.endswith(tuple(drop) or '\0')}

def same(det, other, tol=1e-5): # of evaluation, to a part of the largest number
    with torch.no_grad(): one,two = (m.neck(m.backbone(torch.tensor(picture()))) for m in (det, other))
    return all(rel(a, b)<tol for a,b in zip(one, two))

def test_every_key_of_a_file_that_e2cnn_wrote():
    "All of them have a place or a reason; what is ours has the coefficients alone, and opens again"
    z,det = opened('1x')
    sd = with_e2cnn(z['sd'], z['keys'])
    assert set(sd)==set(z['keys']) and len(sd)>len(z['sd'])
    assert same(quietly(sd), det, 1e-6)
    ours = det.state_dict()
    assert not [key for key in ours if 'basis' in key or 'filter' in key] and len(ours)==len(z['sd'])
    assert sum(tensor.numel() for tensor in det.parameters())==sum(
        tensor.numel() for key,tensor in z['sd'].items() if 'running' not in key and 'tracked' not in key)
    with pytest.raises(KeysError, match='not in the detector: backbone.extra.weights'):
        load_mmrotate(create_detector('redet', 15, backbone='re_resnet18'), {**sd, 'backbone.extra.weights':torch.ones(8)})

def test_filters_without_coefficients_and_coefficients_of_another_basis():
    z,_ = opened('1x')
    def same(sd): return all(rel(sd[key], z['sd'][key])<1e-5 for key in z['sd'] if key.endswith(('.weights','conv.bias')))
    alone = with_e2cnn(z['sd'], z['keys'], drop=('.weights','neck.lateral_convs.0.conv.bias'))
    assert same(steerable_weights(alone))
    turned = with_e2cnn(z['sd'], z['keys'], drop=('.filter','.expanded_bias'))
    for key in [key for key in turned if key.endswith('sampled_basis')]:     # backwards, and twice as large
        layer = key.split('._basisexpansion')[0]+'.weights'
        turned[key] = 2*turned[key].flip(0)
        turned[layer] = (turned[layer].view(-1, len(turned[key])).flip(1)/2).flatten()
    assert same(once := steerable_weights(turned)) and same(steerable_weights(once))
    wrong = dict(alone, **{'backbone.layer1.0.conv1.filter':torch.randn(64,64,3,3)})
    with pytest.raises(WeightsError, match=r'layer1.0.conv1.filter: \d+% of these filters do not turn'): steerable_weights(wrong)

def test_weights_of_imagenet_open_as_a_backbone(tmp_path):
    "The layout of mmcls: what ReDet's authors train on ImageNet"
    z,det = opened('0x')
    sd = {key:tensor for key,tensor in with_e2cnn(z['sd'], z['keys']).items() if key.startswith('backbone.')}
    sd |= {'head.fc.weight':torch.ones(1000,512), 'head.fc.bias':torch.ones(1000)}
    torch.save(dict(state_dict=sd, meta={}), file := tmp_path/'re.pth')
    body = load_backbone(TimmBackbone('re_resnet18', strides=(4,8,16,32)), file).eval()
    x = torch.tensor(picture())
    with torch.no_grad(): assert all(torch.equal(a, b) for a,b in zip(body(x), det.backbone(x)))
    with pytest.raises(KeysError, match='does not fit'): load_backbone(TimmBackbone('resnet18', strides=(4,8,16,32)), file)
    with pytest.raises(MissingWeightsError, match='re_resnet50_c8_batch256.*load_backbone'): create_detector('redet', 2, pretrained=True)

@needs_oracle
@pytest.mark.slow
def test_published_keys():
    "R50, 15 classes: all 547 keys, the parameters that MMRotate counts, and what is assumed without a configuration is the default"
    name = 'redet_re50_refpn_1x_dota_le90'
    assert len(shapes(name, 'keys_0x'))==547
    det = quietly(checkpoint(name, 'keys_0x'))
    a,b = ({**o.recipe(), 'backbone':None} for o in (det, create_detector('redet', 15)))
    for stage in (*a['stages'], *b['stages']): stage.pop('clip', None)
    assert a==b and sum(tensor.numel() for tensor in det.parameters())==31_666_479

def test_what_weights_alone_tell_of_either_line():
    z,_ = opened('1x')
    def coders(line=None):
        heads = guess_config(z['sd'], 'redet', line=line)['roi_head']['bbox_head']
        return [head['bbox_coder']['target_stds'][4] for head in heads]
    assert find_family(z['sd']).name=='redet'
    assert coders()==coders('1.x')==[.1,.05] and coders('0.x')==[1.,.5]

# --- configurations

def config(line='1x', **changed):
    cfg = copy.deepcopy(opened(line)[0]['cfg'])
    for path,new in changed.items():
        *parts,last = path.split('__'); part = cfg
        for name in parts: part = part[int(name) if name.isdigit() else name]
        part[last] = new
    return cfg

def test_lines_differ_in_their_coders():
    stds = {line:[rois['coder'].stds[4] for rois in settings_from_config(config(line))['rois_kw']] for line in LINES}
    assert stds=={'0x':[1.,.5], '1x':[.1,.05]}
    assert settings_from_config(config('0x'))['name']==settings_from_config(config('1x'))['name']=='redet'

def test_published_configurations():
    "Of both lines, as they are; that for HRSC has the scale of 1.x in 0.x too"
    every = json.loads(gzip.decompress((ROOT/'tests/interop/data/configs.json.gz').read_bytes()))
    stds = {name.split('/')[-1]:[rois['coder'].stds[4] for rois in settings_from_config(cfg)['rois_kw']]
            for name,cfg in every.items() if '/redet/' in name}
    assert len(stds)==8 and all(value==([1.,.5] if '_dota_' in name and name[5]=='_' else [.1,.05]) for name,value in stds.items())

@pytest.mark.parametrize('key,new', [('style','caffe'),('deep_stem',True),('avg_down',True),('base_channels',32),('dilations',(1,1,1,2))])
def test_other_reresnets_are_refused_by_name(key, new):
    with pytest.raises(ConfigError, match=key): settings_from_config(config(**{f'backbone__{key}':new}))

def test_an_equivariant_network_under_another_head():
    "One RoI head that reads ReFPN by RiRoIAlign of four orientations, counterclockwise"
    cfg = config()
    roi = cfg['roi_head']
    roi |= dict(num_stages=1, stage_loss_weights=[1], bbox_roi_extractor=roi['bbox_roi_extractor'][1],
                bbox_head=roi['bbox_head'][1])
    roi['bbox_roi_extractor']['roi_layer'] |= dict(num_orientations=4, clockwise=False)
    cfg['train_cfg'] |= dict(rcnn=cfg['train_cfg']['rcnn'][1])
    det = create_detector(**settings_from_config(cfg))
    assert det.name=='rotated_faster_rcnn' and isinstance(det.neck, ReFPN)
    assert det.stages[1].pool.keywords==dict(n_orientations=4, clockwise=False, sampling_ratio=2)

# --- layers

def turned(x, quarters=1): return torch.rot90(x, quarters, (-2,-1)).unflatten(1, (-1,8)).roll(2*quarters, 2).flatten(1, 2)

@pytest.mark.parametrize('name', ['re_resnet18','re_test_resnet',pytest.param('re_resnet50', marks=pytest.mark.slow)])
def test_a_turned_picture_gives_turned_maps(name):
    torch.manual_seed(0)
    net = timm.create_model(name, features_only=True, zero_init_last=False).eval()
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad(): here,there = net(x),net(torch.rot90(x, 1, (-2,-1)))
    if name=='re_test_resnet': here,there = here[:1],there[:1]   # it shrinks by means of 2 x 2 pixels, which odd sides do not have
    for one,two in zip(here, there): assert rel(two, turned(one))<1e-4 and rel(two, torch.rot90(one, 1, (-2,-1)))>.1

def test_a_turn_by_half_a_right_angle():
    "The middle of a smooth picture, turned by 45 degrees: the next direction of each field, within what pixels allow"
    torch.manual_seed(0)
    conv = SteerableConv(3, 64, 7)
    y,x = torch.meshgrid(*[torch.linspace(-3, 3, 61)]*2, indexing='ij')
    def blob(a): return torch.exp(-(math.cos(a)*x-math.sin(a)*y)**2/2-(math.sin(a)*x+math.cos(a)*y)**2*2)[None,None].repeat(1,3,1,1)
    with torch.no_grad(): one,two = (conv(blob(a))[0,:,30,30].view(8, 8) for a in (0., math.pi/4))
    assert rel(two, one.roll(1, 1))<.03 and rel(two, one)>.04

@pytest.mark.parametrize('bias', [False, True])
def test_the_gradient_of_coefficients(bias):
    conv = SteerableConv(8, 8, 1 if bias else 3, bias=bias).double()
    params = [param.detach().clone().requires_grad_() for param in conv.parameters()]
    names = [name for name,_ in conv.named_parameters()]
    x = torch.randn(1, 8, 2, 2, dtype=torch.double)
    def run(*values): return torch.func.functional_call(conv, dict(zip(names, values)), x)
    assert torch.autograd.gradcheck(run, params)

def test_kept_filters_follow_the_coefficients():
    conv,x = SteerableConv(16, 8, 3, bias=True).eval(),torch.randn(1, 16, 5, 5)
    def right():
        want = nn.functional.conv2d(x, *conv.expand(), padding=1)
        with torch.no_grad(): return torch.equal(conv(x), want)
    with torch.inference_mode(): conv(x)
    assert right()
    opt = torch.optim.SGD(conv.parameters(), .1)
    conv(x).square().sum().backward(); opt.step()                # learnt in evaluation mode, as a frozen norm's owner might
    assert right() and conv.filters()[0].requires_grad
    conv.load_state_dict(SteerableConv(16, 8, 3, bias=True).state_dict()); assert right()
    conv.load_state_dict(SteerableConv(16, 8, 3, bias=True).state_dict(), assign=True); assert right()
    with torch.no_grad(): conv.bias.add_(1)
    assert right()
    for param in conv.parameters(): param.data = param.data+1
    assert right()
    conv.weight.data.add_(1); conv.train().eval(); assert right()
    with torch.no_grad():
        conv(x)
        assert conv._kept and not copy.deepcopy(conv)._kept and not pickle.loads(pickle.dumps(conv))._kept
        assert torch.equal(pickle.loads(pickle.dumps(conv))(x), conv(x))
    conv.train(); assert not conv._kept and right()

def test_filters_are_made_in_full_under_autocast():
    conv,x = SteerableConv(16, 8, 3).eval(),torch.randn(1, 16, 5, 5)
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        assert conv(x).dtype==torch.bfloat16 and conv.filters()[0].dtype==torch.float32
    half = copy.deepcopy(conv).to(torch.bfloat16)
    with torch.no_grad(): assert rel(half(x.bfloat16()).float(), conv(x))<.05

def test_made_under_inference_mode():
    "The basis is made once: a first network that does not learn must not spoil the next"
    steerable_basis.cache_clear()
    with torch.inference_mode(): SteerableConv(16, 8, 5)
    SteerableConv(16, 8, 5)(torch.randn(1, 16, 7, 7)).sum().backward()

@pytest.mark.parametrize('wrong,says', [(dict(kernel_size=2),'must be odd'), (dict(out_channels=20),'not fields')])
def test_layers_that_cannot_be(wrong, says):
    with pytest.raises(ValueError, match=says): SteerableConv(8, **{**dict(out_channels=8, kernel_size=3), **wrong})

def test_networks_that_cannot_be():
    with pytest.raises(ValueError, match='group norm'): ReFPN([16,32], 16, 2, norm='group')
    with pytest.raises(ValueError, match='not fields'): create_detector('redet', 2, backbone='re_test_resnet', fpn_channels=12)
    with pytest.raises(ValueError, match='groups'): make_equivariant(nn.Sequential(nn.Conv2d(16, 16, 3, groups=2)))
    with pytest.raises(BackboneError, match="no model 're_swin_tiny"): create_detector('redet', 2, backbone='swin_tiny_patch4_window7_224')

def test_ordinary_layers():
    "The same detector of convolutions that every tool knows; it learns nothing of the first"
    torch.manual_seed(0)
    det = create_detector('redet', 3, backbone='re_test_resnet', fpn_channels=16, fc_channels=32, strides=(8,16)).train()
    det.neck(det.backbone(torch.randn(2, 3, 64, 64)))            # norms that differ from 0 and 1
    det.eval()
    plain = fuse_equivariant(det)
    kinds = {type(module) for module in plain.modules()}
    assert not kinds & {SteerableConv,FieldNorm} and {type(module) for module in det.modules()} & {SteerableConv,FieldNorm}
    x = torch.randn(1, 3, 70, 90)
    with torch.no_grad(): assert all(rel(a, b)<1e-4 for a,b in zip(plain.neck(plain.backbone(x)), det.neck(det.backbone(x))))

def test_frozen_stages_and_norms_at_rest():
    body = TimmBackbone('re_test_resnet', strides=(8,16), frozen=1, norm_eval=True).train()
    free = {name.split('.')[1] for name,param in body.named_parameters() if param.requires_grad}
    assert 'conv1' not in free and 'layer1' not in free and 'layer3' in free
    assert not any(module.training for module in body.modules() if isinstance(module, FieldNorm))
    sum(level.sum() for level in body(torch.randn(1, 3, 64, 64))).backward()

def test_modes():
    assert [len(filter_modes(size)) for size in (1,3,5,7)]==[8,64,168,320] and len(filter_modes(7, True))==40
    basis = steerable_basis(3).flatten(1)
    assert torch.linalg.matrix_rank(basis)==64                   # none is a sum of others
