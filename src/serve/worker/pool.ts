// The main thread's side of the workers: starts them, tells them of sessions and images, hears of misses, and can end them.

import { Worker } from 'node:worker_threads'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, fromMessage } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { createAccessMemory } from '../access/access-log.ts'
import { Accountant } from '../access/accountant.ts'
import { sharedClock } from '../clock.ts'
import { createCounterMemory } from '../counters.ts'
import type { Owner } from '../fuse/attributes.ts'
import type { Miss } from '../fuse/core.ts'
import type { FuseSession } from '../session.ts'
import { callAll, createLeadershipMemory, helpCame } from './leadership.ts'
import { type FromWorker, type ToWorker, WAKE_UP, type WorkerMount, type WorkerStart } from './messages.ts'

/** LIMIT: a worker answers a wake-up between two requests; one that has not after this long is stuck in a system call and is left behind. */
const STOP_TIMEOUT_MS = 2_000
/** LIMIT: a worker that could not be started may be asked for again after this long. */
const START_AGAIN_MS = 5_000

/** LIMIT: after a worker has come, the next one is asked for this much later at the earliest: each costs 100 ms of CPU time and 8 MiB, and a program's start is over soon. */
const GROW_PAUSE_MS = 1_000

/** What a session's owner hears. */
export interface PoolListener {
  miss(session: number, miss: Miss, at: number): void
  /** A whole request for a mount that is served here, or (serial 0) for all of these. */
  request?(session: number, serial: number, bytes: Uint8Array, at: number): void
  interrupt(session: number, uniqueLow: number, uniqueHigh: number): void
  /** The kernel ended the session: it was unmounted or aborted. Once. */
  ended(session: number, errno: number): void
  /** A worker is gone or broken: nothing more can be relied on. */
  failed(error: Error): void
}

interface Listed { readonly fd: number; messages: ToWorker[] }
interface Waiting { readonly left: Set<number>; readonly done: () => void }
interface Member { readonly thread: number; readonly worker: Worker; readonly waitSet: number; readonly wakeUp: number; readonly exited: Promise<void>; isReady: boolean }

/** The threads that answer requests, of one daemon or of many. */
export class WorkerPool {
  /** Counters of all workers, and in the last block those of the main thread (misses). */
  readonly counters: SharedArrayBuffer
  /** Of single requests that workers tell of. */
  readonly accountant: Accountant
  readonly #accesses: SharedArrayBuffer
  readonly #leadership = createLeadershipMemory()
  readonly #listeners = new Map<number, PoolListener>()
  #lastSession = 0
  readonly #threads: number
  readonly #owner: Owner
  #members: Member[] = []
  /** What a worker that starts later must hear, a session each. */
  readonly #sessions = new Map<number, Listed>()
  readonly #ended = new Set<number>()
  /** Sessions and mounts being dropped: which workers have yet to let go, and what happens then. */
  readonly #dropping = new Map<string, Waiting>()
  readonly #mountsVersion = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
  readonly #clock = sharedClock()
  #stopping = false

