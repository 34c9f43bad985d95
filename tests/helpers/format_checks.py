"""What every label format has to stand: `@pytest.mark.parametrize('check', CHECKS)` over `check(tmp_path, sample)`, with a `LabelSample`.
Sane, empty, broken and truncated files, written and read back, and edited in place."""
import warnings
from dataclasses import dataclass, field
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from rotnb.data.formats.format import FORMATS
from rotnb.data.formats.table import FormatError, read_format, sniff_format
from rotnb.data.labels.records import Annot, DatasetLayoutError, LabelError
from rotnb.data.mend.sources import label_sources
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.fit import with_heading

SIZE = 200,100 # of the image, pixels: not square, so that swapped axes show

@dataclass
class LabelSample:
    "The labels of one image `images/a.png` as the format's own tool writes them"
    format:str
    file:str                # label file below the folder of the set
    text:str                # two usable objects at least
    rows:list               # of (8 numbers in pixels, class name, difficult): what is to be read
    broken:str              # the text with one object that cannot be read
    where:str               # how that object is named in messages, behind the file: ':3', ': shapes[0]'
    empty:str               # the text of a file without objects
    recognised:str=None     # as which format; its own when absent
    rewritten:str=None      # as which format what is written is recognised; `recognised` when absent
    extra:dict=field(default_factory=dict) # other files of the set: name -> text
    other_name:str=None     # a class that the first object can be given; None: the class cannot change
    tolerance:float=.02     # pixels

def make_set(root, sample, text=None):
    "The folder of a set with one image and its labels"
    files = {**sample.extra, sample.file:sample.text if text is None else text}
    for name,content in files.items():
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_bytes(content.encode())
    (root/'images').mkdir(exist_ok=True)
    folder = (root/sample.file).parent if sample.format=='ucas_aod' else root/'images'
    Image.new('RGB', SIZE).save(folder/'a.png')
    return root

def read(root, sample, on_bad='raise'):
    "The one record, and what was said"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        annot, = read_format(root, format=sample.format, on_bad=on_bad)
    return annot,' '.join(str(o.message) for o in said)

def apart(a, b):
    "Pixels between two quads, whichever corner is first"
    a,b = (np.reshape(o, (4,2)).astype(float) for o in (a,b))
    return min(np.abs(np.roll(a, k, 0)-b).max() for k in range(4))

def assert_rows(annot, rows, tolerance):
    assert annot.names==[name for _,name,_ in rows] and annot.difficult.tolist()==[difficult for *_,difficult in rows]
    for quad,(xy,*_) in zip(annot.quads, rows): assert apart(quad, xy)<=tolerance

def sane(root, sample):
    "Recognised, and read as it is"
    make_set(root, sample)
    assert sniff_format(root)==(sample.recognised or sample.format)
    annot,_ = read(root, sample)
    assert annot.size==SIZE
    assert_rows(annot, sample.rows, sample.tolerance)

def empty(root, sample):
    "A file without objects is an image without boxes; a file without a byte is that, or named"
    make_set(root, sample, sample.empty)
    assert len(read(root, sample)[0])==0
    make_set(root, sample, '')
    try: assert sum(map(len, read_format(root, format=sample.format)))==0
    except (LabelError, DatasetLayoutError) as e: assert Path(sample.file).name in str(e) or str(root) in str(e)

def broken(root, sample):
    "The object that cannot be read is named by file and place, and left out only where that is asked for"
    make_set(root, sample, sample.broken)
    named = f'{Path(sample.file).name}{sample.where}'
    with pytest.raises(LabelError) as e: read(root, sample)
    assert named in str(e.value)
    annot,said = read(root, sample, 'warn')
    assert named in said and len(annot)==len(sample.rows)-1

def truncated(root, sample):
    "Cut anywhere, a file is read as far as it goes or named; nothing but the readers' own errors, and no box that is not there"
    text = sample.text.encode()
    for end in range(0, len(text), max(1, len(text)//40)):
        make_set(root, sample, '')
        (root/sample.file).write_bytes(text[:end])
        try: sniff_format(root)
        except FormatError: pass
        for on_bad in ('raise','warn'):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    annots = read_format(root, format=sample.format, on_bad=on_bad)
            except (LabelError, DatasetLayoutError) as e:
                assert Path(sample.file).name in str(e) or str(root) in str(e)
                continue
            assert sum(map(len, annots))<=len(sample.rows) and all(np.isfinite(annot.quads).all() for annot in annots)

def written(root, sample):
    "Written and read back, all that the format says it holds is there; a format that is only read says so"
    fmt = FORMATS[sample.format]
    if fmt.write is None: return pytest.skip('only read')
    make_set(root/'old', sample)
    (root/'new/images').mkdir(parents=True)
    Image.new('RGB', SIZE).save(root/'new/images/a.png')
    annot,_ = read(root/'old', sample)
    free = np.array([[20.,10],[60,14],[58,40],[18,30]])
    quads = np.concatenate([annot.quads, free[None]]) if 'quad' in fmt.holds else annot.quads
    names = annot.names+annot.names[:1]*(len(quads)-len(annot))
    flags = np.arange(len(quads))%2
    whole = dict(border='keep') if fmt.clips else {}
    fmt.write([Annot(root/'new/images/a.png', quads, names, flags)], root/'new', '', sorted(set(names)), **whole)
    assert sniff_format(root/'new')==(sample.rewritten or sample.recognised or sample.format)
    back,_ = read(root/'new', sample)
    assert len(back)==len(quads)
    for a,b in zip(back.quads, quads): assert apart(a, b)<=max(fmt.tolerance, .02)
    if 'names' in fmt.holds: assert back.names==names
    if 'difficult' in fmt.holds: assert back.difficult.tolist()==flags.tolist()

def edited(root, sample):
    "One object moved, renamed and flagged, another dropped, one added: all other bytes of the file stay"
    fmt = FORMATS[sample.format]
    make_set(root, sample)
    if not (fmt.editor and fmt.redraws):
        with pytest.raises(LabelError, match='convert the set first'): label_sources(root, format=sample.format)
        assert (root/sample.file).read_text()==sample.text
        return
    source, = label_sources(root, format=sample.format)
    base = source.read()
    assert_rows(Annot(source.image, np.reshape([row[0] for row in base.rows], (-1,4,2)), [row[1] for row in base.rows],
                      np.array([int(row[2]) for row in base.rows])), sample.rows, sample.tolerance)
    xy,name,_ = base.rows[0]
    moved = rbox2qbox(with_heading(np.reshape(xy, (1,4,2)))[0]+[[2,1,0,0,.1]]).ravel().tolist()
    first = moved, sample.other_name or name, int('difficult' in fmt.holds)
    now = source.save(base, [(first,0), *((row,i) for i,row in enumerate(base.rows[:-1]) if i), ((xy,name,0),None)])
    wanted = [first, *base.rows[1:-1], (xy,name,0)]
    assert [row[1] for row in now.rows]==[row[1] for row in wanted]
    assert [bool(row[2]) for row in now.rows]==[bool(row[2]) for row in wanted]
    for (a,*_),(b,*_) in zip(now.rows, wanted): assert apart(a, b)<=max(fmt.tolerance, .02)
    text = (root/sample.file).read_bytes().decode()
    start,end = sample.text.index(base.texts[0]),sample.text.rindex(base.texts[-1])
    between = sample.text[start+len(base.texts[0]):end]
    assert text.startswith(sample.text[:start]) and between.rstrip() in text
    assert source.save(now, [(row,i) for i,row in enumerate(now.rows)]).digest==now.digest

CHECKS = sane,empty,broken,truncated,written,edited
