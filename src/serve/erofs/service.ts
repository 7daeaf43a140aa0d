// What a daemon has of kernel EROFS: the journal, the devices' FUSE session, the mounts, and their end in good order. Loaded when it is first needed.

import { publish } from '../../core/diagnostics.ts'
import { CodedError } from '../../core/errors.ts'
import type { MountInfo } from '../daemon/mounts.ts'
import type { MissDesk } from '../miss-desk.ts'
import { within, type WorkerPool } from '../worker/pool.ts'
import type { DeviceFile } from './device-file.ts'
import { DeviceSession } from './device-session.ts'
import { type ErofsImage, ErofsMounts, type OpenErofs, UMOUNT_PATIENCE_MS } from './erofs-mounts.ts'
import { Filler } from './filler.ts'
import { Journal } from './journal.ts'
import type { Transport } from './transport.ts'

export interface ErofsServiceOptions {
  readonly pool: WorkerPool
  readonly desk: MissDesk
  readonly threads: number
  /** The pool lives on when this daemon ends. */
  readonly isPoolShared: boolean
  /** Where journals and devices are. */
  readonly runDirectory: string
  /** What the daemon is known as: the next one of that name cleans up behind it. */
  readonly name: string
  readonly signal: AbortSignal
  background(task: (options: { readonly signal: AbortSignal }) => Promise<void>): void
  /** Opens what a server before this one has mounted; without it that is detached. */
  readonly open: OpenErofs | undefined
  /** The last mount went away without our doing, and nobody reads from it any more. `error`: it had to be given up. */
  finished(error?: Error): void
}

/** Kernel EROFS of one daemon. */
export class ErofsService {
  readonly #options: ErofsServiceOptions
  readonly #journal: Journal
  readonly #session: DeviceSession
  readonly #filler: Filler
  readonly #mounts: ErofsMounts
  #isEnding = false

  /** Continues what a server of that name has left with a keeper, detaches what it has left else. @throws SERVE_MOUNT when another daemon of that name lives, or the directory cannot be used */
  static async open(options: ErofsServiceOptions): Promise<ErofsService> {
    const service = new ErofsService(options)
    const filler = service.#filler
    const state = await filler.resume()
    const continued = state && options.open ? await service.#mounts.resume(state, options.open) : new Set<string>()
    service.#journal.recover(continued, { isKept: filler.isConnected })
    filler.resumed()
    return service
  }

  private constructor(options: ErofsServiceOptions) {
    this.#options = options
    this.#journal = Journal.open(options.runDirectory, options.name)
    this.#session = new DeviceSession({ ...options, directory: this.#journal.devices, ended: () => this.#ended() })
    const filler = new Filler({ socket: this.#journal.keeper, signal: options.signal, completed: ({ dataPath }) => this.#journal.unmark(dataPath), lost: async (devices, cut) => await this.#lost(devices, cut) })
    this.#filler = filler
    this.#mounts = new ErofsMounts({ ...options, journal: this.#journal, session: this.#session, filler, gone: (mountpoint) => this.#gone(mountpoint) })
  }

  /** See ErofsMounts. */
  add(image: ErofsImage): Promise<Transport> {
    return this.#mounts.add(image)
  }

  /** See ErofsMounts. */
  remove(mountpoint: string): Promise<void> {
    return this.#mounts.remove(mountpoint)
  }

  has(mountpoint: string): boolean {
    return this.#mounts.has(mountpoint)
  }

  list(): MountInfo[] {
    return this.#mounts.list()
  }

  /**
   * Unmounts everything. Reads under way are waited for as long as that is decent; `failReads` answers those that are left. Why something
   * stays mounted, or undefined.
   */
  async unmountAll(failReads: () => Promise<void>): Promise<Error | undefined> {
    this.#isEnding = true
    const unmounting = this.#mounts.unmountAll()
    if (!await within(UMOUNT_PATIENCE_MS, unmounting)) await failReads()
    const failure = await unmounting
    await this.#session.unmount()
    return failure
  }

  /** When no worker touches the daemon's own mount any more. With `mounted`, mounts and journal stay for the next daemon of that name to find. */
  async close({ mounted }: { readonly mounted: boolean }): Promise<void> {
    const left = !this.#options.isPoolShared || await this.#session.leavePool()
    await this.#mounts.close({ mounted })
    if (left) this.#session.close()
    if (!mounted) this.#journal[Symbol.dispose]()
  }

  /** The kernel ended the devices' session: their last user is gone, or somebody aborted it. */
  #ended(): void {
    if (this.#isEnding) return
    if (this.#mounts.list().length === 0) this.#options.finished()
    else publish('serve:warning:raised', { message: 'the devices of kernel EROFS mounts were taken away: what is not in the page cache reads EIO' })
  }

  async #lost(devices: ReadonlySet<DeviceFile>, cut: () => Promise<void>): Promise<void> {
    const error = new CodedError('SERVE_KEEPER', 'both holders of fanotify are lost: what was not complete of the kernel EROFS mounts reads EIO from now on')
    publish('serve:warning:raised', { message: error.message })
    await this.#mounts.abandon(devices, cut)
    if (!this.#isEnding && this.#mounts.list().length === 0) this.#options.finished(error)
  }

  #gone(mountpoint: string): void {
    publish('serve:warning:raised', { message: `${mountpoint} was unmounted by somebody else` })
    if (this.#mounts.list().length > 0) return
    // a session ends when the last one who has a device open is gone
    if (this.#session.fd < 0) this.#options.finished()
    else this.#options.background(() => this.#session.unmount())
  }
}
