// The chunk information of one blob, read in place: no object per chunk, so that a worker can hold the arrays of many blobs.
// SPEC: spec-rafs.md C.3 to C.5; rules as in nydus storage/src/meta/{mod,chunk_info_v1,chunk_info_v2}.rs (validate).

import { CodedError } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import { KiB, MiB, roundUp } from '../../core/units.ts'
import {
  batchContext, CHUNK_INFO_FLAG, CHUNK_INFO_V1_SIZE_LOW, chunkInfoV1, chunkInfoV2, compressedWordV1, compressedWordV2, uncompressedWordV1, uncompressedWordV2,
  type BlobMetaHeader,
} from './chunk-info.ts'

/** What the blob table says of a blob, as far as its chunk information must agree: a `BlobRecord` of rafs-v6 is one. */
export interface ChunkInfoOwner {
  readonly blobId: string
  readonly isV2: boolean
  readonly isBatch: boolean
  readonly isChunkDictionary: boolean
  /** Bytes of chunk data at the start of the blob. */
  readonly dataSize: number
  readonly compressor: string
  readonly entry: {
    readonly chunkCount: number
    readonly uncompressedSize: number
    readonly ciCompressor: number
    readonly ciOffset: number
    readonly ciCompressedSize: number
    readonly ciUncompressedSize: number
  }
}

const { uncompressed: UNCOMPRESSED, compressed: COMPRESSED, dataLow: DATA_LOW, dataHigh: DATA_HIGH } = chunkInfoV2.offsetOf
const { compressedSize: BATCH_COMPRESSED, uncompressedSize: BATCH_UNCOMPRESSED } = batchContext.offsetOf
const offsetV1 = uncompressedWordV1.reader('offset')
const sizeLowV1 = uncompressedWordV1.reader('sizeLow')
const sizeHighV1 = uncompressedWordV1.reader('sizeHigh')
const storedOffsetV1 = compressedWordV1.reader('offset')
const storedSizeLowV1 = compressedWordV1.reader('sizeLow')
const storedSizeHighV1 = compressedWordV1.reader('sizeHigh')
const offsetV2 = uncompressedWordV2.reader('offset')
const sizeV2 = uncompressedWordV2.reader('size')
const flagsV2 = uncompressedWordV2.reader('flags')
const storedOffsetV2 = compressedWordV2.reader('offset')
const storedSizeV2 = compressedWordV2.reader('size')

/** Chunks are packed at multiples of this in the decompressed blob. */
export const CHUNK_ALIGNMENT = 4 * KiB
/** LIMIT: a batch is at most as large as the largest chunk; readers allocate that much. */
const MAX_BATCH_SIZE = 16 * MiB

/**
 * The rules that tie a blob's header to the blob table. FORMAT_INVALID. COMPAT: features are not compared, and a generated dictionary may
 * count other chunks (nydus storage/src/meta/mod.rs validate_header).
 */
export function validateMetaHeader(header: BlobMetaHeader, { blobId, entry, isBatch, isChunkDictionary }: ChunkInfoOwner): void {
  const check = (holds: boolean, rule: string) => {
    if (!holds) throw new CodedError('FORMAT_INVALID', `header of the chunk information of blob ${blobId}: ${rule}`, { blobId })
  }
  check(header.ciEntries === entry.chunkCount || isChunkDictionary, `${header.ciEntries} chunks, the image says ${entry.chunkCount}`)
  check(header.ciCompressor === entry.ciCompressor, 'another compressor than in the image')
  check(header.ciOffset === entry.ciOffset, `offset ${header.ciOffset}, the image says ${entry.ciOffset}`)
  check(header.ciCompressedSize === entry.ciCompressedSize && header.ciUncompressedSize === entry.ciUncompressedSize, 'other sizes than in the image')
  if (!isBatch || header.contextCount === 0) return
  check(header.contextOffset >= entry.chunkCount * chunkInfoV2.size, 'batch contexts overlap the chunks')
  check(header.contextCount <= entry.chunkCount, 'more batches than chunks')
  check(header.contextOffset + header.contextCount * batchContext.size <= entry.ciUncompressedSize, 'batch contexts run past the end')
}

