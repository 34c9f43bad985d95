"""A thousand corrupted sets over all formats: whatever is wrong, the readers raise only their own errors, naming the file, and with
`on_bad='warn'` no label whose bytes survived is lost without its file being named"""
import json, random, re, shutil, struct, warnings, zlib
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from rotnb.data.formats.table import FORMATS, FormatError, read_format, sniff_format
from rotnb.data.doctor.report import doctor
from rotnb.data.labels.records import Annot, DatasetLayoutError, LabelError
from rotnb.data.formats.edit_xml import xml_spans
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.fit import with_heading

CASES = 1000
FORMS = [k for k,f in FORMATS.items() if k!='hrsid' and (f.write or k=='ucas_aod')]
BOXES = rbox2qbox(np.array([[40.,30,24,10,.4],[90,60,30,12,-.7],[120,25,16,8,1.2],[60,80,22,9,.1],[30,70,18,8,-1.1]]))
VOCAB = ['ship','car']

# ---- a good set of each format, and the bytes of every label in it ----

def write_ucas(annots, root):
    (root/'ship').mkdir()
    for a,(r,_) in ((a, with_heading(a.quads)) for a in annots):
        rows = ['\t'.join(f'{v:.4f}' for v in (*q.ravel(),np.rad2deg(b[4]),*b[:4])) for q,b in zip(a.quads, r)]
        (root/f'ship/{a.image.stem}.txt').write_text(''.join(o+'\n' for o in rows))

def good_set(root, name):
    "Three images, five labels"
    (root/'images').mkdir(parents=True); rng = np.random.default_rng(0)
    ims = [root/f'images/p{i}.png' for i in range(3)]
    for p in ims: Image.fromarray(rng.integers(0, 255, (100,150), dtype=np.uint8)).save(p)
    one = name in ('hrsc','hrsc_types','icdar','ucas_aod'); names = ['ship']*5 if one else ['ship','car','ship','ship','car']
    annots = [Annot(p, BOXES[a:b], names[a:b], np.zeros(b-a, int)) for p,(a,b) in zip(ims, ((0,3),(3,5),(5,5)))]
    if name=='ucas_aod': write_ucas(annots, root)
    else: FORMATS[name].write(annots, root, '', VOCAB, **(dict(border='keep') if FORMATS[name].clips else {}))
    return {p.relative_to(root).as_posix():p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}

def pieces(name, file, data):
    "The bytes of each label in a file, in order"
    if file.endswith('.xml'):
        tags = ('box','polygon') if name=='cvat' else ('object','HRSC_Object')
        def below(o): return [o, *(p for k in o.kids for p in below(k))]
        return [data[o.start:o.end] for o in below(xml_spans(data)) if o.tag in tags]
    if file.endswith('.json'):
        s,key,res,i = data.decode(),dict(coco='segmentation', labelme='points', label_studio='original_width')[name],[],0
        while (i := s.find('{', i))>=0:
            o,end = json.JSONDecoder().raw_decode(s, i)
            if key in o: res.append(s[i:end].encode()); i = end
            else: i += 1
        return res
    return [l for l in data.splitlines(keepends=True)[file.endswith('.csv'):] if re.search(rb'\d', l) and not l.endswith(b',,,,,,,,\n') and b',,0,' not in l]

@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    "Format -> (files, labels as (file, bytes, image, corners))"
    res = {}
    for k in FORMS:
        root = tmp_path_factory.mktemp('good')/k; files = good_set(root, k); labels = []
        is_label = lambda f: not f.endswith(('.png','.yaml'))
        for f in filter(is_label, files):
            stem = Path(f).stem.removeprefix('gt_')
            for n,p in enumerate(pieces(k, f, files[f])):
                i = n if not stem.startswith('p') else n+3*(stem=='p1')
                labels.append((f, p, 'p0.png' if i<3 else 'p1.png', BOXES[i]))
        assert len(labels)==5, (k, labels)
        res[k] = files,labels
    return res

# ---- corruptions: bytes and a random generator to bytes, or None for a file that is gone ----

def cut(d, r): return d[:r.randrange(len(d)+1)]
def drop_slice(d, r): i = r.randrange(len(d)); return d[:i]+d[i+r.randrange(1, 60):]
def twice_slice(d, r): i = r.randrange(len(d)); j = i+r.randrange(1, 200); return d[:j]+d[i:j]+d[j:]
def junk(d, r): i = r.randrange(len(d)); return d[:i]+r.randbytes(r.randrange(1, 30))+d[i:]
def flip(d, r):
    b = bytearray(d)
    for _ in range(r.randrange(1, 6)): b[r.randrange(len(b))] ^= 1<<r.randrange(8)
    return bytes(b)
