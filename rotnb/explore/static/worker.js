// Runs a network apart from the page, which stays usable meanwhile. A worker of its own, not joined to the other scripts.

let runtime, session

const jobs = {
  // From a file a page, its workers and what they make have origins of their own: only what this worker makes itself may it import
  async open({ script, wasm, network, threads }) {
    runtime = await import(URL.createObjectURL(new Blob([script], { type: 'text/javascript' })))
    Object.assign(runtime.env.wasm, { wasmBinary: wasm, numThreads: threads })
    session = await runtime.InferenceSession.create(new Uint8Array(network))
  },
  async look({ pixels, wh: [w, h] }) {
    const found = await session.run({ image: new runtime.Tensor('uint8', pixels, [1, 3, h, w]) })
    return Object.fromEntries(Object.entries(found).map(([name, tensor]) => [name, tensor.data]))
  },
}

onmessage = async ({ data: { id, job, ...given } }) => {
  try { postMessage({ id, answer: await jobs[job](given) }) } catch (e) { postMessage({ id, error: e.message || String(e) }) }
}
