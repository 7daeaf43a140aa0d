// A worker's life: one native call writes the replies of the last round, waits on all sessions and, while this worker leads (leadership.ts),
// brings the next requests. Whatever is in the image's metadata or ready in a cache file is answered here; anything else goes to the main
// thread as a miss. The loop never returns to the event loop, so messages are read when the wake-up says so.

import type { MessagePort } from 'node:worker_threads'
import { KiB } from '../../core/units.ts'
import type { NativeAddon } from '../../native/addon.ts'
import { outHeader } from '../../wire/fuse/header.ts'
import { AccessLog } from '../access/access-log.ts'
import { originOf } from '../clock.ts'
import { OperationCounters } from '../counters.ts'
import { ERRNO, errnoOf } from '../errno.ts'
import { REPLY_SLOT, REQUEST_SLOT } from '../fuse/connection.ts'
import { FuseCore, OUTCOME } from '../fuse/core.ts'
import { FileSystemTable } from '../fuse/file-system-table.ts'
import { Leadership } from './leadership.ts'
import { type FromWorker, type SharedFileSystem, type ToWorker, WAKE_UP, type WorkerMount, type WorkerStart } from './messages.ts'
import type { OpenFileSystem } from './open-shared.ts'

/** LIMIT: requests taken at once. More saves calls under load, but a worker answers what it took one after the other while others may idle. */
const BATCH = 4
/** LIMIT: replies of a batch that are bytes (most are a few hundred); untouched pages cost nothing. */
const OUTPUT = BATCH * REPLY_SLOT
const REPLY_COLUMNS = 7
/** Of a reply row: its length, which the native call sets to 0 when the file lacks the bytes. */
const REPLY_LENGTH = 2
const FILE_LENGTH = 6
/** LIMIT: file bytes of one reply from which copying them takes as long as a handful of other requests. */
const LONG_READ = 128 * KiB
/** LIMIT: as many requests at once are more than one client's: another worker helps. */
const CROWD = 3
const REQUEST_COLUMNS = 4
const REPLY_ALIGNMENT = 8
const WORD = 2 ** 32

export interface LoopEnvironment {
  readonly native: NativeAddon
  readonly start: WorkerStart
  /** The next message if there is one; never waits. */
  receive(): ToWorker | undefined
  post(message: FromWorker): void
  open(fileSystem: SharedFileSystem): OpenFileSystem
}

interface Session { readonly core: FuseCore; readonly open: Map<number, OpenFileSystem> }

/** Serves until told to stop. Throws only on bugs and on a broken wait set. */
export function serveLoop(environment: LoopEnvironment): void {
  new WorkerLoop(environment).run()
}

/** `receive` for a MessagePort: see LoopEnvironment. */
export function portReceiver(port: MessagePort, take: (port: MessagePort) => { message: unknown } | undefined): () => ToWorker | undefined {
  // SAFETY: the main thread posts ToWorker only (pool.ts).
  return () => take(port)?.message as ToWorker | undefined
}

class WorkerLoop {
  readonly #env: LoopEnvironment
  readonly #counters: OperationCounters
  readonly #accesses: AccessLog
  readonly #sessions = new Map<number, Session>()
  readonly #input = new Uint8Array(BATCH * REQUEST_SLOT)
  readonly #output = new Uint8Array(OUTPUT)
  readonly #requests = new Int32Array(BATCH * REQUEST_COLUMNS)
  readonly #replies = new Int32Array(BATCH * REPLY_COLUMNS)
  /** The request row that each reply belongs to. */
  readonly #answers = new Int32Array(BATCH)
  readonly #leadership: Leadership
  /** See NativeAddon.exchange: refused replies, replies whose file lacks the bytes, replies not written since they had to wait. */
  readonly #errors = new Int32Array(3)
  readonly #errorsWaiting = this.#errors.subarray(0, 2)
  readonly #mountsVersion: Int32Array
  /** Added to performance.now(): ms since the epoch. */
  readonly #origin: number
  #seenMounts = 0
  #replyCount = 0
  #replyAt = 0
  /** Whether what is to be written may take long. */
  #long = false
  #stopped = false

  constructor(environment: LoopEnvironment) {
    this.#origin = originOf(environment.start.clock)
    this.#env = environment
    this.#counters = new OperationCounters(environment.start.counters, environment.start.thread)
    this.#accesses = new AccessLog(environment.start.accesses, environment.start.thread)
    this.#mountsVersion = new Int32Array(environment.start.mountsVersion)
    this.#leadership = new Leadership(environment.start.leadership, environment.start.thread)
  }

