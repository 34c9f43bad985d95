"""References for settings that no published configuration has, made with the real MMRotate 1.x (dev-1.x 3ff004e, mmdet 3.1.0) on the CPU.

    python settings_reference.py HELPERS

HELPERS is the folder tests/helpers, whose formula gives the weights. Written is settings.npz beside this file: for each variant of a
RetinaNet, an FCOS or a Faster R-CNN of few channels its configuration, the names and shapes of its weights, every eighth channel of the
neck, the detections and the losses. Compiled operators of mmcv were
replaced by exact geometry and torchvision's (`peer_ops`), deformable convolution by torchvision's."""
import copy, json, sys, warnings
from pathlib import Path
import numpy as np, torch
warnings.simplefilter('ignore')
sys.path.insert(0, sys.argv[1])
import mmcv.ops, peer_ops
from formula import formula_image, formula_weights
peer_ops.take_first()
from mmcv.ops import modulated_deform_conv
from torchvision.ops import deform_conv2d
modulated_deform_conv.modulated_deform_conv2d = (lambda x, offset, mask, weight, bias, stride, padding, dilation, *_:
                                                 deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask))
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from mmdet.structures import DetDataSample
from mmrotate.utils import register_all_modules
register_all_modules()
from mmrotate.registry import MODELS
from mmrotate.structures.bbox import RotatedBoxes

SIZE,WIDTH = 96,32
R18 = dict(type='mmdet.ResNet', depth=18, norm_eval=True)
FOCAL = dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
MAX_IOU = dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1,
               iou_calculator=dict(type='RBboxOverlaps2D'))
GN = dict(type='GN', num_groups=32)
PREPARED = dict(type='mmdet.DetDataPreprocessor', boxtype2tensor=False)

def neck(**kw): return dict(dict(type='mmdet.FPN', in_channels=[64,128,256,512], out_channels=WIDTH, start_level=1,
                                 add_extra_convs='on_output',
                                 num_outs=5), **kw)

