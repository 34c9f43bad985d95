// Charts of an explorer. Each is made once, as {el, update(what)}, and updated in place, so that a drag lives through an update.

const short = v => String(+Number(v).toPrecision(3))
const count = n => Number(n).toLocaleString('en')
const max = xs => xs.reduce((a, b) => Math.max(a, b), 0)
const onEnter = f => e => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); f(e) } }

// Places of labels along n bins: about five, where the numbers are short
function ticks(edges) {
  const n = edges.length - 1
  let best
  for (let step = Math.ceil(n / 7); step <= Math.max(1, n / 2); step++) {
    const at = []
    for (let i = 0; i <= n; i += step) at.push(i)
    const cost = max(at.map(i => short(edges[i]).length)) + step / n * 4
    if (!best || cost < best.cost) best = { cost, at }
  }
  return best.at
}

// A chart for those who hear it: a name, and a place among what the Tab key reaches
const chart = attrs => ({ role: 'img', tabindex: 0, ...attrs })

// A histogram to be brushed: drag over bars keeps them, a click one of them, a double click all; arrow keys too, Shift makes it wider
function histogram(pick) {
  const W = 240, H = 56
  const all = make('path', { class: 'rn-all' }), shown = make('path', { class: 'rn-shown' })
  const brush = make('rect', { class: 'rn-brush', y: 0, height: H }), axis = make('g', { class: 'rn-axis' }), tip = make('title')
  const el = make('svg', chart({ viewBox: `-6 -2 ${W + 12} ${H + 16}`, class: 'rn-hist' }), tip, all, shown, brush, axis)
  let f, from = null, sent, keyed = null
  const bin = e => {
    const r = el.getBoundingClientRect(), n = f.values.length - 1, x = (e.clientX - r.left) / r.width * (W + 12) - 6
    return clamp(Math.floor(x / W * n), 0, n - 1)
  }
  const range = (i, j) => {             // the outer bins hold what lies beyond them
    const n = f.values.length - 1, [a, b] = i < j ? [i, j] : [j, i]
    return [a === 0 ? null : f.values[a], b === n - 1 ? null : f.values[b + 1]]
  }
  const tell = (i, j) => {
    const want = range(i, j), key = String(want)
    if (key !== sent) { sent = key; pick(want[0] === null && want[1] === null ? null : want) }
  }
  const arrow = e => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key], n = f.values.length - 1
    if (e.key === 'Escape') { keyed = sent = null; pick(null) }
    if (!step) return
    e.preventDefault()
    const to = clamp((keyed ? keyed[1] : step > 0 ? -1 : n) + step, 0, n - 1)
    keyed = [e.shiftKey && keyed ? keyed[0] : to, to]
    tell(...keyed)
  }
  set(el, {
    onpointerdown: e => {
      if (e.button) return
      from = bin(e)
      sent = null
      el.setPointerCapture(e.pointerId)
      tell(from, from)
    },
    onpointermove: e => {
      const i = bin(e)
      tip.textContent = `${short(f.values[i])} to ${short(f.values[i + 1])}: ${count(f.shown[i])} of ${count(f.all[i])}`
      if (from !== null) tell(from, i)
    },
    onpointerup: () => { from = null },
    ondblclick: () => pick(null),
    onkeydown: arrow,
  })
  const bars = ys => {                  // each set of bars fills the height: shapes are compared, the tip has the numbers
    const top = max(ys) || 1, w = W / ys.length
    return ys.map((y, i) => y ? `M${i * w} ${H}V${H - Math.max(1.5, y / top * H)}h${w - .6}V${H}Z` : '').join('')
  }
  return { el, update(field) {
    f = field
    const n = f.values.length - 1, x = v => W * place(f.values, v), total = counts => counts.reduce((a, b) => a + b, 0)
    const about = `${f.title}: ${count(total(f.shown))} of ${count(total(f.all))}, from ${short(f.values[0])} to ${short(f.values[n])}`
    set(el, { 'aria-label': `${about}. Drag, or use the arrow keys, to keep a range; Escape keeps all` })
    tip.textContent ||= about
    all.setAttribute('d', bars(f.all))
    shown.setAttribute('d', bars(f.shown))
    const [lo, hi] = f.want || [null, null], a = lo === null ? 0 : x(lo), b = hi === null ? W : x(hi)
    set(brush, { x: a, width: Math.max(b - a, 1), visibility: f.want && a <= b ? 'visible' : 'hidden' })
    const anchor = i => `text-anchor:${i === 0 ? 'start' : i === n ? 'end' : 'middle'}`
    axis.replaceChildren(...ticks(f.values).map(i => make('text', { x: W * i / n, y: H + 12, style: anchor(i) }, short(f.values[i]))))
  } }
}
function place(edges, v) {              // of a number along the bins, 0 to 1
  const n = edges.length - 1
  let i = edges.findIndex(e => e > v) - 1
  if (i === -2) return 1
  return clamp((i + (v - edges[i]) / (edges[i + 1] - edges[i])) / n || 0, 0, 1)
}

