// A picture made ready for a network as rotnb's `ImageFit` does it; by the rule 'mmcv' to the last bit of every pixel.

const pair = size => size === null || size === undefined ? null : Array.isArray(size) ? size : [size, size]

// What a network takes, from what its file says of itself: `fixed` is the one size of an input where there is one
function inputOf({ predictor, size, dynamic }) {
  const fixed = dynamic ? null : pair(size), own = pair(predictor.size)
  return { ...predictor, fixed, size: own || fixed, grow: own ? predictor.grow : false, window: Math.max(...own || fixed || [1024]) }
}

const padded = (sides, step) => sides.map(side => step * Math.ceil(Math.round(side * 1e6) / 1e6 / step))
const least = (limits, sides) => Math.min(limits[0] / sides[0], limits[1] / sides[1])

// Where a picture of a size lies in the input: scales and shifts of x and y, and the input's size
const WAYS = {
  mmcv(fit, wh) {
    const [a, b] = fit.size || wh, turned = !fit.pad_full && (a < b) !== (wh[0] < wh[1]), limits = turned ? [b, a] : [a, b]
    const scale = fit.size ? least(limits, wh) : 1
    const to = scale > 1 && !fit.grow ? wh : wh.map(side => Math.max(1, Math.floor(side * scale + 0.5)))
    return { scale: to.map((side, i) => side / wh[i]), shift: [0, 0], wh: fit.pad_full ? fit.size : padded(to, fit.pad_to), picture: to }
  },
  letterbox(fit, wh) {
    const scale = least(fit.size, wh), shift = fit.size.map((limit, i) => Math.floor(Math.max(0, limit - wh[i] * scale) / 2 + 1e-9))
    return { scale: [scale, scale], shift, wh: fit.size }
  },
}

function wayOf(fit, wh) {
  const way = WAYS[fit.rule](fit, wh), input = fit.fixed || way.wh
  if (way.wh.some((side, i) => side > input[i])) throw new Error(`it takes ${input.join(' x ')} px, not ${way.wh.join(' x ')}`)
  return { ...way, of: wh, wh: input }
}

// The bytes of an input, and its size; a network of any size fills up what lacks by itself
function inputFor(fit, way, pixels) {
  const own = fit.rule === 'mmcv', grey = own ? null : Math.trunc(fit.pad_value || 0)
  const { planes, wh } = own ? resized(pixels, way.picture) : letterboxed(pixels, fit.size, way.scale[0], grey)
  if (own && !fit.fixed && !fit.pad_full && fit.pad_value === null) return { pixels: planes, wh }
  const fill = [0, 1, 2].map(c => grey ?? Math.trunc(fit.pad_value ?? Math.round(255 * fit.stats[0][c])))
  return { pixels: laid(planes, wh, way.shift, way.wh, fill), wh: way.wh }
}
function laid(planes, [w, h], [left, top], [width, height], fill) {
  const out = new Uint8Array(3 * width * height)
  for (let c = 0; c < 3; c++) {
    out.fill(fill[c], c * width * height, (c + 1) * width * height)
    for (let y = 0; y < h; y++) out.set(planes.subarray((c * h + y) * w, (c * h + y + 1) * w), (c * height + y + top) * width + left)
  }
  return out
}

// A box of the input in px of the whole picture; null where its middle lies in what was filled up and such do not count
function placed({ box, quad, score, label }, fit, { scale, shift, wh, of }, at, form) {
  const back = (v, axis) => (v - shift[axis]) / scale[axis]
  const outside = [0, 1].some(axis => {
    const v = back(box[axis], axis), far = (wh[axis] - shift[axis]) / scale[axis]
    return v < 0 && shift[axis] > 1 || v > of[axis] && far > of[axis] + 1 / scale[axis]
  })
  if (fit.inside && outside) return null
  const moved = q => q.map((v, i) => back(v, i % 2) + at[i % 2]), same = scale[0] === 1 && scale[1] === 1
  const rect = same ? [...moved(box.slice(0, 2)), ...box.slice(2)] : leastRect(moved(corners(box)), form)
  return { box: rect, quad: quad ? moved(quad) : corners(rect), score, label }
}

