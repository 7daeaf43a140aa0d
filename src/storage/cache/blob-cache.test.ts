// The order in which a cache becomes durable, what it does when it cannot store, and who may fetch.

import { closeSync, mkdtempSync, openSync, readFileSync, readlinkSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { subscribe } from '../../core/diagnostics.ts'
import { native } from '../../native/load.ts'
import { BlobCache, type BlobCacheOptions } from './blob-cache.ts'
import { chunkMapHeader } from './chunk-map.ts'
import { fileIo, type CacheIo } from './io.ts'

const CHUNK = 4096
const COUNT = 20
const { signal } = new AbortController()
let directory: string
let opened: BlobCache[] = []
beforeEach(() => { directory = mkdtempSync(path.join(tmpdir(), 'blob-cache-')) })
afterEach(async () => {
  for (const cache of opened) await cache.close()
  opened = []
  rmSync(directory, { recursive: true, force: true })
})

const open = (over: Partial<BlobCacheOptions> = {}): BlobCache => {
  const cache = BlobCache.open({ directory, blobId: 'b', chunkCount: COUNT, size: COUNT * CHUNK, ...over })!
  opened.push(cache)
  return cache
}
const close = async (cache: BlobCache): Promise<void> => {
  opened = opened.filter((other) => other !== cache)
  await cache.close()
}
const place = (index: number) => ({ index, offset: index * CHUNK, size: CHUNK })
const run = (index: number) => ({ offset: index * CHUNK, bytes: new Uint8Array(CHUNK).fill(index + 1), chunks: [place(index)] })

type Operation = { readonly kind: 'write'; readonly index: number } | { readonly kind: 'sync' } | { readonly kind: 'bits'; readonly bytes: Uint8Array; readonly at: number }

/** What a cache does to its files, in order. */
function recorder(): { readonly io: CacheIo; readonly log: Operation[] } {
  const log: Operation[] = []
  return {
    log,
    io: {
      async write(fd, bytes, position) { await fileIo.write(fd, bytes, position); log.push({ kind: 'write', index: position / CHUNK }) },
      async sync(fd) {
        await fileIo.sync(fd)
        if (readlinkSync(`/proc/self/fd/${fd}`).endsWith('.blob.data')) log.push({ kind: 'sync' })
      },
      syncDirectory: (folder) => fileIo.syncDirectory(folder),
      writeMap(fd, bytes, position) {
        fileIo.writeMap(fd, bytes, position)
        if (position >= chunkMapHeader.size) log.push({ kind: 'bits', bytes: bytes.slice(), at: position - chunkMapHeader.size })
      },
    },
  }
}

/** Chunks whose bit could be on the disk while their data is not, were the power lost after any of the operations. */
function aheadOfData(log: readonly Operation[]): number[] {
  const written = new Set<number>()
  const durable = new Set<number>()
  const ahead = new Set<number>()
  for (const operation of log) {
    if (operation.kind === 'write') written.add(operation.index)
    else if (operation.kind === 'sync') for (const index of written) durable.add(index)
    else for (const [i, byte] of operation.bytes.entries()) {
      for (let bit = 0; bit < 8; bit++) if (byte & (0x80 >> bit) && !durable.has((operation.at + i) * 8 + bit)) ahead.add((operation.at + i) * 8 + bit)
    }
  }
  return [...ahead]
}

describe('BlobCache', () => {
  it('never lets a bit on the disk run ahead of durable data', async () => {
    const { io, log } = recorder()
    const cache = open({ io })
    await cache.store([run(0), run(1)])
    const flushing = cache.flush()
    await cache.store([run(2)]) // while the sync is under way
    await flushing
    await cache.store([run(9)])
    await close(cache)
    expect(aheadOfData(log)).toEqual([])
    const bits = readFileSync(path.join(directory, 'b.blob.data.chunk_map')).subarray(chunkMapHeader.size)
    expect([...bits]).toEqual([0xe0, 0x40, 0])
  })

  it('would be caught if it wrote bits without a sync', async () => {
    const { io, log } = recorder()
    const cache = open({ io: { ...io, sync: async () => {} } }) // the safeguard switched off
    await cache.store([run(3)])
    await close(cache)
    expect(aheadOfData(log)).toEqual([3])
  })

  it('lets readers go on before anything is synced', async () => {
    const { io, log } = recorder()
    const cache = open({ io })
    await cache.store([run(4)])
    expect(cache.isReady(place(4))).toBe(true)
    expect(log.map(({ kind }) => kind)).toEqual(['write'])
  })

  it('calls a chunk ready only where its verified bytes lie', async () => {
    const cache = open()
    await cache.store([run(4)])
    expect(cache.isReady({ index: 4, offset: 4 * CHUNK, size: CHUNK })).toBe(true)
    expect(cache.isReady({ index: 4, offset: 5 * CHUNK, size: CHUNK })).toBe(false)
    expect(cache.isReady({ index: 4, offset: 4 * CHUNK, size: CHUNK + 1 })).toBe(false)
    expect(cache.isReady({ index: COUNT + 5, offset: 4 * CHUNK, size: 1 })).toBe(false)
  })

  it('forgets after the last user what was verified, and remembers what is durable', async () => {
    const first = open()
    await first.store([run(1)])
    const second = open()
    expect(second.isReady(place(1))).toBe(true) // shared while somebody vouches for it
    await close(first)
    expect(second.isReady(place(1))).toBe(true)
    await close(second)
    const third = open()
    expect(third.isReady(place(1))).toBe(false)
    expect(third.isDurable(1)).toBe(true)
  })

  it('is as long as the device from the start, and sparse', () => {
    open({ size: 1 << 30 })
    const { size, blocks } = statSync(path.join(directory, 'b.blob.data'))
    expect(size).toBe(1 << 30)
    expect(blocks * 512).toBeLessThan(1 << 20)
  })

  it('takes back everything that a cut file lost before it grows again: what a write leaves behind it are zeros', async () => {
    const cache = open()
    const other = open()
    await cache.store([run(1), run(5), run(9)])
    truncateSync(path.join(directory, 'b.blob.data'), 2 * CHUNK)
    await cache.store([run(12)])
    expect([1, 5, 9, 12].filter((index) => other.isReady(place(index)))).toEqual([1, 12])
    expect(statSync(path.join(directory, 'b.blob.data')).size).toBe(COUNT * CHUNK)
  })

  it('takes back what a cut file lost when another daemon opens it', async () => {
    const cache = open()
    await cache.store([run(1), run(5)])
    truncateSync(path.join(directory, 'b.blob.data'), 2 * CHUNK)
    open()
    expect([1, 5].filter((index) => cache.isReady(place(index)))).toEqual([1])
  })

  it('gives a chunk to one caller, and to the next when it is released', async () => {
    const one = open()
    const other = open()
    expect(one.claim([1, 2])).toEqual({ mine: [1, 2], others: [] })
    expect(other.claim([2, 3])).toEqual({ mine: [3], others: [2] })
    const waiting = other.waitForOthers([place(2)], { signal })
    await one.store([run(2)])
    one.release([1, 2])
    await waiting
    expect(other.isReady(place(2))).toBe(true)
    expect(other.claim([1])).toEqual({ mine: [1], others: [] })
  })

  it('stops storing for a while when the disk is full, and says so', async () => {
    const reasons: string[] = []
    const end = subscribe('storage:cache:degraded', ({ reason }) => reasons.push(reason))
    const full = Object.assign(new Error('no space'), { code: 'ENOSPC', syscall: 'write' })
    const cache = open({ io: { ...fileIo, write: () => Promise.reject(full) } })
    expect(await cache.store([run(0)])).toBe(false)
    expect(await cache.store([run(1)])).toBe(false)
    expect(cache.isReady(place(0))).toBe(false)
    expect(reasons).toEqual(['ENOSPC'])
    end()
  })

  it('lets nobody read from the file what the disk refused to take', async () => {
    const broken = Object.assign(new Error('I/O'), { code: 'EIO', syscall: 'fdatasync' })
    const cache = open({ io: { ...fileIo, sync: () => Promise.reject(broken) } })
    await cache.store([run(0)])
    expect(cache.isReady(place(0))).toBe(true)
    await cache.flush()
    expect([cache.isReady(place(0)), cache.isDurable(0)]).toEqual([false, false])
  })

  it('serves what it has, and stores nothing more, when its directory is removed', async () => {
    const reasons: string[] = []
    const end = subscribe('storage:cache:degraded', ({ reason }) => reasons.push(reason))
    const cache = open()
    await cache.store([run(0)])
    rmSync(directory, { recursive: true })
    await cache.flush()
    expect(cache.isReady(place(0))).toBe(true)
    expect(await cache.read(new Uint8Array(CHUNK), 0)).toBe(true)
    expect(await cache.store([run(1)])).toBe(false)
    expect(reasons).toEqual(['the cache file was removed'])
    await close(cache)
    // who comes later starts anew
    const after = open()
    expect(after.isDurable(0)).toBe(false)
    expect(await after.store([run(0)])).toBe(true)
    end()
  })

  it('believes no bit of a data file that is new', async () => {
    const first = open()
    await first.store([run(0)])
    await close(first)
    rmSync(path.join(directory, 'b.blob.data'))
    const second = open()
    expect(second.isDurable(0)).toBe(false)
    await close(second)
    expect(readFileSync(path.join(directory, 'b.blob.data.chunk_map')).subarray(chunkMapHeader.size).every((byte) => byte === 0)).toBe(true)
  })

  it('waits with its bits while another process updates the map', async () => {
    const cache = open()
    await cache.store([run(0)])
    const other = openSync(path.join(directory, 'b.blob.data.chunk_map'), 'r')
    native().flock(other, 2)
    const flushing = cache.flush()
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(cache.isDurable(0)).toBe(false)
    closeSync(other)
    await flushing
    expect(cache.isDurable(0)).toBe(true)
  })

  it('is not there, and says so, when its directory cannot be made', () => {
    const reasons: string[] = []
    const end = subscribe('storage:cache:degraded', ({ reason }) => reasons.push(reason))
    writeFileSync(path.join(directory, 'file'), '')
    expect(BlobCache.open({ directory: path.join(directory, 'file', 'sub'), blobId: 'b', chunkCount: 1, size: CHUNK })).toBeUndefined()
    expect(reasons).toEqual(['ENOTDIR'])
    end()
  })

  it('starts its map afresh when the file is none', async () => {
    const file = path.join(directory, 'b.blob.data.chunk_map')
    for (const damage of [() => writeFileSync(file, 'short'), () => truncateSync(file, 4097), () => writeFileSync(file, Buffer.alloc(4099, 0xff))]) {
      damage()
      const cache = open()
      expect(cache.isDurable(0)).toBe(false)
      await cache.store([run(0)])
      await close(cache)
      const again = open()
      expect(again.isDurable(0)).toBe(true)
      await close(again)
    }
  })
})