  run(): void {
    const onCall = (): { ends: boolean } => {
      this.#readMessages()
      return { ends: this.#stopped }
    }
    for (onCall(); !this.#stopped;) {
      if (!this.#leadership.leads && this.#replyCount === 0) this.#leadership.follow(onCall)
      else this.#serve(this.#exchange())
    }
    this.#leadership.handOn()
    this.#flush()
    for (const session of this.#sessions.values()) closeAll(session)
  }

  // Who does not lead writes its replies, takes what is there already, and does not wait.
  #exchange(): number {
    const { native, start } = this.#env
    if (this.#long) this.#handOn()
    const { leads } = this.#leadership
    const count = native.exchange(start.waitSet, this.#output, this.#replies, this.#replyCount, this.#input, REQUEST_SLOT, this.#requests,
      leads ? -1 : 0, leads ? this.#errors : this.#errorsWaiting)
    if (count < 0 && count !== -ERRNO.EINTR) throw new Error(`the wait set broke: errno ${-count}`)
    if (this.#errors[1] !== 0) this.#missLost()
    this.#long = this.#errors[2] !== 0
    if (this.#long) this.#keepLast(this.#errors[2]!)
    else this.#replyCount = this.#replyAt = 0
    if (count >= CROWD) this.#handOn()
    return count
  }

  #handOn(): void {
    if (this.#leadership.handOn()) this.#env.post({ kind: 'wanted' })
  }

  // Replies that have to wait for the disk stay for the next exchange, when somebody else leads.
  #keepLast(count: number): void {
    const from = this.#replyCount - count
    this.#replies.copyWithin(0, from * REPLY_COLUMNS, this.#replyCount * REPLY_COLUMNS)
    this.#answers.copyWithin(0, from, this.#replyCount)
    this.#replyCount = count
    this.#errors[2] = 0
  }

  #serve(count: number): void {
    let from = performance.now()
    // Whoever sent a request after a mount or umount was done gets an answer that knows of it, whichever worker reads it.
    if (Atomics.load(this.#mountsVersion, 0) !== this.#seenMounts) this.#readMessages()
    for (let i = 0; i < count; i++) {
      const row = i * REQUEST_COLUMNS
      const cookie = this.#requests[row]!
      const fd = this.#requests[row + 1]!
      const length = this.#requests[row + 3]!
      if (cookie === WAKE_UP) this.#readMessages()
      else if (length < 0) this.#ended(cookie, fd, -length)
      else from = this.#request(i, cookie, fd, this.#requests[row + 2]!, length, from)
    }
  }

  /** Serves request row `index`. Returns the time at its end, ms. */
  #request(index: number, cookie: number, fd: number, at: number, length: number, from: number): number {
    let session = this.#sessions.get(cookie)
    if (!session) {
      this.#readMessages()
      session = this.#sessions.get(cookie)
      if (!session) return from // dropped a moment ago
    }
    const { core } = session
    const outcome = core.handle(at, length, this.#replyAt)
    // One extent is spliced by the native call; several are put together here.
    const scattered = outcome === OUTCOME.file && core.extents.count > 1
    if (scattered) this.#handOn()
    const lost = scattered && !this.#copy(core)
    if (lost) core.asMiss(at, length)
    if (lost || outcome === OUTCOME.miss) {
      this.#env.post({ kind: 'miss', session: cookie, miss: { ...core.miss }, at: this.#origin + from })
      return performance.now()
    }
    if (outcome === OUTCOME.delegated) this.#env.post({ kind: 'request', session: cookie, serial: core.mounted?.serial ?? 0, bytes: this.#input.slice(at, at + length), at: this.#origin + from })
    else if (outcome === OUTCOME.interrupt) this.#env.post({ kind: 'interrupt', session: cookie, uniqueLow: core.miss.uniqueLow, uniqueHigh: core.miss.uniqueHigh })
    else if (outcome !== OUTCOME.none) this.#reply(index, core, fd, outcome === OUTCOME.file)
    const now = performance.now()
    if (outcome === OUTCOME.delegated) return now // counted where it is served
    const counters = core.mounted?.counters ?? this.#counters
    if (outcome === OUTCOME.file) counters.cacheHit()
    counters.record(core.opcode, core.errno, now - from, core.replyLength - outHeader.size)
    if (counters.isWatched) this.#accesses.append({ session: cookie, ...core.subject(at), length: core.replyLength - outHeader.size, opcode: core.opcode, errno: core.errno, at: this.#origin + from })
    return now
  }

  #reply(index: number, core: FuseCore, fd: number, file: boolean): void {
    const { fds, offsets, lengths, count } = core.extents
    const spliced = file && count === 1
    this.#answers[this.#replyCount] = index
    const row = this.#replyCount++ * REPLY_COLUMNS
    const length = spliced ? outHeader.size : core.replyLength
    const offset = offsets[0] ?? 0
    this.#replies[row] = fd
    this.#replies[row + 1] = this.#replyAt
    this.#replies[row + REPLY_LENGTH] = length
    this.#replies[row + 3] = spliced ? fds[0]! : -1
    this.#replies[row + 4] = offset % WORD | 0
    this.#replies[row + 5] = offset / WORD
    this.#replies[row + FILE_LENGTH] = spliced ? lengths[0]! : 0
    if (this.#replies[row + FILE_LENGTH]! >= LONG_READ) this.#long = true
    this.#replyAt += length + REPLY_ALIGNMENT - 1 & -REPLY_ALIGNMENT
  }

  // Replies are written by the next exchange, which reads from the descriptors that they name: before those go, they are written here.
  #flush(): void {
    for (let i = 0; i < this.#replyCount; i++) {
      const [fd, at, length, file, low, high, size] = this.#replies.subarray(i * REPLY_COLUMNS, (i + 1) * REPLY_COLUMNS)
      this.#env.native.fuseReply(fd!, this.#output.subarray(at!, at! + length!), file!, high! * WORD + (low! >>> 0), size!)
    }
    this.#replyCount = 0
    this.#replyAt = 0
  }

  // The file is shorter than its chunks say: somebody cut it. The main thread finds out, and fetches. The requests are still in the input: the
  // native call reads nothing before this is settled.
  #missLost(): void {
    this.#errors[1] = 0
    for (let i = 0; i < this.#replyCount; i++) {
      if (this.#replies[i * REPLY_COLUMNS + REPLY_LENGTH] !== 0) continue
      const [cookie, , at, length] = this.#requests.subarray(this.#answers[i]! * REQUEST_COLUMNS)
      const miss = this.#sessions.get(cookie!)?.core.asMiss(at!, length!)
      if (miss) this.#env.post({ kind: 'miss', session: cookie!, miss: { ...miss }, at: this.#origin + performance.now() })
    }
  }

  /** False when a cache file is shorter than it should be; never a short read, that would look like the end of the file. */
  #copy(core: FuseCore): boolean {
    const { fds, offsets, lengths, count } = core.extents
    let to = this.#replyAt + outHeader.size
    for (let i = 0; i < count; i++) {
      for (let done = 0; done < lengths[i]!;) {
        const size = this.#env.native.pread(fds[i]!, this.#output, to, lengths[i]! - done, offsets[i]! + done)
        if (size <= 0) return false
        done += size
        to += size
      }
    }
    return true
  }

  #ended(session: number, fd: number, errno: number): void {
    this.#env.native.waitSetRemove(this.#env.start.waitSet, fd) // else the dead descriptor would be readable for ever
    if (this.#sessions.has(session)) this.#env.post({ kind: 'ended', session, errno })
  }

  #readMessages(): void {
    this.#seenMounts = Atomics.load(this.#mountsVersion, 0) // before the messages: one that comes meanwhile is seen again
    for (let message = this.#env.receive(); message !== undefined; message = this.#env.receive()) this.#apply(message)
  }

  // One file system that cannot be mapped (no memory, too many mappings) is stale for its users; the others are served.
  #mount({ core, open }: Session, { serial, fileSystem, steps, counters }: WorkerMount): void {
    try {
      const fs = this.#env.open(fileSystem)
      open.set(serial, fs)
      core.fileSystems.mount(serial, fs, steps, new OperationCounters(counters, this.#env.start.thread))
    } catch (error) {
      this.#env.post({ kind: 'request-error', opcode: 0, errno: errnoOf(error), message: `a worker cannot open a mount: ${error instanceof Error ? error.message : String(error)}` })
    }
  }

  #apply(message: ToWorker): void {
    switch (message.kind) {
      case 'stop':
        this.#stopped = true
        break
      case 'session': {
        const core = new FuseCore(new FileSystemTable({ notified: true, counters: this.#counters }), message.connection, this.#env.start.owner, this.#input, this.#output)
        core.connection = message.connection
        this.#sessions.set(message.session, { core, open: new Map() })
        break
      }
      case 'mount': {
        const session = this.#sessions.get(message.session)
        if (!session) break
        this.#mount(session, message)
        break
      }
      case 'unmount': {
        const { session: number, serial } = message
        const session = this.#sessions.get(number)
        session?.core.fileSystems.unmount(serial)
        this.#flush()
        session?.open.get(serial)?.close()
        session?.open.delete(serial)
        this.#env.post({ kind: 'unmounted', session: number, serial })
        break
      }
      case 'drop-session': {
        const session = this.#sessions.get(message.session)
        this.#env.native.waitSetRemove(this.#env.start.waitSet, message.fd)
        this.#flush()
        if (session) closeAll(session)
        this.#sessions.delete(message.session)
        this.#env.post({ kind: 'dropped', session: message.session })
      }
    }
  }
}

function closeAll({ open }: Session): void {
  for (const fs of open.values()) fs.close()
}
