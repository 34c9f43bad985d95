"""A thousand corrupted sets over all formats: whatever is wrong, the readers raise only their own errors, naming the file, and with
`on_bad='warn'` no label whose bytes survived is lost without its file being named"""
import json, re, shutil, warnings
from pathlib import Path
import numpy as np, pytest
from rotnb.data.formats.table import FormatError, read_format, sniff_format
from rotnb.data.doctor.report import doctor
from rotnb.data.labels.records import DatasetLayoutError, LabelError
from rotnb.data.formats.xml_text import xml_spans
from corruptions import corrupt
from good_sets import BOXES, FORMS, VOCAB, good_set

CASES = 1000

# ---- a good set of each format, and the bytes of every label in it ----



def pieces(name, file, data):
    "The bytes of each label in a file, in order"
    if file.endswith('.xml'):
        tags = ('box','polygon') if name=='cvat' else ('object','HRSC_Object')
        def below(o): return [o, *(p for k in o.children for p in below(k))]
        return [data[o.start:o.end] for o in below(xml_spans(data)) if o.tag in tags]
    if file.endswith('.json'):
        key = dict(coco='segmentation', labelme='points', x_anylabeling='points', label_studio='original_width')[name]
        s,res,i = data.decode(),[],0
        while (i := s.find('{', i))>=0:
            o,end = json.JSONDecoder().raw_decode(s, i)
            if key in o: res.append(s[i:end].encode()); i = end
            else: i += 1
        return res
    return [l for l in data.splitlines(keepends=True)[file.endswith('.csv'):] if re.search(rb'\d',
        l) and not l.endswith(b',,,,,,,,\n') and b',,0,' not in l]

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
    named = Path(file).name in why or str(root) in why
    if raised is None and not named: return f'{what}: raised without naming the file: {why[:200]}'
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
