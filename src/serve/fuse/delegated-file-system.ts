// What a serving thread knows of a file system that another thread serves: that it is there, and that its root is a directory.

import { CodedError } from '../../core/errors.ts'
import { EROFS_LAYOUT, S_IFDIR } from '../../format/erofs/inode.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { ROOT_NODE } from './live-file-system.ts'
import type { MetadataView, ServedFileSystem } from './served-file-system.ts'

const ROOT: Inode = {
  nid: ROOT_NODE, ino: ROOT_NODE, mode: S_IFDIR | 0o755, nlink: 1, size: 0, uid: 0, gid: 0, mtime: 0, mtimeNsec: 0,
  layout: EROFS_LAYOUT.flatPlain, union: 0, rdev: 0, xattrCount: 0, offset: 0, headerSize: 64,
}

/** Its root, of which the kernel asks again where it counts. */
export const delegatedView: MetadataView = {
  rootNid: ROOT_NODE,
  inode(nid) {
    if (nid !== ROOT_NODE) throw new CodedError('SERVE_STALE_NODE', 'a file of a mount that another thread serves', { nid })
    return ROOT
  },
  lookup: () => undefined,
  *entries() {},
  readlink() {
    throw new CodedError('RAFS_NOT_SYMLINK', 'a directory is no symbolic link')
  },
  xattr: () => undefined,
  xattrs: () => [],
}

/** What a worker has of a file system whose requests it hands to the main thread. */
export function delegatedFileSystem(): ServedFileSystem {
  return { view: delegatedView, hasXattr: true, explicitIds: true, mutable: true, delegated: true, locate: () => false }
}
