// Archives that other programs wrote, compared with what those programs say is in them. No root: owners are the archive's own text.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, openSync, closeSync, readFileSync, rmSync, symlinkSync, linkSync, mkdirSync, truncateSync, utimesSync, writeFileSync, writeSync, chmodSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import fc from 'fast-check'
import tarStream from 'tar-stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { requires } from '../../../test/support/requires.ts'
import { byteString, bytesOf, compareBytes, fromText } from '../../core/byte-string.ts'
import { readMembers } from './members.ts'
import { encodeEntry, endBlocks, padding } from './writer.ts'

const MAX_SIZE = 64 * 1024 * 1024
let directory = ''
beforeAll(() => { directory = mkdtempSync(join(tmpdir(), 'nydus-tar-')) })
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const has = (program: string): boolean => { try { execFileSync(program, ['--version'], { stdio: 'ignore' }); return true } catch { return false } }
const python = has('python3')
const gnuTar = has('tar') && execFileSync('tar', ['--version']).includes('GNU tar')

describe.runIf(requires.that(gnuTar, 'needs GNU tar'))('GNU tar (skipped without it)', () => {
  const LONG = `${'long-component/'.repeat(12)}${'n'.repeat(150)}`
  const data = Buffer.from(Array.from({ length: 20_000 }, (_, at) => at * 7 % 251))

  beforeAll(() => {
    const tree = join(directory, 'tree')
    mkdirSync(join(tree, LONG, '..'), { recursive: true })
    writeFileSync(join(tree, LONG), data)
    chmodSync(join(tree, LONG), 0o4751)
    writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xff, 0xfe, 0x80])]), 'not UTF-8')
    symlinkSync('t'.repeat(300), join(tree, 'symlink'))
    linkSync(join(tree, LONG), join(tree, 'hardlink'))
    execFileSync('mkfifo', [join(tree, 'fifo')])
    const sparse = openSync(join(tree, 'sparse'), 'w')
    for (const at of [0, 1, 5, 11, 12, 30].map((n) => n * 1024 * 1024 + 4096)) writeSync(sparse, data, 0, data.length, at)
    closeSync(sparse)
    truncateSync(join(tree, 'sparse'), 40 * 1024 * 1024 + 123)
    writeFileSync(join(tree, 'all-hole'), '')
    truncateSync(join(tree, 'all-hole'), 1024 * 1024)
    utimesSync(tree, 1.5, 1_000_000_000.25)
  })

  const SPARSE = ['--sparse', '--hole-detection=raw']
  it.each([
    ['gnu', ['--format=gnu', ...SPARSE]], ['pax 0.0', ['--format=posix', '--sparse-version=0.0', ...SPARSE]], ['pax 0.1', ['--format=posix', '--sparse-version=0.1', ...SPARSE]],
    ['pax 1.0', ['--format=posix', '--sparse-version=1.0', ...SPARSE]], ['gnu, not sparse', ['--format=gnu']], ['pax, not sparse', ['--format=posix']],
  ] as const)('is read in its form %s', (_form, flags) => {
    const archive = execFileSync('tar', [...flags, '--sort=name', '--owner=someone:3000000', '--group=others:70000', '-C', join(directory, 'tree'), '-cf', '-', '.'], { maxBuffer: 128 * 1024 * 1024 })
    const members = new Map(readMembers(archive, { maxSize: MAX_SIZE }).map((member) => [member.entry.path, member]))
    const long = members.get(LONG)
    const [file, link] = long?.entry.type === 'file' ? [LONG, 'hardlink'] : ['hardlink', LONG]
    expect(members.get(file)).toMatchObject({ entry: { type: 'file', mode: 0o4751, uid: 3_000_000, gid: 70_000, size: data.length } })
    expect(Buffer.from(members.get(file)!.contents).equals(data)).toBe(true)
    expect(members.get(link)!.entry).toMatchObject({ type: 'hardlink', link: file, size: 0 })
    expect(byteString(members.get('\xff\xfe\x80')!.contents)).toBe('not UTF-8')
    expect(members.get('symlink')!.entry).toMatchObject({ type: 'symlink', link: 't'.repeat(300) })
    expect(members.get('fifo')!.entry.type).toBe('fifo')
    expect(members.get('')!.entry).toMatchObject({ type: 'directory', mtime: 1_000_000_000, mtimeNsec: flags[0] === '--format=posix' ? 250_000_000 : 0 })
    for (const name of ['sparse', 'all-hole']) {
      const want = readFileSync(join(directory, 'tree', name))
      const { entry, contents } = members.get(name)!
      expect(entry.size).toBe(want.length)
      expect(want.equals(contents)).toBe(true)
      // A file of six pieces far apart: the map says where they are, and the archive holds no holes.
      if (flags.length > 1) expect(entry.sparse).toHaveLength(name === 'sparse' ? 6 : 0)
    }
  })

  it('stores binary attributes that come back byte for byte (skipped where the file system has none)', (context) => {
    const value = Buffer.from('\n\0=\xff30 path=evil\n', 'latin1')
    const file = join(directory, 'with-xattrs')
    writeFileSync(file, '')
    try {
      execFileSync('setfattr', ['-n', 'user.a=b%', '-v', `0x${value.toString('hex')}`, file], { stdio: 'ignore' })
    } catch { if (!requires.that(false, 'needs setfattr and a temporary directory with extended attributes')) context.skip() }
    const archive = execFileSync('tar', ['--xattrs', '--format=posix', '-C', directory, '-cf', '-', 'with-xattrs'])
    expect(readMembers(archive, { maxSize: 0 })[0]!.entry.xattrs.map(([name, bytes]) => [name, byteString(bytes)])).toEqual([['user.a=b%', byteString(value)]])
  })

  it('lists what the writer wrote', () => {
    const entries = [
      { path: 'd', type: 'directory' as const, mode: 0o1777, uid: 1, gid: 2, mtime: 1_700_000_000, size: 0 },
      { path: `d/${'x'.repeat(200)}`, type: 'file' as const, mode: 0o640, uid: 4_000_000_000, gid: 3_000_000, mtime: -86_400, size: 5 },
      { path: 'd/s', type: 'symlink' as const, mode: 0o777, uid: 0, gid: 0, mtime: 0, link: 'l'.repeat(200), size: 0 },
      { path: 'd/c', type: 'character' as const, mode: 0o600, uid: 0, gid: 0, mtime: 0, rdevMajor: 4, rdevMinor: 64, size: 0 },
    ]
    const archive = Buffer.concat([...entries.flatMap((entry) => [encodeEntry(entry), Buffer.alloc(entry.size, 'x'), padding(entry.size)]), endBlocks()])
    const listing = execFileSync('tar', ['--numeric-owner', '--utc', '--full-time', '-tvf', '-'], { input: archive, encoding: 'utf8' })
    expect(listing.split('\n').map((line) => line.replace(/ +/g, ' '))).toEqual([
      'drwxrwxrwt 1/2 0 2023-11-14 22:13:20 d', `-rw-r----- 4000000000/3000000 5 1969-12-31 00:00:00 d/${'x'.repeat(200)}`,
      `lrwxrwxrwx 0/0 0 1970-01-01 00:00:00 d/s -> ${'l'.repeat(200)}`, 'crw------- 0/0 4,64 1970-01-01 00:00:00 d/c', ''])
  })
})

