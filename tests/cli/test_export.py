"`rotnb`, `rotnb export` and `rotnb bench` on models, as they are typed"
import json, subprocess, sys
from types import ModuleType
import numpy as np, pytest
from PIL import Image
from rotnb.cli import bench, export, rotnb
from rotnb.cli.commands import UserError
from constant_files import WRITES, onnx_file
from source import settings

SCRIPTS = dict(entry.split('=') for entry in settings()['console_scripts'].split())
KNOWN = rotnb.COMMANDS

def run(capsys, *args):
    "Exit code, output and errors of `rotnb ...`"
    code = 0
    try: rotnb.main([*map(str, args)])
    except SystemExit as e: code = e.code or 0
    return code,*capsys.readouterr()

@pytest.fixture(autouse=True)
def argv(monkeypatch): monkeypatch.setattr(sys, 'argv', ['rotnb'])

# --- one command for all

def test_every_command_is_listed(capsys):
    code,out,_ = run(capsys)
    lines = {line.split()[0]:line for line in out.splitlines() if line.startswith('  ')}
    assert code==0 and {*lines}=={*KNOWN} and all(len(line.split())>3 for line in lines.values()) and '`' not in out
    assert run(capsys, '--help')[1]==out

def test_it_is_installed():
    "The older names are the same program"
    assert {*SCRIPTS.values()}=={'rotnb.cli.rotnb:main'} and {name.removeprefix('rotnb-') for name in SCRIPTS}<={'rotnb',*KNOWN}

@pytest.mark.parametrize('name', ['export','predict','bench'])
def test_it_runs_them(capsys, name):
    code,out,_ = run(capsys, name, '--help')
    assert code==0 and f'usage: rotnb-{name}' in out

def test_a_code_is_handed_on(capsys, tmp_path):
    code,_,err = run(capsys, 'predict', 'no_such_model', tmp_path)
    assert code==2 and err.startswith('rotnb-predict: no weights are called')

def test_a_name_that_is_none(capsys):
    code,_,err = run(capsys, 'exprot')
    assert code==2 and "no command 'exprot', did you mean 'export'" in err
    assert 'There are' in run(capsys, 'xyz')[2]

# --- export

@pytest.fixture
def writers(monkeypatch):
    "What would be written, without the minutes that it takes"
    calls = []
    def writer(name):
        def write(source, path, **options):
            calls.append((name, source, options))
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(b'')
            return path
        return write
    def quantize(file, images, out, precision):
        calls.append((precision, file, dict(images=images)))
        return out
    for target in export.TARGETS.values():
        module,name = target.function.split(':')
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
        fake = sys.modules[module]
        for other in export.TARGETS.values():
            if other.function.startswith(module+':'): setattr(fake, other.function.split(':')[1], writer(other.function.split(':')[1]))
    monkeypatch.setitem(sys.modules, 'rotnb.interop.quantize', ModuleType('rotnb.interop.quantize'))
    sys.modules['rotnb.interop.quantize'].quantize = quantize
    return calls

