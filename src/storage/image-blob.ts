// One data blob of an image: its chunks, wherever they are. A chunk is ready in the cache file, durable there but not looked at yet, being fetched
// by somebody, or only in the backend; `obtain` makes the difference go away. A chunk is fetched once however many readers, mounts and processes
// want it, and nobody sees a byte that was not verified.

import { setMaxListeners } from 'node:events'
import { publish } from '../core/diagnostics.ts'
import { CodedError, hasCode, isCoded } from '../core/errors.ts'
import { SingleFlight } from '../core/single-flight.ts'
import { KiB } from '../core/units.ts'
import type { ChunkInfoArray } from '../format/blob/chunk-info-array.ts'
import type { BlobRecord, BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import type { BlobReader } from './backend/backend.ts'
import { compressorNumber, loadChunkInfo, loadInlinedDigests } from './blob-meta.ts'
import { BlobCache, type ChunkPlace } from './cache/blob-cache.ts'
import type { CacheIo } from './cache/io.ts'
import { confirm, CONFIRM_BYTES } from './cache/confirm.ts'
import { cacheNames } from './cache/layout.ts'
import type { CacheOwner } from './cache/owners.ts'
import type { CacheLimits } from './cache/quota.ts'
import type { ChunkMemory } from './cache/memory.ts'
import { decodeRange, type Decoded } from './fetch/decode.ts'
import { Evidence } from './fetch/evidence.ts'
import { amplified, rangesOf, unitsOf, type Range } from './fetch/plan.ts'
import type { Lane, Scheduler } from './fetch/scheduler.ts'
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
  readonly metrics: BlobcacheMetrics
  /** Decompressed bytes up to which a miss is extended to its neighbours; 0 for none. */
  readonly amplifyBytes: number
  /** False only when the configuration says so explicitly. 'where-possible': chunks of which the image knows nothing pass. */
  readonly verify: boolean | 'where-possible'
  readonly cacheLimits?: CacheLimits | undefined
  readonly cacheOwner?: CacheOwner | undefined
  readonly cacheIo?: CacheIo | undefined
}

export interface ObtainOptions { readonly signal: AbortSignal; readonly prefetch?: boolean }

/** Chunks that are fetched together. */
interface Group { readonly indices: readonly number[]; readonly lane: Lane }

/** What became of the chunks of a group: their bytes, or why there are none. A chunk that is missing is ready in the cache file. */
type Filled = Map<number, Uint8Array | Error>

/** LIMIT: bytes read rather than skipped between two chunks: less than a round trip costs on any link that matters. */
const MAX_GAP = 64 * KiB
/** LIMIT: `obtain` looks again this often when a chunk that somebody else fetched is gone again before it could be read. */
const MAX_ROUNDS = 3

/** One blob of an opened image: chunk information, cache, and the fetching of what is missing. */
export class ImageBlob {
  readonly record: BlobRecord
  /** Undefined when nothing can be stored. */
  readonly cache: BlobCache | undefined
  readonly #options: ImageBlobOptions
  readonly #flights = new SingleFlight<unknown, Filled>()
  readonly #loads = new SingleFlight<string, void>()
  readonly #groups = new Map<number, Group>()
  #layout: ChunkInfoArray | undefined
  /** The writing of the cached chunk information; never rejects. */
  #metaWritten: Promise<void> | undefined
  #evidence: Evidence | undefined
  #hasInlined = false

