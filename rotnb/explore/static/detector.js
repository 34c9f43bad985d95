// A page that finds oriented boxes in the pictures that are dropped on it. A viewer shows them; a worker runs the network.

const ROWS_MOST = 200                                             // of the table
const LARGE = 2                                                   // sides of a window: what is larger is looked at in windows
const SHAPES = 'PNG, JPEG, WebP, GIF, BMP or AVIF'

// A picture as the browser decodes it: the colours of the file, turned as its EXIF says
class Picture {
  static async open(blob, name) {
    const how = { colorSpaceConversion: 'none', premultiplyAlpha: 'none' }
    const bitmap = await createImageBitmap(blob, how).catch(() => null)
    if (!bitmap) throw new Error(`“${name}” cannot be opened: the browser reads ${SHAPES} of up to some 30,000 px a side.`)
    return Object.assign(new Picture(), { bitmap, blob, name, wh: [bitmap.width, bitmap.height] })
  }
  part([x, y, w, h]) {                                            // its pixels: {data, width, height}
    const ctx = new OffscreenCanvas(w, h).getContext('2d', { willReadFrequently: true })
    ctx.drawImage(this.bitmap, x, y, w, h, 0, 0, w, h)
    return ctx.getImageData(0, 0, w, h)
  }
  close() { this.bitmap.close() }
}

class DetectorPage {
  constructor(model, el) {
    Object.assign(this, { model, el, about: model.get('about'), found: [], turn: 0, off: new AbortController() })
    Object.assign(this, { network: new Network(model), fit: inputOf(this.about) })
    this.build()
    this.hear()
    this.network.open().then(() => this.picture || this.say('Ready.', 'ready'), e => this.say(e.message, 'error'))
    this.say('The network is being opened …')
    el.rotnb = this                                               // for tests, and for the curious in the console
  }
  destroy() { this.off.abort(); this.network.close(); this.viewer.destroy(); this.picture?.close() }

  // --- page

  build() {
    const [title, finds, sample, notice, licence] = ['title', 'finds', 'sample', 'notice', 'licence'].map(name => this.model.get(name))
    const button = (text, onclick, more = {}) => make('button', { type: 'button', class: 'rn-do', onclick, ...more }, text)
    this.input = make('input', { type: 'file', accept: 'image/*', 'aria-label': 'Picture', hidden: true,
      onchange: () => this.take(this.input.files) })
    const choose = () => button('Choose a picture', () => this.input.click())
    const tries = () => sample ? [button('Try the sample', () => this.trySample())] : []
    this.status = make('p', { class: 'rn-status', role: 'status' })
    this.stop = button('Stop', () => this.halt(), { hidden: true })
    this.bar = make('progress', { class: 'rn-progress', 'aria-label': 'Windows done', hidden: true })
    this.zone = make('section', { class: 'rn-zone', 'aria-label': 'Picture' }, make('h2', {}, 'Drop a picture here'),
      make('p', { class: 'rn-acts' }, choose(), ...tries()),
      make('p', { class: 'rn-faint' }, 'or paste one with Ctrl+V. It stays on this machine: nothing is sent.'))
    this.acts = make('div', { class: 'rn-acts', hidden: true }, choose(), ...tries(), this.ways())
    this.stage = make('section', { class: 'rn-shown-picture', 'aria-label': 'What was found', hidden: true })
    this.table = make('section', { class: 'rn-found', 'aria-label': 'Table of boxes', hidden: true })
    this.el.append(make('main', { class: 'rn-detector' },
      make('header', {}, make('h1', {}, title), make('p', { class: 'rn-faint' }, finds)), this.input, this.acts,
      make('div', { class: 'rn-now' }, this.status, this.bar, this.stop), this.zone, this.stage, this.table,
      make('footer', { class: 'rn-foot' }, make('details', {}, make('summary', {}, notice), make('pre', {}, licence)))))
    this.viewer = new BoxCanvas(this.model, this.stage)
  }
  ways() {                                                        // how large pictures are looked at
    const side = this.fit.window
    this.way = make('select', { class: 'rn-choice', onchange: () => this.look() },
      ...Object.entries({ auto: 'by its size', whole: 'whole', windows: `in windows of ${side} px` })
        .map(([value, text]) => make('option', { value }, text)))
    return make('label', { class: 'rn-way' }, make('span', {}, 'Look at it'), this.way)
  }
  hear() {
    const on = (name, heard) => addEventListener(name, heard, { signal: this.off.signal })
    const over = is => this.el.firstChild.classList.toggle('rn-over', is)
    on('dragover', e => { e.preventDefault(); over(true) })
    on('dragleave', e => { if (!e.relatedTarget) over(false) })
    on('drop', e => { e.preventDefault(); over(false); this.take(e.dataTransfer.files) })
    on('paste', e => { if (e.clipboardData.files.length) this.take(e.clipboardData.files) })
    for (const name of ['score', 'hidden', 'hidden_classes', 'layers']) this.model.on(`change:${name}`, () => this.later())
    this.model.on('change:selected', () => this.markRow())
  }
  say(text, kind = 'busy') {
    this.status.textContent = text
    this.status.dataset.kind = kind
  }
  working(done, all) {
    this.stop.hidden = this.bar.hidden = all < 2 || done >= all
    Object.assign(this.bar, { max: all, value: done })
  }

