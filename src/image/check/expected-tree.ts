// What the layers of an image say, applied one after the other as a runtime unpacks them. Written apart from build/'s overlay on purpose:
// `check` must not make the mistakes of what it checks. SPEC: OCI image-spec layer.md; COMPAT: containerd's archive/tar.go where it is silent.

import { createHash, type Hash } from 'node:crypto'
import { toText } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '../../format/erofs/inode.ts'
import { layerName } from '../../format/oci/whiteout.ts'
import type { TarEntry, TarEntryType } from '../../format/tar/entry.ts'
import { TarReader } from '../../format/tar/reader.ts'

/** Owner and mode; `mode` with its type bits. */
export interface Ownership { readonly mode: number; readonly uid: number; readonly gid: number }

/** What is known of one inode. Names of hard links share one. */
export interface ExpectedInode {
  /** The archive's own words, and those of every hard link to it: they may differ, and an inode can say one thing only. */
  readonly owners: Ownership[]
  readonly mtime: number
  readonly size: number
  /** Target of a symbolic link, a byte string. */
  readonly link: string
  readonly rdevMajor: number
  readonly rdevMinor: number
  readonly xattrs: ReadonlyMap<string, Uint8Array>
  /** Hex sha256 of a regular file's content. */
  sha256: string
}

export interface ExpectedNode {
  /** Undefined for a directory that no layer describes: it exists because something is in it. */
  inode: ExpectedInode | undefined
  /** Set for directories. */
  readonly children: Map<string, ExpectedNode> | undefined
  /** The layer that put it there. */
  layer: number
}

const TYPE_BITS: Readonly<Record<Exclude<TarEntryType, 'hardlink'>, number>> = {
  file: S_IFREG, directory: S_IFDIR, symlink: S_IFLNK, character: S_IFCHR, block: S_IFBLK, fifo: S_IFIFO,
}
/** LIMIT: path_resolution(7). */
const MAX_LINKS = 40
/** COMPAT: eStargz keeps notes for itself in the root of a layer; no file system shows them. */
const NOTES: ReadonlySet<string> = new Set(['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark'])
const ZEROS = new Uint8Array(64 * 1024)

/** Layers, lowest first, become a tree. */
export class ExpectedTree {
  readonly root: ExpectedNode = { inode: undefined, children: new Map(), layer: 0 }
  #layer = 0

  /** Applies one uncompressed layer. The codes of the tar reader; IMAGE_INVALID for a hard link to nothing. */
  async apply(tar: AsyncIterable<Uint8Array>): Promise<void> {
    this.#layer++
    const reader = new TarReader()
    const content = new ContentHash()
    const drain = () => {
      for (let event = reader.next(); event !== undefined; event = reader.next()) {
        switch (event.type) {
          case 'entry': content.begin(this.#add(event.entry)); break
          case 'data': content.add(event.bytes, event.offset); break
          case 'end-entry': content.end(); break
          case 'end': return
        }
      }
    }
    for await (const piece of tar) {
      reader.push(piece)
      drain()
    }
    reader.finish()
    drain()
  }

  /** Adds an entry; the inode whose content follows, if any does. */
  #add(entry: TarEntry): ExpectedInode | undefined {
    if (entry.path === '') {
      if (entry.type === 'directory') this.root.inode = inodeOf(entry)
      return undefined
    }
    if (NOTES.has(entry.path)) return undefined
    const names = entry.path.split('/')
    const name = names.pop()!
    const meaning = layerName(name)
    if (meaning.kind === 'bookkeeping') return undefined
    if (meaning.kind === 'invalid') throw new CodedError('IMAGE_INVALID', `"${toText(entry.path)}" would remove nothing that has a name`)
    const directory = this.#directory(names)
    switch (meaning.kind) {
      case 'opaque':
        this.#hideLower(directory)
        return undefined
      case 'whiteout':
        this.#remove(directory, meaning.target)
        return undefined
      case 'entry':
        return this.#put(directory, name, entry)
    }
  }

