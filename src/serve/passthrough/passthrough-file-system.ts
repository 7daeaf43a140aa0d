// A directory of the host as a file system: each operation is one or two system calls on descriptors, in the thread that was asked. Nothing
// is resolved by a path: a node is a file that was found by one name in the directory of another node, so that no request can lead out of
// the tree below the root, whatever is moved or planted there meanwhile.
// Who may do what is decided by the kernel that asks (default_permissions); files are made in the name of who asks.

import { closeSync, constants } from 'node:fs'
import { directoryRecords, FileStatus } from '../../native/beneath.ts'
import { native } from '../../native/load.ts'
import { ERRNO } from '../errno.ts'
import type { AttributeChange, EntrySink, LiveFileSystem, Moment, NodeAnswer, Operation } from '../fuse/live-file-system.ts'
import { type Node, NodeTable, O_PATH, ROOT_NID } from './node-table.ts'
import { OpenFiles } from './open-files.ts'
import { Identity } from './identity.ts'

const { O_ACCMODE = 3, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, O_SYNC, O_DSYNC } = { O_ACCMODE: 3, ...constants }
/** What a client may ask of an open file. Not O_DIRECT: the buffers here are not aligned. Not O_PATH or O_TMPFILE: they mean something else. */
const OPEN_FLAGS = O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC
/** How long the kernel may believe what it was told: others change the directory, too. Seconds. */
const VALID_SECONDS = 1
/** SPEC: utimensat(2). */
const UTIME_NOW = 2 ** 30 - 1
const UTIME_OMIT = 2 ** 30 - 2
const ATTRIBUTES = 88
/** For answers that are told in another way. */
const NOWHERE: NodeAnswer = { bytes: new Uint8Array(ATTRIBUTES), attributesAt: 0, nameSeconds: 0, attributeSeconds: 0, openFlags: 0, handle: 0 }
/** LIMIT: records read ahead of what a reply has room for are read again by the next request. */
const DIRECTORY_BUFFER = 32 * 1024
/** LIMIT: bytes of one copy_file_range; the caller asks again for the rest. */
const MAX_COPY = 2 ** 30

export interface PassthroughOptions {
  /** O_PATH descriptor of the directory; stays the caller's. */
  readonly root: number
  /** LIMIT: descriptors that a client can make this process hold: for its open files, and as many again for files without handles. */
  readonly maxDescriptors: number
  /** Whether this process may make files in the name of others. */
  readonly isPrivileged: boolean
}

/** One shared directory, used by one thread. */
export class PassthroughFileSystem implements LiveFileSystem {
  readonly #nodes: NodeTable
  readonly #files: OpenFiles
  readonly #identity: Identity
  readonly #status = new FileStatus()
  readonly #attributes = this.#status.bytes.subarray(0, ATTRIBUTES)
  readonly #directory = Buffer.alloc(DIRECTORY_BUFFER)
  readonly #addon = native()

  /** @throws CodedError NATIVE_SYSCALL when the root cannot be read */
  constructor({ root, maxDescriptors, isPrivileged }: PassthroughOptions) {
    this.#nodes = new NodeTable({ maxDescriptors })
    this.#files = new OpenFiles({ max: maxDescriptors })
    this.#identity = new Identity(isPrivileged)
    const fd = this.#addon.duplicate(root)
    const result = fd < 0 ? fd : this.#addon.statusOf(fd, this.#status.bytes, true)
    const node = result < 0 ? result : this.#nodes.found(fd, this.#status)
    if (typeof node === 'number') throw new Error(`the root of a shared directory cannot be used: errno ${-node}`)
  }

  reset(): void {
    this.#files.close()
    this.#nodes.clear()
  }

  close(): void {
    this.#files.close()
    this.#nodes.close()
  }

  // --- names ------------------------------------------------------------------------------------------------------------------------

  lookup(parent: number, name: string, out: NodeAnswer): number {
    if (name === '.') return this.#again(parent, out)
    const directory = this.#fd(parent)
    return directory < 0 ? directory : this.#find(directory, name, out)
  }

  forget(nid: number, count: number): void {
    this.#nodes.forget(nid, count)
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
    const directory = this.#fd(newParent)
    if (directory < 0) return directory
    const file = this.#fd(nid)
    if (file < 0) return file
    by.begin()
    const made = this.#addon.hardLink(file, directory, newName)
    return made < 0 ? made : this.#again(nid, out)
  }

  unlink(parent: number, name: string, by: Operation): number {
    return this.#remove(parent, name, false, by)
  }

  rmdir(parent: number, name: string, by: Operation): number {
    return this.#remove(parent, name, true, by)
  }

  rename(parent: number, name: string, newParent: number, newName: string, flags: number, by: Operation): number {
    const from = this.#fd(parent)
    if (from < 0) return from
    const to = this.#fd(newParent)
    if (to < 0) return to
    by.begin()
    return this.#addon.renameAt(from, name, to, newName, flags)
  }

