// What all widgets share; the text stands before theirs.

const clamp = (x, lo, hi) => Math.min(Math.max(x, lo), hi);

// Jupyter leaves the keys to who has the keyboard: JupyterLab where any element around it says so, Notebook 7, which looks before
// the widget hears of a key, only where the element itself does; an `x` would cut the cell, edits and all
const own_keys = el => el.addEventListener('focusin', e => e.target.setAttribute('data-lm-suppress-shortcuts', 'true'));

// Give an element other children; the keyboard stays on the one that took the place, or has the name, of that which had it
const renew = (el, ...kids) => {
  const old = el.getRootNode().activeElement, all = () => [...el.querySelectorAll(old.tagName)];
  const at = old && el !== old && el.contains(old) ? all().indexOf(old) : -1;
  el.replaceChildren(...kids);
  if (at < 0) return;
  const name = old.getAttribute('aria-label');
  (name ? all().find(o => o.getAttribute('aria-label') === name) : all()[at])?.focus({ preventScroll: true });
};

const LATE = 'No answer from the kernel: it is busy, or gone. What was asked for is not done yet.';

class Patience {                                                  // says when an answer is late, and takes that back when it comes
  constructor(tell, ms = 5000) { Object.assign(this, { tell, ms, clock: 0 }); }
  ask(send) {
    this.clock ||= setTimeout(() => this.tell(LATE), this.ms);
    try { send(); } catch (e) { clearTimeout(this.clock); this.tell(`${LATE} (${e.message})`); }
  }
  heard() { if (this.clock) { this.stop(); this.tell(''); } }
  stop() { clearTimeout(this.clock); this.clock = 0; }
}
