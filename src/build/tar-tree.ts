// The tree that a tar archive describes, entry by entry, as extracting it would make it.

import { toText } from '../core/byte-string.ts'
import { publish } from '../core/diagnostics.ts'
import { CodedError } from '../core/errors.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, encodeDevice } from '../format/erofs/inode.ts'
import { ImageInode, ImageNode, LAYER_MARK, pathOf, walkOrder } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { encodeXattrs } from '../format/rafs-v6/bootstrap-writer-xattr.ts'
import type { TarEntry, TarEntryType } from '../format/tar/entry.ts'
import { copyInode, implicitDirectory, makeDirectories, nodeAt, resolvePath, setChild } from './tree.ts'

export interface TarTreeOptions {
  readonly explicitUidGid: boolean
  readonly allowForeignLinks?: boolean | undefined
}

/** COMPAT: what eStargz adds to a layer for itself (nydus builder/src/lib.rs is_stargz_special_files). */
const STARGZ_FILES: ReadonlySet<string> = new Set(['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark'])

const TYPE_BITS: Readonly<Record<TarEntryType, number>> = {
  file: S_IFREG, hardlink: S_IFREG, directory: S_IFDIR, symlink: S_IFLNK, character: S_IFCHR, block: S_IFBLK, fifo: S_IFIFO,
}

/** What a hard link's own header says: an inode can say one thing only. */
interface Header { readonly mode: number; readonly uid: number; readonly gid: number; readonly mtime: number; readonly mtimeNsec: number }

/** The tree that the entries of one archive make, in archive order; see `add` and `finish`. */
export class TarTree {
  readonly #root = implicitDirectory('')
  readonly #options: TarTreeOptions
  /** Headers of aliases of files whose headers differ. */
  readonly #headers = new Map<ImageInode, Map<ImageNode, Header>>()
  /** Directory that the last entry was put into: archives keep a directory's entries together. */
  #last: { readonly path: string; readonly directory: ImageNode } | undefined

  constructor(options: TarTreeOptions) {
    this.#options = options
  }

  /**
   * Adds an entry; later ones of the same path replace earlier ones, a directory keeps its content. Returns the inode of a file, undefined for
   * one that is left out. BUILD_SOURCE for a hard link without a target.
   */
  add(entry: TarEntry): ImageInode | undefined {
    if (STARGZ_FILES.has(entry.path)) return undefined
    if (entry.path === '') {
      this.#root.inode = this.#inode(entry)
      return undefined
    }
    const slash = entry.path.lastIndexOf('/')
    const name = entry.path.slice(slash + 1)
    const directory = this.#directory(slash < 0 ? '' : entry.path.slice(0, slash))
    if (entry.type === 'hardlink') {
      this.#link(entry, directory, name)
      return undefined
    }
    const inode = this.#inode(entry)
    const there = directory.children?.get(name)
    if (there?.inode.isDirectory === true && entry.type === 'directory') {
      there.inode = inode
      return undefined
    }
    if (there !== undefined) this.#last = undefined
    setChild(directory, new ImageNode(name, inode))
    return entry.type === 'file' ? inode : undefined
  }

  /** The tree. Files whose names had different headers get those of the last name in walk order, with a warning. */
  finish(): ImageNode {
    if (this.#headers.size > 0) this.#settleHeaders()
    return this.#root
  }

  /** A directory by the path of an entry's parent; symlinks on the way are followed, what is missing is made. */
  #directory(path: string): ImageNode {
    if (this.#last?.path === path) return this.#last.directory
    const names = path === '' ? [] : path.split('/')
    // A loop of links, or a way through a file: whatever is there gives way to directories.
    const directory = makeDirectories(this.#root, resolvePath(this.#root, names) ?? names)
    this.#last = { path, directory }
    return directory
  }

  #inode(entry: TarEntry): ImageInode {
    const inode = new ImageInode(TYPE_BITS[entry.type] | entry.mode)
    Object.assign(inode, this.#header(entry))
    inode.size = entry.size
    if (entry.type === 'symlink') inode.target = entry.link
    if (entry.type === 'character' || entry.type === 'block') inode.rdev = encodeDevice(entry.rdevMajor, entry.rdevMinor)
    inode.xattrs = encodeXattrs(entry.xattrs, entry.path)
    return inode
  }

  #header({ type, mode, uid, gid, mtime, mtimeNsec }: TarEntry): Header {
    const owner = this.#options.explicitUidGid ? { uid, gid } : { uid: 0, gid: 0 }
    return { mode: TYPE_BITS[type] | mode, ...owner, mtime, mtimeNsec }
  }

  #link(entry: TarEntry, directory: ImageNode, name: string): void {
    const path = entry.link.split('/')
    const parent = resolvePath(this.#root, path.slice(0, -1))
    const target = parent === undefined ? undefined : nodeAt(this.#root, [...parent, path.at(-1)!])
    if (target === undefined) {
      if (this.#options.allowForeignLinks !== true) throw refused(entry, 'is not in the archive, or comes later')
      const inode = this.#inode(entry)
      inode.mode = S_IFLNK | entry.mode
      inode.target = entry.link
      inode.mark = LAYER_MARK.foreignLink
      this.#replace(directory, new ImageNode(name, inode))
      return
    }
    if (target.inode.isDirectory) throw refused(entry, 'is a directory')
    const node = new ImageNode(name, target.inode.isRegular ? target.inode : copyInode(target.inode))
    this.#replace(directory, node)
    if (target.inode.isRegular) this.#compareHeaders(entry, node, target)
  }

  #replace(directory: ImageNode, node: ImageNode): void {
    if (directory.children?.has(node.name) === true) this.#last = undefined
    setChild(directory, node)
  }

  #compareHeaders(entry: TarEntry, node: ImageNode, target: ImageNode): void {
    const { inode } = target
    const header = this.#header(entry)
    const known = this.#headers.get(inode)
    if (known !== undefined) known.set(node, header)
    else if (!sameHeader(header, inode)) this.#headers.set(inode, new Map([[node, header]]))
  }

  #settleHeaders(): void {
    const order = walkOrder(this.#root)
    const last = new Map<ImageInode, { entry: number; header: Header }>()
    order.nodes.forEach((node, entry) => {
      const headers = this.#headers.get(node.inode)
      // An alias without a header of its own here says what the first one said.
      if (headers !== undefined) last.set(node.inode, { entry, header: headers.get(node) ?? { ...headerOf(node.inode) } })
    })
    for (const [inode, { entry, header }] of last) {
      Object.assign(inode, header)
      publish('build:source:warning', { path: toText(pathOf(order, entry)), reason: 'hard links with different owners, modes or times: the last one counts' })
    }
  }
}

function headerOf({ mode, uid, gid, mtime, mtimeNsec }: ImageInode): Header {
  return { mode, uid, gid, mtime, mtimeNsec }
}

function sameHeader(a: Header, b: Header): boolean {
  return a.mode === b.mode && a.uid === b.uid && a.gid === b.gid && a.mtime === b.mtime && a.mtimeNsec === b.mtimeNsec
}

function refused({ path, link }: TarEntry, why: string): CodedError {
  return new CodedError('BUILD_SOURCE', `tar entry ${toText(path)}: hard link target ${toText(link)} ${why}`, { path: toText(path), target: toText(link) })
}
