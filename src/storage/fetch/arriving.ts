// A range while it arrives: units that are complete are decoded while the rest is still on its way.

import { MiB } from '../../core/units.ts'
import type { Range, Unit } from './plan.ts'

/**
 * LIMIT: decompressed bytes of more than one unit that are decoded at a time: what is wanted lands soon, and buffers stay small enough to be used
 * again (fresh ones cost V8 a full garbage collection every 64 MiB).
 */
const MAX_STEP = 2 * MiB

/** Hands the units of a range on, each once, in stored order, as many at a time as have come while the last ones were being decoded. */
export class Arriving {
  readonly #range: Range
  readonly #decode: (buffer: Uint8Array, units: readonly Unit[]) => Promise<void>
  /** Units handed on so far. */
  #taken = 0
  #work: Promise<void> | undefined
  #isDecoding = false
  /** What came last. */
  #latest: { readonly buffer: Uint8Array; readonly filled: number } | undefined
  #failure: unknown

  /** `decode` gets buffers that begin at the range's offset. */
  constructor(range: Range, decode: (buffer: Uint8Array, units: readonly Unit[]) => Promise<void>) {
    this.#range = range
    this.#decode = decode
  }

  /** Bytes [0, filled) of `buffer` have come. A repeated attempt may begin again with another buffer: it is the same range. */
  take(buffer: Uint8Array, filled: number): void {
    this.#latest = { buffer, filled }
    if (!this.#isDecoding) this.#work = this.#decodeLatest()
  }

  /** All of it has come. Resolves when everything is decoded. */
  async finish(buffer: Uint8Array): Promise<void> {
    await this.#work
    this.take(buffer, Number.POSITIVE_INFINITY)
    await this.#work
    if (this.#failure !== undefined) throw this.#failure
  }

  /** It will not come. Resolves when nothing is being decoded any more. */
  async settle(): Promise<void> {
    await this.#work
  }

  /** Never rejects. What comes meanwhile is decoded, too. */
  async #decodeLatest(): Promise<void> {
    this.#isDecoding = true
    try {
      while (this.#latest !== undefined && this.#failure === undefined) {
        const units = this.#complete(this.#latest.filled)
        if (units.length === 0) return
        await this.#decode(this.#latest.buffer, units)
      }
    } catch (error) {
      this.#failure = error
    } finally {
      this.#isDecoding = false
    }
  }

  #complete(filled: number): readonly Unit[] {
    const { units, offset } = this.#range
    const from = this.#taken
    let size = 0
    while (this.#taken < units.length && units[this.#taken]!.offset + units[this.#taken]!.size - offset <= filled) {
      size += units[this.#taken]!.uncompressedSize
      if (this.#taken > from && size > MAX_STEP) break
      this.#taken++
    }
    return units.slice(from, this.#taken)
  }
}