def retina(strides=(8,16,32,64,128), backbone=R18, test=None, head=None, **fpn):
    head = dict(dict(type='mmdet.RetinaHead', num_classes=4, in_channels=WIDTH, feat_channels=WIDTH, stacked_convs=1,
        anchor_generator=dict(type='FakeRotatedAnchorGenerator', angle_version='le90', octave_base_scale=4, scales_per_octave=3,
                              ratios=[1.0,0.5,2.0], strides=list(strides)),
        bbox_coder=dict(type='DeltaXYWHTRBBoxCoder', angle_version='le90', norm_factor=None, edge_swap=True, proj_xy=True),
        loss_cls=FOCAL, loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0)), **(head or {}))
    return dict(type='mmdet.RetinaNet', data_preprocessor=PREPARED, backbone=backbone, neck=neck(**fpn), bbox_head=head,
        train_cfg=dict(assigner=MAX_IOU, sampler=dict(type='mmdet.PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False),
        test_cfg=dict(dict(nms_pre=2000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms_rotated', iou_threshold=0.1),
                           max_per_img=200), **(test or {})))

def fcos(**head): # 64 channels, as a group norm of 32 groups needs two a group
    head = dict(dict(type='RotatedFCOSHead', num_classes=4, in_channels=64, feat_channels=64, stacked_convs=2,
        strides=[8,16,32,64,128], center_sampling=True, center_sample_radius=1.5, norm_on_bbox=True, centerness_on_reg=True,
        use_hbbox_loss=False, scale_angle=True, bbox_coder=dict(type='DistanceAnglePointCoder', angle_version='le90'), loss_cls=FOCAL,
        loss_bbox=dict(type='RotatedIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)), **head)
    return dict(type='mmdet.FCOS', data_preprocessor=PREPARED, backbone=R18, neck=neck(relu_before_extra_convs=True,
                                                                                       out_channels=64), bbox_head=head,
                train_cfg=None, test_cfg=dict(nms_pre=2000, min_bbox_size=0, score_thr=0.02,
                                              nms=dict(type='nms_rotated', iou_threshold=0.1), max_per_img=200))

def faster(**head):
    upright = dict(type='mmdet.MaxIoUAssigner', match_low_quality=True, ignore_iof_thr=-1,
                   iou_calculator=dict(type='RBbox2HBboxOverlaps2D'))
    proposals = dict(nms_pre=500, max_per_img=100, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)
    return dict(type='mmdet.FasterRCNN', data_preprocessor=PREPARED, backbone=R18, neck=neck(start_level=0, add_extra_convs=False),
        rpn_head=dict(type='mmdet.RPNHead', in_channels=WIDTH, feat_channels=WIDTH,
            anchor_generator=dict(type='mmdet.AnchorGenerator', scales=[8], ratios=[0.5,1.0,2.0], strides=[4,8,16,32,64],
                                  use_box_type=True),
            bbox_coder=dict(type='DeltaXYWHHBBoxCoder', target_means=[0.,0.,0.,0.], target_stds=[1.,1.,1.,1.], use_box_type=True),
            loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
            loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1/9, loss_weight=1.0)),
        roi_head=dict(type='mmdet.StandardRoIHead',
            bbox_roi_extractor=dict(type='mmdet.SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
                                    out_channels=WIDTH, featmap_strides=[4,8,16,32]),
            bbox_head=dict(dict(type='mmdet.Shared2FCBBoxHead', predict_box_type='rbox', in_channels=WIDTH, fc_out_channels=64,
                roi_feat_size=7, num_classes=4, reg_class_agnostic=True, cls_predictor_cfg=dict(type='mmdet.Linear'),
                reg_predictor_cfg=dict(type='mmdet.Linear'),
                bbox_coder=dict(type='DeltaXYWHTHBBoxCoder', angle_version='le90', norm_factor=2, edge_swap=True,
                                target_means=[0.]*5, target_stds=[.1,.1,.2,.2,.1], use_box_type=True),
                loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1.0, loss_weight=1.0)), **head)),
        train_cfg=dict(rpn=dict(assigner=dict(upright, pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
                                sampler=dict(type='mmdet.RandomSampler', num=64, pos_fraction=0.5, neg_pos_ub=-1,
                                             add_gt_as_proposals=False),
                                allowed_border=0, pos_weight=-1, debug=False),
                       rpn_proposal=proposals,
                       rcnn=dict(assigner=dict(upright, pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
                                 sampler=dict(type='mmdet.RandomSampler', num=64, pos_fraction=0.25, neg_pos_ub=-1,
                                              add_gt_as_proposals=True),
                                 pos_weight=-1, debug=False)),
        test_cfg=dict(rpn=proposals, rcnn=dict(nms_pre=2000, min_bbox_size=0, score_thr=0.05,
                                               nms=dict(type='nms_rotated', iou_threshold=0.1), max_per_img=200)))

WIDE = [256,512,1024,2048]
VARIANTS = dict(
    caffe=retina(backbone=dict(type='mmdet.ResNet', depth=50, style='caffe', norm_eval=True, norm_cfg=dict(type='BN',
                                                                                                           requires_grad=False)),
                 in_channels=WIDE),
    lateral=retina((16,32,64,128), start_level=2, add_extra_convs='on_lateral', num_outs=4),
    ended=retina((8,16), end_level=2, add_extra_convs=False, num_outs=2),
    subsampled=retina(add_extra_convs=False),
    deep_stem=retina(backbone=dict(type='mmdet.ResNet', depth=50, deep_stem=True, norm_eval=True), in_channels=WIDE),
    resnet_d=retina(backbone=dict(type='mmdet.ResNetV1d', depth=18, norm_eval=True)),
    group_norm=retina(backbone=dict(R18, norm_cfg=GN), head=dict(norm_cfg=GN, in_channels=64, feat_channels=64),
                      norm_cfg=GN, out_channels=64),
    resnext=retina(backbone=dict(type='mmdet.ResNeXt', depth=50, groups=32, base_width=4, norm_eval=True), in_channels=WIDE),
    least_size=retina(test=dict(min_bbox_size=40)),
    scales=retina(head=dict(anchor_generator=dict(type='FakeRotatedAnchorGenerator', angle_version='le90', scales=[6], ratios=[1.0,0.5],
                                                  strides=[8,16,32,64,128]))),
    decoded=retina(head=dict(reg_decoded_bbox=True)),
    deformable=fcos(dcn_on_last_conv=True), class_tower=fcos(centerness_on_reg=False), plain_tower=fcos(norm_cfg=None),
    roi_convs=faster(type='mmdet.ConvFCBBoxHead', num_shared_convs=2, num_shared_fcs=1, conv_out_channels=16))

GT = np.array([[30,34,40,22,.4],[62,60,30,34,-.6],[70,24,24,40,1.2],[40,70,36,14,-1.1]], np.float32)

def reference(cfg):
    model = MODELS.build(ConfigDict(copy.deepcopy(cfg)))
    shapes = {key:tuple(value.shape) for key,value in model.state_dict().items()
              if key in dict(model.named_parameters()) or key.endswith(('running_mean','running_var','num_batches_tracked'))}
    model.load_state_dict({key:torch.tensor(value) for key,value in formula_weights(shapes).items()}, strict=False)
    x,res = torch.tensor(formula_image(SIZE)),{}
    sample = DetDataSample(metainfo=dict(img_shape=(SIZE,SIZE), ori_shape=(SIZE,SIZE), batch_input_shape=(SIZE,SIZE),
                                         pad_shape=(SIZE,SIZE),
                                         scale_factor=(1.,1.)))
    with torch.no_grad():
        for i,level in enumerate(model.eval().extract_feat(x)): res[f'neck/{i}'] = level[:,::8].numpy()
        found = model.predict(x, [sample], rescale=False)[0].pred_instances
    boxes = found.bboxes if torch.is_tensor(found.bboxes) else found.bboxes.tensor
    res |= {'pred/boxes':boxes.numpy(), 'pred/scores':found.scores.numpy(), 'pred/labels':found.labels.numpy()}
    sample.gt_instances = InstanceData(bboxes=RotatedBoxes(torch.tensor(GT)), labels=torch.arange(4))
    sample.ignored_instances = InstanceData(bboxes=RotatedBoxes(torch.zeros(0, 5)), labels=torch.zeros(0).long())
    for key,value in model.train().loss(x, [sample]).items():
        if key!='acc': res[f'loss/{key}'] = np.array(sum(float(o) for o in value) if isinstance(value, (list,tuple)) else float(value))
    lines = '\n'.join(f'{key}\t{"x".join(map(str, shape)) or "scalar"}' for key,shape in shapes.items())
    return {**res, 'settings':json.dumps(dict(model=cfg)), 'keys':lines}

if __name__=='__main__':
    out = {}
    for name,cfg in VARIANTS.items():
        if sys.argv[2:] and name not in sys.argv[2:]: continue
        found = reference(cfg)
        print(name, len(found['pred/boxes']), {key:float(value) for key,value in found.items() if key.startswith('loss/')}, flush=True)
        out |= {f'{name}/{key}':value for key,value in found.items()}
    np.savez_compressed(Path(__file__).parent/'settings.npz', gt=GT, **out)
