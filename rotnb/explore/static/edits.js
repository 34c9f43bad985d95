// What an edit makes of a box, for the preview while the pointer moves. `box_edits` in Python decides; tests/explore/edits.json
// holds the cases that both are tested with.

const SNAP = Math.PI / 12, LEAST = 1                              // radians; pixels: no side is made shorter
const ROUNDING = .75                                              // px that rounding moves the corners of a rectangle, at most

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
    return handle < 4 ? cornerMoved(q, handle, x, y) : edgeMoved(q, handle - 4, x, y)
  },

  add(_, { x0, y0, x1, y1, width }) {                             // from the middle line, stern to bow
    const n = Math.hypot(x1 - x0, y1 - y0)
    return rectangle((x0 + x1) / 2, (y0 + y1) / 2, n, width, (x1 - x0) / (n || 1), (y1 - y0) / (n || 1))
  },
}

// A quad from its middle, its sides, and the direction of its heading
function rectangle(cx, cy, w, h, ux, uy) {
  const wx = ux * w / 2, wy = uy * w / 2, hx = -uy * h / 2, hy = ux * h / 2
  return Float64Array.of(cx - wx - hx, cy - wy - hy, cx + wx - hx, cy + wy - hy, cx + wx + hx, cy + wy + hy, cx - wx + hx, cy - wy + hy)
}
const reversed = q => Float64Array.of(q[6], q[7], q[4], q[5], q[2], q[3], q[0], q[1])

// The quad with corner k at a point; a rectangle stays one, its opposite corner in place
function cornerMoved(q, k, x, y) {
  if (signedArea(q) < 0) return reversed(cornerMoved(reversed(q), 3 - k, x, y))        // counter-clockwise
  const m = measure(q), theta = m.heading * Math.PI / 180, ux = Math.cos(theta), uy = Math.sin(theta)
  const rect = rectangle(m.cx, m.cy, m.w, m.h, ux, uy), far = i => Math.hypot(rect[2 * i] - q[2 * i], rect[2 * i + 1] - q[2 * i + 1])
  if (Math.max(far(0), far(1), far(2), far(3)) > ROUNDING) return q.map((v, i) => i === 2 * k ? x : i === 2 * k + 1 ? y : v)
  const [fx, fy] = corner(q, k + 2), right = [-1, 1, 1, -1][k], down = [-1, -1, 1, 1][k]
  const w = Math.max(right * ((x - fx) * ux + (y - fy) * uy), LEAST), h = Math.max(down * ((y - fy) * ux - (x - fx) * uy), LEAST)
  return rectangle(fx + (ux * right * w - uy * down * h) / 2, fy + (uy * right * w + ux * down * h) / 2, w, h, ux, uy)
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
