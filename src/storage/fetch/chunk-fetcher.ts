// Gets the chunks of a flight: those that the cache file has from an earlier time are verified, the others fetched, by us or by whoever has claimed
// them, verified, stored, and landed one unit after the other while the range still arrives.

import { publish } from '../../core/diagnostics.ts'
import { CodedError, hasCode, isCoded } from '../../core/errors.ts'
import type { BufferPool } from '../../core/buffer-pool.ts'
import type { ChunkInfoArray } from '../../format/blob/chunk-info-array.ts'
import type { BlobRecord } from '../../format/rafs-v6/bootstrap-view.ts'
import type { BlobReader, ReadOptions } from '../backend/backend.ts'
import { compressorNumber } from '../blob-meta.ts'
import type { BlobCache, ChunkPlace } from '../cache/blob-cache.ts'
import { confirm } from '../cache/confirm.ts'
import type { BlobcacheMetrics } from '../metrics.ts'
import { Arriving } from './arriving.ts'
import { decodeRange, type Decoded } from './decode.ts'
import type { Evidence } from './evidence.ts'
import type { Flight } from './flight.ts'
import { hedgedRead, type HedgeOptions } from './hedge.ts'
import { rangesOf, unitsOf, type Range } from './plan.ts'
import type { Scheduler } from './scheduler.ts'

export interface ChunkSource {
  readonly record: BlobRecord
  readonly layout: ChunkInfoArray
  /** Undefined when nothing is verified. */
  readonly evidence: Evidence | undefined
  readonly reader: BlobReader
  readonly hedge: HedgeOptions
  readonly cache: BlobCache | undefined
  readonly scheduler: Scheduler
  readonly pool: BufferPool
  readonly metrics: BlobcacheMetrics
  /** Of one request, bytes as stored and decompressed; a larger unit is read alone. */
  readonly maxLength: number
  readonly maxSize: number
  /** Takes a copy of a chunk that could not be stored. */
  readonly remember: (index: number, bytes: Uint8Array) => void
}

/** Fetches for the flights of one blob. */
export class ChunkFetcher {
  readonly #source: ChunkSource

  constructor(source: ChunkSource) {
    this.#source = source
  }

