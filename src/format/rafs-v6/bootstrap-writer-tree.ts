// The tree that a bootstrap is written from, and the order in which it is numbered and laid out.
// SPEC: nydus builder/src/core/{node,tree,bootstrap}.rs; spec-rafs.md A.7, D "Numbering / layout order".

import { S_IFDIR, S_IFMT, S_IFREG } from '../erofs/inode.ts'

/**
 * What a layer's bootstrap says about an inode beyond RAFS, in a byte that every reader ignores (`ExtendedInode.layerMark`), for the merge:
 * `implicit`: a directory without an entry of its own in the layer; `foreignLink`: a hard link to `target` in a lower layer, written as a symlink.
 */
export const LAYER_MARK = { none: 0, implicit: 1, foreignLink: 2 } as const
export type LayerMark = (typeof LAYER_MARK)[keyof typeof LAYER_MARK]

/**
 * One inode. Hard links of a regular file share the object; nothing else may. Kept small: an image has hundreds of thousands.
 * `chunks`: ids of the chunk store: none (undefined), one (a number) or several.
 */
export class ImageInode {
  /** st_mode: type and twelve permission bits. */
  mode: number
  uid = 0
  gid = 0
  /** Device number, kernel encoding; special files only. */
  rdev = 0
  /** Bytes of a regular file; directories and symlinks have none of their own. */
  size = 0
  mtime = 0
  mtimeNsec = 0
  /** Symlink target, byte string. */
  target: string | undefined = undefined
  /** Encoded as it follows the inode (`encodeXattrs`): a pair of objects an attribute would cost too much. */
  xattrs: Uint8Array | undefined = undefined
  chunks: number | number[] | undefined = undefined
  /** Read from a bootstrap (parent, layer): its data is stored already. */
  loaded = false
  mark: LayerMark = LAYER_MARK.none
  /** Scratch of whoever walks the tree: entry of the first alias, -1 before. `walkOrder` and the writer reset it. */
  index = -1

  constructor(mode: number) {
    this.mode = mode
  }

  get isDirectory(): boolean {
    return (this.mode & S_IFMT) === S_IFDIR
  }

  get isRegular(): boolean {
    return (this.mode & S_IFMT) === S_IFREG
  }
}

/** One directory entry. `children` of a directory without any stays undefined. The root's name is empty. */
export class ImageNode {
  name: string
  inode: ImageInode
  children: Map<string, ImageNode> | undefined = undefined

  constructor(name: string, inode: ImageInode) {
    this.name = name
    this.inode = inode
  }
}

/** Number of chunks that `inode` refers to. */
export function chunkCountOf({ chunks }: ImageInode): number {
  return chunks === undefined ? 0 : typeof chunks === 'number' ? 1 : chunks.length
}

/**
 * All entries, siblings first: the children of a directory are consecutive and sorted bytewise, then each child directory's follow.
 * Entry 0 is the root. `parent[i]` is the entry of the directory that holds entry i; the children of directory i are
 * `firstChild[i]` .. `firstChild[i] + childCount[i]`. `directories`: the directories' entries in the order in which they are laid out.
 */
export interface WalkOrder {
  readonly nodes: readonly ImageNode[]
  readonly parent: Uint32Array
  readonly firstChild: Uint32Array
  readonly childCount: Uint32Array
  readonly directories: readonly number[]
}

/** Walks the tree once; resets every inode's `index`. Depth is bounded by memory only, not by the call stack. */
export function walkOrder(root: ImageNode): WalkOrder {
  const count = countNodes(root)
  const nodes: ImageNode[] = [root]
  const parent = new Uint32Array(count)
  const firstChild = new Uint32Array(count)
  const childCount = new Uint32Array(count)
  const directories: number[] = []
  root.inode.index = -1
  const stack = [0]
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    directories.push(at)
    const first = nodes.length
    firstChild[at] = first
    const children = nodes[at]!.children
    if (children === undefined) continue
    for (const child of sortedChildren(children)) {
      child.inode.index = -1
      parent[nodes.length] = at
      nodes.push(child)
    }
    childCount[at] = nodes.length - first
    for (let i = nodes.length - 1; i >= first; i--) if (nodes[i]!.inode.isDirectory) stack.push(i)
  }
  return { nodes, parent, firstChild, childCount, directories }
}

/** Path of an entry as byte string: `/` for the root. */
export function pathOf({ nodes, parent }: WalkOrder, entry: number): string {
  if (entry === 0) return '/'
  let path = ''
  for (let at = entry; at !== 0; at = parent[at]!) path = `/${nodes[at]!.name}${path}`
  return path
}

/** Children in bytewise order of their names. */
export function sortedChildren(children: ReadonlyMap<string, ImageNode>): ImageNode[] {
  return [...children.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

function countNodes(root: ImageNode): number {
  let count = 1
  const stack = [root]
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (node.children === undefined) continue
    count += node.children.size
    for (const child of node.children.values()) if (child.children !== undefined) stack.push(child)
  }
  return count
}
