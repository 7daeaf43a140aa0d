// Lays one layer over the layers below it.
// SPEC: OCI image-spec layer.md "Whiteouts", "Opaque Whiteout"; linux Documentation/filesystems/overlayfs.rst for the other form.

import { toText } from '../core/byte-string.ts'
import { CodedError } from '../core/errors.ts'
import { decodeXattrs } from '../format/erofs/inline-xattrs.ts'
import { S_IFCHR, S_IFMT } from '../format/erofs/inode.ts'
import { type ImageInode, type ImageNode, LAYER_MARK } from '../format/rafs-v6/bootstrap-writer-tree.ts'
import { encodeXattrs } from '../format/rafs-v6/bootstrap-writer-xattr.ts'
import { allNodes, childrenOf, copyInode, makeDirectories, nodeAt, resolvePath, setChild } from './tree.ts'

/** How a layer says that something below it is gone. */
export const WHITEOUT_SPECS = ['oci', 'overlayfs', 'none'] as const
export type WhiteoutSpec = (typeof WHITEOUT_SPECS)[number]

const OCI_PREFIX = '.wh.'
const OCI_OPAQUE = '.wh..wh..opq'
const OVERLAYFS_OPAQUE = 'trusted.overlay.opaque'

/**
 * `lower` with `upper` laid over it; both trees are consumed. A whiteout hides what lower layers have, never its neighbours in its own layer.
 * A directory without an entry of its own (LAYER_MARK.implicit) keeps what the lower layer says of it; when it is a symlink there, its content goes
 * where the link leads, as extracting the layers one after the other would have it. A hard link to a lower layer's file joins that file.
 * BUILD_SOURCE for such a link without a target.
 */
export function overlay(lower: ImageNode, upper: ImageNode, spec: WhiteoutSpec): ImageNode {
  followLowerLinks(lower, upper)
  joinLowerFiles(lower, upper)
  if (upper.inode.mark !== LAYER_MARK.implicit) lower.inode = upper.inode
  const pending: [lower: ImageNode, upper: ImageNode][] = [[lower, upper]]
  for (let pair = pending.pop(); pair !== undefined; pair = pending.pop()) mergeDirectory(pair[0], pair[1], spec, pending)
  return lower
}

/** The lowest layer, whose whiteouts have nothing to hide, without them; consumed. BUILD_SOURCE for a hard link to a layer below. */
export function lowestLayer(root: ImageNode, spec: WhiteoutSpec): ImageNode {
  for (const node of allNodes(root)) {
    if (node.inode.mark === LAYER_MARK.foreignLink) throw missingTarget(node)
    for (const child of childrenOf(node)) if (isWhiteout(child, spec)) node.children!.delete(child.name)
  }
  return root
}

/** Whether a node stands for something that is gone: it is never part of an image itself. Opaque directories of overlayfs are directories. */
export function isWhiteout({ name, inode }: ImageNode, spec: WhiteoutSpec): boolean {
  switch (spec) {
    case 'oci': return name.startsWith(OCI_PREFIX)
    case 'overlayfs': return (inode.mode & S_IFMT) === S_IFCHR && inode.rdev === 0
    case 'none': return false
  }
}

function mergeDirectory(lower: ImageNode, upper: ImageNode, spec: WhiteoutSpec, pending: [ImageNode, ImageNode][]): void {
  // First what goes, then what comes: a layer may remove a file and have another of the same name.
  for (const child of childrenOf(upper)) {
    if (!isWhiteout(child, spec)) continue
    if (spec === 'oci' && child.name === OCI_OPAQUE) lower.children = undefined
    else lower.children?.delete(spec === 'oci' ? child.name.slice(OCI_PREFIX.length) : child.name)
  }
  for (const child of childrenOf(upper)) {
    if (isWhiteout(child, spec)) continue
    const below = lower.children?.get(child.name)
    if (spec === 'overlayfs' && dropOpaque(child.inode) && below !== undefined) below.children = undefined
    if (!child.inode.isDirectory) {
      setChild(lower, child)
      continue
    }
    const merged = below?.inode.isDirectory === true ? below : adopt(lower, child)
    if (child.inode.mark !== LAYER_MARK.implicit) merged.inode = child.inode
    pending.push([merged, child])
  }
}

