"A small detector's weights as a file of MMRotate, for tests that have no file of MMRotate's own"
import re
from hashlib import sha256
import torch
from torch import nn
from rotnb.interop.mmconfig import settings_from_config
from rotnb.models import create_detector

def config(n_classes=3, size=160):
    "RetinaNet on ResNet-18 with a thin neck, as MMRotate 1.x writes it, and its test pipeline"
    anchors = dict(type='FakeRotatedAnchorGenerator', angle_version='le90', octave_base_scale=4, scales_per_octave=3, ratios=[1.,.5,2.],
                   strides=[8,16,32,64,128])
    head = dict(type='mmdet.RetinaHead', num_classes=n_classes, in_channels=8, feat_channels=8, stacked_convs=1, anchor_generator=anchors,
                bbox_coder=dict(type='DeltaXYWHTRBBoxCoder', angle_version='le90', norm_factor=None, edge_swap=True, proj_xy=True,
                                target_means=[0.]*5, target_stds=[1.]*5),
                loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2., alpha=.25, loss_weight=1.),
                loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.))
    model = dict(type='mmdet.RetinaNet', backbone=dict(type='mmdet.ResNet', depth=18),
                 data_preprocessor=dict(type='mmdet.DetDataPreprocessor', mean=[123.675,116.28,103.53], std=[58.395,57.12,57.375],
                                        bgr_to_rgb=True, pad_size_divisor=32),
                 neck=dict(type='mmdet.FPN', in_channels=[64,128,256,512], out_channels=8, start_level=1, add_extra_convs='on_input',
                           num_outs=5),
                 bbox_head=head, train_cfg=dict(assigner=dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=.5, neg_iou_thr=.4, min_pos_iou=0,
                 ignore_iof_thr=-1, iou_calculator=dict(type='RBboxOverlaps2D')), sampler=dict(type='mmdet.PseudoSampler')),
                 test_cfg=dict(nms_pre=2000, min_bbox_size=0, score_thr=.05, nms=dict(type='nms_rotated', iou_threshold=.1),
                               max_per_img=2000))
    steps = [dict(type='mmdet.LoadImageFromFile'), dict(type='mmdet.Resize', scale=(size,size), keep_ratio=True),
             dict(type='mmdet.PackDetInputs')]
    return dict(model=model, test_dataloader=dict(dataset=dict(type='DOTADataset', pipeline=steps)))

def made(cfg, seed=0):
    "A detector of such a configuration whose rows differ and whose scores are not all alike"
    torch.manual_seed(seed)
    detector = create_detector(**settings_from_config(cfg))
    with torch.no_grad():
        for part in (detector.stages[0].cls, detector.stages[0].box): part.weight.normal_(std=.3)
        detector.stages[0].cls.bias.uniform_(-3, 0)
    return detector.eval()

def as_mmrotate(detector):
    "The state dict of such a detector under MMRotate's names"
    convs = [i for i,part in enumerate(detector.stages[0].cls_tower) if isinstance(part, nn.Conv2d)]
    levels = len(detector.neck.out)
    rows = [(r'^backbone\.body\.', 'backbone.'), (r'^neck\.lateral\.(\d)\.', r'neck.lateral_convs.\1.conv.'),
            (r'^neck\.out\.(\d)\.', r'neck.fpn_convs.\1.conv.'),
            (r'^neck\.extra_convs\.(\d)\.', lambda m: f'neck.fpn_convs.{int(m[1])+levels}.conv.'),
            (r'^stages\.0\.cls_tower\.(\d+)\.', lambda m: f'bbox_head.cls_convs.{convs.index(int(m[1]))}.conv.'),
            (r'^stages\.0\.box_tower\.(\d+)\.', lambda m: f'bbox_head.reg_convs.{convs.index(int(m[1]))}.conv.'),
            (r'^stages\.0\.cls\.', 'bbox_head.retina_cls.'), (r'^stages\.0\.box\.', 'bbox_head.retina_reg.')]
    def named(key):
        for pattern,to in rows: key = re.sub(pattern, to, key)
        return key
    return {named(key):weight.clone() for key,weight in detector.state_dict().items()}

def write_checkpoint(file, detector, cfg, classes):
    "A file of MMRotate 1.x; its checksum"
    torch.save(dict(state_dict=as_mmrotate(detector), meta=dict(cfg=cfg, dataset_meta=dict(classes=tuple(classes)))), file)
    return sha256(file.read_bytes()).hexdigest()
