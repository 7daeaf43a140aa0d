// How much of a cache directory is used, in a word of memory that all processes share which store in it. Blocks are reserved before they are written,
// so that writers who do not know of each other stay below the quota together. Who is the first to use the directory counts what is there.

import { closeSync, openSync } from 'node:fs'
import { magic, reserved, struct, u32 } from '../../core/struct.ts'
import { mapFile } from '../../native/file.ts'
import { native } from '../../native/load.ts'
import { isClaimAlive, ownClaim } from './claims.ts'
import { identityOf, openRegion, type RegionPlace, type SharedRegion } from './shared-region.ts'

const CACHE_USAGE_MAGIC = 0x5553_594e
/** Usage is counted in file system blocks of this many bytes. */
const BLOCK = 4096

export const cacheUsage = struct('CacheUsage', 64, [
  [ 0, 'magic',     magic(CACHE_USAGE_MAGIC), 'marks an initialised region'],
  [ 4, 'version',   u32, '1'],
  [ 8, 'used',      u32, 'blocks of 4096 bytes that the files of the cache have'],
  [12, 'reserved',  u32, 'blocks that are about to be written'],
  [16, 'counter',   u32, 'who counts or makes room at this moment, 0 = nobody (claims.ts)'],
  [20, '_reserved', reserved(44), ''],
])

const HEADER_BYTES = cacheUsage.offsetOf.used
const USED = cacheUsage.offsetOf.used / 4
const RESERVED = cacheUsage.offsetOf.reserved / 4
const COUNTER = cacheUsage.offsetOf.counter / 4

/** The shared usage of one cache directory. */
export class CacheUsage {
  readonly #region: SharedRegion
  readonly #mapping: ArrayBuffer
  readonly #words: Uint32Array

  /** `count` says how many bytes the directory's files have, for who is the first to use it. Throws Node's error when there is no such directory. */
  static open(directory: string, count: () => number, place?: RegionPlace): CacheUsage {
    const fd = openSync(directory, 'r')
    try {
      const encoded = cacheUsage.encode({ magic: CACHE_USAGE_MAGIC, version: 1, used: 0, reserved: 0, counter: 0 })
      return new CacheUsage(openRegion({
        name: `usage-${identityOf(fd)}`, size: cacheUsage.size, header: encoded.subarray(0, HEADER_BYTES),
        initial: () => cacheUsage.encode({ magic: CACHE_USAGE_MAGIC, version: 1, used: blocksOf(count()), reserved: 0, counter: 0 }).subarray(HEADER_BYTES),
      }, place))
    } finally {
      closeSync(fd)
    }
  }

  private constructor(region: SharedRegion) {
    this.#region = region
    this.#mapping = mapFile(region.fd, { offset: 0, length: cacheUsage.size, writable: true })
    this.#words = new Uint32Array(this.#mapping)
  }

  /** Bytes in use or about to be. */
  get bytes(): number {
    return (Atomics.load(this.#words, USED) + Atomics.load(this.#words, RESERVED)) * BLOCK
  }

  get reservedBytes(): number {
    return Atomics.load(this.#words, RESERVED) * BLOCK
  }

  /** Reserves `bytes` if all that is used stays at most `limit`; then `settle` them. False while somebody counts. */
  reserve(bytes: number, limit: number): boolean {
    this.#add(RESERVED, blocksOf(bytes))
    if (this.bytes <= limit && !this.#isCounting()) return true
    this.#add(RESERVED, -blocksOf(bytes))
    return false
  }

  /** What was reserved has been written, or (false) was not. */
  settle(bytes: number, written: boolean): void {
    if (written) this.#add(USED, blocksOf(bytes))
    this.#add(RESERVED, -blocksOf(bytes))
  }

  /** Makes the caller the one who counts: nobody reserves until `counted`. False when somebody else does. */
  beginCount(): boolean {
    const counter = Atomics.load(this.#words, COUNTER)
    return (counter === 0 || !isClaimAlive(counter)) && native().atomicCompareExchange(this.#words, COUNTER, counter, ownClaim()) === counter
  }

  /** So much is used, all that was reserved included (what a killed process had reserved is forgotten here). */
  counted(bytes: number): void {
    Atomics.store(this.#words, USED, blocksOf(bytes))
    Atomics.store(this.#words, RESERVED, 0)
    Atomics.store(this.#words, COUNTER, 0)
  }

  close(): void {
    native().munmap(this.#mapping)
    this.#region.close()
  }

  #isCounting(): boolean {
    const counter = Atomics.load(this.#words, COUNTER)
    return counter !== 0 && isClaimAlive(counter)
  }

  /** Never below zero: who was reserved for was forgotten when somebody counted. */
  #add(word: number, blocks: number): void {
    for (;;) {
      const now = Atomics.load(this.#words, word)
      if (native().atomicCompareExchange(this.#words, word, now, Math.max(0, now + blocks)) === now) return
    }
  }
}

function blocksOf(bytes: number): number {
  return Math.ceil(bytes / BLOCK)
}
