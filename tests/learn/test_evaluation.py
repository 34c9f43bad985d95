"`learn.evaluate()`: a table by class with the figures of the metrics, milliseconds, and answers for sets that lack something"
import json, math
import numpy as np, pytest, torch
from rotnb.all import Evaluation, RotatedDataLoaders, RotatedInterpretation, RotatedMAP, best_thresholds, pr_curves, rotated_learner
from rotnb.data.synth.scenes import make_synth
from rotnb.evaluate import APAccumulator

TINY = dict(backbone='test_resnet', pretrained=False, fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16,32), act='exp')

@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    root = make_synth(tmp_path_factory.mktemp('evaluation')/'set', n_train=6, n_valid=5, size=96, seed=3)
    dls = RotatedDataLoaders.from_dota(root, bs=2, num_workers=0, batch_tfms=[])
    torch.manual_seed(0)
    learn = rotated_learner(dls, 'rotated_fcos', metrics=[RotatedMAP(), RotatedMAP('coco'), RotatedMAP(iou=.75)], **TINY)
    learn.remove_cb(learn.progress)
    with learn.no_logging(): learn.fit(2, 1e-2)
    return learn

def accumulated(*images, vocab=('ship','plane')):
    "An accumulator with images of `(boxes, scores, labels, true boxes, true labels)`"
    acc = APAccumulator(vocab=list(vocab))
    for boxes,scores,labels,gt,gt_labels in images:
        acc.add([dict(boxes=np.reshape(boxes, (-1,5)).astype(float), scores=np.array(scores, float), labels=np.array(labels, int))],
                [dict(boxes=np.reshape(gt, (-1,5)).astype(float), labels=np.array(gt_labels, int))])
    return acc

BOX,FAR = [30,30,20,10,.3],[80,80,20,10,.3]

def test_figures_are_those_of_the_metrics(learn):
    before = learn.validate()
    found = learn.evaluate()
    assert (found.map50,found.map)==tuple(before[1:3])
    assert found.df['AP50']['all']==found.map50 and found.df['AP50:95']['all']==found.map
    assert learn.evaluate(iou_thr=.75).df['AP75']['all']==before[3]
    it = RotatedInterpretation.from_learner(learn)
    best = best_thresholds(pr_curves(it.acc))
    for name,point in best.items():
        row = found.df.loc[name]
        score = math.nan if math.isnan(point['precision']) else point['score']             # nothing was found
        assert (row.P,row.R,row.score)==pytest.approx((point['precision'],point['recall'],score), nan_ok=True)
    assert found.df['objects'].iloc[:-1].tolist()==it.acc.compute().n_gt.tolist()
    assert found.df['objects']['all']==it.acc.compute().n_gt.sum()>0

def test_nothing_else_changes(learn):
    learn.validate()
    metric = learn.metrics[0]
    kept = lambda: (list(learn.recorder.values), list(learn.recorder.losses), metric.compute().map, len(metric.acc.images),
                    len(learn.cbs), learn.training, learn.model.training, learn.loss_func.reduction)
    before,weights = kept(),{key:value.clone() for key,value in learn.model.state_dict().items()}
    learn.evaluate(ds_idx=0)
    assert kept()==before and len(before[0])==2
    assert all(torch.equal(value, weights[key]) for key,value in learn.model.state_dict().items())

def test_prints_where_it_does_not_show_itself(learn, capsys, monkeypatch):
    monkeypatch.delattr('sys.ps1', raising=False)
    found = learn.evaluate()
    out = capsys.readouterr().out
    said = 'objects','detections','AP50:95','angle_err','all','5 images','ms an image','cpu','best F1'
    assert repr(found) in out and all(word in out for word in said)
    learn.evaluate(show=False)
    assert not capsys.readouterr().out
    monkeypatch.setattr('sys.ps1', '>>> ', raising=False)
    learn.evaluate()
    assert not capsys.readouterr().out

def test_time_is_that_of_a_prediction(learn, monkeypatch):
    "No loss is computed, every image counts, and the first call is outside the watch"
    calls,sizes = [],[]
    monkeypatch.setattr(learn.model, 'stage_losses', lambda *a: 1/0, raising=False)
    hook = learn.model.register_forward_hook(lambda model, args, out: calls.append(len(args)) or sizes.append(len(args[0])))
    found = learn.evaluate()
    hook.remove()
    assert calls==[1]*4 and sizes==[2,2,2,1]
    assert found.ms['network']>0 and found.ms['rest']>0 and found.images==5
    one = learn.evaluate(dl=learn.dls.test_dl(learn.dls.valid_ds.items[:2], with_labels=True, num_workers=0))
    assert one.images==2 and all(0<ms<1e5 for ms in one.ms.values())

