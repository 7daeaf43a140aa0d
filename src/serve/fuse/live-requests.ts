// Requests for a live file system: bytes in, one method of it, bytes out, at once or later. Touches nothing but the two buffers that it is
// given, so it serves a worker's own slots as well as a copy on another thread.
// SPEC: linux include/uapi/linux/fuse.h; fs/fuse/*.c for what the kernel does with each answer.

import { publish } from '../../core/diagnostics.ts'
import { CodedError, hasCode } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import { copyFileRangeIn, createIn, fallocateIn, FATTR, fsyncIn, linkIn, lseekIn, lseekOut, mkdirIn, mknodIn, openIn, releaseIn, rename2In, renameIn, setattrIn, setxattrIn, writeIn, writeOut } from '../../wire/fuse/change.ts'
import { getxattrIn, getxattrOut, kstatfs, openOut, readIn } from '../../wire/fuse/file.ts'
import { inHeader, outHeader } from '../../wire/fuse/header.ts'
import { attrOut, batchForgetIn, entryOut, forgetOne, getattrIn } from '../../wire/fuse/inode.ts'
import { FUSE_OP, FUSE_ROOT_ID } from '../../wire/fuse/opcode.ts'
import { ERRNO, errnoOf } from '../errno.ts'
import type { Journal, JournalEntry } from '../journal.ts'
import { DirectorySink, type LivePlace, mixIno, Told } from './live-answers.ts'
import type { Answer, AttributeChange, LiveFileSystem, Moment, NodeAnswer, Operation } from './live-file-system.ts'

const H = inHeader.offsetOf
const R = outHeader.offsetOf
const BODY = inHeader.size
const REPLY = outHeader.size
const WORD = 2 ** 32
/** SPEC: fuse.h FUSE_UNIQUE_RESEND, in the high word. */
const RESENT = 0x8000_0000
const FSYNC_DATA_ONLY = 1

/** A live file system, where its nodes are, and the journal that answers what a server before this one has done. */
export interface LiveServer extends LivePlace {
  readonly live: LiveFileSystem
  readonly journal?: Journal | undefined
}

/** A live file system as whoever delegates to it needs it. */
export interface DelegateServer {
  /** See serveLive. */
  serve(request: Uint8Array, reply: Uint8Array): Answer
  /** See LiveFileSystem. */
  abandon(): void
}

/** `server` for whoever delegates to it. */
export function delegateOf(server: LiveServer): DelegateServer {
  return { serve: (request, reply) => serveLive(server, request, reply), abandon: () => server.live.abandon?.() }
}

/** Serves one request, header included. The length of the reply that was written to `reply`, header included; 0 when none is due. */
export function serveLive(server: LiveServer, request: Uint8Array, reply: Uint8Array): Answer {
  return new LiveRequest(server, request, reply).serve()
}

/** The errno for what an operation threw. */
function thrown(error: unknown): number {
  const errno = hasCode(error, 'NATIVE_SYSCALL') ? Number(error.context['errno'] ?? ERRNO.EIO) : errnoOf(error)
  return errno > 0 ? errno : ERRNO.EIO
}

class LiveRequest implements Operation {
  readonly #server: LiveServer
  readonly #live: LiveFileSystem
  readonly #bytes: Buffer
  readonly #in: DataView
  readonly #reply: Buffer
  readonly #out: DataView
  readonly #opcode: number
  readonly #node: number
  readonly #lowUnique: number
  readonly #highUnique: number
  #entry: JournalEntry | undefined
  begun: number | undefined

  constructor(server: LiveServer, request: Uint8Array, reply: Uint8Array) {
    this.#server = server
    this.#live = server.live
    this.#bytes = Buffer.from(request.buffer, request.byteOffset, request.length)
    this.#in = dataViewOf(request)
    this.#reply = Buffer.from(reply.buffer, reply.byteOffset, reply.length)
    this.#out = dataViewOf(reply)
    this.#opcode = this.#in.getUint32(H.opcode, true)
    this.#node = this.#in.getUint32(H.nodeLow, true)
    this.#lowUnique = this.#in.getUint32(H.uniqueLow, true)
    this.#highUnique = this.#in.getUint32(H.uniqueHigh, true)
  }

