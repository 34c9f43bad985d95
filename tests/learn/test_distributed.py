"Metrics and training over two processes: each sees half the images, both report the figure of all"
import sys, types
from importlib.util import find_spec
from pathlib import Path
import numpy as np, pytest, torch, torch.multiprocessing as mp
from fastai.vision.all import Callback
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.synth.scenes import make_synth
from rotnb.evaluate import APAccumulator
from rotnb.data.mixing import Mosaic
from rotnb.data.samplers import WeightedSampler
from rotnb.learn.learner import rotated_learner
from rotnb.learn.metrics import AngleError, RotatedF1, RotatedMAP
from rotnb.learn.phases import CloseMixing, TrackDifficulty

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16), act='exp',
            score_thr=0.)

def share(dl, rank, world_size=2):
    "What fastai's `DistributedDL` makes of a loader: consecutive items, the first ones repeated until all ranks have equally many"
    n = len(dl.dataset)
    padded = -(-n//world_size)*world_size
    idxs = [*range(n), *range(padded-n)][rank*padded//world_size:(rank+1)*padded//world_size]
    res = dl.new(get_idxs=lambda: idxs)
    res.world_size,res.n = world_size,n
    return res

def make(synth, cbs=None, **kw):
    torch.manual_seed(0)
    dls = RotatedDataLoaders.from_dota(synth, bs=2, batch_tfms=[], num_workers=0, device='cpu', **kw)
    metrics = [RotatedMAP(iou=.1), RotatedMAP('coco'), RotatedF1(iou=.1), AngleError(iou=.1)]
    learn = rotated_learner(dls, 'rotated_fcos', metrics=metrics, cbs=cbs, **TINY)
    learn.remove_cb(learn.progress)
    learn.logger = lambda log: None
    return learn

def distributed_dl():
    "fastai's `DistributedDL` for the CPU; its module needs accelerate only for what is not used here, but does not load without"
    if not find_spec('accelerate'):
        for o in ('accelerate','accelerate.utils'): sys.modules[o] = types.ModuleType(o)
        sys.modules['accelerate'].Accelerator,sys.modules['accelerate.utils'].write_basic_config = type('Accelerator', (), {}),None
    from fastai.distributed import DistributedDL
    def _broadcast(self, t, rank):
        t = torch.tensor(t)
        torch.distributed.broadcast(t, rank)
        return t.tolist()
    DistributedDL._broadcast = _broadcast
    return DistributedDL

class Share(Callback):
    "Loaders as fastai's `DistributedTrainer` wraps them"
    order = 11
    def __init__(self, rank): self.rank = rank
    def before_fit(self):
        self.old,dl = list(self.dls.loaders),distributed_dl()
        self.dls.loaders = [dl(o, self.rank, 2) for o in self.old]
    def after_fit(self): self.dls.loaders = self.old

def train(rank, folder):
    "Training with all that asks the loader for something"
    track,mosaic,sampler,on = TrackDifficulty(),Mosaic(96),WeightedSampler(),[]
    mosaic.switch = lambda o: on.append(o)
    learn = make(folder/'set', [CloseMixing(1), track, Share(rank)], item_tfms=[mosaic], sampler=sampler)
    norm = learn.dls.train.after_batch.fs[-1]
    for o in learn.dls.loaders: o.after_batch.fs.remove(norm)              # as of `learn.dls = ...`
    with learn.no_bar(): learn.fit(2)
    return dict(losses=track.losses, weights=sampler.weights, on=on, norms=[o.after_batch.fs.count(norm) for o in learn.dls.loaders])

def worker(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    acc = APAccumulator(2)
    box = [[20.+rank,20,20,10,0]]
    acc.add([dict(boxes=box, scores=[.5], labels=[rank])], [dict(boxes=box, labels=[rank])])
    alone = acc.compute().n_gt.tolist()
    learn = make(folder/'set')
    values = learn.validate(dl=share(learn.dls.valid, rank))
    torch.save(dict(alone=alone, gt=acc.gather().compute().n_gt.tolist(), once=len(acc.gather(1).images), values=list(values),
                    images=len(learn.metrics[0].acc.images), train=train(rank, folder)), folder/f'{rank}.pth')
    torch.distributed.destroy_process_group()

@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform=='win32', reason='no gloo')
def test_two_processes_report_the_figure_of_all(tmp_path):
    make_synth(tmp_path/'set', n_train=2, n_valid=5, size=96, seed=3)
    learn = make(tmp_path/'set')
    want = list(learn.validate())
    assert want[1]>0 and len(learn.metrics[0].acc.images)==5
    mp.spawn(worker, (Path(tmp_path),), 2)
    a,b = [torch.load(tmp_path/f'{r}.pth', weights_only=False) for r in (0,1)]
    assert (a['alone'],b['alone'])==([1,0],[0,1]) and a['gt']==b['gt']==[1,1]
    assert a['images']==b['images']==5, 'the sampler repeats an image; it is dropped'
    assert a['values'][1:]==b['values'][1:]==pytest.approx(want[1:])
    a,b = a['train'],b['train']
    assert np.isfinite(a['losses']).all(), 'what the other rank saw counts too'
    assert np.array_equal(a['losses'], b['losses']) and np.array_equal(a['weights'], b['weights'])
    assert a['on']==b['on']==[True,False,True] and a['norms']==b['norms']==[1,1]
