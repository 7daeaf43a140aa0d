// Damaged archives through the builder: a coded error, or an image that is sound. Headers are sealed again and PAX records measured again, so that
// most of the damage is not to checksums.

import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, it } from 'vitest'
import { isCoded } from '../../src/core/errors.ts'
import { BootstrapView } from '../../src/format/rafs-v6/bootstrap-view.ts'
import { validateTree } from '../../src/format/rafs-v6/validate-tree.ts'
import { BLOCK_SIZE, blockKind, gnuHeader, seal } from '../../src/format/tar/header.ts'
import { writePax, xattrKey } from '../../src/format/tar/pax.ts'
import { encodeEntry, padding } from '../../src/format/tar/writer.ts'
import { build, makeTar, tarSource } from '../support/built-image.ts'
import { VECTORS } from '../support/expect.ts'
import { FUZZ_TIMEOUT, fuzz } from '../support/fuzz-run.ts'
import { below } from '../support/hostile.ts'

const ODD = path.join(VECTORS, 'odd-tars/tars')
const PAX_KEYS = [
  'path', 'linkpath', 'size', 'uid', 'gid', 'mtime', 'GNU.sparse.major', 'GNU.sparse.minor', 'GNU.sparse.realsize', 'GNU.sparse.name', 'GNU.sparse.map', 'GNU.sparse.numblocks', 'GNU.sparse.size',
  'GNU.sparse.offset', 'GNU.sparse.numbytes', 'SCHILY.devmajor', 'charset', xattrKey('user.x'), xattrKey('security.capability'), xattrKey(''), 'SCHILY.acl.access', 'LIBARCHIVE.xattr.user.y',
]
const VALUES = [
  '', '0', '1', '-1', '-1.5', '1e9', '0x10', '99999999999', '9223372036854775807', '18446744073709551616', '1.999999999999', '/', '..', '../..', 'a/../../b', './', '//', 'a/b/c/d', '.wh.a', 'a/.wh..wh..opq',
  '.wh.', '.wh..', '.wh.a/b', '\0', 'a\0b', '\xff\xfe', 'x'.repeat(255), 'x'.repeat(256), `${'d/'.repeat(2000)}x`, 'f', 'd', 'd/g', '0,1', '0,0,5,9', '9,9,1,1', '4096,1,8192,2', '5000', '100',
]
const TYPES = '0\x001234567ADIKLMNSVXgxZ'

/** An archive with everything in it that builders read. */
const RICH = makeTar([
  { path: 'd', type: 'directory', xattrs: [['user.a', Buffer.from([0, 255])]] }, { path: 'd/g', data: 'x'.repeat(9000), mtime: 1.5e9 }, { path: 'f', data: Buffer.alloc(5000, 7) },
  { path: 'l', type: 'symlink', link: 'd/g' }, { path: 'h', type: 'hardlink', link: 'f' }, { path: 'c', type: 'character', rdevMajor: 5, rdevMinor: 1 }, { path: 'p', type: 'fifo' },
  { path: `${'long/'.repeat(40)}name`, data: 'y' }, { path: 'd/.wh.gone' }, { path: 'o', type: 'directory' }, { path: 'o/.wh..wh..opq' },
])

/** Offsets of the blocks that are headers. */
function headersOf(tar: Buffer): number[] {
  return Array.from({ length: Math.floor(tar.length / BLOCK_SIZE) }, (_, i) => i * BLOCK_SIZE).filter((at) => blockKind(tar, at) === 'header')
}

