"Parts of a set: by class, by scene, reproducible"
import os, subprocess, sys
from collections import Counter
from pathlib import Path
import numpy as np, pytest
from rotnb.data.labels.records import Annot, DatasetLayoutError
from rotnb.data.labels.subsets import (group_keys, kfolds, missing_classes, scene_name, split_annots, subset_annots, upright_annots,
                                       upright_notice)
from rotnb.data.labels.tiles import tile_annots

def annot(name, *names): return Annot(Path(name), np.zeros((len(names),4,2)), list(names), np.zeros(len(names), int))

def skewed(n, n_classes=12, seed=0):
    "Images of a set with frequent and rare classes, several in an image, up to 40 boxes of one"
    rng,p = np.random.default_rng(seed),1/np.arange(1, n_classes+1)**1.5
    names = lambda: [f'c{c:02d}' for c in rng.choice(n_classes, rng.integers(0,4), p=p/p.sum()) for _ in range(rng.geometric(.15))]
    return [annot(f'{i:04d}.png', *names()) for i in range(n)]

def image_share(part, whole):
    count = lambda annots: Counter(name for one in annots for name in set(one.names))
    return {name:count(part)[name]/n for name,n in count(whole).items() if n>=10}

def box_gap(part, whole, share):
    count = lambda annots: Counter(name for one in annots for name in one.names)
    return np.mean([abs(count(part)[name]/n-share) for name,n in count(whole).items()])

@pytest.mark.parametrize('draw', [lambda o, seed: split_annots(o, .2, seed)[1], lambda o, seed: subset_annots(o, .2, seed),
                                  lambda o, seed: kfolds(o, 5, seed)[seed][1]], ids=['split','subset','fold'])
def test_every_part_has_its_share_of_every_class(draw):
    gaps,blind = [],[]
    for seed in range(3):
        whole = skewed(600, seed=seed)
        part = draw(whole, seed)
        assert len(part)==120
        assert all(.1<=share<=.3 for share in image_share(part, whole).values()), image_share(part, whole)
        gaps.append(box_gap(part, whole, .2))
        blind.append(box_gap([whole[i] for i in np.random.default_rng(seed).permutation(600)[:120]], whole, .2))
    assert np.mean(gaps)<.75*np.mean(blind)

@pytest.mark.parametrize('pct', [.1,.2,.5])
def test_what_one_image_shows_is_trained_on_and_said(pct):
    for seed in range(10):
        whole = skewed(40, 4)+[annot('rare.png', 'yeti'), annot('two.png', 'c00', 'ufo')]
        train,valid = split_annots(whole, pct, seed)
        assert all(any(name in one.names for one in train) for name in ('yeti','ufo'))
        assert missing_classes(train, valid).startswith('not in validation: ') and 'yeti (1 image)' in missing_classes(train, valid)

def test_small_sets_are_divided():
    for n in range(2, 9):
        for pct in (.01,.2,.5,.99):
            train,valid = split_annots([annot(f'{i}.png', 'a') for i in range(n)], pct)
            assert len(train)+len(valid)==n and train and valid
    with pytest.raises(DatasetLayoutError, match='1 image cannot be split'): split_annots([annot('a.png', 'a')])
    for bad in (0, 1, 20, -1):
        with pytest.raises(ValueError, match='expected a share between 0 and 1'): split_annots(skewed(9), bad)

@pytest.mark.parametrize('name', ['P{}__1__0___{}','P{}__0.5__{}___0','P{}__1024__{}___824','P{}_{}_800_0_900','P{}_jpg.rf.{:032x}'])
def test_windows_of_a_scene_stay_on_one_side(name):
    annots = [annot(name.format(f'{scene:04d}', 7*i)+'.png', *['ship']*(scene%3), *['harbor']*(i%2))
              for scene in range(11) for i in range(6)]
    scene = lambda part: {one.image.name[:5] for one in part}
    for seed in range(5):
        train,valid = split_annots(annots, .2, seed)
        assert not scene(train)&scene(valid) and 6<=len(valid)<=18 and len(scene(valid))>=1
        for one,other in kfolds(annots, 4, seed): assert not scene(one)&scene(other)
    assert any(scene(a)&scene(b) for a,b in [split_annots(annots, .2, by=None)])

