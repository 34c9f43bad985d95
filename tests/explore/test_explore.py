"Explorers without a browser: filters against brute force, messages, broken images, exports, large sets"
import io, json, re, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch
from fastcore.test import test_eq as eq
from hypothesis import given, settings, strategies as st
from PIL import Image
from rotnb.data.labels.records import Annot
from rotnb.evaluate.errors import ERROR_KINDS, confusion_matrix
from rotnb.evaluate import APAccumulator
from rotnb.explore.box_table import annots_table
from rotnb.explore.dataset_explorer import DatasetExplorer
from rotnb.explore.views import ExplorerPanel
from rotnb.explore.result_explorer import ResultsExplorer
from rotnb.learn.interpret import RotatedInterpretation

VOCAB = ['plane','ship','harbor']

def annots(n, seed=0, most=9, folder='pics'):
    "Images with some boxes, axis-aligned ones among them, or none"
    rng,res = np.random.default_rng(seed),[]
    for i in range(n):
        k = rng.integers(0, most)
        t = rng.choice([0,np.pi/4,1.3,-.2], k)
        c,s = np.cos(t)[:,None],np.sin(t)[:,None]
        w,h = rng.choice([8.,16,30], (k,1)),rng.choice([4.,8,16], (k,1))
        local = np.array([[-1,-1],[1,-1],[1,1],[-1,1]])/2
        x,y = local[:,0]*w,local[:,1]*h
        q = np.stack([x*c-y*s, x*s+y*c], -1)+rng.uniform(10, 90, (k,1,2))
        res.append(Annot(Path(folder)/f'{i:04}.png', q, rng.choice(VOCAB, k).tolist(), rng.integers(0, 2, k)))
    return res

# --- the table

T = annots_table(dict(train=annots(30), val=annots(10, 1)), VOCAB)
ends = st.tuples(st.none()|st.sampled_from([4.,8,16,22,30]), st.none()|st.sampled_from([9.,17,31,60])
                 ).filter(lambda o: None in o or o[0]<o[1])

@settings(max_examples=60, deadline=None)
@given(size=st.none()|ends, cls=st.none()|st.lists(st.sampled_from(VOCAB), min_size=1),
       angle=st.none()|st.sampled_from([(0,45),(40,-40),(None,0),0]),
       count=st.none()|st.sampled_from([0,(1,4),(5,None)]), split=st.none()|st.sampled_from(['train','val']),
       difficult=st.none()|st.just('yes'))
def test_filters_against_pandas(**kw):
    kw = {k:v for k,v in kw.items() if v is not None}
    def keep(k, v):
        x = T.df[dict(cls='cls', split='split', difficult='difficult').get(k, k)]
        if k=='cls': return x.isin(v)
        if k=='split': return x==v
        if k=='difficult': return (x>0)&T.df.cx.notna()
        if np.isscalar(v): return x==v
        lo,hi = (-np.inf if v[0] is None else v[0]),(np.inf if v[1] is None else v[1])
        return (x>=lo)&(x<hi) if lo<hi else (x>=lo)|(x<hi)
    one = {k:keep(k, v) for k,v in kw.items()}
    every = np.logical_and.reduce([np.ones(len(T), bool), *one.values()])
    want = T.wanted(**kw)
    assert (T.mask(want)==every).all()
    n = T.counts(want)
    for f in ('cls','split','size','count'):
        m = np.logical_and.reduce([np.ones(len(T), bool), *(o for k,o in one.items() if k!=f)])
        d = T.df[m]
        if f=='cls': assert n[f].tolist()==[(d.cls==c).sum() for c in VOCAB]
        elif f=='size': assert n[f].sum()==d['size'].notna().sum()
        elif f=='split': assert n[f].tolist()==[d.image[d.split==c].nunique() for c in ('train','val')]
        else: assert n[f].sum()==d.image.nunique()

