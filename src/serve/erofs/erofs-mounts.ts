// Images mounted by the kernel's own EROFS driver. It reads metadata from the bootstrap itself, and data from devices. fileio: each blob's cache file,
// served by a FUSE session of ours as one flat file, so that what is missing is fetched and what fails is EIO. fanotify: the cache file itself, and the
// kernel asks us before it reads (filler.ts). A blob that is complete and verified since this boot needs neither.
//
// Order of a mount: image judged → devices served or marked → written down → mounted. Of an umount: unmounted → crossed out → devices without users
// dropped. The kernel opens a device once, so a mount stays on what it began with.

import { closeSync, fstatSync, openSync } from 'node:fs'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, hasCode } from '../../core/errors.ts'
import { mountFileSystem, unmountFileSystem } from '../../native/mount.ts'
import { watchDescriptor } from '../../native/poll.ts'
import type { RafsImage } from '../../rafs/index.ts'
import type { ImageBlob } from '../../storage/index.ts'
import { createCounterMemory } from '../counters.ts'
import { imageFileSystem } from '../daemon/file-system.ts'
import type { MountInfo } from '../daemon/mounts.ts'
import { mountedDevice, mountsOn, prepareMountpoint } from '../mountpoint.ts'
import { dropCopy, kernelBootstrap, readAhead } from './bootstrap-file.ts'
import { deviceKey, DeviceFile } from './device-file.ts'
import { devicesFor } from './devices.ts'
import type { DeviceSession } from './device-session.ts'
import type { Filler } from './filler.ts'
import type { Journal } from './journal.ts'
import { decodeMounts, encodeMounts, type KeptMount } from './mounts-state.ts'
import { type CacheForm, refuseUnsuitable } from './suitability.ts'
import { isAlive, newSuperblock, raiseReadAhead, superblocks } from './superblock.ts'
import { explainErrno, type Fill, kernelLack, type Transport } from './transport.ts'

/** An opened image that the kernel is to mount; owned by the mounts once `add` was called. */
export interface ErofsImage {
  /** A directory of the host. */
  readonly mountpoint: string
  readonly image: RafsImage
  /** Absolute path of the bootstrap. */
  readonly source: string
  readonly config: string
  readonly shownConfig: object
  readonly cacheForm: CacheForm
  readonly fill: Fill
  readonly prefetchFiles?: readonly string[] | undefined
  readonly warmUp?: (options: { readonly signal: AbortSignal }) => Promise<void>
}

/** What is asked for. Plain data. */
export interface ErofsRequest {
  /** A directory of the host. */
  readonly mountpoint: string
  /** Path of the bootstrap. */
  readonly source: string
  /** Configuration text as given; may hold credentials. */
  readonly config: string
  readonly fill: Fill
  /** Paths inside the image to fetch ahead. */
  readonly prefetchFiles?: readonly string[] | undefined
}

/** Opens an image to be mounted by the kernel: configurations and backends are the business of cli. */
export type OpenErofs = (request: ErofsRequest, options: { readonly signal: AbortSignal }) => Promise<ErofsImage>

export interface ErofsMountsEnvironment {
  readonly journal: Journal
  /** Started at the first mount that needs it. */
  readonly session: DeviceSession
  /** So is its keeper. */
  readonly filler: Filler
  /** Aborted when the daemon ends. */
  readonly signal: AbortSignal
  background(task: (options: { readonly signal: AbortSignal }) => Promise<void>): void
  /** A mount went away without our doing: somebody unmounted it. */
  gone(mountpoint: string): void
}

interface Entry {
  readonly opened: ErofsImage
  /** Mounted by a server before this one. */
  readonly isContinued?: boolean
  /** The bootstrap that the kernel was given. */
  readonly kernelSource: string
  readonly mountedAt: Date
  readonly device: string
  readonly superblock: string | undefined
  readonly uses: readonly { readonly file: DeviceFile; readonly blob: ImageBlob }[]
  readonly transport: Transport
}

const NO_COUNTERS = createCounterMemory(1)

/** LIMIT: an umount waits for reads under way, which wait for the backend: after this long they are failed instead. */
export const UMOUNT_PATIENCE_MS = 2_000

/** The EROFS mounts of one daemon. */
export class ErofsMounts {
  readonly #env: ErofsMountsEnvironment
  readonly #mounts = new Map<string, Entry>()
  /** Detached while in use: their users still read. */
  readonly #detached = new Set<Entry>()
  readonly #files = new Map<string, DeviceFile>()
  /** One operation after the other: which superblock is new is told by what there was before. */
  #turn: Promise<unknown> = Promise.resolve()
  #endWatch: (() => void) | undefined
  #isStateSaved = false

