// The driver's side of a split virtqueue in a file-backed memory, for tests: what a guest's kernel does, and what a hostile one might.

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { native } from '../../src/native/load.ts'
import { AVAIL_ENTRY, availHead, DESCRIPTOR_F, descriptor, ringSizes, usedElement, usedHead } from '../../src/wire/virtio/ring.ts'

/** Guest-physical and user addresses differ, so that a device which mixes them up is found out. */
export const GUEST_BASE = 0x4000_0000
export const USER_BASE = 0x7f12_3456_7000

/** Memory that a device can map: a file, and our own mapping of it. */
export class DriverMemory implements Disposable {
  readonly fd: number
  readonly size: number
  readonly bytes: Buffer
  readonly #mapping: ArrayBuffer
  readonly #directory: string
  #next = 0

  constructor(size: number) {
    this.size = size
    this.#directory = mkdtempSync(path.join(tmpdir(), 'nydus-guest-'))
    this.fd = openSync(path.join(this.#directory, 'memory'), 'w+')
    ftruncateSync(this.fd, size)
    this.#mapping = native().mmap(this.fd, 0, size, true)
    this.bytes = Buffer.from(this.#mapping)
  }

  /** Offset of `length` fresh bytes, aligned to 64. */
  allocate(length: number): number {
    const at = this.#next
    this.#next = (at + length + 63) & ~63
    if (this.#next > this.size) throw new Error('the test guest has no memory left')
    return at
  }

  /** Gives back what was allocated since `mark` was read. */
  get mark(): number {
    return this.#next
  }

  release(mark: number): void {
    this.#next = mark
  }

  [Symbol.dispose](): void {
    native().munmap(this.#mapping)
    closeSync(this.fd)
    rmSync(this.#directory, { recursive: true })
  }
}

/** One descriptor as a guest would write it. */
export interface RawDescriptor { readonly address: number; readonly length: number; readonly flags: number; readonly next: number }

/** A queue, driven. */
export class DriverQueue {
  readonly size: number
  readonly memory: DriverMemory
  readonly descriptors: number
  readonly available: number
  readonly used: number
  readonly kick = native().eventCreate()
  readonly call = native().eventCreate()
  readonly error = native().eventCreate()
  eventIndex = false
  #availableIndex = 0
  #usedIndex = 0

  constructor(memory: DriverMemory, size: number) {
    this.memory = memory
    this.size = size
    const sizes = ringSizes(size)
    this.descriptors = memory.allocate(sizes.descriptors)
    this.available = memory.allocate(sizes.available)
    this.used = memory.allocate(sizes.used)
    memory.bytes.fill(0, this.descriptors, this.used + sizes.used)
  }

  get availableIndex(): number {
    return this.#availableIndex
  }

  /** As the device has written it: what it has given back. */
  get usedIndex(): number {
    return this.memory.bytes.readUInt16LE(this.used + usedHead.offsetOf.index)
  }

  writeDescriptor(index: number, { address, length, flags, next }: RawDescriptor, at = this.descriptors): void {
    descriptor.encode({ addressLow: address % 2 ** 32, addressHigh: Math.floor(address / 2 ** 32), length, flags, next }, this.memory.bytes, at + index * descriptor.size)
  }

  /** Makes the chain that begins at `head` available. */
  submit(head: number): void {
    this.memory.bytes.writeUInt16LE(head, this.available + availHead.size + AVAIL_ENTRY * (this.#availableIndex % this.size))
    this.setAvailableIndex(this.#availableIndex + 1)
  }

  setAvailableIndex(index: number): void {
    this.#availableIndex = index & 0xffff
    this.memory.bytes.writeUInt16LE(this.#availableIndex, this.available + availHead.offsetOf.index)
  }

  /** Kicks as a driver does: with event indexes only when the device asked for it. */
  notify(before: number): boolean {
    const event = this.memory.bytes.readUInt16LE(this.used + usedHead.size + usedElement.size * this.size)
    const wanted = !this.eventIndex || ((this.#availableIndex - event - 1) & 0xffff) < ((this.#availableIndex - before) & 0xffff)
    if (wanted) native().eventSignal(this.kick)
    return wanted
  }

  /** The next used element, undefined when there is none. With event indexes the device is asked to signal the one after it. */
  takeUsed(): { id: number; length: number } | undefined {
    if (this.usedIndex === this.#usedIndex) return undefined
    const element = usedElement.decode(this.memory.bytes, this.used + usedHead.size + usedElement.size * (this.#usedIndex % this.size))
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff
    this.memory.bytes.writeUInt16LE(this.#usedIndex, this.available + availHead.size + AVAIL_ENTRY * this.size)
    return element
  }

  /**
   * Writes a chain for `request` cut into `parts` readable descriptors and a reply of `room` bytes cut the same way; `indirect` puts it into a
   * table of its own. Returns its head and where the reply will lie.
   */
  chain(request: Uint8Array, room: number, { parts = 1, indirect = false, from = 0 }: { readonly parts?: number; readonly indirect?: boolean; readonly from?: number } = {}): { head: number; reply: number } {
    const input = this.memory.allocate(request.length)
    this.memory.bytes.set(request, input)
    const reply = this.memory.allocate(room)
    const pieces = [...cut(input, request.length, parts).map((piece) => ({ ...piece, flags: 0 })), ...cut(reply, room, parts).map((piece) => ({ ...piece, flags: DESCRIPTOR_F.WRITE }))]
    const table = indirect ? this.memory.allocate(pieces.length * descriptor.size) : this.descriptors
    pieces.forEach(({ at, length, flags }, i) => {
      const last = i === pieces.length - 1
      const index = indirect ? i : from + i
      this.writeDescriptor(index, { address: GUEST_BASE + at, length, flags: flags | (last ? 0 : DESCRIPTOR_F.NEXT), next: last ? 0 : index + 1 }, table)
    })
    if (indirect) this.writeDescriptor(from, { address: GUEST_BASE + table, length: pieces.length * descriptor.size, flags: DESCRIPTOR_F.INDIRECT, next: 0 })
    return { head: from, reply }
  }

  close(): void {
    for (const fd of [this.kick, this.call, this.error]) closeSync(fd)
  }
}

function cut(at: number, length: number, parts: number): { at: number; length: number }[] {
  const step = Math.max(1, Math.ceil(length / parts))
  return Array.from({ length: Math.ceil(length / step) }, (_, i) => ({ at: at + i * step, length: Math.min(step, length - i * step) }))
}
