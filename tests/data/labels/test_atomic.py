"Written whole or not at all: no input is replaced, nothing is half-written or mixed, leftovers of killed runs are removed"
import csv, errno, io, os, subprocess, sys, time, warnings, zipfile
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from rotnb.cli import split as S
from rotnb.cli.commands import UserError
from rotnb.cli.convert import convert
from rotnb.cli.split import split_scenes
from rotnb.data.labels import atomic
from rotnb.data.labels.records import Annot, DatasetLayoutError
from rotnb.data.labels.atomic import BusyError, file_lock, new_folder, part_name
from rotnb.data.cache import DiskCache, MemoryCache
from rotnb.data.doctor.boxes import check_duplicates, gather_boxes
from rotnb.data.formats.table import FORMATS, read_format
from rotnb.data.formats.dota import read_dota
from rotnb.data.doctor.report import doctor
from rotnb.data.doctor.fix import fix
from rotnb.explore.label_fixer import LabelFixer
from rotnb.geometry.boxes import rbox2qbox
from rotnb.predict.results import write_predictions
from paths import ROOT

LINE = '5 5 20 5 20 15 5 15 ship 0\n'

def dota(root, n=3, grey=60, line=LINE):
    for o in ('images','labelTxt'): (root/o).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new('RGB', (64,64), (grey+i,)*3).save(root/f'images/{i}.png'); (root/f'labelTxt/{i}.txt').write_text(line)
    return root

def snapshot(root): return {str(o.relative_to(root)):o.read_bytes() for o in sorted(root.rglob('*')) if o.is_file()}
def python(code, **kw):
    return subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONWARNINGS':'ignore'}, **kw)

# --- what is read is not replaced

def by_links(d): convert(d/'A', d/'B', 'coco', images='link'); return d/'B'
def by_chain(d):
    (d/'M').mkdir()
    for o in (d/'A/images').iterdir(): (d/'M'/o.name).symlink_to(o)
    (d/'B/labelTxt').mkdir(parents=True); (d/'B/images').mkdir()
    for i in range(3): (d/f'B/images/{i}.png').symlink_to(f'../../M/{i}.png'); (d/f'B/labelTxt/{i}.txt').write_text(LINE)
    return d/'B'
def by_folder(d):
    (d/'B/labelTxt').mkdir(parents=True); (d/'B/images').symlink_to(d/'A/images')
    for i in range(3): (d/f'B/labelTxt/{i}.txt').write_text(LINE)
    return d/'B'
def by_labels(d):
    dota(d/'B')
    [o.unlink() for o in (d/'B/labelTxt').iterdir()]
    (d/'B/labelTxt').rmdir()
    (d/'B/labelTxt').symlink_to('../A/labelTxt')
    return d/'B'
def by_yaml(d):
    convert(d/'A', d/'Y', 'yolo_obb'); (d/'B').mkdir(); [(d/o).rename(d/p) for o,p in (('A','old'),('Y','A'))]
    (d/'B/data.yaml').write_text(f"path: {d/'A'}\ntrain: images\nval: images\nnames: [ship]\n"); return d/'B/data.yaml'
def by_list(d):
    src = by_yaml(d); (d/'B/train.txt').write_text(''.join(f"{o}\n" for o in sorted((d/'A/images').iterdir())))
    src.write_text(f"train: train.txt\nval: train.txt\nnames: [ship]\n"); return src

@pytest.mark.parametrize('images', ['link','none','copy'])
@pytest.mark.parametrize('how', [by_links, by_chain, by_folder, by_labels, by_yaml, by_list], ids=lambda f: f.__name__)
def test_converting_over_what_is_read(tmp_path, how, images):
    dota(tmp_path/'A'); src = how(tmp_path); before = snapshot(tmp_path)
    with warnings.catch_warnings(), pytest.raises(UserError, match='is read|lie in each other'):
        warnings.simplefilter('ignore')
        convert(src, tmp_path/'A', 'dota', 'yolo_obb' if how is by_list else None, images=images, overwrite=True)
    assert snapshot(tmp_path)==before

def test_images_named_apart(tmp_path):
    dota(tmp_path/'A'); convert(tmp_path/'A', tmp_path/'B', 'coco', images='none'); before = snapshot(tmp_path)
    with pytest.raises(UserError, match='is read'):
        convert(tmp_path/'B', tmp_path/'A', 'dota', images='link', overwrite=True, images_in=tmp_path/'A/images')
    assert snapshot(tmp_path)==before

