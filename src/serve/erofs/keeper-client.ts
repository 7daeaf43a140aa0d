// The keeper as the server sees it: a process of its own (native/keeper) that holds what must outlive a server, and hands on what the kernel asks.

import { spawn } from 'node:child_process'
import { closeSync, fstatSync, readSync, writeSync } from 'node:fs'
import { CodedError } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { untilReady, watchDescriptor } from '../../native/poll.ts'
import { nativeProgram } from '../../native/program.ts'
import { decodeRows, encodeRows, KEEPER, type KeeperRow, MAX_KEPT_FILES, MAX_PACKET, MAX_ROWS } from '../../wire/fanotify/keeper-message.ts'
import { ERRNO } from '../errno.ts'
import { explainMark } from './transport.ts'

/** A question of the kernel: may these bytes of that kept file be read? */
export interface Question { readonly file: number; readonly event: number; readonly serial: number; readonly offset: number; readonly length: number }

export interface KeeperEvents {
  /** Each is to be answered with `answer`. */
  asked(questions: readonly Question[]): void
  /** It does not speak to us any more. */
  lost(): void
}

/** LIMIT: it answers within a millisecond; a machine that swaps takes longer. */
const PATIENCE_MS = 10_000

/** A connection to a keeper. */
export class KeeperClient {
  /** Descriptors of files that are in the keeper's care from before this connection, by their number there; open as long as it is. */
  readonly left = new Map<number, number>()
  /** Descriptor of what that server wanted us to know. */
  #state = -1
  /** Of fanotify. */
  #questions = -1
  readonly #fd: number
  readonly #events: KeeperEvents
  readonly #unwatch: () => void
  readonly #waiting: { readonly kind: number; readonly resolve: (row: KeeperRow) => void; readonly reject: (error: Error) => void }[] = []
  #outbox: Uint8Array[] = []
  #answers: Pick<KeeperRow, 'kind' | 'event' | 'serial' | 'error'>[] = []
  #unwatchWrite: (() => void) | undefined
  #isClosed = false
  readonly #packet = new Uint8Array(MAX_PACKET)
  readonly #descriptors = new Int32Array(2)

