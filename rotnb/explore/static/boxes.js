// Oriented boxes in the browser: a quad is 8 numbers, corner 0 to 1 along the heading.

// The bytes of a traitlet as numbers, copied so that they are aligned
function numbers(view, Type) {
  if (!view) return null
  const bytes = view instanceof ArrayBuffer ? new Uint8Array(view) : new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  return new Type(bytes.slice().buffer)
}

// The boxes of one layer, as flat arrays
class BoxLayer {
  constructor(wire) {
    Object.assign(this, { name: wire.name, dash: wire.dash || [], notes: wire.notes || null })
    this.quads = numbers(wire.quads, Float64Array)
    this.n = this.quads.length / 8
    this.labels = numbers(wire.labels, Int32Array)
    this.scores = numbers(wire.scores, Float32Array)
    this.ignored = numbers(wire.ignored, Uint8Array)
    this.ids = numbers(wire.ids, Int32Array)
    this.headings = numbers(wire.headings, Float32Array)          // radians, NaN where none is known
    this.rings = numbers(wire.rings, Float64Array)                // x, y of outlines end to end; between rings of one a NaN
    this.ends = numbers(wire.ends, Int32Array)                    // how many points there are up to the end of each
    this.headed = !!this.headings && this.headings.some(Number.isFinite)
    this.bounds = new Float64Array(this.n * 4)
    for (let i = 0; i < this.n; i++) this.bounds.set(bounds(this.quad(i)), 4 * i)
  }
  quad(i) { return this.quads.subarray(8 * i, 8 * i + 8) }
  outline(i) { return this.rings ? this.rings.subarray(i ? 2 * this.ends[i - 1] : 0, 2 * this.ends[i]) : [] }
  bound(i) { return this.bounds.subarray(4 * i, 4 * i + 4) }
  finite(i) { return this.bound(i).every(Number.isFinite) }
  isIgnored(i) { return !!(this.ignored && this.ignored[i]) }
}

const bounds = q => [Math.min(q[0], q[2], q[4], q[6]), Math.min(q[1], q[3], q[5], q[7]),
  Math.max(q[0], q[2], q[4], q[6]), Math.max(q[1], q[3], q[5], q[7])]

const corner = (q, i) => [q[2 * (i % 4)], q[2 * (i % 4) + 1]]

// Centre, sides and angles of a quad; sides are the mean of opposite ones, degrees clockwise
function measure(q) {
  const ux = (q[2] - q[0] + q[4] - q[6]) / 2, uy = (q[3] - q[1] + q[5] - q[7]) / 2
  const vx = (q[6] - q[0] + q[4] - q[2]) / 2, vy = (q[7] - q[1] + q[5] - q[3]) / 2
  const w = Math.hypot(ux, uy), h = Math.hypot(vx, vy)
  const cx = (q[0] + q[2] + q[4] + q[6]) / 4, cy = (q[1] + q[3] + q[5] + q[7]) / 4
  const heading = Math.atan2(uy, ux) * 180 / Math.PI
  const long = w >= h ? heading : heading + 90                    // of the long side, as le90 has it: in [-90, 90)
  return { cx, cy, w, h, heading, angle: ((long + 90) % 180 + 180) % 180 - 90 }
}

// Whether a point lies in a quad: even-odd rule
function inside(q, x, y) {
  let res = false
  for (let i = 0, j = 6; i < 8; j = i, i += 2) {
    const crosses = (q[i + 1] > y) !== (q[j + 1] > y)
    if (crosses && x < (q[j] - q[i]) * (y - q[i + 1]) / (q[j + 1] - q[i + 1]) + q[i]) res = !res
  }
  return res
}

const signedArea = q => ((q[0] - q[4]) * (q[3] - q[7]) - (q[2] - q[6]) * (q[1] - q[5])) / 2         // > 0 for clockwise corners
const area = q => Math.abs(signedArea(q))
