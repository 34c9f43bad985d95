// What all widgets share. A widget is one module: its scripts are joined, this one first, and nothing is fetched.

const clamp = (x, lo, hi) => Math.min(Math.max(x, lo), hi)

// An element with attributes, listeners (`on...`) and children
const SVG_TAG = /^(svg|g|path|rect|line|circle|text|image|title|polyline)$/
function make(tag, attrs = {}, ...children) {
  const svg = SVG_TAG.test(tag)
  const el = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag)
  set(el, attrs)
  el.append(...children)
  return el
}
function set(el, attrs) {
  for (const [name, value] of Object.entries(attrs)) {
    if (name.startsWith('on')) el[name] = value
    else if (value === null || value === false) el.removeAttribute(name)
    else el.setAttribute(name, value === true ? '' : value)
  }
  return el
}

// Jupyter leaves the keys to the element that has the focus: JupyterLab where any element around it says so, Notebook 7, which
// looks before the widget hears of a key, only where the element itself does. Without this an `x` would cut the cell, edits and all.
const keepKeys = el => el.addEventListener('focusin', e => e.target.setAttribute('data-lm-suppress-shortcuts', 'true'))

// Replace the children of an element; the focus stays on the new child with the label, or else at the place, of the old one
function renew(el, ...children) {
  const old = el.getRootNode().activeElement, all = () => [...el.querySelectorAll(old.tagName)]
  const at = old && el !== old && el.contains(old) ? all().indexOf(old) : -1
  el.replaceChildren(...children)
  if (at < 0) return
  const label = old.getAttribute('aria-label')
  const next = label ? all().find(o => o.getAttribute('aria-label') === label) : all()[at]
  next?.focus({ preventScroll: true })
}

// Hand a file to the person at the browser
function saveFile(name, blob) {
  const url = URL.createObjectURL(blob)
  make('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 10000)
}

// Says when an answer of the kernel is late, and takes that back when it comes
const LATE = 'No answer from the kernel: it is busy or gone. Your last action has not been carried out yet.'
class Patience {
  constructor(tell, ms = 5000) { Object.assign(this, { tell, ms, timer: 0 }) }
  ask(send) {
    this.timer ||= setTimeout(() => this.tell(LATE), this.ms)
    try { send() } catch (e) { clearTimeout(this.timer); this.tell(`${LATE} (${e.message})`) }
  }
  heard() { if (this.timer) { this.stop(); this.tell('') } }
  stop() { clearTimeout(this.timer); this.timer = 0 }
}
