"""Trackers beside each other on the same detections of painted films, measured by exact rotated IoU:
`OMP_NUM_THREADS=1 python track.py --peer PYTHON --json track.json`.

PYTHON is an interpreter that has `supervision` 0.26 (0.31 has no ByteTrack) and need not have rotnb: its ByteTrack is given the upright
boxes around the detections and says which of them have which number; the boxes that are measured are the oriented ones for all.
Its settings are its own defaults (0.25, 30 frames), and 0.5 in place of 0.25. Detections come from the shipped detector, and from the
truth with noise, misses where little is seen, and false alarms. `upright` is our tracker with upright boxes in place of oriented ones,
`smooth` ours with the boxes of its filter. Our defaults were chosen on films 100 to 105, which have no part in this."""
import argparse, json, subprocess, sys
from pathlib import Path

def peer(file, high):
    "In the other interpreter: numbers of the detections of each film, 0 for none"
    import numpy as np, supervision as sv
    kept,res = np.load(file),{}
    for name in kept.files:
        rows,tracker = kept[name],sv.ByteTrack(track_activation_threshold=high, lost_track_buffer=30, frame_rate=30)
        ids = np.zeros(len(rows), int)
        for frame in range(int(rows[:,0].max())+1):
            at = np.flatnonzero(rows[:,0]==frame)
            found = sv.Detections(xyxy=rows[at,8:12], confidence=rows[at,2], class_id=rows[at,1].astype(int), data=dict(row=at))
            found = tracker.update_with_detections(found)
            if len(found): ids[found.data['row']] = found.tracker_id
        res[name] = ids.tolist()
    print(json.dumps(res))

if len(sys.argv)==4 and sys.argv[1]=='--as-peer':
    peer(sys.argv[2], float(sys.argv[3]))
    sys.exit()

from rotnb.all import *
from rotnb.data.synth.moving import truth_table

def noisy(truth, rng):
    "Detections of a frame as a fair detector might give them: (n,7) label, score, box"
    size = np.sqrt(truth['boxes'][:,2:4].prod(1))[:,None]
    boxes = truth['boxes']+rng.normal(0, 1, truth['boxes'].shape)*np.concatenate([.05*np.repeat(size, 4, 1), np.full_like(size, .07)], 1)
    score = np.clip(.9*truth['visible']**.7+rng.normal(0, .08, len(boxes)), 0, 1)
    rows = np.concatenate([truth['label'][:,None],score[:,None],canonicalize(boxes)], 1)[(rng.random(len(boxes))>.08) & (score>.1)]
    alarms = [[rng.integers(10),rng.uniform(.1, .6),*rng.uniform(20, 300, 2),*rng.uniform(15, 40, 2),rng.uniform(-1.5, 1.5)]
              for _ in range(rng.poisson(1))]
    return np.concatenate([rows,np.array(alarms).reshape(-1,7)])

def films(args, predictor):
    "{name: (rows (n,8): frame, label, score, box; truth)}"
    res = {}
    for seed in range(args.films):
        frames = [*moving_scene(seed, args.frames, n_objects=10)]
        truth = truth_table([one for _,one in frames], predictor.vocab)
        found = predictor([image for image,_ in frames], score_thr=.1, progress=False)
        seen = [np.concatenate([one.labels[:,None],one.scores[:,None],one.boxes], 1).astype(float) for one in found]
        rng = np.random.default_rng(seed)
        made = [noisy({**one, 'label':np.array([predictor.vocab.index(name) for name in one['names']])}, rng) for _,one in frames]
        for kind,rows in dict(detector=seen, noisy=made).items():
            res[f'{kind} {seed}'] = np.concatenate([np.insert(own, 0, frame, 1) for frame,own in enumerate(rows)]),truth
    return res

def ours(rows, upright=False, **kw):
    "Numbers of the detections, and the boxes that are said"
    tracker,ids,boxes = Tracker(**kw),np.zeros(len(rows), int),rows[:,3:8].copy()
    for frame in range(int(rows[:,0].max())+1):
        at = np.flatnonzero(rows[:,0]==frame)
        own = circumscribed(rows[at,3:8]) if upright else rows[at,3:8]
        tracker.update(dict(boxes=own, scores=rows[at,2], labels=rows[at,1]))
        shown = (tracker.current>=0) & (tracker.ids>0)
        ids[at[tracker.current[shown]]] = tracker.ids[shown]
        if kw.get('smooth'): boxes[at[tracker.current[shown]]] = tracker.expected[shown]
    return ids,boxes

def circumscribed(boxes): return hbox2rbox(rbox2hbox(boxes), 'hbb')

def measured(rows, ids, boxes, truth):
    "Figures of one film"
    at = ids>0
    return eval_tracks(dict(frame=rows[at,0].astype(int), id=ids[at], label=rows[at,1].astype(int), boxes=boxes[at]), truth)

def main():
    parser = argparse.ArgumentParser()
    for name,default in dict(films=4, frames=40).items(): parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--peer'); parser.add_argument('--json', default='track.json')
    args = parser.parse_args()
    predictor = load_weights('rotated_fcos_tiny_synth')
    kept = films(args, predictor)
    file = Path(args.json).with_suffix('.npz')
    np.savez(file, **{name:np.concatenate([rows,rbox2hbox(rows[:,3:8])], 1) for name,(rows,_) in kept.items()})
    numbers = {name:{film:ours(rows, **kw) for film,(rows,_) in kept.items()}
               for name,kw in {'rotnb':{}, 'smooth':dict(smooth=True), 'upright':dict(upright=True),
                              'rotnb 0.5':dict(begin=.5, high=.5)}.items()}
    for high in (.25,.5) if args.peer else ():
        said = subprocess.run([args.peer, __file__, '--as-peer', str(file), str(high)], capture_output=True, text=True, check=True).stdout
        numbers[f'supervision {high}'] = {film:(np.array(ids),kept[film][0][:,3:8]) for film,ids in json.loads(said).items()}
    file.unlink()
    rows = [dict(tracker=tracker, detections=film.split()[0], film=int(film.split()[1]),
                 **{key:round(float(value), 4) for key,value in measured(kept[film][0], *own, kept[film][1]).items()})
            for tracker,by in numbers.items() for film,own in by.items()]
    Path(args.json).write_text(json.dumps(dict(settings={**vars(args), 'peer':bool(args.peer)}, rows=rows), indent=1)+'\n')
    print(pd.DataFrame(rows).groupby(['detections','tracker'])[['HOTA','DetA','AssA','IDF1','MOTA','switches']].mean().round(3))

if __name__=='__main__': main()
