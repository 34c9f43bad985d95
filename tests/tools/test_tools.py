"""The real tools read what is written: each in an environment of its own, with pinned versions. Outside CI: `pytest -m tools`

Environments are made when they are missing, in the folder ROTNB_TOOLS or in one that is removed when the tests end. A reader in
`tools` prints what its tool read as JSON: name of the image -> rows of class, 8 corners and difficult flag."""
import json, os, re, shutil, subprocess, sys, sysconfig
from pathlib import Path
from typing import NamedTuple
import numpy as np, pytest
from PIL import Image
from rotnb.data.labels.records import Annot
from rotnb.data.formats.table import FORMATS
from rotnb.geometry.boxes import rbox2qbox
from paths import ROOT

class Tool(NamedTuple):
    needs:tuple           # pinned requirements, the tool itself first
    python:str='3.11'     # that it needs
    torch:bool=False      # takes torch from this environment rather than installing it again

class Check(NamedTuple):
    tool:str
    format:str            # a key of `FORMATS`
    reader:str            # script in `tools`, with its arguments; {} is the folder
    what:str              # that is checked, in words
    tol:float=.01         # pixels between corners
    flag:bool=True        # whether the tool tells difficult boxes
    quads:bool=True       # whether it can read free quads
    under:str=''          # folder below which the tool wants the set

TOOLS = dict(
    labelme=Tool(('labelme==7.9.1',), '3.12'),
    datumaro=Tool(('datumaro==1.13.12',)),
    label_studio=Tool(('label-studio-sdk==2.1.2',)),
    pycocotools=Tool(('pycocotools==2.0.11',)),
    faster_coco_eval=Tool(('faster-coco-eval==1.8.0',)),
    fiftyone=Tool(('fiftyone==1.22.1',)),
)
TABLE = [
    Check('labelme', 'labelme', 'read_labelme.py {}', 'read_label_file opens every file, its image is found'),
    Check('datumaro', 'cvat', 'read_datumaro.py {} cvat', 'import_from(cvat): rotated boxes and polygons', .02),
    Check('datumaro', 'dota', 'read_datumaro.py {} dota', 'import_from(dota)', .02, quads=False, under='train'),
    Check('label_studio', 'label_studio', 'read_label_studio.py {}', 'converted to YOLO-OBB by its converter', flag=False, quads=False),
    Check('pycocotools', 'coco', 'read_coco.py {} pycocotools', 'loaded, perfect results get AP 1'),
    Check('faster_coco_eval', 'coco', 'read_coco.py {} faster_coco_eval', 'loaded, perfect results get AP 1'),
    Check('fiftyone', 'coco', 'read_fiftyone.py {}', 'Dataset.from_dir: outlines as polylines', .02),
]

def python_of(version):
    "An interpreter of a version, or skip"
    if version==f'{sys.version_info[0]}.{sys.version_info[1]}': return sys.executable
    found = shutil.which(f'python{version}') or os.environ.get(f'ROTNB_PYTHON_{version.replace(".", "_")}')
    return found or pytest.skip(f'needs python{version} (on the path, or in ROTNB_PYTHON_{version.replace(".", "_")})')

@pytest.fixture(scope='session')
def environment(tmp_path_factory):
    home = Path(os.environ.get('ROTNB_TOOLS') or tmp_path_factory.mktemp('tools'))
    def make(name):
        tool,env = TOOLS[name],home/name; done = env/f'{name}.ready'
        if not done.exists() or done.read_text()!=' '.join(tool.needs):
            subprocess.run([python_of(tool.python), '-m', 'venv', '--clear', str(env)], check=True)
            if tool.torch:
                site = next((env/'lib').glob('python*'))/'site-packages'
                (site/'shared.pth').write_text(sysconfig.get_paths()['purelib'])
            subprocess.run([str(env/'bin/pip'), 'install', '-q', *tool.needs], check=True)
            done.write_text(' '.join(tool.needs))
        return env/'bin/python'
    return make

def truth(root, quads=True, difficult=True):
    "Two images that are not square, in the usual folder"
    (root/'images').mkdir(parents=True)
    for n,size in (('a',(400,200)), ('b',(300,500))): Image.new('RGB', size).save(root/f'images/{n}.png')
    q = rbox2qbox(np.array([[120.,90,80,30,.5],[250,60,60,20,-1.2],[60,150,40,20,2.9],[200,100,30,30,0]]))
    if quads: q = np.concatenate([q, [[[300.,120],[350,125],[345,160],[302,150]]]])
    names,hard = ['ship','tank','ship','ship','tank'][:len(q)],np.array([0,int(difficult),0,0,0])[:len(q)]
    def one(n, s): return Annot(root/f'images/{n}.png', q[s], names[s], hard[s])
    return [one('a', slice(None)),one('b', slice(1, 3))]

def gap(a, b): return min(np.abs(np.roll(o, k, 0)-b).max() for o in (a,a[::-1]) for k in range(4))

@pytest.mark.tools
@pytest.mark.parametrize('check', TABLE, ids=lambda c: f'{c.tool}-{c.format}')
def test_the_tool_reads_it(tmp_path, environment, check):
    root = tmp_path/'set'/check.under; python,annots = environment(check.tool),truth(root, check.quads)
    FORMATS[check.format].write(annots, root, '', ['ship','tank'])
    script,*args = check.reader.format(tmp_path/'set').split()
    out = subprocess.run([str(python), str(ROOT/'tests/tools'/script), *args], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert out.returncode==0, out.stdout[-2000:]+out.stderr[-4000:]
    got = json.loads(out.stdout.strip().splitlines()[-1])
    for a in annots:
        rows = got[a.image.stem]; assert len(rows)==len(a), (a.image.stem, rows)
        for q,n,d in zip(a.quads, a.names, a.difficult):
            name,*xy,flag = min(rows, key=lambda r: gap(np.reshape(r[1:9], (4,2)), q))
            assert gap(np.reshape(xy[:8], (4,2)), q)<check.tol and name==n, (n, q.tolist(), rows)
            if check.flag: assert bool(flag)==bool(d), (n, rows)

def test_the_table_of_the_page_is_this_one():
    "Tool, version and format of every check stand in the formats' notebook"
    page = (ROOT/'nbs/data/formats/20_table.ipynb').read_text()
    for c in TABLE: assert re.search(rf'\| {re.escape(TOOLS[c.tool].needs[0].replace("==", " "))} \| [^|]*`{c.format}`', page), c
