"The viewer and the label fixer without a browser: what is sent, what is saved, and what is left when something goes wrong"
import base64, errno, io, json, multiprocessing, os, re, shutil, signal, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from rotnb.data.formats.dota import read_dota
from rotnb.data.formats.table import read_format
from rotnb.data.labels.records import Annot, LabelError
from rotnb.data.formats.coco import write_coco
from rotnb.data.mend.sources import LabelConflict, NotSaved, label_sources
from rotnb.explore.dataset_explorer import DatasetExplorer
from rotnb.explore.label_fixer import LabelFixer
from rotnb.explore.pyramid import Pyramid, open_source
from rotnb.explore.viewer import STATIC, html_page, view
from rotnb.geometry.symmetry import headings
from paths import ROOT

A = 'gsd:0.5\n100 100 180 100 180 130 100 130 ship 0\nbroken line\n30 20 34 20 34 22 30 22 car 1\n'

@pytest.fixture
def dota(tmp_path):
    r = tmp_path/'set'
    for o in ('images','labelTxt'): (r/o).mkdir(parents=True)
    for n in 'ab': Image.new('RGB', (300,200), 'grey').save(r/f'images/{n}.png'); (r/f'labelTxt/{n}.txt').write_text(A)
    return r

def fixer(r, **kw): return LabelFixer(r, journal=r.parent/'journal', format=kw.pop('format', 'dota'), **kw)
def event(f, **kw): f._on_message(f, dict(type='edit', **kw), [])
def stray(r): return [o.name for o in r.rglob('*') if o.suffix=='.tmp']

def test_what_doubts_the_labels_may_be_given_as_it_is(dota):
    "An interpretation as the queue, and a learner for the hints"
    class Doubts:
        def to_dataframe(self):
            both = dict(file=[str(dota/'images/b.png')]*2, cls='ship', w=20., h=10., iou=0.)
            return pd.DataFrame(dict(both, what=['detection','truth'], kind=['background','correct'], score=[.9,np.nan], truth=[-1,0]))
    class Learner:
        def predict(self, image): return dict(boxes=np.array([[50.,50,20,10,0]]), scores=np.array([.7]), labels=np.array([0]))
        def __call__(self, event): raise AssertionError('not a function of an image')
    f = fixer(dota, queue=Doubts(), hints=Learner(), vocab=['ship'])
    assert [o[0].image.name for o in f.items]==['b.png']

# --- what is sent

def test_whole_images_travel_as_their_file(tmp_path):
    a = np.random.default_rng(0).integers(0, 255, (40,60,3), dtype=np.uint8)
    Image.fromarray(a).save(tmp_path/'a.png')
    assert view(tmp_path/'a.png').pixels==(tmp_path/'a.png').read_bytes()
    im = Image.fromarray(a); im.getexif()[0x0112] = 6
    im.save(tmp_path/'turned.jpg', exif=im.getexif())                    # shown and counted in as it is displayed
    v = view(tmp_path/'turned.jpg')
    assert v.pixels!=(tmp_path/'turned.jpg').read_bytes() and Image.open(io.BytesIO(v.pixels)).size==(40,60)
    Image.fromarray((a[...,0].astype(np.uint16)*200)).save(tmp_path/'deep.tif')
    assert np.asarray(Image.open(io.BytesIO(view(tmp_path/'deep.tif').pixels))).std()>50

