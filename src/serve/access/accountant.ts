// Keeps the accounts of all mounts that a set of workers serves: empties their logs while any mount is watched, and tells them which are.

import type { OperationCounters } from '../counters.ts'
import { type Access, AccessLog } from './access-log.ts'
import { MountAccounts, type Watched } from './accounts.ts'

/** LIMIT: how long requests lie in a log: 8,192 of them fit, more than a thread serves in that time. */
const INTERVAL_MS = 50

interface Mount { readonly accounts: MountAccounts; readonly switches: readonly OperationCounters[] }

/** The accounts of one connection's mounts, by serial. */
export interface SessionAccounts {
  /** A mount appears; `switches` are its counters, one for each thread. */
  open(serial: number, watched: Watched, switches: readonly OperationCounters[]): void
  close(serial: number): void
  /** The accounts of a mount, up to now. */
  of(serial: number): MountAccounts | undefined
  /** A request that the main thread answers. */
  add(access: Omit<Access, 'session'>): void
  /** Begins or ends a trace. */
  trace(serial: number, isOn: boolean): void
  /** The connection is gone, and all its mounts. */
  end(): void
}

/** The accounts of all connections that a set of workers serves. */
export class Accountant {
  readonly #logs: readonly AccessLog[]
  readonly #mounts = new Map<string, Mount>()
  #timer: NodeJS.Timeout | undefined

  /** `memory`: of `createAccessMemory(threads)`. */
  constructor(memory: SharedArrayBuffer, threads: number) {
    this.#logs = Array.from({ length: threads }, (_, thread) => new AccessLog(memory, thread))
  }

  session(session: number): SessionAccounts {
    const key = (serial: number): string => keyOf({ session, serial })
    return {
      open: (serial, watched, switches) => {
        this.#mounts.set(key(serial), { accounts: new MountAccounts(watched), switches })
        this.#apply(key(serial))
      },
      close: (serial) => this.#close([key(serial)]),
      of: (serial) => {
        this.#collect()
        return this.#mounts.get(key(serial))?.accounts
      },
      add: (access) => this.#add({ session, ...access }),
      trace: (serial, isOn) => this.#trace(key(serial), isOn),
      end: () => this.#close([...this.#mounts.keys()].filter((mount) => mount.startsWith(`${session}:`))),
    }
  }

  #add(access: Access): void {
    this.#mounts.get(keyOf(access))?.accounts.add(access)
  }

  #trace(key: string, isOn: boolean): void {
    this.#collect() // what came before is not part of it
    const accounts = this.#mounts.get(key)?.accounts
    if (isOn) accounts?.startTrace(performance.timeOrigin + performance.now())
    else accounts?.stopTrace()
    this.#apply(key)
  }

  #close(keys: readonly string[]): void {
    for (const key of keys) this.#mounts.delete(key)
    this.#tick()
  }

  #apply(key: string): void {
    const mount = this.#mounts.get(key)
    for (const counters of mount?.switches ?? []) counters.isWatched = mount!.accounts.isWatching
    this.#tick()
  }

  #tick(): void {
    const isWatching = [...this.#mounts.values()].some(({ accounts }) => accounts.isWatching)
    if (isWatching) this.#timer ??= setInterval(() => this.#collect(), INTERVAL_MS).unref()
    else {
      clearInterval(this.#timer)
      this.#timer = undefined
    }
  }

  #collect(): void {
    const logs = this.#logs.map((log) => log.take())
    const lost = logs.reduce((sum, log) => sum + log.lost, 0)
    if (lost > 0) for (const { accounts } of this.#mounts.values()) accounts.lose(lost)
    // threads write side by side: the order of first reads is that of their times
    for (const access of logs.flatMap(({ accesses }) => accesses).sort((a, b) => a.at - b.at)) this.#add(access)
  }
}

function keyOf({ session, serial }: { readonly session: number; readonly serial: number }): string {
  return `${session}:${serial}`
}
