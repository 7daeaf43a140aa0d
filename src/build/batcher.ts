// Gathers small chunks into batches that are compressed as one, in buffers that are used over and over. SPEC: nydus builder/src/core/node.rs dump_file_chunk; spec-rafs.md C.5.

/** A closed batch. Whoever is done with it gives it back to the batcher. */
export interface Batch {
  /** The raw bytes of its members, back to back. */
  readonly bytes: Uint8Array
  /** As long as `bytes`, for what they are stored as. */
  readonly stored: Uint8Array
  /** Ids of the members in the chunk store, in order. */
  readonly ids: readonly number[]
}

interface Buffers { readonly bytes: Uint8Array; readonly stored: Uint8Array }

/** Gathers the small chunks of a blob into batches. SPEC: spec-rafs.md C.5. */
export class Batcher {
  readonly #size: number
  readonly #idle: Buffers[] = []
  #open: Buffers | undefined
  #used = 0
  #ids: number[] = []

  /** `size`: of a batch, a power of two; 0 makes no batches. */
  constructor(size: number) {
    this.#size = size
  }

  /** Whether a chunk is small enough, and alone in its file. */
  takes(length: number, chunksInFile: number): boolean {
    return chunksInFile === 1 && length < this.#size / 2
  }

  /** Adds a chunk; returns the batch that had to be closed first, if any. */
  add(id: number, bytes: Uint8Array): Batch | undefined {
    const closed = this.#used + bytes.length >= this.#size ? this.close() : undefined
    this.#open ??= this.#idle.pop() ?? { bytes: Buffer.allocUnsafeSlow(this.#size), stored: Buffer.allocUnsafeSlow(this.#size) }
    this.#open.bytes.set(bytes, this.#used)
    this.#used += bytes.length
    this.#ids.push(id)
    return closed
  }

  /** Closes the open batch: before a chunk that is stored by itself, and at the end. */
  close(): Batch | undefined {
    if (this.#open === undefined) return undefined
    const { bytes, stored } = this.#open
    const batch = { bytes: bytes.subarray(0, this.#used), stored: stored.subarray(0, this.#used), ids: this.#ids }
    this.#open = undefined
    this.#used = 0
    this.#ids = []
    return batch
  }

  /** Takes back the buffers of a batch that is written. */
  give({ bytes, stored }: Batch): void {
    this.#idle.push({ bytes: new Uint8Array(bytes.buffer), stored: new Uint8Array(stored.buffer) })
  }
}
