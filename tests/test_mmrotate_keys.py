"Every set of keys that MMRotate published, and what its configurations say: opened, run, trained for a step"
import json, pytest, torch
from reference import checkpoint, n_params, needs_oracle, oracle_files, quietly, settings
from rotnb.models import create_detector
from rotnb.interop.mmconfig import settings_from_config
from rotnb.interop.mmparts import ConfigError
from rotnb.interop.mmrotate import WeightsError, detector_from_mmrotate, find_family

FILES = [f'{f.parent.name}/{f.stem}' for f in (*oracle_files('keys/*.txt'), *oracle_files('keys_0x/*.txt'))]
REFUSED = {'keys_0x/redet_re50_refpn_1x_dota_le90':'the backbone is none that is known by its keys'}  # until there is a rotation-equivariant one
PUBLISHED = dict(gliding=41_367_656, oriented_rcnn=41_365_098, r3det=42_129_416, r3det_refine=47_617_820, r3det_tiny=37_408_776, r3det_tiny_kld=39_769_096, roi=55_352_511,
                 rotated_faster=41_363_556, rotated_fcos=32_147_803, rotated_fcos_csl=32_560_397, rotated_retinanet=36_641_012,
                 rotated_retinanet_obb_csl=37_574_537, s2anet=36_466_024+4*256*256*9, rotated_reppoints=36_832_371,
                 cfa=36_832_371, sasm=36_832_371)

def published(name):
    "Parameters of the same network in 1.x, as MMRotate counts them; S2A-Net of 0.x aligns each level by weights of its own, and its ATSS has another head"
    folder,name = name.split('/')
    of = [k for k in PUBLISHED if name.startswith(k)]
    return PUBLISHED[max(of, key=len)] if of and folder=='keys_0x' and '_r50_' in name and 'atss' not in name else None

@needs_oracle
@pytest.mark.parametrize('name', [o for o in FILES if o not in REFUSED])
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

@needs_oracle
@pytest.mark.parametrize('name', REFUSED)
def test_what_is_not_there_is_refused(name):
    with pytest.raises((WeightsError,ConfigError), match=REFUSED[name]): quietly(checkpoint(*name.split('/')[::-1]))

body = dict(backbone=dict(type='mmdet.ResNet', depth=50), neck=dict(type='mmdet.FPN'))
UNKNOWN = {'RotatedRepPoints with bbox_head KLDRepPointsHead':dict(body, type='RotatedRepPoints', bbox_head=dict(type='KLDRepPointsHead')),
           'ReDet with rpn_head RotatedRPNHead, roi_head RoITransRoIHead':dict(body, type='ReDet', rpn_head=dict(type='RotatedRPNHead'), roi_head=dict(type='RoITransRoIHead')),
           "the backbone 'ReResNet' is not known":dict(body, type='mmdet.CascadeRCNN', backbone=dict(type='ReResNet', depth=50), rpn_head={}, roi_head=dict(bbox_head=[{},{}])),
           'mmdet.RTMDet with bbox_head RotatedRTMDetHead':dict(body, type='mmdet.RTMDet', bbox_head=dict(type='RotatedRTMDetHead'))}

@pytest.mark.parametrize('says', UNKNOWN)
def test_families_that_are_not_there_are_named(says):
    "Those of MMRotate that cannot be had here yet; a configuration of theirs is refused by name"
    with pytest.raises(ConfigError, match=says): settings_from_config(UNKNOWN[says])

WEAK = dict(
    H2RBoxHead=dict(scale_angle=True, square_classes=[9,11], loss_bbox_ss=dict(type='H2RBoxConsistencyLoss', loss_weight=.4)),
    H2RBoxV2Head=dict(scale_angle=False, rotation_agnostic_classes=[1,9,11], rotation_agnostic_resize_classes=[1],
                      angle_coder=dict(type='PSCCoder', angle_version='le90', dual_freq=False, num_step=3, thr_mod=0)))

@pytest.mark.parametrize('kind', WEAK)
def test_h2rbox_detects_as_fcos_and_says_what_it_was(kind):
    "A checkpoint with its configuration in `meta`, as text: the outputs of the FCOS whose weights it has, trained on for a step"
    head = dict(WEAK[kind], type=kind, num_classes=4, stacked_convs=1, feat_channels=16, strides=[8,16,32,64,128], center_sampling=True, norm_on_bbox=True,
                bbox_coder=dict(type='DistanceAnglePointCoder', angle_version='le90'), loss_bbox=dict(type='mmdet.IoULoss', loss_weight=1.))
    model = dict(type=kind.replace('Head', 'Detector'), crop_size=(1024,1024), backbone=dict(type='mmdet.ResNet', depth=18, frozen_stages=1, norm_eval=True),
                 neck=dict(type='mmdet.FPN', out_channels=16, start_level=1, add_extra_convs='on_output', num_outs=5, relu_before_extra_convs=True),
                 bbox_head=head, train_cfg=None, test_cfg=dict(nms_pre=2000, score_thr=0., nms=dict(type='nms_rotated', iou_threshold=.1), max_per_img=20))
    own = ('square_classes','rotation_agnostic_classes','rotation_agnostic_resize_classes','loss_bbox_ss')
    plain = dict({k:v for k,v in head.items() if k not in own}, type='RotatedFCOSHead', loss_bbox=dict(type='RotatedIoULoss'))
    want = create_detector(**settings_from_config(dict(model, bbox_head=plain))).eval()
    with pytest.warns(UserWarning) as said: kw = settings_from_config(dict(model=model))
    says = kind,'opened for detection','upright boxes is not known here','[9, 11]' if kind=='H2RBoxHead' else '[1, 9, 11]'
    assert len(said)==1 and all(o in str(said[0].message) for o in says)
    det = create_detector(**kw).eval()
    det.load_state_dict(want.state_dict())
    x = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): a,b = det(x)[0],want(x)[0]
    assert len(a['boxes']) and all(torch.equal(a[k], b[k]) for k in a)
    losses = det.train()(x.repeat(2,1,1,1), [dict(boxes=torch.tensor([[40.,40.,50.,24.,.4]]), labels=torch.tensor([1]))]*2)
    assert losses and all(v.isfinite().all() for v in losses.values())

@needs_oracle
def test_h2rbox_by_the_text_in_its_checkpoint():
    "The keys of rotated FCOS, with H2RBox's name in the configuration beside them"
    name = 'rotated-fcos-le90_r50_fpn_1x_dota'
    cfg = settings(name); model = cfg.get('model', cfg)
    model = {**model, 'type':'H2RBoxDetector', 'bbox_head':{**model['bbox_head'], 'type':'H2RBoxHead'}}
    with pytest.warns(UserWarning, match='H2RBoxHead: opened for detection'):
        det = detector_from_mmrotate(dict(state_dict=checkpoint(name), meta=dict(cfg=json.dumps(dict(model=model)))))
    assert det.name=='rotated_fcos'
