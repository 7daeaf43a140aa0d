// From file contents to stored chunks. Each portion of a few MiB is read, hashed and compressed on the thread pool, while what decides the
// image's bytes, which chunk is new and where it lies, happens here and strictly in order: the result does not depend on the number of threads.
//
//   submit ─► fill + hash (threads) ─► decide (in order) ─► compress (threads) ─► emit (in order)
//             at most `threads` + 1 portions: one is being filled while the others are worked on

import { CodedError } from '../core/errors.ts'
import { MiB, roundUp } from '../core/units.ts'
import { ChunkInfoBuilder } from '../format/blob/chunk-info-builder.ts'
import { CHUNK_ALIGNMENT } from '../format/blob/chunk-info-array.ts'
import type { BlobDescription } from '../format/rafs-v6/bootstrap-writer.ts'
import type { ChunkStore } from '../format/rafs-v6/bootstrap-writer-chunks.ts'
import type { ImageInode } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { CHUNK_FLAG } from '../format/rafs-v6/chunk-table.ts'
import type { CompressorNumber, DigesterNumber } from '../native/addon.ts'
import { DIGEST_SIZE } from '../native/codecs.ts'
import { native } from '../native/load.ts'
import { type Batch, Batcher } from './batcher.ts'
import type { BlobWriter } from './blob-writer.ts'
import type { ChunkIndex } from './chunk-index.ts'
import type { ChunkDictionary } from './dictionary.ts'
import { type Portion, PortionPool } from './portion.ts'

/** LIMIT: bytes of a portion, unless a chunk is larger. Large enough that its two thread hops do not count, small enough that (threads + 1) x 2 x this is all that a build holds. */
const PORTION_SIZE = 1 * MiB
/** SPEC: nydus builder/src/core/context.rs alloc_chunk_index: 24-bit chunk ids, the last one unused. */
const MAX_CHUNKS = 0xff_ffff
/** zstd's own default level. */
const LEVEL = 3

export interface PipelineOptions {
  readonly chunks: ChunkStore
  /** Chunks known before and, as they come, the new ones. */
  readonly index: ChunkIndex
  readonly dictionary: ChunkDictionary | undefined
  readonly writer: BlobWriter
  /** The image's blobs so far; a place for the new blob, and dictionary blobs as they are first referred to, are appended. */
  readonly blobs: (BlobDescription | undefined)[]
  readonly compressor: CompressorNumber
  readonly digester: DigesterNumber
  readonly chunkSize: number
  readonly batchSize: number
  readonly isV2: boolean
  readonly threads: number
  readonly signal: AbortSignal
}

/** What came together once all portions are through. */
export interface PipelineTotals {
  /** Position of the new blob in `blobs`; undefined when there were no new chunks. */
  readonly blobIndex: number | undefined
  readonly chunkCount: number
  /** Of the decompressed blob: chunks padded to 4096. */
  readonly uncompressedSize: number
  /** Bytes of new chunks, without padding. */
  readonly newBytes: number
  readonly dedupChunks: number
  readonly dedupBytes: number
}

type Unit = { readonly id: number; readonly batch?: never } | { readonly batch: Batch; readonly id?: never }

/** Hash, deduplicate, compress, write: portions of source data at work in parallel, stored in the order in which they came. */
export class ChunkPipeline {
  readonly info: ChunkInfoBuilder
  /** Ids of the new blob's chunks, by chunk index. */
  readonly newIds: number[] = []
  readonly #options: PipelineOptions
  readonly #pool: PortionPool
  readonly #batcher: Batcher
  /** Id of each dictionary chunk in the image's store, once referred to. */
  readonly #dictionaryIds = new Map<number, number>()
  readonly #dictionaryBlobs = new Map<number, number>()
  #decided: Promise<void> = Promise.resolve()
  #emitted: Promise<void> = Promise.resolve()
  #blobIndex: number | undefined
  #uncompressedOffset = 0
  #newBytes = 0
  #dedupChunks = 0
  #dedupBytes = 0
  /** Id of the chunk of nothing but zeros of full size. */
  #zeroChunk: number | undefined

  constructor(options: PipelineOptions) {
    this.#options = options
    this.info = new ChunkInfoBuilder({ isV2: options.isV2 })
    this.#batcher = new Batcher(options.batchSize)
    this.#pool = new PortionPool(Math.max(PORTION_SIZE, options.chunkSize), options.threads + 1)
  }

