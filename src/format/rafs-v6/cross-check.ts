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
  const rows = table.rowsOf(blobIndex)
  for (let at = 0; at < rows.length; at++) {
    const row = rows[at]!
    const i = table.index(row)
    const difference = differenceOf(table, row, chunks, i)
    if (difference !== undefined) throw new CodedError('FORMAT_INVALID', `chunk ${i} of blob ${blobId}: the image and the blob differ in its ${difference}`, { blobId, chunk: i })
  }
}

function differenceOf(table: BootstrapView['chunkTable'], row: number, chunks: ChunkInfoArray, i: number): string | undefined {
  if (i >= chunks.count) return 'existence'
  if (table.uncompressedOffset(row) !== chunks.uncompressedOffset(i)) return 'uncompressed offset'
  const size = chunks.uncompressedSize(i)
  if (table.uncompressedSize(row) !== size) return 'uncompressed size'
  // COMPAT: rows of batch members have neither place nor size (nydus builder/src/core/node.rs)
  if (chunks.isBatch(i)) return undefined
  if (table.compressedOffset(row) !== chunks.compressedOffset(i)) return 'compressed offset'
  if (table.compressedSize(row) !== chunks.compressedSize(i)) return 'compressed size'
  return ((table.flags(row) & CHUNK_FLAG.compressed) !== 0) === chunks.isCompressed(i) ? undefined : 'compression'
}
