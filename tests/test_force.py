"""By force: damaged files, pickles that would run code, kills at any moment, two editors at once, HTML in names.
Nothing is lost and nothing is run.

A few of each are tried with every run of the tests; `pytest -m slow tests/test_force.py` tries as many as `FULL` says."""
import multiprocessing, os, pickle, random, shutil, signal, time, warnings
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from good_sets import FORMS, good_set
from corruptions import corrupt
from rotnb.cli.convert import convert
from rotnb.cli.split import split_scenes
from rotnb.data.labels.records import DatasetLayoutError, LabelError
from rotnb.data.blocks import open_image
from rotnb.data.cache import DiskCache
from rotnb.data.formats.table import read_format, sniff_format
from rotnb.data.doctor.report import doctor
from rotnb.data.doctor.fix import fix
from rotnb.data.images.rasters import CorruptImageError
from rotnb.explore.label_fixer import LabelFixer
from rotnb.data.mend.sources import LabelConflict
from rotnb.interop.imagenet import load_backbone
from rotnb.interop.mmrotate import detector_from_mmrotate, load_mmrotate, read_checkpoint
from rotnb.models import create_detector

FULL = dict(files=1500, images=104, pickles=35, kills=22, saves=300)
SMOKE = dict(files=16, images=26, pickles=10, kills=2, saves=12)
def times(what): return pytest.mark.parametrize('n', [SMOKE[what], pytest.param(FULL[what], marks=pytest.mark.slow)])
def fork(f): # slow in any size: a child of a process in which other tests have used torch's threads may wait for them for ever
    return pytest.mark.slow(pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='needs fork')(f))
FORK = multiprocessing.get_context('fork') if 'fork' in multiprocessing.get_all_start_methods() else None

@times('files')
def test_damaged_label_files(tmp_path, n):
    "Four ways of reading: each reads or refuses by name, within 20 seconds"
    files = {k:good_set(tmp_path/'good'/k, k) for k in FORMS}
    for i in range(n):
        name,root = FORMS[i%len(FORMS)],tmp_path/'bad'
        what = corrupt(root, name, files[name], 70000+i)[0]
        for read in (lambda: read_format(root, format=name, on_bad='raise'), lambda: read_format(root, format=name, on_bad='warn'),
                     lambda: sniff_format(root), lambda: doctor(root, name, images=False)):
            start = time.process_time()                               # other processes may have the machine
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                try: read()
                except (LabelError, DatasetLayoutError) as e:
                    assert any(o in str(e) for o in [str(root), *(Path(k).name for k in files[name])]), (what, e)
            assert time.process_time()-start<20, what
        shutil.rmtree(root)

MODES = dict(png=['RGB','L','P','RGBA','LA','1','I;16'], jpg=['RGB','L','CMYK'], bmp=['RGB','L','P'],
             tif=['RGB','L','CMYK','LAB','RGBA'], webp=['RGB','RGBA'])
DAMAGE = dict(none=lambda d, r: d, half=lambda d, r: d[:len(d)//2], empty=lambda d, r: b'', noise=lambda d, r: r.randbytes(300),
    swapped=lambda d, r: bytes(b^(1<<r.randrange(8)) if r.random()<.01 else b for b in d), tail=lambda d, r: d+r.randbytes(50))

def in_mode(pixels, mode):
    "RGB pixels as an image of a mode that Pillow cannot always convert to"
    if mode=='I;16': return Image.fromarray(pixels[...,0].astype(np.uint16)*200)
    im = Image.fromarray(pixels)
    return Image.merge('LAB', im.split()) if mode=='LAB' else im.convert(mode)

@times('images')
def test_damaged_images(tmp_path, n):
    "Opened as three bands of bytes, or refused by name; half an image is never opened"
    r,rng = random.Random(0),np.random.default_rng(0)
    every = [(ext,mode,how) for how in DAMAGE for ext,modes in MODES.items() for mode in modes]
    r.shuffle(every)
    for i,(ext,mode,how) in enumerate(every[:n]):
        im = in_mode(rng.integers(0, 255, (40,60,3), dtype=np.uint8), mode)
        f = tmp_path/f'{i}.{ext}'; im.save(f); f.write_bytes(DAMAGE[how](f.read_bytes(), r))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try: p = open_image(f)
            except CorruptImageError as e: assert f.name in str(e) and how!='none', (ext, mode, how, e); continue
        assert how not in ('half','empty','noise') and p.mode=='RGB', (ext, mode, how)

class Marker:
    "Makes an empty file when it is unpickled"
    def __init__(self, file): self.file = str(file)
    def __reduce__(self): return (open, (self.file, 'w'))

def marked(file, kind, marker):
    "A file with a pickle that would leave its mark"
    if kind=='pickle': file.write_bytes(pickle.dumps(dict(state_dict=Marker(marker))))
    elif kind=='torch': torch.save(dict(state_dict={'a':Marker(marker)}, meta={}), file)
    elif kind=='legacy': torch.save(dict(model=Marker(marker)), file, _use_new_zipfile_serialization=False)
    elif kind=='within': torch.save({'state_dict':{'backbone.conv1.weight':torch.zeros(1)}, 'meta':{'cfg':Marker(marker)}}, file)
    elif kind=='npy':
        np.save(file.with_suffix('.npy'), np.array([Marker(marker)], object), allow_pickle=True)
        file.with_suffix('.npy').rename(file)
    elif kind=='cut':
        torch.save(Marker(marker), file)
        file.write_bytes(file.read_bytes()[:-30])
    else: torch.save([Marker(marker)], file)
    return file

@times('pickles')
def test_pickles_are_not_run(tmp_path, n):
    "Weights of others, in seven kinds of files and by five ways in"
    net,marker = create_detector('rotated_fcos', n_classes=2, backbone='test_resnet', pretrained=False),tmp_path/'run'
    ways = [read_checkpoint, lambda f: load_mmrotate(net, f), detector_from_mmrotate, lambda f: load_backbone(net, f),
            lambda f: torch.load(f, weights_only=True)]
    cases = [(k,w) for k in ('pickle','torch','legacy','within','npy','cut','list') for w in ways]
    random.Random(0).shuffle(cases)
    for i,(kind,way) in enumerate(cases[:n]):
        file = marked(tmp_path/f'{i}.pth', kind, marker)
        with pytest.raises(Exception), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            way(file)
        assert not marker.exists(), kind

def test_pickles_in_a_cache_and_as_an_image(tmp_path):
    Image.new('RGB', (8,8)).save(tmp_path/'a.png')
    cache = DiskCache(tmp_path/'c')
    cache(tmp_path/'a.png')
    marked(cache.file(tmp_path/'a.png'), 'npy', tmp_path/'run')
    assert cache(tmp_path/'a.png').size==(8,8)
    with pytest.raises(CorruptImageError): open_image(marked(tmp_path/'x.npy', 'npy', tmp_path/'run'))
    assert not (tmp_path/'run').exists()

def a_set(root, n=12):
    rng = np.random.default_rng(0)
    for o in ('images','labelTxt'): (root/o).mkdir(parents=True)
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (96,96,3), dtype=np.uint8)).save(root/f'images/{i}.png')
        (root/f'labelTxt/{i}.txt').write_text('5 5 40 5 40 25 5 25 ship 0\n'*2)
    return root

