// Encodes a bootstrap. The size is known before the first byte is written, so it is one allocation and one pass.
// SPEC: nydus builder/src/core/v6.rs v6_dump; spec-rafs.md A.1 to A.10.

import { bytesOf } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { dataViewOf, seconds64, size64 } from '../../core/struct.ts'
import { roundUp } from '../../core/units.ts'
import {
  EROFS_CHUNK_FORMAT_INDEXES, EROFS_FT, EROFS_LAYOUT, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG,
  chunkIndex, dirent, extendedInode, fileTypeOf,
} from '../erofs/inode.ts'
import {
  EROFS_FEATURE_COMPAT_RAFS_V6, EROFS_FEATURE_INCOMPAT_CHUNKED_FILE, EROFS_FEATURE_INCOMPAT_DEVICE_TABLE, EROFS_SLOT_SIZE,
  EROFS_SUPER_MAGIC_V1, EROFS_SUPER_OFFSET, deviceSlot, superBlock,
} from '../erofs/super-block.ts'
import { BLOB_FEATURE, type BlobEntry, MAX_BLOBS, blobEntry } from './blob-table.ts'
import type { ChunkStore } from './bootstrap-writer-chunks.ts'
import { chunkTableOrder } from './bootstrap-writer-chunk-table.ts'
import { BLOCK_SIZE, type Layout, dotPositions, inodeSizeOf, layOut } from './bootstrap-writer-layout.ts'
import { type ImageInode, type ImageNode, type WalkOrder, walkOrder } from './bootstrap-writer-tree.ts'
import { xattrCountOf } from './bootstrap-writer-xattr.ts'
import { chunkEntry } from './chunk-table.ts'
import { EROFS_DEVTABLE_OFFSET, MIN_BOOTSTRAP_SIZE, RAFS_FLAG, RAFS_SUPER_EXT_OFFSET, prefetchEntry, superBlockExt } from './super-block-ext.ts'

/** A blob as its entry, without the position that the writer gives it. */
export type BlobDescription = Omit<BlobEntry, 'blobIndex'>

export interface BootstrapInput {
  readonly root: ImageNode
  /** `walkOrder(root)`, when the caller has it already. */
  readonly order?: WalkOrder
  readonly chunks: ChunkStore
  readonly blobs: readonly BlobDescription[]
  /** Bytes, a power of two. */
  readonly chunkSize: number
  /** Numbers of the on-disk enumerations. */
  readonly compressor: number
  readonly digester: number
  readonly explicitUidGid: boolean
  /** Entries of the walk order for the prefetch table. */
  readonly prefetch?: readonly number[]
}

/** LIMIT: i_u holds log2(chunk size) - 12 in five bits. */
const MAX_CHUNK_BITS = 12 + 31
/** SPEC: v6.rs V6_BLOCK_SEG_ALIGNMENT: data blobs start at multiples of this in the flat device. */
const BLOB_ALIGNMENT = 0x8_0000
const COMPRESSION_FLAGS = [RAFS_FLAG.compressionNone, RAFS_FLAG.compressionLz4, RAFS_FLAG.compressionGzip, RAFS_FLAG.compressionZstd]
const HASH_FLAGS = [RAFS_FLAG.hashBlake3, RAFS_FLAG.hashSha256]

/**
 * The whole bootstrap, a multiple of 4096 bytes. Deterministic. FORMAT_OUT_OF_RANGE for what the format cannot hold (blobs, metadata size),
 * FORMAT_INVALID for a blob that no reader would load.
 *
 * ```
 * 0      1024    1152     1408          4 KiB aligned  after it   4 KiB aligned "meta"       4 KiB aligned
 * +------+-------+--------+-------------+--------------+----------+-------------------------+-------------+
 * | zero | super | ext sb | device slots| blob table   | prefetch | inodes, names, targets  | chunk table |
 * +------+-------+--------+-------------+--------------+----------+-------------------------+-------------+
 * ```
 */
