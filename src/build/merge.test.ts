import { readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { makeTar, MemorySink, pieces, type TarItem, treeOf } from '../../test/support/built-image.ts'
import { differences, expectOfCase, type TreeEntry, VECTORS } from '../../test/support/expect.ts'
import { largeBootstrap } from '../../test/support/large-image.ts'
import { extendedInode } from '../format/erofs/inode.ts'
import { BootstrapView } from '../format/rafs-v6/bootstrap-view.ts'
import { mergeLayers, type MergeLayer, type MergeOptions } from './merge.ts'
import { packLayer } from './pack-layer.ts'
import { parsePrefetchPatterns } from './prefetch.ts'

const IDS = ['9dfd50bd673d2b5843bc4d1583dac840ffc1940e8ca51d3108df9050871068ce', 'f370aeca8850897586bb2527dad4e790a3f969bb9864f6ce7eabefd762a953bc', '02801df5897630f0eb992106bcb1aa7bab3523d39cea877f89391491faf8ec99']
const TOCS = ['01873ff705ceb6d1d26e866a7712f19934a5fdeafbb6b7ba0a89777331bd059f', '39bde90a53718a9ea4328a1bb7d59c4c2015f41739467c145acf8229e74739cd', 'e2928bf73656491f3738ed0c0987d67630506402f1f6e4f8c8cdcf84950a14b6']
const SIZES = [459_241, 30_272, 18_320]
const fixture = (name: string) => readFileSync(path.join(VECTORS, name))
const vectorLayers = (): MergeLayer[] => ['layer-lower', 'layer-middle', 'layer-upper'].map((name, i) => (
  { name: IDS[i]!, bytes: fixture(`${name}/${IDS[i]}`), blobDigest: IDS[i], blobSize: SIZES[i], tocDigest: TOCS[i], tocSize: 1152 }))
const NO_PREFETCH: MergeOptions = { prefetch: { policy: 'none', patterns: [] } }

/** Packs tars as layers, merges them, and reads the result. */
async function mergeTars(...layers: readonly (readonly TarItem[])[]): Promise<{ tree: TreeEntry[]; bootstrap: Uint8Array; blobs: readonly string[] }> {
  const packed: MergeLayer[] = []
  const blobs = new Map<string, Uint8Array>()
  for (const items of layers) {
    const sink = new MemorySink()
    const options = { compressor: 'zstd', digester: 'blake3', chunkSize: 0x10_0000, batchSize: 0x1_0000, prefetch: { policy: 'none', patterns: [] } } as const
    const layer = await packLayer({ source: pieces(makeTar(items), 5000), sink, options, signal: new AbortController().signal })
    packed.push({ ...layer, name: `layer${packed.length}` })
    blobs.set(layer.blobDigest, sink.bytes)
  }
  const merged = await mergeLayers(packed, NO_PREFETCH)
  return { tree: treeOf(merged.bootstrap, blobs), ...merged }
}

const paths = (tree: readonly TreeEntry[]) => tree.map(({ path: p }) => p)
const at = (tree: readonly TreeEntry[], name: string) => tree.find(({ path: p }) => p === name)!

describe('merge', () => {
  it('writes the very bytes that upstream writes from its layers', async () => {
    const patterns = parsePrefetchPatterns('/usr/lib/a.so\n/etc/passwd\n/new\n')
    const merged = await mergeLayers(vectorLayers(), { prefetch: { policy: 'fs', patterns } })
    expect(merged.blobs).toEqual(IDS)
    expect(Buffer.from(merged.bootstrap).equals(fixture('merge-all-lists/image.boot'))).toBe(true)
    const parent = { name: 'image.boot', bytes: fixture('merge-lower-only/image.boot') }
    expect(Buffer.from((await mergeLayers(vectorLayers().slice(1), { ...NO_PREFETCH, parent })).bootstrap).equals(fixture('merge-parent/image.boot'))).toBe(true)
  })

  it.each(['merge-no-lists', 'merge-all-lists'])('shows the tree of %s', async (name) => {
    const { bootstrap } = await mergeLayers(vectorLayers(), NO_PREFETCH)
    const blobs = new Map(IDS.map((id) => [id, fixture(`blobs/${id}`)]))
    expect(await differences(expectOfCase(name)!, { walk: () => treeOf(bootstrap, blobs) }, { ignore: ['mtime'] })).toEqual([])
  })

  it('takes ids from lists before names, and names up to the first dot', async () => {
    const [lower] = vectorLayers()
    const ids = async (layer: Partial<MergeLayer>) => (await mergeLayers([{ name: '/some/where/abc.def.boot', bytes: lower!.bytes, ...layer }], NO_PREFETCH)).blobs
    expect(await ids({})).toEqual(['abc'])
    expect(await ids({ originalBlobId: 'original' })).toEqual(['original'])
    expect(await ids({ originalBlobId: 'original', blobDigest: IDS[0] })).toEqual([IDS[0]])
  })

  it('removes what whiteouts hide, below and not beside', async () => {
    const { tree } = await mergeTars(
      [{ path: 'd', type: 'directory' }, { path: 'd/a', data: '1' }, { path: 'd/b', data: '2' }, { path: 'o/old', data: '3' }, { path: '.wh.stray', data: '' }],
      [{ path: 'd/.wh.a' }, { path: 'o', type: 'directory', mode: 0o700 }, { path: 'o/.wh..wh..opq' }, { path: 'o/new', data: '4' }, { path: '.wh.d2' }, { path: 'd2', data: '5' }],
    )
    expect(paths(tree)).toEqual(['/', '/d', '/d/b', '/d2', '/o', '/o/new'])
    expect(at(tree, '/o').mode).toBe(0o700)
  })

  it('lets a type change drop what was below', async () => {
    const { tree } = await mergeTars([{ path: 'x/inner', data: '1' }, { path: 'y', data: '2' }, { path: 'z', type: 'symlink', link: 'y' }], [{ path: 'x', data: 'file' }, { path: 'y', type: 'directory' }, { path: 'y/in', data: '3' }, { path: 'z', type: 'directory' }])
    expect(tree.map(({ path: p, type }) => `${p}:${type}`)).toEqual(['/:dir', '/x:reg', '/y:dir', '/y/in:reg', '/z:dir'])
  })

  it('keeps what a lower layer says of a directory that the upper one only passes through', async () => {
    const { tree } = await mergeTars([{ path: 'tmp', type: 'directory', mode: 0o1777, uid: 9, mtime: 77 }], [{ path: 'tmp/x', data: '1' }])
    expect(at(tree, '/tmp')).toMatchObject({ mode: 0o1777, uid: 9, mtime: [77, 0] })
  })

  it('follows a lower symlink on the way to a file and to a whiteout', async () => {
    const { tree } = await mergeTars(
      [{ path: 'usr/lib/a', data: '1' }, { path: 'usr/lib/b', data: '2' }, { path: 'lib', type: 'symlink', link: 'usr/lib' }, { path: 'deep', type: 'symlink', link: '/lib' }],
      [{ path: 'deep/.wh.a' }, { path: 'lib/c', data: '3' }, { path: 'lib/sub/d', data: '4' }],
    )
    expect(paths(tree)).toEqual(['/', '/deep', '/lib', '/usr', '/usr/lib', '/usr/lib/b', '/usr/lib/c', '/usr/lib/sub', '/usr/lib/sub/d'])
  })

  it('replaces a lower symlink by a directory that has an entry of its own', async () => {
    const { tree } = await mergeTars([{ path: 'usr/lib/a', data: '1' }, { path: 'lib', type: 'symlink', link: 'usr/lib' }], [{ path: 'lib', type: 'directory' }, { path: 'lib/c', data: '3' }])
    expect(paths(tree)).toEqual(['/', '/lib', '/lib/c', '/usr', '/usr/lib', '/usr/lib/a'])
  })

  it('joins a hard link to the file of a lower layer', async () => {
    const { tree } = await mergeTars([{ path: 'f', data: 'shared', uid: 5 }], [{ path: 'd/g', type: 'hardlink', link: 'f' }])
    expect([at(tree, '/f').nlink, at(tree, '/d/g')]).toMatchObject([2, { sameAs: '', uid: 5, size: 6 }])
    expect(at(tree, '/f').sameAs).toBe('/d/g')
    await expect(mergeTars([{ path: 'f', data: 'x' }], [{ path: 'g', type: 'hardlink', link: 'nowhere' }])).rejects.toMatchObject({ code: 'BUILD_SOURCE' })
    await expect(mergeTars([{ path: 'g', type: 'hardlink', link: 'nowhere' }])).rejects.toMatchObject({ code: 'BUILD_SOURCE' })
  })

  it('counts the links that are left', async () => {
    const { tree } = await mergeTars([{ path: 'a', data: '1' }, { path: 'b', type: 'hardlink', link: 'a' }, { path: 'c', type: 'hardlink', link: 'a' }], [{ path: '.wh.a' }, { path: 'b', data: 'other' }])
    expect(tree.slice(1).map(({ path: p, nlink, size }) => [p, nlink, size])).toEqual([['/b', 1, 5], ['/c', 1, 1]])
  })

  it('drops blobs that nothing refers to any more, and marks of layers', async () => {
    const { blobs, bootstrap } = await mergeTars([{ path: 'gone', data: 'lower' }], [{ path: '.wh..wh..opq' }, { path: 'sub/kept', data: 'upper' }])
    expect(blobs).toHaveLength(1)
    const view = BootstrapView.open(bootstrap)
    const marks = [...view.entries(view.inode(view.rootNid))].map(({ nid }) => bootstrap[view.inode(nid).offset + extendedInode.offsetOf.layerMark])
    expect(new Set(marks)).toEqual(new Set([0]))
  })

  it('refuses layers that do not fit together', async () => {
    const other = { name: 'x', bytes: fixture('v6-rich-chunk64k/image.boot') }
    await expect(mergeLayers([vectorLayers()[0]!, other], NO_PREFETCH)).rejects.toMatchObject({ code: 'BUILD_INCONSISTENT', message: 'Inconsistent RAFS Filesystem: Inconsistent configuration of chunk_size: 1048576 vs 65536' })
    await expect(mergeLayers([], NO_PREFETCH)).rejects.toMatchObject({ code: 'BUILD_INVALID_OPTION' })
    await expect(mergeLayers([{ name: 'two', bytes: fixture('parent-oci/image.boot') }], NO_PREFETCH)).rejects.toMatchObject({ code: 'BUILD_SOURCE' })
  })

  it('needs time in proportion to the entries of one directory', async () => {
    const time = async (files: number) => {
      const layer = { name: 'layer', bytes: largeBootstrap([files]) }
      const start = performance.now()
      await mergeLayers([layer, layer], NO_PREFETCH)
      return performance.now() - start
    }
    await time(1000) // compiles
    const [small, large] = [await time(5000), await time(40_000)]
    // Upstream: quadratic, 64 times.
    expect(large / small).toBeLessThan(30)
  })
})
