// An image that is zoomed and panned. What is drawn over it, and what a click means, is for the classes that extend this one.
// World coordinates are pixels of the whole image, screen coordinates CSS pixels; `dpr` turns those into device pixels.

const SIGNS = { ArrowLeft: '←', ArrowRight: '→', ArrowUp: '↑', ArrowDown: '↓', Delete: 'Del', Escape: 'Esc' }

class ImageView {
  constructor(model, el) {
    Object.assign(this, { model, el, scale: 1, cx: 0, cy: 0, fitted: true, frames: [], pending: 0, off: [] })
    this.build()
    this.pixels = new Pixels(this)
    this.patience = new Patience(text => this.late(text))
    this.listen()
    this.observer = new ResizeObserver(() => this.resize())
    this.observer.observe(this.stage)
    this.join()
    for (const name of this.taken()) this.take(name)
    this.resize()
    this.root.rotnb = this                                        // for tests, and for the curious in the console
  }
  destroy() {
    this.gone = true
    this.off.forEach(stop => stop())
    this.observer.disconnect()
    this.pixels.serial++
    this.pixels.close()
    this.group?.delete(this)
    for (const timer of [this.quiet, this.telling, this.saving]) clearTimeout(timer)
    this.patience.stop()
  }

  // --- the model

  get(name) { return this.model.get(name) }
  set(name, value) { this.model.set(name, value); this.model.save_changes() }
  request(msg) { this.patience.ask(() => this.model.send(msg)) }
  on(event, heard) {
    this.model.on(event, heard)
    this.off.push(() => this.model.off(event, heard))
  }
  onChange(name, heard) { this.on(`change:${name}`, heard) }
  taken() { return ['scene', 'pixels'] }                          // traitlets that `take` draws
  listen() {
    this.on('msg:custom', (msg, buffers) => this.message(msg, buffers || []))
    for (const name of this.taken()) this.onChange(name, () => this.take(name))
    this.onChange('height', () => this.resize())
    this.onChange('focus', () => this.look())
    this.onChange('group', () => this.join())
  }
  join() {                                                        // viewers of one group move together
    const name = this.get('group')
    this.group?.delete(this)
    this.group = null
    if (!name) return
    const groups = globalThis[Symbol.for('rotnb.groups')] ??= new Map()
    if (!groups.has(name)) groups.set(name, new Set())
    this.group = groups.get(name)
    this.group.add(this)
  }

  // --- what Python says

  take(what) {
    if (what === 'scene') this.takeScene()
    if (what === 'pixels') this.pixels.load(this.get('pixels')).catch(e => this.say(`The image cannot be shown: ${e.message}`))
    this.redraw()
  }
  takeScene() {
    const old = this.scene, scene = this.scene = { width: 0, height: 0, levels: 0, tile: 512, id: '', ...this.get('scene') }
    this.canvas.setAttribute('aria-label', `Image ${scene.name || ''} with oriented boxes`)
    if (old && old.id === scene.id) return
    this.pixels.close()
    const sameSize = old && old.width === scene.width && old.height === scene.height
    if (!sameSize || !this.get('keep_view')) this.fitted = true
    if (this.fitted) this.fit(false)
    this.look()
    if (old) this.take('pixels')                                  // the same bytes are not sent twice: then `pixels` does not change
  }
  message(msg, buffers) {
    this.patience.heard()
    if (msg.type === 'tile') this.pixels.receive(msg, buffers).catch(e => this.say(e.message))
    if (msg.type === 'say') this.say(msg.text, msg.kind)
  }
  look() {                                                        // show the region that Python asks for
    const region = this.get('focus')
    if (region && region.length === 4 && this.w) this.zoomTo(...region)
  }
  say(text, kind = 'error') {
    this.note.textContent = text || ''
    this.note.dataset.kind = kind
    this.note.hidden = !text
    clearTimeout(this.quiet)
    if (text && kind !== 'error') this.quiet = setTimeout(() => { this.note.hidden = true }, 4000)
  }
  late(text) {
    if (text) this.say(text)
    else if (this.note.textContent.startsWith(LATE)) this.say('')
  }