def test_a_brushed_range_holds_what_its_bars_count():
    "Also where numbers lie on the edges of bins, as angles of 0 do"
    for k,f in T.fields.items():
        if f.x is None or f.per!='box': continue
        n = T.counts({})[k]
        for i in range(len(n)):
            for j in range(i, len(n)):
                want = [f.values[i] if i else None, f.values[j+1] if j<len(n)-1 else None]
                assert T.mask({k:want}).sum()==n[i:j+1].sum(), (k,i,j)

def test_twenty_thousand_images():
    few = annots(200, 3, 50)
    big = [Annot(Path(f'{i}_{a.image.name}'), a.quads, a.names, a.difficult) for i in range(100) for a in few]
    start = time.perf_counter()
    ex = DatasetExplorer(dict(train=big))
    made = time.perf_counter()-start
    took = []
    for lo in (4,8,10):
        start = time.perf_counter()
        ex.filter(cls=['ship','plane'], size=(lo,30), angle=(-30,60))
        n = len(ex.selected); ex.table.counts(ex.filters)
        took.append(time.perf_counter()-start)
    start = time.perf_counter(); ex.arrange('boxes', 'size').snapshot(); shown = time.perf_counter()-start
    print(f'{len(ex.table):,} boxes in {len(big):,} images: opened in {made:.1f} s, filtered in {min(took)*1e3:.0f} ms, '
          f'a page in {shown*1e3:.0f} ms')
    assert len(ex.table)>450_000 and n and min(took)<1 and made<100 and shown<10          # of a busy machine

# --- data sets

def test_sets_without_boxes_and_without_images():
    ex = DatasetExplorer([Annot(Path(f'{i}.png'), np.empty((0,4,2)), [], np.empty(0, int)) for i in range(3)])
    s = ex.snapshot()
    assert [c['caption'] for c in s['cells']]==['0 boxes']*3 and s['counts']=='0 of 0 boxes in 3 of 3 images'
    ex.figure(2)
    with pytest.raises(ValueError, match='no images'): DatasetExplorer(dict(train=[]))
    with pytest.raises(ValueError, match='Annot'): DatasetExplorer([dict(boxes=[])])
    with pytest.raises(ValueError, match="unknown class 'harbor'"): DatasetExplorer(annots(9), vocab=['plane','ship'])

@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path/'pics').mkdir()
    for i in range(6): Image.fromarray(rng.integers(0, 255, (80,120,3), dtype=np.uint8)).save(tmp_path/'pics'/f'{i:04}.png')
    (tmp_path/'pics'/'0001.png').write_bytes(b'no image')
    return tmp_path

def talk(ex):
    "Messages that a page would get"
    p,said = ExplorerPanel(ex),[]
    p.send = lambda msg,buffers=None: said.append((msg, buffers))
    ex._widget = p
    return p,said

def test_messages(folder):
    ex = DatasetExplorer(annots(6, folder=folder/'pics'), vocab=VOCAB)
    p,said = talk(ex)
    for k,window in ((0,None),(1,None),(2,[100,60,140,100])): p.heard(dict(thumb=k+1, image=k, window=window))
    assert said[0][0]==dict(thumb=1, box=(0,0,120,80)) and said[0][1][0][:2]==b'\xff\xd8'
    assert said[1][0]['thumb']==2 and 'cannot identify' in said[1][0]['error']        # one that cannot be read is said in its place
    assert said[2][0]==dict(thumb=3, box=(100,60,120,80))
    p.heard(dict(set=dict(filters=dict(cls=[1]), by='boxes', sort='size', ascending=False)))
    assert set(ex.selected.cls)=={'ship'} and p.snapshot['cells'][0]['caption'].startswith('ship')
    key = p.snapshot['cells'][0]['key']
    p.heard(dict(set=dict(mark=key)))
    assert p.snapshot['marks']==1 and p.snapshot['cells'][0]['marked']
    p.heard(dict(save=True))
    assert said[-1][0]['save'].count('\n')==2
    p.heard(dict(set=dict(mark=key))); assert p.snapshot['marks']==0
    p.heard(dict(set=dict(sort='nothing')))
    assert "cannot sort by 'nothing'" in p.snapshot['notes'][-1]
    p.heard(dict(set=dict(reset=True)))
    assert len(ex.selected)==len(ex.table) and not p.snapshot['notes']
    serial = p.snapshot['serial']
    p.heard(dict(set={})); assert p.snapshot['serial']>serial                         # an answer always comes: the page waits for it
    ex.filter(cls='plane'); assert p.snapshot['fields'][0]['want']==[0]               # what is typed is drawn

