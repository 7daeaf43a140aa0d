// The working buffers of the chunk pipeline: a few, used over and over, so that a build of any size makes no garbage of its own.

import type { ImageInode } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { DIGEST_SIZE } from '../native/codecs.ts'
import { ReadList } from './read-list.ts'

/** LIMIT: chunks of a portion, so that thousands of tiny files do not make one late; what each needs is allocated once. */
const MAX_CHUNKS = 1024

/** Files, or parts of files, that go through the pipeline together: chunks back to back in `input`. */
export class Portion {
  readonly input: Buffer
  /** Stored chunks, back to back. */
  readonly output: Buffer
  /** File of each chunk; a file's chunks come in order. */
  readonly inodes: ImageInode[] = []
  /** What to read into `input`, when it comes from files. */
  readonly reads = new ReadList(MAX_CHUNKS)
  /** Number of a chunk that is a whole one of zeros, -1 for none. */
  zeroSlice = -1
  readonly #slices = new Uint32Array(2 * MAX_CHUNKS)
  readonly #digests = new Uint8Array(DIGEST_SIZE * MAX_CHUNKS)
  readonly #crcs = new Uint32Array(MAX_CHUNKS)
  readonly #kept = new Uint32Array(2 * MAX_CHUNKS)
  readonly #sizes = new Uint32Array(MAX_CHUNKS)
  #keptCount = 0
  #used = 0

  constructor(capacity: number) {
    this.input = Buffer.allocUnsafeSlow(capacity)
    this.output = Buffer.allocUnsafeSlow(capacity)
  }

  /** Number of chunks. */
  get count(): number {
    return this.inodes.length
  }

  /** [offset, length] of each chunk in `input`; length 0 stands for a chunk of zeros like an earlier `zeroSlice`. */
  get slices(): Uint32Array {
    return this.#slices.subarray(0, 2 * this.count)
  }

  /** 32 bytes a chunk. */
  get digests(): Uint8Array {
    return this.#digests.subarray(0, DIGEST_SIZE * this.count)
  }

  get crcs(): Uint32Array {
    return this.#crcs.subarray(0, this.count)
  }

  /** [offset, length] of the chunks to be stored. */
  get kept(): Uint32Array {
    return this.#kept.subarray(0, 2 * this.#keptCount)
  }

  /** Stored sizes of the chunks of `kept`. */
  get sizes(): Uint32Array {
    return this.#sizes.subarray(0, this.#keptCount)
  }

  /** Whether a chunk of `length` bytes still fits. */
  hasRoom(length: number): boolean {
    return this.count < MAX_CHUNKS && this.input.length - this.#used >= length
  }

  /** Adds a chunk of the next `length` bytes of `input`, for which there is room; returns where they begin. */
  add(inode: ImageInode, length: number): number {
    const offset = this.#used
    this.#slices[2 * this.count] = offset
    this.#slices[2 * this.count + 1] = length
    this.inodes.push(inode)
    this.#used += length
    return offset
  }

  /** Marks a chunk as one to be stored. */
  keep(offset: number, length: number): void {
    this.#kept[2 * this.#keptCount] = offset
    this.#kept[2 * this.#keptCount + 1] = length
    this.#keptCount++
  }

  reset(): void {
    this.inodes.length = 0
    this.reads.reset()
    this.zeroSlice = -1
    this.#keptCount = 0
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

  /** Resolves when all submitted portions are back, and lets go of their memory; rejects, then, with what failed. */
  async drained(): Promise<void> {
    while (this.#submitted > 0) await this.#change()
    this.#idle.length = 0
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
