"The report as a file: complete, self-contained, escaped, whole or absent; its command; and figures that leave matplotlib as it was"
import re, runpy, sys, warnings
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt, numpy as np, pytest
from rotnb.evaluate.protocols import PROTOCOLS
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.synth.scenes import make_synth
from rotnb.evaluate import APAccumulator
from rotnb.plot.style import GROUND, INK, PLOT_STYLE, class_legend
from rotnb.learn.interpret import RotatedInterpretation
from rotnb.learn.learner import rotated_learner
import rotnb.learn.report # `Learner.report`

EVIL,FILE = '<script>alert(1)</script>&"$x$',"a<b>&'c.png"
TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16,32))

@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    "One epoch on a set whose names are out to do harm"
    root = make_synth(tmp_path_factory.mktemp('report')/'d', n_train=4, n_valid=3, size=64)
    for f in root.rglob('*.txt'): f.write_text(re.sub(r'\b(small-vehicle|ship|building)\b', lambda m: EVIL, f.read_text()))
    first = min((root/'val/images').iterdir()); label = next((root/'val').rglob(f'{first.stem}.txt'))
    first.rename(first.with_name(FILE)); label.rename(label.with_name(Path(FILE).stem+'.txt'))
    dls = RotatedDataLoaders.from_dota(root, bs=2, num_workers=0)
    learn = rotated_learner(dls, 'rotated_fcos', path=root, **TINY)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

@pytest.fixture(scope='module')
def page(learn, tmp_path_factory): return learn.report(tmp_path_factory.mktemp('page')/'r.html', n_images=3, n_boxes=3)

def test_names_are_escaped(learn, page):
    s = page.read_text()
    assert EVIL in learn.dls.vocab and '<script' not in s and s.count('&lt;script&gt;alert(1)&lt;/script&gt;')>5
    rows = re.findall(r'<th scope="row">(.*?)</th>', s)
    assert '&lt;script&gt;alert(1)&lt;/script&gt;&amp;"$x$' in rows
    assert learn.report(page.with_name('t.html'), title='<b>"', n_images=0, n_boxes=0).read_text().count('<b>')==0

def test_nothing_is_fetched(page):
    s = page.read_text()
    assert not re.search(r'<(?:link|script|iframe|object)\b|@import', s)
    assert {o.split(',')[0][:10] for o in re.findall(r'(?:src|xlink:href|href)="([^"]*)"', s)}-{'data:image'}
    assert all(o.startswith(('data:image/','#')) for o in re.findall(r'(?:src|xlink:href|href)="([^"]*)"', s))
    assert all(o.startswith('#') for o in re.findall(r'url\(["\']?([^)"\']*)', s))

def test_sections_and_contents(page):
    s = page.read_text(); ids = re.findall(r'<h2 id="([^"]+)"', s)
    assert ids==re.findall(r'<li><a href="#([^"]+)"', s)==sorted(set(ids), key=ids.index) and len(ids)==8
    assert s.startswith('<!doctype html>') and 'currentColor' in s and INK not in s and 'prefers-color-scheme:dark' in s
    assert s.count('<img')==s.count('alt=')>=2 and s.count('<svg')==6

def test_file_is_whole_or_as_it_was(learn, page, monkeypatch):
    old = page.read_bytes()
    def fail(tmp): raise RuntimeError('half way') # all is in the temporary file, which has not taken the old one's place
    monkeypatch.setattr('rotnb.data.labels.atomic._sync', fail)
    with pytest.raises(RuntimeError, match='half way'): learn.report(page, n_images=0, n_boxes=0)
    assert page.read_bytes()==old and [o.name for o in page.parent.iterdir() if o.name.startswith('.')]==[]

def test_set_without_boxes(learn, tmp_path):
    "Figures that do not exist are dashes, not errors"
    empty = [replace(o, quads=o.quads[:0], names=o.names[:0], difficult=o.difficult[:0]) for o in learn.dls.valid_ds.items]
    s = learn.report(tmp_path/'r.html', dl=learn.dls.test_dl(empty, with_labels=True, num_workers=0)).read_text()
    assert '–' in s and 'nan' not in re.sub(r'<svg.*?</svg>|data:image[^"]*', '', s, flags=re.S)

