// Cuts a file's data, as it arrives piece by piece, into chunks in the pipeline's buffers. Holes are zeros; a chunk that is one hole costs nothing.

import type { ImageInode } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import type { ChunkPipeline } from './chunk-pipeline.ts'
import type { Portion } from './portion.ts'

/** Feeds one file after another into a pipeline; see `begin`, `write`, `end`. */
export class ChunkFeeder {
  readonly #pipeline: ChunkPipeline
  readonly #chunkSize: number
  #portion: Portion | undefined
  #inode: ImageInode | undefined
  /** Bytes of the file so far, holes included. */
  #position = 0
  /** Where the open chunk begins in the portion, and what it lacks; 0 for none open. */
  #at = 0
  #missing = 0
  #zerosKnown = false

  constructor(pipeline: ChunkPipeline, chunkSize: number) {
    this.#pipeline = pipeline
    this.#chunkSize = chunkSize
  }

  /** The data of `inode` follows, all `size` bytes of it. */
  begin(inode: ImageInode): void {
    this.#inode = inode
    this.#position = 0
  }

  /** What follows has no data, or its data is not wanted. */
  skip(): void {
    this.#inode = undefined
  }

  /** Data at `offset` of the file, which is not before what came already. The bytes are copied. */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    if (this.#inode === undefined) return
    await this.#zeros(offset - this.#position)
    for (let from = 0; from < bytes.length;) {
      if (this.#missing === 0) await this.#open()
      const length = Math.min(this.#missing, bytes.length - from)
      this.#portion!.input.set(bytes.subarray(from, from + length), this.#at)
      this.#took(length)
      from += length
    }
  }

  /** The file is complete; what lacks at its end is a hole. */
  async end(): Promise<void> {
    if (this.#inode !== undefined) await this.#zeros(this.#inode.size - this.#position)
    this.#inode = undefined
  }

  /** Hands over what has been gathered. */
  async flush(): Promise<void> {
    const portion = this.#portion
    this.#portion = undefined
    if (portion !== undefined) this.#pipeline.submit(portion)
  }

  async #zeros(count: number): Promise<void> {
    for (let left = count; left > 0;) {
      if (this.#missing === 0 && left >= this.#chunkSize && this.#inode!.size - this.#position >= this.#chunkSize && this.#inode!.size > this.#chunkSize) {
        await this.#wholeHole()
        left -= this.#chunkSize
        continue
      }
      if (this.#missing === 0) await this.#open()
      const length = Math.min(this.#missing, left)
      this.#portion!.input.fill(0, this.#at, this.#at + length)
      this.#took(length)
      left -= length
    }
  }

  /** A chunk of nothing but a hole: bytes only the first time. */
  async #wholeHole(): Promise<void> {
    if (this.#zerosKnown) {
      const portion = await this.#room(0)
      portion.add(this.#inode!, 0)
      this.#position += this.#chunkSize
      return
    }
    await this.#open()
    this.#portion!.zeroSlice = this.#portion!.count - 1
    this.#zerosKnown = true
    this.#portion!.input.fill(0, this.#at, this.#at + this.#chunkSize)
    this.#took(this.#chunkSize)
  }

  async #open(): Promise<void> {
    const length = Math.min(this.#chunkSize, this.#inode!.size - this.#position)
    const portion = await this.#room(length)
    this.#at = portion.add(this.#inode!, length)
    this.#missing = length
  }

  #took(length: number): void {
    this.#at += length
    this.#missing -= length
    this.#position += length
  }

  /** A portion with room for `length` bytes; never called while a chunk is open. */
  async #room(length: number): Promise<Portion> {
    if (this.#portion !== undefined && !this.#portion.hasRoom(length)) await this.flush()
    this.#portion ??= await this.#pipeline.portion()
    return this.#portion
  }
}