/** A blob's chunk information, read in place; made by `decode`, which validates all of it. */
export class ChunkInfoArray {
  readonly count: number
  /** The bytes it reads: give them to `decode` in another worker. */
  readonly bytes: Uint8Array
  /** Number of batches. */
  readonly batchCount: number
  readonly #view: DataView
  readonly #isV2: boolean
  readonly #contextOffset: number

  /**
   * Checks `bytes`, decompressed chunk information with its contexts, against the blob's header and table entry, chunk by chunk.
   * FORMAT_INVALID, FORMAT_TRUNCATED.
   */
  static decode(bytes: Uint8Array, blob: ChunkInfoOwner, header: BlobMetaHeader): ChunkInfoArray {
    validateMetaHeader(header, blob)
    if (bytes.length !== blob.entry.ciUncompressedSize) {
      throw new CodedError('FORMAT_TRUNCATED', `chunk information of blob ${blob.blobId}: ${bytes.length} bytes, want ${blob.entry.ciUncompressedSize}`, { blobId: blob.blobId, size: bytes.length })
    }
    // a dictionary's blob has more chunks than the dictionary counts
    const count = Math.min(header.ciEntries, Math.floor(bytes.length / (blob.isV2 ? chunkInfoV2.size : chunkInfoV1.size)))
    const array = new ChunkInfoArray(bytes, count, blob.isV2, header)
    array.#validate(blob)
    return array
  }

  private constructor(bytes: Uint8Array, count: number, isV2: boolean, header: BlobMetaHeader) {
    this.bytes = bytes
    this.count = count
    this.batchCount = header.contextCount
    this.#view = dataViewOf(bytes)
    this.#isV2 = isV2
    this.#contextOffset = header.contextOffset
  }

  /** Of the chunk in the blob; of the whole batch for a batch member. */
  compressedOffset(i: number): number {
    return this.#isV2 ? storedOffsetV2(this.#view, i * chunkInfoV2.size + COMPRESSED) : storedOffsetV1(this.#view, i * chunkInfoV1.size + COMPRESSED)
  }