@pytest.mark.parametrize('name', ['model.pth','train.py','.git/config','report.docx','notes.txt'])
def test_only_a_set_is_replaced(tmp_path, name):
    dota(tmp_path/'A')
    (tmp_path/'mine'/name).parent.mkdir(parents=True)
    (tmp_path/'mine'/name).write_text('mine')
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match='choose another name'): convert(tmp_path/'A', tmp_path/'mine', 'dota', overwrite=True)
    if name!='notes.txt':
        convert(tmp_path/'A', tmp_path/'set', 'coco')
        (tmp_path/'set'/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'set'/name).write_text('mine')
        with pytest.raises(UserError, match='no part of a label set'): convert(tmp_path/'A', tmp_path/'set', 'dota', overwrite=True)
    assert before.items()<=snapshot(tmp_path).items()
    convert(tmp_path/'A', tmp_path/'b', 'coco')
    convert(tmp_path/'A', tmp_path/'b', 'dota', overwrite=True)
    assert len(read_format(tmp_path/'b'))==3

@pytest.mark.parametrize('format', ['coco','dota'])
def test_save_as_is_for_new_folders(tmp_path, format):
    dota(tmp_path/'a'); s = tmp_path/'s'; convert(tmp_path/'a', s, format); before = snapshot(s)
    f = LabelFixer(s, queue=[next(s.rglob('0.png'))], journal=tmp_path/'j')
    for to in (s, s/'sub', s/'images', next(s.rglob('0.png'))):
        with pytest.raises((ValueError,OSError)): f.save_as(to, format)
    assert snapshot(s)==before
    f.save_as(tmp_path/'new', format); assert [o for o in (tmp_path/'new').rglob('*') if o.is_file()] and not list(tmp_path.glob('.*'))

# --- whole or not at all

def test_two_processes_write_one_file(tmp_path):
    code = (f"import zipfile\nfrom rotnb.data.labels.atomic import atomic_path\nfor i in range(60):\n with "
        f"atomic_path({str(tmp_path/'z.zip')!r}, durable=False) as f, zipfile.ZipFile(f, 'w') as z: z.writestr('a', 'x'*50000); "
        f"z.writestr('b', 'y'*50000)")
    some = [python(code) for _ in range(2)]; seen = 0
    while any(p.poll() is None for p in some):
        if (tmp_path/'z.zip').exists():
            with zipfile.ZipFile(tmp_path/'z.zip') as z: assert z.testzip() is None and len(z.namelist())==2; seen += 1
    assert [p.wait() for p in some]==[0,0] and seen and [o.name for o in tmp_path.iterdir()]==['z.zip'], [p.stderr.read() for p in some]

def test_a_lock_names_its_holder_and_goes_with_it(tmp_path):
    p = python(f"import time\nfrom rotnb.data.labels.atomic import file_lock\nwith file_lock({str(tmp_path/'run/lock')!r}): print('in', "
        f"flush=True); time.sleep(60)", stdout=subprocess.PIPE)
    p.stdout.readline()
    with pytest.raises(BusyError, match=f'process {p.pid} on .* since 20'), file_lock(tmp_path/'run/lock'): pass
    p.kill(); p.wait()
    with file_lock(tmp_path/'run/lock'), pytest.raises(BusyError, match=f'process {os.getpid()}'), file_lock(tmp_path/'run/lock'): pass
    assert not list((tmp_path/'run').iterdir())

def test_leftovers_of_the_dead_are_cleared_and_those_of_the_living_are_not(tmp_path, capsys):
    p = python(f"from pathlib import Path\nfrom rotnb.data.labels.atomic import part_name\no = part_name(Path({str(tmp_path/'out')!r})); "
        f"(o/'new').mkdir(parents=True); (o/'new/x').write_text('half'); part_name(Path({str(tmp_path/'r.csv')!r})).write_text('half')")
    assert p.wait()==0
    mine = part_name(tmp_path/'m')
    mine.write_text('half')
    (tmp_path/'.hidden').write_text('mine')
    (tmp_path/'.x.part').write_text('mine')
    dota(tmp_path/'a'); convert(tmp_path/'a', tmp_path/'b', 'coco')
    assert sorted(o.name for o in tmp_path.iterdir())==sorted(['.hidden','.x.part',mine.name,'a','b'])
    assert 'killed run' in capsys.readouterr().err

KILLED = """
import os, sys
from pathlib import Path
from rotnb.data.labels import atomic
from rotnb.cli.convert import convert
atomic._settle = lambda new, old, dst, replace: (old.parent.mkdir(), dst.rename(old), os._exit(9))
root = Path(sys.argv[1]); convert(root/'a', root/'out', 'dota', overwrite=True)
"""

