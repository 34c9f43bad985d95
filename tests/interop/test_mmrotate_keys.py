"Every set of keys that MMRotate published, and what its configurations say: opened, run, trained for a step"
import json, re, warnings, pytest, torch
from reference import checkpoint, n_params, needs_oracle, oracle_files, quietly, settings, shapes
from rotnb.models import create_detector
from rotnb.models.contract import settings as plain
from rotnb.targets.angle_coders import PSCAngle
from rotnb.interop.mmconfig import settings_from_config
from rotnb.interop.mmguess import guess_config, line_of
from rotnb.interop.mmread import ConfigError
from rotnb.interop.mmparts import box_loss_from, delta_coder_from
from rotnb.interop.mmrotate import detector_from_mmrotate, find_family

FILES = [f'{f.parent.name}/{f.stem}' for f in (*oracle_files('keys/*.txt'), *oracle_files('keys_0x/*.txt'))]
PUBLISHED = dict(gliding=41_367_656, oriented_rcnn=41_365_098, r3det=42_129_416, r3det_refine=47_617_820, r3det_tiny=37_408_776,
                 r3det_tiny_kld=39_769_096, roi=55_352_511, redet=31_666_479,
                 rotated_faster=41_363_556, rotated_fcos=32_147_803, rotated_fcos_csl=32_560_397, rotated_retinanet=36_641_012,
                 rotated_retinanet_obb_csl=37_574_537, s2anet=36_466_024+4*256*256*9, rotated_reppoints=36_832_371,
                 cfa=36_832_371, sasm=36_832_371)

def published(name):
    "Parameters of the same network in 1.x, as MMRotate counts them; 0.x has other alignment in S2A-Net and another ATSS head"
    folder,name = name.split('/')
    of = [k for k in PUBLISHED if name.startswith(k)]
    return PUBLISHED[max(of, key=len)] if of and folder=='keys_0x' and re.search('_re?50_', name) and 'atss' not in name else None

def by_network(names):
    "The names as parameters; of those that differ by loss, angle, schedule or MMRotate's version, all but the first are slow"
    seen,res = set(),[]
    for o in names:
        network = o.split('/')[1].replace('-', '_')
        same = re.sub('_(kld|gwd|kfiou|stable|le90|le135|oc|ms|rr|ln|hbb|obb|1x|2x|40e|adamw)(?=_|$)', '', network)
        res.append(pytest.param(o, marks=pytest.mark.slow) if same in seen else o)
        seen.add(same)
    return res

@needs_oracle
@pytest.mark.parametrize('name', by_network(FILES))
def test_opens_runs_and_learns(name):
    folder,stem = name.split('/')
    sd = checkpoint(stem, folder)
    det = detector_from_mmrotate(sd, cfg=settings(stem)) if folder=='keys' else quietly(sd)
    n,theirs = sum(p.numel() for p in det.parameters()),n_params(sd)
    unread = 2*96 if 'swin' in name and 'r3det' in name or 'convnext' in name else 0   # the norm of a map that the neck does not read
    if det.name.startswith('rtmdet'): assert n==4_877_544   # their levels keep copies of what they share
    else: assert n==theirs-unread
    if (want := published(name)): assert n==want
    assert det.name.startswith(find_family(sd).name) or 'atss' in name
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): dets = det(x)[0]
    assert all(v.isfinite().all() for v in dets.values()) and dets['boxes'].shape[1]==5
    t = dict(boxes=torch.tensor([[40.,40.,50.,24.,.4],[70.,60.,30.,30.,1.2]]), labels=torch.tensor([0,14]))
    with torch.no_grad(): losses = det.train()(x, [t])
    assert losses and all(v.isfinite() for v in losses.values())

