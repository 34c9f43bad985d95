"The doctor: no alarm on clean sets, every planted fault found at its place, mended without touching anything else, real sets"
import math, re, shutil
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from rotnb.cli.doctor import main
from rotnb.data.doctor.boxes import CHECKS
from rotnb.data.labels.lines import split_where
from rotnb.data.formats.table import FORMATS
from rotnb.data.doctor.report import doctor
from rotnb.data.formats.dota import read_dota
from rotnb.data.formats.format import FORMATS
from rotnb.data.formats.edit import ImageRef
from rotnb.data.synth.scenes import make_synth
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.fit import with_heading
from paths import SHARED

DATA = SHARED/'data'

NAMES = 'dota yolo_obb coco ssdd dior fair1m rolabelimg labelme label_studio cvat csv'.split()

def real(name):
    if not (DATA/name).exists(): pytest.skip(f'no reference data: {DATA.name}/{name} is absent (set ROTNB_SHARED)')
    return DATA/name

def grave(rep): return rep.findings[rep.findings.severity!='info']
def places(rep, kind): return [(Path(f.file).name, f.line if pd.notna(f.line) else f.object) for f in rep.to_dataframe(kind).itertuples()]

@pytest.fixture(scope='module')
def synth(tmp_path_factory):
    "Records of clean scenes, every box wholly inside, and their classes"
    root = make_synth(tmp_path_factory.mktemp('s')/'a', 10, 2, size=256, workers=1)
    annots = []
    for a in read_dota(root, 'train'):
        in_ = ((a.quads>=0)&(a.quads<=256)).all((1,2)) & (with_heading(a.quads)[0][:,2:4].min(1)>3)
        annots.append(replace(a, quads=rbox2qbox(with_heading(a.quads[in_])[0]), names=[n for n,k in zip(a.names, in_) if k],
                              difficult=a.difficult[in_], where=None, angle=None))
    return annots

def write(annots, root, name, names=None):
    (root/'images').mkdir(parents=True)
    for a in annots: shutil.copy(a.image, root/'images')
    annots = [replace(a, image=root/'images'/a.image.name) for a in annots]
    FORMATS[name].write(annots, root, '', names or sorted({n for a in annots for n in a.names}),
        **(dict(border='keep') if FORMATS[name].clips else {}))
    return annots

# ---- clean sets ----

@pytest.mark.parametrize('name', NAMES)
def test_a_clean_set_raises_no_alarm(tmp_path, synth, name):
    write(synth, tmp_path/'a', name)
    rep = doctor(tmp_path/'a')
    assert rep.format==name and len(rep.boxes)==sum(map(len, synth)) and grave(rep).empty, rep
    assert not set(rep.findings.kind)-{'tiny','rare'}
    assert (rep.votes.share[rep.votes.boxes>=20]<.45).all()

# ---- planted faults ----

def planted(annots, free):
    "Faults by kind -> (image, corners); the last box of an image is spoilt or repeated"
    out,want = [],{}
    for i,a in enumerate(annots):
        a = replace(a, quads=a.quads.copy(), names=list(a.names)); q,n = a.quads,a.names
        def add(kind, box, name):
            want[kind] = a.image.name,np.array(box, float)
            return replace(a, quads=np.concatenate([q, [box]]), names=[*n, name], difficult=np.append(a.difficult, 0))
        common = max(set(sum((o.names for o in annots), [])), key=sum((o.names for o in annots), []).count)
        mid = rbox2qbox(np.array([[128.,128,20,10,.3]]))[0]
        if i==0 and len(a): a = replace(add('duplicate', q[0], n[0]), difficult=np.append(a.difficult, a.difficult[0]))
        if i==1: a = add('sliver', rbox2qbox(np.array([[100.,90,30,.6,.5]]))[0], common)
        if i==2: a = add('off', mid+400, common)
        if i==3: a = add('name', mid+[60,60], common[:-1]+('x' if common[-1]!='x' else 'y')+common[-1])
        if i==4 and free: a = add('crossed', [[30,30],[70,48],[66,30],[30,45]], common)
        if i==5: a = add('near_duplicate', q[0]+.04*math.sqrt(abs(np.cross(q[0,1]-q[0,0], q[0,3]-q[0,0])))*.2, n[0])
        out.append(a)
    return out,want

