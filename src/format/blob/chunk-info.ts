// Chunk information at the end of a blob: where each chunk lies, and the header that closes it.
// SPEC: nydus storage/src/meta/{mod,chunk_info_v1,chunk_info_v2,batch}.rs; spec-rafs.md C.3 to C.5.

import { bits64, magic, reserved, size64, struct, u32, type Decoded } from '../../core/struct.ts'

export const BLOB_META_MAGIC = 0xb10b_b10b

export type BlobMetaHeader = Decoded<typeof blobMetaHeader>
export const blobMetaHeader = struct('BlobMetaHeader', 4096, [
  [   0, 'magic',              magic(BLOB_META_MAGIC), 's_magic'],
  [   4, 'features',           u32,    's_features: the blob table\'s word'],
  [   8, 'ciCompressor',       u32,    's_ci_compressor'],
  [  12, 'ciEntries',          u32,    's_ci_entries'],
  [  16, 'ciOffset',           size64, 's_ci_offset'],
  [  24, 'ciCompressedSize',   size64, 's_ci_compressed_size'],
  [  32, 'ciUncompressedSize', size64, 's_ci_uncompressed_size'],
  [  40, 'contextOffset',      size64, 's_ci_zran_offset: of zran or batch contexts, in the uncompressed data'],
  [  48, 'contextSize',        size64, 's_ci_zran_size'],
  [  56, 'contextCount',       u32,    's_ci_zran_count'],
  [  60, '_reserved',          reserved(4032), 'reserved'],
  [4092, 'magic2',             magic(BLOB_META_MAGIC), 's_magic2'],
])

/** The words of chunk information, apart from their structures: `reader` reads one field of a word. */
export const uncompressedWordV1 = bits64([
  [ 0,  8, 'lowBits'],
  [ 8,  4, 'sizeHigh'],
  [12, 32, 'offset', { unit: 4096 }],
  [44, 20, 'sizeLow'],
])
export const compressedWordV1 = bits64([
  [ 0, 40, 'offset'],
  [40,  4, 'sizeHigh'],
  [44, 20, 'sizeLow'],
])
export const uncompressedWordV2 = bits64([
  [ 0, 32, 'offset', { unit: 4096 }],
  [32, 24, 'size', { bias: 1 }],
  [56,  8, 'flags'],
])
export const compressedWordV2 = bits64([
  [ 0, 40, 'offset'],
  [40, 24, 'size'], // COMPAT: not biased, unlike the uncompressed size
])

/** In V1 words, size - 1 = sizeHigh * this + sizeLow. */
export const CHUNK_INFO_V1_SIZE_LOW = 1 << 20

/** V1: 16 bytes. A chunk is compressed exactly when its two sizes differ. */
export const chunkInfoV1 = struct('ChunkInfoV1', 16, [
  [0, 'uncompressed', uncompressedWordV1, 'uncomp_info: size - 1 = sizeHigh << 20 | sizeLow'],
  [8, 'compressed',   compressedWordV1, 'comp_info: size - 1 = sizeHigh << 20 | sizeLow'],
])

/** V2: 24 bytes. */
export const chunkInfoV2 = struct('ChunkInfoV2', 24, [
  [ 0, 'uncompressed', uncompressedWordV2, 'uncomp_info'],
  [ 8, 'compressed',   compressedWordV2, 'comp_info'],
  [16, 'dataLow',  u32, 'data: crc32c, or offset in the batch or zran context'],
  [20, 'dataHigh', u32, 'data: index of the batch or zran context'],
])

/** Flags of a V2 chunk. */
export const CHUNK_INFO_FLAG = { compressed: 1, zran: 2, batch: 4, encrypted: 8, hasCrc32: 0x10 } as const

export const batchContext = struct('BatchContext', 40, [
  [0, 'compressedSize',   u32, 'compressed_size: of the whole batch'],
  [4, 'uncompressedSize', u32, 'uncompressed_batch_size'],
  [8, '_reserved',        reserved(32), 'reserved'],
])
