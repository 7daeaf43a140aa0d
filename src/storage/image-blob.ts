// One data blob of an image: its chunks, wherever they are. A chunk is ready in the cache file, durable there but not looked at yet, being fetched
// by somebody, or only in the backend; `obtain` makes the difference go away. A chunk is fetched once however many readers, mounts and processes
// want it, and nobody sees a byte that was not verified.

import { setMaxListeners } from 'node:events'
import type { BufferPool } from '../core/buffer-pool.ts'
import { CodedError, isCoded, type ErrorCode } from '../core/errors.ts'
import { SingleFlight } from '../core/single-flight.ts'
import { MiB } from '../core/units.ts'
import type { ChunkInfoArray } from '../format/blob/chunk-info-array.ts'
import type { BlobRecord, BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import type { BlobReader } from './backend/backend.ts'
import { loadChunkInfo, loadInlinedDigests } from './blob-meta.ts'
import { BlobCache, type ChunkPlace } from './cache/blob-cache.ts'
import type { CacheIo } from './cache/io.ts'
import { CONFIRM_BYTES } from './cache/confirm.ts'
import { cacheNames } from './cache/layout.ts'
import type { CacheCipher } from './cache/cipher.ts'
import type { CacheOwner } from './cache/owners.ts'
import type { CacheLimits } from './cache/quota.ts'
import type { ChunkMemory } from './cache/memory.ts'
import { ChunkFetcher } from './fetch/chunk-fetcher.ts'
import { Evidence } from './fetch/evidence.ts'
import { Flight } from './fetch/flight.ts'
import { hedgedRead, type HedgeOptions } from './fetch/hedge.ts'
import { runsOfList } from './fetch/listed.ts'
import { amplified, spanOf, within } from './fetch/plan.ts'
import type { Scheduler } from './fetch/scheduler.ts'
import { Footprint, windowOf } from './fetch/window.ts'
import type { BlobcacheMetrics } from './metrics.ts'

export interface ImageBlobOptions {
  readonly view: BootstrapView
  readonly blobIndex: number
  readonly reader: BlobReader
  /** Undefined: nothing is stored. */
  readonly cacheDirectory: string | undefined
  /** Where chunks go that cannot be stored. */
  readonly memory: ChunkMemory
  readonly scheduler: Scheduler
  readonly pool: BufferPool
  /** Of the backend; shared by its blobs. */
  readonly hedge: HedgeOptions
  readonly metrics: BlobcacheMetrics
  /** Decompressed bytes up to which a miss is extended to its neighbours; 0 for none. */
  readonly amplifyBytes: number
  /** False only when the configuration says so explicitly. 'where-possible': chunks of which the image knows nothing pass. */
  readonly verify: boolean | 'where-possible'
  readonly cacheLimits?: CacheLimits | undefined
  readonly cacheOwner?: CacheOwner | undefined
  readonly cacheCipher?: CacheCipher | undefined
  readonly cacheIo?: CacheIo | undefined
}

export interface ObtainOptions {
  readonly signal: AbortSignal
  /** Nobody waits for it: 'listed' because somebody will soon, 'rest' because it is there. */
  readonly prefetch?: 'listed' | 'rest' | undefined
}

/** LIMIT: distance of reads in a blob that belong to one another, and bytes around a miss (compressed). See fetch/window.ts. */
const NEAR = 2.5 * MiB
/** A large blob is worth a larger window: of a small one it would be everything. */
const LONGEST_WINDOW = { least: MiB, most: 2 * MiB, share: 1 / 32 }
/** LIMIT: of the bytes that a miss is to be extended by, what is fetched on each side of one that nothing is known about. */
const BASE_SHARE = 3 / 8
/** LIMIT: decompressed bytes on each side of a miss: zeros compress to nothing. */
const MAX_WINDOW_SIZE = 16 * MiB
/** LIMIT: bytes of one request. A larger one would make whoever comes next wait behind it. */
const MAX_REQUEST = 4 * MiB
const MAX_REQUEST_SIZE = 32 * MiB
/** LIMIT: `obtain` looks again this often when a chunk that somebody else fetched is gone again before it could be read. */
const MAX_ROUNDS = 3

/** What reads fail with when chunk information leads them to the wrong place. */
const SIGNS_OF_DAMAGED_META: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['STORAGE_DIGEST_MISMATCH', 'STORAGE_SHORT_READ', 'FORMAT_INVALID', 'FORMAT_OUT_OF_RANGE'])

