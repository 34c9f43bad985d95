"Following oriented boxes: what must hold of any film, and the shipped detector on a painted one"
import math
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from rotnb.check.values import ArgumentError
from rotnb.data.synth.moving import make_video, moving_scene, truth_table
from rotnb.evaluate.tracks import eval_tracks
from rotnb.geometry.boxes import canonicalize, rbox2qbox
from rotnb.ops.iou import box_iou_rotated
from rotnb.predict.detections import Detections
from rotnb.predict.load import load_weights
from rotnb.predict.track import TrackError, Tracker, nearest_spelling
from rotnb.predict.video import Frames, Tracks, Trails, VideoError, track

def numbers(low, high): return st.floats(low, high, allow_nan=False, width=32)
BOX = st.tuples(numbers(0, 100), numbers(0, 100), numbers(2, 60), numbers(2, 60), numbers(-7, 7))

# --- spelling

@settings(deadline=None)
@given(st.lists(st.tuples(BOX, BOX), min_size=1, max_size=4), st.sampled_from([360,180,90,0]))
def test_the_same_rectangle_near_what_was_expected(pairs, symmetry):
    boxes,expected = (np.array(one, float) for one in zip(*pairs))
    spelt = nearest_spelling(boxes, expected, symmetry)
    far = abs(spelt[:,4]-expected[:,4]).max()
    if symmetry==0: assert far==0 and np.allclose(np.sort(spelt[:,2:4]), np.sort(boxes[:,2:4]))
    else: assert np.allclose(box_iou_rotated(boxes, spelt, aligned=True), 1, atol=1e-6)
    assert far<={360:math.pi, 180:math.pi/2, 90:math.pi/4, 0:0}[symmetry]+1e-6
    assert np.allclose(nearest_spelling(spelt, expected, symmetry), spelt)

@settings(deadline=None)
@given(BOX, st.integers(0, 3), numbers(-.25, .25))
def test_a_turn_of_its_own_changes_nothing(box, quarters, turn):
    "The same rectangle spelt in another way is spelt as the first"
    expected,turned = np.array([box], float),np.array([box], float)
    turned[:,4] += turn+quarters*math.pi/2
    if quarters%2: turned[:,2:4] = turned[:,3:1:-1]
    assert np.allclose(nearest_spelling(turned, expected, 180)[0], [*box[:4],box[4]+turn], atol=1e-5)

# --- films of boxes

def film(seed, n_frames=20, n=5, angle='le90'):
    "Boxes that move and turn far from one another, in a random order; [(Detections, number of each object)]"
    rng = np.random.default_rng(seed)
    start = np.stack([180*np.arange(n),rng.uniform(0, 50, n)], 1)
    step,rate = rng.uniform(-3, 3, (n,2)),rng.uniform(-.15, .15, n)
    sides,turn = np.sort(rng.uniform(12, 40, (n,2)))[:,::-1]+[8,0],rng.uniform(-3, 3, n)
    for frame in range(n_frames):
        boxes = np.concatenate([start+frame*step+rng.normal(0, .3, (n,2)), sides, (turn+frame*rate)[:,None]], 1)
        order = rng.permutation(n)
        yield Detections(canonicalize(boxes[order], angle), np.full(n, .9), np.zeros(n)),order

def followed(frames, tracker=None, moved=lambda boxes: boxes):
    tracker = tracker or Tracker()
    return [tracker.update(Detections(moved(found.boxes), found.scores, found.labels)) for found,_ in frames]

@settings(max_examples=12, deadline=None)
@given(st.integers(0, 30), st.sampled_from(['le90','le135','oc']))
def test_each_object_has_one_number_in_every_form(seed, angle):
    frames = [*film(seed, angle=angle)]
    tracks = followed(frames)
    for (found,order),own in zip(frames, tracks):
        assert sorted(own.ids.tolist())==[1,2,3,4,5]
        assert np.allclose(box_iou_rotated(found.boxes, own.boxes, aligned=True), 1, atol=1e-6)
    numbers_of = np.array([own.ids.numpy()[np.argsort(order)] for (_,order),own in zip(frames, tracks)])
    assert (numbers_of==numbers_of[0]).all()
    angles = np.array([own.boxes[:,4].numpy()[np.argsort(order)] for (_,order),own in zip(frames, tracks)])
    assert abs(np.diff(angles, axis=0)).max()<.2                            # runs on without jumps