  /** 0 for a batch member, see `batch`. */
  compressedSize(i: number): number {
    if (this.#isV2) return storedSizeV2(this.#view, i * chunkInfoV2.size + COMPRESSED)
    const at = i * chunkInfoV1.size + COMPRESSED
    return storedSizeHighV1(this.#view, at) * CHUNK_INFO_V1_SIZE_LOW + storedSizeLowV1(this.#view, at) + 1
  }

  /** In the decompressed blob, a multiple of 4096. */
  uncompressedOffset(i: number): number {
    return this.#isV2 ? offsetV2(this.#view, i * chunkInfoV2.size + UNCOMPRESSED) : offsetV1(this.#view, i * chunkInfoV1.size + UNCOMPRESSED)
  }

  uncompressedSize(i: number): number {
    if (this.#isV2) return sizeV2(this.#view, i * chunkInfoV2.size + UNCOMPRESSED)
    const at = i * chunkInfoV1.size + UNCOMPRESSED
    return sizeHighV1(this.#view, at) * CHUNK_INFO_V1_SIZE_LOW + sizeLowV1(this.#view, at) + 1
  }

  /** For a batch member always true: whether the batch is compressed, its two sizes tell. */
  isCompressed(i: number): boolean {
    return this.#isV2 ? (this.#flags(i) & CHUNK_INFO_FLAG.compressed) !== 0 : this.compressedSize(i) !== this.uncompressedSize(i)
  }

  isBatch(i: number): boolean {
    return this.batchCount > 0 && (this.#flags(i) & CHUNK_INFO_FLAG.batch) !== 0
  }

  /** Number of the batch that holds chunk `i`, a batch member. */
  batchIndex(i: number): number {
    return this.#view.getUint32(i * chunkInfoV2.size + DATA_HIGH, true)
  }

  /** Offset of chunk `i`, a batch member, in the decompressed batch. */
  batchOffset(i: number): number {
    return this.#view.getUint32(i * chunkInfoV2.size + DATA_LOW, true)
  }

  hasCrc32(i: number): boolean {
    return (this.#flags(i) & CHUNK_INFO_FLAG.hasCrc32) !== 0
  }

  /** crc32c of the decompressed chunk, where it is recorded. */
  crc32(i: number): number | undefined {
    return this.hasCrc32(i) ? this.#view.getUint32(i * chunkInfoV2.size + DATA_LOW, true) : undefined
  }

  /** Sizes of batch `k`; equal ones mean that it is stored as it is. */
  batch(k: number): { compressedSize: number; uncompressedSize: number } {
    const at = this.#contextOffset + k * batchContext.size
    return { compressedSize: this.#view.getUint32(at + BATCH_COMPRESSED, true), uncompressedSize: this.#view.getUint32(at + BATCH_UNCOMPRESSED, true) }
  }

  #flags(i: number): number {
    return this.#isV2 ? flagsV2(this.#view, i * chunkInfoV2.size + UNCOMPRESSED) : 0
  }

  // Each field is read once: this runs for all chunks of a blob before its first byte is served (bench/serve/start).
  #validate({ blobId, dataSize, compressor, isBatch, isChunkDictionary, entry }: ChunkInfoOwner): void {
    let lastStored = 0
    let lastEnd = 0
    for (let i = 0; i < this.count; i++) {
      const stored = this.compressedOffset(i)
      const storedSize = this.compressedSize(i)
      const offset = this.uncompressedOffset(i)
      const size = this.uncompressedSize(i)
      const fault = this.#chunkFault(i, { stored, storedSize, size, dataSize, compressor, isBatch })
        ?? (stored < lastStored ? 'is stored before the chunk in front of it' : undefined)
        // a dictionary's sizes are those of the dictionary, not of the blob
        ?? (offset !== lastEnd && !isChunkDictionary ? `starts at ${offset} of the decompressed blob, the chunk in front of it ends at ${lastEnd}` : undefined)
        ?? (offset + size > entry.uncompressedSize && !isChunkDictionary ? 'ends behind the decompressed blob' : undefined)
      if (fault !== undefined) throw new CodedError('FORMAT_INVALID', `chunk ${i} of blob ${blobId} ${fault}`, { blobId, chunk: i })
      lastStored = stored
      lastEnd = roundUp(offset + size, CHUNK_ALIGNMENT)
    }
  }

  /** Rules for one chunk by itself. Unknown flags are tolerated, as upstream does. */
  #chunkFault(i: number, { stored, storedSize, size, dataSize, compressor, isBatch }: { stored: number; storedSize: number; size: number; dataSize: number; compressor: string; isBatch: boolean }): string | undefined {
    const flags = this.#flags(i)
    if (flags & (CHUNK_INFO_FLAG.zran | CHUNK_INFO_FLAG.encrypted)) return 'is marked zran or encrypted, its blob is not'
    if (flags & CHUNK_INFO_FLAG.batch) return isBatch ? this.#memberFault(i, dataSize) : 'is marked as a batch member, its blob has no batches'
    if (storedSize === 0) return 'is stored in no bytes'
    if (stored + storedSize > dataSize) return 'is stored behind the end of the data'
    const isCompressed = this.#isV2 ? (flags & CHUNK_INFO_FLAG.compressed) !== 0 : storedSize !== size
    if (!isCompressed && storedSize !== size) return 'is not compressed, but stored in another size'
    if (isCompressed && compressor === 'none') return 'is compressed, but with what?'
    if ((flags & CHUNK_INFO_FLAG.hasCrc32) !== 0 && this.crc32(i) === 0) return 'has a checksum of 0'
    return undefined
  }

  #memberFault(i: number, dataSize: number): string | undefined {
    if (this.batchIndex(i) >= this.batchCount) return 'is in a batch that does not exist'
    const { compressedSize, uncompressedSize } = this.batch(this.batchIndex(i))
    if (uncompressedSize > MAX_BATCH_SIZE || compressedSize > uncompressedSize || compressedSize === 0) return 'is in a batch of impossible size'
    if (this.batchOffset(i) + this.uncompressedSize(i) > uncompressedSize) return 'runs past the end of its batch'
    if (this.compressedOffset(i) + compressedSize > dataSize) return 'is in a batch that is stored behind the end of the data'
    return undefined
  }
}
