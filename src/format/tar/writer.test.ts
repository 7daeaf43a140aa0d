import { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import fc from 'fast-check'
import tarStream from 'tar-stream'
import { describe, expect, it } from 'vitest'
import { compareBytes } from '../../core/byte-string.ts'
import { hasCode } from '../../core/errors.ts'
import type { TarEntry } from './entry.ts'
import { blockKind, gnuHeader, gnuSparseBlock, gnuSparseSegment, parseNumber, ustarHeader } from './header.ts'
import { readMembers } from './members.ts'
import { encodeEntry, endBlocks, padding, type WritableEntry } from './writer.ts'

const base: WritableEntry = { path: 'f', type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: 0 }
const archive = (entries: readonly { entry: WritableEntry; data?: Uint8Array }[]) =>
  Buffer.concat([...entries.flatMap(({ entry, data = new Uint8Array(0) }) => [encodeEntry({ ...entry, size: data.length }), data, padding(data.length)]), endBlocks()])
const reread = (entry: WritableEntry): TarEntry => readMembers(archive([{ entry }]), { maxSize: 0 })[0]!.entry

const byteChar = fc.integer({ min: 1, max: 255 }).filter((code) => code !== 0x2f).map((code) => String.fromCharCode(code))
const component = fc.string({ unit: byteChar, minLength: 1, maxLength: 40 }).filter((text) => text !== '.' && text !== '..')
const pathText = fc.array(component, { minLength: 1, maxLength: 8 }).map((components) => components.join('/'))
const anyEntry: fc.Arbitrary<WritableEntry> = fc.record({
  path: pathText, type: fc.constantFrom('file', 'directory', 'symlink', 'hardlink', 'character', 'block', 'fifo'),
  mode: fc.nat(0o7777), uid: fc.nat(0xffff_ffff), gid: fc.nat(0xffff_ffff), mtime: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }), mtimeNsec: fc.nat(999_999_999),
  link: pathText, rdevMajor: fc.nat(0xfff), rdevMinor: fc.nat(0xf_ffff),
  xattrs: fc.uniqueArray(fc.tuple(fc.string({ unit: byteChar, minLength: 1, maxLength: 20 }).map((name) => `user.${name}`), fc.uint8Array({ maxLength: 30 })), { selector: ([name]) => name, maxLength: 3 }),
})

