// Answers what the kernel asks before it reads a marked cache file: a read goes on when every chunk of its range lies there, verified; it fails when
// that cannot be had. Never does a read go on for another reason.
//
// Order of a device's life: opened → kept and marked (by the keeper) → mounted → asked about → unmounted → released → closed.

import { publish } from '../../core/diagnostics.ts'
import { CodedError } from '../../core/errors.ts'
import { lendFile } from '../../storage/index.ts'
import { ERRNO, errnoOf } from '../errno.ts'
import { REQUEST_DEADLINE_MS } from '../miss-desk.ts'
import type { DeviceFile } from './device-file.ts'
import { KeeperClient, type Question } from './keeper-client.ts'

export interface FillerOptions {
  /** Path of the keeper's socket. */
  readonly socket: string
  readonly signal: AbortSignal
  /** The keeper is gone, and with it the devices. */
  lost(): void
}

interface Held { readonly number: number; readonly unlend: () => void }

/** The devices that a keeper holds for this server. */
export class Filler {
  readonly #options: FillerOptions
  readonly #held = new Map<DeviceFile, Held>()
  readonly #files = new Map<number, DeviceFile>()
  readonly #fills = new Set<Promise<void>>()
  /** What a server before this one left, as long as no image of ours has it. */
  readonly #left = new Map<number, () => void>()
  readonly #closing = new AbortController()
  #keeper: Promise<KeeperClient> | undefined

  constructor(options: FillerOptions) {
    this.#options = options
  }

  /**
   * The path by which the kernel is to open `file` as a device, from then on asking us. @throws SERVE_KEEPER when there is no keeper, or the file system of the cache knows no
   * such questions
   */
  async hold(file: DeviceFile): Promise<string> {
    const { dataFd } = file
    if (dataFd === undefined) throw new CodedError('SERVE_KEEPER', 'the cache directory cannot be used')
    if (!this.#held.has(file)) {
      const keeper = await this.#connect()
      const number = await keeper.keep(dataFd)
      this.#files.set(number, file)
      this.#held.set(file, { number, unlend: lendFile(dataFd) })
    }
    return `/proc/self/fd/${dataFd}` // this very file, whatever its name means by now
  }

  /** No mount has `file` open any more. */
  async release(file: DeviceFile): Promise<void> {
    const held = this.#held.get(file)
    if (held === undefined) return
    const keeper = await this.#connect()
    await keeper.release(held.number)
    held.unlend()
    this.#held.delete(file)
    this.#files.delete(held.number)
  }

  /** Gives up what is under way: those reads fail. What is still held, mounts that somebody uses, is the keeper's. With `mounted` reads wait for the next server, else they fail. */
  async close({ mounted }: { readonly mounted: boolean }): Promise<void> {
    this.#closing.abort(new CodedError('SERVE_STATE', 'the daemon ends'))
    await Promise.all(this.#fills)
    const keeper = await this.#keeper?.catch(() => undefined)
    if (mounted) keeper?.close()
    else await keeper?.bye({ isLast: this.#held.size === 0 && this.#left.size === 0 })
    for (const { unlend } of this.#held.values()) unlend()
    for (const unlend of this.#left.values()) unlend()
  }

  #connect(): Promise<KeeperClient> {
    this.#keeper ??= KeeperClient.open(this.#options.socket, { asked: (questions) => this.#asked(questions), lost: () => this.#options.lost() }).then((keeper) => {
      for (const [number, fd] of keeper.left) this.#left.set(number, lendFile(fd))
      return keeper
    }, (error: unknown) => {
      this.#keeper = undefined // the next mount tries again
      throw error
    })
    return this.#keeper
  }

  #asked(questions: readonly Question[]): void {
    for (const question of questions) {
      const file = this.#files.get(question.file)
      if (file === undefined) void this.#answer(question, ERRNO.EIO) // nobody knows what belongs there
      else if (file.isFilled(question.offset, question.length)) void this.#answer(question, 0)
      else this.#track(this.#fill(file, question))
    }
  }

  async #fill(file: DeviceFile, question: Question): Promise<void> {
    try {
      await file.fill(question.offset, question.length, { signal: AbortSignal.any([this.#closing.signal, this.#options.signal, AbortSignal.timeout(REQUEST_DEADLINE_MS)]) })
      await this.#answer(question, 0)
    } catch (error) {
      publish('serve:request:error', { opcode: 0, errno: errnoOf(error), message: error instanceof Error ? error.message : String(error) })
      await this.#answer(question, ERRNO.EIO)
    }
  }

  async #answer({ event }: Question, error: number): Promise<void> {
    const keeper = await this.#keeper?.catch(() => undefined)
    keeper?.answer(event, error)
  }

  #track(task: Promise<void>): void {
    this.#fills.add(task)
    void task.finally(() => this.#fills.delete(task))
  }
}