export function writeBootstrap(input: BootstrapInput): Uint8Array {
  const { blobs } = input
  blobs.forEach(checkBlob)
  if (blobs.length > MAX_BLOBS) throw new CodedError('FORMAT_OUT_OF_RANGE', `${blobs.length} data blobs, an image holds ${MAX_BLOBS}`, { blobs: blobs.length })
  const order = input.order ?? walkOrder(input.root)
  const layout = layOut(order)
  const table = chunkTableOrder(order, input.chunks, input.chunkSize)

  const blobTableOffset = roundUp(EROFS_DEVTABLE_OFFSET + deviceSlot.size * blobs.length, BLOCK_SIZE)
  const blobTableSize = blobEntry.size * blobs.length
  const prefetch = blobs.length > 0 ? input.prefetch ?? [] : []
  const metaOffset = blobs.length > 0 ? roundUp(blobTableOffset + blobTableSize + prefetchEntry.size * prefetch.length, BLOCK_SIZE) : 0
  const chunkTableOffset = metaOffset + layout.end
  const chunkTableSize = chunkEntry.size * table.ids.length
  const size = Math.max(roundUp(chunkTableOffset + chunkTableSize, BLOCK_SIZE), MIN_BOOTSTRAP_SIZE)

  const out = new Uint8Array(size)
  const hasXattr = writeNodes(out, metaOffset, order, layout, input)
  writeChunkTable(out, chunkTableOffset, input.chunks, table)

  let blockCount = 0
  let position = size
  blobs.forEach((blob, index) => {
    const blocks = Math.floor(blob.uncompressedSize / BLOCK_SIZE)
    const mappedBlock = roundUp(position, BLOB_ALIGNMENT) / BLOCK_SIZE
    position = (mappedBlock + blocks) * BLOCK_SIZE
    blockCount += blocks
    deviceSlot.encode({ tag: padded(blob.blobId), blocks, mappedBlock }, out, EROFS_DEVTABLE_OFFSET + index * deviceSlot.size)
    blobEntry.encode({ ...blob, blobIndex: index }, out, blobTableOffset + index * blobEntry.size)
  })
  const view = dataViewOf(out)
  const prefetchOffset = blobTableOffset + blobTableSize
  for (const [i, entry] of prefetch.entries()) view.setUint32(prefetchOffset + i * prefetchEntry.size, layout.slot[entry]!, true)

  superBlock.encode({
    magic: EROFS_SUPER_MAGIC_V1, checksum: 0, featureCompat: EROFS_FEATURE_COMPAT_RAFS_V6, blockBits: Math.log2(BLOCK_SIZE), extSlots: 0,
    rootNid: layout.slot[0]!, inodeCount: BigInt(order.nodes.length), buildTime: 0n, buildTimeNsec: 0, blockCount, metaBlock: metaOffset / BLOCK_SIZE,
    xattrBlock: 0, uuid: new Uint8Array(16), volumeName: new Uint8Array(16),
    featureIncompat: EROFS_FEATURE_INCOMPAT_CHUNKED_FILE | EROFS_FEATURE_INCOMPAT_DEVICE_TABLE,
    compression: 0, extraDevices: blobs.length, deviceSlot: EROFS_DEVTABLE_OFFSET / deviceSlot.size,
  }, out, EROFS_SUPER_OFFSET)
  superBlockExt.encode({
    flags: flagsOf(input, hasXattr), blobTableOffset, blobTableSize, chunkSize: input.chunkSize, chunkTableOffset, chunkTableSize,
    prefetchTableOffset: prefetch.length > 0 ? prefetchOffset : 0, prefetchTableSize: prefetchEntry.size * prefetch.length,
  }, out, RAFS_SUPER_EXT_OFFSET)
  return out
}

/** What readers refuse (spec-rafs.md E): a blob without chunks or data, a chunk array that grew by compression, an id that does not fit. */
function checkBlob(blob: BlobDescription): void {
  const refuse = (rule: string) => new CodedError('FORMAT_INVALID', `blob ${blob.blobId}: ${rule}`)
  if (blob.blobId.length === 0 || blob.blobId.length > 64) throw refuse('its id has not 1 to 64 characters')
  if (blob.chunkCount === 0) throw refuse('it has no chunks')
  if (blob.uncompressedSize < BLOCK_SIZE || blob.uncompressedSize / BLOCK_SIZE > 0xffff_ffff) throw refuse(`its uncompressed size is ${blob.uncompressedSize}`)
  if (blob.ciCompressedSize > blob.ciUncompressedSize) throw refuse('its chunk information grew by compression')
}

function flagsOf({ compressor, digester, explicitUidGid, blobs }: BootstrapInput, hasXattr: boolean): bigint {
  // Without any blob the bit stays set: upstream's loop over the blobs only ever clears it.
  const inlinedDigest = blobs.every(({ features }) => (features & BLOB_FEATURE.inlinedChunkDigest) !== 0)
  return BigInt(COMPRESSION_FLAGS[compressor]! | HASH_FLAGS[digester]! | RAFS_FLAG.encryptionNone
    | (explicitUidGid ? RAFS_FLAG.explicitUidGid : 0) | (hasXattr ? RAFS_FLAG.hasXattr : 0) | (inlinedDigest ? RAFS_FLAG.inlinedChunkDigest : 0))
}