def test_folders_of_two_formats(tmp_path):
    from rotnb.data.synth.scenes import make_synth
    from rotnb.data.formats.table import read_format
    from rotnb.data.formats.yolo import write_yolo_obb
    d = make_synth(tmp_path/'dota', n_train=3, n_valid=2, size=96)
    ex = DatasetExplorer(d)
    assert list(ex.table.fields['split'].values)==['train','val'] and ex.table.n_images==5
    a = read_format(d, 'train'); names = ex.vocab
    y = tmp_path/'yolo'; (y/'images'/'train').mkdir(parents=True)
    for o in a: (y/'images'/'train'/o.image.name).write_bytes(o.image.read_bytes())
    write_yolo_obb(a, y/'labels'/'train', names[::-1])
    (y/'data.yaml').write_text('path: .\ntrain: images/train\nnames: ['+', '.join(names[::-1])+']\n')
    b = DatasetExplorer(y)
    assert b.vocab==names[::-1]                                                       # in the order of their numbers
    assert b.table.df.cls.astype(str).tolist()==ex.table.df.cls[ex.table.df.split=='train'].astype(str).tolist()

def test_findings():
    a = annots(12)
    n = [len(o) for o in a]; i = int(np.argmax(n)); empty = n.index(0)
    table = pd.DataFrame([dict(image=str(a[i].image), kind='sliver', box=2, message='thin'),
                          dict(image=a[empty].image.name, kind='empty', box=-1, message=''),
                          dict(image='x.png', kind='orphan', box=-1, message=''),
                          dict(image=str(a[i].image), kind='tiny', box=99, message='')])
    for found in (table, table.to_dict('records'), SimpleNamespace(findings=table), list(table.itertuples(index=False))):
        ex = DatasetExplorer(a, found)
        eq(ex.filter(finding='sliver').selected[['image','box']].to_numpy().tolist(), [[i,2]])
        eq(ex.filter(finding='empty').images, [str(a[empty].image)])
        eq(len(ex.filter(finding='tiny').selected), n[i])                             # a box that is not there: its image
        eq(ex.notes, ['1 of 4 findings name no image of this set'])
    whole = table.assign(severity='info', box=[sum(n[:i])+2,-1,-1,-1])                # a report counts boxes through the set
    eq(DatasetExplorer(a, whole).filter(finding='sliver').selected[['image','box']].to_numpy().tolist(), [[i,2]])
    with pytest.raises(ValueError, match='no image'): DatasetExplorer(a, [dict(kind='x')])

def test_the_report_of_the_doctor(tmp_path):
    "Each finding about a box leads to that box"
    from rotnb.data.doctor.report import doctor
    from rotnb.data.synth.scenes import make_synth
    d = make_synth(tmp_path, n_train=4, n_valid=3, size=128)
    f = d/'val'/'labelTxt'/'val0002.txt'
    f.write_text(f.read_text()+'10 10 40 10 40 10.3 10 10.3 ship 0\n')
    (d/'train'/'labelTxt'/'train0001.txt').write_text('')
    rep = doctor(d, images=False)
    ex = DatasetExplorer(d, rep)
    assert not ex.notes and (ex.findings.box>=0).any()
    for r in ex.findings.itertuples():
        if r.box<0: continue
        box = ex.table.df.loc[r.row]
        assert box.cls==rep.boxes.names[r.box] and str(box.file)==r.image
        np.testing.assert_allclose(box[['cx','cy']].to_numpy(float), rep.boxes.quads[r.box].mean(0), atol=.02) # files have two digits
    assert ex.filter(finding='sliver').selected.h.round(1).tolist()==[.3]

# --- results

class Planted(RotatedInterpretation):
    "Images of noise"
    def file(self, i): return f'p{i}.png'
    def _image(self, i): return torch.rand(3, 100, 100, generator=torch.Generator().manual_seed(i))

