"A detector of four corners, trained on kites and asked through every door"
import numpy as np, pytest, torch
from PIL import Image
from fastai.vision.all import DataBlock, FuncSplitter, ImageBlock
from rotnb.data.blocks import RBoxBlock, RBoxLblBlock
from rotnb.data.types import to_targets
from rotnb.geometry.boxes import qbox2rbox
from rotnb.learn.learner import rotated_learner
from rotnb.learn.metrics import RotatedMAP
from rotnb.plot.draw import draw
import rotnb.learn.predictor

SIDE = 96
def scene(i):
    "A grey image, and kites in it whose corners are no rectangles"
    rs = np.random.RandomState(i)
    kite = np.array([[0.,-1],[.5,0],[0,.5],[-.5,0]])*26
    ctrs = np.array([[28.,32],[66,60]])+rs.uniform(-4, 4, (2,2))
    quads = kite[None]+ctrs[:,None]
    pixels = draw(np.full((SIDE,SIDE,3), 90, np.uint8), quads, labels=[0,0], text=False, lw=8)
    return Image.fromarray(pixels),quads.reshape(-1,8)

@pytest.fixture(scope='module')
def learn():
    torch.manual_seed(0)
    block = DataBlock((ImageBlock, RBoxBlock, RBoxLblBlock(['kite'])), n_inp=1, get_x=lambda i: scene(i)[0],
                      get_y=[lambda i: scene(i)[1], lambda i: ['kite','kite']], splitter=FuncSplitter(lambda i: i>=4))
    dls = block.dataloaders(list(range(6)), bs=2, num_workers=0)
    return rotated_learner(dls, 'gliding_vertex', backbone='test_resnet', pretrained=False, box_type='quad', strides=(4,8,16),
                           fpn_channels=16, feat_channels=16, fc_channels=32, score_thr=0., metrics=RotatedMAP(iou=.3))

def test_targets_keep_corners(learn):
    x,quads,labels = learn.dls.one_batch()
    target = to_targets(quads, labels, x.shape[-2:])[0]
    assert target['quads'].shape==(2,8) and (qbox2rbox(target['quads'])-target['boxes']).abs().max()<1e-4
    quads = target['quads'].view(-1,4,2)
    assert np.allclose(quads.amax(1)-quads.amin(1), [[26,39]]*2, atol=1e-3)

def test_every_door_gives_corners(learn, tmp_path):
    with learn.no_bar(): learn.fit(1, 1e-4)
    image = scene(4)[0]
    found = learn.predict_image(image, score_thr=0.)
    assert len(found) and found['quads'].shape==(len(found),8)
    assert torch.allclose(qbox2rbox(found['quads'])[:,2:4].prod(1), found.boxes[:,2:4].prod(1), rtol=1e-2)
    other = learn.predictor(score_thr=0.)(image)
    assert torch.allclose(other['quads'], found['quads'], atol=1e-3)
    big = Image.fromarray(np.concatenate([np.asarray(image)]*2, 1))
    whole = learn.predict_scene(big, size=SIDE, overlap=32, score_thr=0., progress=False)
    assert whole['quads'].shape==(len(whole),8) and whole.quads[...,0].max()>SIDE
    assert learn.predictor(score_thr=0.).predict_scene(big, size=SIDE, overlap=32, progress=False)['quads'].shape[1]==8
    with learn.no_bar(): results = learn.validate()
    assert all(np.isfinite(results))
    learn.show_results(max_n=1)
    image.save(tmp_path/'a.png')
    preds,_ = learn.predict_folder(tmp_path, tmp_path/'out', format=['csv','geojson'], progress=False, score_thr=0.)
    again,_ = learn.predict_folder(tmp_path, tmp_path/'out', format=['csv'], progress=False, score_thr=0.)     # out of the journal
    assert torch.equal(preds['a.png']['quads'], again['a.png']['quads'])