/** One blob of an opened image: chunk information, cache, and the fetching of what is missing. */
export class ImageBlob {
  readonly record: BlobRecord
  /** Undefined when nothing can be stored. */
  readonly cache: BlobCache | undefined
  readonly #options: ImageBlobOptions
  readonly #loads = new SingleFlight<string, void>()
  /** The flight of each chunk that is under way. */
  readonly #pending = new Map<number, Flight>()
  readonly #flights = new Set<Flight>()
  readonly #footprint = new Footprint()
  /** Chunks of a list that is being fetched ahead. */
  #listed: ReadonlySet<number> | undefined
  #fetcher: ChunkFetcher | undefined
  #layout: ChunkInfoArray | undefined
  #isLayoutCached = false
  /** The writing of the cached chunk information; never rejects. */
  #metaWritten: Promise<void> | undefined
  #evidence: Evidence | undefined
  #hasInlined = false

  /** Opens the cache files; never touches the backend. */
  constructor(options: ImageBlobOptions) {
    const { view, blobIndex, cacheDirectory, cacheLimits, cacheOwner, cacheCipher, metrics, cacheIo } = options
    const record = view.blobs[blobIndex]!
    this.record = record
    this.#options = options
    this.cache = cacheDirectory === undefined ? undefined : BlobCache.open({
      directory: cacheDirectory, blobId: record.blobId, chunkCount: record.entry.chunkCount, size: record.entry.uncompressedSize,
      ...(cacheLimits && { limits: cacheLimits }), ...(cacheOwner && { owner: cacheOwner }), ...(cacheCipher && { cipher: cacheCipher }), ...(cacheIo && { io: cacheIo }),
    })
    if (this.cache !== undefined) metrics.underlyingFiles.add(`${record.blobId}.blob.data`)
  }

