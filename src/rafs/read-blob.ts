// Reads of a blob by the address of its decompressed bytes: what a file system that knows devices asks for, not files.

import { CodedError } from '../core/errors.ts'
import { type ChunkPlace, type ImageBlob, ReadyMap } from '../storage/index.ts'
import { BlobMap } from './blob-map.ts'

/** LIMIT: a chunk that is gone from the cache file again each time it was fetched is given up. */
const MAX_TRIES = 3

/** Structured-cloneable: what a worker needs to find ready ranges of a blob alone. Descriptors stay their owner's. */
export interface SharedBlob { readonly fd: number; readonly ready: { readonly fd: number; readonly count: number }; readonly map: SharedArrayBuffer }

/** Whether [offset, offset + length) of the blob's cache file can be read at once. */
export type IsReady = (offset: number, length: number) => boolean

/** A worker's view of a blob. */
export function openSharedBlob({ ready, map }: SharedBlob): { readonly isReady: IsReady; close(): void } {
  const blobMap = new BlobMap(map)
  const readyMap = ReadyMap.map(ready.fd, ready.count, { writable: false })
  return {
    isReady(offset, length) {
      if (!blobMap.isFilled) return false
      for (let i = blobMap.firstAt(offset); i < blobMap.count && blobMap.offset(i) < offset + length; i++) {
        if (!readyMap.has(i, blobMap.offset(i), blobMap.size(i))) return false
      }
      return true
    },
    close: () => readyMap.close(),
  }
}

/** Fills `map` from the blob's chunk information, which may have to be fetched. FORMAT_*, STORAGE_*. */
export async function fillMap(map: BlobMap, blob: ImageBlob, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  if (!map.isFilled) map.fill(await blob.layout({ signal }))
}

/**
 * Fills `target` from `offset` of the decompressed blob; between chunks are zeros. Every byte of a chunk is verified: FORMAT_INVALID when the
 * image does not say what one of them should be, STORAGE_* when it cannot be had.
 */
export async function readBlob(blob: ImageBlob, map: BlobMap, offset: number, target: Uint8Array, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  await fillMap(map, blob, { signal })
  const places = placesIn(map, offset, target.length)
  await refuseUnverifiable(blob, places, signal)
  const bytes = await blob.obtain(places.filter((place) => !blob.isReady(place)), { signal })
  target.fill(0)
  for (const place of places) {
    const from = Math.max(0, offset - place.offset)
    const to = Math.min(place.size, offset + target.length - place.offset)
    const part = target.subarray(place.offset + from - offset, place.offset + to - offset)
    const obtained = bytes.get(place.index)
    if (obtained !== undefined) part.set(obtained.subarray(from, to))
    else await readCached(blob, place, from, part, signal)
  }
}

/**
 * Brings every chunk of [offset, offset + length) into the cache file, verified: its bytes can be read from there afterwards. FORMAT_INVALID when the image does not
 * say what one of them should be, STORAGE_* when it cannot be had, or not be stored.
 */
export async function fillBlob(blob: ImageBlob, map: BlobMap, offset: number, length: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
  await fillMap(map, blob, { signal })
  const places = placesIn(map, offset, length)
  await refuseUnverifiable(blob, places, signal)
  await blob.obtain(places.filter((place) => !blob.isReady(place)), { signal })
  const absent = places.find((place) => !blob.isReady(place))
  if (absent === undefined) return
  throw new CodedError('STORAGE_CACHE_IO', `chunk ${absent.index} of blob ${blob.record.blobId} cannot be stored`, { blobId: blob.record.blobId, chunk: absent.index })
}

/** Whether every chunk of [offset, offset + length) lies verified in the cache file. */
export function isFilled(blob: ImageBlob, map: BlobMap, offset: number, length: number): boolean {
  return map.isFilled && placesIn(map, offset, length).every((place) => blob.isReady(place))
}

/** Whether each chunk that can be verified is, and lies in the cache file. False too when that cannot be told without the backend. */
export function isComplete(blob: ImageBlob, map: BlobMap): boolean {
  if (!map.isFilled || map.count === 0) return map.isFilled
  for (let index = 0; index < map.count; index++) {
    if (!blob.isReady({ index, offset: map.offset(index), size: map.size(index) }) && blob.canVerify(index)) return false
  }
  return true
}

function placesIn(map: BlobMap, offset: number, length: number): ChunkPlace[] {
  const places: ChunkPlace[] = []
  for (let index = map.firstAt(offset); index < map.count && map.offset(index) < offset + length; index++) {
    places.push({ index, offset: map.offset(index), size: map.size(index) })
  }
  return places
}

async function refuseUnverifiable(blob: ImageBlob, places: readonly ChunkPlace[], signal: AbortSignal): Promise<void> {
  const isUnknown = ({ index }: ChunkPlace) => !blob.canVerify(index)
  if (!places.some(isUnknown)) return
  await blob.allPlaces({ signal }) // the blob's own digests, if it has some, are known afterwards
  const unknown = places.find(isUnknown)
  if (unknown === undefined) return
  throw new CodedError('FORMAT_INVALID', `nothing tells whether chunk ${unknown.index} of blob ${blob.record.blobId} is right`, { blobId: blob.record.blobId, chunk: unknown.index })
}

// A cache file may be cut short by somebody, and be given its length again by another read: what was lost is not ready any more, and is fetched.
async function readCached(blob: ImageBlob, place: ChunkPlace, from: number, part: Uint8Array, signal: AbortSignal): Promise<void> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    if (blob.isReady(place) && await blob.cache?.read(part, place.offset + from) && blob.isReady(place)) return
    blob.drop(place.index)
    const bytes = (await blob.obtain([place], { signal })).get(place.index)
    if (bytes !== undefined) return part.set(bytes.subarray(from, from + part.length))
  }
  throw new CodedError('STORAGE_CACHE_IO', `chunk ${place.index} of blob ${blob.record.blobId} vanishes from the cache`, { blobId: blob.record.blobId, chunk: place.index })
}
