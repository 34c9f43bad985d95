// Widgets without a kernel: a model that holds its state here, answers nothing, and tells its listeners of changes.
const bytes = text => { const s = atob(text); return new DataView(Uint8Array.from(s, c => c.charCodeAt(0)).buffer); };
const thawed = o => o && typeof o === 'object' ? '$bytes' in o ? bytes(o.$bytes) : Array.isArray(o) ? o.map(thawed) : Object.fromEntries(Object.entries(o).map(([k, v]) => [k, thawed(v)])) : o;

class PageModel {
  constructor(state) { this.state = state; this.listeners = new Map(); }
  get(k) { return this.state[k]; }
  set(k, v) {
    if (this.state[k] === v) return;
    this.state[k] = v;
    for (const f of this.listeners.get(`change:${k}`) || []) f();
    for (const f of this.listeners.get('change') || []) f();
  }
  on(name, f) { this.listeners.set(name, [...(this.listeners.get(name) || []), f]); }
  off(name, f) { this.listeners.set(name, f ? (this.listeners.get(name) || []).filter(o => o !== f) : []); }
  save_changes() {}
  send() {}
}

const widgets = JSON.parse(document.getElementById('widgets').textContent), styles = new Set();
for (const el of document.querySelectorAll('[data-widget]')) {
  const { esm, css, state } = widgets[el.dataset.widget];
  if (!styles.has(css)) { styles.add(css); document.head.append(Object.assign(document.createElement('style'), { textContent: css })); }
  const url = URL.createObjectURL(new Blob([esm], { type: 'text/javascript' }));
  const model = new PageModel(thawed(state));
  import(url).then(m => m.default.render({ model, el })).catch(e => { el.textContent = `This widget cannot be shown: ${e.message}`; });
}