def test_history_survives_looking(learn):
    assert len(learn.recorder.values)==1 and len(learn.recorder.lrs)>0

def test_figures_leave_matplotlib_alone(learn):
    before = dict(plt.rcParams)
    acc = APAccumulator(vocab=list(learn.dls.vocab))
    b = np.array([[30.,30,20,10,.3],[40,20,10,10,0]])
    acc.add([dict(boxes=b+1, scores=[.9,.4], labels=[0,1])]*3, [dict(boxes=b, labels=[0,0])]*3)
    with learn.no_bar(): full = RotatedInterpretation.from_learner(learn)
    it = RotatedInterpretation(learn, full.dl, acc, full.losses)
    axs = [f() for f in (it.plot_pr, it.plot_f1, it.plot_errors, it.plot_confusion_matrix, it.plot_calibration)]
    assert dict(plt.rcParams)==before and PLOT_STYLE['savefig.facecolor']=='none'
    for ax in axs: assert ax.figure.get_facecolor()==GROUND and ax.xaxis.label.get_color()==INK
    fig,ax = plt.subplots(); assert it.plot_pr(ax=ax) is ax
    assert it.gallery(kind='class', n=2) is not None and it.gallery(kind='duplicate') is None
    learn.dls.show_batch(max_n=2)
    assert plt.gcf().legends and plt.gcf().get_facecolor()==GROUND
    plt.close('all')

def test_a_shuffled_loader_is_looked_at_in_order(learn, tmp_path):
    "Boxes, files and losses of one image belong together, and nothing is turned at random"
    dls = RotatedDataLoaders.from_dota(learn.path, bs=2, num_workers=0)
    assert dls.train.shuffle
    with learn.no_bar():
        its = [RotatedInterpretation.from_learner(learn, **kw) for kw in (dict(ds_idx=0), dict(dl=dls.train), dict(dl=dls.train))]
    assert len(its[0].acc.images)==4
    for it in its[1:]:
        assert [it.file(i).name for i in range(4)]==[its[0].file(i).name for i in range(4)]
        np.testing.assert_allclose(it.acc.flat().gt_boxes, its[0].acc.flat().gt_boxes)
        np.testing.assert_allclose(it.losses, its[0].losses, rtol=1e-4)

def test_what_makes_no_sense_is_told_before_the_work(learn, tmp_path):
    seen = []
    hook = learn.model.register_forward_hook(lambda *_: seen.append(1))
    for kw,say in [(dict(iou=5),'thresholds'), (dict(bg=.6),'thresholds'), (dict(symmetry={'shop':90}),'unknown classes'),
                   (dict(n_images=-1),'n_images'),
                   (dict(n_boxes=-1),'n_boxes')]:
        with pytest.raises(ValueError, match=say): learn.report(tmp_path/'r.html', **kw)
    with pytest.raises(TypeError, match='symetry'): learn.report(tmp_path/'r.html', symetry=90)
    hook.remove()
    assert not seen and not list(tmp_path.iterdir())

@pytest.mark.parametrize('plot', ['plot_pr','plot_f1'])
@pytest.mark.parametrize('n,name', [(1,'ship'), (40,'Expressway-Service-area'), (3,'a name that goes on and on '*4)])
def test_the_legend_lies_within_the_figure(learn, plot, n, name):
    "Each of forty classes has its line in it, and curves keep their room"
    names = [f'{name}{i}' for i in range(n)]; acc = APAccumulator(vocab=names)
    b = np.column_stack([np.arange(n)*50., np.zeros(n), np.full((n,2), [20,10]), np.zeros(n)])
    acc.add([dict(boxes=b, scores=np.full(n, .9), labels=range(n))], [dict(boxes=b, labels=range(n))])
    with learn.no_bar(): it = RotatedInterpretation.from_learner(learn)
    it.acc,it.vocab = acc,names
    with warnings.catch_warnings():
        warnings.simplefilter('error')                  # of a layout that finds no room
        ax = getattr(it, plot)(figsize=(7,4)); ax.figure.canvas.draw()
    inside,page = ax.get_legend().get_window_extent(),ax.figure.bbox
    assert len(ax.get_legend().get_texts())==n and inside.x0>=0 and inside.y0>=0 and inside.x1<=page.x1+1 and inside.y1<=page.y1+1
    assert ax.get_position().width*page.width>250
    fig,axs = plt.subplots(1, 2, figsize=(7,4)); getattr(it, plot)(ax=axs[0])
    assert fig.get_size_inches().tolist()==[7,4]        # a figure that is not its own keeps its size
    plt.close('all')

