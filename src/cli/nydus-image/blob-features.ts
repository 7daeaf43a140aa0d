// The words that `check` prints for a blob's feature bits. COMPAT: upstream prints them in this order.

import { BLOB_FEATURE } from '../../format/rafs-v6/blob-table.ts'

const WORDS: readonly (readonly [bit: number, word: string])[] = [
  [BLOB_FEATURE.aligned, 'aligned'],
  [BLOB_FEATURE.batch, 'batch'],
  [BLOB_FEATURE.capTarToc, 'cap_toc'],
  [BLOB_FEATURE.inlinedChunkDigest, 'chunk-digest'],
  [BLOB_FEATURE.chunkInfoV2, 'chunk-v2'],
  [BLOB_FEATURE.inlinedFsMeta, 'fs-meta'],
  [BLOB_FEATURE.separate, 'separate'],
  [BLOB_FEATURE.hasTarHeader, 'tar-header'],
  [BLOB_FEATURE.hasToc, 'toc'],
  [BLOB_FEATURE.zran, 'zran'],
  [BLOB_FEATURE.encrypted, 'encrypted'],
  [BLOB_FEATURE.chunkDictGenerated, 'is-chunkdict-generated'],
]

/** Words of the bits that are set, joined by blanks. */
export function featureWords(features: number): string {
  return WORDS.filter(([bit]) => (features & bit) !== 0).map(([, word]) => word).join(' ')
}
