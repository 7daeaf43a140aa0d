// A full walk of an image's tree for `check`: every inode once, every directory entry, every chunk address. Iterative, linear in the size of
// the bootstrap whatever its bytes say, and it goes on after a fault.
// SPEC: spec-rafs.md A.6 to A.9; verdicts as `nydus-image check`, except where that overflows, loops or aborts (section E).

import { compareBytes } from '../../core/byte-string.ts'
import { isCoded, type ErrorCode } from '../../core/errors.ts'
import { xattrAreaSize } from '../erofs/inline-xattrs.ts'
import {
  chunkIndex, dirent, EROFS_CHUNK_FORMAT_INDEXES, EROFS_LAYOUT, fileTypeOf, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, xattrHeader,
} from '../erofs/inode.ts'
import { EROFS_SLOT_SIZE } from '../erofs/super-block.ts'
import type { BootstrapView, DirectoryEntry, Inode } from './bootstrap-view.ts'
import { RAFS_FLAG } from './super-block-ext.ts'

/** A path of the tree, in depth-first order, directories before what they hold. */
export interface TreeNode {
  /** Byte string, "/" for the root. */
  readonly path: string
  readonly inode: Inode
  /** The root's is 0. */
  readonly depth: number
  /** Whether an earlier path is the same inode: a hard link. */
  readonly isAlias: boolean
}

export interface TreeProblem {
  /** `error`: the image must not be used. `warning`: it is read as it was meant, but is not as a builder should leave it. */
  readonly severity: 'error' | 'warning'
  /** Byte string: where the problem was met. */
  readonly path: string
  readonly code: ErrorCode
  readonly message: string
}

export type TreeStep = { readonly node: TreeNode; readonly problem?: never } | { readonly problem: TreeProblem; readonly node?: never }

/** LIMIT: deeper than any path that Linux resolves in one call (PATH_MAX); bounds what one path may take in memory. */
const MAX_DEPTH = 4096

/** Walks the tree of `view`. Never throws for what the bytes say: each fault is a step. */
export function* validateTree(view: BootstrapView): Generator<TreeStep> {
  const walk = new TreeWalk(view)
  yield* walk.steps()
}

interface Frame {
  readonly nid: number
  readonly parentNid: number
  readonly path: string
  readonly depth: number
  readonly entries: Iterator<DirectoryEntry>
  lastName: string
  dots: number
}

class TreeWalk {
  readonly #view: BootstrapView
  readonly #seen: Uint8Array
  readonly #problems: TreeProblem[] = []
  readonly #stack: Frame[] = []
  // Entries, chunk addresses and attributes of different inodes do not overlap, so the file bounds them; hostile ones may, and are cut off here.
  #entryBudget: number
  #chunkBudget: number
  #xattrBudget: number

  constructor(view: BootstrapView) {
    this.#view = view
    this.#seen = new Uint8Array(Math.ceil(view.bytes.length / EROFS_SLOT_SIZE / 8) + 1)
    this.#entryBudget = Math.floor(view.bytes.length / dirent.size)
    this.#chunkBudget = Math.floor(view.bytes.length / chunkIndex.size)
    this.#xattrBudget = view.bytes.length
  }

  *steps(): Generator<TreeStep> {
    const { rootNid, superBlock } = this.#view
    let count = 0
    const root = this.#visit('/', rootNid, rootNid, 0)
    if (root !== undefined && (root.inode.mode & S_IFMT) !== S_IFDIR) this.#problem('error', '/', 'FORMAT_INVALID', 'the root is no directory')
    if (root !== undefined) { count++; yield { node: root } }
    for (let frame = this.#stack.at(-1); frame !== undefined; frame = this.#stack.at(-1)) {
      const entry = this.#next(frame)
      const node = entry === undefined ? undefined : this.#entry(frame, entry)
      if (node !== undefined) { count++; yield { node } }
      yield* this.#takeProblems()
    }
    if (BigInt(count) !== superBlock.inodeCount) this.#problem('warning', '/', 'FORMAT_INVALID', `the superblock counts ${superBlock.inodeCount} inodes, the tree has ${count}`)
    yield* this.#takeProblems()
  }

  *#takeProblems(): Generator<TreeStep> {
    for (const problem of this.#problems) yield { problem }
    this.#problems.length = 0
  }

