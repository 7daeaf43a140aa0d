// What is known of the files of one mount: how often and when first they were read, by inode (upstream's metrics), and, on request, a trace: every
// part of a file in the order of its first read.
// SPEC: spec-surface.md F.1 files, pattern; nydus utils/src/metrics.rs, inode_bitmap.rs.

import { FUSE_OP } from '../../wire/fuse/opcode.ts'
import { FOPS, readSizeBucket, SIZE_BUCKETS } from '../counters.ts'
import type { Access } from './access-log.ts'

/** What is kept of a mount's files. */
export interface Watched {
  /** `iostats_files` */
  readonly files: boolean
  /** `access_pattern` */
  readonly pattern: boolean
  /** `latest_read_files` */
  readonly latest: boolean
}

/** A part of a file, and when it was first read. */
export interface TraceEntry { readonly nid: number; readonly offset: number; length: number; readonly at: number }

interface FileStats { total_fops: number; data_read: number; readonly block_count_read: number[]; readonly fop_hits: number[]; readonly fop_errors: number[] }
interface Pattern { reads: number; firstAt: number }

/** LIMIT: parts of a trace: a program that reads more at its start does not profit from a list any more. */
const MAX_TRACE = 200_000
const OPCODES: readonly number[] = FOPS

/** Accounts of one mount. */
export class MountAccounts {
  readonly watched: Watched
  readonly #files = new Map<number, FileStats>()
  readonly #patterns = new Map<number, Pattern>()
  #latest = new Set<number>()
  #trace: Trace | undefined
  #lost = 0

  constructor(watched: Watched) {
    this.watched = watched
  }

  /** Whether anybody wants to know of requests. */
  get isWatching(): boolean {
    return this.watched.files || this.watched.pattern || this.watched.latest || this.#trace !== undefined
  }

  add(access: Access): void {
    const { files, pattern, latest } = this.watched
    if (files) count(this.#files, access)
    if (access.opcode !== FUSE_OP.READ) return
    if (pattern) {
      const known = this.#patterns.get(access.nid)
      if (known) {
        known.reads++
        known.firstAt = Math.min(known.firstAt, access.at)
      } else this.#patterns.set(access.nid, { reads: 1, firstAt: access.at })
    }
    if (access.errno !== 0) return
    if (latest) this.#latest.add(access.nid)
    this.#trace?.add(access)
  }

  /** Requests that nobody could be told of. */
  lose(requests: number): void {
    this.#lost += requests
  }

  /** GET /api/v1/metrics/files */
  files(): object {
    return Object.fromEntries(this.#files)
  }

  /** GET /api/v1/metrics/files?latest=true: inodes as ranges, [first, last] or [one]. They are forgotten then. */
  takeLatest(): number[][] {
    const ranges: number[][] = []
    for (const nid of [...this.#latest].sort((a, b) => a - b)) {
      const range = ranges.at(-1)
      if (range && nid === range.at(-1)! + 1) range[1] = nid
      else ranges.push([nid])
    }
    this.#latest = new Set()
    return ranges
  }

  /** GET /api/v1/metrics/pattern, by the time of the first read: threads' logs come in portions, and a later one may have what was earlier. */
  pattern(): object[] {
    return [...this.#patterns].sort(([, a], [, b]) => a.firstAt - b.firstAt).map(([ino, { reads, firstAt }]) => ({
      ino, nr_read: reads, first_access_time_secs: Math.floor(firstAt / 1000), first_access_time_nanos: Math.floor((firstAt % 1000) * 1e6),
    }))
  }

  /** Begins a trace; one that is running goes on. */
  startTrace(at: number): void {
    this.#trace ??= new Trace(at)
    this.#lost = 0
  }

  /** The trace so far, or undefined when none was begun. */
  trace(): { readonly startedAt: number; readonly entries: readonly TraceEntry[]; readonly lost: number } | undefined {
    return this.#trace && { startedAt: this.#trace.startedAt, entries: this.#trace.entries.toSorted((a, b) => a.at - b.at), lost: this.#lost }
  }

  stopTrace(): void {
    this.#trace = undefined
  }
}

class Trace {
  readonly startedAt: number
  readonly entries: TraceEntry[] = []
  /** By file: what was read of it, as sorted, separate ranges. */
  readonly #read = new Map<number, { from: number; to: number }[]>()

  constructor(startedAt: number) {
    this.startedAt = startedAt
  }

  add({ nid, offset, length, at }: Access): void {
    if (length <= 0 || this.entries.length >= MAX_TRACE) return
    const ranges = this.#read.get(nid) ?? []
    this.#read.set(nid, ranges)
    for (const { from, to } of addRange(ranges, { from: offset, to: offset + length })) {
      const last = this.entries.at(-1)
      // a file read from its beginning to its end is one line
      if (last?.nid === nid && last.offset + last.length === from) last.length += to - from
      else this.entries.push({ nid, offset: from, length: to - from, at })
    }
  }
}

/** Adds a range to sorted, separate ranges; returns the parts of it that are new. */
function addRange(ranges: { from: number; to: number }[], { from, to }: { from: number; to: number }): { from: number; to: number }[] {
  const fresh: { from: number; to: number }[] = []
  const touched = ranges.filter((range) => range.from <= to && range.to >= from)
  let at = from
  for (const range of touched) {
    if (range.from > at) fresh.push({ from: at, to: range.from })
    at = Math.max(at, range.to)
  }
  if (at < to) fresh.push({ from: at, to })
  if (fresh.length === 0) return fresh
  const first = ranges.findIndex((range) => range.to >= from)
  const joined = { from: Math.min(from, touched[0]?.from ?? from), to: Math.max(to, touched.at(-1)?.to ?? to) }
  ranges.splice(first < 0 ? ranges.length : first, touched.length, joined)
  return fresh
}

function count(files: Map<number, FileStats>, { nid, opcode, errno, length }: Access): void {
  const fop = OPCODES.indexOf(opcode)
  if (fop < 0) return
  const zeros = (size: number): number[] => new Array<number>(size).fill(0)
  const stats = files.get(nid) ?? { total_fops: 0, data_read: 0, block_count_read: zeros(SIZE_BUCKETS), fop_hits: zeros(FOPS.length), fop_errors: zeros(FOPS.length) }
  files.set(nid, stats)
  stats.total_fops++
  if (errno !== 0) stats.fop_errors[fop]!++
  else stats.fop_hits[fop]!++
  if (opcode !== FUSE_OP.READ || errno !== 0) return
  stats.data_read += length
  stats.block_count_read[readSizeBucket(length)]!++
}
