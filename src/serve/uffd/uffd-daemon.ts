// A daemon that serves one image as a disk in the memory of virtual machines: it answers their page faults.
// SPEC: spec-surface.md E.4; nydus service/src/block_uffd.rs.

import { rmSync } from 'node:fs'
import path from 'node:path'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { FlatDisk, type RafsImage } from '../../rafs/index.ts'
import { type DaemonEnd, Ending } from '../daemon/ending.ts'
import { type DaemonStateName, LifeCycle } from '../daemon/life-cycle.ts'
import type { MountInfo } from '../daemon/mounts.ts'
import type { Inflight } from '../miss-desk.ts'
import { listenOn } from '../unix-listener.ts'
import { UffdConnection } from './connection.ts'

/** LIMIT: monitors that are served at once. */
const MAX_CONNECTIONS = 64
const READABLE = 1

export interface UffdDaemonOptions { readonly id: string; readonly socket: string }

/** One daemon: its socket, its image and the monitors that are connected. */
export class UffdDaemon {
  readonly done: Promise<DaemonEnd>
  readonly #ending = new Ending()
  readonly id: string
  readonly supervisor = undefined
  readonly #options: UffdDaemonOptions
  readonly #life = new LifeCycle()
  readonly #connections = new Set<UffdConnection>()
  #image: RafsImage | undefined
  #listening = -1
  #watch: object | undefined

  constructor(options: UffdDaemonOptions) {
    this.#options = options
    this.id = options.id
    this.done = this.#ending.done
  }

  get state(): DaemonStateName {
    return this.#life.state
  }

  /** Serves `image`, which is closed with the daemon: INIT → READY → RUNNING. @throws SERVE_MOUNT, FORMAT_INVALID */
  serve(image: RafsImage): void {
    this.#life.apply('mount')
    this.#image = image
    const disk = new FlatDisk(image)
    this.#listening = listenOn(this.#options.socket)
    const watch = native().watchBegin(this.#listening, READABLE, () => this.#accept(disk))
    if (typeof watch === 'number') throw new CodedError('SERVE_MOUNT', `cannot wait for ${this.#options.socket}`, { errno: -watch })
    this.#watch = watch
    this.#life.apply('start')
  }

  /** Ends it and all connections; the second caller joins the first. */
  stop(): Promise<DaemonEnd> {
    return this.#ending.once(() => this.#shutDown())
  }

  mounts(): MountInfo[] {
    return []
  }

  inflight(): Inflight[] {
    return []
  }

  /** @throws SERVE_UNSUPPORTED, as the other methods that follow: one disk is all there is */
  addMount(): Promise<void> {
    return Promise.reject(unsupported())
  }

  replaceMount(): Promise<void> {
    return Promise.reject(unsupported())
  }

  removeMount(): Promise<void> {
    return Promise.reject(unsupported())
  }

  takeOver(): Promise<void> {
    return Promise.reject(unsupported())
  }

  sendState(): Promise<void> {
    return Promise.reject(unsupported())
  }

  start(): void {
    throw unsupported()
  }

  #accept(disk: FlatDisk): void {
    const fd = native().unixAccept(this.#listening)
    if (fd < 0) return
    if (this.#connections.size >= MAX_CONNECTIONS) {
      native().closeFd(fd)
      return
    }
    try {
      const connection = new UffdConnection(fd, disk)
      this.#connections.add(connection)
      void connection.done.then(() => this.#connections.delete(connection))
    } catch (error) {
      if (!isCoded(error)) throw error
      publish('serve:warning:raised', { message: `uffd: ${error.message}` })
    }
  }

  async #shutDown(): Promise<DaemonEnd> {
    this.#life.apply('stop')
    if (this.#watch) native().watchEnd(this.#watch)
    if (this.#listening >= 0) {
      native().closeFd(this.#listening)
      rmSync(path.resolve(this.#options.socket), { force: true })
    }
    await Promise.all([...this.#connections].map((connection) => connection.close()))
    await this.#image?.close()
    return { error: undefined, stuck: false }
  }
}

function unsupported(): CodedError {
  return new CodedError('SERVE_UNSUPPORTED', 'a daemon that serves page faults has one disk, from its start to its end')
}
