// Finds a chunk by its content: an open hash table of ids over the records of a chunk store, four bytes a slot.
// SPEC: nydus builder/src/core/chunk_dict.rs HashChunkDict (digest, then size; the first chunk of a digest stays).

import { type ChunkStore, compareDigests } from '../format/rafs-v6/bootstrap-writer-chunks.ts'

const INITIAL_SLOTS = 4096

/** Finds a chunk by digest and size: an open-addressing table over the store, without an object a chunk. */
export class ChunkIndex {
  readonly #chunks: ChunkStore
  /** Id + 1, 0 for free. The length is a power of two, at least twice the number of ids. */
  #slots = new Uint32Array(INITIAL_SLOTS)
  #count = 0

  constructor(chunks: ChunkStore) {
    this.#chunks = chunks
  }

  /** Id of the chunk with the digest at `offset` of `digests` and that uncompressed size, or -1. */
  find(digests: Uint8Array, offset: number, uncompressedSize: number): number {
    const word = ((digests[offset]! << 24) | (digests[offset + 1]! << 16) | (digests[offset + 2]! << 8) | digests[offset + 3]!) >>> 0
    const mask = this.#slots.length - 1
    for (let at = word & mask; ; at = (at + 1) & mask) {
      const slot = this.#slots[at]!
      if (slot === 0) return -1
      // A digest stands for one content, so for one size; a lying dictionary must not make a file too short.
      if (this.#chunks.digestEquals(slot - 1, digests, offset)) return this.#chunks.uncompressedSize(slot - 1) === uncompressedSize ? slot - 1 : -1
    }
  }

  /** Adds a chunk unless its digest is known. */
  add(id: number): void {
    if (++this.#count * 2 > this.#slots.length) this.#grow()
    this.#insert(id)
  }

  #insert(id: number): void {
    const mask = this.#slots.length - 1
    for (let at = this.#chunks.digestWord(id, 0) & mask; ; at = (at + 1) & mask) {
      const slot = this.#slots[at]!
      if (slot !== 0 && compareDigests(this.#chunks, slot - 1, id) !== 0) continue
      if (slot === 0) this.#slots[at] = id + 1
      return
    }
  }

  #grow(): void {
    const old = this.#slots
    this.#slots = new Uint32Array(old.length * 2)
    for (const slot of old) if (slot !== 0) this.#insert(slot - 1)
  }
}