@settings(max_examples=10, deadline=None)
@given(st.integers(0, 30), numbers(-3, 3), numbers(-500, 500))
def test_the_film_may_be_turned_and_moved(seed, turn, by):
    matrix = np.array([[math.cos(turn),-math.sin(turn)],[math.sin(turn),math.cos(turn)]])
    def moved(boxes):
        boxes = boxes.numpy().copy()
        boxes[:,:2],boxes[:,4] = boxes[:,:2]@matrix.T+by,boxes[:,4]+turn
        return canonicalize(boxes)
    frames = [*film(seed, 8)]
    assert [own.ids.tolist() for own in followed(frames)]==[own.ids.tolist() for own in followed(frames, moved=moved)]

def test_what_is_known_stays_sound():
    "Symmetric and positive after many frames, seen and unseen"
    tracker,rng = Tracker(misses=100),np.random.default_rng(0)
    for found,_ in film(3, 300): tracker.update(found[torch.from_numpy(rng.random(5)<.7)])
    assert len(tracker)>=5 and np.isfinite(tracker.mean).all()
    assert np.allclose(tracker.cov, np.swapaxes(tracker.cov, -1, -2)) and np.linalg.eigvalsh(tracker.cov).min()>0

def at(*xs, score=.9): return Detections([[x,50.,30,12,0] for x in xs], [score]*len(xs), [0]*len(xs))

@pytest.mark.parametrize('gap,kept', [(5,True),(6,False)])
def test_a_number_waits_for_as_long_as_it_should(gap, kept):
    tracker = Tracker(misses=5, hits=1)
    for x in (10,12,14): first = tracker.update(at(x)).ids.tolist()
    for _ in range(gap): assert tracker.update(at()).ids.tolist()==[]
    assert (tracker.update(at(14+2*(gap+1))).ids.tolist()==first)==kept
    assert tracker.n_ids==1+(not kept)

def test_weak_ones_go_on_and_begin_nothing():
    tracker = Tracker(hits=1)
    assert len(tracker.update(at(10, score=.2)))==0 and len(tracker)==0
    tracker.update(at(10)); tracker.update(at(12))
    assert tracker.update(at(14, score=.12)).ids.tolist()==[1] and len(tracker.update(at(16, score=.05)))==0
    assert len(tracker.update(at(18, score=.12)))==0                        # not seen in the frame before: only a sure one will do
    assert tracker.update(at(20)).ids.tolist()==[1]

def test_frames_that_were_left_out():
    tracker = Tracker(hits=1)
    for x in (10,16,22,28): tracker.update(at(x))
    assert tracker.update(at(28+6*8), step=8).ids.tolist()==[1]

@pytest.mark.parametrize('spoil', [[math.nan,50,30,12,0],[80,50,-30,12,0],[80,50,30,math.inf,0],[80,50,0,12,0]])
def test_bad_boxes_change_nothing(spoil):
    tracker = Tracker()
    tracker.update(at(10, 80))
    bad = at(10, 80); bad.boxes[1] = torch.tensor(spoil)
    before = tracker.mean.copy()
    with pytest.raises(TrackError, match='frame 1: 1 of 2 boxes are not finite or have no area'): tracker.update(bad)
    assert (tracker.mean==before).all() and tracker.update(at(10, 80)).ids.tolist()==[1,2]

def twitching(frames, **kw): # how far the angle of a tank jumps from frame to frame
    jumps,tracker = np.random.default_rng(frames).uniform(-1.5, 1.5, frames),Tracker(**kw)
    def found(jump): return Detections([[50,50,20,20,jump]], [.9], [1], ['ship','tank'], symmetry={'tank':'round'})
    return np.abs(np.diff([tracker.update(found(jump)).boxes[0,4].item() for jump in jumps])).max()

@pytest.mark.parametrize('symmetry', [None,'round',0,{'tank':'round'},{'tank':0},{1:0}])
def test_round_things_do_not_turn(symmetry): assert twitching(12, symmetry=symmetry, vocab=['ship','tank'])<.1

@pytest.mark.parametrize('symmetry', [180,90,{},{'ship':'round'}])
def test_what_is_asked_for_counts_more_than_what_detections_say(symmetry):
    assert twitching(12, symmetry=symmetry, vocab=['ship','tank'])>.3

