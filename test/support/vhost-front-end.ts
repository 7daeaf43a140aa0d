// A vhost-user front end of our own: what QEMU does at start and at DRIVER_OK, message by message (reference/vm-containerd.md 1.5), and a FUSE client
// on top. Blocking calls are fine: the device is another process.

import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { native } from '../../src/native/load.ts'
import { inHeader, outHeader } from '../../src/wire/fuse/header.ts'
import { FUSE_INIT_FLAG, initIn } from '../../src/wire/fuse/init.ts'
import { FUSE_OP } from '../../src/wire/fuse/opcode.ts'
import {
  inflight, MESSAGE_F, MESSAGE_VERSION, memoryRegion, memoryTable, messageHeader, PROTOCOL_F, u64Payload, VHOST_USER, VHOST_USER_F_PROTOCOL_FEATURES, vringAddress, vringFile,
  vringState,
} from '../../src/wire/vhost-user/message.ts'
import { VIRTIO_F } from '../../src/wire/virtio/ring.ts'
import { DriverMemory, DriverQueue, GUEST_BASE, USER_BASE } from './virtio-driver.ts'

const bit = (number: number): bigint => 1n << BigInt(number)
const pauseFor = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

/** LIMIT: an answer takes a millisecond; this bounds a device that hangs. */
const ANSWER_MS = 20_000

/** A reply of the file system. */
export interface FuseReply { readonly error: number; readonly body: Buffer; readonly written: number }

export interface FrontEndOptions {
  readonly memoryBytes?: number
  readonly queueSize?: number
  readonly requestQueues?: number
  readonly eventIndex?: boolean
  readonly replyAck?: boolean
  readonly memorySlots?: boolean
  /** Gets a record of requests under way from the device, for `reconnect`. */
  readonly inflight?: boolean
}

/** One connection to a device. */
export class TestFrontEnd implements Disposable {
  socket = -1
  readonly memory: DriverMemory
  readonly queues: DriverQueue[]
  readonly options: Required<FrontEndOptions>
  #unique = 0
  #needReply = 0
  #closed = false
  readonly #path: string
  /** Descriptors that came with answers. */
  readonly #received: number[] = []
  #record: { readonly payload: Buffer; readonly fd: number } | undefined

  constructor(path: string, options: FrontEndOptions = {}) {
    this.options = { memoryBytes: 2 ** 24, queueSize: 64, requestQueues: 1, eventIndex: true, replyAck: true, memorySlots: false, inflight: false, ...options }
    this.#path = path
    this.#connect()
    this.memory = new DriverMemory(this.options.memoryBytes)
    this.queues = Array.from({ length: 1 + this.options.requestQueues }, () => new DriverQueue(this.memory, this.options.queueSize))
    for (const queue of this.queues) queue.eventIndex = this.options.eventIndex
  }

