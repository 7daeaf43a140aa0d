// A blob's chunks are described twice: in the image's chunk table (digests) and in the blob's chunk information (where the bytes are).
// Upstream reads by the latter without a look at the former, and so serves what it should not (spec-rafs.md A.6). Here they must agree.

import { CodedError } from '../../core/errors.ts'
import type { ChunkInfoArray } from '../blob/chunk-info-array.ts'
import type { BootstrapView } from './bootstrap-view.ts'
import { CHUNK_FLAG } from './chunk-table.ts'

/**
 * Compares every chunk table row of blob `blobIndex` with `chunks`, the blob's chunk information. Linear. FORMAT_INVALID for the first that
 * differs. Chunks without a row are fine: tables list only the chunks that an image uses, and `merge -C` keeps one row a blob.
 */
export function crossCheck(view: BootstrapView, blobIndex: number, chunks: ChunkInfoArray): void {
  const table = view.chunkTable
  const { blobId } = view.blobs[blobIndex]!
  for (const row of table.rowsOf(blobIndex)) {
    const i = table.index(row)
    const differs = (what: string) => new CodedError('FORMAT_INVALID', `chunk ${i} of blob ${blobId}: the image and the blob differ in its ${what}`, { blobId, chunk: i })
    if (i >= chunks.count) throw differs('existence')
    if (table.uncompressedOffset(row) !== chunks.uncompressedOffset(i)) throw differs('uncompressed offset')
    if (table.uncompressedSize(row) !== chunks.uncompressedSize(i)) throw differs('uncompressed size')
    // COMPAT: rows of batch members have neither place nor size (nydus builder/src/core/node.rs)
    if (chunks.isBatch(i)) continue
    if (table.compressedOffset(row) !== chunks.compressedOffset(i)) throw differs('compressed offset')
    if (table.compressedSize(row) !== chunks.compressedSize(i)) throw differs('compressed size')
    if (((table.flags(row) & CHUNK_FLAG.compressed) !== 0) !== chunks.isCompressed(i)) throw differs('compression')
  }
}
