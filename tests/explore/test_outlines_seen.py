"Outlines of labels in the viewers: what goes to the browser, what an edit does to them, and batches"
import base64, json
import matplotlib.pyplot as plt, numpy as np, pytest
from PIL import Image
from rotnb.data.labels.records import Annot
from rotnb.explore.dataset_explorer import DatasetExplorer
from rotnb.explore.label_fixer import LabelFixer
from rotnb.explore.viewer import BoxViewer
from rotnb.explore.views import plot_cell
from rotnb.geometry.boxes import rbox2qbox
from scripts import node

RING = np.array([[20.,20],[60,20],[60,40],[40,40],[40,60],[20,60],[20,20]])
TWO = np.concatenate([RING,[[np.nan]*2],RING+60])

@pytest.fixture
def annot(tmp_path):
    Image.new('RGB', (160,140)).save(tmp_path/'a.png')
    quads = rbox2qbox(np.array([[40,40,40,40,0],[100,30,20,10,.3],[70,70,100,100,0]], float))
    return Annot(tmp_path/'a.png', quads, ['ship','car','ship'], np.zeros(3, int), outlines=[RING,None,TWO])

def test_the_browser_gets_each_outline(annot):
    layer = BoxViewer(annot.image, annot).layers[0]
    data = {key:base64.b64encode(layer[key]).decode() for key in ('quads','labels','rings','ends')}
    code = '''(() => {
      const wire = Object.fromEntries(Object.entries(data).map(([key, text]) => [key, new Uint8Array(Buffer.from(text, 'base64')).buffer]))
      const boxes = new BoxLayer(wire)
      return [0, 1, 2].map(i => Array.from(boxes.outline(i)))
    })()'''
    found = [np.array([np.nan if value is None else value for value in one]).reshape(-1,2) for one in node(['boxes'], code, data)]
    for one,want in zip(found, (RING,np.zeros((0,2)),TWO)): np.testing.assert_array_equal(one, want)
    assert BoxViewer(annot.image, dict(boxes=annot.quads)).layers[0]['rings'] is None

def test_an_explorer_hands_them_on(annot):
    (layer,_), = DatasetExplorer([annot]).layers(0)
    assert layer.outlines[0] is RING and layer.outlines[1] is None and len(layer)==3
    assert DatasetExplorer([annot]).large(0).layers[0]['rings']

def test_thumbnails_draw_them(annot):
    explorer = DatasetExplorer([annot])
    boxes = explorer.cell(0)['boxes']
    found = dict(zip(boxes['row'], boxes['rings']))
    assert [len(found[row]) for row in sorted(found)]==[1,0,2]
    np.testing.assert_allclose(np.sort(np.reshape(found[0][0], (-1,2)), 0), np.sort(RING[:-1], 0), atol=.1)
    _,ax = plt.subplots()
    plot_cell(ax, explorer.thumbs, explorer.cell(0), explorer.colors)
    drawn = [len(path.vertices)-1 for group in ax.collections for path in group.get_paths()]
    assert sorted(drawn)==[4,4,4,6,6,6]                                                    # three boxes, and an L thrice
    plt.close('all')
    assert node(['common','explorer'], 'closed([0, 1, 2, 3.5, 4, 5])', {})=='M0 1 L2 3.5 L4 5Z'

def rings(fixer): return np.diff(np.r_[0,np.frombuffer(fixer.layers[0]['ends'], '<i4')]).tolist() if fixer.layers[0]['ends'] else None

def test_an_edit_takes_the_outline_of_its_box_alone(annot):
    fixer = LabelFixer([annot])
    assert rings(fixer)==[7,0,15]
    fixer.edit('move', id=fixer.edits.boxes[0].id, dx=3, dy=0)
    assert rings(fixer)==[0,0,15]
    fixer.edit('undo')
    assert rings(fixer)==[7,0,15]
    fixer.edit('rename', id=fixer.edits.boxes[0].id, name='car')
    fixer.edit('delete', id=fixer.edits.boxes[1].id)
    fixer.save()
    assert annot.names==['car','ship'] and annot.outlines[0] is RING and annot.outlines[1] is TWO and rings(fixer)==[7,15]

def test_labels_of_a_file_show_theirs(annot, tmp_path):
    shapes = [dict(label='ship', points=RING[:-1].tolist(), shape_type='polygon'),
              dict(label='car', points=[[90,20],[110,20],[110,30],[90,30]], shape_type='polygon')]
    (tmp_path/'a.json').write_text(json.dumps(dict(shapes=shapes, imagePath='a.png', imageWidth=160, imageHeight=140, version='5.0.1')))
    fixer = LabelFixer(tmp_path, journal=tmp_path/'journal')
    assert rings(fixer)==[7,0]
    fixer.edit('move', id=fixer.edits.boxes[0].id, dx=3, dy=0)
    fixer.save()
    assert rings(fixer) is None

def test_a_batch_shows_the_outlines_that_it_keeps(annot):
    from fastai.vision.all import DataBlock, noop
    from rotnb.data.blocks import NamedImageBlock, OutlineBlock, RBoxBlock, RBoxLblBlock
    block = DataBlock(blocks=(NamedImageBlock,RBoxBlock,RBoxLblBlock,OutlineBlock(keep=True)), n_inp=1, get_items=noop,
                      get_x=lambda one: one.image, get_y=[lambda one: one.quads, lambda one: one.labels, lambda one: one.outlines],
                      splitter=lambda items: ([0,1],[2]))
    dls = block.dataloaders([annot]*3, bs=2, num_workers=0)
    _,ax = plt.subplots()
    dls.train.show_batch(ctxs=[ax], max_n=1)
    drawn = [line.get_xydata() for line in ax.lines]
    assert len(drawn)==3
    np.testing.assert_allclose(drawn[0][:7], RING-.5, atol=1e-3)
    plt.close('all')
