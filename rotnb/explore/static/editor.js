// The canvas with handles. A gesture is shown here while the pointer moves; what it does to the labels is computed in Python, from the event sent at its end.

const HANDLE = 5, REACH = 30, SNAP = Math.PI / 12, LEAST = 1;      // CSS pixels; radians; image pixels

class BoxEditor extends BoxCanvas {
  constructor(model, el) {
    super(model, el);
    const on = (name, f) => { model.on(`change:${name}`, f); this.off.push(() => model.off(`change:${name}`, f)); };
    on('status', () => this.panel()); on('selected', () => this.panel());
    this.panel();
  }
  send(op, args = {}) { this.request({ type: 'edit', op, ...args }); }

  // --- bar

  build() {
    super.build();
    this.tool = null;
    const button = (text, title, f) => node('button', 'rn-button', { type: 'button', textContent: text, title, onclick: f });
    this.b = {
      previous: button('◀', 'Previous image (PageUp)', () => this.send('previous')), next: button('▶', 'Next image (PageDown)', () => this.send('next')),
      undo: button('Undo', 'Undo (Ctrl+Z)', () => this.send('undo')), redo: button('Redo', 'Redo (Ctrl+Y)', () => this.send('redo')),
      add: button('Add', 'Drag from stern to bow, then click at the side (a)', () => this.take_tool(this.tool ? null : 'add')),
      remove: button('Delete', 'Delete the box (Del)', () => this.on_chosen('delete')),
      turn: button('Turn', 'Heading along the next side (t)', () => this.on_chosen('turn', { quarters: 1 })),
      save: button('Save', 'Save to the label files (Ctrl+S)', () => this.send('save')),
    };
    this.where = node('span', 'rn-where');
    this.classes = node('select', 'rn-select', { title: 'Class of the box, and of new ones (1 to 9)' });
    this.classes.onkeydown = () => { this.typed = true; };        // who goes through the list by keys stays there
    this.classes.onpointerdown = () => { this.typed = false; };
    this.classes.onchange = () => { this.on_chosen('rename', { name: this.classes.value }); if (!this.typed) this.canvas.focus(); };
    this.hard = node('input', '', { type: 'checkbox' });
    this.hard.onchange = () => { this.on_chosen('toggle_difficult'); this.canvas.focus(); };
    this.hard_label = node('label', 'rn-switch', { title: 'Neither rewarded nor punished (d)' }, this.hard, node('span', '', { textContent: 'difficult' }));
    const { previous, next, undo, redo, add, remove, turn, save } = this.b;
    this.edit_bar = node('div', 'rn-bar rn-edit', {}, previous, this.where, next, undo, redo, add, remove, turn, this.classes, this.hard_label, save);
    this.ask_bar = node('div', 'rn-ask', { hidden: true });
    this.tools.after(this.edit_bar, this.ask_bar);
  }
  panel() {
    const s = this.get('status') || {}, c = this.mine(), vocab = this.get('vocab');
    this.where.textContent = `${s.index + 1} / ${s.count}  ${s.image || ''}${s.unsaved_here ? ' *' : ''}`;
    this.where.title = s.reason || '';
    this.b.previous.disabled = !(s.index > 0); this.b.next.disabled = !(s.index < s.count - 1);
    this.b.undo.disabled = !s.undo; this.b.redo.disabled = !s.redo;
    this.b.save.disabled = !s.unsaved; this.b.save.textContent = s.unsaved > 1 ? `Save (${s.unsaved})` : 'Save';
    this.b.remove.disabled = this.b.turn.disabled = !c;
    this.b.add.setAttribute('aria-pressed', String(this.tool === 'add'));
    if (this.classes.dataset.vocab !== vocab.join()) {
      const old = this.classes.value;
      this.classes.replaceChildren(...vocab.map((o, i) => node('option', '', { value: o, textContent: i < 9 ? `${i + 1} ${o}` : o })));
      this.classes.dataset.vocab = vocab.join();
      if (vocab.includes(old)) this.classes.value = old;
    }
    if (c) this.classes.value = this.label(...c);
    this.hard_label.hidden = !s.flags;
    this.hard.disabled = !c;
    this.hard.checked = !!(c && this.layers[0].ignored && this.layers[0].ignored[c[1]]);
    this.ask(s);
  }
  ask(s) {                                                        // what needs an answer: edits left by a killed kernel, a file that somebody changed
    const button = (text, op) => node('button', 'rn-button', { type: 'button', textContent: text, onclick: () => this.send(op) });
    const rows = [];
    if (s.reason) rows.push(node('div', 'rn-reason', { textContent: s.reason }));
    if (s.recovered) rows.push(node('div', 'rn-question', {}, node('span', '', { textContent: s.recovered }), button('Restore', 'restore'), button('Discard', 'discard')));
    if (s.conflict) rows.push(node('div', 'rn-question', {}, node('span', '', { textContent: s.conflict }), button('Merge', 'merge'),
      button('Save mine beside', 'beside'), button('Reload theirs', 'reload'), button('Overwrite with mine', 'mine')));
    this.ask_bar.replaceChildren(...rows);
    this.ask_bar.hidden = !rows.length;
  }
  take_tool(tool) { this.tool = tool; this.axis = null; this.canvas.style.cursor = tool ? 'crosshair' : ''; this.panel(); this.redraw(true); }
  mine() { const c = this.chosen; return c && c[0] === 0 ? c : null; }
  on_chosen(op, args = {}) { const c = this.mine(); if (c) this.send(op, { id: this.layers[0].ids[c[1]], ...args }); }

