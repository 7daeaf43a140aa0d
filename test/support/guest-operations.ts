// Operations that change files, as a guest's kernel asks for them through a front end of our own.

import { createIn, mkdirIn, mknodIn, openIn, releaseIn, renameIn, setattrIn, writeIn, writeOut } from '../../src/wire/fuse/change.ts'
import { openOut, readIn } from '../../src/wire/fuse/file.ts'
import { entryOut } from '../../src/wire/fuse/inode.ts'
import { FUSE_OP } from '../../src/wire/fuse/opcode.ts'
import type { Node } from './guest-files.ts'
import type { TestFrontEnd } from './vhost-front-end.ts'

const text = (...names: readonly string[]): Buffer => Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1')
const O_RDWR = 2

/** A node with the handle of an open file. */
export interface OpenNode { readonly error: number; readonly node: Node; readonly handle: bigint }

function nodeOf(body: Buffer): Node {
  const { nodeLow, nodeHigh } = entryOut.decode(body)
  return { low: nodeLow, high: nodeHigh }
}

export function create(guest: TestFrontEnd, parent: Node, name: string, flags = O_RDWR): OpenNode {
  const { error, body } = guest.call(guest.request(FUSE_OP.CREATE, parent, Buffer.concat([createIn.encode({ flags, mode: 0o100644, umask: 0, openFlags: 0 }), text(name)])), 16 + entryOut.size + openOut.size)
  return error === 0 ? { error, node: nodeOf(body), handle: openOut.decode(body, entryOut.size).handle } : { error, node: parent, handle: 0n }
}

export function open(guest: TestFrontEnd, node: Node, flags = O_RDWR, opcode: number = FUSE_OP.OPEN): OpenNode {
  const { error, body } = guest.call(guest.request(opcode, node, openIn.encode({ flags, openFlags: 0 })), 16 + openOut.size)
  return { error, node, handle: error === 0 ? openOut.decode(body).handle : 0n }
}

export function release(guest: TestFrontEnd, { node, handle }: Pick<OpenNode, 'node' | 'handle'>): number {
  return guest.call(guest.request(FUSE_OP.RELEASE, node, releaseIn.encode({ handle, flags: 0, releaseFlags: 0, lockOwner: 0n })), 16).error
}

export function readOpen(guest: TestFrontEnd, { node, handle }: Pick<OpenNode, 'node' | 'handle'>, offset: number, size: number): { readonly error: number; readonly body: Buffer } {
  return guest.call(guest.request(FUSE_OP.READ, node, readIn.encode({ handle, offsetLow: offset, offsetHigh: 0, size, readFlags: 0, lockOwner: 0n, flags: 0 })), 16 + size)
}

/** Bytes written, or a negative errno. */
export function writeOpen(guest: TestFrontEnd, { node, handle }: Pick<OpenNode, 'node' | 'handle'>, offset: number, bytes: Uint8Array): number {
  const head = writeIn.encode({ handle, offsetLow: offset, offsetHigh: 0, size: bytes.length, writeFlags: 0, lockOwner: 0n, flags: 0 })
  const { error, body } = guest.call(guest.request(FUSE_OP.WRITE, node, Buffer.concat([head, bytes])), 16 + writeOut.size, { parts: 3 })
  return error === 0 ? writeOut.decode(body).size : error
}

/** Everything that takes a name, with `name` for each of its names: [operation, errno] a row. */
export function withName(guest: TestFrontEnd, parent: Node, name: string, good: string): [string, number][] {
  const make = (opcode: number, head: Uint8Array, ...names: string[]): number => guest.call(guest.request(opcode, parent, Buffer.concat([head, text(...names)])), 16 + entryOut.size + openOut.size).error
  const nothing = Buffer.alloc(0)
  const into = renameIn.encode({ parentLow: parent.low, parentHigh: parent.high })
  return [
    ['lookup', make(FUSE_OP.LOOKUP, nothing, name)], ['create', create(guest, parent, name).error], ['mkdir', make(FUSE_OP.MKDIR, mkdirIn.encode({ mode: 0o755, umask: 0 }), name)],
    ['mknod', make(FUSE_OP.MKNOD, mknodIn.encode({ mode: 0o100644, rdev: 0, umask: 0 }), name)], ['symlink', make(FUSE_OP.SYMLINK, nothing, name, 'target')],
    ['unlink', make(FUSE_OP.UNLINK, nothing, name)], ['rmdir', make(FUSE_OP.RMDIR, nothing, name)], ['rename from', make(FUSE_OP.RENAME, into, name, 'renamed')], ['rename to', make(FUSE_OP.RENAME, into, good, name)],
  ]
}

export function mknod(guest: TestFrontEnd, parent: Node, name: string, mode: number, rdev: number): { readonly error: number; readonly node: Node } {
  const { error, body } = guest.call(guest.request(FUSE_OP.MKNOD, parent, Buffer.concat([mknodIn.encode({ mode, rdev, umask: 0 }), text(name)])), 16 + entryOut.size)
  return { error, node: error === 0 ? nodeOf(body) : parent }
}

export function forget(guest: TestFrontEnd, node: Node, count: number): void {
  const body = Buffer.alloc(8)
  body.writeBigUInt64LE(BigInt(count))
  guest.call(guest.request(FUSE_OP.FORGET, node, body), 16)
}

export function truncate(guest: TestFrontEnd, node: Node, size: number): number {
  const change = { valid: 8, handle: 0n, size: BigInt(size), lockOwner: 0n, atimeLow: 0, atimeHigh: 0, mtimeLow: 0, mtimeHigh: 0, ctime: 0n, atimeNsec: 0, mtimeNsec: 0, ctimeNsec: 0, mode: 0, uid: 0, gid: 0 }
  return guest.call(guest.request(FUSE_OP.SETATTR, node, setattrIn.encode(change)), 16 + 104).error
}
