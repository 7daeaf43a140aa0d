// Prefetch: chunks that will be wanted soon, fetched before they are. What goes first: a list of files given by the user, else the image's own table;
// then, if asked, everything; then, if asked, what failed or was left out, again and again, until the network is no longer needed.
// SPEC: spec-surface.md B.3 prefetch; spec-rafs.md A.10.

import { setImmediate as breathe, setTimeout as delay } from 'node:timers/promises'
import { isCoded } from '../core/errors.ts'
import { KiB, MiB } from '../core/units.ts'
import type { ChunkPlace, PrefetchConfig } from '../storage/index.ts'
import type { RafsImage } from './image.ts'
import { type ListedChunk, listedChunks, tableItems } from './prefetch-order.ts'
import type { PrefetchItem } from './prefetch-list.ts'

export interface PrefetchOptions {
  readonly config: Pick<PrefetchConfig, 'threads' | 'batchSize' | 'bandwidthLimit' | 'prefetchAll'> & Partial<Pick<PrefetchConfig, 'streamPrefetch' | 'backgroundDownload'>>
  /** Instead of the image's table. Files that do not exist are skipped. */
  readonly files?: readonly PrefetchItem[] | undefined
  readonly signal: AbortSignal
}

/** Neighbouring chunks of one blob: one request. */
interface Batch { readonly blobIndex: number; readonly places: readonly ChunkPlace[]; readonly bytes: number; readonly isListed: boolean }

/** LIMIT: after so many failures in a row the backend is down, and readers need it more. */
const MAX_FAILURES = 8
/** LIMIT: bytes of a request for listed chunks: more would hold up those that are wanted next on a slow line. */
const LEAST_RUN = 512 * KiB
const LONGEST_RUN = 2 * MiB
const LEAST_WORKERS = 3
/** LIMIT: `stream_prefetch` reads blobs from their beginning to their end in requests of so many decompressed bytes, one being asked for while one arrives. */
const STREAM_BATCH = 32 * MiB
const STREAM_WORKERS = 2
/** LIMIT: pause before what is missing is asked for again, doubled each time: a backend that is down for hours is not bothered. */
const FIRST_RETRY_MS = 5000
const LAST_RETRY_MS = 5 * 60_000

/** Resolves when everything was tried: a prefetch that fails costs nothing but speed. Rejects with `signal.reason` on abort. */
export async function prefetchImage(image: RafsImage, { config, files, signal }: PrefetchOptions): Promise<void> {
  const work = new Prefetch(image, config, signal)
  const items = files ?? tableItems(image.view)
  const isWholeImage = files === undefined && items === 'everything'
  if (items !== 'everything') await work.list(listedChunks(image.view, items))
  if (config.prefetchAll || isWholeImage) await work.rest()
  if (config.backgroundDownload) await work.complete()
  image.cacheMetrics.dataAllReady = image.blobs.every((blob) => blob.isComplete())
}

class Prefetch {
  readonly #image: RafsImage
  readonly #config: PrefetchOptions['config']
  readonly #signal: AbortSignal
  readonly #pace: Pace

  constructor(image: RafsImage, config: PrefetchOptions['config'], signal: AbortSignal) {
    this.#image = image
    this.#config = config
    this.#signal = signal
    this.#pace = new Pace(config.bandwidthLimit)
  }