@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.parametrize('name', NAMES)
def test_planted_faults_are_found_and_mended(tmp_path, synth, name):
    free = 'quad' in FORMATS[name].holds
    bad,want = planted(synth, free); names = sorted({n for a in bad for n in a.names})
    write(bad, tmp_path/'a', name, names)
    rep = doctor(tmp_path/'a'); f = grave(rep)
    assert sorted(f.kind)==sorted(want), rep
    for r in f.itertuples():
        image,q = want[r.kind]
        assert Path(r.image).name==image and min(np.abs(np.roll(rep.boxes.quads[r.box], k, 0)-q).max() for k in range(4))<.02, r
        assert r.file and (pd.notna(r.line) or r.object)
    slip = rep.boxes.names[f.box[f.kind=='name'].item()]; right = re.search(r"may be '(.*?)'", f.message[f.kind=='name'].item())[1]
    before = {p: p.read_bytes() for p in (tmp_path/'a').rglob('*') if p.is_file()}
    res = rep.fix(tmp_path/'b', kinds=['duplicate','sliver','off','crossed'], names={slip:right})
    assert {p: p.read_bytes() for p in (tmp_path/'a').rglob('*') if p.is_file()}==before         # the old one is as it was
    done = dict(zip(res.kind, res.done))
    assert all(done[k]=='dropped' for k in ('duplicate','sliver','off')) and done['name']=='renamed in 1 boxes', done
    assert done['near_duplicate'].startswith('left')
    again = doctor(tmp_path/'b'); assert set(grave(again).kind)=={'near_duplicate'}, again
    old,new = ({a.image.name:a for a in r.boxes.annots} for r in (rep,again))                    # nothing but what was said has changed
    for k,a in old.items():
        gone = {r.box for r in f.itertuples() if done[r.kind]=='dropped'}
        first = int(np.flatnonzero(rep.boxes.record==rep.boxes.annots.index(a))[0]) if len(a) else 0
        keep = [i for i in range(len(a)) if first+i not in gone]
        assert [right if a.names[i]==slip else a.names[i] for i in keep]==new[k].names
        if 'crossed' not in want or want['crossed'][0]!=k: np.testing.assert_array_equal(a.quads[keep], new[k].quads)
    same = [p for p in before if p.suffix!='.png' and p.parent.name!='images'
        and (tmp_path/'b'/p.relative_to(tmp_path/'a')).read_bytes()==before[p]]
    if len(before)>2*len(synth)-1: assert len(same)>=len(synth)-5                                # files without findings: the same bytes

@pytest.mark.parametrize('name', [k for k,f in FORMATS.items() if f.write])
def test_forms_and_readers_name_the_same_places(tmp_path, synth, name):
    "What is edited at a place is what the doctor read there, bit for bit"
    one = {'hrsc':'ship', 'hrsc_types':'ship', 'icdar':'text'}.get(name)
    write([replace(a, names=[one or n for n in a.names]) for a in synth], tmp_path/'a', name)
    b,form,vocab = doctor(tmp_path/'a', name, images=False).boxes,FORMATS[name].editor(),sorted({n for a in synth for n in a.names})
    assert len(b)==sum(map(len, synth))
    for file in {split_where(w)[0] for w in b.where}:
        text = form.decode(Path(file).read_bytes()); at = {o.place:o for o in form.objects(text)}
        mine = [i for i,w in enumerate(b.where) if split_where(w)[0]==file]
        assert len([p for p in at if form.read(at[p], text, ImageRef('', tuple(b.size_wh[mine[0]]), vocab)).row])==len(mine)
        for i in mine:
            _,line,obj = split_where(b.where[i]); p = form.read(at[line or obj], text, ImageRef('', tuple(b.size_wh[i]), vocab))
            np.testing.assert_array_equal(p.row[0], b.quads[i].ravel()); assert p.row[1:]==(b.names[i],b.difficult[i])

@pytest.mark.parametrize('name', ['csv','cvat','coco','label_studio'])
def test_many_images_of_one_file_are_mended_at_once(tmp_path, synth, name):
    "First and last object of every image go, neighbours in the file, and all of the last image"
    thin = rbox2qbox(np.array([[100.,90,30,.6,.5],[60.,150,40,.7,1.]]))
    def spoilt(a, last):
        q,n = (thin,['ship']*2) if last else (np.concatenate([thin[:1],a.quads,thin[1:]]),['ship',*a.names,'ship'])
        return replace(a, quads=q, names=n, difficult=np.zeros(len(n), int))
    bad = [spoilt(a, i==4) for i,a in enumerate(synth[:5])]
    write(bad, tmp_path/'a', name); rep = doctor(tmp_path/'a', images=False)
    name_ = {n for a in synth for n in a.names}-{'ship'}; old = sorted(name_)[0]
    res = rep.fix(tmp_path/'b', kinds=['sliver'], names={old:'a new class'})
    assert set(res.done[res.kind=='sliver'])=={'dropped'} and len(res.done[res.kind=='sliver'])==10
    got = {a.image.name:a for a in doctor(tmp_path/'b', images=False).boxes.annots}; was = {a.image.name:a for a in rep.boxes.annots}
    assert len(got)==5 and not len(got[bad[4].image.name])
    for a in bad[:4]:
        np.testing.assert_array_equal(got[a.image.name].quads, was[a.image.name].quads[1:-1])
        assert got[a.image.name].names==['a new class' if n==old else n for n in a.names[1:-1]]

