// What `create` writes, judged by others: the kernel's EROFS driver shows the source, fsck.erofs and the independent decoder accept it,
// and where upstream's output does not depend on a library's version or on chance, ours is the same bytes.

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CreateOptions } from '../../src/build/index.ts'
import { parsePrefetchPatterns } from '../../src/build/index.ts'
import { build, tarSource } from '../support/built-image.ts'
import { mountErofs } from '../support/erofs-mount.ts'
import { differences, loadExpect, scanDirectory, type TreeEntry, VECTORS } from '../support/expect.ts'

const DECODER = path.resolve(import.meta.dirname, '../../fixtures/tools/decode_rafs6.py')
let base = ''
let rich: TreeEntry[] = []

beforeAll(() => {
  base = mkdtempSync(path.join(tmpdir(), 'nydus-sources-'))
  execFileSync('python3', [path.join(VECTORS, 'make_source.py'), base], { stdio: 'ignore' })
  rich = scanDirectory(path.join(base, 'rich')).map(asImage)
})
afterAll(() => rmSync(base, { recursive: true, force: true }))

/** What an image of a directory says otherwise than the directory: the root's time, and links of anything but files. */
function asImage(entry: TreeEntry): TreeEntry {
  return { ...entry, ...(entry.path === '/' && { mtime: [0, 0] as const }), ...(entry.type !== 'reg' && { sameAs: '', ...(entry.type !== 'dir' && { nlink: 1 }) }) }
}

const directory = (name: string) => ({ type: 'directory', path: path.join(base, name) }) as const
const fixture = (name: string) => readFileSync(path.join(VECTORS, name))
const named = (name: string) => ({ name, bytes: fixture(name) })

describe('built images', () => {
  const VARIANTS: readonly Partial<CreateOptions>[] = [
    {}, { compressor: 'none' }, { compressor: 'lz4_block' }, { chunkSize: 0x1000 }, { chunkSize: 0x1_0000, digester: 'sha256' }, { batchSize: 0x10_0000 },
    { batchSize: 0x1_0000, compressor: 'lz4_block', chunkSize: 0x2_0000 }, { blobToc: true },
  ]
  it.each(VARIANTS)('the kernel shows the source: %o', async (options) => {
    const image = await build(directory('rich'), options)
    using mount = mountErofs(image.bootstrap, new Map([[image.blob!.blobId, image.bytes]]))
    expect(await differences(rich, { walk: () => scanDirectory(mount.mountpoint) }, { ignoreDirectorySize: true })).toEqual([])
    const fsck = spawnSync('fsck.erofs', [...mount.devices.map((device) => `--device=${device}`), mount.bootstrap], { encoding: 'utf8' })
    expect([fsck.status, fsck.stderr]).toEqual([0, expect.any(String)])
    expect(spawnSync('python3', [DECODER, mount.bootstrap], { encoding: 'utf8' }).stdout).toContain('ALL CHECKS PASSED')
  })

  // One xattr at most on each inode (upstream's order of several is random), no zstd of long text (versions differ).
  const SAME: readonly [name: string, source: string, options: Partial<CreateOptions>][] = [
    ['v6-small-none', 'small', { compressor: 'none' }],
    ['v6-small-sha256-lz4', 'small', { compressor: 'lz4_block', digester: 'sha256' }],
    ['v6-batch-4k-lz4', 'small', { batchSize: 0x1000, compressor: 'lz4_block', chunkSize: 0x1_0000 }],
    ['v6-chunk16m', 'small', { chunkSize: 0x100_0000, compressor: 'lz4_block' }],
    ['empty-tree', 'empty', {}], ['only-metadata', 'onlymeta', {}],
  ]
  it.each(SAME)('writes the very bytes of upstream: %s', async (name, source, options) => {
    const image = await build(directory(source), options)
    expect(Buffer.from(image.bootstrap).equals(fixture(`${name}/image.boot`))).toBe(true)
    if (image.blob !== undefined) expect(image.bytes.equals(fixture(`blobs/${image.blob.blobId}`))).toBe(true)
  })

  // Their blobs are zstd, whose frames say less here than upstream's (docs/compatibility.md): what counts is what the kernel shows.
  it.each([['whiteout-first-oci', 'oci'], ['whiteout-first-none', 'none']] as const)('shows what upstream\'s image shows: %s', async (name, whiteoutSpec) => {
    const image = await build(directory('child'), { whiteoutSpec })
    using mount = mountErofs(image.bootstrap, new Map([[image.blob!.blobId, image.bytes]]))
    expect(await differences(loadExpect(name), { walk: () => scanDirectory(mount.mountpoint) })).toEqual([])
    expect(image.bytes.length).toBeLessThanOrEqual(fixture(`blobs/d30a3cc82ff2ebeec757f41cdeb48ae4d97cf65e93226246af3dfa55ab89c6cd`).length)
  })

  it('builds layers over a parent with either form of whiteouts', async () => {
    for (const [source, whiteoutSpec] of [['child', 'oci'], ['child-overlayfs', 'overlayfs'], ['child', 'none']] as const) {
      const image = await build(directory(source), { whiteoutSpec, parent: named('base-image/image.boot') })
      const [parent] = image.blobs
      using mount = mountErofs(image.bootstrap, new Map([[parent!, fixture(`blobs/${parent}`)], [image.blob!.blobId, image.bytes]]))
      expect(await differences(loadExpect(`parent-${whiteoutSpec}`), { walk: () => scanDirectory(mount.mountpoint) })).toEqual([])
    }
  })

  it('shows tars as upstream shows them, with nanoseconds', async () => {
    const image = await build(tarSource(readFileSync(path.join(base, 'layers/lower.tar'))), { prefetch: { policy: 'fs', patterns: parsePrefetchPatterns('/\n') } })
    using mount = mountErofs(image.bootstrap, new Map([[image.blob!.blobId, image.bytes]]))
    expect(await differences(loadExpect('zran-lower'), { walk: () => scanDirectory(mount.mountpoint) }, { ignore: ['mtime'] })).toEqual([])
  })
})
