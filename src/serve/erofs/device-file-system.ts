// A decompressed blob as a file system of one flat file, which the kernel's EROFS driver opens as a device.

import { CodedError } from '../../core/errors.ts'
import { EROFS_FT, EROFS_LAYOUT, S_IFDIR, S_IFREG } from '../../format/erofs/inode.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { openSharedBlob, type SharedBlob } from '../../rafs/index.ts'
import { FOPEN } from '../../wire/fuse/file.ts'
import type { MetadataView, ServedFileSystem } from '../fuse/served-file-system.ts'

/** What a worker needs to serve one device. Structured-cloneable. */
export interface SharedDevice {
  /** Of the file, a byte string. */
  readonly name: string
  /** Bytes of the device. */
  readonly size: number
  /** Undefined where nothing can be cached: every read is a miss then. */
  readonly blob: SharedBlob | undefined
}

const ROOT = 1
/** The node of the file. */
export const DEVICE_NID = 2

/** The directory and the file in it. */
export function deviceView({ name, size }: Pick<SharedDevice, 'name' | 'size'>): MetadataView {
  const inodes: Readonly<Record<number, Inode>> = { [ROOT]: inodeOf(ROOT, S_IFDIR | 0o500, 0), [DEVICE_NID]: inodeOf(DEVICE_NID, S_IFREG | 0o400, size) }
  const children = [
    { name: '.', nid: ROOT, fileType: EROFS_FT.directory, next: 1 }, { name: '..', nid: ROOT, fileType: EROFS_FT.directory, next: 2 },
    { name, nid: DEVICE_NID, fileType: EROFS_FT.regular, next: 3 },
  ]
  return {
    rootNid: ROOT,
    inode(nid) {
      const inode = inodes[nid]
      if (inode === undefined) throw new CodedError('RAFS_NOT_FOUND', 'no such inode', { nid })
      return inode
    },
    lookup: ({ nid }, wanted) => (nid === ROOT ? children.find((child) => child.name === wanted) : undefined),
    *entries(_directory, from = 0) {
      yield* children.slice(from)
    },
    readlink() {
      throw new CodedError('RAFS_NOT_SYMLINK', 'a device is no symbolic link')
    },
    xattr: () => undefined,
    xattrs: () => [],
  }
}

/** The device as a worker sees it; `close` unmaps, descriptors stay the main thread's. */
export function openDevice(device: SharedDevice): ServedFileSystem & { close(): void } {
  const { blob } = device
  const opened = blob && openSharedBlob(blob)
  return {
    view: deviceView(device),
    hasXattr: false,
    explicitIds: true,
    mutable: false,
    openFlags: FOPEN.DIRECT_IO,
    locate(_inode, offset, length, extents) {
      if (opened === undefined || blob === undefined || !opened.isReady(offset, length)) return false
      extents.push(blob.fd, offset, length)
      return true
    },
    close: () => opened?.close(),
  }
}

function inodeOf(nid: number, mode: number, size: number): Inode {
  return {
    nid, ino: nid, mode, nlink: nid === ROOT ? 2 : 1, size, uid: 0, gid: 0, mtime: 0, mtimeNsec: 0,
    layout: EROFS_LAYOUT.flatPlain, union: 0, rdev: 0, xattrCount: 0, offset: 0, headerSize: 64,
  }
}