def noise(d, r): return r.randbytes(r.randrange(1, 400))
def empty(d, r): return b''
def gone(d, r): return None
def utf16(d, r): return d.decode().encode('utf-16')
def bom(d, r): return b'\xef\xbb\xbf'+d
def latin(d, r): return d.replace(b'ship', 'schöne'.encode('latin-1'), r.randrange(1, 3))
def crlf(d, r): return d.replace(b'\n', b'\r\n')
def old_mac(d, r): return d.replace(b'\n', b'\r')
def nuls(d, r): i = r.randrange(len(d)); return d[:i]+b'\0'*r.randrange(1, 50)+d[i:]
def no_newline(d, r): return d.replace(b'\n', b' ', r.randrange(1, 4))
def tail(d, r): return d+r.choice([b'0 0 0', b'}', b'</x>', b'\x1a', b'1 2 3 4 5 6 7 8 ship 0', b'\n\n\n'])
def _number(d, r, new):
    m = r.choice(list(re.finditer(rb'-?\d+\.\d+', d)) or [None]); return d if m is None else d[:m.start()]+new+d[m.end():]
NUMBERS = [b'nan', b'NaN', b'inf', b'-Infinity', b'1e999', b'-1e308', b'9'*400, b'9'*5000, b'0x1F', b'1,5', b'--3', b'', b'\xd9\xa3', b'null', b'"7"', b'1_0']
def odd_number(d, r): return _number(d, r, r.choice(NUMBERS))
def swap_numbers(d, r):
    m = list(re.finditer(rb'-?\d+\.\d+', d))
    if len(m)<2: return d
    a,b = sorted(r.sample(m, 2), key=lambda o: o.start()); return d[:a.start()]+b[0]+d[a.end():b.start()]+a[0]+d[b.end():]
def swap_fields(d, r): # columns of every line
    res = []
    for l in d.splitlines():
        sep = b',' if b',' in l else b'\t' if b'\t' in l else b' '; t = l.split(sep)
        if len(t)>2: t[0],t[-1] = t[-1],t[0]
        res.append(sep.join(t))
    return b'\n'.join(res)
def no_field(d, r):
    m = r.choice(list(re.finditer(rb'[^\s,]+[\s,]', d)) or [None]); return d if m is None else d[:m.start()]+d[m.end():]
def no_tag(d, r):
    m = r.choice(list(re.finditer(rb'<(\w+)[^<>]*>[^<]*</\1>', d)) or [None]); return d if m is None else d[:m.start()]+d[m.end():]
def other_tag(d, r):
    t = r.choice(re.findall(rb'</(\w+)>', d) or [b'-']); return d.replace(b'<'+t, b'<other').replace(b'</'+t+b'>', b'</other>')
def unwrapped(d, r):
    t = r.choice(re.findall(rb'</(\w+)>', d) or [b'-']); return re.sub(rb'</?'+t+rb'( [^>]*)?>', b'', d)
def wrapped(d, r):
    t = r.choice(re.findall(rb'</(\w+)>', d) or [b'-']); return re.sub(rb'(</'+t+rb'>)', rb'\1</more>', re.sub(rb'(<'+t+rb'[ >])', rb'<more>\1', d))
def entities(d, r): return re.sub(rb'^(<\?xml.*?\?>)?', lambda m: m[0]+b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>', d, count=1)
DEEP = [b'<a>'*150, b'<a>'*100000, b'['*100000, b'{"a":'*100000, b'<annotation>'+b'<object>'*300+b'</object>'*300+b'</annotation>']
def deep(d, r): return r.choice(DEEP)

def _json(change):
    def f(d, r):
        try: doc = json.loads(d)
        except ValueError: return flip(d, r)
        nodes = []
        def walk(o):
            for k,v in (o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ()): nodes.append((o,k)); walk(v)
        walk(doc); change(doc, nodes, r); return json.dumps(doc).encode()
    f.__name__ = change.__name__; return f
TYPES = [None, [], {}, 'x', 5, -1.5, True, [[]], [None], [[1]], {'id':[1]}, 10**400, float('nan'), '\ud800', '']
@_json
def json_type(doc, nodes, r): o,k = r.choice(nodes); o[k] = r.choice(TYPES)
@_json
def json_key(doc, nodes, r):
    o,k = r.choice([n for n in nodes if isinstance(n[0], dict)]); v = o.pop(k)
    if r.random()<.5: o[k+'x'] = v
@_json
def json_twice(doc, nodes, r):
    some = [n for n in nodes if isinstance(n[0], list)]
    if some: o,k = r.choice(some); o.insert(k, o[k])
@_json
def json_ids(doc, nodes, r):
    some = [n for n in nodes if n[1] in ('id','image_id','category_id')]
    if some: o,k = r.choice(some); o[k] = r.choice([1, 2, 0, '1', None, [1], 99, True, 1.0])

ANY = [cut, cut, drop_slice, twice_slice, junk, flip, noise, empty, gone, utf16, bom, latin, crlf, old_mac, nuls, no_newline, tail,
       odd_number, odd_number, odd_number, swap_numbers, swap_fields, no_field, no_field, deep]
OF = dict(xml=[no_tag, no_tag, other_tag, unwrapped, wrapped, entities], json=[json_type, json_type, json_type, json_key, json_key, json_twice, json_ids])
IMAGE = [cut, flip, noise, empty, gone, junk]
def huge_png(d, r): w = struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0); return d[:16]+w+struct.pack('>I', zlib.crc32(b'IHDR'+w))+d[33:]

