"""What is learnt from upright labels alone, measured by oriented ones, beside the same training with oriented labels:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python h2rbox.py RUN >> h2rbox_cpu.txt` for each of RUNS. Small on purpose: ships at sea,
painted, 96 px; one narrow network from nothing; 600 steps of 8 pictures; one thread. A line every 100 steps."""
import math, sys, time
import numpy as np, torch
from rotnb.data.synth.scenes import make_scene
from rotnb.evaluate import eval_map
from rotnb.geometry.boxes import circumscribed_hbox, qbox2rbox
from rotnb.losses.boxes import box_loss
from rotnb.models import create_detector
from rotnb.targets.angle_coders import PSCAngle
from rotnb.targets.coders import DistanceAngleCoder

SIDE,STEPS,LR = 96,600,4e-3
SMALL = dict(backbone='test_resnet', fpn_channels=32, feat_channels=32, stacked_convs=2, strides=(8,), fpn_norm=True, range_factor=20)
COSINES = dict(coder=DistanceAngleCoder('le90', 'exp', PSCAngle()))
FCOS = dict(COSINES, scale_angle=None, loss_angle=box_loss('l1', weight=.2))
RUNS = dict(oriented=('rotated_fcos', FCOS), upright=('rotated_fcos', FCOS), h2rbox=('h2rbox', dict(act='exp')),
            h2rbox_v2=('h2rbox_v2', COSINES))

def sea(canvas):
    "A layout: four ships at most, anywhere, in any direction"
    canvas.lay('water')
    for _ in range(4): canvas.sail(canvas.rng.uniform(-.8*canvas.reach, .8*canvas.reach, 2), canvas.rng.uniform(-np.pi, np.pi))

def scenes(seeds):
    "Images and targets"
    images,targets = [],[]
    for seed in seeds:
        image,quads,names,difficult = make_scene(seed, SIDE, sea)
        images.append(torch.tensor(np.ascontiguousarray(image)).permute(2,0,1).float()/64-2)
        targets.append(dict(boxes=qbox2rbox(torch.tensor(quads)), labels=torch.zeros(len(names)).long(), ignore=torch.tensor(difficult)))
    return torch.stack(images),targets

def around(found): return [dict(one, boxes=circumscribed_hbox(one['boxes'])) for one in found]

def symmetry(image, boxes):
    "One of the eight of the square"
    turns,middle = int(torch.randint(4, ())),SIDE/2
    image = torch.rot90(image, -turns, (-2,-1))
    for _ in range(turns):
        boxes = torch.cat([middle-(boxes[:,1:2]-middle), boxes[:,:1], boxes[:,2:4], boxes[:,4:]+math.pi/2], 1)
    if torch.rand(())>=.5: return image,boxes
    return image.flip(-1),torch.cat([SIDE-boxes[:,:1], boxes[:,1:4], -boxes[:,4:]], 1)

def angle_error(found, targets):
    "Median in degrees, of the surest detection within 8 px of each ship"
    errors = []
    for one,target in zip(found, targets):
        for box in target['boxes'][~target['ignore']]:
            near = (one['boxes'][:,:2]-box[:2]).norm(dim=1)<8
            if near.any(): errors.append(abs(math.degrees((one['boxes'][near][0,4]-box[4]+math.pi/2)%math.pi-math.pi/2)))
    return float(np.median(errors)) if errors else math.nan

def batch(images, targets):
    pairs = [(*symmetry(images[i], targets[i]['boxes']), targets[i]) for i in torch.randperm(len(images))[:8]]
    return torch.stack([image for image,*_ in pairs]),[dict(target, boxes=boxes) for _,boxes,target in pairs]

def train(run):
    (images,targets),(others,truth) = scenes(range(200)),scenes(range(10_000, 10_040))
    if run!='oriented': targets = around(targets)
    torch.manual_seed(0)
    name,own = RUNS[run]
    detector = create_detector(name, 1, **SMALL, **own)
    opt = torch.optim.AdamW(detector.parameters(), LR, weight_decay=.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, LR, total_steps=STEPS, pct_start=.2)
    start = time.process_time()
    for step in range(1, STEPS+1):
        loss = sum(detector(*batch(images, targets)).values())
        opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.); opt.step(); schedule.step()
        if step%100: continue
        detector.eval()
        with torch.no_grad(): found = [one for part in others.split(20) for one in detector(part)]
        detector.train()
        ap,upright = (eval_map(*pair, n_classes=1).map_at(.5) for pair in ((found,truth), (around(found),around(truth))))
        print(f'{run:10} step {step}: AP50 {ap:.3f}, of the boxes around {upright:.3f}, '
              f'angle off by {angle_error(found, truth):.1f} degrees, '
              f'{time.process_time()-start:.0f} s', flush=True)

if __name__=='__main__':
    torch.set_num_threads(1)
    train(sys.argv[1])
