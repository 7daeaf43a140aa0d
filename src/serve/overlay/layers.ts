// The two layers of an overlay: an image below, and a directory of the host above it in the form of the kernel's overlayfs.
// SPEC: linux Documentation/filesystems/overlayfs.rst; fs/overlayfs/{dir,util,copy_up}.c. A whiteout is a character device 0/0, an opaque directory
// has the attribute trusted.overlay.opaque.

import { randomBytes } from 'node:crypto'
import { byteString, toText } from '../../core/byte-string.ts'
import { S_IFCHR, S_IFMT } from '../../format/erofs/inode.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { directoryRecords, FileStatus } from '../../native/beneath.ts'
import { checked } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import { attr } from '../../wire/fuse/inode.ts'
import { CodedError } from '../../core/errors.ts'
import { ERRNO } from '../errno.ts'
import { ROOT_NODE } from '../fuse/live-file-system.ts'
import type { Owner } from '../fuse/attributes.ts'
import type { MetadataView } from '../fuse/served-file-system.ts'
import { KEPT, type OverlayNode } from './node.ts'

/** SPEC: fcntl.h, x86-64 and arm64 alike but for O_DIRECTORY, which is not needed with O_PATH and a check of the type. */
export const O_PATH = 0o10000000
export const O_RDONLY = 0
export const O_RDWR = 2
/** SPEC: renameat2(2). */
export const RENAME = { NOREPLACE: 1, EXCHANGE: 2, WHITEOUT: 4 } as const
/** SPEC: overlayfs.rst; only root may read them, and nobody through the overlay. */
export const OVERLAY_XATTRS = 'trusted.overlay.'
const OPAQUE = 'trusted.overlay.opaque'
/** Ours: the inode number of the image's file that was copied up. The kernel's driver ignores attributes that it does not know. */
const ORIGIN = 'trusted.overlay.nydus.origin'
/** Upper inode numbers are the host's with this in their high word: the image's are below 2^32. */
const UPPER_INO = 0x4000_0000
/** LIMIT: descriptors kept open for nodes; the daemon may have at least 1024 in all. */
const OPEN_NODES = 400
const BUFFER = 64 * 1024
const A = attr.offsetOf

/** The image. */
export interface LowerLayer {
  readonly view: MetadataView
  /** Of all files, when the image says nothing of owners. */
  readonly owner: Owner | undefined
  /** Fills `target`; the bytes filled, fewer at the end of the file. */
  read(inode: Inode, offset: number, target: Uint8Array): Promise<number>
}

/** An entry of an upper directory. */
export interface UpperEntry { readonly name: string; readonly type: number; readonly isWhiteout: boolean; readonly inoLow: number; readonly inoHigh: number }

export interface Times { readonly accessSeconds: number; readonly accessNanoseconds: number; readonly changeSeconds: number; readonly changeNanoseconds: number }

interface Cached { readonly path: number; file: number }

/** The upper directory and the work directory, through descriptors of their own: nothing is resolved by path. */
export class UpperLayer {
  readonly root: number
  /** Where things are made before they are put in their place. */
  readonly work: number
  readonly status = new FileStatus()
  /** By node, oldest use first. */
  readonly #open = new Map<OverlayNode, Cached>()
  readonly #buffer = Buffer.alloc(BUFFER)
  readonly #prefix = `new-${randomBytes(6).toString('hex')}`
  #lastTemporary = 0

  constructor(upperDirectory: string, workDirectory: string) {
    this.root = checked(native().beneathRoot(Buffer.from(upperDirectory)), 'open', byteString(Buffer.from(upperDirectory)))
    this.work = checked(native().beneathRoot(Buffer.from(workDirectory)), 'open', byteString(Buffer.from(workDirectory)))
  }

  /** O_PATH descriptor of the upper part of `node`, which has one. Valid until the next call. @throws NATIVE_SYSCALL */
  path(node: OverlayNode): number {
    return this.#cached(node).path
  }

  /** Descriptor of the upper part of a regular file, open for reading and writing. Valid until the next call. @throws NATIVE_SYSCALL */
  file(node: OverlayNode): number {
    const cached = this.#cached(node)
    if (cached.file < 0) cached.file = checked(native().reopen(cached.path, O_RDWR, 0), 'open')
    return cached.file
  }

