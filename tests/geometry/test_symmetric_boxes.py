"What the angle of a class means: numbers by class, folded differences, boxes that mean one object"
import math
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from rotnb.check.values import ArgumentError
from rotnb.geometry.symmetry import class_periods, fold_angle, guess_classes, is_square, named_symmetry, nearest_twin, upright_round

NAMES = ['plane','court','hall','tank']
periods = st.sampled_from([360,180,90])
angles = st.floats(-20, 20)

@pytest.mark.parametrize('said,want', [(None,[180]*4), (90,[90]*4), ('round',[0]*4), ({'tank':'round','plane':360},[360,180,180,0]),
                                       ([360,180,90,0],[360,180,90,0]), (np.array([360,180,90,0]),[360,180,90,0])])
def test_a_symmetry_as_numbers_and_by_name(said, want):
    assert class_periods(said, NAMES).tolist()==want
    assert class_periods(named_symmetry(said, NAMES), NAMES).tolist()==want

@pytest.mark.parametrize('said,error', [({'shop':90},"unknown classes \\['shop'\\]: there are"), (45,'not 45'), ('circle',"not 'circle'"),
                                        ({'tank':True},'not True'), ([90,180],'of 2 classes, and there are 4'), (object(),'expected 360')])
def test_a_wrong_symmetry_is_refused(said, error):
    with pytest.raises((ValueError,ArgumentError), match=error): class_periods(said, NAMES)

@given(angles, periods, st.integers(-5, 5))
def test_turns_that_nobody_sees_change_nothing(theta, period, turns):
    one,two = (float(fold_angle(np.array(t), np.array(period))) for t in (theta, theta+turns*math.radians(period)))
    half = math.radians(period)/2
    assert -half-1e-9<=one<half+1e-9
    assert min(abs(one-two), 2*half-abs(one-two))<1e-6
    assert float(fold_angle(torch.tensor(theta, dtype=torch.float64), torch.tensor(period)))==pytest.approx(one, abs=1e-9)
    assert fold_angle(np.array(theta), np.array(0))==0

@given(angles, angles, st.floats(1, 1.19), st.floats(1, 100))
def test_a_round_box_is_one_box(theta, other, ratio, side):
    one,two = (np.array([30., 40, side*ratio, side, t]) for t in (theta, other))
    np.testing.assert_array_equal(upright_round(one, np.array(0)), upright_round(two, np.array(0)))
    np.testing.assert_array_equal(upright_round(one, np.array(90)), one)
    upright = upright_round(one, np.array(0))
    np.testing.assert_allclose(upright_round(upright, np.array(0)), upright)
    assert upright[2]*upright[3]==pytest.approx(side*side*ratio) and upright[4]==0

def test_a_cut_tank_keeps_its_angle():
    cut = np.array([30., 40, 30, 20, .5])
    np.testing.assert_array_equal(upright_round(cut, np.array(0)), cut)
    np.testing.assert_array_equal(nearest_twin(cut+1, cut, np.array(0)), cut)
    assert not is_square(np.array([0., 0, np.nan, 3, 0])) and not is_square(np.zeros(5))

@given(angles, st.floats(-2, 2), periods)
def test_torch_and_numpy_agree_on_twins(theta, said, period):
    box,pred = np.array([[9., 8, 7, 6.5, theta]]*2),np.array([[9., 8, 7, 6.5, said]]*2)
    period = np.array([period,0])
    got = nearest_twin(torch.from_numpy(pred), torch.from_numpy(box), torch.from_numpy(period))
    np.testing.assert_allclose(got.numpy(), nearest_twin(pred, box, period), atol=1e-9)
    assert got[1,4]==said

@pytest.mark.parametrize('square,upright,others,want', [(1,1,0,'round'), (1,0,0,90), (1,1,1,90), (.7,1,0,None)])
def test_guesses(square, upright, others, want):
    rng = np.random.default_rng(3)
    def boxes(share_square, share_upright, long): # of 100
        sides = np.where(np.arange(100)<100*share_square, 1., .6)*long
        theta = np.where(np.arange(100)<100*share_upright, 0., rng.uniform(.1, 1.4, 100))
        return np.stack([*rng.uniform(0, 900, (2,100)), np.full(100, 30.), 30*sides, theta], 1)
    found = guess_classes(np.concatenate([boxes(square, upright, 1), boxes(0, others, .5)]), np.repeat([0,1], 100), ['tank','court'])
    assert {name:guess.symmetry for name,guess in found.items()}==({'tank':want} if want else {})
    assert all('w = h' in guess.reason and '100' in guess.reason for guess in found.values())
