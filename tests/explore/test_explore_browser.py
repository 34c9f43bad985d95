"Explorers in a real JupyterLab and a real browser: brush, click, mark, and the page without a kernel beside the Python model"
import os, random
from pathlib import Path
from planted import PLANTED, pages, synth

SHOTS = os.environ.get('ROTNB_SHOTS')  # a folder for screenshots, to be looked at

def shot(page, name):
    if SHOTS: page.wait_for_timeout(300); page.screenshot(path=f'{SHOTS}/{name}.png')

def settled(page):
    "All images in view have come; those below are not asked for"
    page.locator('.rn-thumb').first.scroll_into_view_if_needed()
    page.wait_for_function("""() => document.querySelector('.rn-thumb image') && ![...document.querySelectorAll('.rn-wait')].some(o => {
        const r = o.getBoundingClientRect(); return r.top>110 && r.bottom<innerHeight-40 })""")

def drag(page, field, a, b):
    "Brush a histogram from one share of its width to another"
    box = page.locator(f'[data-field={field}] svg').bounding_box()
    at = lambda t: (box['x']+box['width']*(6+240*t)/252, box['y']+box['height']*.4)
    page.mouse.move(*at(a)); page.mouse.down(); page.mouse.move(*at((a+b)/2), steps=3); page.mouse.move(*at(b), steps=3); page.mouse.up()

def test_dataset_explorer(lab, page, synth):
    lab.open(page, 'dataset.ipynb', f'''
from rotnb.explore.dataset_explorer import DatasetExplorer
ex = DatasetExplorer({str(synth)!r}, [dict(image=3, box=0, kind='sliver', message='thin'), dict(image=5, kind='dark')], title='synthetic')
ex''', wait='.rn-thumb image')
    settled(page)
    assert page.locator('.rn-thumb').count()==24 and page.locator('.rn-thumb path.rn-box').count()>24
    shot(page, 'dataset')
    every = int(lab.kernel(page, 'print(len(ex.selected))'))
    drag(page, 'size', .55, .85)                                       # brush
    page.wait_for_selector('.rn-chip')
    page.wait_for_timeout(300)
    lo,hi,least,most,n,shown = map(float, lab.kernel(page, '''
x = ex.selected["size"]; print(*ex.filters["size"], x.min(), x.max(), len(x), sum(ex.snapshot()["fields"][1]["shown"]))''').split())
    assert 0<lo<=least<most<hi and 0<n<every
    assert f'{int(n):,} of' in page.locator('.rn-count').inner_text() and shown>n    # its own histogram keeps all
    page.locator('[data-field=cls] button', has_text='ship').click()
    page.wait_for_function("() => document.querySelectorAll('.rn-chip').length==3")
    page.wait_for_timeout(300)
    assert lab.kernel(page, 'print(*ex.selected.cls.unique())')=='ship'
    shot(page, 'dataset_brushed')
    page.locator('[data-set=by]').select_option('boxes')
    page.wait_for_selector('.rn-thumb[data-key^=b] image')
    page.locator('[data-set=sort]').select_option('size')
    least = lab.kernel(page, 'print(ex.selected.nsmallest(1, "size").key.iloc[0])')
    page.wait_for_selector(f'.rn-thumb[data-key=b{least}]:first-child')
    settled(page)
    page.locator('.rn-thumb').nth(1).hover()
    page.locator('.rn-thumb').nth(1).locator('.rn-star').click()       # mark
    page.wait_for_selector('[data-save]')
    with page.expect_download() as d: page.locator('[data-save]').click()
    assert Path(d.value.path()).read_text().count('\n')==2
    page.locator('.rn-thumb').first.click()                            # the large image, on that box
    page.wait_for_selector('.rn-viewer .rn-canvas')
    page.wait_for_function('() => document.querySelector(".rn-viewer").rotnb.seen>0')
    page.locator('.rn-viewer').first.scroll_into_view_if_needed()
    shot(page, 'dataset_large')
    assert lab.kernel(page, 'v = ex._large.children[0]; print(v.focus is not None, len(v.rows[0])>0)')=='True True'
    page.locator('.rn-chip', has_text='clear filters').click()
    page.wait_for_function("() => !document.querySelector('.rn-chip')")
    page.locator('[data-field=finding] button', has_text='sliver').click()
    page.wait_for_timeout(400)
    assert lab.kernel(page, 'print(ex.selected[["image","box"]].to_numpy().tolist())')=='[[3, 0]]'
    assert 'sliver: thin' in page.locator('.rn-thumb .rn-caption').inner_text()
    lab.kernel(page, 'ex.reset().filter(cls="plane")')                 # what is typed is drawn
    page.wait_for_function("() => document.querySelector('.rn-chip')?.textContent.startsWith('class plane')")

