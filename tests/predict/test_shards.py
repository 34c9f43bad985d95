"Prediction that processes share: whatever the parts, whoever dies, the answer is that of one process"
import os, subprocess, sys
from functools import partial
import pytest, torch
from lamps import Lamps, lamp_scene, lamp_scenes
from rotnb.cli.predict import main
from rotnb.data.labels.atomic import BusyError
from rotnb.predict import scene as scene_module
from rotnb.predict.journal import JournalError
from rotnb.predict.scene import predict_folder, predict_scene
from rotnb.predict.shards import Shard, check_idle, lock_part, part_files
from paths import ROOT

KW = dict(format='csv', size=128, overlap=40, cut='drop', progress=False)

def same(a, b): return len(a)==len(b) and all(torch.equal(a[key], b[key]) for key in ('boxes','scores','labels'))

@pytest.fixture(scope='module')
def pics(tmp_path_factory): return lamp_scenes(tmp_path_factory.mktemp('lamps')/'pics')

@pytest.fixture(scope='module')
def whole(pics, tmp_path_factory):
    "What one process finds, and how many windows it looks at"
    lamps,out = Lamps(),tmp_path_factory.mktemp('whole')
    preds,bad = predict_folder(lamps, pics, out, **KW)
    assert [*bad]==['no.png'] and len(preds)==5 and len(preds['a.png'])==30
    return preds,lamps.seen,(out/'results.csv').read_bytes()

def in_process(run):
    "A fork that runs; its process id"
    if pid := os.fork(): return pid
    code = 9
    try: code = run() or 0
    finally: os._exit(code)