function padded(blobId: string): Uint8Array {
  const tag = new Uint8Array(64)
  tag.set(bytesOf(blobId))
  return tag
}

function writeChunkTable(out: Uint8Array, offset: number, chunks: ChunkStore, { ids, fileOffsets }: ReturnType<typeof chunkTableOrder>): void {
  const view = dataViewOf(out)
  let at = offset
  for (const id of ids) {
    out.set(chunks.record(id), at)
    const fileOffset = fileOffsets[id]!
    view.setUint32(at + chunkEntry.offsetOf.fileOffset, fileOffset % 2 ** 32, true)
    view.setUint32(at + chunkEntry.offsetOf.fileOffset + 4, Math.floor(fileOffset / 2 ** 32), true)
    at += chunkEntry.size
  }
}

/** Writes all inodes with what follows them; returns whether any has xattrs. */
function writeNodes(out: Uint8Array, metaOffset: number, order: WalkOrder, layout: Layout, input: BootstrapInput): boolean {
  const writer = new NodeWriter(out, metaOffset, order, layout, input.chunks, input.chunkSize)
  let hasXattr = false
  for (let entry = 0; entry < order.nodes.length; entry++) {
    writer.write(entry)
    hasXattr ||= order.nodes[entry]!.inode.xattrs !== undefined
  }
  return hasXattr
}

class NodeWriter {
  readonly #out: Uint8Array
  readonly #view: DataView
  readonly #metaOffset: number
  readonly #order: WalkOrder
  readonly #layout: Layout
  readonly #chunks: ChunkStore
  readonly #chunkSize: number

  constructor(out: Uint8Array, metaOffset: number, order: WalkOrder, layout: Layout, chunks: ChunkStore, chunkSize: number) {
    this.#out = out
    this.#view = dataViewOf(out)
    this.#metaOffset = metaOffset
    this.#order = order
    this.#layout = layout
    this.#chunks = chunks
    this.#chunkSize = chunkSize
  }

  write(entry: number): void {
    const node = this.#order.nodes[entry]!
    const { inode } = node
    const offset = this.#metaOffset + this.#layout.slot[entry]! * EROFS_SLOT_SIZE
    const afterInode = offset + inodeSizeOf(node)
    if (inode.xattrs !== undefined) this.#out.set(inode.xattrs, offset + extendedInode.size)
    switch (inode.mode & S_IFMT) {
      case S_IFREG:
        if (inode.index !== entry) return // an alias: written with its first entry
        this.#writeInode(offset, inode, entry, EROFS_LAYOUT.chunkBased, inode.size, this.#writeChunks(inode, roundUp(afterInode, chunkIndex.size)))
        return
      case S_IFDIR: {
        const form = this.#layout.form[entry]!
        this.#writeInode(offset, inode, entry, form, this.#layout.directorySize[entry]!, this.#dataBlock(entry))
        this.#writeDirectory(entry, form === EROFS_LAYOUT.flatInline ? afterInode : undefined)
        return
      }
      case S_IFLNK: {
        const form = this.#layout.form[entry]!
        const target = bytesOf(inode.target!)
        this.#writeInode(offset, inode, entry, form, target.length, this.#dataBlock(entry))
        // A target is at most one block (4096 bytes): wholly inline or wholly in its block.
        this.#out.set(target, form === EROFS_LAYOUT.flatInline ? afterInode : this.#dataBlock(entry) * BLOCK_SIZE)
        return
      }
      default:
        this.#writeInode(offset, inode, entry, EROFS_LAYOUT.flatPlain, 0, inode.rdev)
    }
  }

