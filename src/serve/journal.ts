// Which operations of a live file system are begun and which are done, in a file that outlives the process: requests that a server had read and
// not answered are asked again of the next one, and what cannot be done twice (mkdir, rename, link ...) is then answered from here. Writing
// costs two short pwrites for each such operation and no sync: the page cache survives a process, and what does not survive the
// machine has no connection to answer on.
//
//     begin (slot: BEGUN, unique, note) → change the file system → finish (slot: DONE, reply) → reply to the kernel
//
// SPEC: linux fs/fuse/dev.c: the requests of FUSE_NOTIFY_RESEND keep their unique, with bit 63 set; uniques are not used twice in a connection.

import { closeSync, ftruncateSync, openSync, readSync, renameSync, writeSync } from 'node:fs'
import { bytes, magic, size64, struct, u32 } from '../core/struct.ts'

/** LIMIT: a server that dies leaves as many operations at most as were under way, and slots are taken in turn: none is overwritten before its repetition. */
const SLOTS = 1024
/** LIMIT: the longest reply of an operation that is journaled: CREATE, 16 + 128 + 16 bytes. */
const REPLY_ROOM = 224

const slot = struct('JournalSlot', 256, [
  [ 0, 'magic',      magic(0x4c4a_584e), 'magic: NXJL'],
  [ 4, 'state',      u32, 'state: 1 begun, 2 done'],
  [ 8, 'uniqueLow',  u32, 'unique_low'],
  [12, 'uniqueHigh', u32, 'unique_high'],
  [16, 'note',       size64, 'note: what the file system wants to know of an operation that was begun'],
  [24, 'length',     u32, 'length: of the reply'],
  [28, 'reply',      bytes(REPLY_ROOM), 'reply: header included'],
  [252, 'end',       u32, 'end: the magic again'],
])
const STATE = { begun: 1, done: 2 } as const
const MAGIC = 0x4c4a_584e

/** An operation that was begun here. */
export interface JournalEntry { readonly index: number; readonly uniqueLow: number; readonly uniqueHigh: number; readonly note: number }

/** What a server before this one has left of an operation; without a reply it was begun, and perhaps done. */
export interface Left { readonly note: number; readonly reply: Uint8Array | undefined }

/** The journal of one live file system; one process writes it at a time. */
export class Journal {
  readonly #fd: number
  readonly #left = new Map<string, Left>()
  #next = 0
  readonly #slot = Buffer.alloc(slot.size)

  /** Goes on with the journal at `path` (`resume`), or begins a new one. Throws what open(2) says. */
  constructor(path: string, { resume }: { readonly resume: boolean }) {
    if (!resume) {
      // a new file: whoever still has the old one must not write into this
      this.#fd = openSync(`${path}.new`, 'w+', 0o600)
      renameSync(`${path}.new`, path)
      return
    }
    this.#fd = openSync(path, 'r+')
    this.#read()
  }

  /** To be called before the first change. `note`: not negative, below 2^53. */
  begin(uniqueLow: number, uniqueHigh: number, note: number): JournalEntry {
    const entry = { index: this.#next, uniqueLow, uniqueHigh: uniqueHigh >>> 0, note }
    this.#next = (this.#next + 1) % SLOTS
    this.#write(entry, STATE.begun, new Uint8Array(0))
    return entry
  }

  /** To be called before the reply is sent. */
  finish(entry: JournalEntry, reply: Uint8Array): void {
    this.#write(entry, STATE.done, reply.subarray(0, REPLY_ROOM))
  }

  /** What the server before this one has left of the operation with this unique (without its bit 63). */
  find(uniqueLow: number, uniqueHigh: number): Left | undefined {
    return this.#left.get(keyOf(uniqueLow, uniqueHigh >>> 0))
  }

  /** Another client, which begins to count its requests anew: nothing that is known here is about it. */
  forget(): void {
    ftruncateSync(this.#fd, 0)
    this.#left.clear()
    this.#next = 0
  }

  close(): void {
    closeSync(this.#fd)
  }

  #write({ index, uniqueLow, uniqueHigh, note }: JournalEntry, state: number, reply: Uint8Array): void {
    const room = new Uint8Array(REPLY_ROOM)
    room.set(reply)
    slot.encode({ magic: MAGIC, state, uniqueLow, uniqueHigh, note, length: reply.length, reply: room, end: MAGIC }, this.#slot)
    writeSync(this.#fd, this.#slot, 0, slot.size, index * slot.size) // within one page: whole or not at all
  }

  #read(): void {
    const all = Buffer.alloc(SLOTS * slot.size)
    const size = readSync(this.#fd, all, 0, all.length, 0)
    let newest: { readonly index: number; readonly unique: bigint } | undefined
    for (let at = 0; at + slot.size <= size; at += slot.size) {
      if (all.readUInt32LE(at) !== MAGIC || all.readUInt32LE(at + slot.offsetOf.end) !== MAGIC) continue
      const { state, uniqueLow, uniqueHigh, note, length, reply } = slot.decode(all, at)
      this.#left.set(keyOf(uniqueLow, uniqueHigh), { note, reply: state === STATE.done ? reply.slice(0, length) : undefined })
      const unique = BigInt(uniqueHigh) << 32n | BigInt(uniqueLow)
      if (!newest || unique > newest.unique) newest = { index: at / slot.size, unique }
    }
    this.#next = newest ? (newest.index + 1) % SLOTS : 0
  }
}

function keyOf(low: number, high: number): string {
  return `${high}:${low}`
}