/** A new directory of `lower` for `upper`'s; its content follows, so that whiteouts in it vanish. */
function adopt(lower: ImageNode, upper: ImageNode): ImageNode {
  const node: ImageNode = { name: upper.name, inode: upper.inode, children: undefined }
  setChild(lower, node)
  return node
}

/** Takes the mark of overlayfs off a directory; whether it was there. */
function dropOpaque(inode: ImageInode): boolean {
  if (inode.xattrs === undefined || !inode.isDirectory) return false
  const xattrs = decodeXattrs(inode.xattrs)
  const isOpaque = xattrs.some(([name, value]) => name === OVERLAYFS_OPAQUE && value.length === 1 && value[0] === 'y'.charCodeAt(0))
  if (isOpaque) inode.xattrs = encodeXattrs(xattrs.filter(([name]) => name !== OVERLAYFS_OPAQUE), '')
  return isOpaque
}

interface Place { readonly upper: ImageNode; readonly lower: ImageNode | undefined; readonly path: readonly string[] }

/** Moves, within `upper`, the content of implicit directories that are symlinks in `lower` to where those lead. */
function followLowerLinks(lower: ImageNode, upper: ImageNode): void {
  const pending: Place[] = [{ upper, lower, path: [] }]
  for (let place = pending.pop(); place !== undefined; place = pending.pop()) {
    for (const child of [...childrenOf(place.upper)]) {
      if (!child.inode.isDirectory) continue
      const path = [...place.path, child.name]
      const below = place.lower?.children?.get(child.name)
      const isLink = child.inode.mark === LAYER_MARK.implicit && below?.inode.target !== undefined && !place.upper.children!.has(OCI_PREFIX + child.name)
      const target = isLink ? resolvePath(lower, path) : undefined
      if (target === undefined) {
        // Below something new nothing can be a link.
        if (below !== undefined) pending.push({ upper: child, lower: below, path })
        continue
      }
      place.upper.children!.delete(child.name)
      graft(makeDirectories(upper, target), child)
      const parent = target.slice(0, -1)
      pending.push({ upper: nodeAt(upper, parent)!, lower: nodeAt(lower, parent), path: parent })
    }
  }
}

/** Adds the content of `from` to `into`; what is there stays. */
function graft(into: ImageNode, from: ImageNode): void {
  const pending: [ImageNode, ImageNode][] = [[into, from]]
  for (let pair = pending.pop(); pair !== undefined; pair = pending.pop()) {
    for (const child of childrenOf(pair[1])) {
      const there = pair[0].children?.get(child.name)
      if (there === undefined) setChild(pair[0], child)
      else if (there.inode.isDirectory && child.inode.isDirectory) pending.push([there, child])
    }
  }
}

function joinLowerFiles(lower: ImageNode, upper: ImageNode): void {
  for (const node of allNodes(upper)) {
    if (node.inode.mark !== LAYER_MARK.foreignLink) continue
    const path = node.inode.target!.split('/')
    const parent = resolvePath(lower, path.slice(0, -1))
    const target = parent === undefined ? undefined : nodeAt(lower, [...parent, path.at(-1)!])
    if (target === undefined || target.inode.isDirectory) throw missingTarget(node)
    node.inode = target.inode.isRegular ? target.inode : copyInode(target.inode)
  }
}

function missingTarget({ name, inode }: ImageNode): CodedError {
  return new CodedError('BUILD_SOURCE', `hard link ${toText(name)}: no file ${toText(inode.target!)} in its layer or below`, { name: toText(name), target: toText(inode.target!) })
}
