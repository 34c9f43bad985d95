#!/usr/bin/env bash
# supervision 0.26.1: `ByteTrack(track_activation_threshold=.25)` begins no track below a score of .35. Its successor, trackers 2.6.1,
# begins at .25, but does not number an object in its first frame, even with minimum_consecutive_frames=1.
#
# A good guess: an object whose score is .30 in every frame is above the threshold of .25, so it gets a number; and so it does for the
# same setting of the package that took the class over (supervision 0.31 has no ByteTrack any more).
# What happens: supervision adds a tenth to the threshold for new tracks (as the first ByteTrack did), so from .25 to .35 a detection may
# go on with a track and cannot begin one. An object whose score stays there is never numbered, and nothing says why. In trackers the same
# setting numbers it, from 0 and not from 1, one frame late. Its defaults are .7, where supervision's was .25.
# Who compares trackers, or moves from the one to the other with their settings, compares other rules.
# Seen on Linux, Python 3.11.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cat > "$dir/follow.py" <<'PY'
import sys, warnings
warnings.filterwarnings('ignore')
import numpy as np, supervision as sv

def seen(at, score): # one box, a pixel further in each frame
    return sv.Detections(xyxy=np.array([[10.+at,10,60+at,40]]), confidence=np.array([score]), class_id=np.array([0]))

def numbers(score, frames=6):
    kw = dict(track_activation_threshold=.25, minimum_consecutive_frames=1)
    if sys.argv[1]=='supervision':
        tracker = sv.ByteTrack(**kw)
        found = [tracker.update_with_detections(seen(i, score)).tracker_id for i in range(frames)]
    else:
        from trackers import ByteTrackTracker
        tracker = ByteTrackTracker(high_conf_det_threshold=.25, **kw)
        found = [tracker.update(seen(i, score)).tracker_id for i in range(frames)]
    return [[] if ids is None else ids.tolist() for ids in found]

for score in (.2,.3,.34,.35,.5): print(sys.argv[1], score, numbers(score))
if sys.argv[1]=='supervision':
    assert all(numbers(score)==[[]]*6 for score in (.2,.3,.34)), 'tracks begin lower now: the finding is out of date'
    assert all(numbers(score)==[[1]]*6 for score in (.35,.5))
else:
    assert numbers(.2)==[[-1]]*6
    assert all(numbers(score)==[[-1]]+[[0]]*5 for score in (.3,.34,.35,.5)), 'the first frame is numbered now: the finding is out of date'
PY
for what in 'supervision supervision==0.26.1 numpy==2.4.6' 'trackers trackers==2.6.1 supervision==0.31.2 numpy==2.4.6'; do
  set -- $what
  python3 -m venv "$dir/$1"
  "$dir/$1/bin/pip" install -q "${@:2}"
  (cd "$dir" && "$dir/$1/bin/python" follow.py "$1")
done
