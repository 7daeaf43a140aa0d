// Mounting and unmounting while the daemon runs. Order of a mount: opened → in the table → workers know it → the kernel forgets what it
// remembered of the name. Order of an umount: out of the table → workers do not know it → the kernel forgets → reads under way end → no
// worker touches its descriptors → closed.

import path from 'node:path'
import { publish } from '../../core/diagnostics.ts'
import { CodedError } from '../../core/errors.ts'
import { FUSE_OP } from '../../wire/fuse/opcode.ts'
import type { SessionAccounts } from '../access/accountant.ts'
import type { MountAccounts } from '../access/accounts.ts'
import type { BackendChange } from '../../storage/index.ts'
import { createCounterMemory, OperationCounters } from '../counters.ts'
import type { Miss } from '../fuse/core.ts'
import type { LivePlace } from '../fuse/live-answers.ts'
import type { Transport } from '../erofs/transport.ts'
import type { StaleNames } from '../kernel-names.ts'
import type { MissDesk, Reply } from '../miss-desk.ts'
import type { WorkerMount } from '../worker/messages.ts'
import type { MountedFileSystem, MountRequest, OpenMount } from './file-system.ts'
import { DelegatedRequests } from './delegated.ts'
import { canonicalMountpoint, MountTable, type Row, type SavedRow } from './mount-table.ts'

/** What mounts need of their daemon. */
export interface MountsEnvironment {
  readonly desk: MissDesk
  readonly accounts: SessionAccounts
  readonly threads: number
  /** Where the desk also takes reads of other mounts, whose serials are their own: the session of these. */
  readonly session?: number
  readonly openMount: OpenMount | undefined
  /** Aborted when the daemon ends. */
  readonly signal: AbortSignal
  /** Called when mounts have changed, before the kernel can know of it. */
  changed(): void
  /** Runs a task that nobody waits for. */
  background(task: (options: { readonly signal: AbortSignal }) => Promise<void>): void
}

/** Those who show the mounts: the workers of a FUSE session, or the thread of a virtual machine's device. */
export interface Viewers {
  /** False when whoever looks was told once and for ever that there are no extended attributes. */
  readonly xattrs: boolean
  /** From now on they serve, at first these. */
  begin(mounts: readonly WorkerMount[]): void
  addMount(mount: WorkerMount): void
  /** Resolves when none of them touches the mount's descriptors any more; false when one is stuck. */
  dropMount(serial: number): Promise<boolean>
  /** Makes the kernel behind them forget what it remembered. Resolves when it shows the new state; `freed` when it let go of the old one. */
  forget(stale: StaleNames): Promise<{ readonly freed: Promise<void> }>
}

/** In the table: what is mounted, and its counters (a block for each worker, the last one for the main thread). */
interface Entry extends MountedFileSystem {
  readonly view: MountedFileSystem['fileSystem']['view']
  readonly counters: SharedArrayBuffer
  readonly missCounters: OperationCounters
  changes: BackendChange | undefined
  /** Ends what goes on in the background, before the file system is closed. */
  readonly closing: AbortController
  warming: Promise<void>
}

const NOTHING_WATCHED = { files: false, pattern: false, latest: false }

/** One mount, for the API. */
export interface MountInfo extends Pick<MountedFileSystem, 'mountpoint' | 'shownConfig' | 'fileSystem'> {
  readonly serial: number
  readonly mountedAt: Date
  readonly counters: SharedArrayBuffer
  /** What is known of its files. */
  accounts(): MountAccounts | undefined
  /** Begins or ends a trace of its reads. */
  trace(isOn: boolean): void
  /** Remembers what was changed of its configuration, for whoever continues the mount. */
  remember?(change: BackendChange): void
  /** Which way it is mounted, where there was a choice. */
  readonly transport?: Transport | undefined
}

/** What a saved state says of a mount. */
export interface SavedMountRow extends Omit<MountRequest, 'prefetchFiles'>, SavedRow {
  /** What was changed of the configuration since. */
  readonly changes?: BackendChange | undefined
}

