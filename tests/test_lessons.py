"""The lessons, run as their readers run them: in a kernel of their own, with the inline backend, in a folder of their own.

A lesson holds nothing that its reader does not want to see. What is asserted of it stands here, by the cell after which it is run."""
import os, re, subprocess, sys, sysconfig
from fnmatch import fnmatch
from pathlib import Path
import nbformat, pytest
from paths import ROOT
from source import NBS, settings

FOLDER = ROOT/'nbs/tutorials'
LESSONS = sorted(o.stem for o in FOLDER.glob('*.ipynb'))

# {lesson: {id of a cell: code run after it}}; `fastcore.test` is there
CHECKS = dict(
    quickstart={
        '77e1c002': '''
truth = dls.valid_ds.items[0]                             # most of what is there is found, and little that is not there
same_class = torch.tensor(np.array(truth.names)[:,None]==np.array(found.names))
hits = (box_iou_rotated(qbox2rbox(tensor(truth.quads)), found.boxes)*same_class)>=.5
assert hits.any(1)[torch.tensor(truth.difficult)==0].float().mean()>=.8
assert hits.any(0).float().mean()>=.7''',
        '77e1c005': "assert learn.metrics[0].compute().map>=.6",
        '18c3756d': 'test_eq(x.shape, (4,3,320,320)); test_eq(quads.shape[:2], labels.shape)',
        'c4dfa6d2': "assert tanks.names and {*tanks.names}=={'storage-tank'}",
        '1c3eb81b': "test_close(same['boxes'], found['boxes'], 1e-3)",
        '77e1c006': "test_eq(learn.model.vocab, list(dls.vocab))"},
    own_data={
        'dad83988': 'test_close(qbox2rbox(corners.flip(0)[None]), box, 1e-3)',
        '2fff218c': "assert 'expected' in error",
        'a185e486': "assert 'shp' in error",
        'a278a75b': "assert 'no label file' in str(said[0].message)",
        '6e015eef': 'test_eq((len(dls.train_ds),len(dls.valid_ds)), (8,4))',
        '7523f6cf': "assert {'duplicate'} <= set(report.findings.kind)",
        'efb15ae7': "assert 'shp' not in {n for a in read_dota('mended', 'train') for n in a.names}",
        '7c5709e8': '''
test_eq(list(dls_yolo.vocab), list(dls.vocab))
test_eq([len(o) for o in dls_yolo.valid_ds.items], [len(o) for o in dls.valid_ds.items])''',
        '2cf35a54': '''
test_eq(len(dls_table.train_ds)+len(dls_table.valid_ds), 8)
n = sum(len(boxes(o)) for o in get_image_files(root/'train'))
test_eq(n, sum(len(o) for o in read_dota(root, 'train')))'''},
    satellite_scene={
        '915cf4b9': '''
assert dets['boxes'].shape[1]==5 and len(dets['boxes'])==len(dets['scores'])
again = predict_scene(learn, scene, size=256, overlap=64, score_thr=.2, resume='runs', progress=False)
test_eq(again['boxes'].tolist(), dets['boxes'].tolist()); assert len(dets)>20''',
        'f223f581': "test_eq((len(json.loads(Path('found.geojson').read_text())['features']),bad), (len(dets['scores']),{}))"},
    many_gpus={
        '7f5a84ce': "assert Path('two.safetensors').is_file()",
        '83853797': 'assert learn.evaluate(show=False).map>.2'},
    millions_of_tiles={
        '6d000007': "assert {name:len(found) for name,found in preds.items()}=={name:len(found) for name,found in want.items()}",
        '6d00000a': "assert _ and Path('shared/results.csv').stat().st_size>1000",
        '6d00000c': "assert len(ax.patches)==len(windows) and len({patch.get_edgecolor() for patch in ax.patches})>1",
        '6d00000e': "assert Path('cut_off/results.csv').read_bytes()==Path('shared/results.csv').read_bytes()"},
    serve_it={
        'fed323b9': "test_close(found.boxes, tensor([row['box'] for row in answer['detections']]), 1e-3); assert len(found)>9",
        'ca0b7799': "assert set(codes)=={200,503} and codes.count(200)>=4",
        '1e44a456': "test_eq(len(found), json.loads(last)['answer']['count'])",
        '5d91a76a': 'test_eq(server.service.taken, server.service.answered)'},
    find_and_mend={
        '98942fba': '''
assert .15 < len(planted)/n_boxes < .5
for f in (clean/'val/labelTxt').iterdir(): test_eq((bad/'val/labelTxt'/f.name).read_bytes(), f.read_bytes())''',
        '807e9493': '''
test_eq([o[1] for o in queue], sorted((o[1] for o in queue), reverse=True))
test_eq(len(set(first)), len(first)); assert 0<len(first)<=at['k'] and 0<=n_first<=of_first
assert n_first/of_first > 1.25*len(planted)/n_boxes                # better than chance''',
        'f35731f1': '''
test_eq(set(backups), {o.name for o in saved})
test_eq({Path(o).stem for o in first if o in set(planted.image)}, {o.stem for o in saved})
assert all(backups[o.name].read_bytes()!=o.read_bytes() for o in saved)
now = {o.image.name:o for o in read_dota(bad, 'train')}
def apart(q, n, a): return min((abs(q-p).max() for p,m in zip(a.quads, a.names) if m==n), default=math.inf)
for o in first:                                           # the mended images hold the true boxes, to the rounding of the file
    test_eq(len(now[o]), len(truth[o]))
    assert all(apart(q, n, now[o])<.5 for q,n in zip(truth[o].quads, truth[o].names))
for o in careless-set(first):                             # the others are as bad as they were
    f = f'train/labelTxt/{Path(o).stem}.txt'
    if o in set(planted.image): assert (bad/f).read_bytes()!=(clean/f).read_bytes()''',
        '38520d80': '''
assert low<=high and math.isfinite(gain.map)
test_close(gain.map, after.acc.compute().map-before.acc.compute().map, 1e-9)'''},
    follow_objects={
        'f0110007': "assert {o.name for o in Path('results').iterdir()}>={'tracks.csv','tracks.mp4'} and len(tracks)>=4",
        'f0110014': "assert scores['HOTA']>.3 and scores['AssA']>.5",
        'f0110016': 'assert len(whole.rows)>=len(tracks.rows)'},
    what_an_angle_means={
        '0a360010': "assert any('no heading' in o for o in doctor('spoilt', images=False, symmetry=known).findings.message)",
        '0a360013': "assert found.heading.isfinite().any() and 'heading_deg' in found.df",
        '0a360015': "assert any('heading' in o['properties'] for o in json.loads(Path('found.geojson').read_text())['features'])",
        '0a360017': "test_close([o.boxes[0,4].item() for o in tracks], way, 1e-6)"},
    on_a_page={
        '0a9a9e02': '''
text = page.read_text(encoding='utf-8')
assert 1e5<len(text)<6e6 and text.count('sha256-')==2 and '"name": "scene.png"' in text''',
        '0a9a9e03': 'assert len(whole)>=10 and len(windows)>=10'},
    one_file={
        '0f1e0008': "test_close(again.boxes, found.boxes, 1e-2); test_eq(list(again.names), list(found.names)); assert len(found)>3",
        '0f1e000a': "n = (scores[0,:int(count[0])]>=.3).sum(); test_eq(n, len(found)); test_close(boxes[0,:n], found.boxes.numpy(), 1e-2)",
        '0f1e000c': "assert small.name=='scenes_int8.xml' and small.with_suffix('.bin').exists()"},
    real_time={
        '36c20008': "test_eq(len(candidates), 5)",
        '36c20010': '''
assert {*found.df.index}=={*candidates} and len(found.front('GFLOPs'))>1 and (found.df.ms>0).all()
assert found.df.mAP50['tal 320']>.4 and found.df.GFLOPs['tal 224']<.6*found.df.GFLOPs['tal 320']''',
        '36c20015': "test_close(again.df.mAP50_95['the file'], again.df.mAP50_95[name], .02)",
        '36c20019': '''
assert Path('speed.png').stat().st_size>5000 and {*json.loads(Path('speed.json').read_text())['models']}=={*candidates}'''},
    scores_to_trust={
        'f918c735': 'raw = calibration(unseen).ece; assert raw>.04',
        '4e678eb4': 'test_eq(len(calibrator.ece), 2); assert calibrator.ece[1]<.5*calibrator.ece[0]',
        '2fca6b80': '''
test_eq(again.calibrator, calibrator)
assert calibration(unseen).ece<.5*raw''',
        'f95b4f4e': "table = _; assert abs(table.covered['all']-.9)<.06 and table.objects['all']>150",
        'ae81c13c': 'test_eq(max(_.size), 640); assert len(found)>3 and not np.array_equal(np.array(_), found.plot(640))',
        '5edb8fd2': 'assert abs(hits/objects-.8)<.12 and objects>400'},
    fifty_pictures={'bffc7eec': 'test_eq((len(learn.recorder.values),learn.recipe), (4,few))'},
    few_labels={'20d00007': "row = learn.history.rows[-1]; assert row['loss_unlabelled']>0 and row['pseudo_boxes']>0"},
    masks_in={
        '20e10007': "test_eq({type(entry['segmentation']) for entry in entries}, {list,dict}); test_eq(_['losses'], [])",
        '20e10010': '''
test_eq([o.names for o in oriented], [o.names for o in upright])
for o in read_format('yolo_seg', 'train'): # the same outlines, so the same boxes
    same = next(one for one in oriented if one.image.name==o.image.name)
    test_close(qbox2rbox(o.quads)[:,2:4].prod(1), qbox2rbox(same.quads)[:,2:4].prod(1), 2)''',
        '20e10012': "assert len(table)>60 and table.IoU.min()<.4 and table.IoU.max()<=1+1e-6",
        '20e10014': "assert _.loc['oriented','turned']>.999 and _.loc['upright','turned']<.8 and _.loc['oriented','cut']<.85",
        '20e10026': '''
test_eq(annots[0].names, names)
for quad,mask in zip(annots[0].quads, masks):
    test_close(qbox2rbox(quad[None])[:,2:4].prod(1), from_masks([mask])[0][:,2:4].prod(1), .1)''',
        '20e10028': "test_eq(read_yolo_obb('mine')[0].names, names)"},
    like_the_papers={
        'b481e163': "test_close(learn.recorder.hps['lr'], np.array([1/3,2/3,1,1,1,1,.1,.1,.1])*mine.rate(4)); test_eq(learn.recipe, mine)",
        '771e6934': "assert \"did you mean 'bs'\" in error",
        'bd3a5775': "test_eq(again, mine)"},
    new_detector={
        '166bcbe9': '''
losses = [float(o) for o in learn.recorder.losses]
assert sum(losses[-6:]) < sum(losses[:6])
test_eq(len(learn.recorder.values), 4)'''},
    new_format={
        'f0e1000d': '''
test_eq(Path('mended/train/labels/0.fleet').read_text(),
        mine.read_text().replace('tug at', 'harbour tug at').replace('tanker at 120,80 length 60 beam 14 course 75\\nsome', 'some'))'''})

