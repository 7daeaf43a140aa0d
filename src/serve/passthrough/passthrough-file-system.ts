// A directory of the host as a file system: each operation is one or two system calls on descriptors, in the thread that was asked. Nothing
// is resolved by a path: a node is a file that was found by one name in the directory of another node, so that no request can lead out of
// the tree below the root, whatever is moved or planted there meanwhile.
// Who may do what is decided by the kernel that asks (default_permissions); files are made in the name of who asks.

import { closeSync, constants } from 'node:fs'
import { directoryRecords } from '../../native/beneath.ts'
import { native } from '../../native/load.ts'
import { ERRNO } from '../errno.ts'
import type { AttributeChange, EntrySink, LiveFileSystem, Moment, NodeAnswer, Operation } from '../fuse/live-file-system.ts'
import { O_PATH, ROOT_NID } from './node-table.ts'
import { isDoneBefore, wroteBefore } from './repeated.ts'
import { Client, type ClientOptions, VALID_SECONDS } from './client.ts'
import { Identity } from './identity.ts'

const { O_ACCMODE = 3, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, O_SYNC, O_DSYNC } = { O_ACCMODE: 3, ...constants }
/** What a client may ask of an open file. Not O_DIRECT: the buffers here are not aligned. Not O_PATH or O_TMPFILE: they mean something else. */
const OPEN_FLAGS = O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC
/** SPEC: utimensat(2). */
const UTIME_NOW = 2 ** 30 - 1
const UTIME_OMIT = 2 ** 30 - 2
const ATTRIBUTES = 88
/** For answers that are told in another way. */
const NOWHERE: NodeAnswer = { bytes: new Uint8Array(ATTRIBUTES), attributesAt: 0, nameSeconds: 0, attributeSeconds: 0, openFlags: 0, handle: 0 }
/** LIMIT: records read ahead of what a reply has room for are read again by the next request. */
const DIRECTORY_BUFFER = 4096
/** The same for records with attributes, which are six times as large in a reply. */
const PLUS_ROOM = 1024
/** LIMIT: bytes of one copy_file_range; the caller asks again for the rest. */
const MAX_COPY = 2 ** 30

export interface PassthroughOptions extends ClientOptions {
  /** Whether this process may make files in the name of others. */
  readonly isPrivileged: boolean
}

/** One shared directory, used by one thread. */
export class PassthroughFileSystem implements LiveFileSystem {
  readonly #client: Client
  readonly #identity: Identity
  readonly #directory = Buffer.alloc(DIRECTORY_BUFFER)
  readonly #addon = native()

  /** Throws when the root cannot be used, or the record not be opened. */
  constructor(options: PassthroughOptions) {
    this.#client = new Client(options)
    this.#identity = new Identity(options.isPrivileged)
  }

  reset(): void {
    this.#client.reset()
  }

  /** What the client knows stays recorded. */
  close(): void {
    this.#client.close()
  }

  // --- names ------------------------------------------------------------------------------------------------------------------------

  lookup(parent: number, name: string, out: NodeAnswer): number {
    if (name === '.') return this.#client.again(parent, out)
    const directory = this.#client.fd(parent)
    return directory < 0 ? directory : this.#client.find(directory, name, out)
  }

  forget(nid: number, count: number): void {
    this.#client.nodes.forget(nid, count)
  }

  mknod(parent: number, name: string, mode: number, rdev: number, by: Operation, out: NodeAnswer): number {
    return this.#make(parent, name, by, out, (directory) => this.#addon.makeNodeAt(directory, name, mode, rdev))
  }

  mkdir(parent: number, name: string, mode: number, by: Operation, out: NodeAnswer): number {
    return this.#make(parent, name, by, out, (directory) => this.#addon.makeDirectory(directory, name, mode))
  }

  symlink(parent: number, name: string, target: Uint8Array, by: Operation, out: NodeAnswer): number {
    return this.#make(parent, name, by, out, (directory) => this.#addon.makeLink(directory, name, target))
  }