/** Mounts of a saved state, opened again. */
export interface Reopened {
  readonly mounts: readonly { readonly mounted: MountedFileSystem; readonly row: SavedMountRow }[]
  close(): Promise<void>
}

/** The mounts of one daemon. */
export class Mounts {
  readonly #env: MountsEnvironment
  #table = new MountTable<Entry>()
  /** Undefined until `serve`. */
  #viewers: Viewers | undefined
  /** What the kernel may remember of mounts that were changed before that. */
  readonly #stale: StaleNames[] = []
  /** The last operation on each mountpoint: those of one mountpoint follow each other. */
  readonly #turns = new Map<string, Promise<void>>()

  /** Requests that are served on this thread. */
  readonly delegated: DelegatedRequests

  constructor(environment: MountsEnvironment) {
    this.#env = environment
    this.delegated = new DelegatedRequests({
      serials: () => [...this.#table].map(({ serial }) => serial),
      find: (serial) => {
        const row = this.#table.bySerial(serial)
        return row && { fileSystem: row.mounted.fileSystem, counters: row.mounted.missCounters, place: placeOf(row) }
      },
    })
  }

  /** Places a file system before the daemon serves. */
  place(mounted: MountedFileSystem): void {
    this.#watch(this.#table.attach(this.#entryOf(mounted)).row)
  }

  /** Opens what a saved state says was mounted. @throws what opening throws; nothing stays open then */
  async reopen(saved: readonly SavedMountRow[]): Promise<Reopened> {
    const opened: Reopened['mounts'][number][] = []
    const close = async (): Promise<void> => {
      for (const { mounted } of opened) await mounted.fileSystem.close()
    }
    try {
      for (const row of saved) {
        const mounted = await this.#open(row, { resume: true })
        opened.push({ mounted, row })
        if (row.changes) mounted.fileSystem.image?.reconfigure(row.changes)
      }
    } catch (error) {
      await close()
      throw error
    }
    return { mounts: opened, close }
  }

  /** Takes over mounts with the numbers that the kernel knows. What was mounted before stays, except where the saved state has a mount. */
  adopt({ mounts }: Reopened, { lastSerial, lastDirectory }: { readonly lastSerial: number; readonly lastDirectory: number }): void {
    const early = [...this.#table]
    this.#table = new MountTable()
    this.#table.last = { serial: lastSerial, directory: lastDirectory }
    for (const { mounted, row } of mounts) this.#watch(this.#table.attach(this.#entryOf(mounted, row.changes), row).row)
    for (const { mounted } of early) {
      if (this.#table.at(mounted.mountpoint)) this.#env.background(() => mounted.fileSystem.close())
      else {
        const { row, stale } = this.#table.attach(mounted)
        this.#watch(row)
        this.#stale.push(stale)
      }
    }
  }

  /** Lets `viewers` serve the mounts. */
  serve(viewers: Viewers): void {
    this.#viewers = viewers
    viewers.begin([...this.#table].map(forWorker))
    for (const { mounted } of this.#table) this.#warmUp(mounted)
    for (const stale of this.#stale.splice(0)) this.#env.background(async () => await (await viewers.forget(stale)).freed)
  }

  /** Mounts; the same mount again is none. @throws SERVE_ALREADY_MOUNTED, and what opening throws */
  async add(request: MountRequest): Promise<void> {
    await this.#inTurn(request.mountpoint, async () => {
      const row = this.#table.at(request.mountpoint)
      if (!row) return await this.#show(await this.#open(request))
      if (isSame(row.mounted, request)) return
      throw new CodedError('SERVE_ALREADY_MOUNTED', `something else is mounted on ${request.mountpoint}: already exists`, { mountpoint: request.mountpoint })
    })
  }

  /** Mounts in place of what is mounted there. @throws SERVE_NOT_MOUNTED, and what opening throws: the old mount stays then */
  async replace(request: MountRequest): Promise<void> {
    await this.#inTurn(request.mountpoint, async () => {
      if (!this.#table.at(request.mountpoint)) throw new CodedError('SERVE_NOT_MOUNTED', `nothing is mounted on ${request.mountpoint}`, { mountpoint: request.mountpoint })
      await this.#show(await this.#open(request))
    })
  }

  /** Unmounts: whoever asks for the mountpoint after that does not find it; whoever has files of it open gets ESTALE. @throws SERVE_NOT_MOUNTED */
  async remove(mountpoint: string): Promise<void> {
    await this.#inTurn(mountpoint, async () => {
      const { row, stale } = this.#table.detach(mountpoint)
      this.#env.changed()
      const dropped = this.#drop(row)
      await this.#forget(stale)
      await this.#release(row, dropped)
    })
  }

  /** The file system that a request of the kernel is for. */
  bySerial(serial: number): Entry | undefined {
    return this.#table.bySerial(serial)?.mounted
  }

  /** For the API. */
  list(): MountInfo[] {
    const { accounts } = this.#env
    return [...this.#table].map(({ serial, mountedAt, mounted: { mountpoint, shownConfig, fileSystem, counters } }) => ({
      serial, mountpoint, mountedAt, shownConfig, fileSystem, counters, accounts: () => accounts.of(serial), trace: (isOn) => accounts.trace(serial, isOn),
      remember: (change) => this.#remember(serial, change),
    }))
  }

