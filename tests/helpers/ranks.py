"Two processes that train together, and beside them what one does alone: `python ranks.py FOLDER`"
import faulthandler, os, signal, socket, sys, time, traceback, warnings
from functools import partial
from pathlib import Path
import torch
from fastai.vision.all import Callback, set_seed
from torch import tensor
from torch.nn.parallel import DistributedDataParallel
import families
from rotnb.all import (CloseMixing, EMA, FiniteGuard, KeepBest, Checkpoint, Mosaic, RotatedDataLoaders, Resume, TrackDifficulty,
                       create_detector, rotated_learner)
from rotnb.data.samplers import WeightedSampler
from rotnb.data.synth.scenes import make_synth
from rotnb.evaluate import APAccumulator
from rotnb.learn.many import connect_processes, sync_norms
from rotnb.learn.metrics import AngleError, RotatedF1, RotatedMAP
from rotnb.targets.priors import AnchorPriors
from rotnb.targets.sample import random_sample

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
ALIKE = 'rotated_fcos_tiny','rotated_retinanet_tiny','rtmdet_r_s','rtmdet_r_m','rtmdet_r_l'       # as small as here
FAMILIES = [name for name in families.FAMILIES if name not in ALIKE]
# all proposals learn, in whatever order: a last bit in a score changes nothing
SURE = dict(fc_channels=32, sampler=partial(random_sample, num=10**6, pos_fraction=.5), rpn_kw=dict(
    priors=AnchorPriors(3., 1, (.5,1.,2.)), border=None, sampler=partial(random_sample, num=10**6, pos_fraction=.5), nms_pre=10**5,
    max_per_img=10**5, iou_thr=1.))
OWN = {**{name:SURE for name in families.TWO_STAGE}, **families.FINE,
       'h2rbox':dict(view_range=(.3,.3)), 'h2rbox_v2':dict(view_range=(.3,.3)),
       **dict.fromkeys(families.SETS, dict(denoise=False))}                       # each process draws noise of its own
BOXES = [[20.,26.,30.,14.,.4],[46.,40.,16.,16.,-.7],[14.,52.,20.,8.,1.2]], [], [[30.,30.,24.,12.,.2]], [[20.,20.,20.,12.,1.]]*2

def gradients(name, part, wrap=lambda model: model):
    "What the images of `part`, of four with 3, 0, 1 and 2 objects, teach a detector"
    torch.manual_seed(0)
    model = create_detector(name, 3, **{**TINY, **OWN.get(name, {})})
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))[part]
    targets = [dict(boxes=tensor(boxes).reshape(-1,5), labels=torch.arange(len(boxes))) for boxes in BOXES][part]
    trained = wrap(model)                           # kept: what averages gradients ends with it
    sum(trained(images, targets).values()).backward()
    running = {key:value for key,value in model.named_buffers() if 'running' in key}
    return {key:param.grad for key,param in model.named_parameters()} | running

def as_many(model):
    sync_norms(model)
    return DistributedDataParallel(model)

def learner(synth, arch='rotated_fcos', cbs=None, metrics=(), run=False, bs=2, item_tfms=None, **kw):
    torch.manual_seed(0)
    dls = RotatedDataLoaders.from_dota(synth, bs=bs, batch_tfms=[], num_workers=0, device='cpu', item_tfms=item_tfms, drop_last=False,
                                       **{key:kw.pop(key) for key in ('sampler',) if key in kw})
    learn = rotated_learner(dls, arch, metrics=list(metrics), cbs=cbs, run=run, **{**TINY, **OWN.get(arch, {}), 'score_thr':0., **kw})
    learn.remove_cb(learn.progress)
    learn.logger = lambda log: None
    return learn

def metrics(): return [RotatedMAP(iou=.1), RotatedMAP('coco'), RotatedF1(iou=.1), AngleError(iou=.1)]

def validated(folder, rank):
    "A validation of all, one of this process alone, and predictions of the first one"
    learn = learner(folder/'set', metrics=metrics())
    with learn.distrib_ctx():
        values = list(learn.validate())
        images = len(learn.metrics[0].acc.images)
        alone = learn.evaluate(show=False).map if rank==0 else None
        found = len(learn.predict_image(next((folder/'set').rglob('*.png')), 0.).boxes) if rank==0 else None
    return dict(values=values, images=images, alone=alone, found=found)

class Reading(Callback):
    "What is read, and what the model is"
    def __init__(self): self.reads,self.kinds = [],set()
    def after_batch(self):
        if self.training: self.reads += self.dl._DataLoader__idxs[self.iter*self.dl.bs:][:len(self.x)]
        self.kinds.add((self.training,type(self.model).__name__))

def trained(folder, rank):
    "A training with all that holds something"
    track,seen,on = TrackDifficulty(),Reading(),[]
    mosaic,sampler = Mosaic(96),WeightedSampler()
    mosaic.switch = lambda o: on.append(o)
    ema,best,check = EMA(warmup=0, decay=.5),KeepBest(1, 'valid_loss', folder=folder/'best'),Checkpoint(folder/'check.pth')
    learn = learner(folder/'set', cbs=[CloseMixing(1), track, seen, ema, best, check], item_tfms=[mosaic], sampler=sampler,
                    metrics=metrics(), run='whole')
    norm,before = learn.dls.train.after_batch.fs[-1],[type(module) for module in learn.model.modules()]
    with learn.distrib_ctx(): learn.fit(2)
    return dict(losses=track.losses, weights=sampler.weights, on=on, norms=learn.dls.train.after_batch.fs.count(norm), read=seen.reads,
                kinds=seen.kinds, model=learn.model.state_dict(), rows=learn.history.rows, kept=best.kept,
                same=before==[type(module) for module in learn.model.modules()], cbs=[cb.name for cb in learn.cbs])