def test_what_a_format_cannot_hold_is_said(tmp_path, synth):
    "No class number, no classes, several objects on one line, XML in another width: left as it was, with the reason"
    def mended(name, names, spoil=lambda t: None, kind='xml'):
        write([replace(a, names=['ship']*len(a)) for a in synth[:2]], tmp_path/name, name, ['ship'])
        t = sorted((tmp_path/name).rglob(f'*.{kind}'))[0]; spoil(t)
        rep = doctor(tmp_path/name, name, images=False); old = rep.boxes.names[0]
        rep.findings.loc[0] = dict(severity='warning', kind='name', file='', line=pd.NA, object='', image='', split='',
                                   message=f"'{old}' (3 boxes)", fix='name', box=-1)
        done = rep.fix(tmp_path/f'{name}-new', names={old:names}).done[0]
        same = t.read_bytes()==(tmp_path/f'{name}-new'/t.relative_to(tmp_path/name)).read_bytes()
        return done,same
    for name,kind,why in (('yolo_obb','txt',"class 'bus' has no number"), ('icdar','txt','the format has no classes'),
                          ('hrsc','xml','the format has no class')):
        done,same = mended(name, 'bus', kind=kind); assert why in done and done.startswith('renamed in 0 boxes') and same, done
    done,same = mended('ssdd', 'bus', lambda t: t.write_bytes(re.sub(rb'>\s+<', b'><', t.read_bytes())))
    assert 'objects begin at this place' in done and same, done
    wide = lambda t: t.write_bytes(t.read_bytes().replace(b"encoding='utf-8'", b"encoding='utf-16'").decode().encode('utf-16'))
    done,same = mended('dior', 'bus', wide)
    assert 'UTF-16' in done and same, done

def test_lines_of_a_dota_file_by_kind(tmp_path, synth):
    a, = write(synth[:1], tmp_path/'a', 'dota'); t = tmp_path/f'a/labelTxt/{a.image.stem}.txt'; n = len(t.read_text().splitlines())
    rows = dict(parse='1 2 3 ship 0', degenerate='5 5 5 5 9 5 9 5 ship 0', bowtie='10 10 40 20 40 10 10 20 ship 0',
                anticlockwise='200 200 200 230 240 230 240 200 ship 0',
                quad='100 200 160 210 150 240 103 220 ship 0', outside='240 10 270 10 270 25 240 25 ship 0',
                tiny='30.5 200 33.5 200 33.5 203 30.5 203 ship 0')
    t.write_text(t.read_text()+'\n'.join(rows.values())+'\n')
    rep = doctor(tmp_path/'a', vocab=None)
    for i,k in enumerate(rows, n+1): assert (t.name,i) in places(rep, k), (k, rep)
    assert {k for k,v in places(rep, list(CHECKS)) if k}=={t.name}

# ---- conventions ----

def rolabelimg(root, synth, change):
    write(synth, root, 'rolabelimg')
    for t in (root/'annotations').iterdir():
        t.write_text(re.sub(r'<angle>(.*?)</angle>', lambda m: f'<angle>{change(float(m[1])):.6f}</angle>', t.read_text()))
    return doctor(root)

def test_angle_conventions_are_seen_in_the_images(tmp_path, synth):
    def said(name, f): return rolabelimg(tmp_path/name, synth, f).to_dataframe('reading').message.str.split(':').str[0].tolist()
    assert said('a', lambda t: -t)==['the angle turns the other way']
    assert said('b', lambda t: t+math.pi/2)==['the angle belongs to the other side']
    assert said('c', math.degrees)==['the angle is in degrees, not radians']
    rep = rolabelimg(tmp_path/'d', synth, math.degrees); turn = rep.to_dataframe('turn')
    assert len(turn)>.5*len(rep.boxes) and (turn.file.str.endswith('.xml')&turn.line.notna()).all()

