"Windows as training items, and the splitter that writes them as files"
import os, subprocess, sys, warnings
import cv2, numpy as np, pytest
from PIL import Image
from rotnb.geometry.boxes import rbox2qbox
from rotnb.data.types import is_ignored, is_real
from rotnb.data.images.rasters import CorruptImageError
from rotnb.data.blocks import open_image
from rotnb.data.images.windows import Window
from rotnb.data.labels.records import Annot, LabelError, LabelWarning, area_of
from rotnb.data.formats.dota import read_dota
from rotnb.data.labels.tiles import tile_annots, window_fractions
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.cli.commands import UserError
from rotnb.cli.split import main, split_scenes
from paths import ROOT
from rasters_made import rio, write_tif
from text_sets import folder, quick

def dota_set(root, n=3, seed=0, ext='png', h=700, w=900, write=None):
    "Scenes with many boxes, at whole pixels, some outside or cut by everything there is"
    rng = np.random.default_rng(seed)
    for d in ('images','labelTxt'): (root/d).mkdir(parents=True)
    for i in range(n):
        im = rng.integers(0, 255, (h-60*i,w+130*i,3), np.uint8)
        f = root/f'images/P{i:04}.{ext}'
        write(f, im) if write else Image.fromarray(im).save(f)
        b = np.column_stack([rng.uniform(-5, w, 80), rng.uniform(-5, h, 80), rng.uniform(6, 150, 80), rng.uniform(4, 60, 80),
            rng.uniform(-1.6, 1.6, 80)])
        q = rbox2qbox(b).round().reshape(-1,8)
        q = q[np.array([area_of(o)>4 for o in q])]
        names = rng.choice(['plane','small-vehicle','ship'], len(q))
        (root/f'labelTxt/P{i:04}.txt').write_text('imagesource:GoogleEarth\ngsd:0.146343590398\n' + ''.join(
            f"{' '.join(f'{v:.1f}' for v in o)} {k} {int(rng.random()<.2)}\n" for o,k in zip(q, names)))
    return root

def mmrotate_split(root, sizes, gaps, rates, img_rate_thr=.6, iof_thr=.7):
    "What MMRotate's tool does, from its description, through shapely: file name -> (x, y, side, label text)"
    from shapely.geometry import Polygon, box
    res = {}
    for f in sorted((root/'images').iterdir()):
        W,H = Image.open(f).size
        lines = [o.split(' ') for o in (root/f'labelTxt/{f.stem}.txt').read_text().splitlines()[2:]]
        polys = [np.array(o[:8], np.float32) for o in lines]
        wins = []
        for rate in rates:
            for size,gap in zip(sizes, gaps):
                size,gap = int(size/rate),int(gap/rate)
                for x in range(10**6):
                    if x and x*(size-gap)+gap>=W: break
                    for y in range(10**6):
                        if y and y*(size-gap)+gap>=H: break
                        wins.append((min(x*(size-gap), max(W-size, 0)), min(y*(size-gap), max(H-size, 0)), size))
        fill = np.array([(min(W, x+s)-x)*(min(H, y+s)-y)/s**2 for x,y,s in wins])
        if not (fill>img_rate_thr).any(): fill[abs(fill-fill.max())<.01] = 1
        for (x,y,s),r in zip(wins, fill):
            if r<=img_rate_thr: continue
            text = ''
            for l,p in zip(lines, polys):
                poly = Polygon(p.reshape(4,2))
                iof = poly.intersection(box(x, y, x+s, y+s)).area/np.float32(poly.area)
                if iof<iof_thr: continue
                moved = p+np.array([-x,-y]*4, np.float32)
                text += f"{' '.join(map(str, moved))} {l[8]} {'2' if iof<1 else l[9]}\n"
            res[f'{f.stem}__{s}__{x}___{y}'] = x,y,s,text
    return res

@pytest.mark.parametrize('kw', [dict(sizes=(256,), gaps=(50,), rates=(1.,)), dict(sizes=(300,), gaps=(100,), rates=(.5,1.,1.5)),
                                dict(sizes=(200,333), gaps=(0,99), rates=(1.,)), dict(sizes=(1024,), gaps=(200,), rates=(1.,))], ids=str)
def test_split_is_mmrotates(tmp_path, kw):
    "Names, pixels with padding, and every character of the label files"
    root = dota_set(tmp_path/'a')
    want = mmrotate_split(root, **kw)
    split_scenes(root, tmp_path/'b', **kw, n_workers=2)
    assert {o.stem for o in (tmp_path/'b/annfiles').iterdir()}=={o.stem for o in (tmp_path/'b/images').iterdir()}==set(want)
    assert sum(t.count(' 2\n') for *_,t in want.values())>3
    for name,(x,y,s,text) in want.items():
        assert (tmp_path/f'b/annfiles/{name}.txt').read_text()==text, name
        tile,scene = np.array(Image.open(tmp_path/f'b/images/{name}.png')),np.array(Image.open(root/f"images/{name.split('__')[0]}.png"))
        part = scene[y:y+s, x:x+s]
        assert tile.shape==(s,s,3) and np.array_equal(tile[:len(part),:part.shape[1]], part) and tile.sum()==part.sum()

