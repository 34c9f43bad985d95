// What filters leave, for pages without a kernel. `box_table` does the same in Python; tests/explore/filters.json holds the cases
// that both are tested with. A field is {kind, values, codes, rows, x, per}, as Field in Python.

// For each of n rows, whether one of its entries is wanted: some classes, or a range [low, high) with null for no end
function passes(field, want, n) {
  const keep = new Uint8Array(n), wanted = field.kind === 'class' ? k => want.includes(field.codes[k]) : inRange(field, want)
  field.codes.forEach((code, k) => { if (code >= 0 && wanted(k)) keep[field.rows ? field.rows[k] : k] = 1 })
  return keep
}

// By its number where the page holds it, else by its bin, for which the ends are edges of bins. Angles go round: from 80 to -80
function inRange({ values, codes, x }, [low, high]) {
  const number = k => x ? x[k] : codes[k], end = v => x ? v : values.indexOf(v)
  const from = low === null ? -Infinity : end(low), to = high === null ? Infinity : end(high)
  const round = low !== null && high !== null && low > high
  return k => round ? number(k) >= from || number(k) < to : number(k) >= from && number(k) < to
}

// What passes all filters at '', and for each field with a filter what passes the others
function masks(fields, filters, n) {
  const one = Object.entries(filters).map(([name, want]) => [name, passes(fields.find(f => f.name === name), want, n)])
  const rest = but => {
    const mask = new Uint8Array(n).fill(1)
    for (const [name, keep] of one) if (name !== but) for (let i = 0; i < n; i++) mask[i] &= keep[i]
    return mask
  }
  return { '': rest(''), ...Object.fromEntries(one.map(([name]) => [name, rest(name)])) }
}

// How many boxes, or images, a mask leaves in each bin or class
function counted(field, mask, image) {
  const counts = new Array(field.values.length - (field.kind === 'class' ? 0 : 1)).fill(0), seen = new Set()
  field.codes.forEach((code, k) => {
    const row = field.rows ? field.rows[k] : k, id = image[row] * counts.length + code
    if (code < 0 || !mask[row] || field.per === 'image' && seen.has(id)) return
    if (field.per === 'image') seen.add(id)
    counts[code]++
  })
  return counts
}

// Rows by a column of numbers; those without a number come last
function sorted(rows, column, ascending) {
  const up = ascending ? 1 : -1, lacks = o => o.sorts[column] === null ? 1 : 0
  return [...rows].sort((a, b) => lacks(a) - lacks(b) || up * (a.sorts[column] - b.sorts[column]))
}
