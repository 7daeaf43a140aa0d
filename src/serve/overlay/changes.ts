// Names made, removed and moved. Whatever takes more than one step happens in the work directory, and becomes visible by one rename; so it is with
// a server that dies in between, and its successor tells from what is there whether the step was done.
// SPEC: linux fs/overlayfs/dir.c.

import { S_IFCHR, S_IFDIR, S_IFMT } from '../../format/erofs/inode.ts'
import { checked } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import { attr } from '../../wire/fuse/inode.ts'
import { ERRNO } from '../errno.ts'
import type { Answer, NodeAnswer, Operation } from '../fuse/live-file-system.ts'
import { O_PATH, RENAME } from './layers.ts'
import type { OverlayNode, Place } from './node.ts'
import type { OverlayTree } from './tree.ts'

const S_ISGID = 0o2000
const PERMISSIONS = 0o7777
const A = attr.offsetOf

/** What is to be made: with the type bits of its mode. `make` makes it under a name in a directory of the host. */
export interface Making { readonly mode: number; readonly hasMode: boolean; make(directory: number, name: string): number }

/** Changes of names in the merged tree. Preconditions that the kernel has checked under its locks are not checked again. */
export class OverlayChanges {
  readonly #tree: OverlayTree

  constructor(tree: OverlayTree) {
    this.#tree = tree
  }

  /** Makes something new. The node, or a negative errno. */
  make(parent: OverlayNode, name: string, making: Making, by: Operation): OverlayNode | number {
    const tree = this.#tree
    const { upper } = tree
    if (this.#isRemoved(parent)) return -ERRNO.ENOENT
    const existing = tree.child(parent, name)
    if (existing) return by.begun === undefined ? -ERRNO.EEXIST : existing
    const isDirectory = (making.mode & S_IFMT) === S_IFDIR
    tree.raiseDirectory(parent)
    by.begin()
    const temporary = upper.temporary()
    checked(making.make(upper.work, temporary), 'make')
    try {
      this.#dress(parent, temporary, making, by)
      this.#put({ parent, name }, temporary, isDirectory)
    } catch (error) {
      upper.removeTree(upper.work, temporary)
      throw error
    }
    return tree.child(parent, name) ?? -ERRNO.EIO
  }

  // Owner, group and mode as a file system on a disk gives them. SPEC: linux fs/inode.c inode_init_owner.
  #dress(parent: OverlayNode, temporary: string, { mode, hasMode }: Making, { uid, gid, umask }: Operation): void {
    const { upper } = this.#tree
    checked(native().statusOf(upper.path(parent), upper.status.bytes, false), 'statx')
    const parentMode = upper.status.view.getUint32(A.mode, true)
    const parentGid = upper.status.view.getUint32(A.gid, true)
    const inherits = (parentMode & S_ISGID) !== 0
    const isDirectory = (mode & S_IFMT) === S_IFDIR
    const fd = checked(native().openChild(upper.work, temporary, O_PATH, 0), 'open')
    try {
      checked(native().changeOwner(fd, uid, inherits ? parentGid : gid), 'chown')
      if (hasMode) checked(native().changeMode(fd, (mode & PERMISSIONS & ~umask) | (inherits && isDirectory ? S_ISGID : 0)), 'chmod')
      if (isDirectory && parent.lower !== undefined) upper.setOpaque(fd) // what the image has under this name, or may have, is not in it
    } finally {
      native().closeFd(fd)
    }
  }

