"Winograd's convolution beside torch's, on maps and numbers of all sorts"
import numpy as np, pytest, torch
import torch.nn.functional as F
from rotnb.ops import winograd
from rotnb.ops.winograd import winograd_conv, winograd_weight

def both(b, c, o, h, w, relu=False, bias=True):
    torch.manual_seed(c*o+h)
    x,weight,bias = torch.randn(b, c, h, w),torch.randn(o, c, 3, 3)/(9*c)**.5,torch.randn(o) if bias else None
    truth = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    return winograd_conv(x, winograd_weight(weight), bias, relu),truth.relu() if relu else truth

SIZES = [(1,1,1,1,1), (1,3,5,2,9), (2,64,80,16,16), (3,70,7,41,30), (1,96,96,80,17), (1,8,8,4,4), (1,8,8,5,3)]

@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('relu,bias', [(False,True), (True,True), (False,False)])
def test_the_same_as_torch(size, relu, bias):
    ours,truth = both(*size, relu, bias)
    assert ours.shape==truth.shape and ours.dtype==torch.float32
    assert (ours-truth).abs().max()<1e-5*max(1., truth.abs().max().item())

def test_the_order_of_memory_does_not_matter():
    x,weight = torch.randn(2, 64, 24, 31),winograd_weight(torch.randn(66, 64, 3, 3))
    ours = winograd_conv(x, weight)
    assert torch.equal(ours, winograd_conv(x.contiguous(memory_format=torch.channels_last), weight))
    assert torch.equal(ours, winograd_conv(x.transpose(2, 3).contiguous().transpose(2, 3), weight))
    assert ours.is_contiguous(memory_format=torch.channels_last)

def test_nan_stays_where_it_reaches():
    "Through the rectifier as well: a broken network is not to look sound"
    x = torch.zeros(1, 64, 20, 20)
    x[0,3,10,10] = np.nan
    ours = winograd_conv(x, winograd_weight(torch.ones(64, 64, 3, 3)), relu=True)
    assert ours[0,:,9:12,9:12].isnan().all() and not ours[0,:,:4,:4].isnan().any()

def test_threads_give_the_same(monkeypatch):
    x,weight,bias = torch.randn(2, 64, 40, 40),winograd_weight(torch.randn(64, 64, 3, 3)),torch.randn(64)
    found = []
    for shared in (False,True):
        monkeypatch.setattr(winograd, 'may_parallel', lambda n, least=0: shared)
        monkeypatch.setattr(winograd.numba, 'get_num_threads', lambda: 2)
        found.append(winograd_conv(x, weight, bias, True))
    assert torch.equal(*found)
