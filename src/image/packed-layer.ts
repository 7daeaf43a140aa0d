// What is inside a packed layer, read from its end: the bootstrap for the merge, the chunk information for the bootstrap layer.

import { createHash } from 'node:crypto'
import { CodedError } from '../core/errors.ts'
import { roundUp } from '../core/units.ts'
import { readBlobTail, type BlobTail, type Region } from '../format/blob/blob-tail.ts'
import { decompress, COMPRESSOR } from '../native/codecs.ts'
import type { CompressorName } from '../format/rafs-v6/blob-table.ts'

/** Bytes of a packed layer: exactly `length` from `offset`. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>

export interface PackedLayer {
  readonly bootstrap: Uint8Array
  /** Decompressed chunk information, padded to 4 KiB, and its header: what readers keep as `<blob id>.blob.meta`. Undefined without data. */
  readonly chunkInfo: Uint8Array | undefined
}

/** COMPAT: nydusd maps the file, so the header begins on a page. */
const META_ALIGNMENT = 4096

const NUMBER = { none: COMPRESSOR.none, lz4_block: COMPRESSOR.lz4, gzip: COMPRESSOR.gzip, zstd: COMPRESSOR.zstd } as const satisfies Record<CompressorName, number>

/** Reads bootstrap and chunk information of the packed layer of `size` bytes. FORMAT_*, CODEC_CORRUPT. */
export async function readPackedLayer(size: number, readAt: ReadAt): Promise<PackedLayer> {
  const tail = await readTail(size, readAt)
  if (tail.boot === undefined) throw new CodedError('FORMAT_INVALID', `a packed layer of ${size} bytes has no bootstrap in it`)
  const bootstrap = await readRegion(tail.boot, readAt)
  const meta = tail.meta === undefined ? new Uint8Array(0) : await readRegion(tail.meta, readAt)
  const header = tail.metaHeader === undefined ? new Uint8Array(0) : await readRegion(tail.metaHeader, readAt)
  const aligned = roundUp(meta.length, META_ALIGNMENT)
  if (aligned + header.length === 0) return { bootstrap, chunkInfo: undefined }
  const chunkInfo = Buffer.alloc(aligned + header.length)
  chunkInfo.set(meta)
  chunkInfo.set(header, aligned)
  return { bootstrap, chunkInfo }
}

async function readTail(size: number, readAt: ReadAt): Promise<BlobTail> {
  for (let length = 0; ; ) {
    const { tail, need } = readBlobTail(await readAt(size - length, length), size)
    if (tail !== undefined) return tail
    if (need <= length) throw new CodedError('FORMAT_INVALID', `the end of a packed layer of ${size} bytes makes no sense`)
    length = need
  }
}

async function readRegion({ offset, compressedSize, compressor, uncompressedSize, digest }: Region, readAt: ReadAt): Promise<Uint8Array> {
  const stored = await readAt(offset, compressedSize)
  const bytes = compressor === 'none' ? stored : decompress(stored, { compressor: NUMBER[compressor], size: uncompressedSize })
  if (digest !== undefined && !createHash('sha256').update(bytes).digest().equals(digest)) {
    throw new CodedError('FORMAT_DIGEST_MISMATCH', `a region at ${offset} of a packed layer does not hash to its digest in the table of contents`, { offset })
  }
  return bytes
}
