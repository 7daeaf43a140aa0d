// Names of the files that a blob has in a cache directory; the snapshotter's garbage collection knows them.
// SPEC: spec-surface.md B.4.

import path from 'node:path'

export interface CacheNames {
  /** Decompressed chunks at their offsets: the EROFS device. */
  readonly data: string
  readonly chunkMap: string
  /** Chunk information, decompressed, with its header. */
  readonly meta: string
  /** The blob's own array of chunk digests, decompressed, and its table of contents: for blobs that have them. */
  readonly digests: string
  readonly toc: string
}

/** Paths of blob `blobId`, an id that a bootstrap view accepted, in `directory`. */
export function cacheNames(directory: string, blobId: string): CacheNames {
  const data = path.join(directory, `${blobId}.blob.data`)
  const other = (kind: string) => path.join(directory, `${blobId}.blob.${kind}`)
  return { data, chunkMap: `${data}.chunk_map`, meta: other('meta'), digests: other('digest'), toc: other('toc') }
}

/** The blob that a file of this name in a cache directory belongs to; undefined for what is none of its cache files. */
export function blobIdOf(name: string): string | undefined {
  return /^(?<blobId>[^/]+?)\.blob\.(?:data|data\.chunk_map|meta|digest|toc)$/.exec(name)?.groups?.['blobId']
}
