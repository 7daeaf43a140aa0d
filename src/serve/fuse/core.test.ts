// The core alone: requests as bytes, answers as bytes. The image is written by our bootstrap writer; what a kernel makes of the answers
// is in test/mount.

import { beforeEach, describe, expect, it } from 'vitest'
import { dataViewOf } from '../../core/struct.ts'
import { ChunkStore } from '../../format/rafs-v6/bootstrap-writer-chunks.ts'
import { ImageInode, ImageNode } from '../../format/rafs-v6/bootstrap-writer-tree.ts'
import { encodeXattrs } from '../../format/rafs-v6/bootstrap-writer-xattr.ts'
import { writeBootstrap } from '../../format/rafs-v6/bootstrap-writer.ts'
import { BootstrapView } from '../../format/rafs-v6/bootstrap-view.ts'
import { S_IFDIR, S_IFIFO, S_IFLNK } from '../../format/erofs/inode.ts'
import { fuseDirent } from '../../wire/fuse/directory.ts'
import { getxattrIn, readIn } from '../../wire/fuse/file.ts'
import { inHeader, outHeader } from '../../wire/fuse/header.ts'
import { FUSE_INIT_FLAG, initIn, initOut } from '../../wire/fuse/init.ts'
import { attr, attrOut, entryOut } from '../../wire/fuse/inode.ts'
import { FUSE_OP } from '../../wire/fuse/opcode.ts'
import { ERRNO } from '../errno.ts'
import { FOREVER_SECONDS } from './attributes.ts'
import { type ConnectionPolicy, REPLY_SLOT, REQUEST_SLOT } from './connection.ts'
import { FuseCore, OUTCOME, type Outcome } from './core.ts'
import { FileSystemTable } from './file-system-table.ts'
import { gather, scatter } from './scatter.ts'
import type { ServedFileSystem } from './served-file-system.ts'

const NAMES = Array.from({ length: 3000 }, (_, i) => `entry-${String(i).padStart(5, '0')}-with-a-long-name`)

function directory(mode: number, children: Record<string, ImageNode>): ImageNode {
  const node = new ImageNode('', new ImageInode(S_IFDIR | mode))
  node.children = new Map(Object.entries(children).map(([name, child]) => [name, Object.assign(child, { name })]))
  return node
}

function leaf(mode: number, change: Partial<ImageInode> = {}): ImageNode {
  return new ImageNode('', Object.assign(new ImageInode(mode), change))
}

function buildView(): BootstrapView {
  const attributed = leaf(S_IFIFO | 0o600, { xattrs: encodeXattrs(new Map([['user.a', Buffer.from('one')], ['user.b', Buffer.from('\0\xff', 'latin1')]]), '') })
  const root = directory(0o711, {
    link: leaf(S_IFLNK | 0o777, { target: 'some/\xff/where' }),
    fifo: leaf(S_IFIFO | 0o640, { uid: 5, gid: 70000, mtime: -86400, mtimeNsec: 7 }),
    attributed,
    many: directory(0o755, Object.fromEntries(NAMES.map((name) => [name, leaf(S_IFIFO | 0o644)]))),
  })
  return BootstrapView.open(writeBootstrap({ root, chunks: new ChunkStore(), blobs: [], chunkSize: 0x10_0000, compressor: 0, digester: 0, explicitUidGid: true }))
}

const view = buildView()
const served = (change: Partial<ServedFileSystem> = {}): ServedFileSystem => ({ view, hasXattr: view.hasXattr, explicitIds: true, mutable: false, locate: () => false, ...change })

let core: FuseCore
let table: FileSystemTable
let input: Uint8Array
let output: Uint8Array

function start(image?: ServedFileSystem, policy: ConnectionPolicy = { xattrs: true, writable: false }, notified = false): void {
  table = new FileSystemTable({ notified })
  if (image) table.mount(9, image)
  input = new Uint8Array(REQUEST_SLOT)
  output = new Uint8Array(REPLY_SLOT)
  core = new FuseCore(table, policy, { uid: 77, gid: 88 }, input, output)
}

beforeEach(() => start(served()))

const UNIQUE = { uniqueLow: 0xdead_beef, uniqueHigh: 0x8000_0001 }

function encodeRequest(opcode: number, [nodeHigh, nodeLow]: readonly [number, number], body: Uint8Array = new Uint8Array()): Uint8Array {
  const header = inHeader.encode({ length: inHeader.size + body.length, opcode, ...UNIQUE, nodeHigh, nodeLow, uid: 0, gid: 0, pid: 1, extensions: 0 })
  return Buffer.concat([header, body])
}

