"Ways to spoil a file, for readers that must say what is wrong"
import json, random, re, shutil, struct, zlib

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
NUMBERS = [b'nan', b'NaN', b'inf', b'-Infinity', b'1e999', b'-1e308', b'9'*400, b'9'*5000,
           b'0x1F', b'1,5', b'--3', b'', b'\xd9\xa3', b'null', b'"7"', b'1_0']
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
    t = r.choice(re.findall(rb'</(\w+)>', d) or [b'-'])
    return re.sub(rb'(</'+t+rb'>)', rb'\1</more>', re.sub(rb'(<'+t+rb'[ >])', rb'<more>\1', d))
def entities(d, r):
    doctype = b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    return re.sub(rb'^(<\?xml.*?\?>)?', lambda m: m[0]+doctype, d, count=1)
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
OF = dict(xml=[no_tag, no_tag, other_tag, unwrapped, wrapped, entities],
          json=[json_type, json_type, json_type, json_key, json_key, json_twice, json_ids])
IMAGE = [cut, flip, noise, empty, gone, junk]
def huge_png(d, r):
    size = struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0)
    return d[:16]+size+struct.pack('>I', zlib.crc32(b'IHDR'+size))+d[33:]

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