  // --- page

  button(text, title, onclick) {                                  // a sign, such as +, is read out as its title
    const label = /\p{L}/u.test(text) ? null : title
    return make('button', { class: 'rn-button', type: 'button', title, 'aria-label': label, onclick }, text)
  }
  build() {
    this.percent = make('span', { class: 'rn-percent' })
    this.switches = make('span', { class: 'rn-switches' })
    this.sliders = make('span', { class: 'rn-sliders' })
    this.saves = make('span', { class: 'rn-saves' }, this.button('?', 'Keys (?)', () => this.help()))
    this.tools = make('div', { class: 'rn-bar' },
      this.button('Fit', 'Whole image (f)', () => this.fit()),
      this.button('1:1', 'One image pixel to a device pixel (o)', () => this.oneToOne()),
      this.button('−', 'Zoom out (-)', () => this.zoomAt(1 / 1.5)), this.button('+', 'Zoom in (+)', () => this.zoomAt(1.5)),
      this.percent, this.switches, this.sliders, this.saves)
    this.canvas = make('canvas', { class: 'rn-canvas', tabindex: 0, role: 'img' })
    this.top = make('canvas', { class: 'rn-top' })
    this.tip = make('div', { class: 'rn-tip', hidden: true })
    this.note = make('div', { class: 'rn-note', role: 'status', hidden: true })
    this.keys = make('div', { class: 'rn-keys', role: 'region', 'aria-label': 'Keys', hidden: true })
    this.stage = make('div', { class: 'rn-stage' }, this.canvas, this.top, this.tip, this.note, this.keys)
    this.legend = make('div', { class: 'rn-legend' })
    this.root = make('div', { class: 'rn-viewer' }, this.tools, this.stage, this.legend)
    keepKeys(this.root)
    this.el.append(this.root)
    this.hear()
  }
  hear() {                                                        // pointer and keys; none of them reaches the notebook
    const on = (name, heard, options) => this.canvas.addEventListener(name, heard, options)
    this.pointers = new Map()
    on('wheel', e => this.wheel(e), { passive: false })
    on('pointerdown', e => this.down(e))
    on('pointermove', e => this.move(e))
    on('pointerup', e => this.up(e))
    on('pointercancel', e => this.up(e))
    on('pointerleave', () => { if (!this.pointers.size) this.leave() })
    on('contextmenu', e => e.preventDefault())
    this.root.addEventListener('keydown', e => {
      e.stopPropagation()
      if (e.target.matches('input,select')) return
      const plain = !e.ctrlKey && !e.metaKey && !e.altKey
      if ((plain || this.wants(e)) && this.key(e)) e.preventDefault()
    })
    for (const name of ['keyup', 'keypress']) this.root.addEventListener(name, e => e.stopPropagation())
  }

  // --- where things are

