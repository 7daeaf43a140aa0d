// Which chunks of a cache file are durable: one bit each, in a file that upstream's nydusd reads and writes too.
// A bit says that the chunk was verified, written and synced once. It is a hint where to look, not a promise: whoever uses a chunk for the first
// time verifies it, so a lost, stale or invented bit costs a read and never shows a wrong byte.
// SPEC: nydus storage/src/cache/state/persist_map.rs, indexed_chunk_map.rs.

import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync } from 'node:fs'
import { isCoded } from '../../core/errors.ts'
import { magic, reserved, struct, u32 } from '../../core/struct.ts'
import { native } from '../../native/load.ts'
import type { CacheIo } from './io.ts'

const CHUNK_MAP_MAGIC = 0x424d_4150
const CHUNK_MAP_MAGIC2 = 0x434d_4150
const CHUNK_MAP_ALL_READY = 0x4d4d_4150

export const chunkMapHeader = struct('ChunkMapHeader', 4096, [
  [ 0, 'magic',     magic(CHUNK_MAP_MAGIC), 'magic'],
  [ 4, 'version',   u32, 'version: 1; 0 has no further fields'],
  [ 8, 'magic2',    u32, 'magic2'],
  [12, 'allReady',  u32, 'all_ready: 0x4d4d4150 when every chunk is there, whatever the bits say'],
  [16, '_reserved', reserved(4080), 'reserved; the bits follow, chunk 0 in the highest bit of the first byte'],
])

const LOCK_EXCLUSIVE = 2
const LOCK_EXCLUSIVE_NOW = 2 | 4
const UNLOCK = 8

/** The bits as they were when the map was opened, plus this process's own. */
export class ChunkMap {
  /** Of the file, to be synced. */
  readonly fd: number
  readonly #writable: boolean
  readonly #count: number
  readonly #bits: Uint8Array
  readonly #io: CacheIo

