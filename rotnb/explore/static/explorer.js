// An explorer on a page. `api` is where answers come from: a kernel (live.js), or the page itself (offline.js):
//   snapshot() what is to be shown now; on(f) call f when it changed; send(change); open(cell); save();
//   thumbnail(cell, f) calls f with {href, box} or {error}

function mount(el, api) {
  const charts = {}, grid = new Map()                                 // by the name of the field; thumbnails by key
  const ask = (name, want) => api.send({ filters: { [name]: want } })
  const div = (name, ...children) => make('div', { class: name }, ...children)
  const head = div('rn-summary'), fields = div('rn-fields'), top = div('rn-panels'), tools = div('rn-tools'), cells = div('rn-thumbs')
  keepKeys(el)
  el.replaceChildren(div('rn-explorer', head, top, div('rn-body', fields, div('rn-main', tools, cells))))
  const extra = { sliders: sliders(api), curves: curves(point => api.send({ point })),
    matrix: matrix(i => api.send({ filters: { cell: i === null ? null : [i] }, ...(i === null ? {} : { by: 'boxes' }) })) }

  const lift = (f, name, text) => make('button', { class: name, title: 'Clear this filter', 'aria-label': `Clear the filter ${f.title}`,
    onclick: () => ask(f.name, null) }, text)
  function chart(f) {
    if (!charts[f.name]) {
      const pick = want => ask(f.name, want), made = f.kind === 'number' ? histogram(pick) : bars(pick)
      charts[f.name] = made
      made.title = div('rn-title')
      fields.append(make('div', { class: 'rn-field', 'data-field': f.name }, made.title, made.el))
    }
    charts[f.name].title.replaceChildren(f.title, f.want ? lift(f, 'rn-clear', '×') : '')
    charts[f.name].update(f)
  }

  function draw() {
    const s = api.snapshot()
    if (!s.fields) return
    renew(head, make('strong', {}, s.title), make('span', { class: 'rn-count' }, s.counts),
      ...s.fields.filter(f => f.want).map(f => lift(f, 'rn-chip', `${f.title.split(',')[0]} ${said(f)} ×`)),
      s.fields.some(f => f.want) ? make('button', { class: 'rn-chip', onclick: () => api.send({ reset: true }) }, 'clear filters ×') : '',
      ...(s.notes || []).map(t => make('span', { class: 'rn-warn' }, t)))
    for (const f of s.fields) if (!f.hidden) chart(f)
    for (const k of ['sliders', 'matrix', 'curves']) if (s[k]) {
      extra[k].update(s[k])
      if (!extra[k].box) {
        extra[k].box = div(`rn-panel rn-${k}-panel`, div('rn-title'), extra[k].el)
        top.append(extra[k].box)
      }
      extra[k].box.firstChild.textContent = s[k].title
    }
    toolbar(s)
    const seen = new Set(s.cells.map(c => c.key))
    for (const [k, c] of grid) if (!seen.has(k)) { c.el.remove(); grid.delete(k) }
    s.cells.forEach((c, i) => {
      if (!grid.has(c.key)) grid.set(c.key, thumbnail(c, api))
      const t = grid.get(c.key)
      t.update(c, s)
      if (cells.children[i] !== t.el) cells.insertBefore(t.el, cells.children[i] || null)
    })
    if (!s.cells.length) cells.replaceChildren(make('p', { class: 'rn-none' }, s.none || 'Nothing passes these filters.'))
    else cells.querySelector('.rn-none')?.remove()
  }

  function toolbar(s) {
    const change = name => e => api.send({ [name]: e.target.value || null })
    const named = { by: 'Show images or boxes', sort: 'Order', side: 'Layers over each other or side by side' }
    const choice = (name, value, options) => make('select', { 'aria-label': named[name], 'data-set': name, onchange: change(name) },
      ...options.map(([v, t]) => make('option', { value: v, selected: v === (value || '') }, t)))
    const beyond = to => to < 0 || to >= s.pages, dash = i => ({ stroke: 'currentColor', 'stroke-dasharray': DASH[i] || null })
    const sign = (text, title, attrs) => make('button', { title, 'aria-label': title, ...attrs }, text)
    const page = (to, text, title) => sign(text, title, { disabled: beyond(to), onclick: () => api.send({ page: to }) })
    const line = i => make('path', { d: 'M0 4h22', class: 'rn-curve', ...dash(i) })
    const sample = i => make('svg', { viewBox: '0 0 22 8', 'aria-hidden': 'true' }, line(i))
    const turn = () => api.send({ ascending: !s.ascending }), several = s.layers.length > 1
    renew(tools, choice('by', s.by, [['images', 'images'], ['boxes', 'boxes']]),
      choice('sort', s.sort, [['', 'in order'], ...s.sorts.map(o => [o, `by ${o}`])]),
      s.sort ? sign(s.ascending ? '↑' : '↓', 'Turn the order round', { onclick: turn }) : '',
      several ? choice('side', s.side ? 'side' : 'over', [['over', 'laid over'], ['side', 'side by side']]) : '',
      make('span', { class: 'rn-space' }), ...(several ? s.layers.map((t, i) => make('span', { class: 'rn-layer' }, sample(i), t)) : []),
      s.marks ? sign(`★ ${count(s.marks)} ⤓`, 'Save the list of what is marked', { 'data-save': true, onclick: api.save }) : '',
      make('span', { class: 'rn-space' }), page(s.page - 1, '‹', 'The page before'),
      make('span', { class: 'rn-page-number' }, s.pages ? `${s.page + 1} of ${count(s.pages)}` : 'none'),
      page(s.page + 1, '›', 'The next page'))
  }
  api.on(draw)
  draw()
}