  /** Fetches listed chunks: what is wanted first first, beside readers. */
  async list(chunks: Iterable<ListedChunk>): Promise<void> {
    const { blobs, link } = this.#image
    const byBlob = new Map<number, Map<number, ChunkPlace>>()
    const order = new Map<string, number>()
    for (const { blobIndex, place } of chunks) {
      if (this.#isHere(blobIndex, place)) continue
      const places = byBlob.get(blobIndex) ?? new Map<number, ChunkPlace>()
      byBlob.set(blobIndex, places.set(place.index, place))
      if (!order.has(`${blobIndex}:${place.index}`)) order.set(`${blobIndex}:${place.index}`, order.size)
      if (order.size % 1000 === 0) await breathe() // readers go first
    }
    const maxLength = Math.min(LONGEST_RUN, Math.max(LEAST_RUN, 2 * link.roundTripBytes))
    const batches: (Batch & { readonly rank: number })[] = []
    for (const [blobIndex, places] of byBlob) {
      const runs = await this.#orNothing(blobs[blobIndex]!.expect([...places.keys()], { signal: this.#signal, maxLength }), [])
      for (const run of runs) {
        const wanted = run.map((index) => places.get(index)!)
        batches.push({ blobIndex, places: wanted, bytes: sizeOf(wanted), isListed: true, rank: Math.min(...run.map((index) => order.get(`${blobIndex}:${index}`)!)) })
      }
    }
    // no more at once than fill the line: what is wanted first must not share it with what is wanted last
    await this.#run(batches.sort((a, b) => a.rank - b.rank), Math.max(LEAST_WORKERS, Math.ceil(link.fullLine / maxLength)))
    for (const blobIndex of byBlob.keys()) await blobs[blobIndex]!.expect(undefined, { signal: this.#signal, maxLength })
  }

  /** Fetches all chunks that are not here, in stored order, while nobody reads. */
  async rest(): Promise<void> {
    await this.#run(this.#missing(), this.#config.streamPrefetch ? STREAM_WORKERS : undefined)
  }

  /** The same until nothing is missing. */
  async complete(): Promise<void> {
    const { blobs } = this.#image
    for (let pause = FIRST_RETRY_MS; ; pause = Math.min(LAST_RETRY_MS, pause * 2)) {
      await this.rest()
      if (blobs.every((blob) => blob.isComplete() || blob.cache === undefined)) return
      await delay(pause, undefined, { signal: this.#signal, ref: false })
    }
  }

  async* #missing(): AsyncGenerator<Batch> {
    const { batchSize, streamPrefetch } = this.#config
    const limit = streamPrefetch ? STREAM_BATCH : batchSize
    for (const [blobIndex, blob] of this.#image.blobs.entries()) {
      let open: ChunkPlace[] = []
      let bytes = 0
      for (const place of await this.#orNothing(blob.allPlaces({ signal: this.#signal }), [])) {
        if (this.#isHere(blobIndex, place)) continue
        if (open.length > 0 && bytes + place.size > limit) {
          yield { blobIndex, places: open, bytes, isListed: false }
          open = []
          bytes = 0
        }
        open.push(place)
        bytes += place.size
      }
      if (open.length > 0) yield { blobIndex, places: open, bytes, isListed: false }
    }
  }

  async #run(source: Iterable<Batch> | AsyncIterable<Batch>, most = this.#config.threads): Promise<void> {
    const { cacheMetrics } = this.#image
    const workers = Math.min(most, this.#config.threads)
    // one iterator for all workers: each takes the next batch
    const batches = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
    const state = { failures: 0 }
    cacheMetrics.prefetchBeginMs ||= Date.now()
    cacheMetrics.prefetchWorkers += workers
    try {
      await Promise.all(Array.from({ length: workers }, () => this.#work(batches, state)))
    } finally {
      cacheMetrics.prefetchWorkers -= workers
      cacheMetrics.prefetchEndMs = Date.now()
    }
  }

  async #work(batches: Iterator<Batch> | AsyncIterator<Batch>, state: { failures: number }): Promise<void> {
    const { cacheMetrics } = this.#image
    while (state.failures < MAX_FAILURES) {
      const { value: batch, done } = await batches.next()
      if (done) return
      await this.#pace.wait(batch.bytes, this.#signal)
      const begin = performance.now()
      try {
        await this.#image.prefetch(batch.blobIndex, batch.places, { signal: this.#signal, isListed: batch.isListed })
        state.failures = 0
        cacheMetrics.prefetchDataAmount += batch.bytes
        cacheMetrics.prefetchUnmergedChunks += batch.places.length
      } catch (error) {
        this.#signal.throwIfAborted()
        if (!isCoded(error)) throw error
        state.failures++ // the backend said so itself, as an event
      }
      cacheMetrics.prefetchRequestsCount++
      cacheMetrics.prefetchCumulativeMs += performance.now() - begin
    }
  }

  /** What is durable needs no backend: its first reader verifies it. */
  #isHere(blobIndex: number, place: ChunkPlace): boolean {
    const blob = this.#image.blobs[blobIndex]!
    return blob.isReady(place) || (blob.cache?.isDurable(place.index) ?? false)
  }

  async #orNothing<T>(promise: Promise<T>, nothing: T): Promise<T> {
    return await promise.catch((error: unknown) => {
      this.#signal.throwIfAborted()
      if (isCoded(error)) return nothing // whoever reads hears of it
      throw error
    })
  }
}

function sizeOf(places: readonly ChunkPlace[]): number {
  return places.reduce((sum, { size }) => sum + size, 0)
}

/** Spreads requests of all workers so that they take no more than a number of bytes a second. */
class Pace {
  readonly #bytesPerSecond: number
  #freeAt = 0

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond
  }

  async wait(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.#bytesPerSecond === 0) return
    const now = performance.now()
    const start = Math.max(now, this.#freeAt)
    this.#freeAt = start + bytes / this.#bytesPerSecond * 1000
    if (start > now) await delay(start - now, undefined, { signal })
  }
}
