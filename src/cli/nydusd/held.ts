// A server of one holder (native/holder/holder.h has the messages): the holder keeps the mount, this process serves it. When this process dies
// the holder starts the next one and gives it what it kept.

import { closeSync, fstatSync, readSync, rmSync, writeSync } from 'node:fs'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { OWNER_VARIABLE } from '../../core/owner.ts'
import { KiB } from '../../core/units.ts'
import { native } from '../../native/load.ts'
import { watchDescriptor } from '../../native/poll.ts'
import { type ApiDaemon, type ApiOptions, ApiServer, type Kept, type KeptConnection } from '../../serve/index.ts'
import { EXIT, explain } from '../conventions.ts'
import type { OptionName } from './options.ts'
import { codeOf, interpret } from './program.ts'
import { type Host, serve, type Values } from './service.ts'

/** LIMIT: native/holder/holder.h MAX_MESSAGE. */
const MAX_MESSAGE = 64 * KiB
const EAGAIN = 11

/** What a holder begins with. */
interface Greeting { readonly kept: Kept | undefined; readonly isListening: boolean; readonly directory: string; readonly argv: readonly string[] }

type Orders = Parameters<Host['listenForOrders']>[0]

/** Serves the holder at the other end of `channel` until the daemon has ended; its exit code. */
export async function serveHolder(channel: number): Promise<number> {
  const owner = process.env[OWNER_VARIABLE]
  delete process.env[OWNER_VARIABLE]
  const holder = new Holder(channel)
  const greeting = await holder.greeting
  if (!greeting) return EXIT.failed // the holder is gone
  const { code, text, stuck } = await run(holder, greeting, async (stop) => {
    if (owner !== undefined) (await import('./owner.ts')).watchOwner(owner, stop)
  })
  holder.say(['exit', String(code), text])
  holder.close()
  if (stuck) process.kill(process.pid, 'SIGKILL') // a worker hangs in a system call: process.exit would wait for it for ever
  return code
}

async function run(holder: Holder, greeting: Greeting, onStart: (stop: () => void) => Promise<void>): Promise<{ code: number; text: string; stuck?: boolean }> {
  const command = interpret(greeting.argv)
  if ('code' in command) return { code: command.code, text: (command.out ?? command.error ?? '').trimEnd() }
  try {
    const { end } = await serve(absolute(command, greeting.directory), {
      ...(greeting.kept && { kept: greeting.kept }),
      keep: (kept) => holder.keep(kept),
      listen: async (daemon, options) => await holder.listen(daemon, options, greeting),
      listenForOrders(orders) {
        holder.orders = orders
        void onStart(() => orders.stop())
      },
    })
    return { code: codeOf(end), text: end.error ? explain(end.error) : '', stuck: end.stuck }
  } catch (error) {
    return { code: EXIT.failed, text: explain(error) }
  }
}

/** Paths of the command line, seen from where the holder was started. */
const PATHS: readonly OptionName[] = ['mountpoint', 'bootstrap', 'config', 'localfs-dir', 'prefetch-files', 'shared-dir', 'apisock', 'supervisor', 'log-file']

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
  keep({ bytes, fd, mountpoint, device }: KeptConnection): void {
    const file = native().memfdCreate('nydusd-state')
    if (file < 0) throw new CodedError('NATIVE_SYSCALL', `no file in memory for the daemon's state: errno ${-file}`, { errno: -file })
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done)
      this.say(['keep', device, mountpoint], [fd, file])
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
      const fds = new Int32Array(2)
      const length = native().receiveFds(this.#channel, bytes, fds)
      if (length === -EAGAIN) return
      if (length <= 0) {
        this.#gone()
        return
      }
      this.#obey(Buffer.from(bytes.buffer, 0, length).toString().split('\0').slice(0, -1), fds)
    }
  }

  #obey([verb, ...words]: string[], [first, second]: Int32Array): void {
    if (verb === 'start' || verb === 'restore') {
      const [isListening, directory, auth, ...argv] = words
      if (auth !== undefined && auth !== '') process.env['IMAGE_PULL_AUTH'] = auth
      this.#greet({ kept: verb === 'restore' ? { fd: first!, bytes: contentOf(second!) } : undefined, isListening: isListening === '1', directory: directory ?? '/', argv })
    } else if (verb === 'connection') {
      const done = (): void => this.say(['closed', words[0]!])
      if (this.#api) this.#api.accept(first!, done)
      else native().closeFd(first!)
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

function contentOf(file: number): Uint8Array {
  try {
    const bytes = new Uint8Array(fstatSync(file).size)
    for (let done = 0; done < bytes.length;) {
      const size = readSync(file, bytes, done, bytes.length - done, done)
      if (size === 0) break
      done += size
    }
    return bytes
  } finally {
    closeSync(file)
  }
}
