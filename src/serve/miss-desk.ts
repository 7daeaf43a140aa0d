// Reads that a worker could not answer: fetched here, on the main thread, and answered on the descriptor that the request came from.
// Every one ends: by its bytes, by its error, by the kernel's INTERRUPT, or by its deadline.

import { publish } from '../core/diagnostics.ts'
import { BufferPool } from '../core/buffer-pool.ts'
import { CodedError } from '../core/errors.ts'
import { native } from '../native/load.ts'
import { outHeader } from '../wire/fuse/header.ts'
import { FUSE_OP } from '../wire/fuse/opcode.ts'
import type { OperationCounters } from './counters.ts'
import { ERRNO, errnoOf } from './errno.ts'
import { FailedReads } from './failed-reads.ts'
import type { Miss } from './fuse/core.ts'

/** LIMIT: a read is given up after this long, with EIO, whatever the configuration of its image allows (18 s by default, src/rafs/deadline.ts). */
export const REQUEST_DEADLINE_MS = 120_000

/** One read under way, as GET /api/v1/metrics/inflight shows it. */
export interface Inflight {
  /** Of the mount. */
  readonly serial: number
  readonly inode: number
  readonly opcode: number
  readonly unique: bigint
  /** When it was read from the kernel, milliseconds since the epoch. */
  readonly at: number
}

/** Where the bytes of a miss come from, and where its read is counted. */
export interface MissSource {
  /** Fills `target` from `offset` of file `nid`. Rejects with `signal.reason` on abort. */
  readInto(nid: number, offset: number, target: Uint8Array, options: { readonly signal: AbortSignal }): Promise<unknown>
  /** Milliseconds after which a read is given up; 0 or undefined: the desk's own. */
  readonly readDeadlineMs?: number
}

/** Gives a whole reply, header included, to whoever asked. */
export type Reply = (message: Uint8Array) => void

interface Pending { readonly session: number; readonly controller: AbortController; readonly miss: Miss; readonly at: number; readonly done: Promise<void> }

/** Takes the reads that workers could not answer, obtains their bytes and replies, each within a deadline. */
export class MissDesk {
  readonly #pending = new Map<string, Pending>()
  readonly #failed = new FailedReads()
  readonly #buffers: BufferPool | undefined
  readonly #counters: OperationCounters
  readonly #deadlineMs: number
  #closed = false
  #abandoned = false

  /** `repliesAtOnce`: a reply has been sent when `Reply` returns, so that its buffer can be used again. */
  constructor(counters: OperationCounters, deadlineMs = REQUEST_DEADLINE_MS, { repliesAtOnce = false }: { readonly repliesAtOnce?: boolean } = {}) {
    this.#buffers = repliesAtOnce ? new BufferPool() : undefined
    this.#counters = counters
    this.#deadlineMs = deadlineMs
  }

  get abandoned(): boolean {
    return this.#abandoned
  }

  /** Answers `miss` through `answer`, sooner or later. `at`: when it was read, ms since the epoch. */
  take(session: number, answer: Reply, source: MissSource | undefined, miss: Miss, at: number, counters = this.#counters): void {
    if (this.#abandoned) return
    if (this.#closed) {
      reply(answer, miss, ERRNO.EIO)
      return
    }
    const key = keyOf(session, miss.uniqueLow, miss.uniqueHigh)
    const controller = new AbortController()
    const deadlineMs = Math.min(this.#deadlineMs, source?.readDeadlineMs || Number.POSITIVE_INFINITY)
    const deadline = setTimeout(() => controller.abort(
      new CodedError('STORAGE_UNREACHABLE', `no bytes within ${deadlineMs} ms`, { nid: miss.nid, offset: miss.offset })), deadlineMs)
    const done = this.#answer(answer, source, miss, controller.signal).then((errno) => {
      clearTimeout(deadline)
      this.#pending.delete(key)
      counters.record(FUSE_OP.READ, errno, performance.timeOrigin + performance.now() - at, miss.length)
    })
    this.#pending.set(key, { session, controller, miss, at, done })
  }

