"What a person with weak eyes, with a screen reader or without a mouse meets on a page: measured in the browser"
import io
import numpy as np
from PIL import Image

# Every piece of text below an element: its words, place, size and colour, the opacities around it multiplied in
TEXTS = r"""root => {
    const found = [], walker = document.createTreeWalker(document.querySelector(root), NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
        const el = walker.currentNode.parentElement, words = walker.currentNode.textContent.trim(), style = getComputedStyle(el)
        if (!words || el.closest('[hidden],:disabled,style,title,option')) continue
        const range = document.createRange(); range.selectNodeContents(walker.currentNode)
        const r = range.getBoundingClientRect()
        if (r.width < 2 || r.height < 2 || style.visibility === 'hidden') continue
        let alpha = 1
        for (let o = el; o; o = o.parentElement) alpha *= getComputedStyle(o).opacity
        const drawn = el instanceof SVGElement ? style.fill : style.color
        const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }), ctx = canvas.getContext('2d')
        ctx.fillStyle = drawn; ctx.fillRect(0, 0, 1, 1)
        const [red, green, blue, a] = ctx.getImageData(0, 0, 1, 1).data
        const k = el instanceof SVGElement && el.ownerSVGElement ? el.getScreenCTM().a : 1
        if (alpha) found.push({ words, box: [r.left, r.top, r.right, r.bottom], px: parseFloat(style.fontSize) * k,
            rgb: [red, green, blue], alpha: alpha * a / 255, of: el.getAttribute('class') || el.tagName })
    }
    return found }"""

def luminance(rgb):
    "Of colours 0 to 255, by WCAG"
    c = np.asarray(rgb, float)/255
    return np.where(c<=.04045, c/12.92, ((c+.055)/1.055)**2.4)@[.2126,.7152,.0722]

def contrast(a, b):
    "Of two colours, or of many: 1 to 21"
    a,b = luminance(a)+.05,luminance(b)+.05
    return np.maximum(a, b)/np.minimum(a, b)

def faint(page, root, least=4.5, below=18):
    "(words, class, contrast) of text under `below` px that what lies behind it hides; and how many texts were looked at"
    texts = [o for o in page.evaluate(TEXTS, root) if o['px']<below]
    hide = page.add_style_tag(content='* { color: transparent !important } text { fill: transparent !important }')
    ground = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert('RGB'), float)
    hide.evaluate('o => o.remove()')
    res,seen = [],0
    for o in texts:
        x0,y0,x1,y1 = (max(int(round(v)), 0) for v in o['box'])
        behind = ground[y0:y1,x0:x1].reshape(-1,3)
        if not len(behind): continue                                  # below the fold
        seen += 1
        ink = np.asarray(o['rgb'])*o['alpha']+behind*(1-o['alpha'])
        worst = float(np.percentile(contrast(ink, behind), 20))       # a line may touch a letter
        if worst<least: res.append((o['words'][:30], o['of'], round(worst, 2)))
    return res,seen

# Controls without a name, charts without a role, things to click that the Tab key passes by
UNNAMED = r"""root => {
    const top = document.querySelector(root), bad = [], say = (what, el) => bad.push(`${what}: ${el.outerHTML.slice(0, 120)}`)
    const name = el => el.getAttribute('aria-label') || [...el.labels || []].map(o => o.textContent).join('').trim()
    for (const el of top.querySelectorAll('input,select,textarea')) if (!name(el)) say('no label', el)
    const wordless = el => !el.getAttribute('aria-label') && !/\p{L}/u.test(el.textContent)
    for (const el of top.querySelectorAll('button')) if (wordless(el)) say('no words', el)
    for (const el of top.querySelectorAll('svg')) {
        if (el.closest('[aria-hidden=true]')) continue
        if (!['img', 'group'].includes(el.getAttribute('role')) || !el.getAttribute('aria-label')) say('no role or name', el)
    }
    for (const el of top.querySelectorAll('[role=button],[role=img][onkeydown]')) {
        if (el.tabIndex < 0) say('not reached by Tab', el)
        if (el.querySelector('button,[tabindex]')) say('a control in a control', el)
    }
    for (const el of top.querySelectorAll('canvas[tabindex]')) if (!el.getAttribute('aria-label')) say('no name', el)
    return bad }"""

def unnamed(page, root): return page.evaluate(UNNAMED, root)