  /** An empty portion to fill, as soon as one is free. Rejects with what went wrong before. */
  async portion(): Promise<Portion> {
    this.#options.signal.throwIfAborted()
    return this.#pool.take()
  }

  /** Takes a portion; `fill` brings its bytes if they are not there yet. Returns at once: failures come out of `portion` and `finish`. */
  submit(portion: Portion, fill?: () => Promise<void>): void {
    this.#pool.submit()
    const hashed = this.#hash(portion, fill)
    const decided = Promise.all([hashed, this.#decided]).then(() => this.#decide(portion))
    const compressed = decided.then((units) => this.#compress(portion, units))
    const emitted = Promise.all([compressed, this.#emitted]).then(([result]) => this.#emit(portion, result))
    this.#decided = decided.then(() => {})
    this.#emitted = emitted
    this.#decided.catch(() => {})
    emitted.catch((error: unknown) => this.#pool.fail(error))
    // A buffer is free only when no thread works on it, also after a failure.
    void Promise.allSettled([hashed, compressed, emitted]).then(() => this.#pool.give(portion))
  }

  /** Waits for everything and closes the last batch. */
  async finish(): Promise<PipelineTotals> {
    await this.#pool.drained()
    const last = this.#batcher.close()
    if (last !== undefined) await this.#emitBatch(last, await this.#compressBatch(last))
    return {
      blobIndex: this.#blobIndex, chunkCount: this.info.count, uncompressedSize: this.#uncompressedOffset,
      newBytes: this.#newBytes, dedupChunks: this.#dedupChunks, dedupBytes: this.#dedupBytes,
    }
  }

  /** Resolves when no thread works any more, whatever went wrong. */
  async settled(): Promise<void> {
    await this.#pool.drained().catch(() => {})
  }

  async #hash(portion: Portion, fill: (() => Promise<void>) | undefined): Promise<void> {
    await fill?.()
    this.#options.signal.throwIfAborted()
    await native().hashSlices(portion.input, portion.slices, this.#options.digester, portion.digests, portion.crcs)
  }

  /** Finds out which chunks are new. In order, and without waiting. */
  #decide(portion: Portion): Unit[] {
    const units: Unit[] = []
    const { slices, digests, crcs } = portion
    for (let i = 0; i < portion.count; i++) {
      const length = slices[2 * i + 1]!
      const inode = portion.inodes[i]!
      // A hole of a whole chunk, after the first one, has no bytes.
      let id = length === 0 ? this.#zeroChunk! : this.#known(digests, i, length)
      if (id < 0) {
        id = this.#add(digests, i, { length, crc32: crcs[i]! })
        this.#place(portion, slices[2 * i]!, { id, length, chunksInFile: Math.ceil(inode.size / this.#options.chunkSize) }, units)
      } else {
        this.#dedupChunks++
        this.#dedupBytes += length === 0 ? this.#options.chunkSize : length
      }
      if (portion.zeroSlice === i) this.#zeroChunk = id
      appendChunk(inode, id, this.#options.chunkSize)
    }
    return units
  }

  /** Id of a chunk that need not be stored, or -1. */
  #known(digests: Uint8Array, i: number, length: number): number {
    const { dictionary, index, chunks, blobs } = this.#options
    const found = dictionary?.index.find(digests, i * DIGEST_SIZE, length) ?? -1
    if (dictionary === undefined || found < 0) return index.find(digests, i * DIGEST_SIZE, length)
    let id = this.#dictionaryIds.get(found)
    if (id !== undefined) return id
    const inner = dictionary.chunks.blobIndex(found)
    let blobIndex = this.#dictionaryBlobs.get(inner)
    if (blobIndex === undefined) {
      blobIndex = blobs.findIndex((blob) => blob?.blobId === dictionary.blobs[inner]!.blobId)
      if (blobIndex < 0) blobIndex = blobs.push(dictionary.blobs[inner]) - 1
      this.#dictionaryBlobs.set(inner, blobIndex)
    }
    id = chunks.addRecord(dictionary.chunks.record(found), 0)
    chunks.setBlobIndex(id, blobIndex)
    this.#dictionaryIds.set(found, id)
    return id
  }

  #add(digests: Uint8Array, i: number, { length, crc32 }: { readonly length: number; readonly crc32: number }): number {
    const { chunks, index, blobs } = this.#options
    this.#blobIndex ??= blobs.push(undefined) - 1
    if (this.newIds.length >= MAX_CHUNKS) throw new CodedError('BUILD_SOURCE', `more than ${MAX_CHUNKS} chunks in one blob: use a larger chunk size`)
    const id = chunks.add()
    chunks.setDigest(id, digests, i * DIGEST_SIZE)
    chunks.setBlobIndex(id, this.#blobIndex)
    chunks.setIndex(id, this.newIds.length)
    chunks.setUncompressedSize(id, length)
    chunks.setUncompressedOffset(id, this.#uncompressedOffset)
    // COMPAT: a checksum of 0 cannot be recorded (readers refuse the flag with it).
    chunks.setCrc32(id, crc32)
    chunks.setFlags(id, crc32 === 0 ? 0 : CHUNK_FLAG.hasCrc32)
    this.#uncompressedOffset += roundUp(length, CHUNK_ALIGNMENT)
    this.#newBytes += length
    this.newIds.push(id)
    index.add(id)
    return id
  }

  #place(portion: Portion, offset: number, { id, length, chunksInFile }: { id: number; length: number; chunksInFile: number }, units: Unit[]): void {
    const isMember = this.#batcher.takes(length, chunksInFile)
    const closed = isMember ? this.#batcher.add(id, portion.input.subarray(offset, offset + length)) : this.#batcher.close()
    if (closed !== undefined) units.push({ batch: closed })
    if (isMember) return
    portion.keep(offset, length)
    units.push({ id })
  }

  async #compress(portion: Portion, units: readonly Unit[]): Promise<{ readonly units: readonly Unit[]; readonly batches: Uint8Array[] }> {
    const { compressor } = this.#options
    const batches: Uint8Array[] = []
    await native().compressSlices(portion.input, portion.kept, compressor, LEVEL, portion.output, portion.sizes)
    for (const { batch } of units) if (batch !== undefined) batches.push(await this.#compressBatch(batch))
    return { units, batches }
  }

  async #compressBatch({ bytes, stored }: Batch): Promise<Uint8Array> {
    const used = await native().compressSlices(bytes, new Uint32Array([0, bytes.length]), this.#options.compressor, LEVEL, stored, new Uint32Array(1))
    return stored.subarray(0, used)
  }

  async #emit(portion: Portion, { units, batches }: { readonly units: readonly Unit[]; readonly batches: Uint8Array[] }): Promise<void> {
    const { sizes } = portion
    let at = 0
    let written = 0
    let k = 0
    // Chunks between two batches are one write.
    for (const { id, batch } of units) {
      if (batch !== undefined) {
        await this.#options.writer.write(portion.output.subarray(written, at))
        written = at
        await this.#emitBatch(batch, batches.shift()!)
        continue
      }
      const size = sizes[k++]!
      this.#stored(id, this.#options.writer.position + at - written, size)
      at += size
    }
    await this.#options.writer.write(portion.output.subarray(written, at))
  }

  #stored(id: number, compressedOffset: number, compressedSize: number): void {
    const { chunks } = this.#options
    const uncompressedSize = chunks.uncompressedSize(id)
    const isCompressed = compressedSize !== uncompressedSize
    chunks.setCompressedOffset(id, compressedOffset)
    chunks.setCompressedSize(id, compressedSize)
    if (isCompressed) chunks.setFlags(id, chunks.flags(id) | CHUNK_FLAG.compressed)
    this.info.add({ compressedOffset, compressedSize, uncompressedOffset: chunks.uncompressedOffset(id), uncompressedSize, isCompressed, crc32: chunks.crc32(id) })
  }

  // COMPAT: in the chunk table a member has neither place nor size, only the blob's own array tells them.
  async #emitBatch(batch: Batch, stored: Uint8Array): Promise<void> {
    const { chunks, writer } = this.#options
    const { bytes, ids } = batch
    let batchOffset = 0
    for (const id of ids) {
      const uncompressedSize = chunks.uncompressedSize(id)
      this.info.addMember({ compressedOffset: writer.position, uncompressedOffset: chunks.uncompressedOffset(id), uncompressedSize, batchOffset })
      batchOffset += uncompressedSize
    }
    this.info.closeBatch(stored.length, bytes.length)
    await writer.write(stored)
    this.#batcher.give(batch)
  }
}

function appendChunk(inode: ImageInode, id: number, chunkSize: number): void {
  if (inode.size <= chunkSize) inode.chunks = id
  else if (typeof inode.chunks === 'object') inode.chunks.push(id)
  else inode.chunks = [id]
}
