// A writable file system over an image. Its upper directory has the form of the kernel's overlayfs, which can mount it over the same image later.
// It is the only one that changes the upper directory, so the kernel may keep names and data. No handle stands for anything: data is read
// and written by node, so there is nothing to restore when another server goes on.

import { fdatasync, fsync } from 'node:fs'
import { promisify } from 'node:util'
import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../format/erofs/inode.ts'
import { checked } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import { FOPEN } from '../../wire/fuse/file.ts'
import { ERRNO } from '../errno.ts'
import { FOREVER_SECONDS } from '../fuse/attributes.ts'
import type { Answer, AttributeChange, EntrySink, LiveFileSystem, Moment, NodeAnswer, Operation } from '../fuse/live-file-system.ts'
import { after, type Making, OverlayChanges, told } from './changes.ts'
import { O_RDWR, O_RDONLY, OVERLAY_XATTRS, RENAME } from './layers.ts'
import { listFrom, type OpenDirectory } from './listing.ts'
import type { OverlayNode } from './node.ts'
import type { OverlayTree } from './tree.ts'

/** SPEC: utimensat(2). */
const UTIME = { now: 2 ** 30 - 1, omit: 2 ** 30 - 2 } as const
const O_ACCMODE = 3
const SEEK_DATA = 3
const XATTR_CREATE = 1
const O_CREAT_EXCL = 0o100 | 0o200
const PERMISSIONS = 0o7777
const WAITING_SYNC = { all: promisify(fsync), data: promisify(fdatasync) } as const

/** An image with a directory of the host above it, as one file system that changes. */
export class OverlayFileSystem implements LiveFileSystem {
  readonly #tree: OverlayTree
  readonly #changes: OverlayChanges
  readonly #directories = new Map<number, OpenDirectory>()
  #lastDirectory = 0

  constructor(tree: OverlayTree) {
    this.#tree = tree
    this.#changes = new OverlayChanges(tree)
  }

  abandon(): void {
    this.#tree.abandon()
  }

  // --- names ---------------------------------------------------------------------------------------------------------------------------

  lookup(parent: number, name: string, out: NodeAnswer): Answer {
    const node = this.#tree.child(this.#tree.node(parent), name)
    if (node) return this.#tree.told(node, out)
    out.nameSeconds = FOREVER_SECONDS // nobody else makes it
    return 0
  }

  forget(id: number, count: number): void {
    const node = this.#tree.table.get(id)
    if (node && node !== this.#tree.table.root) this.#tree.forget(node, count)
  }

  symlink(parent: number, name: string, target: Uint8Array, by: Operation, out: NodeAnswer): Answer {
    return this.#make(parent, name, { mode: S_IFLNK | 0o777, hasMode: false, make: (directory, made) => native().makeLink(directory, made, target) }, by, out)
  }

  mknod(parent: number, name: string, mode: number, rdev: number, by: Operation, out: NodeAnswer): Answer {
    if ((mode & S_IFMT) === S_IFCHR && rdev === 0) return -ERRNO.EPERM // that is a whiteout
    return this.#make(parent, name, { mode, hasMode: true, make: (directory, made) => native().makeNodeAt(directory, made, mode, rdev) }, by, out)
  }

  mkdir(parent: number, name: string, mode: number, by: Operation, out: NodeAnswer): Answer {
    return this.#make(parent, name, { mode: S_IFDIR | (mode & PERMISSIONS), hasMode: true, make: (directory, made) => native().makeDirectory(directory, made, 0o700) }, by, out)
  }

  create(parent: number, name: string, _flags: number, mode: number, by: Operation, out: NodeAnswer): Answer {
    const making: Making = {
      mode: S_IFREG | (mode & PERMISSIONS), hasMode: true,
      make(directory, made) {
        const fd = native().openChild(directory, made, O_RDWR | O_CREAT_EXCL, 0o600)
        return fd < 0 ? fd : native().closeFd(fd)
      },
    }
    const made = this.#changes.make(this.#tree.node(parent), name, making, by)
    if (typeof made === 'number') return made
    made.opens++
    out.openFlags = FOPEN.KEEP_CACHE
    return this.#tree.told(made, out)
  }

  #make(parent: number, name: string, making: Making, by: Operation, out: NodeAnswer): Answer {
    return told(this.#tree, this.#changes.make(this.#tree.node(parent), name, making, by), out)
  }

  unlink(parent: number, name: string, by: Operation): Answer {
    return this.#changes.unlink(this.#tree.node(parent), name, by)
  }

  rmdir(parent: number, name: string, by: Operation): Answer {
    return this.#changes.rmdir(this.#tree.node(parent), name, by)
  }

  link(id: number, newParent: number, newName: string, by: Operation, out: NodeAnswer): Answer {
    const node = this.#tree.node(id)
    return after(this.#tree.raise(node), () => {
      const result = this.#changes.link(node, { parent: this.#tree.node(newParent), name: newName }, by)
      return result < 0 ? result : this.#tree.told(node, out)
    })
  }