  readlink(nid: number, into: Uint8Array): number {
    const fd = this.#fd(nid)
    return fd < 0 ? fd : this.#addon.readLinkOf(fd, into, 0, into.length)
  }

  // --- attributes -------------------------------------------------------------------------------------------------------------------

  getattr(nid: number, handle: number, out: NodeAnswer): number {
    const node = this.#nodes.get(nid)
    const fd = this.#files.of(nid, handle)?.fd ?? this.#nodes.descriptor(node)
    if (fd < 0 || !node) return fd < 0 ? fd : -ERRNO.ESTALE
    const result = this.#addon.statusOf(fd, this.#status.bytes, false)
    if (result < 0) return result
    this.#tell(node, out)
    return 0
  }

  setattr(nid: number, change: AttributeChange, _by: Operation, out: NodeAnswer): number {
    const fd = this.#fd(nid)
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
    const opened = this.#files.of(nid, handle)
    if (opened && (opened.flags & O_ACCMODE) !== O_RDONLY) return this.#addon.changeSize(opened.fd, size)
    const file = this.#addon.reopen(fd, O_WRONLY, 0)
    if (file < 0) return file === -ERRNO.ENXIO ? -ERRNO.EINVAL : file
    const result = this.#addon.changeSize(file, size)
    closeSync(file)
    return result
  }

  statfs(into: Uint8Array): number {
    const fd = this.#fd(ROOT_NID)
    return fd < 0 ? fd : this.#addon.statfsOf(fd, into, 0)
  }

  getxattr(nid: number, name: string, into: Uint8Array): number {
    const fd = this.#fd(nid)
    return fd < 0 ? fd : this.#addon.getXattrOf(fd, name, into, 0, into.length)
  }

  listxattr(nid: number, into: Uint8Array): number {
    const fd = this.#fd(nid)
    return fd < 0 ? fd : this.#addon.listXattrOf(fd, into, 0, into.length)
  }

  setxattr(nid: number, name: string, value: Uint8Array, flags: number, by: Operation): number {
    const fd = this.#fd(nid)
    if (fd < 0) return fd
    by.begin()
    return this.#addon.setXattrOf(fd, name, value, flags)
  }

  removexattr(nid: number, name: string, by: Operation): number {
    const fd = this.#fd(nid)
    if (fd < 0) return fd
    by.begin()
    return this.#addon.removeXattrOf(fd, name)
  }

  // --- open files -------------------------------------------------------------------------------------------------------------------

  open(nid: number, flags: number, _out: NodeAnswer): number {
    return this.#open(nid, flags & OPEN_FLAGS)
  }

  create(parent: number, name: string, flags: number, mode: number, by: Operation, out: NodeAnswer): number {
    if (this.#files.isFull) return -ERRNO.ENFILE
    const directory = this.#fd(parent)
    if (directory < 0) return directory
    by.begin()
    const fd = this.#identity.as(by, () => this.#addon.openChild(directory, name, (flags & OPEN_FLAGS) | O_CREAT | O_EXCL, mode & 0o7777))
    if (fd === -ERRNO.EEXIST && (flags & O_EXCL) === 0) {
      const found = this.#find(directory, name, out)
      return found < 0 ? found : this.#created(found, this.#open(found, flags & OPEN_FLAGS), out)
    }
    if (fd < 0) return fd
    const node = this.#nodeOf(this.#addon.reopen(fd, O_PATH, 0))
    if (typeof node === 'number') {
      closeSync(fd)
      return node
    }
    return this.#created(this.#tell(node, out), this.#files.add(node, fd, flags & OPEN_FLAGS), out)
  }

  #created(nid: number, handle: number, out: NodeAnswer): number {
    out.handle = handle
    if (handle < 0) this.#nodes.forget(nid, 1)
    return handle < 0 ? handle : nid
  }

  read(nid: number, handle: number, offset: number, into: Uint8Array): number {
    return this.#with(nid, handle, O_RDONLY, (fd) => this.#addon.readAt(fd, into, 0, into.length, offset, 0))
  }

  write(nid: number, handle: number, offset: number, bytes: Uint8Array): number {
    return this.#with(nid, handle, O_RDWR, (fd) => this.#addon.writeAt(fd, bytes, 0, bytes.length, offset, 0))
  }

  flush(): number {
    return 0
  }

  release(nid: number, handle: number): number {
    this.#files.release(nid, handle)
    return 0
  }

  fsync(nid: number, handle: number, dataOnly: boolean): number {
    return this.#with(nid, handle, O_RDONLY, (fd) => this.#addon.syncFd(fd, dataOnly))
  }

  fallocate(nid: number, handle: number, mode: number, offset: number, length: number): number {
    return this.#with(nid, handle, O_RDWR, (fd) => this.#addon.fallocate(fd, mode, offset, length))
  }

  lseek(nid: number, handle: number, offset: number, whence: number): number {
    return this.#with(nid, handle, O_RDONLY, (fd) => this.#addon.lseek(fd, offset, whence))
  }

