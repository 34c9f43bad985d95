// The canvas with handles. A gesture is shown here while the pointer moves; at its end the same edit is sent to Python, which
// decides what it does to the labels.

const HANDLE = 5, REACH = 30                                      // half a handle; the rotation handle ahead of the front: CSS pixels

class BoxEditor extends BoxCanvas {
  constructor(model, el) {
    super(model, el)
    for (const name of ['status', 'selected']) this.onChange(name, () => this.panel())
    this.panel()
  }
  send(op, args = {}) { this.request({ type: 'edit', op, ...args }) }

  // --- bar

  build() {
    this.tool = null
    super.build()
    this.buttons = {
      previous: this.button('◀', 'Previous image (PageUp)', () => this.send('previous')),
      next: this.button('▶', 'Next image (PageDown)', () => this.send('next')),
      undo: this.button('Undo', 'Undo (Ctrl+Z)', () => this.send('undo')),
      redo: this.button('Redo', 'Redo (Ctrl+Y)', () => this.send('redo')),
      add: this.button('Add', 'Drag from stern to bow, then click at the side (a)', () => this.takeTool(this.tool ? null : 'add')),
      remove: this.button('Delete', 'Delete the box (Del)', () => this.onMine('delete')),
      turn: this.button('Turn', 'Heading along the next side (t)', () => this.onMine('turn', { quarters: 1 })),
      save: this.button('Save', 'Save to the label files (Ctrl+S)', () => this.send('save')),
    }
    this.where = make('span', { class: 'rn-where' })
    const title = 'Class of the box, and of new ones (1 to 9)'
    this.classes = make('select', { class: 'rn-select', title, 'aria-label': title,
      onkeydown: () => { this.typed = true },                     // whoever goes through the list by keys stays there
      onpointerdown: () => { this.typed = false },
      onchange: () => { this.onMine('rename', { name: this.classes.value }); if (!this.typed) this.canvas.focus() } })
    this.difficult = make('input', { type: 'checkbox', onchange: () => { this.onMine('toggle_difficult'); this.canvas.focus() } })
    this.difficultLabel = make('label', { class: 'rn-switch', title: 'Neither counts for a detector nor against it (d)' },
      this.difficult, make('span', {}, 'difficult'))
    const { previous, next, undo, redo, add, remove, turn, save } = this.buttons
    const parts = [previous, this.where, next, undo, redo, add, remove, turn, this.classes, this.difficultLabel, save]
    this.questions = make('div', { class: 'rn-ask', hidden: true })
    this.tools.after(make('div', { class: 'rn-bar rn-edit' }, ...parts), this.questions)
  }
  panel() {
    const status = this.get('status') || {}, mine = this.mine(), { previous, next, undo, redo, add, remove, turn, save } = this.buttons
    this.where.textContent = `${status.index + 1} / ${status.count}  ${status.image || ''}${status.unsaved_here ? ' *' : ''}`
    this.where.title = status.reason || ''
    previous.disabled = !(status.index > 0)
    next.disabled = !(status.index < status.count - 1)
    undo.disabled = !status.undo
    redo.disabled = !status.redo
    save.disabled = !status.unsaved
    save.textContent = status.unsaved > 1 ? `Save (${status.unsaved})` : 'Save'
    remove.disabled = turn.disabled = !mine
    add.setAttribute('aria-pressed', String(this.tool === 'add'))
    this.listClasses()
    if (mine) this.classes.value = this.label(...mine)
    this.difficultLabel.hidden = !status.flags
    this.difficult.disabled = !mine
    this.difficult.checked = !!mine && this.layers[0].isIgnored(mine[1])
    this.ask(status)
  }
  listClasses() {
    const vocab = this.get('vocab'), old = this.classes.value
    if (this.classes.dataset.vocab === vocab.join()) return
    this.classes.replaceChildren(...vocab.map((name, i) => make('option', { value: name }, i < 9 ? `${i + 1} ${name}` : name)))
    this.classes.dataset.vocab = vocab.join()
    if (vocab.includes(old)) this.classes.value = old
  }
  ask({ reason, recovered, conflict }) {                          // what needs an answer: a killed kernel's edits, a changed file
    const question = (text, answers) => make('div', { class: 'rn-question' }, make('span', {}, text),
      ...answers.map(([op, title]) => this.button(title, '', () => this.send(op))))
    const rows = []
    if (reason) rows.push(make('div', { class: 'rn-reason' }, reason))
    if (recovered) rows.push(question(recovered, [['restore', 'Restore'], ['discard', 'Discard']]))
    if (conflict) rows.push(question(conflict, [['merge', 'Merge'], ['beside', 'Save mine beside'],
      ['reload', 'Reload theirs'], ['mine', 'Overwrite with mine']]))
    this.questions.replaceChildren(...rows)
    this.questions.hidden = !rows.length
  }
  takeTool(tool) {
    this.tool = tool
    this.axis = null
    this.canvas.style.cursor = tool ? 'crosshair' : ''
    this.panel()
    this.redraw(true)
  }
  mine() { const box = this.chosen; return box && box[0] === 0 ? box : null }          // the selected label, which can be edited
  onMine(op, args = {}) { const box = this.mine(); if (box) this.send(op, { id: this.layers[0].ids[box[1]], ...args }) }

