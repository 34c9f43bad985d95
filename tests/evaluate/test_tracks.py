"""Measures of tracks beside those of TrackEval, and what must hold of any.

`tracks.json` holds what TrackEval 1.0.0 says of the films of `film`, from the same overlaps; it is made by
`python tests/evaluate/test_tracks.py frames.npz` here, and with `frames.npz tracks.json` where TrackEval is installed."""
import json, sys
from pathlib import Path
import numpy as np

SEEDS = range(6)

def film(seed, n_frames=25, n=6):
    "A film of oriented boxes that cross, and what a careless tracker made of it: misses, alarms, switches, boxes that are off"
    rng = np.random.default_rng(seed)
    start,step = rng.uniform(20, 120, (n,2)),rng.uniform(-4, 4, (n,2))
    sides,angle = rng.uniform(14, 50, (n,2)),rng.uniform(-2, 2, n)
    truth,found = [],[]
    names = np.arange(n)+10
    for frame in range(n_frames):
        boxes = np.concatenate([start+frame*step, sides, (angle+.05*frame)[:,None]], 1)
        there = rng.random(n)<.9
        truth += [(frame,i+1,i%2,*box) for i,box in enumerate(boxes) if there[i]]
        if rng.random()<.2: names[rng.integers(n)] = rng.integers(10, 30)*10+frame
        if rng.random()<.1: names[[0,2]] = names[[2,0]]
        off = boxes+rng.normal(0, 1, boxes.shape)*[2,2,2,2,.1]
        found += [(frame,names[i],i%2,*box) for i,box in enumerate(off) if rng.random()<.85]
        if rng.random()<.5: found.append((frame,1000+frame,0,*rng.uniform(20, 120, 2),20,10,.3))
    return table(found),table(truth)

def table(rows):
    rows = np.array(rows, float).reshape(-1,8)
    return dict(frame=rows[:,0].astype(int), id=rows[:,1].astype(int), label=rows[:,2].astype(int), boxes=rows[:,3:])

KEYS = dict(HOTA='HOTA', DetA='DetA', AssA='AssA', LocA='LocA')

def said_by_trackeval(frames):
    "HOTA's curves, IDF1, MOTA and switches"
    from trackeval.metrics import CLEAR, HOTA, Identity
    gts,owns,ious = zip(*frames)
    data = dict(gt_ids=list(gts), tracker_ids=list(owns), similarity_scores=list(ious), num_timesteps=len(frames),
                num_gt_ids=int(max(map(np.max, filter(len, gts))))+1, num_tracker_ids=int(max(map(np.max, filter(len, owns))))+1,
                num_gt_dets=sum(map(len, gts)), num_tracker_dets=sum(map(len, owns)))
    hota,clear = HOTA().eval_sequence(data),CLEAR(dict(PRINT_CONFIG=False)).eval_sequence(data)
    own = {name:hota[key].tolist() for name,key in KEYS.items()}
    identity = Identity(dict(PRINT_CONFIG=False)).eval_sequence(data)
    return {**own, 'IDF1':float(identity['IDF1']), 'MOTA':float(clear['MOTA']), 'switches':int(clear['IDSW'])}

if __name__=='__main__':
    if len(sys.argv)==2:
        from rotnb.evaluate.tracks import _frames, _numbered
        np.savez(sys.argv[1], frames=np.array([_numbered([*_frames(*film(seed))])[0] for seed in SEEDS], dtype=object))
    else:
        kept = np.load(sys.argv[1], allow_pickle=True)['frames']
        Path(sys.argv[2]).write_text(json.dumps([said_by_trackeval(frames) for frames in kept])+'\n')
    sys.exit()

import pytest
from hypothesis import given, settings, strategies as st
from rotnb.evaluate.tracks import TrackTableError, eval_tracks, track_curves
from paths import ROOT

@pytest.mark.parametrize('seed', SEEDS)
def test_as_trackeval(seed):
    want = json.loads((ROOT/'tests/evaluate/tracks.json').read_text())[seed]
    curves,scores = track_curves(*film(seed)),eval_tracks(*film(seed))
    for name in KEYS:
        assert np.allclose(curves[name], want[name], atol=1e-9), name
        assert abs(scores[name]-np.mean(want[name]))<1e-9
    assert abs(scores['IDF1']-want['IDF1'])<1e-9 and abs(scores['MOTA']-want['MOTA'])<1e-9
    assert scores['switches']==want['switches'] and .2<scores['HOTA']<.9

@settings(max_examples=8, deadline=None)
@given(st.integers(0, 9))
def test_names_and_order_mean_nothing(seed):
    "Ids may be any numbers, rows in any order, frames may begin anywhere, and the film may be turned"
    found,truth = film(seed, 8, 4)
    order = np.random.default_rng(seed).permutation(len(found['id']))
    other = {key:rows[order] for key,rows in found.items()}
    other = {**other, 'id':7*other['id']-3, 'frame':other['frame']+5}
    def turn(one):
        x,y,w,h,angle = one['boxes'].T
        return {**one, 'boxes':np.stack([-y,x,w,h,angle+np.pi/2], 1)}
    want,got = eval_tracks(found, truth),eval_tracks(turn(other), turn({**truth, 'frame':truth['frame']+5}))
    assert want.keys()==got.keys() and all(abs(want[key]-got[key])<1e-6 for key in want)

@settings(max_examples=8, deadline=None)
@given(st.integers(0, 9))
def test_films_one_after_the_other(seed):
    "Two films as one with other numbers: misses, alarms and switches add up"
    (found,truth),(found2,truth2) = film(seed, 6, 3),film(seed+100, 6, 3)
    apart = [eval_tracks(found, truth),eval_tracks(found2, truth2)]
    def after(one, two): return {key:np.concatenate([one[key], two[key]+dict(frame=6, id=10**5).get(key, 0)]) for key in one}
    both = eval_tracks(after(found, found2), after(truth, truth2))
    assert all(both[key]==apart[0][key]+apart[1][key] for key in ('misses','false_alarms','switches'))
    assert min(o['HOTA'] for o in apart)-.2<=both['HOTA']<=max(o['HOTA'] for o in apart)+.2

def test_ignored_rows_are_neither_wanted_nor_wrong():
    found,truth = film(0)
    hidden = {**truth, 'ignored':truth['id']==1}
    rest = {key:rows[truth['id']!=1] for key,rows in truth.items()}
    alarms = eval_tracks(found, rest)['false_alarms']-eval_tracks(found, hidden)['false_alarms']
    assert 10<alarms<=25 and eval_tracks(found, hidden)['misses']==eval_tracks(found, rest)['misses']

def test_bad_tables_say_what_is_wrong():
    found,truth = film(1)
    cases = {'one of each a row':{**found, 'boxes':found['boxes'][1:]}, 'is twice in frame 0':{**found, 'id':found['id']*0}}
    for words,wrong in cases.items():
        with pytest.raises(TrackTableError, match=words): eval_tracks(wrong, truth)
    with pytest.raises(ValueError, match='iou_threshold is 50'): eval_tracks(found, truth, 50)
