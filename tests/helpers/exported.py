"A small trained detector as files of other runtimes, made once in a run of the tests, whichever of its processes asks first"
import os
import pytest
from rotnb.data.labels.atomic import file_lock
from rotnb.interop.export import export_onnx, export_openvino, export_pt2
from rotnb.predict.load import load_weights

WRITERS = {'.onnx':export_onnx, '.xml':export_openvino, '.pt2':export_pt2}

def tiny_predictor(**kw):
    "Ten classes of synthetic scenes; images are fitted into 192 x 160 px"
    return load_weights('rotated_fcos_tiny_synth', **{**dict(size=(192,160)), **kw})

@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    "`exported(suffix='.onnx', dynamic=False)` -> the file of `tiny_predictor()`"
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base)/'exported'
    folder.mkdir(exist_ok=True)
    def file(suffix='.onnx', dynamic=False):
        path = folder/f"tiny{'_any' if dynamic else ''}{suffix}"
        with file_lock(folder/f'{path.name}.lock', wait=600):
            if not path.exists(): WRITERS[suffix](tiny_predictor(), path, dynamic=dynamic, check=False)
        return path
    return file
