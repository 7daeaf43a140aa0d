// Answers what the kernel asks before it reads a marked cache file: a read goes on when every chunk of its range lies there, verified; it fails when
// that cannot be had. Never does a read go on for another reason.
//
// Order of a device's life: opened → kept and marked (by the keeper) → mounted → asked about → complete, synced: mark removed → unmounted → released → closed.

import { fstatSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, hasCode } from '../../core/errors.ts'
import { lendFile } from '../../storage/index.ts'
import { ERRNO, errnoOf } from '../errno.ts'
import { FailedReads } from '../failed-reads.ts'
import { REQUEST_DEADLINE_MS } from '../miss-desk.ts'
import type { DeviceFile } from './device-file.ts'
import { KeeperClient, type Question } from './keeper-client.ts'

export interface FillerOptions {
  /** Path of the keeper's socket. */
  readonly socket: string
  readonly signal: AbortSignal
  /** `file` is complete and synced. */
  completed(file: DeviceFile): void
  /** Neither holder can be reached any more. Once it resolves the kernel lets reads of `devices` pass: they must be unreadable by then (`cut`), and nobody write to them any more. */
  lost(devices: ReadonlySet<DeviceFile>, cut: () => Promise<void>): Promise<void>
}

interface Held { readonly number: number; readonly unlend: () => void; isComplete: boolean }

/** LIMIT: a guardian takes a keeper's place within a few milliseconds. */
const RECONNECT_PAUSE_MS = 5
/** LIMIT: whether a device is complete is looked at so often while it is filled. */
const COMPLETE_PAUSE_MS = 250

/** The devices that a keeper holds for this server. */
export class Filler {
  readonly #options: FillerOptions
  readonly #held = new Map<DeviceFile, Held>()
  readonly #files = new Map<number, DeviceFile>()
  readonly #fills = new Set<Promise<void>>()
  /** What a server before this one left, by identity; what no image of ours has stays the keeper's. */
  readonly #left = new Map<string, () => void>()
  readonly #closing = new AbortController()
  readonly #failed = new FailedReads()
  readonly #looking = new Set<DeviceFile>()
  #keeper: Promise<KeeperClient> | undefined
  #isSearching = false
  /** Questions about files whose image is not opened again yet; undefined when all are. */
  #parked: Question[] | undefined

  constructor(options: FillerOptions) {
    this.#options = options
  }