  /** For what a read waits for: measured, and asked for again when it hangs. */
  get #reader(): BlobReader {
    const { reader, hedge } = this.#options
    return { size: (options) => reader.size(options), read: (offset, length, options) => hedgedRead(reader, { ...hedge, offset, length, ...options, isWanted: () => true }) }
  }

  /** Whether that part of the cache file can be read at once. */
  isReady(place: ChunkPlace): boolean {
    return this.cache?.isReady(place) ?? false
  }

  /** The blob's chunk information, fetched at the first use. */
  async layout({ signal }: { readonly signal: AbortSignal }): Promise<ChunkInfoArray> {
    if (this.#layout === undefined) await this.#loads.run('layout', (shared) => this.#loadLayout(shared), signal)
    return this.#layout!
  }

  /**
   * The bytes of `places`, whole chunks as an inode describes them, by chunk index. A chunk whose bytes are not in the result is ready in the cache
   * file. FORMAT_INVALID when a place is not what the blob says of that chunk, STORAGE_DIGEST_MISMATCH, or what the backend fails with.
   */
  async obtain(places: readonly ChunkPlace[], options: ObtainOptions): Promise<ReadonlyMap<number, Uint8Array>> {
    try {
      return await this.#obtain(places, options)
    } catch (error) {
      if (!isCoded(error) || !SIGNS_OF_DAMAGED_META.has(error.code) || !await this.#reloadLayout(options)) throw error
      return await this.#obtain(places, options)
    }
  }

  async #obtain(places: readonly ChunkPlace[], { signal, prefetch }: ObtainOptions): Promise<ReadonlyMap<number, Uint8Array>> {
    signal.throwIfAborted()
    setMaxListeners(0, signal) // many reads may share a signal; Node warns from the eleventh on
    const layout = await this.layout({ signal })
    for (const place of places) this.#check(place, layout)
    const evidence = this.#evidence
    if (evidence !== undefined && !this.#hasInlined && places.some(({ index }) => !evidence.covers(index))) await this.#loads.run('digests', (shared) => this.#loadDigests(shared), signal)
    const bytes = new Map<number, Uint8Array>()
    let missing = places
    for (let round = 0; missing.length > 0 && round < MAX_ROUNDS; round++) {
      missing = missing.filter((place) => !this.isReady(place))
      await this.#obtainMissing(missing, bytes, { signal, prefetch })
      missing = missing.filter(({ index }) => !bytes.has(index))
    }
    return bytes
  }

  /** A part of a chunk that was ready turned out not to be in the cache file: forget it, the next `obtain` fetches it. */
  drop(index: number): void {
    this.cache?.drop(index)
  }

  /** Chunks of the blob that can be verified, in stored order: what a prefetch of everything takes. With `unverifiable` the others too. */
  async allPlaces({ signal, unverifiable = false }: { readonly signal: AbortSignal; readonly unverifiable?: boolean }): Promise<ChunkPlace[]> {
    const layout = await this.layout({ signal })
    if (this.record.hasInlinedDigests && !this.#hasInlined) await this.#loads.run('digests', (shared) => this.#loadDigests(shared), signal)
    return Array.from({ length: layout.count }, (_, i) => placeOf(layout, i)).filter(({ index }) => unverifiable || this.canVerify(index))
  }

  /** Whether chunk `index` can be told from wrong bytes; also true where nothing is verified. Known after `allPlaces`. */
  canVerify(index: number): boolean {
    return this.#evidence?.covers(index) ?? true
  }

  /** Says that chunks are going to be fetched ahead, undefined that this is over; returns them as requests, in the order of their first use. */
  async expect(indices: readonly number[] | undefined, { signal, maxLength }: { readonly signal: AbortSignal; readonly maxLength: number }): Promise<number[][]> {
    this.#listed = indices && new Set(indices)
    if (indices === undefined) return []
    const layout = await this.layout({ signal })
    const known = indices.filter((index) => index < layout.count)
    return runsOfList(layout, known, { maxGap: this.#options.hedge.link.gap, maxLength, maxSize: MAX_REQUEST_SIZE })
  }

  /** Whether every chunk that can be verified is in the cache file: nothing of the blob needs the backend any more. */
  isComplete(): boolean {
    const { cache } = this
    const layout = this.#layout
    if (cache === undefined || layout === undefined) return false
    for (let i = 0; i < layout.count; i++) if (!cache.isDurable(i) && !cache.isReady(placeOf(layout, i)) && this.canVerify(i)) return false
    return true
  }

  /** Ends what is under way; waits for the cache to be durable. */
  async close(): Promise<void> {
    for (const flight of this.#flights) flight.abort(new CodedError('STORAGE_UNREACHABLE', 'the image is being closed'))
    await Promise.all([...this.#flights].map(({ done }) => done))
    await this.#metaWritten
    await this.cache?.close()
  }

  #check({ index, offset, size }: ChunkPlace, layout: ChunkInfoArray): void {
    if (index < layout.count && layout.uncompressedOffset(index) === offset && layout.uncompressedSize(index) === size) return
    throw new CodedError('FORMAT_INVALID', `a file says that chunk ${index} of blob ${this.record.blobId} has ${size} bytes at ${offset}; the blob says otherwise`, { blobId: this.record.blobId, chunk: index, offset, size })
  }

  async #obtainMissing(missing: readonly ChunkPlace[], bytes: Map<number, Uint8Array>, { signal, prefetch }: ObtainOptions): Promise<void> {
    signal.throwIfAborted() // from here to the flights nothing is awaited: a group that is registered must be flying
    const wanted: number[] = []
    for (const { index } of missing) {
      const kept = this.#options.memory.get(this.#memoryKey(index))
      if (kept === undefined) wanted.push(index)
      else bytes.set(index, kept)
    }
    const flights = this.#flightsFor([...new Set(wanted)].sort((a, b) => a - b), prefetch)
    const waits = [...flights].map(([flight, indices]) => flight.wait(indices, { signal, prefetch: prefetch !== undefined }))
    // after the waits: whether somebody waits decides what goes first
    for (const flight of flights.keys()) this.#start(flight)
    const landed = await Promise.all(waits)
    for (const results of landed) {
      for (const [index, result] of results) {
        if (result instanceof Error) throw result
        if (result !== undefined) bytes.set(index, result)
      }
    }
  }

  /** Flights that bring `wanted` (ascending, distinct), with the chunks that each is to be waited for. Some are under way, others not begun. */
  #flightsFor(wanted: readonly number[], prefetch: ObtainOptions['prefetch']): Map<Flight, number[]> {
    const flights = new Map<Flight, number[]>()
    const free = new Set<number>()
    for (const index of wanted) {
      const running = this.#pending.get(index)
      if (running === undefined) free.add(index)
      else if (flights.get(running)?.push(index) === undefined) flights.set(running, [index])
    }
    for (const indices of this.#extended([...free], prefetch)) {
      const flight = new Flight(indices, {
        scheduler: this.#options.scheduler, isExpected: prefetch !== 'rest', forget: (index) => { if (this.#pending.get(index) === flight) this.#pending.delete(index) },
      })
      for (const index of indices) this.#pending.set(index, flight)
      flights.set(flight, indices.filter((index) => free.has(index)))
    }
    return flights
  }

  /** `wanted` with what is worth having with it: one list for each request, and one of what only has to be looked at in the cache file. */
  #extended(wanted: readonly number[], prefetch: ObtainOptions['prefetch']): (readonly number[])[] {
    const layout = this.#layout!
    const fetcher = this.#fetcher!
    const isDurable = (index: number) => this.cache?.isDurable(index) ?? false
    const taken = new Set<number>()
    const isFree = (index: number) => !taken.has(index) && !this.#pending.has(index) && !this.isReady(placeOf(layout, index)) && (this.#evidence?.covers(index) ?? true)
    const lists: number[][] = []
    // while a list is being fetched it says better than the neighbourhood what will be wanted, except for what is not on it
    const list = wanted.some((index) => this.#listed?.has(index)) ? this.#listed : undefined
    const isWorth = (index: number) => list === undefined || list.has(index)
    for (const { units } of fetcher.ranges(wanted.filter((index) => !isDurable(index)))) {
      const core = units.flatMap(({ chunks }) => chunks).filter((index) => !taken.has(index))
      if (core.length === 0) continue
      const grown = prefetch !== undefined || this.cache === undefined ? core : this.#grown(core, (index) => isFree(index) && !isDurable(index) && isWorth(index))
      for (const range of fetcher.ranges(grown)) lists.push(range.units.flatMap(({ chunks }) => chunks))
      for (const index of grown) taken.add(index)
    }
    const durable = wanted.filter((index) => isDurable(index) && !taken.has(index))
    if (durable.length > 0) lists.push(amplified(layout, durable, { limit: CONFIRM_BYTES, accept: (index) => isFree(index) && isDurable(index) }))
    return lists
  }

  /** `core`, chunks that lie together, with its neighbours: without a cache they would be thrown away, and beside files they cost no request. */
  #grown(core: readonly number[], accept: (index: number) => boolean): readonly number[] {
    const layout = this.#layout!
    const { amplifyBytes, hedge: { link, isLocal } } = this.#options
    if (isLocal || amplifyBytes === 0) return amplified(layout, core, { limit: amplifyBytes, accept })
    const longest = Math.min(LONGEST_WINDOW.most, Math.max(LONGEST_WINDOW.least, this.record.dataSize * LONGEST_WINDOW.share))
    // the longer a round trip, the more is worth having unasked
    const base = Math.min(longest, amplifyBytes / 2, Math.max(amplifyBytes * BASE_SHARE, link.roundTripBytes / 16))
    const grown = within(layout, core, { span: windowOf(spanOf(layout, core), this.#footprint, { base, near: NEAR, longest }), maxSize: MAX_WINDOW_SIZE, accept })
    this.#footprint.add(spanOf(layout, grown))
    return grown
  }

  #start(flight: Flight): void {
    if (this.#flights.has(flight)) return
    this.#flights.add(flight)
    flight.start((signal) => this.#fetcher!.fetch(flight, signal))
    void flight.done.then(() => this.#flights.delete(flight))
  }
  /** Whether there is chunk information now that was not read from the cache: a file there may rot in what the image cannot check. */
  async #reloadLayout({ signal }: ObtainOptions): Promise<boolean> {
    if (!this.#isLayoutCached) return false
    try {
      await this.#loads.run('reload', (shared) => this.#loadLayout(shared, true), signal)
      return true
    } catch (error) {
      if (!isCoded(error)) throw error
      return false
    }
  }

  async #loadLayout(signal: AbortSignal, fresh = false): Promise<void> {
    const { view, blobIndex, cacheDirectory, verify, memory, metrics, scheduler, pool, hedge, amplifyBytes } = this.#options
    const cacheFile = cacheDirectory === undefined ? undefined : cacheNames(cacheDirectory, this.record.blobId).meta
    const { layout, isCached } = await loadChunkInfo({ view, blobIndex, reader: this.#reader, cacheFile, fresh, inBackground: (work) => { this.#metaWritten = work } }, { signal })
    this.#evidence = verify === false ? undefined : new Evidence(view, blobIndex, layout, { lenient: verify === 'where-possible' })
    const { cache, record } = this
    this.#fetcher = new ChunkFetcher({
      record, layout, evidence: this.#evidence, reader: this.#options.reader, hedge, cache, scheduler, pool, metrics,
      ...(hedge.isLocal ? { maxLength: Math.max(amplifyBytes, view.chunkSize), maxSize: Math.max(amplifyBytes, view.chunkSize) } : { maxLength: MAX_REQUEST, maxSize: MAX_REQUEST_SIZE }),
      remember: (index, bytes) => memory.set(this.#memoryKey(index), bytes),
    })
    this.#hasInlined = false
    this.#isLayoutCached = isCached
    this.#layout = layout
  }

  async #loadDigests(signal: AbortSignal): Promise<void> {
    const { cacheDirectory, reader } = this.#options
    const digests = await loadInlinedDigests(this.record, reader, { files: cacheDirectory === undefined ? undefined : cacheNames(cacheDirectory, this.record.blobId), signal })
    if (digests !== undefined) this.#evidence?.addInlined(digests)
    this.#hasInlined = true
  }

  #memoryKey(index: number): string {
    return `${this.record.index}:${index}`
  }
}

function placeOf(layout: ChunkInfoArray, index: number): ChunkPlace {
  return { index, offset: layout.uncompressedOffset(index), size: layout.uncompressedSize(index) }
}
