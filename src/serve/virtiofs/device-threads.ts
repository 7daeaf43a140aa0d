// The main thread's side of the threads that serve devices, of one daemon or of many: starts them, spreads devices over them, and can end them.

import { Worker } from 'node:worker_threads'
import { publish } from '../../core/diagnostics.ts'
import { toMessage } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { within } from '../worker/pool.ts'
import type { DeviceStart, FromDevice, FromThread, ThreadStart, ToDevice, ToThread } from './messages.ts'

/** LIMIT: a thread answers a wake-up between two requests; one that has not after this long is stuck in a system call. */
const STOP_TIMEOUT_MS = 2_000

/** A device in its thread. */
export interface OpenedDevice {
  post(message: ToDevice): void
  /** Resolves when the thread touches nothing of the device any more: true; false when it is stuck. */
  close(how: { readonly handOn: boolean }): Promise<boolean>
}

interface Thread {
  readonly worker: Worker
  readonly wakeUp: number
  readonly exited: Promise<void>
  readonly devices: Map<number, (message: FromDevice) => void>
}

/** So many threads at most, each started when it is needed. */
export class DeviceThreads {
  readonly #limit: number
  readonly #threads: Thread[] = []
  #lastDevice = 0
  #stopping = false

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Opens a device in the thread that has the fewest. `hear` is called with all that it says, and `failed` when its thread has ended. */
  open(start: DeviceStart, hear: (message: FromDevice) => void): OpenedDevice {
    const device = ++this.#lastDevice
    const thread = this.#idlest()
    thread.devices.set(device, hear)
    post(thread, { kind: 'open', device, start })
    return {
      post: (message) => post(thread, { kind: 'device', device, message }),
      close: async ({ handOn }) => {
        const closed = new Promise<void>((resolve) => thread.devices.set(device, (message) => {
          if (message.kind === 'closed') resolve()
          else hear(message)
        }))
        post(thread, { kind: 'close', device, handOn })
        const isClosed = await within(STOP_TIMEOUT_MS, closed)
        thread.devices.delete(device)
        return isClosed
      },
    }
  }

  /** Ends all threads. False when one is stuck in a system call: then the process cannot exit in the ordinary way. */
  async stop(): Promise<boolean> {
    this.#stopping = true
    for (const thread of this.#threads) post(thread, { kind: 'stop' })
    const stopped = await within(STOP_TIMEOUT_MS, Promise.all(this.#threads.map(({ exited }) => exited)))
    if (stopped) for (const { wakeUp } of this.#threads) native().closeFd(wakeUp)
    return stopped
  }

  #idlest(): Thread {
    const idlest = this.#threads.reduce<Thread | undefined>((best, thread) => (!best || thread.devices.size < best.devices.size ? thread : best), undefined)
    return idlest && (idlest.devices.size === 0 || this.#threads.length >= this.#limit) ? idlest : this.#begin()
  }

  #begin(): Thread {
    const wakeUp = native().eventCreate()
    const workerData: ThreadStart = { wakeUp }
    const worker = new Worker(new URL('./device-thread.js', import.meta.url), { workerData })
    const exited = new Promise<void>((resolve) => worker.once('exit', () => {
      this.#fail(thread, new Error('a thread of devices ended by itself'))
      resolve()
    }))
    const thread: Thread = { worker, wakeUp, exited, devices: new Map() }
    worker.on('message', ({ device, message }: FromThread) => {
      if (device > 0) thread.devices.get(device)?.(message)
      else if (message.kind === 'request-error') publish('serve:request:error', message)
      else for (const hear of [...thread.devices.values()]) hear(message)
    })
    worker.on('error', (error) => this.#fail(thread, error instanceof Error ? error : new Error(String(error))))
    this.#threads.push(thread)
    return thread
  }

  #fail(thread: Thread, error: Error): void {
    if (!this.#stopping) for (const hear of [...thread.devices.values()]) hear({ kind: 'failed', error: toMessage(error) })
  }
}

function post({ worker, wakeUp }: Thread, message: ToThread): void {
  worker.postMessage(message)
  native().eventSignal(wakeUp)
}
