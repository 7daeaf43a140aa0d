// Random stacks of layers: our merge shows what umoci extracts, and an image built from that directory shows the directory.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type MergeLayer, mergeLayers, packLayer } from '../../src/build/index.ts'
import { build, DEFAULTS, MemorySink, pieces, treeOf } from '../support/built-image.ts'
import { mountErofs } from '../support/erofs-mount.ts'
import { differences, scanDirectory, type TreeEntry } from '../support/expect.ts'
import { LayoutMaker, sha256 } from '../image/make-image.ts'
import { nydusify, temporary } from '../image/support.ts'
import { MEDIA_TYPE } from '../../src/format/oci/media-types.ts'
import { mount } from '../../src/index.ts'
import { extractWithUmoci, KINDS, layerTar, type Reach, stackArbitrary } from '../support/random-layers.ts'

/** Small chunks, so that files of a few kilobytes have many. */
const OPTIONS = { ...DEFAULTS, chunkSize: 0x1000, batchSize: 0x1000 } as const
const NO_PREFETCH = { prefetch: { policy: 'none', patterns: [] } } as const

/** Each is a conversion, an extraction and a mount: a second or two. */
const STACKS_THROUGH_PROGRAMS = 4

interface Packed { readonly layer: MergeLayer; readonly blob: Buffer }

async function pack(tar: Buffer, name: string, threads: number): Promise<Packed> {
  const sink = new MemorySink()
  const layer = await packLayer({ source: pieces(tar, 30_000), sink, options: { ...OPTIONS, threads }, signal: new AbortController().signal })
  return { layer: { ...layer, name }, blob: sink.bytes }
}

/** Directories that no layer has an entry for: extracting makes them with the time and the umask of the moment. */
const isImplicit = ({ type, mtime }: TreeEntry) => type === 'dir' && mtime![0] === 0
const withoutImplicit = (ours: readonly TreeEntry[], theirs: readonly TreeEntry[]): TreeEntry[] => {
  const implicit = new Map(ours.filter(isImplicit).map((entry) => [entry.path, entry]))
  return theirs.map((entry) => {
    const own = implicit.get(entry.path)
    return own === undefined ? entry : { ...entry, mode: own.mode, uid: own.uid, gid: own.gid, mtime: own.mtime! }
  })
}
/** Our images make copies of hard links of anything but files. */
const plain = (entry: TreeEntry): TreeEntry => (entry.type === 'reg' ? entry : { ...entry, sameAs: '', ...(entry.type !== 'dir' && { nlink: 1 }) })

describe('layers', () => {
  it('merge to what extracting them one after the other makes', async () => {
    const seed = Number(process.env['PROPERTY_SEED'] ?? Date.now() % 2 ** 31)
    const reach: Reach = new Map()
    process.stdout.write(`layers: PROPERTY_SEED=${seed}\n`)
    await fc.assert(fc.asyncProperty(stackArbitrary, async (stack) => {
      const base = mkdtempSync(path.join(tmpdir(), 'nydus-layers-'))
      try {
        const tars: Buffer[] = []
        const layers: MergeLayer[] = []
        const blobs = new Map<string, Uint8Array>()
        let tree: TreeEntry[] = []
        let bootstrap = new Uint8Array(0)
        for (const choices of stack) {
          const tar = layerTar(choices, tree, reach)
          const [one, eight] = [await pack(tar, `layer${layers.length}`, 1), await pack(tar, `layer${layers.length}`, 8)]
          expect(eight.blob.equals(one.blob)).toBe(true)
          tars.push(tar)
          layers.push(one.layer)
          blobs.set(one.layer.blobDigest!, one.blob)
          bootstrap = new Uint8Array((await mergeLayers(layers, NO_PREFETCH)).bootstrap)
          tree = treeOf(bootstrap, blobs)
        }
        const rootfs = extractWithUmoci(tars, base)
        const extracted = scanDirectory(rootfs)
        const ignore = { ignoreDirectorySize: true } as const
        const isRoot = ({ path: name }: TreeEntry) => name === '/'
        expect(await differences(withoutImplicit(tree, extracted).map(plain), { walk: () => tree }, ignore)).toEqual([])
        using mount = mountErofs(bootstrap, blobs)
        expect(await differences(tree, { walk: () => scanDirectory(mount.mountpoint) })).toEqual([])
        const image = await build({ type: 'directory', path: rootfs }, { ...OPTIONS, whiteoutSpec: 'none' })
        const built = treeOf(image.bootstrap, new Map(image.blobs.map((id) => [id, image.bytes])))
        expect(await differences(extracted.map((entry) => plain(isRoot(entry) ? { ...entry, mtime: [0, 0] } : entry)), { walk: () => built }, ignore)).toEqual([])
      } finally {
        rmSync(base, { recursive: true, force: true })
      }
    }), { seed, numRuns: 60, endOnFailure: process.env['NYDUS_TEST_SHRINK'] === undefined })
    process.stdout.write(`layers: ${KINDS.map((kind) => `${kind} ${reach.get(kind) ?? 0}`).join(', ')}\n`)
    for (const kind of KINDS) expect([kind, reach.get(kind) ?? 0, (reach.get(kind) ?? 0) >= 20]).toEqual([kind, expect.any(Number), true])
  }, 600_000)

  it('are shown so by our programs: nydusify converts them, nydusd mounts them', async () => {
    const seed = Number(process.env['PROPERTY_SEED'] ?? Date.now() % 2 ** 31)
    process.stdout.write(`layers through programs: PROPERTY_SEED=${seed}\n`)
    for (const stack of fc.sample(stackArbitrary, { seed, numRuns: STACKS_THROUGH_PROGRAMS })) {
      using work = temporary('stacks')
      const tars: Buffer[] = []
      const layers: MergeLayer[] = []
      const blobs = new Map<string, Uint8Array>()
      let tree: TreeEntry[] = []
      for (const choices of stack) {
        const tar = layerTar(choices, tree, new Map())
        const { layer, blob } = await pack(tar, `layer${layers.length}`, 2)
        tars.push(tar)
        layers.push(layer)
        blobs.set(layer.blobDigest!, blob)
        tree = treeOf((await mergeLayers(layers, NO_PREFETCH)).bootstrap, blobs)
      }
      const maker = new LayoutMaker(work.at('source'))
      maker.name(maker.image(tars.map((tar) => ({ bytes: tar, diffId: sha256(tar), mediaType: MEDIA_TYPE.ociLayer }))), 'x')
      const { code, stderr } = nydusify(['convert', '--source', `oci:${work.at('source')}:x`, '--target', `oci:${work.at('target')}:n`, '--work-dir', work.at('w'), '--chunk-size', '0x1000'])
      expect(code, stderr).toBe(0)
      const extracted = scanDirectory(extractWithUmoci(tars, work.path))
      await using mounted = await mount({ image: `oci:${work.at('target')}:n`, mountpoint: work.at('mnt'), workDirectory: work.at('m') })
      const shown = scanDirectory(mounted.mountpoint)
      expect(await differences(withoutImplicit(shown, extracted).map(plain), { walk: () => shown }, { ignoreDirectorySize: true })).toEqual([])
      expect(await differences(tree, { walk: () => shown }, { ignoreDirectorySize: true })).toEqual([])
    }
  }, 300_000)
})
