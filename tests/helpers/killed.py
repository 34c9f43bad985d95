"A training that is killed at random steps and goes on, beside one that is not: `python killed.py FOLDER`"
import json, os, random, signal, sys
from pathlib import Path
import torch
from fastai.vision.all import Callback, GradientAccumulation, set_seed
from rotnb.all import CloseMixing, Mosaic, RotatedDataLoaders, Resume, TrackDifficulty, rotated_learner
from rotnb.data.samplers import WeightedSampler
from rotnb.data.synth.scenes import make_synth

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16,32),
            act='exp')
EPOCHS,STEPS = 2,5

def tiny(data, workers=0, bs=2, arch='rotated_fcos', cbs=None, **kw):
    dls = RotatedDataLoaders.from_dota(data, bs=bs, num_workers=workers, item_tfms=[Mosaic(64)], sampler=WeightedSampler(),
                                       drop_last=False)
    learn = rotated_learner(dls, arch, cbs=cbs, **{**TINY, **kw})
    learn.remove_cb(learn.progress)
    learn.logger = lambda log: None
    return learn

def callbacks(): return [TrackDifficulty(), GradientAccumulation(4), CloseMixing(1)]

class Kill(Callback):
    "kill -9 in the middle of a step, counted from the beginning"
    def __init__(self, at): self.at = at
    def before_backward(self):
        if self.epoch*self.n_iter+self.iter==self.at: os.kill(os.getpid(), signal.SIGKILL)

def train(folder, name, seed, kill_at=None):
    "In a process of its own; its exit code"
    if pid := os.fork(): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        set_seed(seed)
        learn = tiny(folder/'set', workers=2)
        own = [] if name=='whole' else [Resume(folder/name, steps=2), Kill(kill_at)]
        learn.fit_one_cycle(EPOCHS, 1e-2, cbs=callbacks()+own)
        rows = [{key:value for key,value in row.items() if key!='seconds'} for row in learn.history.rows]
        torch.save(dict(model=learn.model.state_dict(), rows=rows), folder/f'{name}.pth')
        code = 0
    finally: os._exit(code)

def main(folder):
    torch.set_num_threads(1)
    make_synth(folder/'set', n_train=9, n_valid=2, size=64, seed=3)
    # from the first state on: before it, a training begins anew
    kills = sorted(random.Random().sample(range(2, EPOCHS*STEPS), 3))
    codes = [train(folder, 'whole', 0)]
    # the first begins as the whole one does; with what the others begin must not matter
    codes += [train(folder, 'killed', i and 100+i, at) for i,at in enumerate([*kills,None])]
    (folder/'told.json').write_text(json.dumps(dict(kills=kills, codes=codes)))

if __name__=='__main__': main(Path(sys.argv[1]))