class Stop(Callback):
    "An end within an epoch"
    def before_batch(self):
        if self.training and self.epoch==1 and self.iter==1: raise KeyboardInterrupt

def resumed(folder, rank):
    "The weights of a training that was broken off and went on, and those of one that was not"
    res = {}
    for name,cbs in dict(whole=[], broken=[Stop(), Resume(folder/'run', steps=1)], on=[Resume(folder/'run', steps=1)]).items():
        set_seed(100*(name=='on')+rank)
        learn = learner(folder/'set', cbs=[TrackDifficulty(), EMA(warmup=0, decay=.5), *cbs], item_tfms=[Mosaic(64)],
                        sampler=WeightedSampler())
        learn.dls.train.rng.seed(5)
        try:
            with learn.distrib_ctx(): learn.fit_one_cycle(2, 1e-2)
        except KeyboardInterrupt: pass
        res[name] = learn.model.state_dict()
    return res

class Spoil(Callback):
    "An image that is not finite, in one process"
    order = 0
    def __init__(self, rank): self.rank = rank
    def before_batch(self):
        if self.training and self.rank and self.iter==0: self.learn.xb = (self.xb[0]*torch.nan,)

def left_out(folder, rank):
    "Whether all leave out the batch that is not finite in one"
    learn = learner(folder/'set', cbs=Spoil(rank))
    learn.remove_cb(FiniteGuard)
    learn.add_cb(FiniteGuard(skip=1))
    with warnings.catch_warnings(record=True) as said, learn.distrib_ctx():
        warnings.simplefilter('always')
        learn.fit(1)
    return dict(said=[str(one.message) for one in said if 'left out' in str(one.message)],
                model=learn.model.state_dict(), finite=all(param.isfinite().all() for param in learn.model.parameters()))

def disagreed(folder, rank):
    "What is said where processes are given different settings"
    learn = learner(folder/'set', bs=2+rank)
    try:
        with learn.distrib_ctx(): learn.fit(1)
    except Exception as e: return str(e)

def counted(rank):
    acc,box = APAccumulator(2),[[20.+rank,20,20,10,0]]
    acc.add([dict(boxes=box, scores=[.5], labels=[rank])], [dict(boxes=box, labels=[rank])])
    return dict(alone=acc.compute().n_gt.tolist(), gt=acc.gather().compute().n_gt.tolist(), once=len(acc.gather(1).images))

def together(folder, rank):
    faulthandler.dump_traceback_later(300)                  # who waits for whom
    connect_processes("cpu")
    res = dict(counted=counted(rank))
    res['grads'] = {name:gradients(name, slice(2*rank, 2*rank+2), as_many) for name in FAMILIES}
    res |= {work.__name__:work(folder, rank) for work in (validated, trained, resumed, left_out, disagreed)}
    res['families'] = {}
    for name in ('oriented_rcnn','s2anet','rtmdet_r_tiny','rotated_reppoints'):
        learn = learner(folder/'set', name, metrics=metrics())
        with learn.distrib_ctx(): learn.fit(1, 1e-3)
        res['families'][name] = learn.model.state_dict(),learn.history.rows[-1]
    torch.save(res, folder/f'{rank}.pth')

def dies(folder, rank):
    "One is killed in the middle of a step; the other has to end too"
    faulthandler.dump_traceback_later(300)                  # who waits for whom
    connect_processes("cpu")
    class Die(Callback):
        def before_backward(self):
            if rank and self.iter==1: os.kill(os.getpid(), signal.SIGKILL)
    learn = learner(folder/'set', cbs=Die())
    with learn.distrib_ctx(): learn.fit(3)

def start(work, folder):
    "Two processes; their numbers"
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(2):
        if pid := os.fork(): pids.append(pid)
        else:
            os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                               MASTER_PORT=str(port), ROTNB_RUNS=str(folder/'runs'))
            code = 1
            try: work(folder, rank); code = 0
            except BaseException: traceback.print_exc()
            finally: sys.stdout.flush(); sys.stderr.flush(); os._exit(code)
    return pids

def ended(pids): return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]

def main(folder):
    torch.set_num_threads(1)
    make_synth(folder/'set', n_train=6, n_valid=5, size=64, seed=3)
    begin = time.monotonic()
    dead = ended(start(dies, folder))                       # before this process computes: a copy of one that did may wait for ever
    alone,pids = dict(dead=dead, seconds=time.monotonic()-begin),start(together, folder)
    learn = learner(folder/'set', metrics=metrics())
    alone |= dict(values=list(learn.validate()), grads={name:gradients(name, slice(None)) for name in FAMILIES})
    torch.save({**alone, 'codes':ended(pids)}, folder/'alone.pth')

if __name__=='__main__': main(Path(sys.argv[1]))
