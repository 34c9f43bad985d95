"Checkpoints as MMRotate's trainers save them, from the disk to boxes in a picture: weights, classes, colours, configuration in the file"
import json, pytest, torch
from reference import checkpoint, matched, needs_oracle, oracle_files, settings, their_dets
import numpy as np
from PIL import Image
from rotnb.interop.mmrotate import detector_from_mmrotate
from rotnb.predict.load import load_weights

DOTA = [f'class {i}' for i in range(15)]
STEPS = [dict(type='mmdet.LoadImageFromFile'), dict(type='mmdet.Resize', scale=[128,128], keep_ratio=True),
         dict(type='mmdet.PackDetInputs')]
NORM = dict(mean=[103.53,116.28,123.675], std=[57.375,57.12,58.395])  # of blue, green, red
QUICK = 'rotated-fcos-le90_r50_fpn_1x_dota','s2anet_r50_fpn_1x_dota_le135'

def noted(name):
    "`meta` as mmcv (names with underscores) or MMEngine writes it, with the configuration as text"
    model = settings(name)
    model = model.get('model', model)
    if '-' not in name:
        steps = [dict(type='LoadImageFromFile'), dict(type='MultiScaleFlipAug', img_scale=[128,128], flip=False, transforms=[
            dict(type='RResize'), dict(type='Normalize', to_rgb=False, **NORM), dict(type='Pad', size_divisor=32)])]
        return dict(CLASSES=DOTA, mmcv_version='1.7.2', config=json.dumps(dict(model=model, data=dict(test=dict(pipeline=steps)))))
    model = dict(model, data_preprocessor=dict(type='mmdet.DetDataPreprocessor', bgr_to_rgb=False, pad_size_divisor=32, **NORM))
    cfg = dict(model=model, test_dataloader=dict(dataset=dict(pipeline=STEPS)))
    return dict(dataset_meta=dict(classes=tuple(DOTA)), mmengine_version='0.10.7', cfg=json.dumps(cfg))

@needs_oracle
@pytest.mark.parametrize('name', [pytest.param(f.stem, marks=[] if f.stem in QUICK else pytest.mark.slow)
                                  for f in oracle_files('models/*.npz') if not any(o in f.stem for o in ('gliding','oriented'))])
def test_from_the_file(name, tmp_path):
    "The reference's own detections, from the file; and what the same detector says of a picture prepared by hand"
    file = tmp_path/'epoch_12.pth'
    torch.save(dict(state_dict=checkpoint(name), meta=noted(name), optimizer={}, message_hub=dict(log_scalars={})), file)
    det = detector_from_mmrotate(file)
    assert det.vocab==DOTA and det.channels=='bgr' and np.allclose(det.stats, [[.485,.456,.406],[.229,.224,.225]], atol=1e-4)
    z = np.load(oracle_files(f'models/{name}.npz')[0])
    z = {key:torch.from_numpy(z[key]) for key in z.files if key!='meta'}
    with torch.no_grad(): found = det(z['input'])[0]
    theirs = their_dets(z)
    assert len(found['boxes']) and matched(theirs, found).all() and matched(found, theirs).all()
    image = np.random.RandomState(5).randint(0, 256, (128,128,3), np.uint8)
    Image.fromarray(image).save(tmp_path/'scene.png')
    x = torch.tensor((image[...,::-1]-NORM['mean'])/NORM['std']).float().permute(2, 0, 1)[None]
    with torch.no_grad(): want = det(x)[0]
    seen = dict(load_weights(file)(tmp_path/'scene.png'))
    # the last digit of a pixel decides what NMS does on its threshold
    assert len(want['boxes']) and min(matched(*pair).float().mean() for pair in ((want,seen), (seen,want)))>.99
