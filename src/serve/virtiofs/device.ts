// The device as its front end configures it: features, memory, queues. SPEC: QEMU docs/interop/vhost-user.rst; the order of messages of QEMU 7.2 and
// what each pitfall costs: reference/vm-containerd.md 1.5.

import { closeSync } from 'node:fs'
import { CodedError, isCoded } from '../../core/errors.ts'
import type { Struct, Row, ValueOf } from '../../core/struct.ts'
import {
  inflight, type MemoryRegion, MESSAGE_F, memoryRegion, memoryRegionAt, memoryTable, PROTOCOL_F, u64Payload, VHOST_USER, VHOST_USER_F_PROTOCOL_FEATURES, VRING_FILE_NO_FD,
  vringAddress, vringFile, vringState,
} from '../../wire/vhost-user/message.ts'
import { MAX_QUEUE_SIZE, VIRTIO_F } from '../../wire/virtio/ring.ts'
import { closeAll, type Message } from './front-end.ts'
import { GuestMemory, MAX_REGIONS } from './guest-memory.ts'
import type { SavedDevice } from './device-state.ts'
import { createInflight, type InflightQueue, InflightRegion, type InflightRequest } from './inflight.ts'
import { Virtqueue } from './virtqueue.ts'

/** LIMIT: the high-priority queue and eight request queues; QEMU's default is one of each. */
export const MAX_QUEUES = 9

const bit = (number: number): bigint => 1n << BigInt(number)
const FEATURES = bit(VHOST_USER_F_PROTOCOL_FEATURES) | bit(VIRTIO_F.VERSION_1) | bit(VIRTIO_F.INDIRECT_DESC) | bit(VIRTIO_F.EVENT_IDX)
const PROTOCOL_FEATURES = bit(PROTOCOL_F.MQ) | bit(PROTOCOL_F.REPLY_ACK) | bit(PROTOCOL_F.CONFIGURE_MEM_SLOTS) | bit(PROTOCOL_F.RESET_DEVICE)
  | bit(PROTOCOL_F.INFLIGHT_SHMFD)

/** One queue with its descriptors. `failed`: the guest broke its protocol, it is not served until it is set up anew. */
export class DeviceQueue {
  readonly ring: Virtqueue
  kick = -1
  call = -1
  error = -1
  enabled = false
  failed = false
  /** Requests that were taken and not given back. */
  pending = 0
  /** Changes when the queue is stopped: what was taken before must not be given back after. */
  epoch = 0

  constructor(memory: GuestMemory) {
    this.ring = new Virtqueue(memory)
  }

  /** SPEC: a ring is started by its kick descriptor and served while it is enabled. */
  get serving(): boolean {
    return this.kick >= 0 && this.enabled && !this.failed
  }
}

export interface DeviceListener {
  /** A queue has a new kick descriptor, or (-1 now, `before` until now) lost it. The descriptor is still open. */
  kickChanged(queue: number, before: number, now: number): void
  /** The queue may be served from now on. */
  ready(queue: number): void
}

/** What `handle` found: an answer, silence, an answer with a descriptor (which stays the device's), or an answer that must wait until the queue has no requests under way. */
export type Answer = Uint8Array | undefined | { readonly payload: Uint8Array; readonly fd: number } | { readonly drained: number; readonly answer: () => Uint8Array }

export interface DeviceOptions {
  /** Whether requests under way are recorded for a successor, also where the front end does not ask for it. */
  readonly recorded: boolean
}

/** The state that one front end sets up. */
export class VhostUserDevice {
  readonly memory = new GuestMemory()
  readonly queues: readonly DeviceQueue[]
  readonly #options: DeviceOptions
  readonly #listener: DeviceListener
  #protocolFeatures = 0n
  #inflight: InflightRegion | undefined

  constructor(options: DeviceOptions, listener: DeviceListener) {
    this.#options = options
    this.#listener = listener
    this.queues = Array.from({ length: MAX_QUEUES }, () => new DeviceQueue(this.memory))
  }