function ask(opcode: number, node: readonly [number, number], body?: Uint8Array): { outcome: Outcome; errno: number; body: Uint8Array } {
  const request = encodeRequest(opcode, node, body)
  input.set(request)
  const outcome = core.handle(0, request.length, 0)
  if (outcome === OUTCOME.none || outcome === OUTCOME.miss || outcome === OUTCOME.interrupt) return { outcome, errno: 0, body: new Uint8Array() }
  const header = outHeader.decode(output)
  expect(header).toMatchObject(UNIQUE)
  expect(header.length).toBe(core.replyLength)
  return { outcome, errno: Math.abs(header.error), body: output.slice(outHeader.size, header.length) }
}

const ROOT = [0, 1] as const
const z = (text: string): Buffer => Buffer.from(`${text}\0`, 'latin1')
const lookup = (name: string, node: readonly [number, number] = ROOT): ReturnType<typeof entryOut.decode> => entryOut.decode(ask(FUSE_OP.LOOKUP, node, z(name)).body)
const nodeOf = (name: string): readonly [number, number] => [lookup(name).nodeHigh, lookup(name).nodeLow]
const read = (offset: number, size: number): Uint8Array =>
  readIn.encode({ handle: 0n, offsetLow: offset % 2 ** 32, offsetHigh: Math.floor(offset / 2 ** 32), size, readFlags: 0, lockOwner: 0n, flags: 0 })

function namesOf(bytes: Uint8Array, skip: number): { name: string; next: number }[] {
  const found: { name: string; next: number }[] = []
  for (let at = 0; at < bytes.length;) {
    const entry = fuseDirent.decode(bytes, at + skip)
    const nameAt = at + skip + fuseDirent.size
    found.push({ name: Buffer.from(bytes).toString('latin1', nameAt, nameAt + entry.nameLength), next: entry.offsetHigh * 2 ** 32 + entry.offsetLow })
    at = nameAt + Math.ceil(entry.nameLength / 8) * 8
  }
  return found
}

