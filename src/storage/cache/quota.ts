// The quota of a cache directory, for all processes that store in it. Nothing is stored beyond it; above the high watermark, room is made in the
// background down to the low one, by taking away blobs that nobody uses, the longest unused first. No read waits for any of that.

import { setTimeout as delay } from 'node:timers/promises'
import { publish } from '../../core/diagnostics.ts'
import { errnoOf } from '../errno.ts'
import { inventory, makeRoom } from './inventory.ts'
import { CacheUsage } from './usage.ts'

export interface CacheLimits {
  /** Bytes that the files of the cache may take. */
  readonly quota: number
  /** Percent of the quota at which room is made, and down to which. */
  readonly highWatermark: number
  readonly lowWatermark: number
}

/** LIMIT: others may store in the directory who count for themselves (upstream's nydusd): what is there is counted again after this long, if something is stored. */
const COUNT_AGAIN_MS = 60_000
/** LIMIT: a directory in which nothing can be taken away is not searched again for this long. */
const SEARCH_AGAIN_MS = 5_000
/** LIMIT: who reserved room writes within this time, or was killed. */
const DRAIN_MS = 2_000
const DRAIN_PAUSE_MS = 2

const open = new Map<string, { readonly quota: CacheQuota; users: number }>()

/** One per directory and process. */
export class CacheQuota {
  readonly #directory: string
  readonly #usage: CacheUsage
  #limits: CacheLimits
  #making: Promise<void> | undefined
  #countedAt = performance.now()
  #searchedAt = -Infinity
  #isStuck = false

  /** The quota of `directory`, which exists; the smallest counts where users of a process disagree. To be released. Throws Node's error for the system call that failed. */
  static acquire(directory: string, limits: CacheLimits): CacheQuota {
    const known = open.get(directory)
    const entry = known ?? { quota: new CacheQuota(directory, limits), users: 0 }
    open.set(directory, entry)
    entry.users++
    if (limits.quota < entry.quota.#limits.quota) entry.quota.#limits = limits
    return entry.quota
  }

  private constructor(directory: string, limits: CacheLimits) {
    this.#directory = directory
    this.#limits = limits
    this.#usage = CacheUsage.open(directory, () => inventory(directory).bytes)
  }

  /** Reserves room for `bytes` (each run of them in whole blocks); then `settle` them. False: they must not be stored. */
  reserve(bytes: number): boolean {
    const fits = this.#usage.reserve(bytes, this.#limits.quota)
    if (!fits || this.#isHigh() || performance.now() - this.#countedAt > COUNT_AGAIN_MS) this.#making ??= this.#makeRoom().finally(() => { this.#making = undefined })
    return fits
  }

  /** What was reserved has been written, or (false) was not. */
  settle(bytes: number, written: boolean): void {
    this.#usage.settle(bytes, written)
  }

  /** Resolves when no room is being made. */
  async idle(): Promise<void> {
    await this.#making
  }

  async release(): Promise<void> {
    const entry = open.get(this.#directory)
    if (entry?.quota !== this || --entry.users > 0) return
    open.delete(this.#directory)
    await this.#making
    this.#usage.close()
  }

  #isHigh(): boolean {
    return this.#usage.bytes > this.#limits.quota * this.#limits.highWatermark / 100
  }

  async #makeRoom(): Promise<void> {
    if (performance.now() - this.#searchedAt < SEARCH_AGAIN_MS || !this.#usage.beginCount()) return
    this.#countedAt = performance.now()
    let bytes = this.#usage.bytes
    try {
      // who reserved before writes now; nobody reserves until all is counted
      for (let waited = 0; this.#usage.reservedBytes > 0 && waited < DRAIN_MS; waited += DRAIN_PAUSE_MS) await delay(DRAIN_PAUSE_MS)
      const { quota, highWatermark, lowWatermark } = this.#limits
      bytes = inventory(this.#directory).bytes
      if (bytes <= quota * highWatermark / 100) return
      const made = makeRoom(this.#directory, quota * lowWatermark / 100, { keepMeta: true })
      bytes = made.bytes
      if (made.removed.length > 0) publish('storage:cache:evicted', { directory: this.#directory, blobs: made.removed.length, bytes: made.removed.reduce((sum, blob) => sum + blob.bytes, 0), usedBytes: bytes })
      const isStuck = bytes > quota * highWatermark / 100
      if (isStuck && !this.#isStuck) publish('storage:cache:degraded', { directory: this.#directory, reason: `${bytes} of ${quota} bytes are used, all by images that are mounted` })
      if (isStuck) this.#searchedAt = performance.now()
      this.#isStuck = isStuck
    } catch (error) {
      errnoOf(error) // the directory is gone, or forbidden
    } finally {
      this.#usage.counted(bytes)
    }
  }
}