def test_killed_between_two_renames(tmp_path, capsys):
    dota(tmp_path/'a'); convert(tmp_path/'a', tmp_path/'out', 'coco'); before = snapshot(tmp_path/'out')
    env = {**os.environ, 'PYTHONPATH':str(ROOT)}
    assert subprocess.run([sys.executable, '-c', KILLED, str(tmp_path)], env=env, timeout=300).returncode==9
    assert not (tmp_path/'out').exists()
    with pytest.raises(UserError): convert(tmp_path/'a', tmp_path/'a/x', 'dota')
    convert(tmp_path/'a', tmp_path/'b', 'dota')
    assert snapshot(tmp_path/'out')==before
    assert sorted(o.name for o in tmp_path.iterdir())==['a','b','out']
    assert 'put back' in capsys.readouterr().err

def test_the_old_folder_survives_whatever_comes_between(tmp_path, monkeypatch):
    (tmp_path/'s').mkdir(); (tmp_path/'s/x').write_text('old')
    for after in (0, 1):
        left,real = [after],Path.rename
        def rename(self, to):
            left[0] -= 1
            if left[0]<0: raise OSError(errno.EIO, 'gone')
            return real(self, to)
        with monkeypatch.context() as m:
            m.setattr(Path, 'rename', rename)
            with pytest.raises(OSError), new_folder(tmp_path/'s', replace=True) as f: (f/'x').write_text('new')
        assert (tmp_path/'s/x').read_text()=='old' and not list(tmp_path.glob('.*'))

# --- an interrupted split

def stopped(monkeypatch, src, dst, after=6):
    n,put = [0],S._put
    def f(file, data):
        n[0] += 1
        if n[0]>after: raise KeyboardInterrupt
        put(file, data)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(S, '_put', f); split_scenes(src, dst, (32,), (8,), n_workers=1)

def new_pixels(src): Image.new('RGB', (64,64), (200,)*3).save(src/'images/0.png')
def new_labels(src): (src/'labelTxt/0.txt').write_text('15 15 30 15 30 25 15 25 car 0\n')
def less(src): (src/'images/0.png').unlink(); (src/'labelTxt/0.txt').unlink()
def more(src): dota(src, 4)
def smaller(src): Image.new('RGB', (40,40), (200,)*3).save(src/'images/0.png')
def same_time(src):
    f = src/'images/0.png'; o = f.stat()
    Image.new('RGB', (64,64), (61,)*3).save(f); os.utime(f, ns=(o.st_atime_ns, o.st_mtime_ns))

@pytest.mark.parametrize('change', [new_pixels, new_labels, less, more, smaller, same_time], ids=lambda f: f.__name__)
def test_split_of_a_changed_source(tmp_path, monkeypatch, change):
    src = dota(tmp_path/'src'); stopped(monkeypatch, src, tmp_path/'out')
    with pytest.raises(DatasetLayoutError, match='interrupted rotnb-split'): read_dota(tmp_path/'out')
    change(src); split_scenes(src, tmp_path/'out', (32,), (8,)); split_scenes(src, tmp_path/'whole', (32,), (8,))
    assert snapshot(tmp_path/'out')==snapshot(tmp_path/'whole') and len(read_dota(tmp_path/'out'))>=12

def test_a_source_that_changes_while_it_is_split(tmp_path, monkeypatch):
    src,put = dota(tmp_path/'src'),S._put
    def f(file, data): put(file, data); new_pixels(src)
    with monkeypatch.context() as m, pytest.raises(UserError, match='changed while'):
        m.setattr(S, '_put', f); split_scenes(src, tmp_path/'out', (32,), (8,), n_workers=1)
    split_scenes(src, tmp_path/'out', (32,), (8,))
    split_scenes(src, tmp_path/'whole', (32,), (8,))
    assert snapshot(tmp_path/'out')==snapshot(tmp_path/'whole')

# --- links, many boxes, caches, tables

@pytest.mark.parametrize('images', ['copy','link'])
def test_mending_a_set_of_links(tmp_path, images):
    src = dota(tmp_path/'set')
    (src/'images/all').symlink_to('..')
    (src/'images/again').symlink_to('all/images')
    (src/'labelTxt/up').symlink_to(tmp_path)
    (tmp_path/'else').mkdir()
    (tmp_path/'else/n.md').write_text('x')
    (tmp_path/'else/ring').symlink_to('.')
    (src/'other').symlink_to(tmp_path/'else')
    (src/'labelTxt/0.txt').write_text(LINE*2); before = snapshot(src)
    done = fix(doctor(src), tmp_path/'out', images=images)
    assert 'dropped' in set(done.done) and snapshot(src)==before and (tmp_path/'out/other/n.md').read_text()=='x'
    assert sum(len(f) for _,_,f in os.walk(tmp_path/'out'))==7 and [len(o) for o in read_dota(tmp_path/'out')]==[1,1,1]

