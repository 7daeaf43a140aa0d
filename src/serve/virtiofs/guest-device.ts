// One vhost-user-fs device: its front end, its queues and its mounts, in a thread that may serve others too (loop.ts). Requests are served as in worker/loop.ts, by
// the same core: what is in metadata or ready in a cache file is answered here, straight into guest memory; anything else goes to the main thread as a miss.

import { closeSync } from 'node:fs'
import { CodedError, isCoded } from '../../core/errors.ts'
import type { NativeAddon } from '../../native/addon.ts'
import { inHeader, outHeader } from '../../wire/fuse/header.ts'
import { FUSE_OP } from '../../wire/fuse/opcode.ts'
import { OperationCounters } from '../counters.ts'
import { ERRNO } from '../errno.ts'
import { FuseCore, OUTCOME } from '../fuse/core.ts'
import { gather, scatter } from '../fuse/scatter.ts'
import { FileSystemTable } from '../fuse/file-system-table.ts'
import type { OpenFileSystem } from '../worker/open-shared.ts'
import type { SharedFileSystem, WorkerMount } from '../worker/messages.ts'
import { type Answer, type DeviceQueue, VhostUserDevice } from './device.ts'
import { decodeDevice, encodeDevice, type HeldDevice } from './device-state.ts'
import { DirectFrontEnd, type FrontEnd } from './front-end.ts'
import { readInto } from './guest-memory.ts'
import { HeldFrontEnd } from './held-front-end.ts'
import type { DeviceStart, FromDevice, ToDevice } from './messages.ts'
import { Trail } from './trail.ts'
import type { Chain, GuestRange } from './virtqueue.ts'

/** Cookies of a device in its thread's wait set, above its first; the kick of queue i is KICK + i. */
const COOKIE = { listener: 0, frontEnd: 1, kick: 2 } as const
/** Cookies that a device needs. */
export const COOKIES = 32
/** SPEC: fuse.h FUSE_UNIQUE_RESEND: bit 63 of a request's unique. */
const RESEND_BIT = 0x80
const RESEND_BYTE = inHeader.offsetOf.uniqueHigh + 3
const RESEND_REPLY_BYTE = outHeader.offsetOf.uniqueHigh + 3
/** LIMIT: requests of one queue before the others, and the front end, have their turn. */
const TURN = 64
/** LIMIT: misses that the main thread has at once: each may hold 1 MiB, and how many there are is the guest's choice. */
const MAX_MISSES = 64

/** What a device has of its thread. */
export interface DeviceEnvironment {
  readonly native: NativeAddon
  readonly waitSet: number
  /** The first of COOKIES cookies. */
  readonly cookie: number
  /** Buffers for one request and its reply, which all devices of the thread use. */
  readonly input: Buffer
  readonly output: Buffer
  post(message: FromDevice): void
  open(shared: SharedFileSystem): OpenFileSystem
}

interface Taken { readonly queue: number; readonly epoch: number; readonly head: number; readonly reply: readonly GuestRange[] }

/** Serves from its construction until it is closed. Methods throw only on bugs. */
export class GuestDevice {
  readonly #env: DeviceEnvironment
  readonly #start: DeviceStart
  readonly #counters: OperationCounters
  readonly #fileSystems: FileSystemTable
  readonly #opened = new Map<number, OpenFileSystem>()
  readonly #core: FuseCore
  readonly #device: VhostUserDevice
  readonly #trail: Trail | undefined
  readonly #ready = new Set<number>()
  /** Requests at the main thread, by a number that is never used twice. */
  readonly #taken = new Map<number, Taken>()
  #posted = 0
  readonly #backlog: { readonly token: number; readonly message: FromDevice }[] = []
  #lastToken = 0
  #frontEnd: FrontEnd | undefined
  #isConnected = false
  /** An answer to the front end that waits for a queue to be drained; its next message waits too. */
  #draining: { readonly queue: number; readonly request: number; readonly answer: () => Uint8Array } | undefined

