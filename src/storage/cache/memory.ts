// Decompressed chunks in memory, for images without a cache directory and for caches that cannot store: a bounded, least-recently-used map.

import { MiB } from '../../core/units.ts'

/** LIMIT: decompressed chunks kept for images without a cache, or while it cannot store. */
const MOST = 32 * MiB
/** LIMIT: of the memory that the process may use; the rest is for Node, its workers and what is under way. */
const SHARE = 1 / 16

/** Bytes of chunks to keep where the cgroup, or the machine, allows `memory` bytes in all. */
export function chunkMemoryLimit(memory: number): number {
  return Math.min(MOST, Math.floor(memory * SHARE))
}

/** Keys are chosen by the caller; `bytes` of the values never exceed the limit. */
export class ChunkMemory {
  readonly #limit: number
  readonly #chunks = new Map<string, Uint8Array>()
  #bytes = 0

  /** `limit` in bytes. */
  constructor(limit: number) {
    this.#limit = limit
  }

  get(key: string): Uint8Array | undefined {
    const chunk = this.#chunks.get(key)
    if (chunk === undefined) return undefined
    this.#chunks.delete(key)
    this.#chunks.set(key, chunk)
    return chunk
  }

  /** Keeps a copy: `chunk` may be a part of a large buffer. One that is larger than the limit is not kept. */
  set(key: string, chunk: Uint8Array): void {
    if (chunk.length > this.#limit) return
    this.#bytes += chunk.length - (this.#chunks.get(key)?.length ?? 0)
    this.#chunks.delete(key)
    this.#chunks.set(key, new Uint8Array(chunk)) // not slice: a Buffer's shares its memory
    for (const [oldest, { length }] of this.#chunks) {
      if (this.#bytes <= this.#limit) break
      this.#chunks.delete(oldest)
      this.#bytes -= length
    }
  }
}
