// The FUSE session through which the kernel's EROFS driver reads devices: beside the daemon's own, on the same workers. Each device is a file
// system of one file, mounted in a directory of its own, so that it comes and goes without touching the others.

import path from 'node:path'
import { native } from '../../native/load.ts'
import { unmountFileSystem } from '../../native/mount.ts'
import type { SessionAccounts } from '../access/accountant.ts'
import type { FileSystem } from '../daemon/file-system.ts'
import { Mounts } from '../daemon/mounts.ts'
import { forgetNames } from '../kernel-names.ts'
import { type MissDesk, replyTo } from '../miss-desk.ts'
import { mountedDevice } from '../mountpoint.ts'
import { type FuseSession, mountSession } from '../session.ts'
import type { WorkerPool } from '../worker/pool.ts'
import type { DeviceFile } from './device-file.ts'
import { deviceView } from './device-file-system.ts'

export interface DeviceSessionOptions {
  readonly pool: WorkerPool
  readonly desk: MissDesk
  readonly threads: number
  /** An existing directory to mount on. */
  readonly directory: string
  readonly signal: AbortSignal
  /** The kernel ended the session. */
  ended(): void
  background(task: (options: { readonly signal: AbortSignal }) => Promise<void>): void
}

/** Devices as files, served from the first one on. */
export class DeviceSession {
  readonly #options: DeviceSessionOptions
  readonly #mounts: Mounts
  readonly #directories = new Map<DeviceFile, string>()
  readonly #opening = new Map<string, DeviceFile>()
  /** Names the connection between threads. */
  readonly #serial: number
  readonly #accounts: SessionAccounts
  #session: FuseSession | undefined
  #device: string | undefined
  #last = 0

  constructor(options: DeviceSessionOptions) {
    this.#options = options
    const reply = () => replyTo(this.#session?.fd ?? -1)
    this.#serial = options.pool.register({
      miss: (session, miss, at) => this.#mounts.take(session, reply(), miss, at),
      interrupt: (session, low, high) => options.desk.interrupt(session, reply(), low, high),
      ended: () => options.ended(),
      failed() {}, // the daemon hears of it too
    })
    this.#accounts = options.pool.accountant.session(this.#serial)
    this.#mounts = new Mounts({
      ...options,
      session: this.#serial,
      accounts: this.#accounts,
      changed() {}, // kernel EROFS mounts are not handed over
      openMount: async ({ mountpoint, type }) => {
        const file = this.#opening.get(mountpoint)!
        return { mountpoint, type, source: file.name, config: '', shownConfig: {}, fileSystem: deviceFileSystem(file) }
      },
    })
  }

  /** Descriptor of the connection; -1 while there is none. */
  get fd(): number {
    return this.#session?.fd ?? -1
  }

  /** The path of `file` for the kernel; it is served from now on. @throws SERVE_MOUNT */
  async show(file: DeviceFile): Promise<string> {
    this.#start()
    let directory = this.#directories.get(file)
    if (directory === undefined) {
      directory = `/${++this.#last}`
      this.#opening.set(directory, file)
      try {
        await this.#mounts.add({ mountpoint: directory, type: 'Device', source: file.name, config: '' })
      } finally {
        this.#opening.delete(directory)
      }
      this.#directories.set(file, directory)
    }
    return path.join(this.#options.directory, directory, file.name)
  }

  /** No worker touches `file` any more when it resolves. */
  async hide(file: DeviceFile): Promise<void> {
    const directory = this.#directories.get(file)
    if (directory === undefined) return
    this.#directories.delete(file)
    await this.#mounts.remove(directory)
  }

  /** Unmounts the devices: from now on they cannot be opened; who has them open still reads. @throws NATIVE_SYSCALL */
  async unmount(): Promise<void> {
    if (this.#session === undefined || mountedDevice(this.#options.directory) !== this.#device) return
    await unmountFileSystem(this.#options.directory)
  }

  /** Resolves when no worker touches the connection any more; false when one is stuck. */
  async leavePool(): Promise<boolean> {
    return this.#session === undefined || await this.#options.pool.dropSession(this.#serial, this.#session.fd)
  }

  /** Ends the connection, when no worker uses it: who still reads gets an error. */
  close(): void {
    if (this.#session !== undefined) native().closeFd(this.#session.fd)
    this.#session = undefined
    this.#accounts.end()
  }

  #start(): void {
    if (this.#session !== undefined) return
    const { directory, pool } = this.#options
    // every open is asked for: the answer says that reads go past the page cache, which EROFS has one of its own for
    this.#session = mountSession(directory, { xattrs: false, writable: false, opens: true })
    this.#device = mountedDevice(directory)
    const { fd, connection } = this.#session
    this.#mounts.serve({
      xattrs: connection.xattrs,
      begin: (mounts) => pool.addSession(this.#serial, { fd, connection, mountpoint: directory }, mounts),
      addMount: (mount) => pool.addMount(this.#serial, mount),
      dropMount: (serial) => pool.dropMount(this.#serial, serial),
      forget: (stale) => forgetNames(fd, stale),
    })
  }
}

function deviceFileSystem(file: DeviceFile): FileSystem {
  return {
    type: 'Device',
    view: deviceView(file),
    hasXattr: false,
    image: undefined,
    share: () => ({ kind: 'device', device: file.shared }),
    readInto: (nid, offset, target, options) => file.readInto(nid, offset, target, options),
    close: async () => {}, // ErofsMounts closes the file: others may still need it
  }
}