  /** Serves a request of a mount that is served here. */
  request(reply: Reply, serial: number, bytes: Uint8Array, at: number): void {
    this.delegated.serve(reply, serial, bytes, at)
  }

  #remember(serial: number, change: BackendChange): void {
    const mounted = this.bySerial(serial)
    if (!mounted) return
    mounted.changes = { ...mounted.changes, ...change }
    this.#env.changed()
  }

  /** Passes the bytes of a miss on. */
  take(session: number, reply: Reply, miss: Miss, at: number): void {
    const mounted = this.bySerial(miss.serial)
    if (mounted?.missCounters.isWatched) this.#env.accounts.add({ serial: miss.serial, nid: miss.nid, offset: miss.offset, length: miss.length, opcode: FUSE_OP.READ, errno: 0, at })
    this.#env.desk.take(session, reply, mounted?.fileSystem, miss, at, mounted?.missCounters)
  }

  /** For a saved state. */
  save(): { mounts: SavedMountRow[]; lastSerial: number; lastDirectory: number } {
    const { serial: lastSerial, directory: lastDirectory } = this.#table.last
    const mounts = [...this.#table].map((row) => {
      const { mountpoint, type, source, config, changes } = row.mounted
      return { mountpoint, type, source, config, ...(changes && { changes }), ...this.#table.save(row) }
    })
    return { mounts, lastSerial, lastDirectory }
  }

  /** Closes all file systems: no worker may touch them any more. */
  async close(): Promise<void> {
    await Promise.all(this.#turns.values())
    await Promise.all([...this.#table].map(({ mounted }) => mounted.fileSystem.close()))
  }

  async #open(request: MountRequest, { resume }: { readonly resume: boolean } = { resume: false }): Promise<MountedFileSystem> {
    const { openMount, signal } = this.#env
    if (!openMount) throw new CodedError('SERVE_UNSUPPORTED', 'this daemon mounts nothing after its start')
    signal.throwIfAborted()
    const mounted = await openMount({ ...request, mountpoint: canonicalMountpoint(request.mountpoint) }, { signal, resume })
    try {
      this.#admit(mounted)
      return mounted
    } catch (error) {
      await mounted.fileSystem.close()
      throw error
    }
  }

  // A kernel that was told once that there are no extended attributes (what the first image wants) never asks again.
  #admit({ fileSystem, mountpoint }: MountedFileSystem): void {
    if (this.#env.signal.aborted) throw new CodedError('SERVE_STATE', 'the daemon is ending')
    if (fileSystem.hasXattr && this.#viewers?.xattrs === false) {
      throw new CodedError('SERVE_UNSUPPORTED', 'the image has extended attributes, which a daemon that was started with an image without any cannot show: start one without --bootstrap', { mountpoint })
    }
  }

  async #show(mounted: MountedFileSystem): Promise<void> {
    const began = performance.now()
    const { row, replaced, stale } = this.#table.attach(this.#entryOf(mounted))
    this.#watch(row)
    this.#env.changed()
    this.#viewers?.addMount(forWorker(row))
    await this.#forget(stale)
    if (replaced) await this.#release(replaced, this.#drop(replaced))
    if (this.#viewers) this.#warmUp(row.mounted)
    publish('serve:mount:done', { mountpoint: mounted.mountpoint, durationMs: performance.now() - began })
  }

  async #forget(stale: StaleNames): Promise<void> {
    if (!this.#viewers) this.#stale.push(stale)
    else {
      const { freed } = await this.#viewers.forget(stale)
      this.#env.background(() => freed)
    }
  }

  #warmUp(entry: Entry): void {
    const { warmUp, closing } = entry
    if (!warmUp) return
    this.#env.background(({ signal }) => {
      entry.warming = warmUp({ signal: AbortSignal.any([signal, closing.signal]) }).catch((error: unknown) => {
        if (!closing.signal.aborted) throw error
      })
      return entry.warming
    })
  }

  #drop({ serial }: Row<Entry>): Promise<boolean> {
    return this.#viewers?.dropMount(serial) ?? Promise.resolve(true)
  }

  // A worker that is stuck may still read from descriptors: then they stay open, rather than become somebody else's.
  async #release({ serial, mounted }: Row<Entry>, dropped: Promise<boolean>): Promise<void> {
    this.#env.accounts.close(serial)
    mounted.closing.abort()
    await Promise.allSettled([this.#env.desk.drop(serial, this.#env.session), mounted.warming])
    if (await dropped) await mounted.fileSystem.close()
    else publish('serve:warning:raised', { message: `a worker hangs: files of ${mounted.mountpoint} stay open` })
  }

  #watch({ serial, mounted: { watched, counters } }: Row<Entry>): void {
    const switches = Array.from({ length: this.#env.threads + 1 }, (_, thread) => new OperationCounters(counters, thread))
    this.#env.accounts.open(serial, watched ?? NOTHING_WATCHED, switches)
  }

  #entryOf(mounted: MountedFileSystem, changes?: BackendChange): Entry {
    const counters = createCounterMemory(this.#env.threads + 1)
    return {
      ...mounted, view: mounted.fileSystem.view, counters, missCounters: new OperationCounters(counters, this.#env.threads), changes, closing: new AbortController(), warming: Promise.resolve(),
    }
  }

  async #inTurn(mountpoint: string, action: () => Promise<void>): Promise<void> {
    const key = canonicalMountpoint(mountpoint)
    const before = this.#turns.get(key)
    const turn = (async () => {
      await before?.catch(() => {}) // its caller hears of it
      await action()
    })()
    const done = turn.catch(() => {})
    this.#turns.set(key, done)
    try {
      await turn
    } finally {
      if (this.#turns.get(key) === done) this.#turns.delete(key)
    }
  }
}

function placeOf({ serial, steps }: Pick<Row<Entry>, 'serial' | 'steps'>): LivePlace {
  return { nodeHigh: serial, inoHigh: steps.length === 0 ? 0 : serial }
}

function forWorker({ serial, steps, mounted }: Row<Entry>): WorkerMount {
  return { serial, steps, counters: mounted.counters, fileSystem: mounted.fileSystem.share(placeOf({ serial, steps })) }
}

/** Whether `request` asks for what is mounted. COMPAT: upstream refuses the repeat, and so fails to upgrade a shared daemon. */
function isSame({ type, source, config }: MountRequest, request: MountRequest): boolean {
  return type === request.type && source === path.resolve(request.source) && (config === request.config || normal(config) === normal(request.config))
}

function normal(config: string): string {
  try {
    return JSON.stringify(JSON.parse(config))
  } catch {
    return config
  }
}