// Of each output px along one side: the source px before it, and weights of that one and the next in 2048ths, as OpenCV rounds them
function taps(from, to, pinned) {
  const at = new Int32Array(to), first = new Int32Array(to), second = new Int32Array(to), step = 1 / (to / from)
  for (let i = 0; i < to; i++) {
    const x = Math.fround((i + 0.5) * step - 0.5), left = Math.floor(x)
    const part = pinned && (left < 0 || left >= from - 1) ? 0 : Math.fround(x - left)
    at[i] = left
    first[i] = halfEven(Math.fround(Math.fround(1 - part) * 2048))
    second[i] = halfEven(Math.fround(part * 2048))
  }
  return { at, first, second }
}
const halfEven = x => x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)

// {data, width, height} with 4 channels -> 3 planes of bytes and their size, as cv2.INTER_LINEAR makes them
function resized({ data, width, height }, [w, h]) {
  const planes = new Uint8Array(3 * w * h), across = taps(width, w, true), down = taps(height, h), rows = new Map()
  const row = y => {
    const out = new Int32Array(3 * w), start = 4 * y * width
    for (let i = 0; i < w; i++) {
      const p = start + 4 * clamp(across.at[i], 0, width - 1), q = start + 4 * clamp(across.at[i] + 1, 0, width - 1)
      for (let c = 0; c < 3; c++) out[c * w + i] = data[p + c] * across.first[i] + data[q + c] * across.second[i]
    }
    return out
  }
  for (let j = 0; j < h; j++) {
    const [y, under] = [0, 1].map(k => clamp(down.at[j] + k, 0, height - 1)), a = down.first[j], b = down.second[j]
    for (const old of rows.keys()) if (old < y) rows.delete(old)
    for (const need of [y, under]) if (!rows.has(need)) rows.set(need, row(need))
    const top = rows.get(y), bottom = rows.get(under)
    for (let c = 0; c < 3; c++)
      for (let i = c * w, to = (c * h + j) * w; i < (c + 1) * w; i++, to++)
        planes[to] = ((a * (top[i] >> 4) >> 16) + (b * (bottom[i] >> 4) >> 16) + 2) >> 2
  }
  return { planes, wh: [w, h] }
}

// The same by Pillow's BILINEAR along one side, which looks at all source px under an output px; `end` of them become `n`,
// and what lies behind the picture is `fill`
function along({ planes, wh }, axis, n, end, fill) {
  const size = Math.max(wh[axis], Math.ceil(end - 1e-6)), [w, h] = wh.map((side, i) => i === axis ? n : side)
  const step = end / n, reach = Math.max(step, 1), stride = axis ? wh[0] : 1, out = new Uint8Array(3 * w * h)
  for (let i = 0; i < n; i++) {
    const middle = (i + 0.5) * step, first = Math.max(0, Math.trunc(middle - reach + 0.5))
    const weights = Array.from({ length: Math.min(size, Math.trunc(middle + reach + 0.5)) - first },
      (_, k) => Math.max(0, 1 - Math.abs(k + first - middle + 0.5) / reach))
    const sum = weights.reduce((a, b) => a + b), whole = weights.map(v => Math.round(v / sum * 2 ** 22))
    for (let c = 0; c < 3; c++) for (let j = 0; j < (axis ? w : h); j++) {
      const start = c * wh[0] * wh[1] + (axis ? j : j * wh[0])
      let value = 2 ** 21
      for (let k = 0; k < whole.length; k++) value += whole[k] * (first + k < wh[axis] ? planes[start + (first + k) * stride] : fill)
      out[c * w * h + (axis ? i * w + j : j * w + i)] = clamp(Math.floor(value / 2 ** 22), 0, 255)
    }
  }
  return { planes: out, wh: [w, h] }
}
function letterboxed({ data, width, height }, size, scale, fill) {
  const image = { planes: new Uint8Array(3 * width * height), wh: [width, height] }
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) image.planes[c * width * height + i] = data[4 * i + c]
  if (width === size[0] && height === size[1]) return image
  const short = width * scale < size[0] - 0.5 ? 0 : 1, long = 1 - short, n = Math.max(1, Math.ceil(image.wh[short] * scale - 1e-6))
  const fitted = image.wh[long] === size[long] ? image : along(image, long, size[long], image.wh[long], fill)
  const end = Math.min(n / scale, Math.ceil(n / scale - 1e-6))
  return n === image.wh[short] && end === n ? fitted : along(fitted, short, n, end, fill)
}