  /** Lands all chunks of `flight`, each with its bytes, its error, or, when somebody else has stored it, with nothing. */
  async fetch(flight: Flight, signal: AbortSignal): Promise<void> {
    const { cache, scheduler } = this.#source
    let todo = await this.#confirmDurable(flight)
    while (todo.length > 0) {
      const wanted = todo
      // claimed only when it is our turn: a prefetch that queues here must not keep a reader in another process waiting
      const others = await scheduler.run(() => this.#fetchUnclaimed(wanted, flight, signal), { lane: flight.lane, signal })
      await cache?.waitForOthers(others.map((index) => this.#placeOf(index)), { signal })
      todo = others.filter((index) => !this.#isReady(index))
    }
  }

  /** Requests for `indices` (ascending), as few as the limits allow. */
  ranges(indices: readonly number[]): Range[] {
    const { layout, hedge, maxLength, maxSize } = this.#source
    return rangesOf(unitsOf(layout, indices), { maxGap: hedge.link.gap, maxLength, maxSize })
  }

  #placeOf(index: number): ChunkPlace {
    const { layout } = this.#source
    return { index, offset: layout.uncompressedOffset(index), size: layout.uncompressedSize(index) }
  }

  #isReady(index: number): boolean {
    return this.#source.cache?.isReady(this.#placeOf(index)) ?? false
  }

  /** Verifies chunks that the cache file should have from an earlier time; returns those that it does not have. */
  async #confirmDurable(flight: Flight): Promise<readonly number[]> {
    const { cache, evidence, metrics } = this.#source
    if (cache === undefined) return flight.indices
    const places = flight.indices.map((index) => this.#placeOf(index)).filter((place) => !cache.isReady(place))
    const durable = places.filter(({ index }) => cache.isDurable(index))
    if (durable.length === 0) return places.map(({ index }) => index)
    const { intact, wrong } = await confirm(cache, durable, evidence)
    for (const index of wrong) {
      this.#reportCorrupt(index, 'cache')
      cache.drop(index)
    }
    for (const place of places) {
      if (!intact.has(place.index)) continue
      cache.confirm(place)
      metrics.entriesCount++
      flight.land(place.index, undefined)
    }
    return places.filter(({ index }) => !intact.has(index)).map(({ index }) => index)
  }

  /** Fetches those of `indices` that nobody else fetches; returns the others. */
  async #fetchUnclaimed(indices: readonly number[], flight: Flight, signal: AbortSignal): Promise<number[]> {
    const { cache } = this.#source
    const { mine, others } = cache?.claim(indices) ?? { mine: indices, others: [] }
    try {
      // somebody may have finished between the look and the claim
      const ranges = this.ranges(mine.filter((index) => !this.#isReady(index)))
      await Promise.all(ranges.map((range) => this.#fetchRange(range, flight, signal)))
    } finally {
      cache?.release(mine)
    }
    return others
  }

  async #fetchRange(range: Range, flight: Flight, signal: AbortSignal): Promise<void> {
    try {
      const wrong = await this.#readRange(range, flight, { signal })
      if (wrong.length === 0) return
      // once more, for what was wrong: a proxy or a disk may have had a bad moment
      for (const index of wrong) this.#reportCorrupt(index, 'backend')
      for (const again of this.ranges(wrong)) {
        for (const index of await this.#readRange(again, flight, { signal, afterWrong: true })) flight.land(index, this.#mismatch(index))
      }
    } catch (error) {
      if (!isCoded(error)) throw error
      const left = range.units.filter(({ chunks }) => chunks.some((index) => flight.isPending(index)))
      // a blob that ends early still has what lies before its end
      if (hasCode(error, 'STORAGE_SHORT_READ') && range.units.length > 1) {
        for (const unit of left) await this.#fetchRange({ offset: unit.offset, length: unit.size, units: [unit] }, flight, signal)
      } else {
        for (const index of left.flatMap(({ chunks }) => chunks)) flight.land(index, error)
      }
    }
  }

  /** Reads, decodes and stores; returns the chunks that came wrong. */
  async #readRange(range: Range, flight: Flight, options: Pick<ReadOptions, 'signal' | 'afterWrong'>): Promise<number[]> {
    const { reader, hedge, scheduler, layout, evidence, record, pool } = this.#source
    const compressor = compressorNumber(record.compressor)
    const wrong: number[] = []
    const arriving = new Arriving(range, async (buffer, units) => {
      const decoded = await decodeRange(buffer, { ...range, units }, { layout, compressor, evidence, pool })
      await this.#keep(decoded, flight)
      pool.give(decoded.buffer)
      wrong.push(...decoded.wrong)
    })
    const loan = pool.lend()
    try {
      const { lane } = flight
      const stored = await hedgedRead(reader, {
        ...hedge, allocate: loan.allocate, offset: range.offset, length: range.length, ...options, prefetch: lane.readers === 0, isWanted: () => lane.readers > 0,
        progress: (buffer, filled) => {
          arriving.take(buffer, filled)
          return scheduler.pause(lane)
        },
      })
      await arriving.finish(stored)
      loan.giveBack(stored)
    } finally {
      await arriving.settle()
    }
    return wrong.sort((a, b) => a - b)
  }

  async #keep({ buffer, chunks, runs }: Decoded, flight: Flight): Promise<void> {
    const { metrics, cache, remember } = this.#source
    const size = runs.reduce((sum, { bytes }) => sum + bytes.length, 0)
    metrics.bufferedBackendSize += size
    const stored = await cache?.store(runs) ?? false
    metrics.bufferedBackendSize -= size
    if (stored) metrics.entriesCount += chunks.length
    for (const { index, offset, size } of chunks) {
      // who waits reads what is in the cache file from there: a chunk of which 128 KiB are wanted is not copied for them
      if (stored && this.#isReady(index)) { flight.land(index, undefined); continue }
      const bytes = buffer.subarray(offset, offset + size)
      if (!stored) remember(index, bytes)
      flight.land(index, bytes)
    }
  }

  #reportCorrupt(index: number, source: 'backend' | 'cache'): void {
    this.#source.metrics.corruptChunks++
    publish('storage:chunk:corrupt', { blobId: this.#source.record.blobId, index, source })
  }

  #mismatch(index: number): CodedError {
    const { blobId } = this.#source.record
    return new CodedError('STORAGE_DIGEST_MISMATCH', `chunk ${index} of blob ${blobId} is not what the image says`, { blobId, chunk: index })
  }
}
