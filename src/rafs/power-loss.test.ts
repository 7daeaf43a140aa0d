// The power goes at any moment of filling a cache, and the disk keeps any part of what was not synced.

import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MemoryBackend } from '../../test/support/backends.ts'
import { RecordedDisk, restore, type DiskImage } from '../../test/support/lost-power.ts'
import { oneFileImage } from '../../test/support/one-file-image.ts'
import { KiB } from '../core/units.ts'
import { chunkMapHeader } from '../storage/cache/chunk-map.ts'
import type { CacheIo } from '../storage/cache/io.ts'
import { RafsImage } from './image.ts'
import { resolvePath } from './resolve.ts'

const CHUNK = 16 * KiB
const COUNT = 48
const { signal } = new AbortController()
const contents = randomBytes(COUNT * CHUNK - 777)
const { boot, blob, blobId } = oneFileImage({ chunkSize: CHUNK, chunks: Array.from({ length: COUNT }, (_, i) => contents.subarray(i * CHUNK, (i + 1) * CHUNK)) })
let directory: string
const seed = Number(process.env['PROPERTY_SEED'] ?? Date.now() % 2 ** 31)
let state = seed
/** Below `limit`; the same after the same seed. */
const random = (limit: number): number => {
  state = Math.imul(state ^ (state >>> 15), 0x2c1b_3c6d) + 0x9e37_79b9 | 0
  return Math.floor(((Math.imul(state ^ (state >>> 13), 0x297a_2d39) >>> 0) / 2 ** 32) * limit)
}
beforeEach(() => {
  state = seed
  directory = mkdtempSync(path.join(tmpdir(), 'power-loss-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const open = (cacheDirectory: string, backend: MemoryBackend, cacheIo?: CacheIo) =>
  RafsImage.open({ bootstrap: boot, backend, cacheDirectory, amplifyBytes: 0, signal, ...(cacheIo && { cacheIo }) })
const newBackend = () => new MemoryBackend([[blobId, blob]])
const check = async (image: RafsImage, offset: number, length: number): Promise<void> => {
  const bytes = Buffer.alloc(length)
  const filled = await image.readInto(resolvePath(image.view, '/file'), offset, bytes, { signal })
  expect(bytes.subarray(0, filled).equals(contents.subarray(offset, offset + length))).toBe(true)
}

interface Filling { readonly disk: RecordedDisk; readonly data: string; readonly right: Uint8Array; readonly chunks: readonly { index: number; offset: number; size: number }[] }

/** Reads the file, chunk by chunk and out of order, through a cache whose disk is recorded; what was flushed on the way is promised. */
async function fill(io: (disk: RecordedDisk) => CacheIo): Promise<Filling> {
  const disk = new RecordedDisk()
  const cacheDirectory = path.join(directory, 'recorded')
  const image = await open(cacheDirectory, newBackend(), io(disk))
  const data = `${blobId}.blob.data`
  for (const name of [data, `${data}.chunk_map`]) disk.expectSize(name, statSync(path.join(cacheDirectory, name)).size)
  const stored: number[] = []
  const flush = async () => {
    const before = [...stored]
    await image.blobs[0]!.cache!.flush()
    for (const index of before) disk.mark(String(index))
  }
  for (let i = 0; i < COUNT; i++) {
    const index = (i * 29) % COUNT
    const flushing = i % 8 === 7 ? flush() : undefined // beside the next write
    await check(image, index * CHUNK, CHUNK)
    stored.push(index)
    await flushing
  }
  const chunks = await image.blobs[0]!.allPlaces({ signal })
  await image.close()
  return { disk, data, right: readFileSync(path.join(cacheDirectory, data)), chunks }
}

/** Chunks that the disk promises and does not have: what upstream, which believes the map, would show wrong. */
function broken(image: DiskImage, { data, right, chunks }: Filling): number[] {
  const map = image.get(`${data}.chunk_map`)
  if (map === undefined || map.length <= chunkMapHeader.size) return []
  const bytes = image.get(data) ?? new Uint8Array()
  const hasBit = (index: number) => (map[chunkMapHeader.size + (index >>> 3)]! & (0x80 >> (index & 7))) !== 0
  return chunks.filter(({ index, offset, size }) => hasBit(index) && Buffer.compare(bytes.subarray(offset, offset + size), right.subarray(offset, offset + size)) !== 0).map(({ index }) => index)
}

/** Promised chunks without a bit. */
function forgotten(image: DiskImage, count: number, { disk, data }: Filling): string[] {
  const map = image.get(`${data}.chunk_map`)
  return disk.promises(count).filter((index) => ((map?.[chunkMapHeader.size + (Number(index) >>> 3)] ?? 0) & (0x80 >> (Number(index) & 7))) === 0)
}

/** Every prefix of what was done, with nothing, everything and two random parts of what was not synced. */
function* crashes({ disk }: Filling): Generator<{ readonly image: DiskImage; readonly count: number }> {
  for (let count = 0; count <= disk.operations.length; count++) {
    for (const odds of [0, 0.3, 0.7, 1]) yield { count, image: disk.crash(count, () => random(1000) < odds * 1000) }
  }
}

describe(`a cache that lost its power (PROPERTY_SEED=${seed})`, () => {
  it('has every byte that its map promises, and forgets none that was flushed', async () => {
    const filling = await fill(({ io }) => io)
    let states = 0
    for (const { image, count } of crashes(filling)) {
      states++
      expect(broken(image, filling)).toEqual([])
      expect(forgotten(image, count, filling)).toEqual([])
    }
    expect(states).toBeGreaterThan(200)
    expect(filling.disk.promises(states).length).toBeGreaterThan(COUNT) // else nothing was promised
  })

  it('is read without a wrong byte after the reboot, and without fetching what was promised', async () => {
    const filling = await fill(({ io }) => io)
    for (let i = 0; i < 30; i++) {
      const count = random(filling.disk.operations.length)
      const place = path.join(directory, `state-${i}`)
      restore(filling.disk.crash(count, () => random(2) === 1), place)
      const image = await open(place, newBackend())
      const { cache } = image.blobs[0]!
      expect(filling.disk.promises(count).filter((index) => !cache!.isDurable(Number(index)))).toEqual([])
      await check(image, 0, contents.length)
      expect(image.cacheMetrics.corruptChunks).toBe(0) // what was called durable was not fetched again
      await image.close()
    }
  })

  it('would be caught if a bit went to the disk before its data', async () => {
    const filling = await fill(({ io }) => ({ ...io, sync: async () => {} })) // the safeguard switched off
    expect([...crashes(filling)].flatMap(({ image }) => broken(image, filling)).length).toBeGreaterThan(0)
  })

  it('would be caught if it promised before the map was synced', async () => {
    const filling = await fill((disk) => ({ ...disk.io, sync: async (fd) => { if (!readlinkSync(`/proc/self/fd/${fd}`).endsWith('chunk_map')) await disk.io.sync(fd) } }))
    expect([...crashes(filling)].flatMap(({ image, count }) => forgotten(image, count, filling)).length).toBeGreaterThan(0)
  })
})