  take(what) {                                                    // new boxes from Python end a preview
    if (what === 'layers') { this.preview = null; this.lifted = null; }
    if (what === 'scene') { this.gesture = null; this.axis = null; }
    super.take(what);
    if (what === 'layers' && this.b) this.panel();
  }
  message(msg, buffers) {
    const still = !this.gesture && !this.axis;                    // an answer also ends the preview of an edit that changed nothing
    if (msg.type === 'heard' && still && this.preview || msg.type === 'say' && msg.kind !== 'done') { this.preview = this.lifted = null; this.redraw(); }
    super.message(msg, buffers);
  }

  // --- handles

  handles(q) {                                                    // screen places: corners 0-3, edges 4-7, rotation 8
    const at = i => this.screen(q[2 * (i % 4)], q[2 * (i % 4) + 1]), res = [];
    for (let i = 0; i < 4; i++) res.push([...at(i), i]);
    for (let i = 0; i < 4; i++) {
      const a = at(i), b = at(i + 1);
      if (Math.hypot(a[0] - b[0], a[1] - b[1]) > 5 * HANDLE) res.push([(a[0] + b[0]) / 2, (a[1] + b[1]) / 2, 4 + i]);
    }
    const [a, b, c] = [at(0), at(1), at(2)], n = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
    res.push([(b[0] + c[0]) / 2 + (b[0] - a[0]) / n * REACH, (b[1] + c[1]) / 2 + (b[1] - a[1]) / n * REACH, 8]);
    return res;
  }
  hit(x, y) {
    const c = this.mine();
    if (!this.seen_now(c)) return null;
    let best = null, least = HANDLE + 5;
    for (const [hx, hy, h] of this.handles(this.layers[0].quad(c[1]))) {
      const d = Math.hypot(x - hx, y - hy);
      if (d < least) { best = h; least = d; }
    }
    return best;
  }
  overlay() {
    const ctx = this.top.getContext('2d');
    if (this.preview) {
      ctx.setTransform(this.dpr, 0, 0, this.dpr, 0, 0); ctx.clearRect(0, 0, this.w, this.h);
      const c = this.lifted, color = c ? this.color(...c) : this.class_color(Math.max(this.classes.selectedIndex, 0));
      ctx.beginPath(); this.path(ctx, this.preview);
      ctx.fillStyle = color; ctx.globalAlpha = 0.15; ctx.fill(); ctx.globalAlpha = 1;
      ctx.lineJoin = 'round'; ctx.strokeStyle = '#000'; ctx.lineWidth = 4; ctx.stroke(); ctx.strokeStyle = color; ctx.lineWidth = 2; ctx.stroke();
      if (c) this.knobs(ctx, this.preview);
      this.badge(ctx);
      return;
    }
    super.overlay();
    const c = this.mine();
    if (this.seen_now(c) && !this.tool) this.knobs(ctx, this.layers[0].quad(c[1]));
  }
  knobs(ctx, q) {
    const all = this.handles(q), [rx, ry] = all[all.length - 1], fx = (q[2] + q[4]) / 2, fy = (q[3] + q[5]) / 2, [sx, sy] = this.screen(fx, fy);
    ctx.strokeStyle = '#000'; ctx.lineWidth = 3; ctx.beginPath(); ctx.moveTo(sx, sy); ctx.lineTo(rx, ry); ctx.stroke();
    ctx.strokeStyle = '#fff'; ctx.lineWidth = 1.2; ctx.stroke();
    ctx.fillStyle = '#fff'; ctx.strokeStyle = '#000'; ctx.lineWidth = 1.4;
    for (const [x, y, h] of all) {
      ctx.beginPath();
      if (h === 8) ctx.arc(x, y, HANDLE + 1.5, 0, 7); else ctx.rect(x - HANDLE + 1, y - HANDLE + 1, 2 * HANDLE - 2, 2 * HANDLE - 2);
      ctx.fill(); ctx.stroke();
    }
  }
  badge(ctx) {                                                    // size and heading of what is being made
    const m = measure(this.preview), text = `${m.w.toFixed(1)} × ${m.h.toFixed(1)} px, heading ${((m.heading + 360) % 360).toFixed(1)}°`;
    ctx.font = '11px system-ui, sans-serif';
    ctx.fillStyle = 'rgba(20,20,20,.9)'; ctx.fillRect(8, 8, ctx.measureText(text).width + 12, 20);
    ctx.fillStyle = '#f4f4f4'; ctx.fillText(text, 14, 22);
  }