  /** Puts what was made in its place, where at most a whiteout is. */
  #put({ parent, name }: Place, temporary: string, isDirectory: boolean): void {
    const { upper } = this.#tree
    const directory = upper.path(parent)
    const isHidden = upper.find(directory, name)
    if (isHidden && isDirectory) {
      checked(native().renameAt(upper.work, temporary, directory, name, RENAME.EXCHANGE), 'rename')
      native().removeAt(upper.work, temporary, false)
    } else {
      checked(native().renameAt(upper.work, temporary, directory, name, isHidden ? 0 : RENAME.NOREPLACE), 'rename')
    }
  }

  /** One more name for a file that has an upper part. */
  link(node: OverlayNode, place: Place, by: Operation): number {
    const tree = this.#tree
    const { upper } = tree
    if (this.#isRemoved(place.parent)) return -ERRNO.ENOENT
    if (tree.child(place.parent, place.name)) return by.begun === undefined ? -ERRNO.EEXIST : 0
    tree.raiseDirectory(place.parent)
    by.begin()
    const directory = upper.path(place.parent)
    if (upper.find(directory, place.name)) {
      const temporary = upper.temporary()
      checked(native().hardLink(upper.path(node), upper.work, temporary), 'link')
      checked(native().renameAt(upper.work, temporary, upper.path(place.parent), place.name, 0), 'rename')
    } else {
      checked(native().hardLink(upper.path(node), directory, place.name), 'link')
    }
    tree.noteLinks(node)
    tree.addName(node, place)
    return 0
  }

  unlink(parent: OverlayNode, name: string, by: Operation): number {
    const node = this.#toRemove(parent, name, by)
    if (typeof node === 'number') return node
    if (node.isDirectory) return -ERRNO.EISDIR
    const last = this.#lastAttributes(node)
    by.begin()
    const isNeeded = node.hasUpper && node.opens > 0 && node.others.length === 0
    this.#removeUpper({ parent, name }, node, isNeeded ? node.keptName : undefined)
    this.#forgetName(node, { parent, name }, isNeeded, last)
    return 0
  }

  rmdir(parent: OverlayNode, name: string, by: Operation): number {
    const node = this.#toRemove(parent, name, by)
    if (typeof node === 'number') return node
    if (!node.isDirectory) return -ERRNO.ENOTDIR
    if (this.#tree.list(node).length > 0) return -ERRNO.ENOTEMPTY
    const last = this.#lastAttributes(node)
    by.begin()
    this.#removeUpper({ parent, name }, node, undefined)
    this.#forgetName(node, { parent, name }, false, last)
    return 0
  }

  /** The node to be removed, or the answer when there is none. */
  #toRemove(parent: OverlayNode, name: string, by: Operation): OverlayNode | number {
    const tree = this.#tree
    const node = tree.child(parent, name)
    if (!node) return by.begun === undefined ? -ERRNO.ENOENT : 0
    if (by.begun !== undefined && !this.#isThere({ parent, name })) {
      this.#forgetName(node, { parent, name }, this.#isKept(node), undefined)
      return 0
    }
    tree.raiseDirectory(parent)
    return node
  }

  // In one step: what is in the upper directory goes away, and what the image has there is hidden.
  #removeUpper({ parent, name }: Place, node: OverlayNode, keepAs: string | undefined): void {
    const { upper } = this.#tree
    const directory = upper.path(parent)
    const isBelow = this.#tree.lowerChild(parent, name) !== undefined
    if (!node.hasUpper) {
      checked(native().makeNodeAt(directory, name, S_IFCHR, 0), 'mknod')
    } else if (isBelow || node.isDirectory || keepAs !== undefined) {
      const away = keepAs ?? `gone-${node.id}`
      checked(native().renameAt(directory, name, upper.work, away, isBelow ? RENAME.WHITEOUT : 0), 'rename')
      if (keepAs === undefined) upper.removeTree(upper.work, away)
    } else {
      checked(native().removeAt(directory, name, false), 'unlink')
    }
  }

  /** Moves `from` to `to`, which is replaced; `flags` of renameat2(2). Files have an upper part by now. */
  rename(from: Place, to: Place, flags: number, by: Operation): number {
    const tree = this.#tree
    const { upper } = tree
    if (this.#isRemoved(to.parent)) return -ERRNO.ENOENT
    if (by.begun !== undefined && this.#isMoved(to, by.begun)) return this.#moved(from, to, flags)
    const node = tree.child(from.parent, from.name)
    const target = tree.child(to.parent, to.name)
    if (!node) return -ERRNO.ENOENT
    const refused = this.#refusal(node, target, flags)
    if (refused < 0) return refused
    tree.raiseDirectory(from.parent)
    tree.raiseDirectory(to.parent)
    checked(native().statusOf(upper.path(node), upper.status.bytes, false), 'statx')
    by.begin(upper.hostIno)
    if (node.isDirectory && to.parent.lower !== undefined) upper.setOpaque(upper.path(node))
    if ((flags & RENAME.EXCHANGE) !== 0) {
      if (target?.isDirectory && from.parent.lower !== undefined) upper.setOpaque(upper.path(target))
      checked(native().renameAt(upper.path(from.parent), from.name, upper.path(to.parent), to.name, RENAME.EXCHANGE), 'rename')
      return this.#moved(from, to, flags)
    }
    const last = target && this.#lastAttributes(target)
    const isNeeded = target !== undefined && !target.isDirectory && target.hasUpper && target.opens > 0 && target.others.length === 0
    if (isNeeded) checked(native().hardLink(upper.path(target), upper.work, target.keptName), 'link')
    this.#move(from, to, node.isDirectory)
    if (target) this.#forgetName(target, to, isNeeded, last)
    return this.#moved(from, to, flags)
  }

  /** A negative errno when it cannot be done. COMPAT: as overlayfs without redirect_dir: programs know how to copy a directory of the image. */
  #refusal(node: OverlayNode, target: OverlayNode | undefined, flags: number): number {
    if ((flags & ~(RENAME.NOREPLACE | RENAME.EXCHANGE)) !== 0) return -ERRNO.EINVAL
    if ((flags & RENAME.NOREPLACE) !== 0 && target) return -ERRNO.EEXIST
    if (node.isDirectory && node.lower !== undefined) return -ERRNO.EXDEV
    if ((flags & RENAME.EXCHANGE) !== 0) {
      if (!target) return -ERRNO.ENOENT
      return target.isDirectory && target.lower !== undefined ? -ERRNO.EXDEV : 0
    }
    if (!target) return 0
    if (target.isDirectory !== node.isDirectory) return target.isDirectory ? -ERRNO.EISDIR : -ERRNO.ENOTDIR
    return target.isDirectory && this.#tree.list(target).length > 0 ? -ERRNO.ENOTEMPTY : 0
  }

  #move(from: Place, to: Place, isDirectory: boolean): void {
    const { upper } = this.#tree
    const isBelow = this.#tree.lowerChild(from.parent, from.name) !== undefined
    const isOccupied = upper.find(upper.path(to.parent), to.name)
    if (!isDirectory || !isOccupied) {
      checked(native().renameAt(upper.path(from.parent), from.name, upper.path(to.parent), to.name, isBelow ? RENAME.WHITEOUT : 0), 'rename')
      return
    }
    // a directory replaces no whiteout, and no directory that has whiteouts in it
    checked(native().renameAt(upper.path(from.parent), from.name, upper.path(to.parent), to.name, RENAME.EXCHANGE), 'rename')
    this.#clear(from)
  }

  /** Takes away what an exchange has brought to `place`. */
  #clear(place: Place): void {
    const { upper } = this.#tree
    const directory = upper.path(place.parent)
    const isBelow = this.#tree.lowerChild(place.parent, place.name) !== undefined
    if (!upper.find(directory, place.name) || (upper.isWhiteout && isBelow)) return
    const away = upper.temporary()
    checked(native().renameAt(directory, place.name, upper.work, away, isBelow ? RENAME.WHITEOUT : 0), 'rename')
    upper.removeTree(upper.work, away)
  }

  /** Says so of the nodes, once or again. */
  #moved(from: Place, to: Place, flags: number): number {
    const tree = this.#tree
    const node = from.parent.children?.get(from.name)
    const target = to.parent.children?.get(to.name)
    if ((flags & RENAME.EXCHANGE) !== 0) {
      if (node && target && !tree.isAt(target, to)) tree.exchange(node, from, target, to)
      return 0
    }
    if (node && node !== target) {
      if (target) this.#forgetName(target, to, this.#isKept(target), undefined)
      tree.removeName(node, from)
      tree.addName(node, to)
      if (node.isDirectory) this.#clear(from)
    }
    return 0
  }

  /** Whether a server before this one has moved the upper file with that inode number to `to`. */
  #isMoved({ parent, name }: Place, hostIno: number): boolean {
    const { upper } = this.#tree
    return parent.hasUpper && upper.find(upper.path(parent), name) && upper.hostIno === hostIno
  }

  #isThere({ parent, name }: Place): boolean {
    const { upper } = this.#tree
    if (parent.hasUpper && upper.find(upper.path(parent), name)) return !upper.isWhiteout
    return this.#tree.lowerChild(parent, name) !== undefined
  }

  #isKept({ keptName }: OverlayNode): boolean {
    const { upper } = this.#tree
    return upper.find(upper.work, keptName)
  }

  #isRemoved(directory: OverlayNode): boolean {
    return directory.gone !== undefined
  }

  /** What stat will say of `node` when its last name is gone. */
  #lastAttributes(node: OverlayNode): Uint8Array {
    const bytes = new Uint8Array(attr.size)
    this.#tree.attributes(node, { bytes, attributesAt: 0, nameSeconds: 0, attributeSeconds: 0, openFlags: 0, handle: 0 })
    new Uint32Array(bytes.buffer)[A.nlink / 4] = 0
    return bytes
  }

  #forgetName(node: OverlayNode, place: Place, isKept: boolean, last: Uint8Array | undefined): void {
    const tree = this.#tree
    tree.removeName(node, place)
    if (!node.place) {
      if (isKept) node.isKept = true
      else if (node.hasUpper || node.isDirectory) {
        node.gone = last ?? new Uint8Array(0)
        tree.upper.close(node)
        tree.dropLinks(node)
      }
    }
    tree.table.save(node)
  }
}

/** Makes what `answer` of `raise` says, then goes on. */
export function after(answer: Answer, next: () => Answer): Answer {
  return typeof answer === 'number' ? (answer < 0 ? answer : next()) : answer.then((value) => (value < 0 ? value : next()))
}

/** The node as an answer. */
export function told(tree: OverlayTree, made: OverlayNode | number, out: NodeAnswer): number {
  return typeof made === 'number' ? made : tree.told(made, out)
}
