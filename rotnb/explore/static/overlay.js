// Layers of oriented boxes over an image: drawn, hovered over, selected, switched on and off, saved.

const IGNORED_DASH = [3, 2], HALO = 'rgba(0,0,0,.55)'
const CAPTIONS_MOST = 40, CAPTION_FROM = 24, HALO_MOST = 3000     // boxes; px of a box with caption; boxes
const TOUCH = 5                                                   // px around the pointer that count for a tiny box

const escaped = text => String(text).replace(/[&<>"]/g, c => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c])
function ink(hex) {                                               // black or white, whichever reads on a colour
  const n = parseInt(hex.slice(1), 16)
  return 0.299 * (n >> 16) + 0.587 * (n >> 8 & 255) + 0.114 * (n & 255) > 100 ? '#000' : '#fff'
}
const sameBox = (a, b) => !!a && !!b && a[0] === b[0] && a[1] === b[1]

class BoxCanvas extends ImageView {                               // a box is known by [number of its layer, row]
  build() {
    Object.assign(this, { hover: null, captions: 'auto', layers: [] })
    super.build()
    this.saves.prepend(this.button('PNG', 'Save what is seen as PNG', () => this.savePng()),
      this.button('SVG', 'Save what is seen as SVG', () => this.saveSvg()))
    this.canvas.addEventListener('dblclick', e => { const box = this.pick(...this.world(e)); if (box) this.zoomBox(box) })
  }
  taken() { return [...super.taken(), 'layers'] }
  listen() {
    super.listen()
    this.onChange('vocab', () => this.take('layers'))
    this.onChange('selected', () => this.redraw())
    for (const name of ['score', 'opacity', 'hidden', 'hidden_classes', 'color_by', 'palette', 'ignored_color'])
      this.onChange(name, () => { this.bar(); this.redraw() })
  }
  take(what) {
    if (what === 'layers') {
      this.layers = (this.get('layers') || []).map(wire => new BoxLayer(wire))
      this.hover = null
      this.bar()
    }
    super.take(what)
  }
  takeScene() {
    const old = this.scene?.id
    super.takeScene()
    if (this.scene.id !== old) this.hover = null
  }

  // --- switches, sliders and legend

  bar() {
    renew(this.switches, ...this.layerSwitches())
    if (!this.sliders.contains(this.root.getRootNode().activeElement)) {               // one in use is not replaced under the pointer
      const some = [this.slider('opacity', 'opacity', 'Opacity of the boxes')]
      if (this.layers.some(l => l.scores)) some.unshift(this.slider('score ≥', 'score', 'Least score that is shown'))
      this.sliders.replaceChildren(...some)
    }
    renew(this.legend, ...this.classButtons())
  }
  flip(name, value) {                                             // put a value into a list of the model, or take it out
    const values = new Set(this.get(name))
    values.has(value) ? values.delete(value) : values.add(value)
    this.set(name, [...values])
    this.bar()
    this.redraw()
  }
  layerSwitches() {
    const hidden = new Set(this.get('hidden'))
    const box = (name, n, title, color, dash) => {
      const input = make('input', { type: 'checkbox', checked: !hidden.has(name), onchange: () => this.flip('hidden', name) })
      const stroke = { d: 'M1 4H17', stroke: color, 'stroke-width': 2.5, 'stroke-dasharray': dash.join(' ') }
      const sample = make('span', { class: 'rn-line' }, make('svg', { width: 18, height: 8, 'aria-hidden': 'true' }, make('path', stroke)))
      return make('label', { class: 'rn-switch', title }, input, sample, make('span', {}, `${name} (${n})`))
    }
    const rows = this.layers.map((l, k) =>
      box(l.name, l.n, `Layer ${l.name} (${k + 1})`, this.layerColor(k) || 'currentColor', l.dash))
    const ignored = this.layers.reduce((n, l) => n + (l.ignored ? l.ignored.filter(Boolean).length : 0), 0)
    const title = 'Boxes that neither count for a detector nor against it'
    if (ignored) rows.push(box('ignored', ignored, title, this.get('ignored_color'), IGNORED_DASH))
    return rows
  }
  slider(text, name, title) {
    const shown = () => Number(this.get(name)).toFixed(2)
    const out = make('output', { class: 'rn-value' }, shown())
    const oninput = () => {
      this.model.set(name, Number(input.value))
      out.textContent = shown()
      this.later()
      this.redraw()
    }
    const input = make('input', { type: 'range', min: 0, max: 1, step: 0.01, value: this.get(name), title, oninput,
      onchange: () => this.model.save_changes() })
    return make('label', { class: 'rn-slider', title }, make('span', {}, text), input, out)
  }
  later() { clearTimeout(this.saving); this.saving = setTimeout(() => this.model.save_changes(), 100) }
  classButtons() {
    const vocab = this.get('vocab'), off = new Set(this.get('hidden_classes')), counts = this.classCounts()
    return [...counts.keys()].sort((a, b) => a - b).map(c => {
      const name = vocab[c] ?? String(c), swatch = make('span', { class: 'rn-swatch', style: `background: ${this.classColor(c)}` })
      swatch.hidden = this.get('color_by') === 'layer'
      const each = counts.get(c), title = `Show or hide ${name}: ${this.layers.map((l, k) => `${each[k]} in ${l.name}`).join(', ')}`
      return make('button', { class: 'rn-class', type: 'button', title, 'aria-pressed': String(!off.has(name)),
        onclick: () => this.flip('hidden_classes', name) }, swatch, `${name} (${each.join(' · ')})`)
    })
  }
  classCounts() {                                                 // class -> how many in each layer
    const counts = new Map()
    this.layers.forEach((l, k) => {
      for (const c of l.labels) if (c >= 0) {
        if (!counts.has(c)) counts.set(c, this.layers.map(() => 0))
        counts.get(c)[k]++
      }
    })
    return counts
  }

  // --- colours and words

  classColor(c) { const colors = this.get('palette'); return colors[c % colors.length] }
  layerColor(k) { const colors = this.get('palette'); return this.get('color_by') === 'layer' ? colors[k % colors.length] : null }
  color(k, i) {
    const l = this.layers[k]
    if (l.isIgnored(i)) return this.get('ignored_color')
    return this.layerColor(k) || this.classColor(l.labels[i] < 0 ? k : l.labels[i])
  }
  label(k, i) {
    const c = this.layers[k].labels?.[i] ?? -1
    return c >= 0 ? this.get('vocab')[c] ?? String(c) : ''
  }
  caption(k, i) {
    const score = this.layers[k].scores?.[i]
    return [this.label(k, i), score === undefined || Number.isNaN(score) ? '' : score.toFixed(2)].filter(Boolean).join(' ')
  }
  captioned(n) { return this.captions === 'on' || this.captions === 'auto' && n <= CAPTIONS_MOST }

  // --- which boxes

  sift() {                                                        // the settings of `shown`, once a frame
    const hidden = new Set(this.get('hidden')), off = new Set(this.get('hidden_classes'))
    const classes = new Set(this.get('vocab').flatMap((name, i) => off.has(name) ? [i] : []))
    this.filter = { score: this.get('score'), ignored: hidden.has('ignored'), hidden, classes }
  }
  shown(k, i) {
    const l = this.layers[k], filter = this.filter
    if (!l.finite(i)) return false
    if (l.scores && l.scores[i] < filter.score) return false
    if (l.isIgnored(i) && filter.ignored) return false
    return !(l.labels && filter.classes.has(l.labels[i]))
  }
  seenNow(box) { this.sift(); return !!box && !this.filter.hidden.has(this.layers[box[0]].name) && this.shown(...box) }
  each(visit, near = () => true) {                                // all boxes that are shown and whose bounds pass `near`
    this.sift()
    this.layers.forEach((l, k) => {
      if (this.filter.hidden.has(l.name)) return
      for (let i = 0, b = 0; i < l.n; i++, b += 4)
        if (near(l.bounds[b], l.bounds[b + 1], l.bounds[b + 2], l.bounds[b + 3]) && this.shown(k, i)) visit(l, k, i)
    })
  }
  pick(x, y) {                                                    // the smallest box under a point
    const reach = TOUCH / this.scale
    let best = null, least = Infinity
    this.each((l, k, i) => {
      const [x0, y0, x1, y1] = l.bound(i), q = l.quad(i), size = area(q)
      const tiny = Math.max(x1 - x0, y1 - y0) < 2 * reach
      if ((tiny || inside(q, x, y)) && size <= least) { best = [k, i]; least = size }
    }, (x0, y0, x1, y1) => x >= x0 - reach && x <= x1 + reach && y >= y0 - reach && y <= y1 + reach)
    return best
  }
  get chosen() {                                                  // the selected box
    const selected = this.get('selected')
    if (!selected) return null
    const k = this.layers.findIndex(l => l.name === selected.layer)
    return k >= 0 && selected.index < this.layers[k].n ? [k, selected.index] : null
  }
  choose(box) {
    this.set('selected', box ? { layer: this.layers[box[0]].name, index: box[1] } : null)
    this.redraw()
  }
  step(by) {                                                      // through the boxes that are shown, in order
    const all = []
    this.each((l, k, i) => all.push([k, i]))
    if (!all.length) return
    const chosen = this.chosen, at = all.findIndex(o => sameBox(o, chosen))
    const to = at >= 0 ? at + by : by > 0 ? 0 : -1                // from no box to the first, or to the last
    const box = all[(to % all.length + all.length) % all.length]
    this.choose(box)
    const [x0, y0, x1, y1] = this.layers[box[0]].bound(box[1]), [left, top, right, bottom] = this.visible()
    const outside = x0 < left || y0 < top || x1 > right || y1 > bottom
    if (outside || Math.max(x1 - x0, y1 - y0) * this.scale < 12) this.zoomBox(box)
  }
  zoomBox([k, i]) { this.zoomTo(...this.layers[k].bound(i), 1.5) }

  // --- drawing

  path(ctx, q, mark = 'tick') {                                   // outline, and what `markOf` says
    for (let i = 0; i < 4; i++) {
      const at = this.screen(...corner(q, i))
      i ? ctx.lineTo(...at) : ctx.moveTo(...at)
    }
    ctx.closePath()
    if (mark === 'round') this.circle(ctx, q)
    else if (mark === 'tick') this.tick(ctx, q)
    else if (mark !== null) this.arrow(ctx, q, mark)
  }
  symmetryOf(k, i) { return this.get('symmetry')?.[this.get('vocab')[this.layers[k].labels?.[i]]] }
  front(k, i) {                                                   // radians of a heading that is known, else NaN
    const l = this.layers[k]
    if (l.headings) return l.headings[i]
    return !l.scores && this.symmetryOf(k, i) === 360 ? measure(l.quad(i)).heading * Math.PI / 180 : NaN
  }
  markOf(k, i) {                                                  // 'round', a heading in radians, 'tick', or null
    if (this.isRound(k, i)) return 'round'
    const front = this.front(k, i), l = this.layers[k]
    if (Number.isFinite(front)) return front
    const headed = l.headings ? l.headed : !l.scores && Object.values(this.get('symmetry') || {}).includes(360)
    return headed ? null : 'tick'
  }
  isRound(k, i) { return this.symmetryOf(k, i) === 'round' }      // no angle is seen of its class
  ellipse(q) {                                                    // centre, radii and angle of what touches the four sides
    const { cx, cy, w, h, heading } = measure(q), [x, y] = this.screen(cx, cy)
    return [x, y, w / 2 * this.scale, h / 2 * this.scale, heading * Math.PI / 180]
  }
  circle(ctx, q) {
    const [x, y, rx, ry, theta] = this.ellipse(q)
    ctx.moveTo(x + rx * Math.cos(theta), y + rx * Math.sin(theta))
    ctx.ellipse(x, y, rx, ry, theta, 0, 2 * Math.PI)
  }
  tick(ctx, q) {
    const dx = q[2] - q[0], dy = q[3] - q[1], n = Math.hypot(dx, dy) || 1
    const length = Math.min(8, 0.25 * Math.hypot(q[4] - q[2], q[5] - q[3]) * this.scale)
    if (length < 1.5) return false
    const [x, y] = this.screen((q[2] + q[4]) / 2, (q[3] + q[5]) / 2)
    ctx.moveTo(x, y)
    ctx.lineTo(x + dx / n * length, y + dy / n * length)
    return true
  }
  arrow(ctx, q, theta) {                                          // on the border, where the heading leaves the box
    const m = measure(q), turn = theta - m.heading * Math.PI / 180, a = Math.abs(Math.cos(turn)), b = Math.abs(Math.sin(turn))
    if (Math.max(m.w, m.h) * this.scale < 6) return
    const length = clamp(0.5 * Math.max(m.h * a, m.w * b) * this.scale, 6, 16), [x, y] = this.screen(m.cx, m.cy)
    const reach = Math.min(m.w / a, m.h / b) / 2 * this.scale, c = Math.cos(theta), s = Math.sin(theta)
    const at = (u, v) => [x + c * (reach + u) - s * v, y + s * (reach + u) + c * v]
    ctx.moveTo(...at(0, -0.35 * length))
    ctx.lineTo(...at(length, 0))
    ctx.lineTo(...at(0, 0.35 * length))
    ctx.closePath()
  }
  paint(ctx) {                                                    // one path for each layer, colour and dash: two strokes each
    const left = -this.ox / this.scale, right = (this.w - this.ox) / this.scale
    const top = -this.oy / this.scale, bottom = (this.h - this.oy) / this.scale
    const groups = new Map(), captioned = []
    let n = 0
    this.each((l, k, i) => {
      if (sameBox(this.lifted, [k, i])) return                    // it is in an editor's hand
      const color = this.color(k, i), ignored = l.isIgnored(i), key = `${k}${color}${ignored ? 1 : 0}`
      if (!groups.has(key)) groups.set(key, { color, dash: ignored ? IGNORED_DASH : l.dash, quads: [], outlines: [] })
      groups.get(key).quads.push([l.quad(i), this.markOf(k, i)])
      if (l.outline(i).length) groups.get(key).outlines.push(l.outline(i))
      if (++n <= CAPTIONS_MOST) captioned.push([k, i])
    }, (x0, y0, x1, y1) => !(x0 > right || x1 < left || y0 > bottom || y1 < top))
    ctx.globalAlpha = this.get('opacity')
    ctx.lineJoin = 'round'
    for (const { color, outlines } of groups.values()) for (const points of outlines) this.tint(ctx, color, points)
    for (const group of groups.values()) this.strokes(ctx, group, n < HALO_MOST)
    ctx.setLineDash([])
    if (this.captioned(n)) for (const box of captioned) this.text(ctx, ...box)
    ctx.globalAlpha = 1
    this.seen = n
  }
  tint(ctx, color, points) {                                      // the inside of an outline, pale; a hole in it stays free
    let begun = false
    ctx.beginPath()
    for (let i = 0; i < points.length; i += 2) {
      const real = Number.isFinite(points[i])
      if (real) ctx[begun ? 'lineTo' : 'moveTo'](...this.screen(points[i], points[i + 1]))
      begun = real
    }
    const alpha = ctx.globalAlpha
    Object.assign(ctx, { fillStyle: color, globalAlpha: 0.35 * alpha }).fill('evenodd')
    ctx.globalAlpha = alpha
  }
  strokes(ctx, { color, dash, quads }, halo) {
    const stroke = (style, width) => Object.assign(ctx, { strokeStyle: style, lineWidth: width }).stroke()
    ctx.beginPath()
    for (const [q, mark] of quads) this.path(ctx, q, mark)
    ctx.setLineDash([])
    if (halo) stroke(HALO, 3.4)
    ctx.setLineDash(dash)
    stroke(color, 1.8)
    ctx.beginPath()
    for (const [q, mark] of quads) if (typeof mark === 'number') this.arrow(ctx, q, mark)
    Object.assign(ctx, { fillStyle: color }).fill()
  }
  anchor(k, i) {                                                  // of a caption: truth above the box, predictions below it
    const below = this.layers[k].dash.length > 0, down = below ? -1 : 1, q = this.layers[k].quad(i)
    let best = 0
    for (let c = 1; c < 4; c++) {
      const [x, y] = corner(q, c), [bestX, bestY] = corner(q, best)
      if (down * y < down * bestY || y === bestY && x < bestX) best = c
    }
    return { at: this.screen(...corner(q, best)), below }
  }
  text(ctx, k, i) {
    const q = this.layers[k].quad(i), text = this.caption(k, i), size = Math.hypot(q[4] - q[0], q[5] - q[1]) * this.scale
    if (!text || this.captions === 'auto' && size < CAPTION_FROM) return
    ctx.font = '11px system-ui, sans-serif'
    const color = this.color(k, i), width = ctx.measureText(text).width + 6, { at: [left, edge], below } = this.anchor(k, i)
    const x = clamp(left - (left + width > this.w ? width : 0), 0, Math.max(this.w - width, 0))
    const y = clamp(below ? edge + 16 : edge - 2, 14, this.h)
    ctx.fillStyle = color
    ctx.fillRect(x, y - 14, width, 14)
    ctx.fillStyle = ink(color)
    ctx.fillText(text, x + 3, y - 3.5)
  }
  overlay() {
    const ctx = this.topContext()
    if (this.seenNow(this.hover)) this.mark(ctx, this.hover, 2.2, 0.18)
    if (this.seenNow(this.chosen)) this.mark(ctx, this.chosen, 3, 0.12, true)
  }
  mark(ctx, [k, i], width, fill, strong = false) {
    const color = this.color(k, i), stroke = (style, lineWidth) => Object.assign(ctx, { strokeStyle: style, lineWidth }).stroke()
    ctx.beginPath()
    this.path(ctx, this.layers[k].quad(i), this.markOf(k, i))
    this.shade(ctx, color, fill)
    ctx.lineJoin = 'round'
    stroke(strong ? '#fff' : '#000', width + 2.5)
    if (strong) stroke('#000', width + 0.5)
    stroke(color, width - 0.6)
  }
  shade(ctx, color, alpha) {
    Object.assign(ctx, { fillStyle: color, globalAlpha: alpha }).fill()
    ctx.globalAlpha = 1
  }

  // --- pointer and keys

  leave() {
    super.leave()
    this.hover = null
    this.redraw(true)
  }
  click(e) { this.choose(this.pick(...this.world(e))) }
  point(e) {
    const box = this.pick(...this.world(e)), same = sameBox(box, this.hover)
    if (!same && (box || this.hover)) { this.hover = box; this.redraw(true) }
    this.tip.hidden = !box
    if (!box) return
    if (!same) this.tip.replaceChildren(...this.facts(...box))
    const [x, y] = this.at(e), w = this.tip.offsetWidth, h = this.tip.offsetHeight
    this.tip.style.left = `${x + 14 + w > this.w ? Math.max(x - w - 10, 0) : x + 14}px`
    this.tip.style.top = `${y + 14 + h > this.h ? Math.max(y - h - 10, 0) : y + 14}px`
  }
  facts(k, i) {                                                   // what the hover says
    const l = this.layers[k], m = measure(l.quad(i)), score = l.scores?.[i], fixed = (x, digits = 1) => x.toFixed(digits)
    const swatch = make('span', { class: 'rn-swatch', style: `background: ${this.color(k, i)}` })
    const front = this.front(k, i) * 180 / Math.PI, heading = Number.isFinite(front) ? front : m.heading
    const arrow = make('span', { class: 'rn-arrow', style: `transform: rotate(${heading}deg)` }, '→')
    const row = (name, ...values) =>
      make('div', { class: 'rn-row' }, make('span', { class: 'rn-key' }, name), make('span', {}, ...values))
    const title = `${this.label(k, i) || l.name}${l.isIgnored(i) ? ', ignored' : ''}`
    const rows = [make('div', { class: 'rn-head' }, swatch, title)]
    if (this.layers.length > 1) rows.push(row('layer', l.name))
    if (score !== undefined && !Number.isNaN(score)) rows.push(row('score', fixed(score, 3)))
    rows.push(row('size', `${fixed(Math.max(m.w, m.h))} × ${fixed(Math.min(m.w, m.h))} px`), row('angle', `${fixed(m.angle)}°`),
      row(Number.isFinite(front) ? 'heading' : 'side w', arrow, ` ${fixed((heading + 360) % 360)}°`),
      row('centre', `${fixed(m.cx)}, ${fixed(m.cy)}`),
      row('box', String(i)))
    if (l.notes && l.notes[i]) rows.push(make('div', { class: 'rn-remark' }, l.notes[i]))
    return rows
  }
  bindings() {
    const { f, o, '+': plus, '-': minus, '?': help, ...pan } = super.bindings()
    return { f, o, '+': plus, '-': minus,
      'n': ['next box', () => this.step(1)], 'p': ['previous box', () => this.step(-1)],
      'z': ['zoom to the box', () => this.chosen && this.zoomBox(this.chosen)],
      'c': ['captions: auto, on, off', () => {
        this.captions = { auto: 'on', on: 'off', off: 'auto' }[this.captions]
        this.redraw()
      }],
      ...this.digits(), ...pan, 'Escape': ['nothing selected', () => this.escape()], '?': help }
  }
  mouse() { return [...super.mouse(), ['click', 'select a box'], ['double click', 'zoom to the box']] }
  escape() { this.keys.hidden = true; this.choose(null) }
  digits() {                                                      // 1 to 9 switch layers
    return Object.fromEntries(this.layers.slice(0, 9).map((l, k) => [k + 1, [`layer ${l.name}`, () => this.flip('hidden', l.name)]]))
  }

  // --- files

  file(blob, ending) { saveFile(`${(this.scene.name || 'image').replace(/\.[^.]*$/, '')}.${ending}`, blob) }
  savePng() { this.canvas.toBlob(blob => this.file(blob, 'png')) }
  saveSvg() { this.file(new Blob([this.svg()], { type: 'image/svg+xml' }), 'svg') }
  svg() {                                                         // the image as pixels, boxes and captions as shapes
    const canvas = make('canvas', { width: this.canvas.width, height: this.canvas.height }), parts = []
    this.pixels.draw(canvas.getContext('2d'))
    this.each((l, k, i) => parts.push(this.svgBox(k, i)))
    const size = `width="${this.w}" height="${this.h}"`
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size} viewBox="0 0 ${this.w} ${this.h}">` +
      `<image href="${canvas.toDataURL('image/png')}" ${size}/>` +
      `<g fill="none" stroke-width="1.8" stroke-linejoin="round" opacity="${this.get('opacity')}">${parts.join('')}</g></svg>`
  }
  svgBox(k, i) {
    const l = this.layers[k], q = l.quad(i), color = this.color(k, i), text = escaped(this.caption(k, i)), ends = []
    const dash = (l.isIgnored(i) ? IGNORED_DASH : l.dash).join(' '), fixed = v => v.toFixed(2)
    const points = [0, 1, 2, 3].map(c => this.screen(...corner(q, c)).map(fixed).join(',')).join(' ')
    const parts = [`<polygon points="${points}" stroke="${color}"${dash ? ` stroke-dasharray="${dash}"` : ''}>` +
      `<title>${text}</title></polygon>`]
    const add = (x, y) => ends.push(fixed(x), fixed(y)), mark = this.markOf(k, i)
    if (mark === 'round') {
      const theta = this.ellipse(q)[4] * 180 / Math.PI, [x, y, rx, ry] = this.ellipse(q).map(fixed)
      const turn = `rotate(${fixed(theta)} ${x} ${y})`
      parts.unshift(`<ellipse cx="${x}" cy="${y}" rx="${rx}" ry="${ry}" transform="${turn}" stroke="${color}"/>`)
    } else if (typeof mark === 'number') {
      this.arrow({ moveTo: add, lineTo: add, closePath() {} }, q, mark)
      parts.unshift(`<polygon points="${ends.join(' ')}" stroke="${color}" fill="${color}"/>`)
    } else if (mark === 'tick' && this.tick({ moveTo: add, lineTo: add }, q))
      parts.unshift(`<line x1="${ends[0]}" y1="${ends[1]}" x2="${ends[2]}" y2="${ends[3]}" stroke="${color}"/>`)
    if (text && this.captioned(this.seen)) {
      const { at: [x, y], below } = this.anchor(k, i), halo = 'stroke="#000" stroke-width="2.5" paint-order="stroke"'
      parts.push(`<text x="${fixed(x + 2)}" y="${fixed(below ? y + 12 : Math.max(y - 4, 11))}" fill="${color}" ${halo}` +
        ` font-size="11" font-family="sans-serif">${text}</text>`)
    }
    return parts.join('')
  }
}