  get uid(): number { return this.#in.getUint32(H.uid, true) }
  get gid(): number { return this.#in.getUint32(H.gid, true) }
  get pid(): number { return this.#in.getUint32(H.pid, true) }

  get umask(): number {
    switch (this.#opcode) {
      case FUSE_OP.MKNOD: return this.#word(mknodIn.offsetOf.umask)
      case FUSE_OP.MKDIR: return this.#word(mkdirIn.offsetOf.umask)
      case FUSE_OP.CREATE: return this.#word(createIn.offsetOf.umask)
      default: return 0
    }
  }

  begin(note = 0): void {
    this.#entry = this.#server.journal?.begin(this.#lowUnique, this.#highUnique & ~RESENT, note)
  }

  serve(): Answer {
    const { journal } = this.#server
    if (journal && (this.#highUnique & RESENT) !== 0) {
      const known = journal.find(this.#lowUnique, this.#highUnique & ~RESENT)
      if (known) publish('serve:request:repeated', { opcode: this.#opcode, done: known.reply !== undefined })
      if (known?.reply) return this.#again(known.reply)
      this.begun = known?.note
    }
    try {
      const answer = this.#dispatch()
      if (typeof answer === 'number') return this.#finish(answer)
      return answer.then((value) => this.#finish(value), (error: unknown) => this.#fail(error))
    } catch (error) {
      return this.#fail(error)
    }
  }

  /** What the last server answered, or would have. */
  #again(reply: Uint8Array): number {
    this.#reply.set(reply)
    this.#out.setUint32(R.uniqueLow, this.#lowUnique, true)
    this.#out.setUint32(R.uniqueHigh, this.#highUnique, true)
    return reply.length
  }

  /** `answer`: body bytes, a negative errno, or NO_REPLY. */
  #finish(answer: number): number {
    if (answer === NO_REPLY) return 0
    const length = REPLY + Math.max(answer, 0)
    this.#out.setUint32(R.length, length, true)
    this.#out.setInt32(R.error, Math.min(answer, 0), true)
    this.#out.setUint32(R.uniqueLow, this.#lowUnique, true)
    this.#out.setUint32(R.uniqueHigh, this.#highUnique, true)
    if (this.#entry) this.#server.journal?.finish(this.#entry, this.#reply.subarray(0, length))
    return length
  }

  #fail(error: unknown): number {
    const errno = thrown(error)
    if (errno === ERRNO.EIO) publish('serve:request:error', { opcode: this.#opcode, errno, message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
    return this.#finish(-errno)
  }

  #dispatch(): Answer {
    const live = this.#live
    const node = this.#node
    switch (this.#opcode) {
      case FUSE_OP.LOOKUP: return this.#told((out) => live.lookup(node, this.#name(0), out))
      case FUSE_OP.FORGET:
        live.forget(node, this.#number(0))
        return NO_REPLY
      case FUSE_OP.BATCH_FORGET: return this.#forgetAll()
      case FUSE_OP.GETATTR: return this.#attributes((out) => live.getattr(node, this.#number(getattrIn.offsetOf.handle), out))
      case FUSE_OP.SETATTR: return this.#attributes((out) => live.setattr(node, this.#change(), this, out))
      case FUSE_OP.READLINK: return live.readlink(node, this.#body())
      case FUSE_OP.SYMLINK: {
        const name = this.#name(0)
        return this.#told((out) => live.symlink(node, name, Buffer.from(this.#name(name.length + 1, false), 'latin1'), this, out))
      }
      case FUSE_OP.MKNOD: return this.#told((out) => live.mknod(node, this.#name(mknodIn.size), this.#word(mknodIn.offsetOf.mode), this.#word(mknodIn.offsetOf.rdev), this, out))
      case FUSE_OP.MKDIR: return this.#told((out) => live.mkdir(node, this.#name(mkdirIn.size), this.#word(mkdirIn.offsetOf.mode), this, out))
      case FUSE_OP.UNLINK: return empty(live.unlink(node, this.#name(0), this))
      case FUSE_OP.RMDIR: return empty(live.rmdir(node, this.#name(0), this))
      case FUSE_OP.RENAME: return this.#rename(renameIn.size, 0)
      case FUSE_OP.RENAME2: return this.#rename(rename2In.size, this.#word(rename2In.offsetOf.flags))
      case FUSE_OP.LINK: {
        const from = this.#otherNode(linkIn.offsetOf.nodeLow)
        return from === undefined ? -ERRNO.EXDEV : this.#told((out) => live.link(from, node, this.#name(linkIn.size), this, out))
      }
      case FUSE_OP.OPEN: return this.#opened((out) => live.open(node, this.#word(openIn.offsetOf.flags), out))
      case FUSE_OP.OPENDIR: return this.#opened((out) => live.opendir(node, out))
      case FUSE_OP.CREATE: return this.#create()
      case FUSE_OP.RELEASE: return empty(live.release(node, this.#number(releaseIn.offsetOf.handle)))
      case FUSE_OP.RELEASEDIR: return empty(live.releasedir(node, this.#number(releaseIn.offsetOf.handle)))
      case FUSE_OP.READ: {
        this.#need(readIn.size)
        return live.read(node, this.#number(readIn.offsetOf.handle), this.#number(readIn.offsetOf.offsetLow), this.#body(this.#word(readIn.offsetOf.size)))
      }
      case FUSE_OP.WRITE: return this.#write()
      case FUSE_OP.FLUSH: return empty(live.flush(node, this.#number(0)))
      case FUSE_OP.FSYNC: return empty(live.fsync(node, this.#number(fsyncIn.offsetOf.handle), this.#isDataOnly()))
      case FUSE_OP.FSYNCDIR: return empty(live.fsyncdir(node, this.#number(fsyncIn.offsetOf.handle), this.#isDataOnly()))
      case FUSE_OP.FALLOCATE: {
        const F = fallocateIn.offsetOf
        return empty(live.fallocate(node, this.#number(F.handle), this.#word(F.mode), this.#number(F.offset), this.#number(F.length)))
      }
      case FUSE_OP.LSEEK: return this.#lseek()
      case FUSE_OP.COPY_FILE_RANGE: return this.#copyRange()
      case FUSE_OP.READDIR: return this.#readdir(false)
      case FUSE_OP.READDIRPLUS: return this.#readdir(true)
      case FUSE_OP.GETXATTR: return this.#sized((into) => live.getxattr(node, this.#name(getxattrIn.size), into))
      case FUSE_OP.LISTXATTR: return this.#sized((into) => live.listxattr(node, into))
      case FUSE_OP.SETXATTR: {
        const name = this.#name(setxattrIn.size)
        const at = BODY + setxattrIn.size + name.length + 1
        const size = this.#word(setxattrIn.offsetOf.size)
        this.#need(at - BODY + size)
        return empty(live.setxattr(node, name, this.#bytes.subarray(at, at + size), this.#word(setxattrIn.offsetOf.flags), this))
      }
      case FUSE_OP.REMOVEXATTR: return empty(live.removexattr(node, this.#name(0), this))
      case FUSE_OP.STATFS: {
        const answer = live.statfs(this.#body().subarray(0, kstatfs.size))
        return then(answer, () => kstatfs.size)
      }
      case FUSE_OP.ACCESS: case FUSE_OP.DESTROY: case FUSE_OP.SYNCFS: return 0
      default: return -ERRNO.ENOSYS
    }
  }

  // --- shapes of answers ---------------------------------------------------------------------------------------------------------------

  /** Of an operation that leads to a node. */
  #told(operate: (out: NodeAnswer) => Answer): Answer {
    const out = new Told(this.#reply, REPLY + entryOut.offsetOf.attr)
    return then(operate(out), (node) => this.#entryOut(node, out))
  }

  #entryOut(node: number, out: Told): number {
    const E = entryOut.offsetOf
    const known = node !== 0
    if (!known) this.#reply.fill(0, REPLY, REPLY + entryOut.size)
    this.#out.setUint32(REPLY + E.nodeLow, node, true)
    this.#out.setUint32(REPLY + E.nodeHigh, known ? this.#server.nodeHigh : 0, true)
    this.#out.setUint32(REPLY + E.generation, 0, true)
    this.#out.setUint32(REPLY + E.generation + 4, 0, true)
    this.#seconds(REPLY + E.entryValidLow, REPLY + E.entryValidHigh, REPLY + E.entryValidNsec, out.nameSeconds)
    this.#seconds(REPLY + E.attrValidLow, REPLY + E.attrValidHigh, REPLY + E.attrValidNsec, out.attributeSeconds)
    if (known) mixIno(this.#out, REPLY + E.attr, this.#server)
    return entryOut.size
  }

  #attributes(operate: (out: NodeAnswer) => Answer): Answer {
    const O = attrOut.offsetOf
    const out = new Told(this.#reply, REPLY + O.attr)
    return then(operate(out), () => {
      this.#seconds(REPLY + O.validLow, REPLY + O.validHigh, REPLY + O.validNsec, out.attributeSeconds)
      this.#out.setUint32(REPLY + O._dummy, 0, true)
      mixIno(this.#out, REPLY + O.attr, this.#server)
      return attrOut.size
    })
  }

  #opened(operate: (out: NodeAnswer) => Answer): Answer {
    const out = new Told(this.#reply, REPLY + entryOut.offsetOf.attr)
    return then(operate(out), (handle) => this.#openOut(REPLY, handle, out.openFlags))
  }

  #openOut(at: number, handle: number, flags: number): number {
    openOut.encode({ handle: BigInt(handle), flags }, this.#reply, at)
    return openOut.size
  }

  #create(): Answer {
    const out = new Told(this.#reply, REPLY + entryOut.offsetOf.attr)
    const answer = this.#live.create(this.#node, this.#name(createIn.size), this.#word(createIn.offsetOf.flags), this.#word(createIn.offsetOf.mode), this, out)
    return then(answer, (node) => this.#entryOut(node, out) + this.#openOut(REPLY + entryOut.size, out.handle, out.openFlags))
  }

  #seconds(low: number, high: number, nsec: number, seconds: number): void {
    const whole = Math.floor(seconds)
    this.#out.setUint32(low, whole, true)
    this.#out.setUint32(high, 0, true)
    this.#out.setUint32(nsec, (seconds - whole) * 1e9, true)
  }

  /** The answer to a probe (size 0: the length) or the bytes. */
  #sized(operate: (into: Uint8Array) => Answer): Answer {
    const size = this.#word(getxattrIn.offsetOf.size)
    return then(operate(size === 0 ? NOTHING : this.#body(size)), (length) => {
      if (size !== 0) return length
      getxattrOut.encode({ size: length }, this.#reply, REPLY)
      return getxattrOut.size
    })
  }

  // --- operations with more to them ------------------------------------------------------------------------------------------------------

  #rename(skip: number, flags: number): Answer {
    const newParent = this.#otherNode(0)
    if (newParent === undefined) return -ERRNO.EXDEV
    const name = this.#name(skip)
    return empty(this.#live.rename(this.#node, name, newParent, this.#name(skip + name.length + 1), flags, this))
  }

  #write(): Answer {
    const W = writeIn.offsetOf
    const size = this.#word(W.size)
    this.#need(writeIn.size + size)
    const bytes = this.#bytes.subarray(BODY + writeIn.size, BODY + writeIn.size + size)
    return then(this.#live.write(this.#node, this.#number(W.handle), this.#number(W.offsetLow), bytes, this), (written) => {
      writeOut.encode({ size: written }, this.#reply, REPLY)
      return writeOut.size
    })
  }

  #lseek(): Answer {
    const L = lseekIn.offsetOf
    return then(this.#live.lseek(this.#node, this.#number(L.handle), this.#number(L.offset), this.#word(L.whence)), (offset) => {
      lseekOut.encode({ offset: BigInt(offset) }, this.#reply, REPLY)
      return lseekOut.size
    })
  }

  #copyRange(): Answer {
    const C = copyFileRangeIn.offsetOf
    const to = this.#otherNode(C.nodeOutLow)
    if (to === undefined) return -ERRNO.EXDEV
    const answer = this.#live.copyRange(this.#node, this.#number(C.handleIn), this.#number(C.offsetIn), to, this.#number(C.handleOut), this.#number(C.offsetOut), this.#number(C.length))
    return then(answer, (size) => {
      writeOut.encode({ size }, this.#reply, REPLY)
      return writeOut.size
    })
  }

  #readdir(plus: boolean): Answer {
    this.#need(readIn.size)
    const sink = new DirectorySink(this.#reply, { at: REPLY, size: this.#word(readIn.offsetOf.size), plus, place: this.#server })
    const { offsetLow, offsetHigh, handle } = readIn.offsetOf
    return then(this.#live.readdir(this.#node, this.#number(handle), this.#word(offsetLow), this.#word(offsetHigh), sink), () => sink.length)
  }

  #forgetAll(): number {
    const count = this.#word(batchForgetIn.offsetOf.count)
    this.#need(batchForgetIn.size + count * forgetOne.size)
    const F = forgetOne.offsetOf
    for (let i = 0, at = batchForgetIn.size; i < count; i++, at += forgetOne.size) {
      if (this.#isOurs(this.#word(at + F.nodeHigh), this.#word(at + F.nodeLow))) this.#live.forget(this.#word(at + F.nodeLow), this.#number(at + F.countLow))
    }
    return NO_REPLY
  }

  #change(): AttributeChange {
    const S = setattrIn.offsetOf
    const valid = this.#word(S.valid)
    const value = (flag: number, at: number): number | undefined => ((valid & flag) === 0 ? undefined : this.#word(at))
    const moment = (flag: number, now: number, low: number, high: number, nsec: number): Moment | 'now' | undefined => {
      if ((valid & now) !== 0) return 'now'
      return (valid & flag) === 0 ? undefined : { seconds: (this.#word(high) | 0) * WORD + this.#word(low), nanoseconds: this.#word(nsec) }
    }
    return {
      handle: (valid & FATTR.FH) === 0 ? undefined : this.#number(S.handle),
      mode: value(FATTR.MODE, S.mode), uid: value(FATTR.UID, S.uid), gid: value(FATTR.GID, S.gid),
      size: (valid & FATTR.SIZE) === 0 ? undefined : this.#number(S.size),
      atime: moment(FATTR.ATIME, FATTR.ATIME_NOW, S.atimeLow, S.atimeHigh, S.atimeNsec),
      mtime: moment(FATTR.MTIME, FATTR.MTIME_NOW, S.mtimeLow, S.mtimeHigh, S.mtimeNsec),
    }
  }

  // --- the request -----------------------------------------------------------------------------------------------------------------------

  #isDataOnly(): boolean {
    return (this.#word(fsyncIn.offsetOf.flags) & FSYNC_DATA_ONLY) !== 0
  }

  /** Node id at `at` of the body; undefined when it is of another file system. */
  #otherNode(at: number): number | undefined {
    const low = this.#word(at)
    return this.#isOurs(this.#word(at + 4), low) ? low : undefined
  }

  #isOurs(high: number, low: number): boolean {
    return high === this.#server.nodeHigh || (high === 0 && low === FUSE_ROOT_ID)
  }

  #body(size = this.#reply.length): Buffer {
    return this.#reply.subarray(REPLY, Math.min(REPLY + size, this.#reply.length))
  }

  #word(at: number): number {
    this.#need(at + 4)
    return this.#in.getUint32(BODY + at, true)
  }

  /** 64 bits as a number. */
  #number(at: number): number {
    const value = this.#word(at + 4) * WORD + this.#word(at)
    if (value > Number.MAX_SAFE_INTEGER) throw new CodedError('SERVE_BAD_REQUEST', 'a number is 2^53 or more')
    return value
  }

  /** The byte string that begins at `at` of the body. */
  #name(at: number, isName = true): string {
    const end = this.#bytes.indexOf(0, BODY + at)
    if (end < 0) throw new CodedError('SERVE_BAD_REQUEST', 'name without its NUL')
    if (isName && end === BODY + at) throw new CodedError('SERVE_BAD_REQUEST', 'empty name')
    return this.#bytes.toString('latin1', BODY + at, end)
  }

  #need(bytes: number): void {
    if (this.#bytes.length < BODY + bytes) throw new CodedError('SERVE_BAD_REQUEST', 'request is shorter than its structure')
  }
}

const NOTHING = new Uint8Array(0)
/** Of an operation that the kernel does not wait for. */
const NO_REPLY = Number.MIN_SAFE_INTEGER

/** `next` of an answer that is no failure. */
function then(answer: Answer, next: (value: number) => number): Answer {
  if (typeof answer !== 'number') return answer.then((value) => (value < 0 ? value : next(value)))
  return answer < 0 ? answer : next(answer)
}

/** An answer that has no body. */
function empty(answer: Answer): Answer {
  return then(answer, () => 0)
}