  // --- gestures: the sums of `box_edits`, for the preview

  press(e) {
    const [x, y] = this.at(e), p = this.world(e);
    if (this.tool === 'add') { this.gesture = this.axis ? { kind: 'width' } : { kind: 'axis', from: p }; if (this.axis) this.drag(e); return; }
    const c = this.mine(), h = this.hit(x, y);
    if (!this.seen_now(c)) return;                                // a hidden box cannot be dragged
    const q = this.layers[0].quad(c[1]).slice(), id = this.layers[0].ids[c[1]];   // rows may change until the pointer is let go, ids do not
    if (h !== null) this.gesture = { kind: h === 8 ? 'rotate' : 'resize', handle: h, q, c, id, from: p };
    else if (inside(q, ...p)) this.gesture = { kind: 'move', q, c, id, from: p };
  }
  drag(e) {
    const g = this.gesture, p = this.world(e);
    if (g.kind === 'axis') { this.preview = this.made(g.from, p, 0); g.to = p; }
    else if (g.kind === 'width') this.widen(p);
    else {
      if (!this.start.far) return;
      if (!this.lifted) { this.lifted = g.c; this.redraw(); }
      if (g.kind === 'move') this.preview = g.q.map((v, i) => v + p[i % 2] - g.from[i % 2]);
      if (g.kind === 'rotate') this.preview = this.rotated(g.q, this.aim(g.q, p, e.shiftKey));
      if (g.kind === 'resize') this.preview = this.resized(g.q, g.handle, p);
    }
    this.redraw(true);
  }
  move(e) {
    if (this.axis && !this.pointers.size) { this.widen(this.world(e)); this.redraw(true); return; }
    super.move(e);
    if (!this.pointers.size && !this.tool) {
      const h = this.hit(...this.at(e)), c = this.mine();
      this.canvas.style.cursor = h === 8 ? 'crosshair' : h !== null ? 'nwse-resize' : c && inside(this.layers[0].quad(c[1]), ...this.world(e)) ? 'move' : '';
    }
  }
  release(e) {
    const g = this.gesture, p = this.world(e);
    this.gesture = null;
    if (e.type !== 'pointerup') { this.preview = this.lifted = null; return this.redraw(); }
    if (g.kind === 'axis') {
      if (g.to && this.start.far) { this.axis = [g.from, p]; this.widen(p); } else { this.preview = null; }
      return this.redraw(true);
    }
    if (g.kind === 'width') {
      const [[x0, y0], [x1, y1]] = this.axis, width = this.side(p);
      this.send('add', { x0, y0, x1, y1, width, name: this.classes.value });
      return this.take_tool(null);
    }
    if (!this.start.far) { this.choose(this.pick(...p)); return; }  // a click, not a gesture
    const { id } = g;
    if (g.kind === 'move') this.send('move', { id, dx: p[0] - g.from[0], dy: p[1] - g.from[1] });
    if (g.kind === 'rotate') this.send('rotate', { id, theta: this.aim(g.q, p, false), snap: e.shiftKey });
    if (g.kind === 'resize') this.send('resize', { id, handle: g.handle, x: p[0], y: p[1] });
  }
  aim(q, [x, y], snap) {
    const m = measure(q), t = Math.atan2(y - m.cy, x - m.cx);
    return snap ? Math.round(t / SNAP) * SNAP : t;
  }
  rotated(q, theta) {
    const m = measure(q), t = theta - m.heading * Math.PI / 180, c = Math.cos(t), s = Math.sin(t);
    return q.map((_, i) => i % 2 ? m.cy + (q[i - 1] - m.cx) * s + (q[i] - m.cy) * c : m.cx + (q[i] - m.cx) * c - (q[i + 1] - m.cy) * s);
  }
  resized(q, h, [x, y]) {
    const res = q.slice(), at = i => [q[2 * (i % 4)], q[2 * (i % 4) + 1]];
    const push = k => {                                           // edge k along its normal, as far as the opposite edge allows
      const [ax, ay] = at(k), [bx, by] = at(k + 1), n = Math.hypot(bx - ax, by - ay) || 1, mx = (ax + bx) / 2, my = (ay + by) / 2;
      const fx = (at(k + 2)[0] + at(k + 3)[0]) / 2, fy = (at(k + 2)[1] + at(k + 3)[1]) / 2;
      let nx = (by - ay) / n, ny = -(bx - ax) / n;
      if (nx * (mx - fx) + ny * (my - fy) < 0) { nx = -nx; ny = -ny; }
      const d = Math.max((x - mx) * nx + (y - my) * ny, LEAST - (mx - fx) * nx - (my - fy) * ny);
      for (const i of [k, (k + 1) % 4]) { res[2 * i] += nx * d; res[2 * i + 1] += ny * d; }
    };
    const m = measure(q), skew = Math.max(Math.abs(q[0] + q[4] - q[2] - q[6]), Math.abs(q[1] + q[5] - q[3] - q[7]));
    const right = Math.abs((q[2] - q[0]) * (q[6] - q[0]) + (q[3] - q[1]) * (q[7] - q[1])) / Math.max(m.w, m.h, 1e-9);
    if (h >= 4) push(h - 4);
    else if (skew > 1.5 || right > 1.5) { res[2 * h] = x; res[2 * h + 1] = y; }   // a free quad: one corner
    else { push(h); push((h + 3) % 4); }
    return res;
  }
  side([x, y]) {                                                  // width of a new box: twice the distance from its middle line
    const [[x0, y0], [x1, y1]] = this.axis, n = Math.hypot(x1 - x0, y1 - y0) || 1;
    return 2 * Math.abs((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / n;
  }
  widen(p) { this.preview = this.made(...this.axis, this.side(p)); }
  made([x0, y0], [x1, y1], width) {
    const n = Math.hypot(x1 - x0, y1 - y0) || 1, vx = -(y1 - y0) / n * width / 2, vy = (x1 - x0) / n * width / 2;
    return Float64Array.of(x0 - vx, y0 - vy, x1 - vx, y1 - vy, x1 + vx, y1 + vy, x0 + vx, y0 + vy);
  }

  // --- keys

  wants(e) { return (e.ctrlKey || e.metaKey) && 'zys'.includes(e.key.toLowerCase()); }
  key(e) {
    if (e.ctrlKey || e.metaKey) {
      const k = e.key.toLowerCase();
      this.send(k === 's' ? 'save' : k === 'y' || e.shiftKey ? 'redo' : 'undo');
      return true;
    }
    return super.key(e);
  }
  bindings() {
    const nudge = (dx, dy) => e => { const s = e.shiftKey ? 10 : 1; this.mine() ? this.on_chosen('move', { dx: dx * s, dy: dy * s }) : this.pan(-60 * dx, -60 * dy); };
    return { ...super.bindings(),
      'a': ['add: drag stern to bow, then click at the side', () => this.take_tool(this.tool ? null : 'add')],
      'Delete': ['delete', () => this.on_chosen('delete')], 'Backspace': ['delete', () => this.on_chosen('delete')],
      'd': ['difficult', () => this.on_chosen('toggle_difficult')], 't': ['turn the heading', () => this.on_chosen('turn', { quarters: 1 })],
      'y': ['take a prediction as a label', () => { const c = this.chosen || this.hover; if (c && c[0] > 0) this.send('adopt', { layer: c[0], index: c[1] }); }],
      'PageDown': ['next image', () => this.send('next')], 'PageUp': ['previous image', () => this.send('previous')],
      'ArrowLeft': ['nudge, or pan', nudge(-1, 0)], 'ArrowRight': ['nudge, or pan', nudge(1, 0)],
      'ArrowUp': ['nudge, or pan', nudge(0, -1)], 'ArrowDown': ['nudge, or pan', nudge(0, 1)],
      'Escape': ['stop adding, nothing selected', () => { this.keys.hidden = true; this.preview = this.lifted = this.gesture = null; this.tool ? this.take_tool(null) : this.choose(null); this.redraw(); }] };
  }
  digits() {                                                      // 1 to 9 are classes
    return Object.fromEntries(this.get('vocab').slice(0, 9).map((name, i) => [String(i + 1), [name, () => { this.classes.value = name; this.on_chosen('rename', { name }); }]]));
  }
}
