// What a daemon shows that was started without an image: one empty directory.

import { CodedError } from '../../core/errors.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { EROFS_FT, EROFS_LAYOUT, S_IFDIR } from '../../format/erofs/inode.ts'
import type { ServedImage } from './served-image.ts'

const root: Inode = {
  nid: 1, ino: 1, mode: S_IFDIR | 0o755, nlink: 2, size: 0, uid: 0, gid: 0, mtime: 0, mtimeNsec: 0,
  layout: EROFS_LAYOUT.flatPlain, union: 0, rdev: 0, xattrCount: 0, offset: 0, headerSize: 64,
}

const entries = ['.', '..'].map((name, i) => ({ name, nid: root.nid, fileType: EROFS_FT.directory, next: i + 1 }))

/** The image of a connection that serves nothing (yet). */
export const emptyImage: ServedImage = {
  view: {
    rootNid: root.nid,
    inode(nid) {
      if (nid !== root.nid) throw new CodedError('RAFS_NOT_FOUND', 'no such inode', { nid })
      return root
    },
    lookup: () => undefined,
    *entries(_directory, from = 0) {
      yield* entries.slice(from)
    },
    readlink() {
      throw new CodedError('RAFS_NOT_SYMLINK', 'the root is a directory')
    },
    xattr: () => undefined,
    xattrs: () => [],
  },
  hasXattr: false,
  explicitIds: true,
  mutable: true,
  locate: () => false,
}
