// The widget: a kernel answers. One change is on its way at a time, and what is changed meanwhile is sent together:
// a brush never runs ahead of what it shows.

function live(model, el) {
  const waiting = new Map(), queue = [], kept = new Map()
  let number = 0, flying = 0, busy = false, later = null
  const send = change => {
    if (busy) { later = { ...later, ...change, filters: { ...later?.filters, ...change.filters } }; return }
    busy = true
    model.send({ set: change })
  }
  const heard = [], listen = (name, f) => { model.on(name, f); heard.push([name, f]) }
  listen('change:snapshot', () => {
    busy = false
    if (later) { const o = later; later = null; send(o) }
  })
  listen('msg:custom', (msg, buffers) => {
    if (msg.save) return download('marked.csv', msg.save)
    const ask = waiting.get(msg.thumb)
    if (!ask) return
    waiting.delete(msg.thumb); flying--
    const url = bytes => URL.createObjectURL(new Blob([bytes], { type: 'image/jpeg' }))
    const p = msg.error ? { error: msg.error } : { href: url(buffers[0]), box: msg.box }
    if (!msg.error) kept.set(ask.id, p)
    ask.f(p)
    next()
  })
  const next = () => {
    while (flying < 3 && queue.length) {
      const o = queue.shift(), n = ++number
      if (!o.wanted()) continue
      waiting.set(n, o); flying++
      model.send({ thumb: n, image: o.cell.image, window: o.cell.window })
    }
  }
  return {
    snapshot: () => model.get('snapshot'),
    on: f => listen('change:snapshot', f),
    save: () => model.send({ save: true }), send,
    open(cell) {                        // the large picture comes into the box under this one
      const box = el.closest('.widget-vbox')?.lastElementChild
      const look = () => requestAnimationFrame(() => box.scrollIntoView({ block: 'end', behavior: 'smooth' }))
      if (box) new MutationObserver((_, o) => { o.disconnect(); look() }).observe(box, { childList: true, subtree: true })
      model.send({ open: cell.key })
    },
    picture(cell, f) {
      const id = cell.window ? cell.key : `i${cell.image}`
      if (kept.has(id)) return f(kept.get(id))
      queue.push({ id, cell: { ...cell }, f, wanted: () => model.get('snapshot').cells.some(c => c.key === cell.key) })
      next()
    },
    free() {
      for (const [name, f] of heard) model.off(name, f)
      for (const p of kept.values()) URL.revokeObjectURL(p.href)
    },
  }
}

class LiveExplorer {
  constructor(model, el) { this.api = live(model, el); mount(el, this.api) }
  destroy() { this.api.free() }
}
