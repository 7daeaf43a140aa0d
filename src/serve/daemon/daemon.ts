// A daemon: one FUSE mount, the images in it, the workers that serve it, and its life from INIT to STOPPED.
// SPEC: spec-surface.md B.2. Order of a start: workers begin to start, mount(2), handshake, workers get session and images, RUNNING; the API
// socket appears after that.

import { existsSync } from 'node:fs'
import path from 'node:path'
import { publish } from '../../core/diagnostics.ts'
import { CodedError } from '../../core/errors.ts'
import { KiB } from '../../core/units.ts'
import { FUSE_INIT_FLAG2 } from '../../wire/fuse/init.ts'
import { native } from '../../native/load.ts'
import type { SessionAccounts } from '../access/accountant.ts'
import { OperationCounters } from '../counters.ts'
import type { ErofsImage, ErofsRequest, OpenErofs } from '../erofs/erofs-mounts.ts'
import type { ErofsService } from '../erofs/service.ts'
import type { Transport } from '../erofs/transport.ts'
import { MAX_READ } from '../fuse/connection.ts'
import { forgetNames } from '../kernel-names.ts'
import { mountedDevice, prepareMountpoint, setReadahead, unmount } from '../mountpoint.ts'
import { type Inflight, MissDesk, replyTo, REQUEST_DEADLINE_MS } from '../miss-desk.ts'
import { type FuseSession, mountSession } from '../session.ts'
import { within, WorkerPool } from '../worker/pool.ts'
import { type BackgroundTask, BackgroundTasks, type DaemonEnd, Ending } from './ending.ts'
import type { MountedFileSystem, MountRequest, OpenMount } from './file-system.ts'
import { type DaemonStateName, LifeCycle } from './life-cycle.ts'
import { type MountInfo, Mounts } from './mounts.ts'
import { type FailoverPolicy, requeue } from './requeue.ts'
import { decodeState, encodeState, type SavedState } from './saved-state.ts'
import { StateSecrets } from './state-secrets.ts'
import { type Kept, receiveFromSupervisor, sendToSupervisor } from './supervisor.ts'

export interface DaemonOptions {
  readonly id: string
  readonly supervisor: string | undefined
  readonly threads: number
  readonly mountpoint: string
  readonly writable: boolean
  /** A read that has no bytes after this long fails with EIO. */
  readonly requestDeadlineMs?: number
  /** Opens what is mounted after the start, or taken over; without it there is neither. */
  readonly openMount?: OpenMount
  /** Opens what the kernel's EROFS driver is to mount; without it there is no such mount. */
  readonly openErofs?: OpenErofs
  /** Where devices of kernel EROFS mounts are served, and what is mounted is written down. */
  readonly runDirectory?: string
  /** Hides the credentials in a saved state; default with a key below /run/nydusd. */
  readonly secrets?: StateSecrets
  readonly failoverPolicy?: FailoverPolicy
  /** Hears what the next server of this connection would need, as soon as there is one and whenever it changes. */
  readonly keep?: (kept: KeptConnection) => void
  /** Workers that other daemons use too, which end with none of them; default its own. */
  readonly pool?: WorkerPool
  /** A worker is broken: default to unmount and end. */
  readonly failed?: (error: Error) => void
}

/** A connection for whoever keeps it; the descriptor stays the daemon's. */
export interface KeptConnection extends Kept { readonly mountpoint: string; readonly device: string }

const RUN_DIRECTORY = '/run/nydusd'
/** LIMIT: who hands a connection on and cannot have its requests repeated answers them first, but nobody waits longer than this for the next daemon. */
const DRAIN_MS = 10_000
/** LIMIT: what is not on disk yet is only fetched again after a power loss; the next daemon does not wait for a slow disk. */
const HANDOVER_CLOSE_MS = 50

/** `handOn`: another process is to continue, so no request may be failed. */
interface HowToEnd { readonly unmount: boolean; readonly handOn: boolean; readonly error: Error | undefined }

/** One daemon: its connection to the kernel, its mounts, its workers and its state. */
export class Daemon {
  /** Resolves when the daemon has ended, whoever ended it. */
  readonly done: Promise<DaemonEnd>
  readonly #ending = new Ending()
  readonly #options: DaemonOptions
  readonly #life = new LifeCycle()
  readonly #secrets: StateSecrets
  readonly #pool: WorkerPool
  /** Names the connection between threads. */
  readonly #serial: number
  readonly #desk: MissDesk
  readonly #mounts: Mounts
  readonly #accounts: SessionAccounts
  /** Loaded at the first kernel EROFS mount. */
  #erofs: ErofsService | undefined
  #erofsLoading: Promise<ErofsService> | undefined
  #transport: Transport | undefined
  #session: FuseSession | undefined
  #device: string | undefined
  readonly #closing = new BackgroundTasks()

