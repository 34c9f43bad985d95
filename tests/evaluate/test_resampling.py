"Intervals and paired comparison"
import numpy as np, pytest
from rotnb.evaluate import APAccumulator
from rotnb.evaluate.resampling import compare_runs
from rotnb.evaluate.matching import match
from detections import accumulate, scenes


def test_bootstrap():
    ps,ts = scenes(12)
    acc = accumulate(ps, ts); b = acc.bootstrap((.5,.75), n=300)
    np.testing.assert_allclose(b.estimate, acc.compute((.5,.75)).ap)
    lo,hi = b.interval(); wide = b.interval(.99)
    assert wide[0]<=lo<b.map<hi<=wide[1] and lo<hi
    same = accumulate(ps[:1]*8, ts[:1]*8).bootstrap(n=50)
    np.testing.assert_allclose(same.maps, same.map)             # nothing to be unsure of
    assert set(b.intervals())=={'0','1','2'}
    with pytest.raises(ValueError, match='no images'): APAccumulator(1).bootstrap()

def test_compare_runs_is_paired():
    ps,ts = scenes(12)
    a,b = accumulate(ps, ts),accumulate([{**p, 'scores':p['scores']/2} for p in ps], ts)
    d = compare_runs(a, b, n=50)
    assert d.map==0 and (d.maps==0).all()
    worse = accumulate([{**p, 'labels':(p['labels']+1)%3} for p in ps], ts)
    assert compare_runs(a, worse, n=50).interval()[1]<0
    with pytest.raises(ValueError, match='same images'): compare_runs(a, accumulate(ps[::-1], ts[::-1]))
