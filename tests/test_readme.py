"The six lines of README, as they are written there: nothing is downloaded, and they end in a picture with right boxes"
import re, time
import numpy as np, pytest
from rotnb.predict.detections import Detections
from detections import shares_right
from paths import ROOT

BLOCKS = re.findall(r'```python\n(.*?)```', (ROOT/'README.md').read_text(encoding='utf-8'), re.S)

@pytest.fixture
def alone(tmp_path, monkeypatch):
    "A folder and a cache of its own, no network, and a list of what is shown"
    shown = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('ROTNB_HOME', str(tmp_path/'home'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('socket.socket.connect', lambda *args: pytest.fail('it wants a network'))
    monkeypatch.setattr(Detections, 'show', lambda found, **kw: shown.append((found, found.plot(**kw))))
    return shown

def test_the_six_lines(alone, capsys):
    lines = BLOCKS[0].strip().splitlines()
    assert len(lines)==6
    names,start = {},time.process_time()
    exec(BLOCKS[0], names)
    assert time.process_time()-start < 200                                       # of the processor; a machine may be busy
    (found,picture), = alone
    annot = names['dls'].valid_ds.items[0]
    objects,right = shares_right(found, annot)
    assert objects>=.8 and right>=.7, (objects, right)
    clean = np.array(names['PILImage'].create(annot.image))
    assert (picture!=clean).any(-1).mean()>.01 if picture.shape==clean.shape else picture.ndim==3
    assert names['learn'].metrics[0].compute().map>=.6
