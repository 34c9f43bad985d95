"Smaller files keep the boxes, or are not kept"
import shutil
import numpy as np, pytest
import rotnb.interop.quantize as mod
from rotnb.data.labels.records import Annot
from rotnb.data.synth.scenes import make_scene
from rotnb.interop.export_module import ExportError
from rotnb.interop.quantize import quantize
from rotnb.interop.runtime import ExportedDetector

def records(n, first=300):
    scenes = [make_scene(first+i, 192) for i in range(n)]
    return [Annot(image, quads, list(names), difficult.astype(int)) for image,quads,names,difficult in scenes]

def test_sixteen_bits(exported, tmp_path, capsys):
    onnx = pytest.importorskip('onnx')
    small = quantize(exported(), records(2), tmp_path/'small.onnx', 'f16')
    assert small.stat().st_size<.75*exported().stat().st_size
    assert ExportedDetector(small).notes=={**ExportedDetector(exported()).notes, 'precision':'f16'}
    assert ' 0 lost, 0 new' in capsys.readouterr().out
    assert {o.domain for o in onnx.load(small).opset_import}=={''}

def test_a_file_that_loses_boxes_is_not_kept(exported, tmp_path, monkeypatch):
    onnx = pytest.importorskip('onnx')
    def worse(made, out, xs):
        model = onnx.load(str(made))
        for weight in model.graph.initializer:                                  # as if there were three steps for all
            if weight.data_type!=1 or len(weight.raw_data)<1024: continue
            weight.CopyFrom(onnx.numpy_helper.from_array(np.round(onnx.numpy_helper.to_array(weight)), weight.name))
        onnx.save(model, str(out))
    monkeypatch.setitem(mod._WAYS, ('.onnx','int8'), worse)
    with pytest.raises(ExportError, match='loses boxes'): quantize(exported(), records(2), tmp_path/'small.onnx')
    assert not list(tmp_path.iterdir())

@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.xml','.onnx'])
def test_eight_bits(exported, tmp_path, suffix, capsys):
    source = tmp_path/f'm{suffix}'
    for own in {suffix,'.bin'} if suffix=='.xml' else {suffix}: shutil.copy(exported(suffix).with_suffix(own), source.with_suffix(own))
    small = quantize(source, records(16))
    said = capsys.readouterr().out
    assert small.name==f'm_int8{suffix}' and 'mAP50:95' in said
    assert ExportedDetector(small).notes['precision']=='int8'
