// Finding a blob's regions from its end. Pure: the caller reads the last bytes, is told when more are needed, and decompresses what it wants.
// SPEC: spec-rafs.md C.1, C.3, C.8; as nydus storage/src/meta/toc.rs.
//
//   ... | chunk information | its header |  tar header  | digests | tar header | bootstrap | tar header | TOC entries | tar header |
//                           (the end of a plain blob)                          (the end without a TOC)              (the end with one)

import { CodedError } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import { GiB, KiB } from '../../core/units.ts'
import { COMPRESSORS, type CompressorName } from '../rafs-v6/blob-table.ts'
import { BLOB_META_MAGIC, blobMetaHeader, type BlobMetaHeader } from './chunk-info.ts'
import { readTarHeader } from './tar-header.ts'
import { gnuTarHeader, readTocEntries, TOC_FLAG, TOC_NAME, tocEntry, type TocEntry } from './toc.ts'

/** Read this much from the end first: it holds every TOC and every header. */
export const TAIL_SIZE = 4 * KiB
/** LIMIT: a bootstrap of four million files is about this long; callers allocate what a TOC claims, so the claim is bounded. */
export const MAX_BOOTSTRAP_SIZE = GiB
/** LIMIT: 2^24 chunks with 24 bytes each, and as many contexts with 40. */
const MAX_META_SIZE = GiB

/** Where a region lies in the blob, and how to get its content. */
export interface Region {
  readonly offset: number
  readonly compressedSize: number
  readonly compressor: CompressorName
  readonly uncompressedSize: number
  /** sha256 of the content; a blob without TOC has none. */
  readonly digest: Uint8Array | undefined
}

/** What the end of a blob tells. */
export interface BlobTail {
  /** The TOC with its tar header: what `blob_toc_digest` is the sha256 of. */
  readonly toc: { readonly offset: number; readonly size: number; readonly entries: readonly TocEntry[] } | undefined
  /** The inlined bootstrap. */
  readonly boot: Region | undefined
  /** Chunk information. Without a TOC known only for plain blobs, others have it in their bootstrap. */
  readonly meta: Region | undefined
  readonly metaHeader: Region | undefined
  /** Chunk digests, 32 bytes each: the region that is left out when the blob id is computed. */
  readonly digest: Region | undefined
}

/** The tail, or how many bytes from the end are needed to tell. */
export type TailResult = { readonly tail: BlobTail; readonly need?: never } | { readonly need: number; readonly tail?: never }

const NOTHING: BlobTail = { toc: undefined, boot: undefined, meta: undefined, metaHeader: undefined, digest: undefined }

/** Judges `end`, the last bytes of a blob of `blobSize` bytes. FORMAT_BAD_MAGIC when it is no blob of RAFS v6, FORMAT_INVALID when it is a damaged one. */
export function readBlobTail(end: Uint8Array, blobSize: number): TailResult {
  const probe = Math.min(TAIL_SIZE, blobSize)
  if (end.length < probe) return { need: probe }
  const header = readTarHeader(end, end.length - gnuTarHeader.size)
  if (header?.name === TOC_NAME.toc) return readToc(end, blobSize, header.size)
  if (header?.name === TOC_NAME.boot) return { tail: { ...NOTHING, boot: bootWithoutToc(blobSize, header.size) } }
  if (isMetaHeader(end)) return { tail: tailOfPlainBlob(blobMetaHeader.decode(end, end.length - blobMetaHeader.size), blobSize) }
  throw new CodedError('FORMAT_BAD_MAGIC', 'the end of the blob is neither a table of contents, nor a bootstrap, nor chunk information', { blobSize })
}

function readToc(end: Uint8Array, blobSize: number, entriesSize: number): TailResult {
  const size = entriesSize + gnuTarHeader.size
  if (entriesSize % tocEntry.size !== 0 || size > TAIL_SIZE || size > blobSize) {
    throw new CodedError('FORMAT_INVALID', `a table of contents of ${entriesSize} bytes`, { entriesSize, blobSize })
  }
  if (end.length < size) return { need: size }
  const entries = readTocEntries(end.subarray(end.length - size))
  const offset = blobSize - size
  const region = (name: string, limit: number) => {
    const entry = entries.find((candidate) => candidate.name === name)
    return entry && regionOf(entry, offset, limit)
  }
  return {
    tail: {
      toc: { offset, size, entries },
      boot: region(TOC_NAME.boot, MAX_BOOTSTRAP_SIZE),
      meta: region(TOC_NAME.meta, MAX_META_SIZE),
      metaHeader: region(TOC_NAME.metaHeader, blobMetaHeader.size),
      digest: region(TOC_NAME.digest, MAX_META_SIZE),
    },
  }
}

function regionOf({ name, flags, digest, compressedOffset: offset, compressedSize, uncompressedSize }: TocEntry, end: number, limit: number): Region {
  const compressor = flags === TOC_FLAG.none ? 'none' : flags === TOC_FLAG.zstd ? 'zstd' : flags === TOC_FLAG.lz4 ? 'lz4_block' : undefined
  const check = (holds: boolean, rule: string) => {
    if (!holds) throw new CodedError('FORMAT_INVALID', `region ${name} of a blob ${rule}`, { name, flags, offset, compressedSize, uncompressedSize })
  }
  if (compressor === undefined) throw new CodedError('FORMAT_INVALID', `region ${name} of a blob has unknown flags ${flags}`, { name, flags })
  check(compressor !== 'none' || compressedSize === uncompressedSize, 'is not compressed, but has two sizes')
  check(offset + compressedSize <= end, 'runs past the table of contents')
  check(uncompressedSize <= limit, 'is larger than it can be')
  return { offset, compressedSize, compressor, uncompressedSize, digest }
}

function bootWithoutToc(blobSize: number, size: number): Region {
  const offset = blobSize - gnuTarHeader.size - size
  if (offset < 0 || size > MAX_BOOTSTRAP_SIZE) throw new CodedError('FORMAT_INVALID', `a bootstrap of ${size} bytes in a blob of ${blobSize}`, { size, blobSize })
  return { offset, compressedSize: size, compressor: 'none', uncompressedSize: size, digest: undefined }
}

function isMetaHeader(end: Uint8Array): boolean {
  const view = dataViewOf(end)
  const { magic, magic2 } = blobMetaHeader.offsetOf
  const at = end.length - blobMetaHeader.size
  return at >= 0 && view.getUint32(at + magic, true) === BLOB_META_MAGIC && view.getUint32(at + magic2, true) === BLOB_META_MAGIC
}

function tailOfPlainBlob(header: BlobMetaHeader, blobSize: number): BlobTail {
  const metaHeader: Region = { offset: blobSize - blobMetaHeader.size, compressedSize: blobMetaHeader.size, compressor: 'none', uncompressedSize: blobMetaHeader.size, digest: undefined }
  const { ciOffset: offset, ciCompressedSize: compressedSize, ciUncompressedSize: uncompressedSize, ciCompressor } = header
  const compressor = COMPRESSORS[ciCompressor]
  if (compressor === undefined || offset + compressedSize !== metaHeader.offset || uncompressedSize > MAX_META_SIZE) {
    throw new CodedError('FORMAT_INVALID', 'chunk information is not where or what its header says', { ciCompressor, offset, compressedSize, uncompressedSize, blobSize })
  }
  return { ...NOTHING, metaHeader, meta: { offset, compressedSize, compressor, uncompressedSize, digest: undefined } }
}
