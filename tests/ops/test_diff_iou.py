"Differentiable overlaps as a compiler sees them: dynamo looks for globals in the module where a function stands, so not in a notebook"
from functools import partial

import pytest, torch
from rotnb.ops.diff_iou import diff_iou_rotated

@pytest.mark.parametrize('mode', ['iou','giou','diou','ciou'])
def test_compiled_without_a_break(mode):
    g = torch.Generator().manual_seed(0)
    u = lambda lo,hi: torch.rand(4, 1, generator=g)*(hi-lo)+lo
    a = torch.cat([u(0,9),u(0,9),u(4,9),u(2,5),u(-1.5,1.5)], 1); b = a+.3
    compiled = torch.compile(partial(diff_iou_rotated, mode=mode), fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(a, b), diff_iou_rotated(a, b, mode), rtol=0, atol=1e-7)
