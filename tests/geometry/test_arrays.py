"Formulas give arrays what they give tensors, and are exported for any number of boxes"
import numpy as np, pytest, torch
from rotnb.geometry.boxes import canonicalize, qbox2rbox, rbox2hbox, rbox2qbox
from rotnb.geometry.polygons import convex_hull, min_area_rect, polygon_area
from rotnb.geometry.visible import clip_to_frame, visible_fraction

BOXES = np.random.default_rng(0).uniform(1, 80, (50,5))
QUADS = rbox2qbox(torch.from_numpy(BOXES)).numpy()

@pytest.mark.parametrize('f,x,apart', [(rbox2qbox,BOXES,1e-12), (canonicalize,BOXES,0), (rbox2hbox,BOXES,1e-12), (qbox2rbox,QUADS,1e-9),
    (polygon_area,QUADS,1e-9), (convex_hull,QUADS,0), (visible_fraction,QUADS/60,1e-6), (clip_to_frame,QUADS/60,1e-9)])
def test_arrays_are_tensors(f, x, apart):
    ours,theirs = f(x),f(torch.from_numpy(x)).numpy()
    assert isinstance(ours, np.ndarray) and ours.dtype==theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=apart)

@pytest.mark.parametrize('f,x', [(rbox2qbox,BOXES), (qbox2rbox,QUADS), (convex_hull,QUADS), (min_area_rect,QUADS)])
def test_any_number_is_exported(f, x):
    class Module(torch.nn.Module):
        def forward(self, x): return f(x)
    x = torch.from_numpy(x)
    made = torch.export.export(Module(), (x,), dynamic_shapes=({0:torch.export.Dim('n', min=2)},)).module()
    torch.testing.assert_close(made(x[:9]), f(x[:9]))