  copyRange(from: number, fromHandle: number, fromOffset: number, to: number, toHandle: number, toOffset: number, length: number): number {
    return this.#with(from, fromHandle, O_RDONLY, (source) => this.#with(to, toHandle, O_RDWR,
      (target) => this.#addon.copyRange(source, fromOffset, target, toOffset, Math.min(length, MAX_COPY))))
  }

  // --- directories ------------------------------------------------------------------------------------------------------------------

  opendir(nid: number, _out: NodeAnswer): number {
    return this.#open(nid, O_RDONLY | O_DIRECTORY)
  }

  readdir(nid: number, handle: number, cookieLow: number, cookieHigh: number, sink: EntrySink): number {
    const directory = this.#fd(nid)
    if (directory < 0) return directory
    return this.#with(nid, handle, O_RDONLY | O_DIRECTORY, (fd) => {
      for (let low = cookieLow, high = cookieHigh; ;) {
        const size = this.#addon.readDirectory(fd, low, high, this.#directory, 0, this.#directory.length)
        if (size <= 0) return size
        for (const entry of directoryRecords(this.#directory, 0, size)) {
          const node = sink.plus && entry.name !== '.' && entry.name !== '..' ? this.#find(directory, entry.name, NOWHERE) : 0
          const isTaken = node > 0
            ? sink.add(entry.name, entry.inoLow, entry.inoHigh, entry.type, entry.cookieLow, entry.cookieHigh, node, this.#attributes)
            : sink.add(entry.name, entry.inoLow, entry.inoHigh, entry.type, entry.cookieLow, entry.cookieHigh)
          if (!isTaken) {
            if (node > 0) this.#nodes.forget(node, 1)
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

  #fd(nid: number): number {
    return this.#nodes.descriptor(this.#nodes.get(nid))
  }

  /** The entry `name`, told once more. */
  #find(directory: number, name: string, out: NodeAnswer): number {
    const fd = this.#addon.lookupChild(directory, name, this.#status.bytes)
    if (fd < 0) return fd
    const node = this.#nodes.found(fd, this.#status)
    return typeof node === 'number' ? node : this.#tell(node, out)
  }

  /** The node itself, told once more. */
  #again(nid: number, out: NodeAnswer): number {
    const known = this.#fd(nid)
    const node = known < 0 ? known : this.#nodeOf(this.#addon.duplicate(known))
    return typeof node === 'number' ? node : this.#tell(node, out)
  }

  /** The node of what `fd` refers to, which belongs to the table from now on; fills the status. */
  #nodeOf(fd: number): Node | number {
    if (fd < 0) return fd
    const result = this.#addon.statusOf(fd, this.#status.bytes, true)
    if (result === 0) return this.#nodes.found(fd, this.#status)
    closeSync(fd)
    return result
  }

  #tell({ nid, mount: { inoHigh } }: Node, out: NodeAnswer): number {
    out.nameSeconds = out.attributeSeconds = VALID_SECONDS
    if (inoHigh !== 0) this.#status.view.setUint32(4, (this.#status.view.getUint32(4, true) ^ inoHigh) >>> 0, true)
    out.bytes.set(this.#attributes, out.attributesAt)
    return nid
  }

  #make(parent: number, name: string, by: Operation, out: NodeAnswer, make: (directory: number) => number): number {
    const directory = this.#fd(parent)
    if (directory < 0) return directory
    by.begin()
    const made = this.#identity.as(by, () => make(directory))
    return made < 0 ? made : this.#find(directory, name, out)
  }

  #remove(parent: number, name: string, isDirectory: boolean, by: Operation): number {
    const directory = this.#fd(parent)
    if (directory < 0) return directory
    by.begin()
    return this.#addon.removeAt(directory, name, isDirectory)
  }

  #open(nid: number, flags: number): number {
    const node = this.#nodes.get(nid)
    const fd = this.#nodes.descriptor(node)
    if (fd < 0 || !node) return fd < 0 ? fd : -ERRNO.ESTALE
    if (this.#files.isFull) return -ERRNO.ENFILE
    const opened = this.#addon.reopen(fd, flags, 0)
    return opened < 0 ? opened : this.#files.add(node, opened, flags)
  }

  /** Lets `use` have the open file, or, for a client that opens without asking, the file opened for this once. */
  #with(nid: number, handle: number, flags: number, use: (fd: number) => number): number {
    const file = this.#files.of(nid, handle)
    if (file) return use(file.fd)
    if (handle !== 0) return -ERRNO.EBADF
    const named = this.#fd(nid)
    const fd = named < 0 ? named : this.#addon.reopen(named, flags, 0)
    if (fd < 0) return fd
    try {
      return use(fd)
    } finally {
      closeSync(fd)
    }
  }
}

function timeOf(time: Moment | 'now' | undefined): [seconds: number, nanoseconds: number] {
  if (time === undefined) return [0, UTIME_OMIT]
  return time === 'now' ? [0, UTIME_NOW] : [time.seconds, time.nanoseconds]
}
