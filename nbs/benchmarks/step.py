"""A training step's time: `python step.py` says where it goes, what `FastSteps` saves, and what fastai's loop adds to a bare one, in
processor time. `--busy N` runs small steps beside N processes that spin, with OpenMP's threads waiting in several ways, by the clock."""
import argparse, json, os, subprocess, sys, tempfile, time
import numpy as np

def learner(a, folder):
    from rotnb.all import RotatedDataLoaders, rotated_learner, set_seed
    set_seed(0)
    dls = RotatedDataLoaders.from_synth(folder, n_train=2*a.bs, n_valid=2, size=a.size, bs=a.bs, num_workers=0)
    return rotated_learner(dls, a.name, pretrained=False, run=False)

def loop_times(learn, n):
    "Seconds of two steps in a bare loop, and of two in a fit, in turn: the same batches, already made"
    from fastai.vision.all import Callback, CancelFitException, ProgressCallback
    from rotnb.learn.callbacks import to_targets
    batches = [learn.dls.train.one_batch() for _ in range(2)]
    class Made:
        "A loader of what is there"
        def __iter__(self): return iter(batches)
        def __len__(self): return len(batches)
        def __getattr__(self, name): return getattr(learn.dls.train, name)
    class Watch(Callback):
        order = -50
        def before_train(self):
            self.learn.dl = Made()
            self.start = time.process_time()
        def after_train(self): self.took = time.process_time()-self.start; raise CancelFitException()
    def bare():
        start = time.process_time()
        learn.model.train()
        for x,*y in batches:
            loss = learn.loss_func(learn.model(x, to_targets(*y, x.shape[-2:], learn.model.angle)))
            loss.backward()
            learn.opt.step(); learn.opt.zero_grad()
        return time.process_time()-start
    def fit():
        learn.fit(1, 1e-6, cbs=watch)
        return watch.took
    watch = Watch()
    learn.remove_cbs(learn.cbs.filter(lambda cb: isinstance(cb, ProgressCallback)))
    fit(), bare()
    pairs = [(bare(), fit()) for _ in range(n)]
    return dict(bare=float(np.median([one for one,_ in pairs])), ratio=float(np.median([two/one for one,two in pairs])))

def small_step():
    "A small net's step, of many operations"
    import torch
    from torch import nn
    sides = [3]+[32]*12
    net = nn.Sequential(*[layer for i in range(12) for layer in (
        nn.Conv2d(sides[i], 32, 3, padding=1, stride=2 if i in (1,3) else 1), nn.BatchNorm2d(32), nn.ReLU())])
    x,opt = torch.randn(2, 3, 96, 96),torch.optim.SGD(net.parameters(), .01)
    def step():
        net(x).square().mean().backward()
        opt.step(); opt.zero_grad()
    return step

def detector_step(a):
    "A detector's step on one batch"
    import torch                                    # before rotnb: how its threads wait is what the environment says
    from rotnb.learn.callbacks import to_targets
    with tempfile.TemporaryDirectory() as folder:
        learn = learner(a, folder)
        x,*y = learn.dls.train.one_batch()
    learn.create_opt()
    def step():
        learn.loss_func(learn.model.train()(x, to_targets(*y, x.shape[-2:], learn.model.angle))).backward()
        learn.opt.step(); learn.opt.zero_grad()
    return step

def steps(a):
    "What a step takes: the small net's, or a detector's"
    import torch
    step,took = detector_step(a) if a.name else small_step(),[]
    for _ in range(a.steps):
        wall,cpu = time.perf_counter(),time.process_time()
        step()
        took.append((1e3*(time.perf_counter()-wall),1e3*(time.process_time()-cpu)))
    wall,cpu = map(sorted, zip(*took[3:]))
    print(f'{wall[len(wall)//2]:.0f} ms, {cpu[len(cpu)//2]:.0f} ms of processor time, {torch.get_num_threads()} threads')

SPIN = "import os\nparent = os.getppid()\nwhile os.getppid()==parent: sum(range(10**5))"   # ends with who started it, however that ends

def beside(busy, name=None):
    "The same steps, with threads that wait in several ways"
    spinning = [subprocess.Popen([sys.executable, '-c', SPIN]) for _ in range(busy)]
    clean = {key:value for key,value in os.environ.items() if not key.startswith(('OMP_','GOMP_','KMP_'))}
    try:
        for how in ('', 'GOMP_SPINCOUNT=10000', 'GOMP_SPINCOUNT=1000', 'OMP_WAIT_POLICY=PASSIVE', 'OMP_NUM_THREADS=1'):
            env = {**clean, **dict([how.split('=')] if how else [])}
            command = [sys.executable, __file__, '--steps', '15', *(['--name', name] if name else [])]
            said = subprocess.run(command, env=env, capture_output=True, text=True).stdout.strip()
            print(f'{name or "small net"}, {busy} busy, {how or "as it is":24} {said}', flush=True)
    finally:
        for one in spinning: one.kill(); one.wait()

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--names', nargs='*', default=['rotated_fcos_tiny','rtmdet_r_tiny'])
    p.add_argument('--size', type=int, default=320); p.add_argument('--bs', type=int, default=4); p.add_argument('-n', type=int, default=4)
    p.add_argument('--ways', nargs='*', default=['as it is','channels_last','bf16','channels_last, bf16'])
    p.add_argument('--busy', type=int); p.add_argument('--steps', type=int); p.add_argument('--name'); p.add_argument('--json')
    a = p.parse_args()
    if a.steps: steps(a)
    elif a.busy is not None: beside(a.busy, a.name)
    else:
        found = {}
        for a.name in a.names:
            with tempfile.TemporaryDirectory() as folder:
                learn = learner(a, folder+'/data')
                with learn.no_bar(), learn.no_logging():
                    import rotnb.learn.fast_steps
                    loop,table = loop_times(learn, a.n),learn.step_times(a.ways, a.n)
                print(f"{a.name}: two steps {loop['bare']:.2f} s, in fastai's loop {loop['ratio']:.3f} of that")
                print(table.to_string(), flush=True)
                found[a.name] = dict(loop=loop, ways=table.to_dict('index'))
        if a.json:
            with open(a.json, 'w') as out: json.dump(found, out, indent=1)