  constructor(environment: ErofsMountsEnvironment) {
    this.#env = environment
  }

  /** Mounts; says how. @throws FORMAT_UNSUPPORTED with the reason, SERVE_ALREADY_MOUNTED, SERVE_MOUNT; the image is closed then */
  async add(opened: ErofsImage): Promise<Transport> {
    return await this.#inTurn(async () => {
      try {
        return await this.#add(opened)
      } catch (error) {
        await opened.image.close()
        throw error
      }
    })
  }

  /** Unmounts; where it is in use it is detached, and served for its users as long as the daemon lives. @throws SERVE_NOT_MOUNTED, SERVE_MOUNT */
  async remove(mountpoint: string): Promise<void> {
    await this.#inTurn(async () => {
      const entry = this.#mounts.get(mountpoint)
      if (entry === undefined) throw new CodedError('SERVE_NOT_MOUNTED', `no kernel EROFS of this daemon is mounted on ${mountpoint}`, { mountpoint })
      await this.#unmount(entry)
      await this.#forget(entry)
    })
  }

  has(mountpoint: string): boolean {
    return this.#mounts.has(mountpoint)
  }

  /** For the API. The kernel answers all operations, so that there is nothing to count. */
  list(): MountInfo[] {
    return [...this.#mounts.values()].map(({ opened: { mountpoint, image, shownConfig }, mountedAt, transport }) => ({
      serial: 0, mountpoint, mountedAt, shownConfig, fileSystem: imageFileSystem(image), counters: NO_COUNTERS, accounts: () => undefined, trace: refuseTrace, transport,
    }))
  }

  /** Unmounts all. What somebody uses is detached, and reads EIO from now on, except from complete blobs. Why something stays mounted, or undefined. */
  async unmountAll(): Promise<Error | undefined> {
    await this.#turn.catch(() => {}) // its caller hears of it
    this.#endWatch?.()
    this.#endWatch = undefined
    const results = await Promise.allSettled([...this.#mounts.values()].map((entry) => this.#unmount(entry)))
    const failed = results.find((result) => result.status === 'rejected')
    return failed === undefined ? undefined : failed.reason instanceof Error ? failed.reason : new Error(String(failed.reason))
  }

  /** Closes images and devices: no worker may touch them any more, no read be under way. With `mounted`, marked devices stay as they are. */
  async close({ mounted }: { readonly mounted: boolean }): Promise<void> {
    const entries = [...this.#mounts.values(), ...this.#detached]
    const used = new Set(entries.filter(({ superblock }) => isAlive(superblock)).flatMap(({ uses }) => uses.map(({ file }) => file)))
    if (!mounted) for (const file of this.#files.values()) if (!used.has(file)) await this.#env.filler.release(file)
    await this.#env.filler.close({ mounted })
    for (const { opened } of entries) await opened.image.close()
    for (const file of this.#files.values()) await file.close()
  }

  async #add(opened: ErofsImage): Promise<Transport> {
    const { image, source, cacheForm } = opened
    this.#env.signal.throwIfAborted()
    refuseUnsuitable(image, cacheForm)
    const lack = kernelLack(opened.fill)
    if (lack !== undefined) throw new CodedError('SERVE_MOUNT', `kernel EROFS: ${lack}`)
    const mountpoint = prepareMountpoint(opened.mountpoint)
    const there = this.#mounts.get(mountpoint)
    if (there !== undefined && there.opened.source === source && there.opened.config === opened.config) {
      await image.close()
      return there.transport
    }
    if (there?.isContinued) {
      await this.#unmount(there)
      await this.#forget(there)
    } else if (there !== undefined) throw new CodedError('SERVE_ALREADY_MOUNTED', `something else is mounted on ${mountpoint}: already exists`, { mountpoint })
    const began = performance.now()
    const directory = cacheForm.directory! // refuseUnsuitable has seen to that
    const uses: { file: DeviceFile; blob: ImageBlob }[] = []
    try {
      for (const blob of image.blobs) uses.push({ file: this.#fileOf(blob, directory), blob })
      const { devices, transport } = await devicesFor(opened.fill, uses.map(({ file }) => file), this.#env)
      const bootstrap = await kernelBootstrap(image, source, directory)
      try {
        await this.#mount(mountpoint, devices, { opened: { ...opened, mountpoint }, kernelSource: bootstrap.path, uses, transport })
      } finally {
        this.#env.background(async ({ signal }) => {
          if (!bootstrap.isCopy) await readAhead(bootstrap.path, { signal })
        })
        await dropCopy(bootstrap)
      }
    } catch (error) {
      await this.#release(uses)
      throw asMountError(mountpoint, error)
    }
    const { transport } = this.#mounts.get(mountpoint)!
    publish('serve:transport:chosen', { ...transport })
    publish('serve:mount:done', { mountpoint, durationMs: performance.now() - began })
    this.#afterMount(uses, opened)
    return transport
  }

  async #mount(mountpoint: string, devices: readonly string[], parts: Pick<Entry, 'opened' | 'kernelSource' | 'uses' | 'transport'>): Promise<void> {
    const { journal } = this.#env
    const { kernelSource } = parts
    await this.#saveState(parts)
    const marked = parts.uses.filter(({ file }) => this.#env.filler.isHeld(file)).map(({ file }) => ({ path: file.dataPath, inode: fstatSync(file.dataFd!).ino }))
    journal.add({ mountpoint, source: kernelSource, ...(marked.length > 0 && { marked }) })
    try {
      const before = superblocks()
      await mountFileSystem({ type: 'erofs', options: [['source', kernelSource], ...devices.map((device) => ['device', device] as const)], target: mountpoint })
      const superblock = newSuperblock(before)
      raiseReadAhead(superblock)
      this.#mounts.set(mountpoint, { ...parts, superblock, mountedAt: new Date(), device: mountedDevice(mountpoint) ?? '' })
    } catch (error) {
      journal.remove(mountpoint)
      throw error
    }
    this.#watch()
    await this.#saveState()
  }

  /** Tells the keeper, for the next server, what there is and what is just going to be. */
  async #saveState(...coming: readonly Pick<Entry, 'opened' | 'kernelSource' | 'transport'>[]): Promise<void> {
    const entries: (Pick<Entry, 'opened' | 'kernelSource' | 'transport'> & { readonly superblock?: string | undefined })[] = [...this.#mounts.values(), ...this.#detached, ...coming]
    const kept = entries.filter(({ transport }) => transport.chosen === 'fanotify').map(({ opened, kernelSource, superblock }): KeptMount => {
      const { mountpoint, source, config, fill, prefetchFiles } = opened
      return { mountpoint, source, kernelSource, config, fill, prefetchFiles, superblock }
    })
    if (kept.length > 0 || this.#isStateSaved) await this.#env.filler.saveState(encodeMounts(kept))
    this.#isStateSaved = kept.length > 0
  }

  /**
   * Continues the mounts that a server before this one told the keeper of, as far as they are there and their images can be opened. Those that are mounted.
   */
  async resume(state: Uint8Array, open: OpenErofs): Promise<ReadonlySet<string>> {
    const continued = new Set<string>()
    this.#isStateSaved = true
    for (const kept of decodeMounts(state)) {
      const { mountpoint, kernelSource } = kept
      const device = mountsOn(mountpoint).find(({ type, source }) => type === 'erofs' && source === kernelSource)?.device
      const { superblock } = kept
      if (device === undefined && (superblock === undefined || !isAlive(superblock))) continue
      try {
        const opened = await open(kept, { signal: this.#env.signal })
        refuseUnsuitable(opened.image, opened.cacheForm)
        const uses = opened.image.blobs.map((blob) => ({ file: this.#fileOf(blob, opened.cacheForm.directory!), blob }))
        const left = uses.filter(({ file }) => this.#env.filler.isLeft(file))
        for (const { file } of left) await this.#env.filler.hold(file)
        const entry: Entry = { opened: { ...opened, mountpoint }, isContinued: true, kernelSource, mountedAt: new Date(), device: device ?? '', superblock, uses, transport: { requested: kept.fill, chosen: 'fanotify', reason: 'continued', directBlobs: uses.length - left.length } }
        if (device === undefined) this.#detached.add(entry)
        else {
          this.#mounts.set(mountpoint, entry)
          continued.add(mountpoint)
          this.#watch()
        }
        this.#afterMount(uses, opened)
      } catch (error) {
        publish('serve:warning:raised', { message: `${mountpoint} cannot be continued: ${error instanceof Error ? error.message : String(error)}` })
      }
    }
    return continued
  }

  /** Gives up all mounts that need one of `devices`, which nobody can answer for any more. `cut` comes when nobody writes to them. */
  async abandon(devices: ReadonlySet<DeviceFile>, cut: () => Promise<void>): Promise<void> {
    for (const file of devices) file.unlink() // another process that writes to it finds that it is gone, and stops
    await this.#inTurn(async () => {
      for (const entry of [...this.#mounts.values(), ...this.#detached]) {
        if (!entry.uses.some(({ file }) => devices.has(file))) continue
        await this.#unmount(entry).catch(() => {}) // it stays, and says EIO
        this.#mounts.delete(entry.opened.mountpoint)
        this.#env.journal.remove(entry.opened.mountpoint)
        this.#detached.delete(entry)
        for (const { file, blob } of entry.uses) file.detach(blob)
        await entry.opened.image.close()
      }
      await cut()
      for (const file of devices) {
        this.#files.delete(file.key)
        await file.close()
      }
    })
  }

  // Nobody waits for these: until a worker knows where chunks lie, this thread answers.
  #afterMount(uses: Entry['uses'], { warmUp }: ErofsImage): void {
    this.#env.background(async (options) => {
      await Promise.allSettled(uses.map(({ file }) => file.prepare(options))) // who reads will hear of a failure
      if (warmUp) await warmUp(options)
      for (const { file } of uses) {
        if (!this.#env.filler.isHeld(file)) continue
        await file.scrub(options)
        this.#env.filler.lookWhetherComplete(file)
      }
    })
  }

  #fileOf(blob: ImageBlob, directory: string): DeviceFile {
    const key = deviceKey(blob, directory)
    let file = this.#files.get(key)
    if (file === undefined) {
      file = new DeviceFile(blob, directory)
      this.#files.set(key, file)
    }
    file.attach(blob)
    return file
  }

  /** Only our own mount: somebody may have mounted something else on top, or unmounted ours. */
  async #unmount({ opened: { mountpoint }, device }: Entry): Promise<void> {
    if (mountedDevice(mountpoint) !== device) return
    try {
      await unmountFileSystem(mountpoint)
    } catch (error) {
      throw asMountError(mountpoint, error)
    }
  }

  /** `entry` is not mounted any more. What nobody can use is closed. */
  async #forget(entry: Entry): Promise<void> {
    this.#mounts.delete(entry.opened.mountpoint)
    this.#env.journal.remove(entry.opened.mountpoint)
    this.#detached.add(entry)
    await this.#dropUnused()
    await this.#saveState().catch(() => {}) // without a keeper there is no next server either
  }

  async #dropUnused(): Promise<void> {
    for (const one of [...this.#detached]) {
      if (isAlive(one.superblock)) continue
      this.#detached.delete(one)
      await this.#release(one.uses)
      await one.opened.image.close()
    }
  }

  async #release(uses: Entry['uses']): Promise<void> {
    for (const { file, blob } of uses) {
      file.detach(blob)
      if (file.isUsed) continue
      this.#files.delete(file.key)
      await this.#env.session.hide(file)
      await this.#env.filler.release(file)
      await file.close()
    }
  }

  #watch(): void {
    if (this.#endWatch !== undefined) return
    const fd = openSync('/proc/self/mountinfo', 'r')
    const end = watchDescriptor(fd, 'priority', () => void this.#inTurn(() => this.#check()))
    this.#endWatch = () => {
      end()
      closeSync(fd)
    }
  }

  async #check(): Promise<void> {
    for (const entry of this.#mounts.values()) {
      const { mountpoint } = entry.opened
      if (mountsOn(mountpoint).some(({ device }) => device === entry.device)) continue
      await this.#forget(entry)
      this.#env.gone(mountpoint)
    }
  }

  async #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.#turn.catch(() => {}).then(action)
    this.#turn = turn
    return await turn
  }
}

function refuseTrace(): never {
  throw new CodedError('SERVE_UNSUPPORTED', 'the kernel reads by itself: nobody can trace a kernel EROFS mount')
}

function asMountError(mountpoint: string, error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error))
  if (!hasCode(error, 'NATIVE_SYSCALL') && !('syscall' in error)) return error
  const why = hasCode(error, 'NATIVE_SYSCALL') ? explainErrno(error.context['errnoName']) : undefined
  return new CodedError('SERVE_MOUNT', `cannot mount EROFS on ${mountpoint}: ${error.message}${why === undefined ? '' : `: ${why}`}`, { mountpoint }, { cause: error })
}
