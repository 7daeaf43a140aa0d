// Names of the files that a blob has in a cache directory; the snapshotter's garbage collection knows them.
// SPEC: spec-surface.md B.4.

import path from 'node:path'

export interface CacheNames {
  /** Decompressed chunks at their offsets: the EROFS device. */
  readonly data: string
  readonly chunkMap: string
  /** Chunk information, decompressed, with its header. */
  readonly meta: string
}

/** Paths of blob `blobId`, an id that a bootstrap view accepted, in `directory`. */
export function cacheNames(directory: string, blobId: string): CacheNames {
  const data = path.join(directory, `${blobId}.blob.data`)
  return { data, chunkMap: `${data}.chunk_map`, meta: path.join(directory, `${blobId}.blob.meta`) }
}
