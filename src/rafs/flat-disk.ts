// An image read as the flat disk that `nydus-image export --block` would write, block by block, with data arriving when it is read.

import { CodedError } from '../core/errors.ts'
import type { ChunkPlace, ImageBlob } from '../storage/index.ts'
import { diskLayout, type DiskLayout } from './disk-layout.ts'
import type { RafsImage } from './image.ts'

/** Consecutive bytes of the disk in one file: the cache file of a blob. */
export interface DiskPiece { readonly fd: number; readonly fileOffset: number; readonly offset: number; readonly length: number }

/** The disk of an opened image; the image is closed by whoever opened it. */
export class FlatDisk {
  readonly layout: DiskLayout
  readonly #image: RafsImage
  readonly #places = new Map<number, readonly ChunkPlace[]>()

  /** @throws FORMAT_INVALID when its blobs have no place on a disk */
  constructor(image: RafsImage) {
    this.#image = image
    this.layout = diskLayout(image.view)
  }

  /** Bytes. */
  get size(): number {
    return this.layout.blocks * this.layout.blockSize
  }

  /** Fills `target` from `offset` of the disk; verified, zeros where the disk has nothing. @throws STORAGE_* */
  async read(target: Uint8Array, offset: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    target.fill(0)
    const { bytes } = this.#image.view
    if (offset < bytes.length) target.set(bytes.subarray(offset, Math.min(bytes.length, offset + target.length)))
    for (const { blob, start, length, from } of this.#blobsIn(offset, target.length)) {
      const places = await this.#placesIn(blob, start, length, signal)
      const fetched = await blob.obtain(places, { signal })
      for (const place of places) {
        const chunk = fetched.get(place.index) ?? await fromCache(blob, place)
        const begin = Math.max(place.offset, start)
        const end = Math.min(place.offset + place.size, start + length)
        target.set(chunk.subarray(begin - place.offset, end - place.offset), from + begin - start)
      }
    }
  }

  /**
   * Where the bytes [offset, offset + length) lie in cache files, after they were fetched; undefined when some of them are in no file (metadata, a
   * blob that is not stored): then they must be read. Between chunks and between blobs a cache file, and the disk, has zeros.
   */
  async pieces(offset: number, length: number, { signal }: { readonly signal: AbortSignal }): Promise<DiskPiece[] | undefined> {
    if (offset < this.#image.view.bytes.length) return undefined
    const pieces: DiskPiece[] = []
    for (const { blob, start, length: size, from } of this.#blobsIn(offset, length)) {
      const { cache } = blob
      const places = await this.#placesIn(blob, start, size, signal)
      if (!cache || (await blob.obtain(places, { signal })).size > 0) {
        if (!cache || !places.every((place) => cache.isReady(place))) return undefined
      }
      pieces.push({ fd: cache.dataFd, fileOffset: start, offset: offset + from, length: size })
    }
    return pieces
  }

  /** As `pieces`, of what is in the cache already and nothing else. */
  async readyPieces(offset: number, length: number, { signal }: { readonly signal: AbortSignal }): Promise<DiskPiece[]> {
    const pieces: DiskPiece[] = []
    const { blockSize } = this.layout
    for (const { blob, start, length: size, from } of this.#blobsIn(offset, length)) {
      const { cache } = blob
      if (!cache) continue
      for (const place of await this.#placesIn(blob, start, size, signal)) {
        if (!cache.isReady(place)) continue
        // whole blocks only: a block's other part may not be there
        const begin = Math.ceil(Math.max(place.offset, start) / blockSize) * blockSize
        const end = Math.floor(Math.min(place.offset + place.size, start + size) / blockSize) * blockSize
        const last = pieces.at(-1)
        if (end <= begin) continue
        if (last && last.fd === cache.dataFd && last.fileOffset + last.length === begin) pieces[pieces.length - 1] = { ...last, length: last.length + end - begin }
        else pieces.push({ fd: cache.dataFd, fileOffset: begin, offset: offset + from + begin - start, length: end - begin })
      }
    }
    return pieces
  }

  /** The blobs under a range: from byte `start` of the blob, `from` bytes into the range. */
  *#blobsIn(offset: number, length: number): Generator<{ blob: ImageBlob; start: number; length: number; from: number }> {
    for (const part of this.layout.parts) {
      const begin = Math.max(offset, part.offset)
      const end = Math.min(offset + length, part.offset + part.length)
      if (begin < end) yield { blob: this.#image.blobs[part.blobIndex]!, start: begin - part.offset, length: end - begin, from: begin - offset }
    }
  }

  async #placesIn(blob: ImageBlob, start: number, length: number, signal: AbortSignal): Promise<ChunkPlace[]> {
    let all = this.#places.get(blob.record.index)
    if (!all) {
      all = (await blob.allPlaces({ signal, unverifiable: true })).sort((a, b) => a.offset - b.offset)
      this.#places.set(blob.record.index, all)
    }
    let low = 0
    for (let high = all.length; low < high;) {
      const middle = (low + high) >> 1
      if (all[middle]!.offset + all[middle]!.size <= start) low = middle + 1
      else high = middle
    }
    let end = low
    while (end < all.length && all[end]!.offset < start + length) end++
    return all.slice(low, end)
  }
}

/** A chunk that `obtain` left in the cache. @throws STORAGE_CACHE_IO when it is gone again */
export async function fromCache(blob: ImageBlob, { index, offset, size }: ChunkPlace): Promise<Uint8Array> {
  const bytes = new Uint8Array(size)
  if (await blob.cache?.read(bytes, offset)) return bytes
  throw new CodedError('STORAGE_CACHE_IO', `chunk ${index} of blob ${blob.record.blobId} vanishes from the cache`, { blobId: blob.record.blobId, chunk: index })
}