  /** Lets go of the descriptors of `node`. */
  close(node: OverlayNode): void {
    const cached = this.#open.get(node)
    if (!cached) return
    this.#open.delete(node)
    for (const fd of [cached.path, cached.file]) if (fd >= 0) native().closeFd(fd)
  }

  closeAll(): void {
    for (const node of [...this.#open.keys()]) this.close(node)
    for (const fd of [this.root, this.work]) native().closeFd(fd)
  }

  /** Status of `name` in an upper directory into `status`; false when there is no such name. @throws NATIVE_SYSCALL */
  find(directory: number, name: string): boolean {
    const fd = native().lookupChild(directory, name, this.status.bytes)
    if (fd === -ERRNO.ENOENT) return false
    native().closeFd(checked(fd, 'open'))
    return true
  }

  /** Whether what `status` tells of is a whiteout. */
  get isWhiteout(): boolean {
    const { view } = this.status
    return (view.getUint32(A.mode, true) & S_IFMT) === S_IFCHR && view.getUint32(A.rdev, true) === 0
  }

  /** S_IFMT bits of what `status` tells of. */
  get type(): number {
    return this.status.view.getUint32(A.mode, true) & S_IFMT
  }

  /** Inode number on the host of what `status` tells of. */
  get hostIno(): number {
    return this.status.view.getUint32(A.inoHigh, true) * 2 ** 32 + this.status.view.getUint32(A.inoLow, true)
  }

  get links(): number {
    return this.status.view.getUint32(A.nlink, true)
  }

  /** The inode number that is shown for what `status` tells of, an upper file that has no lower one. */
  get shownIno(): { readonly low: number; readonly high: number } {
    return { low: this.status.view.getUint32(A.inoLow, true), high: shownHigh(this.status.view.getUint32(A.inoHigh, true)) }
  }

  /** When `fd` was last read and changed. */
  times(fd: number): Times {
    checked(native().statusOf(fd, this.status.bytes, false), 'statx')
    const { view } = this.status
    return {
      accessSeconds: view.getInt32(A.atimeHigh, true) * 2 ** 32 + view.getUint32(A.atimeLow, true), accessNanoseconds: view.getUint32(A.atimeNsec, true),
      changeSeconds: view.getInt32(A.mtimeHigh, true) * 2 ** 32 + view.getUint32(A.mtimeLow, true), changeNanoseconds: view.getUint32(A.mtimeNsec, true),
    }
  }

  setTimes(fd: number, { accessSeconds, accessNanoseconds, changeSeconds, changeNanoseconds }: Times): void {
    checked(native().changeTimes(fd, accessSeconds, accessNanoseconds, changeSeconds, changeNanoseconds), 'utimensat')
  }

  /** Whether directory `name` in an upper directory hides one of the image. @throws NATIVE_SYSCALL, SERVE_UNSUPPORTED */
  isOpaque(directory: number, name: string): boolean {
    return this.#at(directory, name, (fd) => {
      this.#refuse(fd, 'trusted.overlay.redirect', name)
      return this.attribute(fd, OPAQUE) === 'y'
    })
  }

