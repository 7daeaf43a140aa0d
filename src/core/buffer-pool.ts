// Buffers for what is done again and again: ranges that are decoded, answers to reads. A fresh one for each would be a hundred MiB a second of external memory, and V8 answers
// that with full garbage collections: a third of the main thread's time while an image starts.

import { KiB, MiB } from './units.ts'

/** LIMIT: buffers kept for the next range, and their bytes together. */
const MAX_BUFFERS = 4
const MAX_BYTES = 12 * MiB
const UNIT = 256 * KiB

/** Buffers that were used before. */
export class BufferPool {
  #free: Buffer[] = []

  /** At least `size` bytes, with whatever is in them. */
  take(size: number): Buffer {
    // the smallest that is large enough
    const found = this.#free.findIndex((buffer) => buffer.length >= size)
    if (found >= 0) return this.#free.splice(found, 1)[0]!
    return Buffer.allocUnsafeSlow(Math.ceil(size / UNIT) * UNIT)
  }

  /** Takes a buffer back: nobody may look into it any more. */
  give(buffer: Buffer): void {
    this.#free.push(buffer)
    this.#free.sort((a, b) => a.length - b.length)
    while (this.#free.length > MAX_BUFFERS || this.#free.reduce((sum, { length }) => sum + length, 0) > MAX_BYTES) this.#free.shift()
  }
}
