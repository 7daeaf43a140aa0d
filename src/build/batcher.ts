// Gathers small chunks into batches that are compressed as one. SPEC: nydus builder/src/core/node.rs dump_file_chunk; spec-rafs.md C.5.

/** A closed batch: the raw bytes of its members back to back. */
export interface Batch {
  readonly bytes: Uint8Array
  /** Ids of the members in the chunk store, in order. */
  readonly ids: readonly number[]
}

/** Gathers the small chunks of a blob into batches. SPEC: spec-rafs.md C.5. */
export class Batcher {
  readonly #size: number
  #bytes: Uint8Array
  #used = 0
  #ids: number[] = []

  /** `size`: of a batch, a power of two; 0 makes no batches. */
  constructor(size: number) {
    this.#size = size
    this.#bytes = new Uint8Array(0)
  }

  /** Whether a chunk is small enough, and alone in its file. */
  takes(length: number, chunksInFile: number): boolean {
    return chunksInFile === 1 && length < this.#size / 2
  }

  /** Adds a chunk; returns the batch that had to be closed first, if any. */
  add(id: number, bytes: Uint8Array): Batch | undefined {
    const closed = this.#used + bytes.length >= this.#size ? this.close() : undefined
    if (this.#bytes.length === 0) this.#bytes = new Uint8Array(this.#size)
    this.#bytes.set(bytes, this.#used)
    this.#used += bytes.length
    this.#ids.push(id)
    return closed
  }

  /** Closes the open batch: before a chunk that is stored by itself, and at the end. */
  close(): Batch | undefined {
    if (this.#used === 0) return undefined
    const batch = { bytes: this.#bytes.subarray(0, this.#used), ids: this.#ids }
    this.#bytes = new Uint8Array(0)
    this.#used = 0
    this.#ids = []
    return batch
  }
}
