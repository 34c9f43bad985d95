"O2-RTDETR's files, by made-up weights in the names that ai4rs (Apache 2.0) gives the layers of its configuration for r18"
import re
import pytest, torch
from rotnb.interop.rtdetr_files import detector_from_set, find_set
from rotnb.models.files import WeightsError
from rotnb.models.weights import detector_from_weights
from rotnb.predict.load import load_weights
from formula import formula_image, formula_value

WIDE,HIDDEN,STAGES,K = 32,48,2,4

def norm(name, n):
    return {**{f'{name}.{part}':(n,) for part in ('weight','bias','running_mean','running_var')}, f'{name}.num_batches_tracked':()}
def conv(name, nf, ni, ks, bn=None): # bn: its norm, where that does not stand beside it
    return {f'{name}.weight' if bn else f'{name}.conv.weight':(nf,ni,ks,ks), **norm(bn or f'{name}.bn', nf)}
def linear(name, nf, ni): return {f'{name}.weight':(nf,ni), f'{name}.bias':(nf,)}
def layer_norm(name): return {f'{name}.{part}':(WIDE,) for part in ('weight','bias')}

def body():
    res = {}
    for at,nf,ni in ((0,32,3),(3,32,32),(6,64,32)): res |= conv(f'backbone.stem.{at}', nf, ni, 3, f'backbone.stem.{at+1}')
    for i,ni,nf in ((1,64,64),(2,64,128),(3,128,256),(4,256,512)):
        for j in range(2):
            for k in (1,2):
                name = f'backbone.layer{i}.{j}'
                res |= conv(f'{name}.conv{k}', nf, ni if (j,k)==(0,1) else nf, 3, f'{name}.bn{k}')
        at = int(i>1)                                                         # a mean stands before it where it strides
        res |= conv(f'backbone.layer{i}.0.downsample.{at}', nf, ni, 1, f'backbone.layer{i}.0.downsample.{at+1}')
    return res

def block(name):
    mid = WIDE//2
    res = {**conv(f'{name}.main_conv', mid, 2*WIDE, 1), **conv(f'{name}.short_conv', mid, 2*WIDE, 1),
           **conv(f'{name}.final_conv', WIDE, mid, 1)}
    for i in range(3):
        for part,ks in (('rbr_dense',3),('rbr_1x1',1)): res |= conv(f'{name}.blocks.{i}.{part}', mid, mid, ks)
    return res

def attends(name, norms):
    attn = f'{name}.self_attn.attn'
    res = {f'{attn}.in_proj_weight':(3*WIDE,WIDE), f'{attn}.in_proj_bias':(3*WIDE,), **linear(f'{attn}.out_proj', WIDE, WIDE)}
    for i in range(norms): res |= layer_norm(f'{name}.norms.{i}')
    return {**res, **linear(f'{name}.ffn.layers.0.0', HIDDEN, WIDE), **linear(f'{name}.ffn.layers.1', WIDE, HIDDEN)}

def shapes():
    res = body()
    for i,ni in enumerate((128,256,512)):
        res |= conv(f'neck.convs.{i}', WIDE, ni, 1)|conv(f'encoder.fpn.out_convs.{i}', WIDE, WIDE, 1)
    for i in range(2):
        res |= conv(f'encoder.fpn.reduce_layers.{i}', WIDE, WIDE, 1)|conv(f'encoder.fpn.downsamples.{i}', WIDE, WIDE, 3)
        res |= block(f'encoder.fpn.top_down_blocks.{i}')|block(f'encoder.fpn.bottom_up_blocks.{i}')
    res |= attends('encoder.transformer_blocks.0.layers.0', 2)
    for i in range(STAGES):
        name = f'decoder.layers.{i}'
        res |= attends(name, 3)
        for part,n in dict(sampling_offsets=2*8*3*4, attention_weights=8*3*4, value_proj=WIDE, output_proj=WIDE).items():
            res |= linear(f'{name}.cross_attn.{part}', n, WIDE)
    res |= linear('decoder.ref_point_head.layers.0', 2*WIDE, 5)|linear('decoder.ref_point_head.layers.1', WIDE, 2*WIDE)
    for i in range(STAGES+1):
        res |= linear(f'bbox_head.cls_branches.{i}', K, WIDE)
        for j,nf in ((0,WIDE),(2,WIDE),(4,5)): res |= linear(f'bbox_head.reg_branches.{i}.{j}', nf, WIDE)
    return res|linear('memory_trans_fc', WIDE, WIDE)|layer_norm('memory_trans_norm')|{'dn_query_generator.label_embedding.weight':(K,WIDE)}

