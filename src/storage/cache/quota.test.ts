// What a cache directory takes at most, who makes room for whom, and who is left alone.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { subscribe } from '../../core/diagnostics.ts'
import { KiB } from '../../core/units.ts'
import { BlobCache } from './blob-cache.ts'
import { inventory, makeRoom, removeBlob } from './inventory.ts'
import { CacheQuota, type CacheLimits } from './quota.ts'
import { CacheUsage } from './usage.ts'

const CHUNK = 16 * KiB
const COUNT = 64
let directory: string
let opened: BlobCache[] = []
beforeEach(() => { directory = mkdtempSync(path.join(tmpdir(), 'quota-')) })
afterEach(async () => {
  for (const cache of opened) await cache.close()
  opened = []
  rmSync(directory, { recursive: true, force: true })
})
const limits = (quota: number): CacheLimits => ({ quota, highWatermark: 90, lowWatermark: 75 })
const open = (blobId: string, quota?: number): BlobCache => {
  const cache = BlobCache.open({ directory, blobId, chunkCount: COUNT, size: COUNT * CHUNK, owner: { id: 'test', bootstrap: undefined }, ...(quota !== undefined && { limits: limits(quota) }) })!
  opened.push(cache)
  return cache
}
const close = async (cache: BlobCache): Promise<void> => {
  opened = opened.filter((other) => other !== cache)
  await cache.close()
}
const run = (index: number) => ({ offset: index * CHUNK, bytes: new Uint8Array(CHUNK).fill(index + 1), chunks: [{ index, offset: index * CHUNK, size: CHUNK }] })
/** Bytes that the files take, as the file system counts them. */
const used = () => readdirSync(directory).reduce((sum, name) => sum + statSync(path.join(directory, name)).blocks * 512, 0)
const blobs = () => inventory(directory).blobs.map(({ blobId }) => blobId).sort()

describe('a cache with a quota', () => {
  it('stores up to it and not beyond, and takes nothing away that is in use', async () => {
    const reasons: string[] = []
    const end = subscribe('storage:cache:degraded', ({ reason }) => reasons.push(reason))
    const quota = 20 * CHUNK
    const cache = open('a', quota)
    let stored = 0
    for (let i = 0; i < COUNT; i++) {
      if (await cache.store([run(i)])) stored++
      expect(used()).toBeLessThanOrEqual(quota + CHUNK)
      await cache.flush() // room is made meanwhile
    }
    expect(stored).toBeGreaterThan(14)
    expect(blobs()).toEqual(['a'])
    await expect.poll(() => reasons.filter((reason) => reason.includes('mounted'))).toHaveLength(1)
    end()
  })

  it('makes room by what was not used for longest, and leaves what is in use', async () => {
    for (const blobId of ['old', 'used', 'young']) {
      const cache = open(blobId)
      for (let i = 0; i < 5; i++) await cache.store([run(i)])
      await close(cache)
    }
    for (const [i, blobId] of ['used', 'old', 'young'].entries()) utimesSync(path.join(directory, `${blobId}.blob.data`), new Date(1000 + i), new Date(1000 + i))
    open('used')
    const cache = open('new', 24 * CHUNK)
    for (let i = 0; i < 8; i++) {
      await cache.store([run(i)])
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    await expect.poll(blobs).toEqual(['new', 'used', 'young'])
    expect(used()).toBeLessThanOrEqual(24 * CHUNK)
    expect(await cache.store([run(9)])).toBe(true)
  })

  it('takes away nothing that is in use, whoever asks', async () => {
    open('used')
    expect(removeBlob(directory, 'used', { keepMeta: true })).toBe(false)
    expect(makeRoom(directory, 0, { keepMeta: false })).toMatchObject({ removed: [] })
    expect(blobs()).toEqual(['used'])
  })

  it('is kept by processes together: what one reserves another cannot have', () => {
    const [one, other] = [CacheUsage.open(directory, () => 4096 * 10), CacheUsage.open(directory, () => { throw new Error('counted twice') })]
    expect(one.reserve(4096 * 5, 4096 * 20)).toBe(true)
    expect(other.reserve(4096 * 6, 4096 * 20)).toBe(false)
    expect(other.reserve(4096 * 5, 4096 * 20)).toBe(true)
    other.settle(4096 * 5, false)
    one.settle(4096 * 5, true)
    expect(other.bytes).toBe(4096 * 15)
    // while one counts, nobody reserves, and nobody else counts
    expect([one.beginCount(), other.beginCount(), other.reserve(1, 4096 * 20)]).toEqual([true, false, false])
    one.counted(4096 * 3)
    expect([other.bytes, other.reserve(1, 4096 * 20)]).toEqual([4096 * 3, true])
    one.close()
    other.close()
  })

  it('counts only files of a cache: blobs may lie beside them', () => {
    writeFileSync(path.join(directory, 'a'.repeat(64)), Buffer.alloc(1 << 20))
    writeFileSync(path.join(directory, 'x.blob.meta'), Buffer.alloc(4096))
    mkdirSync(path.join(directory, 'sub'))
    expect(inventory(directory)).toEqual({ blobs: [], bytes: 4096 })
    makeRoom(directory, 0, { keepMeta: false })
    expect(readdirSync(directory)).toHaveLength(3)
  })

  it('is the smallest of a process, and is over when the last user leaves', async () => {
    const [wide, narrow] = [CacheQuota.acquire(directory, limits(100 * CHUNK)), CacheQuota.acquire(directory, limits(CHUNK))]
    expect(wide).toBe(narrow)
    expect(wide.reserve(2 * CHUNK)).toBe(false)
    await wide.release()
    expect(narrow.reserve(2 * CHUNK)).toBe(false)
    await narrow.release()
    const after = CacheQuota.acquire(directory, limits(100 * CHUNK))
    expect(after.reserve(2 * CHUNK)).toBe(true)
    after.settle(2 * CHUNK, false)
    await after.release()
  })
})
