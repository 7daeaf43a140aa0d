// The working buffers of the chunk pipeline: a few, used over and over.

import type { ImageInode } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { DIGEST_SIZE } from '../native/codecs.ts'

/** Files, or parts of files, that go through the pipeline together: chunks back to back in `input`. */
export class Portion {
  readonly input: Buffer
  /** Stored chunks, back to back. */
  readonly output: Buffer
  /** File of each chunk; a file's chunks come in order. */
  inodes: ImageInode[] = []
  /** [offset, length] of each chunk in `input`; length 0 stands for a chunk of zeros like an earlier `zeroSlice`. Valid after `seal`. */
  slices = new Uint32Array(0)
  digests = new Uint8Array(0)
  crcs = new Uint32Array(0)
  /** Number of a chunk that is a whole one of zeros, -1 for none. */
  zeroSlice = -1
  /** Sizes of stored chunks, in the order of `keep`. */
  sizes = new Uint32Array(0)
  #slices: number[] = []
  #kept: number[] = []
  #used = 0

  constructor(capacity: number) {
    this.input = Buffer.allocUnsafeSlow(capacity)
    this.output = Buffer.allocUnsafeSlow(capacity)
  }

  /** Number of chunks. */
  get count(): number {
    return this.inodes.length
  }

  /** Bytes of `input` in use. */
  get used(): number {
    return this.#used
  }

  /** Room that is left. */
  get free(): number {
    return this.input.length - this.#used
  }

  /** Adds a chunk of the next `length` bytes of `input`; returns where they begin. */
  add(inode: ImageInode, length: number): number {
    const offset = this.#used
    this.inodes.push(inode)
    this.#slices.push(offset, length)
    this.#used += length
    return offset
  }

  /** No more chunks come. */
  seal(): void {
    this.slices = Uint32Array.from(this.#slices)
    this.digests = new Uint8Array(this.count * DIGEST_SIZE)
    this.crcs = new Uint32Array(this.count)
  }

  /** Marks a slice as one to be stored. */
  keep(offset: number, length: number): void {
    this.#kept.push(offset, length)
  }

  /** [offset, length] of the chunks to be stored. */
  get kept(): Uint32Array {
    this.sizes = new Uint32Array(this.#kept.length / 2)
    return Uint32Array.from(this.#kept)
  }

  reset(): void {
    this.inodes = []
    this.zeroSlice = -1
    this.#slices = []
    this.#kept = []
    this.#used = 0
  }
}

/** Hands out up to `limit` portions; who asks for more waits. */
export class PortionPool {
  readonly #capacity: number
  readonly #limit: number
  readonly #idle: Portion[] = []
  readonly #waiting: (() => void)[] = []
  #out = 0
  #submitted = 0
  #failure: { readonly error: unknown } | undefined

  constructor(capacity: number, limit: number) {
    this.#capacity = capacity
    this.#limit = limit
  }

  /** An empty portion. Rejects once something failed. */
  async take(): Promise<Portion> {
    while (this.#failure === undefined && this.#out >= this.#limit) await this.#change()
    this.#throwFailure()
    this.#out++
    return this.#idle.pop() ?? new Portion(this.#capacity)
  }

  /** A portion that was taken has begun its way; only such ones are waited for. */
  submit(): void {
    this.#submitted++
  }

  give(portion: Portion): void {
    portion.reset()
    this.#idle.push(portion)
    this.#out--
    this.#submitted--
    this.#wake()
  }

  /** Makes `take` and `drained` reject with `error`; the first one counts. */
  fail(error: unknown): void {
    this.#failure ??= { error }
    this.#wake()
  }

  /** Resolves when all submitted portions are back; rejects, then, with what failed. */
  async drained(): Promise<void> {
    while (this.#submitted > 0) await this.#change()
    this.#throwFailure()
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error
  }

  #change(): Promise<void> {
    return new Promise((resolve) => { this.#waiting.push(resolve) })
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}