  /** One worker starts at once, others when the leader has nobody to hand on to: each costs 8 MiB, and at the start it would only delay the first answer. */
  constructor(threads: number, owner: Owner) {
    this.#threads = threads
    this.#owner = owner
    this.counters = createCounterMemory(threads + 1)
    this.#accesses = createAccessMemory(threads)
    this.accountant = new Accountant(this.#accesses, threads)
    this.#start(0)
  }

  /** How many there are at most; counters have a block for each, and one for the main thread behind them. */
  get threads(): number {
    return this.#threads
  }

  /** Announces a session; its serial, from 1. */
  register(listener: PoolListener): number {
    this.#listeners.set(++this.#lastSession, listener)
    return this.#lastSession
  }

  /** Lets every worker take requests of `session`, which shows `mounts`. */
  addSession(session: number, { fd, connection }: FuseSession, mounts: Iterable<WorkerMount>): void {
    const messages: ToWorker[] = [{ kind: 'session', session, connection }]
    for (const mount of mounts) messages.push({ kind: 'mount', session, ...mount })
    this.#sessions.set(session, { fd, messages })
    for (const member of this.#members) introduce(member, session, { fd, messages })
  }

  /** Shows one more mount: requests that the kernel sends from now on know of it. */
  addMount(session: number, mount: WorkerMount): void {
    const message: ToWorker = { kind: 'mount', session, ...mount }
    this.#sessions.get(session)?.messages.push(message)
    this.#broadcastMount(message)
  }

  /**
   * Requests that the kernel sends from now on do not know the mount any more. Resolves when no worker touches its descriptors, or when a
   * worker is stuck (then they must not be closed): false.
   */
  async dropMount(session: number, serial: number): Promise<boolean> {
    const listed = this.#sessions.get(session)
    if (listed) listed.messages = listed.messages.filter((message) => message.kind !== 'mount' || message.serial !== serial)
    const dropped = this.#untilAll(keyOf(session, serial))
    this.#broadcastMount({ kind: 'unmount', session, serial })
    return await within(STOP_TIMEOUT_MS, dropped)
  }

  /** Resolves when no worker touches the session's descriptor any more, or when a worker is stuck (then the descriptor must not be closed): false. */
  async dropSession(session: number, fd: number): Promise<boolean> {
    if (!this.#sessions.delete(session)) return true
    const dropped = this.#untilAll(keyOf(session))
    this.#broadcast({ kind: 'drop-session', session, fd })
    const isDropped = await within(STOP_TIMEOUT_MS, dropped)
    this.#listeners.delete(session)
    this.#ended.delete(session)
    return isDropped
  }

  /** Ends all workers. False when one is stuck in a system call: then the process cannot exit in the ordinary way. */
  async stop(): Promise<boolean> {
    this.#stopping = true
    this.#broadcast({ kind: 'stop' })
    const stopped = await within(STOP_TIMEOUT_MS, Promise.all(this.#members.map(({ exited }) => exited)))
    if (stopped) for (const { waitSet, wakeUp } of this.#members) [waitSet, wakeUp].forEach((fd) => { native().closeFd(fd) })
    return stopped
  }

  // One more worker, if it can be had: where no file can be opened and no thread started any more, those that are there do the work.
  #startHelper(): void {
    const thread = Array.from({ length: this.#threads }, (_, i) => i).find((free) => this.#members.every((member) => member.thread !== free))
    if (this.#stopping || thread === undefined) return
    try {
      this.#start(thread)
    } catch (error) {
      this.#doWithout(error)
    }
  }

  #doWithout(error: unknown): void {
    publish('serve:warning:raised', { message: `no further worker can be started: ${error instanceof Error ? error.message : String(error)}` })
    setTimeout(() => helpCame(this.#leadership), START_AGAIN_MS).unref() // then it may be asked for again
  }

  #start(thread: number): void {
    const waitSet = descriptor(native().waitSetCreate())
    const wakeUp = descriptor(native().eventCreate(), waitSet)
    native().waitSetAdd(waitSet, wakeUp, WAKE_UP, 1)
    const workerData: WorkerStart = { thread, waitSet, leadership: this.#leadership, counters: this.counters, accesses: this.#accesses, mountsVersion: this.#mountsVersion, owner: this.#owner, clock: this.#clock }
    const worker = new Worker(new URL('./thread.js', import.meta.url), { workerData })
    worker.on('message', (message: FromWorker) => this.#hear(member, message))
    worker.on('error', (error) => this.#broken(member, error instanceof Error ? error : new Error(String(error))))
    const exited = new Promise<void>((resolve) => worker.once('exit', () => {
      this.#broken(member, new Error(`worker ${thread} ended by itself`))
      resolve()
    }))
    const member: Member = { thread, worker, waitSet, wakeUp, exited, isReady: false }
    this.#members.push(member)
    for (const [session, listed] of this.#sessions) introduce(member, session, listed)
  }

  #broadcast(message: ToWorker): void {
    for (const { worker } of this.#members) post(worker, message)
    this.#wakeAll()
  }

  // Posted first, then announced: a worker that sees the new version finds the message.
  #broadcastMount(message: ToWorker): void {
    for (const { worker } of this.#members) post(worker, message)
    Atomics.add(new Int32Array(this.#mountsVersion), 0, 1)
    this.#wakeAll()
  }

  // The leader waits in its wait set, the others for a call.
  #wakeAll(): void {
    for (const { wakeUp } of this.#members) native().eventSignal(wakeUp)
    callAll(this.#leadership)
  }

  #untilAll(key: string): Promise<void> {
    return new Promise((done) => this.#dropping.set(key, { left: new Set(this.#members.map(({ thread }) => thread)), done }))
  }

  #hear(member: Member, message: FromWorker): void {
    switch (message.kind) {
      case 'ready':
        member.isReady = true
        if (member.thread > 0) setTimeout(() => helpCame(this.#leadership), GROW_PAUSE_MS).unref()
        break
      case 'wanted': this.#startHelper(); break
      case 'miss': this.#listeners.get(message.session)?.miss(message.session, message.miss, message.at); break
      case 'request': this.#listeners.get(message.session)?.request?.(message.session, message.serial, message.bytes, message.at); break
      case 'interrupt': this.#listeners.get(message.session)?.interrupt(message.session, message.uniqueLow, message.uniqueHigh); break
      case 'request-error': publish('serve:request:error', message); break
      case 'failed': this.#broken(member, fromMessage(message.error)); break
      case 'dropped': this.#dropped(keyOf(message.session), member.thread); break
      case 'unmounted': this.#dropped(keyOf(message.session, message.serial), member.thread); break
      case 'ended':
        if (!this.#ended.has(message.session)) this.#listeners.get(message.session)?.ended(message.session, message.errno)
        this.#ended.add(message.session)
    }
  }

  #dropped(key: string, thread: number): void {
    const dropping = this.#dropping.get(key)
    if (!dropping?.left.delete(thread) || dropping.left.size > 0) return
    this.#dropping.delete(key)
    dropping.done()
  }

  // A helper that never began has touched nothing, and can be done without.
  #broken(member: Member, error: Error): void {
    if (member.thread === 0 || member.isReady || this.#stopping) {
      this.#fail(error)
      return
    }
    if (!this.#members.includes(member)) return
    this.#members = this.#members.filter((other) => other !== member)
    for (const key of [...this.#dropping.keys()]) this.#dropped(key, member.thread)
    void member.exited.then(() => [member.waitSet, member.wakeUp].forEach((fd) => { native().closeFd(fd) }))
    this.#doWithout(error)
  }

  #fail(error: Error): void {
    if (!this.#stopping) for (const listener of [...this.#listeners.values()]) listener.failed(error)
  }
}

function keyOf(session: number, serial?: number): string {
  return serial === undefined ? `${session}` : `${session}:${serial}`
}

// `fd`, or else an error, with `other` closed.
function descriptor(fd: number, other?: number): number {
  if (fd >= 0) return fd
  if (other !== undefined) native().closeFd(other)
  throw new CodedError('NATIVE_SYSCALL', `no descriptor for a worker: errno ${-fd}`, { errno: -fd })
}

function post(worker: Worker, message: ToWorker): void {
  worker.postMessage(message)
}

// The messages before the descriptor: a worker that meets an unknown session reads its messages.
function introduce({ worker, waitSet }: Member, session: number, { fd, messages }: Listed): void {
  for (const message of messages) post(worker, message)
  const result = native().waitSetAdd(waitSet, fd, session, 0)
  if (result < 0) throw new Error(`a worker cannot wait on the session: errno ${-result}`)
}

/** Whether `promise` is done within `ms`. */
export async function within(ms: number, promise: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => { timer = setTimeout(() => resolve(false), ms) })
  try {
    return await Promise.race([promise.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
