// Damaged images through `unpack`: what comes out is a tar archive whose entries stay inside it, or a coded error; in bounded time and memory.

import { expect, it } from 'vitest'
import { isCoded } from '../../src/core/errors.ts'
import { MiB } from '../../src/core/units.ts'
import { unpackTar } from '../../src/build/index.ts'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { TarReader } from '../../src/format/tar/reader.ts'
import { build, makeTar, tarSource } from '../support/built-image.ts'
import { damage, fuzzBase } from '../support/fuzz-bootstrap.ts'
import { FUZZ_TIMEOUT, fuzz, valueOrCoded } from '../support/fuzz-run.ts'
import { below } from '../support/hostile.ts'
import { bootstrapOf } from '../support/vectors.ts'

/** LIMIT: a damaged size may honestly ask for terabytes of zeros; so much of them is looked at. */
const MOST = 2 * MiB

it('what is unpacked from damaged images stays inside its archive', async () => {
  const bases = ['v6-small-zstd', 'v6-small-chunk4k', 'merge-all-lists', 'v6-prefetch-root', 'parent-oci', 'only-metadata'].map((name) => fuzzBase(name, bootstrapOf(name).bytes))
  const { signal } = new AbortController()
  let [entries, refused] = [0, 0]
  await fuzz('unpack', { leastPassed: 0.5 }, async (random, note) => {
    const base = bases[below(random, bases.length)]!
    const { bytes, what } = damage(base, random)
    note(`${base.name}: ${what}`)
    const view = await valueOrCoded(() => BootstrapView.open(bytes))
    if (view === undefined) return false
    const reader = new TarReader()
    let length = 0
    try {
      for await (const piece of unpackTar({ view, read: async (_inode, _offset, size) => Buffer.alloc(size) }, { signal })) {
        reader.push(piece)
        // refuses, with an error that unpacking must not cause, what leaves the archive
        for (let event = next(reader); event !== undefined; event = next(reader)) if (event.type === 'entry') entries++
        length += piece.length
        if (length > MOST) break
      }
    } catch (error) {
      if (!isCoded(error)) throw error
      refused++
    }
    return true
  })
  expect([entries > 100, refused > 10]).toEqual([true, true])
}, FUZZ_TIMEOUT)

it('a link whose target has a NUL is refused, not cut', async () => {
  const { bootstrap } = await build(tarSource(makeTar([{ path: 'link', type: 'symlink', link: 'some-where' }])))
  const bytes = Buffer.from(bootstrap)
  bytes[bytes.indexOf('some-where') + 4] = 0
  const pieces = unpackTar({ view: BootstrapView.open(bytes), read: async () => new Uint8Array() }, { signal: new AbortController().signal })
  await expect((async () => { for await (const _ of pieces) { /* to its end */ } })()).rejects.toMatchObject({ code: 'FORMAT_INVALID', message: 'link: a link target with a NUL' })
})

/** The next event; an archive that cannot be read is no error of the image. */
function next(reader: TarReader) {
  try {
    return reader.next()
  } catch (error) {
    throw new Error('the archive cannot be read', { cause: error })
  }
}