  rename(parent: number, name: string, newParent: number, newName: string, flags: number, by: Operation): Answer {
    const tree = this.#tree
    const from = { parent: tree.node(parent), name }
    const to = { parent: tree.node(newParent), name: newName }
    const moved = by.begun === undefined ? [tree.child(from.parent, name), (flags & RENAME.EXCHANGE) === 0 ? undefined : tree.child(to.parent, newName)] : []
    // a directory of the image stays where it is: nothing is copied for that
    const raised = moved.filter((node): node is OverlayNode => node !== undefined && !node.isDirectory).map((node) => tree.raise(node))
    return after(raised.some((answer) => typeof answer !== 'number') ? Promise.all(raised).then(() => 0) : 0, () => this.#changes.rename(from, to, flags, by))
  }

  // --- attributes ----------------------------------------------------------------------------------------------------------------------

  getattr(id: number, _handle: number, out: NodeAnswer): Answer {
    this.#tree.attributes(this.#tree.node(id), out)
    return 0
  }

  setattr(id: number, change: AttributeChange, _by: Operation, out: NodeAnswer): Answer {
    const node = this.#tree.node(id)
    return after(this.#tree.raise(node, change.size), () => {
      this.#apply(node, change)
      this.#tree.attributes(node, out)
      return 0
    })
  }

