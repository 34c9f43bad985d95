"What RTMDet-R's sizes and settings change; its numbers beside MMRotate's: test_mmrotate.py"
import pytest, torch
from reference import checkpoint, needs_oracle, quietly
from torch import tensor
from rotnb.interop.mmrotate import load_mmrotate, KeysError
from rotnb.models import create_detector

NAME = 'rotated_rtmdet_tiny-3x-dota'

@needs_oracle
def test_weights_alone_tell_the_size_and_that_colours_are_bgr():
    det = quietly(checkpoint(NAME))
    assert (det.name,det.n_classes,det.recipe()['channels'])==('rtmdet_r_tiny',15,'bgr')
    plain = create_detector('rtmdet_r_tiny', 15)
    assert plain.recipe()['channels']=='rgb'
    a,b = ({**o.recipe(), 'channels':None} for o in (det, plain))
    for r in (a,b): r['stages'][0].pop('assigner')  # once with its default spelt out
    assert a==b
    assert load_mmrotate(plain, checkpoint(NAME)).channels=='bgr'

@needs_oracle
def test_wrong_size_is_told():
    with pytest.raises(KeysError, match='of another shape'): load_mmrotate(create_detector('rtmdet_r_s', 15), checkpoint(NAME))

@pytest.mark.parametrize('size,width,n', [('tiny',96,4_877_544), ('s',128,8_862_156), ('m',192,24_672_132), ('l',256,52_266_460)])
def test_sizes(size, width, n):
    m = create_detector(f'rtmdet_r_{size}', 15)
    assert sum(p.numel() for p in m.parameters())==n
    r = m.recipe()
    assert (r['name'],r['neck']['channels'],r['stages'][0]['feat_channels'])==(f'rtmdet_r_{size}',width,width)
    assert r['stages'][0]['coder']['act']==('none' if size in ('tiny','s') else 'exp')
    assert r['stages'][0]['loss_box']==dict(type='BoxLoss', func='rotated_iou_loss', on='boxes', weight=2.,
                                            kwargs=dict(mode='linear'), mean=False)

def test_settings_win():
    m = create_detector('rtmdet_r_tiny', 2, backbone='test_resnet', fpn_channels=16, act='exp', strides=(8,16), score_thr=.3)
    assert m.recipe()['stages'][0]['coder']['act']=='exp' and m.stages[0].score_thr==.3 and m.backbone.strides==(8,16)
    with pytest.raises(ValueError, match='leave out norm'): create_detector('rtmdet_r_tiny', 2, norm=True)

def test_levels_keep_statistics_of_their_own():
    m = create_detector('rtmdet_r_tiny', 2, backbone='test_resnet', fpn_channels=16)
    t = dict(boxes=tensor([[30.,30.,20.,10.,.3]]), labels=tensor([0]))
    m(torch.randn(2,3,64,64), [t,t])
    means = [n[-1].running_mean for n in m.stages[0].cls_tower.norms]
    assert len(means)==3 and not any(torch.equal(a, b) for a,b in zip(means, means[1:]))
