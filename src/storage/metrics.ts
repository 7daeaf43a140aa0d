// Counters of backends and blob caches, in the shape of the daemon's metrics API. Plain non-negative integers: Go decodes them as uint64.
// SPEC: spec-surface.md F.1; nydus utils/src/metrics.rs.

/** Upper bounds (exclusive, bytes) of the request size buckets; the eighth bucket is open. */
const SIZE_BOUNDS = [1, 4, 16, 64, 128, 512, 1024].map((kib) => kib * 1024)
/** Upper bounds (inclusive, milliseconds) of the latency buckets; the eighth bucket is open. */
const LATENCY_BOUNDS_MS = [1, 20, 50, 100, 500, 1000, 2000]

/** Bucket 0..7 of a request of `bytes` bytes: <1K, <4K, <16K, <64K, <128K, <512K, <1M, >=1M. */
export function sizeBucket(bytes: number): number {
  const at = SIZE_BOUNDS.findIndex((bound) => bytes < bound)
  return at < 0 ? SIZE_BOUNDS.length : at
}

const zeros = (count: number): number[] => new Array<number>(count).fill(0)

/** One finished (or failed) read of a backend. */
export interface BackendRead { readonly bytes: number; readonly durationMs: number; readonly failed: boolean }

/** What `GET /api/v1/metrics/backend` reports. Every attempt counts, a retried read more than once: these are the server's requests. */
export class BackendMetrics {
  readonly type: string
  readCount = 0
  readErrors = 0
  readAmountTotal = 0
  readLatencyMsTotal = 0
  readonly readLatencyMsBySize = zeros(8)
  readonly readCountBySize = zeros(8)
  readonly readCountBySizeAndLatency = Array.from({ length: 8 }, () => zeros(8))

  constructor(type: string) {
    this.type = type
  }

  record({ bytes, durationMs, failed }: BackendRead): void {
    const millis = Math.max(0, Math.floor(durationMs))
    const size = sizeBucket(bytes)
    const found = LATENCY_BOUNDS_MS.findIndex((bound) => millis <= bound)
    this.readCount++
    if (failed) this.readErrors++
    this.readAmountTotal += bytes
    this.readLatencyMsTotal += millis
    this.readLatencyMsBySize[size]! += millis
    this.readCountBySize[size]!++
    this.readCountBySizeAndLatency[size]![found < 0 ? LATENCY_BOUNDS_MS.length : found]!++
  }

  toJSON(): object {
    return {
      backend_type: this.type,
      read_count: this.readCount,
      read_errors: this.readErrors,
      read_amount_total: this.readAmountTotal,
      read_cumulative_latency_millis_total: this.readLatencyMsTotal,
      read_cumulative_latency_millis_dist: this.readLatencyMsBySize,
      read_count_block_size_dist: this.readCountBySize,
      read_latency_sizes_dist: this.readCountBySizeAndLatency,
    }
  }
}

/** What `GET /api/v1/metrics/blobcache` reports, plus counters of our own that the API does not show. */
export class BlobcacheMetrics {
  readonly storePath: string
  /** Names (`<id>.blob.data`) in `storePath`; the snapshotter postpones its garbage collection while this is empty. */
  readonly underlyingFiles = new Set<string>()
  /** Reads that found some of their chunks ready. */
  partialHits = 0
  /** Reads that found all of their chunks ready. */
  wholeHits = 0
  /** Reads. */
  total = 0
  /** Chunks that became ready through this process. */
  entriesCount = 0
  prefetchDataAmount = 0
  prefetchRequestsCount = 0
  prefetchWorkers = 0
  prefetchUnmergedChunks = 0
  prefetchCumulativeMs = 0
  /** Milliseconds since the epoch; 0 while no prefetch began or ended. */
  prefetchBeginMs = 0
  prefetchEndMs = 0
  /** Bytes fetched and held in memory that are not in a cache file yet. */
  bufferedBackendSize = 0
  dataAllReady = false
  /** Chunks that did not hash to their digest, from a cache file or from a backend. */
  corruptChunks = 0

  constructor(storePath: string) {
    this.storePath = storePath
  }

  /** Counts one read of `wanted` chunks of which `ready` needed no backend. */
  countRead(ready: number, wanted: number): void {
    this.total++
    if (ready === wanted) this.wholeHits++
    else if (ready > 0) this.partialHits++
  }

  toJSON(): object {
    return {
      underlying_files: [...this.underlyingFiles],
      store_path: this.storePath,
      partial_hits: this.partialHits,
      whole_hits: this.wholeHits,
      total: this.total,
      entries_count: this.entriesCount,
      prefetch_data_amount: this.prefetchDataAmount,
      prefetch_requests_count: this.prefetchRequestsCount,
      prefetch_workers: this.prefetchWorkers,
      prefetch_unmerged_chunks: this.prefetchUnmergedChunks,
      prefetch_cumulative_time_millis: Math.floor(this.prefetchCumulativeMs),
      prefetch_begin_time_secs: Math.floor(this.prefetchBeginMs / 1000),
      prefetch_begin_time_millis: this.prefetchBeginMs % 1000,
      prefetch_end_time_secs: Math.floor(this.prefetchEndMs / 1000),
      prefetch_end_time_millis: this.prefetchEndMs % 1000,
      buffered_backend_size: this.bufferedBackendSize,
      data_all_ready: this.dataAllReady,
    }
  }
}
