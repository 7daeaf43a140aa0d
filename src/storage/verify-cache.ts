// Looks at every chunk that a cached blob is said to have, without a backend: what `nydusctl cache verify` does.

import { CodedError, isCoded } from '../core/errors.ts'
import type { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import type { BlobReader } from './backend/backend.ts'
import { loadChunkInfo, loadInlinedDigests } from './blob-meta.ts'
import { BlobCache, type ChunkPlace } from './cache/blob-cache.ts'
import { confirm, CONFIRM_BYTES } from './cache/confirm.ts'
import { cacheNames } from './cache/layout.ts'
import { Evidence } from './fetch/evidence.ts'

export interface VerifyCachedBlobOptions {
  /** Of an image that has the blob. */
  readonly view: BootstrapView
  readonly blobIndex: number
  readonly directory: string
  /** Takes damaged chunks out of the map, so that they are fetched again, by upstream too. */
  readonly repair: boolean
}

/** What was found: chunks that are right, numbers of those that are not, and chunks that the image has nothing to compare with. */
export interface CachedBlobVerdict { readonly intact: number; readonly damaged: readonly number[]; readonly unknown: number }

const UNREACHABLE: BlobReader = { size: () => Promise.reject(offline()), read: () => Promise.reject(offline()) }

/** Of a blob that has a cache file. STORAGE_CACHE_IO when the files cannot be read; STORAGE_UNREACHABLE when chunk information is missing. FORMAT_*. */
export async function verifyCachedBlob({ view, blobIndex, directory, repair }: VerifyCachedBlobOptions, { signal }: { readonly signal: AbortSignal }): Promise<CachedBlobVerdict> {
  const { blobId, entry } = view.blobs[blobIndex]!
  const cache = BlobCache.open({ directory, blobId, chunkCount: entry.chunkCount, size: entry.uncompressedSize })
  if (cache === undefined) throw new CodedError('STORAGE_CACHE_IO', `the files of blob ${blobId} in ${directory} cannot be used`, { blobId, directory })
  try {
    const { layout } = await loadChunkInfo({ view, blobIndex, reader: UNREACHABLE, cacheFile: cacheNames(directory, blobId).meta, inBackground: () => {} }, { signal })
    const evidence = new Evidence(view, blobIndex, layout)
    const digests = await loadInlinedDigests(view.blobs[blobIndex]!, UNREACHABLE, { files: cacheNames(directory, blobId), signal }).catch(onlyCoded)
    if (digests !== undefined) evidence.addInlined(digests)
    const durable = Array.from({ length: layout.count }, (_, index) => ({ index, offset: layout.uncompressedOffset(index), size: layout.uncompressedSize(index) })).filter(({ index }) => cache.isDurable(index))
    const known = durable.filter(({ index }) => evidence.covers(index))
    const damaged: number[] = []
    for (const places of portions(known)) {
      signal.throwIfAborted()
      damaged.push(...(await confirm(cache, places, evidence)).wrong)
    }
    if (repair) for (const index of damaged) cache.drop(index)
    return { intact: known.length - damaged.length, damaged, unknown: durable.length - known.length }
  } finally {
    await cache.close()
  }
}

/** Lists of places that are looked at together. */
function* portions(places: readonly ChunkPlace[]): Generator<ChunkPlace[]> {
  let portion: ChunkPlace[] = []
  let bytes = 0
  for (const place of places) {
    portion.push(place)
    bytes += place.size
    if (bytes < CONFIRM_BYTES) continue
    yield portion
    portion = []
    bytes = 0
  }
  if (portion.length > 0) yield portion
}

function offline(): CodedError {
  return new CodedError('STORAGE_UNREACHABLE', 'the cache has no chunk information of the blob')
}

/** Digests that are not in the cache are done without. */
function onlyCoded(error: unknown): undefined {
  if (!isCoded(error)) throw error
}
