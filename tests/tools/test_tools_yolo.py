"""What Ultralytics and supervision make of our YOLO-OBB sets, and we of theirs. Outside CI: in an environment that has them,
`pip install --no-deps ultralytics supervision pydeprecate`, then `pytest -m tools tests/tools/test_tools_yolo.py`.
Held with ultralytics 8.4.190, supervision 0.31.2"""
import os
from pathlib import Path
import numpy as np, pytest, yaml
from PIL import Image
from rotnb.cli.convert import convert
from rotnb.data.formats.table import read_format
from rotnb.data.synth.scenes import make_synth
from rotnb.data.formats.yolo_preds import read_yolo_preds
from rotnb.geometry.boxes import rbox2qbox

pytestmark = pytest.mark.tools

@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    "The demo's images, exported with boxes brought in and with boxes as they are; nobody stands in the folder"
    root = tmp_path_factory.mktemp('demo')
    make_synth(root/'a', n_train=240, n_valid=60, size=320, seed=0)
    for b in ('clip','keep'): convert(root/'a', root/b, 'yolo_obb', border=b, images='link')
    at = os.getcwd(); os.chdir('/')
    yield root
    os.chdir(at)

def accepted(root):
    "Images and boxes that Ultralytics trains and validates on"
    pytest.importorskip('ultralytics')
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset
    d = check_det_dataset(str(root/'data.yaml'), autodownload=False)
    sets = {s:YOLODataset(img_path=d[s], data=d, task='obb', augment=False) for s in ('train','val')}
    return {s:(len(o),sum(len(l['cls']) for l in o.labels)) for s,o in sets.items() if o}

def test_ultralytics_takes_all_images_of_the_demo(demo):
    n = {s:(240 if s=='train' else 60, sum(map(len, read_format(demo/'clip', s)))) for s in ('train','val')}
    assert accepted(demo/'clip')==n
    assert accepted(demo/'keep')['train'][0]==38                                # a fifth: what border='clip' is for

def test_a_set_without_splits_and_one_with_a_test_split(demo, tmp_path):
    convert(demo/'a/train', tmp_path/'one', 'yolo_obb', images='link')
    assert {k:v[0] for k,v in accepted(tmp_path/'one').items()}==dict(train=240, val=240)

def test_supervision_reads_the_corners(demo):
    sv = pytest.importorskip('supervision')
    ds = sv.DetectionDataset.from_yolo(str(demo/'clip/images/val'), str(demo/'clip/labels/val'), str(demo/'clip/data.yaml'), is_obb=True)
    ours = {str(a.image.name):a for a in read_format(demo/'clip', 'val')}
    seen = 0
    for name,_,det in ds:
        a = ours[Path(name).name]; assert len(det)==len(a)
        if len(a): assert np.abs(det.data['xyxyxyxy']-a.quads).max()<.01; seen += len(a)
    assert seen>1000

def test_what_ultralytics_predicts_is_read_with_its_scores(tmp_path):
    pytest.importorskip('ultralytics'); import torch
    from ultralytics.engine.results import Results
    (tmp_path/'images').mkdir(); Image.new('RGB', (400,200)).save(tmp_path/'images/a.png')
    boxes = torch.tensor([[100.,80,60,20,.3,.9,1],[250,90,80,30,-.6,.4,0]])     # cx, cy, w, h, radians, confidence, class
    Results(np.zeros((200,400,3),np.uint8), 'a.png', {0:'plane',1:'ship'}, obb=boxes).save_txt(tmp_path/'labels/a.txt', save_conf=True)
    (tmp_path/'data.yaml').write_text(yaml.safe_dump(dict(names=['plane','ship'])))
    with pytest.raises(ValueError, match='predictions of a YOLO-OBB model'): read_format(tmp_path)
    p, = read_yolo_preds(tmp_path/'labels', read_format(tmp_path, score_thr=0.), tmp_path/'data.yaml')
    assert p['labels'].tolist()==[1,0]; np.testing.assert_allclose(p['scores'], [.9,.4], atol=1e-5)
    for u,v in zip(rbox2qbox(p['boxes']), rbox2qbox(boxes[:,:5].numpy().astype(float))):
        assert min(np.abs(np.roll(u, k, 0)-v).max() for k in range(4))<.01
    assert read_format(tmp_path, score_thr=.5)[0].names==['ship']
