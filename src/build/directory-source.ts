// A directory as source: the tree from lstat and xattrs, file contents in bulk reads.
// SPEC: nydus builder/src/directory.rs, core/node.rs from_fs_object; spec-rafs.md D.

import { lstat, realpath } from 'node:fs/promises'
import { byteString, bytesOf } from '../core/byte-string.ts'
import { CodedError } from '../core/errors.ts'
import { ImageInode, ImageNode, type WalkOrder, pathOf } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { encodeXattrs } from '../format/rafs-v6/bootstrap-writer-xattr.ts'
import { S_IFMT, S_IFREG } from '../format/erofs/inode.ts'
import { readXattrs } from '../native/file.ts'
import { scanDirectory, type ScannedEntry } from '../native/scan-directory.ts'
import type { ChunkPipeline } from './chunk-pipeline.ts'
import { isWhiteout, type WhiteoutSpec } from './overlay.ts'
import type { Portion } from './portion.ts'

export interface DirectoryOptions {
  /** Absolute or relative, ordinary text. */
  readonly source: string
  /** Whiteouts of this form are left out: the tree is a first layer, with nothing below. */
  readonly dropWhiteouts: WhiteoutSpec
  /** Owners are kept; else all are 0. */
  readonly explicitUidGid: boolean
  readonly signal: AbortSignal
}

export interface DirectoryTree {
  readonly root: ImageNode
  /** Entries seen, the root not counted: what upstream's trace calls `load_from_directory`. */
  readonly entries: number
}

/** LIMIT: directories that are read at the same time; libuv has four threads, one more keeps each busy while JavaScript decodes. */
const SCANS = 5

/** Reads the tree. NATIVE_SYSCALL for what cannot be read, BUILD_SOURCE for what an image cannot express. */
export async function readDirectoryTree(options: DirectoryOptions): Promise<DirectoryTree> {
  const { source, signal } = options
  const base = await rootPath(source)
  const reader = new TreeReader(options)
  const root = new ImageNode('', reader.inode(await statRoot(base, source), '/'))
  // Build tools make this directory anew each time; its time would make every layer another one.
  root.inode.mtime = 0
  root.inode.mtimeNsec = 0
  const pending: [node: ImageNode, path: string][] = [[root, base]]
  const running = new Set<Promise<void>>()
  while (pending.length > 0 || running.size > 0) {
    signal.throwIfAborted()
    while (pending.length > 0 && running.size < SCANS) {
      const [node, at] = pending.pop()!
      const scan: Promise<void> = scanDirectory(at === '' ? '/' : at)
        .then((entries) => reader.fill(node, at, entries, pending))
        .finally(() => running.delete(scan))
      running.add(scan)
    }
    await Promise.race(running).catch(async (error: unknown) => {
      await Promise.allSettled(running)
      throw error
    })
  }
  return { root, entries: reader.entries }
}

class TreeReader {
  entries = 0
  readonly #options: DirectoryOptions
  readonly #links = new Map<string, ImageInode>()

  constructor(options: DirectoryOptions) {
    this.#options = options
  }

  fill(node: ImageNode, at: string, entries: readonly ScannedEntry[], pending: [ImageNode, string][]): void {
    this.entries += entries.length
    const children = new Map<string, ImageNode>()
    for (const entry of entries) {
      const child = new ImageNode(entry.name, this.#shared(entry, `${at}/${entry.name}`))
      if (isWhiteout(child, this.#options.dropWhiteouts)) continue
      children.set(entry.name, child)
      if (child.inode.isDirectory) pending.push([child, `${at}/${entry.name}`])
    }
    if (children.size > 0) node.children = children
  }

  #shared(entry: ScannedEntry, at: string): ImageInode {
    if (entry.nlink < 2 || (entry.mode & S_IFMT) !== S_IFREG) return this.inode(entry, at)
    const key = `${entry.dev}:${entry.ino}`
    let inode = this.#links.get(key)
    if (inode === undefined) this.#links.set(key, inode = this.inode(entry, at))
    return inode
  }

  inode(entry: ScannedEntry, at: string): ImageInode {
    const inode = new ImageInode(entry.mode)
    if (this.#options.explicitUidGid) {
      inode.uid = entry.uid
      inode.gid = entry.gid
    }
    inode.mtime = entry.mtime
    inode.mtimeNsec = entry.mtimeNsec
    if (inode.isRegular) inode.size = entry.size
    else if (entry.link !== undefined) inode.target = entry.link
    else if (!inode.isDirectory) inode.rdev = entry.rdev % 2 ** 32
    if (entry.xattrs !== undefined) inode.xattrs = encodeXattrs(entry.xattrs, at)
    return inode
  }
}

async function statRoot(base: string, source: string): Promise<ScannedEntry> {
  const stat = await lstat(base === '' ? '/' : bytesOf(base))
  if (!stat.isDirectory()) throw new CodedError('BUILD_SOURCE', `source ${source} is no directory`, { source })
  const xattrs = readXattrs(base === '' ? '/' : base)
  return {
    name: '', mode: stat.mode, uid: stat.uid, gid: stat.gid, size: 0, mtime: 0, mtimeNsec: 0, rdev: 0, dev: 0, ino: 0, nlink: stat.nlink,
    ...(xattrs.length > 0 ? { xattrs: xattrs.map(([name, value]) => [name, Buffer.from(value)] as const) } : undefined),
  }
}

/** Absolute byte string without a slash at its end: '' for `/`. BUILD_SOURCE when there is no such path. */
async function rootPath(source: string): Promise<string> {
  try {
    return byteString(await realpath(source, 'buffer')).replace(/\/$/, '')
  } catch (cause) {
    throw new CodedError('BUILD_SOURCE', `cannot read source ${source}: ${cause instanceof Error ? cause.message : String(cause)}`, { source }, { cause })
  }
}

export interface FeedOptions {
  readonly source: string
  readonly order: WalkOrder
  /** Entries of `order` that are regular files with data, in the order in which the blob has them. */
  readonly files: readonly number[]
  readonly chunkSize: number
  /** Called with the size of each file as it is taken up. */
  readonly onFile?: (size: number) => void
}

/** Puts the contents of files into the pipeline. BUILD_SOURCE for a file that cannot be read or became shorter. */
export async function feedFiles(pipeline: ChunkPipeline, { source, order, files, chunkSize, onFile }: FeedOptions): Promise<void> {
  const base = await rootPath(source)
  let portion = await pipeline.portion()
  let parent = -1
  let directory = ''
  for (const entry of files) {
    const { name, inode } = order.nodes[entry]!
    if (order.parent[entry] !== parent) {
      parent = order.parent[entry]!
      directory = parent === 0 ? `${base}/` : `${base}${pathOf(order, parent)}/`
    }
    onFile?.(inode.size)
    let isBegun = false
    for (let offset = 0; offset < inode.size; offset += chunkSize) {
      const length = Math.min(chunkSize, inode.size - offset)
      if (!portion.hasRoom(length)) {
        submitReads(pipeline, portion)
        portion = await pipeline.portion()
        isBegun = false
      }
      const at = portion.add(inode, length)
      // Chunks of one file are one read.
      if (isBegun) portion.reads.extend(length)
      else portion.reads.add(directory, name, { offset, length, at })
      isBegun = true
    }
  }
  submitReads(pipeline, portion)
}

function submitReads(pipeline: ChunkPipeline, portion: Portion): void {
  pipeline.submit(portion, () => portion.reads.read(portion.input))
}