  #put(directory: ExpectedNode, name: string, entry: TarEntry): ExpectedInode | undefined {
    const there = directory.children!.get(name)
    if (entry.type === 'hardlink') {
      const target = this.#find(entry.link.split('/'))
      if (target?.inode === undefined || target.children !== undefined) throw new CodedError('IMAGE_INVALID', `hard link "${toText(entry.path)}": there is no file "${toText(entry.link)}"`)
      target.inode.owners.push({ mode: (target.inode.owners[0]!.mode & 0o170000) | entry.mode, uid: entry.uid, gid: entry.gid })
      directory.children!.set(name, { inode: target.inode, children: undefined, layer: this.#layer })
      return undefined
    }
    const inode = inodeOf(entry)
    if (entry.type === 'directory' && there?.children !== undefined) {
      there.inode = inode
      there.layer = this.#layer
      return undefined
    }
    directory.children!.set(name, { inode, children: entry.type === 'directory' ? new Map() : undefined, layer: this.#layer })
    return entry.type === 'file' ? inode : undefined
  }

  /** The directory at `names`, made where it is missing; links on the way are followed inside the image. */
  #directory(names: readonly string[]): ExpectedNode {
    let node = this.root
    for (const name of this.#resolve(names) ?? names) {
      let child = node.children!.get(name)
      if (child?.children === undefined) {
        child = { inode: undefined, children: new Map(), layer: this.#layer }
        node.children!.set(name, child)
      }
      node = child
    }
    return node
  }

  #find(names: readonly string[]): ExpectedNode | undefined {
    const parents = this.#resolve(names.slice(0, -1))
    let node: ExpectedNode | undefined = parents === undefined ? undefined : this.root
    for (const name of [...parents ?? [], names.at(-1)!]) node = node?.children?.get(name)
    return node
  }

  /** `names` without links; undefined for a loop, or a way through a file. */
  #resolve(names: readonly string[]): string[] | undefined {
    const todo = [...names].reverse()
    let done: { name: string; node: ExpectedNode | undefined }[] = []
    let followed = 0
    while (todo.length > 0) {
      const name = todo.pop()!
      if (name === '' || name === '.') continue
      if (name === '..') { done.pop(); continue }
      const above = done.length === 0 ? this.root : done.at(-1)!.node
      const node = above?.children?.get(name)
      if (node !== undefined && node.children === undefined) {
        if (node.inode === undefined || (node.inode.owners[0]!.mode & 0o170000) !== S_IFLNK || ++followed > MAX_LINKS) return undefined
        if (node.inode.link.startsWith('/')) done = []
        todo.push(...node.inode.link.split('/').reverse())
        continue
      }
      done.push({ name, node })
    }
    return done.map(({ name }) => name)
  }

  /** A whiteout hides what lower layers have; what its own layer puts there stays. */
  #remove(directory: ExpectedNode, name: string): void {
    const node = directory.children!.get(name)
    if (node === undefined) return
    this.#hideLower(node)
    if (node.layer !== this.#layer && (node.children?.size ?? 0) === 0) directory.children!.delete(name)
    else if (node.layer !== this.#layer) node.inode = undefined
  }

  #hideLower(node: ExpectedNode): void {
    if (node.children === undefined) return
    for (const [name, child] of node.children) {
      this.#hideLower(child)
      if (child.layer === this.#layer) continue
      if ((child.children?.size ?? 0) === 0) node.children.delete(name)
      else child.inode = undefined
    }
  }
}

function inodeOf({ type, mode, uid, gid, mtime, size, link, rdevMajor, rdevMinor, xattrs }: TarEntry): ExpectedInode {
  const bits = type === 'hardlink' ? S_IFREG : TYPE_BITS[type]
  return { owners: [{ mode: bits | mode, uid, gid }], mtime, size, link, rdevMajor, rdevMinor, xattrs: new Map(xattrs), sha256: type === 'file' ? EMPTY_SHA256 : '' }
}

const EMPTY_SHA256 = createHash('sha256').digest('hex')

/** Content of one file after the other; holes count as zeros. */
class ContentHash {
  #inode: ExpectedInode | undefined
  #hash: Hash | undefined
  #position = 0

  begin(inode: ExpectedInode | undefined): void {
    this.#inode = inode
    this.#hash = inode === undefined ? undefined : createHash('sha256')
    this.#position = 0
  }

  add(bytes: Uint8Array, offset: number): void {
    this.#skipTo(offset)
    this.#hash?.update(bytes)
    this.#position = offset + bytes.length
  }

  end(): void {
    if (this.#inode === undefined || this.#hash === undefined) return
    this.#skipTo(this.#inode.size)
    this.#inode.sha256 = this.#hash.digest('hex')
    this.#inode = undefined
  }

  #skipTo(offset: number): void {
    for (; this.#position < offset && this.#hash !== undefined; this.#position += Math.min(ZEROS.length, offset - this.#position)) {
      this.#hash.update(ZEROS.subarray(0, Math.min(ZEROS.length, offset - this.#position)))
    }
  }
}