  // --- a picture comes

  async take(files) {
    const [file, ...others] = files
    if (!file) return this.say('That was no file: drop a picture from a folder, or copy the picture itself.', 'error')
    await this.show(file, file.name || 'picture')
    if (others.length) this.say(`${this.status.textContent} One picture at a time: this is the first of ${files.length}.`)
  }
  trySample() { const { bytes, name } = this.model.get('sample'); return this.show(new Blob([bytes]), name) }
  async show(blob, name) {
    const turn = ++this.turn
    this.say(`Opening “${name}” …`)
    let picture
    try { picture = await Picture.open(blob, name) } catch (e) { return this.say(e.message, 'error') }
    if (turn !== this.turn) return picture.close()
    this.picture?.close()
    this.picture = picture
    const bytes = await blob.arrayBuffer(), [width, height] = picture.wh
    for (const part of [this.acts, this.stage, this.table]) part.hidden = false
    this.zone.hidden = true
    this.model.set('height', Math.round(clamp(innerHeight * 0.6, 280, 900)))
    this.model.set('pixels', bytes)
    this.model.set('scene', { id: String(turn), name, width, height, levels: 0, tile: 512 })
    this.viewer.resize()
    await this.look()
  }
  halt() { this.turn++; this.working(1, 1); this.say(`Stopped. ${this.counted()}`, 'ready') }
  async look() {
    const turn = ++this.turn, start = performance.now(), picture = this.picture, mine = () => turn === this.turn
    this.put([])
    this.say('Looking …')
    try {
      await this.network.open()
      const windows = this.cuts(picture.wh), raw = []
      let shown = performance.now(), full = false
      for (const [i, window] of windows.entries()) {
        if (!mine()) return
        this.working(i, windows.length)
        if (windows.length > 1) this.say(`Looking: window ${i + 1} of ${windows.length} …`)
        const rows = await this.lookAt(picture.part(window), window)
        full ||= rows.length === this.about.k
        raw.push(...rows)
        if (mine() && performance.now() - shown > 1000) { this.put(nms(raw, MERGE)); shown = performance.now() }
      }
      if (!mine()) return
      this.put(windows.length > 1 ? nms(raw, MERGE) : raw)
      this.working(1, 1)
      const seconds = ((performance.now() - start) / 1000).toFixed(1), how = windows.length > 1 ? `in ${windows.length} windows` : 'whole'
      const most = full ? ` The network gives ${this.about.k} at most${windows.length > 1 ? ' in a window' : ': windows have more'}.` : ''
      this.say(`${this.counted()} Looked at ${how} in ${seconds} s.${most}`, 'ready')
    } catch (e) {
      this.network.close()
      if (!mine()) return
      this.working(1, 1)
      this.say(`The network failed: ${e.message}`, 'error')
    }
  }
  cuts([w, h]) {
    const side = this.fit.window, way = this.way.value
    return way === 'whole' || way === 'auto' && Math.max(w, h) <= LARGE * side ? [[0, 0, w, h]] : windowsOf([w, h], side)
  }
  async lookAt(pixels, [left, top]) {                             // what is in a part, in px of the whole picture
    const way = wayOf(this.fit, [pixels.width, pixels.height])
    const rows = await this.network.look(inputFor(this.fit, way, pixels))
    return rows.map(row => placed(row, this.fit, way, [left, top], this.about.angle)).filter(Boolean)
  }
  counted() {
    const score = this.model.get('score'), n = this.seen().length, less = this.found.length - n
    const from = less ? ` with a score of ${score.toFixed(2)} or more, ${less} with less` : ''
    return `${n || 'No'} ${n === 1 ? 'box' : 'boxes'}${from}.`
  }

  // --- what was found