def boxes(rows, names=None):
    q = rbox2qbox(np.asarray(rows, float))
    a = Annot(Path('a'), q, names or ['ship']*len(q), np.zeros(len(q), int), where=[f'a.txt:{i+1}' for i in range(len(q))])
    a.size = 100,100
    return gather_boxes({'':[a]})

def test_many_equal_boxes_take_little(monkeypatch):
    rng,one,n = np.random.default_rng(0),np.array([[50,40,30,10,.4]]),6000
    t = time.perf_counter(); found = check_duplicates(boxes(np.repeat(one, n, 0)))
    assert [f.box for f in found]==list(range(1, n)) and {f.kind for f in found}=={'duplicate'}
    found = check_duplicates(boxes(np.repeat(one, n, 0)+rng.normal(0, .3, (n,5))*[1,1,1,1,.003])); assert len(found)>.99*n
    found = check_duplicates(boxes(np.repeat(one, n, 0), [f'c{i}' for i in range(n)])); assert [f.kind for f in found]==['two_names']*(n-1)
    assert time.perf_counter()-t<40

def test_a_cache_that_cannot_write_gives_images(tmp_path, monkeypatch):
    src = dota(tmp_path/'s'); c = DiskCache(tmp_path/'cache')
    def full(f, a): f.write(b'x'*99); raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m, pytest.warns(UserWarning, match='cannot be kept') as said:
        m.setattr(np, 'save', full)
        assert [np.asarray(c(src/f'images/{i}.png'))[0,0,0] for i in range(3)]==[60,61,62]
    assert len(said)==1 and not list((tmp_path/'cache').iterdir())

@pytest.mark.parametrize('make', [lambda d: MemoryCache(), lambda d: DiskCache(d/'c')], ids=['memory','disk'])
def test_a_cache_sees_what_changes(tmp_path, make):
    f = dota(tmp_path/'s')/'images/0.png'; c = make(tmp_path); c.setup([f]); assert np.asarray(c(f))[0,0,0]==60==np.asarray(c(f))[0,0,0]
    for grey,side in ((90,64),(120,64),(150,32),(60,64)):
        Image.new('RGB', (side,side), (grey,)*3).save(f)
        for _ in range(2): assert np.asarray(c(f)).shape==(side,side,3) and np.asarray(c(f))[0,0,0]==grey

ODD = ['=1+1','+cmd','-ship','@sum',"'=x",'ship']
def test_cells_are_no_formulas(tmp_path):
    (tmp_path/'im').mkdir(); names = ['=a.png','-b.png','@c.png','+d.png',"'=e.png",'f.png']
    for o in names: Image.new('RGB', (64,64)).save(tmp_path/'im'/o)
    annots = [Annot(tmp_path/'im'/o, np.array([[[5.,5],[-20,5],[-20,15],[5,15]]]), [n], np.zeros(1, int)) for o,n in zip(names, ODD)]
    FORMATS['csv'].write(annots, tmp_path, '', ODD); f = next(tmp_path.rglob('*.csv'))
    p = {o:dict(boxes=np.array([[-30.,30,20,10,-.1]]), scores=np.array([.5]), labels=np.array([i])) for i,o in enumerate(names)}
    write_predictions(p, tmp_path/'r.csv', ODD)
    for file in (f, tmp_path/'r.csv'):
        rows = list(csv.DictReader(io.StringIO(file.read_text())))
        assert all(r[k][0] not in '=+-@' for r in rows for k in ('image','name'))
        assert any(float(v)<0 and v[0]=='-' for r in rows for k,v in r.items() if k[0]=='x')
    got = read_format(f, format='csv', images=tmp_path/'im')
    assert {a.image.name:a.names for a in got}=={o:[n] for o,n in zip(names, ODD)}
    e = LabelFixer(f, 'csv', journal=tmp_path/'j', vocab=ODD, options=dict(images=tmp_path/'im'))
    e.edit('rename', id=0, name='-ship')
    e.save()
    assert read_format(f, format='csv', images=tmp_path/'im')[0].names==['-ship'] and "'-ship" in f.read_text().splitlines()[1]

# --- the demo

