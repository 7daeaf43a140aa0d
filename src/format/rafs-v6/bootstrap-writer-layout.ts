// Where each inode and each block of directory entries lies. Byte-identical images need the very choices of upstream's allocator.
// SPEC: nydus builder/src/core/v6.rs v6_set_offset*, context.rs allocate_available_block; spec-rafs.md A.7 "Space allocator", A.8.

import { CodedError } from '../../core/errors.ts'
import { roundDown, roundUp } from '../../core/units.ts'
import { EROFS_LAYOUT, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, chunkIndex, dirent, extendedInode } from '../erofs/inode.ts'
import { EROFS_SLOT_SIZE } from '../erofs/super-block.ts'
import type { ImageNode, WalkOrder } from './bootstrap-writer-tree.ts'
import { chunkCountOf } from './bootstrap-writer-tree.ts'

export const BLOCK_SIZE = 4096
/** LIMIT: nids are 32-bit in the prefetch table and here: 128 GiB of metadata. */
const MAX_SLOT = 0xffff_ffff

/** Positions relative to the meta area (which starts one block before the root inode), by entry of the walk order. */
export interface Layout {
  /** Offset / 32 of each entry's inode, which is its nid. Aliases of a regular file share it. */
  readonly slot: Uint32Array
  /** First full data block of a directory or symlink. */
  readonly dataBlock: Uint32Array
  /** i_size of a directory. */
  readonly directorySize: Uint32Array
  /** EROFS_LAYOUT of a directory or symlink. */
  readonly form: Uint8Array
  /** Aliases of a regular file, at its first entry; 2 + child directories of a directory. */
  readonly nlink: Uint32Array
  /** End of the area, a multiple of the block size. */
  readonly end: number
}

/** Lays out all entries; fills `index` of each regular inode with its first entry. FORMAT_OUT_OF_RANGE when the metadata outgrows the format. */
export function layOut(order: WalkOrder): Layout {
  const { nodes, firstChild, childCount, directories } = order
  const count = nodes.length
  const slot = new Uint32Array(count)
  const dataBlock = new Uint32Array(count)
  const directorySize = new Uint32Array(count)
  const form = new Uint8Array(count)
  const nlink = new Uint32Array(count).fill(1)
  const space = new SpaceAllocator()
  for (const { inode } of nodes) inode.index = -1

  const place = (entry: number, inodeSize: number, dataSize: number) => {
    const placed = space.placeWithData(inodeSize, dataSize)
    slot[entry] = slotOf(placed.offset)
    dataBlock[entry] = Math.floor(placed.dataOffset / BLOCK_SIZE)
    form[entry] = placed.inline ? EROFS_LAYOUT.flatInline : EROFS_LAYOUT.flatPlain
  }

  for (const directory of directories) {
    const first = firstChild[directory]!
    const end = first + childCount[directory]!
    const size = directoryDataSize(nodes, first, end)
    if (size > MAX_SLOT) throw new CodedError('FORMAT_OUT_OF_RANGE', 'a directory has more than 4 GiB of entries', { size })
    directorySize[directory] = size
    place(directory, inodeSizeOf(nodes[directory]!), size)
    let subdirectories = 0
    for (let entry = first; entry < end; entry++) {
      const node = nodes[entry]!
      const { inode } = node
      switch (inode.mode & S_IFMT) {
        case S_IFDIR:
          subdirectories++
          break
        case S_IFREG:
          if (inode.index >= 0) {
            slot[entry] = slot[inode.index]!
            nlink[inode.index]!++
          } else {
            inode.index = entry
            slot[entry] = slotOf(space.place(roundUp(inodeSizeOf(node), chunkIndex.size) + chunkIndex.size * chunkCountOf(inode)))
          }
          break
        case S_IFLNK:
          place(entry, inodeSizeOf(node), inode.target!.length)
          break
        default:
          slot[entry] = slotOf(space.append(inodeSizeOf(node)))
      }
    }
    nlink[directory] = 2 + subdirectories
  }
  return { slot, dataBlock, directorySize, form, nlink, end: roundUp(space.offset, BLOCK_SIZE) }
}

/** Bytes of an inode with its xattrs. */
export function inodeSizeOf({ inode }: ImageNode): number {
  return extendedInode.size + (inode.xattrs?.length ?? 0)
}

/** Names below `.` sort first: the entries of a directory before which `.` and `..` stand. */
export function dotPositions(nodes: readonly ImageNode[], first: number, end: number): { readonly dot: number; readonly dotDot: number } {
  let dot = first
  while (dot < end && nodes[dot]!.name < '.') dot++
  let dotDot = dot
  while (dotDot < end && nodes[dotDot]!.name < '..') dotDot++
  return { dot, dotDot }
}