describe.runIf(requires.that(python, 'needs python3'))('Python tarfile (skipped without it)', () => {
  // One random member a line: form, type, name, link (hex) and numbers; tarfile writes them and its own view of what it reads back is the oracle.
  const SCRIPT = `
import io, json, sys, tarfile
members = json.load(sys.stdin)
text = lambda hexes: bytes.fromhex(hexes).decode('utf-8', 'surrogateescape')
for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode='w', format=form) as tar:
        for m in members:
            info = tarfile.TarInfo(text(m['path']))
            info.type = m['flag'].encode()
            info.linkname = text(m['link'])
            info.mode, info.uid, info.gid, info.mtime = m['mode'], m['uid'], m['gid'], m['mtime']
            info.devmajor, info.devminor = m['major'], m['minor']
            data = bytes.fromhex(m['data']) if info.isreg() else b''
            info.size = len(data)
            info.pax_headers = {'SCHILY.xattr.' + text(m['xattr']): text(m['value'])} if form == tarfile.PAX_FORMAT else {}
            tar.addfile(info, io.BytesIO(data))
    raw.seek(0)
    seen = []
    with tarfile.open(fileobj=raw) as tar:
        for info in tar:
            seen.append([info.name.encode('utf-8', 'surrogateescape').hex(), info.mode, info.uid, info.gid, info.mtime, info.size, info.linkname.encode('utf-8', 'surrogateescape').hex(), tar.extractfile(info).read().hex() if info.isreg() else ''])
    print(json.dumps({'archive': raw.getvalue().hex(), 'seen': seen}))
`
  const hex = (text: string) => bytesOf(text).toString('hex')
  it('writes what is read alike: names as bytes, owners, times, binary xattrs', () => {
    const byteText = (maxLength: number) => fc.uint8Array({ minLength: 1, maxLength }).map((bytes) => byteString(bytes).replace(/[\0/.]/g, '_'))
    const member = fc.record({
      path: fc.array(byteText(90), { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/')), flag: fc.constantFrom('0', '1', '2', '3', '5', '6', '7'), link: byteText(200),
      mode: fc.nat(0o7777), uid: fc.nat(2 ** 31), gid: fc.nat(2 ** 31), mtime: fc.integer({ min: 0, max: 2 ** 34 }), major: fc.nat(255), minor: fc.nat(255), data: byteText(700),
      xattr: fc.stringMatching(/^user[.][A-Za-z0-9_-]{1,20}$/), value: fc.uint8Array({ maxLength: 40 }).map(byteString),
    })
    const members = fc.sample(member, { numRuns: 150, seed: 7 })
    const input = JSON.stringify(members.map((m) => ({ ...m, path: hex(m.path), link: hex(m.link), data: hex(m.data), xattr: hex(m.xattr), value: hex(m.value) })))
    const output = execFileSync('python3', ['-c', SCRIPT], { input, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
    const [gnu, pax] = output.trim().split('\n').map((line) => JSON.parse(line) as { archive: string; seen: unknown[] })
    for (const [form, { archive, seen }] of [['gnu', gnu!], ['pax', pax!]] as const) {
      const ours = readMembers(Buffer.from(archive, 'hex'), { maxSize: 0 })
      expect(ours.map(({ entry, contents }) => [hex(entry.path), entry.mode, entry.uid, entry.gid, entry.mtime, entry.size, hex(entry.link), Buffer.from(contents).toString('hex')]))
        // tarfile keeps link names of members that are no links.
        .toEqual(seen.map((row, index) => (row as unknown[]).map((field, at) => (at === 6 && !'12'.includes(members[index]!.flag) ? '' : field))))
      if (form === 'pax') expect(ours.map(({ entry }) => entry.xattrs.map(([name, value]) => [name, byteString(value)]))).toEqual(members.map((m) => [[m.xattr, m.value]]))
    }
  })
})

describe('tar-stream', () => {
  it('writes plain members that are read alike', async () => {
    const pack = tarStream.pack()
    const names = ['a', 'ü/ß', `${'deep/'.repeat(40)}file`, 'x'.repeat(120)]
    for (const [index, name] of names.entries()) pack.entry({ name, mode: 0o600 + index, uid: index, gid: 200_000 + index, mtime: new Date(1e12 + index * 1000) }, Buffer.alloc(index * 600, name[0]))
    pack.entry({ name: 'dir/', type: 'directory' })
    pack.entry({ name: 'link', type: 'symlink', linkname: 'y'.repeat(150) })
    pack.entry({ name: 'hard', type: 'link', linkname: 'a' })
    pack.finalize()
    const members = readMembers(await buffer(Readable.from(pack)), { maxSize: 0 })
    expect(members.slice(0, 4).map(({ entry, contents }) => [entry.path, entry.mode, entry.uid, entry.gid, entry.mtime, contents.length])).toEqual(
      names.map((name, index) => [fromText(name), 0o600 + index, index, 200_000 + index, 1e9 + index, index * 600]))
    expect(members.slice(4).map(({ entry }) => [entry.path, entry.type, entry.link])).toEqual([['dir', 'directory', ''], ['link', 'symlink', 'y'.repeat(150)], ['hard', 'hardlink', 'a']])
    expect(members.map(({ entry }) => entry.path).sort(compareBytes)).toHaveLength(7)
  })
})
