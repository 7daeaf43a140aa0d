// What an overlay shows: which names there are, where each file is, and its way up.

import { CodedError } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import { S_IFDIR, S_IFMT } from '../../format/erofs/inode.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { checked } from '../../native/errno.ts'
import { native } from '../../native/load.ts'
import { attr } from '../../wire/fuse/inode.ts'
import { DIRENT_TYPE, FOREVER_SECONDS, writeAttr } from '../fuse/attributes.ts'
import type { Answer, NodeAnswer } from '../fuse/live-file-system.ts'
import { copyUp } from './copy-up.ts'
import type { LowerLayer, UpperLayer } from './layers.ts'
import { namesOf, type NodeTable } from './node-table.ts'
import type { OverlayNode, Place } from './node.ts'

const A = attr.offsetOf

/** A name in a directory, as it is listed. `type`: as d_type. */
export interface Listed { readonly name: string; readonly type: number; readonly inoLow: number; readonly inoHigh: number }

/** The merged tree. */
export class OverlayTree {
  readonly lower: LowerLayer
  readonly upper: UpperLayer
  readonly table: NodeTable
  /** Upper files with several names, by the inode number that they show. */
  readonly #linked = new Map<string, OverlayNode>()
  #abandoned = false

  constructor(lower: LowerLayer, upper: UpperLayer, table: NodeTable) {
    this.lower = lower
    this.upper = upper
    this.table = table
    for (const node of table) if (node.hasUpper && !node.isDirectory) this.noteLinks(node)
  }

  /** The node that a request names. @throws SERVE_STALE_NODE */
  node(id: number): OverlayNode {
    const node = this.table.get(id)
    if (!node) throw new CodedError('SERVE_STALE_NODE', 'a node that nobody knows', { node: id })
    return node
  }

  /** From now on nothing is changed here. */
  abandon(): void {
    this.#abandoned = true
  }

  /** To be called after every await, before something is changed. @throws SERVE_STATE when another server goes on */
  check(): void {
    if (this.#abandoned) throw new CodedError('SERVE_STATE', 'another server goes on with this file system')
  }

  /** What the image has as `name` in `directory`. */
  lowerChild(directory: OverlayNode, name: string): Inode | undefined {
    if (directory.lower === undefined) return undefined
    const { view } = this.lower
    const found = view.lookup(view.inode(directory.lower), name)
    return found && view.inode(found.nid)
  }

  /** `name` in `directory`; undefined when there is none. @throws NATIVE_SYSCALL */
  child(directory: OverlayNode, name: string): OverlayNode | undefined {
    const known = directory.children?.get(name)
    if (known) return known
    if (directory.gone || !directory.isDirectory) return undefined
    const place = { parent: directory, name }
    const lower = this.lowerChild(directory, name)
    if (directory.hasUpper && this.upper.find(this.upper.path(directory), name)) {
      return this.upper.isWhiteout ? undefined : this.#upperChild(place, lower)
    }
    return lower && this.table.add(place, { type: lower.mode & S_IFMT, lower: lower.nid, hasUpper: false, inoLow: lower.nid, inoHigh: 0 })
  }

  /** The node of an upper file which `upper.status` tells of. */
  #upperChild(place: Place, lower: Inode | undefined): OverlayNode {
    const { upper } = this
    const { type, links, shownIno } = upper
    const directory = upper.path(place.parent)
    if (type === S_IFDIR) {
      const isOpaque = upper.isOpaque(directory, place.name)
      const isMerged = !isOpaque && lower !== undefined && (lower.mode & S_IFMT) === S_IFDIR
      const ino = isMerged ? { low: lower.nid, high: 0 } : shownIno
      return this.table.add(place, { type, lower: isMerged ? lower.nid : undefined, hasUpper: true, inoLow: ino.low, inoHigh: ino.high })
    }
    const origin = upper.origin(directory, place.name)
    const ino = origin === undefined ? shownIno : { low: origin, high: 0 }
    const same = links > 1 ? this.#linked.get(keyOf(ino.low, ino.high)) : undefined
    if (same) {
      this.addName(same, place)
      return same
    }
    const node = this.table.add(place, { type, lower: undefined, hasUpper: true, inoLow: ino.low, inoHigh: ino.high })
    if (links > 1) this.noteLinks(node)
    return node
  }

