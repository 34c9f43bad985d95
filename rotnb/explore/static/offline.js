// A page without a kernel: `data` holds the rows' codes and some images; filters are worked out here, as BoxTable does in Python.

function offline(data, large) {
  const bytes = s => Uint8Array.from(atob(s), c => c.charCodeAt(0)).buffer
  const ints = s => s && new Int32Array(bytes(s))
  const base = data.snapshot, image = ints(data.image), marks = new Set(data.marks)
  const fields = base.fields.map(f => ({ ...f, ...data.fields[f.name] }))
    .map(f => ({ ...f, codes: ints(f.codes), rows: ints(f.rows), x: f.x && new Float64Array(bytes(f.x)) }))
  const images = new Map(data.images.map(p => [p.image, p])), every = new Set(image).size
  const state = { filters: {}, by: base.by, sort: base.sort, ascending: base.ascending, page: 0, side: base.side }
  let told = () => {}, snap

  function passes(f, want) {             // of each row, whether one of its entries is wanted
    const ok = new Uint8Array(image.length), bins = f.values.length - 1
    const [a, b] = want, i = a === null ? 0 : f.values.indexOf(a), j = b === null ? bins : f.values.indexOf(b)
    const inside = f.kind === 'class' ? c => want.includes(c) :
      f.x ? (c, k) => (a === null || f.x[k] >= a) && (b === null || f.x[k] < b) : c => c >= i && c < j
    f.codes.forEach((c, k) => { if (c >= 0 && inside(c, k)) ok[f.rows ? f.rows[k] : k] = 1 })
    return ok
  }
  function counted(f, mask) {
    const res = new Array(f.kind === 'class' ? f.values.length : f.values.length - 1).fill(0), seen = new Set()
    f.codes.forEach((c, k) => {
      const r = f.rows ? f.rows[k] : k, id = image[r] * res.length + c
      if (c < 0 || !mask[r] || (f.per === 'image' && seen.has(id))) return
      if (f.per === 'image') seen.add(id)
      res[c]++
    })
    return res
  }
  function inOrder(mask) {                // rows in embedded images
    const rows = data.boxes.filter(o => mask[o.row]), up = state.ascending ? 1 : -1
    const last = v => v === null ? 1 : 0    // what has no number
    if (state.sort) rows.sort((a, b) => {
      const x = a.sorts[state.sort], y = b.sorts[state.sort]
      return last(x) - last(y) || up * (x - y)
    })
    return state.by === 'boxes' ? rows : [...new Set(rows.map(o => o.image))]
  }
  function cell(o, mask) {
    const p = images.get(state.by === 'boxes' ? o.image : o), b = p.boxes
    const on = i => b.row[i] >= 0 && (state.by === 'boxes' ? b.row[i] === o.row : mask[b.row[i]] === 1)
    const key = state.by === 'boxes' ? o.key : `i${o}`, n = new Set(b.row.filter((r, i) => on(i))).size
    const held = Object.keys(state.filters).length && p.n ? `${n} of ${p.n}` : `${p.n} box${p.n === 1 ? '' : 'es'}`
    return { key, image: p.image, window: state.by === 'boxes' ? o.window : null, name: p.name, marked: marks.has(key),
      caption: state.by === 'boxes' ? o.caption : held, boxes: { ...b, on: b.row.map((_, i) => on(i)) } }
  }
  function work() {
    const pass = Object.entries(state.filters).map(([k, want]) => [k, passes(fields.find(f => f.name === k), want)])
    const keep = but => {
      const m = new Uint8Array(image.length).fill(1)
      for (const [k, p] of pass) if (k !== but) for (let i = 0; i < m.length; i++) m[i] &= p[i]
      return m
    }
    const mask = keep(null), order = inOrder(mask), per = 24, pages = Math.ceil(order.length / per), some = new Set()
    let n = 0
    mask.forEach((yes, i) => { if (yes) { some.add(image[i]); n += data.real[i] } })
    state.page = clamp(state.page, 0, Math.max(0, pages - 1))
    const left = [...some].filter(i => !images.has(i)).length
    snap = { ...base, ...state, pages, marks: marks.size, notes: left ? [`${count(left)} of these images are not in this page`] : [],
      counts: `${count(n)} of ${data.total} boxes in ${count(some.size)} of ${count(every)} image${every === 1 ? '' : 's'}`,
      fields: fields.map(f => ({ ...f, want: state.filters[f.name] || null, shown: counted(f, keep(f.name)) })),
      matrix: base.matrix && { ...base.matrix, want: state.filters.cell ? state.filters.cell[0] : null },
      curves: base.curves && { ...base.curves, picked: state.picked },
      cells: order.slice(state.page * per, (state.page + 1) * per).map(o => cell(o, mask)) }
    told()
  }
  function send({ filters, point, mark, reset, side, ...rest }) {
    if (mark) { marks.has(mark) ? marks.delete(mark) : marks.add(mark); return work() }
    if (reset) { state.filters = {}; state.picked = null }
    if (point) {
      delete state.filters.cell
      filters = { cls: [fields.find(f => f.name === 'cls').values.indexOf(point.cls)], score: [point.score, null] }
      Object.assign(state, { picked: point, by: 'boxes', sort: 'score', ascending: true })
    } else if (filters && 'score' in filters) state.picked = null
    for (const [k, v] of Object.entries(filters || {})) v === null ? delete state.filters[k] : state.filters[k] = v
    if (side) state.side = side === 'side'
    Object.assign(state, { page: 0 }, rest)
    work()
  }
  const thumbnail = (c, f) => { const p = images.get(c.image); f(p.error ? { error: p.error } : { href: p.href, box: p.box }) }
  const open = c => large(images.get(c.image), c, snap, fields.find(f => f.name === 'cls').values)
  const save = () => download('marked.csv', 'key,image,box\n' + [...marks].map(k => {
    const o = k[0] === 'i' ? { image: +k.slice(1), caption: '' } : data.boxes.find(b => b.key === k)
    return [k, images.get(o?.image)?.name, o?.caption].map(v => `"${String(v ?? '').replaceAll('"', '""')}"`).join()
  }).join('\n') + '\n')
  work()
  return { snapshot: () => snap, on: f => { told = f }, send, thumbnail, open, save, fixed: true }
}

