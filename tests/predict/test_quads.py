"Four corners on their way from a detector to files: rows, detections, merging, results, evaluation, drawing"
import json
import numpy as np, pandas as pd, pytest, torch
from rotnb.evaluate.accumulator import eval_map
from rotnb.evaluate.task1 import merge_windows, read_task1, write_task1
from rotnb.explore.viewer import as_layer
from rotnb.geometry.boxes import outline, qbox2rbox, rbox2qbox
from rotnb.learn.callbacks import pad_dets, unpad_dets
from rotnb.plot.draw import draw
from rotnb.predict.detections import Detections
from rotnb.predict.infer import rows_dets
from rotnb.predict.journal import Journal
from rotnb.predict.results import coco_results, geojson, results_df, write_predictions
from rotnb.predict.rows import rows_back, Way
from rotnb.predict.scene import merge_rows

KITES = torch.tensor([[40.,20,60,50,35,70,20,45],[110,20,150,30,150,70,100,60],[30,110,70,100,80,120,60,150]])
SCORES,LABELS,VOCAB = torch.tensor([.9,.8,.7]),torch.tensor([0,1,0]),['kite','sail']

def found(**kw): return Detections(qbox2rbox(KITES), SCORES, LABELS, VOCAB, quads=KITES, **kw)
def rows(): return torch.cat([qbox2rbox(KITES), SCORES[:,None], LABELS[:,None].float(), KITES], 1)

def test_detections_keep_them():
    dets = found()
    assert torch.equal(dets.quads.flatten(1), KITES) and torch.equal(dets['quads'], KITES) and dets.keys()[-1]=='quads'
    assert torch.equal(dets.filter(classes='kite')['quads'], KITES[[0,2]]) and torch.equal(dets[1]['quads'], KITES[[1]])
    assert torch.equal(Detections(**dets)['quads'], KITES) and torch.equal(Detections(**dets).quads, dets.quads)
    plain = Detections(qbox2rbox(KITES), SCORES, LABELS)
    assert 'quads' not in plain and plain.get('quads') is None and torch.equal(plain.quads, rbox2qbox(plain.boxes))
    with pytest.raises(ValueError, match='2 quads for 3 boxes'): Detections(qbox2rbox(KITES), SCORES, LABELS, quads=KITES[:2])

def halves():
    "Two triangles of one square, which is the least rectangle around either"
    quads = torch.tensor([[0.,0,9,0,20,0,0,20],[20,0,20,9,20,20,0,20]])
    return Detections(torch.tensor([[10.,10,20,20,0]]*2), torch.tensor([.9,.8]), torch.tensor([0,0]), ['half'], quads=quads)

def test_nms_asks_the_quads():
    dets = halves()
    assert len(dets.nms())==2 and len(Detections(dets.boxes, dets.scores, dets.labels).nms())==1

def test_rows_and_back():
    dets = [dict(boxes=qbox2rbox(KITES), scores=SCORES, labels=LABELS, quads=KITES), {key:value[:0] for key,value in found().items()}]
    padded = pad_dets(dets, 5)
    assert padded.shape==(2,5,15) and torch.equal(unpad_dets(padded[0])['quads'], KITES) and unpad_dets(padded[1])['quads'].shape==(0,8)
    assert 'quads' not in unpad_dets(pad_dets([{key:value for key,value in dets[0].items() if key!='quads'}], 5)[0])
    twice = Way((200,200), torch.diag(torch.tensor([2.,2,1])).double(), torch.tensor([[-torch.inf]*2,[torch.inf]*2]))
    moved = rows_dets(rows_back(rows(), twice, None, .75, 'le90'))
    assert torch.allclose(moved['quads'], 2*KITES[:2]) and torch.allclose(moved.boxes, qbox2rbox(2*KITES[:2]), atol=1e-3)

def test_journal_keeps_them(tmp_path):
    file = tmp_path/'windows'
    Journal(file).add([('a', rows().numpy()), ('b', rows().numpy()[:0]), ('old', rows().numpy()[:,:7])])
    done = Journal(file).done
    assert [done[key].shape for key in done]==[(3,15),(0,15),(3,7)] and np.array_equal(done['a'], rows().numpy())

