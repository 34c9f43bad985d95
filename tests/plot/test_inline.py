"Figures as a reader of a notebook sees them: with Jupyter's own backend, loaded when the first figure asks for it"
import os
import numpy as np, nbformat, pytest
from rotnb.plot import draw as D
from paths import ROOT

SETUP = '''import torch
from rotnb.all import *
dls = RotatedDataLoaders.from_synth('set', n_train=4, n_valid=2, size=96, bs=2, num_workers=0)
learn = rotated_learner(dls, 'rotated_fcos_tiny', pretrained=False, score_thr=0.)'''
FIGURES = ['dls.show_batch(max_n=2)', 'plt.subplots();', 'learn.show_results(max_n=1)', 'dls.valid.show_batch(max_n=1)',
           'with learn.no_bar(): interp = RotatedInterpretation.from_learner(learn)\ninterp.plot_pr();', 'interp.plot_confusion_matrix();',
           'interp.plot_errors();', 'interp.plot_top_losses(1);', 'plt.figure(); plt.plot([1,2]);']

def run(tmp_path, *cells):
    "The outputs of code cells, run in a kernel with its own backend"
    nbclient = pytest.importorskip('nbclient')
    env = {k:v for k,v in os.environ.items() if k!='MPLBACKEND'}
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
    nbclient.NotebookClient(nb, timeout=180, kernel_name='python3', resources=dict(metadata=dict(path=str(tmp_path)))).execute(
        env={**env, 'PYTHONPATH':str(ROOT), 'OMP_NUM_THREADS':'1'})
    return [c.outputs for c in nb.cells]

def test_every_figure_appears_and_on_no_plate(tmp_path):
    outs = run(tmp_path, SETUP, *FIGURES, 'print(plt.isinteractive(), plt.get_backend())')
    for code,o in zip(FIGURES, outs[1:]):
        shown = [d for d in o if 'image/png' in d.get('data', {})]
        assert len(shown)==1, f'{len(shown)} figures of {code}'
        assert 'needs_background' not in str(shown[0].metadata) or code.startswith('plt'), code
    assert outs[-1][0].text.startswith('True') and 'inline' in outs[-1][0].text.lower()

# `draw`: the same plates with any OpenCV

def plates(monkeypatch, *args, **kw):
    "The image, and where its plates lie"
    got,place = [],D._place_plate
    monkeypatch.setattr(D, '_place_plate', lambda *a: got.append(place(*a)) or got[-1])
    return D.draw(*args, **kw),got

def test_captions_of_overlapping_boxes_are_apart(monkeypatch):
    boxes = np.array([[150,150,110,50,.4+.05*i] for i in range(4)])
    _,at = plates(monkeypatch, np.zeros((300,300,3), np.uint8), boxes, ['building']*4, [.1]*4)
    assert len(at)==4
    for i,(x,y,w,h) in enumerate(at):
        assert 0<=x and 0<=y and x+w<=300 and y+h<=300
        for X,Y,W,H in at[:i]: assert x>=X+W or X>=x+w or y>=Y+H or Y>=y+h

@pytest.mark.parametrize('size,lw', [(384,None), (384,3), (2000,None)])
def test_a_caption_lies_within_its_plate(monkeypatch, size, lw):
    "A plate is as wide as its text: nothing of the writing is beside it, and it is no mere plate"
    ground = np.full((size,size,3), 90, np.uint8)
    pic,[(x,y,w,h)] = plates(monkeypatch, ground, [[size/2,size/2,60,60,0]], [0], [.13], ['building'], lw=lw)
    plain = D.draw(ground, [[size/2,size/2,60,60,0]], [0], lw=lw, text=False)
    other = (pic!=plain).any(-1); other[y:y+h,x:x+w] = False
    assert not other.any()
    ink = (pic[y:y+h,x:x+w].sum(-1)<150)
    assert .05<ink.mean()<.5 and ink.any(0).nonzero()[0].max()>.8*w and not ink[:,[0,-1]].any()

def test_a_image_smaller_than_its_caption():
    assert D.draw(np.zeros((8,8,3), np.uint8), [[4,4,4,4,0]], ['a very long name']).shape==(8,8,3)

def crowd(n=30, side=512, seed=1):
    r = np.random.default_rng(seed)
    return np.c_[r.random((n,2))*side*.43+side*.27, r.random(n)*40+25, r.random(n)*15+10, r.random(n)*3-1.5], r.random(n)

def shared(a, b):
    "Area that two plates (x, y, w, h) have in common"
    w,h = (min(a[i]+a[i+2], b[i]+b[i+2])-max(a[i], b[i]) for i in (0,1))
    return max(w, 0)*max(h, 0)

def most_shared(plates): return max(shared(a, b)/min(a[2]*a[3], b[2]*b[3]) for i,a in enumerate(plates) for b in plates[:i])

def test_thirty_captions_in_one_place_are_read(monkeypatch):
    boxes,scores = crowd()
    _,got = plates(monkeypatch, np.zeros((512,512,3), np.uint8), boxes, ['storage-tank']*30, scores)
    assert len(got)==30 and most_shared(got)<.1

@pytest.mark.parametrize('side', [96,192,512])
def test_texts_on_an_axis_cover_none(side):
    "Measured by the renderer itself"
    import matplotlib.pyplot as plt
    boxes,scores = crowd(16, side)
    fig,ax = plt.subplots(figsize=(6,6))
    ax.imshow(np.zeros((side,side,3)))
    D.show_boxes(ax, boxes, ['plane']*16, scores)
    fig.canvas.draw()
    extents = [text.get_window_extent() for text in ax.texts]
    plt.close(fig)
    assert len(extents)==16 and most_shared([(o.x0,o.y0,o.width,o.height) for o in extents])<.1

def test_many_boxes_get_a_legend(monkeypatch):
    boxes,scores = crowd(100)
    im,got = plates(monkeypatch, np.zeros((512,512,3), np.uint8), boxes, [i%3 for i in range(100)], scores, ['ship','car','plane'])
    assert not got and im[4,-8].any()
    assert (D.draw(im, boxes, max_text=0)==D.draw(im, boxes, text=False)).all(), 'without labels there is nothing to count'
    _,got = plates(monkeypatch, np.zeros((512,512,3), np.uint8), boxes, ['ship']*100, scores, max_text=100)
    assert len(got)==100

def test_a_file_and_what_was_found_are_drawn(tmp_path):
    from PIL import Image
    from rotnb.predict.detections import Detections
    boxes,scores = crowd(5, 100)
    px = np.random.default_rng(0).integers(0, 255, (80,100,3)).astype(np.uint8)
    file = tmp_path/'a.png'; Image.fromarray(px).save(file)
    want = D.draw(px, boxes, [0,1,0,1,1], scores, ['ship','car'])
    found = Detections(boxes, scores, [0,1,0,1,1], ['ship','car'])
    for image in (file, str(file), px, Image.open(file)):
        assert (D.draw(image, found)==want).all() and (D.draw(image, **found, vocab=found.vocab)==want).all()
    assert (D.draw(px, dict(found), vocab=found.vocab)==want).all() and (D.draw(px, found.filter(classes=[]))==px).all()
    turned = Image.Exif(); turned[0x112] = 6
    Image.fromarray(px).save(tmp_path/'b.jpg', exif=turned)
    assert D.draw(tmp_path/'b.jpg', found).shape==(100,80,3)                      # as it is displayed
    with pytest.raises(FileNotFoundError): D.draw(tmp_path/'none.png', found)
