// Copying up: what the image has becomes a file of the upper directory, made in the work directory and put in its place when it is whole.
// SPEC: linux fs/overlayfs/copy_up.c.

import { fsync } from 'node:fs'
import { promisify } from 'node:util'
import { MiB } from '../../core/units.ts'
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../format/erofs/inode.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { checked } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import { ERRNO } from '../errno.ts'
import { O_PATH, O_RDWR, OVERLAY_XATTRS, RENAME } from './layers.ts'
import type { OverlayNode } from './node.ts'
import type { OverlayTree } from './tree.ts'

const O_CREAT_EXCL = 0o100 | 0o200
const PERMISSIONS = 0o7777
/** LIMIT: bytes read at a time; a whole chunk of an ordinary image. */
const PART = MiB
const ZEROS = Buffer.alloc(PART)
const sync = promisify(fsync)

/** Gives `node`, which has only a lower part, an upper one; of a regular file at most the first `limit` bytes, then zeros. At once but for regular files. */
export function copyUp(tree: OverlayTree, node: OverlayNode, limit: number): number | Promise<number> {
  const inode = tree.inode(node)
  const { upper } = tree
  const name = upper.temporary()
  const type = inode.mode & S_IFMT
  if (type === S_IFREG) return copyFile(tree, node, inode, name, Math.min(limit, inode.size))
  if (type === S_IFDIR) checked(native().makeDirectory(upper.work, name, 0o700), 'mkdir')
  else if (type === S_IFLNK) checked(native().makeLink(upper.work, name, tree.lower.view.readlink(inode)), 'symlink')
  else checked(native().makeNodeAt(upper.work, name, inode.mode, inode.rdev), 'mknod')
  const fd = checked(native().openChild(upper.work, name, O_PATH, 0), 'open')
  try {
    dress(tree, fd, inode)
    settle(tree, node, inode, { fd, name })
  } finally {
    native().closeFd(fd)
  }
  return 0
}

async function copyFile(tree: OverlayTree, node: OverlayNode, inode: Inode, name: string, length: number): Promise<number> {
  const { upper, lower } = tree
  const fd = checked(native().openChild(upper.work, name, O_RDWR | O_CREAT_EXCL, 0o600), 'create')
  try {
    const part = Buffer.alloc(Math.min(PART, Math.max(length, 1)))
    for (let at = 0; at < length;) {
      const size = await lower.read(inode, at, part.subarray(0, length - at))
      tree.check()
      if (size <= 0) break
      if (!part.subarray(0, size).equals(ZEROS.subarray(0, size))) writeAll(fd, part.subarray(0, size), at)
      at += size
    }
    checked(native().changeSize(fd, inode.size), 'truncate')
    if (length > 0) await sync(fd) // before its name: after a power loss it must not be an empty file
    tree.check()
    dress(tree, fd, inode)
    settle(tree, node, inode, { fd, name })
    return 0
  } catch (error) {
    native().removeAt(upper.work, name, false)
    throw error
  } finally {
    native().closeFd(fd)
  }
}

function writeAll(fd: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.length;) done += checked(native().writeAt(fd, bytes, done, bytes.length - done, offset + done, 0), 'write')
}

// Attributes in an order in which none takes another back: a new owner loses capabilities and set-id bits.
function dress(tree: OverlayTree, fd: number, inode: Inode): void {
  const owner = tree.lower.owner ?? inode
  const type = inode.mode & S_IFMT
  checked(native().changeOwner(fd, owner.uid, owner.gid), 'chown')
  if (type !== S_IFLNK) checked(native().changeMode(fd, inode.mode & PERMISSIONS), 'chmod')
  for (const [name, value] of tree.lower.view.xattrs(inode)) {
    if (name.startsWith(OVERLAY_XATTRS)) continue
    const result = native().setXattrOf(fd, name, value, 0)
    if (result !== -ERRNO.EOPNOTSUPP) checked(result, `setxattr ${name}`) // an upper file system without such attributes does without
  }
  if (type !== S_IFDIR && inode.nlink <= 1) tree.upper.setOrigin(fd, inode.nid)
  checked(native().changeTimes(fd, inode.mtime, inode.mtimeNsec, inode.mtime, inode.mtimeNsec), 'utimensat')
}

/** Puts what is whole in its place. */
function settle(tree: OverlayTree, node: OverlayNode, inode: Inode, { fd, name }: { readonly fd: number; readonly name: string }): void {
  const { upper } = tree
  if (node.place) {
    const { parent } = node.place
    tree.raiseDirectory(parent)
    const directory = upper.path(parent)
    const times = upper.times(directory)
    const result = native().renameAt(upper.work, name, directory, node.place.name, RENAME.NOREPLACE)
    upper.setTimes(directory, times) // nothing has changed in it
    // there it is: a server before this one has done it and died
    if (result === -ERRNO.EEXIST) upper.removeTree(upper.work, name)
    else checked(result, 'rename')
  } else {
    // its name was removed meanwhile, and somebody has it open
    checked(native().renameAt(upper.work, name, upper.work, node.keptName, 0), 'rename')
    node.isKept = true
  }
  node.hasUpper = true
  if (!node.isDirectory) {
    node.lower = undefined
    if (inode.nlink > 1) { // COMPAT: as overlayfs without an index: it is a file of its own now
      checked(native().statusOf(fd, upper.status.bytes, false), 'statx')
      const { low, high } = upper.shownIno
      node.inoLow = low
      node.inoHigh = high
    }
  }
  tree.table.save(node)
}
