import { describe, expect, it } from 'vitest'
import { bootstrapProvider, differences, expectOfCase } from '../../../test/support/expect.ts'
import { below, randomOf, survives } from '../../../test/support/hostile.ts'
import { largeBootstrap } from '../../../test/support/large-image.ts'
import { bootstrapOf, bootstrapsOf, readableCases, UNSUPPORTED_CASES } from '../../../test/support/vectors.ts'
import type { Row, Struct, ValueOf } from '../../core/struct.ts'
import { compactInode, dirent, EROFS_LAYOUT, extendedInode, S_IFDIR, S_IFMT } from '../erofs/inode.ts'
import { EROFS_SUPER_OFFSET, superBlock } from '../erofs/super-block.ts'
import { BLOB_FEATURE, blobEntry } from './blob-table.ts'
import { BootstrapView } from './bootstrap-view.ts'
import { RAFS_SUPER_EXT_OFFSET, superBlockExt } from './super-block-ext.ts'
import { validateTree } from './validate-tree.ts'

const open = (name: string) => { const { bytes, blobIdFromName } = bootstrapOf(name); return BootstrapView.open(bytes, { blobIdFromName }) }

describe('BootstrapView over upstream\'s images', () => {
  it.each(readableCases())('shows the tree of %s as upstream\'s daemon does', async (name) => {
    const expected = expectOfCase(name)
    const found = expected && await differences(expected, bootstrapProvider(open(name)))
    expect(found ?? []).toEqual([])
  })

  it.each(Object.entries(UNSUPPORTED_CASES))('refuses %s and says why', (name, reason) => {
    expect(() => open(name)).toThrow(expect.objectContaining({ code: 'FORMAT_UNSUPPORTED', message: expect.stringMatching(reason) }))
  })

  it('would notice a tree that differs', async () => {
    const expected = expectOfCase('v6-small-zstd')!
    const missing = await differences([...expected, { ...expected[1]!, path: '/never' }], bootstrapProvider(open('v6-small-zstd')))
    const other = await differences(expected.map((entry, i) => (i === 3 ? { ...entry, uid: 4711, mode: 0o4000, mtime: [1, 2] as const } : entry)).slice(1), bootstrapProvider(open('v6-small-zstd')))
    expect([missing.length, other.length]).toEqual([1, 4])
  })

  it('opens the second bootstrap of a directory build', () => {
    const external = bootstrapsOf('v6-small-zstd').find(({ file }) => file.endsWith('.external'))!
    const view = BootstrapView.open(external.bytes)
    expect([...view.entries(view.inode(view.rootNid))].map(({ name }) => name)).toEqual(['.', '..'])
  })
})

/** `base` with some fields of a structure changed. */
function changed<R extends readonly Row[]>(base: Uint8Array, struct: Struct<R>, at: number, fields: Partial<ValueOf<R>>): Buffer {
  const bytes = Buffer.from(base)
  struct.encode({ ...struct.decode(bytes, at), ...fields }, bytes, at)
  return bytes
}
const refusal = (code: string, message: RegExp) => expect.objectContaining({ code, message: expect.stringMatching(message) })
const base = bootstrapOf('should-fail').bytes
const nidOf = (view: BootstrapView, path: string) => path.split('/').filter((part) => part !== '').reduce((nid, name) => view.lookup(view.inode(nid), name)!.nid, view.rootNid)

