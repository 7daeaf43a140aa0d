// Buffers for what is done again and again: ranges that are decoded, answers to reads. A fresh one for each would be a hundred MiB a second of external memory, and V8 answers
// that with full garbage collections: a third of the main thread's time while an image starts.

import { KiB, MiB } from './units.ts'

/** LIMIT: buffers kept for the next range, and their bytes together. */
const MAX_BUFFERS = 8
const MAX_BYTES = 12 * MiB
const UNIT = 512 * KiB

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

  /** Exactly `length` bytes of one, for a reader that may or may not use them; `giveBack` takes back what it has used, and nothing else. */
  lend(): { allocate(length: number): Uint8Array; giveBack(bytes: Uint8Array): void } {
    const lent = new Map<ArrayBufferLike, Buffer>()
    return {
      allocate: (length) => {
        const buffer = this.take(length)
        lent.set(buffer.buffer, buffer)
        return buffer.subarray(0, length)
      },
      giveBack: (bytes) => {
        const buffer = lent.get(bytes.buffer)
        if (buffer !== undefined && lent.delete(bytes.buffer)) this.give(buffer)
      },
    }
  }

  /** Takes a buffer back: nobody may look into it any more. */
  give(buffer: Buffer): void {
    this.#free.push(buffer)
    this.#free.sort((a, b) => a.length - b.length)
    while (this.#free.length > MAX_BUFFERS || this.#free.reduce((sum, { length }) => sum + length, 0) > MAX_BYTES) this.#free.shift()
  }
}
