"A run as TensorBoard, W&B (offline) and MLflow hold it, read back with their own readers; each where it is installed"
import json
import numpy as np, pytest
from fastai.vision.all import set_seed
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.synth.scenes import make_synth
from rotnb.learn.learner import rotated_learner
from rotnb.learn.loggers import LogRun, MLflow, TensorBoard, WandB
from rotnb.learn.optimizers import optimizer

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16), act='exp')

@pytest.fixture
def fitted(tmp_path, monkeypatch):
    "A function that trains with a tracker for two epochs"
    monkeypatch.chdir(tmp_path)
    def f(tracker, **kw):
        set_seed(0)
        make_synth(tmp_path/'set', n_train=4, n_valid=2, size=64, seed=3)
        learn = rotated_learner(RotatedDataLoaders.from_dota(tmp_path/'set', bs=2, num_workers=0, batch_tfms=[]), 'rotated_fcos',
                                cbs=LogRun(tracker, every=1), run=False, **TINY, **kw)
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-3)
        assert learn.log_run.to==[tracker], 'the tracker gave up'
        return learn
    return f

class Told:
    "A tracker that remembers"
    def begin(self, settings, name, folder): self.settings = settings
    def numbers(self, values, step): pass
    def image(self, name, image, step): pass

@pytest.mark.parametrize('opt_func,said', [(None,'Adam'), (optimizer('sgd'),'SGD mom=0.9 decouple_wd=False')])
def test_an_optimizer_is_told_by_name(fitted, opt_func, said):
    assert fitted(Told(), **({} if opt_func is None else dict(opt_func=opt_func))).log_run.to[0].settings['fit']['optimizer']==said

def test_tensorboard(fitted, tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    learn = fitted(TensorBoard(tmp_path/'tb'))
    learn.log_run.finish()
    events = EventAccumulator(str(tmp_path/'tb')).Reload()
    assert [one.step for one in events.Scalars('loss')]==[1,2,3,4]
    assert events.Scalars('mAP50-95')[-1].value==pytest.approx(learn.history.rows[-1]['mAP50:95'])
    assert [one.step for one in events.Images('predictions')]==[2,4] and len(events.Images('train_batch'))==1
    assert b'rotated_fcos' in events.Tensors('settings/text_summary')[0].tensor_proto.string_val[0]

def test_wandb(fitted, tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    tracker = WandB(project='ships', dir=str(tmp_path))
    learn = fitted(tracker)
    run = tracker.wandb.run
    assert run.summary['step']==4 and run.summary['epoch']==2
    assert run.summary['train_loss']==pytest.approx(learn.history.rows[-1]['train_loss'])
    assert run.config['detector']['name']=='rotated_fcos' and run.config['fit']['epochs']==2
    learn.log_run.finish()
    files = [file.name for file in tmp_path.rglob('offline-run-*/files/media/images/*')]
    assert sum(name.startswith('predictions') for name in files)==2 and sum(name.startswith('train_batch') for name in files)==1

def test_mlflow(fitted, tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    mlflow.set_tracking_uri((tmp_path/'mlruns').as_uri())
    learn = fitted(MLflow())
    run = mlflow.active_run().info.run_id
    learn.log_run.finish()
    client = mlflow.MlflowClient()
    assert client.get_run(run).data.params['epochs']=='2'
    assert [one.step for one in client.get_metric_history(run, 'loss')]==[1,2,3,4]
    assert client.get_metric_history(run, 'mAP50-95')[-1].value==pytest.approx(learn.history.rows[-1]['mAP50:95'])
    assert [one.path for one in client.list_artifacts(run, 'predictions')]==['predictions/000002.jpg','predictions/000004.jpg']
    settings = json.loads(open(mlflow.artifacts.download_artifacts(run_id=run, artifact_path='settings.json')).read())
    assert settings['detector']['name']=='rotated_fcos' and np.isfinite(settings['optimizer']['lr'])

@pytest.mark.parametrize('kind,module', [(TensorBoard,'tensorboard'), (WandB,'wandb'), (MLflow,'mlflow')])
def test_what_to_install(kind, module, monkeypatch):
    import sys
    for name in [module, *[name for name in sys.modules if name.startswith(('torch.utils.tensorboard', module))]]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"{module}.* is not installed; rotnb's extra 'log'|extra 'log'"): kind()