/** i_size of a directory: full blocks plus what the last one uses. */
function directoryDataSize(nodes: readonly ImageNode[], first: number, end: number): number {
  const { dot, dotDot } = dotPositions(nodes, first, end)
  let size = 0
  const add = (nameLength: number) => {
    const length = dirent.size + nameLength
    if ((size % BLOCK_SIZE) + length > BLOCK_SIZE) size = roundUp(size, BLOCK_SIZE)
    size += length
  }
  for (let entry = first; entry <= end; entry++) {
    if (entry === dot) add(1)
    if (entry === dotDot) add(2)
    if (entry < end) add(nodes[entry]!.name.length)
  }
  return size
}

function slotOf(offset: number): number {
  const value = offset / EROFS_SLOT_SIZE
  if (value > MAX_SLOT) throw new CodedError('FORMAT_OUT_OF_RANGE', 'metadata of more than 128 GiB', { offset })
  return value
}

/**
 * Appends, and reuses the unused ends of blocks ("fragments"), first in first out by their number of free slots.
 * The first block of the area stays empty so that the root's nid is not 0, which readers take for "no inode".
 */
class SpaceAllocator {
  offset = BLOCK_SIZE
  readonly #fragments: Fragments[] = Array.from({ length: BLOCK_SIZE / EROFS_SLOT_SIZE }, () => new Fragments())

  /** A regular inode with its chunk indexes. */
  place(size: number): number {
    const found = this.#reuse(size)
    return found ?? this.append(size)
  }

  append(size: number): number {
    const offset = this.offset
    this.offset = roundUp(offset + size, EROFS_SLOT_SIZE)
    return offset
  }

  /** A directory or symlink: the inode with the tail of its data when both fit a block, and the full blocks elsewhere. */
  placeWithData(inodeSize: number, dataSize: number): { offset: number; dataOffset: number; inline: boolean } {
    const tail = dataSize % BLOCK_SIZE
    const inline = tail !== 0 && inodeSize + tail <= BLOCK_SIZE
    if (!inline) {
      // Not aligned to slots in between: the fragment's size is that of the block's real rest.
      let offset = this.#reuse(inodeSize)
      if (offset === undefined) {
        offset = this.offset
        this.offset += inodeSize
      }
      this.#keepRest()
      const dataOffset = this.offset
      this.offset = roundUp(dataOffset + dataSize, BLOCK_SIZE)
      return { offset, dataOffset, inline }
    }
    let offset = this.#reuse(inodeSize + tail)
    if (offset === undefined) {
      if (BLOCK_SIZE - (this.offset % BLOCK_SIZE) < inodeSize + tail) this.#keepRest()
      offset = this.offset
      this.offset += inodeSize + tail
    }
    if (dataSize !== tail) this.#keepRest()
    const dataOffset = this.offset
    this.offset = roundUp(dataOffset + roundDown(dataSize, BLOCK_SIZE), EROFS_SLOT_SIZE)
    return { offset, dataOffset, inline }
  }

  /** Offers the rest of the current block for reuse and goes on with the next block. */
  #keepRest(): void {
    this.#offer(this.offset)
    this.offset = roundUp(this.offset, BLOCK_SIZE)
  }

  #reuse(size: number): number | undefined {
    if (size >= BLOCK_SIZE) return undefined
    const want = Math.ceil(size / EROFS_SLOT_SIZE)
    for (let free = want; free < BLOCK_SIZE / EROFS_SLOT_SIZE; free++) {
      const block = this.#fragments[free]!.shift()
      if (block === undefined) continue
      const offset = block + BLOCK_SIZE - free * EROFS_SLOT_SIZE
      this.#offer(offset + want * EROFS_SLOT_SIZE)
      return offset
    }
    return undefined
  }

  #offer(offset: number): void {
    const used = offset % BLOCK_SIZE
    if (used !== 0) this.#fragments[Math.floor((BLOCK_SIZE - used) / EROFS_SLOT_SIZE)]!.push(offset - used)
  }
}

/** A queue whose `shift` does not move what stays: some lists grow to thousands of blocks. */
class Fragments {
  #items: number[] = []
  #head = 0

  push(block: number): void {
    this.#items.push(block)
  }

  shift(): number | undefined {
    if (this.#head === this.#items.length) return undefined
    const block = this.#items[this.#head++]
    if (this.#head === this.#items.length) {
      this.#items = []
      this.#head = 0
    }
    return block
  }
}
