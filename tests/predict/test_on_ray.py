"Prediction on a Ray of this machine with two workers: the answers are those of one process"
import os, warnings
import numpy as np, pytest, torch
from PIL import Image
from lamps import Lamps, lamp_scene, lamp_scenes
from rotnb.check.needs import need
from rotnb.predict.journal import JournalError
from rotnb.predict.on_ray import RayPredictor, Worker, WorkerError, blocks
from rotnb.predict.scene import predict_folder, predict_scene

pytest.importorskip('pyarrow')
pytest.importorskip('ray.data')
KW = dict(size=128, overlap=40, cut='drop', progress=False)

def same(a, b):
    return len(a)==len(b) and all(torch.equal(a[key], b[key]) for key in ('boxes','scores','labels'))

@pytest.fixture(scope='module')
def ray():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import ray
        os.environ['RAY_worker_niceness'] = '0'                         # beside other tests they would hardly run
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR')
        yield ray
        ray.shutdown()

@pytest.fixture(scope='module')
def pics(tmp_path_factory): return lamp_scenes(tmp_path_factory.mktemp('lamps')/'pics')

def test_a_folder_with_an_unreadable_scene_and_a_worker_that_dies(ray, pics, tmp_path, capfd):
    "One that dies is replaced, and its windows are given to another; a scene that cannot be read does not stop the others"
    (pics/'late.png').write_bytes((pics/'a.png').read_bytes()[:700])
    want,_ = predict_folder(Lamps(), pics, tmp_path/'one', 'csv', **KW)
    lamps = RayPredictor(Lamps(kill_at=88, once=tmp_path/'died'), block=4)
    preds,bad = lamps.predict_folder(pics, tmp_path/'many', 'csv', **KW)
    assert (tmp_path/'died').exists() and {*bad}=={'no.png','late.png'} and [*preds]==[*want]
    assert all(same(preds[name], want[name]) for name in want) and len(preds['a.png'])==30
    assert (tmp_path/'many/results.csv').read_bytes()==(tmp_path/'one/results.csv').read_bytes()
    alone = Lamps()
    predict_folder(alone, pics, tmp_path/'many', 'csv', **KW)           # without Ray it goes on: only what cannot be read is looked at
    assert alone.seen==1
    with pytest.raises(JournalError, match='begun with weights first, now second'):
        RayPredictor(Lamps('second')).predict_folder(pics, tmp_path/'many', 'csv', **KW)

def test_what_is_in_memory_and_what_fails(ray, pics, tmp_path):
    image = np.array(Image.open(pics/'a.png'))
    assert same(RayPredictor(Lamps()).predict_scene(image, **KW), predict_scene(Lamps(), image, **KW))
    with pytest.raises(WorkerError, match='of the model'): RayPredictor(Lamps('broken')).predict_scene(image, **KW)

# --- without Ray running

def test_one_block_holds_images_of_one_size(tmp_path):
    files = [lamp_scene(tmp_path/f'{i}.png', 64+32*(i%2), 64, 1, i) for i in range(8)]
    tables = [*blocks(files, None, 4)]
    assert [table['at'].to_pylist() for table in tables]==[[0,2,4,6],[1,3,5,7]]

def test_who_lacks_ray_is_told(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'ray', None)
    with pytest.raises(ImportError, match="rotnb's extra 'ray' brings it"): need('ray', extra='ray')
    with pytest.raises(ImportError, match="rotnb's extra 'ray' brings it"): RayPredictor(Lamps()).predict_image(np.zeros((64,64,3), np.uint8))
    assert Worker