def test_results_explorer(either, page, synth):
    lab = either
    page.set_viewport_size(dict(width=1500, height=1200))
    lab.open(page, 'results.ipynb', PLANTED.replace('FOLDER', repr(str(synth))),
             'ex = ResultsExplorer(planted(0), planted(1), ["A","B"])\nex', wait='.rn-thumb image')
    settled(page)
    shot(page, 'results')
    i,j,n = map(int, lab.kernel(page, '''
m = ex.tables.matrix(ex.table).copy(); np.fill_diagonal(m, 0); m[-1] = 0
i,j = np.unravel_index(m.argmax(), m.shape); print(i, j, m[i,j])''').split())
    page.locator(f'[data-cell="{i},{j}"]').click()                     # a cell of the confusion matrix
    page.wait_for_selector('.rn-cell.rn-on')
    page.wait_for_timeout(400); settled(page)
    assert page.locator('.rn-thumb').count()==n==int(lab.kernel(page, 'print(len(ex.selected))'))
    page.locator('[data-set=side]').select_option('side')              # truth, prediction and the other's, side by side
    page.wait_for_function("() => document.querySelector('.rn-thumb .rn-panes').children.length==3")
    shot(page, 'results_cell')
    page.locator('.rn-cell.rn-on').click()
    page.wait_for_function("() => !document.querySelector('.rn-cell.rn-on')")
    before = page.locator('.rn-count').inner_text()
    page.locator('input[data-set=score]').fill('0.6')                  # the slider matches anew
    page.wait_for_function('t => document.querySelector(".rn-count").textContent!=t', arg=before)
    page.wait_for_timeout(300)
    assert lab.kernel(page, 'print(ex.score, ex.table.df.score.min()>=.6)')=='0.6 True'
    page.locator('input[data-set=iou]').fill('0.75')
    page.wait_for_function("() => document.querySelector('.rn-curves-panel').textContent.includes('IoU 0.75')")
    box = page.locator('.rn-curves').bounding_box()
    k = box['width']/348
    name,x,y = lab.kernel(page, '''
l = max(ex.lines(.75), key=lambda o: len(o["x"])); i = len(l["x"])//2
print(l["name"], l["x"][i], l["y"][i])''').split()
    page.mouse.click(box['x']+k*(34+300*float(x)), box['y']+k*(8+230*(1-float(y))))   # a point of the PR curve
    page.wait_for_function("() => document.querySelectorAll('.rn-chip').length==3")
    settled(page)
    got = lab.kernel(page, '''
d,p = ex.selected[ex.selected.kind!="ignored"],ex.picked
l = [o for o in ex.lines(.75) if o["name"]==p["cls"]][0]
print(set(d.cls)=={p["cls"]}, abs((d.kind=="correct").mean()-l["y"][l["score"].index(p["score"])])<1e-5, ex.score<=p["score"])''')
    assert got=='True True True'
    shot(page, 'results_point')
    page.locator('.rn-thumb').first.click()
    page.wait_for_function('() => document.querySelector(".rn-viewer")?.rotnb?.seen>0')
    assert lab.kernel(page, 'print(*[o.name for o in ex._large.children[0].rows])')=='truth prediction B'
    lab.kernel(page, 'ex.reset()')
    page.wait_for_function("() => !document.querySelector('.rn-chip')")
    page.locator('[data-field=cls] button', has_text='ship').focus()
    for k in ('x','Enter'): page.keyboard.press(k)                     # neither cuts the cell nor begins to edit it
    page.wait_for_selector('.rn-chip')
    assert page.locator('.jp-CodeCell').count()==2 and lab.kernel(page, 'print(*ex.selected.cls.unique())')=='ship'

# --- what is hard to come by with a kernel

TWO = """async ([text, css, snapshot]) => {
    const model = { heard: [], sent: [], get: () => snapshot, set() {}, send(m) { this.sent.push(m) },
        on(name, f) { this.heard.push([name, f]) }, off(name, f) { this.heard = this.heard.filter(o => o[1] !== f) },
        tell(name, ...args) { for (const [n, f] of [...this.heard]) if (n === name) f(...args) } }
    document.head.append(Object.assign(document.createElement('style'), { textContent: css }))
    const { render } = (await import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })))).default
    const views = [0, 1].map(() => document.body.appendChild(document.createElement('div')))
    globalThis.T = { model, views, free: views.map(el => render({ model, el })) } }"""

