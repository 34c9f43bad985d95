// Widgets without a kernel: a model that holds its state here, answers nothing, and tells its listeners of changes.

const bytes = text => new DataView(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer)
function thawed(value) {                                          // bytes come as {$bytes: base64}
  if (!value || typeof value !== 'object') return value
  if ('$bytes' in value) return bytes(value.$bytes)
  if (Array.isArray(value)) return value.map(thawed)
  return Object.fromEntries(Object.entries(value).map(([name, o]) => [name, thawed(o)]))
}

class PageModel {
  constructor(state) { this.state = state; this.listeners = new Map() }
  get(name) { return this.state[name] }
  set(name, value) {
    if (this.state[name] === value) return
    this.state[name] = value
    for (const event of [`change:${name}`, 'change']) for (const heard of this.heard(event)) heard()
  }
  heard(event) { return this.listeners.get(event) || [] }
  on(event, heard) { this.listeners.set(event, [...this.heard(event), heard]) }
  off(event, heard) { this.listeners.set(event, heard ? this.heard(event).filter(o => o !== heard) : []) }
  save_changes() {}
  send() {}
}

const widgets = JSON.parse(document.getElementById('widgets').textContent), styles = new Set()
for (const el of document.querySelectorAll('[data-widget]')) {
  const { esm, css, state } = widgets[el.dataset.widget]
  if (!styles.has(css)) document.head.append(Object.assign(document.createElement('style'), { textContent: css }))
  styles.add(css)
  const url = URL.createObjectURL(new Blob([esm], { type: 'text/javascript' })), model = new PageModel(thawed(state))
  import(url).then(m => m.default.render({ model, el })).catch(e => { el.textContent = `This widget cannot be shown: ${e.message}` })
}