body = dict(backbone=dict(type='mmdet.ResNet', depth=50), neck=dict(type='mmdet.FPN'))
UNKNOWN = {"the backbone 'Hourglass' is not known":dict(body, type='mmdet.CascadeRCNN', backbone=dict(type='Hourglass', depth=50),
                                                        rpn_head={}, roi_head=dict(bbox_head=[{},{}])),
           "lacks 'bbox_head'":dict(body, type='ReDet', rpn_head=dict(type='RotatedRPNHead'), roi_head=dict(type='RoITransRoIHead')),
           'mmdet.RTMDet with bbox_head RotatedRTMDetHead':dict(body, type='mmdet.RTMDet', bbox_head=dict(type='RotatedRTMDetHead'))}

@pytest.mark.parametrize('says', UNKNOWN)
def test_families_that_are_not_there_are_named(says):
    "Those of MMRotate that cannot be had here yet; a configuration of theirs is refused by name"
    with pytest.raises(ConfigError, match=says): settings_from_config(UNKNOWN[says])

WEAK = dict(
    H2RBoxHead=dict(scale_angle=True, square_classes=[9,11], loss_bbox_ss=dict(type='H2RBoxConsistencyLoss', loss_weight=.4)),
    H2RBoxV2Head=dict(scale_angle=False, rotation_agnostic_classes=[1,9,11], agnostic_resize_classes=[1],
                      angle_coder=dict(type='PSCCoder', angle_version='le90', dual_freq=False, num_step=3, thr_mod=0)))

@pytest.mark.parametrize('kind', WEAK)
def test_h2rbox_is_fcos_with_rules_for_some_classes(kind, recwarn):
    "What the FCOS with the same weights finds, but upright where the configuration says so; trained on for a step"
    head = dict(WEAK[kind], type=kind, num_classes=12, stacked_convs=1, feat_channels=16, strides=[8,16,32,64,128], center_sampling=True,
                norm_on_bbox=True,
                bbox_coder=dict(type='DistanceAnglePointCoder', angle_version='le90'),
                loss_bbox=dict(type='mmdet.IoULoss', loss_weight=1.))
    model = dict(type=kind.replace('Head', 'Detector'), crop_size=(1024,1024),
                 backbone=dict(type='mmdet.ResNet', depth=18, frozen_stages=1, norm_eval=True),
                 neck=dict(type='mmdet.FPN', out_channels=16, start_level=1, add_extra_convs='on_output', num_outs=5,
                           relu_before_extra_convs=True),
                 bbox_head=head, train_cfg=None,
                 test_cfg=dict(nms_pre=2000, score_thr=0., nms=dict(type='nms_rotated', iou_threshold=.1), max_per_img=200))
    own = ('square_classes','rotation_agnostic_classes','agnostic_resize_classes','loss_bbox_ss')
    plain = dict({k:v for k,v in head.items() if k not in own}, type='RotatedFCOSHead', loss_bbox=dict(type='RotatedIoULoss'))
    torch.manual_seed(0)                                                    # weights that find objects of the classes with rules
    want = create_detector(**settings_from_config(dict(model, bbox_head=plain))).eval()
    det = create_detector(**settings_from_config(dict(model=model))).eval()
    assert det.name==('h2rbox' if kind=='H2RBoxHead' else 'h2rbox_v2') and not recwarn.list
    det.load_state_dict(want.state_dict())
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): a,b = det(x)[0],want(x)[0]
    ruled = head.get('square_classes') or head['rotation_agnostic_classes']
    others = [~torch.isin(o['labels'], torch.tensor(ruled)) for o in (a,b)]
    if kind=='H2RBoxHead': assert others[0].any() and all(torch.equal(a[k][others[0]], b[k][others[1]]) for k in a)
    assert not others[0].all() and (2*a['boxes'][~others[0],4]).sin().abs().max()<1e-5 and (2*b['boxes'][:,4]).sin().abs().max()>1e-4
    losses = det.train()(x.repeat(2,1,1,1), [dict(boxes=torch.tensor([[40.,40.,50.,24.,0.]]), labels=torch.tensor([1]))]*2)
    assert losses and all(v.isfinite().all() for v in losses.values())