@pytest.mark.parametrize('h,w', [(1000,1000),(513,1),(1,700),(1537,4000)])
def test_tiles_cover_the_scene(h, w):
    "At every level the tiles put together are the scene, made smaller"
    a = np.random.default_rng(0).integers(0, 255, (h,w,3), dtype=np.uint8)
    p = Pyramid(open_source(a)[0], tile=256)
    for l in range(p.levels):
        n = 256*2**l
        rows = [np.concatenate([np.asarray(Image.open(io.BytesIO(p.tile(l, i, j)))) for i in range(-(-w//n))], 1) for j in range(-(-h//n))]
        whole = np.concatenate(rows, 0)
        assert abs(whole.shape[0]-h/2**l)<=1+h//n and abs(whole.shape[1]-w/2**l)<=1+w//n
        if l==0: assert (whole==a).all()
    with pytest.raises(IndexError): p.tile(p.levels, 0, 0)

def test_layers_on_the_wire():
    boxes = np.array([[10.,10,4,2,.1],[np.nan]*5])
    scored = dict(boxes=boxes, labels=['b','a'], scores=[.5,.6], ignore=[0,1], notes=['x','y'])
    v = view(np.zeros((20,20,3), np.uint8), scored, boxes[:0], vocab=['a','b'])
    l,empty = v.layers
    assert np.frombuffer(l['labels'], '<i4').tolist()==[1,0] and len(l['quads'])==2*64 and np.isnan(np.frombuffer(l['quads'])[8:]).all()
    assert (empty['quads'],[o['name'] for o in v.layers])==(b'', ['prediction','truth'])
    assert [o.tolist() for o in v.shown()]==[[True,False],[]]
    v.score = .55
    assert not v.shown()[0].any() and v.to_png()[:4]==b'\x89PNG'
    v.set_boxes(boxes[:1])
    assert v.selected is None and len(v.layers)==1

def test_pages_hold_all_they_need(tmp_path):
    v = view(np.zeros((20,30,3), np.uint8), dict(boxes=[[10.,10,4,2,.1]], labels=['</script><b>']), vocab=['</script><b>'])
    text = html_page(tmp_path/'p.html', '<h1>Two</h1>', v, v, title='<&>').read_text()
    assert text.count('</script>')==2 and '<title>&lt;&amp;&gt;</title>' in text and not re.search(r'(src|href)="?http', text)
    data = json.loads(re.search(r'id="widgets">(.*?)</script>', text, re.S)[1])
    assert sorted(data)==['1','2'] and data['1']['state']['vocab']==['</script><b>']
    assert base64.b64decode(data['1']['state']['pixels']['$bytes'])==v.pixels

def test_package_data(): # MANIFEST.in puts these into the source archive, setup.py into the wheel; .ci/installed.py looks into one
    archive = re.search(r'recursive-include rotnb/explore/static (.*)', (ROOT/'MANIFEST.in').read_text())[1].split()
    wheel = re.findall(r"'static/([^']*)'", (ROOT/'setup.py').read_text())
    have = [o.name for o in STATIC.iterdir()]
    assert {'view.js','viewer.css','editor.js','page.js'}<=set(have)
    for rule in (archive, wheel): assert all(any(Path(o).match(g) for g in rule) for o in have)

# --- what is saved

def test_edit_and_save(dota):
    f = fixer(dota)
    event(f, op='rotate', id=0, theta=np.pi/2); event(f, op='next'); event(f, op='delete', id=1); event(f, op='save')
    assert f.said=='saved a.txt, b.txt' and not f.unsaved and not stray(dota)
    a,b = ((dota/f'labelTxt/{n}.txt').read_text() for n in 'ab')
    assert a.splitlines()[1]=='180 130 100 130 100 100 180 100 ship 0'     # the front edge is first, now below
    assert a.replace(a.splitlines()[1], A.splitlines()[1])==A
    assert b=='\n'.join(A.splitlines()[:3])+'\n'
    assert {o.name:o.read_text() for o in (dota/'.rotnb/backup').rglob('*.bak')}=={'a.txt.bak':A, 'b.txt.bak':A}
    f.goto(0); f.edit('move', id=0, dx=1, dy=1); f.save()
    assert (dota/'.rotnb/backup/labelTxt/a.txt.bak').read_text()==A      # the first original, not the last

# --- where the front is, of sets whose corner 0 to 1 is the front edge

A_BOX = np.array([[100.,100],[180,100],[180,130],[100,130]])            # in A: of DOTA the edge above is the front

def shown(v): return np.frombuffer(v.layers[0]['quads']).reshape(-1,4,2)

def test_a_record_of_dota_is_seen_heading_where_it_heads(dota):
    "Arrows of the viewer, the fixer and the explorer are `Annot.heading`, and nothing of that is saved"
    annots = read_dota(dota, on_bad='warn')
    one,pointed = annots[0],dict(symmetry={'ship':360})
    assert one.heading[0]==pytest.approx(-np.pi/2) and np.array_equal(one.quads[0], A_BOX)
    for v in (view(one.image, one, **pointed), fixer(dota, **pointed), LabelFixer([one], **pointed)):
        quad = shown(v)[0]
        assert np.array_equal(quad, np.roll(A_BOX, 1, 0)) and headings(quad)==one.heading[0]
    ex = DatasetExplorer({'train':annots}, **pointed)
    layer,_ = ex.layers(0)[0]
    assert layer.heading[0]==one.heading[0] and np.isnan(layer.heading[1])                 # a car is not said to have a front

def test_what_is_not_touched_is_saved_as_it_was(dota):
    f = fixer(dota, symmetry={'ship':360})
    f.edit('rename', id=1, name='ship'); f.save()
    assert (dota/'labelTxt/a.txt').read_text()==A.replace('car 1', 'ship 1')
    f.edit('add', x0=50, y0=60, x1=90, y1=60, width=20, name='ship'); f.save()              # from stern to bow: it heads right
    assert (dota/'labelTxt/a.txt').read_text().splitlines()[-1]=='90.0 50.0 90.0 70.0 50.0 70.0 50.0 50.0 ship 0'
    f.goto(1); assert not f.unsaved
    again, = [o for o in read_dota(dota, on_bad='warn') if o.image.stem=='a']
    assert again.heading[-1]==pytest.approx(0) and f.annots()[0].heading[-1]==pytest.approx(0)
    record, = [o for o in read_dota(dota, on_bad='warn') if o.image.stem=='b']
    g = LabelFixer([record]); before = record.quads.copy()
    g.edit('rename', id=0, name='car'); g.save()
    assert record.front=='across' and np.array_equal(record.quads, before) and record.names==['car','car']
    g.save_as(dota.parent/'yolo', 'yolo_obb')
    shutil.copytree(dota/'images', dota.parent/'yolo/images')
    again = [o for o in read_format(dota.parent/'yolo') if len(o)][0]
    assert headings(again.quads)[0]==pytest.approx(-np.pi/2, abs=1e-3)

def test_full_disk(dota, monkeypatch):
    f = fixer(dota); f.edit('rename', id=0, name='car')
    def full(fd): raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(os, 'fsync', full)
        with pytest.raises(NotSaved, match='the disk is full'): f.save()
        event(f, op='move', id=0, dx=1, dy=0)                            # the journal cannot be written either: said, and the edit stays
        assert 'save often' in f.said
    assert (dota/'labelTxt/a.txt').read_text()==A and not stray(dota) and f.unsaved==[0]
    f.save()
    assert 'car 0' in (dota/'labelTxt/a.txt').read_text()

def test_read_only_folder(dota, monkeypatch):
    f = fixer(dota); f.edit('rename', id=0, name='car')
    if os.geteuid():
        (dota/'labelTxt').chmod(0o555)
        with pytest.raises(NotSaved, match='read-only'): f.save()
        (dota/'labelTxt').chmod(0o755)
    real = open
    def no(path, mode='r', *a, **k):
        if 'x' in mode and 'labelTxt' in str(path) and 'backup' not in str(path): raise PermissionError(errno.EACCES, 'Permission denied')
        return real(path, mode, *a, **k)
    with monkeypatch.context() as m:
        m.setattr('rotnb.data.labels.atomic.open', no, raising=False)
        event(f, op='save')
    assert 'read-only' in f.said and (dota/'labelTxt/a.txt').read_text()==A and not stray(dota)
    assert fixer(dota).recovered                                         # the edits are in the journal
    f.save_as(dota.parent/'copy')                                        # or go elsewhere
    assert 'car 0' in (dota.parent/'copy/labelTxt/a.txt').read_text()

def test_crash_before_the_new_file_is_in_place(dota, monkeypatch):
    f = fixer(dota); f.edit('rename', id=0, name='car')
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt): f.save()
    assert (dota/'labelTxt/a.txt').read_text()==A and not stray(dota) and f.unsaved==[0]

KILLED = '''
import sys, time
from pathlib import Path
from rotnb.explore.label_fixer import LabelFixer
r = Path(sys.argv[1])
f = LabelFixer(r, journal=r.parent/'journal', format='dota')
f.edit('rename', id=0, name='car'); f.edit('add', x0=10, y0=100, x1=60, y1=100, width=20, name='ship')
print('ready', flush=True); time.sleep(60)'''

def test_killed_kernel(dota):
    "What it had edited is offered, restored, saved; an edit of somebody else in between is a conflict like any other"
    env = {**os.environ, 'PYTHONPATH':str(ROOT)}
    p = subprocess.Popen([sys.executable, '-c', KILLED, dota], stdout=subprocess.PIPE, text=True, env=env)
    assert p.stdout.readline().strip()=='ready'
    f = fixer(dota)
    assert 'still runs' in f.status['recovered']
    p.send_signal(signal.SIGKILL); p.wait(); p.stdout.close()
    f = fixer(dota)
    assert '1 image has unsaved edits' in f.status['recovered'] and 'still runs' not in f.status['recovered']
    assert (dota/'labelTxt/a.txt').read_text()==A
    g = fixer(dota); g.edit('delete', id=1); g.save()
    event(f, op='restore')
    assert f.unsaved==[0] and [o.name for o in f.edits.boxes]==['car','car','ship']
    event(f, op='save')
    assert f.status['conflict']
    event(f, op='merge')
    assert [o[1] for o in label_sources(dota, format='dota')[0].read().rows]==['car','ship']
    assert not fixer(dota).recovered and not f.status['conflict']

def test_two_editors(dota):
    f,g = fixer(dota),fixer(dota)
    f.edit('rename', id=0, name='car'); g.edit('rename', id=1, name='ship')
    f.save(); once = (dota/'labelTxt/a.txt').read_text()
    with pytest.raises(LabelConflict, match='since it was read'): g.save()
    assert (dota/'labelTxt/a.txt').read_text()==once and g.unsaved==[0] and 'a.png' in g.status['conflict']
    event(g, op='beside')
    assert g.said=='saved beside: a.txt.mine' and (dota/'labelTxt/a.txt').read_text()==once
    event(g, op='merge')
    assert [o[1] for o in label_sources(dota, format='dota')[0].read().rows]==['car','ship']
    f.edit('delete', id=0)                                               # f has not seen the merge
    event(f, op='save'); assert f.status['conflict']
    event(f, op='mine')
    assert [o[1:] for o in label_sources(dota, format='dota')[0].read().rows]==[('car',1)] and not f.status['conflict']
    f.edit('move', id=1, dx=1, dy=1); (dota/'labelTxt/a.txt').unlink()
    event(f, op='save'); assert 'is gone' in f.said
    assert not (dota/'labelTxt/a.txt').exists()
    event(f, op='mine'); assert (dota/'labelTxt/a.txt').exists()

def _many(file, ks, gate):
    "One of two editors of one COCO file: its own images, many saves"
    f = LabelFixer(file, format='coco', journal=Path(file).parent/f'j{ks[0]}', vocab=['car','ship'])
    gate.wait(120)
    for i in range(20): f.goto(ks[i%2]); f.edit('move', id=0, dx=1., dy=0.); f.save()

def test_two_processes_save_one_file(tmp_path):
    "Each saves 20 times into one file, each its own images, at the same time: nothing is lost, and the file is whole"
    (tmp_path/'images').mkdir()
    q = np.array([[[10,10],[40,10],[40,20],[10,20]]], float)
    for k in range(4): Image.new('RGB', (100,50)).save(tmp_path/f'images/{k}.png')
    annots = [Annot(tmp_path/f'images/{k}.png', q, ['ship'], np.zeros(1, int)) for k in range(4)]
    file = write_coco(annots, tmp_path/'all.json', ['car','ship'])
    ctx = multiprocessing.get_context('spawn'); gate = ctx.Barrier(2)
    p = ctx.Process(target=_many, args=(file, (0,2), gate)); p.start()
    _many(file, (1,3), gate)
    p.join(120)
    assert p.exitcode==0
    d = json.loads(file.read_text())
    assert [a['bbox'] for a in d['annotations']]==[[20,10,30,10]]*4
    assert not stray(tmp_path)

def test_links_and_modes_stay(dota):
    real = dota.parent/'elsewhere.txt'; shutil.move(dota/'labelTxt/a.txt', real); real.chmod(0o640)
    (dota/'labelTxt/a.txt').symlink_to(real)
    f = fixer(dota); f.edit('rename', id=0, name='car'); f.save()
    assert (dota/'labelTxt/a.txt').is_symlink() and 'car 0' in real.read_text() and real.stat().st_mode&0o777==0o640

def test_refused_before_anything_is_written(dota):
    "A class that the format cannot spell, an edit that it cannot hold, a class nobody knows"
    y = dota.parent/'yolo'
    for o in ('images','labels'): (y/o).mkdir(parents=True)
    shutil.copy(dota/'images/a.png', y/'images')
    (y/'labels/a.txt').write_text('0 .1 .1 .5 .1 .5 .5 .1 .5\n')
    (y/'data.yaml').write_text('names: [ship]')
    f = fixer(y, format='yolo_obb')
    event(f, op='toggle_difficult', id=0); assert 'cannot hold' in f.said
    event(f, op='rename', id=0, name='bus'); assert 'not among the classes' in f.said
    f.known.append('bus'); f.edit('rename', id=0, name='bus')
    with pytest.raises(LabelError, match='has no number'): f.save()
    assert (y/'labels/a.txt').read_text()=='0 .1 .1 .5 .1 .5 .5 .1 .5\n'

def test_bytes_that_are_no_text_stay(dota):
    raw = b'\xef\xbb\xbf'+A.encode().replace(b'broken', b'\xff\xfe').replace(b'\n', b'\r\n')
    (dota/'labelTxt/a.txt').write_bytes(raw)
    f = fixer(dota); f.edit('toggle_difficult', id=1); f.save()
    assert (dota/'labelTxt/a.txt').read_bytes()==raw.replace(b'car 1', b'car 0')

def test_images_of_one_name(tmp_path):
    "Two images of one file name, in two folders: a queue and hints that give only the name mean neither"
    records = []
    for folder in 'ab':
        (tmp_path/folder).mkdir()
        Image.new('RGB', (60,40)).save(tmp_path/folder/'1.png')
        records.append(Annot(tmp_path/folder/'1.png', np.array([[[9,9],[19,9],[19,14],[9,14.]]]), ['ship'], np.zeros(1, int)))
    with pytest.raises(ValueError, match='one of several images'): LabelFixer(records, queue=['1.png'])
    hint = dict(boxes=[[30.,20,10,5,0]], scores=[.9], labels=['ship'])
    f = LabelFixer(records, queue=[(tmp_path/'a/1.png',.1),(tmp_path/'b/1.png',.9)], hints={'1.png':hint})
    assert [source.image.parent.name for source,*_ in f.items]==['b','a'] and f.names==['labels']
    f = LabelFixer(records, hints={str(tmp_path/'b/1.png'):hint})
    assert f.names==['labels']
    f.goto(1)
    assert f.names==['labels','prediction']
