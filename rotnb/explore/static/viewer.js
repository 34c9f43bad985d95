// An image with layers of oriented boxes. No imports, nothing fetched: the text is a module once Python has added `export default`.
// World coordinates are pixels of the whole image, screen coordinates CSS pixels; `dpr` turns those into device pixels.

const node = (tag, cls, props = {}, ...kids) => {
  const o = Object.assign(document.createElement(tag), props);
  if (cls) o.className = cls;
  o.append(...kids);
  return o;
};
const typed = (view, Type) => {                                   // a traitlet's bytes as numbers, copied so that they are aligned
  if (!view) return null;
  const bytes = view instanceof ArrayBuffer ? new Uint8Array(view) : new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return new Type(bytes.slice().buffer);
};
const escaped = s => String(s).replace(/[&<>"]/g, c => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const ink = hex => {                                              // black or white, whichever reads on a colour
  const n = parseInt(hex.slice(1), 16);
  return 0.299 * (n >> 16) + 0.587 * (n >> 8 & 255) + 0.114 * (n & 255) > 115 ? '#000' : '#fff';
};

class BoxLayer {                                                  // the boxes of one layer, as flat arrays
  constructor(wire) {
    Object.assign(this, { name: wire.name, dash: wire.dash || [], notes: wire.notes || null });
    this.quads = typed(wire.quads, Float64Array);
    this.n = this.quads.length / 8;
    this.labels = typed(wire.labels, Int32Array);
    this.scores = typed(wire.scores, Float32Array);
    this.ignored = typed(wire.ignored, Uint8Array);
    this.ids = typed(wire.ids, Int32Array);
    this.bounds = new Float64Array(this.n * 4);
    for (let i = 0; i < this.n; i++) this.bound(i);
  }
  bound(i) {
    const q = this.quads.subarray(8 * i, 8 * i + 8);
    this.bounds.set([Math.min(q[0], q[2], q[4], q[6]), Math.min(q[1], q[3], q[5], q[7]),
                     Math.max(q[0], q[2], q[4], q[6]), Math.max(q[1], q[3], q[5], q[7])], 4 * i);
  }
  quad(i) { return this.quads.subarray(8 * i, 8 * i + 8); }
  finite(i) { return Number.isFinite(this.bounds[4 * i] + this.bounds[4 * i + 1] + this.bounds[4 * i + 2] + this.bounds[4 * i + 3]); }
}

const measure = q => {                                            // centre, sides and angles of a quad (the mean of opposite sides)
  const ux = (q[2] - q[0] + q[4] - q[6]) / 2, uy = (q[3] - q[1] + q[5] - q[7]) / 2;
  const vx = (q[6] - q[0] + q[4] - q[2]) / 2, vy = (q[7] - q[1] + q[5] - q[3]) / 2;
  const w = Math.hypot(ux, uy), h = Math.hypot(vx, vy), heading = Math.atan2(uy, ux) * 180 / Math.PI;
  let angle = w >= h ? heading : heading + 90;                    // le90: the long side, in [-90, 90)
  angle = ((angle + 90) % 180 + 180) % 180 - 90;
  return { cx: (q[0] + q[2] + q[4] + q[6]) / 4, cy: (q[1] + q[3] + q[5] + q[7]) / 4, w, h, heading, angle };
};
const inside = (q, x, y) => {                                     // even-odd rule
  let res = false;
  for (let i = 0, j = 6; i < 8; j = i, i += 2)
    if ((q[i + 1] > y) !== (q[j + 1] > y) && x < (q[j] - q[i]) * (y - q[i + 1]) / (q[j + 1] - q[i + 1]) + q[i]) res = !res;
  return res;
};
const area = q => Math.abs((q[0] - q[4]) * (q[3] - q[7]) - (q[2] - q[6]) * (q[1] - q[5])) / 2;

class Pixels {                                                   // the preview and its halves, and tiles that come on demand
  constructor(view) { Object.assign(this, { view, halves: [], tiles: new Map(), asked: new Map(), failed: new Map(), serial: 0, bytes: null }); }

  async load(bytes) {
    if (bytes && bytes === this.bytes) return;                    // of a new scene both `scene` and `pixels` tell, or `scene` alone
    const serial = ++this.serial;
    this.bytes = bytes;
    if (bytes && bytes.byteLength) {
      let image = await createImageBitmap(new Blob([bytes]));
      const halves = [image];
      while (Math.max(image.width, image.height) > 1024) {        // each half from the one before: smooth at any zoom, made once
        image = await createImageBitmap(image, { resizeWidth: Math.ceil(image.width / 2), resizeHeight: Math.ceil(image.height / 2), resizeQuality: 'medium' });
        halves.push(image);
      }
      if (serial !== this.serial) return halves.forEach(o => o.close());
      for (const o of this.halves) o.close();
      this.halves = halves;
    }
    this.view.redraw();
  }
  close() {
    for (const o of this.halves) o.close();
    for (const o of this.tiles.values()) o.close();
    this.halves = []; this.bytes = null;
    for (const o of [this.tiles, this.asked, this.failed]) o.clear();
  }

  async receive(msg, buffers) {
    const key = msg.key.join();
    if (msg.scene !== this.view.scene.id) return;
    this.asked.delete(key);
    if (msg.error || !buffers.length) { this.failed.set(key, performance.now()); this.view.say(msg.error || 'a tile is missing'); return; }
    const image = await createImageBitmap(new Blob([buffers[0]]));
    if (msg.scene !== this.view.scene.id) return image.close();
    this.tiles.set(key, image);
    for (const [old, o] of this.tiles) {                          // the least recently drawn goes first
      if (this.tiles.size <= 192) break;
      this.tiles.delete(old); o.close();
    }
    this.view.redraw();
  }

  draw(ctx) {
    const v = this.view, { width: W, height: H, tile: T, levels } = v.scene, k = v.scale * v.dpr;
    if (!W) return;
    ctx.imageSmoothingEnabled = k < 1;
    ctx.imageSmoothingQuality = 'medium';
    if (this.halves.length) {
      const full = this.halves[0].width / W;                      // preview pixels to an image pixel
      let i = 0;
      while (i + 1 < this.halves.length && this.halves[i + 1].width / W >= k) i++;
      ctx.imageSmoothingEnabled = k < full || full < 1;
      this.put(ctx, this.halves[i], 0, 0, W, H);
    }
    if (!levels) return;
    ctx.imageSmoothingEnabled = k < 1;
    const want = clamp(Math.floor(Math.log2(1 / k) + 0.01), 0, levels - 1), missing = [];
    this.view.pending = 0;
    if (this.halves.length && this.halves[0].width / W >= Math.min(k, 1)) return;
    for (let l = Math.min(levels - 1, want + 3); l >= want; l--) {
      const size = T * 2 ** l, [x0, y0, x1, y1] = v.visible();
      for (let j = Math.floor(y0 / size); j * size < y1; j++)
        for (let i = Math.floor(x0 / size); i * size < x1; i++) {
          const key = `${l},${i},${j}`, image = this.tiles.get(key);
          if (image) {
            this.tiles.delete(key); this.tiles.set(key, image);
            this.put(ctx, image, i * size, j * size, Math.min(size, W - i * size), Math.min(size, H - j * size));
          } else if (l === want) missing.push([key, [l, i, j], Math.hypot((i + 0.5) * size - v.cx, (j + 0.5) * size - v.cy)]);
        }
    }
    this.ask(missing.sort((a, b) => a[2] - b[2]));
  }
  ask(missing) {                                                  // few at a time: what a fast pan no longer needs is never asked for
    const now = performance.now();
    for (const [key, t] of this.asked) if (now - t > 15000) this.asked.delete(key);
    const keys = [];
    for (const [key, at] of missing) {
      if (this.asked.size >= 8) break;
      if (this.asked.has(key) || now - (this.failed.get(key) ?? -1e9) < 5000) continue;
      this.asked.set(key, now); keys.push(at);
    }
    if (keys.length) this.view.request({ type: 'tiles', scene: this.view.scene.id, keys });
    this.view.pending = missing.length;
  }
  put(ctx, image, x, y, w, h) {                                   // only the part in view, cut at whole pixels, in numbers a canvas holds exactly
    const v = this.view, [vx0, vy0, vx1, vy1] = v.visible(), fx = image.width / w, fy = image.height / h;
    const sx0 = clamp(Math.floor((vx0 - x) * fx) - 1, 0, image.width), sx1 = clamp(Math.ceil((vx1 - x) * fx) + 1, 0, image.width);
    const sy0 = clamp(Math.floor((vy0 - y) * fy) - 1, 0, image.height), sy1 = clamp(Math.ceil((vy1 - y) * fy) + 1, 0, image.height);
    if (sx1 <= sx0 || sy1 <= sy0) return;
    const px = (a, o, f) => Math.round(((o + a / f) * v.scale) * v.dpr);
    const ox = Math.round(v.ox * v.dpr), oy = Math.round(v.oy * v.dpr);
    const X0 = px(sx0, x, fx) + ox, X1 = px(sx1, x, fx) + ox, Y0 = px(sy0, y, fy) + oy, Y1 = px(sy1, y, fy) + oy;
    ctx.drawImage(image, sx0, sy0, sx1 - sx0, sy1 - sy0, X0, Y0, X1 - X0, Y1 - Y0);
  }
}

class BoxCanvas {
  constructor(model, el) {
    Object.assign(this, { model, el, scale: 1, cx: 0, cy: 0, fitted: true, hover: null, frames: [], pending: 0, captions: 'auto' });
    this.off = [];
    this.build();
    this.pixels = new Pixels(this);
    this.patience = new Patience(text => { if (text) this.say(text); else if (this.note.textContent.startsWith(LATE)) this.say(''); });
    const on = (name, f) => { model.on(`change:${name}`, f); this.off.push(() => model.off(`change:${name}`, f)); };
    const message = (msg, buffers) => this.message(msg, buffers || []);
    model.on('msg:custom', message); this.off.push(() => model.off('msg:custom', message));
    on('scene', () => this.take('scene')); on('pixels', () => this.take('pixels'));
    on('layers', () => this.take('layers')); on('vocab', () => this.take('layers'));
    for (const o of ['score', 'opacity', 'hidden', 'hidden_classes', 'color_by', 'palette', 'ignored_color']) on(o, () => { this.bar(); this.redraw(); });
    on('selected', () => this.redraw()); on('height', () => this.resize()); on('focus', () => this.look());
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.stage);
    this.join(); on('group', () => this.join());
    for (const o of ['scene', 'pixels', 'layers']) this.take(o);
    this.resize();
    this.root.rotnb = this;                                       // for tests, and for the curious in the console
  }
  destroy() {
    this.off.forEach(f => f()); this.observer.disconnect(); this.pixels.serial++; this.pixels.close(); this.gone = true;
    this.group?.delete(this);
    for (const o of [this.quiet, this.telling, this.saving]) clearTimeout(o);
    this.patience.stop();
  }
  join() {                                                        // viewers of one group move together
    const name = this.model.get('group');
    this.group?.delete(this); this.group = null;
    if (!name) return;
    const all = globalThis[Symbol.for('rotnb.groups')] ??= new Map();
    if (!all.has(name)) all.set(name, new Set());
    this.group = all.get(name); this.group.add(this);
  }
  get(k) { return this.model.get(k); }
  set(k, v) { this.model.set(k, v); this.model.save_changes(); }
  request(msg) { this.patience.ask(() => this.model.send(msg)); }

  // --- what Python says

  take(what) {
    if (what === 'scene') {
      const old = this.scene;
      this.scene = { width: 0, height: 0, levels: 0, tile: 512, id: '', ...this.get('scene') };
      this.canvas.setAttribute('aria-label', `Image ${this.scene.name || ''} with oriented boxes`);
      if (!old || old.id !== this.scene.id) {
        this.pixels.close(); this.hover = null;
        if (!old || old.width !== this.scene.width || old.height !== this.scene.height || !this.get('keep_view')) this.fitted = true;
        if (this.fitted) this.fit(false);
        this.look();
        if (old) this.take('pixels');                            // the same bytes are not sent twice: then `pixels` does not change
      }
    }
    if (what === 'pixels') this.pixels.load(this.get('pixels')).catch(e => this.say(`The image cannot be shown: ${e.message}`));
    if (what === 'layers') {
      this.layers = (this.get('layers') || []).map(o => new BoxLayer(o));
      this.hover = null; this.bar();
    }
    this.redraw();
  }
  message(msg, buffers) {
    this.patience.heard();
    if (msg.type === 'tile') this.pixels.receive(msg, buffers).catch(e => this.say(e.message));
    if (msg.type === 'say') this.say(msg.text, msg.kind);
  }
  look() {                                                        // show the region that Python asks for
    const f = this.get('focus');
    if (f && f.length === 4 && this.w) this.zoom_to(...f);
  }
  say(text, kind = 'error') {
    this.note.textContent = text || ''; this.note.dataset.kind = kind; this.note.hidden = !text;
    clearTimeout(this.quiet);
    if (text && kind !== 'error') this.quiet = setTimeout(() => { this.note.hidden = true; }, 4000);
  }

  // --- page

  build() {
    const button = (text, title, f) => node('button', 'rn-button', { type: 'button', textContent: text, title, onclick: f });
    this.tools = node('div', 'rn-bar');
    this.tools.append(
      button('Fit', 'Whole image (f)', () => this.fit()), button('1:1', 'One image pixel to a device pixel (o)', () => this.zoom_at(1 / this.dpr / this.scale)),
      button('−', 'Zoom out (-)', () => this.zoom_at(1 / 1.5)), button('+', 'Zoom in (+)', () => this.zoom_at(1.5)));
    this.percent = node('span', 'rn-percent');
    this.switches = node('span', 'rn-switches');
    this.sliders = node('span', 'rn-sliders');
    this.extra = node('span', 'rn-extra');
    this.saves = node('span', 'rn-saves', {}, button('PNG', 'Save what is seen as PNG', () => this.save_png()),
      button('SVG', 'Save what is seen as SVG', () => this.save_svg()), button('?', 'Keys (?)', () => this.help()));
    this.tools.append(this.percent, this.switches, this.sliders, this.extra, this.saves);
    this.canvas = node('canvas', 'rn-canvas', { tabIndex: 0 });
    this.canvas.setAttribute('role', 'img');
    this.top = node('canvas', 'rn-top');
    this.tip = node('div', 'rn-tip', { hidden: true });
    this.note = node('div', 'rn-note', { hidden: true });
    this.keys = node('div', 'rn-keys', { hidden: true });
    this.stage = node('div', 'rn-stage', {}, this.canvas, this.top, this.tip, this.note, this.keys);
    this.legend = node('div', 'rn-legend');
    this.root = node('div', 'rotnb', {}, this.tools, this.stage, this.legend);
    own_keys(this.root);
    this.el.append(this.root);
    const c = this.canvas, on = (name, f, o) => c.addEventListener(name, f, o);
    this.pointers = new Map();
    on('wheel', e => this.wheel(e), { passive: false });
    on('pointerdown', e => this.down(e)); on('pointermove', e => this.move(e));
    on('pointerup', e => this.up(e)); on('pointercancel', e => this.up(e));
    on('pointerleave', () => { if (!this.pointers.size) { this.hover = null; this.tip.hidden = true; this.redraw(true); } });
    on('dblclick', e => { const o = this.pick(...this.world(e)); if (o) this.zoom_box(o); });
    on('contextmenu', e => e.preventDefault());
    this.root.addEventListener('keydown', e => {
      if (e.target.matches('input,select')) return e.stopPropagation();
      if (!e.ctrlKey && !e.metaKey && !e.altKey || this.wants(e)) { if (this.key(e)) e.preventDefault(); }
      e.stopPropagation();
    });
    for (const name of ['keyup', 'keypress']) this.root.addEventListener(name, e => e.stopPropagation());
  }
  wants() { return false; }

  bar() {                                                         // switches and legend follow the boxes
    const hidden = new Set(this.get('hidden')), off = new Set(this.get('hidden_classes'));
    const flip = (name, set, value) => { set.has(value) ? set.delete(value) : set.add(value); this.set(name, [...set]); this.bar(); this.redraw(); };
    const box = (text, on, f, title, sample) => {
      const input = node('input', '', { type: 'checkbox', checked: on, onchange: f });
      return node('label', 'rn-switch', { title }, input, ...(sample ? [sample] : []), node('span', '', { textContent: text }));
    };
    const line = (color, dash) => {
      const o = node('span', 'rn-line');
      o.innerHTML = `<svg width="18" height="8"><path d="M1 4H17" stroke="${color}" stroke-width="2.5" stroke-dasharray="${dash.join(' ')}"/></svg>`;
      return o;
    };
    const rows = this.layers.map((l, k) => box(`${l.name} (${l.n})`, !hidden.has(l.name), () => flip('hidden', hidden, l.name),
      `Layer ${l.name} (${k + 1})`, line(this.layer_color(k) || 'currentColor', l.dash)));
    const ignored = this.layers.reduce((n, l) => n + (l.ignored ? l.ignored.reduce((a, b) => a + (b ? 1 : 0), 0) : 0), 0);
    if (ignored) rows.push(box(`ignored (${ignored})`, !hidden.has('ignored'), () => flip('hidden', hidden, 'ignored'), 'Boxes that are neither rewarded nor punished',
      line(this.get('ignored_color'), [3, 2])));
    renew(this.switches, ...rows);
    const slider = (text, name, title) => {
      const out = node('output', 'rn-value', { textContent: Number(this.get(name)).toFixed(2) });
      const input = node('input', '', { type: 'range', min: 0, max: 1, step: 0.01, value: this.get(name), title });
      input.oninput = () => { out.textContent = Number(input.value).toFixed(2); this.model.set(name, Number(input.value)); this.later(); this.redraw(); };
      input.onchange = () => this.model.save_changes();
      return node('label', 'rn-slider', { title }, node('span', '', { textContent: text }), input, out);
    };
    if (!this.sliders.contains(this.root.getRootNode().activeElement)) {         // a slider in use is not replaced under the pointer
      const some = [slider('opacity', 'opacity', 'Opacity of the boxes')];
      if (this.layers.some(l => l.scores)) some.unshift(slider('score ≥', 'score', 'Least score that is shown'));
      this.sliders.replaceChildren(...some);
    }
    const vocab = this.get('vocab'), count = new Map();           // class -> how many in each layer
    this.layers.forEach((l, k) => { for (const c of l.labels) if (c >= 0) { if (!count.has(c)) count.set(c, this.layers.map(() => 0)); count.get(c)[k]++; } });
    renew(this.legend, ...[...count.keys()].sort((a, b) => a - b).map(c => {
      const name = vocab[c] ?? String(c), o = node('button', 'rn-class', { type: 'button', title: `Show or hide ${name}` });
      const swatch = node('span', 'rn-swatch');
      swatch.style.background = this.class_color(c);
      if (this.get('color_by') === 'layer') swatch.hidden = true;
      o.append(swatch, `${name} (${count.get(c).join(' · ')})`);
      o.setAttribute('aria-pressed', String(!off.has(name)));
      o.onclick = () => flip('hidden_classes', off, name);
      return o;
    }));
  }
  later() { clearTimeout(this.saving); this.saving = setTimeout(() => this.model.save_changes(), 100); }

  class_color(c) { const p = this.get('palette'); return p[c % p.length]; }
  layer_color(k) { const p = this.get('palette'); return this.get('color_by') === 'layer' ? p[k % p.length] : null; }
  color(k, i) {
    const l = this.layers[k];
    if (l.ignored && l.ignored[i]) return this.get('ignored_color');
    return this.layer_color(k) || this.class_color(l.labels[i] < 0 ? k : l.labels[i]);
  }
  label(k, i) { const l = this.layers[k]; return l.labels && l.labels[i] >= 0 ? this.get('vocab')[l.labels[i]] ?? String(l.labels[i]) : ''; }
  caption(k, i) {
    const s = this.layers[k].scores?.[i];
    return [this.label(k, i), s === undefined || Number.isNaN(s) ? '' : s.toFixed(2)].filter(Boolean).join(' ');
  }

  // --- where things are

  resize() {
    const w = this.stage.clientWidth, h = this.get('height');
    if (!w || this.gone) return;
    this.stage.style.height = `${h}px`;
    this.dpr = globalThis.devicePixelRatio || 1;
    const first = !this.w;
    Object.assign(this, { w, h });
    for (const c of [this.canvas, this.top]) {
      c.width = Math.round(w * this.dpr); c.height = Math.round(h * this.dpr);
      c.style.width = `${w}px`; c.style.height = `${h}px`;
    }
    if (this.fitted) this.fit(false);
    if (first) this.look();
    this.draw();                                                  // at once: a resized canvas is empty
  }
  get ox() { return this.w / 2 - this.cx * this.scale; }
  get oy() { return this.h / 2 - this.cy * this.scale; }
  visible() { const a = this.w / 2 / this.scale, b = this.h / 2 / this.scale; return [Math.max(this.cx - a, 0), Math.max(this.cy - b, 0), Math.min(this.cx + a, this.scene.width), Math.min(this.cy + b, this.scene.height)]; }
  at(e) { const r = this.canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; }
  world(e) { const [x, y] = this.at(e); return [(x - this.ox) / this.scale, (y - this.oy) / this.scale]; }
  screen(x, y) { return [x * this.scale + this.ox, y * this.scale + this.oy]; }

  fit(tell = true) {
    if (!this.w || !this.scene?.width) return;
    this.fitted = true;
    this.scale = Math.min(this.w / this.scene.width, this.h / this.scene.height);
    this.cx = this.scene.width / 2; this.cy = this.scene.height / 2;
    this.moved(tell, true);
  }
  limits() { const fit = Math.min(this.w / this.scene.width, this.h / this.scene.height); return [Math.min(fit, 1) / 4, Math.max(fit, 64)]; }
  zoom_at(factor, x = this.w / 2, y = this.h / 2) {               // the point under the pointer stays
    const [lo, hi] = this.limits(), s = clamp(this.scale * factor, lo, hi);
    const wx = (x - this.ox) / this.scale, wy = (y - this.oy) / this.scale;
    this.scale = s;
    this.cx = wx - (x - this.w / 2) / s; this.cy = wy - (y - this.h / 2) / s;
    this.moved();
  }
  pan(dx, dy) { this.cx -= dx / this.scale; this.cy -= dy / this.scale; this.moved(); }
  zoom_to(x0, y0, x1, y1, margin = 0.35) {
    const [lo, hi] = this.limits(), w = Math.max(x1 - x0, 1) * (1 + 2 * margin), h = Math.max(y1 - y0, 1) * (1 + 2 * margin);
    this.scale = clamp(Math.min(this.w / w, this.h / h), lo, Math.min(hi, 16));
    this.cx = (x0 + x1) / 2; this.cy = (y0 + y1) / 2;
    this.moved();
  }
  zoom_box([k, i]) { this.zoom_to(...this.layers[k].bounds.subarray(4 * i, 4 * i + 4), 1.5); }
  moved(tell = true, fitted = false) {
    this.fitted = fitted;
    const { width: W, height: H } = this.scene;                   // some of the image stays in sight
    this.cx = clamp(this.cx, 0, W); this.cy = clamp(this.cy, 0, H);
    if (tell) {
      for (const o of this.group || []) if (o !== this && o.w) { o.scale = this.scale; o.cx = this.cx; o.cy = this.cy; o.moved(false, fitted); }
      clearTimeout(this.telling);
      this.telling = setTimeout(() => { if (!this.gone) this.set('viewport', [this.cx, this.cy, this.scale]); }, 150);
    }
    this.redraw();
  }

  // --- which boxes

  shown(k, i) {
    const l = this.layers[k];
    if (!l.finite(i)) return false;
    if (l.scores && l.scores[i] < this.filter.score) return false;
    if (l.ignored && l.ignored[i] && this.filter.ignored) return false;
    return !(l.labels && this.filter.classes.has(l.labels[i]));
  }
  seen_now(o) { this.sift(); return !!o && !this.filter.hidden.has(this.layers[o[0]].name) && this.shown(...o); }
  sift() {                                                        // the settings of `shown`, once a frame
    const hidden = new Set(this.get('hidden')), off = new Set(this.get('hidden_classes'));
    this.filter = { score: this.get('score'), ignored: hidden.has('ignored'), hidden,
                    classes: new Set(this.get('vocab').map((o, i) => off.has(o) ? i : -1).filter(i => i >= 0)) };
  }
  pick(x, y) {                                                    // the smallest box under a point; tiny boxes within 5 screen pixels
    this.sift();
    const tol = 5 / this.scale;
    let best = null, least = Infinity;
    this.layers.forEach((l, k) => {
      if (this.filter.hidden.has(l.name)) return;
      for (let i = 0, b = 0; i < l.n; i++, b += 4) {
        if (x < l.bounds[b] - tol || x > l.bounds[b + 2] + tol || y < l.bounds[b + 1] - tol || y > l.bounds[b + 3] + tol) continue;
        if (!this.shown(k, i)) continue;
        const small = Math.max(l.bounds[b + 2] - l.bounds[b], l.bounds[b + 3] - l.bounds[b + 1]) < 2 * tol;
        const q = l.quad(i), a = area(q);
        if ((small || inside(q, x, y)) && a <= least) { best = [k, i]; least = a; }
      }
    });
    return best;
  }
  get chosen() {                                                  // the selected box: layer and row
    const s = this.get('selected');
    if (!s) return null;
    const k = this.layers.findIndex(l => l.name === s.layer);
    return k >= 0 && s.index < this.layers[k].n ? [k, s.index] : null;
  }
  choose(o) { this.set('selected', o ? { layer: this.layers[o[0]].name, index: o[1] } : null); this.redraw(); }
  step(by) {                                                      // through the boxes that are shown, in order
    this.sift();
    const all = this.layers.flatMap((l, k) => this.filter.hidden.has(l.name) ? [] : Array.from({ length: l.n }, (_, i) => [k, i]).filter(o => this.shown(...o)));
    if (!all.length) return;
    const c = this.chosen, at = c ? all.findIndex(o => o[0] === c[0] && o[1] === c[1]) : -1;
    const o = all[((at < 0 ? (by > 0 ? 0 : -1) : at + by) % all.length + all.length) % all.length];
    this.choose(o);
    const [x0, y0, x1, y1] = this.layers[o[0]].bounds.subarray(4 * o[1], 4 * o[1] + 4), [a, b, c1, d] = this.visible();
    if (x0 < a || y0 < b || x1 > c1 || y1 > d || Math.max(x1 - x0, y1 - y0) * this.scale < 12) this.zoom_box(o);
  }

  // --- drawing

  redraw(top_only = false) {
    if (!top_only) this.stale = true;
    if (this.waiting || this.gone) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; if (!this.gone) this.stale ? this.draw() : this.overlay(); });
  }
  draw() {
    if (!this.w || !this.scene) return;
    const t = performance.now(), ctx = this.canvas.getContext('2d', { alpha: true });
    this.stale = false;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.pixels.draw(ctx);
    ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
    this.boxes(ctx);
    this.percent.textContent = `${Math.round(this.scale * this.dpr * 1000) / 10}%`;
    this.overlay();
    this.frames.push(performance.now() - t);
    if (this.frames.length > 240) this.frames.shift();
  }
  path(ctx, q) {                                                  // outline, and the tick from the middle of the front edge outwards
    const s = this.scale, ox = this.ox, oy = this.oy;
    ctx.moveTo(q[0] * s + ox, q[1] * s + oy); ctx.lineTo(q[2] * s + ox, q[3] * s + oy);
    ctx.lineTo(q[4] * s + ox, q[5] * s + oy); ctx.lineTo(q[6] * s + ox, q[7] * s + oy); ctx.closePath();
    this.tick(ctx, q);
  }
  tick(ctx, q, reach = 0) {
    const s = this.scale, dx = q[2] - q[0], dy = q[3] - q[1], n = Math.hypot(dx, dy) || 1;
    const len = reach || Math.min(8, 0.25 * Math.hypot(q[4] - q[2], q[5] - q[3]) * s);
    if (len < 1.5) return null;
    const x = (q[2] + q[4]) / 2 * s + this.ox, y = (q[3] + q[5]) / 2 * s + this.oy;
    ctx.moveTo(x, y); ctx.lineTo(x + dx / n * len, y + dy / n * len);
    return [x + dx / n * len, y + dy / n * len];
  }
  boxes(ctx) {                                                    // one path for each layer, colour and dash: two strokes each, however many boxes
    this.sift();
    const [x0, y0, x1, y1] = [-this.ox / this.scale, -this.oy / this.scale, (this.w - this.ox) / this.scale, (this.h - this.oy) / this.scale];
    const groups = new Map(), texts = [];
    let n = 0;
    this.layers.forEach((l, k) => {
      if (this.filter.hidden.has(l.name)) return;
      for (let i = 0, b = 0; i < l.n; i++, b += 4) {
        if (l.bounds[b] > x1 || l.bounds[b + 2] < x0 || l.bounds[b + 1] > y1 || l.bounds[b + 3] < y0 || !this.shown(k, i)) continue;
        if (this.lifted && this.lifted[0] === k && this.lifted[1] === i) continue;   // it is in an editor's hand
        const color = this.color(k, i), ign = l.ignored && l.ignored[i], key = `${k}${color}${ign ? 1 : 0}`;
        if (!groups.has(key)) groups.set(key, { color, dash: ign ? [3, 2] : l.dash, boxes: [], k });
        groups.get(key).boxes.push(i);
        if (++n <= 40) texts.push([k, i]);
      }
    });
    ctx.globalAlpha = this.get('opacity');
    ctx.lineJoin = 'round';
    for (const { color, dash, boxes, k } of groups.values()) {
      ctx.beginPath();
      for (const i of boxes) this.path(ctx, this.layers[k].quad(i));
      ctx.setLineDash([]);
      if (n < 3000) { ctx.strokeStyle = 'rgba(0,0,0,.55)'; ctx.lineWidth = 3.4; ctx.stroke(); }
      ctx.setLineDash(dash); ctx.strokeStyle = color; ctx.lineWidth = 1.8; ctx.stroke();
    }
    ctx.setLineDash([]);
    if (this.captions === 'on' || this.captions === 'auto' && n <= 40) for (const o of texts) this.text(ctx, ...o);
    ctx.globalAlpha = 1;
    this.seen = n;
  }
  corner(q, low) {                                                // the highest, or the lowest
    const f = low ? -1 : 1;
    let best = 0;
    for (let i = 2; i < 8; i += 2) if (f * q[i + 1] < f * q[best + 1] || q[i + 1] === q[best + 1] && q[i] < q[best]) best = i;
    return this.screen(q[best], q[best + 1]);
  }
  text(ctx, k, i) {
    const q = this.layers[k].quad(i), text = this.caption(k, i), size = Math.hypot(q[4] - q[0], q[5] - q[1]) * this.scale;
    if (!text || this.captions === 'auto' && size < 24) return;
    ctx.font = '11px system-ui, sans-serif';
    const color = this.color(k, i), w = ctx.measureText(text).width + 6;
    let [x, y] = this.corner(q, this.layers[k].dash.length);      // truth above, predictions below
    x = clamp(x - (x + w > this.w ? w : 0), 0, Math.max(this.w - w, 0)); y = clamp(this.layers[k].dash.length ? y + 16 : y - 2, 14, this.h);
    ctx.fillStyle = color; ctx.fillRect(x, y - 14, w, 14);
    ctx.fillStyle = ink(color); ctx.fillText(text, x + 3, y - 3.5);
  }
  overlay() {                                                     // what follows the pointer has a canvas of its own
    const ctx = this.top.getContext('2d');
    ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
    ctx.clearRect(0, 0, this.w, this.h);
    if (this.hover && this.seen_now(this.hover)) this.mark(ctx, this.hover, 2.2, 0.18);
    if (this.seen_now(this.chosen)) this.mark(ctx, this.chosen, 3, 0.12, true);
  }
  mark(ctx, [k, i], width, fill, strong = false) {
    const q = this.layers[k].quad(i), color = this.color(k, i);
    if (!this.layers[k].finite(i)) return;
    ctx.beginPath(); this.path(ctx, q);
    ctx.fillStyle = color; ctx.globalAlpha = fill; ctx.fill(); ctx.globalAlpha = 1;
    ctx.lineJoin = 'round';
    ctx.strokeStyle = strong ? '#fff' : '#000'; ctx.lineWidth = width + 2.5; ctx.stroke();
    if (strong) { ctx.strokeStyle = '#000'; ctx.lineWidth = width + 0.5; ctx.stroke(); }
    ctx.strokeStyle = color; ctx.lineWidth = width - 0.6; ctx.stroke();
  }

  // --- pointer and keys

  wheel(e) {
    e.preventDefault();
    const unit = [1, 16, this.h][e.deltaMode], d = clamp(e.deltaY * unit, -300, 300);
    this.zoom_at(Math.exp(-d * (e.ctrlKey ? 0.01 : 0.002)), ...this.at(e));
  }
  down(e) {
    this.canvas.focus({ preventScroll: true });
    try { this.canvas.setPointerCapture(e.pointerId); } catch { /* a pointer made by a script */ }
    this.pointers.set(e.pointerId, this.at(e));
    this.start = { at: this.at(e), far: false };
    this.tip.hidden = true;
    if (this.pointers.size === 1 && e.button === 0) this.press(e);
  }
  press() {}                                                      // an editor may begin a gesture here
  move(e) {
    const p = this.at(e), old = this.pointers.get(e.pointerId);
    if (!old) return this.point(e);
    if (this.pointers.size === 2) {                               // two fingers: spread and pan
      const [a, b] = [...this.pointers.values()], before = Math.hypot(a[0] - b[0], a[1] - b[1]);
      this.pointers.set(e.pointerId, p);
      const [c, d] = [...this.pointers.values()], after = Math.hypot(c[0] - d[0], c[1] - d[1]);
      this.zoom_at(after / (before || 1), (c[0] + d[0]) / 2, (c[1] + d[1]) / 2);
      return this.pan((c[0] + d[0] - a[0] - b[0]) / 2, (c[1] + d[1] - a[1] - b[1]) / 2);
    }
    if (Math.hypot(p[0] - this.start.at[0], p[1] - this.start.at[1]) > 3) this.start.far = true;
    this.pointers.set(e.pointerId, p);
    if (this.gesture) return this.drag(e);
    if (this.start.far) this.pan(p[0] - old[0], p[1] - old[1]);
  }
  drag() {}
  up(e) {
    if (!this.pointers.delete(e.pointerId)) return;
    if (this.gesture) return this.release(e);
    if (!this.start.far && e.type === 'pointerup' && e.button === 0) this.choose(this.pick(...this.world(e)));
  }
  release() {}
  point(e) {
    const o = this.pick(...this.world(e)), same = o && this.hover && o[0] === this.hover[0] && o[1] === this.hover[1];
    if (!same && (o || this.hover)) { this.hover = o; this.redraw(true); }
    this.tip.hidden = !o;
    if (!o) return;
    if (!same) this.tell(...o);
    const [x, y] = this.at(e), w = this.tip.offsetWidth, h = this.tip.offsetHeight;
    this.tip.style.left = `${x + 14 + w > this.w ? Math.max(x - w - 10, 0) : x + 14}px`;
    this.tip.style.top = `${y + 14 + h > this.h ? Math.max(y - h - 10, 0) : y + 14}px`;
  }
  tell(k, i) {
    const l = this.layers[k], m = measure(l.quad(i)), s = l.scores?.[i], f = (x, n = 1) => x.toFixed(n);
    const swatch = node('span', 'rn-swatch');
    swatch.style.background = this.color(k, i);
    const arrow = node('span', 'rn-arrow', { textContent: '→' });
    arrow.style.transform = `rotate(${m.heading}deg)`;
    const row = (name, ...v) => node('div', 'rn-row', {}, node('span', 'rn-key', { textContent: name }), node('span', '', {}, ...v));
    const rows = [node('div', 'rn-head', {}, swatch, `${this.label(k, i) || l.name}${l.ignored && l.ignored[i] ? ', ignored' : ''}`)];
    if (this.layers.length > 1) rows.push(row('layer', l.name));
    if (s !== undefined && !Number.isNaN(s)) rows.push(row('score', f(s, 3)));
    rows.push(row('size', `${f(Math.max(m.w, m.h))} × ${f(Math.min(m.w, m.h))} px`), row('angle', `${f(m.angle)}°`),
      row('heading', arrow, ` ${f((m.heading + 360) % 360)}°`), row('centre', `${f(m.cx)}, ${f(m.cy)}`), row('box', String(i)));
    if (l.notes && l.notes[i]) rows.push(node('div', 'rn-remark', { textContent: l.notes[i] }));
    this.tip.replaceChildren(...rows);
  }

  bindings() {
    return { 'f': ['whole image', () => this.fit()], 'o': ['one to one', () => this.zoom_at(1 / this.dpr / this.scale)],
      '+': ['zoom in', () => this.zoom_at(1.5)], '-': ['zoom out', () => this.zoom_at(1 / 1.5)],
      'n': ['next box', () => this.step(1)], 'p': ['previous box', () => this.step(-1)],
      'z': ['zoom to the box', () => this.chosen && this.zoom_box(this.chosen)],
      'c': ['captions: auto, on, off', () => { this.captions = { auto: 'on', on: 'off', off: 'auto' }[this.captions]; this.redraw(); }],
      ...this.digits(),
      'ArrowLeft': ['pan', () => this.pan(60, 0)], 'ArrowRight': ['pan', () => this.pan(-60, 0)],
      'ArrowUp': ['pan', () => this.pan(0, 60)], 'ArrowDown': ['pan', () => this.pan(0, -60)],
      'Escape': ['nothing selected', () => { this.keys.hidden = true; this.choose(null); }], '?': ['this list', () => this.help()] };
  }
  digits() {                                                      // 1 to 9 switch layers
    return Object.fromEntries(this.layers.slice(0, 9).map((l, k) => [String(k + 1), [`layer ${l.name}`, () => {
      const hidden = new Set(this.get('hidden'));
      hidden.has(l.name) ? hidden.delete(l.name) : hidden.add(l.name);
      this.set('hidden', [...hidden]); this.bar(); this.redraw();
    }]]));
  }
  key(e) {
    const b = this.bindings()[e.key === '=' ? '+' : e.key];
    if (!b) return false;
    b[1](e);
    return true;
  }
  help() {
    const rows = Object.entries(this.bindings()).map(([k, [what]]) => node('div', 'rn-row', {}, node('kbd', '', { textContent: k.replace('Arrow', '') }), node('span', '', { textContent: what })));
    this.keys.replaceChildren(...rows, node('div', 'rn-row', {}, node('kbd', '', { textContent: 'wheel, drag' }), node('span', '', { textContent: 'zoom, pan' })));
    this.keys.hidden = !this.keys.hidden;
  }

  // --- files

  file(blob, ending) {
    const a = node('a', '', { href: URL.createObjectURL(blob), download: `${(this.scene.name || 'image').replace(/\.[^.]*$/, '')}.${ending}` });
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 10000);
  }
  save_png() { this.canvas.toBlob(b => this.file(b, 'png')); }
  save_svg() { this.file(new Blob([this.svg()], { type: 'image/svg+xml' }), 'svg'); }
  svg() {                                                         // the image as pixels, boxes and captions as shapes
    const c = node('canvas', '', { width: this.canvas.width, height: this.canvas.height });
    this.pixels.draw(c.getContext('2d'));
    this.sift();
    const f = v => v.toFixed(2), parts = [];
    this.layers.forEach((l, k) => {
      if (this.filter.hidden.has(l.name)) return;
      for (let i = 0; i < l.n; i++) {
        if (!this.shown(k, i)) continue;
        const q = l.quad(i), color = this.color(k, i), dash = (l.ignored && l.ignored[i] ? [3, 2] : l.dash).join(' ');
        const pts = [0, 2, 4, 6].map(j => this.screen(q[j], q[j + 1]).map(f).join(',')), ends = [];
        if (this.tick({ moveTo: (x, y) => ends.push(x, y), lineTo: (x, y) => ends.push(x, y) }, q))
          parts.push(`<line x1="${f(ends[0])}" y1="${f(ends[1])}" x2="${f(ends[2])}" y2="${f(ends[3])}" stroke="${color}"/>`);
        parts.push(`<polygon points="${pts.join(' ')}" stroke="${color}"${dash ? ` stroke-dasharray="${dash}"` : ''}><title>${escaped(this.caption(k, i))}</title></polygon>`);
        const text = this.caption(k, i);
        if (text && (this.captions === 'on' || this.captions === 'auto' && this.seen <= 40)) {
          const [x, y] = this.corner(q, l.dash.length);
          parts.push(`<text x="${f(x + 2)}" y="${f(l.dash.length ? y + 12 : Math.max(y - 4, 11))}" fill="${color}" stroke="#000" stroke-width="2.5" paint-order="stroke" font-size="11" font-family="sans-serif">${escaped(text)}</text>`);
        }
      }
    });
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${this.w}" height="${this.h}" viewBox="0 0 ${this.w} ${this.h}">` +
      `<image href="${c.toDataURL('image/png')}" width="${this.w}" height="${this.h}"/><g fill="none" stroke-width="1.8" stroke-linejoin="round" opacity="${this.get('opacity')}">${parts.join('')}</g></svg>`;
  }
}
