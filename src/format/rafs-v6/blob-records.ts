// Device slots and blob table of a bootstrap, read and judged: one record per data blob.
// SPEC: spec-rafs.md A.4, A.5, C.1, C.2; rules as in nydus rafs/src/metadata/layout/v6.rs (RafsV6Device::validate, RafsV6Blob::validate).

import { byteString } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { chunkInfoV1, chunkInfoV2 } from '../blob/chunk-info.ts'
import { deviceSlot, type DeviceSlot } from '../erofs/super-block.ts'
import { BLOB_FEATURE, BLOB_FEATURES_FORBIDDEN, blobEntry, COMPRESSORS, DIGESTERS, type BlobEntry, type CompressorName, type DigesterName } from './blob-table.ts'
import { EROFS_DEVTABLE_OFFSET } from './super-block-ext.ts'
import type { SuperBlocks } from './super-blocks.ts'

/** SPEC: nydus rafs/src/metadata/layout/v6.rs BLOB_MAX_SIZE_COMPRESSED and _UNCOMPRESSED; storage/src/lib.rs RAFS_MAX_CHUNKS_PER_BLOB. */
export const BLOB_MAX_SIZE_COMPRESSED = 2 ** 40
export const BLOB_MAX_SIZE_UNCOMPRESSED = 2 ** 44
export const MAX_CHUNKS_PER_BLOB = 2 ** 24

/** A blob id in a bootstrap that lies inside the blob it names: the real one is known only to whoever knows the file's name. */
export const UNKNOWN_BLOB_ID = 'x'.repeat(64)
/** A GNU tar header follows the chunk data of blobs with HAS_TAR_HEADER. */
const TAR_HEADER_SIZE = 512

/** One data blob of an image. */
export interface BlobRecord {
  readonly index: number
  /** The recorded id, or the name given to `open` where the record says 64 x `x`. */
  readonly blobId: string
  readonly entry: BlobEntry
  /** Bytes of chunk data at the start of the blob; everything that a chunk refers to lies below. */
  readonly dataSize: number
  readonly compressor: CompressorName
  readonly digester: DigesterName
  /** Compressor of the chunk information. */
  readonly ciCompressor: CompressorName
  readonly isV2: boolean
  readonly isBatch: boolean
  readonly isInlinedMeta: boolean
  readonly hasToc: boolean
  /** The blob has an array of chunk digests. */
  readonly hasInlinedDigests: boolean
  /** Made by `chunkdict generate`: a list of chunks of other images, whose counts need not match. */
  readonly isChunkDictionary: boolean
}

/** The blob records of a bootstrap. FORMAT_INVALID, FORMAT_OUT_OF_RANGE, or FORMAT_UNSUPPORTED (encrypted, referenced and external blobs). */
export function readBlobRecords(bytes: Uint8Array, { ext }: SuperBlocks, blobIdFromName: string | undefined): BlobRecord[] {
  const seen = new Set<string>()
  return Array.from({ length: ext.blobTableSize / blobEntry.size }, (_, index) => {
    const entry = blobEntry.decode(bytes, ext.blobTableOffset + index * blobEntry.size)
    validateBlobEntry(entry, index, ext.chunkSize)
    if (seen.has(entry.blobId)) throw new CodedError('FORMAT_INVALID', `blob ${index} repeats the id of another`, { index, blobId: entry.blobId })
    seen.add(entry.blobId)
    return blobRecord(entry, blobIdFromName)
  })
}

/** The record of a valid entry. */
function blobRecord(entry: BlobEntry, blobIdFromName: string | undefined): BlobRecord {
  const has = (bit: number) => (entry.features & bit) !== 0
  return {
    index: entry.blobIndex,
    blobId: entry.blobId === UNKNOWN_BLOB_ID && blobIdFromName !== undefined ? blobIdFromName : entry.blobId,
    entry,
    dataSize: dataSizeOf(entry),
    compressor: COMPRESSORS[entry.compressor]!,
    digester: DIGESTERS[entry.digester]!,
    ciCompressor: COMPRESSORS[entry.ciCompressor]!,
    isV2: has(BLOB_FEATURE.chunkInfoV2),
    isBatch: has(BLOB_FEATURE.batch),
    isInlinedMeta: has(BLOB_FEATURE.inlinedFsMeta),
    hasToc: has(BLOB_FEATURE.hasToc),
    hasInlinedDigests: has(BLOB_FEATURE.inlinedChunkDigest),
    isChunkDictionary: has(BLOB_FEATURE.chunkDictGenerated),
  }
}