  #connect(): void {
    this.socket = native().unixConnect(Buffer.from(this.#path), false)
    if (this.socket < 0) throw new Error(`cannot connect: errno ${-this.socket}`)
  }

  /** The device is gone, with requests under way; the next one gets everything, and the record. SPEC: vhost-user.rst, "Inflight I/O tracking": queues begin at their used index. */
  reconnect(): void {
    closeSync(this.socket)
    this.#needReply = 0
    this.#connect()
    this.start()
  }

  /** One message; with `needReply`, or for requests that are answered anyway, `ask` returns the answer's payload. */
  send(request: number, payload: Uint8Array = new Uint8Array(), fds: readonly number[] = [], flags: number = MESSAGE_VERSION | this.#needReply): void {
    const bytes = Buffer.alloc(messageHeader.size + payload.length)
    messageHeader.encode({ request, flags, size: payload.length }, bytes)
    bytes.set(payload, messageHeader.size)
    const sent = native().sendFds(this.socket, bytes, Int32Array.from(fds))
    if (sent !== bytes.length) throw new Error(`the device does not take messages: ${sent}`)
  }

  ask(request: number, payload: Uint8Array = new Uint8Array(), fds: readonly number[] = []): Buffer {
    this.send(request, payload, fds, MESSAGE_VERSION)
    return this.answer(request)
  }

  /** Sends and, with REPLY_ACK, waits for the acknowledgement: 0 for success. */
  do(request: number, payload: Uint8Array = new Uint8Array(), fds: readonly number[] = []): bigint {
    this.send(request, payload, fds)
    return this.#needReply === 0 ? 0n : u64Payload.decode(this.answer(request)).value
  }

  /** Reads one answer. Throws 'closed' when the device has closed the connection. */
  answer(request: number): Buffer {
    const header = messageHeader.decode(this.#read(messageHeader.size))
    if (header.request !== request || (header.flags & MESSAGE_F.REPLY) === 0) throw new Error(`an answer to ${header.request}, not to ${request}`)
    return this.#read(header.size)
  }

  #read(length: number): Buffer {
    const bytes = Buffer.alloc(length)
    const end = Date.now() + ANSWER_MS
    for (let have = 0; have < length;) {
      const fds = new Int32Array(8)
      const size = native().receiveFds(this.socket, bytes.subarray(have), fds)
      if (size === -constants.errno.EAGAIN && Date.now() < end) {
        pauseFor(1)
        continue
      }
      if (size <= 0) throw new Error('closed')
      this.#received.push(...fds.filter((fd) => fd >= 0))
      have += size
    }
    return bytes
  }

  /** Everything up to a running device. */
  start(): void {
    const features = u64Payload.decode(this.ask(VHOST_USER.GET_FEATURES)).value
    const offered = u64Payload.decode(this.ask(VHOST_USER.GET_PROTOCOL_FEATURES)).value
    const wanted = bit(PROTOCOL_F.MQ) | (this.options.replyAck ? bit(PROTOCOL_F.REPLY_ACK) : 0n) | (this.options.memorySlots ? bit(PROTOCOL_F.CONFIGURE_MEM_SLOTS) : 0n)
      | (this.options.inflight ? bit(PROTOCOL_F.INFLIGHT_SHMFD) : 0n)
    if ((offered & wanted) !== wanted) throw new Error(`protocol features ${offered.toString(16)}`)
    this.send(VHOST_USER.SET_PROTOCOL_FEATURES, u64Payload.encode({ value: wanted }))
    if (this.options.replyAck) this.#needReply = MESSAGE_F.NEED_REPLY
    if (u64Payload.decode(this.ask(VHOST_USER.GET_QUEUE_NUM)).value < BigInt(this.queues.length)) throw new Error('too few queues')
    this.do(VHOST_USER.SET_OWNER)
    const accepted = features & (bit(VHOST_USER_F_PROTOCOL_FEATURES) | bit(VIRTIO_F.VERSION_1) | bit(VIRTIO_F.INDIRECT_DESC) | (this.options.eventIndex ? bit(VIRTIO_F.EVENT_IDX) : 0n))
    this.#expect(this.do(VHOST_USER.SET_FEATURES, u64Payload.encode({ value: accepted })))
    this.shareMemory()
    if (this.options.inflight) this.#shareRecord()
    for (const [index, queue] of this.queues.entries()) this.startQueue(index, queue.usedIndex)
  }

  #shareRecord(): void {
    if (this.#record) {
      this.#expect(this.do(VHOST_USER.SET_INFLIGHT_FD, this.#record.payload, [this.#record.fd]))
      return
    }
    const payload = this.ask(VHOST_USER.GET_INFLIGHT_FD, inflight.encode({ size: 0, offset: 0, queues: this.queues.length, queueSize: this.options.queueSize }))
    const fd = this.#received.pop()
    if (fd === undefined) throw new Error('a record without its memory')
    this.#record = { payload, fd }
    this.#expect(this.do(VHOST_USER.SET_INFLIGHT_FD, payload, [fd]))
  }

  shareMemory(): void {
    const region = memoryRegion.encode({ guest: GUEST_BASE, size: this.memory.size, user: USER_BASE, offset: 0 })
    if (this.options.memorySlots) this.#expect(this.do(VHOST_USER.ADD_MEM_REG, Buffer.concat([Buffer.alloc(8), region]), [this.memory.fd]))
    else this.#expect(this.do(VHOST_USER.SET_MEM_TABLE, Buffer.concat([memoryTable.encode({ count: 1 }), region]), [this.memory.fd]))
  }

