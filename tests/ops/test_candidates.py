"What the last bit of a score decides: nothing"
import pytest, torch
from rotnb.ops.candidates import best_of, steps, top_scores

def crowd(n=400, seed=0):
    "Boxes that overlap, with few values of scores and a class each; and the same scores as another runtime rounds them"
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(n, 5, generator=g)*torch.tensor([120,120,30,20,3.])+torch.tensor([0,0,4,4,-1.5])
    scores,labels = torch.randint(1, 9, (n,), generator=g)/10,torch.randint(2, (n,), generator=g)
    return boxes,scores,labels,scores+(torch.rand(n, generator=g)-.5)*4e-7

@pytest.mark.parametrize('quads', [False, True])
def test_nms_keeps_the_same_of_near_equals(quads):
    from rotnb.geometry.boxes import rbox2qbox
    boxes,scores,labels,noisy = crowd()
    corners = rbox2qbox(boxes).view(-1, 4, 2) if quads else None
    a,b = (best_of(boxes, s, labels, corners, .1, 30) for s in (scores,noisy))
    assert {tuple(o) for o in a['boxes'].tolist()}=={tuple(o) for o in b['boxes'].tolist()} and len(a['boxes'])==30
    assert all((o['scores'].diff()<=0).all() for o in (a,b)) and not torch.equal(a['scores'], b['scores'])

def test_the_same_candidates_of_near_equals():
    _,scores,_,noisy = crowd()
    assert torch.equal(*(top_scores(steps(s)[None], 150)[1] for s in (scores,noisy)))
    assert not torch.equal(*(top_scores(s[None], 150)[1] for s in (scores,noisy)))

def test_what_is_no_candidate_stays_none():
    assert (steps(torch.tensor([-1.,0.,1e-9]))<0).tolist()==[True,False,False] and steps(torch.tensor(torch.nan)).isnan()