/** One rule a line; the order decides which fault is named first. */
export function validateBlobEntry(entry: BlobEntry, index: number, chunkSize: number): void {
  const { features } = entry
  const has = (bit: number) => (features & bit) !== 0
  const check = (holds: boolean, rule: string) => {
    if (!holds) throw new CodedError('FORMAT_INVALID', `blob ${index}: ${rule}`, { index, features, blobId: entry.blobId })
  }
  check((features & BLOB_FEATURES_FORBIDDEN) === 0, `features 0x${features.toString(16)} have bits that must be clear`)
  refuseUnsupported(entry, index)
  // it becomes a file name in backends and caches
  check(entry.blobId.length > 0 && !entry.blobId.includes('/') && entry.blobId !== '.' && entry.blobId !== '..', 'its id cannot be a file name')
  check(entry.blobIndex === index, `says it is blob ${entry.blobIndex}`)
  check(entry.chunkSize === chunkSize, `chunk size ${entry.chunkSize} differs from the superblock's ${chunkSize}`)
  check(entry.chunkCount <= MAX_CHUNKS_PER_BLOB, `${entry.chunkCount} chunks are too many`)
  check(entry.compressor < COMPRESSORS.length && entry.ciCompressor < COMPRESSORS.length, 'names a compressor that does not exist')
  check(entry.digester < DIGESTERS.length, 'names a digest algorithm that does not exist')
  check(entry.uncompressedSize <= BLOB_MAX_SIZE_UNCOMPRESSED && entry.compressedSize <= BLOB_MAX_SIZE_COMPRESSED, 'is larger than a blob can be')
  check(has(BLOB_FEATURE.aligned), 'chunks are not aligned to blocks')
  check(entry.ciCompressedSize <= entry.ciUncompressedSize, 'chunk information grows when it is compressed')
  check(entry.ciOffset + entry.ciCompressedSize <= BLOB_MAX_SIZE_COMPRESSED, 'chunk information lies behind the largest possible blob')
  check(has(BLOB_FEATURE.chunkInfoV2) || !has(BLOB_FEATURE.batch), 'has batches without V2 chunk information')
  const need = entry.chunkCount * (has(BLOB_FEATURE.chunkInfoV2) ? chunkInfoV2.size : chunkInfoV1.size)
  if (has(BLOB_FEATURE.batch)) check(entry.ciUncompressedSize >= need, `${entry.chunkCount} chunks do not fit ${entry.ciUncompressedSize} bytes of chunk information`)
  // COMPAT: the counts of a generated dictionary need not match (nydus rafs/src/metadata/layout/v6.rs RafsV6Blob::validate)
  else if (!has(BLOB_FEATURE.chunkDictGenerated)) check(entry.ciUncompressedSize === need, `${entry.ciUncompressedSize} bytes of chunk information for ${entry.chunkCount} chunks`)
  check(dataSizeOf(entry) >= 0, 'chunk information overlaps the first tar header')
}

function refuseUnsupported(entry: BlobEntry, index: number): void {
  const refuse = (what: string): never => {
    throw new CodedError('FORMAT_UNSUPPORTED', `blob ${index}: ${what} are read from a later version on`, { index, features: entry.features, cipher: entry.cipher })
  }
  if (entry.cipher !== 0 || entry.features & BLOB_FEATURE.encrypted) refuse('encrypted images')
  if (entry.features & BLOB_FEATURE.zran) refuse('zran images (an index over gzip layers)')
  if (entry.features & BLOB_FEATURE.separate) refuse('images that refer to the data of an OCI layer')
  if (entry.features & BLOB_FEATURE.tarfs) refuse('tarfs images')
  if (entry.features & BLOB_FEATURE.external) refuse('external blobs')
}

/** COMPAT: nydus storage/src/device.rs BlobInfo::compressed_data_size. */
function dataSizeOf(entry: BlobEntry): number {
  const end = entry.features & BLOB_FEATURE.capTarToc && entry.ciCompressedSize > 0 ? entry.ciOffset : entry.compressedSize
  return entry.features & BLOB_FEATURE.capTarToc && entry.features & BLOB_FEATURE.hasTarHeader ? end - TAR_HEADER_SIZE : end
}

/** The device slots, in blob order. FORMAT_INVALID for an empty device or an id that occurs twice. */
export function readDeviceSlots(bytes: Uint8Array, count: number): DeviceSlot[] {
  const seen = new Set<string>()
  return Array.from({ length: count }, (_, index) => {
    const slot = deviceSlot.decode(bytes, EROFS_DEVTABLE_OFFSET + index * deviceSlot.size)
    const tag = byteString(slot.tag)
    if (slot.blocks === 0) throw new CodedError('FORMAT_INVALID', `device ${index + 1} has no blocks`, { index })
    if (seen.has(tag)) throw new CodedError('FORMAT_INVALID', `device ${index + 1} repeats the id of another`, { index })
    seen.add(tag)
    return slot
  })
}