def corrupt(root, name, files, seed):
    "Write a set with one thing wrong; what was done to which file, and the file's new bytes"
    r = random.Random(seed); labels = [f for f in files if not f.endswith(('.png','.yaml'))]
    where = r.random()
    if where<.12: f = r.choice([o for o in files if o.endswith('.png')]); how = r.choice([*IMAGE, huge_png])
    elif where<.2 and any(o.endswith('.yaml') for o in files): f = next(o for o in files if o.endswith('.yaml')); how = r.choice(ANY)
    else: f = r.choice([o for o in labels if files[o]] or labels); how = r.choice(ANY+OF.get(f.rpartition('.')[2], [])*3)
    new = how(files[f], r)
    folder = new is not None and r.random()<.03                                          # a folder of the file's name
    for k,v in files.items():
        p = root/k; p.parent.mkdir(parents=True, exist_ok=True)
        if k!=f: p.write_bytes(v)
        elif folder: p.mkdir()
        elif new is not None: p.write_bytes(new)
    twin = root/'images'/r.choice(['p0.png','p2.png'])                                   # a second image of the same name
    if r.random()<.05 and twin.is_file(): (root/'images/sub').mkdir(); shutil.copy(twin, root/'images/sub')
    return f"{how.__name__}{' as a folder' if folder else ''} of {f}",f,b'' if folder or new is None else new

def read(root, name, on_bad):
    "Records (None where reading ended in one of the documented errors), and all that was said"
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        try: res = read_format(root, format=name, vocab=None if 'yolo' in name else VOCAB+['text'], on_bad=on_bad)
        except (LabelError, DatasetLayoutError) as e: return None,str(e)
    return res,'\n'.join(str(o.message) for o in w)

def has(records, image, q, tol):
    return any(a.image.name==image and min(np.abs(np.roll(b, k, 0)-q).max() for k in range(4))<tol for a in records for b in a.quads)

def check(root, name, files, labels, seed):
    "What is wrong with the reader, in words; '' if nothing"
    what,file,new = corrupt(root, name, files, seed); tol = .6 if name=='icdar' else .02
    try: (raised,why),(got,said) = read(root, name, 'raise'),read(root, name, 'warn')
    except Exception as e: return f'{what}: {type(e).__name__}: {e}'[:300]
    told = Path(file).name in said
    if got is None: return '' if told or str(root) in said else f'{what}: the error names no file: {said[:200]}'
    if not all(np.isfinite(a.quads).all() for a in got): return f'{what}: boxes that are no numbers'
    for f,piece,image,q in labels:
        intact = f!=file or piece in new
        named = told or Path(image).name in said or Path(f).name in said
        if intact and not named and not has(got, image, q, tol): return f'{what}: {image} {piece[:60]} is lost, said was: {said[:200]!r}'
    if raised is None and Path(file).name not in why and str(root) not in why: return f'{what}: raised without naming the file: {why[:200]}'
    if raised is not None and sum(map(len, raised))<sum(map(len, got)): return f'{what}: raise reads less than warn'
    return ''

@pytest.mark.parametrize('name', FORMS)
def test_a_thousand_corruptions(tmp_path, sets, name):
    files,labels = sets[name]; wrong = {}
    for seed in range(FORMS.index(name), CASES, len(FORMS)):
        root = tmp_path/f'{seed}'
        if said := check(root, name, files, labels, seed): wrong[seed] = said
        shutil.rmtree(root)
    assert not wrong, f'{len(wrong)}: '+'\n'.join(f'{k} {v}' for k,v in wrong.items())

@pytest.mark.parametrize('name', FORMS)
def test_the_good_sets_are_read_wholly_and_without_a_word(tmp_path, sets, name):
    files,labels = sets[name]
    for k,v in files.items(): (tmp_path/k).parent.mkdir(parents=True, exist_ok=True); (tmp_path/k).write_bytes(v)
    got,said = read(tmp_path, name, 'raise')
    assert got is not None and sum(map(len, got))==5 and all(has(got, i, q, .6 if name=='icdar' else .02) for _,_,i,q in labels), said
    assert not said or said.count('no label file')==1                                   # CSV and others cannot know of an empty image

@pytest.mark.parametrize('name', FORMS)
def test_the_doctor_survives_them_too(tmp_path, sets, name):
    files,_ = sets[name]
    for seed in range(5000+FORMS.index(name), 5000+8*len(FORMS), len(FORMS)):
        root = tmp_path/f'{seed}'; what,file,_ = corrupt(root, name, files, seed)
        try: sniff_format(root)
        except FormatError: pass
        try: rep = doctor(root, name); str(rep); rep._repr_html_(); rep.to_json()
        except (DatasetLayoutError, LabelError): pass