  #dataBlock(entry: number): number {
    return this.#metaOffset / BLOCK_SIZE + this.#layout.dataBlock[entry]!
  }

  #writeInode(offset: number, inode: ImageInode, entry: number, form: number, size: number, union: number): void {
    // Field by field: `encode` of 400,000 inodes takes half a second. The buffer is zeroed.
    const { offsetOf } = extendedInode
    const view = this.#view
    view.setUint16(offset + offsetOf.format, 1 | (form << 1), true)
    view.setUint16(offset + offsetOf.xattrCount, xattrCountOf(inode.xattrs), true)
    view.setUint16(offset + offsetOf.mode, inode.mode, true)
    size64.write(view, offset + offsetOf.size, size)
    view.setUint32(offset + offsetOf.union, union, true)
    view.setUint32(offset + offsetOf.ino, entry + 1, true)
    view.setUint32(offset + offsetOf.uid, inode.uid, true)
    view.setUint32(offset + offsetOf.gid, inode.gid, true)
    seconds64.write(view, offset + offsetOf.mtime, inode.mtime)
    view.setUint32(offset + offsetOf.mtimeNsec, inode.mtimeNsec, true)
    view.setUint32(offset + offsetOf.nlink, this.#layout.nlink[entry]!, true)
    view.setUint8(offset + offsetOf.layerMark, inode.mark)
  }

  /** Writes the chunk indexes at `at`; returns the chunk format word. */
  #writeChunks({ chunks, size }: ImageInode, at: number): number {
    let contiguous = true
    let previousBlob = -1
    let previousOffset = 0
    const write = (id: number, position: number) => {
      const offset = this.#chunks.uncompressedOffset(id)
      const blob = this.#chunks.blobIndex(id)
      const index = this.#chunks.index(id)
      if (previousBlob >= 0 && (blob !== previousBlob || offset !== previousOffset + this.#chunkSize)) contiguous = false
      previousBlob = blob
      previousOffset = offset
      const { offsetOf } = chunkIndex
      this.#view.setUint16(position + offsetOf.indexLow, index & 0xffff, true)
      this.#view.setUint8(position + offsetOf.device, blob + 1)
      this.#view.setUint8(position + offsetOf.indexHigh, index >>> 16)
      this.#view.setUint32(position + offsetOf.block, offset / BLOCK_SIZE, true)
    }
    if (typeof chunks === 'number') write(chunks, at)
    else if (chunks !== undefined) for (let i = 0; i < chunks.length; i++) write(chunks[i]!, at + i * chunkIndex.size)
    // The kernel sees a file that is one piece in its blob as one chunk, and shares page cache between images better.
    let bits = Math.log2(this.#chunkSize)
    if (contiguous && size > this.#chunkSize && size <= 2 ** MAX_CHUNK_BITS) while (2 ** bits < size) bits++
    return EROFS_CHUNK_FORMAT_INDEXES | (bits - Math.log2(BLOCK_SIZE))
  }

  /** Blocks of entries: full ones at the data block, the last one at `inlineAt` when the directory is inline. */
  #writeDirectory(directory: number, inlineAt: number | undefined): void {
    const { nodes, parent, firstChild, childCount } = this.#order
    const { slot, directorySize } = this.#layout
    const first = firstChild[directory]!
    const end = first + childCount[directory]!
    const { dot, dotDot } = dotPositions(nodes, first, end)
    const blocks = Math.floor(directorySize[directory]! / BLOCK_SIZE)
    const block = new DirectoryBlock(this.#out, this.#view)
    let blockNumber = 0
    const flush = () => {
      block.write(inlineAt !== undefined && blockNumber === blocks ? inlineAt : (this.#dataBlock(directory) + blockNumber) * BLOCK_SIZE)
      blockNumber++
    }
    const add = (name: string, nid: number, fileType: number) => {
      if (!block.fits(name)) flush()
      block.add(name, nid, fileType)
    }
    for (let entry = first; entry <= end; entry++) {
      if (entry === dot) add('.', slot[directory]!, EROFS_FT.directory)
      if (entry === dotDot) add('..', slot[parent[directory]!]!, EROFS_FT.directory)
      if (entry < end) add(nodes[entry]!.name, slot[entry]!, fileTypeOf(nodes[entry]!.inode.mode))
    }
    flush()
  }
}

/** Collects the entries of one block: an array of entries, then the names back to back. */
class DirectoryBlock {
  readonly #out: Uint8Array
  readonly #view: DataView
  #names: string[] = []
  #nids: number[] = []
  #types: number[] = []
  #used = 0

  constructor(out: Uint8Array, view: DataView) {
    this.#out = out
    this.#view = view
  }

  fits(name: string): boolean {
    return this.#used + dirent.size + name.length <= BLOCK_SIZE
  }

  add(name: string, nid: number, fileType: number): void {
    this.#names.push(name)
    this.#nids.push(nid)
    this.#types.push(fileType)
    this.#used += dirent.size + name.length
  }

  /** Writes what was added to `at` and starts anew. */
  write(at: number): void {
    const { offsetOf } = dirent
    let nameOffset = this.#names.length * dirent.size
    this.#names.forEach((name, i) => {
      const entry = at + i * dirent.size
      this.#view.setUint32(entry + offsetOf.nid, this.#nids[i]!, true)
      this.#view.setUint16(entry + offsetOf.nameOffset, nameOffset, true)
      this.#view.setUint8(entry + offsetOf.fileType, this.#types[i]!)
      for (let c = 0; c < name.length; c++) this.#out[at + nameOffset + c] = name.charCodeAt(c)
      nameOffset += name.length
    })
    this.#names = []
    this.#nids = []
    this.#types = []
    this.#used = 0
  }
}
