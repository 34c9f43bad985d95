"Prediction on a Ray of this machine with two workers: the answers are those of one process"
import os, warnings
import numpy as np, pytest, torch
from PIL import Image
import lamps
from lamps import Lamps, lamp_scene, lamp_scenes
from rotnb.check.needs import need
from rotnb.predict.journal import JournalError
from rotnb.predict.on_ray import RayPredictor, WorkerError, blocks, start_ray
from rotnb.predict.scene import predict_folder

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
        start_ray(num_cpus=2)
        ray.cloudpickle.register_pickle_by_value(lamps)                 # workers do not have our helpers
        yield ray
        ray.shutdown()

@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    "Files, two of which cannot be read, and one scene that is in memory alone"
    pics = lamp_scenes(tmp_path_factory.mktemp('lamps')/'pics')
    (pics/'late.png').write_bytes((pics/'a.png').read_bytes()[:700])
    return [pics/'a.png', pics/'b.bmp', pics/'late.png', pics/'no.png', pics/'c.png', np.array(Image.open(pics/'a.png'))[:,::-1].copy()]

def test_as_one_process_whatever_happens(ray, scenes, tmp_path):
    "A worker that dies is replaced, and its windows are given to another; a scene that cannot be read does not stop the others"
    want,_ = predict_folder(Lamps(), scenes, tmp_path/'one', 'csv', **KW)
    preds,bad = RayPredictor(Lamps(kill_at=88, once=tmp_path/'died'), block=4).predict_folder(scenes, tmp_path/'many', 'csv', **KW)
    assert (tmp_path/'died').exists() and [*preds]==[*want] and {*bad}=={'late.png','no.png'}
    assert all(same(preds[name], want[name]) for name in want) and [len(found) for found in preds.values()]==[30,2,3,30]
    assert (tmp_path/'many/results.csv').read_bytes()==(tmp_path/'one/results.csv').read_bytes()
    alone = Lamps()
    predict_folder(alone, scenes, tmp_path/'many', 'csv', **KW)         # goes on without Ray: only what cannot be read is looked at
    assert 0<alone.seen<3
    with pytest.raises(JournalError, match='begun with weights first, now second'):
        RayPredictor(Lamps('second')).predict_folder(scenes, tmp_path/'many', 'csv', **KW)

@pytest.mark.slow
def test_what_kills_each_time(ray, scenes):
    preds,bad = RayPredictor(Lamps(kill_at=88), workers=1, block=2, restarts=1).predict_folder(scenes[:2], **KW)
    assert [*preds]==['b.bmp'] and '2 workers died of it' in bad['a.png']

@pytest.mark.slow
def test_an_error_of_the_model(ray, scenes):
    with pytest.raises(WorkerError, match='of the model'): RayPredictor(Lamps('broken'), workers=1).predict_scene(scenes[0], **KW)

# --- without Ray running

def test_one_block_holds_images_of_one_size(tmp_path):
    files = [lamp_scene(tmp_path/f'{i}.png', 64+32*(i%2), 64, 1, i) for i in range(8)]
    tables = [*blocks(files, None, 4)]
    assert [table['at'].to_pylist() for table in tables]==[[0,2,4,6],[1,3,5,7]]

@pytest.mark.parametrize('late', [2,3])
def test_ray_may_be_late(monkeypatch, late):
    import ray
    begun,running = [],[]
    def init(**kw):
        begun.append(kw)
        if len(begun)<=late: raise Exception('The current node timed out during startup. This could happen because of that.')
        running.append(1)
    monkeypatch.setattr(ray, 'init', init)
    monkeypatch.setattr(ray, 'is_initialized', lambda: bool(running))
    monkeypatch.setattr(ray, 'shutdown', lambda: None)
    monkeypatch.setenv('RAY_gcs_server_port_wait_time_s', '7')
    if late<3: assert start_ray(num_cpus=2) is ray and len(begun)==3 and begun[0]['num_cpus']==2
    else:
        with pytest.raises(WorkerError, match='3 tries .The current node timed out.*RAY_ADDRESS=auto'): start_ray()
    assert os.environ['RAY_gcs_server_port_wait_time_s']=='7'

def test_what_is_wrong_is_not_tried_again(monkeypatch):
    import ray
    begun = []
    def init(**kw):
        begun.append(kw)
        raise ConnectionError('no cluster at that address')
    monkeypatch.setattr(ray, 'init', init)
    monkeypatch.setattr(ray, 'is_initialized', lambda: False)            # another test's Ray may be up
    with pytest.raises(ConnectionError, match='no cluster'): start_ray()
    assert len(begun)==1

def test_who_lacks_ray_is_told(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'ray', None)
    with pytest.raises(ImportError, match="rotnb's extra 'ray' brings it"): need('ray', extra='ray')
    image = np.zeros((64,64,3), np.uint8)
    with pytest.raises(ImportError, match="rotnb's extra 'ray' brings it"): RayPredictor(Lamps()).predict_image(image)