  /** Finds `node` again when it is found under another name. */
  noteLinks(node: OverlayNode): void {
    this.#linked.set(keyOf(node.inoLow, node.inoHigh), node)
  }

  dropLinks(node: OverlayNode): void {
    const key = keyOf(node.inoLow, node.inoHigh)
    if (this.#linked.get(key) === node) this.#linked.delete(key)
  }

  /** One more name of a file. */
  addName(node: OverlayNode, place: Place): void {
    this.#name(node, place)
    this.table.save(node)
  }

  /** Two files have each other's names, at once also for who comes after this server. */
  exchange(first: OverlayNode, from: Place, second: OverlayNode, to: Place): void {
    this.removeName(first, from)
    this.removeName(second, to)
    this.#name(first, to)
    this.#name(second, from)
    this.table.saveBoth(first, second)
  }

  /** Whether `place` in the upper directory is the file that `node` stands for. @throws NATIVE_SYSCALL */
  isAt(node: OverlayNode, { parent, name }: Place): boolean {
    const { upper } = this
    if (!upper.find(upper.path(parent), name)) return false
    const { low, high } = upper.shownIno
    const origin = node.isDirectory ? undefined : upper.origin(upper.path(parent), name)
    return origin === undefined ? node.inoLow === low && node.inoHigh === high : node.inoLow === origin && node.inoHigh === 0
  }

  #name(node: OverlayNode, place: Place): void {
    if (node.place) node.others.push(place)
    else node.place = place
    place.parent.children?.set(place.name, node)
  }

  /** `node` has that name no more. */
  removeName(node: OverlayNode, { parent, name }: Place): void {
    if (parent.children?.get(name) === node) parent.children.delete(name)
    const left = namesOf(node).filter((place) => place.parent !== parent || place.name !== name)
    node.place = left[0]
    node.others = left.slice(1)
  }

  /** The kernel has let go of `count` lookups. */
  forget(node: OverlayNode, count: number): void {
    node.lookups -= count
    this.#dropUnused(node)
  }

