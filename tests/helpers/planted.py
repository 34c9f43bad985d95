"Explorers of results whose errors were planted, for tests in the browser"
import pytest
from rotnb.data.synth.scenes import make_synth

@pytest.fixture(scope='session')
def synth(tmp_path_factory): return make_synth(tmp_path_factory.mktemp('explore')/'synth', n_train=24, n_valid=12, size=192)

PLANTED = '''
import numpy as np, torch
from types import SimpleNamespace
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.types import to_targets
from rotnb.evaluate import APAccumulator
from rotnb.learn.interpret import RotatedInterpretation
from rotnb.explore.result_explorer import ResultsExplorer

dls = RotatedDataLoaders.from_dota(FOLDER, bs=4, batch_tfms=[], num_workers=0)
def planted(seed):
    rng,acc,k = np.random.default_rng(seed),APAccumulator(vocab=list(dls.vocab)),len(dls.vocab)
    dl = dls.valid.new(shuffle=False, drop_last=False)
    for x,q,l in dl:
        for g in to_targets(q.cpu(), l.cpu(), x.shape[-2:]):
            q,l = g['boxes'].numpy()+rng.normal(0, 1, g['boxes'].shape)*[.7,.7,.5,.3,.02],g['labels'].numpy().copy()
            r = rng.random(len(q))
            l[r<.1] = rng.integers(0, k, (r<.1).sum())
            q[(r>.1)&(r<.2),4] += .7; q[(r>.2)&(r<.3),:2] += 6
            some = r<.9
            extra = rng.random((2,5))*[192,192,20,10,3]+[0,0,8,8,-1.5]
            labels,scores = np.append(l[some], rng.integers(0, k, 2)),.3+.7*rng.random(some.sum()+2)
            acc.add([dict(boxes=np.concatenate([q[some],extra]), labels=labels, scores=scores)], [g])
    return RotatedInterpretation(SimpleNamespace(dls=dls), dl, acc, torch.tensor(rng.random(len(acc.images))))
'''

def pages(synth):
    "Explorers of a data set and of results, by name"
    ns = {}
    exec(PLANTED.replace('FOLDER', repr(str(synth))), ns)
    from rotnb.explore.dataset_explorer import DatasetExplorer
    data = DatasetExplorer(synth, [dict(image=i, kind=('a','b')[i%2], box=i%3) for i in range(20)]+[dict(image=2, kind='b')])
    return dict(data=data, results=ns['ResultsExplorer'](ns['planted'](0), ns['planted'](1), ['A','B'], score=.4))
