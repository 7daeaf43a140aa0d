import { mkdtempSync, readFileSync, rmSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MemoryBackend } from '../../test/support/backends.ts'
import { deviceOf } from '../../test/support/built-image.ts'
import { VECTORS } from '../../test/support/expect.ts'
import { bootstrapOf } from '../../test/support/vectors.ts'
import { BlobMap } from './blob-map.ts'
import { RafsImage } from './image.ts'
import { fillBlob, isComplete, isFilled, openSharedBlob, readBlob } from './read-blob.ts'

const { signal } = new AbortController()
let cacheDirectory: string
beforeEach(() => { cacheDirectory = mkdtempSync(path.join(tmpdir(), 'read-blob-')) })
afterEach(() => rmSync(cacheDirectory, { recursive: true, force: true }))

interface Opened extends AsyncDisposable { readonly image: RafsImage; readonly backend: MemoryBackend; readonly map: BlobMap; readonly device: Buffer }

async function open(name: string, { blobIndex = 0, cached = true }: { blobIndex?: number; cached?: boolean } = {}): Promise<Opened> {
  const { blobs }: { blobs: { id: string; file: string }[] } = JSON.parse(readFileSync(path.join(VECTORS, name, 'case.json'), 'utf8'))
  const backend = new MemoryBackend(blobs.map(({ id, file }) => [id, readFileSync(path.join(VECTORS, file))] as const))
  const image = await RafsImage.open({ bootstrap: path.join(VECTORS, name, bootstrapOf(name).file), backend, ...(cached && { cacheDirectory }), amplifyBytes: 0, signal })
  const record = image.view.blobs[blobIndex]!
  return { image, backend, map: BlobMap.create(record), device: deviceOf(Buffer.from(backend.blobs.get(record.blobId)!), record), [Symbol.asyncDispose]: () => image.close() }
}
const shareOf = ({ image, map }: Opened) => ({ fd: image.blobs[0]!.cache!.dataFd, ready: image.blobs[0]!.cache!.shared, map: map.memory })

describe('readBlob', () => {
  it.each([['v6-rich-zstd', true], ['v6-rich-zstd', false], ['v6-batch-1m', true], ['v6-small-chunk4k', true]] as const)('reads any range as the decompressed blob has it: %s, cache %s', async (name, cached) => {
    await using opened = await open(name, { cached })
    const { image, map, device } = opened
    let seed = 7
    const random = (below: number) => { seed = (seed * 48_271) % 2_147_483_647; return seed % below }
    for (let i = 0; i < 60; i++) {
      const offset = random(device.length)
      const target = new Uint8Array(Math.min(1 + random(i % 3 === 0 ? 300_000 : 9000), device.length - offset)).fill(0xaa)
      await readBlob(image.blobs[0]!, map, offset, target, { signal })
      expect(Buffer.from(target).equals(device.subarray(offset, offset + target.length)), `${offset}+${target.length}`).toBe(true)
    }
  })

  it('tells a worker of a range when all of it is ready, and of nothing before', async () => {
    await using opened = await open('v6-small-chunk4k')
    const worker = openSharedBlob(shareOf(opened))
    const target = new Uint8Array(4096)
    expect(worker.isReady(0, 4096)).toBe(false)
    await readBlob(opened.image.blobs[0]!, opened.map, 8192, target, { signal })
    expect([worker.isReady(8192, 4096), worker.isReady(8192, 100)]).toEqual([true, true])
    expect(worker.isReady(0, opened.device.length)).toBe(false)
    expect(isComplete(opened.image.blobs[0]!, opened.map)).toBe(false)
    await readBlob(opened.image.blobs[0]!, opened.map, 0, new Uint8Array(opened.device.length), { signal })
    expect([worker.isReady(0, opened.device.length), isComplete(opened.image.blobs[0]!, opened.map)]).toEqual([true, true])
    worker.close()
  })

  it('fetches again what a cut cache file has lost', async () => {
    await using opened = await open('v6-rich-zstd')
    const whole = new Uint8Array(opened.device.length)
    await readBlob(opened.image.blobs[0]!, opened.map, 0, whole, { signal })
    truncateSync(path.join(cacheDirectory, `${opened.image.view.blobs[0]!.blobId}.blob.data`), 4096)
    await readBlob(opened.image.blobs[0]!, opened.map, 0, whole.fill(1), { signal })
    expect(Buffer.from(whole).equals(opened.device)).toBe(true)
  })

  it('refuses ranges with chunks of which the image knows nothing, and reads those beside them', async () => {
    await using opened = await open('merge-all-lists')
    const { image, map, device } = opened
    const verdicts = { right: 0, refused: 0 }
    for (let offset = 0; offset < device.length; offset += 4096) {
      const target = new Uint8Array(Math.min(4096, device.length - offset))
      try {
        await readBlob(image.blobs[0]!, map, offset, target, { signal })
        expect(Buffer.from(target).equals(device.subarray(offset, offset + target.length)), `${offset}`).toBe(true)
        verdicts.right++
      } catch (error) {
        expect(error).toMatchObject({ code: 'FORMAT_INVALID' })
        verdicts.refused++
      }
    }
    expect(verdicts.right).toBeGreaterThan(100)
  })

  it('gives an error or right bytes when the backend lies', async () => {
    await using opened = await open('v6-small-none')
    opened.backend.after = (bytes, { offset }) => { if (offset > 0 && bytes.length > 100) bytes[50]! ^= 1; return bytes }
    const failed = await readBlob(opened.image.blobs[0]!, opened.map, 0, new Uint8Array(opened.device.length), { signal }).then(() => false, (error) => error.code)
    expect([false, 'STORAGE_DIGEST_MISMATCH', 'FORMAT_INVALID', 'FORMAT_BAD_MAGIC', 'CODEC_CORRUPT']).toContain(failed)
    expect(failed).not.toBe(false)
  })
})

describe('fillBlob', () => {
  it('brings a range into the cache file, and says so only when all of it is there', async () => {
    await using opened = await open('v6-small-chunk4k')
    const { image: { blobs: [blob] }, map, device } = opened
    expect(isFilled(blob!, map, 4096, 8192)).toBe(false)
    await fillBlob(blob!, map, 4096, 8192, { signal })
    expect([isFilled(blob!, map, 4096, 8192), isFilled(blob!, map, 4096, device.length - 4096)]).toEqual([true, false])
    const file = readFileSync(path.join(cacheDirectory, `${blob!.record.blobId}.blob.data`))
    expect(file.subarray(4096, 12_288).equals(device.subarray(4096, 12_288))).toBe(true)
  })

  it('is an error when the bytes are there and cannot be stored: who reads the file would find a hole', async () => {
    await using opened = await open('v6-small-chunk4k', { cached: false })
    await expect(fillBlob(opened.image.blobs[0]!, opened.map, 4096, 8192, { signal })).rejects.toMatchObject({ code: 'STORAGE_CACHE_IO' })
  })
})
