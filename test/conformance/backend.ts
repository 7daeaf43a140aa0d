// What every backend must do, ours and anybody's: hand it a way to make a backend that holds some blobs.

import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isCoded } from '../../src/core/errors.ts'
import { MiB } from '../../src/core/units.ts'
import type { BlobBackend } from '../../src/storage/index.ts'

/** A backend that holds `blobs` (by id, 64 hexadecimal digits), and how to get rid of it. */
export type MakeBackend = (blobs: ReadonlyMap<string, Uint8Array>) => Promise<{ readonly backend: BlobBackend; readonly dispose: () => Promise<void> }>

/** Ids are chosen by `idOf`: registries want the sha256 of the content. */
export function backendSuite(name: string, make: MakeBackend, idOf: (content: Uint8Array) => string): void {
  describe(name, () => {
    const large = randomBytes(3 * MiB + 17)
    const small = randomBytes(1)
    const blobs = new Map([large, small].map((content) => [idOf(content), content]))
    const [largeId, smallId] = [...blobs.keys()] as [string, string]
    const { signal } = new AbortController()
    let backend: BlobBackend
    let dispose: () => Promise<void>
    beforeAll(async () => { ({ backend, dispose } = await make(blobs)) })
    afterAll(async () => {
      await backend.close()
      await dispose()
    })

    it('knows how long a blob is', async () => {
      expect(await backend.open(largeId).size({ signal })).toBe(large.length)
      expect(await backend.open(smallId).size({ signal })).toBe(1)
    })

    it.each([[0, 1], [0, 4096], [1, 1], [4095, 2], [1234567, 65536], [0, large.length], [large.length - 1, 1], [large.length - 100, 100]])('reads exactly the bytes from %i, %i of them', async (offset, length) => {
      const bytes = await backend.open(largeId).read(offset, length, { signal })
      expect(Buffer.from(bytes).equals(large.subarray(offset, offset + length))).toBe(true)
    })

    it('reads many ranges of two blobs at once', async () => {
      const reader = backend.open(largeId)
      const reads = Array.from({ length: 40 }, async (_, i) => Buffer.from(await reader.read(i * 50_000, 50_000, { signal, prefetch: i % 2 === 1 })))
      const [one, ...parts] = await Promise.all([backend.open(smallId).read(0, 1, { signal }), ...reads])
      expect(Buffer.from(one).equals(small)).toBe(true)
      expect(Buffer.concat(parts).equals(large.subarray(0, 2_000_000))).toBe(true)
    })

    it.each([[large.length - 1, 2], [large.length, 1], [large.length + 4096, 4096], [0, large.length + 1]])('fails, with a code, for a range that leaves the blob: from %i, %i bytes', async (offset, length) => {
      const error = await backend.open(largeId).read(offset, length, { signal }).catch((reason: unknown) => reason)
      expect(isCoded(error) && error.code).toMatch(/^STORAGE_(SHORT_READ|UNREACHABLE)$/)
    })

    it('says when there is no such blob, at the first read and not before', async () => {
      const reader = backend.open(idOf(Buffer.from('nobody has this')))
      await expect(reader.read(0, 1, { signal })).rejects.toMatchObject({ code: 'STORAGE_NOT_FOUND' })
      await expect(reader.size({ signal })).rejects.toMatchObject({ code: 'STORAGE_NOT_FOUND' })
    })

    it('leaves with the reader', async () => {
      const reason = new Error('gone')
      await expect(backend.open(largeId).read(0, 1, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
      const controller = new AbortController()
      const reading = backend.open(largeId).read(0, large.length, { signal: controller.signal })
      controller.abort(reason)
      await reading.then(() => {}, (error: unknown) => expect(error).toBe(reason)) // it may have been quick
      expect(await backend.open(smallId).read(0, 1, { signal })).toHaveLength(1)
    })
  })
}