@pytest.mark.parametrize('kind', ['png','tif'])
def test_lazy_tiles_are_the_files(tmp_path, kind, request):
    "What a loader gets from windows is what it gets from the splitter's files: pixels and labels, at two scales"
    write = None
    if kind=='tif':
        rio = request.getfixturevalue('rio')
        write = lambda f,a: write_tif(rio, f, a)
    root = dota_set(tmp_path/'a', ext=kind, write=write)
    split_scenes(root, tmp_path/'b', (256,), (64,), (.5,1.))
    files = {o.image.stem: o for o in read_dota(tmp_path/'b')}
    lazy = tile_annots(read_dota(root), 256, 64, (.5,1.), empty='keep', below='drop', mark_cut=True)
    assert len(files)==len(lazy)
    for t in lazy:
        w = t.image
        f = files[f'{w.scene.name}__{w.w}__{w.x}___{w.y}']
        tile = np.array(open_image(f.image))
        assert np.array_equal(tile if w.scale==1 else cv2.resize(tile, w.size, interpolation=cv2.INTER_AREA), np.array(open_image(w)))
        assert (f.names,f.difficult.tolist())==(t.names,t.difficult.tolist())
        assert abs(f.quads*w.scale-t.quads).max(initial=0)<1e-3

def test_fractions_are_exact():
    "Against shapely, for boxes that lie over borders and corners"
    from shapely.geometry import Polygon, box
    rng = np.random.default_rng(2)
    q = rbox2qbox(np.column_stack([rng.uniform(-20, 120, (400,2)), rng.uniform(1, 90, (400,2)), rng.uniform(-1.6, 1.6, 400)]))
    ws = [Window('a', 0, 0, 100, 100), Window('a', 30, 50, 40, 80)]
    f = window_fractions(q, ws)
    for w,fs in zip(ws, f):
        want = np.array([Polygon(o).intersection(box(w.x, w.y, w.x+w.w, w.y+w.h)).area/Polygon(o).area for o in q])
        assert abs(fs-want).max()<1e-6
        assert ((fs==1)==(((q>=[w.x,w.y]) & (q<=[w.x+w.w,w.y+w.h])).all((1,2)))).all()
    assert np.isin(window_fractions(np.full((1,4,2), np.nan), ws), 0).all()

def test_no_box_is_lost_without_a_word(tmp_path):
    "Every box that is not difficult counts in some window, or is among those that are told"
    a = read_dota(dota_set(tmp_path/'a', n=1))[0]
    with pytest.warns(LabelWarning, match='count in no window') as w: tiles = tile_annots([a], 200, 20, empty='drop')
    n = int(str(w[0].message).split()[0])
    seen = {i for t in tiles for i,q in enumerate(a.quads) for p,
        d in zip(t.image.to_scene(t.quads), t.difficult) if not d and abs(p-q).max()<1e-6}
    assert n>0 and len(seen)+n==(a.difficult==0).sum()

@pytest.mark.parametrize('workers', [0,2])
def test_loaders_read_windows(rio, tmp_path, workers):
    "A data set of rasters and of images trains from windows, with and without processes, whole or not"
    root = dota_set(tmp_path/'t', n=2, ext='tif', write=lambda f,a: write_tif(rio, f, a))
    dota_set(tmp_path/'p', n=2, seed=1)
    sets = read_dota(root)+read_dota(tmp_path/'p')
    with pytest.warns(LabelWarning):
        dls = RotatedDataLoaders.from_annots(sets, sets[1:3], tile=dict(size=256, overlap=100, scales=(.5,1.5)), bs=4, batch_tfms=[],
                                             num_workers=workers, device='cpu')
    assert {o.image.scale for o in dls.valid.items}=={.5} and all((t.difficult==0).any() for t in dls.train.items)
    k = 0
    for x,q,l in dls.valid:
        assert x.shape[2:]==(256,256)
        for im,l_ in zip(x, l):
            t = dls.valid.items[k]; k += 1
            assert np.array_equal((im*255).round().byte().permute(1,2,0).numpy(), t.image.pixels())
            assert int(is_real(l_).sum())==len(t) and int(is_ignored(l_).sum())>=(t.difficult>0).sum()
    assert k==len(dls.valid.items)
    assert len(list(dls.train))>0

