"What stands in front of a method of fastai's finds that behind it, also where a module runs a second time, as in its own notebook"
from importlib import reload
import pytest
from fastai.learner import Learner
import rotnb.learn.describe, rotnb.learn.tta

@pytest.mark.parametrize('module,name', [(rotnb.learn.describe,'summary'), (rotnb.learn.tta,'tta')])
def test_fastais_method_is_behind_ours(module, name):
    behind = getattr(module, f'_fastai_{name}')
    assert behind.__module__.startswith('fastai.')
    reload(module)
    assert getattr(module, f'_fastai_{name}') is behind and getattr(Learner, name) is not behind