  // A directory stays as long as something in it is known: that is found through it.
  #dropUnused(node: OverlayNode): void {
    // LIMIT: what a server before this one was asked for is known for ever, but what has no name is let go of when the kernel does
    const isUnused = node.lookups <= 0 || (node.lookups === Number.POSITIVE_INFINITY && !node.place)
    if (!isUnused || node === this.table.root || (node.children?.size ?? 0) > 0 || node.copying) return
    this.upper.close(node)
    if (node.isKept) native().removeAt(this.upper.work, node.keptName, false)
    this.dropLinks(node)
    const parents = namesOf(node).map(({ parent }) => parent)
    this.table.drop(node)
    for (const parent of parents) this.#dropUnused(parent)
  }

  /** Tells of a node that a request leads to; a lookup is counted. */
  told(node: OverlayNode, out: NodeAnswer): number {
    this.attributes(node, out)
    out.nameSeconds = FOREVER_SECONDS // nobody else changes it
    node.lookups++
    return node.id
  }

  /** Tells the attributes of `node`. @throws NATIVE_SYSCALL */
  attributes(node: OverlayNode, out: NodeAnswer): void {
    const { bytes, attributesAt: at } = out
    const view = dataViewOf(bytes)
    if (node.gone) {
      if (node.gone.length === 0) throw new CodedError('SERVE_STALE_NODE', 'the file is no more', { node: node.id })
      bytes.set(node.gone, at)
    } else if (node.hasUpper) {
      const { status } = this.upper
      checked(native().statusOf(this.upper.path(node), status.bytes, false), 'statx')
      bytes.set(status.bytes.subarray(0, attr.size), at)
      if (node.isMerged) view.setUint32(at + A.nlink, 1, true) // COMPAT: overlayfs does not count the directories in a merged one
      if (node.isKept) view.setUint32(at + A.nlink, view.getUint32(at + A.nlink, true) - 1, true)
    } else {
      writeAttr(view, at, this.inode(node), 0, this.lower.owner)
      if (!node.place && node !== this.table.root) view.setUint32(at + A.nlink, 0, true)
      else if (!node.isDirectory) out.attributeSeconds = FOREVER_SECONDS
    }
    view.setUint32(at + A.inoLow, node.inoLow, true)
    view.setUint32(at + A.inoHigh, node.inoHigh, true)
  }

  /** The lower part of `node`. */
  inode(node: OverlayNode): Inode {
    if (node.lower === undefined) throw new CodedError('SERVE_STALE_NODE', 'the file is no more', { node: node.id })
    return this.lower.view.inode(node.lower)
  }

  /** Everything in a directory but . and .. @throws NATIVE_SYSCALL */
  list(directory: OverlayNode): Listed[] {
    if (directory.gone) return []
    const above = directory.hasUpper ? this.upper.entries(this.upper.path(directory)) : []
    const hidden = new Set(above.map(({ name }) => name))
    const listed: Listed[] = above.filter(({ isWhiteout }) => !isWhiteout).map((entry) => ({ name: entry.name, type: entry.type, ...this.#inoOf(directory, entry) }))
    if (directory.lower === undefined) return listed
    const { view } = this.lower
    for (const { name, nid, fileType } of view.entries(view.inode(directory.lower))) {
      if (name !== '.' && name !== '..' && !hidden.has(name)) listed.push({ name, type: DIRENT_TYPE[fileType] ?? 0, inoLow: nid, inoHigh: 0 })
    }
    return listed
  }

  // As stat shows it: programs compare the two.
  #inoOf(directory: OverlayNode, { name, type, inoLow, inoHigh }: Listed): { inoLow: number; inoHigh: number } {
    const known = directory.children?.get(name)
    if (known) return { inoLow: known.inoLow, inoHigh: known.inoHigh }
    if (type === S_IFDIR >> 12) {
      const lower = this.lowerChild(directory, name)
      if (lower && (lower.mode & S_IFMT) === S_IFDIR && !this.upper.isOpaque(this.upper.path(directory), name)) return { inoLow: lower.nid, inoHigh: 0 }
      return { inoLow, inoHigh }
    }
    const origin = this.upper.origin(this.upper.path(directory), name)
    return origin === undefined ? { inoLow, inoHigh } : { inoLow: origin, inoHigh: 0 }
  }

  /** Makes sure that a directory has an upper part. @throws NATIVE_SYSCALL */
  raiseDirectory(directory: OverlayNode): void {
    if (!directory.hasUpper) checked(this.raiseNow(directory), 'copy up')
  }

  /** The same for anything but a regular file, of which `raise` copies up to `limit` bytes. */
  raiseNow(node: OverlayNode): number {
    const answer = this.raise(node)
    if (typeof answer !== 'number') throw new CodedError('SERVE_STATE', 'a file is copied up in its own time')
    return answer
  }

  /** Makes sure that `node` has an upper part: copies it up, with what it is in. Nobody sees a part of it. @throws NATIVE_SYSCALL, STORAGE_* */
  raise(node: OverlayNode, limit = Number.POSITIVE_INFINITY): Answer {
    if (node.hasUpper) return 0
    if (node.gone) throw new CodedError('SERVE_STALE_NODE', 'the file is no more', { node: node.id })
    node.copying ??= (() => {
      const copying = copyUp(this, node, limit)
      if (typeof copying === 'number') return undefined
      return copying.finally(() => {
        node.copying = undefined
        this.#dropUnused(node)
      })
    })()
    return node.copying ?? 0
  }
}

function keyOf(inoLow: number, inoHigh: number): string {
  return `${inoHigh}:${inoLow}`
}