@needs_oracle
def test_h2rbox_by_the_text_in_its_checkpoint():
    "The keys of rotated FCOS, with H2RBox's name in the configuration beside them"
    name = 'rotated-fcos-le90_r50_fpn_1x_dota'
    cfg = settings(name); model = cfg.get('model', cfg)
    own = dict(type='H2RBoxHead', loss_bbox=dict(type='mmdet.IoULoss'), loss_bbox_ss=dict(type='H2RBoxConsistencyLoss'))
    model = {**model, 'type':'H2RBoxDetector', 'bbox_head':{**model['bbox_head'], **own}}
    det = detector_from_mmrotate(dict(state_dict=checkpoint(name), meta=dict(cfg=json.dumps(dict(model=model)))))
    assert det.name=='h2rbox' and det.stages[0].ss_weight==1

# --- what weights alone tell

FORMS = dict(le90=dict(norm_factor=None, edge_swap=True, proj_xy=True), oc=dict(norm_factor=None, edge_swap=False, proj_xy=False),
             le135=dict(norm_factor=1, edge_swap=False, proj_xy=True))   # of deltas from anchors, in both lines
# which weights do not tell
TRAINING = re.compile('box_type|quads$|loss|assigner|pos$|neg$|topk|weight|sampler|hbox$|radius|frozen|norm_eval|gradient|border')

def flat(o, at=''):
    "Every setting under its path"
    if isinstance(o, dict): return {k:v for key,sub in o.items() for k,v in flat(sub, f'{at}.{key}').items()}
    if isinstance(o, list) and any(isinstance(v, (dict,list)) for v in o): return flat(dict(enumerate(o)), at)
    return {at:o}

def detecting(kw): return {k:v for k,v in flat(plain(kw)).items() if not TRAINING.search(k)}
def version(name): return re.search('le90|le135|oc(?![a-z])', name)
def guessed(sd, *args): return settings_from_config(guess_config(sd, find_family(sd).name, *args))

@needs_oracle
@pytest.mark.parametrize('name', [f.stem for f in oracle_files('settings/*.json')])
def test_weights_tell_what_the_configuration_says(name):
    "All that detections hang on, given the angle version and the line, which is known from the keys or told"
    want,sd,line = settings_from_config(settings(name)),shapes(name),'0.x' if '_dota_' in name else '1.x'
    assert detecting(guessed(sd, want['angle'], line))==detecting(want)
    assert line_of(sd) in (line, None)
    if line=='1.x' and 'hbox-oc' not in name: assert detecting(guessed(sd))==detecting(want)   # what is assumed

@needs_oracle
@pytest.mark.parametrize('name', [f.stem for f in oracle_files('keys_0x/*.txt')])
def test_weights_of_line_0(name):
    "How MMRotate 0.3.4's configurations make deltas, by angle version; and its own way to count candidates"
    sd,v = shapes(name, 'keys_0x'),version(name)[0]
    kw = guessed(sd, v, '0.x')
    assert kw['angle']==v and kw.get('anchor_form') is None and kw.get('nms_pre_of')==(None if 'rois_kw' in kw else 'priors')
    coders = [kw['coder']] if 'coder' in kw else [o['coder'] for o in kw.get('rois_kw', ()) if hasattr(o['coder'], 'norm_factor')]
    forms = [FORMS[v]]*len(coders)
    if name.startswith(('roi_trans','redet','rotated_faster')):
        forms[0] = dict(FORMS[v], proj_xy=True) | ({} if v=='oc' else dict(norm_factor=2, edge_swap=True))
    for c,form in zip(coders, forms): assert {k:getattr(c, k) for k in form}==form and c.angle==v and c.oc==('new' if v=='oc' else 'old')
    if name.startswith(('roi_trans','redet')): assert [c.stds for c in coders]==[(.1,.1,.2,.2,1.),(.05,.05,.1,.1,.5)]
    assert len(coders)==(2 if re.match('roi_trans|redet', name) else 0 if re.search('gliding|fcos|reppoints|cfa', name) else 1)

