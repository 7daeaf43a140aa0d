// Pushed chunks, seen as blocks, payloads and runs of data. What lies within one chunk is not copied.

import { roundUp } from '../../core/units.ts'
import { BLOCK_SIZE } from './header.ts'

const NO_BYTES = Buffer.alloc(0)

/** What `TarReader` has of its input: at most one chunk and what straddles two. */
export class TarInput {
  /** The block that `takeBlock` found, at `blockAt`: in the chunk itself, or in a buffer of its own when it straddled two. */
  block: Buffer = NO_BYTES
  blockAt = 0
  /** Bytes taken from all chunks so far. */
  offset = 0
  #chunk: Buffer = NO_BYTES
  #at = 0
  readonly #scratch = Buffer.alloc(BLOCK_SIZE)
  #scratchFill = 0
  #gathered: Buffer = NO_BYTES
  #gatheredFill = 0

  /** Adds a chunk; the last one must be used up. */
  push(chunk: Uint8Array): void {
    if (this.#at < this.#chunk.length) throw new Error('push before the last chunk was read')
    this.#chunk = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
    this.#at = 0
  }

  /** Makes the next whole block `block` at `blockAt`; false when input is short. */
  takeBlock(): boolean {
    if (this.#scratchFill === 0 && this.#chunk.length - this.#at >= BLOCK_SIZE) {
      this.block = this.#chunk
      this.blockAt = this.#at
      this.#advance(BLOCK_SIZE)
      return true
    }
    this.#scratchFill += this.#copyTo(this.#scratch, this.#scratchFill, BLOCK_SIZE)
    if (this.#scratchFill < BLOCK_SIZE) return false
    this.#scratchFill = 0
    this.block = this.#scratch
    this.blockAt = 0
    return true
  }

  /** What came of a block that is not whole yet. */
  get partialBlock(): Uint8Array {
    return this.#scratch.subarray(0, this.#scratchFill)
  }

  /** The next `size` bytes in one piece, after which the padding to a whole block is gone, too; undefined when input is short (then ask again for the same size). */
  takePayload(size: number): Buffer | undefined {
    const whole = roundUp(size, BLOCK_SIZE)
    if (this.#gatheredFill === 0 && this.#chunk.length - this.#at >= whole) {
      const start = this.#at
      this.#advance(whole)
      return this.#chunk.subarray(start, start + size)
    }
    if (this.#gathered.length < whole) this.#gathered = Buffer.alloc(whole)
    this.#gatheredFill += this.#copyTo(this.#gathered, this.#gatheredFill, whole)
    if (this.#gatheredFill < whole) return undefined
    this.#gatheredFill = 0
    return this.#gathered.subarray(0, size)
  }

  /** Up to `limit` bytes, as many as the chunk still has; none when input is short. */
  takeRun(limit: number): Buffer {
    const start = this.#at
    this.#advance(Math.min(limit, this.#chunk.length - start))
    return this.#chunk.subarray(start, this.#at)
  }

  /** Leaves out up to `limit` bytes; how many there were. */
  skip(limit: number): number {
    const skipped = Math.min(limit, this.#chunk.length - this.#at)
    this.#advance(skipped)
    return skipped
  }

  #copyTo(target: Buffer, fill: number, whole: number): number {
    const taken = Math.min(whole - fill, this.#chunk.length - this.#at)
    target.set(this.#chunk.subarray(this.#at, this.#at + taken), fill)
    this.#advance(taken)
    return taken
  }

  #advance(count: number): void {
    this.#at += count
    this.offset += count
  }
}
