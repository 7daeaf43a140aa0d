// A thread that serves devices of virtual machines: one wait for their listeners, front ends and kicks and for the main thread's wake-up.

import { closeSync } from 'node:fs'
import type { NativeAddon } from '../../native/addon.ts'
import { REPLY_SLOT, REQUEST_SLOT } from '../fuse/connection.ts'
import type { OpenFileSystem } from '../worker/open-shared.ts'
import type { SharedFileSystem } from '../worker/messages.ts'
import { COOKIES, GuestDevice } from './guest-device.ts'
import type { FromThread, ToThread } from './messages.ts'

/** Devices have numbers from 1, so that no device's cookie is this one. */
const WAKE_UP = 0

export interface LoopEnvironment {
  readonly native: NativeAddon
  readonly wakeUp: number
  receive(): ToThread | undefined
  post(message: FromThread): void
  open(shared: SharedFileSystem): OpenFileSystem
}

/** Serves until told to stop. Throws only on bugs and on a broken wait set. */
export class DeviceLoop {
  readonly #env: LoopEnvironment
  readonly #waitSet: number
  readonly #input = Buffer.alloc(REQUEST_SLOT)
  readonly #output = Buffer.alloc(REPLY_SLOT)
  readonly #devices = new Map<number, GuestDevice>()
  #stopped = false

  constructor(environment: LoopEnvironment) {
    this.#env = environment
    this.#waitSet = environment.native.waitSetCreate()
    environment.native.edgeAdd(this.#waitSet, environment.wakeUp, WAKE_UP)
  }

  run(): void {
    const cookies = new Int32Array(64)
    this.#readMessages()
    while (!this.#stopped) {
      const count = this.#env.native.edgeWait(this.#waitSet, cookies, this.#isReady() ? 0 : -1)
      if (count < 0) throw new Error(`the wait set broke: errno ${-count}`)
      for (let i = 0; i < count; i++) this.#event(cookies[i]!)
      for (const device of this.#devices.values()) if (device.isReady) device.serve()
    }
    for (const device of this.#devices.values()) device.close({ handOn: false })
    closeSync(this.#waitSet)
  }

  #isReady(): boolean {
    for (const device of this.#devices.values()) if (device.isReady) return true
    return false
  }

  #event(cookie: number): void {
    if (cookie === WAKE_UP) this.#readMessages()
    else this.#devices.get(Math.floor(cookie / COOKIES))?.event(cookie % COOKIES)
  }

  #readMessages(): void {
    for (let message = this.#env.receive(); message !== undefined; message = this.#env.receive()) this.#apply(message)
  }

  #apply(message: ToThread): void {
    switch (message.kind) {
      case 'stop':
        this.#stopped = true
        break
      case 'open': this.#open(message); break
      case 'device': this.#devices.get(message.device)?.hear(message.message); break
      case 'close':
        this.#devices.get(message.device)?.close(message)
        this.#devices.delete(message.device)
        this.#env.post({ device: message.device, message: { kind: 'closed' } })
    }
  }

  #open({ device, start }: Extract<ToThread, { kind: 'open' }>): void {
    const { native, post, open } = this.#env
    this.#devices.set(device, new GuestDevice(start, {
      native, waitSet: this.#waitSet, cookie: device * COOKIES, input: this.#input, output: this.#output, open, post: (message) => post({ device, message }),
    }))
  }
}