# --- how they look

IN_COLAB = f'''import os
if 'COLAB_RELEASE_TAG' in os.environ:                        # in Colab; elsewhere nothing happens
    %pip install -q git+{settings()['git_url']}'''

def sources(name): return [c.source for c in NBS[f'tutorials/{name}.ipynb'].cells if c.cell_type=='code']

@pytest.mark.parametrize('name', LESSONS)
def test_a_lesson_starts_as_all_do(name):
    install,start,*_ = sources(name)
    assert install==IN_COLAB, 'a release changes how rotnb is installed: in `IN_COLAB`, and so in all lessons'
    assert start.startswith('from rotnb.all import *\n') and re.search(rf"^work_in\('{name}'\) ", start, re.M)

@pytest.mark.parametrize('name', LESSONS)
def test_no_scaffolding_in_sight(name):
    "Checks stand in this file, files in the folder of `work_in`; nothing is made ready or cleared away behind the reader's back"
    lines = '\n'.join(sources(name)).splitlines()
    bad = [o for o in lines if re.search(r'#\|\s*hide|tempfile|chdir|ROTNB_HOME|\.cleanup\(', o)]
    assert not bad, bad

def test_checks_are_run_after_cells_that_exist():
    ids = {name:{c.id for c in NBS[f'tutorials/{name}.ipynb'].cells} for name in CHECKS}
    lost = [(name,i) for name,checks in CHECKS.items() for i in checks if i not in ids[name]]
    assert not lost, f'no such cell: {lost}'