  // A new owner loses set-id bits, so the mode comes after it; all of it can be done again.
  #apply(node: OverlayNode, { size, uid, gid, mode, atime, mtime }: AttributeChange): void {
    const { upper } = this.#tree
    if (size !== undefined) checked(native().changeSize(upper.file(node), size), 'ftruncate')
    const fd = upper.path(node)
    if (uid !== undefined || gid !== undefined) checked(native().changeOwner(fd, uid ?? -1, gid ?? -1), 'chown')
    if (mode !== undefined && node.type !== S_IFLNK) checked(native().changeMode(fd, mode & PERMISSIONS), 'chmod')
    if (atime === undefined && mtime === undefined) return
    const [accessSeconds, accessNanoseconds] = timeOf(atime)
    const [changeSeconds, changeNanoseconds] = timeOf(mtime)
    checked(native().changeTimes(fd, accessSeconds, accessNanoseconds, changeSeconds, changeNanoseconds), 'utimensat')
  }

  readlink(id: number, into: Uint8Array): Answer {
    const node = this.#tree.node(id)
    if (node.hasUpper) return native().readLinkOf(this.#tree.upper.path(node), into, 0, into.length)
    const target = this.#tree.lower.view.readlink(this.#tree.inode(node))
    into.set(target)
    return target.length
  }

  getxattr(id: number, name: string, into: Uint8Array): Answer {
    const node = this.#tree.node(id)
    if (name.startsWith(OVERLAY_XATTRS) || node.gone) return -ERRNO.ENODATA
    if (node.hasUpper) return native().getXattrOf(this.#tree.upper.path(node), name, into, 0, into.length)
    const value = this.#tree.lower.view.xattr(this.#tree.inode(node), name)
    return value ? fill(into, value) : -ERRNO.ENODATA
  }

  listxattr(id: number, into: Uint8Array): Answer {
    const node = this.#tree.node(id)
    if (node.gone) return 0
    const names = node.hasUpper ? this.#upperXattrs(node) : this.#tree.lower.view.xattrs(this.#tree.inode(node)).map(([name]) => name)
    return fill(into, Buffer.from(names.filter((name) => !name.startsWith(OVERLAY_XATTRS)).map((name) => `${name}\0`).join(''), 'latin1'))
  }

  #upperXattrs(node: OverlayNode): string[] {
    const list = Buffer.alloc(64 * 1024)
    const size = native().listXattrOf(this.#tree.upper.path(node), list, 0, list.length)
    return size === -ERRNO.EOPNOTSUPP ? [] : list.toString('latin1', 0, checked(size, 'listxattr')).split('\0').slice(0, -1)
  }

  setxattr(id: number, name: string, value: Uint8Array, flags: number, by: Operation): Answer {
    if (name.startsWith(OVERLAY_XATTRS)) return -ERRNO.EOPNOTSUPP
    const node = this.#tree.node(id)
    return after(this.#tree.raise(node), () => {
      by.begin()
      const result = native().setXattrOf(this.#tree.upper.path(node), name, value, flags)
      return by.begun !== undefined && flags === XATTR_CREATE && result === -ERRNO.EEXIST ? 0 : result
    })
  }

  removexattr(id: number, name: string, by: Operation): Answer {
    if (name.startsWith(OVERLAY_XATTRS)) return -ERRNO.EOPNOTSUPP
    const node = this.#tree.node(id)
    if (!node.hasUpper && by.begun === undefined && !this.#tree.lower.view.xattr(this.#tree.inode(node), name)) return -ERRNO.ENODATA
    return after(this.#tree.raise(node), () => {
      by.begin()
      const result = native().removeXattrOf(this.#tree.upper.path(node), name)
      return by.begun !== undefined && result === -ERRNO.ENODATA ? 0 : result
    })
  }

  statfs(into: Uint8Array): Answer {
    return native().statfsOf(this.#tree.upper.root, into, 0)
  }

  // --- data ----------------------------------------------------------------------------------------------------------------------------

  // COMPAT: overlayfs copies up what is opened for writing; here only what shows it, a file with several names, of which it becomes another one.
  open(id: number, flags: number, out: NodeAnswer): Answer {
    const node = this.#tree.node(id)
    out.openFlags = FOPEN.KEEP_CACHE
    const breaksLink = (flags & O_ACCMODE) !== O_RDONLY && !node.hasUpper && !node.gone && this.#tree.inode(node).nlink > 1
    return after(breaksLink ? this.#tree.raise(node) : 0, () => {
      node.opens++
      return 0
    })
  }

  release(id: number): Answer {
    const node = this.#tree.table.get(id)
    if (node && node.opens > 0) node.opens--
    return 0
  }

  read(id: number, _handle: number, offset: number, into: Uint8Array): Answer {
    const node = this.#tree.node(id)
    if (node.hasUpper) return native().readAt(this.#tree.upper.file(node), into, 0, into.length, offset, 0)
    const inode = this.#tree.inode(node)
    return offset >= inode.size ? 0 : this.#tree.lower.read(inode, offset, into)
  }

  // The kernel says where: even what is appended can be written again at the same place.
  write(id: number, _handle: number, offset: number, bytes: Uint8Array): Answer {
    const node = this.#tree.node(id)
    return after(this.#tree.raise(node), () => native().writeAt(this.#tree.upper.file(node), bytes, 0, bytes.length, offset, 0))
  }

  flush(): Answer {
    return 0
  }

  fsync(id: number, _handle: number, dataOnly: boolean): Answer {
    const node = this.#tree.node(id)
    if (!node.hasUpper || node.gone) return 0
    // a descriptor of its own: others may be closed before the disk answers
    const fd = checked(native().reopen(this.#tree.upper.path(node), node.isDirectory ? O_RDONLY : O_RDWR, 0), 'open')
    return (dataOnly ? WAITING_SYNC.data : WAITING_SYNC.all)(fd).then(() => 0, (error: unknown) => -systemErrno(error)).finally(() => native().closeFd(fd))
  }

  fsyncdir(id: number, handle: number, dataOnly: boolean): Answer {
    return this.fsync(id, handle, dataOnly)
  }

  fallocate(id: number, _handle: number, mode: number, offset: number, length: number): Answer {
    const node = this.#tree.node(id)
    return after(this.#tree.raise(node), () => native().fallocate(this.#tree.upper.file(node), mode, offset, length))
  }

  lseek(id: number, _handle: number, offset: number, whence: number): Answer {
    const node = this.#tree.node(id)
    if (node.hasUpper) return native().lseek(this.#tree.upper.file(node), offset, whence)
    const { size } = this.#tree.inode(node)
    if (offset >= size) return -ERRNO.ENXIO
    return whence === SEEK_DATA ? offset : size
  }

  copyRange(): Answer {
    return -ERRNO.EOPNOTSUPP // the kernel reads and writes instead
  }

  // --- directories ---------------------------------------------------------------------------------------------------------------------

  opendir(id: number, out: NodeAnswer): Answer {
    if (!this.#tree.node(id).isDirectory) return -ERRNO.ENOTDIR
    this.#directories.set(++this.#lastDirectory, { entries: undefined })
    out.openFlags = 0
    return this.#lastDirectory
  }

  readdir(id: number, handle: number, cookieLow: number, cookieHigh: number, sink: EntrySink): Answer {
    const open = this.#directories.get(handle) ?? { entries: undefined } // opened through a server before this one
    listFrom(this.#tree, this.#tree.node(id), open, cookieLow, cookieHigh, sink)
    return 0
  }

  releasedir(_id: number, handle: number): Answer {
    this.#directories.delete(handle)
    return 0
  }
}

function timeOf(moment: Moment | 'now' | undefined): readonly [seconds: number, nanoseconds: number] {
  if (moment === undefined) return [0, UTIME.omit]
  return moment === 'now' ? [0, UTIME.now] : [moment.seconds, moment.nanoseconds]
}

/** The length of `value`, which is put into `into` where there is room. */
function fill(into: Uint8Array, value: Uint8Array): number {
  if (into.length === 0) return value.length
  if (value.length > into.length) return -ERRNO.ERANGE
  into.set(value)
  return value.length
}

function systemErrno(error: unknown): number {
  return error instanceof Error && 'errno' in error && typeof error.errno === 'number' ? Math.abs(error.errno) : ERRNO.EIO
}