ANSWERS = """() => { for (let asked; (asked = T.model.sent.pop()); )               // in another order than the questions
    T.model.tell('msg:custom', { thumb: asked.thumb, box: [asked.image, 0, asked.image + 1, 1] }, [new Uint8Array(1)]) }"""

def test_two_views_of_one_explorer(page, synth, tmp_path):
    "Both hear every answer: each image goes where it belongs. The keyboard stays, lateness is said, and an ended view hears nothing more"
    from rotnb.explore.dataset_explorer import DatasetExplorer
    from rotnb.explore.views import ExplorerPanel
    ex = DatasetExplorer(synth); s = ex.snapshot(); s['cells'] = s['cells'][:6]
    (tmp_path/'x.html').write_text('<!DOCTYPE html><body>'); page.goto((tmp_path/'x.html').as_uri())
    page.set_viewport_size(dict(width=1300, height=3000))
    page.evaluate(TWO, [str(ExplorerPanel._esm), str(ExplorerPanel._css), s])
    page.wait_for_function('() => T.model.sent.length==6')
    page.evaluate('() => { T.views[1].explorer.patience.ms = 200 }')
    page.evaluate(ANSWERS)
    page.wait_for_function('() => document.querySelectorAll("image").length>=6')
    page.evaluate(ANSWERS)
    page.wait_for_function('() => document.querySelectorAll("image").length==12')
    got = page.evaluate('''() => [...document.querySelectorAll('.rn-thumb')].map(o =>
        [o.dataset.key, 'i' + o.querySelector('image').getAttribute('x')])''')
    assert all(a==b for a,b in got), got
    page.evaluate("() => { T.views[1].querySelector('.rn-class-bar').focus(); T.model.tell('change:snapshot') }")
    assert page.evaluate("() => document.activeElement===T.views[1].querySelector('.rn-class-bar')")
    page.keyboard.press('Enter')                                       # a filter that nobody answers
    page.wait_for_selector('.rn-late:visible')
    shot(page, 'late_explorer')
    page.evaluate("() => T.model.tell('change:snapshot')")
    page.wait_for_selector('.rn-late', state='hidden')
    page.evaluate("() => { T.model.send = () => { throw new Error('Kernel is dead') } }")
    page.keyboard.press('Enter')
    page.wait_for_selector('.rn-late:visible')
    assert 'Kernel is dead' in page.locator('.rn-late:visible').inner_text()
    assert page.evaluate('() => { T.free.forEach(f => f()); return T.model.heard.length }')==0

# --- the page without a kernel

def test_pages_without_a_kernel(page, synth, tmp_path):
    "Filters in JavaScript leave what filters in Python leave, field by field"
    rng = random.Random(0)
    for name,ex in pages(synth).items():
        page.goto(ex.to_html(tmp_path/f'{name}.html', n=40, side=200).as_uri())
        page.wait_for_selector('.rn-thumb image')
        shot(page, f'page_{name}')
        fields = list(ex.table.fields.values())
        for _ in range(12):
            want = {}
            for f in rng.sample(fields, rng.randint(1, 3)):
                n = len(f)
                if f.x is None: want[f.name] = sorted(rng.sample(range(n), rng.randint(1, min(n, 4))))
                else:
                    i = rng.randrange(n); j = rng.randint(i+1, n)
                    want[f.name] = [f.values[i] if i else None, f.values[j] if j<n else None]
            seen = page.evaluate('''want => {
                const ex = document.querySelector("[data-widget]").explorer
                ex.send({ reset: true }); ex.send({ filters: want })
                return [ex.snapshot().counts, ex.snapshot().fields.map(f => f.shown)] }''', want)
            ex.filters = want; ex._changed()
            s = ex.snapshot()
            assert seen[0]==s['counts'], want
            assert seen[1]==[f['shown'] for f in s['fields']], want
        ex.reset()
    page.evaluate('() => document.querySelector("[data-widget]").explorer.send({reset: true})')
    page.locator('.rn-cell[role=button]').first.click()                # results: a cell, then the large image
    page.wait_for_selector('.rn-thumb[data-key^=b] image')
    page.locator('.rn-thumb').first.click()
    page.wait_for_function('() => document.querySelector("dialog .rn-viewer")?.rotnb?.seen>0')
    shot(page, 'page_large')
    page.keyboard.press('Escape')
    page.wait_for_function("() => !document.querySelector('dialog')")
    line = ex.lines(.5)[0]
    page.evaluate('p => document.querySelector("[data-widget]").explorer.send({point: p})', dict(cls=line['name'], score=line['score'][0]))
    ex.point(line['name'], line['score'][0])
    assert page.locator('.rn-count').inner_text()==ex.snapshot()['counts']
