// Chunk codecs and digests with results as values: what does not shrink is undefined, what does not decode is an error.
// For many chunks at once, off the main thread, use the bulk functions of addon.ts.

import { CodedError } from '../core/errors.ts'
import type { CompressorNumber, DigesterNumber } from './addon.ts'
import { native } from './load.ts'

/** The on-disk compression enumeration. */
export const COMPRESSOR = { none: 0, lz4: 1, gzip: 2, zstd: 3 } as const
/** The on-disk digest enumeration. */
export const DIGESTER = { blake3: 0, sha256: 1 } as const

export const DIGEST_SIZE = 32

export interface CompressOptions {
  readonly compressor: CompressorNumber
  /** zstd only. Default 3, the library's own. */
  readonly level?: number
}

/** `bytes` compressed into a new buffer, or undefined when that is not strictly smaller (or the compressor is `none`): then it is stored raw. */
export function compress(bytes: Uint8Array, { compressor, level = 3 }: CompressOptions): Uint8Array | undefined {
  if (bytes.length < 2 || compressor === COMPRESSOR.none) return undefined
  const target = Buffer.allocUnsafe(bytes.length - 1)
  const size = compressInto(bytes, target, compressor, level)
  return size === 0 ? undefined : target.subarray(0, size)
}

function compressInto(bytes: Uint8Array, target: Uint8Array, compressor: CompressorNumber, level: number): number {
  switch (compressor) {
    case COMPRESSOR.lz4: return native().lz4Compress(bytes, target)
    case COMPRESSOR.zstd: return native().zstdCompress(bytes, target, level)
    default: throw new CodedError('FORMAT_UNSUPPORTED', `chunks are not written with compressor ${compressor}`, { compressor })
  }
}

/** `bytes` decoded into exactly `size` bytes of a new buffer. @throws CodedError CODEC_CORRUPT when it gives more, less or nothing. */
export function decompress(bytes: Uint8Array, { compressor, size }: { readonly compressor: CompressorNumber; readonly size: number }): Uint8Array {
  const target = Buffer.allocUnsafe(size)
  const got = decompressInto(bytes, target, compressor)
  if (got !== size) {
    throw new CodedError('CODEC_CORRUPT', `${bytes.length} bytes of compressor ${compressor} do not decode to ${size}`, { compressor, size, got })
  }
  return target
}

/** The same into a buffer of the caller's: bytes written, or -1 when `bytes` is corrupt or does not fit. */
export function decompressInto(bytes: Uint8Array, target: Uint8Array, compressor: CompressorNumber): number {
  switch (compressor) {
    case COMPRESSOR.none:
      if (bytes.length > target.length) return -1
      target.set(bytes)
      return bytes.length
    case COMPRESSOR.lz4: return native().lz4Decompress(bytes, target)
    case COMPRESSOR.gzip: return native().gzipDecompress(bytes, target)
    case COMPRESSOR.zstd: return native().zstdDecompress(bytes, target)
  }
}

/** 32-byte digest of `bytes`. */
export function digestOf(bytes: Uint8Array, digester: DigesterNumber): Buffer {
  const digest = Buffer.allocUnsafe(DIGEST_SIZE)
  if (digester === DIGESTER.blake3) native().blake3(bytes, digest, 0)
  else native().sha256(bytes, digest, 0)
  return digest
}

/** CRC-32C (Castagnoli), unsigned. */
export function crc32c(bytes: Uint8Array): number {
  return native().crc32c(bytes)
}