# --- how they run

FIGURE = r'\.(show_batch|show_results|plot_\w+|figure|to_array|show)\(|plt\.(imshow|subplots)|\bax = .*\.plot\('
FIGURE += r'|\b(draw|draw_bounds|loss_landscape)\('
WIDGET = r'^(view|LabelFixer|ResultsExplorer|DatasetExplorer)\('

def notebook(name, checks):
    "A lesson without its slow cells, and with checks as cells of their own"
    nb = nbformat.read(FOLDER/f'{name}.ipynb', as_version=4)
    def after(cell): return [nbformat.v4.new_code_cell('from fastcore.test import *\n'+checks[cell.id])] if cell.id in checks else []
    nb.cells = [c for cell in nb.cells for c in (cell,*after(cell)) if not re.search(r'^#\|\s*(slow|cuda)', cell.source, re.M)]
    return nb

def run(name, folder):
    "Run a lesson to its end, in a kernel whose folder is new, and give it back with its outputs"
    from nbclient import NotebookClient
    nb = notebook(name, CHECKS.get(name, {}))
    env = {k:v for k,v in os.environ.items() if k not in ('MPLBACKEND','IN_TEST')}     # the inline backend, as users have it
    env |= dict(ROTNB_HOME=str(folder/'home'), PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    NotebookClient(nb, timeout=600, resources={'metadata':{'path':str(folder)}}).execute(env=env)
    return nb

def data(cell): return [o.data for o in cell.get('outputs', []) if 'data' in o]

@pytest.mark.parametrize('name', LESSONS)
def test_a_lesson_runs(name, tmp_path):
    "Every figure is an image, none claims a dark ground, nothing is red, widgets are there, and what it made stays"
    nb = run(name, tmp_path)
    cells = [c for c in nb.cells if c.cell_type=='code']
    outputs = [o for c in cells for o in c.outputs]
    red = [o.text for o in outputs if o.get('name')=='stderr']
    assert not red, red
    plates = [c.source for c in cells for o in c.outputs if any('needs_background' in m for m in o.get('metadata', {}).values())]
    assert not plates, f'IPython puts a plate under these figures: {plates}'
    blank = [c.source for c in cells if re.search(FIGURE, c.source) and not any(fnmatch(k, 'image/*') for d in data(c) for k in d)]
    assert not blank, f'no image is shown: {blank}'
    dead = [c.source for c in cells if re.search(WIDGET, c.source.splitlines()[-1])
            and not any('application/vnd.jupyter.widget-view+json' in d for d in data(c))]
    assert not dead, f'no widget is shown: {dead}'
    assert (tmp_path/name).is_dir()

# --- in JupyterLab

SHOTS = os.environ.get('ROTNB_SHOTS') and Path(os.environ['ROTNB_SHOTS'])  # a folder: keep images of every output, light and dark

SEEN = """() => [...document.querySelectorAll('.jp-CodeCell')].map(cell => {
    const has = selector => cell.querySelectorAll(`.jp-Cell-outputArea ${selector}`).length
    return { images: has('img, canvas, svg'),
        red: has('[data-mime-type="application/vnd.jupyter.stderr"], [data-mime-type="application/vnd.jupyter.error"]'),
        plates: has('.jp-needs-light-background, .jp-needs-dark-background'), widgets: has('.rn-viewer, .rn-explorer') } })"""

def keep_shots(page, name):
    "Each output as it looks in the two themes"
    for theme in ('Light','Dark'):
        page.evaluate('theme => jupyterapp.commands.execute("apputils:change-theme", {theme})', f'JupyterLab {theme}')
        page.wait_for_timeout(500)
        outputs = page.locator('.jp-CodeCell .jp-Cell-outputArea:has(img, canvas, svg, table, .rn-explorer)')
        for i in range(outputs.count()):
            outputs.nth(i).scroll_into_view_if_needed()
            page.wait_for_timeout(200)
            outputs.nth(i).screenshot(path=SHOTS/f'{name}-{theme.lower()}-{i:02}.png')

@pytest.mark.slow
@pytest.mark.parametrize('name', LESSONS)
def test_a_lesson_in_jupyterlab(lab, page, name):
    "No dialog asks anything, nothing is red, every cell that draws shows an image without a plate, and widgets are live"
    nb = notebook(name, {})
    nbformat.write(nb, lab.root/f'{name}.ipynb')
    page.set_viewport_size(dict(width=1200, height=20000))             # JupyterLab draws the cells that are in view
    lab.visit(page, f'{name}.ipynb')
    assert not page.locator('.jp-Dialog').count()
    lab.run(page, '.jp-Notebook .jp-CodeCell', timeout=900)
    page.wait_for_timeout(1000)
    assert not page.locator('.jp-Dialog').count()
    codes = [c.source for c in nb.cells if c.cell_type=='code']
    for code,seen in zip(codes, page.evaluate(SEEN), strict=True):
        assert not seen['red'] and not seen['plates'], (code, seen)
        assert seen['images'] or not re.search(FIGURE, code), f'no image is shown: {code}'
        assert seen['widgets'] or not re.search(WIDGET, code.splitlines()[-1]), f'no widget is shown: {code}'
    assert any(re.search(FIGURE, code) for code in codes)
    if SHOTS: keep_shots(page, name)

# --- in Colab

@pytest.mark.slow
@pytest.mark.parametrize('where', ['Colab','a clone'])
def test_the_first_cell_installs_in_colab_alone(where, tmp_path):
    "From the repository, here a copy on the disk that git takes in its place; the dependencies are there"
    subprocess.run(['git','clone','-q','--bare',str(ROOT),str(tmp_path/'copy.git')], check=True)
    subprocess.run([sys.executable,'-m','venv',str(tmp_path/'env')], check=True)
    site, = (tmp_path/'env').glob('lib/python*/site-packages')
    (site/'dependencies.pth').write_text(sysconfig.get_path('purelib'))
    (tmp_path/'cell.ipy').write_text(f'{IN_COLAB}\nfrom importlib.util import find_spec\nprint("found", find_spec("rotnb"))\n')
    env = {k:v for k,v in os.environ.items() if k not in ('PYTHONPATH','VIRTUAL_ENV')}
    env |= dict(GIT_CONFIG_COUNT='1', GIT_CONFIG_KEY_0=f'url.file://{tmp_path}/copy.git.insteadOf',
                GIT_CONFIG_VALUE_0=settings()['git_url'], IPYTHONDIR=str(tmp_path/'ipython'),
                PIP_NO_INDEX='1', PIP_NO_BUILD_ISOLATION='0', PIP_NO_DEPS='1')
    if where=='Colab': env['COLAB_RELEASE_TAG'] = 'release'
    cmd = [tmp_path/'env/bin/python','-m','IPython',tmp_path/'cell.ipy']
    done = subprocess.run(cmd, env=env, cwd=tmp_path, capture_output=True, text=True)
    said = done.stdout.split('found ')[-1]
    assert (str(site/'rotnb') in said)==(where=='Colab'), done.stdout+done.stderr
