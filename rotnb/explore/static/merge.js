// Windows of a large picture, and what was found in them as that of the whole: rotnb's `window_grid`, exact overlap and NMS.

const MERGE = 0.1                                                 // overlap of two boxes of a class that are one object

function starts(length, size, step) {                             // where windows begin along one side
  const n = length <= size ? 1 : Math.ceil((length - size) / step) + 1
  return Array.from({ length: n }, (_, i) => Math.min(i * step, Math.max(length - size, 0)))
}

// [x, y, w, h] of each, column by column; none reaches out of the picture
function windowsOf([width, height], size, overlap = halfEven(size * 200 / 1024)) {
  const step = size - overlap
  return starts(width, size, step).flatMap(x => starts(height, size, step).map(y =>
    [x, y, Math.min(size, width - x), Math.min(size, height - y)]))
}

function corners([cx, cy, w, h, theta]) {
  const c = Math.cos(theta) / 2, s = Math.sin(theta) / 2, ux = c * w, uy = s * w, vx = -s * h, vy = c * h
  return [cx - ux - vx, cy - uy - vy, cx + ux - vx, cy + uy - vy, cx + ux + vx, cy + uy + vy, cx - ux + vx, cy - uy + vy]
}

// The part of a polygon on the inner side of a line from (x0, y0) to (x1, y1)
function cut(polygon, x0, y0, x1, y1) {
  const side = i => (x1 - x0) * (polygon[i + 1] - y0) - (y1 - y0) * (polygon[i] - x0), kept = []
  for (let i = polygon.length - 2, j = 0; j < polygon.length; i = j, j += 2) {
    const a = side(i), b = side(j)
    if (a >= 0 !== b >= 0) {
      const part = a / (a - b)
      kept.push(polygon[i] + part * (polygon[j] - polygon[i]), polygon[i + 1] + part * (polygon[j + 1] - polygon[i + 1]))
    }
    if (b >= 0) kept.push(polygon[j], polygon[j + 1])
  }
  return kept
}
function polygonArea(p) {
  let sum = 0
  for (let i = p.length - 2, j = 0; j < p.length; i = j, j += 2)
    sum += (p[i] - p[0]) * (p[j + 1] - p[1]) - (p[j] - p[0]) * (p[i + 1] - p[1])
  return Math.abs(sum) / 2
}
const clockwise = q => signedArea(q) >= 0 ? q : [q[6], q[7], q[4], q[5], q[2], q[3], q[0], q[1]]

// Of two convex quads: the share that both have of what either has
function iou(p, q) {
  const around = clockwise(q)
  let both = clockwise(p)
  for (let i = 0; i < 8 && both.length; i += 2) both = cut(both, around[i], around[i + 1], around[(i + 2) % 8], around[(i + 3) % 8])
  const shared = polygonArea(both), all = area(p) + area(q) - shared
  return all > 0 ? shared / all : 0
}

// The better of two of a class that overlap by more than `iouThr`; best first
function nms(found, iouThr) {
  const kept = new Map()                                          // by class
  const order = [...found].sort((a, b) => b.score - a.score)
  return order.filter(one => {
    if (!kept.has(one.label)) kept.set(one.label, [])
    const rivals = kept.get(one.label), [x0, y0, x1, y1] = one.bounds = bounds(one.quad)
    const lost = rivals.some(({ bounds: [a, b, c, d], quad }) => x0 < c && x1 > a && y0 < d && y1 > b && iou(quad, one.quad) > iouThr)
    if (!lost) rivals.push(one)
    return !lost
  })
}

// The one spelling of a rectangle in a form of the angle
const wrapped = (t, from, period) => t >= from && t < from + period ? t : t - period * Math.floor((t - from) / period)
function spelt([cx, cy, w, h, t], form) {
  const quarter = Math.PI / 2
  if (form === 'oc') {
    const turns = t > 0 && t <= quarter ? 0 : Math.ceil(t / quarter) - 1
    return turns % 2 ? [cx, cy, h, w, t - turns * quarter] : [cx, cy, w, h, t - turns * quarter]
  }
  if (w < h) [w, h, t] = [h, w, t + quarter]
  return [cx, cy, w, h, w === h ? wrapped(t, -quarter / 2, quarter) : wrapped(t, form === 'le90' ? -quarter : -quarter / 2, 2 * quarter)]
}

// The least rectangle around a quad, one of its sides along a side or a diagonal
function leastRect(q, form) {
  const x = [q[0], q[2], q[4], q[6]], y = [q[1], q[3], q[5], q[7]], mean = v => (v[0] + v[1] + v[2] + v[3]) / 4, mx = mean(x), my = mean(y)
  let best = null
  for (const [i, j] of [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3]]) {
    const far = Math.hypot(x[j] - x[i], y[j] - y[i]), c = far ? (x[j] - x[i]) / far : 1, s = far ? (y[j] - y[i]) / far : 0
    const u = x.map((v, k) => (v - mx) * c + (y[k] - my) * s), v = x.map((o, k) => (y[k] - my) * c - (o - mx) * s)
    const [u0, u1, v0, v1] = [Math.min(...u), Math.max(...u), Math.min(...v), Math.max(...v)], du = (u0 + u1) / 2, dv = (v0 + v1) / 2
    const rect = [mx + du * c - dv * s, my + du * s + dv * c, u1 - u0, v1 - v0, Math.atan2(s, c)]
    if (!best || rect[2] * rect[3] < best[2] * best[3]) best = rect
  }
  return spelt(best, form)
}
