"Edits and filters are computed in Python and, for previews and for pages without a kernel, in JavaScript: one table of cases for both"
import json
from pathlib import Path
import numpy as np, pandas as pd, pytest
from rotnb.explore.box_edits import BoxEdits, EditError
from rotnb.explore.box_table import BOX, BoxTable, class_field, in_order, number_field
from scripts import node

HERE = Path(__file__).parent
EDITS,FILTERS = (json.loads((HERE/name).read_text()) for name in ('edits.json','filters.json'))
DONE,REFUSED = ([case for case in EDITS if ('error' in case)==refused] for refused in (False,True))
named = dict(ids=lambda case: case['name'])

# --- edits

def apply(case):
    "The quad that an edit of `box_edits` leaves"
    edits = BoxEdits([(case['quad'],'ship',0)] if 'quad' in case else [])
    args = {key:float('nan') if value is None else value for key,value in case['edit'].items()}
    args |= dict(name='ship') if args['op']=='add' else dict(id=0)
    return edits[edits.apply(**args)].quad

@pytest.mark.parametrize('case', DONE, **named)
def test_edits_in_python(case):
    np.testing.assert_allclose(apply(case), case['expected'], atol=case.get('tolerance', 1e-5))

@pytest.mark.parametrize('case', REFUSED, **named)
def test_edits_refused(case):
    with pytest.raises(EditError, match=case['error']): apply(case)

PREVIEWS = 'data.map(({ quad, edit: { op, ...args } }) => [...edited(op, quad && Float64Array.from(quad), args)])'

def test_previews_in_javascript():
    previews = node(['common','boxes','edits'], PREVIEWS, DONE)
    assert len(previews)==len(DONE)
    for case,preview in zip(DONE, previews):
        np.testing.assert_allclose(preview, case['expected'], atol=case.get('tolerance', 1e-5), err_msg=case['name'])

def test_previews_are_what_python_makes():
    "Of rectangles and of what is nearly one, either way round, dragged anywhere"
    rng,cases = np.random.default_rng(0),[]
    for i in range(300):
        centre,theta,(w,h) = rng.uniform(50, 400, 2),rng.uniform(-np.pi, np.pi),rng.uniform(8, 90, 2)
        u,v = np.array([np.cos(theta),np.sin(theta)])*w/2,np.array([-np.sin(theta),np.cos(theta)])*h/2*(-1)**i
        quad = np.stack([centre-u-v, centre+u-v, centre+u+v, centre-u+v])
        quad += (0,.3,1.)[i%3]*rng.uniform(-1, 1, (4,2))
        x,y = rng.uniform(0, 450, 2).tolist()
        resize = dict(op='resize', handle=int(rng.integers(8)), x=x, y=y)
        edit = resize if i%4 else dict(op='rotate', theta=float(rng.uniform(-9, 9)), snap=bool(i%8))
        case = dict(quad=quad.ravel().tolist(), edit=edit)
        try: cases.append((case,apply(case)))
        except EditError: continue                                # corners that would cross: the preview shows it, Python refuses it
    assert len(cases)>200
    previews = node(['common','boxes','edits'], PREVIEWS, [case for case,_ in cases])
    np.testing.assert_allclose(previews, [made for _,made in cases], atol=1e-6)

# --- filters

def number(values): return np.array([np.nan if value is None else value for value in values])

def table():
    image,fields = FILTERS['image'],[]
    for field in FILTERS['fields']:
        name,extra = field['name'],dict(per=field['per'])
        if field['kind']=='number':
            fields.append(number_field(name, name, number(field['x']), field['values'], period=field.get('period'), **extra))
        else:
            rows = np.array(field['rows']) if 'rows' in field else None
            fields.append(class_field(name, name, field['codes'], field['values'], rows=rows, **extra))
    centre = np.where(np.array(FILTERS['real'])>0, 1., np.nan)
    df = pd.DataFrame(dict(image=image, key=range(len(image)), **{column:centre for column in BOX}))
    return BoxTable(df.assign(**{field.name:field.x for field in fields if field.x is not None}), fields, max(image)+1)

@pytest.mark.parametrize('case', FILTERS['cases'], **named)
def test_filters_in_python(case):
    t = table()
    assert np.flatnonzero(t.mask(case['filters'])).tolist()==case['left']
    counts = t.counts(case['filters'])
    for name,expected in case.get('counts', {}).items(): assert counts[name].tolist()==expected, name

@pytest.mark.parametrize('bins', [False,True], ids=['numbers','bins'])
def test_filters_in_javascript(bins):
    "A page holds the numbers of a field, or only their bins"
    fields = []
    for field in FILTERS['fields']:
        python = table().fields[field['name']]
        codes = python.codes.tolist()
        x = None if bins or python.x is None else [None if value!=value else value for value in python.x.tolist()]
        fields.append({**field, 'codes':codes, 'x':x})
    code = '''data.cases.map(({ filters }) => {
        const left = masks(data.fields, filters, data.image.length), rows = [...left[''].keys()].filter(i => left[''][i])
        const counts = data.fields.map(f => [f.name, counted(f, left[f.name] || left[''], data.image)])
        return { left: rows, counts: Object.fromEntries(counts) } })'''
    for case,got in zip(FILTERS['cases'], node(['filters'], code, {**FILTERS, 'fields':fields}), strict=True):
        assert got['left']==case['left'], case['name']
        for name,expected in case.get('counts', {}).items(): assert got['counts'][name]==expected, (case['name'],name)

def test_orders():
    "Rows without a number come last, whichever way"
    t = table()
    for order in FILTERS['orders']:
        rows = in_order(t, np.ones(len(t), bool), 'boxes', order['column'], order['ascending'])
        assert rows.tolist()==order['rows'], order
    columns = {field['name']:field['x'] for field in FILTERS['fields'] if 'x' in field}
    rows = [dict(row=i, sorts={name:x[i] for name,x in columns.items()}) for i in range(len(FILTERS['image']))]
    code = 'data.orders.map(({ column, ascending }) => sorted(data.rows, column, ascending).map(o => o.row))'
    assert node(['filters'], code, dict(rows=rows, orders=FILTERS['orders']))==[order['rows'] for order in FILTERS['orders']]