def test_windows_are_merged_by_them():
    dets = halves()
    own = torch.cat([dets.boxes, dets.scores[:,None], dets.labels[:,None].float(), dets['quads']], 1).numpy()
    merged = merge_rows([own[:1], own, own[:0]])
    assert len(merged['scores'])==2 and torch.equal(merged['quads'], dets['quads'])
    assert len(merge_rows([own[:1,:7], own[:,:7]])['scores'])==1 and 'quads' not in merge_rows([own[:,:7]])
    assert merge_rows([])['boxes'].shape==(0,5)
    scene = merge_windows({'a__1__0___0':dets, 'a__1__10___0':{**dets, 'quads':dets['quads']-torch.tensor([10.,0]).repeat(4)}})['a']
    assert len(scene['scores'])==2 and np.allclose(scene['boxes'].reshape(-1,8), dets['quads'])

def test_files_hold_them(tmp_path):
    want = KITES.numpy()
    write_task1({'a':found()}, VOCAB, tmp_path/'Task1')
    read = read_task1(tmp_path/'Task1', VOCAB)['a']
    assert np.allclose(read['boxes'].reshape(-1,8)[np.argsort(-read['scores'])], want)
    coco = coco_results({'a':found()}, VOCAB)
    assert np.allclose([one['segmentation'][0] for one in coco], want) and np.allclose(coco[0]['bbox'], [20,20,40,50])
    table = results_df({'a':found()}, VOCAB)
    assert np.allclose(table[['x1','y1','x2','y2','x3','y3','x4','y4']], want) and np.allclose(found().df[['x1','y4']], want[:,[0,7]])
    rings = [one['geometry']['coordinates'][0] for one in geojson(found(), VOCAB)['features']]
    points = [{tuple(map(float, point)) for point in quad} for quad in want.reshape(-1,4,2)]
    assert [{tuple(point) for point in ring} for ring in rings]==points
    for name in ('found.csv','found.json','found.geojson','found.zip'):
        file = write_predictions({'a':found()}, tmp_path/name)
        assert file.exists()
    assert np.allclose(pd.read_csv(tmp_path/'found.csv')[['x1','y1']], want[:,:2])
    assert json.loads((tmp_path/'found.json').read_text())[0]['segmentation']==[want[0].tolist()]
    with pytest.raises(ValueError, match='not finite'): results_df({'a':{**found(), 'quads':KITES*np.nan}}, VOCAB)

def test_they_are_drawn_and_looked_at():
    black = np.zeros((160,160,3), np.uint8)
    true,rects = draw(black, found(), text=False),draw(black, found().boxes, found().labels, vocab=VOCAB, text=False)
    assert (true!=rects).any() and np.array_equal(draw(black, found().quads, found().labels, vocab=VOCAB, text=False), true)
    assert np.allclose(as_layer(found()).quads.reshape(-1,8), KITES) and np.allclose(outline(found()).flatten(1), KITES)
    assert np.array_equal(found(image=black).plot(text=False), true)

def test_evaluation_compares_true_corners_where_both_have_them():
    dets = halves()[:1]
    truth = dict(boxes=halves().boxes[1:], quads=halves()['quads'][1:], labels=torch.tensor([0]))
    assert eval_map([dets], [truth]).map==0, 'two triangles that touch'
    without = {key:value for key,value in truth.items() if key!='quads'}
    assert eval_map([dets], [without]).map==1, 'one rectangle'
    assert eval_map([Detections(dets.boxes, dets.scores, dets.labels)], [truth]).map==1
    assert eval_map([dets], [dict(boxes=truth['quads'], labels=truth['labels'])]).map==0, 'corners in place of boxes'
    assert eval_map([dets], [dict(truth, quads=dets['quads'])]).map==1
    with pytest.raises(ValueError, match='one per box'): eval_map([dets], [dict(truth, quads=halves()['quads'])])