describe('BootstrapView.open', () => {
  it('gives a blob that does not know its id the name that the bootstrap was found under', () => {
    const { bytes, blobIdFromName } = bootstrapOf('v6-inline-toc')
    expect(BootstrapView.open(bytes, { blobIdFromName }).blobs[0]!.blobId).toBe(blobIdFromName)
    expect(BootstrapView.open(bytes).blobs[0]!.blobId).toBe('x'.repeat(64))
    expect(BootstrapView.open(base, { blobIdFromName: 'other' }).blobs[0]!.blobId).toMatch(/^091a39e3/)
  })

  it('refuses every truncation', () => {
    for (let length = 0; length < base.length; length += length % 4096 === 0 ? 1 : 31) expect(survives(() => BootstrapView.open(base.subarray(0, length)), `${length}`)).toBe(false)
    expect(() => BootstrapView.open(base.subarray(0, 8191))).toThrow(refusal('FORMAT_TRUNCATED', /8192/))
  })

  it('survives random bytes behind the magic numbers', () => {
    const random = randomOf(11)
    for (let round = 0; round < 300; round++) {
      const noise = Buffer.from(base)
      for (let i = EROFS_SUPER_OFFSET + 4; i < 8192; i++) if (round % 3 === 0 || below(random, 40) === 0) noise[i] = below(random, 256)
      survives(() => BootstrapView.open(noise), `round ${round}`)
    }
  })

  it('refuses a blob id that would be another path', () => {
    for (const blobId of ['../../etc/passwd', '..', '']) expect(() => BootstrapView.open(changed(base, blobEntry, 4096, { blobId })), blobId).toThrow(refusal('FORMAT_INVALID', /file name/))
  })

  it('names what it cannot read yet', () => {
    const feature = (bit: number) => changed(base, blobEntry, 4096, { features: 0x4000_0001 | bit })
    for (const [bytes, reason] of [[changed(base, blobEntry, 4096, { cipher: 1 }), /encrypted/], [feature(BLOB_FEATURE.zran), /zran/], [feature(BLOB_FEATURE.separate), /OCI layer/], [feature(BLOB_FEATURE.external), /external/]] as const) {
      expect(() => BootstrapView.open(bytes)).toThrow(refusal('FORMAT_UNSUPPORTED', reason))
    }
  })

  it('refuses tables that overlap or lie in the superblocks', () => {
    const { ext } = BootstrapView.open(base)
    const cases = [{ chunkTableOffset: ext.blobTableOffset }, { blobTableOffset: 0 }, { prefetchTableOffset: ext.chunkTableOffset, prefetchTableSize: 8 }, { prefetchTableOffset: 4, prefetchTableSize: 4 }, { chunkTableSize: ext.chunkTableSize + 80 * 100 }]
    for (const fields of cases) expect(() => BootstrapView.open(changed(base, superBlockExt, RAFS_SUPER_EXT_OFFSET, fields)), JSON.stringify(fields)).toThrow(refusal('FORMAT_INVALID', /table/))
  })

  it('accepts what old builders left: blocks without devices, a prefetch size without a table', () => {
    const empty = bootstrapOf('empty-tree').bytes
    expect(BootstrapView.open(changed(empty, superBlock, EROFS_SUPER_OFFSET, { blockCount: 4096 })).blobs).toEqual([])
    expect(() => BootstrapView.open(changed(empty, superBlock, EROFS_SUPER_OFFSET, { blockCount: 4095 }))).toThrow(refusal('FORMAT_INVALID', /blocks on devices/))
    expect(BootstrapView.open(changed(empty, superBlockExt, RAFS_SUPER_EXT_OFFSET, { prefetchTableSize: 40 })).prefetchNids()).toEqual([])
  })
})

