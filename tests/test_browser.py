"The widgets in a real JupyterLab and a real browser: what a person does with wheel, pointer and keys"
import pytest

VIEW = 'document.querySelector(".rotnb").rotnb'
SCENE = '''
import numpy as np
from rotnb.explore.viewer import view
r = np.random.default_rng(0)
'''

UNDER = f'([clientX, clientY]) => {VIEW}.world({{clientX, clientY}})'

def canvas(page): return page.locator('.rn-canvas').first.bounding_box()
def at(page, x, y):
    "Where a picture pixel is on the page"
    b,(sx,sy) = canvas(page),page.evaluate(f'([x, y]) => {VIEW}.screen(x, y)', [x,y])
    return b['x']+sx,b['y']+sy

def test_look(lab, page):
    "Load, zoom about the pointer, hover, select, switch layers by button and key, score; the notebook's own keys stay out of it"
    lab.open(page, 'look.ipynb', SCENE+'''
truth = dict(boxes=np.array([[150.,100,80,30,.5],[300,200,40,40,0]]), labels=['ship','car'], ignore=[0,1])
pred = dict(boxes=np.array([[152.,101,80,30,.45],[60,60,30,20,1.]]), labels=['ship','ship'], scores=np.array([.9,.2]), notes=['IoU 0.84','background'])
v = view(r.integers(0, 255, (400,600,3), dtype=np.uint8), truth, pred, vocab=['ship','car'])
v''')
    page.wait_for_function(f'() => {VIEW}.seen==4')
    x,y = map(round, at(page, 150, 100))                                          # a wheel event has whole pixels
    page.mouse.move(x, y)
    below = page.evaluate(UNDER, [x,y])
    page.wait_for_selector('.rn-tip:visible')
    tip = page.locator('.rn-tip').inner_text()
    assert 'ship' in tip and '80.0 × 30.0 px' in tip and 'score' in tip and '0.900' in tip and 'IoU 0.84' in tip
    for _ in range(10): page.mouse.wheel(0, -120)
    page.wait_for_function(f'() => {VIEW}.scale>5')
    assert page.evaluate(UNDER, [x,y])==pytest.approx(below, abs=1e-6)            # zoom keeps the point below the pointer
    x,y = at(page, 150, 100)
    page.mouse.down(); page.mouse.move(x+50, y+20, steps=3); page.mouse.up()
    assert abs(at(page, 150, 100)[0]-x-50)<2
    page.keyboard.press('f')
    page.wait_for_function(f'() => {VIEW}.fitted')
    page.mouse.click(*at(page, 300, 200))
    page.wait_for_timeout(100)
    assert lab.kernel(page, 'print(v.selected)')=="{'layer': 'truth', 'index': 1}"
    page.keyboard.press('1')                                                      # the layer of truth
    page.wait_for_function(f'() => {VIEW}.seen==2')
    page.locator('.rn-switch', has_text='truth').locator('input').check()
    page.locator('.rn-class', has_text='car').click()
    page.wait_for_function(f'() => {VIEW}.seen==3')
    page.locator('.rn-slider', has_text='score').locator('input').fill('0.5')
    page.wait_for_function(f'() => {VIEW}.seen==2')
    page.wait_for_timeout(200)
    assert lab.kernel(page, 'print(v.hidden, v.hidden_classes, v.score, [o.tolist() for o in v.shown()])')=="[] ['car'] 0.5 [[True, False], [True, False]]"
    page.locator('.rn-canvas').focus()
    for k in ('x','d','d','0','0','a'): page.keyboard.press(k)                    # cut, delete, restart, new cell: were the notebook to hear them
    page.wait_for_timeout(200)
    assert page.locator('.jp-CodeCell').count()==1 and page.locator('.jp-Dialog').count()==0
    assert lab.kernel(page, 'print(v.vocab)')=="['ship', 'car']"
    assert '<polygon' in page.evaluate(f'() => {VIEW}.svg()')
    with page.expect_download() as d: page.locator('.rn-button', has_text='PNG').click()
    assert d.value.suggested_filename=='picture.png'

def test_500_boxes_at_interactive_rate(lab, page):
    lab.open(page, 'many.ipynb', SCENE+'''
n = 600
boxes = np.stack([r.uniform(0, 2000, n), r.uniform(0, 2000, n), r.uniform(20, 90, n), r.uniform(8, 40, n), r.uniform(-1.5, 1.5, n)], -1)
v = view(r.integers(0, 255, (2000,2000,3), dtype=np.uint8), dict(boxes=boxes, labels=r.integers(0, 16, n), scores=r.random(n)))
v''')
    page.wait_for_function(f'() => {VIEW}.seen==600 && {VIEW}.picture.halves.length')
    drawn,gaps = page.evaluate(f'''async () => {{
        const v = {VIEW}, gaps = [], frame = () => new Promise(requestAnimationFrame);
        v.frames.length = 0;
        let last = await frame();
        for (let i = 0; i < 60; i++) {{ v.zoom_at(i % 2 ? 1.02 : 1/1.02, 200, 150); const t = await frame(); gaps.push(t - last); last = t; }}
        return [v.frames, gaps]; }}''')
    mid = lambda o: sorted(o)[len(o)//2]
    print(f'600 boxes: {mid(drawn):.1f} ms to draw, {mid(gaps):.1f} ms from frame to frame')
    assert len(drawn)>=50 and mid(drawn)<25 and mid(gaps)<100

def test_a_scene_of_20000_px(lab, page):
    "Tiles come from the kernel; what is seen at level 0 is the very pixel; a corner 19990 px out lies where it should"
    lab.open(page, 'scene.ipynb', SCENE+'''
class Scene:
    height = width = 20000
    read_px = 0
    def read(self, x, y, w, h, scale=1.):
        "Red tells the column, green the row, of each pixel"
        k = round(1/scale); X,Y = np.meshgrid(np.arange(x, x+w, k), np.arange(y, y+h, k))
        Scene.read_px += X.size
        return np.stack([X%251, Y%241, 0*X+60], -1).astype(np.uint8)
v = view(Scene(), np.array([[19990.,19990,10,6,0.]]))
v''')
    page.wait_for_function(f'() => {VIEW}.seen==1')
    page.mouse.click(canvas(page)['x']+20, canvas(page)['y']+20)
    page.keyboard.press('n')                                                      # next box: far too small to see, so it is zoomed to
    page.wait_for_function(f'() => {VIEW}.scale>4 && {VIEW}.picture.tiles.size>0 && !{VIEW}.pending', timeout=15000)
    page.wait_for_timeout(300)
    px = page.evaluate(f'''() => {{
        const v = {VIEW}, c = v.canvas.getContext('2d');
        v.model.set('hidden', ['truth']); v.draw();
        return [[19987, 19985], [19999, 19999], [19990, 19995]].map(([x, y]) => {{
            const [a, b] = v.screen(x + .5, y + .5).map(o => Math.floor(o * v.dpr));
            return [x, y, ...c.getImageData(a, b, 1, 1).data]; }}) }}''')
    for x,y,*rgb in px: assert rgb==[x%251,y%241,60,255], (x,y,rgb)
    assert int(lab.kernel(page, 'print(Scene.read_px)'))<1024**2*1.7+20*512**2
