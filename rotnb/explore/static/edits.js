// What an edit makes of a box, for the preview while the pointer moves. `box_edits` in Python decides; tests/explore/edits.json
// holds the cases that both are tested with.

const SNAP = Math.PI / 12, LEAST = 1                              // radians; pixels: no side is made shorter
const SKEW = 1.5                                                  // px of a rectangle whose corners were rounded

const edited = (op, q, args) => EDITED[op](q, args)
const EDITED = {
  move: (q, { dx, dy }) => q.map((v, i) => v + (i % 2 ? dy : dx)),

  rotate(q, { theta, snap }) {                                    // about the middle, until the heading is theta
    const m = measure(q), to = snap ? Math.round(theta / SNAP) * SNAP : theta
    const turn = to - m.heading * Math.PI / 180, c = Math.cos(turn), s = Math.sin(turn)
    const x = i => q[i] - m.cx, y = i => q[i] - m.cy
    return q.map((_, i) => i % 2 ? m.cy + x(i - 1) * s + y(i) * c : m.cx + x(i) * c - y(i + 1) * s)
  },

  resize(q, { handle, x, y }) {                                   // corners 0 to 3, edges 4 to 7
    if (handle >= 4) return edgeMoved(q, handle - 4, x, y)
    if (isRectangle(q)) return edgeMoved(edgeMoved(q, handle, x, y), (handle + 3) % 4, x, y)
    return q.map((v, i) => i === 2 * handle ? x : i === 2 * handle + 1 ? y : v)
  },

  add(_, { x0, y0, x1, y1, width }) {                             // from the middle line, stern to bow
    const n = Math.hypot(x1 - x0, y1 - y0) || 1, vx = -(y1 - y0) / n * width / 2, vy = (x1 - x0) / n * width / 2
    return Float64Array.of(x0 - vx, y0 - vy, x1 - vx, y1 - vy, x1 + vx, y1 + vy, x0 + vx, y0 + vy)
  },
}

function isRectangle(q) {
  const m = measure(q), skew = Math.max(Math.abs(q[0] + q[4] - q[2] - q[6]), Math.abs(q[1] + q[5] - q[3] - q[7]))
  const dot = (q[2] - q[0]) * (q[6] - q[0]) + (q[3] - q[1]) * (q[7] - q[1])
  return skew <= SKEW && Math.abs(dot) / Math.max(m.w, m.h, 1e-9) <= SKEW
}

// The quad with edge k through a point; the opposite edge stays, at least LEAST away
function edgeMoved(q, k, x, y) {
  const [ax, ay] = corner(q, k), [bx, by] = corner(q, k + 1), [cx, cy] = corner(q, k + 2), [dx, dy] = corner(q, k + 3)
  const n = Math.hypot(bx - ax, by - ay) || 1
  const midX = (ax + bx) / 2, midY = (ay + by) / 2, wideX = midX - (cx + dx) / 2, wideY = midY - (cy + dy) / 2
  let nx = (by - ay) / n, ny = -(bx - ax) / n
  if (nx * wideX + ny * wideY < 0) { nx = -nx; ny = -ny }
  const push = Math.max((x - midX) * nx + (y - midY) * ny, LEAST - wideX * nx - wideY * ny)
  const res = q.slice()
  for (const i of [k, (k + 1) % 4]) { res[2 * i] += nx * push; res[2 * i + 1] += ny * push }
  return res
}

// Width of a new box: twice the distance of a point from its middle line
function widthAt([[x0, y0], [x1, y1]], [x, y]) {
  const n = Math.hypot(x1 - x0, y1 - y0) || 1
  return 2 * Math.abs((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / n
}