  link(nid: number, newParent: number, newName: string, by: Operation, out: NodeAnswer): number {
    const directory = this.#client.fd(newParent)
    if (directory < 0) return directory
    const file = this.#client.fd(nid)
    if (file < 0) return file
    by.begin()
    const made = this.#addon.hardLink(file, directory, newName)
    if (made >= 0) return this.#client.again(nid, out)
    const found = made === -ERRNO.EEXIST && by.begun !== undefined ? this.#client.find(directory, newName, out) : made
    if (found === nid || found < 0) return found < 0 ? made : found
    this.#client.nodes.forget(found, 1)
    return made
  }

  unlink(parent: number, name: string, by: Operation): number {
    return this.#remove(parent, name, false, by)
  }

  rmdir(parent: number, name: string, by: Operation): number {
    return this.#remove(parent, name, true, by)
  }

  rename(parent: number, name: string, newParent: number, newName: string, flags: number, by: Operation): number {
    const from = this.#client.fd(parent)
    if (from < 0) return from
    const to = this.#client.fd(newParent)
    if (to < 0) return to
    // with flags the old name still is one afterwards: of another file
    const before = flags === 0 ? 0 : this.#client.inodeAt(from, name)
    if (by.begun !== undefined && flags !== 0 && by.begun !== before) return 0
    by.begin(before)
    return done(this.#addon.renameAt(from, name, to, newName, flags), -ERRNO.ENOENT, by)
  }

  readlink(nid: number, into: Uint8Array): number {
    const fd = this.#client.fd(nid)
    return fd < 0 ? fd : this.#addon.readLinkOf(fd, into, 0, into.length)
  }

  // --- attributes -------------------------------------------------------------------------------------------------------------------

  getattr(nid: number, handle: number, out: NodeAnswer): number {
    const node = this.#client.nodes.get(nid)
    const fd = this.#client.files.of(nid, handle)?.fd ?? this.#client.nodes.descriptor(node)
    if (fd < 0 || !node) return fd < 0 ? fd : -ERRNO.ESTALE
    const result = this.#addon.statusOf(fd, this.#client.status.bytes, false)
    if (result < 0) return result
    this.#client.tell(node, out)
    return 0
  }

  setattr(nid: number, change: AttributeChange, _by: Operation, out: NodeAnswer): number {
    const fd = this.#client.fd(nid)
    if (fd < 0) return fd
    const { handle = 0, mode, uid, gid, size, atime, mtime } = change
    // in this order: a change of the owner takes set-user-ID away, a change of the size sets the time
    const owner = uid === undefined && gid === undefined ? 0 : this.#addon.changeOwner(fd, uid ?? -1, gid ?? -1)
    if (owner < 0) return owner
    const permissions = mode === undefined ? 0 : this.#addon.changeMode(fd, mode & 0o7777)
    if (permissions < 0) return permissions
    const cut = size === undefined ? 0 : this.#resize(nid, handle, fd, size)
    if (cut < 0) return cut
    const times = atime === undefined && mtime === undefined ? 0 : this.#addon.changeTimes(fd, ...timeOf(atime), ...timeOf(mtime))
    return times < 0 ? times : this.getattr(nid, handle, out)
  }

  #resize(nid: number, handle: number, fd: number, size: number): number {
    const opened = this.#client.files.of(nid, handle)
    if (opened && (opened.flags & O_ACCMODE) !== O_RDONLY) return this.#addon.changeSize(opened.fd, size)
    const file = this.#addon.reopen(fd, O_WRONLY, 0)
    if (file < 0) return file === -ERRNO.ENXIO ? -ERRNO.EINVAL : file
    const result = this.#addon.changeSize(file, size)
    closeSync(file)
    return result
  }

  statfs(into: Uint8Array): number {
    const fd = this.#client.fd(ROOT_NID)
    return fd < 0 ? fd : this.#addon.statfsOf(fd, into, 0)
  }