// The viewer's canvas in a dialog, with the image that the page holds
function dialog(viewer, Model) {
  const style = document.createElement('style'), url = URL.createObjectURL(new Blob([viewer.esm], { type: 'text/javascript' }))
  style.textContent = viewer.css
  document.head.append(style)
  return async (p, cell, snap, vocab) => {
    if (p.error) return
    const b = p.boxes, raw = (Type, xs) => new DataView(Type.from(xs).buffer), w = cell.window
    const layers = snap.layers.map((name, k) => {
      const i = b.layer.flatMap((l, i) => l === k ? [i] : [])
      return { name, dash: (DASH[k] || '').split(' ').filter(o => o).map(Number), notes: null, scores: null,
        quads: raw(Float64Array, i.flatMap(j => b.q[j])), labels: raw(Int32Array, i.map(j => b.label[j])),
        ignored: raw(Uint8Array, i.map(j => b.label[j] < 0)) }
    })
    const jpeg = Uint8Array.from(atob(p.href.split(',')[1]), c => c.charCodeAt(0))
    const look = w && [w[0] + w[0] - w[2], w[1] + w[1] - w[3], w[2] + w[2] - w[0], w[3] + w[3] - w[1]].map((v, i) => (v + w[i]) / 2)
    const scene = { id: '1', name: p.name, width: p.box[2], height: p.box[3], tile: 512, levels: 0 }
    const pixels = new DataView(jpeg.buffer), height = Math.round(innerHeight * .72)
    const model = new Model({ ...viewer.state, scene, pixels, layers, vocab, focus: look, height })
    const head = make('div', { class: 'rx-head' }, make('strong', {}, p.name), make('span', {}, cell.caption),
      make('span', { class: 'rx-space' }), make('button', { onclick: () => box.close() }, 'close ×'))
    const el = make('div'), box = make('dialog', { class: 'rx rx-dialog' }, head, el)
    document.body.append(box)
    box.showModal()
    const end = (await import(url)).default.render({ model, el })
    box.onclose = () => { end(); box.remove() }
  }
}

class OfflineExplorer {
  constructor(model, el) {
    el.classList.add('rx-page-body')
    el.explorer = offline(model.get('data'), dialog(model.get('viewer'), model.constructor))
    mount(el, el.explorer)
  }
  destroy() {}
}
