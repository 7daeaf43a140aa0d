// How far around a miss to fetch. A program does not read at random: what lies near what was wanted will mostly be wanted too (files of one package
// are neighbours in a layer), and the more was fetched around a place, the more will be.
//
//   one miss far from all others          base │ wanted │ base
//   a miss near a fetched span            the gap to it is closed, and the window grows with the span
//
// Measured with the first reads of a Next.js server and of a Python program (bench/serve/cold-start): 133 and 66 ranges of exactly what is wanted
// become 35 and 12, for twice the bytes; windows of fixed size need twice as many ranges for the same bytes.

/** Bytes [from, to) of a blob. */
export interface Span { readonly from: number; readonly to: number }

export interface WindowLimits {
  /** Bytes on each side of a miss that nothing is known about. */
  readonly base: number
  /** Distance up to which a fetched span counts as the same place. */
  readonly near: number
  /** Bytes on each side at most. */
  readonly longest: number
}

/** LIMIT: spans that are remembered; a blob of 1 GiB that is read in random 16 KiB pieces has more, and no pattern. */
const MAX_SPANS = 1024

/** Which parts of a blob were fetched because somebody read there. */
export class Footprint {
  #spans: { from: number; to: number }[] = []

  /** Adds a span; joins it with those that it touches. */
  add({ from, to }: Span): void {
    const first = this.#firstFrom(from)
    let end = first
    let [low, high] = [from, to]
    for (let span = this.#spans[end]; span !== undefined && span.from <= to; span = this.#spans[++end]) {
      low = Math.min(low, span.from)
      high = Math.max(high, span.to)
    }
    this.#spans.splice(first, end - first, { from: low, to: high })
    if (this.#spans.length > MAX_SPANS) this.#spans = this.#spans.filter((_, i) => i % 2 === 0)
  }

  /** The spans in front of and behind a place that none covers. */
  around({ from, to }: Span): { readonly before: Span | undefined; readonly after: Span | undefined } {
    const first = this.#firstFrom(from)
    const touching = this.#spans[first]
    if (touching !== undefined && touching.from < to) return { before: touching, after: this.#spans[first + 1] }
    return { before: this.#spans[first - 1], after: touching }
  }

  /** Index of the first span that ends at `offset` or later. */
  #firstFrom(offset: number): number {
    let [low, high] = [0, this.#spans.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#spans[middle]!.to < offset) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** What to fetch when `wanted` is missing. */
export function windowOf(wanted: Span, footprint: Footprint, { base, near, longest }: WindowLimits): Span {
  const { before, after } = footprint.around(wanted)
  let [back, ahead] = [base, base]
  if (before !== undefined && wanted.from - before.to <= near) {
    ahead = Math.max(ahead, (before.to - before.from) / 2)
    back = Math.max(back, wanted.from - before.to)
  }
  if (after !== undefined && after.from - wanted.to <= near) {
    back = Math.max(back, (after.to - after.from) / 2)
    ahead = Math.max(ahead, after.from - wanted.to)
  }
  return { from: Math.max(0, wanted.from - Math.min(back, longest)), to: wanted.to + Math.min(ahead, longest) }
}