function said(f) {                                                    // a filter, in words
  if (f.kind === 'class') return f.want.map(i => f.values[i]).join(', ')
  const [low, high] = f.want
  return low === null ? `< ${short(high)}` : high === null ? `≥ ${short(low)}` : `${short(low)} to ${short(high)}`
}

function sliders(api) {
  const el = make('div'), made = {}
  return { el, update({ all }) {
    for (const o of all) {
      if (!made[o.name]) {
        const out = make('output'), { min, max, step } = o
        const input = make('input', { type: 'range', min, max, step, 'aria-label': o.title, 'data-set': o.name, oninput: () => {
          out.textContent = (+input.value).toFixed(2)
          api.send({ [o.name]: +input.value })
        } })
        if (api.fixed) set(input, { disabled: true, title: 'a page without a kernel keeps the thresholds that it was made with' })
        made[o.name] = { input, out }
        el.append(make('label', { class: 'rn-threshold' }, make('span', {}, o.title), input, out))
      }
      const { input, out } = made[o.name]
      if (document.activeElement !== input) input.value = o.value
      out.textContent = (+input.value).toFixed(2)
    }
  } }
}

const DASH = ['', '6 3', '1.5 3'], IGNORED_DASHES = '3 2'            // of layers; of ignored boxes

// What touches the four sides, from the middle of the front edge round: the mark of what is round
function circle([x0, y0, x1, y1, x2, y2, x3, y3]) {
  const degrees = Math.atan2(y1 - y0, x1 - x0) * 180 / Math.PI
  const half = `A${Math.hypot(x1 - x0, y1 - y0) / 2} ${Math.hypot(x2 - x1, y2 - y1) / 2} ${degrees} 0 1 `
  const front = `${(x0 + x1) / 2} ${(y0 + y1) / 2}`
  return `M${front}${half}${(x2 + x3) / 2} ${(y2 + y3) / 2}${half}${front}`
}

// A triangle on the border where a heading, in radians, leaves the box
function arrow(q, front) {
  const [x0, y0, x1, y1, x2, y2] = q, w = Math.hypot(x1 - x0, y1 - y0), h = Math.hypot(x2 - x1, y2 - y1)
  const turn = front - Math.atan2(y1 - y0, x1 - x0), a = Math.abs(Math.cos(turn)), b = Math.abs(Math.sin(turn))
  const length = 0.5 * Math.min(w, h), reach = Math.min(w / a, h / b) / 2, c = Math.cos(front), s = Math.sin(front)
  const x = (x0 + x2) / 2, y = (y0 + y2) / 2
  const at = (u, v) => `${(x + c * (reach + u) - s * v).toFixed(1)} ${(y + s * (reach + u) + c * v).toFixed(1)}`
  return `M${at(0, -0.35 * length)}L${at(length, 0)}L${at(0, 0.35 * length)}Z`
}