@pytest.fixture(scope='module')
def theirs(): return {key:torch.tensor(formula_value(key, shape)) for key,shape in shapes().items()}

def test_every_layer_has_its_place(theirs):
    "What centre and sides have is taken of layers that say boxes or are told them, all else whole, and nothing is left over"
    with pytest.warns(UserWarning, match='O2-RTDETR, to be trained; new in it: the angle'): model = detector_from_set(theirs)
    assert (model.name,model.angle,model.n_classes,model.channels,len(model.stages))==('rtdetr_r18','le90',K,'bgr',STAGES+1)
    own = model.state_dict()
    def same(ours, key, rows=slice(None)): assert torch.equal(own[ours], theirs[key][rows]), (ours,key)
    same('backbone.body.conv1.3.weight', 'backbone.stem.3.weight'); same('backbone.body.bn1.bias', 'backbone.stem.7.bias')
    same('backbone.body.layer1.0.downsample.2.bias', 'backbone.layer1.0.downsample.1.bias')
    same('backbone.body.layer2.0.downsample.1.weight', 'backbone.layer2.0.downsample.1.weight')
    same('neck.entry_layer.0.conv.weight', 'neck.convs.2.conv.weight'); same('neck.lateral_layers.1.bn.bias', 'neck.convs.1.bn.bias')
    same('neck.top_down_blocks.1.blocks.2.conv_kxk.conv.weight', 'encoder.fpn.top_down_blocks.1.blocks.2.rbr_dense.conv.weight')
    same('neck.bottom_up_blocks.0.last.bn.bias', 'encoder.fpn.bottom_up_blocks.0.final_conv.bn.bias')
    attn = 'encoder.transformer_blocks.0.layers.0.self_attn.attn'
    same('neck.entry_layer.1.attention.key.weight', f'{attn}.in_proj_weight', slice(WIDE, 2*WIDE))
    same('stages.2.attention.out.bias', 'decoder.layers.1.self_attn.attn.out_proj.bias')
    same('stages.2.look.offsets.weight', 'decoder.layers.1.cross_attn.sampling_offsets.weight')
    same('stages.0.cls.weight', f'bbox_head.cls_branches.{STAGES}.weight')
    same('stages.1.box.2.weight', 'bbox_head.reg_branches.0.2.weight')
    same('stages.0.memory.1.bias', 'memory_trans_norm.bias')
    assert torch.equal(own['stages.2.box.4.weight'][:4], theirs['bbox_head.reg_branches.1.4.weight'][:4])
    assert torch.equal(own['stages.1.position.0.weight'][:,:4], theirs['decoder.ref_point_head.layers.0.weight'][:,:4])
    assert torch.equal(own['stages.1.embed.weight'][:K], theirs['dn_query_generator.label_embedding.weight'])
    assert all(one['boxes'].isfinite().all() for one in model(torch.tensor(formula_image(64))))

def test_a_file_is_a_start_and_no_detector(theirs, tmp_path, capsys):
    file = tmp_path/'o2.pth'
    torch.save(dict(meta={}, state_dict=theirs), file)
    begun = detector_from_weights(file, list('abcd'), heading=True)
    assert begun.name=='rotated_rtdetr_r18' and begun.stages[-1].heading and 'taken from O2-RTDETR' in capsys.readouterr().out
    assert torch.equal(begun.stages[2].norm_look.weight, theirs['decoder.layers.1.norms.1.weight'])
    with pytest.raises(WeightsError, match='to be trained'): load_weights(file)

def test_sizes_that_are_not_known(theirs):
    assert find_set(theirs).start and find_set({'a':torch.zeros(1)}) is None
    with pytest.raises(WeightsError, match='none of the sizes'):
        find_set({key:value for key,value in theirs.items() if not re.match(r'backbone\.layer3\.1', key)})
