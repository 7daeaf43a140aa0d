// A server of one holder, or of many (native/holder/holder.h has the messages): holders keep mounts, this process serves them. When it dies
// the holders start the next one and give it what they kept.

import { chmodSync, closeSync, rmSync } from 'node:fs'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { OWNER_VARIABLE } from '../../core/owner.ts'
import { KiB } from '../../core/units.ts'
import { native } from '../../native/load.ts'
import { contentOf, memoryFile } from '../../native/memory-file.ts'
import { machineLimits } from '../../native/machine.ts'
import { watchDescriptor } from '../../native/poll.ts'
import { type ApiDaemon, type ApiOptions, ApiServer, type DeviceThreads, WorkerPool } from '../../serve/index.ts'
import { EXIT, explain } from '../conventions.ts'
import { raiseFileLimit } from './limits.ts'
import { Log } from './logging.ts'
import type { OptionName } from './options.ts'
import { codeOf, interpret } from './program.ts'
import { type HeldState, type Host, serve, type Values } from './service.ts'

/** LIMIT: native/holder/holder.h MAX_MESSAGE. */
const MAX_MESSAGE = 64 * KiB
const EAGAIN = 11
/** LIMIT: a hundred daemons with some dozens of blobs each. */
const MAX_FILES = 1_000_000
/** LIMIT: a server without holders waits for the next one for this long: containers come in bursts. */
const IDLE_MS = 10_000

/** LIMIT: native/holder/holder.h MAX_DESCRIPTORS, twice: what was kept, of the daemon and of its guest. */
const MAX_DESCRIPTORS = 250

/** What a holder begins with. */
interface Greeting { readonly kept: HeldState | undefined; readonly isListening: boolean; readonly hasGuestSocket: boolean; readonly directory: string; readonly imagePullAuth: string | undefined; readonly argv: readonly string[] }

type Orders = Parameters<Host['listenForOrders']>[0]

/** Serves the holder at the other end of `channel` until the daemon has ended; its exit code. */
export async function serveHolder(channel: number): Promise<number> {
  const owner = process.env[OWNER_VARIABLE]
  delete process.env[OWNER_VARIABLE]
  const holder = new Holder(channel)
  const greeting = await holder.greeting
  if (!greeting) return EXIT.failed // the holder is gone
  const { code, text, stuck, again } = await run(holder, greeting, {
    onStart: async (stop) => {
      if (owner !== undefined) (await import('./owner.ts')).watchOwner(owner, stop)
    },
  })
  if (!again) holder.say(['exit', String(code), text])
  holder.close()
  if (stuck) die() // a worker hangs in a system call: process.exit would wait for it for ever
  return code
}

/** Serves all holders that connect to `socket`, until there have been none for a while. @throws CONFIG_INVALID */
export async function serveHolders(socket: string): Promise<number> {
  const log = new Log({ level: 'info', file: undefined, rotationMiB: 0 })
  await raiseFileLimit(MAX_FILES, (message) => log.write('warn', message))
  const { processors } = machineLimits()
  let devices: Promise<DeviceThreads> | undefined
  const deviceThreads = (): Promise<DeviceThreads> => devices ??= import('./virtiofs.ts').then((module) => module.newDeviceThreads(processors))
  const pool = new WorkerPool(processors, { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 })
  rmSync(socket, { force: true }) // who starts this process has the lock beside it
  const listener = native().unixListen(Buffer.from(socket), true)
  if (listener < 0) throw new CodedError('CONFIG_INVALID', `cannot listen on ${socket}: errno ${-listener}`, { socket, errno: -listener })
  chmodSync(socket, 0o600)
  await new Promise<void>((resolve) => {
    let holders = 0
    let idle = setTimeout(resolve, IDLE_MS)
    const unwatch = watchDescriptor(listener, 'read', () => {
      const channel = native().unixAccept(listener)
      if (channel < 0) return
      clearTimeout(idle)
      holders++
      void serveOneOf(channel, { pool, deviceThreads }).finally(() => {
        if (--holders === 0) idle = setTimeout(() => { unwatch(); resolve() }, IDLE_MS)
      })
    })
  })
  rmSync(socket, { force: true })
  native().closeFd(listener)
  const stopped = await Promise.all([pool.stop(), devices?.then((threads) => threads.stop()) ?? true])
  if (stopped.includes(false)) die()
  return EXIT.ok
}

async function serveOneOf(channel: number, shared: Pick<RunOptions, 'pool' | 'deviceThreads'>): Promise<void> {
  const holder = new Holder(channel)
  const greeting = await holder.greeting
  if (!greeting) return
  const { code, text, again } = await run(holder, greeting, shared)
  if (!again) holder.say(['exit', String(code), text])
  holder.close()
}

// The next server does better: whatever the holders keep is not lost.
function die(): void {
  process.kill(process.pid, 'SIGKILL')
}

/** `again`: a mount that cannot be continued now (its files are gone, memory is short) may be later; the holder tries, more and more slowly. */
interface Outcome { readonly code: number; readonly text: string; readonly stuck?: boolean; readonly again?: boolean }
interface RunOptions { readonly pool?: WorkerPool; deviceThreads?(): Promise<DeviceThreads>; onStart?(stop: () => void): Promise<void> }

