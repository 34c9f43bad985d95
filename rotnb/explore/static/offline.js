// A page without a kernel: `data` holds the rows' codes and some pictures; filters are worked out here, as BoxTable does in Python.

function offline(data) {
  const bytes = s => Uint8Array.from(atob(s), c => c.charCodeAt(0)).buffer
  const ints = s => s && new Int32Array(bytes(s))
  const base = data.snapshot, image = ints(data.image), marks = new Set(data.marks)
  const fields = base.fields.map(f => ({ ...f, ...data.fields[f.name] })).map(f => ({ ...f, codes: ints(f.codes), rows: ints(f.rows), x: f.x && new Float64Array(bytes(f.x)) }))
  const pictures = new Map(data.pictures.map(p => [p.image, p])), state = { filters: {}, by: base.by, sort: base.sort, ascending: base.ascending, page: 0, side: base.side }
  let told = () => {}, snap

  function passes(f, want) {             // of each row, whether one of its entries is wanted
    const ok = new Uint8Array(image.length), bins = f.values.length - 1
    const [a, b] = want, i = a === null ? 0 : f.values.indexOf(a), j = b === null ? bins : f.values.indexOf(b)
    f.codes.forEach((c, k) => {
      const x = f.x ? f.x[k] : NaN
      const yes = c < 0 ? false : f.kind === 'class' ? want.includes(c) : f.x ? (a === null || x >= a) && (b === null || x < b) : c >= i && c < j
      if (yes) ok[f.rows ? f.rows[k] : k] = 1
    })
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
  function inOrder(mask) {                // rows in embedded pictures
    const rows = data.boxes.filter(o => mask[o.row]), up = state.ascending ? 1 : -1
    if (state.sort) rows.sort((a, b) => { const [x, y] = [a.sorts[state.sort], b.sorts[state.sort]]; return x === null ? (y === null ? 0 : 1) : y === null ? -1 : up * (x - y) })
    return state.by === 'boxes' ? rows : [...new Set(rows.map(o => o.image))]
  }
  function cell(o, mask) {
    const p = pictures.get(state.by === 'boxes' ? o.image : o), b = p.boxes
    const on = i => b.row[i] >= 0 && (state.by === 'boxes' ? b.row[i] === o.row : mask[b.row[i]] === 1)
    const key = state.by === 'boxes' ? o.key : `i${o}`, n = b.row.filter((r, i) => on(i)).length
    return { key, image: p.image, window: state.by === 'boxes' ? o.window : null, name: p.name, marked: marks.has(key),
      caption: state.by === 'boxes' ? o.caption : `${n} of ${p.n}`, boxes: { ...b, on: b.row.map((_, i) => on(i)) } }
  }
  function work() {
    const pass = Object.fromEntries(Object.entries(state.filters).map(([k, want]) => [k, passes(fields.find(f => f.name === k), want)]))
    const keep = but => { const m = new Uint8Array(image.length).fill(1)
      for (const [k, p] of Object.entries(pass)) if (k !== but) for (let i = 0; i < m.length; i++) m[i] &= p[i]
      return m }
    const mask = keep(null), order = inOrder(mask), per = 24, pages = Math.ceil(order.length / per), some = new Set()
    let n = 0
    mask.forEach((yes, i) => { if (yes) { some.add(image[i]); n += data.real[i] } })
    state.page = clamp(state.page, 0, Math.max(0, pages - 1))
    const left = [...some].filter(i => !pictures.has(i)).length
    snap = { ...base, ...state, pages, counts: `${count(n)} of ${data.total} boxes in ${count(some.size)} pictures` + (left ? `; ${count(left)} of the pictures are not in this page` : ''),
      fields: fields.map(f => ({ ...f, want: state.filters[f.name] || null, shown: counted(f, keep(f.name)) })),
      matrix: base.matrix && { ...base.matrix, want: state.filters.cell ? state.filters.cell[0] : null },
      curves: base.curves && { ...base.curves, picked: state.picked }, marks: marks.size,
      cells: order.slice(state.page * per, (state.page + 1) * per).map(o => cell(o, mask)) }
    told()
  }
  function send({ filters, names, mark, reset, side, ...rest }) {
    if (mark) { marks.has(mark) ? marks.delete(mark) : marks.add(mark); return work() }
    if (reset) { state.filters = {}; state.picked = null }
    for (const [k, v] of Object.entries(filters || {})) {
      if (v === null) delete state.filters[k]
      else state.filters[k] = names && k === 'cls' ? v.map(o => fields.find(f => f.name === k).values.indexOf(o)) : v
    }
    if (names) state.picked = { cls: filters.cls[0], score: filters.score[0] }
    if (side) state.side = side === 'side'
    Object.assign(state, { page: 0 }, rest)
    work()
  }
  const picture = (c, f) => { const p = pictures.get(c.image); f(p.error ? { error: p.error } : { href: p.href, box: p.box }) }
  const open = c => picture(c, got => {
    const large = make('dialog', { class: 'rx rx-dialog' }), s = { ...snap }
    large.append(make('div', { class: 'rx-panes' + (groups(s).length > 1 ? ' rx-two' : '') }, ...groups(s).map(l => pane(got, c, s, l))), make('div', { class: 'rx-text' }, `${c.name}  ${c.caption}`))
    set(large, { onclick: () => large.close(), onclose: () => large.remove(), onwheel: e => { e.preventDefault(); zoom(large, e) } })
    document.body.append(large)
    large.showModal()
  })
  const save = () => download('marked.csv', 'key,picture,box\n' + [...marks].map(k => {
    const o = k[0] === 'i' ? { image: +k.slice(1), caption: '' } : data.boxes.find(b => b.key === k)
    return [k, pictures.get(o?.image)?.name, o?.caption].map(v => `"${String(v ?? '').replaceAll('"', '""')}"`).join()
  }).join('\n') + '\n')
  work()
  return { snapshot: () => snap, on: f => { told = f }, send, picture, open, save, fixed: true }
}

function zoom(el, e) {                    // all panes together, about the pointer
  const svg = e.target.closest('svg') || el.querySelector('svg'), r = svg.getBoundingClientRect(), b = svg.viewBox.baseVal, k = e.deltaY < 0 ? .8 : 1.25
  const u = clamp((e.clientX - r.left) / r.width, 0, 1), v = clamp((e.clientY - r.top) / r.height, 0, 1), to = [b.x + u * b.width * (1 - k), b.y + v * b.height * (1 - k), b.width * k, b.height * k]
  for (const o of el.querySelectorAll('svg')) o.setAttribute('viewBox', to.join(' '))
}