describe('BootstrapView', () => {
  it('reads a compact inode', () => {
    const { offset } = BootstrapView.open(base).inode(nidOf(BootstrapView.open(base), '/etc/empty'))
    const bytes = Buffer.from(base)
    compactInode.encode({ format: EROFS_LAYOUT.chunkBased << 1, xattrCount: 0, mode: 0o100640, nlink: 3, size: 0, union: 0x20, ino: 7, uid: 65535, gid: 9 }, bytes, offset)
    const view = BootstrapView.open(bytes)
    expect(view.inode(nidOf(view, '/etc/empty'))).toMatchObject({ ino: 7, mode: 0o100640, nlink: 3, size: 0, uid: 65535, gid: 9, mtime: 0, mtimeNsec: 0, headerSize: 32, layout: 4 })
  })

  it('finds every name of a large directory, and no other', () => {
    const view = BootstrapView.open(bootstrapOf('v6-rich-zstd').bytes)
    let names = 0
    for (const directory of [...validateTree(view)].flatMap(({ node }) => (node && (node.inode.mode & S_IFMT) === S_IFDIR ? [node.inode] : []))) {
      const all = new Map([...view.entries(directory)].map(({ name, nid, fileType }) => [name, { nid, fileType }]))
      names += all.size
      for (const [name, found] of all) {
        expect(view.lookup(directory, name)).toEqual(found)
        for (const other of [`${name}\0`, `${name}~`, name.slice(0, -1), `\x01${name}`, `\xff${name}`]) expect(view.lookup(directory, other)).toEqual(all.get(other))
      }
    }
    expect(names).toBeGreaterThan(1717)
  })

  it('continues a directory at any cursor, and ends at one that points nowhere', () => {
    const view = BootstrapView.open(largeBootstrap([1000]))
    const directory = view.inode(nidOf(view, '/directory-0'))
    const all = [...view.entries(directory)]
    expect(all).toHaveLength(1002)
    for (const i of [0, 1, 100, 500, 1000, 1001]) expect([...view.entries(directory, all[i]!.next)].map(({ name }) => name)).toEqual(all.slice(i + 1).map(({ name }) => name))
    for (const from of [4095, 2 ** 40, Number.MAX_SAFE_INTEGER]) expect([...view.entries(directory, from)].length).toBeLessThan(1002)
  })

  it('keeps the order in which paths are to be prefetched', () => {
    const view = BootstrapView.open(bootstrapOf('v6-prefetch-fs').bytes)
    expect(view.prefetchNids()).toEqual(['/sizes/0065536', '/links', '/dup/copy1', '/sizes'].map((path) => nidOf(view, path)))
    const whole = BootstrapView.open(bootstrapOf('v6-prefetch-root').bytes)
    expect(whole.prefetchNids()).toEqual([whole.rootNid])
  })

  it('refuses nids that are no inode', () => {
    const view = BootstrapView.open(base)
    for (const nid of [0, -1, Number.NaN, 2 ** 32, 2 ** 53, 20480 / 32]) expect(() => view.inode(nid), String(nid)).toThrow(refusal('FORMAT_OUT_OF_RANGE', /not inside/))
  })

  it('refuses inodes whose attributes, chunk addresses or data cannot be inside the image', () => {
    const { offset } = BootstrapView.open(base).inode(nidOf(BootstrapView.open(base), '/etc/conf'))
    const directory = BootstrapView.open(base).inode(nidOf(BootstrapView.open(base), '/etc'))
    const cases = [[offset, { size: 2 ** 40 }], [offset, { size: 2 ** 52 }], [directory.offset, { xattrCount: 0xffff }], [directory.offset, { size: 2 ** 32 }]] as const
    for (const [at, fields] of cases) {
      const view = BootstrapView.open(changed(base, extendedInode, at, fields))
      expect(() => view.inode((at - view.metaOffset) / 32), JSON.stringify(fields)).toThrow(refusal('FORMAT_OUT_OF_RANGE', /image/))
    }
  })

  it('refuses names behind the end of their block, even in order', () => {
    const { offset, headerSize, size } = BootstrapView.open(base).inode(nidOf(BootstrapView.open(base), '/etc'))
    const start = offset + headerSize // an inlined block without attributes
    const first = start + 2 * dirent.size
    const bytes = changed(changed(base, dirent, first, { nameOffset: size + 4 }), dirent, first + dirent.size, { nameOffset: size + 9 })
    const view = BootstrapView.open(bytes)
    expect(() => [...view.entries(view.inode(nidOf(view, '/etc')))]).toThrow(refusal('FORMAT_INVALID', /outside its block/))
  })

  it('refuses to read a file as a directory, and the other way round', () => {
    const view = BootstrapView.open(base)
    const [file, directory] = [view.inode(nidOf(view, '/etc/conf')), view.inode(nidOf(view, '/etc'))]
    expect(() => view.lookup(file, 'x')).toThrow(refusal('FORMAT_INVALID', /no directory/))
    expect(() => [...view.entries(file)]).toThrow(refusal('FORMAT_INVALID', /no directory/))
    expect(() => view.readlink(directory)).toThrow(refusal('FORMAT_INVALID', /no symbolic link/))
    expect(view.chunkCount(directory)).toBe(0)
    expect(() => view.chunkAt(file, 1)).toThrow(refusal('FORMAT_OUT_OF_RANGE', /no chunk 1/))
  })
})
