import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isCoded } from '../../core/errors.ts'
import { MAX_METADATA, MAX_SEGMENTS, type TarEvent } from './entry.ts'
import { readMembers } from './members.ts'
import { TarReader } from './reader.ts'

// Hand-packed headers: an oracle that shares no code with the tables under test.
interface Fields { name?: string; mode?: string; uid?: string; gid?: string; size?: number; sizeField?: string; mtime?: string; type?: string; link?: string; magic?: string; major?: string; minor?: string; prefix?: string; tail?: string; checksum?: string }
function block(fields: Fields): Buffer {
  const { name = 'f', mode = '0000644\0', uid = '0000000\0', gid = '0000000\0', size = 0, mtime = '00000000000\0', type = '0', link = '', magic = 'ustar\x0000', major = '', minor = '', prefix = '' } = fields
  const header = Buffer.alloc(512)
  const put = (text: string, at: number) => header.write(text, at, 'latin1')
  put(name, 0); put(mode, 100); put(uid, 108); put(gid, 116); put(fields.sizeField ?? `${size.toString(8).padStart(11, '0')}\0`, 124); put(mtime, 136)
  put('        ', 148); put(type, 156); put(link, 157); put(magic, 257); put(major, 329); put(minor, 337); put(prefix, 345); put(fields.tail ?? '', 386)
  put(fields.checksum ?? `${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148)
  return header
}
const padded = (data: Buffer | string) => { const bytes = Buffer.from(data as string, 'latin1'); return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 511)]) }
const member = (fields: Fields, data: Buffer | string = '') => Buffer.concat([block({ ...fields, size: data.length }), padded(data)])
const record = (key: string, value: string) => { const rest = key.length + value.length + 3; let n = rest; while (String(n).length + rest !== n) n = String(n).length + rest; return `${n} ${key}=${value}\n` }
const pax = (records: Record<string, string> | string, type = 'x') => member({ name: 'PaxHeader', type }, typeof records === 'string' ? records : Object.entries(records).map(([key, value]) => record(key, value)).join(''))
const END = Buffer.alloc(1024)

const read = (...parts: Buffer[]) => readMembers(Buffer.concat(parts), { maxSize: 1 << 20 })
const first = (...parts: Buffer[]) => read(...parts)[0]!.entry
const errorOf = (run: () => unknown): { code: string; message: string } => {
  try { run() } catch (error) { if (isCoded(error)) return error; throw error }
  return { code: 'none', message: '' }
}
const codeOf = (...parts: Buffer[]) => errorOf(() => read(...parts)).code

/** Data of neighbouring events joined, so that chunk borders do not show. */
function eventsOf(chunks: Iterable<Uint8Array>): unknown[] {
  const events: unknown[] = []
  let run: { offset: number; bytes: string } | undefined
  const note = (event: TarEvent) => {
    if (event.type === 'data') {
      const bytes = Buffer.from(event.bytes).toString('latin1')
      if (run !== undefined && run.offset + run.bytes.length === event.offset) run.bytes += bytes
      else events.push(run = { offset: event.offset, bytes })
      return
    }
    run = undefined
    events.push(event)
  }
  const reader = new TarReader()
  for (const chunk of chunks) {
    reader.push(chunk)
    for (let event = reader.next(); event !== undefined; event = reader.next()) note(event)
  }
  reader.finish()
  for (let event = reader.next()!; ; event = reader.next()!) { note(event); if (event.type === 'end') return events }
}

const octal = (value: number) => `${value.toString(8).padStart(11, '0')}\0`
const gnuSparse = Buffer.concat([
  block({ name: 's', type: 'S', magic: 'ustar  \0', size: 9, tail: `${[[0, 1], [10, 1], [20, 1], [30, 1]].map(([o, n]) => octal(o!) + octal(n!)).join('')}\x01${octal(100)}` }),
  padded(`${[[40, 2], [50, 3], [100, 0]].map(([o, n]) => octal(o!) + octal(n!)).join('')}`), padded('abcdefghi')])
const paxSparse = Buffer.concat([
  pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'dir/sparse', 'GNU.sparse.realsize': '5000' }),
  member({ name: 'GNUSparseFile.0/sparse' }, Buffer.concat([padded('2\n10\n3\n4096\n4\n'), Buffer.from('XYZwxyz')]))])
const sample = Buffer.concat([
  pax({ comment: 'global' }, 'g'), member({ name: './', type: '5' }),
  pax({ path: `${'long/'.repeat(30)}name`, 'SCHILY.xattr.user.x': 'a\n\0\xff', mtime: '-1.25' }), member({}, 'hello'),
  member({ name: '././@LongLink', type: 'K', magic: 'ustar  \0' }, `${'t'.repeat(150)}\0`), member({ name: 'l', type: '2' }),
  Buffer.alloc(512), gnuSparse, paxSparse, member({ name: 'last' }, Buffer.alloc(1500, 7)), END])

describe('ustar', () => {
  it('reads every field', () => {
    expect(first(member({ name: 'b', prefix: 'a', mode: '0104755\0', uid: '0001750\0', gid: ' 1751  \0', mtime: '14524770000\0', type: '0' }, 'data'))).toEqual({
      path: 'a/b', type: 'file', mode: 0o4755, uid: 1000, gid: 1001, mtime: 0o14524770000, mtimeNsec: 0, size: 4, link: '', rdevMajor: 0, rdevMinor: 0,
      xattrs: [], sparse: undefined, headerOffset: 0, dataOffset: 512 })
  })
  it.each([
    ['0', 'file'], ['\0', 'file'], ['7', 'file'], ['1', 'hardlink'], ['2', 'symlink'], ['3', 'character'], ['4', 'block'], ['5', 'directory'], ['6', 'fifo'], ['D', 'directory'],
  ])('knows type %j as %s', (type, want) => {
    const entry = first(member({ type, link: 'x', major: '0000010\0', minor: '0000377\0' }))
    expect(entry.type).toBe(want)
    expect([entry.rdevMajor, entry.rdevMinor]).toEqual(want === 'character' || want === 'block' ? [8, 255] : [0, 0])
  })
  it.each([['./a/./b', 'a/b'], ['/a', 'a'], ['//a///b//', 'a/b'], ['a/', 'a'], ['./', ''], ['/', ''], ['.', ''], ['a/..b/...', 'a/..b/...'], ['\xff\xfe', '\xff\xfe']])('brings the path %j to %j', (name, path) => {
    expect(first(member({ name, type: '5' })).path).toBe(path)
  })
  it.each(['..', 'a/..', '../a', 'a/../b', './..'])('refuses the path %j, naming it', (name) => {
    expect(errorOf(() => read(member({ name })))).toMatchObject({ code: 'TAR_UNSAFE_PATH', message: expect.stringContaining(`"${name}"`) })
    expect(codeOf(member({ name: 'l', type: '1', link: name }))).toBe('TAR_UNSAFE_PATH')
    expect(codeOf(member({ name: 'l', type: '2', link: name }))).toBe('none')
  })
  it('takes names of 255 bytes and refuses 256, naming them', () => {
    expect(first(pax({ path: `d/${'n'.repeat(255)}` }), member({})).path).toHaveLength(257)
    expect(errorOf(() => read(pax({ path: 'n'.repeat(256) }), member({})))).toMatchObject({ code: 'TAR_INVALID', message: expect.stringContaining('nnnnnnn') })
  })
  it('takes paths of 4096 bytes and refuses longer ones', () => {
    const path = `${'d/'.repeat(2047)}ab`
    expect(first(pax({ path }), member({})).path).toBe(path)
    expect(codeOf(pax({ path: `${path}c` }), member({}))).toBe('TAR_INVALID')
  })
  it('takes link targets of 4095 bytes and refuses 4096, naming the link', () => {
    expect(first(pax({ linkpath: 't'.repeat(4095) }), member({ type: '2' })).link).toHaveLength(4095)
    expect(errorOf(() => read(pax({ linkpath: 't'.repeat(4096) }), member({ name: 'the-link', type: '2' })))).toMatchObject({ code: 'TAR_INVALID', message: expect.stringContaining('the-link') })
  })
  it('keeps symbolic targets as they stand and normalises those of hard links', () => {
    expect(first(member({ type: '2', link: './../a//b' })).link).toBe('./../a//b')
    expect(first(member({ type: '1', link: './a//b' })).link).toBe('a/b')
    expect(codeOf(member({ type: '2' }))).toBe('TAR_INVALID')
    expect(codeOf(member({ type: '1' }))).toBe('TAR_INVALID')
  })
  it('reads a slash at the end of an old file as a directory', () => {
    expect(first(member({ name: 'd/', type: '\0', magic: '' })).type).toBe('directory')
    expect(first(member({ name: 'd/', type: '0' })).type).toBe('file')
  })
  it('refuses a root that is no directory', () => expect(codeOf(member({ name: './' }))).toBe('TAR_INVALID'))
  it('gives no data to what is no file, whatever its size field says', () => {
    expect(read(block({ name: 'l', type: '2', link: 'abc', size: 3 }), block({ name: 'd', type: '5', size: 600 }), member({ name: 'f' }, 'x')).map(({ entry }) => [entry.path, entry.size])).toEqual([['l', 0], ['d', 0], ['f', 1]])
  })
  it('leaves out volume labels and the names in dump directories', () => {
    expect(read(member({ name: 'label', type: 'V' }), member({ name: 'd', type: 'D', magic: 'ustar  \0' }, Buffer.alloc(600, 'Yname\0')), member({}, 'x')).map(({ entry }) => entry.path)).toEqual(['d', 'f'])
  })
  it.each(['M', 'N', 'Z', '8', '\x80', 'A'])('refuses type %j, naming it', (type) => expect(errorOf(() => read(member({ type })))).toMatchObject({ code: 'TAR_INVALID', message: expect.stringMatching(/type/) }))
  it('accepts the signed checksums of very old writers and no wrong ones', () => {
    const header = block({ name: '\xe9\xe8' })
    const signed = header.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? 32 : byte << 24 >> 24), 0)
    expect(first(block({ name: '\xe9\xe8', checksum: `${signed.toString(8).padStart(6, '0')}\0 ` })).path).toBe('\xe9\xe8')
    expect(codeOf(block({ checksum: '000001\0 ' }))).toBe('TAR_INVALID')
    expect(codeOf(block({ checksum: 'zzzzzz\0 ' }))).toBe('TAR_INVALID')
  })
})

describe('numbers', () => {
  const base256 = (value: bigint, size: number) => { let text = ''; for (let i = 0, rest = BigInt.asUintN(8 * size, value); i < size; i++, rest >>= 8n) text = String.fromCharCode(Number(rest & 255n)) + text; return String.fromCharCode(text.charCodeAt(0) | 0x80) + text.slice(1) }
  it('reads base-256, negative times too', () => {
    const entry = first(member({ uid: base256(4_000_000_000n, 8), gid: base256(2_097_152n, 8), mtime: base256(-3600n, 12) }))
    expect([entry.uid, entry.gid, entry.mtime]).toEqual([4_000_000_000, 2_097_152, -3600])
    expect(first(member({ mtime: base256(2n ** 40n, 12) })).mtime).toBe(2 ** 40)
  })
  it.each([['       \0', 0], ['\0\0\0\0\0\0\0\0', 0], ['\x00000017\0', 0o17], ['   17 \0\0', 0o17], ['00000017', 0o17], ['17 junk\0', 0o17]])('tolerates %j', (uid, want) => expect(first(member({ uid })).uid).toBe(want))
  it.each(['0000008\0', '-000001\0', 'abc\0\0\0\0\0', '\xff\xff\xff\xff\xff\xff\xff\xff', '\x80\xff\xff\xff\xff\xff\xff\xff', '\x80\x00\x00\x01\x00\x00\x00\x00'])('refuses %j as an owner', (uid) => expect(codeOf(member({ uid }))).toBe('TAR_INVALID'))
  it('refuses devices beyond Linux', () => {
    expect(codeOf(member({ type: '3', major: '0010000\0', minor: '0\0' }))).toBe('TAR_INVALID')
    expect(codeOf(member({ type: '4', major: '0\0', minor: '4000000\0' }))).toBe('TAR_INVALID')
  })
  it('believes no size beyond 2^53', () => expect(codeOf(block({ sizeField: base256(2n ** 60n, 12) }))).toBe('TAR_INVALID'))
})

describe('PAX', () => {
  it('reads what replaces header fields', () => {
    const entry = first(pax({ path: 'a/\xc3\xa9', uid: '3000000000', gid: '7', mtime: '1234567890.123456789123', size: '3', unknown: 'x' }), block({ name: 'short', sizeField: 'not used' }), padded('abc'))
    expect(entry).toMatchObject({ path: 'a/\xc3\xa9', uid: 3_000_000_000, gid: 7, mtime: 1_234_567_890, mtimeNsec: 123_456_789, size: 3 })
  })
  it.each([['-1.25', -2, 750_000_000], ['-1', -1, 0], ['-0.0000000001', -1, 999_999_999], ['0.5', 0, 500_000_000], ['7.', 7, 0], ['-0', 0, 0]])('reads the time %s', (mtime, seconds, nsec) => {
    expect(first(pax({ mtime }), member({}))).toMatchObject({ mtime: seconds, mtimeNsec: nsec })
  })
  it('cuts records by length, so that values are any bytes', () => {
    const binary = `\n\0=\xff 9 path=evil\n${'\n'.repeat(90)}`
    expect(first(pax({ 'SCHILY.xattr.security.capability': binary, 'SCHILY.xattr.user.empty': '' }), member({})).xattrs.map(([name, value]) => [name, Buffer.from(value).toString('latin1')])).toEqual([['security.capability', binary], ['user.empty', '']])
  })
  it('reads both spellings of xattrs, and SCHILY wins', () => {
    const xattrs = (records: Record<string, string>) => first(pax(records), member({})).xattrs.map(([name, value]) => [name, Buffer.from(value).toString('latin1')])
    expect(xattrs({ 'LIBARCHIVE.xattr.user.a%20b': 'AP8K', 'SCHILY.xattr.user.%3D%25': '1' })).toEqual([['user.a b', '\0\xff\n'], ['user.=%', '1']])
    expect(xattrs({ 'LIBARCHIVE.xattr.user.x': 'AAAA', 'SCHILY.xattr.user.x': 'S' })).toEqual([['user.x', 'S']])
    expect(xattrs({ 'SCHILY.xattr.user.x': 'S', 'LIBARCHIVE.xattr.user.x': 'AAAA' })).toEqual([['user.x', 'S']])
    expect(xattrs({ 'SCHILY.xattr.user.a%25': '1' })).toEqual([['user.a%25', '1']])
  })
  it('keeps xattr values apart from the pushed chunk', () => {
    const archive = Buffer.concat([pax({ 'SCHILY.xattr.user.x': 'keep' }), member({})])
    const { entry } = readMembers(archive, { maxSize: 0 })[0]!
    archive.fill(0)
    expect(Buffer.from(entry.xattrs[0]![1]).toString()).toBe('keep')
  })
  it('lets global values hold until they are emptied, and local ones come first', () => {
    const owners = read(pax({ uid: '5', 'SCHILY.xattr.user.g': 'G' }, 'g'), member({ name: 'a' }), pax({ uid: '6' }), member({ name: 'b' }), pax({ uid: '' }), member({ name: 'c', uid: '0000011\0' }),
      pax({ uid: '', 'SCHILY.xattr.user.g': '' }, 'g'), member({ name: 'd', uid: '0000012\0' })).map(({ entry }) => [entry.uid, entry.xattrs.length])
    expect(owners).toEqual([[5, 1], [6, 1], [9, 1], [10, 0]])
  })
  it('forgives a global header that does not count its newline, and no other', () => {
    expect(first(pax('20 comment=global aa\n', 'g'), member({})).path).toBe('f')
    expect(codeOf(pax('20 comment=global aa\n'), member({}))).toBe('TAR_INVALID')
  })
  it('uses a local header for one member only', () => expect(read(pax({ path: 'p' }), member({ name: 'a' }), member({ name: 'b' })).map(({ entry }) => entry.path)).toEqual(['p', 'b']))
  it.each(['path=x\n', '5 path=x\n', '99 path=x\n', '9 path=x!', '7 path\n', '0 a=b\n', '99999999999999999999999 a=b\n', '4 =\n5 x', record('uid', '-1'), record('uid', '1x'), record('mtime', 'soon'), record('size', '9'.repeat(20)), record('path', 'a\0b'), record('LIBARCHIVE.xattr.a', '!!')])('refuses the records %j', (records) => {
    expect(codeOf(pax(records), member({}))).toBe('TAR_INVALID')
  })
  it('tolerates NUL padding inside the payload', () => expect(first(pax(`${record('uid', '5')}\0\0\0`), member({})).uid).toBe(5))
  it('refuses two headers of a kind for one member', () => {
    expect(codeOf(pax({ uid: '1' }), pax({ uid: '2' }), member({}))).toBe('TAR_INVALID')
    const long = member({ name: '././@LongLink', type: 'L' }, 'a\0')
    expect(codeOf(long, long, member({}))).toBe('TAR_INVALID')
  })
})

describe('bounded memory', () => {
  it('refuses an extended header that claims more than 1 MiB before it arrives', () => {
    for (const type of ['x', 'g', 'L', 'K']) expect(codeOf(block({ type, size: MAX_METADATA + 1 }))).toBe('TAR_INVALID')
  })
  it('bounds what global headers add up to', () => {
    const half = (name: string) => pax({ [`SCHILY.xattr.user.${name}`]: 'v'.repeat(MAX_METADATA / 2 - 100) }, 'g')
    expect(codeOf(half('a'), half('b'), member({}))).toBe('none')
    expect(codeOf(half('a'), half('b'), half('c'), member({}))).toBe('TAR_INVALID')
    expect(codeOf(half('a'), half('a'), half('a'), member({}))).toBe('none')
  })
  it('bounds sparse maps', () => {
    const huge = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '5000' }
    expect(codeOf(pax(huge), member({}, padded(`${MAX_SEGMENTS + 1}\n`)))).toBe('TAR_INVALID')
    const endless = padded(`${[0, 1, 2].map((n) => octal(n) + octal(1)).join('').padEnd(504, '\0')}\x01`)
    const chain = Array.from({ length: Math.ceil(MAX_SEGMENTS / 21) + 1 }, () => padded(`${Array.from({ length: 21 }, () => octal(0) + octal(0)).join('')}\x01`))
    expect(codeOf(block({ type: 'S', magic: 'ustar  \0', size: 3, tail: `${`${octal(0)}${octal(0)}`.padEnd(96, '\0')}\x01${octal(9)}` }), ...chain)).toBe('TAR_INVALID')
    expect(codeOf(block({ type: 'S', magic: 'ustar  \0', tail: `${''.padEnd(96, '\0')}\x01${octal(9)}` }), endless)).toBe('TAR_TRUNCATED')
  })
  it('hands file data through without copying it', () => {
    const archive = member({}, 'payload')
    const reader = new TarReader()
    reader.push(archive)
    reader.next()
    const data = reader.next()
    expect(data?.type === 'data' && data.bytes.buffer === archive.buffer && data.bytes.byteOffset === archive.byteOffset + 512).toBe(true)
  })
  it('announces a member of 8 PiB without waiting for it, and says of a truncated one what is missing', () => {
    expect(errorOf(() => read(member({ name: 'big' }, 'abc').subarray(0, 514)))).toMatchObject({ code: 'TAR_TRUNCATED', message: expect.stringContaining('1 of its 3 bytes are missing') })
    const reader = new TarReader()
    reader.push(block({ sizeField: `\x80${'\0'.repeat(4)}\x1f${'\xff'.repeat(6)}` }))
    expect(reader.next()).toMatchObject({ type: 'entry', entry: { size: Number.MAX_SAFE_INTEGER } })
  })
})

describe('sparse files', () => {
  it('reads old GNU maps over several blocks', () => {
    const { entry, contents } = read(gnuSparse)[0]!
    expect(entry).toMatchObject({ size: 100, dataOffset: 1024, sparse: [[0, 1], [10, 1], [20, 1], [30, 1], [40, 2], [50, 3]] })
    expect([0, 10, 20, 30, 40, 41, 50, 52].map((at) => String.fromCharCode(contents[at]!)).join('')).toBe('abcdefgi')
  })
  it('reads maps of PAX 1.0 before the data', () => {
    const { entry, contents } = read(paxSparse)[0]!
    expect(entry).toMatchObject({ path: 'dir/sparse', size: 5000, sparse: [[10, 3], [4096, 4]], dataOffset: 2048 })
    expect(Buffer.from(contents.subarray(10, 13)).toString() + Buffer.from(contents.subarray(4096, 4100)).toString()).toBe('XYZwxyz')
  })
  it('reads maps of PAX 0.0 and 0.1', () => {
    const zero = record('GNU.sparse.size', '50') + record('GNU.sparse.numblocks', '2') + [[5, 1], [9, 2]].map(([o, n]) => record('GNU.sparse.offset', `${o}`) + record('GNU.sparse.numbytes', `${n}`)).join('')
    for (const records of [zero, record('GNU.sparse.size', '50') + record('GNU.sparse.map', '5,1,9,2')]) {
      const { entry, contents } = read(pax(records), member({}, 'abc'))[0]!
      expect(entry).toMatchObject({ size: 50, sparse: [[5, 1], [9, 2]] })
      expect(Buffer.from(contents).toString()).toBe('\0\0\0\0\0a\0\0\0bc'.padEnd(50, '\0'))
    }
  })
  it.each([['0,2,1,1', 'overlap'], ['5,1,0,2', 'out of order'], ['0,3,60,0', 'beyond the end'], ['0,2', 'holds 2 bytes'], ['0,3,4', 'inside a pair'], ['0,x', 'no number'], ['', 'holds 0 bytes']])('refuses the map %s', (map, why) => {
    expect(errorOf(() => read(pax({ 'GNU.sparse.size': '50', 'GNU.sparse.map': map }), member({}, 'abc')))).toMatchObject({ code: 'TAR_INVALID', message: expect.stringContaining(why) })
  })
  it.each(['1\n', '2\n0\n1\n', '\n', 'x\n', `${'9'.repeat(17)}\n`])('refuses the 1.0 map %j', (map) => {
    expect(codeOf(pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '50' }), member({}, padded(map)))).toBe('TAR_INVALID')
  })
  it('refuses unknown versions, missing sizes, and type S outside GNU archives', () => {
    expect(codeOf(pax({ 'GNU.sparse.major': '2', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '5' }), member({}))).toBe('TAR_INVALID')
    expect(codeOf(pax({ 'GNU.sparse.map': '0,1' }), member({}, 'a'))).toBe('TAR_INVALID')
    expect(codeOf(member({ type: 'S' }))).toBe('TAR_INVALID')
  })
})

describe('the end', () => {
  it('may come with no, one or many zero blocks', () => {
    for (const zeros of [0, 1, 2, 20]) expect(read(member({}, 'x'), Buffer.alloc(512 * zeros))).toHaveLength(1)
    expect(read()).toEqual([])
    expect(read(END)).toEqual([])
  })
  it('reads on behind zero blocks: joined archives', () => expect(read(member({ name: 'a' }), END, member({ name: 'b' }), END).map(({ entry }) => entry.path)).toEqual(['a', 'b']))
  it('refuses garbage behind the end blocks, and says so', () => {
    expect(errorOf(() => read(member({}), END, Buffer.from('garbage'.repeat(100))))).toMatchObject({ code: 'TAR_INVALID', message: expect.stringContaining('behind the end') })
    expect(codeOf(member({}), END, Buffer.from('tail'))).toBe('TAR_TRUNCATED')
  })
  it('refuses what never was a tar archive', () => expect(errorOf(() => read(Buffer.alloc(600, 'x')))).toMatchObject({ code: 'TAR_INVALID', message: expect.stringContaining('at the beginning') }))
  it('refuses extended headers without a member', () => {
    expect(codeOf(pax({ path: 'x' }))).toBe('TAR_TRUNCATED')
    expect(codeOf(pax({ path: 'x' }), END)).not.toBe('none')
  })
  it('may cut the padding of the last member, but not its data', () => {
    const whole = member({}, 'hello')
    for (let cut = 0; cut < whole.length; cut++) expect(codeOf(whole.subarray(0, cut))).toBe(cut === 0 || cut >= 517 ? 'none' : 'TAR_TRUNCATED')
  })
})

describe('any input', () => {
  it('gives the same events however it is split', () => {
    const whole = eventsOf([sample])
    expect(whole.filter((event) => (event as TarEvent).type === 'entry')).toHaveLength(6)
    const bytewise = function* () { for (let at = 0; at < sample.length; at++) yield sample.subarray(at, at + 1) }
    expect(eventsOf(bytewise())).toEqual(whole)
    fc.assert(fc.property(fc.array(fc.nat(sample.length), { maxLength: 20 }), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), sample.length]
      expect(eventsOf(at.slice(1).map((end, index) => sample.subarray(at[index], end)))).toEqual(whole)
    }), { numRuns: 60 })
  })
  it('ends every truncation with TAR_TRUNCATED or cleanly, never with more than was there', () => {
    const all = eventsOf([sample]).length
    for (let length = 0; length < sample.length; length += 7) {
      const error = errorOf(() => expect(eventsOf([sample.subarray(0, length)]).length).toBeLessThanOrEqual(all))
      expect(['none', 'TAR_TRUNCATED']).toContain(error.code)
    }
  })
  it('answers flipped bytes with a coded error or with entries, never with a crash', () => {
    const mend = (archive: Buffer, at: number) => { const start = at - (at % 512); archive.write('        ', start + 148, 'latin1'); const sum = archive.subarray(start, start + 512).reduce((a, b) => a + b, 0); archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, start + 148, 'latin1') }
    let accepted = 0
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(sample.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }), fc.boolean(), (flips, mended) => {
      const archive = Buffer.from(sample)
      // Checksums are mended, so that most inputs come past them.
      for (const [at, value] of flips) { archive[at] = value; if (mended && (archive[at - (at % 512) + 257] === 0x75)) mend(archive, at) }
      const { code } = errorOf(() => { eventsOf([archive]); accepted++ })
      expect(['none', 'TAR_INVALID', 'TAR_TRUNCATED', 'TAR_UNSAFE_PATH']).toContain(code)
    }), { numRuns: 1500 })
    expect(accepted).toBeGreaterThan(100)
  })
  it('answers random bytes with a coded error', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => { errorOf(() => eventsOf([bytes])) }), { numRuns: 200 })
  })
  it('refuses a push before the last chunk was read', () => {
    const reader = new TarReader()
    reader.push(sample)
    expect(() => reader.push(sample)).toThrow('push before')
  })
})
