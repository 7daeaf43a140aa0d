// Which chunks of a cache file were verified since somebody has had it in use: a table in shared memory, which worker threads and other
// processes map. A chunk's slot says where in the cache file its verified bytes lie, so a reader that believes something else about the chunk (a
// damaged inode, another image that claims the same blob) gets "not ready", never the bytes of a neighbour.

import { magic, reserved, struct, u32 } from '../../core/struct.ts'
import { mapFile } from '../../native/file.ts'
import { native } from '../../native/load.ts'

const READY_MAP_MAGIC = 0x5244_594e
/** Cache files are filled in units of EROFS blocks. */
const BLOCK = 4096

export const readyMapHeader = struct('ReadyMapHeader', 64, [
  [0, 'magic',     magic(READY_MAP_MAGIC), 'marks an initialised table'],
  [4, 'version',   u32, '1'],
  [8, 'count',     u32, 'slots that follow'],
  [12, 'cipher',    u32, 'fingerprint of the key of an encrypted cache file, 0 = none'],
  [16, '_reserved', reserved(48), ''],
])

export const readySlot = struct('ReadySlot', 16, [
  [ 0, 'place',     u32, 'offset in the cache file / 4096 + 1; 0 = not ready'],
  [ 4, 'size',      u32, 'verified bytes from there'],
  [ 8, 'claim',     u32, 'who fetches the chunk, 0 = nobody (claims.ts)'],
  [12, 'claimedAt', u32, 'seconds since the epoch'],
])

// Everything is a 32-bit word, so that it can be read and changed atomically.
const HEADER_WORDS = readyMapHeader.size / 4
const SLOT_WORDS = readySlot.size / 4
const SIZE = readySlot.offsetOf.size / 4
const CLAIM = readySlot.offsetOf.claim / 4
const CLAIMED_AT = readySlot.offsetOf.claimedAt / 4

/** Bytes of a table of `count` chunks. */
export function readyMapSize(count: number): number {
  return readyMapHeader.size + count * readySlot.size
}

/** Which chunks are verified since this boot, and where they lie: shared memory that workers and other daemons map too. */
export class ReadyMap {
  readonly count: number
  readonly #mapping: ArrayBuffer
  readonly #words: Uint32Array

  /** Maps the table of `count` chunks behind `fd`, in any thread. NATIVE_SYSCALL when it is shorter than that. */
  static map(fd: number, count: number, { writable }: { readonly writable: boolean }): ReadyMap {
    return new ReadyMap(mapFile(fd, { offset: 0, length: readyMapSize(count), writable }), count)
  }

  private constructor(mapping: ArrayBuffer, count: number) {
    this.#mapping = mapping
    this.#words = new Uint32Array(mapping)
    this.count = count
  }

  /** Whether the first `length` bytes of chunk `index` lie, verified, at `offset` of the cache file. */
  has(index: number, offset: number, length: number): boolean {
    if (index >= this.count) return false
    const at = HEADER_WORDS + index * SLOT_WORDS
    return Atomics.load(this.#words, at) === offset / BLOCK + 1 && length <= this.#words[at + SIZE]!
  }

  /** Whether every chunk is there. Linear. */
  get isFull(): boolean {
    for (let index = 0; index < this.count; index++) if (Atomics.load(this.#words, HEADER_WORDS + index * SLOT_WORDS) === 0) return false
    return true
  }

  /** Publishes chunk `index`, below `count`: its bytes must be verified and written. `offset` is a multiple of 4096. */
  publish(index: number, offset: number, size: number): void {
    const at = HEADER_WORDS + index * SLOT_WORDS
    Atomics.store(this.#words, at + SIZE, size)
    Atomics.store(this.#words, at, offset / BLOCK + 1)
  }

  /** Takes chunk `index` back: its bytes turned out to be gone or wrong. */
  revoke(index: number): void {
    Atomics.store(this.#words, HEADER_WORDS + index * SLOT_WORDS, 0)
  }

  /** Takes back every chunk that ends behind byte `size` of the cache file; their indices. */
  revokeBeyond(size: number): number[] {
    const lost: number[] = []
    for (let index = 0, at = HEADER_WORDS; index < this.count; index++, at += SLOT_WORDS) {
      const place = Atomics.load(this.#words, at)
      if (place === 0 || (place - 1) * BLOCK + this.#words[at + SIZE]! <= size) continue
      Atomics.store(this.#words, at, 0)
      lost.push(index)
    }
    return lost
  }

  /** Who claims chunk `index` since when; 0 for nobody. */
  claimOf(index: number): { readonly claim: number; readonly at: number } {
    const at = HEADER_WORDS + index * SLOT_WORDS
    return { claim: Atomics.load(this.#words, at + CLAIM), at: this.#words[at + CLAIMED_AT]! }
  }

  /** Replaces the claim `from` (0: nobody) by `to`. False when it is another one by now. */
  exchangeClaim(index: number, from: number, to: number): boolean {
    const at = HEADER_WORDS + index * SLOT_WORDS
    // before the claim: a fresh claim must never be seen with an old time
    if (to !== 0) Atomics.store(this.#words, at + CLAIMED_AT, nowSeconds())
    return native().atomicCompareExchange(this.#words, at + CLAIM, from, to) === from
  }

  /** Unmaps; nothing may be called afterwards. */
  close(): void {
    native().munmap(this.#mapping)
  }
}

/** Seconds since the epoch, as in `claimedAt`. */
export function nowSeconds(): number {
  return Math.floor(Date.now() / 1000) >>> 0
}

/** Header of a table of `count` chunks in a file that is encrypted with a key of this fingerprint. */
export function encodeReadyMapHeader(count: number, cipher: number): Uint8Array {
  return readyMapHeader.encode({ magic: READY_MAP_MAGIC, version: 1, count, cipher })
}