// A closed line through points x0, y0, x1, y1, ...
const closed = points => `M${points.map((v, k) => k && k % 2 === 0 ? `L${v}` : v).join(' ')}Z`

// Boxes and outlines of objects as a few paths: those of one layer, colour and state together, each over a dark halo
function outlines(boxes, { colors, ignored }, layers) {
  const paths = new Map()
  boxes.q.forEach((q, i) => {
    if (!layers.includes(boxes.layer[i])) return
    const key = [boxes.on[i] ? 1 : 0, boxes.layer[i], boxes.label[i] < 0 ? ignored : colors[boxes.label[i] % colors.length]].join()
    const front = boxes.front?.[i] ?? null, mark = boxes.round?.[i] ? circle(q) : front === null ? '' : arrow(q, front)
    paths.set(key, (paths.get(key) || '') + [q, ...(boxes.rings?.[i] || [])].map(closed).join('') + mark)
  })
  return [...paths].sort(([a], [b]) => a < b ? -1 : 1).flatMap(([key, d]) => {
    const [on, layer, color] = key.split(','), dash = color === ignored ? IGNORED_DASHES : DASH[layer]
    const state = on === '1' ? 'rn-in' : 'rn-out'
    const line = name => make('path', { d, class: `${name} ${state}`, stroke: color, 'stroke-dasharray': dash || null })
    return on === '1' ? [line('rn-halo'), line('rn-box')] : [line('rn-box')]
  })
}

function thumbnail(cell, api) {
  const text = make('div', { class: 'rn-text' })
  const star = make('button', { class: 'rn-star', onclick: e => { e.stopPropagation(); api.send({ mark: cell.key }) } })
  const open = () => api.open(cell)
  const panes = make('div', { class: 'rn-panes', tabindex: 0, role: 'button', onkeydown: onEnter(open) })
  const el = make('div', { class: 'rn-thumb', 'data-key': cell.key, onclick: open }, panes, text, star)
  let snap, got
  const paint = () => panes.replaceChildren(...(got?.error ? [make('div', { class: 'rn-error' }, got.error)] :
    groups(snap).map(layers => pane(got, cell, snap, layers))))
  new IntersectionObserver((seen, o) => {
    if (!seen.some(e => e.isIntersecting)) return
    o.disconnect()
    api.thumbnail(cell, p => { got = p; paint() })
  }, { rootMargin: '200px' }).observe(el)
  return { el, update(c, s) {
    Object.assign(cell, c)
    snap = s
    text.replaceChildren(make('span', { title: c.name }, c.name), make('span', { class: 'rn-caption' }, c.caption))
    set(panes, { 'aria-label': `Open ${c.name}, ${c.caption}` })
    const mark = c.marked ? 'Take the mark away' : 'Mark'
    set(star, { 'aria-pressed': String(c.marked), title: mark, 'aria-label': `Mark ${c.name}` }).textContent = c.marked ? '★' : '☆'
    el.classList.toggle('rn-wide', groups(s).length > 1)
    paint()
  } }
}
const groups = s => s.side && s.layers.length > 1 ? s.layers.map((_, i) => [i]) : [s.layers.map((_, i) => i)]

// An image, or a window of it, with the boxes of some layers over it
function pane(got, cell, snap, layers) {
  const box = cell.window || got?.box
  if (!box) return make('div', { class: 'rn-wait' })
  const at = ([x, y, x2, y2]) => ({ x, y, width: x2 - x, height: y2 - y }), b = at(box)
  const im = got ? make('image', { href: got.href, ...at(got.box), preserveAspectRatio: 'none' }) : ''
  return make('svg', { viewBox: `${b.x} ${b.y} ${b.width} ${b.height}`, 'aria-hidden': 'true' }, im, ...outlines(cell.boxes, snap, layers))
}

const saveMarked = text => saveFile('marked.csv', new Blob([text], { type: 'text/csv' }))