  /** Opens the cache files; never touches the backend. */
  constructor(options: ImageBlobOptions) {
    const { view, blobIndex, cacheDirectory, cacheLimits, cacheOwner, metrics, cacheIo } = options
    const record = view.blobs[blobIndex]!
    this.record = record
    this.#options = options
    this.cache = cacheDirectory === undefined ? undefined : BlobCache.open({
      directory: cacheDirectory, blobId: record.blobId, chunkCount: record.entry.chunkCount, size: record.entry.uncompressedSize, 
      ...(cacheLimits && { limits: cacheLimits }), ...(cacheOwner && { owner: cacheOwner }), ...(cacheIo && { io: cacheIo }),
    })
    if (this.cache !== undefined) metrics.underlyingFiles.add(`${record.blobId}.blob.data`)
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
  async obtain(places: readonly ChunkPlace[], { signal, prefetch = false }: ObtainOptions): Promise<ReadonlyMap<number, Uint8Array>> {
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

  async close(): Promise<void> {
    await this.#metaWritten
    await this.cache?.close()
  }

  #check({ index, offset, size }: ChunkPlace, layout: ChunkInfoArray): void {
    if (index < layout.count && layout.uncompressedOffset(index) === offset && layout.uncompressedSize(index) === size) return
    throw new CodedError('FORMAT_INVALID', `a file says that chunk ${index} of blob ${this.record.blobId} has ${size} bytes at ${offset}; the blob says otherwise`, { blobId: this.record.blobId, chunk: index, offset, size })
  }

  async #obtainMissing(missing: readonly ChunkPlace[], bytes: Map<number, Uint8Array>, { signal, prefetch }: Required<ObtainOptions>): Promise<void> {
    signal.throwIfAborted() // from here to the flights nothing is awaited: a group that is registered must be flying
    const wanted: number[] = []
    for (const { index } of missing) {
      const kept = this.#options.memory.get(this.#memoryKey(index))
      if (kept === undefined) wanted.push(index)
      else bytes.set(index, kept)
    }
    const groups = this.#groupsFor([...new Set(wanted)].sort((a, b) => a - b), prefetch)
    const flights = await Promise.allSettled(groups.map((group) => this.#flights.run(group, (shared) => this.#fill(group, shared), signal)))
    const filled = flights.map((flight) => {
      if (flight.status === 'rejected') throw flight.reason
      return flight.value
    })
    for (const index of wanted) {
      const found = filled.map((group) => group.get(index)).find((result) => result !== undefined)
      if (found instanceof Error) throw found
      if (found !== undefined) bytes.set(index, found)
    }
  }

  /** Groups that fetch `wanted` (ascending, distinct), some of which may be under way. */
  #groupsFor(wanted: readonly number[], prefetch: boolean): Group[] {
    const groups = new Set<Group>()
    for (let at = 0; at < wanted.length;) {
      const running = this.#groups.get(wanted[at]!)
      if (running !== undefined) {
        if (!prefetch) this.#options.scheduler.promote(running.lane)
        groups.add(running)
        at++
        continue
      }
      let end = at
      while (end < wanted.length && !this.#groups.has(wanted[end]!)) end++
      for (const indices of this.#extended(wanted.slice(at, end))) {
        const group: Group = { indices, lane: { prefetch } }
        for (const index of indices) if (!this.#groups.has(index)) this.#groups.set(index, group)
        groups.add(group)
      }
      at = end
    }
    return [...groups]
  }

  /** `wanted` with what is worth having with it: one list per request, and one of what only has to be looked at in the cache file. */
  #extended(wanted: readonly number[]): number[][] {
    const layout = this.#layout!
    const isDurable = (index: number) => this.cache?.isDurable(index) ?? false
    const isFree = (index: number) => !this.#groups.has(index) && !this.isReady(placeOf(layout, index)) && (this.#evidence?.covers(index) ?? true)
    // without a cache, what nobody asked for would be thrown away
    const limit = this.cache === undefined ? 0 : this.#options.amplifyBytes
    const fetched = amplified(layout, wanted.filter((index) => !isDurable(index)), { limit, accept: (index) => isFree(index) && !isDurable(index) })
    const groups = this.#ranges(fetched).map(({ units }) => units.flatMap(({ chunks }) => chunks))
    const durable = wanted.filter(isDurable)
    return durable.length === 0 ? groups : [...groups, amplified(layout, durable, { limit: CONFIRM_BYTES, accept: (index) => isFree(index) && isDurable(index) })]
  }

  #ranges(indices: readonly number[]): Range[] {
    return rangesOf(unitsOf(this.#layout!, indices), { maxGap: MAX_GAP, maxLength: Math.max(this.#options.amplifyBytes, this.#options.view.chunkSize) })
  }

  async #fill(group: Group, signal: AbortSignal): Promise<Filled> {
    // before the fetch dies: the next reader must not join it
    const leave = () => { for (const index of group.indices) if (this.#groups.get(index) === group) this.#groups.delete(index) }
    signal.addEventListener('abort', leave, { once: true })
    try {
      const filled: Filled = new Map()
      let todo = await this.#confirmDurable(group.indices, filled)
      while (todo.length > 0) {
        const wanted = todo
        // claimed only when it is our turn: a prefetch that queues here must not keep a reader in another process waiting
        const others = await this.#options.scheduler.run(() => this.#fetchUnclaimed(wanted, group, filled, signal), { lane: group.lane, signal })
        await this.cache?.waitForOthers(others.map((index) => placeOf(this.#layout!, index)), { signal })
        todo = others.filter((index) => !this.#isChunkReady(index))
      }
      return filled
    } finally {
      leave()
    }
  }

  #isChunkReady(index: number): boolean {
    return this.isReady(placeOf(this.#layout!, index))
  }

  /** Verifies chunks that the cache file should have from an earlier time; returns those that it does not have. */
  async #confirmDurable(indices: readonly number[], filled: Filled): Promise<number[]> {
    const { cache } = this
    if (cache === undefined) return [...indices]
    const places = indices.map((index) => placeOf(this.#layout!, index)).filter((place) => !this.isReady(place))
    const { intact, wrong } = await confirm(cache, places.filter(({ index }) => cache.isDurable(index)), this.#evidence)
    for (const index of wrong) {
      this.#reportCorrupt(index, 'cache')
      cache.drop(index)
    }
    for (const place of places) {
      const bytes = intact.get(place.index)
      if (bytes === undefined) continue
      cache.confirm(place)
      this.#options.metrics.entriesCount++
      filled.set(place.index, bytes)
    }
    return places.filter(({ index }) => !intact.has(index)).map(({ index }) => index)
  }

  /** Fetches those of `indices` that nobody else fetches; returns the others. */
  async #fetchUnclaimed(indices: readonly number[], group: Group, filled: Filled, signal: AbortSignal): Promise<number[]> {
    const { mine, others } = this.cache?.claim(indices) ?? { mine: indices, others: [] }
    try {
      // somebody may have finished between the look and the claim
      const ranges = this.#ranges(mine.filter((index) => !this.#isChunkReady(index)))
      await Promise.all(ranges.map((range) => this.#fetchRange(range, group, filled, signal)))
    } finally {
      this.cache?.release(mine)
    }
    return others
  }

  async #fetchRange(range: Range, group: Group, filled: Filled, signal: AbortSignal): Promise<void> {
    try {
      const first = await this.#readRange(range, group, signal)
      await this.#keep(first, filled)
      if (first.wrong.size === 0) return
      // once more, for what was wrong: a proxy or a disk may have had a bad moment
      for (const index of first.wrong) this.#reportCorrupt(index, 'backend')
      for (const again of this.#ranges([...first.wrong])) {
        const second = await this.#readRange(again, group, signal)
        await this.#keep(second, filled)
        for (const index of second.wrong) filled.set(index, this.#mismatch(index))
      }
    } catch (error) {
      if (!isCoded(error)) throw error
      // a blob that ends early still has what lies before its end
      if (hasCode(error, 'STORAGE_SHORT_READ') && range.units.length > 1) {
        for (const unit of range.units) await this.#fetchRange({ offset: unit.offset, length: unit.size, units: [unit] }, group, filled, signal)
      } else {
        for (const index of range.units.flatMap(({ chunks }) => chunks)) if (!filled.has(index)) filled.set(index, error)
      }
    }
  }

  async #readRange(range: Range, { lane }: Group, signal: AbortSignal): Promise<Decoded> {
    const stored = await this.#options.reader.read(range.offset, range.length, { signal, prefetch: lane.prefetch })
    return decodeRange(stored, range, { layout: this.#layout!, compressor: compressorNumber(this.record.compressor), evidence: this.#evidence })
  }

  async #keep({ chunks, runs }: Decoded, filled: Filled): Promise<void> {
    const { metrics, memory } = this.#options
    const size = runs.reduce((sum, { bytes }) => sum + bytes.length, 0)
    metrics.bufferedBackendSize += size
    const stored = await this.cache?.store(runs) ?? false
    metrics.bufferedBackendSize -= size
    if (stored) metrics.entriesCount += chunks.size
    for (const [index, bytes] of chunks) {
      if (!stored) memory.set(this.#memoryKey(index), bytes)
      filled.set(index, bytes)
    }
  }

  async #loadLayout(signal: AbortSignal): Promise<void> {
    const { view, blobIndex, reader, cacheDirectory, verify } = this.#options
    const cacheFile = cacheDirectory === undefined ? undefined : cacheNames(cacheDirectory, this.record.blobId).meta
    const layout = await loadChunkInfo({ view, blobIndex, reader, cacheFile, inBackground: (work) => { this.#metaWritten = work } }, { signal })
    this.#evidence = verify === false ? undefined : new Evidence(view, blobIndex, layout, { lenient: verify === 'where-possible' })
    this.#layout = layout
  }

  async #loadDigests(signal: AbortSignal): Promise<void> {
    const digests = await loadInlinedDigests(this.record, this.#options.reader, { signal })
    if (digests !== undefined) this.#evidence?.addInlined(digests)
    this.#hasInlined = true
  }

  #reportCorrupt(index: number, source: 'backend' | 'cache'): void {
    this.#options.metrics.corruptChunks++
    publish('storage:chunk:corrupt', { blobId: this.record.blobId, index, source })
  }

  #mismatch(index: number): CodedError {
    return new CodedError('STORAGE_DIGEST_MISMATCH', `chunk ${index} of blob ${this.record.blobId} is not what the image says`, { blobId: this.record.blobId, chunk: index })
  }

  #memoryKey(index: number): string {
    return `${this.record.index}:${index}`
  }
}

function placeOf(layout: ChunkInfoArray, index: number): ChunkPlace {
  return { index, offset: layout.uncompressedOffset(index), size: layout.uncompressedSize(index) }
}
