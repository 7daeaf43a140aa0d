// An opened image: metadata from the bootstrap's bytes, file contents from the blobs through cache and backend.

import path from 'node:path'
import { BufferPool } from '../core/buffer-pool.ts'
import { CodedError } from '../core/errors.ts'
import { MiB } from '../core/units.ts'
import type { BootstrapView, Inode } from '../format/rafs-v6/bootstrap-view.ts'
import { currentMachineLimits } from '../native/machine.ts'
import {
  BackendMetrics, BlobcacheMetrics, CacheCipher, ChunkMemory, chunkMemoryLimit, ImageBlob, LinkEstimate, ReadyMap, reliable, Scheduler,
  type BackendChange, type BlobBackend, type CacheEncryption, type CacheIo, type CacheLimits, type ChunkPlace, type RetryPolicy,
} from '../storage/index.ts'
import { openBootstrap, openSharedBootstrap, type OpenBootstrap, type SharedBootstrap } from './bootstrap-source.ts'
import { locate, piecesOf, type ExtentSink, type Piece, type ReadableBlob } from './locate.ts'

export interface OpenImageOptions {
  /** Path of a bootstrap or of a blob with one inside, or a bootstrap's bytes. */
  readonly bootstrap: string | Uint8Array
  /** Where the blobs are. Owned by the image once `open` has returned it. */
  readonly backend: BlobBackend
  readonly retry?: RetryPolicy
  /** Milliseconds after which whoever serves reads should give one up; 0, the default, for never. */
  readonly readDeadlineMs?: number
  /** Directory of the blob cache; without one, a bounded number of chunks is kept in memory. */
  readonly cacheDirectory?: string
  /** What the cache directory may take at most. */
  readonly cacheLimits?: CacheLimits
  /** Encrypts what is stored. Every read is then answered by the main thread, which decrypts. */
  readonly cacheEncryption?: CacheEncryption
  /** False only when the user said so explicitly: nothing that is read is verified then. 'where-possible': chunks of which the image knows nothing pass. */
  readonly verify?: boolean | 'where-possible'
  /** Decompressed bytes up to which a miss is extended to its neighbours. */
  readonly amplifyBytes?: number
  /** Requests of a prefetch at once. */
  readonly prefetchThreads?: number
  /** Name of the image in metrics. */
  readonly id?: string
  /** For tests: records or fails writes of the cache. */
  readonly cacheIo?: CacheIo
  readonly signal: AbortSignal
}

/** Structured-cloneable, for workers of the same process; valid until the image is closed. */
export interface SharedImage {
  readonly bootstrap: SharedBootstrap
  /** By blob index; undefined where nothing is cached, or it is encrypted. */
  readonly blobs: readonly ({ readonly fd: number; readonly ready: { readonly fd: number; readonly count: number } } | undefined)[]
}

/** LIMIT: what one `readInto` has under way at a time, whatever the caller's buffer is. */
const READ_WINDOW = 16 * MiB
/** LIMIT: a chunk that is gone from the cache file again each time it was fetched is given up. */
const MAX_TRIES = 3
const NO_RETRY: RetryPolicy = { retries: 0, timeoutMs: 0 }

/** An opened image; made by `open`, to be closed. Reads are verified, shared and cached. */
export class RafsImage {
  readonly id: string
  /** See OpenImageOptions. */
  readonly readDeadlineMs: number
  readonly view: BootstrapView
  readonly backendMetrics: BackendMetrics
  readonly cacheMetrics: BlobcacheMetrics
  /** What is known of the way to the backend. */
  readonly link: LinkEstimate
  readonly #bootstrap: OpenBootstrap
  readonly #backend: BlobBackend
  readonly #blobs: readonly ImageBlob[]
  readonly #readable: readonly (ReadableBlob | undefined)[]