describe('encodeEntry', () => {
  it('writes what the reader reads back, whatever the names, numbers and values', () => {
    fc.assert(fc.property(anyEntry, fc.uint8Array({ maxLength: 1100 }), (entry, bytes) => {
      const data = entry.type === 'file' ? bytes : new Uint8Array(0)
      const [member, ...rest] = readMembers(archive([{ entry, data }]), { maxSize: 0 })
      const isLink = entry.type === 'symlink' || entry.type === 'hardlink'
      const isDevice = entry.type === 'character' || entry.type === 'block'
      expect(rest).toEqual([])
      expect(Buffer.from(member!.contents).equals(data)).toBe(true)
      const { path, type, mode, uid, gid, mtime, mtimeNsec } = entry
      expect(member!.entry).toMatchObject({ path, type, mode, uid, gid, mtime, mtimeNsec, size: data.length, link: isLink ? entry.link : '', rdevMajor: isDevice ? entry.rdevMajor : 0, rdevMinor: isDevice ? entry.rdevMinor : 0 })
      const sorted = (xattrs: TarEntry['xattrs']) => [...xattrs].sort(([a], [b]) => compareBytes(a, b)).map(([name, value]) => [name, [...value]])
      expect(sorted(member!.entry.xattrs)).toEqual(sorted(entry.xattrs!))
    }), { numRuns: 400 })
  })
  it('needs one block where POSIX headers suffice', () => {
    expect(encodeEntry({ ...base, path: 'p'.repeat(100), link: 'l'.repeat(100), uid: 2_097_151, size: 8 ** 11 - 1 })).toHaveLength(512)
    expect(encodeEntry({ ...base, path: 'p'.repeat(101) })).toHaveLength(3 * 512)
    expect(encodeEntry({ ...base, uid: 2_097_152 })).toHaveLength(512)
  })
  it('puts sizes of 8 GiB and more into the PAX header and base-256', () => {
    const blocks = Buffer.from(encodeEntry({ ...base, size: 8 ** 11 }))
    expect(blocks.subarray(512).toString('latin1')).toContain(`size=${8 ** 11}\n`)
    expect(parseNumber(blocks, blocks.length - 512 + 124, 12)).toBe(8 ** 11)
  })
  it('names PAX headers after their member and sorts the records', () => {
    const blocks = Buffer.from(encodeEntry({ ...base, path: `dir/${'n'.repeat(120)}`, link: 'l'.repeat(101), type: 'symlink', xattrs: [['user.b', new Uint8Array(0)], ['user.a', Buffer.from('\n')]] }))
    const header = ustarHeader.decode(blocks)
    expect(header).toMatchObject({ name: `dir/PaxHeaders.0/${'n'.repeat(83)}`, mode: 0o644, uid: 0, mtime: 0, typeFlag: 0x78 })
    const payload = blocks.subarray(512, 512 + header.size).toString('latin1')
    expect([...payload.matchAll(/[0-9]+ ([A-Za-z.]+)=/g)].map(([, key]) => key)).toEqual(['SCHILY.xattr.user.a', 'SCHILY.xattr.user.b', 'linkpath', 'path'])
    expect(ustarHeader.decode(blocks, blocks.length - 512).name).toBe(`dir/${'n'.repeat(96)}`)
  })
  it('cuts no UTF-8 character of a long name in two, and other names at 100 bytes', () => {
    const nameOf = (path: string) => { const blocks = encodeEntry({ ...base, path }); return ustarHeader.decode(blocks, blocks.length - 512).name }
    expect(nameOf(`${'a'.repeat(99)}\xc3\xa9\xc3\xa9`)).toBe('a'.repeat(99))
    expect(nameOf(`${'a'.repeat(98)}\xc3\xa9\xc3\xa9`)).toBe(`${'a'.repeat(98)}\xc3\xa9`)
    expect(nameOf('\xa9'.repeat(120))).toBe('\xa9'.repeat(100))
  })
  it('gets the length of records right where its own digits tip it over', () => {
    for (let length = 70; length < 110; length++) {
      const value = Buffer.alloc(length, 'v')
      expect(Buffer.from(reread({ ...base, xattrs: [['user.x', value]] }).xattrs[0]![1]).equals(value)).toBe(true)
    }
  })
  it('keeps attribute names with "=" and "%"', () => {
    for (const name of ['user.a=b', 'user.a%b', 'user.%3D', 'user.%253D=', 'user.%253D', 'user.%25', 'user.%25253D%3D']) expect(reread({ ...base, xattrs: [[name, new Uint8Array(1)]] }).xattrs[0]![0]).toBe(name)
  })
  it('refuses numbers that no field holds', () => {
    for (const wrong of [{ uid: 2 ** 70 }, { mtime: 0.5 }, { mtime: Number.NaN }]) {
      let caught: unknown
      try { encodeEntry({ ...base, ...wrong }) } catch (error) { caught = error }
      expect(hasCode(caught, 'TAR_INVALID')).toBe(true)
    }
  })
  it('writes archives that tar-stream reads alike', async () => {
    const entries: WritableEntry[] = [
      { ...base, path: 'dir', type: 'directory', mode: 0o1777 }, { ...base, path: `dir/${'long-'.repeat(40)}`, uid: 70_000, gid: 3_000_000, mtime: 1_700_000_000, userName: 'user', groupName: 'group' },
      { ...base, path: 'dir/link', type: 'symlink', link: '../target' }, { ...base, path: 'hard', type: 'hardlink', link: 'dir/link' }, { ...base, path: 'null', type: 'character', rdevMajor: 1, rdevMinor: 3 },
    ]
    const seen: tarStream.Header[] = []
    const extract = tarStream.extract()
    extract.on('entry', (header, stream, next) => { seen.push(header); stream.resume(); stream.on('end', next) })
    Readable.from([archive(entries.map((entry) => ({ entry, data: entry.type === 'file' ? Buffer.from('data') : new Uint8Array(0) })))]).pipe(extract)
    await finished(extract)
    expect(seen.map((header) => [header.name, header.type, header.mode, header.uid, header.gid, header.mtime?.getTime(), header.linkname, header.devmajor, header.devminor, header.uname])).toEqual([
      ['dir', 'directory', 0o1777, 0, 0, 0, null, 0, 0, ''], [`dir/${'long-'.repeat(40)}`, 'file', 0o644, 70_000, 3_000_000, 1.7e12, null, 0, 0, 'user'],
      ['dir/link', 'symlink', 0o644, 0, 0, 0, '../target', 0, 0, ''], ['hard', 'link', 0o644, 0, 0, 0, 'dir/link', 0, 0, ''], ['null', 'character-device', 0o644, 0, 0, 0, null, 1, 3, '']])
  })
})

describe('header tables', () => {
  it('read back what they wrote', () => {
    const fields = { name: 'n'.repeat(100), mode: 0o7777, uid: 2 ** 31, gid: 5, size: 2 ** 40, mtime: -1, checksum: Buffer.from('1234567\0'), typeFlag: 0x30, linkName: '\xff', magic: 'ustar', version: '00', userName: 'u'.repeat(32), groupName: '', devMajor: 1, devMinor: 2, prefix: 'p' }
    expect(ustarHeader.decode(ustarHeader.encode(fields))).toEqual({ ...fields, checksum: new Uint8Array(fields.checksum) })
    const gnu = { accessTime: 1, changeTime: 2, volumeOffset: 3, segments: new Uint8Array(96).fill(7), isExtended: 1, realSize: 2 ** 45 }
    expect(gnuHeader.decode(gnuHeader.encode(gnu))).toEqual(gnu)
    expect(gnuSparseBlock.rows.length + gnuSparseSegment.rows.length).toBe(5)
  })
  it('sort blocks into zeros, headers and others', () => {
    const header = encodeEntry(base)
    expect([blockKind(new Uint8Array(512), 0), blockKind(header, 0), blockKind(new Uint8Array(512).fill(1), 0)]).toEqual(['zero', 'header', 'other'])
  })
  it('refuse texts and numbers that are wrong for their field', () => {
    const fields = ustarHeader.decode(encodeEntry(base))
    expect(() => ustarHeader.encode({ ...fields, name: 'n'.repeat(101) })).toThrow('does not fit')
    const block = encodeEntry(base)
    block[100] = 0x39
    expect(() => ustarHeader.decode(block)).toThrow('number below 2^53')
  })
})
