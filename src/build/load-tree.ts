// A bootstrap as a tree that can be changed and written again: layers of a merge, the parent of a build.

import { byteString } from '../core/byte-string.ts'
import { CodedError } from '../core/errors.ts'
import { S_IFBLK, S_IFCHR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, extendedInode } from '../format/erofs/inode.ts'
import type { BlobDescription } from '../format/rafs-v6/bootstrap-writer.ts'
import { BLOB_FEATURE } from '../format/rafs-v6/blob-table.ts'
import { type BlobRecord, BootstrapView, type Inode } from '../format/rafs-v6/bootstrap-view.ts'
import type { ChunkStore } from '../format/rafs-v6/bootstrap-writer-chunks.ts'
import { ImageInode, ImageNode, LAYER_MARK, type LayerMark } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { encodeXattrs } from '../format/rafs-v6/bootstrap-writer-xattr.ts'

export interface LoadOptions {
  /** Receives the chunks that files refer to. */
  readonly chunks: ChunkStore
  /** Blob index in the result for a blob index of the bootstrap. */
  readonly blobIndexOf: (index: number) => number
}

/** The tree; every inode is marked as loaded. FORMAT_* for a damaged bootstrap, one with a directory in two places included. Linear. */
export function loadTree(view: BootstrapView, options: LoadOptions): ImageNode {
  return new TreeLoader(view, options).load()
}

class TreeLoader {
  readonly #view: BootstrapView
  readonly #options: LoadOptions
  /** Regular files with several names. */
  readonly #aliases = new Map<number, ImageInode>()
  readonly #directories = new Set<number>()
  /** Id + 1 of each row of the chunk table that was met. */
  readonly #ids: Uint32Array

  constructor(view: BootstrapView, options: LoadOptions) {
    this.#view = view
    this.#options = options
    this.#ids = new Uint32Array(view.chunkTable.count)
  }

  load(): ImageNode {
    const root = new ImageNode('', this.#inode(this.#view.inode(this.#view.rootNid)))
    const pending: [node: ImageNode, nid: number][] = [[root, this.#view.rootNid]]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) this.#loadDirectory(next[0], next[1], pending)
    return root
  }

  #loadDirectory(node: ImageNode, nid: number, pending: [ImageNode, number][]): void {
    if (this.#directories.has(nid)) throw new CodedError('FORMAT_INVALID', `directory ${nid} has two places in the tree`, { nid })
    this.#directories.add(nid)
    const children = new Map<string, ImageNode>()
    for (const entry of this.#view.entries(this.#view.inode(nid))) {
      if (entry.name === '.' || entry.name === '..') continue
      if (entry.name.includes('/')) throw new CodedError('FORMAT_INVALID', `directory ${nid} has an entry whose name holds a slash`, { nid })
      const inode = this.#aliases.get(entry.nid) ?? this.#inode(this.#view.inode(entry.nid))
      const child = new ImageNode(entry.name, inode)
      children.set(entry.name, child)
      if (inode.isDirectory) pending.push([child, entry.nid])
    }
    if (children.size > 0) node.children = children
  }

  #inode(found: Inode): ImageInode {
    const inode = new ImageInode(found.mode)
    inode.loaded = true
    inode.uid = found.uid
    inode.gid = found.gid
    inode.mtime = found.mtime
    inode.mtimeNsec = found.mtimeNsec
    inode.mark = this.#mark(found)
    if (found.xattrCount > 0) inode.xattrs = encodeXattrs(this.#view.xattrs(found), `inode ${found.nid}`)
    switch (found.mode & S_IFMT) {
      case S_IFREG:
        inode.size = found.size
        inode.chunks = this.#chunks(found)
        if (found.nlink > 1) this.#aliases.set(found.nid, inode)
        break
      case S_IFLNK:
        inode.target = byteString(this.#view.readlink(found))
        break
      case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
        inode.rdev = found.union
    }
    return inode
  }

  #mark({ offset, headerSize, mode }: Inode): LayerMark {
    if (headerSize !== extendedInode.size) return LAYER_MARK.none
    const mark = this.#view.bytes[offset + extendedInode.offsetOf.layerMark]
    if (mark === LAYER_MARK.foreignLink && (mode & S_IFMT) === S_IFLNK) return LAYER_MARK.foreignLink
    return mark === LAYER_MARK.implicit ? LAYER_MARK.implicit : LAYER_MARK.none
  }

  #chunks(file: Inode): ImageInode['chunks'] {
    const count = this.#view.chunkCount(file)
    if (count === 0) return undefined
    if (count === 1) return this.#chunk(file, 0)
    return Array.from({ length: count }, (_, i) => this.#chunk(file, i))
  }

  #chunk(file: Inode, position: number): number {
    const { blobIndex, index, uncompressedOffset } = this.#view.chunkAt(file, position)
    const table = this.#view.chunkTable
    const row = table.rowOf(blobIndex, index)
    if (row < 0 || table.uncompressedOffset(row) !== uncompressedOffset) {
      throw new CodedError('FORMAT_INVALID', `chunk ${position} of inode ${file.nid} (${index} of blob ${blobIndex}) is not in the chunk table`, { nid: file.nid, blobIndex, index })
    }
    const known = this.#ids[row]!
    if (known > 0) return known - 1
    const { chunks, blobIndexOf } = this.#options
    const id = chunks.addRecord(table.record(row), 0)
    chunks.setBlobIndex(id, blobIndexOf(blobIndex))
    this.#ids[row] = id + 1
    return id
  }
}

/** Opens a bootstrap and names it in errors. */
export function openBootstrap(bytes: Uint8Array, name: string): BootstrapView {
  return BootstrapView.open(bytes, { blobIdFromName: name.split('/').at(-1)!.split('.')[0] })
}

/**
 * A blob of a loaded bootstrap as an image that refers to it has it: INLINED_FS_META says that the bootstrap at hand lies inside the blob,
 * which is no longer so.
 */
export function referredBlob({ entry, blobId }: BlobRecord): BlobDescription {
  const { blobIndex: _position, ...rest } = entry
  return { ...rest, blobId, features: (entry.features & ~BLOB_FEATURE.inlinedFsMeta) >>> 0 }
}
