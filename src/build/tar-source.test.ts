import { readFileSync } from 'node:fs'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { build, builtTree, makeTar, pieces, type TarItem, tarSource } from '../../test/support/built-image.ts'
import { type TreeEntry, VECTORS } from '../../test/support/expect.ts'
import { subscribe } from '../core/diagnostics.ts'
import type { SourceDigests } from './tar-source.ts'

const odd = (name: string) => readFileSync(path.join(VECTORS, 'odd-tars/tars', `${name}.tar`))
const treeOfTar = async (items: readonly TarItem[]) => builtTree(await build(tarSource(makeTar(items))))
const at = (tree: readonly TreeEntry[], name: string) => tree.find(({ path: p }) => p === name)
const paths = (tree: readonly TreeEntry[]) => tree.map(({ path: p, type }) => `${p}:${type}`)

describe('tar source', () => {
  const ACCEPTED: readonly [name: string, tree: readonly string[]][] = [
    ['absolute-and-dots', ['/:dir', '/abs:reg', '/dot:reg']],
    ['dir-then-file', ['/:dir', '/d:reg']],
    ['dir-twice', ['/:dir', '/d:dir', '/d/x:reg']],
    ['empty', ['/:dir']],
    ['file-then-dir', ['/:dir', '/d:dir', '/d/x:reg']],
    ['hardlink-metadata', ['/:dir', '/a:reg', '/f:reg', '/z:reg']],
    ['hardlink-target-replaced', ['/:dir', '/f:reg', '/h:reg']],
    ['hardlink-to-symlink', ['/:dir', '/h:lnk', '/s:lnk']],
    ['missing-parent-sorts-first', ['/:dir', '/a:dir', '/a/inner:reg', '/z:dir']],
    ['missing-parents-alone', ['/:dir', '/m:dir', '/m/n:dir', '/m/n/last:reg']],
    ['no-data', ['/:dir', '/d:dir', '/d/e:reg', '/s:lnk']],
    ['no-end-marker', ['/:dir', '/f:reg']],
    ['overlay-whiteout-device', ['/:dir', '/big:reg', '/dev:chr']],
    ['contiguous', ['/:dir', '/f:reg']],
    ['pax-newline', ['/:dir', '/f:reg']],
  ]
  it.each(ACCEPTED)('reads %s as extracting it would', async (name, tree) => {
    expect(paths(builtTree(await build(tarSource(odd(name)))))).toEqual(tree)
  })

  const REFUSED: readonly [name: string, code: string][] = [
    ['bad-checksum', 'TAR_INVALID'], ['dotdot', 'TAR_UNSAFE_PATH'], ['dotdot-inside', 'TAR_UNSAFE_PATH'], ['empty-symlink', 'TAR_INVALID'],
    ['garbage-after-end', 'TAR_INVALID'], ['hardlink-before-target', 'BUILD_SOURCE'], ['hardlink-to-dir', 'BUILD_SOURCE'], ['name-256', 'TAR_INVALID'],
    ['symlink-4097', 'TAR_INVALID'], ['truncated', 'TAR_TRUNCATED'], ['xattr-long-key', 'BUILD_SOURCE'], ['xattr-namespace', 'BUILD_SOURCE'],
  ]
  it.each(REFUSED)('refuses %s with %s', async (name, code) => {
    await expect(build(tarSource(odd(name)))).rejects.toMatchObject({ code })
  })

  it('keeps the old content of a hard link whose target is replaced', async () => {
    const tree = await treeOfTar([{ path: 'f', data: 'old' }, { path: 'h', type: 'hardlink', link: 'f' }, { path: 'f', data: 'newer' }])
    expect([at(tree, '/f')!.size, at(tree, '/h')!.size, at(tree, '/h')!.nlink]).toEqual([5, 3, 1])
  })

  it('shows the header of the last alias in walk order, and warns', async () => {
    const warnings: string[] = []
    const stop = subscribe('build:source:warning', ({ path: p }) => warnings.push(p))
    const tree = await treeOfTar([
      { path: 'm', data: 'x', uid: 1 }, { path: 'z', type: 'hardlink', link: 'm', uid: 2, mtime: 7 }, { path: 'a', type: 'hardlink', link: 'm', uid: 3 },
    ])
    stop()
    expect(['/a', '/m', '/z'].map((p) => [at(tree, p)!.uid, at(tree, p)!.mtime![0], at(tree, p)!.nlink])).toEqual([[2, 7, 3], [2, 7, 3], [2, 7, 3]])
    expect(warnings).toEqual(['/z'])
  })

  it('follows a symlink of the archive on the way to an entry, and makes what it leads to', async () => {
    const tree = await treeOfTar([{ path: 'lib', type: 'symlink', link: 'usr/lib' }, { path: 'lib/x', data: '1' }, { path: 'h', type: 'hardlink', link: 'lib/x' }])
    expect(paths(tree)).toEqual(['/:dir', '/h:reg', '/lib:lnk', '/usr:dir', '/usr/lib:dir', '/usr/lib/x:reg'])
    expect(at(tree, '/h')!.nlink).toBe(2)
  })

  it('does not leave the archive by a symlink to the outside', async () => {
    expect(paths(await treeOfTar([{ path: 'out', type: 'symlink', link: '../../../etc' }, { path: 'out/passwd', data: '1' }]))).toEqual(['/:dir', '/etc:dir', '/etc/passwd:reg', '/out:lnk'])
  })

  it('gives up on a loop of symlinks and lets directories take their place', async () => {
    expect(paths(await treeOfTar([{ path: 'a', type: 'symlink', link: 'a' }, { path: 'a/x', data: '1' }]))).toEqual(['/:dir', '/a:dir', '/a/x:reg'])
  })

  it('keeps nanoseconds of PAX times, binary attributes and names that are no UTF-8', async () => {
    const value = Buffer.from([0, 10, 255, 61])
    const tree = await treeOfTar([{ path: 'n\xff', data: '1', mtime: -5, mtimeNsec: 123, xattrs: [['security.capability', value]] }])
    expect(at(tree, '/n\xff')).toMatchObject({ mtime: [-5, 123], xattrs: { 'security.capability': value.toString('hex') } })
  })

  it('reads plain and gzip archives alike, in pieces of any size, and reports both digests', async () => {
    const tar = makeTar([{ path: 'a', data: Buffer.alloc(300_000, 'abc') }, { path: 'b', data: 'x' }])
    const want = await build(tarSource(tar))
    for (const [bytes, size, compression] of [[tar, 1, 'none'], [gzipSync(tar), 3, 'gzip'], [Buffer.concat([gzipSync(tar.subarray(0, 700)), gzipSync(tar.subarray(700))]), 999, 'gzip']] as const) {
      let digests: SourceDigests | undefined
      const got = await build({ type: 'tar', stream: pieces(bytes, size), onDigest: (found) => { digests = found } })
      expect(got.bootstrap).toEqual(want.bootstrap)
      expect(got.bytes).toEqual(want.bytes)
      expect(digests).toMatchObject({ compression, size: bytes.length, uncompressedSize: tar.length })
    }
  })

  it('refuses a gzip archive that is cut off', async () => {
    const packed = gzipSync(makeTar([{ path: 'a', data: Buffer.alloc(300_000, 'abc') }]))
    await expect(build(tarSource(packed.subarray(0, -10)))).rejects.toMatchObject({ code: 'CODEC_CORRUPT' })
  })

  it('ends with the error of the stream and gives up the blob', async () => {
    async function* broken() { yield makeTar([{ path: 'a', data: Buffer.alloc(2_000_000, 1) }]).subarray(0, 1_500_000); throw new Error('line is down') }
    await expect(build({ type: 'tar', stream: broken() })).rejects.toThrow('line is down')
  })
})
