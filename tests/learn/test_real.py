"Real images: the four training tiles of DOTA8 at 512 px, learnt by heart"
import pytest
from paths import SHARED

pytestmark = pytest.mark.skipif(not (SHARED/'data/dota8').exists(), reason='the reference folder shared/data is not here')

@pytest.mark.slow
def test_dota8_by_heart(tmp_path):
    from rotnb.all import RotatedDataLoaders, rotated_learner, set_seed
    set_seed(0)
    dls = RotatedDataLoaders.from_yolo_obb(SHARED/'data/dota8', size=512, bs=2, batch_tfms=[], num_workers=0)
    learn = rotated_learner(dls, 'rotated_fcos_tiny', pretrained=False, path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(150, 3e-3)
        learn.validate(dl=dls.train.new(shuffle=False, drop_last=False))
    result = learn.metrics[0].compute()
    print(result)
    assert result.map >= .9