  /** What a server before this one told the keeper, if one has left something. From now on its files are opened by the keeper's descriptors; questions wait until `resumed`. */
  async resume(): Promise<Uint8Array | undefined> {
    this.#parked = []
    const keeper = await KeeperClient.connect(this.#options.socket, this.#events).catch(() => undefined) // it is just ending
    if (keeper === undefined) return undefined
    this.#keeper = Promise.resolve(keeper)
    this.#lend(keeper)
    return keeper.readState()
  }

  /** All images are opened that could be: about the rest nobody knows anything. */
  resumed(): void {
    const parked = this.#parked ?? []
    this.#parked = undefined
    this.#asked(parked)
  }

  /** Whether there is a keeper. */
  get isConnected(): boolean {
    return this.#keeper !== undefined
  }

  /** Whether a server before this one left `file` marked. */
  isLeft({ dataFd }: DeviceFile): boolean {
    return dataFd !== undefined && this.#left.has(identityOf(dataFd))
  }

  /**
   * The path by which the kernel is to open `file` as a device, from then on asking us. @throws SERVE_KEEPER when there is no keeper, or the file system of the cache knows no
   * such questions
   */
  async hold(file: DeviceFile): Promise<string> {
    const { dataFd } = file
    if (dataFd === undefined) throw new CodedError('SERVE_KEEPER', 'the cache directory cannot be used')
    const held = this.#held.get(file)
    if (held === undefined || held.isComplete) {
      const number = await (await this.#connect()).keep(dataFd)
      this.#files.set(number, file)
      if (held === undefined) this.#held.set(file, { number, unlend: lendFile(dataFd), isComplete: false })
      else held.isComplete = false
      this.#left.delete(identityOf(dataFd))
    }
    return `/proc/self/fd/${dataFd}` // this very file, whatever its name means by now
  }

  /** Whether the kernel asks about `file`. */
  isHeld(file: DeviceFile): boolean {
    return this.#held.get(file)?.isComplete === false
  }

  /** No mount has `file` open any more. */
  async release(file: DeviceFile): Promise<void> {
    const held = this.#held.get(file)
    if (held === undefined) return
    await (await this.#connect()).release(held.number)
    held.unlend()
    this.#held.delete(file)
    this.#files.delete(held.number)
  }

  /** What the next server is to know of the mounts. @throws SERVE_KEEPER */
  async saveState(bytes: Uint8Array): Promise<void> {
    await (await this.#connect()).saveState(bytes)
  }

  /** Takes the mark away where it asks for nothing any more: every byte is synced and verified. Looked at in a moment, once for many calls. */
  lookWhetherComplete(file: DeviceFile): void {
    if (this.#looking.has(file) || this.#held.get(file)?.isComplete !== false) return
    this.#looking.add(file)
    this.#track(delay(COMPLETE_PAUSE_MS, undefined, { signal: this.#closing.signal, ref: false }).then(() => this.#look(file), () => {}).finally(() => this.#looking.delete(file)))
  }

  /** Gives up what is under way: those reads fail. What is still held, mounts that somebody uses, is the keeper's. With `mounted` reads wait for the next server, else they fail. */
  async close({ mounted }: { readonly mounted: boolean }): Promise<void> {
    const keeper = await this.#keeper?.catch(() => undefined)
    if (mounted) { // before anything is given up: the next server answers it
      keeper?.close()
      keeper?.closeQuestions()
    }
    this.#closing.abort(new CodedError('SERVE_STATE', 'the daemon ends'))
    await Promise.all(this.#fills)
    if (!mounted) await keeper?.bye({ isLast: this.#held.size === 0 && this.#left.size === 0 })
    for (const { unlend } of this.#held.values()) unlend()
    for (const unlend of this.#left.values()) unlend()
  }

  get #events() {
    return {
      asked: (questions: readonly Question[]) => this.#asked(questions),
      lost: () => { if (!this.#isSearching) this.#track(this.#reconnect()) },
    }
  }

  #connect(): Promise<KeeperClient> {
    this.#keeper ??= KeeperClient.open(this.#options.socket, this.#events).then((keeper) => {
      this.#lend(keeper)
      return keeper
    }, (error: unknown) => {
      this.#keeper = undefined // the next mount tries again
      throw error
    })
    return this.#keeper
  }

  #lend(keeper: KeeperClient): void {
    const known = new Set([...this.#held.keys()].map(({ dataFd }) => identityOf(dataFd!)))
    for (const fd of keeper.left.values()) {
      const identity = identityOf(fd)
      if (!known.has(identity)) this.#left.set(identity, lendFile(fd))
    }
  }

  // The guardian goes on in the keeper's place, with the same questions under the same numbers.
  async #reconnect(): Promise<void> {
    const before = await this.#keeper?.catch(() => undefined)
    if (this.#closing.signal.aborted || before === undefined) return before?.closeQuestions()
    this.#isSearching = true
    const next = this.#search().finally(() => { this.#isSearching = false })
    this.#keeper = next.then((found) => found ?? Promise.reject(new CodedError('SERVE_KEEPER', 'the keeper is lost')))
    this.#keeper.catch(() => {}) // whoever needs it hears of it
    const found = await next
    if (this.#closing.signal.aborted) return
    if (found !== undefined) {
      this.#lend(found)
      before.closeQuestions()
      publish('serve:warning:raised', { message: 'the keeper of kernel EROFS mounts was lost: its guardian goes on' })
      return
    }
    this.#keeper = undefined
    const devices = new Set([...this.#held].filter(([, { isComplete }]) => !isComplete).map(([file]) => file))
    await this.#options.lost(devices, async () => await before.cut([...devices].map(({ dataFd }) => dataFd!)))
    before.closeQuestions()
    for (const { unlend } of this.#held.values()) unlend()
    this.#held.clear()
    this.#files.clear()
  }

  /** Undefined when there is neither holder any more. One that is only slow is waited for: as long as it lives, so do readers. */
  async #search(): Promise<KeeperClient | undefined> {
    for (;;) {
      try {
        return await KeeperClient.connect(this.#options.socket, this.#events)
      } catch (error) {
        if (!hasCode(error, 'SERVE_KEEPER') || this.#closing.signal.aborted) return undefined
      }
      await delay(RECONNECT_PAUSE_MS)
    }
  }

  async #look(file: DeviceFile): Promise<void> {
    try {
      if (!file.isComplete) return
      await file.flush()
      if (!file.isComplete) return // a chunk that could not be synced is not ready any more
      const held = this.#held.get(file)
      if (held === undefined || held.isComplete) return
      held.isComplete = true // before it is: whoever mounts it next must not rely on the mark
      this.#options.completed(file)
      await (await this.#connect()).complete(held.number)
    } catch (error) {
      // the mark stays: a disk that does not take it may lose it
      publish('serve:warning:raised', { message: `a device stays marked: ${error instanceof Error ? error.message : String(error)}` })
    }
  }

  #asked(questions: readonly Question[]): void {
    for (const question of questions) {
      const file = this.#files.get(question.file)
      if (file === undefined && this.#parked !== undefined) this.#parked.push(question)
      else if (file === undefined) void this.#answer(question, ERRNO.EIO) // nobody knows what belongs there
      else if (file.isFilled(question.offset, question.length)) void this.#answer(question, 0)
      else this.#track(this.#fill(file, question))
    }
  }

  async #fill(file: DeviceFile, question: Question): Promise<void> {
    const { offset, length } = question
    const miss = { serial: question.file, nid: 0, uniqueLow: 0, uniqueHigh: 0, offset, length }
    const began = performance.now()
    const known = this.#failed.find(miss)
    if (known !== undefined) return await this.#answer(question, known)
    try {
      await file.fill(offset, length, { signal: AbortSignal.any([this.#closing.signal, this.#options.signal, AbortSignal.timeout(REQUEST_DEADLINE_MS)]) })
      await this.#answer(question, 0)
      this.lookWhetherComplete(file)
    } catch (error) {
      if (this.#closing.signal.aborted) return await this.#answer(question, ERRNO.EIO)
      this.#failed.note(miss, ERRNO.EIO, performance.now() - began)
      publish('serve:request:error', { opcode: 0, errno: errnoOf(error), message: error instanceof Error ? error.message : String(error) })
      await this.#answer(question, ERRNO.EIO)
    }
  }

  async #answer(question: Question, error: number): Promise<void> {
    const keeper = await this.#keeper?.catch(() => undefined)
    keeper?.answer(question, error)
  }

  #track(task: Promise<void>): void {
    this.#fills.add(task)
    void task.finally(() => this.#fills.delete(task))
  }
}

function identityOf(fd: number): string {
  const { dev, ino } = fstatSync(fd)
  return `${dev}:${ino}`
}