  /**
   * Opens or creates the map of `count` chunks. A file that is no such map is started afresh, and so is one whose data file `isNew`: bits without
   * data would be believed by upstream. Throws Node's error for the system call that failed.
   */
  static open(file: string, count: number, { writable, isNew = false, io }: { readonly writable: boolean; readonly isNew?: boolean; readonly io: CacheIo }): ChunkMap {
    const fd = openSync(file, (writable ? constants.O_RDWR | constants.O_CREAT : constants.O_RDONLY) | constants.O_NOFOLLOW, 0o644)
    try {
      const found = isNew ? undefined : readBits(fd, count)
      return new ChunkMap(fd, found ?? (writable ? startAfresh(fd, count, { isNew, io }) : new Uint8Array(Math.ceil(count / 8))), { count, writable, io })
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  private constructor(fd: number, bits: Uint8Array, { count, writable, io }: { readonly count: number; readonly writable: boolean; readonly io: CacheIo }) {
    this.fd = fd
    this.#bits = bits
    this.#count = count
    this.#writable = writable
    this.#io = io
  }

  has(index: number): boolean {
    return (this.#bits[index >>> 3]! & maskOf(index)) !== 0
  }

  /** Sets or clears the bits of `indices` here and in the file. False when another process updates the file at this moment: try again later. */
  update(indices: readonly number[], value: boolean): boolean {
    if (!this.#writable || indices.length === 0) return true
    if (native().flock(this.fd, LOCK_EXCLUSIVE_NOW) < 0) return false
    try {
      if (!value) this.#spellOut()
      let first = this.#bits.length
      let last = 0
      for (const index of indices) {
        first = Math.min(first, index >>> 3)
        last = Math.max(last, index >>> 3)
      }
      const part = new Uint8Array(last - first + 1)
      readSync(this.fd, part, 0, part.length, chunkMapHeader.size + first)
      setBits(part, indices, value, first)
      this.#io.writeMap(this.fd, part, chunkMapHeader.size + first)
      setBits(this.#bits, indices, value, 0)
      return true
    } finally {
      native().flock(this.fd, UNLOCK)
    }
  }

  close(): void {
    closeSync(this.fd)
  }

  // COMPAT: upstream writes "all are there" into the header when it opens a full map; then a cleared bit would count for nothing.
  #spellOut(): void {
    const header = new Uint8Array(chunkMapHeader.size)
    readSync(this.fd, header, 0, header.length, 0)
    if (chunkMapHeader.decode(header).allReady !== CHUNK_MAP_ALL_READY) return
    this.#io.writeMap(this.fd, allBits(this.#count), chunkMapHeader.size)
    this.#io.writeMap(this.fd, emptyHeader(), 0)
  }
}

function maskOf(index: number): number {
  return 0x80 >> (index & 7)
}

function setBits(bits: Uint8Array, indices: readonly number[], value: boolean, firstByte: number): void {
  for (const index of indices) {
    if (value) bits[(index >>> 3) - firstByte]! |= maskOf(index)
    else bits[(index >>> 3) - firstByte]! &= ~maskOf(index)
  }
}

/** One bit a chunk, and none behind the last: upstream counts them. */
function allBits(count: number): Uint8Array {
  const bits = new Uint8Array(Math.ceil(count / 8)).fill(0xff)
  if (count % 8 !== 0) bits[bits.length - 1] = (0xff00 >> (count % 8)) & 0xff
  return bits
}

function emptyHeader(): Uint8Array {
  return chunkMapHeader.encode({ magic: CHUNK_MAP_MAGIC, version: 1, magic2: CHUNK_MAP_MAGIC2, allReady: 0 })
}

function readBits(fd: number, count: number): Uint8Array | undefined {
  const size = chunkMapHeader.size + Math.ceil(count / 8)
  if (fstatSync(fd).size !== size) return undefined
  const bytes = new Uint8Array(size)
  return readSync(fd, bytes, 0, size, 0) === size ? bitsOf(bytes, count) : undefined
}

/** The bits of a whole map of `count` chunks (without: as many as fit), or undefined when it is none. */
export function bitsOf(map: Uint8Array, count = Math.max(0, map.length - chunkMapHeader.size) * 8): Uint8Array | undefined {
  try {
    const { version, magic2, allReady } = chunkMapHeader.decode(map.subarray(0, chunkMapHeader.size))
    if (version >= 1 && magic2 !== CHUNK_MAP_MAGIC2) return undefined
    return version >= 1 && allReady === CHUNK_MAP_ALL_READY ? allBits(count) : map.subarray(chunkMapHeader.size)
  } catch (error) {
    if (isCoded(error)) return undefined
    throw error
  }
}

/** Bits that are set in `bits`. */
export function countBits(bits: Uint8Array): number {
  let found = 0
  for (const byte of bits) for (let rest = byte; rest !== 0; rest &= rest - 1) found++
  return found
}

// COMPAT: first the size, then the header: upstream takes a file of the right size that is all zeros for a map whose creator was interrupted. The
// file is never shorter than before where it has the right size: upstream maps it, and would be killed.
function startAfresh(fd: number, count: number, { isNew, io }: { readonly isNew: boolean; readonly io: CacheIo }): Uint8Array {
  native().flock(fd, LOCK_EXCLUSIVE)
  try {
    const found = isNew ? undefined : readBits(fd, count) // somebody may have been here a moment ago
    if (found !== undefined) return found
    const bits = new Uint8Array(Math.ceil(count / 8))
    const wasEmpty = fstatSync(fd).size === 0
    ftruncateSync(fd, chunkMapHeader.size + bits.length)
    if (!wasEmpty) io.writeMap(fd, bits, chunkMapHeader.size)
    io.writeMap(fd, emptyHeader(), 0)
    return bits
  } finally {
    native().flock(fd, UNLOCK)
  }
}
