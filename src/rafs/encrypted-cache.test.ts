// A cache that encrypts what it stores.

import { createCipheriv, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MemoryBackend } from '../../test/support/backends.ts'
import { oneFileImage } from '../../test/support/one-file-image.ts'
import { subscribe } from '../core/diagnostics.ts'
import { KiB } from '../core/units.ts'
import type { CacheEncryption } from '../storage/index.ts'
import { RafsImage } from './image.ts'
import { resolvePath } from './resolve.ts'

const CHUNK = 16 * KiB
const { signal } = new AbortController()
const contents = randomBytes(5 * CHUNK - 777)
const { boot, blob, blobId } = oneFileImage({ chunkSize: CHUNK, chunks: Array.from({ length: 5 }, (_, i) => contents.subarray(i * CHUNK, (i + 1) * CHUNK)) })
const KEY = randomBytes(32).toString('hex')
let cacheDirectory: string
let opened: RafsImage[] = []
beforeEach(() => { cacheDirectory = mkdtempSync(path.join(tmpdir(), 'encrypted-')) })
afterEach(async () => {
  for (const image of opened) await image.close()
  opened = []
  rmSync(cacheDirectory, { recursive: true, force: true })
})
const open = async (cacheEncryption: CacheEncryption | undefined, backend = new MemoryBackend([[blobId, blob]])): Promise<RafsImage> => {
  const image = await RafsImage.open({ bootstrap: boot, backend, cacheDirectory, signal, ...(cacheEncryption && { cacheEncryption }) })
  opened.push(image)
  return image
}
const close = async (image: RafsImage): Promise<void> => {
  opened = opened.filter((other) => other !== image)
  await image.close()
}
const check = async (image: RafsImage, offset = 0, length = contents.length): Promise<void> => {
  const bytes = Buffer.alloc(length)
  expect(await image.readInto(resolvePath(image.view, '/file'), offset, bytes, { signal })).toBe(length)
  expect(bytes.equals(contents.subarray(offset, offset + length))).toBe(true)
}
const stored = () => readFileSync(path.join(cacheDirectory, `${blobId}.blob.data`))

describe('an encrypted cache', () => {
  it.each([false, true])('holds no byte of the image, and serves all of it without a backend (convergent: %s)', async (convergent) => {
    const first = await open({ key: KEY, convergent })
    await check(first)
    await close(first)
    const file = stored()
    expect(file.length).toBe(5 * CHUNK)
    for (let at = 0; at + 64 <= contents.length; at += 4096) expect(file.includes(contents.subarray(at, at + 16))).toBe(false)
    const second = await open({ key: KEY, convergent }, new MemoryBackend([]))
    await check(second)
    await check(second, CHUNK - 3, 10) // over the edge of a chunk, neither end at a page
    await check(second, 4097, 1)
    expect(second.cacheMetrics.corruptChunks).toBe(0)
  })

  it('is laid out as upstream\'s: each page for itself, AES-128-XTS, no vector, zeros behind the end', async () => {
    const image = await open({ key: KEY, convergent: false })
    await check(image)
    await close(image)
    const plain = Buffer.concat([contents, Buffer.alloc(777)])
    const pages = Array.from({ length: plain.length / 4096 }, (_, i) => createCipheriv('aes-128-xts', Buffer.from(KEY, 'hex'), Buffer.alloc(16)).update(plain.subarray(i * 4096, (i + 1) * 4096)))
    expect(stored().equals(Buffer.concat(pages))).toBe(true)
  })

  it('shows a worker nothing that it could read by itself', async () => {
    const image = await open({ key: KEY, convergent: false })
    await check(image)
    expect(image.locate(resolvePath(image.view, '/file'), 0, 10, { push() {} })).toBe(false)
    expect(image.share().blobs).toEqual([undefined])
  })

  it('with another key, or none, is fetched anew, never shown wrong', async () => {
    for (const encryption of [{ key: KEY, convergent: false }, { key: randomBytes(32).toString('hex'), convergent: false }, { key: KEY, convergent: true }, undefined]) {
      const image = await open(encryption)
      await check(image)
      await close(image)
    }
  })

  it('is not shared by two that use different keys at the same time: the second does without', async () => {
    const reasons: string[] = []
    const end = subscribe('storage:cache:degraded', ({ reason }) => reasons.push(reason))
    const first = await open({ key: KEY, convergent: false })
    await check(first)
    for (const other of [undefined, { key: KEY, convergent: true }]) {
      const image = await open(other)
      await check(image)
      expect(image.blobs[0]!.cache).toBeUndefined()
      await check(first)
    }
    const same = await open({ key: KEY, convergent: false }, new MemoryBackend([]))
    await check(same)
    expect(reasons).toHaveLength(2)
    expect(reasons[0]).toContain('another encryption key')
    end()
  })
})