  /** Connects to the keeper behind `socket`; undefined when there is none. @throws SERVE_KEEPER */
  static async connect(socket: string, events: KeeperEvents): Promise<KeeperClient | undefined> {
    const fd = native().unixConnect(Buffer.from(socket), true)
    if (fd === -ERRNO.ENOENT || fd === -ERRNO.ECONNREFUSED) return undefined // both holders listen: there is neither
    if (fd < 0) throw new CodedError('SERVE_KEEPER', `the keeper does not answer on ${socket}: errno ${-fd}`, { socket, errno: -fd })
    const client = new KeeperClient(fd, events)
    try {
      await Promise.all([client.#send(encodeRows([{ kind: KEEPER.HELLO }])), client.#wait(KEEPER.WELCOME), client.#wait(KEEPER.FILE_KEPT)])
      return client
    } catch (error) {
      client.close()
      client.closeQuestions()
      throw error
    }
  }

  /** The same; one is started when there is none, or it is just ending. @throws SERVE_KEEPER, NATIVE_UNAVAILABLE */
  static async open(socket: string, events: KeeperEvents): Promise<KeeperClient> {
    const found = await KeeperClient.connect(socket, events).catch(() => undefined)
    if (found !== undefined) return found
    await startKeeper(socket)
    const client = await KeeperClient.connect(socket, events)
    if (client === undefined) throw new CodedError('SERVE_KEEPER', `the keeper does not answer on ${socket}`, { socket })
    return client
  }

  private constructor(fd: number, events: KeeperEvents) {
    this.#fd = fd
    this.#events = events
    this.#unwatch = watchDescriptor(fd, 'read', () => this.#hear())
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** Gives a file into the keeper's care: marked when it resolves, so that whoever opens it from now on is asked about. Its number. @throws SERVE_KEEPER with `errno` in its context when it cannot be marked */
  async keep(fd: number): Promise<number> {
    this.#send(encodeRows([{ kind: KEEPER.KEEP }]), [fd])
    const { file, error } = await this.#wait(KEEPER.KEPT)
    if (error !== 0) throw new CodedError('SERVE_KEEPER', `the cache file cannot be marked: ${explainMark(error)}`, { errno: error })
    return file
  }

  /** The file is no device any more, or needs no questions: nobody is asked about it when it resolves. @throws SERVE_KEEPER */
  async release(file: number): Promise<void> {
    this.#send(encodeRows([{ kind: KEEPER.RELEASE, file }]))
    await this.#wait(KEEPER.RELEASED)
  }

  /** Every byte that an image needs of it is synced and verified: nobody is asked about it any more when it resolves; `keep` marks it again. @throws SERVE_KEEPER */
  async complete(file: number): Promise<void> {
    this.#send(encodeRows([{ kind: KEEPER.COMPLETE, file }]))
    await this.#wait(KEEPER.COMPLETED)
  }

  /** What the server before this one wanted us to know; undefined when there was none. */
  readState(): Uint8Array | undefined {
    if (this.#state < 0) return undefined
    const bytes = new Uint8Array(fstatSync(this.#state).size)
    for (let done = 0; done < bytes.length;) done += readSync(this.#state, bytes, done, bytes.length - done, done)
    return bytes
  }

  /** What the next server is to know. @throws SERVE_KEEPER */
  async saveState(bytes: Uint8Array): Promise<void> {
    const file = native().memfdCreate('nydusd-erofs-state')
    if (file < 0) throw new CodedError('NATIVE_SYSCALL', `no file in memory: errno ${-file}`, { errno: -file })
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done)
      this.#send(encodeRows([{ kind: KEEPER.STATE }]), [file])
    } finally {
      closeSync(file)
    }
    await this.#wait(KEEPER.STATED)
  }

  /** Lets a read go on, or fail with EIO. */
  answer({ event, serial }: Question, error: number): void {
    if (this.#answers.length === 0) queueMicrotask(() => this.#sendAnswers())
    this.#answers.push({ kind: KEEPER.ANSWER, event, serial, error })
  }

  /** This server ends on purpose: what is asked until the next one comes is to fail. A keeper with nothing in its care is gone when it resolves. */
  async bye({ isLast }: { readonly isLast: boolean }): Promise<void> {
    if (this.#isClosed) return
    this.#sendAnswers()
    this.#send(encodeRows([{ kind: KEEPER.BYE }]))
    const fd = isLast ? native().duplicateFd(this.#fd) : -1
    this.close()
    this.closeQuestions()
    if (fd < 0) return
    await untilClosed(fd)
    native().closeFd(fd)
  }

  /** Ends the connection; the keeper goes on. Our copy of fanotify's descriptor stays open: as long as there is one, no read passes. */
  close(): void {
    if (this.#isClosed) return
    this.#sendAnswers()
    this.#isClosed = true
    this.#unwatch()
    this.#unwatchWrite?.()
    for (const fd of [this.#fd, this.#state, ...this.left.values()]) if (fd >= 0) native().closeFd(fd)
    this.left.clear()
    for (const { reject } of this.#waiting.splice(0)) reject(new CodedError('SERVE_KEEPER', 'the keeper is lost'))
  }

  /** With both holders lost: makes these files unreadable while we have the questions. @throws SERVE_KEEPER */
  async cut(fds: readonly number[]): Promise<void> {
    await cutFiles(this.#questions, fds)
  }

  /** If both holders are lost too, reads pass from now on: whatever is not complete must be unreadable before. */
  closeQuestions(): void {
    if (this.#questions >= 0) native().closeFd(this.#questions)
    this.#questions = -1
  }

  #wait(kind: number): Promise<KeeperRow> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(new CodedError('SERVE_KEEPER', 'the keeper is lost'))
      const timer = setTimeout(() => this.#lose(), PATIENCE_MS)
      this.#waiting.push({
        kind,
        resolve(row) {
          clearTimeout(timer)
          resolve(row)
        },
        reject(error) {
          clearTimeout(timer)
          reject(error)
        },
      })
    })
  }

  #sendAnswers(): void {
    const answers = this.#answers
    this.#answers = []
    for (let from = 0; from < answers.length; from += MAX_ROWS) this.#send(encodeRows(answers.slice(from, from + MAX_ROWS)))
  }

  #send(bytes: Uint8Array, fds: readonly number[] = []): void {
    if (this.#isClosed) return
    if (this.#outbox.length === 0) {
      const result = native().sendFds(this.#fd, bytes, Int32Array.from(fds))
      if (result >= 0) return
      if (result !== -ERRNO.EAGAIN || fds.length > 0) {
        this.#lose()
        return
      }
    }
    this.#outbox.push(bytes)
    if (this.#unwatchWrite !== undefined) return
    const fd = native().duplicateFd(this.#fd) // an event loop takes one watch a descriptor
    const unwatch = watchDescriptor(fd, 'write', () => this.#sendMore())
    this.#unwatchWrite = () => {
      unwatch()
      native().closeFd(fd)
    }
  }

  #sendMore(): void {
    while (this.#outbox.length > 0) {
      const result = native().sendFds(this.#fd, this.#outbox[0]!, new Int32Array())
      if (result === -ERRNO.EAGAIN) return
      if (result < 0) {
        this.#lose()
        return
      }
      this.#outbox.shift()
    }
    this.#unwatchWrite?.()
    this.#unwatchWrite = undefined
  }

  #hear(): void {
    while (!this.#isClosed) {
      const length = native().receiveFds(this.#fd, this.#packet, this.#descriptors)
      if (length === -ERRNO.EAGAIN) return
      if (length <= 0) {
        this.#lose()
        return
      }
      const rows = decodeRows(this.#packet.subarray(0, length))
      if (rows[0]?.kind === KEEPER.EVENT) this.#events.asked(rows)
      else for (const row of rows) this.#take(row)
    }
  }

  #take(row: KeeperRow): void {
    const [first = -1, second = -1] = this.#descriptors
    if (row.kind === KEEPER.WELCOME) {
      this.#questions = first
      this.#state = second
    } else if (row.kind === KEEPER.FILE_KEPT && row.file < MAX_KEPT_FILES) {
      this.left.set(row.file, first)
      return
    }
    const index = this.#waiting.findIndex(({ kind }) => kind === row.kind)
    if (index >= 0) this.#waiting.splice(index, 1)[0]!.resolve(row)
  }

  #lose(): void {
    if (this.#isClosed) return
    this.close()
    this.#events.lost()
  }
}

/** Cuts files to nothing that fanotify asks about, without anybody to answer but the program that does it. @throws SERVE_KEEPER */
async function cutFiles(questions: number, fds: readonly number[]): Promise<void> {
  const child = spawn(nativeProgram('nydusd-keeper'), ['--cut', String(fds.length)], { cwd: '/', env: {}, stdio: ['ignore', 'ignore', 'ignore', questions, ...fds] })
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => code === 0 ? resolve() : reject(new CodedError('SERVE_KEEPER', `devices cannot be cut: exit code ${code}`)))
  })
}

/** Starts a keeper, which is nobody's child, and waits until it listens. @throws SERVE_KEEPER with its words */
async function startKeeper(socket: string): Promise<void> {
  // it outlives this process, its group and its session
  const child = spawn(nativeProgram('nydusd-keeper'), [socket], { detached: true, cwd: '/', env: {}, stdio: ['ignore', 'pipe', 'pipe'] })
  child.unref()
  let words = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => { words += text })
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.stdout.once('data', () => resolve())
    child.once('close', (code) => reject(new CodedError('SERVE_KEEPER', `the keeper does not start: ${words.trim() || `exit code ${code}`}`, {})))
  }).finally(() => {
    child.stdout.destroy()
    child.stderr.destroy()
  })
}

async function untilClosed(fd: number): Promise<void> {
  const signal = AbortSignal.timeout(PATIENCE_MS)
  const nothing = new Uint8Array(MAX_PACKET)
  try {
    for (;;) {
      const length = native().receiveFds(fd, nothing, new Int32Array())
      if (length === 0 || (length < 0 && length !== -ERRNO.EAGAIN)) return
      if (length < 0) await untilReady(fd, 'read', { signal })
    }
  } catch {
    // it takes its time
  }
}
