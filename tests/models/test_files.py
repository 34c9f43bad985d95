"Files of tensors with bytes swapped: what opens them gives what was written, or says that they are damaged"
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