def planted(seed=0, n=12, drop=.2, noise=1.):
    truth,rng = annots(n, 7),np.random.default_rng(seed)
    acc = APAccumulator(vocab=VOCAB)
    from rotnb.geometry.boxes import qbox2rbox
    for a in truth:
        g,l = qbox2rbox(a.quads).reshape(-1,5),np.array([VOCAB.index(o) for o in a.names], int)
        keep = rng.random(len(g))>drop
        d = g[keep]+rng.normal(0, noise, (keep.sum(),5))*[1,1,1,1,.05]
        wrong = rng.random(len(d))<.2
        found = np.append(np.where(wrong, (l[keep]+1)%3, l[keep]), 0)
        acc.add([dict(boxes=np.concatenate([d, [[50,50,10,5,.3]]]), labels=found, scores=rng.random(len(d)+1))],
                [dict(boxes=g, labels=l, ignore=a.difficult>0)])
    return Planted(SimpleNamespace(dls=SimpleNamespace(vocab=VOCAB)), None, acc, torch.rand(n))

def test_cells_points_and_thresholds():
    interp = planted(n=40)
    ex = ResultsExplorer(interp, score=.1)
    for score,iou in ((.1,.5),(.4,.5),(.4,.8)):
        ex.threshold(score, iou)
        m = confusion_matrix(interp.acc, score, iou)
        assert ex.tables.matrix(ex.table).tolist()==m.tolist()
        names = [*VOCAB,'background']
        for i,j in np.ndindex(*m.shape): assert len(ex.at_cell(names[i], names[j]).selected)==m[i,j], (i,j)
        ex.reset()
        assert ex.table.df.kind.value_counts().sum()>=len(interp.acc.flat().gt_labels)
    for line in ex.lines(.8):
        for k in (0,len(line['x'])//2,-1):
            d = ex.point(line['name'], line['score'][k]).selected
            d = d[d.kind!='ignored']
            assert (d.kind=='correct').mean()==pytest.approx(line['y'][k], abs=1e-5)
    assert ex.score<=line['score'][-1]                                                # the slider gave way
    for bad in (dict(iou=.2), dict(iou=1.2)):
        with pytest.raises(ValueError, match='fg'): ex.threshold(**bad)
    assert ex.iou==.8

def test_fronts_of_truth_stand_beside_those_of_detections():
    "Arrows of both, of the class that has a front only, and none where nobody knows"
    acc = APAccumulator(vocab=VOCAB, symmetry={'plane':360})
    boxes = np.array([[30.,30,20,8,.3],[70,60,20,8,.3]])
    acc.add([dict(boxes=boxes, scores=np.array([.9,.8]), labels=np.array([0,1]), heading=np.array([.4,np.nan]))],
            [dict(boxes=boxes, labels=np.array([0,1]), heading=np.array([.3-np.pi,.3]))])
    interp = Planted(SimpleNamespace(dls=SimpleNamespace(vocab=VOCAB)), None, acc, torch.rand(1))
    (truth,_),(found,_) = ResultsExplorer(interp, score=.1).layers(0)
    np.testing.assert_allclose(truth.heading, [.3-np.pi,np.nan]); np.testing.assert_allclose(found.heading, [.4,np.nan])
    (truth,_),(found,_),(other,_) = ResultsExplorer(interp, interp, score=.85).layers(0)
    np.testing.assert_allclose(found.heading, [.4]); np.testing.assert_allclose(other.heading, [.4])
    plain = ResultsExplorer(planted(n=2)).layers(0)
    assert all(np.isnan(layer.heading).all() for layer,_ in plain)
    assert interp.summary().loc['plane','heading']==0 and np.isnan(interp.summary().loc['ship','heading'])
    assert 'heading' not in planted(n=4).summary()

def test_images_keep_their_contrast():
    "What a loader decodes to, int64, is not stretched as images of 16 bits are"
    ex = ResultsExplorer(planted(n=2))
    ex.interp._image = lambda i: torch.randint(90, 110, (3,100,100))
    a = np.asarray(Image.open(io.BytesIO(ex.thumbs(0)[0])))
    assert a.min()>70 and a.max()<130

def test_filters_outlive_thresholds():
    ex = ResultsExplorer(planted(n=30), score=0.).filter(kind=['localisation','missed'], cls='ship')
    key = ex.selected.key.iloc[0]
    ex.mark(f'b{key}').threshold(.9, .75)
    assert set(ex.selected.kind)<={'localisation','missed'} and set(ex.selected.cls)<={'ship'}
    assert ex.marked.key.tolist()==[key]
    assert ex.mark(f'b{key}', off=True).marked.empty

def test_two_models():
    a,b = planted(0, 30),planted(1, 30, .4)
    ex = ResultsExplorer(a, b, ('A','B'), score=0.)
    f = a.acc.flat(); found = [o.errors.gt_kind==ERROR_KINDS.index('correct') for o in (a,b)]
    for name,m in (('only A',found[0]&~found[1]),('only B',~found[0]&found[1]),('both',found[0]&found[1])):
        rows = ex.reset().filter(versus=name).selected
        assert sorted(rows.truth)==np.flatnonzero(m&~f.ignore).tolist()
    ex.reset().arrange('boxes', 'differs', False)
    first = [ex.table.df.versus.iat[o] for o in ex.shown()[1][:5]]
    assert all(str(o).startswith('only') for o in first)
    with pytest.raises(ValueError, match='same images and ground truth'): ResultsExplorer(a, planted(0, 29))

def test_nothing_found_and_nothing_there():
    none = APAccumulator(vocab=VOCAB)
    none.add([dict(boxes=np.empty((0,5)), labels=[], scores=[])]*2,
             [dict(boxes=[[9.,9,8,4,0]], labels=[1]), dict(boxes=np.empty((0,5)), labels=[])])
    ex = ResultsExplorer(Planted(SimpleNamespace(dls=SimpleNamespace(vocab=VOCAB)), None, none, torch.zeros(2)))
    s = ex.snapshot()
    json.dumps(s, allow_nan=False)
    assert [c['caption'] for c in s['cells']]==['1 box','0 boxes']
    assert ex.filter(kind='missed').arrange('boxes').snapshot()['cells'][0]['caption']=='ship, missed'

# --- what is taken away

def test_exports(tmp_path):
    ex = ResultsExplorer(planted(n=9), planted(3, 9), score=.2).filter(kind=['class','missed','localisation'])
    n = len(ex.selected)
    assert len(pd.read_csv(ex.export(tmp_path/'a.csv')))==n and len(json.loads(ex.export(tmp_path/'a.json').read_text()))==n
    assert ex.export(tmp_path/'a.txt').read_text().split()==list(dict.fromkeys(ex.selected.file))
    with pytest.raises(ValueError, match='a list ends in'): ex.export(tmp_path/'a.xlsx')
    assert ex.to_png(tmp_path/'a.png', 4).stat().st_size>20_000
    text = ex.to_html(tmp_path/'a.html', n=4, side=80).read_text(encoding='utf-8')
    assert not re.findall(r'(?:src|href)="?https?:|import[^;]*https?:|@import|url\(http', text)

def test_names_cannot_break_a_page(tmp_path):
    a = annots(3)
    a[0] = Annot(Path('</script><b>x.png'), a[0].quads, a[0].names, a[0].difficult)
    text = DatasetExplorer(a, title='<i>&').to_html(tmp_path/'a.html').read_text(encoding='utf-8')
    assert '</script><b>' not in text and '<i>&' not in text.split('<script')[0]

def test_images_that_were_looked_at_are_let_go(tmp_path):
    "Each opened image is a widget of its own; the one before it is closed, on both sides"
    from ipywidgets.widgets.widget import _instances
    a = annots(4, folder=tmp_path)
    for o in a: Image.new('RGB', (100,100)).save(o.image)
    ex = DatasetExplorer(a)
    ex.open('i0'); n = len(_instances)
    for i in (1,2,3,1): ex.open(f'i{i}')
    assert len(_instances)==n and ex._large.children[0].comm is not None