/** One piece of damage: the archive with it, and its description. */
function damaged(tar: Buffer, random: () => number): readonly [Buffer, string] {
  const pick = <T>(list: ArrayLike<T>): T => list[below(random, list.length)]!
  const headers = headersOf(tar)
  if (headers.length === 0) return [tar, 'nothing']
  const at = pick(headers)
  const insert = (bytes: Uint8Array): Buffer => Buffer.concat([tar.subarray(0, at), bytes, tar.subarray(at)])
  const resealed = (change: (header: Buffer) => void): Buffer => {
    const copy = Buffer.from(tar)
    const header = copy.subarray(at, at + BLOCK_SIZE)
    change(header)
    seal(header)
    return copy
  }
  const kinds: (() => readonly [Buffer, string])[] = [
    () => { const type = pick(TYPES); return [resealed((header) => header.write(type, 156, 'latin1')), `type ${JSON.stringify(type)} at ${at}`] },
    () => { const [offset, name, { size }] = pick(gnuHeader.rows); const value = pick(VALUES); return [resealed((header) => header.fill(0, offset, offset + size).write(value.slice(0, size), offset, 'latin1')), `${name} at ${at}: ${value}`] },
    () => { const [offset, name, { size }] = pick(gnuHeader.rows); return [resealed((header) => { header[offset + below(random, size)] = below(random, 256) }), `byte of ${name} at ${at}`] },
    () => { const size = below(random, 2) === 0 ? below(random, 20_000) : 2 ** below(random, 33); return [resealed((header) => header.write(size.toString(8).padStart(11, '0'), 124)), `size ${size} at ${at}`] },
    () => {
      const records = Array.from({ length: 1 + below(random, 4) }, () => [pick(PAX_KEYS), Buffer.from(pick(VALUES), 'latin1')] as const)
      const payload = writePax(records)
      const header = Buffer.from(encodeEntry({ path: 'pax', type: 'file', mode: 0, uid: 0, gid: 0, mtime: 0, size: payload.length }))
      header.write(pick('xxxg'), 156)
      return [insert(Buffer.concat([seal(header), payload, padding(payload.length)])), `PAX ${records.map(([key, value]) => `${key}=${value.toString('latin1').slice(0, 40)}`).join(' ')} at ${at}`]
    },
    () => { const from = pick(headers); return [insert(tar.subarray(from, from + BLOCK_SIZE)), `header of ${from} again at ${at}`] },
    () => [Buffer.concat([tar.subarray(0, at), tar.subarray(at + BLOCK_SIZE)]), `no header at ${at}`],
  ]
  if (below(random, 15) === 0) { const length = below(random, tar.length); return [tar.subarray(0, length), `cut to ${length}`] }
  return pick(kinds)()
}

it('archives that lie give coded errors or sound images', async () => {
  const tars = new Map([['rich', RICH], ...readdirSync(ODD).map((name) => [name, readFileSync(path.join(ODD, name))] as const)])
  let built = 0
  await fuzz('archives', { leastPassed: 0.6 }, async (random, note) => {
    const name = below(random, 3) === 0 ? 'rich' : [...tars.keys()][below(random, tars.size)]!
    let tar = tars.get(name)!
    const changes: string[] = []
    for (let left = 1 + below(random, 3); left > 0; left--) {
      const [next, what] = damaged(tar, random)
      tar = next
      changes.push(what)
    }
    note(`${name}: ${changes.join('; ')}`)
    const image = await build(tarSource(tar, 1 + below(random, 3000)), { chunkSize: 0x1000, batchSize: below(random, 2) * 0x1000 }).catch((error: unknown) => {
      if (!isCoded(error)) throw error
      return error
    })
    if (isCoded(image)) return !/checksum|no tar/.test(image.message)
    built++
    const view = BootstrapView.open(image.bootstrap)
    let left = 2000
    for (const { problem, node } of validateTree(view)) {
      if (problem !== undefined) throw new Error(`unsound: ${JSON.stringify(problem)}`)
      expect(node!.path.split('/').slice(1).filter((part) => part === '..' || part === '.' || part.length > 255 || part.includes('\0'))).toEqual([])
      if (left-- === 0) break
    }
    return true
  })
  expect(built).toBeGreaterThan(10)
}, FUZZ_TIMEOUT)