def test_what_a_row_says():
    acc = accumulated(([BOX,FAR,FAR], [.9,.8,.3], [0,0,1], [BOX], [0]))
    best,low,high = Evaluation(acc),Evaluation(acc, score_thr=.2),Evaluation(acc, score_thr=.95)
    ship = lambda res: res.df.loc['ship', ['objects','detections','P','R','score']].tolist()
    assert ship(best)==[1,1,1.,1.,.9] and ship(low)==[1,2,.5,1.,.2]
    assert ship(high)[:2]==[1,0] and math.isnan(ship(high)[2]) and ship(high)[3]==0
    assert low.df['detections']['plane']==1 and low.df['objects']['plane']==0 and math.isnan(low.df['AP50']['plane'])
    assert low.df.loc['all', ['objects','detections']].tolist()==[1,3] and low.df['P']['all']==.5
    turned = Evaluation(accumulated(([[30,30,20,10,.3+math.radians(4)]], [.9], [0], [BOX], [0])))
    assert turned.df['angle_err']['ship']==pytest.approx(4) and '4.0°' in repr(turned)

def test_sets_that_lack_something():
    nothing = accumulated(([], [], [], [BOX], [0]))
    empty = accumulated(([BOX], [.9], [0], [], []))
    for acc in (nothing,empty,accumulated()):
        res = Evaluation(acc)
        assert '–' in repr(res) and 'nan' not in repr(res).lower() and 'nan' not in res._repr_html_().lower()
        json.dumps(res.to_dict(), allow_nan=False)
    assert Evaluation(nothing).map50==0 and Evaluation(nothing).df['R']['ship']==0
    assert 'no ground truth' in repr(Evaluation(empty)) and math.isnan(Evaluation(empty).map50)

def test_names_are_data():
    acc = accumulated(([BOX], [.9], [0], [BOX], [0]), vocab=('<b>ship</b>','all'))
    res = Evaluation(acc)
    assert '<b>' not in res._repr_html_() and list(res.df.index)==['<b>ship</b>','all','(all)']
    assert Evaluation(accumulated(([BOX], [.9], [0], [BOX], [0]), vocab=(7,8))).to_dict()['classes']['7']['AP50']==1

def test_errors_come_before_the_work(learn):
    seen = []
    hook = learn.model.register_forward_hook(lambda *a: seen.append(1))
    for kw,say in [(dict(score_thr=30), 'score_thr'), (dict(iou_thr=50), 'IoU|iou'), (dict(protocol='dota'), 'dota'),
                   (dict(symmetry={'shop':90}), 'unknown classes'),
                   (dict(ds_idx=2), 'ds_idx is 2.*0 is training')]:
        with pytest.raises(ValueError, match=say): learn.evaluate(**kw)
    bare = learn.dls.test_dl([item.image for item in learn.dls.valid_ds.items], num_workers=0)
    with pytest.raises(ValueError, match='without ground truth'): learn.evaluate(dl=bare)
    hook.remove()
    assert not seen

def test_an_exported_learner_needs_a_loader(learn, tmp_path):
    from rotnb.all import open_learner
    learn.export((tmp_path/'m.pkl').absolute())
    again = open_learner(tmp_path/'m.pkl', 'cpu')
    with pytest.raises(ValueError, match='no images'): again.evaluate()
    dl = again.dls.test_dl(learn.dls.valid_ds.items, with_labels=True, num_workers=0)
    with again.no_bar(): assert again.evaluate(dl=dl).map50==learn.evaluate().map50

def test_images_of_several_sizes_and_bgr(learn, tmp_path_factory):
    "Each image of a padded batch is seen alone, in the order of colours that the detector knows"
    root = make_synth(tmp_path_factory.mktemp('sizes')/'set', n_train=2, n_valid=4, size=96, seed=5)
    from PIL import Image
    for i,file in enumerate(sorted((root/'val/images').iterdir())[:2]): Image.open(file).crop((0,0,64+8*i,80)).save(file)
    dls = RotatedDataLoaders.from_dota(root, bs=4, num_workers=0, batch_tfms=[], vocab=learn.dls.vocab)
    for channels in ('rgb','bgr'):
        learn.model.channels = channels
        try: assert learn.evaluate(dl=dls.valid).map50==pytest.approx(learn.validate(dl=dls.valid)[1], nan_ok=True)
        finally: learn.model.channels = 'rgb'
