"YOLO: oriented boxes, outlines and upright boxes"
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from rotnb.cli.convert import losses
from rotnb.data.formats.table import FORMATS
from rotnb.data.labels.records import Annot
from rotnb.geometry.boxes import rbox2qbox
from rotnb.geometry.outlines import clip_outline, fit_outlines, joined_rings
from format_checks import CHECKS, LabelSample

NAMES = {'data.yaml':'names: [ship, storage tank]\n'}
ROWS = [([10,10,50,10,50,30,10,30],'ship',0), ([120,20,150,25,145,55,115,50],'storage tank',0), ([-4,60,20,60,20,80,-4,80],'ship',0)]
OBB = '0 .05 .1 .25 .1 .25 .30 .05 .3\n1 .6 .2 .75 .25 .725 .55 .575 .5\n0 -.02 .6 .1 .6 .1 .8 -.02 .8\n'
SEG = '0 .05 .1 .25 .1 .25 .30 .05 .3 .05 .1\n1 .6 .2 .75 .25 .725 .55 .575 .5\n0 -.02 .6 .1 .6 .1 .7 .1 .8 -.02 .8\n'
BOX = '0 .15 .2 .2 .2\n1 .6 .4 .1 .30\n0 .04 .7 .12 .2\n'
UPRIGHT = [([10,10,50,10,50,30,10,30],'ship',0), ([110,25,130,25,130,55,110,55],'storage tank',0), ([-4,60,20,60,20,80,-4,80],'ship',0)]

SAMPLES = [LabelSample('yolo_obb', 'labels/a.txt', OBB, ROWS, OBB.replace('.75', 'x'), ':2', '\n', extra=NAMES, other_name='storage tank'),
           LabelSample('yolo_seg', 'labels/a.txt', SEG, ROWS, SEG.replace('.75', 'x'), ':2', '\n', extra=NAMES, other_name='storage tank',
                       rewritten='yolo_obb'),                               # a quad is an outline of four points
           LabelSample('yolo', 'labels/a.txt', BOX, UPRIGHT, BOX.replace('.30', 'x'), ':2', '\n', extra=NAMES)]

@pytest.mark.parametrize('sample', SAMPLES, ids=lambda sample: sample.format)
@pytest.mark.parametrize('check', CHECKS)
def test_yolo(tmp_path, check, sample): check(tmp_path, sample)

def test_what_an_outline_keeps_is_not_said_to_be_lost():
    "The least box around an outline may leave the image where the outline does not, and the outline is what is written"
    ring = clip_outline(joined_rings(rbox2qbox(np.array([[26.,40,60,20,.5]]))), (0,0), (100,80))
    quad = fit_outlines(ring[None], np.array([[[0.,0],[9,0],[9,5],[0,5]]]))
    annot = Annot(Path('a.png'), quad, ['ship'], np.zeros(1, int), (100,80), outlines=[ring])
    assert quad.min()<-1
    said = lambda one, format: [text for text in losses([one], FORMATS[format]) if 'leave' in text]
    assert not said(annot, 'yolo_seg') and said(annot, 'yolo_obb') and said(replace(annot, outlines=None), 'yolo_seg')
    assert said(replace(annot, quads=quad-5, outlines=[ring-5]), 'yolo_seg')                # an outline that is cut
    assert said(replace(annot, quads=quad+[[-20,0],[-20,0],[0,0],[0,0]]), 'yolo_seg')       # a box that is not around it any more