def told(src, **kw):
    "The detector from weights alone, and what is said of it"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always'); det = detector_from_mmrotate(src, **kw)
    return det,'\n'.join(str(o.message) for o in said)

@needs_oracle
def test_what_weights_do_not_tell_is_named_or_read_from_the_file(tmp_path):
    sd,coder = checkpoint('rotated-retinanet-hbox-oc_r50_fpn_1x_dota'),lambda det: det.stages[0].coder
    det,said = told(sd)
    assert all(o in said for o in ("angle='le90'","line='1.x'","edge_swap","norm_factor","losses")) and coder(det).edge_swap
    det,said = told(sd, angle='oc', line='0.x')
    assert not coder(det).edge_swap and coder(det).oc=='new'
    assert 'Given or found: angle=\'oc\', line=\'0.x\'' in said and "'0.x' has other" not in said
    for stem,meta,line in (('rotated_retinanet_hbb_r50_fpn_1x_dota_oc-e8a7c7df',{},'0.x'),
                           ('rotated-retinanet-rbox-oc_r50_fpn_1x_dior-dbdbc2f8',{},'1.x'),
                           ('mine_oc',dict(mmengine_version='0.7.1'),'1.x'),('mine-oc',dict(CLASSES=('a',)),'0.x')):
        torch.save(dict(state_dict=sd, meta=meta), f := tmp_path/f'{stem}.pth')
        det,said = told(f)
        assert (coder(det).angle,coder(det).oc,det.stages[0].priors.form)==('oc','new' if line=='0.x' else 'old',
                                                                            'oc' if line=='1.x' else None)
        assert 'losses' in said and not re.search("Assumed.*angle='le90'", said)
    with pytest.raises(ConfigError, match='line'): told(sd, line='2.x')
    with pytest.raises(ConfigError, match='are of MMRotate 1.x'): told(checkpoint('s2anet-le135_r50_fpn_1x_dota'), line='0.x')
    with pytest.raises(ValueError, match='MMRotate are of le90, oc, le135'): told(sd, angle='hbb')

@needs_oracle
@pytest.mark.parametrize('n', [3,6])
def test_psc_of_fcos_is_not_squashed(n):
    "Only RetinaNet squashes its code; MMRotate's FCOS does not. With one frequency the keys are H2RBox-v2's too, which sets no angle to 0"
    sd = {k:v for k,v in checkpoint('rotated-fcos-le90_r50_fpn_1x_dota').items() if 'scale_angle' not in k}
    for k in ('weight','bias'): sd[f'bbox_head.conv_angle.{k}'] = torch.cat([sd[f'bbox_head.conv_angle.{k}']]*n)
    det,said = told(sd)
    assert not det.stages[0].squash_angle and det.stages[0].coder.angle_coder==PSCAngle(3, n==6, .47)
    assert ('thr_mod=0.47' in said)==(n==3) and "'0.x' has other" not in said
    again = told(sd, angle_coder=PSCAngle(3, n==6))[0]
    assert again.stages[0].coder.angle_coder.min_mod==0

# --- what configurations leave out, or say in vain

def test_coders_that_say_nothing():
    "As MMRotate's: of `oc`, sides not swapped, offsets not turned"
    for kind,oc in (('DeltaXYWHTRBBoxCoder','old'),('DeltaXYWHAOBBoxCoder','new')):
        c = delta_coder_from(dict(type=kind))
        assert (c.angle,c.oc,c.norm_factor,c.edge_swap,c.proj_xy)==('oc',oc,None,False,False)
    assert delta_coder_from(dict(type='DeltaXYWHTRBBoxCoder', angle_version='le90')).angle=='le90'

def test_kfiou_has_one_beta():
    "MMRotate's KFLoss swallows what it is given for it"
    a,b = (box_loss_from(dict(type='KFLoss', fun='ln', **kw)) for kw in ({}, dict(beta=.5)))
    assert plain(a)==plain(b) and a.kwargs['beta']==pytest.approx(1/9)
