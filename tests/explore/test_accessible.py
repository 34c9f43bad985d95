"Widgets for weak eyes, for screen readers and for the keyboard alone, in light and in dark"
import os
from pathlib import Path
import numpy as np, pytest
from legible import contrast, faint, unnamed
from planted import pages, synth
from rotnb.plot.draw import PALETTE

SHOTS = os.environ.get('ROTNB_SHOTS') and Path(os.environ['ROTNB_SHOTS'])

def look(page, root, name):
    "Both themes of a page without a kernel"
    for scheme in ('light','dark'):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(100)
        if SHOTS: page.screenshot(path=SHOTS/f'{name}-{scheme}.png')
        bad,seen = faint(page, root)
        assert seen>5 and not bad, (scheme, bad)
    assert not (bad := unnamed(page, root)), bad

def test_explorers(page, synth, tmp_path):
    page.set_viewport_size(dict(width=1300, height=1300))
    for name,ex in pages(synth).items():
        page.goto(ex.to_html(tmp_path/f'{name}.html', n=12, side=120).as_uri())
        page.wait_for_selector('.rn-thumb image')
        page.evaluate('() => document.querySelector("[data-widget]").explorer.send({filters: {cls: [0, 2]}, side: "side"})')
        page.wait_for_selector('.rn-chip')
        look(page, '.rn-explorer', f'explorer-{name}')

def test_arrow_keys_choose_a_range_and_a_point(page, synth, tmp_path):
    page.goto(pages(synth)['results'].to_html(tmp_path/'results.html', n=12, side=120).as_uri())
    page.wait_for_selector('.rn-thumb image')
    page.locator('[data-field=size] svg').focus()
    for key in ('ArrowRight','ArrowRight','Shift+ArrowRight'): page.keyboard.press(key)
    want = page.evaluate('() => document.querySelector("[data-widget]").explorer.snapshot().fields.find(f => f.name === "size")')
    assert want['want']==[want['values'][1],want['values'][3]]
    page.keyboard.press('Escape')
    page.wait_for_function('() => !document.querySelector(".rn-chip")')
    page.locator('.rn-curves').focus()
    for key in ('ArrowDown','ArrowRight'): page.keyboard.press(key)
    said = page.locator('.rn-curves').get_attribute('aria-label')
    assert 'precision' in said and said==page.locator('.rn-readout').text_content()
    page.keyboard.press('Enter')
    page.wait_for_selector('.rn-chip')
    page.locator('.rn-thumb .rn-panes').first.focus()
    page.keyboard.press('Enter')
    page.wait_for_function('() => document.querySelector("dialog .rn-viewer")?.rotnb?.seen>0')

def test_viewer(page, tmp_path):
    from rotnb.explore.viewer import view
    v = view(np.full((120,180,3), 200, np.uint8), dict(boxes=[[60.,60,40,20,0],[90,90,30,9,.4]], labels=['ship','car'], ignore=[0,1]),
             dict(boxes=[[61.,60,40,20,0]], labels=['ship'], scores=[.7]), vocab=['ship','car'])
    page.goto(f'file://{v.to_html(tmp_path/"v.html")}')
    page.wait_for_function('() => document.querySelector(".rn-viewer")?.rotnb?.seen==3')
    page.locator('.rn-class', has_text='car').click()                  # off: struck through, and to be read all the same
    page.locator('.rn-button', has_text='?').click()
    page.locator('.rn-canvas').hover(position=dict(x=5, y=5))
    look(page, '.rn-viewer', 'viewer')
    assert page.locator('.rn-class', has_text='ship').get_attribute('title')=='Show or hide ship: 1 in truth, 1 in prediction'

FIXER = """
import numpy as np
from PIL import Image
from pathlib import Path
from rotnb.explore.label_fixer import LabelFixer
for o in ('images','labelTxt'): (Path('set')/o).mkdir(parents=True)
for n in 'ab':
    Image.new('RGB', (300,200), (90,120,150)).save(f'set/images/{n}.png')
    Path(f'set/labelTxt/{n}.txt').write_text('100 100 180 100 180 130 100 130 ship 0\\n20 20 40 20 40 30 20 30 car 0\\n')
f = LabelFixer('set', journal='journal', queue=[('a.png',.8,'1 missed')])
f"""

def test_label_fixer(lab, page):
    "Both themes of JupyterLab; the list of keys is the table that handles them"
    lab.open(page, 'fixer.ipynb', FIXER.replace('\\\\n', '\\n'))
    page.wait_for_function('() => document.querySelector(".rn-viewer")?.rotnb?.seen==2')
    page.locator('.rn-button', has_text='?').click()
    said = page.locator('.rn-keys').inner_text()
    for words in ('Ctrl+Z','Ctrl+Y','Ctrl+S','round handle','Shift: 10','difficult','take a prediction'): assert words in said, words
    assert said.count('nudge')==1
    for theme in ('JupyterLab Light','JupyterLab Dark'):
        page.evaluate('theme => jupyterapp.commands.execute("apputils:change-theme", {theme})', theme)
        page.wait_for_function('dark => document.body.dataset.jpThemeLight==String(!dark)', arg='Dark' in theme)
        page.wait_for_timeout(500)
        if SHOTS: page.screenshot(path=SHOTS/f'fixer-{theme[11:].lower()}.png')
        bad,seen = faint(page, '.rn-viewer')
        assert seen>20 and not bad, (theme, bad)
    assert not unnamed(page, '.rn-viewer')

def test_captions_on_their_plates():
    "The canvas writes black or white on the colour of a class, as `ink` in overlay.js says and `draw` does"
    from rotnb.plot.draw import _ink
    for color in PALETTE:
        rgb = np.array([int(color[i:i+2], 16) for i in (1,3,5)])
        assert contrast(rgb, dict(black=[0,0,0], white=[255]*3)[_ink(rgb)])>=4.5, color
