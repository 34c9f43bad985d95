// The pixels of an image: a preview with its halves, and tiles that come from the kernel on demand.

const HALF_FROM = 1024, TILES_KEPT = 192, TILES_ASKED = 8         // px; tiles; tiles on their way at once
const TILE_LATE = 15000, TILE_AGAIN = 5000                        // ms until a tile is asked for again: lost; failed

class Pixels {
  constructor(view) {
    Object.assign(this, { view, halves: [], tiles: new Map(), asked: new Map(), failed: new Map(), serial: 0, bytes: null })
  }

  async load(bytes) {
    if (bytes && bytes === this.bytes) return                     // a new scene changes `scene` and `pixels`, or `scene` alone
    const serial = ++this.serial
    this.bytes = bytes
    if (bytes && bytes.byteLength) {
      const halves = await this.halved(bytes)
      if (serial !== this.serial) return halves.forEach(o => o.close())
      for (const o of this.halves) o.close()
      this.halves = halves
    }
    this.view.redraw()
  }
  async halved(bytes) {                                           // each half from the one before: smooth at any zoom, made once
    let image = await createImageBitmap(new Blob([bytes]))
    const halves = [image]
    while (Math.max(image.width, image.height) > HALF_FROM) {
      const half = { resizeWidth: Math.ceil(image.width / 2), resizeHeight: Math.ceil(image.height / 2), resizeQuality: 'medium' }
      image = await createImageBitmap(image, half)
      halves.push(image)
    }
    return halves
  }
  close() {
    for (const o of [...this.halves, ...this.tiles.values()]) o.close()
    this.halves = []
    this.bytes = null
    for (const o of [this.tiles, this.asked, this.failed]) o.clear()
  }

  async receive(msg, buffers) {
    const key = msg.key.join()
    if (msg.scene !== this.view.scene.id) return
    this.asked.delete(key)
    if (msg.error || !buffers.length) {
      this.failed.set(key, performance.now())
      return this.view.say(msg.error || 'a tile is missing')
    }
    const image = await createImageBitmap(new Blob([buffers[0]]))
    if (msg.scene !== this.view.scene.id) return image.close()
    this.tiles.set(key, image)
    for (const [old, o] of this.tiles) {                          // the least recently drawn goes first
      if (this.tiles.size <= TILES_KEPT) break
      this.tiles.delete(old)
      o.close()
    }
    this.view.redraw()
  }

  draw(ctx) {
    const view = this.view, { width, levels } = view.scene, zoom = view.scale * view.dpr
    if (!width) return
    ctx.imageSmoothingQuality = 'medium'
    const full = this.halves.length ? this.halves[0].width / width : 0                 // preview pixels to an image pixel
    if (full) this.drawPreview(ctx, full, zoom)
    if (!levels) return
    view.pending = 0
    if (full && full >= Math.min(zoom, 1)) return                 // the preview is as fine as what is seen
    ctx.imageSmoothingEnabled = zoom < 1
    this.drawTiles(ctx, clamp(Math.floor(Math.log2(1 / zoom) + 0.01), 0, levels - 1))
  }
  drawPreview(ctx, full, zoom) {
    const { width, height } = this.view.scene
    let i = 0
    while (i + 1 < this.halves.length && this.halves[i + 1].width / width >= zoom) i++
    ctx.imageSmoothingEnabled = zoom < full || full < 1
    this.put(ctx, this.halves[i], 0, 0, width, height)
  }
  drawTiles(ctx, want) {                                          // coarser ones first, while the right ones are on their way
    const view = this.view, { width, height, tile, levels } = view.scene, [x0, y0, x1, y1] = view.visible(), missing = []
    for (let level = Math.min(levels - 1, want + 3); level >= want; level--) {
      const side = tile * 2 ** level
      for (let j = Math.floor(y0 / side); j * side < y1; j++) for (let i = Math.floor(x0 / side); i * side < x1; i++) {
        const key = `${level},${i},${j}`, image = this.tiles.get(key)
        if (image) {
          this.tiles.delete(key)
          this.tiles.set(key, image)
          this.put(ctx, image, i * side, j * side, Math.min(side, width - i * side), Math.min(side, height - j * side))
        } else if (level === want) {
          const far = Math.hypot((i + 0.5) * side - view.cx, (j + 0.5) * side - view.cy)
          missing.push({ key, at: [level, i, j], far })
        }
      }
    }
    this.ask(missing.sort((a, b) => a.far - b.far))
  }
  ask(missing) {                                                  // few at a time: what a fast pan no longer needs is never asked for
    const now = performance.now(), keys = []
    for (const [key, t] of this.asked) if (now - t > TILE_LATE) this.asked.delete(key)
    for (const { key, at } of missing) {
      if (this.asked.size >= TILES_ASKED) break
      if (this.asked.has(key) || now - (this.failed.get(key) ?? -1e9) < TILE_AGAIN) continue
      this.asked.set(key, now)
      keys.push(at)
    }
    if (keys.length) this.view.request({ type: 'tiles', scene: this.view.scene.id, keys })
    this.view.pending = missing.length
  }

  // Only the part in view, cut at whole pixels, in numbers that a canvas holds exactly
  put(ctx, image, x, y, w, h) {
    const view = this.view, [x0, y0, x1, y1] = view.visible(), fx = image.width / w, fy = image.height / h
    const left = clamp(Math.floor((x0 - x) * fx) - 1, 0, image.width), right = clamp(Math.ceil((x1 - x) * fx) + 1, 0, image.width)
    const top = clamp(Math.floor((y0 - y) * fy) - 1, 0, image.height), bottom = clamp(Math.ceil((y1 - y) * fy) + 1, 0, image.height)
    if (right <= left || bottom <= top) return
    const device = v => Math.round(v * view.scale * view.dpr)
    const ox = Math.round(view.ox * view.dpr), oy = Math.round(view.oy * view.dpr)
    const X0 = device(x + left / fx) + ox, X1 = device(x + right / fx) + ox
    const Y0 = device(y + top / fy) + oy, Y1 = device(y + bottom / fy) + oy
    ctx.drawImage(image, left, top, right - left, bottom - top, X0, Y0, X1 - X0, Y1 - Y0)
  }
}
