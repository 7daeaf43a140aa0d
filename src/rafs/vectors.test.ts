// Every image of fixtures/vectors that this version reads, byte for byte, as its expect file says: cold, from a warm cache, and without one.

import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { bootstrapProvider, differences, expectOfCase, type TreeEntry, type TreeProvider, VECTORS } from '../../test/support/expect.ts'
import { bootstrapOf, readableCases } from '../../test/support/vectors.ts'
import { LocalfsBackend } from '../storage/index.ts'
import { RafsImage } from './image.ts'
import { resolvePath } from './resolve.ts'

const { signal } = new AbortController()
const scratch = mkdtempSync(path.join(tmpdir(), 'rafs-vectors-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

/** The image with the sha256 of each file, read in parts of odd size. */
function provider(image: RafsImage): TreeProvider {
  return {
    async *walk() {
      for await (const entry of bootstrapProvider(image.view).walk()) yield entry.type === 'reg' ? { ...entry, sha256: await hashOf(image, entry) } : entry
    },
  }
}

async function hashOf(image: RafsImage, { path: name }: TreeEntry): Promise<string> {
  const inode = resolvePath(image.view, name)
  const hash = createHash('sha256')
  const part = Buffer.alloc(300_001)
  for (let at = 0; at < inode.size;) {
    const length = await image.readInto(inode, at, part, { signal })
    hash.update(part.subarray(0, length))
    at += length
  }
  return hash.digest('hex')
}

const open = (name: string, cacheDirectory?: string) => RafsImage.open({
  bootstrap: path.join(VECTORS, name, bootstrapOf(name).file), backend: new LocalfsBackend({ dir: path.join(VECTORS, 'blobs') }),
  ...(cacheDirectory && { cacheDirectory }), signal,
})

const cases = readableCases().filter((name) => expectOfCase(name) !== undefined)

describe('images of upstream', () => {
  it('are many', () => expect(cases.length).toBeGreaterThan(40))

  it.each(cases)('%s reads as it should: cold, warm, and without a cache', async (name) => {
    const expected = expectOfCase(name)!
    const cache = path.join(scratch, name)
    const cold = await open(name, cache)
    expect(await differences(expected, provider(cold))).toEqual([])
    await cold.close()
    const warm = await open(name, cache)
    expect(await differences(expected, provider(warm))).toEqual([])
    // `merge -C` leaves the digests in the blobs: they are read again, the data is not
    if (name !== 'merge-config') expect(warm.backendMetrics.readCount).toBe(0)
    await warm.close()
    const bare = await open(name)
    expect(await differences(expected, provider(bare))).toEqual([])
    await bare.close()
  })
})
