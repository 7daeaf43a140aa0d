// Files as a guest's kernel asks for them, through a front end of our own; and a load of reads whose every byte is known.

import { createHash } from 'node:crypto'
import { outHeader } from '../../src/wire/fuse/header.ts'
import { readIn } from '../../src/wire/fuse/file.ts'
import { attr, entryOut } from '../../src/wire/fuse/inode.ts'
import { FUSE_OP } from '../../src/wire/fuse/opcode.ts'
import { DESCRIPTOR_F } from '../../src/wire/virtio/ring.ts'
import type { TestFrontEnd } from './vhost-front-end.ts'
import { GUEST_BASE } from './virtio-driver.ts'

/** As a reply has it. */
export const ENOENT = -2

export interface Node { readonly low: number; readonly high: number }
export const ROOT: Node = { low: 1, high: 0 }
type CallOptions = Parameters<TestFrontEnd['call']>[2]

export function lookup(guest: TestFrontEnd, name: string, parent: Node = ROOT, options: CallOptions = {}): { error: number; node: Node; size: number } {
  const { error, body } = guest.call(guest.request(FUSE_OP.LOOKUP, parent, Buffer.from(`${name}\0`)), 16 + entryOut.size, options)
  if (error !== 0) return { error, node: ROOT, size: 0 }
  const entry = entryOut.decode(body)
  if (entry.nodeLow === 0 && entry.nodeHigh === 0) return { error: ENOENT, node: ROOT, size: 0 } // a name that does not exist, and may be remembered as such
  return { error, node: { low: entry.nodeLow, high: entry.nodeHigh }, size: attr.decode(entry.attr).sizeLow }
}

export function walkTo(guest: TestFrontEnd, file: string, options: CallOptions = {}): { node: Node; size: number } {
  let at = { node: ROOT, size: 0 }
  for (const name of file.split('/').filter(Boolean)) {
    const found = lookup(guest, name, at.node, options)
    if (found.error !== 0) throw new Error(`${file}: ${found.error}`)
    at = found
  }
  return at
}

function readRequest(guest: TestFrontEnd, node: Node, offset: number, size: number): Buffer {
  return guest.request(FUSE_OP.READ, node, readIn.encode({ handle: 0n, offsetLow: offset, offsetHigh: 0, size, readFlags: 0, lockOwner: 0n, flags: 0 }))
}

export function read(guest: TestFrontEnd, node: Node, offset: number, size: number, options: CallOptions = {}, room = 16 + size): ReturnType<TestFrontEnd['call']> {
  return guest.call(readRequest(guest, node, offset, size), room, options)
}

export function sha256Of(guest: TestFrontEnd, file: string, options: CallOptions = {}): string {
  const { node, size } = walkTo(guest, file, options)
  const hash = createHash('sha256')
  for (let at = 0; at < size; at += 65_536) hash.update(read(guest, node, at, Math.min(65_536, size - at), options).body)
  return hash.digest('hex')
}

const LENGTH = 65_536
interface Slot { readonly input: number; readonly reply: number; expected: Buffer | undefined; unique: number }

/** READs that are always under way on one queue, each answer compared; `step` takes what was answered and asks again. */
export class GuestLoad {
  readonly wrong: string[] = []
  answered = 0
  readonly #guest: TestFrontEnd
  readonly #queue: number
  readonly #files: readonly { readonly node: Node; readonly bytes: Buffer }[]
  readonly #slots: Slot[]

  /** `depth` requests at once. `contents`: files by their paths in the share, none empty. */
  constructor(guest: TestFrontEnd, contents: ReadonlyMap<string, Buffer>, { depth, queue }: { readonly depth: number; readonly queue: number }) {
    this.#guest = guest
    this.#queue = queue
    this.#files = [...contents].map(([file, bytes]) => ({ node: walkTo(guest, file, { queue }).node, bytes }))
    this.#slots = Array.from({ length: depth }, () => ({ input: guest.memory.allocate(256), reply: guest.memory.allocate(outHeader.size + LENGTH), expected: undefined, unique: 0 }))
  }

  /** Requests without an answer. */
  get underWay(): number {
    return this.#slots.filter(({ expected }) => expected !== undefined).length
  }

  step({ ask = true }: { readonly ask?: boolean } = {}): void {
    const ring = this.#guest.queues[this.#queue]!
    for (let used = ring.takeUsed(); used; used = ring.takeUsed()) this.#check(used.id, used.length)
    if (!ask) return
    const before = ring.availableIndex
    this.#slots.forEach((slot, index) => {
      if (slot.expected === undefined) this.#ask(slot, index)
    })
    if (ring.availableIndex !== before) ring.notify(before)
  }

  #ask(slot: Slot, index: number): void {
    const { node, bytes } = this.#files[Math.floor(Math.random() * this.#files.length)]!
    const offset = Math.floor(Math.random() * Math.ceil(bytes.length / 4096)) * 4096
    slot.expected = bytes.subarray(offset, offset + LENGTH)
    const request = readRequest(this.#guest, node, offset, slot.expected.length)
    slot.unique = request.readUInt32LE(8)
    const { memory, queues } = this.#guest
    memory.bytes.set(request, slot.input)
    const ring = queues[this.#queue]!
    ring.writeDescriptor(2 * index, { address: GUEST_BASE + slot.input, length: request.length, flags: DESCRIPTOR_F.NEXT, next: 2 * index + 1 })
    ring.writeDescriptor(2 * index + 1, { address: GUEST_BASE + slot.reply, length: outHeader.size + slot.expected.length, flags: DESCRIPTOR_F.WRITE, next: 0 })
    ring.submit(2 * index)
  }

  #check(head: number, written: number): void {
    const slot = this.#slots[head / 2]
    const { expected } = slot ?? {}
    if (!slot || !expected) {
      this.wrong.push(`an answer to nothing: head ${head}`)
      return
    }
    slot.expected = undefined
    this.answered++
    const bytes = this.#guest.memory.bytes.subarray(slot.reply, slot.reply + written)
    const { error, uniqueLow } = written < outHeader.size ? { error: 'none', uniqueLow: 0 } : outHeader.decode(bytes)
    if (error !== 0 || uniqueLow !== slot.unique || !expected.equals(bytes.subarray(outHeader.size))) this.wrong.push(`head ${head}: error ${error}, ${written} bytes, unique ${uniqueLow} for ${slot.unique}`)
  }
}