  /** The next entry of a directory; at its end, or where it is damaged, the directory is left. */
  #next(frame: Frame): DirectoryEntry | undefined {
    if (this.#entryBudget-- <= 0) {
      this.#problem('error', frame.path, 'FORMAT_INVALID', 'directories overlap: they have more entries than fit the image')
      this.#stack.length = 0
      return undefined
    }
    const next = this.#guard(frame.path, () => frame.entries.next())
    if (next !== undefined && next.done !== true) return next.value
    if (next !== undefined && frame.dots !== 2) this.#problem('error', frame.path, 'FORMAT_INVALID', 'the directory lacks "." or ".."')
    this.#stack.pop()
    return undefined
  }

  #entry(frame: Frame, { name, nid, fileType }: DirectoryEntry): TreeNode | undefined {
    const order = compareBytes(name, frame.lastName)
    if (order === 0) this.#problem('error', frame.path, 'FORMAT_INVALID', 'the directory has a name twice')
    if (order < 0) this.#problem('warning', frame.path, 'FORMAT_INVALID', 'the names of the directory are out of order: lookups may miss some')
    frame.lastName = name
    if (name === '.' || name === '..') {
      frame.dots++
      if (nid !== (name === '.' ? frame.nid : frame.parentNid)) this.#problem('error', frame.path, 'FORMAT_INVALID', `"${name}" of the directory leads to inode ${nid}`)
      return undefined
    }
    const path = frame.depth === 0 ? `/${name}` : `${frame.path}/${name}`
    const node = this.#visit(path, nid, frame.nid, frame.depth + 1)
    if (node !== undefined && fileTypeOf(node.inode.mode) !== fileType) this.#problem('warning', path, 'FORMAT_INVALID', `the directory says file type ${fileType}, the inode does not`)
    return node
  }

  #visit(path: string, nid: number, parentNid: number, depth: number): TreeNode | undefined {
    const inode = this.#guard(path, () => this.#view.inode(nid))
    if (inode === undefined) return undefined
    const isDirectory = (inode.mode & S_IFMT) === S_IFDIR
    const isAlias = this.#markSeen(nid)
    if (isAlias && isDirectory) {
      this.#problem('error', path, 'FORMAT_INVALID', `directory ${nid} is reached a second time`)
      return undefined
    }
    if (!isAlias) this.#checkInode(path, inode)
    if (isDirectory && depth >= MAX_DEPTH) this.#problem('error', path, 'FORMAT_INVALID', `directories are nested more than ${MAX_DEPTH} deep`)
    else if (isDirectory) this.#stack.push({ nid, parentNid, path, depth, entries: this.#view.entries(inode), lastName: '', dots: 0 })
    return { path, inode, depth, isAlias }
  }

  /** Marks an inode that `view.inode` accepted; true when it was marked before. */
  #markSeen(nid: number): boolean {
    const byte = nid >>> 3
    const bit = 1 << (nid & 7)
    const before = (this.#seen[byte]! & bit) !== 0
    this.#seen[byte]! |= bit
    return before
  }

  #checkInode(path: string, inode: Inode): void {
    const { mode, xattrCount, layout, offset, headerSize, size } = inode
    const { view, blockSize } = { view: this.#view, blockSize: this.#view.blockSize }
    const areaSize = xattrAreaSize(xattrCount)
    if (xattrCount > 0 && this.#spend('xattr', areaSize, path)) {
      this.#guard(path, () => view.xattrs(inode))
      if (view.bytes[offset + headerSize + xattrHeader.offsetOf.sharedCount] !== 0) this.#problem('warning', path, 'FORMAT_INVALID', 'the inode refers to shared extended attributes, which RAFS does not have')
    }
    const type = mode & S_IFMT
    if (type === S_IFREG) this.#checkChunks(path, inode)
    if (type === S_IFLNK) this.#guard(path, () => view.readlink(inode))
    if (layout === EROFS_LAYOUT.flatInline && size > 0) {
      const tailStart = offset + headerSize + areaSize
      const tail = size % blockSize === 0 ? blockSize : size % blockSize
      if (Math.floor(tailStart / blockSize) !== Math.floor((tailStart + tail - 1) / blockSize)) this.#problem('warning', path, 'FORMAT_INVALID', 'the inlined tail crosses a block: Linux refuses it')
    }
  }

  #checkChunks(path: string, inode: Inode): void {
    const view = this.#view
    const count = view.chunkCount(inode)
    if (!this.#spend('chunk', count, path)) return
    if (count > 0 && (inode.union & EROFS_CHUNK_FORMAT_INDEXES) === 0) this.#problem('warning', path, 'FORMAT_INVALID', 'the chunk format lacks the mark of chunk indexes: Linux refuses it')
    for (let i = 0; i < count; i++) {
      const address = this.#guard(path, () => view.chunkAt(inode, i))
      if (address === undefined) return // one fault tells enough: a file may have millions of chunks
      const row = view.chunkTable.rowOf(address.blobIndex, address.index)
      const isListed = row >= 0 && view.chunkTable.uncompressedOffset(row) === address.uncompressedOffset
      if (!isListed && (view.flags & RAFS_FLAG.inlinedChunkDigest) === 0) {
        this.#problem('error', path, 'FORMAT_INVALID', `chunk ${i}: the chunk table has no chunk ${address.index} of blob ${address.blobIndex} at ${address.uncompressedOffset}`)
        return
      }
      const want = Math.min(view.chunkSize, inode.size - i * view.chunkSize)
      if (isListed && view.chunkTable.uncompressedSize(row) !== want) {
        this.#problem('warning', path, 'FORMAT_INVALID', `chunk ${i} has ${view.chunkTable.uncompressedSize(row)} bytes, the file wants ${want}`)
        return
      }
    }
  }

  #spend(what: 'chunk' | 'xattr', amount: number, path: string): boolean {
    const rest = (what === 'chunk' ? this.#chunkBudget : this.#xattrBudget) - amount
    if (rest < 0) {
      this.#problem('error', path, 'FORMAT_INVALID', `inodes overlap: they have more ${what === 'chunk' ? 'chunk addresses' : 'extended attributes'} than fit the image`)
      return false
    }
    if (what === 'chunk') this.#chunkBudget = rest
    else this.#xattrBudget = rest
    return true
  }

  /** Result of `read`, or undefined after noting the coded error that it threw. */
  #guard<T>(path: string, read: () => T): T | undefined {
    try {
      return read()
    } catch (error) {
      if (!isCoded(error)) throw error
      this.#problem('error', path, error.code, error.message)
      return undefined
    }
  }

  #problem(severity: TreeProblem['severity'], path: string, code: ErrorCode, message: string): void {
    this.#problems.push({ severity, path, code, message })
  }
}