// Classes as bars with their counts; a click takes one or leaves it
function bars(pick) {
  const el = make('div', { class: 'rn-bars' })
  return { el, update(f) {
    const top = max(f.shown) || 1, want = new Set(f.want || [])
    const flip = i => {
      want.has(i) ? want.delete(i) : want.add(i)
      pick(want.size ? [...want].sort((a, b) => a - b) : null)
    }
    const row = (name, i) => {
      const off = f.want && !want.has(i), width = 100 * f.shown[i] / top, color = f.colors ? f.colors[i] : 'var(--rn-accent)'
      const what = `${name}: ${count(f.shown[i])} of ${count(f.all[i])}`
      return make('button', { class: 'rn-class-bar' + (off ? ' rn-off' : ''), 'aria-pressed': String(want.has(i)), 'data-code': i,
        title: what, 'aria-label': what, onclick: () => flip(i) },
        make('i', { style: `width:${width}%;--rn-bar:${color}` }), make('span', {}, name), make('b', {}, count(f.shown[i])))
    }
    renew(el, ...f.values.map((name, i) => f.all[i] ? row(name, i) : '').filter(o => o))
  } }
}

const CIVIDIS = ['#00224e', '#1a386f', '#434e6c', '#61656f', '#7d7c78', '#9b9476', '#bcae6c', '#dfca57', '#fee838']
const tone = t => Math.round(clamp(t, 0, 1) * (CIVIDIS.length - 1))
const shade = t => CIVIDIS[tone(t)]
const onShade = t => tone(t) < 4 ? 'white' : 'black'              // each with a contrast of 5 or more

// A confusion matrix: rows are the truth; a click on a cell picks its number, row * columns + column
function matrix(pick) {
  const el = make('svg', { class: 'rn-matrix', role: 'group', 'aria-label': 'Confusion matrix: rows are the truth' })
  return { el, update(m) {
    const k = m.names.length, s = clamp(300 / k, 16, 34), pad = 6.2 * max(m.names.map(o => o.length)) + 8, side = pad + k * s + 14
    set(el, { viewBox: `0 0 ${side} ${side}`, style: `width:${side}px` })
    const name = (t, attrs) => make('text', attrs, t), cells = []
    m.counts.forEach((row, i) => {
      const sum = row.reduce((a, b) => a + b, 0) || 1
      row.forEach((n, j) => {
        const go = () => pick(m.want === i * k + j ? null : i * k + j), x = pad + j * s, y = 14 + i * s
        const what = `${m.names[i]}, detected as ${m.names[j]}: ${count(n)}`
        const ink = `fill:${onShade(n / sum)}`
        const state = m.want === i * k + j ? 'rn-cell rn-on' : 'rn-cell'
        const cell = make('g', { class: state, 'data-cell': `${i},${j}` }, make('title', {}, what),
          make('rect', { x, y, width: s - 1, height: s - 1, fill: shade(n / sum), rx: 2 }))
        if (n) {
          set(cell, { tabindex: 0, role: 'button', 'aria-label': what, onclick: go, onkeydown: onEnter(go) })
          cell.append(name(count(n), { x: x + s / 2 - .5, y: y + s / 2 + 3.5, class: 'rn-cell-count', style: ink }))
        }
        cells.push(cell)
      })
    })
    const on = cells.findIndex(c => c.classList.contains('rn-on'))
    if (on >= 0) cells.push(...cells.splice(on, 1))        // its frame lies over its neighbours
    renew(el, name('detected', { x: pad + k * s / 2, y: 9, class: 'rn-axis-title' }),
      ...m.names.map((t, i) => name(t, { x: pad - 5, y: 14 + i * s + s / 2 + 3.5, class: 'rn-class-name' })), ...cells,
      ...m.names.map((t, j) => {
        const place = `translate(${pad + (j + .5) * s + 4} ${20 + k * s}) rotate(-60)`
        return name(t, { class: 'rn-class-name', transform: place })
      }))
  } }
}

