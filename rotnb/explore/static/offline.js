// A page without a kernel: `data` holds the codes of the rows and some images, and filters.js does what the kernel would.

const PER_PAGE = 24                                               // thumbnails

function offline(data, openLarge) {
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer, ints = text => text && new Int32Array(bytes(text))
  const base = data.snapshot, image = ints(data.image), marks = new Set(data.marks), every = new Set(image).size
  const fields = base.fields.map(f => {
    const { codes, rows, x } = data.fields[f.name]
    return { ...f, codes: ints(codes), rows: ints(rows), x: x && new Float64Array(bytes(x)) }
  })
  const images = new Map(data.images.map(o => [o.image, o])), classes = fields.find(f => f.name === 'cls').values
  const state = { filters: {}, by: base.by, sort: base.sort, ascending: base.ascending, page: 0, side: base.side }
  let changed = () => {}, snap

  function inOrder(mask) {                // rows in embedded images, or those images
    const some = data.boxes.filter(o => mask[o.row]), rows = state.sort ? sorted(some, state.sort, state.ascending) : some
    return state.by === 'boxes' ? rows : [...new Set(rows.map(o => o.image))]
  }
  function boxCell(row) {
    const held = images.get(row.image), on = held.boxes.row.map(r => r >= 0 && r === row.row)
    return cell(held, row.key, row.window, row.caption, on)
  }
  function imageCell(number, mask) {
    const held = images.get(number), on = held.boxes.row.map(r => r >= 0 && mask[r] === 1)
    const n = new Set(held.boxes.row.filter((r, i) => on[i])).size
    const filtered = Object.keys(state.filters).length && held.n
    return cell(held, `i${number}`, null, filtered ? `${n} of ${held.n}` : `${held.n} box${held.n === 1 ? '' : 'es'}`, on)
  }
  function cell(held, key, window, caption, on) {
    return { key, image: held.image, window, name: held.name, marked: marks.has(key), caption, boxes: { ...held.boxes, on } }
  }
  function work() {
    const left = masks(fields, state.filters, image.length), mask = left['']
    const order = inOrder(mask), pages = Math.ceil(order.length / PER_PAGE)
    state.page = clamp(state.page, 0, Math.max(0, pages - 1))
    const cells = order.slice(state.page * PER_PAGE, (state.page + 1) * PER_PAGE)
    snap = { ...base, ...state, pages, marks: marks.size, ...words(mask),
      fields: fields.map(f => ({ ...f, want: state.filters[f.name] || null, shown: counted(f, left[f.name] || mask, image) })),
      matrix: base.matrix && { ...base.matrix, want: state.filters.cell ? state.filters.cell[0] : null },
      curves: base.curves && { ...base.curves, picked: state.picked },
      cells: cells.map(o => state.by === 'boxes' ? boxCell(o) : imageCell(o, mask)) }
    changed()
  }
  function words(mask) {                  // how much is shown, and how much of it this page lacks
    const some = new Set()
    let n = 0
    mask.forEach((yes, i) => { if (yes) { some.add(image[i]); n += data.real[i] } })
    const lacking = [...some].filter(i => !images.has(i)).length
    return { counts: `${count(n)} of ${data.total} boxes in ${count(some.size)} of ${count(every)} image${every === 1 ? '' : 's'}`,
      notes: lacking ? [`${count(lacking)} of these images are not in this page`] : [] }
  }

  function send({ filters, point, mark, reset, side, ...rest }) {
    if (mark) { marks.has(mark) ? marks.delete(mark) : marks.add(mark); return work() }
    if (reset) Object.assign(state, { filters: {}, picked: null })
    if (point) {
      delete state.filters.cell
      filters = { cls: [classes.indexOf(point.cls)], score: [point.score, null] }
      Object.assign(state, { picked: point, by: 'boxes', sort: 'score', ascending: true })
    } else if (filters && 'score' in filters) state.picked = null
    for (const [name, want] of Object.entries(filters || {})) want === null ? delete state.filters[name] : state.filters[name] = want
    if (side) state.side = side === 'side'
    Object.assign(state, { page: 0 }, rest)
    work()
  }
  function thumbnail({ image }, show) {
    const { error, href, box } = images.get(image)
    show(error ? { error } : { href, box })
  }
  function save() {
    const quoted = v => `"${String(v ?? '').replaceAll('"', '""')}"`
    const about = key => key[0] === 'i' ? { image: +key.slice(1), caption: '' } : data.boxes.find(o => o.key === key)
    const line = key => { const o = about(key); return [key, images.get(o?.image)?.name, o?.caption].map(quoted).join() }
    saveMarked(['key,image,box', ...[...marks].map(line), ''].join('\n'))
  }
  const open = cell => openLarge(images.get(cell.image), cell, snap, classes)
  work()
  return { snapshot: () => snap, on: heard => { changed = heard }, send, thumbnail, open, save, fixed: true }
}

// The viewer's canvas in a dialog, with the image that the page holds
function dialog(viewer, Model) {
  const url = URL.createObjectURL(new Blob([viewer.esm], { type: 'text/javascript' }))
  document.head.append(make('style', {}, viewer.css))
  return async (held, cell, snap, vocab) => {
    if (held.error) return
    const model = new Model({ ...viewer.state, ...largeState(held, cell, snap), vocab, height: Math.round(innerHeight * .72) })
    const close = make('button', { onclick: () => box.close() }, 'close ×')
    const head = make('div', { class: 'rn-summary' }, make('strong', {}, held.name), make('span', {}, cell.caption),
      make('span', { class: 'rn-space' }), close)
    const el = make('div'), box = make('dialog', { class: 'rn-explorer rn-dialog' }, head, el)
    document.body.append(box)
    box.showModal()
    const end = (await import(url)).default.render({ model, el })
    box.onclose = () => { end(); box.remove() }
  }
}
function largeState(held, cell, snap) {                           // traitlets of the viewer
  const boxes = held.boxes, raw = (Type, numbers) => new DataView(Type.from(numbers).buffer)
  const layers = snap.layers.map((name, k) => {
    const rows = boxes.layer.flatMap((layer, i) => layer === k ? [i] : []), dash = (DASH[k] || '').split(' ').filter(o => o).map(Number)
    return { name, dash, notes: null, scores: null, quads: raw(Float64Array, rows.flatMap(i => boxes.q[i])),
      labels: raw(Int32Array, rows.map(i => boxes.label[i])), ignored: raw(Uint8Array, rows.map(i => boxes.label[i] < 0)) }
  })
  const jpeg = Uint8Array.from(atob(held.href.split(',')[1]), c => c.charCodeAt(0))
  const scene = { id: '1', name: held.name, width: held.box[2], height: held.box[3], tile: 512, levels: 0 }
  return { scene, layers, pixels: new DataView(jpeg.buffer), focus: cell.window && twice(cell.window) }
}
const twice = ([x0, y0, x1, y1]) => [x0 - (x1 - x0) / 2, y0 - (y1 - y0) / 2, x1 + (x1 - x0) / 2, y1 + (y1 - y0) / 2]

class OfflineExplorer {
  constructor(model, el) {
    el.classList.add('rn-page-body')
    el.explorer = offline(model.get('data'), dialog(model.get('viewer'), model.constructor))
    mount(el, el.explorer)
  }
  destroy() {}
}