describe('FuseCore', () => {
  it('maps node id 1 to the image\'s root, with the image\'s mode', () => {
    const { body } = ask(FUSE_OP.GETATTR, ROOT)
    expect(attrOut.decode(body).validLow).toBe(FOREVER_SECONDS)
    expect(attr.decode(attrOut.decode(body).attr)).toMatchObject({ inoLow: view.rootNid, mode: S_IFDIR | 0o711, nlink: 3 })
  })

  it('gives out node ids of mount serial and nid, and takes them back', () => {
    const entry = lookup('fifo')
    expect([entry.nodeHigh, entry.entryValidLow, entry.attrValidLow]).toEqual([9, FOREVER_SECONDS, FOREVER_SECONDS])
    const { body } = ask(FUSE_OP.GETATTR, [entry.nodeHigh, entry.nodeLow])
    const times = dataViewOf(body).getBigInt64(16 + attr.offsetOf.mtimeLow, true)
    expect(attr.decode(attrOut.decode(body).attr)).toMatchObject({ mode: S_IFIFO | 0o640, uid: 5, gid: 70000, mtimeNsec: 7 })
    expect(times).toBe(-86400n)
  })

  it('lets the kernel remember that a name does not exist', () => {
    expect(lookup('nothing')).toMatchObject({ nodeLow: 0, nodeHigh: 0, entryValidLow: FOREVER_SECONDS })
  })

  it('answers "." and ".." by id, for file handles, with the root as 1', () => {
    const many = nodeOf('many')
    expect(lookup('..', many)).toMatchObject({ nodeLow: 1, nodeHigh: 0 })
    expect(lookup('.', many)).toMatchObject({ nodeLow: many[1], nodeHigh: 9 })
  })

  it('is ESTALE for nodes of a mount that is gone, EIO for impossible ones', () => {
    expect(ask(FUSE_OP.GETATTR, [8, view.rootNid]).errno).toBe(ERRNO.ESTALE)
    expect(ask(FUSE_OP.GETATTR, [9, 0xffff_fff0]).errno).toBe(ERRNO.EIO)
    expect(ask(FUSE_OP.LOOKUP, nodeOf('fifo'), z('x')).errno).toBe(ERRNO.ENOTDIR)
  })

  it.each([['READDIR', 4096], ['READDIR', 4_000_000], ['READDIRPLUS', 4096], ['READDIRPLUS', 65536]] as const)('lists every name once by stateless offsets (%s, %i bytes)', (op, size) => {
    const skip = op === 'READDIRPLUS' ? entryOut.size : 0
    const node = nodeOf('many')
    const names: string[] = []
    for (let offset = 0; ;) {
      const { body, errno } = ask(FUSE_OP[op], node, read(offset, size))
      expect(errno).toBe(0)
      if (body.length === 0) break
      expect(body.length).toBeLessThanOrEqual(size)
      const page = namesOf(body, skip)
      names.push(...page.map(({ name }) => name))
      offset = page.at(-1)!.next
    }
    expect(names).toEqual(['.', '..', ...NAMES])
  })

  it('gives READDIRPLUS the ids and attributes that LOOKUP gives, except for "." and ".."', () => {
    const { body } = ask(FUSE_OP.READDIRPLUS, nodeOf('many'), read(0, 4096))
    expect(entryOut.decode(body).nodeLow).toBe(0)
    const third = (entryOut.size + fuseDirent.size + 8) * 2
    expect(entryOut.decode(body, third)).toEqual(lookup(NAMES[0]!, nodeOf('many')))
  })

  it('says EINVAL rather than "end of directory" when no record fits', () => {
    expect(ask(FUSE_OP.READDIR, nodeOf('many'), read(0, 24)).errno).toBe(ERRNO.EINVAL)
  })

  it('reads links as bytes', () => {
    expect(Buffer.from(ask(FUSE_OP.READLINK, nodeOf('link')).body).toString('latin1')).toBe('some/\xff/where')
  })

  it('serves extended attributes: probes, values, ERANGE, ENODATA', () => {
    const node = nodeOf('attributed')
    const get = (name: string, size: number): ReturnType<typeof ask> => ask(FUSE_OP.GETXATTR, node, Buffer.concat([getxattrIn.encode({ size }), z(name)]))
    expect(Buffer.from(get('user.b', 100).body).toString('latin1')).toBe('\0\xff')
    expect(dataViewOf(get('user.a', 0).body).getUint32(0, true)).toBe(3)
    expect(get('user.a', 2).errno).toBe(ERRNO.ERANGE)
    expect(get('user.none', 100).errno).toBe(ERRNO.ENODATA)
    expect(Buffer.from(ask(FUSE_OP.LISTXATTR, node, getxattrIn.encode({ size: 100 })).body).toString()).toBe('user.a\0user.b\0')
    expect(ask(FUSE_OP.LISTXATTR, node, getxattrIn.encode({ size: 3 })).errno).toBe(ERRNO.ERANGE)
  })

  it('refuses getxattr for ever (ENOSYS) only where no image can have any', () => {
    const body = Buffer.concat([getxattrIn.encode({ size: 10 }), z('system.posix_acl_access')])
    start(served({ hasXattr: false }), { xattrs: false, writable: false })
    expect(ask(FUSE_OP.GETXATTR, ROOT, body).errno).toBe(ERRNO.ENOSYS)
    expect(ask(FUSE_OP.LISTXATTR, ROOT, getxattrIn.encode({ size: 10 }))).toMatchObject({ errno: 0, body: new Uint8Array() })
    start(served({ hasXattr: false }), { xattrs: true, writable: false })
    expect(ask(FUSE_OP.GETXATTR, ROOT, body).errno).toBe(ERRNO.ENODATA)
    expect(ask(FUSE_OP.LISTXATTR, ROOT, getxattrIn.encode({ size: 10 }))).toMatchObject({ errno: 0, body: new Uint8Array() })
  })

  it('refuses what would write with EROFS and what it does not know with ENOSYS', () => {
    for (const op of [FUSE_OP.WRITE, FUSE_OP.CREATE, FUSE_OP.SETATTR, FUSE_OP.UNLINK, FUSE_OP.SETXATTR]) expect(ask(op, ROOT).errno, String(op)).toBe(ERRNO.EROFS)
    for (const op of [FUSE_OP.IOCTL, FUSE_OP.LSEEK, 51_000]) expect([ERRNO.ENOSYS, ERRNO.EROFS]).toContain(ask(op, ROOT).errno)
  })

  it('does not answer what has no answer', () => {
    expect(ask(FUSE_OP.FORGET, ROOT, new Uint8Array(8)).outcome).toBe(OUTCOME.none)
    expect(ask(FUSE_OP.BATCH_FORGET, ROOT, new Uint8Array(8)).outcome).toBe(OUTCOME.none)
    expect(core.handle(0, inHeader.size - 1, 0)).toBe(OUTCOME.none)
  })

  it('opens without messages after a handshake that allows it, never for a mutable image or a writable mount', () => {
    const everything = Object.values(FUSE_INIT_FLAG).reduce((all, flag) => all | flag, 0) >>> 0
    const init = initIn.encode({ major: 7, minor: 45, maxReadahead: 131072, flags: everything, flags2: 0 })
    const reply = initOut.decode(ask(FUSE_OP.INIT, ROOT, init).body)
    expect(reply).toMatchObject({ major: 7, minor: 38, maxPages: 256 })
    expect(reply.flags & FUSE_INIT_FLAG.AUTO_INVAL_DATA).toBe(0)
    expect(reply.flags & FUSE_INIT_FLAG.POSIX_ACL).not.toBe(0)
    expect(ask(FUSE_OP.OPEN, ROOT, new Uint8Array(8)).errno).toBe(ERRNO.ENOSYS)
    start()
    ask(FUSE_OP.INIT, ROOT, init)
    expect(ask(FUSE_OP.OPENDIR, ROOT, new Uint8Array(8)).errno).toBe(0)
    start(served(), { xattrs: true, writable: true })
    ask(FUSE_OP.INIT, ROOT, init)
    expect(ask(FUSE_OP.OPEN, ROOT, new Uint8Array(8)).errno).toBe(0)
  })

  it('refuses another protocol instead of misreading it', () => {
    expect(ask(FUSE_OP.INIT, ROOT, initIn.encode({ major: 8, minor: 0, maxReadahead: 0, flags: 0, flags2: 0 })).errno).toBe(ERRNO.EIO)
    expect(core.connection).toBeUndefined()
  })

  it('survives every truncation of every request', () => {
    for (let op = 1; op < 60; op++) {
      const request = encodeRequest(op, ROOT, Buffer.concat([new Uint8Array(64).fill(0xff), z('name')]))
      for (let length = 0; length < request.length; length++) {
        input.fill(0).set(request.subarray(0, length))
        expect(() => core.handle(0, length, 0)).not.toThrow()
      }
    }
  })

  it('answers a request in segments as it answers it in one, wherever it is cut', () => {
    const request = encodeRequest(FUSE_OP.LOOKUP, ROOT, z('fifo'))
    const whole = ask(FUSE_OP.LOOKUP, ROOT, z('fifo')).body
    for (let cut = 0; cut <= request.length; cut++) {
      input.fill(0xee)
      const length = gather([request.subarray(0, cut), request.subarray(cut)], input, 0)
      expect(core.handle(0, length, 0)).toBe(OUTCOME.reply)
      const parts = [new Uint8Array(outHeader.size), new Uint8Array(100), new Uint8Array(100)]
      scatter(output.subarray(0, core.replyLength), parts)
      expect(Buffer.concat(parts).subarray(outHeader.size, outHeader.size + entryOut.size)).toEqual(Buffer.from(whole))
    }
  })

  it('shows an empty directory without a mount, and lets nothing of it be cached where the kernel is not notified', () => {
    start()
    expect(namesOf(ask(FUSE_OP.READDIR, ROOT, read(0, 4096)).body, 0).map(({ name }) => name)).toEqual(['.', '..'])
    expect(lookup('x')).toMatchObject({ nodeLow: 0, entryValidLow: 0 })
  })
})