  resize() {
    const w = this.stage.clientWidth, h = this.get('height'), first = !this.w
    if (!w || this.gone) return
    this.stage.style.height = `${h}px`
    this.dpr = globalThis.devicePixelRatio || 1
    Object.assign(this, { w, h })
    for (const canvas of [this.canvas, this.top]) {
      canvas.width = Math.round(w * this.dpr)
      canvas.height = Math.round(h * this.dpr)
      canvas.style.width = `${w}px`
      canvas.style.height = `${h}px`
    }
    if (this.fitted) this.fit(false)
    if (first) this.look()
    this.draw()                                                   // at once: a resized canvas is empty
  }
  get ox() { return this.w / 2 - this.cx * this.scale }
  get oy() { return this.h / 2 - this.cy * this.scale }
  visible() {                                                     // the part of the image in view: x0, y0, x1, y1
    const dx = this.w / 2 / this.scale, dy = this.h / 2 / this.scale, { width, height } = this.scene
    return [Math.max(this.cx - dx, 0), Math.max(this.cy - dy, 0), Math.min(this.cx + dx, width), Math.min(this.cy + dy, height)]
  }
  at(e) { const r = this.canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top] }
  world(e) { const [x, y] = this.at(e); return [(x - this.ox) / this.scale, (y - this.oy) / this.scale] }
  screen(x, y) { return [x * this.scale + this.ox, y * this.scale + this.oy] }

  fit(tell = true) {
    if (!this.w || !this.scene?.width) return
    this.scale = Math.min(this.w / this.scene.width, this.h / this.scene.height)
    this.cx = this.scene.width / 2
    this.cy = this.scene.height / 2
    this.moved(tell, true)
  }
  limits() {
    const fit = Math.min(this.w / this.scene.width, this.h / this.scene.height)
    return [Math.min(fit, 1) / 4, Math.max(fit, 64)]
  }
  zoomAt(factor, x = this.w / 2, y = this.h / 2) {                // the point under the pointer stays
    const [least, most] = this.limits(), scale = clamp(this.scale * factor, least, most)
    const worldX = (x - this.ox) / this.scale, worldY = (y - this.oy) / this.scale
    this.scale = scale
    this.cx = worldX - (x - this.w / 2) / scale
    this.cy = worldY - (y - this.h / 2) / scale
    this.moved()
  }
  oneToOne() { this.zoomAt(1 / this.dpr / this.scale) }
  pan(dx, dy) {
    this.cx -= dx / this.scale
    this.cy -= dy / this.scale
    this.moved()
  }
  zoomTo(x0, y0, x1, y1, margin = 0.35) {
    const [least, most] = this.limits(), around = 1 + 2 * margin
    const w = Math.max(x1 - x0, 1) * around, h = Math.max(y1 - y0, 1) * around
    this.scale = clamp(Math.min(this.w / w, this.h / h), least, Math.min(most, 16))
    this.cx = (x0 + x1) / 2
    this.cy = (y0 + y1) / 2
    this.moved()
  }
  moved(tell = true, fitted = false) {
    this.fitted = fitted
    this.cx = clamp(this.cx, 0, this.scene.width)                 // some of the image stays in sight
    this.cy = clamp(this.cy, 0, this.scene.height)
    if (tell) {
      const { scale, cx, cy } = this
      for (const o of this.group || []) if (o !== this && o.w) Object.assign(o, { scale, cx, cy }).moved(false, fitted)
      clearTimeout(this.telling)
      this.telling = setTimeout(() => { if (!this.gone) this.set('viewport', [this.cx, this.cy, this.scale]) }, 150)
    }
    this.redraw()
  }

  // --- drawing

  redraw(topOnly = false) {
    if (!topOnly) this.stale = true
    if (this.waiting || this.gone) return
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0
      if (!this.gone) this.stale ? this.draw() : this.overlay()
    })
  }
  draw() {
    if (!this.w || !this.scene) return
    const start = performance.now(), ctx = this.canvas.getContext('2d', { alpha: true })
    this.stale = false
    ctx.setTransform(1, 0, 0, 1, 0, 0)
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height)
    this.pixels.draw(ctx)
    ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0)
    this.paint(ctx)
    this.percent.textContent = `${Math.round(this.scale * this.dpr * 1000) / 10}%`
    this.overlay()
    this.frames.push(performance.now() - start)
    if (this.frames.length > 240) this.frames.shift()
  }
  paint() {}                                                      // over the image
  overlay() { this.topContext() }                                 // what follows the pointer has a canvas of its own
  topContext() {
    const ctx = this.top.getContext('2d')
    ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0)
    ctx.clearRect(0, 0, this.w, this.h)
    return ctx
  }

  // --- pointer

  wheel(e) {
    e.preventDefault()
    const unit = [1, 16, this.h][e.deltaMode], delta = clamp(e.deltaY * unit, -300, 300)
    this.zoomAt(Math.exp(-delta * (e.ctrlKey ? 0.01 : 0.002)), ...this.at(e))
  }
  down(e) {
    this.canvas.focus({ preventScroll: true })
    try { this.canvas.setPointerCapture(e.pointerId) } catch { /* a pointer made by a script */ }
    this.pointers.set(e.pointerId, this.at(e))
    this.start = { at: this.at(e), far: false }
    this.tip.hidden = true
    if (this.pointers.size === 1 && e.button === 0) this.press(e)
  }
  move(e) {
    const at = this.at(e), old = this.pointers.get(e.pointerId)
    if (!old) return this.point(e)
    if (this.pointers.size === 2) return this.pinch(e.pointerId, at)
    if (Math.hypot(at[0] - this.start.at[0], at[1] - this.start.at[1]) > 3) this.start.far = true
    this.pointers.set(e.pointerId, at)
    if (this.gesture) return this.drag(e)
    if (this.start.far) this.pan(at[0] - old[0], at[1] - old[1])
  }
  pinch(id, at) {                                                 // two fingers: spread and pan
    const spread = () => {
      const [a, b] = [...this.pointers.values()]
      return { x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2, far: Math.hypot(a[0] - b[0], a[1] - b[1]) }
    }
    const before = spread()
    this.pointers.set(id, at)
    const after = spread()
    this.zoomAt(after.far / (before.far || 1), after.x, after.y)
    this.pan(after.x - before.x, after.y - before.y)
  }
  up(e) {
    if (!this.pointers.delete(e.pointerId)) return
    if (this.gesture) return this.release(e)
    if (!this.start.far && e.type === 'pointerup' && e.button === 0) this.click(e)
  }
  leave() { this.tip.hidden = true }
  point() {}                                                      // the pointer moves, nothing is pressed
  click() {}
  press() {}                                                      // an editor may begin a gesture here,
  drag() {}                                                       // follow it,
  release() {}                                                    // and end it

  // --- keys

  bindings() {                                                    // key -> what it does, in words and in deed
    return { 'f': ['whole image', () => this.fit()], 'o': ['one to one', () => this.oneToOne()],
      '+': ['zoom in', () => this.zoomAt(1.5)], '-': ['zoom out', () => this.zoomAt(1 / 1.5)],
      'ArrowLeft': ['pan', () => this.pan(60, 0)], 'ArrowRight': ['pan', () => this.pan(-60, 0)],
      'ArrowUp': ['pan', () => this.pan(0, 60)], 'ArrowDown': ['pan', () => this.pan(0, -60)],
      '?': ['this list', () => this.help()] }
  }
  mouse() { return [['wheel', 'zoom'], ['drag', 'pan']] }          // what the pointer does, for the list of keys
  named(e) {                                                      // a key as `bindings` spells it; Meta is the Ctrl of a Mac
    const ctrl = e.ctrlKey || e.metaKey
    return ctrl ? `Ctrl+${e.shiftKey ? 'Shift+' : ''}${e.key.toUpperCase()}` : e.key === '=' ? '+' : e.key
  }
  wants(e) { return !e.altKey && this.named(e) in this.bindings() }
  key(e) {
    const binding = this.bindings()[this.named(e)]
    if (!binding) return false
    binding[1](e)
    return true
  }
  help() {                                                        // keys that do the same share a line
    const lines = new Map(), add = (key, what) => lines.set(what, [...lines.get(what) || [], key])
    for (const [key, [what]] of Object.entries(this.bindings())) add(SIGNS[key] || key, what)
    for (const [how, what] of this.mouse()) add(how, what)
    this.keys.replaceChildren(...[...lines].map(([what, keys]) =>
      make('div', { class: 'rn-row' }, make('kbd', {}, keys.join(' ')), make('span', {}, what))))
    this.keys.hidden = !this.keys.hidden
  }
}
