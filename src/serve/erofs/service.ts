// What a daemon has of kernel EROFS: the journal, the devices' FUSE session, the mounts, and their end in good order. Loaded when it is first needed.

import { publish } from '../../core/diagnostics.ts'
import type { MountInfo } from '../daemon/mounts.ts'
import type { MissDesk } from '../miss-desk.ts'
import { within, type WorkerPool } from '../worker/pool.ts'
import { DeviceSession } from './device-session.ts'
import { type ErofsImage, ErofsMounts, UMOUNT_PATIENCE_MS } from './erofs-mounts.ts'
import { Filler } from './filler.ts'
import { Journal } from './journal.ts'

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
  /** The last mount went away without our doing, and nobody reads from it any more. */
  finished(): void
}

/** Kernel EROFS of one daemon. */
export class ErofsService {
  readonly #options: ErofsServiceOptions
  readonly #journal: Journal
  readonly #session: DeviceSession
  readonly #mounts: ErofsMounts
  #isEnding = false

  /** @throws SERVE_MOUNT when another daemon of that name lives, or the directory cannot be used */
  constructor(options: ErofsServiceOptions) {
    this.#options = options
    this.#journal = Journal.open(options.runDirectory, options.name)
    this.#session = new DeviceSession({ ...options, directory: this.#journal.devices, ended: () => this.#ended() })
    const filler = new Filler({ socket: this.#journal.keeper, signal: options.signal, lost: () => this.#lost() })
    this.#mounts = new ErofsMounts({ ...options, journal: this.#journal, session: this.#session, filler, gone: (mountpoint) => this.#gone(mountpoint) })
  }

  /** See ErofsMounts. */
  add(image: ErofsImage): Promise<void> {
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

  #lost(): void {
    if (!this.#isEnding) publish('serve:warning:raised', { message: 'the keeper of kernel EROFS mounts is lost: what is not in the page cache reads EIO' })
  }

  #gone(mountpoint: string): void {
    publish('serve:warning:raised', { message: `${mountpoint} was unmounted by somebody else` })
    if (this.#mounts.list().length > 0) return
    // a session ends when the last one who has a device open is gone
    if (this.#session.fd < 0) this.#options.finished()
    else this.#options.background(() => this.#session.unmount())
  }
}
