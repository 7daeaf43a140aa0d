// Paths in an image, walked without a mount: as the kernel would, with the image's root as the only root.

import { byteString, toText } from '../core/byte-string.ts'
import { CodedError } from '../core/errors.ts'
import { S_IFDIR, S_IFLNK, S_IFMT } from '../format/erofs/inode.ts'
import type { BootstrapView, Inode } from '../format/rafs-v6/bootstrap-view.ts'

/** SPEC: path_resolution(7): as many links as Linux follows. */
const MAX_LINKS = 40

/**
 * The inode at `path`, a byte string; relative paths start at the root. A link at the end is followed with `followLinks` (default), links on
 * the way always. RAFS_NOT_FOUND, RAFS_NOT_DIRECTORY, RAFS_LOOP, FORMAT_*.
 */
export function resolvePath(view: BootstrapView, path: string, { followLinks = true }: { readonly followLinks?: boolean } = {}): Inode {
  // the way down to where we are, so that ".." needs no trust in the image
  let trail: Inode[] = [view.inode(view.rootNid)]
  const todo = path.split('/').reverse()
  let links = 0
  while (todo.length > 0) {
    const name = todo.pop()!
    const here = trail.at(-1)!
    if ((here.mode & S_IFMT) !== S_IFDIR) throw new CodedError('RAFS_NOT_DIRECTORY', `${toText(path)}: a component before "${toText(name)}" is no directory`, { path: toText(path) })
    if (name === '' || name === '.') continue
    if (name === '..') {
      if (trail.length > 1) trail.pop()
      continue
    }
    const found = view.lookup(here, name)
    if (found === undefined) throw new CodedError('RAFS_NOT_FOUND', `${toText(path)}: no "${toText(name)}"`, { path: toText(path) })
    const inode = view.inode(found.nid)
    if ((inode.mode & S_IFMT) !== S_IFLNK || (!followLinks && todo.every((rest) => rest === ''))) {
      trail.push(inode)
      continue
    }
    if (++links > MAX_LINKS) throw new CodedError('RAFS_LOOP', `${toText(path)}: too many links`, { path: toText(path) })
    const target = byteString(view.readlink(inode))
    if (target.startsWith('/')) trail = [trail[0]!]
    todo.push(...target.split('/').reverse())
  }
  return trail.at(-1)!
}
