// The chunk table: digest and position of every chunk that the image refers to.
// SPEC: nydus rafs/src/metadata/layout/v5.rs RafsV5ChunkInfo; spec-rafs.md A.6.

import { bytes, size64, struct, u32, type Decoded } from '../../core/struct.ts'

export type ChunkEntry = Decoded<typeof chunkEntry>
export const chunkEntry = struct('ChunkEntry', 80, [
  [ 0, 'digest',             bytes(32), 'block_id: of the uncompressed data'],
  [32, 'blobIndex',          u32,    'blob_index'],
  [36, 'flags',              u32,    'flags: see CHUNK_FLAG'],
  [40, 'compressedSize',     u32,    'compressed_size'],
  [44, 'uncompressedSize',   u32,    'uncompressed_size'],
  [48, 'compressedOffset',   size64, 'compressed_offset: in the blob'],
  [56, 'uncompressedOffset', size64, 'uncompressed_offset: in the decompressed blob (cache file, EROFS device)'],
  [64, 'fileOffset',         size64, 'file_offset: in the last file that uses it'],
  [72, 'index',              u32,    'index: of the chunk in its blob'],
  [76, 'crc32',              u32,    'crc32c of the uncompressed data'],
])

/** SPEC: nydus storage/src/device.rs BlobChunkFlags. */
export const CHUNK_FLAG = { compressed: 1, hole: 2, encrypted: 4, batch: 8, hasCrc32: 0x10 } as const
