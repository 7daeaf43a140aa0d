// The FUSE server without its transport: request bytes in, reply bytes, file extents or a miss out. It keeps nothing about its client:
// node ids and directory offsets are functions of the image, `unique` is echoed as it came. So takeover, many mounts and virtqueues
// change nothing here.
// SPEC: linux include/uapi/linux/fuse.h; fs/fuse/*.c for what the kernel does with each answer.

import { CodedError } from '../../core/errors.ts'
import { publish } from '../../core/diagnostics.ts'
import { dataViewOf } from '../../core/struct.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { EROFS_NAME_LEN } from '../../format/erofs/super-block.ts'
import { S_IFDIR, S_IFMT, S_IFREG } from '../../format/erofs/inode.ts'
import { FOPEN, getxattrIn, getxattrOut, kstatfs, openOut, readIn } from '../../wire/fuse/file.ts'
import { inHeader, outHeader } from '../../wire/fuse/header.ts'
import { initIn, initOut } from '../../wire/fuse/init.ts'
import { interruptIn } from '../../wire/fuse/inode.ts'
import { FUSE_OP, FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'
import { ERRNO, errnoOf } from '../errno.ts'
import { FOREVER_SECONDS, type Owner, writeAttrOut, writeEntry } from './attributes.ts'
import { type Connection, type ConnectionPolicy, MAX_READ, negotiate, REPLY_SLOT } from './connection.ts'
import { writeDirectory } from './directory.ts'
import type { FileSystemTable, Mounted } from './file-system-table.ts'
import { type LiveServer, serveLive } from './live-requests.ts'
import { isRootId, MAX_NID } from './node-id.ts'
import { Extents, type ServedFileSystem } from './served-file-system.ts'

/**
 * What became of a request.
 * none: no reply is due. reply: `replyLength` bytes are in the output. file: the header is, and `extents` say which file bytes follow it.
 * miss: a READ (`miss`) whose bytes must be fetched first. interrupt: the request with id `miss.unique*` is no longer wanted.
 * delegated: it is for file systems that another thread serves: for `mounted`, or for all of them.
 */
export const OUTCOME = { none: 0, reply: 1, file: 2, miss: 3, interrupt: 4, delegated: 5 } as const
export type Outcome = (typeof OUTCOME)[keyof typeof OUTCOME]

/** A READ that cannot be answered yet, as plain numbers: it crosses a thread boundary. */
export interface Miss { uniqueLow: number; uniqueHigh: number; serial: number; nid: number; offset: number; length: number }

const H = inHeader.offsetOf
const R = outHeader.offsetOf
const READ = readIn.offsetOf
const WORD = 2 ** 32
const BODY = inHeader.size
const REPLY = outHeader.size

/** Answers FUSE requests from file systems alone: bytes in, bytes or a miss out. Knows no descriptor, no thread, no client. */
export class FuseCore {
  /** Of the last `reply` or `file` outcome: bytes written to the output, header included. */
  replyLength = 0
  /** Of the last outcome: the operation, and the errno it was answered with (0 for success). */
  opcode = 0
  errno = 0
  /** Of the last `file` outcome. */
  readonly extents = new Extents()
  /** Of the last `miss` or `interrupt` outcome. */
  readonly miss: Miss = { uniqueLow: 0, uniqueHigh: 0, serial: 0, nid: 0, offset: 0, length: 0 }
  /** Of the last request: the file system that it was for; undefined for requests about none, or about one that is gone. */
  mounted: Mounted | undefined
  /** Set by INIT; a taken-over session starts with it. */
  connection: Connection | undefined

  readonly fileSystems: FileSystemTable
  readonly #policy: ConnectionPolicy
  readonly #owner: Owner
  readonly #input: Buffer
  readonly #in: DataView
  readonly #output: Buffer
  readonly #out: DataView
  // The request at hand.
  #at = 0
  #length = 0
  #replyAt = 0

  /** `input` and `output` are the transport's buffers; `owner` owns the files of images that record no owners. */
  constructor(fileSystems: FileSystemTable, policy: ConnectionPolicy, owner: Owner, input: Uint8Array, output: Uint8Array) {
    this.fileSystems = fileSystems
    this.#policy = policy
    this.#owner = owner
    this.#input = Buffer.from(input.buffer, input.byteOffset, input.length)
    this.#output = Buffer.from(output.buffer, output.byteOffset, output.length)
    this.#in = dataViewOf(input)
    this.#out = dataViewOf(output)
  }

  /** Serves the request of `length` bytes at `at` of the input; a reply goes to `replyAt` of the output, where REPLY_SLOT bytes are free. */
  handle(at: number, length: number, replyAt: number): Outcome {
    this.#at = at
    this.#length = length
    this.#replyAt = replyAt
    this.errno = 0
    this.opcode = 0
    this.mounted = undefined
    if (length < BODY) return OUTCOME.none // not even an id to answer to; the kernel never sends this
    this.opcode = this.#in.getUint32(at + H.opcode, true)
    try {
      return (this.fileSystems.hasLive ? this.#live() : undefined) ?? this.#dispatch()
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === ERRNO.EIO) publish('serve:request:error', { opcode: this.opcode, errno, message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
      return this.fail(errno)
    }
  }

  /** Answers the request at hand with an error. */
  fail(errno: number): Outcome {
    this.errno = errno
    return this.#reply(0)
  }

  /** The READ of `length` bytes at `at` of the input, which was a `file` outcome, as a miss: the file did not have the bytes after all. */
  asMiss(at: number, length: number): Miss {
    this.#at = at
    this.#length = length
    const { fs, serial } = this.#fileSystem()
    const inode = this.#inodeOf(fs, S_IFREG)
    return this.#missOf(serial, inode, this.#offset(), Math.min(this.#size(), inode.size - this.#offset()))
  }

  /** What the request at `at` of the input, which has been served, was about; the offset is that of a READ. */
  subject(at: number): { readonly serial: number; readonly nid: number; readonly offset: number } {
    this.#at = at
    const { serial = 0, fs } = this.mounted ?? {}
    const low = this.#in.getUint32(at + H.nodeLow, true)
    const nid = fs && isRootId(this.#in.getUint32(at + H.nodeHigh, true), low) ? fs.view.rootNid : low
    return { serial, nid, offset: this.opcode === FUSE_OP.READ ? this.#offset() : 0 }
  }

  /** A client that has come, or gone: nothing of what live file systems told is known to anybody any more. */
  forgetClient(): void {
    for (const { live, journal } of this.fileSystems.servers()) {
      live.reset?.()
      journal?.forget()
    }
  }

  /** What became of a request to live file systems. Undefined for any other; what leads from their directories to something that is mounted there is one, too. */
  #live(): Outcome | undefined {
    switch (this.opcode) {
      case FUSE_OP.INTERRUPT: return undefined
      case FUSE_OP.INIT: case FUSE_OP.DESTROY:
        this.forgetClient()
        return undefined
      case FUSE_OP.BATCH_FORGET:
        for (const server of this.fileSystems.servers()) this.#serveLive(server)
        return this.fileSystems.hasDelegated ? OUTCOME.delegated : OUTCOME.none
      default: {
        const nodeLow = this.#in.getUint32(this.#at + H.nodeLow, true)
        const mounted = this.fileSystems.get(this.#in.getUint32(this.#at + H.nodeHigh, true), nodeLow)
        if (!mounted || (mounted.server === undefined && !mounted.fs.delegated)) return undefined
        if (this.opcode === FUSE_OP.LOOKUP && this.fileSystems.cross(mounted, nodeLow, this.#text(BODY))) return undefined
        this.mounted = mounted
        return mounted.server ? this.#serveLive(mounted.server) : OUTCOME.delegated
      }
    }
  }

  #serveLive(server: LiveServer): Outcome {
    const length = serveLive(server, this.#input.subarray(this.#at, this.#at + this.#length), this.#output.subarray(this.#replyAt, this.#replyAt + REPLY_SLOT))
    if (typeof length !== 'number') throw new Error('a live file system of this thread answers at once')
    if (length === 0) return OUTCOME.none
    this.replyLength = length
    this.errno = -this.#out.getInt32(this.#replyAt + R.error, true)
    return OUTCOME.reply
  }

  #dispatch(): Outcome {
    switch (this.opcode) {
      case FUSE_OP.LOOKUP: return this.#lookup()
      case FUSE_OP.GETATTR: return this.#getattr()
      case FUSE_OP.READ: return this.#read()
      case FUSE_OP.READDIR: return this.#readDirectory(false)
      case FUSE_OP.READDIRPLUS: return this.#readDirectory(true)
      case FUSE_OP.READLINK: return this.#readlink()
      case FUSE_OP.GETXATTR: return this.#getxattr()
      case FUSE_OP.LISTXATTR: return this.#listxattr()
      case FUSE_OP.OPEN: return this.#open(this.#fileSystem().fs.openFlags ?? FOPEN.KEEP_CACHE)
      case FUSE_OP.OPENDIR: return this.#open(FOPEN.KEEP_CACHE | FOPEN.CACHE_DIR)
      case FUSE_OP.STATFS: return this.#statfs()
      case FUSE_OP.FORGET: case FUSE_OP.BATCH_FORGET: return OUTCOME.none // no state, nothing to forget
      case FUSE_OP.RELEASE: case FUSE_OP.RELEASEDIR: case FUSE_OP.ACCESS: case FUSE_OP.DESTROY:
      case FUSE_OP.FSYNC: case FUSE_OP.FSYNCDIR: case FUSE_OP.SYNCFS: return this.#reply(0) // not "unsupported": the kernel would never ask anybody again
      case FUSE_OP.INTERRUPT: return this.#interrupt()
      case FUSE_OP.INIT: return this.#init()
      case FUSE_OP.SETATTR: case FUSE_OP.SYMLINK: case FUSE_OP.MKNOD: case FUSE_OP.MKDIR: case FUSE_OP.UNLINK: case FUSE_OP.RMDIR:
      case FUSE_OP.RENAME: case FUSE_OP.RENAME2: case FUSE_OP.LINK: case FUSE_OP.WRITE: case FUSE_OP.SETXATTR: case FUSE_OP.REMOVEXATTR:
      case FUSE_OP.CREATE: case FUSE_OP.TMPFILE: case FUSE_OP.FALLOCATE: case FUSE_OP.COPY_FILE_RANGE:
        return this.fail(ERRNO.EROFS)
      // FLUSH and LSEEK too: the kernel stops asking and does by itself what is right for files without dirty pages and holes
      default: return this.fail(ERRNO.ENOSYS)
    }
  }

  #lookup(): Outcome {
    const mounted = this.#fileSystem()
    const { view } = mounted.fs
    const name = this.#text(BODY)
    const directory = this.#inodeOf(mounted.fs, S_IFDIR)
    const crossed = this.fileSystems.cross(mounted, directory.nid, name)
    if (crossed) return this.#entry(crossed.mounted, crossed.nid, mounted.fs)
    const found = view.lookup(directory, name)
    if (found && found.nid > MAX_NID) throw new CodedError('FORMAT_OUT_OF_RANGE', 'inode lies beyond 128 GiB', { nid: found.nid })
    return this.#entry(mounted, found?.nid, mounted.fs)
  }

  /** Answers with node `nid` of `mounted`, or with "no such name"; whether that may be kept is the business of the directory's file system. */
  #entry(mounted: Mounted, nid: number | undefined, { mutable }: ServedFileSystem): Outcome {
    const { view } = mounted.fs
    const inode = nid === undefined ? undefined : view.inode(nid)
    const root = mounted === this.fileSystems.root && nid === view.rootNid
    return this.#reply(writeEntry(this.#out, this.#output, this.#body(), {
      nodeHigh: root ? 0 : mounted.serial, nodeLow: root ? FUSE_ROOT_ID : nid ?? 0, inode, inoHigh: mounted.inoHigh, owner: this.#ownerOf(mounted.fs),
      validSeconds: mutable ? 0 : FOREVER_SECONDS,
    }))
  }

  #getattr(): Outcome {
    const { fs, inoHigh } = this.#fileSystem()
    return this.#reply(writeAttrOut(this.#out, this.#body(), { inode: this.#inodeOf(fs), inoHigh, owner: this.#ownerOf(fs), validSeconds: fs.mutable ? 0 : FOREVER_SECONDS }))
  }

  #read(): Outcome {
    this.#need(readIn.size)
    const { fs, serial } = this.#fileSystem()
    const inode = this.#inodeOf(fs, S_IFREG)
    const offset = this.#offset()
    const length = Math.min(this.#size(), inode.size - offset)
    if (length <= 0) return this.#reply(0)
    this.extents.clear()
    if (!fs.locate(inode, offset, length, this.extents)) {
      this.#missOf(serial, inode, offset, length)
      return OUTCOME.miss
    }
    this.#reply(length)
    return OUTCOME.file
  }

  #readDirectory(plus: boolean): Outcome {
    this.#need(readIn.size)
    const mounted = this.#fileSystem()
    const start = this.#body()
    const end = writeDirectory(this.#out, this.#output, start, start + this.#size(), {
      fileSystems: this.fileSystems, mounted, directory: this.#inodeOf(mounted.fs, S_IFDIR), cursor: this.#offset(), plus,
      owner: this.#owner, validSeconds: mounted.fs.mutable ? 0 : FOREVER_SECONDS,
    })
    return this.#reply(end - start)
  }

  #readlink(): Outcome {
    const { fs } = this.#fileSystem()
    const target = fs.view.readlink(this.#inodeOf(fs))
    this.#output.set(target, this.#body())
    return this.#reply(target.length)
  }

  // ENOSYS latches for the whole connection: the kernel never asks for a value again. Only where no image can ever have one.
  #getxattr(): Outcome {
    this.#need(getxattrIn.size)
    const { fs } = this.#fileSystem()
    if (!fs.hasXattr) return this.fail(this.#policy.xattrs ? ERRNO.ENODATA : ERRNO.ENOSYS)
    const value = fs.view.xattr(this.#inodeOf(fs), this.#text(BODY + getxattrIn.size))
    return value ? this.#sized(value.length, (at) => this.#output.set(value, at)) : this.fail(ERRNO.ENODATA)
  }

  // Never ENOSYS: "this file has none" is an answer that every program takes, "not supported" is not (and few programs list).
  #listxattr(): Outcome {
    this.#need(getxattrIn.size)
    const { fs } = this.#fileSystem()
    const list = fs.hasXattr ? fs.view.xattrs(this.#inodeOf(fs)).map(([name]) => `${name}\0`).join('') : ''
    return this.#sized(list.length, (at) => void this.#output.write(list, at, 'latin1'))
  }

  /** The answer to a probe (size 0: the length) or the bytes, ERANGE when they do not fit the caller's buffer. */
  #sized(length: number, write: (at: number) => void): Outcome {
    const size = this.#in.getUint32(this.#at + BODY + getxattrIn.offsetOf.size, true)
    if (size === 0) {
      getxattrOut.encode({ size: length }, this.#output, this.#body())
      return this.#reply(getxattrOut.size)
    }
    if (length > size) return this.fail(ERRNO.ERANGE)
    write(this.#body())
    return this.#reply(length)
  }

  // ENOSYS to the first open says: from now on open without asking, keeping caches (NO_OPEN_SUPPORT). An image that changes cannot.
  #open(flags: number): Outcome {
    if (this.connection?.zeroMessageOpens && !this.#fileSystem().fs.mutable) return this.fail(ERRNO.ENOSYS)
    openOut.encode({ handle: 0n, flags: this.#fileSystem().fs.mutable ? 0 : flags }, this.#output, this.#body())
    return this.#reply(openOut.size)
  }

  #statfs(): Outcome {
    kstatfs.encode({ blocks: 0n, freeBlocks: 0n, available: 0n, files: 0n, freeFiles: 0n, blockSize: 4096, nameLength: EROFS_NAME_LEN, fragment: 4096 },
      this.#output, this.#body())
    return this.#reply(kstatfs.size)
  }

  #interrupt(): Outcome {
    this.#need(interruptIn.size)
    this.miss.uniqueLow = this.#in.getUint32(this.#at + BODY + interruptIn.offsetOf.uniqueLow, true)
    this.miss.uniqueHigh = this.#in.getUint32(this.#at + BODY + interruptIn.offsetOf.uniqueHigh, true)
    return OUTCOME.interrupt
  }

  // Old kernels send a shorter INIT: decode it extended with zeros.
  #init(): Outcome {
    const body = new Uint8Array(initIn.size)
    body.set(this.#input.subarray(this.#at + BODY, this.#at + Math.min(this.#length, BODY + initIn.size)))
    const { connection, reply } = negotiate(initIn.decode(body), this.fileSystems.hasLive ? { ...this.#policy, writable: true } : this.#policy)
    this.connection = connection
    initOut.encode(reply, this.#output, this.#body())
    return this.#reply(initOut.size)
  }

  // --- the request at hand -------------------------------------------------------------------------------------------------------

  #fileSystem(): Mounted {
    this.mounted = this.fileSystems.get(this.#in.getUint32(this.#at + H.nodeHigh, true), this.#in.getUint32(this.#at + H.nodeLow, true))
    if (!this.mounted) throw new CodedError('SERVE_STALE_NODE', 'the file system of this node is not mounted')
    return this.mounted
  }

  /** The request's inode; with `type`, it must be of that type. */
  #inodeOf({ view }: ServedFileSystem, type?: number): Inode {
    const low = this.#in.getUint32(this.#at + H.nodeLow, true)
    const inode = view.inode(isRootId(this.#in.getUint32(this.#at + H.nodeHigh, true), low) ? view.rootNid : low)
    if (type !== undefined && (inode.mode & S_IFMT) !== type) throw new CodedError(type === S_IFDIR ? 'RAFS_NOT_DIRECTORY' : 'SERVE_BAD_REQUEST', 'inode is of another type', { nid: low })
    return inode
  }

  #ownerOf(fs: ServedFileSystem): Owner | undefined {
    return fs.explicitIds ? undefined : this.#owner
  }

  #offset(): number {
    const at = this.#at + BODY
    const offset = this.#in.getUint32(at + READ.offsetHigh, true) * WORD + this.#in.getUint32(at + READ.offsetLow, true)
    if (offset > Number.MAX_SAFE_INTEGER) throw new CodedError('SERVE_BAD_REQUEST', 'offset is 2^53 or more')
    return offset
  }

  // LIMIT: replies have room for MAX_READ; the kernel was told so and keeps to it, a guest's may not.
  #size(): number {
    return Math.min(this.#in.getUint32(this.#at + BODY + READ.size, true), MAX_READ)
  }

  /** NUL-terminated byte string `skip` bytes into the request. */
  #text(skip: number): string {
    this.#need(skip - BODY + 1)
    const end = this.#at + this.#length - 1
    if (this.#input[end] !== 0) throw new CodedError('SERVE_BAD_REQUEST', 'name without its NUL')
    return this.#input.toString('latin1', this.#at + skip, end)
  }

  #need(bytes: number): void {
    if (this.#length < BODY + bytes) throw new CodedError('SERVE_BAD_REQUEST', 'request is shorter than its structure')
  }

  #missOf(serial: number, { nid }: Inode, offset: number, length: number): Miss {
    const { miss } = this
    miss.uniqueLow = this.#in.getUint32(this.#at + H.uniqueLow, true)
    miss.uniqueHigh = this.#in.getUint32(this.#at + H.uniqueHigh, true)
    miss.serial = serial
    miss.nid = nid
    miss.offset = offset
    miss.length = length
    return miss
  }

  // --- the reply ------------------------------------------------------------------------------------------------------------------

  #body(): number {
    return this.#replyAt + REPLY
  }

  #reply(bodyLength: number): Outcome {
    const at = this.#replyAt
    this.replyLength = REPLY + bodyLength
    this.#out.setUint32(at + R.length, this.replyLength, true)
    this.#out.setInt32(at + R.error, -this.errno, true)
    this.#out.setUint32(at + R.uniqueLow, this.#in.getUint32(this.#at + H.uniqueLow, true), true)
    this.#out.setUint32(at + R.uniqueHigh, this.#in.getUint32(this.#at + H.uniqueHigh, true), true)
    return OUTCOME.reply
  }
}