  constructor(start: DeviceStart, environment: DeviceEnvironment) {
    [this.#env, this.#start] = [environment, start]
    const { native, waitSet, cookie, input, output } = environment
    this.#counters = new OperationCounters(start.counters, start.thread)
    // A guest is never told of mounts and umounts: directories on the way to a mountpoint are looked up each time.
    this.#fileSystems = new FileSystemTable({ counters: this.#counters })
    this.#core = new FuseCore(this.#fileSystems, start.policy, start.owner, input, output)
    this.#device = new VhostUserDevice({ recorded: this.#isHeld || start.trail !== undefined }, {
      kickChanged: (queue, before, now) => {
        if (before >= 0) native.waitSetRemove(waitSet, before)
        if (now >= 0 && native.edgeAdd(waitSet, now, cookie + COOKIE.kick + queue) < 0) throw new CodedError('SERVE_BAD_GUEST', 'a kick descriptor that cannot be waited for', { queue })
      },
      ready: (queue) => this.#ready.add(queue),
    })
    this.#trail = start.trail && new Trail(start.trail, { isEmpty: start.restored === undefined })
    for (const mount of start.mounts) this.#mount(mount)
    this.#begin() // after the mounts: requests that are done again may come at once
  }

  /** Whether a holder keeps the connection. */
  get #isHeld(): boolean {
    return this.#start.channel >= 0
  }

  /** Whether `serve` has something to do. */
  get isReady(): boolean {
    return this.#ready.size > 0
  }

  /** One turn for each queue that is ready. */
  serve(): void {
    for (const queue of [...this.#ready]) this.#serve(queue)
  }

  /** Something was signalled; `cookie` counts from the device's first. */
  event(cookie: number): void {
    if (cookie === COOKIE.listener) this.#accept()
    else if (cookie === COOKIE.frontEnd) this.#hearFrontEnd()
    else this.#ready.add(cookie - COOKIE.kick)
  }

  hear(message: ToDevice): void {
    switch (message.kind) {
      case 'answer': this.#complete(message.token, message.bytes); break
      case 'mount': this.#mount(message); break
      case 'unmount':
        this.#fileSystems.unmount(message.serial)
        this.#opened.get(message.serial)?.close()
        this.#opened.delete(message.serial)
        this.#env.post({ kind: 'unmounted', serial: message.serial })
    }
  }

  /** Touches nothing any more. A connection that a holder keeps is not ended by that, nor one that is handed on. */
  close({ handOn }: { readonly handOn: boolean }): void {
    if (this.#isHeld || handOn) {
      this.#device.reset()
      if (!this.#isHeld && this.#frontEnd) {
        this.#env.native.waitSetRemove(this.#env.waitSet, this.#frontEnd.fd) // somebody else has it too
        closeSync(this.#frontEnd.fd)
      }
    } else this.#dropFrontEnd()
    this.#env.native.waitSetRemove(this.#env.waitSet, this.#isHeld ? this.#start.channel : this.#start.listener)
    for (const fileSystem of this.#opened.values()) fileSystem.close()
  }

  // --- the front end ---------------------------------------------------------------------------------------------------------------

  #begin(): void {
    const { channel, listener, restored } = this.#start
    if (this.#isHeld) this.#frontEnd = new HeldFrontEnd(channel, () => this.#device.save())
    if (restored) this.#restore(restored)
    this.#env.native.edgeAdd(this.#env.waitSet, this.#isHeld ? channel : listener, this.#env.cookie + (this.#isHeld ? COOKIE.frontEnd : COOKIE.listener))
    this.#leave()
    if (this.#frontEnd) this.#hearFrontEnd()
  }

  // Nobody knows whether the device before this one has told of what it gave back last.
  #restore({ bytes, fds }: HeldDevice): void {
    try {
      const saved = decodeDevice(bytes)
      if (saved.frontEnd >= 0) this.#meet(fds[saved.frontEnd]!)
      this.#device.restore(saved, fds)
      if (this.#device.memory.regions.length > 0) this.#connected()
      for (const { call } of this.#device.queues) if (call >= 0) this.#env.native.eventSignal(call)
    } catch (error) {
      if (!isCoded(error)) throw error
      this.#complain(error)
      this.#dropFrontEnd()
    }
  }

  // One machine at a time: the next one waits in the listener's queue until the first has gone.
  #accept(): void {
    while (!this.#frontEnd) {
      const fd = this.#env.native.unixAccept(this.#start.listener)
      if (fd < 0) return
      this.#meet(fd)
      this.#leave()
      this.#hearFrontEnd()
    }
  }

  #meet(fd: number): void {
    this.#frontEnd = new DirectFrontEnd(fd)
    this.#env.native.edgeAdd(this.#env.waitSet, fd, this.#env.cookie + COOKIE.frontEnd)
    this.#connected()
  }

  // Before the front end hears of what it has changed.
  #leave(): void {
    if (!this.#trail) return
    const { state, fds } = this.#device.save({ listener: this.#start.listener, frontEnd: this.#frontEnd?.fd ?? -1 })
    this.#trail.leave({ bytes: encodeDevice(state), fds })
  }

  #connected(): void {
    if (!this.#isConnected) this.#env.post({ kind: 'front-end', connected: true })
    this.#isConnected = true
  }

  #hearFrontEnd(): void {
    try {
      while (this.#frontEnd && this.#drained(this.#frontEnd)) {
        const message = this.#frontEnd.receive()
        if (message === 'later') return
        if (message === 'closed') break
        this.#connected()
        this.#answer(this.#frontEnd, message.header.request, this.#device.handle(message))
      }
      if (this.#draining) return
    } catch (error) {
      if (!isCoded(error)) throw error
      this.#complain(error)
    }
    this.#dropFrontEnd()
    if (!this.#isHeld) this.#accept()
  }

  #answer(frontEnd: FrontEnd, request: number, answer: Answer): void {
    this.#leave()
    if (answer === undefined || answer instanceof Uint8Array) frontEnd.answer(request, answer)
    else if ('fd' in answer) frontEnd.answer(request, answer.payload, [answer.fd])
    else this.#draining = { queue: answer.drained, request, answer: answer.answer }
  }

  /** Whether no answer waits for requests under way, any more. */
  #drained(frontEnd: FrontEnd): boolean {
    if (!this.#draining) return true
    if (this.#device.queues[this.#draining.queue]!.pending > 0) return false
    const { request, answer } = this.#draining
    this.#draining = undefined
    const payload = answer()
    this.#leave()
    frontEnd.answer(request, payload)
    return true
  }

  #dropFrontEnd(): void {
    if (!this.#frontEnd) return
    this.#device.reset()
    this.#core.forgetClient()
    this.#ready.clear()
    this.#draining = undefined
    if (!this.#isHeld) this.#env.native.waitSetRemove(this.#env.waitSet, this.#frontEnd.fd)
    this.#frontEnd.close()
    if (!this.#isHeld) this.#frontEnd = undefined // a holder tells of the next one by its messages
    this.#leave()
    for (const { token } of this.#backlog.splice(0)) this.#taken.delete(token)
    for (const token of this.#taken.keys()) this.#env.post({ kind: 'cancel', token })
    if (this.#isConnected) this.#env.post({ kind: 'front-end', connected: false })
    this.#isConnected = false
  }

  // --- requests --------------------------------------------------------------------------------------------------------------------

  #serve(index: number): void {
    const queue = this.#device.queues[index]
    if (!queue?.serving) return void this.#ready.delete(index)
    try {
      let left = TURN
      for (; left > 0; left--) {
        const chain = queue.ring.pop()
        if (!chain) break
        this.#request(index, queue, chain)
      }
      if (left > 0 && !queue.ring.armNotification()) this.#ready.delete(index)
      this.#notify(queue)
      if (this.#device.memory.broken) throw new CodedError('SERVE_BAD_GUEST', 'the monitor took memory away that it shares', {})
    } catch (error) {
      if (!isCoded(error)) throw error
      this.#fail(index, queue, error)
    }
  }

  // The guest broke its queue's protocol: nothing more can be believed of it. SPEC: vhost-user.rst, SET_VRING_ERR.
  #fail(index: number, queue: DeviceQueue, error: CodedError): void {
    queue.failed = true
    this.#ready.delete(index)
    if (queue.error >= 0) this.#env.native.eventSignal(queue.error)
    this.#complain(error)
  }

  #notify(queue: DeviceQueue): void {
    if (queue.ring.takeNotification() && queue.call >= 0) this.#env.native.eventSignal(queue.call)
  }

  #request(index: number, queue: DeviceQueue, chain: Chain): void {
    const from = performance.now()
    const length = this.#gather(chain.request)
    const isRepeated = chain.isRepeated === true && this.#core.fileSystems.hasLive && length >= inHeader.size
    if (isRepeated) this.#env.input[RESEND_BYTE]! |= RESEND_BIT // as a kernel marks what it sends to the next server of a FUSE connection
    const outcome = this.#core.handle(0, length, 0)
    if (isRepeated) this.#env.output[RESEND_REPLY_BYTE]! &= ~RESEND_BIT
    const at = performance.timeOrigin + from
    if (outcome === OUTCOME.miss) {
      const token = this.#take(index, queue, chain)
      this.#post(token, { kind: 'miss', token, miss: { ...this.#core.miss }, at })
      return
    }
    if (outcome === OUTCOME.delegated) {
      const isAnswered = this.#core.opcode !== FUSE_OP.FORGET && this.#core.opcode !== FUSE_OP.BATCH_FORGET
      const token = isAnswered ? this.#take(index, queue, chain) : 0
      const message: FromDevice = { kind: 'request', token, serial: this.#core.mounted?.serial ?? 0, bytes: Uint8Array.from(this.#env.input.subarray(0, length)), at }
      if (isAnswered) this.#post(token, message)
      else {
        this.#env.post(message)
        queue.ring.push(chain.head, 0)
      }
      return
    }
    // FORGET has no reply, but its buffers must come back; an INTERRUPT's request is answered in any case
    const written = outcome === OUTCOME.none || outcome === OUTCOME.interrupt ? 0 : this.#reply(chain.reply, outcome === OUTCOME.file)
    queue.ring.push(chain.head, written)
    const counters = this.#core.mounted?.counters ?? this.#counters
    if (outcome === OUTCOME.file) counters.cacheHit()
    counters.record(this.#core.opcode, this.#core.errno, performance.now() - from, Math.max(0, written - outHeader.size))
  }

  #take(index: number, queue: DeviceQueue, chain: Chain): number {
    const token = ++this.#lastToken
    queue.pending++
    this.#taken.set(token, { queue: index, epoch: queue.epoch, head: chain.head, reply: chain.reply })
    return token
  }

  // A request that is longer than any that is understood is cut: the core refuses what does not fit its structure.
  #gather(ranges: readonly GuestRange[]): number {
    const parts: Buffer[] = []
    let room = this.#env.input.length
    for (const { address, length } of ranges) {
      const part = Math.min(room, length)
      this.#device.memory.slices(address, part, parts)
      room -= part
    }
    const length = gather(parts, this.#env.input, 0)
    if (length >= inHeader.size) this.#env.input.writeUInt32LE(length, inHeader.offsetOf.length)
    return length
  }

  /** Writes the core's reply into guest memory; returns the bytes written. */
  #reply(ranges: readonly GuestRange[], file: boolean): number {
    const parts = this.#parts(ranges)
    const room = parts.reduce((sum, part) => sum + part.length, 0)
    if (room < outHeader.size) return 0 // no room to say anything
    if (this.#core.replyLength > room) {
      this.#core.fail(ERRNO.EINVAL)
      file = false
    }
    if (file && !readInto(this.#env.native, this.#core.extents, parts)) {
      this.#core.fail(ERRNO.EIO)
      file = false
    }
    scatter(this.#env.output.subarray(0, file ? outHeader.size : this.#core.replyLength), parts)
    return this.#core.replyLength
  }

  #parts(ranges: readonly GuestRange[]): Buffer[] {
    const parts: Buffer[] = []
    for (const { address, length } of ranges) this.#device.memory.slices(address, length, parts)
    return parts
  }

  // --- the main thread -------------------------------------------------------------------------------------------------------------

  #post(token: number, message: FromDevice): void {
    if (this.#posted < MAX_MISSES) {
      this.#posted++
      this.#env.post(message)
    } else {
      this.#backlog.push({ token, message })
    }
  }

  #complete(token: number, message: Uint8Array): void {
    const taken = this.#taken.get(token)
    this.#taken.delete(token)
    this.#posted--
    for (let next = this.#backlog.shift(); next; next = this.#backlog.shift()) {
      if (!this.#taken.has(next.token)) continue
      this.#post(next.token, next.message)
      break
    }
    const queue = taken && this.#device.queues[taken.queue]
    if (!taken || !queue || queue.epoch !== taken.epoch) return // of a machine that has gone
    queue.pending--
    try {
      const parts = this.#parts(taken.reply)
      const room = parts.reduce((sum, part) => sum + part.length, 0)
      const fits = message.length <= room
      if (fits) scatter(message, parts)
      if (!queue.failed) {
        queue.ring.push(taken.head, fits ? message.length : 0)
        this.#notify(queue)
      }
    } catch (error) {
      if (!isCoded(error)) throw error
      this.#fail(taken.queue, queue, error)
    }
    if (this.#draining) this.#hearFrontEnd()
  }

  #complain(error: CodedError): void {
    this.#env.post({ kind: 'warning', message: `virtiofs: ${error.message}` })
  }

  #mount({ serial, steps, counters, fileSystem }: WorkerMount): void {
    const opened = this.#env.open(fileSystem)
    this.#fileSystems.mount(serial, opened, steps, new OperationCounters(counters, this.#start.thread))
    this.#opened.set(serial, opened)
  }
}