  /** Takes one message, and its descriptors. @throws SERVE_BAD_GUEST when the connection must be closed */
  handle(message: Message): Answer {
    const { header, fds } = message
    const kept = new Set<number>()
    try {
      const answer = this.#dispatch(message, kept)
      const acknowledge = answer === undefined && (header.flags & MESSAGE_F.NEED_REPLY) !== 0 && this.#has(PROTOCOL_F.REPLY_ACK)
      return acknowledge ? number64(0n) : answer
    } catch (error) {
      // SPEC: REPLY_ACK: a request that asked for an answer hears of the failure, and the connection lives on
      if (isCoded(error) && (header.flags & MESSAGE_F.NEED_REPLY) !== 0 && this.#has(PROTOCOL_F.REPLY_ACK)) return number64(1n)
      throw error
    } finally {
      closeAll(fds.filter((fd) => !kept.has(fd)))
    }
  }

  /** The front end is gone, or the device is reset: everything is closed and forgotten. */
  reset(): void {
    this.queues.forEach((queue, index) => {
      this.#stop(queue, index)
      for (const fd of [queue.call, queue.error]) if (fd >= 0) closeSync(fd)
      queue.call = queue.error = -1
    })
    this.memory.clear()
    this.#inflight?.close()
    this.#inflight = undefined
    this.#protocolFeatures = 0n
  }

  /** For a successor, which continues with these too; descriptors stay the device's. */
  save({ listener, frontEnd }: Pick<SavedDevice, 'listener' | 'frontEnd'> = { listener: -1, frontEnd: -1 }): { state: SavedDevice; fds: number[] } {
    const fds: number[] = []
    const numberOf = (fd: number): number => fd < 0 ? -1 : fds.push(fd) - 1
    const state: SavedDevice = {
      protocolFeatures: Number(this.#protocolFeatures),
      eventIndex: this.queues[0]!.ring.eventIndex,
      regions: this.memory.regions.map(({ guest, size, user, offset, fd }) => ({ guest, size, user, offset, fd: numberOf(fd) })),
      queues: this.queues.map(({ ring: { size, base, addresses }, enabled, kick, call, error }) => ({
        size, base, addresses, enabled, kick: numberOf(kick), call: numberOf(call), error: numberOf(error),
      })),
      inflight: this.#inflight && { ...this.#inflight.shape, fd: numberOf(this.#inflight.fd) },
      listener: numberOf(listener),
      frontEnd: numberOf(frontEnd),
    }
    return { state, fds }
  }

  /** Becomes what a killed device had saved; the descriptors are its own, whatever happens, except `listener` and `frontEnd`. Every queue may be served then. @throws SERVE_BAD_GUEST; it must be reset then */
  restore(state: SavedDevice, fds: readonly number[]): void {
    const left = new Set(fds)
    const take = (number: number): number => {
      const fd = fds[number] ?? -1
      left.delete(fd)
      return fd
    }
    for (const number of [state.listener, state.frontEnd]) take(number)
    try {
      this.#protocolFeatures = BigInt(state.protocolFeatures)
      const { inflight } = state
      if (inflight) this.#inflight = new InflightRegion(inflight, take(inflight.fd))
      for (const region of state.regions) this.memory.add(region, take(region.fd))
      state.queues.forEach(({ size, base, addresses, enabled, kick, call, error }, index) => {
        const queue = this.#queue(index)
        if (size > 0) queue.ring.setSize(size)
        if (addresses) queue.ring.setAddresses(addresses)
        queue.ring.setBase(base)
        queue.ring.eventIndex = state.eventIndex
        queue.call = take(call)
        queue.error = take(error)
        queue.enabled = enabled
        if (kick < 0) return
        queue.ring.resume(this.#inflight?.queue(index, size))
        queue.kick = take(kick)
        this.#listener.kickChanged(index, -1, queue.kick)
        if (queue.serving) this.#listener.ready(index)
      })
    } finally {
      closeAll([...left])
    }
  }

  #dispatch(message: Message, kept: Set<number>): Answer {
    const { payload } = message
    switch (message.header.request) {
      case VHOST_USER.GET_FEATURES: return number64(FEATURES)
      case VHOST_USER.SET_FEATURES: return this.#setFeatures(decode(u64Payload, payload).value)
      case VHOST_USER.GET_PROTOCOL_FEATURES: return number64(PROTOCOL_FEATURES)
      case VHOST_USER.SET_PROTOCOL_FEATURES:
        this.#protocolFeatures = decode(u64Payload, payload).value & PROTOCOL_FEATURES
        return undefined
      case VHOST_USER.GET_QUEUE_NUM: return number64(BigInt(MAX_QUEUES))
      case VHOST_USER.GET_MAX_MEM_SLOTS: return number64(BigInt(MAX_REGIONS))
      case VHOST_USER.SET_OWNER: return undefined
      case VHOST_USER.RESET_OWNER: case VHOST_USER.RESET_DEVICE: return this.#stopAll()
      case VHOST_USER.SET_MEM_TABLE: return this.#setMemory(message, kept)
      case VHOST_USER.ADD_MEM_REG: return this.#addMemory(decode(memoryRegion, payload, memoryRegionAt), message.fds[0], kept)
      case VHOST_USER.REM_MEM_REG:
        this.memory.remove(decode(memoryRegion, payload, memoryRegionAt))
        return this.#memoryChanged()
      case VHOST_USER.SET_VRING_NUM: return this.#configure(payload, (queue, value) => queue.ring.setSize(value))
      case VHOST_USER.SET_VRING_BASE: return this.#configure(payload, (queue, value) => queue.ring.setBase(value))
      case VHOST_USER.SET_VRING_ADDR: return this.#setAddresses(payload)
      case VHOST_USER.SET_VRING_ENABLE: return this.#configure(payload, (queue, value, index) => {
        queue.enabled = value === 1
        if (queue.serving) this.#listener.ready(index)
      })
      case VHOST_USER.GET_INFLIGHT_FD: return this.#makeInflight(decode(inflight, payload))
      case VHOST_USER.SET_INFLIGHT_FD: return this.#takeInflight(decode(inflight, payload), message.fds[0], kept)
      case VHOST_USER.GET_VRING_BASE: return this.#getBase(payload)
      case VHOST_USER.SET_VRING_KICK: return this.#setKick(message, kept)
      case VHOST_USER.SET_VRING_CALL: return this.#setFile(message, kept, 'call')
      case VHOST_USER.SET_VRING_ERR: return this.#setFile(message, kept, 'error')
      default: throw new CodedError('SERVE_BAD_GUEST', 'the monitor asks for something that was not offered', { request: message.header.request })
    }
  }

