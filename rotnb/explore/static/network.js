// A network as the page has it: bytes from the page or beside it, a worker that runs it, and its answers as plain rows.

const SERVE = 'A browser does not let a page that was opened as a file read the files beside it. In its folder run ' +
  '“python -m http.server” and open http://localhost:8000'

// {bytes, gzip} that lie in the page, or {url, integrity} of what does not
async function content({ bytes, url, integrity }) {
  if (bytes) return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer()
  const at = new URL(url, document.baseURI)
  if (at.protocol === 'file:') throw new Error(SERVE)
  const failed = e => { throw new Error(`${at.href} cannot be fetched: ${e.message}`) }
  const reply = await fetch(at, integrity ? { integrity } : {}).catch(failed)
  if (!reply.ok) throw new Error(`${at.href}: the server says ${reply.status}`)
  return reply.arrayBuffer()
}

class Network {
  constructor(model) { Object.assign(this, { model, asked: new Map(), n: 0, opened: null }) }
  open() { return this.opened ??= this.start().catch(e => { this.close(e); throw e }) }
  async start() {
    if (!globalThis.DecompressionStream || !globalThis.WebAssembly) throw new Error('This browser is too old: take one of 2023 or later.')
    const { script, wasm, network, worker } = this.model.get('files')
    const [code, binary, graph] = await Promise.all([script, wasm, network].map(content))
    this.worker = new Worker(URL.createObjectURL(new Blob([worker], { type: 'text/javascript' })))
    this.worker.onmessage = ({ data }) => this.heard(data)
    this.worker.onerror = e => this.close(new Error(e.message || 'the worker cannot be started'))
    // threads share memory, which a server has to allow (Cross-Origin-Opener-Policy and -Embedder-Policy)
    const threads = globalThis.crossOriginIsolated ? clamp(navigator.hardwareConcurrency >> 1, 1, 4) : 1
    await this.ask({ job: 'open', script: code, wasm: binary, network: graph, threads }, [code, binary, graph])
  }
  ask(msg, handed = []) {
    const id = ++this.n
    return new Promise((done, failed) => {
      this.asked.set(id, { done, failed })
      this.worker.postMessage({ id, ...msg }, handed)
    })
  }
  heard({ id, answer, error }) {
    const { done, failed } = this.asked.get(id)
    this.asked.delete(id)
    error === undefined ? done(answer) : failed(new Error(error))
  }
  close(error = new Error('closed')) {                            // a failure may have spoilt its memory: the next look opens it anew
    this.worker?.terminate()
    for (const { failed } of this.asked.values()) failed(error)
    this.asked.clear()
    this.opened = null
  }

  // What is in an input, best first: in its pixels; corners where the network has some
  async look({ pixels, wh }) {
    const { boxes, scores, labels, count, quads } = await this.ask({ job: 'look', pixels, wh }, [pixels.buffer])
    return Array.from({ length: Number(count[0]) }, (_, i) => {
      const box = Array.from(boxes.subarray(5 * i, 5 * i + 5)), quad = quads ? Array.from(quads.subarray(8 * i, 8 * i + 8)) : null
      return { box, quad, score: scores[i], label: Number(labels[i]) }
    })
  }
}