  startQueue(index: number, base = 0): void {
    const queue = this.queues[index]!
    const file = vringFile.encode({ index, flags: 0 })
    this.#expect(this.do(VHOST_USER.SET_VRING_NUM, vringState.encode({ index, value: queue.size })))
    this.#expect(this.do(VHOST_USER.SET_VRING_BASE, vringState.encode({ index, value: base })))
    this.#expect(this.do(VHOST_USER.SET_VRING_ADDR, vringAddress.encode({
      index, flags: 0, descriptors: USER_BASE + queue.descriptors, available: USER_BASE + queue.available, used: USER_BASE + queue.used,
    })))
    this.#expect(this.do(VHOST_USER.SET_VRING_CALL, file, [queue.call]))
    this.#expect(this.do(VHOST_USER.SET_VRING_ERR, file, [queue.error]))
    this.#expect(this.do(VHOST_USER.SET_VRING_KICK, file, [queue.kick]))
    this.#expect(this.do(VHOST_USER.SET_VRING_ENABLE, vringState.encode({ index, value: 1 })))
  }

  /** Stops a queue; the index where it would go on. */
  stopQueue(index: number): number {
    this.do(VHOST_USER.SET_VRING_ENABLE, vringState.encode({ index, value: 0 }))
    return vringState.decode(this.ask(VHOST_USER.GET_VRING_BASE, vringState.encode({ index, value: 0 }))).value
  }

  /** A FUSE request's bytes. */
  request(opcode: number, node: { low: number; high: number }, body: Uint8Array = new Uint8Array()): Buffer {
    this.#unique += 2
    const header = inHeader.encode({
      length: inHeader.size + body.length, opcode, uniqueLow: this.#unique, uniqueHigh: 0, nodeLow: node.low, nodeHigh: node.high, uid: 0, gid: 0, pid: 1, extensions: 0,
    })
    return Buffer.concat([header, body])
  }

  /** One request through request queue `queue`, answered; throws after `ms`. */
  call(bytes: Uint8Array, room: number, { queue = 1, parts = 1, indirect = false, ms = 20_000 } = {}): FuseReply {
    const ring = this.queues[queue]!
    const mark = this.memory.mark
    const { head, reply } = ring.chain(bytes, room, { parts, indirect })
    const before = ring.availableIndex
    ring.submit(head)
    ring.notify(before)
    const used = this.waitUsed(queue, ms)
    this.memory.release(mark)
    if (used.id !== head) throw new Error(`head ${used.id} came back, ${head} was sent`)
    return this.reply(reply, used.length)
  }

  /** What lies at `at` after `written` bytes were written there. */
  reply(at: number, written: number): FuseReply {
    const bytes = Buffer.from(this.memory.bytes.subarray(at, at + written))
    if (written < outHeader.size) return { error: 0, body: Buffer.alloc(0), written }
    const { error, length } = outHeader.decode(bytes)
    if (length !== written) throw new Error(`a reply of ${length} bytes, ${written} of them written`)
    return { error, body: bytes.subarray(outHeader.size), written }
  }

  waitUsed(queue: number, ms = 20_000): { id: number; length: number } {
    for (const end = Date.now() + ms; ; pauseFor(1)) {
      const used = this.queues[queue]!.takeUsed()
      if (used) return used
      if (Date.now() > end) throw new Error(`no answer within ${ms} ms`)
    }
  }

  /** FUSE_INIT, as a guest's kernel sends it. */
  init(): FuseReply {
    const body = initIn.encode({ major: 7, minor: 38, maxReadahead: 131_072, flags: Object.values(FUSE_INIT_FLAG).reduce((all, flag) => (all | flag) >>> 0, 0), flags2: 0 })
    return this.call(this.request(FUSE_OP.INIT, { low: 0, high: 0 }, body), 104)
  }

  #expect(result: bigint): void {
    if (result !== 0n) throw new Error('the device refuses')
  }

  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    closeSync(this.socket)
    for (const fd of [...this.#received, ...this.#record ? [this.#record.fd] : []]) closeSync(fd)
    for (const queue of this.queues) queue.close()
    this.memory[Symbol.dispose]()
  }
}