  getxattr(nid: number, name: string, into: Uint8Array): number {
    const fd = this.#client.fd(nid)
    return fd < 0 ? fd : this.#addon.getXattrOf(fd, name, into, 0, into.length)
  }

  listxattr(nid: number, into: Uint8Array): number {
    const fd = this.#client.fd(nid)
    return fd < 0 ? fd : this.#addon.listXattrOf(fd, into, 0, into.length)
  }

  setxattr(nid: number, name: string, value: Uint8Array, flags: number, by: Operation): number {
    const fd = this.#client.fd(nid)
    if (fd < 0) return fd
    by.begin()
    return done(this.#addon.setXattrOf(fd, name, value, flags), -ERRNO.EEXIST, by)
  }

  removexattr(nid: number, name: string, by: Operation): number {
    const fd = this.#client.fd(nid)
    if (fd < 0) return fd
    by.begin()
    return done(this.#addon.removeXattrOf(fd, name), -ERRNO.ENODATA, by)
  }

  // --- open files -------------------------------------------------------------------------------------------------------------------

  open(nid: number, flags: number, _out: NodeAnswer): number {
    return this.#client.open(nid, flags & OPEN_FLAGS)
  }

  create(parent: number, name: string, flags: number, mode: number, by: Operation, out: NodeAnswer): number {
    if (this.#client.files.isFull) return -ERRNO.ENFILE
    const directory = this.#client.fd(parent)
    if (directory < 0) return directory
    by.begin(Date.now())
    const fd = this.#identity.as(by, () => this.#addon.openChild(directory, name, (flags & OPEN_FLAGS) | O_CREAT | O_EXCL, mode & 0o7777))
    if (fd === -ERRNO.EEXIST && ((flags & O_EXCL) === 0 || by.begun !== undefined)) {
      const found = (flags & O_EXCL) === 0 ? this.#client.find(directory, name, out) : this.#made(directory, name, by, out)
      return found < 0 ? found : this.#created(found, this.#client.open(found, flags & OPEN_FLAGS), out)
    }
    if (fd < 0) return fd
    const node = this.#client.nodeOf(this.#addon.reopen(fd, O_PATH, 0))
    if (typeof node === 'number') {
      closeSync(fd)
      return node
    }
    return this.#created(this.#client.tell(node, out), this.#client.files.add(node, fd, flags & OPEN_FLAGS), out)
  }

  #created(nid: number, handle: number, out: NodeAnswer): number {
    out.handle = handle
    if (handle < 0) this.#client.nodes.forget(nid, 1)
    return handle < 0 ? handle : nid
  }

  read(nid: number, handle: number, offset: number, into: Uint8Array): number {
    return this.#client.withFile(nid, handle, O_RDONLY, (fd) => this.#addon.readAt(fd, into, 0, into.length, offset, 0))
  }

  write(nid: number, handle: number, offset: number, bytes: Uint8Array, by: Operation): number {
    return this.#client.withFile(nid, handle, O_RDWR, (fd, flags) => {
      if (this.#client.isRecorded && (flags & O_APPEND) !== 0) {
        if (wroteBefore(fd, bytes, by)) return bytes.length
        const size = this.#addon.statusOf(fd, this.#client.status.bytes, false) === 0 ? this.#client.status.size : 0
        by.begin(size)
      }
      return this.#addon.writeAt(fd, bytes, 0, bytes.length, offset, 0)
    })
  }

  flush(): number {
    return 0
  }

  release(nid: number, handle: number): number {
    this.#client.files.release(nid, handle)
    return 0
  }

  fsync(nid: number, handle: number, dataOnly: boolean): number {
    return this.#client.withFile(nid, handle, O_RDONLY, (fd) => this.#addon.syncFd(fd, dataOnly))
  }

  fallocate(nid: number, handle: number, mode: number, offset: number, length: number): number {
    return this.#client.withFile(nid, handle, O_RDWR, (fd) => this.#addon.fallocate(fd, mode, offset, length))
  }

