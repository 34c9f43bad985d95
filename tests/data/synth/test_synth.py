"Synthetic scenes: properties over many seeds, and the folder they are written to"
import itertools, json
import numpy as np, pytest
from PIL import Image
from shapely.geometry import Polygon, box
from rotnb.data.synth.scenes import CLASSES, MOST, SynthFolderError, kind_of, make_scene, make_synth

SIZE = 320
scenes = pytest.mark.parametrize('seed', range(40))


@pytest.fixture(scope='module')
def scene():
    made = {}
    return lambda seed: made.setdefault(seed, make_scene(seed, SIZE))


@scenes
def test_shapes(scene, seed):
    image, quads, names, difficult = scene(seed)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 and image.std() > 5
    assert quads.shape == (len(names), 4, 2) and quads.dtype.kind == 'f' and np.isfinite(quads).all()
    assert difficult.shape == (len(names),) and difficult.dtype == bool
    assert set(names) <= set(CLASSES) and len(names) <= MOST


@scenes
def test_rectangles_clockwise(scene, seed):
    for q in scene(seed)[1].astype(float):
        nxt = np.roll(q, -1, 0)
        assert (q[:, 0]*nxt[:, 1]-nxt[:, 0]*q[:, 1]).sum()/2 > 20   # positive shoelace with y down: clockwise; and an area, px
        e = nxt-q
        assert np.allclose(e[0], -e[2], atol=1e-3) and np.allclose(e[1], -e[3], atol=1e-3)
        assert abs(e[0]@e[1]) < 1e-3*np.linalg.norm(e[0])*np.linalg.norm(e[1])+1e-2


@scenes
def test_visible_fraction(scene, seed):
    _, quads, _, difficult = scene(seed)
    for q, hard in zip(quads, difficult):
        seen = Polygon(q).intersection(box(0, 0, SIZE, SIZE)).area/Polygon(q).area
        assert seen > .049
        if seen < .299: assert hard


@scenes
def test_apart(scene, seed):
    shapes = [Polygon(q) for q in scene(seed)[1]]
    for a, b in itertools.combinations(shapes, 2):
        both = a.intersection(b).area
        assert both/(a.area+b.area-both) <= .02   # touching neighbours, never one on another


def test_mostly_easy_and_varied(scene):
    every = [scene(s) for s in range(40)]
    hard = np.concatenate([s[3] for s in every])
    assert hard.mean() < .2
    assert {n for s in every for n in s[2]} == set(CLASSES)
    long = np.array([q[0]-q[3] for s in every for q in s[1]])
    turn = np.arctan2(long[:, 1], long[:, 0])
    assert (np.histogram(turn, 8, (-np.pi, np.pi))[0] > len(turn)/40).all()   # every orientation occurs


def test_folder(tmp_path):
    make_synth(tmp_path/'s', 3, 2, size=128, seed=9, workers=2)
    for split, code, n in (('train', 0, 3), ('val', 1, 2)):
        images = sorted((tmp_path/'s'/split/'images').iterdir())
        texts = sorted((tmp_path/'s'/split/'labelTxt').iterdir())
        assert [f.stem for f in images] == [f.stem for f in texts] and len(images) == n
        for i, (f, t) in enumerate(zip(images, texts)):
            image, quads, names, difficult = make_scene((9, code, i), 128, kind_of(i))
            assert (np.asarray(Image.open(f)) == image).all()
            head, gsd, *rows = t.read_text().splitlines()
            assert head == 'imagesource:synthetic' and float(gsd.removeprefix('gsd:')) > 0
            rows = [r.split() for r in rows]
            assert np.allclose(np.array([r[:8] for r in rows], float).reshape(-1, 4, 2), quads, atol=.006)
            assert [r[8] for r in rows] == names and [int(r[9]) for r in rows] == difficult.tolist()


def test_same_bytes_whatever_the_workers(tmp_path):
    a, b = (make_synth(tmp_path/str(w), 2, 1, size=96, workers=w) for w in (1, 2))
    files = [f.relative_to(a) for f in a.rglob('*') if f.is_file()]
    assert len(files) == 7
    assert all((a/f).read_bytes() == (b/f).read_bytes() for f in files)


def test_folder_is_guarded(tmp_path):
    with pytest.raises(SynthFolderError, match='was made with'): make_synth(make_synth(tmp_path/'a', 1, 1, size=64), 1, 1, size=64, seed=2)
    (tmp_path/'b').mkdir()
    (tmp_path/'b'/'mine.txt').write_text('mine')
    with pytest.raises(SynthFolderError, match='other files'): make_synth(tmp_path/'b')
    manifest = tmp_path/'a'/'synth.json'
    assert json.loads(manifest.read_text())['complete']