async function run(holder: Holder, greeting: Greeting, { pool, deviceThreads, onStart }: RunOptions): Promise<Outcome> {
  const command = interpret(greeting.argv)
  if ('code' in command) return { code: command.code, text: (command.out ?? command.error ?? '').trimEnd() }
  try {
    const { end, log } = await serve({ ...command, values: absolute(command.values, greeting.directory) }, {
      ...(pool && { pool }),
      ...(deviceThreads && { deviceThreads }),
      imagePullAuth: greeting.imagePullAuth,
      failed(error) {
        process.stderr.write(`${explain(error)}\n`)
        die()
      },
      ...(greeting.kept && { kept: greeting.kept }),
      keep: (kept) => holder.keep(kept),
      guest: { isListening: greeting.hasGuestSocket, give: (socket, channel, listener) => holder.say(['guest', socket], listener === undefined ? [channel] : [channel, listener]) },
      listen: async (daemon, options) => await holder.listen(daemon, options, greeting),
      listenForOrders(orders) {
        holder.orders = orders
        void onStart?.(() => orders.stop())
      },
    })
    if (pool) log.close()
    return { code: codeOf(end), text: end.error ? explain(end.error) : '', stuck: end.stuck }
  } catch (error) {
    if (greeting.kept) process.stderr.write(`${explain(error)}\n`)
    return { code: EXIT.failed, text: explain(error), again: greeting.kept !== undefined }
  }
}

/** Paths of the command line, seen from where the holder was started. */
const PATHS: readonly OptionName[] = ['mountpoint', 'bootstrap', 'config', 'localfs-dir', 'prefetch-files', 'shared-dir', 'apisock', 'supervisor', 'log-file', 'sock']

function absolute(values: Values, directory: string): Values {
  return new Map([...values].map(([name, value]) => [name, PATHS.includes(name) ? path.resolve(directory, value) : value]))
}

/** The channel to a holder. */
class Holder {
  /** Undefined when it ended before it said anything. */
  readonly greeting: Promise<Greeting | undefined>
  readonly #channel: number
  readonly #unwatch: () => void
  #greet!: (greeting: Greeting | undefined) => void
  #orders: Orders | undefined
  /** An order that came before anybody could obey. */
  #early: 'stop' | 'abandon' | undefined
  #api: ApiServer | undefined
  #closed = false

  constructor(channel: number) {
    this.#channel = channel
    this.greeting = new Promise((resolve) => { this.#greet = resolve })
    this.#unwatch = watchDescriptor(channel, 'read', () => this.#hear())
  }

  set orders(orders: Orders) {
    this.#orders = orders
    if (this.#early !== undefined) orders[this.#early]()
  }

  /** The state travels as a file in memory: the holder need not look into it. */
  keep({ bytes, fds, mountpoint, device }: HeldState & { readonly mountpoint: string; readonly device: string }): void {
    const file = memoryFile('nydusd-state', bytes)
    try {
      this.say(['keep', device, mountpoint], [file, ...fds])
    } finally {
      closeSync(file)
    }
  }

  async listen(daemon: ApiDaemon, options: ApiOptions, { isListening }: Greeting): Promise<ApiServer> {
    this.#api = await ApiServer.attach(daemon, options)
    if (!isListening) {
      rmSync(options.socket, { force: true })
      const socket = native().unixListen(Buffer.from(options.socket), false)
      if (socket < 0) throw new CodedError('CONFIG_INVALID', `cannot listen on ${options.socket}: errno ${-socket}`, { socket: options.socket, errno: -socket })
      this.say(['listen', options.socket], [socket])
      native().closeFd(socket)
    }
    this.say(['running'])
    return this.#api
  }

  say(words: readonly string[], fds: readonly number[] = []): void {
    if (this.#closed) return
    const result = native().sendFds(this.#channel, Buffer.from(`${words.join('\0')}\0`), Int32Array.from(fds))
    if (result < 0) this.#gone() // a holder reads whenever it is alive
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#unwatch()
    native().closeFd(this.#channel)
  }

  #hear(): void {
    while (!this.#closed) {
      const bytes = new Uint8Array(MAX_MESSAGE)
      const fds = new Int32Array(MAX_DESCRIPTORS)
      const length = native().receiveFds(this.#channel, bytes, fds)
      if (length === -EAGAIN) return
      if (length <= 0) {
        this.#gone()
        return
      }
      this.#obey(Buffer.from(bytes.buffer, 0, length).toString().split('\0').slice(0, -1), [...fds].filter((fd) => fd >= 0))
    }
  }

  #obey([verb, ...words]: string[], [first = -1, ...others]: readonly number[]): void {
    if (verb === 'start' || verb === 'restore') {
      const [isListening, hasGuestSocket, directory, auth, ...argv] = words
      const kept = verb === 'restore' ? { bytes: contentOf(first), fds: others } : undefined
      this.#greet({ imagePullAuth: auth === '' ? undefined : auth, kept, isListening: isListening === '1', hasGuestSocket: hasGuestSocket === '1', directory: directory ?? '/', argv })
    } else if (verb === 'connection') {
      const done = (): void => this.say(['closed', words[0]!])
      if (this.#api) this.#api.accept(first, done)
      else native().closeFd(first)
    } else if (verb === 'stop') {
      this.#order('stop')
    } else if (verb === 'reopen') {
      this.#orders?.reopen()
    }
  }

  #gone(): void {
    this.close()
    this.#greet(undefined)
    this.#order('abandon')
  }

  #order(order: 'stop' | 'abandon'): void {
    if (this.#orders) this.#orders[order]()
    else this.#early = order
  }
}
