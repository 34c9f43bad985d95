"""What a promised recall or coverage is worth, by the number of known scenes:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python promise.py --json promise.json`.

The weights that ship with the package look at painted scenes that nobody has seen. Many times some of them are drawn as known and others
as new; a threshold or a margin comes from the known, and its share of the new is noted, all their objects together. `object` is the rule
of `threshold_for` and `conformal`, in which `n` objects and one more are alike; `image` that of conformal risk control (Angelopoulos
and others, 2022) for images: one image more, as full as the fullest that is known, of which nothing is found."""
import argparse, json, math
from pathlib import Path
from rotnb.all import *
from rotnb.data.synth.scenes import make_scene
from rotnb.evaluate.conformal import _found_pairs, box_margin
from rotnb.evaluate.matching import Outcome, match

def seen(n, first=90_000, score_thr=.3):
    "Scores with which the objects of each scene were found (-inf: not), and margins of the boxes that found some"
    predictor = load_weights('rotated_fcos_tiny_synth')
    acc = APAccumulator(vocab=predictor.vocab)
    for seed in range(first, first+n):
        image,quads,names,difficult = make_scene(seed, 320)
        labels = [predictor.vocab.index(name) for name in names]
        acc.add([predictor(image, score_thr=.05)], [dict(boxes=qbox2rbox(torch.from_numpy(quads)), labels=labels, ignore=difficult)])
    flat,matched = acc.flat(),match(acc, .5)
    score,hit = np.full(len(flat.gt_labels), -np.inf),matched.status==Outcome.TRUE
    score[matched.gt[hit]] = flat.scores[hit]
    boxes,true,_ = _found_pairs(acc, .5, score_thr)
    det = np.flatnonzero(hit & (flat.scores>=score_thr))
    of = [(score[matched.counted],flat.gt_img[matched.counted]), (box_margin(boxes, true),flat.img[det])]
    return dict(zip(('recall','coverage'), ([-own[where==i] if k==0 else own[where==i] for i in np.unique(where)]
                                            for k,(own,where) in enumerate(of))))

def bound(values, share, together): # inf: out of reach
    k = math.ceil((len(values)+together)*share-1e-9)
    return np.sort(values)[k-1] if k<=len(values) else np.inf

def split(values, share, known, new, turns, rng):
    "Shares of the new objects by rule, for scenes that are drawn again and again"
    held = dict(object=[], image=[])
    for _ in range(turns):
        order = rng.permutation(len(values))
        ours,rest = ([values[i] for i in some] for some in (order[:known],order[known:known+new]))
        for rule,together in dict(object=1, image=max(map(len, ours))).items():
            limit = bound(np.concatenate(ours), share, together)
            held[rule].append((np.concatenate(rest)<=limit).mean() if np.isfinite(limit) else np.nan)
    return [dict(rule=rule, mean=round(float(np.nanmean(own)), 4), deviation=round(float(np.nanstd(own)), 4),
                 out_of_reach=round(float(np.isnan(own).mean()), 4)) for rule,own in held.items()]

def rows_of(values, turns=1000):
    rng = np.random.default_rng(0)
    return [dict(what=what, promised=share, known=known, new=60, **row) for what,shares in dict(recall=(.7,.8), coverage=(.8,.9)).items()
            for share in shares for known in (20,30,80) for row in split(values[what], share, known, 60, turns, rng)]

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--scenes', type=int, default=160, help='to draw from (160)')
    p.add_argument('--json', default='promise.json', help='file to write')
    args = p.parse_args()
    rows = rows_of(seen(args.scenes))
    Path(args.json).write_text(json.dumps(dict(scenes=args.scenes, rows=rows), indent=1)+'\n')
    print(pd.DataFrame(rows).to_string(index=False))