TOY = dict(model='rotated_fcos', backbone='test_resnet', n_train=8, n_valid=4, size=64, bs=4, fpn_channels=16, feat_channels=16,
    stacked_convs=1, strides=(8,16,32), workers=0)

def test_a_run_that_is_killed_between_checkpoint_and_log_forgets_no_epoch(tmp_path, monkeypatch):
    import rotnb.cli.demo_run as D
    monkeypatch.setenv('ROTNB_HOME', str(tmp_path/'home')); real,n = D.write_json,[0]
    def stop(file, data):
        n[0] += 1
        if n[0]==2: raise KeyboardInterrupt
        real(file, data)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(D, 'write_json', stop); D.run_demo(tmp_path/'run', epochs=3, **TOY)
    D.run_demo(tmp_path/'run', epochs=3, resume=True, **TOY)
    got = D.json.loads((tmp_path/'run/metrics.json').read_text())
    assert [o['epoch'] for o in got['history']]==[0,1,2] and all(o['seconds']>0 and o['valid_loss'] is not None for o in got['history'])
    assert not list((tmp_path/'run').rglob('.*')) and not (tmp_path/'run/checkpoint/lock').exists()

def test_a_run_in_a_folder_that_is_in_use_or_of_somebody_else(tmp_path, capsys):
    import rotnb.cli.demo_run as D
    from rotnb.cli.demo import plain_words
    with file_lock(tmp_path/'run/checkpoint/lock'), pytest.raises(SystemExit), plain_words([]): D.run_demo(tmp_path/'run', epochs=1, **TOY)
    assert f'in use by process {os.getpid()}' in capsys.readouterr().err
    (tmp_path/'mine').mkdir(); (tmp_path/'mine/model.pkl').write_text('mine')
    with pytest.raises(UserError, match='holds model.pkl'): D.run_demo(tmp_path/'mine', epochs=1, **TOY)
    with pytest.raises(UserError, match='lies in the data set'): D.run_demo(dota(tmp_path/'d')/'run', tmp_path/'d', epochs=1, **TOY)
    assert (tmp_path/'mine/model.pkl').read_text()=='mine' and not (tmp_path/'d/run').exists()

@pytest.mark.parametrize('e', [OSError(errno.ENOSPC, 'No space left on device', 'x'), OSError(errno.EROFS, 'Read-only file system', 'x'),
    RuntimeError('[enforce fail at inline_container.cc:672] . unexpected pos 67840 vs 67736'),
    RuntimeError('PytorchStreamWriter failed writing file data/3: file write failed')], ids=str)
def test_a_demo_that_cannot_write_says_so_in_one_line(tmp_path, monkeypatch, capsys, e):
    import rotnb.cli.demo_run as D, torch
    from rotnb.cli.demo import plain_words
    def save(*a, **k): raise e
    with monkeypatch.context() as m, pytest.raises(SystemExit) as got, plain_words([]):
        m.setenv('ROTNB_HOME', str(tmp_path/'home')); m.setattr(torch, 'save', save); D.run_demo(tmp_path/'run', epochs=1, **TOY)
    err = [o for o in capsys.readouterr().err.splitlines() if o.startswith('rotnb-demo')]
    assert got.value.code==2
    assert len(err)==1
    assert ('disk full' in err[0] or 'last.pth' in err[0])
    assert not [o for o in (tmp_path/'run').rglob('*') if o.is_file()]

@pytest.mark.parametrize('no', [errno.ENOSPC, errno.EROFS])
def test_errors_of_the_disk_name_what_was_to_be_written(tmp_path, monkeypatch, no):
    dota(tmp_path/'a')
    def copy(a, b, **kw): raise OSError(no, 'of the disk', str(a), None, str(b))                          # as shutil names both
    with monkeypatch.context() as m, pytest.raises(OSError) as e:
        m.setattr('shutil.copyfile', copy); convert(tmp_path/'a', tmp_path/'b', 'coco')
    assert (e.value.errno, e.value.filename)==(no, str(tmp_path/'b'))
    def full(*_, **k): raise OSError(no, 'of the disk')
    with monkeypatch.context() as m, pytest.raises(OSError) as e:
        m.setattr(atomic, '_sync', full); doctor(tmp_path/'a').to_json(tmp_path/'r.json')
    assert (e.value.errno, e.value.filename)==(no, str(tmp_path/'r.json')) and [o.name for o in tmp_path.iterdir()]==['a']
    with pytest.raises(FileNotFoundError, match='none.png'), new_folder(tmp_path/'b') as d: open(tmp_path/'none.png')