  take(what) {
    if (what === 'layers') this.preview = this.lifted = null      // new boxes from Python end a preview
    if (what === 'scene') this.gesture = this.axis = null
    super.take(what)
    if (what === 'layers') this.panel()
  }
  message(msg, buffers) {
    const idle = !this.gesture && !this.axis                      // an answer also ends the preview of an edit that changed nothing
    const refused = msg.type === 'say' && msg.kind !== 'done'
    if (msg.type === 'heard' && idle && this.preview || refused) this.dropPreview()
    super.message(msg, buffers)
  }
  dropPreview() { this.preview = this.lifted = null; this.redraw() }

  // --- handles

  handles(q) {                                                    // screen places: corners 0-3, edges 4-7, rotation 8
    const at = i => this.screen(...corner(q, i)), places = [0, 1, 2, 3].map(i => [...at(i), i])
    for (let i = 0; i < 4; i++) {
      const [ax, ay] = at(i), [bx, by] = at(i + 1)
      if (Math.hypot(ax - bx, ay - by) > 5 * HANDLE) places.push([(ax + bx) / 2, (ay + by) / 2, 4 + i])
    }
    const [[ax, ay], [bx, by], [cx, cy]] = [at(0), at(1), at(2)], n = Math.hypot(bx - ax, by - ay) || 1
    places.push([(bx + cx) / 2 + (bx - ax) / n * REACH, (by + cy) / 2 + (by - ay) / n * REACH, 8])
    return places
  }
  hit(x, y) {                                                     // the handle at a point of the screen
    const box = this.mine()
    if (!this.seenNow(box)) return null
    let best = null, least = HANDLE + 5
    for (const [handleX, handleY, handle] of this.handles(this.layers[0].quad(box[1]))) {
      const far = Math.hypot(x - handleX, y - handleY)
      if (far < least) { best = handle; least = far }
    }
    return best
  }
  overlay() {
    if (this.preview) return this.drawPreview()
    super.overlay()
    const box = this.mine()
    if (this.seenNow(box) && !this.tool) this.knobs(this.top.getContext('2d'), this.layers[0].quad(box[1]))
  }
  drawPreview() {
    const ctx = this.topContext(), stroke = (strokeStyle, lineWidth) => Object.assign(ctx, { strokeStyle, lineWidth }).stroke()
    const color = this.lifted ? this.color(...this.lifted) : this.classColor(Math.max(this.classes.selectedIndex, 0))
    ctx.beginPath()
    this.path(ctx, this.preview)
    this.shade(ctx, color, 0.15)
    ctx.lineJoin = 'round'
    stroke('#000', 4)
    stroke(color, 2)
    if (this.lifted) this.knobs(ctx, this.preview)
    this.badge(ctx)
  }
  knobs(ctx, q) {
    const all = this.handles(q), [turnX, turnY] = all.at(-1)
    ctx.beginPath()
    ctx.moveTo(...this.screen((q[2] + q[4]) / 2, (q[3] + q[5]) / 2))
    ctx.lineTo(turnX, turnY)
    Object.assign(ctx, { strokeStyle: '#000', lineWidth: 3 }).stroke()
    Object.assign(ctx, { strokeStyle: '#fff', lineWidth: 1.2 }).stroke()
    Object.assign(ctx, { fillStyle: '#fff', strokeStyle: '#000', lineWidth: 1.4 })
    for (const [x, y, handle] of all) {
      ctx.beginPath()
      if (handle === 8) ctx.arc(x, y, HANDLE + 1.5, 0, 7)
      else ctx.rect(x - HANDLE + 1, y - HANDLE + 1, 2 * HANDLE - 2, 2 * HANDLE - 2)
      ctx.fill()
      ctx.stroke()
    }
  }
  badge(ctx) {                                                    // size and heading of what is being made
    const m = measure(this.preview), heading = ((m.heading + 360) % 360).toFixed(1)
    const text = `${m.w.toFixed(1)} × ${m.h.toFixed(1)} px, heading ${heading}°`
    ctx.font = '11px system-ui, sans-serif'
    ctx.fillStyle = 'rgba(20,20,20,.9)'
    ctx.fillRect(8, 8, ctx.measureText(text).width + 12, 20)
    ctx.fillStyle = '#f4f4f4'
    ctx.fillText(text, 14, 22)
  }

  // --- gestures

