// One device of the kernel's EROFS driver, on the main thread: a blob's cache file, kept open by itself, and the images that know what belongs there.

import { fdatasync, fstatSync, lstatSync, unlinkSync } from 'node:fs'
import { promisify } from 'node:util'
import { CodedError, hasCode } from '../../core/errors.ts'
import { BlobMap, fillBlob, fillMap, isComplete, isFilled, readBlob } from '../../rafs/index.ts'
import { BlobCache, cacheNames, type ImageBlob } from '../../storage/index.ts'
import type { MissSource } from '../miss-desk.ts'
import type { SharedDevice } from './device-file-system.ts'

/** LIMIT: chunks that are looked at between two looks at who waits. */
const SCRUB_CHUNKS = 64
/** Blobs that are the same bytes in the same cache file: images share a device for them. */
export function deviceKey(blob: ImageBlob, directory: string): string {
  const { blobId, entry } = blob.record
  return JSON.stringify([directory, blobId, entry.chunkCount, entry.uncompressedSize])
}

/** Fetches for a device what is missing, through any image that has the blob. */
export class DeviceFile implements MissSource {
  readonly key: string
  /** Bytes. */
  readonly size: number
  readonly #name: string
  readonly #map: BlobMap
  /** Its own: the images that made the file ready may go before it. */
  readonly #cache: BlobCache | undefined
  /** Of the cache file. */
  readonly dataPath: string
  readonly #blobs = new Set<ImageBlob>()

  constructor(blob: ImageBlob, directory: string) {
    const { blobId, entry } = blob.record
    this.key = deviceKey(blob, directory)
    this.size = entry.uncompressedSize
    this.#name = blobId
    this.#map = BlobMap.create(blob.record)
    this.dataPath = cacheNames(directory, blobId).data
    this.#cache = BlobCache.open({ directory, blobId, chunkCount: entry.chunkCount, size: entry.uncompressedSize })
  }

  /** Name of the file. */
  get name(): string {
    return this.#name
  }

  get shared(): SharedDevice {
    return { name: this.#name, size: this.size, blob: this.#cache && { fd: this.#cache.dataFd, ready: this.#cache.shared, map: this.#map.memory } }
  }

  get isUsed(): boolean {
    return this.#blobs.size > 0
  }

  /** From now on `blob` is asked for what is missing. */
  attach(blob: ImageBlob): void {
    this.#blobs.add(blob)
  }

  /** `blob`'s image is closed soon. */
  detach(blob: ImageBlob): void {
    this.#blobs.delete(blob)
  }

  /** Learns where the chunks lie, so that workers find what is ready. FORMAT_*, STORAGE_*. */
  async prepare({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    for (const blob of this.#blobs) return await fillMap(this.#map, blob, { signal })
  }

  /** The cache file itself when all of it is there and was verified since this boot: then the kernel needs nobody in between. */
  get completePath(): string | undefined {
    const [blob] = this.#blobs
    return blob !== undefined && this.#cache !== undefined && isComplete(blob, this.#map) ? this.dataPath : undefined
  }

  /** Of the cache file, opened for reading and writing; undefined where there is none. */
  get dataFd(): number | undefined {
    return this.#cache?.dataFd
  }

  /** Whether these bytes of the cache file may be read as they are. */
  isFilled(offset: number, length: number): boolean {
    for (const blob of this.#blobs) return isFilled(blob, this.#map, offset, length)
    return false
  }

  /** Makes that so. FORMAT_*, STORAGE_* */
  fill(offset: number, length: number, options: { readonly signal: AbortSignal }): Promise<void> {
    return this.#byAny((blob) => fillBlob(blob, this.#map, offset, length, options))
  }

  /** Whether all that any of its images needs is there and was verified since this boot. */
  get isComplete(): boolean {
    return this.#blobs.size > 0 && [...this.#blobs].every((blob) => isComplete(blob, this.#map))
  }

  /** Makes durable what is there; what cannot be is not ready any more. @throws Node's error when the disk fails */
  async flush(): Promise<void> {
    for (const blob of this.#blobs) await blob.cache?.flush()
    if (this.#cache !== undefined) await promisify(fdatasync)(this.#cache.dataFd) // what other processes have stored
  }

  /** Looks at what an earlier boot has left; without it nobody would, before somebody reads it. */
  async scrub({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    for (const blob of this.#blobs) {
      const places = (await blob.allPlaces({ signal })).filter((place) => blob.cache?.isDurable(place.index) && !blob.isReady(place))
      for (let from = 0; from < places.length; from += SCRUB_CHUNKS) await blob.obtain(places.slice(from, from + SCRUB_CHUNKS), { signal, prefetch: 'rest' })
    }
  }

  /** Takes the name away. */
  unlink(): void {
    const fd = this.#cache?.dataFd
    const named = fd === undefined ? undefined : lstatSync(this.dataPath, { throwIfNoEntry: false })
    if (fd === undefined || named?.ino !== fstatSync(fd).ino) return
    unlinkSync(this.dataPath)
  }

  readInto(_nid: number, offset: number, target: Uint8Array, options: { readonly signal: AbortSignal }): Promise<void> {
    return this.#byAny((blob) => readBlob(blob, this.#map, offset, target, options))
  }

  async #byAny(work: (blob: ImageBlob) => Promise<void>): Promise<void> {
    let unknown: unknown = new CodedError('SERVE_STALE_NODE', 'no image that has this blob is mounted any more')
    for (const blob of this.#blobs) {
      try {
        return await work(blob)
      } catch (error) {
        if (!hasCode(error, 'FORMAT_INVALID')) throw error
        unknown = error // another image may know what these chunks should be
      }
    }
    throw unknown
  }

  async close(): Promise<void> {
    await this.#cache?.close()
  }
}