def end_of(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@pytest.mark.parametrize('n', [1,2,5,40])
def test_any_parts_give_what_one_process_finds(pics, whole, tmp_path, n):
    lamps = Lamps()
    found = [predict_folder(lamps, pics, tmp_path, shard=(i,n), **KW) for i in reversed(range(n))]
    assert [preds is None for preds,_ in found]==[True]*(n-1)+[False] and lamps.seen==whole[1]
    preds,bad = found[-1]
    assert [*preds]==[*whole[0]] and [*bad]==['no.png'] and all(same(preds[name], whole[0][name]) for name in preds)
    assert (tmp_path/'results.csv').read_bytes()==whole[2]

def test_together_one_of_them_is_the_last(pics, whole, tmp_path):
    def part(i): return 1 if predict_folder(Lamps(), pics, tmp_path, shard=(i,4), **KW)[0] is not None else 0
    codes = [end_of(pid) for pid in [in_process(partial(part, i)) for i in range(4)]]
    assert sorted(codes)==[0,0,0,1] and (tmp_path/'results.csv').read_bytes()==whole[2]

@pytest.mark.parametrize('again', [(1,2),(0,3),None], ids=['the same','other parts','one process'])
def test_one_that_is_killed(pics, whole, tmp_path, again):
    "The others end, nobody writes, and who goes on does what is left"
    killed = in_process(lambda: predict_folder(Lamps(kill_at=88), pics, tmp_path, shard=(0,2), **KW))
    assert end_of(killed)==-9
    lamps = Lamps()
    assert predict_folder(lamps, pics, tmp_path, shard=(1,2), **KW)[0] is None and not (tmp_path/'results.csv').exists()
    done = sum(file.read_bytes().count(b'rnb\n') for file in part_files(tmp_path/'windows.journal'))-1      # one is an end
    assert 0<done<whole[1]
    lamps = Lamps()
    if again==(1,2): preds,_ = predict_folder(lamps, pics, tmp_path, shard=(0,2), **KW)
    elif again: preds = [predict_folder(lamps, pics, tmp_path, shard=(i,3), **KW)[0] for i in range(3)][-1]
    else: preds,_ = predict_folder(lamps, pics, tmp_path, **KW)
    assert lamps.seen==whole[1]-done and all(same(preds[name], whole[0][name]) for name in whole[0])
    assert (tmp_path/'results.csv').read_bytes()==whole[2]

def test_a_scene_in_parts(pics, tmp_path):
    how = dict(size=128, overlap=40, cut='drop', progress=False, resume=tmp_path)
    want = predict_scene(Lamps(), pics/'a.png', 128, 40, cut='drop', progress=False)
    found = [predict_scene(Lamps(), pics/'a.png', shard=(i,3), **how) for i in (2,0,1)]
    assert found[:2]==[None,None] and same(found[2], want) and len(want)==30
    # nothing is left: the first takes the last one's place
    assert predict_scene(Lamps(), pics/'a.png', shard=(1,3), **how) is None
    assert same(predict_scene(Lamps(), pics/'a.png', shard=(0,3), **how), want)
    with pytest.raises(OSError): predict_scene(Lamps(), pics/'no.png', shard=(0,3), **how)

@pytest.mark.parametrize('learn,kw,words', [(Lamps('second'), {}, 'begun with weights first, now second'),
                                            (Lamps(), dict(overlap=30), 'begun with overlap 40, now 30')], ids=['weights','settings'])
@pytest.mark.parametrize('shard', [(0,2),(1,2),(0,3),None])
def test_a_stale_journal(pics, tmp_path, learn, kw, words, shard):
    predict_folder(Lamps(), pics, tmp_path, shard=(0,2), **KW)
    with pytest.raises(JournalError, match=words): predict_folder(learn, pics, tmp_path, shard=shard, **{**KW, **kw})
    if shard is None:
        assert predict_folder(learn, pics, tmp_path, resume=False, **{**KW, **kw})[0]
        assert not part_files(tmp_path/'windows.journal')

def test_a_folder_that_grew(pics, tmp_path):
    "What was done of fewer images does not count as the end"
    folder = tmp_path/'in'; folder.mkdir()
    lamp_scene(folder/'a.png', 200, 200, 5, 1)
    assert predict_folder(Lamps(), folder, tmp_path/'out', shard=(0,2), **KW)[0] is None
    lamp_scene(folder/'b.png', 200, 200, 5, 2)
    assert predict_folder(Lamps(), folder, tmp_path/'out', shard=(1,2), **KW)[0] is None
    lamps = Lamps()
    preds,_ = predict_folder(lamps, folder, tmp_path/'out', shard=(0,2), **KW)
    assert [*preds]==['a.png','b.png'] and all(map(len, preds.values())) and lamps.seen<8

def test_who_is_there_already(pics, tmp_path, monkeypatch):
    monkeypatch.setattr(scene_module, 'check_idle', partial(check_idle, wait=0))
    predict_folder(Lamps(), pics, tmp_path, shard=(0,2), **KW)
    with lock_part(Shard(0, 2).file(tmp_path/'windows.journal')):
        for shard in ((0,2),None):
            with pytest.raises(BusyError, match='in use by process'): predict_folder(Lamps(), pics, tmp_path, shard=shard, **KW)
        assert predict_folder(Lamps(), pics, tmp_path, shard=(0,5), **KW)[0] is None

@pytest.mark.parametrize('kw,error,words', [
    (dict(shard=(2,2)), ValueError, '0 <= index < of'), (dict(shard='half'), ValueError, '0 <= index < of'),
    (dict(shard=(0,2), out=None), ValueError, 'shard needs out='), (dict(shard=(0,2), resume=False), ValueError, 'when the others begin'),
    (dict(shard='rank'), ValueError, 'torchrun did not start'), (dict(shard=(0,2), folder='none'), FileNotFoundError, 'no images'),
    (dict(shard=(0,2), format='geojson', crs='lonlat'), ValueError, 'no place on the map')])
def test_what_cannot_be_meant(pics, tmp_path, monkeypatch, kw, error, words):
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    (tmp_path/'none').mkdir()
    folder = tmp_path/kw.pop('folder') if 'folder' in kw else pics
    with pytest.raises(error, match=words): predict_folder(Lamps(), folder, **{'out':tmp_path/'out', **KW, **kw})

def test_results_of_others_are_safe_from_the_beginning(pics, tmp_path):
    (tmp_path/'results.csv').write_text('mine')
    lamps = Lamps()
    with pytest.raises(FileExistsError, match='not from a prediction'): predict_folder(lamps, pics, tmp_path, shard=(0,2), **KW)
    assert lamps.seen==0 and (tmp_path/'results.csv').read_text()=='mine'

def test_the_command_asks_torchrun(pics, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('rotnb.cli.predict.open_model', lambda model, device: Lamps())
    run = partial(main, 'lamps', str(pics), str(tmp_path), format='csv', size=128, overlap=40, cut='drop')
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    for name,value in dict(WORLD_SIZE='2', RANK='1', LOCAL_RANK='1').items(): monkeypatch.setenv(name, value)
    run()                                                               # torchrun would stop the others if it had an exit code
    assert 'part 1 of 2 is done' in capsys.readouterr().out
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(SystemExit, match='1'): run()
    assert '44 detections in 5 images' in capsys.readouterr().out

@pytest.mark.slow
def test_torchrun(pics, tmp_path):
    "Two processes of a real detector find what one finds"
    from rotnb.all import Predictor, create_detector
    torch.manual_seed(0)
    detector = create_detector('rotated_fcos', 1, backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16,
                               stacked_convs=1, strides=(8,16), score_thr=.001)
    model = Predictor(detector, ['lamp'], score_thr=.001, max_dets=20).save(tmp_path/'model')
    args = ['rotnb.cli','predict',model,pics,'--format','csv','--size','128','--overlap','40','--score-thr','.001','--bs','1']
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    one = subprocess.run([sys.executable,'-m',*map(str, args),'--out',tmp_path/'one'], env=env)
    torchrun = [sys.executable,'-m','torch.distributed.run','--standalone','--nproc-per-node','2','-m']
    subprocess.run([*torchrun,*map(str, args),'--out',tmp_path/'two'], env=env)
    assert one.returncode==1 and (tmp_path/'one/results.csv').read_bytes()==(tmp_path/'two/results.csv').read_bytes()
