// A split virtqueue, seen from the device. Everything in it was written by a guest: indexes, chains and lengths are checked each time they are read,
// each is read once, and what does not fit ends the queue.
// SPEC: virtio 1.2, 2.7.5 to 2.7.10.

import { CodedError } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import { AVAIL_ENTRY, AVAIL_F, availHead, DESCRIPTOR_F, descriptor, MAX_QUEUE_SIZE, ringSizes, usedElement, usedHead } from '../../wire/virtio/ring.ts'
import type { GuestMemory, Place } from './guest-memory.ts'
import type { InflightQueue } from './inflight.ts'

const D = descriptor.offsetOf
const WORD = 2 ** 32
const INDEX_MASK = 0xffff
/** LIMIT: bytes of one chain. A request is 1 MiB at most, with room for its headers; this bounds what a hostile guest makes us look at. */
const MAX_CHAIN_BYTES = 2 ** 26

/** A part of guest memory. */
export interface GuestRange { readonly address: number; readonly length: number }

/** A request: its bytes, and where its reply may go. */
export interface Chain {
  readonly head: number
  readonly request: readonly GuestRange[]
  readonly reply: readonly GuestRange[]
  /** A predecessor had taken it, and perhaps done what it asks for. */
  readonly isRepeated?: boolean
}

/** Addresses of the three parts, in the front end's process. */
export interface RingAddresses { readonly descriptors: number; readonly available: number; readonly used: number }

interface Rings {
  readonly descriptors: Place
  readonly available: Place
  readonly used: Place
  readonly availableIndex: Uint16Array
  readonly usedIndex: Uint16Array
}

/** One queue. `memory` is the device's; after it changed, `forgetMemory`. */
export class Virtqueue {
  readonly #memory: GuestMemory
  #size = 0
  #addresses: RingAddresses | undefined
  #rings: Rings | undefined
  #lastAvailable = 0
  #usedIndex = 0
  #signalledAt = 0
  #inflight: InflightQueue | undefined
  /** Heads that a killed predecessor had taken. */
  #again: number[] = []
  /** Whether driver and device tell each other by indexes when to notify. */
  eventIndex = false

  constructor(memory: GuestMemory) {
    this.#memory = memory
  }

  /** Entries. @throws SERVE_BAD_GUEST unless a power of two within MAX_QUEUE_SIZE */
  setSize(size: number): void {
    if (size === 0 || size > MAX_QUEUE_SIZE || (size & (size - 1)) !== 0) throw new CodedError('SERVE_BAD_GUEST', `a queue of ${size} entries`, { size })
    this.#size = size
    this.#rings = undefined
  }

  setAddresses(addresses: RingAddresses): void {
    this.#addresses = addresses
    this.#rings = undefined
  }

  /** Where the device goes on reading; the used ring goes on where the guest's memory says. */
  setBase(base: number): void {
    this.#lastAvailable = base & INDEX_MASK
    this.#rings = undefined
  }

  get base(): number {
    return this.#lastAvailable
  }

  get size(): number {
    return this.#size
  }

  get addresses(): RingAddresses | undefined {
    return this.#addresses
  }

  /** The mappings are gone: look the rings up again at the next use. */
  forgetMemory(): void {
    this.#rings = undefined
  }

  /**
   * @param inflight where what is under way is recorded. What a predecessor left there is done again; then the base of the front end does not count.
   * @throws SERVE_BAD_GUEST when size or addresses are missing or lie outside of the memory
   */
  start(inflight?: InflightQueue): void {
    this.#open()
    this.#inflight = inflight
    this.#again = inflight?.begin(this.#usedIndex, this.#size) ?? []
    if (this.#again.length > 0) this.#goOn()
  }

  /** Goes on in place of a device that was killed. @throws SERVE_BAD_GUEST as `start` */
  resume(inflight: InflightQueue | undefined): void {
    this.start(inflight)
    this.#goOn()
  }

  // Whatever was taken was given back, or is in the record.
  #goOn(): void {
    this.#lastAvailable = (this.#usedIndex + this.#again.length) & INDEX_MASK
  }

