// Operations on the tree of an image that is being built. The nodes themselves belong to format/: the bootstrap writer reads them.

import { S_IFDIR } from '../format/erofs/inode.ts'
import { ImageInode, ImageNode, LAYER_MARK } from '../format/rafs-v6/bootstrap-writer-tree.ts'

/** SPEC: symlink resolution limit of Linux (path_resolution(7)). */
const MAX_LINKS = 40

/** A directory that nothing describes: 0755, owner 0, time 0, as upstream has it. `mark` tells the merge that a lower layer's wins. */
export function implicitDirectory(name: string): ImageNode {
  const inode = new ImageInode(S_IFDIR | 0o755)
  inode.mark = LAYER_MARK.implicit
  return new ImageNode(name, inode)
}

/** Adds or replaces a child. */
export function setChild(directory: ImageNode, child: ImageNode): void {
  directory.children ??= new Map()
  directory.children.set(child.name, child)
}

/** Children, sorted or not; none for what is no directory. */
export function childrenOf(node: ImageNode): Iterable<ImageNode> {
  return node.children?.values() ?? []
}

/** A second inode that says the same: hard links of special files and symlinks become copies, as upstream's do. */
export function copyInode(inode: ImageInode): ImageInode {
  return Object.assign(new ImageInode(inode.mode), inode)
}

/** Every node once, parents first, in no promised order; the call stack does not grow with the depth. */
export function* allNodes(root: ImageNode): IterableIterator<ImageNode> {
  const stack = [root]
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    yield node
    for (const child of childrenOf(node)) stack.push(child)
  }
}

/** Number of nodes, the root included. */
export function countNodes(root: ImageNode): number {
  let count = 1
  for (const node of allNodes(root)) count += node.children?.size ?? 0
  return count
}

/**
 * The components of `path` (relative to `root`, byte strings) with every symlink among them followed, as a process with `root` as its root
 * directory would: what does not exist is taken as written, `..` stops at the root. Undefined for a loop of links or a way through a file.
 */
export function resolvePath(root: ImageNode, path: readonly string[]): string[] | undefined {
  const pending = path.toReversed()
  const resolved: string[] = []
  const trail: (ImageNode | undefined)[] = [root]
  let links = 0
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (name === '' || name === '.') continue
    if (name === '..') {
      if (resolved.length > 0) {
        resolved.pop()
        trail.pop()
      }
      continue
    }
    const child = trail.at(-1)?.children?.get(name)
    const target = child?.inode.target
    if (target !== undefined) {
      if (++links > MAX_LINKS) return undefined
      if (target.startsWith('/')) {
        resolved.length = 0
        trail.length = 1
      }
      pending.push(...target.split('/').reverse())
      continue
    }
    if (child !== undefined && !child.inode.isDirectory) return undefined
    resolved.push(name)
    trail.push(child)
  }
  return resolved
}

/** The node at resolved components, or undefined. */
export function nodeAt(root: ImageNode, path: readonly string[]): ImageNode | undefined {
  let node: ImageNode | undefined = root
  for (const name of path) node = node?.children?.get(name)
  return node
}

/** The directory at resolved components; what is missing, or is no directory, becomes an implicit one. */
export function makeDirectories(root: ImageNode, path: readonly string[]): ImageNode {
  let node = root
  for (const name of path) {
    let child = node.children?.get(name)
    if (child === undefined || !child.inode.isDirectory) {
      child = implicitDirectory(name)
      setChild(node, child)
    }
    node = child
  }
  return node
}