@pytest.mark.parametrize('width', [3.,10.8])
def test_class_legend_lies_within_the_figure(width):
    names = [f'Expressway-Service-area{i}' for i in range(9)]
    fig = plt.figure(figsize=(width,4), layout='constrained'); fig.add_subplot()
    box = class_legend(fig, range(9), names); fig.canvas.draw(); box = box.get_window_extent()
    assert box.x0>=0 and box.x1<=fig.bbox.x1 and box.y0>=0
    plt.close(fig)

# --- the command

@pytest.fixture
def command(monkeypatch, capsys):
    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['rotnb-report', *map(str, args)])
        try: runpy.run_module('rotnb.cli.report', run_name='__main__'); code = 0
        except SystemExit as e: code = e.code or 0
        return code, *capsys.readouterr()
    return run

def test_command(learn, command, tmp_path):
    learn.export(tmp_path/'m.pkl')
    code,out,err = command(tmp_path/'m.pkl', learn.path, '--out', tmp_path/'new/r.html', '--title', 'A & B', '--n-images', 1, '--n-boxes',
                           1)
    assert code==0 and 'wrote' in out and 'Traceback' not in err, err
    s = (tmp_path/'new/r.html').read_text()
    assert '<h1>A &amp; B</h1>' in s and '1 epochs' in s
    (tmp_path/'bad.pkl').write_bytes(b'nothing')
    (tmp_path/'cut.pkl').write_bytes((tmp_path/'m.pkl').read_bytes()[:20000])
    other = make_synth(tmp_path/'other', n_train=1, n_valid=1, size=64)     # ships, which this model does not know
    for args,say in [(('no.pkl',learn.path),'no such file'), ((tmp_path/'bad.pkl',learn.path),'learn.export'),
                     ((tmp_path/'m.pkl',tmp_path/'none'),'there is no'),
                     ((tmp_path/'cut.pkl',learn.path),'cut.pkl cannot be opened'),
                     ((tmp_path/'m.pkl',learn.path,'--bs',0),'bs'), ((tmp_path/'m.pkl',learn.path,'--bs',-1),'bs'),
                     ((tmp_path/'m.pkl',learn.path,'--format','x'),'unknown format'),
                     ((tmp_path/'m.pkl',learn.path,'--out',tmp_path),'is a folder'),
                     ((tmp_path/'m.pkl',other,'--out',tmp_path/'o.html'),'class')]:
        code,out,err = command(*args)
        assert code==2 and err.startswith('rotnb-report: ') and say in err and 'Traceback' not in err, (args, err)

# --- in a browser

@pytest.mark.parametrize('scheme', ['light','dark'])
def test_in_a_browser(page, browser, scheme):
    "Opens without asking for anything, without complaint, and fits a phone"
    asked,said = [],[]
    w = browser.new_page(color_scheme=scheme, viewport=dict(width=390, height=800))
    w.on('request', lambda r: asked.append(r.url))
    w.on('console', lambda m: said.append(m.text))
    w.on('dialog', lambda d: said.append(d.message))
    w.goto(page.as_uri()); w.click('nav a >> nth=5')
    assert [o for o in asked if not o.startswith('data:')]==[page.as_uri()] and not said
    assert w.evaluate('document.documentElement.scrollWidth')<=390 and w.evaluate('scrollY')>500
    ground,ink = w.evaluate('[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector("svg text")).fill]')
    light = lambda c: sum(map(int, re.findall(r'\d+', c)[:3]))
    assert (light(ground)>600)==(scheme=='light') and abs(light(ground)-light(ink))>400
    w.close()

def test_protocols_are_named(page):
    "Whose figures the page shows, and what was ignored"
    s = page.read_text()
    assert all(f'<th scope="row">{p}</th>' in s
               for p in PROTOCOLS) and 'neither asked for nor held against a detection' in s and 'metric voc12' in s