  put(found) {
    this.found = found
    const layer = { name: 'found', quads: Float64Array.from(found.flatMap(o => o.quad)),
      labels: Int32Array.from(found, o => o.label), scores: Float32Array.from(found, o => o.score) }
    this.model.set('selected', null)
    this.model.set('layers', [layer])
  }
  seen() {                                                        // what passes the viewer's switches
    this.viewer.sift()
    const { hidden } = this.viewer.filter
    return this.found.map((one, row) => ({ ...one, row })).filter(({ row }) => !hidden.has('found') && this.viewer.shown(0, row))
  }
  later() {
    if (this.waiting) return
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.tell() })
  }
  tell() {
    const seen = this.seen(), some = seen.slice(0, ROWS_MOST), more = seen.length - some.length
    const caption = `${seen.length} of ${this.found.length} shown${more ? `; the table has the best ${ROWS_MOST}` : ''}`
    const heads = ['', 'class', 'score', 'centre, px', 'size, px', 'angle'].map(text => make('th', { scope: 'col' }, text))
    const save = (text, title, onclick) => make('button', { type: 'button', class: 'rn-do', title, onclick, disabled: !seen.length }, text)
    const body = make('tbody', {}, ...some.map(one => this.row(one)))
    renew(this.table, make('div', { class: 'rn-acts' }, make('span', { class: 'rn-faint' }, caption),
      save('JSON', 'Save what is shown as JSON', () => this.save('json', asJson)),
      save('GeoJSON', 'Save what is shown as GeoJSON, in pixels', () => this.save('geojson', asGeojson))),
      some.length ? make('div', { class: 'rn-scroll', tabindex: 0, role: 'region', 'aria-label': 'Boxes, best first' },
        make('table', {}, make('thead', {}, make('tr', {}, ...heads)), body)) : '')
    this.markRow()
  }
  row({ row, label, score, box: [cx, cy, w, h, theta] }) {
    const swatch = make('span', { class: 'rn-swatch', style: `background: ${this.viewer.classColor(label)}` }), name = this.named(label)
    const pick = make('button', { type: 'button', class: 'rn-pick', 'aria-label': `Show box ${row + 1}, ${name}`,
      onclick: () => this.pick(row) }, String(row + 1))
    const cells = [pick, make('span', {}, swatch, ` ${name}`), score.toFixed(3), `${cx.toFixed(1)}, ${cy.toFixed(1)}`,
      `${w.toFixed(1)} × ${h.toFixed(1)}`, `${(theta * 180 / Math.PI).toFixed(1)}°`]
    const over = to => () => { this.viewer.hover = to; this.viewer.redraw(true) }
    return make('tr', { 'data-row': row, onclick: () => this.pick(row), onmouseenter: over([0, row]), onmouseleave: over(null) },
      ...cells.map(o => make('td', {}, o)))
  }
  named(label) { return this.model.get('vocab')[label] ?? String(label) }
  pick(row) {
    this.viewer.choose([0, row])
    const [x0, y0, x1, y1] = this.viewer.layers[0].bound(row), [left, top, right, bottom] = this.viewer.visible()
    if (x0 < left || y0 < top || x1 > right || y1 > bottom) this.viewer.zoomBox([0, row])
  }
  markRow() {
    const chosen = this.model.get('selected')
    for (const tr of this.table.querySelectorAll('tbody tr'))
      set(tr, { 'aria-current': Number(tr.dataset.row) === chosen?.index && 'true' })
    if (chosen) this.table.querySelector(`tr[data-row="${chosen.index}"]`)?.scrollIntoView({ block: 'nearest' })
  }

  // --- files

  save(ending, form) {
    const text = JSON.stringify(form(this.seen(), this.picture, label => this.named(label), this.about, this.model.get('crs')), null, 1)
    saveFile(`${stem(this.picture.name)}.${ending}`, new Blob([text], { type: 'application/json' }))
  }
}

const stem = name => name.replace(/\.[^.]*$/, '')
const short = (x, digits) => Number(x.toFixed(digits))

function asJson(seen, { name, wh: [width, height] }, named, about) {
  const detections = seen.map(({ label, score, box, quad }) => ({ class: named(label), label, score: short(score, 6),
    box: [...box.slice(0, 4).map(v => short(v, 4)), short(box[4], 6)], quad: quad.map(v => short(v, 4)) }))
  const box = 'cx, cy, w, h in px, theta in radians, clockwise'
  return { image: name, width, height, detector: about.detector, angle: about.angle, box, detections }
}

function asGeojson(seen, { name }, named, about, crs) {
  const ring = quad => { const at = i => [short(quad[2 * i], 3), short(quad[2 * i + 1], 3)]; return [0, 1, 2, 3, 0].map(at) }
  const features = seen.map(({ label, score, box, quad }, id) => ({ type: 'Feature', id,
    geometry: { type: 'Polygon', coordinates: [ring(clockwise(quad))] },
    properties: { class: named(label), score: short(score, 6), angle: short(box[4] * 180 / Math.PI, 4) } }))
  return { type: 'FeatureCollection', name: stem(name), crs: { type: 'name', properties: { name: crs } }, features }
}