  /** The next request, if there is one. @throws SERVE_BAD_GUEST when the guest breaks the protocol: the queue cannot be used any more */
  pop(): Chain | undefined {
    const rings = this.#open()
    const again = this.#again.shift()
    if (again !== undefined) return { ...this.#chain(rings, again), isRepeated: true }
    const available = Atomics.load(rings.availableIndex, 0)
    if (available === this.#lastAvailable) return undefined
    if (((available - this.#lastAvailable) & INDEX_MASK) > this.#size) throw bad('more requests than its queue has entries', { available, last: this.#lastAvailable })
    const head = rings.available.view.getUint16(rings.available.at + availHead.size + AVAIL_ENTRY * (this.#lastAvailable % this.#size), true)
    this.#lastAvailable = (this.#lastAvailable + 1) & INDEX_MASK
    if (head < this.#size) this.#inflight?.taken(head)
    return this.#chain(rings, head)
  }

  /** Gives the chain back, with `written` bytes in its reply. */
  push(head: number, written: number): void {
    const { used, usedIndex } = this.#open()
    const at = used.at + usedHead.size + usedElement.size * (this.#usedIndex % this.#size)
    used.view.setUint32(at + usedElement.offsetOf.id, head, true)
    used.view.setUint32(at + usedElement.offsetOf.length, written, true)
    this.#usedIndex = (this.#usedIndex + 1) & INDEX_MASK
    this.#inflight?.giving(head)
    Atomics.store(usedIndex, 0, this.#usedIndex) // sequentially consistent: the element is visible before the index
    this.#inflight?.given(head, this.#usedIndex)
  }

  /** Whether the driver wants to hear of what was pushed since the last call. SPEC: 2.7.7.2, vring_need_event. */
  takeNotification(): boolean {
    const { available } = this.#open()
    const before = this.#signalledAt
    const now = this.#usedIndex
    if (before === now) return false
    this.#signalledAt = now
    if (!this.eventIndex) return (available.view.getUint16(available.at + availHead.offsetOf.flags, true) & AVAIL_F.NO_INTERRUPT) === 0
    const event = available.view.getUint16(available.at + availHead.size + AVAIL_ENTRY * this.#size, true)
    return ((now - event - 1) & INDEX_MASK) < ((now - before) & INDEX_MASK)
  }

  /** Asks the driver to kick for the next request; true when one came meanwhile, so that no kick may come. Without event indexes a kick always comes. */
  armNotification(): boolean {
    const { used, availableIndex } = this.#open()
    if (this.eventIndex) {
      used.view.setUint16(used.at + usedHead.size + usedElement.size * this.#size, this.#lastAvailable, true)
      Atomics.exchange(usedIndexOf(used), 0, this.#usedIndex) // a full barrier between writing the event and reading the index
    }
    return Atomics.load(availableIndex, 0) !== this.#lastAvailable
  }

  #open(): Rings {
    return this.#rings ??= this.#locate()
  }

  #locate(): Rings {
    if (this.#size === 0 || !this.#addresses) throw bad('a queue is started before it has size and addresses', {})
    const sizes = ringSizes(this.#size)
    const descriptors = this.#memory.atUser(this.#addresses.descriptors, sizes.descriptors)
    const available = this.#memory.atUser(this.#addresses.available, sizes.available)
    const used = this.#memory.atUser(this.#addresses.used, sizes.used)
    // SPEC: 2.7: alignment 16, 2 and 4. Also what atomic access needs.
    if (this.#addresses.available % 2 !== 0 || this.#addresses.used % 4 !== 0 || available.at % 2 !== 0 || used.at % 4 !== 0) throw bad('a ring is not aligned', {})
    const rings = { descriptors, available, used, availableIndex: word16(available, availHead.offsetOf.index), usedIndex: usedIndexOf(used) }
    this.#usedIndex = this.#signalledAt = Atomics.load(rings.usedIndex, 0)
    return rings
  }

  #chain({ descriptors }: Rings, head: number): Chain {
    const request: GuestRange[] = []
    const reply: GuestRange[] = []
    let table: { view: DataView; at: number; entries: number } = { view: descriptors.view, at: descriptors.at, entries: this.#size }
    let index = head
    let indirect = false
    let total = 0
    for (let steps = 0; ; steps++) {
      if (steps > MAX_QUEUE_SIZE) throw bad('a chain of descriptors without an end', { head })
      if (index >= table.entries) throw bad('a descriptor that its table does not have', { head, index })
      const at = table.at + descriptor.size * index
      const address = table.view.getUint32(at + D.addressHigh, true) * WORD + table.view.getUint32(at + D.addressLow, true)
      const length = table.view.getUint32(at + D.length, true)
      const flags = table.view.getUint16(at + D.flags, true)
      const next = table.view.getUint16(at + D.next, true)
      if (!Number.isSafeInteger(address)) throw bad('an impossible address', { head })
      if ((flags & DESCRIPTOR_F.INDIRECT) !== 0) {
        if (indirect || steps > 0 || (flags & DESCRIPTOR_F.NEXT) !== 0) throw bad('an indirect table inside another or in a chain', { head })
        table = this.#indirect(address, length)
        indirect = true
        index = 0
        continue
      }
      total += length
      if (total > MAX_CHAIN_BYTES) throw bad('a chain of too many bytes', { head, total })
      if ((flags & DESCRIPTOR_F.WRITE) !== 0) reply.push({ address, length })
      else if (reply.length > 0) throw bad('a readable descriptor behind a writable one', { head })
      else request.push({ address, length })
      if ((flags & DESCRIPTOR_F.NEXT) === 0) return { head, request, reply }
      index = next
    }
  }

  // Copied: the guest may change it while it is walked, and what was checked must be what is used.
  #indirect(address: number, length: number): { view: DataView; at: number; entries: number } {
    if (length === 0 || length % descriptor.size !== 0 || length / descriptor.size > MAX_QUEUE_SIZE) throw bad('an indirect table of an impossible size', { length })
    const parts: Buffer[] = []
    this.#memory.slices(address, length, parts)
    const bytes = Buffer.concat(parts)
    return { view: dataViewOf(bytes), at: 0, entries: length / descriptor.size }
  }
}

function bad(what: string, context: Record<string, number>): CodedError {
  return new CodedError('SERVE_BAD_GUEST', `a guest's queue has ${what}`, context)
}

function word16({ bytes, at }: Place, offset: number): Uint16Array {
  return new Uint16Array(bytes.buffer, bytes.byteOffset + at + offset, 1)
}

function usedIndexOf(used: Place): Uint16Array {
  return word16(used, usedHead.offsetOf.index)
}
