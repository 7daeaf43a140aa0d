import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Evidence, Slice } from '../fetch/evidence.ts'
import { BlobCache, type ChunkPlace } from './blob-cache.ts'
import { confirm } from './confirm.ts'

const COUNT = 50
const SIZE = 1000
const places: ChunkPlace[] = Array.from({ length: COUNT }, (_, index) => ({ index, offset: index * 4096, size: SIZE }))

let directory: string
let cache: BlobCache
let calls = 0

// SAFETY: only `refute` is used. A chunk is right when it consists of its index.
const evidence = {
  refute: async (buffer: Uint8Array, slices: readonly Slice[]) => {
    calls++
    return new Set(slices.filter(({ index, offset, size }) => buffer.subarray(offset, offset + size).some((byte) => byte !== index)).map(({ index }) => index))
  },
} as unknown as Evidence

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'nydus-confirm-'))
  const content = Buffer.alloc(COUNT * 4096)
  for (const { index, offset, size } of places) content.fill(index, offset, offset + size)
  writeFileSync(path.join(directory, 'b.blob.data'), content)
  cache = BlobCache.open({ directory, blobId: 'b', chunkCount: COUNT, size: content.length })!
  calls = 0
})
afterEach(async () => {
  await cache.close()
  rmSync(directory, { recursive: true })
})

describe('confirm', () => {
  it('hashes neighbours in one call, and gives each its own bytes', async () => {
    const { intact, wrong } = await confirm(cache, places, evidence)
    expect([calls, wrong, intact.size]).toEqual([1, [], COUNT])
    for (const { index } of places) expect(Buffer.from(intact.get(index)!)).toEqual(Buffer.alloc(SIZE, index))
  })

  it('reads chunks that are far apart one by one', async () => {
    await confirm(cache, places.filter(({ index }) => index % 10 === 0), evidence)
    expect(calls).toBe(5)
  })

  it('finds exactly the damaged one among them', async () => {
    writeFileSync(path.join(directory, 'b.blob.data'), Buffer.alloc(COUNT * 4096, 7))
    const { intact, wrong } = await confirm(cache, places, evidence)
    expect([...intact.keys()]).toEqual([7])
    expect(wrong).toEqual(places.map(({ index }) => index).filter((index) => index !== 7))
  })

  it('keeps what lies before the end of a file that was cut short', async () => {
    truncateSync(path.join(directory, 'b.blob.data'), 30 * 4096 + 10)
    const { intact, wrong } = await confirm(cache, places, evidence)
    expect([intact.size, wrong]).toEqual([30, places.map(({ index }) => index).slice(30)])
  })
})