def test_command(tmp_path, capsys):
    for s in ('train','val'): dota_set(tmp_path/f'a/{s}', n=1)
    (tmp_path/'rotnb-split.py').write_text('import sys\nfrom rotnb.cli.split import main\nif __name__=="__main__": sys.exit(main())\n')
    args = '--sizes', 300, '--gaps', 60, '--rates', .5, 1, '--no-padding', '--ext', 'bmp', '--keep-flag', '--img-rate-thr', .3
    r = subprocess.run([sys.executable, tmp_path/'rotnb-split.py', *map(str, (tmp_path/'a', tmp_path/'b', *args))], capture_output=True,
        text=True,
                       env={**os.environ, 'PYTHONPATH':str(ROOT), 'PYTHONWARNINGS':'ignore'})
    assert r.returncode==0, r.stderr
    n = len(list((tmp_path/'b/val/images').glob('*.bmp')))
    assert 'boxes count in no window' in r.stdout and f'val: 1 scenes, {n} windows' in r.stdout
    assert not any(o.read_text().count(' 2\n') for o in (tmp_path/'b').rglob('*.txt'))
    tiles = read_dota(tmp_path/'b', 'val')
    assert len(tiles)==n and {'600','300'}=={o.image.stem.split('__')[1] for o in tiles}

def test_command_errors_in_plain_words(tmp_path, capsys):
    for s in ('train','val'): dota_set(tmp_path/f'a/{s}', n=1)
    f = tmp_path/'a/val/images/P0000.png'
    def refused(said, **kw):
        with pytest.raises(SystemExit) as e: main(tmp_path/'a', tmp_path/'b', **kw)
        assert e.value.code==2 and said in capsys.readouterr().err and not (tmp_path/'b').exists()
    refused('gap < size', sizes=[100])
    refused('expected png', ext='gif')
    refused('one gap for each size', sizes=[500,700])
    refused('one or three numbers', padding_value=[1,2])
    refused('iof_thr must be', iof_thr=0.)
    refused('unknown format', format='none')
    good = f.read_bytes()
    f.write_bytes(b'broken'); refused('P0000.png')
    f.unlink(); refused('no images')
    f.write_bytes(good); (tmp_path/'a/val/labelTxt/P0000.txt').write_text('1 2 3\n'); refused('P0000.txt:1')

def test_a_image_that_breaks_off_leaves_a_target_to_go_on_with(tmp_path):
    root = dota_set(tmp_path/'a', n=2)
    f = root/'images/P0001.png'; good = f.read_bytes()
    f.write_bytes(good[:len(good)//2])
    with pytest.raises(CorruptImageError, match='P0001'): split_scenes(root, tmp_path/'b', (256,), (50,), n_workers=1)
    with pytest.raises(UserError, match='other settings'): split_scenes(root, tmp_path/'b', (300,), (50,))
    f.write_bytes(good)
    (tmp_path/'b/images/.P0001__256__0___0.png.part').write_bytes(b'half')     # what a killed process leaves
    res = split_scenes(root, tmp_path/'b', (256,), (50,))
    split_scenes(root, tmp_path/'c', (256,), (50,))
    text = lambda d: {o.relative_to(d): o.read_bytes() for o in d.rglob('*.txt')} | {o.relative_to(d): o.read_bytes()
        for o in d.rglob('*.png')}
    assert text(tmp_path/'b')==text(tmp_path/'c') and len(text(tmp_path/'c'))==2*res['']['windows']
    assert not list((tmp_path/'b').rglob('.*'))

def test_same_name_twice_is_refused(tmp_path):
    root = dota_set(tmp_path/'a', n=1)
    (root/'images/sub').mkdir(); (root/'images/sub/P0000.png').write_bytes((root/'images/P0000.png').read_bytes())
    with pytest.warns(LabelWarning), pytest.raises(UserError, match='2 images .*P0000'): split_scenes(root, tmp_path/'b')
    (root/'images/P0000.jpg').write_bytes((root/'images/P0000.png').read_bytes())
    with pytest.raises(LabelError, match='P0000.jpg: '): split_scenes(root, tmp_path/'b')

def test_the_overlap_is_in_proportion():
    a = [Annot(np.zeros((1024,1024,3), np.uint8), rbox2qbox(np.array([[500.,500,20,10,.3]])), ['s'], np.zeros(1, int))]
    n = {s:len(tile_annots(a, s, empty='keep')) for s in (100,200,256,512,1024)}
    assert n=={100:169,200:49,256:25,512:9,1024:1}

def test_what_no_window_shows_is_said_once(tmp_path):
    a = Annot(folder(tmp_path, {'a.png':(900,700)})/'a.png', rbox2qbox(np.array([[450.,350,600,200,0],[100,100,20,10,0]])),
        ['port','ship'], np.zeros(2, int))
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always'); RotatedDataLoaders.from_annots([a], [a], tile=256, **quick)
    said = [str(o.message) for o in w if issubclass(o.category, LabelWarning)]
    assert len(said)==1
    assert 'training: 1 boxes count in no window, of 2' in said[0]
    assert 'validation: 1 boxes' in said[0]
    assert 'overlap=600' in said[0]