describe('FuseCore with mounts inside', () => {
  const steps = (...ids: [number, string][]): { id: number; name: string }[] => ids.map(([id, name]) => ({ id, name }))
  const list = (node: readonly [number, number], size = 4096): string[] => {
    const names: string[] = []
    for (let offset = 0; ;) {
      const page = namesOf(ask(FUSE_OP.READDIR, node, read(offset, size)).body, 0)
      if (page.length === 0) return names
      names.push(...page.map(({ name }) => name))
      offset = page.at(-1)!.next
    }
  }

  it('shows directories on the way to a mount, and the mount\'s root at its end', () => {
    start(undefined, undefined, true)
    table.mount(5, served(), steps([2, 'a'], [3, 'b']))
    expect(lookup('a')).toMatchObject({ nodeHigh: 0, nodeLow: 2, entryValidLow: FOREVER_SECONDS })
    const b = lookup('b', [0, 2])
    expect(b).toMatchObject({ nodeHigh: 5, nodeLow: view.rootNid })
    expect(attr.decode(b.attr)).toMatchObject({ inoLow: view.rootNid, inoHigh: 5, mode: S_IFDIR | 0o711 })
    expect(lookup('fifo', [5, view.rootNid])).toMatchObject({ nodeHigh: 5 })
    expect([list(ROOT), list([0, 2])]).toEqual([['.', '..', 'a'], ['.', '..', 'b']])
    expect(lookup('..', [5, view.rootNid])).toMatchObject({ nodeHigh: 0, nodeLow: 2 })
    expect(lookup('..', [0, 2])).toMatchObject({ nodeHigh: 0, nodeLow: 1 })
  })

  it('forgets an umounted tree and the directories that led to it', () => {
    start(undefined, undefined, true)
    table.mount(5, served(), steps([2, 'a'], [3, 'b']))
    table.mount(6, served(), steps([2, 'a'], [4, 'c']))
    table.unmount(5)
    expect(list([0, 2])).toEqual(['.', '..', 'c'])
    table.unmount(6)
    expect(list(ROOT)).toEqual(['.', '..'])
    expect([ask(FUSE_OP.GETATTR, [5, view.rootNid]).errno, ask(FUSE_OP.GETATTR, [0, 2]).errno]).toEqual([ERRNO.ESTALE, ERRNO.ESTALE])
  })

  it('replaces a mount: the name leads to the new one, nodes of the old one are served until it is unmounted', () => {
    start()
    table.mount(5, served(), steps([2, 'a']))
    table.mount(6, served(), steps([2, 'a']))
    expect(lookup('a')).toMatchObject({ nodeHigh: 6 })
    expect(ask(FUSE_OP.GETATTR, [5, view.rootNid]).errno).toBe(0)
    table.unmount(5)
    expect([ask(FUSE_OP.GETATTR, [5, view.rootNid]).errno, lookup('a').nodeHigh]).toEqual([ERRNO.ESTALE, 6])
  })

  it('lists a directory of an image with the mounts inside it, each name once, and finds them there', () => {
    table.mount(10, served(), steps([2, 'many'], [3, NAMES[7]!])) // a file of the image is covered
    table.mount(11, served(), steps([2, 'many'], [4, 'new'], [5, 'below']))
    table.mount(12, served(), steps([6, 'zzz']))
    const many = nodeOf('many')
    expect(many[0]).toBe(9)
    expect(list(many)).toEqual(['.', '..', ...NAMES, 'new'])
    expect(list(many, 400)).toEqual(['.', '..', ...NAMES, 'new'])
    expect(list(ROOT)).toEqual(['.', '..', 'attributed', 'fifo', 'link', 'many', 'zzz'])
    expect([lookup(NAMES[7]!, many).nodeHigh, lookup(NAMES[8]!, many).nodeHigh, lookup('zzz').nodeHigh]).toEqual([10, 9, 12])
    const added = lookup('new', many)
    expect([added.nodeHigh, added.nodeLow, lookup('below', [added.nodeHigh, added.nodeLow]).nodeHigh]).toEqual([0, 4, 11])
    for (const serial of [10, 11, 12]) table.unmount(serial)
    expect(list(many)).toEqual(['.', '..', ...NAMES])
    expect(lookup(NAMES[7]!, many).nodeHigh).toBe(9)
  })

  it('gives READDIRPLUS what LOOKUP gives for a mountpoint that covers a directory of the image', () => {
    table.mount(10, served(), steps([2, 'many']))
    const { body } = ask(FUSE_OP.READDIRPLUS, ROOT, read(0, 4096))
    const plus = entryOut.size + fuseDirent.size
    const records = namesOf(body, entryOut.size)
    let at = 0
    for (const { name } of records) {
      if (name === 'many') expect(entryOut.decode(body, at)).toEqual(lookup('many'))
      at += plus + Math.ceil(name.length / 8) * 8
    }
    expect(lookup('many').nodeHigh).toBe(10)
  })

  it('shows what is below a root that comes and goes', () => {
    start()
    table.mount(5, served(), steps([2, 'many'], [3, 'x']))
    expect(lookup('many')).toMatchObject({ nodeHigh: 0, nodeLow: 2 })
    table.mount(9, served())
    const many = nodeOf('many')
    expect([many[0], lookup('x', many).nodeHigh]).toEqual([9, 5])
    table.unmount(9)
    expect([lookup('many').nodeLow, lookup('x', [0, 2]).nodeHigh, list(ROOT)]).toEqual([2, 5, ['.', '..', 'many']])
  })
})
