"The commands around a training, each for real on a small folder and with bad input"
import json, sys
import pytest
from rotnb.cli import rotnb
from rotnb.data.synth.scenes import make_synth

MODEL = 'rotated_fcos_tiny_synth'

@pytest.fixture(scope='module')
def data(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('set')/'set', n_train=2, n_valid=1, size=96)

@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['rotnb'])
    def run(*args):
        "Exit code, output and errors of `rotnb ...`"
        code = 0
        try: rotnb.main([*map(str, args)])
        except SystemExit as e: code = e.code or 0
        return code,*capsys.readouterr()
    return run

def leave_run(folder, *maps, lr=.1):
    "What a training leaves, as far as it is compared"
    folder.mkdir(parents=True)
    (folder/'settings.json').write_text(json.dumps(dict(detector=dict(name='fcos'), lr=lr)))
    rows = [f'{i},{2/i},{value}' for i,value in enumerate(maps, 1)]
    (folder/'history.csv').write_text('\n'.join(['epoch,valid_loss,mAP50',*rows])+'\n')

def test_validate(run, data, tmp_path):
    code,out,err = run('validate', MODEL, data, '--json', 'm.json', '--device', 'cpu')
    assert code==0 and 'AP50' in out and '1 images' in out, err
    assert json.loads((tmp_path/'m.json').read_text())

def test_train_and_what_follows(run, data, tmp_path, monkeypatch):
    monkeypatch.setenv('ROTNB_RUNS', str(tmp_path/'runs'))
    code,out,err = run('train', data, '--weights', MODEL, '--epochs', 1, '--bs', 2, '--size', 96, '--workers', 0, '--run', 'ships')
    assert code==0 and 'ships' in out, err
    kept = (tmp_path/'runs/ships/last.pth').read_bytes()
    assert {'recipe.json','train.json','history.csv','state.pth','predictor'}<={path.name for path in (tmp_path/'runs/ships').iterdir()}
    code,out,err = run('resume', 'ships')
    assert code==0 and '1 of 1 epochs are done' in out and (tmp_path/'runs/ships/last.pth').read_bytes()==kept, err
    assert run('recipe', 'runs/ships')[0]==0 and run('validate', 'runs/ships/predictor', data)[0]==0

def test_browse(run, data, tmp_path):
    code,out,_ = run('browse', data, '--no-show', '--doctor')
    assert code==0 and 'wrote browse.html' in out and '<html' in (tmp_path/'browse.html').read_text()[:400].lower()

def test_flops(run):
    code,out,_ = run('flops', 'rotated_fcos_tiny', '--size', '64', '--n-classes', 2)
    rows = {line.split()[0]:line.split()[1:] for line in out.splitlines()[1:]}
    assert code==0 and {*rows}=={'backbone','neck','heads','all'}
    assert abs(float(rows['all'][-1])-sum(float(rows[part][-1]) for part in ('backbone','neck','heads')))<.05

def test_weights(run):
    assert MODEL in run('weights')[1] and MODEL in run('weights', '*synth*')[1]
    code,out,_ = run('weights', MODEL, '--fetch')
    assert code==0 and out.strip().endswith(f'{MODEL}.safetensors')

def test_publish(run, tmp_path):
    code,out,_ = run('publish', MODEL, '--name', 'ships', '--licence', 'MIT', '--half')
    file, = tmp_path.glob('ships-*.safetensors')
    notes = json.loads(file.with_suffix('.json').read_text())
    assert code==0 and f'wrote {file.name}' in out and notes['licence']=='MIT' and notes['sha256'].startswith(file.stem[-8:])
    assert run('validate', file.name, 'none')[2].startswith('rotnb-validate: there is no none')         # the file opens

def test_compare(run, tmp_path):
    leave_run(tmp_path/'runs/a', .1, .3, .2)
    leave_run(tmp_path/'runs/b', .2, lr=.2)
    code,out,_ = run('compare', 'runs/a', 'runs/b')
    rows = {line.rsplit(None, 2)[0].strip():line.split()[-2:] for line in out.splitlines() if len(line.split())>2}
    assert code==0 and rows['best mAP50']==['0.3','0.2'] and rows['lr']==['0.1','0.2'] and 'detector.name' not in rows
    assert (tmp_path/'compare.png').stat().st_size>5000
    assert run('compare', 'runs', '--out', 'c.svg', '--columns', 'mAP50')[0]==0 and '<svg' in (tmp_path/'c.svg').read_text()

WRONG = {'there is no none':'validate MODEL none', 'no weights are called':'validate no_such DATA',
         'voc12':'validate MODEL DATA --protocol vooc',
         'would be replaced by':'browse DATA --out LABEL', 'there is no nowhere':'browse nowhere',
         '--n-images is 0':'browse DATA --n-images 0',
         'no such file':'flops none.onnx', '--size x':'flops rotated_fcos --size x', '--n-classes is 0':'flops rotated_fcos --n-classes 0',
         'no weights are called \'zzz\'':'weights zzz', 'name one':'weights * --fetch', 'without a folder':'publish MODEL --name a/b',
         'no such folder':'compare none', 'holds no epoch':'compare .', 'expected .png':'compare . --out x.txt',
         'did you mean --out':'compare . --uot x.png', 'did you mean \'compare\'':'comparre a b', 'lacks train.json':'resume .', 'says no detector':'train DATA'}

@pytest.mark.parametrize('said', WRONG)
def test_used_wrongly(run, data, tmp_path, said):
    "One line, exit code 2, and nothing written"
    label = next(data.rglob('*.txt'))
    args = [dict(MODEL=MODEL, DATA=data, LABEL=label).get(word, word) for word in WRONG[said].split()]
    code,_,err = run(*args)
    assert code==2 and said in err and err.startswith('rotnb') and err.count('\n')==1, err
    assert not [*tmp_path.iterdir()]
