// The widget: a kernel answers. One change is on its way at a time, and what is changed meanwhile is sent together:
// a brush never runs ahead of what it shows.

function live(model, el) {
  const waiting = new Map(), queue = [], kept = new Map()      // by the name of an image: other views of this widget hear the answers too
  let flying = 0, busy = false, later = null
  const note = make('p', { class: 'rn-explorer rn-warn rn-late', hidden: true })
  const patience = new Patience(text => { note.textContent = text; note.hidden = !text })
  const ask = msg => patience.ask(() => model.send(msg))
  const send = change => {
    if (busy) return void (later = { ...later, ...change, filters: { ...later?.filters, ...change.filters } })
    busy = true
    ask({ set: change })
  }
  const heard = [], listen = (name, f) => { model.on(name, f); heard.push([name, f]) }
  listen('change:snapshot', () => {
    busy = false
    patience.heard()
    if (!later) return
    const change = later
    later = null
    send(change)
  })
  listen('msg:custom', (msg, buffers) => {
    patience.heard()
    if (msg.save) return saveMarked(msg.save)
    const some = waiting.get(msg.thumb)
    if (!some) return
    waiting.delete(msg.thumb)
    flying--
    const url = bytes => URL.createObjectURL(new Blob([bytes], { type: 'image/jpeg' }))
    const p = msg.error ? { error: msg.error } : { href: url(buffers[0]), box: msg.box }
    if (!msg.error) kept.set(msg.thumb, p)
    for (const f of some) f(p)
    next()
  })
  const next = () => {
    while (flying < 3 && queue.length) {
      const o = queue.shift()
      if (!o.wanted()) continue
      if (waiting.has(o.id)) { waiting.get(o.id).push(o.f); continue }
      waiting.set(o.id, [o.f])
      flying++
      ask({ thumb: o.id, image: o.cell.image, window: o.cell.window })
    }
  }
  return {
    note, patience, snapshot: () => model.get('snapshot'),
    on: f => listen('change:snapshot', f),
    save: () => ask({ save: true }), send,
    open(cell) {                        // the large image comes into the box under this one
      const box = el.closest('.widget-vbox')?.lastElementChild
      const look = () => requestAnimationFrame(() => box.scrollIntoView({ block: 'end', behavior: 'smooth' }))
      if (box) new MutationObserver((_, o) => { o.disconnect(); look() }).observe(box, { childList: true, subtree: true })
      ask({ open: cell.key })
    },
    thumbnail(cell, f) {
      const id = cell.window ? cell.key : `i${cell.image}`
      if (kept.has(id)) return f(kept.get(id))
      queue.push({ id, cell: { ...cell }, f, wanted: () => model.get('snapshot').cells.some(c => c.key === cell.key) })
      next()
    },
    free() {
      patience.stop()
      for (const [name, f] of heard) model.off(name, f)
      for (const p of kept.values()) URL.revokeObjectURL(p.href)
    },
  }
}

class LiveExplorer {
  constructor(model, el) {
    this.api = el.explorer = live(model, el)
    mount(el, this.api)
    el.prepend(this.api.note)
  }
  destroy() { this.api.free() }
}