def snapshot(root): return {str(o.relative_to(root)):o.read_bytes() for o in sorted(root.rglob('*')) if o.is_file()}

def killed(f, after):
    "Run a function in a process of its own, killed after some seconds; whether it was"
    def child():
        with open(os.devnull, 'w') as null: os.dup2(null.fileno(), 1); os.dup2(null.fileno(), 2)
        f(); os._exit(0)
    p = FORK.Process(target=child)
    p.start()
    p.join(after)
    if p.is_alive(): os.kill(p.pid, signal.SIGKILL)
    p.join()
    return p.exitcode!=0

JOBS = dict(convert=lambda s, d: convert(s, d, 'coco'), over=lambda s, d: convert(s, d, 'dota', overwrite=True),
            split=lambda s, d: split_scenes(s, d, (40,), (8,), n_workers=2), fix=lambda s, d: fix(doctor(s, images=False), d))

@fork
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@times('kills')
@pytest.mark.parametrize('job', JOBS)
def test_killed(tmp_path, n, job):
    "The target is as it was, or goes on to be the whole; nothing hidden stays beside it"
    f,r = JOBS[job],random.Random(0)
    src,old_set,whole = a_set(tmp_path/'src'),tmp_path/'old',tmp_path/'whole'
    convert(src, old_set, 'coco')
    start = time.monotonic()
    if job=='over': shutil.copytree(old_set, whole)
    f(src, whole)
    took = time.monotonic()-start
    want,old,hits = snapshot(whole),snapshot(old_set),0
    for i in range(n):
        dst = tmp_path/f'k{i}'/'out'
        dst.parent.mkdir()
        if job=='over': shutil.copytree(old_set, dst)
        hits += killed(lambda: f(src, dst), r.uniform(0, 1.2*took))
        if job!='split' and dst.exists(): assert snapshot(dst) in (want, old)
        if job=='over' and not dst.exists(): assert list(dst.parent.glob('.*/old/out'))   # moved aside; the next run puts it back
        try: f(src, dst)
        except (ValueError, OSError) as e: assert 'exists' in str(e) or 'complete' in str(e), e
        assert snapshot(dst)==want and [o.name for o in dst.parent.iterdir()]==['out']
    print(f'{job}: {hits} of {n} killed')
    assert hits or n<10

def _edit(root, format, own, n, journal):
    fixer = LabelFixer(root, format, journal=journal)
    for _ in range(n):
        fixer.edit('move', id=own, dx=1, dy=0)
        while True:
            try:
                fixer.save('merge' if fixer.conflict else 'refuse')
                break
            except LabelConflict: pass
            except LabelError: time.sleep(.01)
        fixer.reload()

@fork
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@times('saves')
def test_two_fixers(tmp_path, n):
    "Two editors save into one file in turn: no edit of either is lost"
    forms = ['dota','coco','csv','cvat','yolo_obb'] if n>100 else ['dota','coco']
    each = n//len(forms)//2
    for format in forms:
        src,root = a_set(tmp_path/f'src_{format}', 1),tmp_path/format
        (src/'labelTxt/0.txt').write_text('5 5 15 5 15 10 5 10 ship 0\n5 50 15 50 15 60 5 60 ship 0\n')
        convert(src, root, format)
        editors = [FORK.Process(target=_edit, args=(root, format, own, each, tmp_path/f'j{own}')) for own in (0,1)]
        for o in editors: o.start()
        for o in editors: o.join(240)
        assert [o.exitcode for o in editors]==[0,0], format
        quads = read_format(root, format=format)[0].quads
        np.testing.assert_allclose(quads[:,:,0].min(1), [5+each]*2, atol=.05, err_msg=format)

def test_html_in_names(tmp_path):
    bad = '<img src=x onerror=alert(1)>'
    root = a_set(tmp_path/'s', 2)
    (root/'images/0.png').rename(root/f'images/{bad}.png')
    (root/'labelTxt/0.txt').rename(root/f'labelTxt/{bad}.txt')
    (root/f'labelTxt/{bad}.txt').write_text('5 5 40 5 40 25 5 25 <script>x<script> 0\n')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        page = doctor(root)._repr_html_()
    assert '<img src=x' not in page and '<script>x' not in page