  /** The kernel no longer waits for the request. One that is not here is either answered, or its message has not come yet: the kernel asks again. */
  interrupt(session: number, answer: Reply, uniqueLow: number, uniqueHigh: number): void {
    const pending = this.#pending.get(keyOf(session, uniqueLow, uniqueHigh))
    if (this.#abandoned) return
    if (pending) pending.controller.abort()
    // SPEC: fuse.h FUSE_INT_REQ_BIT: an INTERRUPT's own unique is the request's with bit 0 set
    else reply(answer, { uniqueLow: (uniqueLow | 1) >>> 0, uniqueHigh }, ERRNO.EAGAIN)
  }

  /** Ends the reads of `session`. */
  cancel(session: number): void {
    for (const { controller, session: of } of this.#pending.values()) if (of === session) controller.abort()
  }

  /** Ends all reads, and answers those that still come with EIO at once (the kernel repeats a read that failed); resolves when all are answered. */
  async close(): Promise<void> {
    this.#closed = true
    const pending = [...this.#pending.values()]
    for (const { controller } of pending) controller.abort()
    await Promise.all(pending.map(({ done }) => done))
  }

  /** Ends all reads without an answer, and takes no more: the next server of the connection is given their requests again. */
  async abandon(): Promise<void> {
    this.#abandoned = true
    await this.close()
  }

  /** Resolves when all reads under way are answered, and those that come meanwhile. */
  async drain(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all([...this.#pending.values()].map(({ done }) => done))
  }

  /** Ends the reads of one mount, with ESTALE; resolves when all are answered. */
  async drop(serial: number, session?: number): Promise<void> {
    const dropped = [...this.#pending.values()].filter((pending) => pending.miss.serial === serial && (session === undefined || pending.session === session))
    for (const { controller } of dropped) controller.abort(new CodedError('SERVE_STALE_NODE', 'unmounted while it was being read'))
    await Promise.all(dropped.map(({ done }) => done))
  }

  inflight(): Inflight[] {
    return [...this.#pending.values()].map(({ miss, at }) => ({
      serial: miss.serial, inode: miss.nid, opcode: FUSE_OP.READ, unique: BigInt(miss.uniqueHigh) << 32n | BigInt(miss.uniqueLow), at,
    }))
  }

  async #answer(answer: Reply, source: MissSource | undefined, miss: Miss, signal: AbortSignal): Promise<number> {
    const began = performance.now()
    try {
      if (!source) return reply(answer, miss, ERRNO.ESTALE)
      const known = this.#failed.find(miss)
      if (known !== undefined) return reply(answer, miss, known)
      const buffer = this.#buffers?.take(outHeader.size + miss.length)
      const message = buffer?.subarray(0, outHeader.size + miss.length) ?? new Uint8Array(outHeader.size + miss.length)
      outHeader.encode({ length: message.length, error: 0, uniqueLow: miss.uniqueLow, uniqueHigh: miss.uniqueHigh }, message)
      await source.readInto(miss.nid, miss.offset, message.subarray(outHeader.size), { signal })
      if (!this.#abandoned) answer(message)
      if (buffer) this.#buffers?.give(buffer)
      return 0
    } catch (error) {
      const errno = errnoOf(error)
      if (this.#abandoned) return errno
      if (errno === ERRNO.EIO) {
        publish('serve:request:error', { opcode: FUSE_OP.READ, errno, message: error instanceof Error ? error.message : String(error) })
        this.#failed.note(miss, errno, performance.now() - began)
      }
      return reply(answer, miss, errno)
    }
  }
}

function keyOf(session: number, uniqueLow: number, uniqueHigh: number): string {
  return `${session}:${uniqueHigh}:${uniqueLow}`
}

/** Answers with an error; returns it. */
function reply(answer: Reply, { uniqueLow, uniqueHigh }: Pick<Miss, 'uniqueLow' | 'uniqueHigh'>, errno: number): number {
  answer(outHeader.encode({ length: outHeader.size, error: -errno, uniqueLow, uniqueHigh }))
  return errno
}

/** Replies to the FUSE connection `fd`. The kernel refuses one only when the request or the whole connection is gone: nobody is left to tell. */
export function replyTo(fd: number): Reply {
  return (message) => void native().fuseReply(fd, message, -1, 0, 0)
}
