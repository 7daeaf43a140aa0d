// One blob in a cache directory: the sparse file of decompressed chunks, and the two states of each chunk in it.
//
//   verified since in use   shared memory (ready-map.ts)   readers go by this one
//   durable                 chunk map on disk              survives a reboot; a hint: who meets such a chunk verifies it first
//
// Order of a fill. The bits on disk never run ahead of durable data, and no read waits for a sync:
//   1. verify in memory (the caller)   2. write   3. ready in shared memory   4. fdatasync, batched   5. bit on disk, synced too

import { closeSync, fstatSync, ftruncate, ftruncateSync, futimesSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { publish } from '../../core/diagnostics.ts'
import { isCoded } from '../../core/errors.ts'
import { KiB, MiB, roundUp } from '../../core/units.ts'
import { CHUNK_ALIGNMENT } from '../../format/blob/chunk-info-array.ts'
import { native } from '../../native/load.ts'
import { errnoOf } from '../errno.ts'
import { ChunkMap } from './chunk-map.ts'
import { pagesAround, type CacheCipher } from './cipher.ts'
import { isClaimAlive, ownClaim } from './claims.ts'
import { fileIo, readAvailable, type CacheIo } from './io.ts'
import { cacheNames } from './layout.ts'
import { openLeased } from './lease.ts'
import { noteOwner, type CacheOwner } from './owners.ts'
import { CacheQuota, type CacheLimits } from './quota.ts'
import { nowSeconds, ReadyMap } from './ready-map.ts'
import { openSharedRegion, type SharedRegion } from './shared-region.ts'

export interface BlobCacheOptions {
  readonly directory: string
  readonly blobId: string
  readonly chunkCount: number
  /** Bytes of the decompressed blob. */
  readonly size: number
  /** What all blobs of the directory together may take; without, as much as there is. */
  readonly limits?: CacheLimits
  /** Undefined: the file is as the EROFS device. */
  readonly cipher?: CacheCipher
  /** For what the blob is in the cache; undefined for who only looks at it: that is no use of it. */
  readonly owner?: CacheOwner
  readonly io?: CacheIo
}

/** Where a chunk's decompressed bytes lie in the cache file. */
export interface ChunkPlace { readonly index: number; readonly offset: number; readonly size: number }

/** A run of verified bytes for the cache file, and the chunks in it. */
export interface VerifiedRun { readonly offset: number; readonly bytes: Uint8Array; readonly chunks: readonly ChunkPlace[] }

/** LIMIT: a sync starts after this long or this many bytes: what a power loss costs at most is fetched again. */
const SYNC_AFTER_MS = 500
const SYNC_AFTER_BYTES = 32 * MiB
/** LIMIT: after a failed write nothing is stored for this long: a full disk is asked rarely, and noticed when it has room again. */
const STORE_AGAIN_MS = 30_000
/** LIMIT: a claim older than this is broken though its owner lives: who waits for a process that hangs must still be served within 20 s. */
const CLAIM_SECONDS = 10
/** LIMIT: who found a chunk ready a moment before it was taken back has read its bytes (a system call later) when the file grows again. */
const READERS_GRACE_MS = 50
/** LIMIT: an update of the chunk map takes microseconds; who holds it for a second is stopped. */
const MAP_TRIES = 500
const MAP_PAUSE_MS = 2
/** LIMIT: bytes copied from memory on the calling thread. */
const READ_NOW_BYTES = 256 * KiB
/** LIMIT: pauses while another process fetches; processes share no descriptor that could wake us. */
const FIRST_WAIT_MS = 1
const MAX_WAIT_MS = 20

/** A blob's files in the cache directory: data, chunk map, and the shared map of what is ready. */
export class BlobCache {
  /** Of the cache file: may be lent, marked, spliced from. Nobody takes the file away while a descriptor made from this one is open, in any process (lease.ts). */
  readonly dataFd: number
  readonly #directory: string
  readonly #size: number
  #writable: boolean
  /** Whether the names of the files are surely on the disk: bits may follow. */
  #isNamed: boolean
  readonly #map: ChunkMap
  readonly #region: SharedRegion
  readonly #ready: ReadyMap
  readonly #isUse: boolean
  readonly #cipher: CacheCipher | undefined
  readonly #quota: CacheQuota | undefined
  readonly #io: CacheIo
  #unsynced: number[] = []
  #unsyncedBytes = 0
  #syncTimer: NodeJS.Timeout | undefined
  #syncing: Promise<void> | undefined
  #noStoreUntil = 0

  /** Opens or creates the blob's files. Undefined, with `storage:cache:degraded`, when the directory cannot be used: serve without. */
  static open(options: BlobCacheOptions): BlobCache | undefined {
    try {
      return new BlobCache(options)
    } catch (error) {
      publish('storage:cache:degraded', { directory: options.directory, reason: reasonOf(error) })
      return undefined
    }
  }

  private constructor({ directory, blobId, chunkCount, size, limits, cipher, owner, io = fileIo }: BlobCacheOptions) {
    const names = cacheNames(directory, blobId)
    const { fd, writable, isNew, isLent } = openLeased(directory, names.data)
    this.dataFd = fd
    this.#directory = directory
    this.#size = size
    this.#writable = writable
    this.#isNamed = !isNew
    this.#isUse = owner !== undefined
    this.#cipher = cipher
    this.#io = io
    const undo = [() => closeSync(fd)]
    try {
      if (owner !== undefined) {
        touch(fd)
        noteOwner(names.data, owner, { isEncrypted: cipher !== undefined })
      }
      this.#map = ChunkMap.open(names.chunkMap, chunkCount, { writable, isNew, io })
      undo.push(() => this.#map.close())
      this.#region = openSharedRegion(fd, chunkCount, cipher?.fingerprint)
      undo.push(() => this.#region.close())
      this.#ready = ReadyMap.map(this.#region.fd, chunkCount, { writable: true })
      const length = fstatSync(fd).size
      if (writable && length < size) {
        // others may use a file that was cut: what it lost must not become zeros that are said to be ready
        if (this.#ready.revokeBeyond(length).length > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, READERS_GRACE_MS)
        // from the start as long as the device: EROFS and the kernel see the size, and a hole costs nothing. A marked one grows when it is written to.
        if (!isLent) ftruncateSync(fd, size)
      }
      this.#quota = limits && CacheQuota.acquire(directory, limits)
    } catch (error) {
      for (const step of undo.reverse()) step()
      throw error
    }
  }

  /** For `ReadyMap.map` in another thread of this process, as long as the cache is open. */
  get shared(): { readonly fd: number; readonly count: number } {
    return { fd: this.#region.fd, count: this.#ready.count }
  }

  /** Whether chunk `index` lies, verified, at `offset`, with at least `size` bytes. */
  isReady({ index, offset, size }: ChunkPlace): boolean {
    return this.#ready.has(index, offset, size)
  }

  isDurable(index: number): boolean {
    return index < this.#ready.count && this.#map.has(index)
  }

  /** Whether the file holds the chunks as they are, so that whoever has its descriptor can read them; else only `read` can. */
  get isPlain(): boolean {
    return this.#cipher === undefined
  }

  /** Whether every chunk of the blob is verified, written, and vouched for by a process that lives: nothing is left to fetch or to look at. */
  get isComplete(): boolean {
    return this.#ready.isFull
  }

  /** Bytes [offset, offset + target.length) of the cache file; false when the file does not have them (any more). */
  async read(target: Uint8Array, offset: number): Promise<boolean> {
    try {
      // what was stored a moment ago is in memory: no reason to wait for a thread
      if (this.#cipher === undefined && target.length <= READ_NOW_BYTES && native().preadNow(this.dataFd, target, offset) === target.length) return true
      if (this.#cipher === undefined) return await readAvailable(this.dataFd, target, offset) === target.length
      const around = pagesAround(offset, target.length)
      const pages = new Uint8Array(around.length)
      if (await readAvailable(this.dataFd, pages, around.offset) !== pages.length) return false
      target.set(this.#cipher.decrypt(pages).subarray(offset - around.offset, offset - around.offset + target.length))
      return true
    } catch (error) {
      this.#degrade(errnoOf(error))
      return false
    }
  }

  /** The caller verified that the durable chunk is intact. */
  confirm({ index, offset, size }: ChunkPlace): void {
    this.#ready.publish(index, offset, size)
  }

  /** The chunk's bytes in the cache file are gone or wrong: nobody may use them until they were fetched again. */
  drop(index: number): void {
    this.#ready.revoke(index)
    if (this.#writable) this.#map.update([index], false)
  }

  /** Steps 2 and 3 for runs that are verified; 4 and 5 follow by themselves. False when nothing can be stored: the data must be served from memory. */
  async store(runs: readonly VerifiedRun[]): Promise<boolean> {
    if (!this.#writable || performance.now() < this.#noStoreUntil) return false
    const room = runs.reduce((sum, { bytes }) => sum + roundUp(bytes.length, CHUNK_ALIGNMENT), 0)
    if (this.#quota?.reserve(room) === false) return false
    let written = false
    try {
      for (const run of runs) {
        if (fstatSync(this.dataFd).size < this.#size && !await this.#regrow()) return false
        await this.#io.write(this.dataFd, this.#cipher?.encrypt(run.bytes) ?? run.bytes, run.offset) // 2
        this.#publish(run) // 3
        written = true
      }
    } catch (error) {
      this.#degrade(errnoOf(error))
      return false
    } finally {
      this.#quota?.settle(room, written)
    }
    this.#scheduleSync()
    return true
  }

  /** Splits `indices` into those that this caller is to fetch, and must `release`, and those that somebody else fetches. */
  claim(indices: readonly number[]): { mine: number[]; others: number[] } {
    const mine: number[] = []
    const others: number[] = []
    for (const index of indices) (this.#claimOne(index) ? mine : others).push(index)
    return { mine, others }
  }

  /** Gives up claims that this caller got. */
  release(indices: readonly number[]): void {
    for (const index of indices) if (index < this.#ready.count) this.#ready.exchangeClaim(index, ownClaim(), 0)
  }

  /** Resolves when each of `places` is ready, or its claim was released or may be broken. */
  async waitForOthers(places: readonly ChunkPlace[], { signal }: { readonly signal: AbortSignal }): Promise<void> {
    let pause = FIRST_WAIT_MS
    while (places.some((place) => !this.isReady(place) && this.#isHeld(place.index))) {
      await delay(pause, undefined, { signal })
      pause = Math.min(MAX_WAIT_MS, pause * 2)
    }
  }

  /** Steps 4 and 5, now, for everything stored so far. */
  async flush(): Promise<void> {
    clearTimeout(this.#syncTimer)
    this.#syncTimer = undefined
    // a running sync may have begun before the last write
    while (this.#syncing !== undefined) await this.#syncing
    if (this.#unsynced.length === 0) return
    this.#syncing = this.#sync().finally(() => { this.#syncing = undefined })
    await this.#syncing
  }

  async close(): Promise<void> {
    await this.flush()
    clearTimeout(this.#syncTimer)
    this.#ready.close()
    this.#region.close()
    this.#map.close()
    if (this.#isUse) touch(this.dataFd)
    closeSync(this.dataFd)
    await this.#quota?.release()
  }

  // Somebody cut the file. A write behind its end would turn everything between into zeros, so first nobody may believe in that any more.
  // False when the file has no name any more: whoever cut it wants it short, so that a device that has it open reads no zeros.
  async #regrow(): Promise<boolean> {
    const lost = this.#ready.revokeBeyond(fstatSync(this.dataFd).size)
    this.#map.update(lost, false) // a hint only: who meets such a chunk verifies it
    publish('storage:cache:degraded', { directory: this.#directory, reason: `a cache file was cut short: ${lost.length} chunks are fetched again` })
    await delay(READERS_GRACE_MS)
    const { size, nlink } = fstatSync(this.dataFd)
    if (nlink === 0) {
      this.#vanished()
      return false
    }
    // another process may have done the same meanwhile, and stored
    // not on this thread: when the file is marked, it is the one who answers for it
    if (size < this.#size) await promisify(ftruncate)(this.dataFd, this.#size)
    return true
  }

  #publish({ bytes, chunks }: VerifiedRun): void {
    for (const { index, offset, size } of chunks) {
      if (index >= this.#ready.count) continue // a generated dictionary counts fewer chunks than its blob has: not kept
      this.#ready.publish(index, offset, size)
      this.#unsynced.push(index)
    }
    this.#unsyncedBytes += bytes.length
  }

  async #sync(): Promise<void> {
    const indices = this.#unsynced
    this.#unsynced = []
    this.#unsyncedBytes = 0
    try {
      await this.#io.sync(this.dataFd) // 4
    } catch (error) {
      // the kernel forgets what it could not write, and would show what is on the disk instead: nobody may read these from the file
      for (const index of indices) this.#ready.revoke(index)
      return this.#degrade(errnoOf(error))
    }
    try {
      if (fstatSync(this.dataFd).nlink === 0) return this.#vanished()
      if (!this.#isNamed) await this.#io.syncDirectory(this.#directory)
      this.#isNamed = true
      // 5; a chunk that was dropped meanwhile may get its bit back: it is verified before it is used
      for (let tries = 1; !this.#map.update(indices, true); tries++) {
        if (tries === MAP_TRIES) return // fetched again one day
        await delay(MAP_PAUSE_MS) // another process updates the map right now
      }
      await this.#io.sync(this.#map.fd) // a power loss costs nothing that was flushed
    } catch (error) {
      this.#degrade(errnoOf(error)) // the chunks stay ready, and are fetched again after a restart
    }
  }

  /** Somebody removed the files: what is in them is read as long as they are open, and nothing is added that nobody could find. */
  #vanished(): void {
    this.#writable = false
    publish('storage:cache:degraded', { directory: this.#directory, reason: 'the cache file was removed' })
  }

  #scheduleSync(): void {
    const run = () => {
      this.#syncTimer = undefined
      void this.flush()
    }
    if (this.#unsyncedBytes >= SYNC_AFTER_BYTES) { if (this.#syncing === undefined) run() } else this.#syncTimer ??= setTimeout(run, SYNC_AFTER_MS).unref()
  }

  #claimOne(index: number): boolean {
    if (index >= this.#ready.count) return true
    const { claim } = this.#ready.claimOf(index)
    return (claim === 0 || !this.#isHeld(index)) && this.#ready.exchangeClaim(index, claim, ownClaim())
  }

  #isHeld(index: number): boolean {
    const { claim, at } = this.#ready.claimOf(index)
    return claim !== 0 && nowSeconds() - at < CLAIM_SECONDS && (claim === ownClaim() || isClaimAlive(claim))
  }

  #degrade(reason: string): void {
    this.#noStoreUntil = performance.now() + STORE_AGAIN_MS
    publish('storage:cache:degraded', { directory: this.#directory, reason })
  }
}

/** The file was used now: the longest unused blobs make room. A file that is not ours has no time of ours. */
function touch(fd: number): void {
  try {
    futimesSync(fd, new Date(), fstatSync(fd).mtime)
  } catch (error) {
    errnoOf(error)
  }
}

function reasonOf(error: unknown): string {
  return isCoded(error) ? error.message : errnoOf(error)
}
