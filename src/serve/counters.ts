// Counters of file system operations. Each thread writes its own block of shared memory, the API adds them up: no lock, no message.
// SPEC: spec-surface.md F.1 FsIoStats; nydus utils/src/metrics.rs.

import { KiB, MiB } from '../core/units.ts'
import { FUSE_OP, FUSE_OP_LIMIT } from '../wire/fuse/opcode.ts'

/** Operations in the order of `fop_hits` and its siblings. */
export const FOPS = [FUSE_OP.GETATTR, FUSE_OP.READLINK, FUSE_OP.OPEN, FUSE_OP.RELEASE, FUSE_OP.READ, FUSE_OP.STATFS, FUSE_OP.GETXATTR, FUSE_OP.LISTXATTR,
  FUSE_OP.OPENDIR, FUSE_OP.LOOKUP, FUSE_OP.READDIR, FUSE_OP.READDIRPLUS, FUSE_OP.ACCESS, FUSE_OP.FORGET, FUSE_OP.BATCH_FORGET]
/** Upper bounds (exclusive) of the read size buckets, bytes; the last is open. */
const SIZE_BOUNDS = [KiB, 4 * KiB, 16 * KiB, 64 * KiB, 128 * KiB, 512 * KiB, MiB]
/** Upper bounds (exclusive) of the read latency buckets, microseconds; the last is open. */
const LATENCY_BOUNDS = [200, 1000, 20_000, 50_000, 500_000, 1_000_000, 2_000_000]
const BUCKETS = 8
/** Numbers of read size buckets. */
export const SIZE_BUCKETS = BUCKETS

const FOP_OF = new Int8Array(FUSE_OP_LIMIT).fill(-1)
FOPS.forEach((op, i) => { FOP_OF[op] = i })

// Layout of one thread's block, in numbers.
const HITS = 0
const ERRORS = HITS + FOPS.length
const LATENCY = ERRORS + FOPS.length
const READ_SIZES = LATENCY + FOPS.length
const READ_LATENCIES = READ_SIZES + BUCKETS
const DATA_READ = READ_LATENCIES + BUCKETS
const OPENS = DATA_READ + 1
const RELEASES = OPENS + 1
/** Reads that were answered from cache files without asking anybody. */
const CACHE_HITS = RELEASES + 1
/** Not 0: single requests are told, too (access/access-log.ts). Set by the main thread. */
const WATCHED = CACHE_HITS + 1
const BLOCK = WATCHED + 1

/** Shared memory for the counters of `threads` threads. */
export function createCounterMemory(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(threads * BLOCK * Float64Array.BYTES_PER_ELEMENT)
}

/** The counters that one thread writes. */
export class OperationCounters {
  readonly #numbers: Float64Array

  constructor(memory: SharedArrayBuffer, thread: number) {
    this.#numbers = new Float64Array(memory, thread * BLOCK * Float64Array.BYTES_PER_ELEMENT, BLOCK)
  }

  /** Whether the mount's requests are to be told one by one. */
  get isWatched(): boolean {
    return this.#numbers[WATCHED] !== 0
  }

  set isWatched(isWatched: boolean) {
    this.#numbers[WATCHED] = isWatched ? 1 : 0
  }

  /** One read whose bytes all were in cache files; it is recorded as an operation too. */
  cacheHit(): void {
    this.#numbers[CACHE_HITS]!++
  }

  /** One finished operation. `bytes` counts for successful reads. */
  record(opcode: number, errno: number, durationMs: number, bytes: number): void {
    const fop = opcode < FUSE_OP_LIMIT ? FOP_OF[opcode]! : -1
    if (fop < 0) return
    const n = this.#numbers
    const micros = durationMs * 1000
    n[HITS + fop]!++
    n[LATENCY + fop]! += micros
    if (errno !== 0) n[ERRORS + fop]!++
    else if (opcode === FUSE_OP.READ) {
      n[DATA_READ]! += bytes
      n[READ_SIZES + bucket(SIZE_BOUNDS, bytes)]!++
      n[READ_LATENCIES + bucket(LATENCY_BOUNDS, micros)]!++
    } else if (opcode === FUSE_OP.OPEN) n[OPENS]!++
    else if (opcode === FUSE_OP.RELEASE) n[RELEASES]!++
  }
}

/** Reads that found everything in the cache and never left their thread. */
export function cacheHits(memory: SharedArrayBuffer): number {
  return summed(memory)(CACHE_HITS)
}

/** SPEC: spec-surface.md F.1. */
export interface FsIoStats {
  readonly files_account_enabled: boolean
  readonly access_pattern_enabled: boolean
  readonly record_latest_read_files_enabled: boolean
  readonly measure_latency: boolean
  readonly id: string
  readonly nr_opens: number
  readonly data_read: number
  readonly block_count_read: readonly number[]
  readonly fop_hits: readonly number[]
  readonly fop_errors: readonly number[]
  /** Microseconds. */
  readonly fop_cumulative_latency_total: readonly number[]
  readonly read_latency_dist: readonly number[]
}

/** Sum over all threads as `GET /api/v1/metrics` prints it. `nr_opens` stays 0 where the kernel opens without asking (connection.ts). */
export function fsIoStats(memory: SharedArrayBuffer, id: string, watched?: { readonly files: boolean; readonly pattern: boolean; readonly latest: boolean }): FsIoStats {
  const sum = summed(memory)
  const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => sum(from + i))
  return {
    files_account_enabled: watched?.files ?? false,
    access_pattern_enabled: watched?.pattern ?? false,
    record_latest_read_files_enabled: watched?.latest ?? false,
    measure_latency: true,
    id,
    nr_opens: Math.max(0, sum(OPENS) - sum(RELEASES)),
    data_read: sum(DATA_READ),
    block_count_read: range(READ_SIZES, BUCKETS),
    fop_hits: range(HITS, FOPS.length),
    fop_errors: range(ERRORS, FOPS.length),
    fop_cumulative_latency_total: range(LATENCY, FOPS.length),
    read_latency_dist: range(READ_LATENCIES, BUCKETS),
  }
}

function summed(memory: SharedArrayBuffer): (index: number) => number {
  const all = new Float64Array(memory)
  return (index) => {
    let total = 0
    for (let at = index; at < all.length; at += BLOCK) total += all[at]!
    return Math.floor(total) // Go decodes these as unsigned integers
  }
}

/** The size bucket of a read of `bytes`. */
export function readSizeBucket(bytes: number): number {
  return bucket(SIZE_BOUNDS, bytes)
}

function bucket(bounds: readonly number[], value: number): number {
  let i = 0
  while (i < bounds.length && value >= bounds[i]!) i++
  return i
}
