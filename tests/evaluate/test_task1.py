"Result files and merged windows"
import numpy as np, pytest
from rotnb.evaluate import eval_map
from rotnb.evaluate.matching import match
from rotnb.evaluate.task1 import merge_detections, merge_windows, read_task1, write_task1
from rotnb.geometry.boxes import qbox2rbox, rbox2hbox, rbox2qbox


def test_windows_merged_give_the_scene_figure(tmp_path):
    "The same detections seen through overlapping windows, written, read and merged, score as on the scene"
    r = np.random.default_rng(0); vocab = ['plane','ship']
    g = np.stack([*np.meshgrid(np.arange(60,1500,120), np.arange(60,900,120))], -1).reshape(-1,2)
    g = np.concatenate([g, r.random((len(g),3))*[40,20,3]+[20,10,-1.5]], 1); lab = r.integers(0,2,len(g))
    d = g+r.normal(0,1,g.shape)*[3,3,2,1,.1]; s = r.random(len(g)).round(4)
    hb,wins = rbox2hbox(d),{}
    for x in (0,500,1000):
        inside = (hb[:,0]>=x)&(hb[:,2]<x+700)
        wins[f'P1__1__{x}___0'] = dict(boxes=d[inside]-[x,0,0,0,0], scores=s[inside], labels=lab[inside])
    for path in (tmp_path/'r', tmp_path/'r.zip'):
        m = merge_windows(read_task1(write_task1(wins, vocab, path, decimals=6), vocab))['P1']
        seen = np.isin(s, m['scores'])
        assert seen.all() and len(m['scores'])==len(s)
    t = dict(boxes=g, labels=lab)
    merged = eval_map([{**m, 'boxes':qbox2rbox(m['boxes'])}], [t], (.5,.6,.7), vocab=vocab)
    np.testing.assert_allclose(merged.aps, eval_map([dict(boxes=d, scores=s, labels=lab)], [t], (.5,.6,.7), vocab=vocab).aps)

def test_windows_named_as_files_are_merged():
    "What `predict_folder` finds in a folder of tiles goes by their file names"
    b = dict(boxes=[[50.,50,20,10,0]], scores=[.9], labels=[0])
    m = merge_windows({'P1__1__0___0.png':b, 'P1__1__1.5___0.tif':b, 'P2__1__0___0':b})
    assert {k:len(v['scores']) for k,v in m.items()}=={'P1':1,'P2':1}

def test_task1_archive_in_capitals(tmp_path):
    p = {'a':dict(boxes=[[50.,50,20,10,0]], scores=[.9], labels=[0])}
    f = write_task1(p, ['x'], tmp_path/'R.ZIP')
    assert f.is_file() and list(read_task1(f, ['x']))==['a']

def test_task1_wants_a_score_and_a_label_a_box(tmp_path):
    p = dict(boxes=[[50.,50,20,10,0]]*2, scores=[.9,.8], labels=[0,0])
    for k in p:
        with pytest.raises(ValueError, match='a: 2 |a: 1 '): write_task1({'a':{**p, k:p[k][:1]}}, ['x'], tmp_path/'r')
    assert not (tmp_path/'r').exists()

def test_parts_of_a_scene_merge_to_one_list():
    "Boxes of two windows, one of them empty: what they share is kept once, each class for itself, best first"
    one = dict(boxes=np.array([[50.,50,40,20,.3],[200,50,40,20,0]]), scores=np.array([.7,.9]), labels=np.array([0,1]))
    two = dict(boxes=np.array([[51.,50,40,20,.3],[50,50,40,20,.3]]), scores=np.array([.8,.6]), labels=np.array([0,1]))
    none = dict(boxes=np.zeros((0,5)), scores=np.zeros(0), labels=np.zeros(0, int))
    got = merge_detections([one, none, two])
    assert got['scores'].tolist()==[.9,.8,.6] and got['labels'].tolist()==[1,0,1]
    quads = merge_detections([dict(o, boxes=rbox2qbox(o['boxes']).reshape(-1,4,2)) for o in (one,none,two)])
    assert quads['scores'].tolist()==got['scores'].tolist() and quads['boxes'].shape==(3,4,2)
    assert merge_detections([none])['boxes'].shape==(0,5)
