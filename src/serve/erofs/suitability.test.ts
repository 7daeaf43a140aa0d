import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { MemoryBackend } from '../../../test/support/backends.ts'
import { VECTORS } from '../../../test/support/expect.ts'
import { bootstrapOf, mutated, mutations, readableCases } from '../../../test/support/vectors.ts'
import { RafsImage } from '../../rafs/index.ts'
import { type CacheForm, refuseUnsuitable } from './suitability.ts'

const PLAIN: CacheForm = { directory: '/nonexistent', isCompressed: false, isEncrypted: false }

async function judge(bootstrap: string | Uint8Array, form = PLAIN): Promise<string> {
  const image = await RafsImage.open({ bootstrap, backend: new MemoryBackend([]), signal: new AbortController().signal })
  try {
    refuseUnsuitable(image, form)
    return 'fine'
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  } finally {
    await image.close()
  }
}

describe('refuseUnsuitable', () => {
  it('refuses an image over a chunk dictionary, whose chunks lie nobody knows where', async () => {
    expect(await judge(path.join(VECTORS, 'chunk-dict-generated/image.boot'))).toMatch(/chunk dictionary/)
  })

  it.each(readableCases().filter((name) => name !== 'chunk-dict-generated'))('takes what the kernel mounts: %s', async (name) => {
    expect(await judge(path.join(VECTORS, name, bootstrapOf(name).file))).toBe('fine')
  })

  it('refuses every bootstrap that the kernel refuses', async () => {
    const base = readFileSync(path.join(VECTORS, 'should-fail/base.boot'))
    const refused = mutations().filter(({ kernel }) => kernel?.startsWith('refused'))
    expect(refused.length).toBeGreaterThan(5)
    for (const mutation of refused) expect(await judge(mutated(base, mutation)).catch((error: unknown) => String(error)), mutation.name).not.toBe('fine')
  })

  it.each([
    [{ ...PLAIN, directory: undefined }, /needs a cache directory/], [{ ...PLAIN, isCompressed: true }, /compressed/], [{ ...PLAIN, isEncrypted: true }, /encrypted/],
  ])('refuses a cache of form %j with the reason', async (form, reason) => expect(await judge(path.join(VECTORS, 'v6-small-none/image.boot'), form)).toMatch(reason))
})