  // Made by overlayfs with redirect_dir=on or metacopy=on, which are not its defaults. What is not followed must not be shown as empty.
  #refuse(fd: number, attribute: string, name: string): void {
    if (this.attribute(fd, attribute) !== undefined) throw new CodedError('SERVE_UNSUPPORTED', `${toText(name)} in the upper directory has ${attribute}, which is not followed here`)
  }

  setOpaque(fd: number): void {
    checked(native().setXattrOf(fd, OPAQUE, Buffer.from('y'), 0), 'setxattr')
  }

  /** The image's inode number that `name` in an upper directory was copied from. */
  origin(directory: number, name: string): number | undefined {
    const text = this.#at(directory, name, (fd) => {
      this.#refuse(fd, 'trusted.overlay.metacopy', name)
      return this.attribute(fd, ORIGIN)
    })
    const nid = text === undefined ? Number.NaN : Number(text)
    return Number.isSafeInteger(nid) && nid >= 0 ? nid : undefined
  }

  setOrigin(fd: number, nid: number): void {
    checked(native().setXattrOf(fd, ORIGIN, Buffer.from(String(nid)), 0), 'setxattr')
  }

  /** Value of an extended attribute; undefined when there is none. @throws NATIVE_SYSCALL */
  attribute(fd: number, name: string): string | undefined {
    const size = native().getXattrOf(fd, name, this.#buffer, 0, this.#buffer.length)
    if (size === -ERRNO.ENODATA || size === -ERRNO.EOPNOTSUPP) return undefined
    return this.#buffer.toString('latin1', 0, checked(size, `getxattr ${name}`))
  }

  /** Entries of an upper directory, without . and .. @throws NATIVE_SYSCALL */
  entries(directory: number): UpperEntry[] {
    const fd = checked(native().reopen(directory, O_RDONLY, 0), 'open')
    const found: { name: string; type: number; isWhiteout: boolean; inoLow: number; inoHigh: number }[] = []
    try {
      let low = 0
      let high = 0
      for (;;) {
        const size = checked(native().readDirectory(fd, low, high, this.#buffer, 0, this.#buffer.length), 'getdents64')
        if (size === 0) break
        for (const { name, type, inoLow, inoHigh, cookieLow, cookieHigh } of directoryRecords(this.#buffer, 0, size)) {
          low = cookieLow
          high = cookieHigh
          if (name !== '.' && name !== '..') found.push({ name, type, isWhiteout: false, inoLow, inoHigh: shownHigh(inoHigh) })
        }
      }
    } finally {
      native().closeFd(fd)
    }
    for (const entry of found) if (entry.type === S_IFCHR >> 12) entry.isWhiteout = this.find(directory, entry.name) && this.isWhiteout
    return found
  }

  /** A name in the work directory that is not used yet, not even by a server before this one that may still be ending. */
  temporary(): string {
    return `${this.#prefix}-${++this.#lastTemporary}`
  }

  /** Removes `name` from a directory of the host, with everything in it. @throws NATIVE_SYSCALL */
  removeTree(directory: number, name: string): void {
    const result = native().removeAt(directory, name, false)
    if (result === -ERRNO.ENOENT) return
    if (result !== -ERRNO.EISDIR) {
      checked(result, 'unlink')
      return
    }
    const fd = checked(native().openChild(directory, name, O_PATH, 0), 'open')
    try {
      for (const entry of this.entries(fd)) this.removeTree(fd, entry.name)
    } finally {
      native().closeFd(fd)
    }
    checked(native().removeAt(directory, name, true), 'rmdir')
  }

  /** Removes what was not put in its place, and unless they are still known (`kept`) the files without a name. */
  clearWork({ kept = false }: { readonly kept?: boolean } = {}): void {
    for (const { name } of this.entries(this.work)) if (!kept || !name.startsWith(KEPT)) this.removeTree(this.work, name)
  }

  #at<T>(directory: number, name: string, use: (fd: number) => T): T {
    const fd = checked(native().openChild(directory, name, O_PATH, 0), 'open')
    try {
      return use(fd)
    } finally {
      native().closeFd(fd)
    }
  }

  #cached(node: OverlayNode): Cached {
    const known = this.#open.get(node)
    if (known) {
      this.#open.delete(node)
      this.#open.set(node, known)
      return known
    }
    const cached: Cached = { path: this.#openPath(node), file: -1 }
    this.#open.set(node, cached)
    const [oldest] = this.#open.keys()
    if (this.#open.size > OPEN_NODES && oldest) this.close(oldest)
    return cached
  }

  #openPath({ id, place, isKept, keptName, gone }: OverlayNode): number {
    if (gone || (!place && !isKept && id !== ROOT_NODE)) throw new CodedError('SERVE_STALE_NODE', 'the file is no more', { node: id })
    if (isKept) return checked(native().openChild(this.work, keptName, O_PATH, 0), 'open')
    if (!place) return checked(native().duplicate(this.root), 'dup')
    return checked(native().openChild(this.path(place.parent), place.name, O_PATH, 0), 'open')
  }
}

function shownHigh(hostHigh: number): number {
  return (hostHigh | UPPER_INO) >>> 0
}
