// Collects the chunk information of a blob that is being built, V1 or V2 with batches, and encodes it with its header.
// SPEC: spec-rafs.md C.3 to C.5; order as nydus builder/src/core/blob.rs dump_meta_data.

import { CodedError } from '../../core/errors.ts'
import { BLOB_FEATURE } from '../rafs-v6/blob-table.ts'
import {
  batchContext, BLOB_META_MAGIC, blobMetaHeader, CHUNK_INFO_FLAG, CHUNK_INFO_V1_SIZE_LOW, chunkInfoV1, chunkInfoV2,
} from './chunk-info.ts'

/** A chunk that is stored by itself. Offsets and sizes in bytes; the uncompressed offset is a multiple of 4096. */
export interface StoredChunk {
  readonly compressedOffset: number
  readonly compressedSize: number
  readonly uncompressedOffset: number
  readonly uncompressedSize: number
  readonly isCompressed: boolean
  /** crc32c of the uncompressed data; kept by V2 only. 0 cannot be recorded and counts as unknown. */
  readonly crc32?: number
}

/** A chunk inside a batch. */
export interface BatchMember {
  /** Where the batch starts in the blob. */
  readonly compressedOffset: number
  readonly uncompressedOffset: number
  readonly uncompressedSize: number
  /** In the decompressed batch. */
  readonly batchOffset: number
}

/** Where the header says that the chunk information lies. */
export interface ChunkInfoPlace {
  /** Feature word of the blob table. */
  readonly features: number
  /** Number of the compressor of the chunk information. */
  readonly ciCompressor: number
  readonly ciOffset: number
  readonly ciCompressedSize: number
}

/** LIMIT: sizes of V1 and uncompressed sizes have 24 bits and a bias of one; V2's compressed size has 24 bits without one. */
const MAX_SIZE = 2 ** 24
/** How many chunks the first allocation holds. */
const FIRST_CAPACITY = 1024

/** Gathers chunk information in blob order and encodes it, V1 or V2, with batch contexts. */
export class ChunkInfoBuilder {
  readonly isV2: boolean
  readonly #chunkSize: number
  readonly #batches: { compressedSize: number; uncompressedSize: number }[] = []
  #bytes: Uint8Array
  #count = 0

  constructor({ isV2 }: { isV2: boolean }) {
    this.isV2 = isV2
    this.#chunkSize = isV2 ? chunkInfoV2.size : chunkInfoV1.size
    this.#bytes = new Uint8Array(FIRST_CAPACITY * this.#chunkSize)
  }

  /** Chunks so far: the index of the next one. */
  get count(): number {
    return this.#count
  }

  /** Index of the batch that members added now belong to. */
  get batchIndex(): number {
    return this.#batches.length
  }

  /** Adds a chunk and returns its index. FORMAT_OUT_OF_RANGE for what the format cannot express. */
  add(chunk: StoredChunk): number {
    const { compressedOffset, compressedSize, uncompressedOffset, uncompressedSize, isCompressed, crc32 = 0 } = chunk
    if (uncompressedSize < 1 || uncompressedSize > MAX_SIZE || compressedSize < 1 || compressedSize > MAX_SIZE || (!isCompressed && compressedSize !== uncompressedSize)) {
      throw new CodedError('FORMAT_OUT_OF_RANGE', `a chunk of ${uncompressedSize} bytes, stored in ${compressedSize}`, { compressedSize, uncompressedSize, isCompressed })
    }
    if (!this.isV2) {
      // V1 knows a compressed chunk by its sizes: one that did not shrink must be stored as it is
      if (isCompressed && compressedSize === uncompressedSize) throw new CodedError('FORMAT_OUT_OF_RANGE', 'a compressed chunk of unchanged size', { compressedSize })
      return this.#append((bytes, at) => chunkInfoV1.encode({
        uncompressed: { lowBits: 0, offset: uncompressedOffset, ...splitSize(uncompressedSize) },
        compressed: { offset: compressedOffset, ...splitSize(compressedSize) },
      }, bytes, at))
    }
    const flags = (isCompressed ? CHUNK_INFO_FLAG.compressed : 0) | (crc32 === 0 ? 0 : CHUNK_INFO_FLAG.hasCrc32)
    return this.#append((bytes, at) => chunkInfoV2.encode({
      uncompressed: { offset: uncompressedOffset, size: uncompressedSize, flags }, compressed: { offset: compressedOffset, size: compressedSize }, dataLow: crc32, dataHigh: 0,
    }, bytes, at))
  }

  /** Adds a member of the open batch and returns its index; V2 only. */
  addMember({ compressedOffset, uncompressedOffset, uncompressedSize, batchOffset }: BatchMember): number {
    if (!this.isV2) throw new CodedError('FORMAT_OUT_OF_RANGE', 'V1 chunk information has no batches')
    return this.#append((bytes, at) => chunkInfoV2.encode({
      uncompressed: { offset: uncompressedOffset, size: uncompressedSize, flags: CHUNK_INFO_FLAG.compressed | CHUNK_INFO_FLAG.batch },
      compressed: { offset: compressedOffset, size: 0 }, dataLow: batchOffset, dataHigh: this.#batches.length,
    }, bytes, at))
  }

  /** Closes the open batch. Equal sizes say that it is stored as it is. */
  closeBatch(compressedSize: number, uncompressedSize: number): void {
    this.#batches.push({ compressedSize, uncompressedSize })
  }

  /** The uncompressed chunk information: chunks, then contexts of the batches. */
  encode(): Uint8Array {
    const chunksSize = this.#count * this.#chunkSize
    const bytes = new Uint8Array(chunksSize + this.#batches.length * batchContext.size)
    bytes.set(this.#bytes.subarray(0, chunksSize))
    this.#batches.forEach((batch, i) => { batchContext.encode(batch, bytes, chunksSize + i * batchContext.size) })
    return bytes
  }

  /** The 4096-byte header that follows the chunk information. */
  header({ features, ciCompressor, ciOffset, ciCompressedSize }: ChunkInfoPlace): Uint8Array {
    const chunksSize = this.#count * this.#chunkSize
    const contextSize = this.#batches.length * batchContext.size
    return blobMetaHeader.encode({
      magic: BLOB_META_MAGIC, magic2: BLOB_META_MAGIC, features, ciCompressor, ciEntries: this.#count, ciOffset, ciCompressedSize,
      ciUncompressedSize: chunksSize + contextSize,
      contextOffset: features & BLOB_FEATURE.batch ? chunksSize : 0, contextSize, contextCount: this.#batches.length,
    })
  }

  #append(encode: (bytes: Uint8Array, at: number) => void): number {
    const at = this.#count * this.#chunkSize
    if (at === this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2)
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    encode(this.#bytes, at)
    return this.#count++
  }
}

function splitSize(size: number): { sizeHigh: number; sizeLow: number } {
  return { sizeHigh: Math.floor((size - 1) / CHUNK_INFO_V1_SIZE_LOW), sizeLow: (size - 1) % CHUNK_INFO_V1_SIZE_LOW }
}
