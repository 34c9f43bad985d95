"Files of tensors with bytes swapped: what opens them gives what was written, or says that they are damaged"
import functools, os, pickle, subprocess, sys
from pathlib import Path
from types import SimpleNamespace as NS
import numpy as np, pytest, torch
from rotnb.models.backbones import TimmBackbone
from rotnb.models.files import DamagedFile, check_sums, load_tensors
from rotnb.interop.imagenet import load_backbone
from rotnb.interop.mmrotate import WeightsError, read_checkpoint
from rotnb.learn.callbacks import Checkpoint, CheckpointError

def swapped(b, seed):
    "Two bytes that differ, exchanged"
    r = np.random.RandomState(seed); b = bytearray(b)
    i,j = r.randint(len(b), size=2)
    while b[i]==b[j]: i,j = r.randint(len(b), size=2)
    b[i],b[j] = b[j],b[i]
    return bytes(b)

def same(a, b):
    if isinstance(a, dict): return list(a)==list(b) and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if torch.is_tensor(a) else a==b

SD = dict(state_dict={'backbone.conv1.weight':torch.randn(64,3,7,7, generator=torch.Generator().manual_seed(0)),
                      'neck.x':torch.arange(9.)}, meta=dict(cfg='a = 1'))
CK = dict(model=SD['state_dict'], opt={}, fit=0, epoch=1, n_epoch=2, curves={}, trackers={})
READERS = dict(weights=(SD, lambda f: read_checkpoint(f), lambda: read_checkpoint(SD), WeightsError),
               checkpoint=(CK, lambda f: Checkpoint._read(NS(path=f, dls=NS(device='cpu'))), lambda: CK, CheckpointError))

@pytest.mark.parametrize('kind', READERS)
@pytest.mark.parametrize('zipped', [True,False])
def test_swapped_bytes(kind, zipped, tmp_path):
    "200 files: only what was written loads, but for the format before torch 1.6, which has no checksums; every error has its name"
    state,read,want,error = READERS[kind]
    f = tmp_path/'a.pth'; torch.save(state, f, _use_new_zipfile_serialization=zipped); whole,other = f.read_bytes(),0
    for seed in range(100):
        f.write_bytes(swapped(whole, seed))
        try: got = read(f)
        except error: continue
        other += not all(same(a, b) for a,b in zip(*(o if isinstance(o, tuple) else (o,) for o in (got, want()))))
    f.write_bytes(whole); read(f)
    assert not zipped or other==0

def test_a_classifier_and_a_learner(tmp_path):
    body = TimmBackbone('test_resnet')
    f = tmp_path/'r.pth'; torch.save(body.body.state_dict(), f)
    b = bytearray(f.read_bytes()); b[len(b)//2] ^= 1; f.write_bytes(b)
    with pytest.raises(WeightsError, match='damaged'): load_backbone(body, f)
    from rotnb.learn.learner import open_learner
    with pytest.raises(ValueError, match='damaged'): open_learner(f, 'cpu')

def test_what_has_no_sums_is_let_through(tmp_path):
    f = tmp_path/'a'; f.write_bytes(b'no archive'); check_sums(f)
    with pytest.raises(Exception): load_tensors(f)
    with pytest.raises(FileNotFoundError): read_checkpoint(tmp_path/'none.pth')
    f.write_bytes(b'PK\x03\x04 and nothing more')
    with pytest.raises(DamagedFile): check_sums(f)

# --- objects that are neither tensors nor plain data

class LossHistory:
    "Pickled with a state, as MMEngine's `HistoryBuffer` is; whoever unpickled it for real would be noticed"
    revived = []
    def __init__(self): self.values = np.arange(3.)
    def __setstate__(self, state): LossHistory.revived.append(state)

def mmengine_layout(classes=('plane','small-vehicle')):
    "What `mmengine.runner.Runner.save_checkpoint` writes (0.10): weights beside the message hub's history, numpy numbers, EMA"
    weights = {f'backbone.layer{i}.weight':torch.full((2,2), float(i)) for i in range(3)}
    return dict(meta=dict(epoch=36, iter=9, cfg='model = dict()', seed=None, experiment_name='x', dataset_meta=dict(classes=classes),
                          mmengine_version='0.10.7'),
                state_dict=weights, ema_state_dict={'steps':torch.tensor(9), **{f'module.{k}':w+1 for k,w in weights.items()}},
                message_hub=dict(log_scalars={'train/loss':LossHistory()}, runtime_info=dict(loss=np.float64(.5)), resumed_keys={}))

@pytest.mark.parametrize('zipped', [True,False])
def test_checkpoints_with_a_history_open_and_revive_nothing(zipped, tmp_path):
    f = tmp_path/'epoch_36.pth'
    torch.save(mmengine_layout(), f, _use_new_zipfile_serialization=zipped)
    weights,meta = read_checkpoint(f)
    assert {k:float(w.mean()) for k,w in weights.items()}=={f'backbone.layer{i}.weight':float(i) for i in range(3)}
    assert meta['dataset_meta']['classes']==('plane','small-vehicle') and not LossHistory.revived
    with pytest.raises(pickle.UnpicklingError, match='LossHistory'): load_tensors(f)                  # our own files hold no such thing

def test_what_would_run_is_inert_or_refused(tmp_path):
    f = tmp_path/'a.pth'
    torch.save(dict(state_dict={'w':torch.ones(2)}, hook=functools.partial(print)), f)
    assert list(read_checkpoint(f)[0])==['w']
    torch.save(dict(state_dict={'w':torch.ones(2)}, cwd=os.getcwd), f)                           # of a module that torch never names
    with pytest.raises(WeightsError, match='getcwd.* not opened'): read_checkpoint(f)
    torch.save(dict(state_dict={'w':torch.ones(2), 'strange':functools.partial(print)}), f)
    assert list(read_checkpoint(f)[0])==['w']

@pytest.mark.tools
def test_a_file_of_mmengine_itself(tmp_path):
    "Saved by MMEngine 0.10.7's own Runner in an environment of its own"
    env = tmp_path/'env'
    run = lambda *args: subprocess.run(args, check=True, capture_output=True, text=True)
    run(sys.executable, '-m', 'venv', str(env))
    run(str(env/'bin/pip'), 'install', '-q', 'mmengine==0.10.7', 'opencv-python-headless')
    site = next((env/'lib').glob('python*/site-packages'))
    (site/'torch.pth').write_text(str(Path(torch.__file__).parents[1]))
    run(str(env/'bin/python'), '-c', f"""
import torch
from torch.utils.data import Dataset
from mmengine.model import BaseModel
from mmengine.runner import Runner
class Net(BaseModel):
    def __init__(self): super().__init__(); self.lin = torch.nn.Linear(2, 1)
    def forward(self, x, mode='loss'): return dict(loss=self.lin(x).mean())
class Data(Dataset):
    metainfo = dict(classes=('plane','ship'))
    def __len__(self): return 4
    def __getitem__(self, i): return dict(x=torch.ones(2))
loader = dict(batch_size=2, dataset=Data(), sampler=dict(type='DefaultSampler', shuffle=False), num_workers=0)
Runner(Net(), {str(tmp_path/'run')!r}, train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=1),
       optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)), default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
       custom_hooks=[dict(type='EMAHook')]).train()""")
    weights,meta = read_checkpoint(tmp_path/'run/epoch_1.pth')
    assert set(weights)=={'lin.weight','lin.bias'} and meta['dataset_meta']['classes']==('plane','ship')