  press(e) {
    const from = this.world(e)
    if (this.tool === 'add') {
      this.gesture = this.axis ? { op: 'add' } : { op: 'axis', from }
      return this.axis && this.drag(e)
    }
    const box = this.mine(), handle = this.hit(...this.at(e))
    if (!this.seenNow(box)) return                                // a hidden box cannot be dragged
    const quad = this.layers[0].quad(box[1]).slice()
    const op = handle === 8 ? 'rotate' : handle !== null ? 'resize' : inside(quad, ...from) ? 'move' : null
    const id = this.layers[0].ids[box[1]]                         // rows may change until the pointer is let go, ids do not
    if (op) this.gesture = { op, handle, quad, box, id, from }
  }
  edit({ op, quad, handle, from }, e) {                           // the arguments of a gesture's edit, as Python takes them
    const [x, y] = this.world(e)
    if (op === 'move') return { dx: x - from[0], dy: y - from[1] }
    if (op === 'resize') return { handle, x, y }
    if (op === 'add') return this.added([x, y])
    const middle = measure(quad)
    return { theta: Math.atan2(y - middle.cy, x - middle.cx), snap: e.shiftKey }
  }
  added(at) {
    const [[x0, y0], [x1, y1]] = this.axis
    return { x0, y0, x1, y1, width: widthAt(this.axis, at) }
  }
  drag(e) {
    const gesture = this.gesture, { op, from } = gesture
    if (op === 'axis') {
      gesture.to = this.world(e)
      const [[x0, y0], [x1, y1]] = [from, gesture.to]
      this.preview = edited('add', null, { x0, y0, x1, y1, width: 0 })
    } else if (op !== 'add' && !this.start.far) return
    else {
      if (gesture.box && !this.lifted) { this.lifted = gesture.box; this.redraw() }
      this.preview = edited(op, gesture.quad, this.edit(gesture, e))
    }
    this.redraw(true)
  }
  move(e) {
    if (this.axis && !this.pointers.size) {
      this.preview = edited('add', null, this.added(this.world(e)))
      return this.redraw(true)
    }
    super.move(e)
    if (!this.pointers.size && !this.tool) this.canvas.style.cursor = this.cursor(e)
  }
  cursor(e) {
    const handle = this.hit(...this.at(e)), box = this.mine()
    if (handle !== null) return handle === 8 ? 'crosshair' : 'nwse-resize'
    return box && inside(this.layers[0].quad(box[1]), ...this.world(e)) ? 'move' : ''
  }
  release(e) {
    const gesture = this.gesture, { op, id } = gesture
    this.gesture = null
    if (e.type !== 'pointerup') return this.dropPreview()
    if (op === 'axis') return this.endAxis(gesture, this.world(e))
    if (op === 'add') {
      this.send('add', { ...this.edit(gesture, e), name: this.classes.value })
      return this.takeTool(null)
    }
    if (!this.start.far) return this.click(e)                     // a click, not a gesture
    this.send(op, { id, ...this.edit(gesture, e) })
  }
  endAxis({ from, to }, at) {                                     // the middle line is drawn: its width follows the pointer
    this.preview = null
    if (to && this.start.far) {
      this.axis = [from, at]
      this.preview = edited('add', null, this.added(at))
    }
    this.redraw(true)
  }

  // --- keys

  nudge(dx, dy, e) {
    const px = e.shiftKey ? 10 : 1
    this.mine() ? this.onMine('move', { dx: dx * px, dy: dy * px }) : this.pan(-60 * dx, -60 * dy)
  }
  bindings() {
    const arrow = (dx, dy) => ['nudge the box by 1 px (Shift: 10), or pan', e => this.nudge(dx, dy, e)]
    const remove = ['delete', () => this.onMine('delete')], redo = ['redo', () => this.send('redo')]
    return { ...super.bindings(),
      'a': ['add: drag stern to bow, then click at the side', () => this.takeTool(this.tool ? null : 'add')],
      'Delete': remove, 'Backspace': remove,
      'd': ['difficult', () => this.onMine('toggle_difficult')],
      't': ['turn the heading', () => this.onMine('turn', { quarters: 1 })],
      'y': ['take a prediction as a label', () => this.adopt()],
      'Ctrl+Z': ['undo', () => this.send('undo')], 'Ctrl+Y': redo, 'Ctrl+Shift+Z': redo,
      'Ctrl+S': ['save to the label files', () => this.send('save')],
      'PageDown': ['next image', () => this.send('next')], 'PageUp': ['previous image', () => this.send('previous')],
      'ArrowLeft': arrow(-1, 0), 'ArrowRight': arrow(1, 0), 'ArrowUp': arrow(0, -1), 'ArrowDown': arrow(0, 1),
      'Escape': ['stop adding, nothing selected', () => this.escape()] }
  }
  mouse() {
    return [...super.mouse(), ['drag a box', 'move it'], ['corner or side handle', 'resize'],
      ['round handle', 'turn (Shift: in steps)']]
  }
  adopt() {
    const box = this.chosen || this.hover
    if (box && box[0] > 0) this.send('adopt', { layer: box[0], index: box[1] })
  }
  escape() {
    this.keys.hidden = true
    this.gesture = null
    this.tool ? this.takeTool(null) : this.choose(null)
    this.dropPreview()
  }
  digits() {                                                      // 1 to 9 are classes
    const choose = name => { this.classes.value = name; this.onMine('rename', { name }) }
    return Object.fromEntries(this.get('vocab').slice(0, 9).map((name, i) => [i + 1, [name, () => choose(name)]]))
  }
}