  lseek(nid: number, handle: number, offset: number, whence: number): number {
    return this.#client.withFile(nid, handle, O_RDONLY, (fd) => this.#addon.lseek(fd, offset, whence))
  }

  copyRange(from: number, fromHandle: number, fromOffset: number, to: number, toHandle: number, toOffset: number, length: number): number {
    return this.#client.withFile(from, fromHandle, O_RDONLY, (source) => this.#client.withFile(to, toHandle, O_RDWR,
      (target) => this.#addon.copyRange(source, fromOffset, target, toOffset, Math.min(length, MAX_COPY))))
  }

  // --- directories ------------------------------------------------------------------------------------------------------------------

  opendir(nid: number, _out: NodeAnswer): number {
    return this.#client.open(nid, O_RDONLY | O_DIRECTORY)
  }

  readdir(nid: number, handle: number, cookieLow: number, cookieHigh: number, sink: EntrySink): number {
    const directory = this.#client.fd(nid)
    if (directory < 0) return directory
    return this.#client.withFile(nid, handle, O_RDONLY | O_DIRECTORY, (fd) => {
      for (let low = cookieLow, high = cookieHigh; ;) {
        const size = this.#addon.readDirectory(fd, low, high, this.#directory, 0, sink.plus ? PLUS_ROOM : this.#directory.length)
        if (size <= 0) return size
        for (const entry of directoryRecords(this.#directory, 0, size)) {
          const node = sink.plus && entry.name !== '.' && entry.name !== '..' ? this.#client.find(directory, entry.name, NOWHERE) : 0
          const isTaken = node > 0
            ? sink.add(entry.name, entry.inoLow, entry.inoHigh, entry.type, entry.cookieLow, entry.cookieHigh, node, this.#client.attributes, VALID_SECONDS)
            : sink.add(entry.name, entry.inoLow, entry.inoHigh, entry.type, entry.cookieLow, entry.cookieHigh)
          if (!isTaken) {
            if (node > 0) this.#client.nodes.forget(node, 1)
            return 0
          }
          low = entry.cookieLow
          high = entry.cookieHigh
        }
      }
    })
  }

  releasedir(nid: number, handle: number): number {
    return this.release(nid, handle)
  }

  fsyncdir(nid: number, handle: number, dataOnly: boolean): number {
    return this.fsync(nid, handle, dataOnly)
  }

  // --- helpers ----------------------------------------------------------------------------------------------------------------------

  #make(parent: number, name: string, by: Operation, out: NodeAnswer, make: (directory: number) => number): number {
    const directory = this.#client.fd(parent)
    if (directory < 0) return directory
    by.begin(Date.now())
    const made = this.#identity.as(by, () => make(directory))
    if (made === -ERRNO.EEXIST && by.begun !== undefined) return this.#made(directory, name, by, out)
    return made < 0 ? made : this.#client.find(directory, name, out)
  }

  #remove(parent: number, name: string, isDirectory: boolean, by: Operation): number {
    const directory = this.#client.fd(parent)
    if (directory < 0) return directory
    by.begin()
    return done(this.#addon.removeAt(directory, name, isDirectory), -ERRNO.ENOENT, by)
  }

  /** What an operation that was begun before has made; EEXIST when it was there already then. */
  #made(directory: number, name: string, by: Operation, out: NodeAnswer): number {
    const found = this.#client.find(directory, name, out)
    if (found < 0 || isDoneBefore(this.#client.status, by)) return found
    this.#client.nodes.forget(found, 1)
    return -ERRNO.EEXIST
  }
}

/** `result`, or success where it says that somebody has done it: that was the server before this one. */
function done(result: number, hint: number, { begun }: Operation): number {
  return result === hint && begun !== undefined ? 0 : result
}

function timeOf(time: Moment | 'now' | undefined): [seconds: number, nanoseconds: number] {
  if (time === undefined) return [0, UTIME_OMIT]
  return time === 'now' ? [0, UTIME_NOW] : [time.seconds, time.nanoseconds]
}