  /** Opens bootstrap and cache files; never asks the backend. FORMAT_*, RAFS_NOT_FOUND; a cache that cannot be used is reported and done without. */
  static async open(options: OpenImageOptions): Promise<RafsImage> {
    options.signal.throwIfAborted()
    return new RafsImage(await openBootstrap(options.bootstrap, { signal: options.signal }), options)
  }

  private constructor(bootstrap: OpenBootstrap, { bootstrap: source, backend, retry = NO_RETRY, readDeadlineMs = 0, cacheDirectory, cacheLimits, cacheEncryption, verify = true, amplifyBytes = MiB, prefetchThreads = 8, id = '', cacheIo }: OpenImageOptions) {
    this.id = id
    this.readDeadlineMs = readDeadlineMs
    this.view = bootstrap.view
    this.#bootstrap = bootstrap
    this.backendMetrics = new BackendMetrics(backend.type)
    this.cacheMetrics = new BlobcacheMetrics(cacheDirectory ?? '')
    this.#backend = reliable(backend, retry, this.backendMetrics)
    const scheduler = new Scheduler({ maxPrefetch: prefetchThreads })
    const memory = new ChunkMemory(chunkMemoryLimit(currentMachineLimits().memory))
    const cacheOwner = { id, bootstrap: typeof source === 'string' ? path.resolve(source) : undefined }
    const cacheCipher = cacheEncryption && new CacheCipher(cacheEncryption)
    const pool = new BufferPool()
    this.link = new LinkEstimate()
    const hedge = { link: this.link, budget: { running: 0, total: 0 }, isLocal: backend.isLocal ?? false }
    this.#blobs = this.view.blobs.map(({ blobId }, blobIndex) => new ImageBlob({
      view: this.view, blobIndex, reader: this.#backend.open(blobId), cacheDirectory, memory, scheduler, pool, hedge, metrics: this.cacheMetrics, amplifyBytes, verify, cacheLimits, cacheOwner, cacheCipher, cacheIo,
    }))
    this.#readable = this.#blobs.map(({ cache }) => (cache?.isPlain ? {
      fd: cache.dataFd, has: (index, offset, size) => cache.isReady({ index, offset, size }),
    } : undefined))
  }

  /** The image's blobs, by blob index. */
  get blobs(): readonly ImageBlob[] {
    return this.#blobs
  }

  /** Whether the bootstrap is a file of its own, rather than bytes or the end of a blob. */
  get isPlainFile(): boolean {
    return 'fd' in this.#bootstrap.shared
  }

  /** What a worker needs to answer hits alone. */
  share(): SharedImage {
    return { bootstrap: this.#bootstrap.shared, blobs: this.#blobs.map(({ cache }) => (cache?.isPlain ? { fd: cache.dataFd, ready: cache.shared } : undefined)) }
  }

  /** Pushes where [offset, offset + length) of a file lies in cache files; false when some of it must be obtained first. FORMAT_*. */
  locate(inode: Inode, offset: number, length: number, extents: ExtentSink): boolean {
    return locate(this.view, this.#readable, inode, { offset, length, extents })
  }

  /**
   * Fills `target` from `offset` of a regular file; the number of bytes filled, fewer than asked for only at the end of the file. Every byte
   * is verified. FORMAT_*, STORAGE_*; rejects with `signal.reason` on abort.
   */
  async readInto(inode: Inode, offset: number, target: Uint8Array, { signal }: { readonly signal: AbortSignal }): Promise<number> {
    signal.throwIfAborted()
    const length = Math.max(0, Math.min(target.length, inode.size - offset))
    for (let done = 0; done < length;) {
      const window = Math.min(READ_WINDOW, length - done)
      await this.#readWindow([...piecesOf(this.view, inode, offset + done, window)], target.subarray(done, done + window), signal)
      done += window
    }
    return length
  }

  /** Makes chunks ready that nobody waits for; those of a list before others. */
  async prefetch(blobIndex: number, places: readonly ChunkPlace[], { signal, isListed = false }: { readonly signal: AbortSignal; readonly isListed?: boolean }): Promise<void> {
    await this.#blobs[blobIndex]!.obtain(places, { signal, prefetch: isListed ? 'listed' : 'rest' })
  }

  /** See BlobBackend.reconfigure. CONFIG_INVALID. */
  reconfigure(change: BackendChange): void {
    this.#backend.reconfigure?.(change)
  }

  /** Waits for the cache to be durable, frees descriptors, mappings and the backend. */
  async close(): Promise<void> {
    for (const blob of this.#blobs) await blob.close()
    await this.#backend.close()
    this.#bootstrap.close()
  }

  async #readWindow(pieces: readonly Piece[], target: Uint8Array, signal: AbortSignal): Promise<void> {
    const missing = pieces.filter((piece) => !this.#isReady(piece))
    this.cacheMetrics.countRead(pieces.length - missing.length, pieces.length)
    const obtained = await this.#obtain(missing, signal)
    let at = 0
    for (const piece of pieces) {
      const part = target.subarray(at, at + piece.length)
      const bytes = obtained.get(piece.blobIndex)?.get(piece.index)
      if (bytes !== undefined) part.set(bytes.subarray(piece.from, piece.from + piece.length))
      else await this.#readCached(piece, part, signal)
      at += piece.length
    }
  }

  /** Obtained chunks by blob and index. */
  async #obtain(missing: readonly Piece[], signal: AbortSignal): Promise<Map<number, ReadonlyMap<number, Uint8Array>>> {
    const places = new Map<number, ChunkPlace[]>()
    for (const { blobIndex, index, chunkOffset: offset, chunkSize: size } of missing) {
      const place = { index, offset, size }
      if (places.get(blobIndex)?.push(place) === undefined) places.set(blobIndex, [place])
    }
    const obtained = await Promise.all([...places].map(async ([blobIndex, wanted]) => [blobIndex, await this.#blobs[blobIndex]!.obtain(wanted, { signal })] as const))
    return new Map(obtained)
  }

  async #readCached(piece: Piece, part: Uint8Array, signal: AbortSignal): Promise<void> {
    const blob = this.#blobs[piece.blobIndex]!
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      // ready afterwards, too: who takes a chunk back may give the file its length again before we read
      if (this.#isReady(piece) && await blob.cache?.read(part, piece.chunkOffset + piece.from) && this.#isReady(piece)) return
      // the cache file was cut short by somebody: fetch what it lost
      blob.drop(piece.index)
      const bytes = (await this.#obtain([piece], signal)).get(piece.blobIndex)?.get(piece.index)
      if (bytes !== undefined) return part.set(bytes.subarray(piece.from, piece.from + piece.length))
    }
    throw new CodedError('STORAGE_CACHE_IO', `chunk ${piece.index} of blob ${blob.record.blobId} vanishes from the cache`, { blobId: blob.record.blobId, chunk: piece.index })
  }

  #isReady({ blobIndex, index, chunkOffset, chunkSize }: Piece): boolean {
    return this.#blobs[blobIndex]!.isReady({ index, offset: chunkOffset, size: chunkSize })
  }
}

/** A worker's view of an image: metadata, and hits. */
export interface ImageReplica {
  readonly view: BootstrapView
  locate(inode: Inode, offset: number, length: number, extents: ExtentSink): boolean
  close(): void
}

/** Opens `shared` in another thread of the process that owns the image. */
export function openSharedImage(shared: SharedImage): ImageReplica {
  const { view, close } = openSharedBootstrap(shared.bootstrap)
  const maps = shared.blobs.map((blob) => blob && ReadyMap.map(blob.ready.fd, blob.ready.count, { writable: false }))
  const readable = shared.blobs.map((blob, i) => blob && { fd: blob.fd, has: (index: number, offset: number, length: number) => maps[i]!.has(index, offset, length) })
  return {
    view,
    locate: (inode, offset, length, extents) => locate(view, readable, inode, { offset, length, extents }),
    close() {
      for (const map of maps) map?.close()
      close()
    },
  }
}
