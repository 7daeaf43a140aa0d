// A daemon whose file systems are seen by a virtual machine: the same mounts, misses and life cycle as a FUSE daemon, behind a vhost-user-fs device.
// SPEC: spec-surface.md B.1; RUNNING before any monitor has connected, as Kata wants it (reference/vm-containerd.md).

import { publish } from '../../core/diagnostics.ts'
import { CodedError } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { createAccessMemory } from '../access/access-log.ts'
import { Accountant } from '../access/accountant.ts'
import { createCounterMemory, OperationCounters } from '../counters.ts'
import { BackgroundTasks, type BackgroundTask, type DaemonEnd, Ending } from '../daemon/ending.ts'
import type { MountedFileSystem, MountRequest, OpenMount } from '../daemon/file-system.ts'
import { type DaemonStateName, LifeCycle } from '../daemon/life-cycle.ts'
import { type MountInfo, Mounts } from '../daemon/mounts.ts'
import { type Inflight, MissDesk, REQUEST_DEADLINE_MS } from '../miss-desk.ts'
import type { WorkerMount } from '../worker/messages.ts'
import { decodeState, encodeState, type SavedState } from '../daemon/saved-state.ts'
import type { StateSecrets } from '../daemon/state-secrets.ts'
import { receiveFromSupervisor, sendToSupervisor } from '../daemon/supervisor.ts'
import { DeviceHost, type GuestHolder } from './device-host.ts'
import type { HeldDevice } from './device-state.ts'
import { DeviceThreads } from './device-threads.ts'
import { createTrail, readTrail, type TrailEnds } from './trail.ts'

/** The device's thread; the main thread's counters are the block behind it. */
const DEVICE_THREAD = 0

export interface VirtiofsDaemonOptions {
  readonly id: string
  readonly supervisor: string | undefined
  /** Path of the vhost-user socket. */
  readonly socket: string
  readonly openMount: OpenMount
  /** Hides the credentials in what the holder keeps. */
  readonly secrets: StateSecrets
  /** A read that has no bytes after this long fails with EIO. */
  readonly requestDeadlineMs?: number
  /** Threads that other daemons use too, which end with none of them; default one of its own. */
  readonly threads?: DeviceThreads
  /** The device's thread is broken: default to end. */
  readonly failed?: (error: Error) => void
  /** Whoever keeps the connection of the machine while servers come and go, and hears what the next one needs to know of mounts. */
  readonly holder?: GuestHolder & { keep(state: Uint8Array): void }
}

/** One daemon: its device, its mounts and its state. */
export class VirtiofsDaemon {
  /** Resolves when the daemon has ended, whoever ended it. */
  readonly done: Promise<DaemonEnd>
  readonly #ending = new Ending()
  readonly #options: VirtiofsDaemonOptions
  readonly #life = new LifeCycle()
  readonly #counters = createCounterMemory(DEVICE_THREAD + 2)
  readonly #desk: MissDesk
  readonly #mounts: Mounts
  readonly #closing = new BackgroundTasks()
  readonly #threads: DeviceThreads
  #device: DeviceHost | undefined
  /** Under a supervisor: where the device leaves what its successor needs. */
  #trail: TrailEnds | undefined
  /** The same of the daemon before, until it is started; -1. */
  #takenOver = -1

  constructor(options: VirtiofsDaemonOptions) {
    this.#options = options
    this.#threads = options.threads ?? new DeviceThreads(1)
    this.done = this.#ending.done
    this.#desk = new MissDesk(new OperationCounters(this.#counters, DEVICE_THREAD + 1), options.requestDeadlineMs ?? REQUEST_DEADLINE_MS)
    this.#mounts = new Mounts({
      // LIMIT: of single reads only those are known that the device's thread passes on
      accounts: new Accountant(createAccessMemory(DEVICE_THREAD + 1), DEVICE_THREAD + 1).session(0),
      desk: this.#desk, threads: DEVICE_THREAD + 1, openMount: options.openMount, signal: this.#closing.signal,
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

  /** Listens and serves `mounted`: INIT → READY → RUNNING. @throws SERVE_MOUNT when the socket cannot be made */
  serve(mounted: readonly MountedFileSystem[]): void {
    this.#life.apply('mount')
    for (const one of mounted) this.#mounts.place(one)
    if (this.#options.supervisor !== undefined) this.#trail = createTrail()
    this.#serve()
  }

  /** Continues what a server before this one has left, in the holder: its mounts, and its device if there was a machine. @throws what opening throws, SERVE_MOUNT */
  async continue(state: SavedState, device: HeldDevice | undefined): Promise<void> {
    await this.#adopt(state)
    this.#serve(device)
  }

  async #adopt(state: SavedState): Promise<void> {
    this.#life.check('takeover')
    const reopened = await this.#mounts.reopen(state.mounts)
    try {
      this.#life.apply('takeover') // again: the daemon may have been stopped, or asked twice
    } catch (error) {
      await reopened.close()
      throw error
    }
    this.#mounts.adopt(reopened, state)
  }

  #supervisor(): string {
    const { supervisor } = this.#options
    if (supervisor === undefined) throw new CodedError('SERVE_STATE', 'a handover needs --supervisor and --id')
    return supervisor
  }