def test_windows_in_memory_know_their_scene():
    image = np.zeros((64,96,3), np.uint8)
    quad = np.array([[[10,10],[40,10],[40,30],[10,30]]], float)
    scenes = [Annot(image+i, quad, ['a'], np.zeros(1, int)) for i in range(4)]
    tiles = tile_annots(scenes, size=32, overlap=8, empty='keep')
    train,valid = split_annots(tiles, .25)
    assert not {id(one.whole) for one in train}&{id(one.whole) for one in valid}

def test_names_that_are_no_windows():
    for stem in '0001 P0001 IMG_2021_06_30_12 ship_1_2_3_4 a__b 000000581929 x_0_0_10_10'.split(): assert scene_name(stem) is None, stem

def test_groups_are_told_by_function_folder_or_table():
    annots = [annot(f'{site}/{i}.png', 'a') for site in 'xyz' for i in range(4)]
    site = lambda part: {one.image.parent.name for one in part}
    for by in ('folder', lambda one: one.image.parent.name, {str(one.image):one.image.parent.name for one in annots}):
        train,valid = split_annots(annots, .3, by=by)
        assert (len(site(train)),len(site(valid)))==(2,1) and not site(train)&site(valid)
    pd = pytest.importorskip('pandas')
    flat = [annot(f'{site}{i}.png', 'a') for site in 'xyz' for i in range(4)]
    table = pd.Series([one.image.name[0] for one in flat], index=[one.image.name for one in flat])
    train,valid = split_annots(flat, .3, by=table)
    assert not {one.image.name[0] for one in train}&{one.image.name[0] for one in valid}
    with pytest.raises(ValueError, match='z3.png has no group'): group_keys(flat, table[:-1])
    with pytest.raises(DatasetLayoutError, match='belong together'): split_annots(flat, by=lambda one: 0)

def test_the_same_images_in_another_process():
    code = ('from test_subsets import *; o=skewed(60); '
            'print([a.image.stem for a in [*split_annots(o)[1],*subset_annots(o, .3),*kfolds(o)[2][1]]])')
    run = lambda seed: subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
                                      env={**os.environ, 'PYTHONHASHSEED':seed}).stdout
    runs = {run(seed) for seed in '12'}
    o = skewed(60)
    assert runs=={str([a.image.stem for a in [*split_annots(o)[1],*subset_annots(o, .3),*kfolds(o)[2][1]]])+'\n'}

def test_fractions_lie_in_each_other():
    whole = skewed(100)
    parts = [{one.image for one in subset_annots(whole, n/100)} for n in (1,5,20,50,77,100)]
    assert [len(part) for part in parts]==[1,5,20,50,77,100] and all(small<=large for small,large in zip(parts, parts[1:]))

def test_at_most():
    whole = skewed(50)
    assert [len(subset_annots(whole, *o)) for o in ((None,0,None,9), (.1,0,None,9), (None,0,None,900), (1,0,None,1))]==[9,5,50,1]
    for bad in (0, -1, 2.5, '9', True):
        with pytest.raises(ValueError, match='max_n is'): subset_annots(whole, max_n=bad)
    for bad in (20, -.1, '.5', True, float('nan')):
        with pytest.raises(ValueError, match='fraction is'): subset_annots(whole, bad)

def test_the_notice_of_upright_boxes():
    flat = Annot(Path('a.png'), np.array([[[0,0],[9,0],[9,5],[0,5.]]]*20)+.123456, ['a']*20, np.zeros(20, int))
    assert upright_notice([flat]*3).startswith('all 60 boxes are upright') and 'upright=True' in upright_notice([flat])
    assert upright_notice([flat.keep(range(9))])==''
    turned = Annot(Path('b.png'), np.array([[[0,1],[9,0],[9.5,5],[.5,6.]]]), ['a'], np.zeros(1, int))
    assert upright_notice([flat, turned])=='' and upright_notice([flat, *upright_annots([turned])])
    back = Annot(Path('c.png'), flat.quads[:,[2,3,0,1]], flat.names, flat.difficult)         # headings of 90 degrees are upright, too
    assert upright_notice([back])
