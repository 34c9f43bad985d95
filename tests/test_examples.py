"Examples in docstrings are run"
import doctest, importlib
import pytest

@pytest.mark.parametrize('module,name', [('geometry.boxes','rbox2qbox'), ('ops.nms','nms_rotated'), ('models.contract','Detector'),
                                         ('models.dense_head','DenseHead')])
def test_example(module, name):
    module = importlib.import_module(f'rotnb.{module}')
    example, = doctest.DocTestFinder(recurse=False).find(getattr(module, name), name, globs=vars(module).copy())
    result = doctest.DocTestRunner().run(example)
    assert result.attempted and not result.failed, f'{result.failed} of {result.attempted} lines of the example of {name} fail'