def test_a_film_takes_the_symmetry_of_the_predictor():
    "Angles of round things stand still, and what comes out knows why"
    predictor = load_weights('rotated_fcos_tiny_synth')
    predictor.symmetry = {'storage-tank':'round'}
    jumps = iter(np.random.default_rng(0).uniform(-1.5, 1.5, 6))
    label = predictor.vocab.index('storage-tank')
    def said(items, note, *args, **kw): note([(i, np.array([[32,32,20,20,next(jumps),.9,label]], np.float32)) for i in range(len(items))])
    predictor.detect_rows = said
    tracks = track(predictor, [np.zeros((64,64,3), np.uint8)]*6, progress=False)
    assert tracks.rows[:,0].tolist()==[*range(6)] and np.ptp(tracks.boxes[:,4])<.1
    assert tracks.at(3).symmetry==predictor.symmetry==tracks.filled().at(3).symmetry

@pytest.mark.parametrize('symmetry,round', [({'tank':'round'},True),({'tank':90},False),(None,False)])
def test_round_things_are_drawn_with_a_circle(symmetry, round):
    "In a film: their numbers stand in the captions, and their class is still known"
    blank,trails = np.full((64,64,3), 90, np.uint8),Trails()
    found = Tracker().update(Detections([[32,32,40,40,0]], [.9], [1], ['ship','tank'], symmetry=symmetry))
    trails.see(found)
    drawn = (trails.draw(blank, found, text=False)!=blank).any(2)
    corner = 32-20/math.sqrt(2)                                             # where the circle passes, far from the sides
    assert drawn[int(corner)-1:int(corner)+2,int(corner)-1:int(corner)+2].any()==round

# --- painted films

def test_painted_films_are_the_same_again():
    one,two = ([*moving_scene(5, 4, 96, 3)] for _ in range(2))
    assert all((a==b).all() and (p['boxes']==q['boxes']).all() for (a,p),(b,q) in zip(one, two))
    truth = truth_table([rows for _,rows in one])
    moved = [np.linalg.norm(np.diff(truth['boxes'][truth['id']==i,:2], axis=0), axis=1) for i in np.unique(truth['id'])]
    assert max(step.max(initial=0) for step in moved)>.5 and all(step.max(initial=0)<4 for step in moved)

def test_the_shipped_detector_on_a_painted_film(tmp_path):
    "Most of what is followed keeps its number"
    predictor = load_weights('rotated_fcos_tiny_synth')
    truth = make_video(tmp_path/'film.mp4', seed=4, n_frames=15, n_objects=6, classes=['plane','large-vehicle'], vocab=predictor.vocab)
    tracks = track(predictor, tmp_path/'film.mp4', tmp_path/'out', ['csv','json'], progress=False)
    scores = eval_tracks(tracks, truth)
    assert scores['AssA']>.5 and scores['HOTA']>.3, scores
    kept = (tmp_path/'out/tracks.csv').read_bytes()
    again = track(predictor, tmp_path/'film.mp4', tmp_path/'out', progress=False)
    assert (tmp_path/'out/tracks.csv').read_bytes()==kept and (again.rows==tracks.rows).all()

def test_what_is_no_film_is_named(tmp_path):
    (tmp_path/'bad.mp4').write_bytes(b'no video at all'*99)
    for source,error,words in (([],VideoError,'no frames'), (tmp_path/'none.mp4',FileNotFoundError,'no such video'),
                               (tmp_path/'bad.mp4',VideoError,'cannot be read as a video')):
        with pytest.raises(error, match=words): [*Frames(source)]

def test_mistakes_are_named_before_the_work(tmp_path):
    predictor,images = load_weights('rotated_fcos_tiny_synth'),[np.zeros((64,64,3), np.uint8)]
    (tmp_path/'tracks.csv').write_text('mine')
    for kw,error,words in ((dict(out=tmp_path),FileExistsError,'not from a run'), (dict(format='xml'),ArgumentError,"'csv' or 'json'"),
                           (dict(video=True),ArgumentError,'name a folder'), (dict(hit=3),TypeError,'hits'),
                           (dict(symmetry=45),ArgumentError,"360, 180, 90 or 'round'"), (dict(low=.9),ArgumentError,'no more than high')):
        with pytest.raises(error, match=words): track(predictor, images, **kw)
    with pytest.raises(ValueError, match='or a Predictor'): track(images, predictor)
    assert (tmp_path/'tracks.csv').read_text()=='mine'

def test_nothing_followed():
    tracks = Tracks([], ['ship'])
    assert repr(tracks)=='nothing followed in 0 frames' and len(tracks)==len(tracks.df)==len(tracks.filled().rows)==0

def test_sizes_that_differ_are_named():
    predictor = load_weights('rotated_fcos_tiny_synth')
    images = [np.zeros((64,64,3), np.uint8),np.zeros((64,96,3), np.uint8)]
    with pytest.raises(VideoError, match='frame 1 has 96 x 64 px'): track(predictor, images, progress=False)
