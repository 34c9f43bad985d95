"""What MMRotate's own ReDet makes of weights by formula, for `test_redet.py`: python redet_peer.py OUT.npz CONFIG.py

Run with MMRotate 0.3.4 or 1.x (dev-1.x), e2cnn 0.2.3 and operators on the CPU; RiRoIAlign, which mmcv has for CUDA alone, is ours there.
The backbone is ReResNet-18, the image 128 x 128 px, and samplers take the first candidates. The tests import `value` and `picture`."""
import json, sys, zlib
import numpy as np

def value(key, shape):
    "Numbers of a tensor by its name: of a size that lets activations live, classes rare and deltas small"
    rng,n = np.random.RandomState(zlib.crc32(key.encode())),int(np.prod(shape, dtype=int))
    if key.endswith('num_batches_tracked'): return np.zeros(shape, np.int64)
    draw,even = rng.standard_normal(n),key.endswith('running_var') or len(shape)==1 and key.endswith('.weight')
    if even: numbers = rng.uniform(.8, 1.2, n)
    elif key.endswith('.weights'): numbers = (2 if key.startswith('neck') else 12)*draw/n**.5
    elif len(shape)>1: numbers = draw/(n/shape[0])**.5*(.1 if '_reg.' in key else 1)
    else: numbers = .3*draw-3 if 'cls' in key else .05*draw if key.endswith('running_mean') else .01*draw
    return numbers.reshape(shape).astype(np.float32)

def picture(): return np.random.RandomState(7).standard_normal((1,3,128,128)).astype(np.float32)

BOXES = np.array([[64.,64.,48.,24.,.3],[30.,90.,40.,14.,-.7],[96.,34.,36.,30.,1.1]], np.float32)
LABELS = np.array([1,3,14])

def resolved(file, Config):
    "`model` of a configuration, with 18 layers, without weights from elsewhere, and with fewer proposals"
    model = Config.fromfile(file).model
    model.backbone.depth,model.neck.in_channels = 18,[64,128,256,512]
    for key in ('init_cfg','pretrained'): model.backbone.pop(key, None)
    model.pop('pretrained', None)
    for proposals in (model.test_cfg.rpn, model.train_cfg.rpn_proposal): proposals.nms_pre = proposals.max_per_img = 200
    return model

def filled(model, torch):
    "Weights by formula: parameters and statistics of norms; bases and filters stay e2cnn's"
    params = dict(model.named_parameters())
    own = {key:tensor for key,tensor in model.state_dict().items()
           if key in params or key.endswith(('running_mean','running_var','num_batches_tracked'))}
    model.load_state_dict({key:torch.tensor(value(key, tuple(tensor.shape))) for key,tensor in own.items()}, strict=False)
    model.train(); model.eval()                                      # e2cnn makes its filters when learning ends
    return {key:list(tensor.shape) for key,tensor in model.state_dict().items()}

def listening(model):
    "What passes through the parts of the model, by name"
    heard = {}
    def listen(name, module, what):
        def hook(_, given, made): heard.setdefault(name, what(given, made))
        module.register_forward_hook(hook)
    listen('neck', model.neck, lambda given, made: made)
    listen('rpn', model.rpn_head, lambda given, made: made)
    for i,(cut,head) in enumerate(zip(model.roi_head.bbox_roi_extractor, model.roi_head.bbox_head)):
        listen(f'rois{i}', cut, lambda given, made: (given[1], made))
        listen(f'head{i}', head, lambda given, made: made)
    return heard

def old(model, torch): # detections (n, 7) with the class last, and losses, of 0.3.4
    meta = dict(img_shape=(128,128,3), ori_shape=(128,128,3), pad_shape=(128,128,3), scale_factor=np.ones(4, np.float32), flip=False)
    def detect(x): return np.concatenate([np.c_[rows, np.full(len(rows), c)] for c,rows in enumerate(model.simple_test(x, [meta])[0])])
    return detect,lambda x: model.forward_train(x, [meta], [torch.tensor(BOXES)], [torch.tensor(LABELS)])

def new(model, torch): # the same of 1.x
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from mmrotate.structures.bbox import RotatedBoxes
    def sample():                                                    # a new one each time: detecting makes tensors of its boxes
        size = (128,128)
        info = dict(img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size, scale_factor=(1.,1.))
        made = DetDataSample(metainfo=info)
        made.gt_instances = InstanceData(bboxes=RotatedBoxes(torch.tensor(BOXES)), labels=torch.tensor(LABELS).long())
        made.ignored_instances = InstanceData(bboxes=RotatedBoxes(torch.zeros(0,5)), labels=torch.zeros(0).long())
        return [made]
    def detect(x):
        found = model.predict(x, sample())[0].pred_instances
        boxes = found.bboxes if torch.is_tensor(found.bboxes) else found.bboxes.tensor
        return torch.cat([boxes, found.scores[:,None], found.labels[:,None]], 1).numpy()
    return detect,lambda x: model.loss(x, sample())

def main(out, config):
    import mmcv.ops, torch
    import peer_ops; peer_ops.take_first()
    try:
        from mmcv import Config
        import mmrotate.models
        cfg = resolved(config, Config)
        model,line = mmrotate.models.build_detector(cfg),old
    except ImportError:
        from mmengine import Config
        from mmrotate.registry import MODELS
        from mmrotate.utils import register_all_modules; register_all_modules()
        cfg = resolved(config, Config)
        model,line = MODELS.build(cfg),new
    keys,heard = filled(model, torch),listening(model)
    detect,learn = line(model, torch)
    x = torch.tensor(picture())
    with torch.no_grad(): dets = detect(x)
    first = 60                                                       # RoIs whose outputs are kept
    kept = {f'neck{i}':level[:,::16].numpy() for i,level in enumerate(heard['neck']) if i} | dict(dets=dets.astype(np.float32))
    kept |= {f'rpn{kind}{i}':heard['rpn'][kind][i].numpy() for kind in (0,1) for i in (2,3,4)}
    for i in (0,1):
        rois,cut = heard[f'rois{i}']
        kept |= {f'rois{i}':rois.numpy(), f'cut{i}':cut[:2,::4].numpy(), f'logits{i}':heard[f'head{i}'][0][:first].numpy(),
                 f'deltas{i}':heard[f'head{i}'][1][:first].numpy()}
    losses = {key:float(sum(loss)) if isinstance(loss, (list,tuple)) else float(loss) for key,loss in model.train() and learn(x).items()}
    np.savez_compressed(out, **kept, keys=json.dumps(keys), cfg=json.dumps(cfg.to_dict()), losses=json.dumps(losses))
    print({key:array.shape for key,array in kept.items()}, losses)

if __name__=='__main__': main(*sys.argv[1:])
