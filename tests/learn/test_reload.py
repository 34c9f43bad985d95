"What stands in front of a method of fastai's finds that behind it, also where a module runs a second time, as in its own notebook"
from importlib.util import module_from_spec, spec_from_file_location
import pytest
from fastai.learner import Learner
import rotnb.learn.describe, rotnb.learn.tta

@pytest.mark.parametrize('module,name', [(rotnb.learn.describe,'summary'), (rotnb.learn.tta,'tta')])
def test_fastais_method_is_behind_ours(module, name):
    behind,ours = getattr(module, f'_fastai_{name}'),dict(vars(Learner))
    assert behind.__module__.startswith('fastai.')
    spec = spec_from_file_location('rotnb.learn.again', module.__file__)
    again = module_from_spec(spec)
    try:
        spec.loader.exec_module(again)
        assert getattr(again, f'_fastai_{name}') is behind and getattr(Learner, name) is not ours[name]
    finally:
        for key,value in ours.items():
            if vars(Learner)[key] is not value: setattr(Learner, key, value)
