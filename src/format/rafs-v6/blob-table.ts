// The blob table: one 256-byte record for each data blob of an image, and the feature bits that also stand in blob headers.
// SPEC: nydus rafs/src/metadata/layout/v6.rs RafsV6Blob, storage/src/device.rs BlobFeatures; spec-rafs.md A.5, C.2.

import { asciiz, bytes, reserved, size64, struct, u32, type Decoded } from '../../core/struct.ts'

export type BlobEntry = Decoded<typeof blobEntry>
export const blobEntry = struct('BlobEntry', 256, [
  [  0, 'blobId',             asciiz(64), 'blob_id: normally 64 hex digits'],
  [ 64, 'blobIndex',          u32,    'blob_index: equals the position in the table'],
  [ 68, 'chunkSize',          u32,    'chunk_size: equals the superblock\'s'],
  [ 72, 'chunkCount',         u32,    'chunk_count'],
  [ 76, 'compressor',         u32,    'compression_algo: 0 none, 1 lz4_block, 2 gzip, 3 zstd'],
  [ 80, 'digester',           u32,    'digest_algo: 0 blake3, 1 sha256'],
  [ 84, 'features',           u32,    'features: see BLOB_FEATURE'],
  [ 88, 'compressedSize',     size64, 'compressed_size: bytes of the blob file'],
  [ 96, 'uncompressedSize',   size64, 'uncompressed_size: sum of the chunks, each rounded up to 4096'],
  [104, 'tocSize',            u32,    'blob_toc_size'],
  [108, 'ciCompressor',       u32,    'ci_compressor: of the chunk information'],
  [112, 'ciOffset',           size64, 'ci_offset: in the blob file'],
  [120, 'ciCompressedSize',   size64, 'ci_compressed_size: at most ci_uncompressed_size'],
  [128, 'ciUncompressedSize', size64, 'ci_uncompressed_size'],
  [136, 'tocDigest',          bytes(32), 'blob_toc_digest: sha256 of TOC entries and their tar header'],
  [168, 'metaDigest',         bytes(32), 'blob_meta_digest: sha256 of a separate meta blob, or the cipher key'],
  [200, 'metaSize',           bytes(8), 'blob_meta_size, or the first half of the cipher IV'],
  [208, 'cipherIv',           bytes(8), 'cipher_iv: second half'],
  [216, 'cipher',             u32,    'cipher_algo: 0 none, 1 aes-128-xts'],
  [220, '_reserved',          reserved(36), 'reserved'],
])

/** SPEC: nydus storage/src/device.rs BlobFeatures. */
export const BLOB_FEATURE = {
  aligned: 0x1,
  inlinedFsMeta: 0x2,
  chunkInfoV2: 0x4,
  zran: 0x8,
  separate: 0x10,
  inlinedChunkDigest: 0x20,
  tarfs: 0x40,
  batch: 0x80,
  encrypted: 0x100,
  chunkDictGenerated: 0x200,
  separatedWithPrefetchFiles: 0x400,
  external: 0x800,
  hasTarHeader: 0x1000_0000,
  hasToc: 0x2000_0000,
  capTarToc: 0x4000_0000,
} as const

/** Bits that must be 0: 12..15 and 31. */
export const BLOB_FEATURES_FORBIDDEN = 0x8000_f000

/** COMPAT: chunk addresses keep the blob index + 1 in one byte (nydus layout/v6.rs). */
export const MAX_BLOBS = 254

/** Names of the enumerations as flags, JSON and `check` print them. Index = number on disk. */
export const COMPRESSORS = ['none', 'lz4_block', 'gzip', 'zstd'] as const
export type CompressorName = (typeof COMPRESSORS)[number]
export const DIGESTERS = ['blake3', 'sha256'] as const
export type DigesterName = (typeof DIGESTERS)[number]
