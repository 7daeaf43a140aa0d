// The RAFS extended superblock, directly after the EROFS superblock, and its flag words.
// SPEC: nydus rafs/src/metadata/layout/v6.rs RafsV6SuperBlockExt; spec-rafs.md A.3.

import { reserved, size64, struct, u32, u64, type Decoded } from '../../core/struct.ts'
import { EROFS_SUPER_OFFSET, superBlock } from '../erofs/super-block.ts'

export const RAFS_SUPER_EXT_OFFSET = EROFS_SUPER_OFFSET + superBlock.size
/** The device table follows the extended superblock. */
export const EROFS_DEVTABLE_OFFSET = RAFS_SUPER_EXT_OFFSET + 256
/** Any bootstrap is at least this long: upstream's loader reads that much before it looks. */
export const MIN_BOOTSTRAP_SIZE = 8192

export type SuperBlockExt = Decoded<typeof superBlockExt>
export const superBlockExt = struct('SuperBlockExt', 256, [
  [  0, 'flags',               u64,    's_flags'],
  [  8, 'blobTableOffset',     size64, 's_blob_table_offset: multiple of 4096'],
  [ 16, 'blobTableSize',       u32,    's_blob_table_size: bytes, multiple of 256'],
  [ 20, 'chunkSize',           u32,    's_chunk_size: bytes, power of two'],
  [ 24, 'chunkTableOffset',    size64, 's_chunk_table_offset: multiple of 4096'],
  [ 32, 'chunkTableSize',      size64, 's_chunk_table_size: bytes, multiple of 80'],
  [ 40, 'prefetchTableOffset', size64, 's_prefetch_table_offset: multiple of 8, 0 for none'],
  [ 48, 'prefetchTableSize',   u32,    's_prefetch_table_size: bytes, multiple of 4'],
  [ 52, '_padding',            reserved(4),   's_padding'],
  [ 56, '_reserved',           reserved(200), 's_reserved'],
])

/** Bits of `flags`. SPEC: nydus rafs/src/metadata/mod.rs RafsSuperFlags. */
export const RAFS_FLAG = {
  compressionNone: 0x1,
  compressionLz4: 0x2,
  hashBlake3: 0x4,
  hashSha256: 0x8,
  explicitUidGid: 0x10,
  hasXattr: 0x20,
  compressionGzip: 0x40,
  compressionZstd: 0x80,
  inlinedChunkDigest: 0x100,
  tarfsMode: 0x200,
  encryptionNone: 0x100_0000,
  encryptionAes128Xts: 0x200_0000,
} as const

/** Bits that a reader accepts: 0..9 and 24..31. Any other makes the image unloadable. */
export const RAFS_FLAGS_KNOWN = 0xff00_03ff

/** u32 nids of files and directories to prefetch, in order; 0 ends the table. */
export const prefetchEntry = struct('PrefetchEntry', 4, [[0, 'nid', u32, 'inode to prefetch']])
