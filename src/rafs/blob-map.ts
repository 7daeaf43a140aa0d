// Where the chunks of one decompressed blob lie, in memory that threads share: what turns a range of the blob (an EROFS device) into chunks.
// Made before the blob's chunk information is known, so that nobody has to be told when it is.

import type { ChunkInfoArray } from '../format/blob/chunk-info-array.ts'
import { chunkInfoV1, chunkInfoV2 } from '../format/blob/chunk-info.ts'
import type { BlobRecord } from '../format/rafs-v6/bootstrap-view.ts'

/** Chunks lie at multiples of this. */
const BLOCK = 4096
// Words: state, count, and for each chunk its block and its size.
const STATE = 0
const COUNT = 1
const HEADER = 2
const ROW = 2

/** Offsets and sizes of a blob's chunks, ascending. */
export class BlobMap {
  /** Give this to another thread's constructor. */
  readonly memory: SharedArrayBuffer
  readonly #words: Uint32Array

  /** An empty map with room for the chunks of a blob. */
  static create({ entry, isV2 }: BlobRecord): BlobMap {
    const capacity = Math.floor(entry.ciUncompressedSize / (isV2 ? chunkInfoV2.size : chunkInfoV1.size))
    return new BlobMap(new SharedArrayBuffer((HEADER + ROW * capacity) * Uint32Array.BYTES_PER_ELEMENT))
  }

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory
    this.#words = new Uint32Array(memory)
  }

  get isFilled(): boolean {
    return Atomics.load(this.#words, STATE) !== 0
  }

  get count(): number {
    return this.#words[COUNT]!
  }

  /** Takes over a layout that was validated: chunks ascend and do not overlap. */
  fill(layout: ChunkInfoArray): void {
    const words = this.#words
    for (let i = 0, at = HEADER; i < layout.count; i++, at += ROW) {
      words[at] = layout.uncompressedOffset(i) / BLOCK
      words[at + 1] = layout.uncompressedSize(i)
    }
    words[COUNT] = layout.count
    Atomics.store(words, STATE, 1) // last: who sees it sees the rows
  }

  offset(index: number): number {
    return this.#words[HEADER + ROW * index]! * BLOCK
  }

  size(index: number): number {
    return this.#words[HEADER + ROW * index + 1]!
  }

  /** The first chunk that ends behind `offset`; `count` when there is none. */
  firstAt(offset: number): number {
    let low = 0
    let high = this.count
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.offset(middle) + this.size(middle) > offset) high = middle
      else low = middle + 1
    }
    return low
  }
}