  #has(feature: number): boolean {
    return (this.#protocolFeatures & bit(feature)) !== 0n
  }

  #setFeatures(features: bigint): undefined {
    if ((features & ~FEATURES) !== 0n) throw new CodedError('SERVE_BAD_GUEST', 'the driver accepts features that were not offered', { features: features.toString(16) })
    for (const queue of this.queues) {
      queue.ring.eventIndex = (features & bit(VIRTIO_F.EVENT_IDX)) !== 0n
      // SPEC: without protocol features rings are enabled from the start
      if ((features & bit(VHOST_USER_F_PROTOCOL_FEATURES)) === 0n) queue.enabled = true
    }
    return undefined
  }

  #setMemory({ payload, fds }: Message, kept: Set<number>): undefined {
    const { count } = decode(memoryTable, payload)
    if (count !== fds.length) throw new CodedError('SERVE_BAD_GUEST', 'a memory table needs a descriptor for each region', { count, fds: fds.length })
    const regions = Array.from({ length: count }, (_, i) => decode(memoryRegion, payload, memoryTable.size + i * memoryRegion.size))
    this.memory.clear()
    this.#memoryChanged()
    for (const [i, region] of regions.entries()) this.#map(region, fds[i]!, kept)
    return undefined
  }

  #addMemory(region: MemoryRegion, fd: number | undefined, kept: Set<number>): undefined {
    if (fd === undefined) throw new CodedError('SERVE_BAD_GUEST', 'a memory region came without its file', {})
    this.#map(region, fd, kept)
    return this.#memoryChanged()
  }

  #map(region: MemoryRegion, fd: number, kept: Set<number>): void {
    kept.add(fd) // the memory closes it, whatever happens
    this.memory.add(region, fd)
  }

  #memoryChanged(): undefined {
    for (const { ring } of this.queues) ring.forgetMemory()
    return undefined
  }

  #configure(payload: Buffer, apply: (queue: DeviceQueue, value: number, index: number) => void): undefined {
    const { index, value } = decode(vringState, payload)
    apply(this.#queue(index), value, index)
    return undefined
  }

  #setAddresses(payload: Buffer): undefined {
    const { index, descriptors, available, used } = decode(vringAddress, payload)
    this.#queue(index).ring.setAddresses({ descriptors, available, used })
    return undefined
  }

  // Requests under way are answered first: a machine that is paused and goes on expects its answers, and nobody asks twice.
  #getBase(payload: Buffer): Answer {
    const { index } = decode(vringState, payload)
    const queue = this.#queue(index)
    queue.enabled = false
    return {
      drained: index,
      answer: () => {
        const { base } = queue.ring
        this.#stop(queue, index)
        return vringState.encode({ index, value: base })
      },
    }
  }

  #setKick(message: Message, kept: Set<number>): undefined {
    const { index, queue, fd } = this.#fileOf(message)
    const before = queue.kick
    queue.kick = -1
    if (fd === undefined) throw new CodedError('SERVE_BAD_GUEST', 'a queue without a kick descriptor would have to be polled', { index })
    if (before < 0 || queue.failed) queue.ring.start(this.#recordOf(index, queue.ring.size))
    queue.failed = false
    kept.add(fd)
    queue.kick = fd
    this.#listener.kickChanged(index, before, fd)
    if (before >= 0) closeSync(before)
    if (queue.serving) this.#listener.ready(index)
    return undefined
  }

  #setFile(message: Message, kept: Set<number>, which: 'call' | 'error'): undefined {
    const { queue, fd } = this.#fileOf(message)
    if (queue[which] >= 0) closeSync(queue[which])
    queue[which] = fd ?? -1
    if (fd !== undefined) kept.add(fd)
    return undefined
  }

  #fileOf({ payload, fds }: Message): { index: number; queue: DeviceQueue; fd: number | undefined } {
    const { index, flags } = decode(vringFile, payload)
    return { index, queue: this.#queue(index), fd: (flags & VRING_FILE_NO_FD) !== 0 ? undefined : fds[0] }
  }

  // A record of our own is new whenever the front end starts a queue: it goes on from its own base.
  #recordOf(index: number, entries: number): InflightQueue | undefined {
    if (this.#options.recorded) this.#inflight ??= createInflight({ queues: MAX_QUEUES, queueSize: MAX_QUEUE_SIZE, own: true })
    if (this.#inflight?.shape.own) this.#inflight.clear(index)
    return this.#inflight?.queue(index, entries)
  }

  #makeInflight({ queues, queueSize }: InflightRequest): Answer {
    this.#checkStopped()
    const region = createInflight({ queues, queueSize, own: false })
    this.#inflight?.close()
    this.#inflight = region
    return { payload: inflight.encode(region.shape), fd: region.fd }
  }

  #takeInflight(shape: InflightRequest, fd: number | undefined, kept: Set<number>): undefined {
    if (fd === undefined) throw new CodedError('SERVE_BAD_GUEST', 'the record of requests came without its memory', {})
    this.#checkStopped()
    const region = new InflightRegion({ ...shape, own: false }, fd)
    kept.add(fd)
    this.#inflight?.close()
    this.#inflight = region
    return undefined
  }

  #checkStopped(): void {
    if (this.queues.some(({ kick }) => kick >= 0)) throw new CodedError('SERVE_BAD_GUEST', 'the record of requests is changed while queues run', {})
  }

  #queue(index: number): DeviceQueue {
    const queue = this.queues[index]
    if (!queue) throw new CodedError('SERVE_BAD_GUEST', `there is no queue ${index}`, { index })
    return queue
  }

  #stopAll(): undefined {
    for (const [index, queue] of this.queues.entries()) this.#stop(queue, index)
    return undefined
  }

  #stop(queue: DeviceQueue, index: number): void {
    const before = queue.kick
    queue.kick = -1
    queue.enabled = false
    queue.failed = false
    queue.pending = 0
    queue.epoch++
    if (before < 0) return
    this.#listener.kickChanged(index, before, -1)
    closeSync(before)
  }
}

function decode<const R extends readonly Row[]>(table: Struct<R>, payload: Buffer, at = 0): ValueOf<R> {
  if (payload.length < at + table.size) throw new CodedError('SERVE_BAD_GUEST', `a message is too short for its ${table.name}`, { length: payload.length })
  try {
    return table.decode(payload, at)
  } catch (cause) {
    throw new CodedError('SERVE_BAD_GUEST', `a ${table.name} holds an impossible number`, {}, { cause })
  }
}

function number64(value: bigint): Uint8Array {
  return u64Payload.encode({ value })
}