def test_axes_and_units(tmp_path, synth):
    def rep(name, f, fmt='dota'): write([replace(a, quads=f(a.quads)) for a in synth], tmp_path/name, fmt); return doctor(tmp_path/name)
    assert rep('a', lambda q: q[...,::-1]).to_dataframe('reading').message.item().startswith('x and y have changed places')
    assert rep('b', lambda q: np.stack([q[...,0],256-q[...,1]],
        -1)).to_dataframe('reading').message.item().startswith('y counts from below')
    assert grave(rep('c', lambda q: q/256)).kind.tolist()==['unit']

# ---- images ----

def test_images_that_are_broken_deep_or_odd(tmp_path, synth):
    write(synth, tmp_path/'a', 'dota'); im = sorted((tmp_path/'a/images').iterdir()); pil = Image.open(im[0]).copy()
    im[1].write_bytes(im[1].read_bytes()[:2000]); im[2].write_bytes(b'no image')
    Image.fromarray(np.asarray(pil.convert('L')).astype(np.uint16)*200).save(im[3])
    pil.convert('RGBA').save(im[4]); Image.open(im[5]).convert('L').save(im[5])
    jpg = im[6].with_suffix('.jpg'); Image.open(im[6]).convert('CMYK').save(jpg); im[6].unlink()
    rep = doctor(tmp_path/'a'); got = {Path(f.image).stem:f.kind for f in grave(rep).itertuples() if f.kind not in ('twin','near_twin')}
    assert got=={im[1].stem:'image', im[2].stem:'image', im[3].stem:'depth', im[4].stem:'mode', im[5].stem:'mode', im[6].stem:'mode'}, rep
    assert rep.errors==2 and doctor(tmp_path/'a', images=False).errors==1                # without the images only the header that is none

def test_images_that_pillow_does_not_know(tmp_path):
    rio = pytest.importorskip('rasterio', reason="rasterio is not installed: pip install rasterio")
    from rotnb.data.doctor.images import probe_image
    a = np.arange(8*64*80).reshape(8,64,80).astype(np.uint16); f = tmp_path/'a.tif'
    with rio.open(f, 'w', driver='GTiff', height=64, width=80, count=8, dtype='uint16') as ds: ds.write(a)
    assert probe_image(f)[:4]==('','uint16 x 8',(80,64),1) and probe_image(f).deep
    f.write_bytes(f.read_bytes()[:9000]); assert 'a.tif' in probe_image(f).error

@pytest.mark.parametrize('exif', ['displayed','raw'])
@pytest.mark.parametrize('name', ['dota','yolo_obb'])
def test_exif_is_named_voted_on_and_mended(tmp_path, synth, exif, name):
    "Labels of images that EXIF turns, drawn on the displayed or on the stored one: no size is told, so they are read as displayed"
    write(synth[:6], tmp_path/'a', name); note = Image.Exif(); note[0x112] = 6
    for p in (tmp_path/'a/images').iterdir():
        # 6: shown turned clockwise, so stored turned the other way
        im = Image.open(p).copy()
        (im.transpose(Image.Transpose.ROTATE_90) if exif=='displayed' else im).save(p.with_suffix('.jpg'), exif=note, quality=98)
        p.unlink()
    rep = doctor(tmp_path/'a'); assert len(rep.to_dataframe('exif'))==6
    won = rep.to_dataframe('reading').message.tolist()
    assert (len(won)==1 and 'labels fit the stored image' in won[0])==(exif=='raw'), rep.votes
    res = rep.fix(tmp_path/'b', exif=exif); assert res.done[res.kind=='exif'].str.contains('upright').all()
    again = doctor(tmp_path/'b'); assert grave(again).empty, again
    np.testing.assert_array_equal(again.boxes.quads, rep.boxes.quads)

def test_leaks_exact_and_near(tmp_path, synth):
    for s,some in (('train',synth[:6]), ('val',synth[6:9])):
        (tmp_path/s/'images').mkdir(parents=True); FORMATS['dota'].write(some, tmp_path/s, '', None)
        for a in some: shutil.copy(a.image, tmp_path/s/'images')
    assert not {'leak','near_leak','twin'}&set(doctor(tmp_path).findings.kind)
    tr,va = (sorted((tmp_path/s/'images').iterdir()) for s in ('train','val'))
    shutil.copy(tr[0], va[0])
    Image.open(tr[1]).resize((200,200)).save(va[1].with_suffix('.jpg'), quality=60)
    va[1].unlink()
    shutil.copy(tr[2], tr[3])
    rep = doctor(tmp_path); got = {(f.kind,Path(f.image).stem) for f in grave(rep).itertuples() if 'l' in f.kind}
    assert {('leak',va[0].stem),('near_leak',va[1].stem)}<=got and [Path(o).stem
        for o in rep.to_dataframe('twin').image]==[tr[3].stem], rep