// Precision over recall, a line for each class; the nearest point follows the pointer and a click picks it
function curves(pick) {
  const W = 300, H = 230, x = v => 34 + v * W, y = v => 8 + (1 - v) * H
  const dot = make('circle', { r: 4, class: 'rn-dot', visibility: 'hidden' }), on = make('circle', { r: 5, class: 'rn-picked' })
  const lines = make('g'), note = make('text', { x: x(.02), y: y(.02), class: 'rn-readout' }), key = make('div', { class: 'rn-curve-key' })
  const tick = (v, attrs) => make('text', { class: 'rn-tick', ...attrs }, v)
  const side = (t, attrs) => make('text', { class: 'rn-axis-title', ...attrs }, t)
  const grid = [0, .25, .5, .75, 1].flatMap(v => [make('path', { class: 'rn-grid', d: `M${x(0)} ${y(v)}h${W}M${x(v)} ${y(0)}v${-H}` }),
    tick(v, { x: x(0) - 4, y: y(v) + 3, 'text-anchor': 'end' }), tick(v, { x: x(v), y: y(0) + 12, 'text-anchor': 'middle' })])
  const about = 'Precision over recall, a curve for each class; arrow keys go along them, Enter takes a point'
  const box = { viewBox: `0 0 ${W + 48} ${H + 40}`, class: 'rn-curves', 'aria-label': about }
  const svg = make('svg', chart(box), make('title', {}, about), ...grid, lines, on, dot, note,
    side('recall', { x: x(.5), y: H + 36 }), side('precision', { transform: `translate(9 ${y(.5)}) rotate(-90)` }))
  let c, keyed = null
  const nearest = e => {
    const r = svg.getBoundingClientRect(), k = (W + 48) / r.width
    const px = (e.clientX - r.left) * k, py = (e.clientY - r.top) * k
    let best = { d: 40 }
    for (const l of c.lines) l.x.forEach((v, i) => {
      const d = Math.hypot(x(v) - px, y(l.y[i]) - py)
      if (d < best.d) best = { d, l, i }
    })
    return best.l ? best : null
  }
  const said = ({ l, i }) => `${l.name}: score ${short(l.score[i])}, precision ${short(l.y[i])}, recall ${short(l.x[i])}`
  const show = p => {
    dot.setAttribute('visibility', p ? 'visible' : 'hidden')
    if (p) set(dot, { cx: x(p.l.x[p.i]), cy: y(p.l.y[p.i]), fill: p.l.color })
    note.textContent = p ? said(p) : ''
  }
  const take = p => { if (p) pick({ cls: p.l.name, score: p.l.score[p.i] }) }
  const walk = e => {                   // left and right along a curve, up and down to another, Enter takes the point
    const some = c.lines.filter(l => l.x.length), by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[e.key]
    if (!some.length) return
    if (e.key === 'Enter') take(keyed)
    if (!by) return
    e.preventDefault()
    const at = Math.max(some.findIndex(l => l.name === keyed?.l.name), 0), across = e.key === 'ArrowUp' || e.key === 'ArrowDown'
    const l = some[across && keyed ? clamp(at + by, 0, some.length - 1) : at], stride = Math.ceil(l.x.length / 40)
    keyed = { l, i: clamp((keyed?.i ?? 0) + (across ? 0 : by * stride), 0, l.x.length - 1) }
    show(keyed)
    set(svg, { 'aria-label': said(keyed) })
  }
  set(svg, { onpointermove: e => show(nearest(e)), onclick: e => take(nearest(e)), onkeydown: walk })
  return { el: make('div', {}, svg, key), update(what) {
    c = what
    const style = l => ({ stroke: l.color, 'stroke-dasharray': l.dash || null })
    const step = (v, p, i) => `${i ? 'V' : `M${x(0)} `}${y(p).toFixed(1)}H${x(v).toFixed(1)}`
    const d = l => l.x.map((v, i) => step(v, l.y[i], i)).join('')
    lines.replaceChildren(...c.lines.filter(l => l.x.length).map(l => make('path', { class: 'rn-curve', d: d(l), ...style(l) })))
    const line = l => make('path', { class: 'rn-curve', d: 'M0 4h22', ...style(l) })
    const sample = l => make('svg', { viewBox: '0 0 22 8', 'aria-hidden': 'true' }, line(l))
    key.replaceChildren(...c.lines.map(l => make('span', {}, sample(l), l.label)))
    const p = c.picked && c.lines.find(l => l.name === c.picked.cls)
    const i = p ? p.score.findLastIndex(s => s >= c.picked.score) : -1
    set(on, i < 0 ? { visibility: 'hidden' } : { visibility: 'visible', cx: x(p.x[i]), cy: y(p.y[i]), fill: p.color })
  } }
}