def test_what_is_asked_reaches_the_writer(writers, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ['--to', 'openvino', '--size', '320,256', '--dynamic', '--k', 50, '--score-thr', .2]
    code,out,err = run(capsys, 'export', 'rotated_fcos_tiny_synth', *asked)
    assert code==0 and out.strip()=='wrote rotated_fcos_tiny_synth.xml', err
    name,source,options = writers[0]
    assert name=='export_openvino' and options==dict(size=(320,256), dynamic=True, k=50, score_thr=.2)
    assert source.detector.name=='rotated_fcos_tiny'
    Image.new('RGB', (40,40)).save('a.png')
    assert run(capsys, 'export', 'rotated_fcos_tiny_synth', '--images', 'a.png', '--out', 'x/m.onnx')[0]==0
    assert np.array_equal(writers[1][2]['images'][0], np.zeros((40,40,3), np.uint8)) and (tmp_path/'x/m.onnx').exists()

def test_smaller_numbers(writers, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (40,40)).save('a.png')
    code,out,_ = run(capsys, 'export', 'rotated_fcos_tiny_synth', '--to', 'openvino', '--int8', 'a.png')
    assert code==0 and out.strip()=='wrote rotated_fcos_tiny_synth_int8.xml'
    assert [call[0] for call in writers]==['export_openvino','int8'] and [str(image) for image in writers[1][2]['images']]==['a.png']
    onnx_file(tmp_path/'one.onnx')
    assert run(capsys, 'export', 'one.onnx', '--half')[1].strip()=='wrote one_f16.onnx'
    assert writers[-1][:2]==('f16',(tmp_path/'one.onnx').relative_to(tmp_path))

def test_doors_take_what_they_need(writers, tmp_path, capsys, monkeypatch):
    "An exported file goes as it is where one is needed, and is made where it is not there"
    monkeypatch.chdir(tmp_path)
    onnx_file(tmp_path/'one.onnx')
    for to,first in (('triton','triton_folder'), ('page','export_page'), ('torchserve','torchserve_archive'), ('docker','docker_folder')):
        assert run(capsys, 'export', 'one.onnx', '--to', to, '--out', f'{to}_out')[0]==0
        name,source,_ = writers[-1]
        assert name==first and (hasattr(source, 'fit') if to in ('torchserve','docker') else source.name=='one.onnx')
    del writers[:]
    assert run(capsys, 'export', 'rotated_fcos_tiny_synth', '--to', 'triton')[1].strip()=='wrote rotated_fcos_tiny_synth_triton'
    assert [call[0] for call in writers]==['export_onnx','triton_folder'] and writers[1][1].suffix=='.onnx'

WRONG = {'--to tflite: expected one of onnx':'m --to tflite', 'one of them':'m --half --int8 x', 'no weights are called':'no_such_model',
         'expected px':'rotated_fcos_tiny_synth --size 1,2,3', 'no such file':'none.onnx',
         'are for --to onnx':'rotated_fcos_tiny_synth --to pt2 --half', 'is an exported file':'one.onnx --out x.onnx',
         'is the model itself':'one.onnx --half --out one.onnx'}

@pytest.mark.parametrize('said', WRONG)
def test_used_wrongly(writers, tmp_path, capsys, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    onnx_file(tmp_path/'one.onnx')
    before = {file:file.read_bytes() for file in tmp_path.rglob('*')}
    code,_,err = run(capsys, 'export', *WRONG[said].split())
    assert code==2 and err.startswith('rotnb-export: ') and said in err and err.count('\n')==1, err
    assert not writers and before=={file:file.read_bytes() for file in tmp_path.rglob('*')}

def test_a_package_that_is_not_there(capsys, monkeypatch, tmp_path):
    "Says what to install, in a line"
    file = onnx_file(tmp_path/'one.onnx')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    code,_,err = run(capsys, 'predict', file, tmp_path)
    assert code==2 and err.strip()=="rotnb-predict: onnxruntime is not installed; rotnb's extra 'onnx' brings it: pip install onnxruntime"

# --- bench

def test_models_side_by_side(capsys, tmp_path):
    files = [write(tmp_path/f'one{ending}') for ending,write in WRITES.items()]
    Image.new('RGB', (64,48)).save(tmp_path/'a.png')
    code,out,err = run(capsys, 'bench', *files, '--images', tmp_path/'a.png', '--runs', 2, '--json', tmp_path/'raw.json')
    assert code==0, err
    raw = json.loads((tmp_path/'raw.json').read_text())
    assert [row['runs_on'] for row in raw['rows']]==['ONNX Runtime','OpenVINO','torch'] and raw['rows'][0]['ratio']==1
    assert all(row['boxes']==row['both']==2 and row['far']<1e-3 and row['seconds']>0 for row in raw['rows'])
    assert all(name in out for name in ('one.onnx','one.xml','one.pt2','of the first'))

def test_models_that_differ(tmp_path, capsys):
    raw = bench.run_models([str(onnx_file(tmp_path/'one.onnx')), str(onnx_file(tmp_path/'other.onnx', found=1))], runs=1)
    assert [row['boxes'] for row in raw['rows']]==[8,4] and raw['rows'][1]['both']==4

@pytest.mark.parametrize('said,what', [('measured alone', ['iou','one.onnx']), ('each model once', ['a','a'])])
def test_what_cannot_be_measured(said, what):
    with pytest.raises(UserError, match=said): bench.run_bench(what)