  #saved(): Uint8Array {
    const { id, socket, secrets } = this.#options
    return encodeState({ id, mountpoint: socket, ...this.#mounts.save() }, secrets)
  }

  #serve(restored?: HeldDevice): void {
    const { socket, holder, failed } = this.#options
    const begin = (mounts: readonly WorkerMount[]): DeviceHost => new DeviceHost({
      socket, counters: this.#counters, thread: DEVICE_THREAD, owner: { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 },
      policy: { xattrs: true, writable: false }, threads: this.#threads, mounts, holder, restored, trail: this.#trail,
    }, {
      // each request is a session of its own: a guest may use a number twice
      miss: (token, miss, at) => this.#mounts.take(token, (message) => this.#device?.answer(token, message), miss, at),
      request: (token, serial, bytes, at) => this.#mounts.request((message) => this.#device?.answer(token, message), serial, bytes, at),
      cancel: (token) => this.#desk.cancel(token),
      frontEnd: (connected) => publish('serve:guest:changed', { socket, connected }),
      failed: (error) => failed ? failed(error) : void this.#end({ handOn: false, error }),
    })
    this.#mounts.serve({
      xattrs: true,
      begin: (mounts) => { this.#device = begin(mounts) },
      addMount: (mount) => this.#device?.addMount(mount),
      dropMount: async (serial) => await this.#device?.dropMount(serial) ?? true,
      forget: async () => ({ freed: Promise.resolve() }), // a guest is told nothing: what may change is not cached there
    })
    this.#life.apply('start')
    this.#keep()
  }

  // Before a machine can know of a change, as daemon.ts.
  #keep(): void {
    if (this.#device) this.#options.holder?.keep(this.#saved())
  }

  /** What the supervisor keeps becomes this daemon's: INIT → READY. @throws SERVE_STATE, SERVE_SUPERVISOR, SERVE_BAD_STATE_FILE, and what opening throws; it stays in INIT then */
  async takeOver(): Promise<void> {
    this.#life.check('takeover')
    const { bytes, fd } = await receiveFromSupervisor(this.#supervisor(), { signal: this.#closing.signal })
    try {
      await this.#adopt(decodeState(bytes, this.#options.secrets))
    } catch (error) {
      native().closeFd(fd)
      throw error
    }
    this.#takenOver = fd
  }

  /** Serves what was taken over, from where the last daemon has left the machine: READY → RUNNING. @throws SERVE_STATE, SERVE_BAD_STATE_FILE */
  start(): void {
    this.#life.check('start')
    if (this.#takenOver < 0) throw new CodedError('SERVE_STATE', 'there is nothing to start')
    const { ends, device } = readTrail(this.#takenOver)
    this.#takenOver = -1
    this.#trail = ends
    this.#serve(device)
  }

  /** Gives the supervisor the state of the mounts, and a socket in whose queue the machine's connection lies. @throws SERVE_NOT_READY, SERVE_SUPERVISOR */
  async sendState(): Promise<void> {
    const supervisor = this.#supervisor()
    if (!this.#trail) throw new CodedError('SERVE_NOT_READY', 'there is no device to hand on', { state: this.state })
    await sendToSupervisor(supervisor, { bytes: this.#saved(), fd: this.#trail.in }, { signal: this.#closing.signal })
  }

  /** Mounts one more file system; the same one again is none. @throws SERVE_ALREADY_MOUNTED, and what opening throws */
  addMount(request: MountRequest): Promise<void> {
    return this.#mounts.add(request)
  }

  /** Mounts in place of what is mounted there. @throws SERVE_NOT_MOUNTED, and what opening throws */
  replaceMount(request: MountRequest): Promise<void> {
    return this.#mounts.replace(request)
  }

  /** Unmounts one of the file systems. @throws SERVE_NOT_MOUNTED */
  removeMount(mountpoint: string): Promise<void> {
    return this.#mounts.remove(mountpoint)
  }

  /**
   * Ends it; the second caller joins the first. With `unmount`, or without a supervisor, the machine's connection ends; otherwise whoever has what the supervisor
   * keeps can continue, with the requests that were not answered.
   */
  stop({ unmount }: { readonly unmount: boolean }): Promise<DaemonEnd> {
    return this.#end({ handOn: !unmount && this.#trail !== undefined, error: undefined })
  }

  /** Runs `task` beside the serving; it is aborted and awaited before file systems are closed. What it fails with is logged, not thrown. */
  background(task: BackgroundTask): void {
    this.#closing.run(task)
  }

  /** For the API. */
  mounts(): MountInfo[] {
    return this.#mounts.list()
  }

  /** For the API: reads under way. */
  inflight(): Inflight[] {
    return this.#desk.inflight()
  }

  #end({ handOn, error }: { readonly handOn: boolean; readonly error: Error | undefined }): Promise<DaemonEnd> {
    return this.#ending.once(() => this.#shutDown(handOn, error))
  }

  async #shutDown(handOn: boolean, error: Error | undefined): Promise<DaemonEnd> {
    this.#life.apply('stop')
    if (handOn) this.#mounts.delegated.abandon()
    this.#closing.abort()
    await Promise.all([handOn ? this.#desk.abandon() : this.#desk.close(), this.#closing.ended()])
    const stopped = (await this.#device?.stop({ handOn }) ?? true) && (this.#options.threads !== undefined || await this.#threads.stop())
    for (const fd of [this.#trail?.in, this.#trail?.out, this.#takenOver]) if (stopped && fd !== undefined && fd >= 0) native().closeFd(fd)
    if (stopped) await this.#mounts.close()
    return { error, stuck: !stopped }
  }
}