  /** Workers start at once, beside whatever the caller does next (opening the image). */
  constructor(options: DaemonOptions) {
    this.#options = options
    this.#secrets = options.secrets ?? new StateSecrets(RUN_DIRECTORY)
    this.done = this.#ending.done
    this.#pool = options.pool ?? new WorkerPool(options.threads, { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 })
    this.#serial = this.#pool.register({
      miss: (session, miss, at) => this.#mounts.take(session, replyTo(this.#session?.fd ?? -1), miss, at),
      request: (_, serial, bytes, at) => this.#mounts.request(replyTo(this.#session?.fd ?? -1), serial, bytes, at),
      interrupt: (session, low, high) => {
        if (!this.#mounts.delegated.has(low, high)) this.#desk.interrupt(session, replyTo(this.#session?.fd ?? -1), low, high)
      },
      ended: () => void this.#end({ unmount: false, handOn: false, error: undefined }),
      failed: (error) => options.failed ? options.failed(error) : void this.#end({ unmount: true, handOn: false, error }),
    })
    this.#desk = new MissDesk(new OperationCounters(this.#pool.counters, this.#pool.threads), options.requestDeadlineMs ?? REQUEST_DEADLINE_MS, { repliesAtOnce: true })
    this.#accounts = this.#pool.accountant.session(this.#serial)
    this.#mounts = new Mounts({
      session: this.#serial,
      desk: this.#desk, accounts: this.#accounts, threads: this.#pool.threads, openMount: options.openMount, signal: this.#closing.signal,
      changed: () => this.#keep(), background: (task) => this.background(task),
    })
  }

  get state(): DaemonStateName {
    return this.#life.state
  }

  get id(): string {
    return this.#options.id
  }

  get supervisor(): string | undefined {
    return this.#options.supervisor
  }

  /** Mounts `root` (nothing: an empty directory) and serves it: INIT → READY → RUNNING. @throws SERVE_MOUNT */
  mount(root: MountedFileSystem | undefined): void {
    const began = performance.now()
    this.#life.apply('mount')
    const mountpoint = prepareMountpoint(this.#options.mountpoint)
    const session = mountSession(mountpoint, { xattrs: root?.fileSystem.hasXattr ?? true, writable: this.#options.writable, opens: root?.type === 'PassthroughFs' })
    if (root) this.#mounts.place(root)
    this.#serve(session)
    publish('serve:mount:done', { mountpoint, durationMs: performance.now() - began })
  }

  /** What the supervisor keeps becomes this daemon's: INIT → READY. @throws SERVE_STATE, SERVE_SUPERVISOR, SERVE_BAD_STATE_FILE; it stays in INIT then */
  async takeOver(): Promise<void> {
    this.#life.check('takeover')
    const { supervisor } = this.#options
    if (supervisor === undefined) throw new CodedError('SERVE_STATE', 'a takeover needs --supervisor and --id')
    const signal = this.#closing.signal
    const { bytes, fd } = await receiveFromSupervisor(supervisor, { signal })
    try {
      await this.restore(decodeState(bytes, this.#secrets), fd)
    } catch (error) {
      native().closeFd(fd)
      throw error
    }
  }

  /** Prepares to continue the connection `fd` of a daemon that saved `state`, opening its images: INIT → READY. The daemon owns `fd` then. @throws what opening an image throws */
  async restore(state: SavedState, fd: number): Promise<void> {
    this.#life.check('takeover')
    const { connection } = state
    if (!connection) throw new CodedError('SERVE_BAD_STATE_FILE', 'the saved daemon state is of a virtual machine\'s device')
    const restored = await this.#mounts.reopen(state.mounts)
    try {
      this.#life.apply('takeover') // again: the daemon may have been stopped, or asked twice
    } catch (error) {
      await restored.close()
      throw error
    }
    this.#mounts.adopt(restored, state)
    this.#session = { fd, mountpoint: state.mountpoint, connection }
  }

  /** Serves what was restored: READY → RUNNING. Requests that the last daemon had read and not answered are answered too. @throws SERVE_STATE */
  start(): void {
    this.#life.check('start')
    const session = this.#session
    if (!session) throw new CodedError('SERVE_STATE', 'there is nothing to start')
    // first: what this server has read itself must not be given out again, it would be done twice
    const device = mountedDevice(session.mountpoint)
    requeue(session.fd, device, this.#options.failoverPolicy ?? 'resend')
    this.#serve(session, device)
  }

  /** Gives state and descriptor to the supervisor. @throws SERVE_NOT_READY, SERVE_SUPERVISOR */
  async sendState(): Promise<void> {
    const { supervisor } = this.#options
    if (supervisor === undefined) throw new CodedError('SERVE_STATE', 'there is no supervisor to send the state to')
    const { state, fd } = this.save()
    await sendToSupervisor(supervisor, { bytes: encodeState(state, this.#secrets), fd }, { signal: this.#closing.signal })
  }

  /** What another process needs, beside the descriptor, to continue. @throws SERVE_NOT_READY before the handshake */
  save(): { state: SavedState; fd: number } {
    const session = this.#session
    if (!session) throw new CodedError('SERVE_NOT_READY', 'there is no connection to hand on', { state: this.state })
    return { fd: session.fd, state: { id: this.id, mountpoint: session.mountpoint, connection: session.connection, ...this.#mounts.save() } }
  }

  /**
   * Serves no mount of its own, but the image that `open` opens, which the kernel's EROFS driver mounts: INIT → READY → RUNNING; stays in INIT when that fails.
   * @throws as ErofsMounts.add
   */
  async mountErofs(open: () => Promise<ErofsImage>): Promise<Transport> {
    this.#life.check('mount')
    const erofs = await this.#loadErofs() // first: what a server before this one has left decides how cache files are opened
    const transport = await erofs.add(await open())
    this.#life.apply('mount')
    this.#life.apply('start')
    return transport
  }

  /** Which way the image at `/` is mounted, when there was a choice: for the API. */
  set transport(transport: Transport) {
    this.#transport = transport
  }

  /** Mounts one more file system; the same one again is none. @throws SERVE_ALREADY_MOUNTED, and what opening throws */
  addMount(request: MountRequest): Promise<void> {
    return this.#mounts.add(request)
  }

  /** Lets the kernel's EROFS driver mount an image on a directory of the host; the same one again is none. @throws as ErofsMounts.add, and what opening throws */
  async addErofs(request: ErofsRequest): Promise<void> {
    const { openErofs } = this.#options
    if (!openErofs) throw new CodedError('SERVE_UNSUPPORTED', 'this daemon mounts nothing after its start')
    const erofs = await this.#loadErofs()
    await erofs.add(await openErofs(request, { signal: this.#closing.signal }))
  }

  /** Mounts in place of what is mounted there. @throws SERVE_NOT_MOUNTED, and what opening throws */
  replaceMount(request: MountRequest): Promise<void> {
    return this.#mounts.replace(request)
  }

  /** Unmounts one of the file systems. @throws SERVE_NOT_MOUNTED */
  removeMount(mountpoint: string): Promise<void> {
    return this.#erofs?.has(mountpoint) ? this.#erofs.remove(mountpoint) : this.#mounts.remove(mountpoint)
  }

  /**
   * Ends it, with or without unmounting; the second caller joins the first. Without unmounting the descriptor stays open, as long as the
   * process lives: whoever else holds it can continue, and is given the requests that were not answered.
   */
  stop({ unmount }: { readonly unmount: boolean }): Promise<DaemonEnd> {
    return this.#end({ unmount, handOn: !unmount, error: undefined })
  }

  /** Runs `task` beside the serving (a prefetch); it is aborted and awaited before images are closed. What it fails with is logged, not thrown. */
  background(task: BackgroundTask): void {
    this.#closing.run(task)
  }

  /** For the API. */
  mounts(): MountInfo[] {
    const own = this.#mounts.list().map((mount) => (mount.mountpoint === '/' ? { ...mount, transport: this.#transport } : mount))
    return [...own, ...this.#erofs?.list() ?? []]
  }

  /** For the API: reads under way. */
  inflight(): Inflight[] {
    return this.#desk.inflight()
  }

  #serve(session: FuseSession, device = mountedDevice(session.mountpoint)): void {
    this.#session = session
    this.#device = device
    if (device !== undefined && process.geteuid?.() === 0) setReadahead(device, MAX_READ / KiB)
    this.#mounts.serve({
      xattrs: session.connection.xattrs,
      begin: (mounts) => this.#pool.addSession(this.#serial, session, mounts),
      addMount: (mount) => this.#pool.addMount(this.#serial, mount),
      dropMount: (serial) => this.#pool.dropMount(this.#serial, serial),
      forget: (stale) => forgetNames(session.fd, stale),
    })
    this.#life.apply('start')
    this.#keep()
    // a server before this one has left mounts whose readers wait
    if (this.#options.openErofs && existsSync(this.#runDirectory)) this.background(() => this.#continueErofs())
  }

  // To be called before the kernel can know anything of a change: a server that continues from an older state would not.
  #keep(): void {
    const { keep } = this.#options
    if (!keep || !this.#session) return
    const { state, fd } = this.save()
    keep({ bytes: encodeState(state, this.#secrets), fd, mountpoint: state.mountpoint, device: this.#device ?? '' })
  }

  async #continueErofs(): Promise<void> {
    const { erofsNames } = await import('../erofs/names.ts')
    if (existsSync(erofsNames(this.#runDirectory, this.#erofsName).keeper)) await this.#loadErofs()
  }

  get #runDirectory(): string {
    return this.#options.runDirectory ?? RUN_DIRECTORY
  }

  get #erofsName(): string {
    return path.resolve(this.#options.mountpoint)
  }

  #loadErofs(): Promise<ErofsService> {
    const { threads } = this.#pool
    this.#erofsLoading ??= import('../erofs/service.ts').then(async ({ ErofsService }) => {
      this.#erofs = await ErofsService.open({
        pool: this.#pool, isPoolShared: this.#options.pool !== undefined, desk: this.#desk, threads, runDirectory: this.#runDirectory, name: this.#erofsName, signal: this.#closing.signal,
        background: (task) => this.background(task),
        open: this.#options.openErofs,
        finished: (error) => { if (!this.#session) void this.#end({ unmount: true, handOn: false, error }) },
      })
      return this.#erofs
    })
    return this.#erofsLoading
  }

  #end(how: HowToEnd): Promise<DaemonEnd> {
    return this.#ending.once(() => this.#shutDown(how))
  }

  // Unmounting first: no new requests, and workers still answer those that come. No step waits for the one before to have worked.
  async #shutDown({ unmount, handOn, error }: HowToEnd): Promise<DaemonEnd> {
    this.#life.apply(unmount ? 'stop' : 'exit')
    let failure = error
    if (!handOn) failure ??= await this.#erofs?.unmountAll(() => this.#desk.close())
    if (unmount) failure ??= this.#unmount()
    if (handOn && this.#session) return await this.#handOn(this.#session)
    this.#closing.abort()
    await Promise.all([this.#desk.close(), this.#closing.ended()])
    const stopped = await this.#leavePool()
    if (stopped && (unmount || this.#options.pool)) this.#closeSession()
    this.#accounts.end()
    await this.#mounts.close()
    await this.#erofs?.close({ mounted: handOn })
    return { error: failure, stuck: !stopped }
  }

  // Readers wait from here until the next daemon starts. No request of theirs is failed: it is answered, or left to the next one.
  async #handOn({ connection }: FuseSession): Promise<DaemonEnd> {
    if ((connection.flags2 & FUSE_INIT_FLAG2.HAS_RESEND) !== 0) {
      this.#mounts.delegated.abandon()
      await this.#desk.abandon()
    }
    const stopped = await this.#leavePool()
    if (!this.#desk.abandoned) await within(DRAIN_MS, Promise.all([this.#desk.drain(), this.#mounts.delegated.drain()]))
    this.#mounts.delegated.abandon()
    this.#closing.abort()
    if (stopped && this.#options.pool) this.#closeSession() // a process that ends keeps it until then
    await within(HANDOVER_CLOSE_MS, Promise.all([this.#closing.ended(), this.#mounts.close()]))
    return { error: undefined, stuck: !stopped }
  }

  /** False when a worker is stuck. */
  async #leavePool(): Promise<boolean> {
    if (!this.#options.pool) return await this.#pool.stop()
    return this.#session === undefined || await this.#pool.dropSession(this.#serial, this.#session.fd)
  }

  #closeSession(): void {
    if (!this.#session) return
    native().closeFd(this.#session.fd)
    this.#session = undefined // its number may soon mean something else
  }

  /** Only our own mount: somebody may have mounted something else on top, or unmounted ours. */
  #unmount(): Error | undefined {
    const session = this.#session
    if (!session || this.#device === undefined || mountedDevice(session.mountpoint) !== this.#device) return undefined
    try {
      unmount(session.mountpoint)
      return undefined
    } catch (failure) {
      return failure instanceof Error ? failure : new Error(String(failure))
    }
  }
}
