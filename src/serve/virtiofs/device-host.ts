// The main thread's side of a vhost-user-fs device: its socket, its place in a thread, and the answers to what the thread could not answer alone.

import { rmSync } from 'node:fs'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, fromMessage } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import type { Owner } from '../fuse/attributes.ts'
import type { ConnectionPolicy } from '../fuse/connection.ts'
import type { Miss } from '../fuse/core.ts'
import { listenOn } from '../unix-listener.ts'
import type { WorkerMount } from '../worker/messages.ts'
import { within } from '../worker/pool.ts'
import { decodeDevice, type HeldDevice } from './device-state.ts'
import type { DeviceThreads, OpenedDevice } from './device-threads.ts'
import type { FromDevice } from './messages.ts'
import type { TrailEnds } from './trail.ts'

/** LIMIT: the thread answers a wake-up between two requests; one that has not after this long is stuck in a system call. */
const STOP_TIMEOUT_MS = 2_000

export interface DeviceHostOptions {
  readonly threads: DeviceThreads
  /** What it shows from the beginning. */
  readonly mounts: readonly WorkerMount[]
  /** Where the socket is made. What lies there is removed when it is a socket that nobody listens on. */
  readonly socket: string
  readonly counters: SharedArrayBuffer
  /** Which block of the counters the thread writes. */
  readonly thread: number
  readonly owner: Owner
  readonly policy: ConnectionPolicy
  /** Whoever keeps the connections of monitors for the next server. */
  readonly holder: GuestHolder | undefined
  /** What a device before this one has left; the descriptors are this one's. */
  readonly restored: HeldDevice | undefined
  /** Where it leaves what the next one needs. */
  readonly trail: TrailEnds | undefined
}

/** Keeps a device for servers that come and go (native/holder/guest.c). */
export interface GuestHolder {
  /** Whether it listens for monitors already. */
  readonly isListening: boolean
  /** `channel`: where it is to give each message and hear each answer; `listener` (once): where monitors connect. The descriptors stay the caller's. */
  give(socket: string, channel: number, listener: number | undefined): void
}

export interface DeviceListener {
  /** Must be answered by `answer(token, ...)`, sooner or later. */
  miss(token: number, miss: Miss, at: number): void
  /** The same, unless the token is 0: a whole request for a mount that is served here, or (serial 0) for all of these. */
  request(token: number, serial: number, bytes: Uint8Array, at: number): void
  /** Nobody waits for that answer any more. */
  cancel(token: number): void
  frontEnd(connected: boolean): void
  failed(error: Error): void
}

/** A device that listens on its socket until it is stopped. */
export class DeviceHost {
  readonly #options: DeviceHostOptions
  readonly #listener: DeviceListener
  readonly #device: OpenedDevice
  /** Where monitors connect, or what their messages come through. */
  readonly #entrance: number
  readonly #unmounting = new Map<number, () => void>()

  /** @throws SERVE_MOUNT when the socket cannot be made */
  constructor(options: DeviceHostOptions, listener: DeviceListener) {
    this.#options = options
    this.#listener = listener
    const { holder, socket, threads, restored, trail, mounts, counters, thread, owner, policy } = options
    this.#entrance = holder ? openChannel(holder, socket) : restored?.fds[decodeDevice(restored.bytes).listener] ?? listenOn(socket)
    const entrance = holder ? { listener: -1, channel: this.#entrance } : { listener: this.#entrance, channel: -1 }
    this.#device = threads.open({ ...entrance, restored, trail, mounts, counters, thread, owner, policy }, (message) => this.#hear(message))
  }

  /** Shows one more mount. */
  addMount(mount: WorkerMount): void {
    this.#device.post({ kind: 'mount', ...mount })
  }

  /** Resolves when the thread touches nothing of the mount any more: true; false when it is stuck. */
  async dropMount(serial: number): Promise<boolean> {
    const done = new Promise<void>((resolve) => this.#unmounting.set(serial, resolve))
    this.#device.post({ kind: 'unmount', serial })
    return await within(STOP_TIMEOUT_MS, done)
  }

  /** The whole reply to a miss, header included. */
  answer(token: number, bytes: Uint8Array): void {
    this.#device.post({ kind: 'answer', token, bytes })
  }

  /** Ends the device and, unless it is handed on, its front end's connection and its socket. False when its thread is stuck in a system call. */
  async stop(how: { readonly handOn: boolean }): Promise<boolean> {
    if (!how.handOn) rmSync(this.#options.socket, { force: true })
    const closed = await this.#device.close(how)
    if (closed) native().closeFd(this.#entrance)
    return closed
  }

  #hear(message: FromDevice): void {
    switch (message.kind) {
      case 'miss': this.#listener.miss(message.token, message.miss, message.at); break
      case 'request': this.#listener.request(message.token, message.serial, message.bytes, message.at); break
      case 'cancel': this.#listener.cancel(message.token); break
      case 'front-end': this.#listener.frontEnd(message.connected); break
      case 'unmounted':
        this.#unmounting.get(message.serial)?.()
        this.#unmounting.delete(message.serial)
        break
      case 'warning': publish('serve:warning:raised', { message: message.message }); break
      case 'failed': this.#listener.failed(fromMessage(message.error))
    }
  }
}

/** @throws SERVE_MOUNT */
function openChannel(holder: GuestHolder, socket: string): number {
  const ends = new Int32Array(2)
  const result = native().socketPair(true, ends)
  if (result < 0) throw new CodedError('NATIVE_SYSCALL', `no channel to the holder: errno ${-result}`, { errno: -result })
  const [ours, theirs] = [ends[0]!, ends[1]!]
  let listener: number | undefined
  try {
    listener = holder.isListening ? undefined : listenOn(socket)
    holder.give(socket, theirs, listener)
    return ours
  } catch (error) {
    native().closeFd(ours)
    throw error
  } finally {
    native().closeFd(theirs)
    if (listener !== undefined) native().closeFd(listener)
  }
}