def test_a_image_listed_in_two_splits_is_a_leak_without_looking(tmp_path, synth):
    a = write(synth[:4], tmp_path/'a', 'ssdd'); (tmp_path/'a/splits').mkdir()
    for s,some in (('train',a[:3]), ('test',a[2:])): (tmp_path/f'a/splits/{s}.txt').write_text('\n'.join(o.image.stem for o in some))
    rep = doctor(tmp_path/'a', images=False); assert [Path(o).stem for o in rep.to_dataframe('leak').image]==[a[2].image.stem]

# ---- use ----

def test_exit_codes(tmp_path, synth, capsys):
    a = write(synth[:3], tmp_path/'a', 'dota'); main(str(tmp_path/'a'), no_images=True)
    (tmp_path/f'a/labelTxt/{a[0].image.stem}.txt').write_text('x\n')
    for args,code in (((str(tmp_path/'a'),),1), ((str(tmp_path/'none'),),2)):
        with pytest.raises(SystemExit) as e: main(*args, no_images=True)
        assert e.value.code==code
    assert 'Traceback' not in capsys.readouterr().err

# ---- real sets ----

REAL = {'dota8':({}, 'yolo_obb', 133, {'unseen':3}, {'outside':17}), 'dota':({}, 'dota', 956, {'degenerate':2}, {}),
        'ssdd':({}, 'ssdd', 2587, {'leak':10,'twin':15}, {'outside':11}), 'dior_r':({}, 'dior', 272, {}, {'outside':9}),
        'rolabelimg_piglet':(dict(format='rolabelimg'), 'rolabelimg', 91, {}, {}),
        'icdar2015_toy':(dict(format='icdar', labels='icdar_txt'), 'icdar', 82, {}, {})}

@pytest.mark.parametrize('name', REAL)
def test_real_sets_have_what_is_known_of_them(name):
    kw,format,n,grave_,info = REAL[name]; rep = doctor(real(name), **kw)
    assert (rep.format,len(rep.boxes))==(format,n) and dict(grave(rep).kind.value_counts())==grave_, rep
    for k,v in info.items(): assert len(rep.to_dataframe(k))==v

def test_one_real_image_tells_clockwise_from_anticlockwise():
    p = real('fisheye_person'); assert grave(doctor(p, 'coco', rbox='deg')).empty
    assert doctor(p, 'coco', rbox='deg_ccw').to_dataframe('reading').message.item().startswith('the angle turns the other way')

def test_what_is_known_of_a_class_is_not_guessed_and_is_drawn(tmp_path):
    (tmp_path/'images').mkdir(); (tmp_path/'labelTxt').mkdir()
    Image.fromarray(np.zeros((300,300,3), np.uint8)).save(tmp_path/'images/0.png')
    at = [(20+50*i, 20+50*j) for i in range(5) for j in range(5)]
    tanks = [f'{x} {y} {x+20} {y} {x+20} {y+20} {x} {y+20} tank 0' for x,y in at]
    ships = [f'{x+5} {y+30} {x+25} {y+40} {x+23} {y+44} {x+3} {y+34} ship 0' for x,y in at]
    (tmp_path/'labelTxt/0.txt').write_text('\n'.join([*tanks, tanks[0], *ships]))
    rep,told = doctor(tmp_path),doctor(tmp_path, symmetry={'tank':'round'})
    assert len(rep.to_dataframe('symmetry'))==1 and not len(told.to_dataframe('symmetry')) and told.symmetry=={'tank':'round'}
    def longest(rep): # of the outlines of the example: a circle has most points
        ax, = (ax for ax in rep.show('duplicate', each=1).axes if 'duplicate' in ax.get_title())
        return sorted(len(patch.get_xy()) for patch in ax.patches)
    assert longest(rep)[-1]<10 and longest(told)[-28]<10<longest(told)[-27]  # 26 labels are tanks, and one is shown again
    with pytest.raises(ValueError, match='unknown classes'): doctor(tmp_path, symmetry={'tanker':'round'})
    assert not len(doctor(tmp_path, symmetry='round').to_dataframe('symmetry'))
