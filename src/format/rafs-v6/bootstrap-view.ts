// A bootstrap as it lies in memory (mapped or on the heap): inodes, directories, links, extended attributes and chunk addresses are read in
// place, nothing is materialised. Every method may meet hostile bytes and then throws a FORMAT_* CodedError, never anything else.
// SPEC: spec-rafs.md A.6 to A.10; tolerance as nydus rafs/src/metadata/direct_v6.rs, section E "Reader must accept".

import { CodedError } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import { roundUp } from '../../core/units.ts'
import { entryCount, entryFileType, entryName, entryNid, compareName, findInBlock, type Block, type Bytes } from '../erofs/directory-block.ts'
import { decodeXattrs, xattrAreaSize, type Xattr } from '../erofs/inline-xattrs.ts'
import {
  chunkIndex, compactInode, EROFS_LAYOUT, extendedInode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK,
} from '../erofs/inode.ts'
import { EROFS_NAME_LEN, EROFS_SLOT_SIZE, type DeviceSlot, type SuperBlock } from '../erofs/super-block.ts'
import { readBlobRecords, readDeviceSlots, type BlobRecord } from './blob-records.ts'
import type { CompressorName, DigesterName } from './blob-table.ts'
import { ChunkTableView } from './chunk-table-view.ts'
import type { ChunkEntry } from './chunk-table.ts'
import { prefetchEntry, RAFS_FLAG, type SuperBlockExt } from './super-block-ext.ts'
import { readSuperBlocks, type SuperBlocks } from './super-blocks.ts'

export type { BlobRecord } from './blob-records.ts'

export interface Inode {
  /** Number of the 32-byte slot: the inode number that FUSE shows. */
  readonly nid: number
  /** Build number, 1 for the root. */
  readonly ino: number
  readonly mode: number
  readonly nlink: number
  readonly size: number
  readonly uid: number
  readonly gid: number
  /** Seconds; 0 in a compact inode. */
  readonly mtime: number
  readonly mtimeNsec: number
  /** See EROFS_LAYOUT. */
  readonly layout: number
  /** First block of a directory or link, chunk format of a file, device number of a special file. */
  readonly union: number
  /** `union` of character and block devices, else 0. See `decodeDevice`. */
  readonly rdev: number
  readonly xattrCount: number
  /** Of the inode in the bootstrap, bytes. */
  readonly offset: number
  /** 32 or 64 bytes; extended attributes follow. */
  readonly headerSize: number
}

export interface DirectoryEntry {
  /** Byte string. */
  readonly name: string
  readonly nid: number
  /** See EROFS_FT; a hint, the inode's mode is the truth. */
  readonly fileType: number
  /** Cursor of the entry behind this one: stateless, valid for the life of the image. */
  readonly next: number
}

export interface ChunkAddress {
  readonly blobIndex: number
  /** Of the chunk in its blob. */
  readonly index: number
  /** In the decompressed blob: cache file, EROFS device. */
  readonly uncompressedOffset: number
}

// Copies of table offsets: constants of the module, which V8 folds into the code below.
const { format: FORMAT, xattrCount: XATTR_COUNT, mode: MODE } = extendedInode.offsetOf
const { nlink: C_NLINK, size: C_SIZE, union: C_UNION, ino: C_INO, uid: C_UID, gid: C_GID } = compactInode.offsetOf
const { size: X_SIZE, union: X_UNION, ino: X_INO, uid: X_UID, gid: X_GID, mtime: X_MTIME, mtimeNsec: X_MTIME_NSEC, nlink: X_NLINK } = extendedInode.offsetOf
const { indexLow: INDEX_LOW, device: DEVICE, indexHigh: INDEX_HIGH, block: BLOCK } = chunkIndex.offsetOf

/** i_format: bit 0 is the inode's version, bits 1..3 the layout, others are unknown. */
const FORMAT_BITS = 0xf
/** COMPAT: nydus rafs/src/metadata/direct_v6.rs get_symlink; PATH_MAX. */
const MAX_LINK_TARGET = 4096
/** Cursors are block number x this + entry number; a block has at most 4096 / 12 entries. */
const CURSOR_UNIT = 4096

/** A validated bootstrap; made by `open`. Holds the bytes, decodes on demand. */
export class BootstrapView {
  readonly superBlock: SuperBlock
  readonly ext: SuperBlockExt
  /** See RAFS_FLAG. */
  readonly flags: number
  readonly blockSize: number
  readonly chunkSize: number
  readonly metaOffset: number
  readonly rootNid: number
  readonly blobs: readonly BlobRecord[]
  readonly devices: readonly DeviceSlot[]
  /** Whether owners are those of the source; if not, the serving process's are shown. */
  readonly explicitIds: boolean
  readonly hasXattr: boolean
  readonly digester: DigesterName
  readonly compressor: CompressorName
  /** The whole bootstrap. */
  readonly bytes: Uint8Array
  readonly #image: Bytes
  #chunkTable: ChunkTableView | undefined

  /**
   * Validates superblocks, tables and blob records of a whole bootstrap. `blobIdFromName`: id of the blob that the bootstrap was found in,
   * for records that do not know it (spec-rafs.md A.5, C.1). FORMAT_*; FORMAT_UNSUPPORTED names what a later version will read.
   */
  static open(bytes: Uint8Array, { blobIdFromName }: { blobIdFromName?: string | undefined } = {}): BootstrapView {
    const blocks = readSuperBlocks(bytes)
    const blobs = readBlobRecords(bytes, blocks, blobIdFromName)
    return new BootstrapView(bytes, blocks, blobs, readDeviceSlots(bytes, blocks.superBlock.extraDevices))
  }

  private constructor(bytes: Uint8Array, blocks: SuperBlocks, blobs: readonly BlobRecord[], devices: readonly DeviceSlot[]) {
    this.bytes = bytes
    this.#image = { bytes, view: dataViewOf(bytes), buffer: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length) }
    this.superBlock = blocks.superBlock
    this.ext = blocks.ext
    this.flags = blocks.flags
    this.blockSize = blocks.blockSize
    this.chunkSize = blocks.ext.chunkSize
    this.metaOffset = blocks.metaOffset
    this.rootNid = blocks.superBlock.rootNid
    this.blobs = blobs
    this.devices = devices
    this.explicitIds = (blocks.flags & RAFS_FLAG.explicitUidGid) !== 0
    this.hasXattr = (blocks.flags & RAFS_FLAG.hasXattr) !== 0
    this.digester = blocks.digester
    this.compressor = blocks.compressor
  }

  /** The chunk table, indexed at the first use. */
  get chunkTable(): ChunkTableView {
    const { chunkTableOffset, chunkTableSize } = this.ext
    // an empty table may say that it lies anywhere
    const end = chunkTableSize === 0 ? chunkTableOffset : chunkTableOffset + chunkTableSize
    this.#chunkTable ??= new ChunkTableView(this.bytes.subarray(chunkTableOffset, end), this.blobs.length)
    return this.#chunkTable
  }

  /** The inode at `nid`: inside the file with its attributes and chunk addresses, of a known format, with a layout that fits its type. */
  inode(nid: number): Inode {
    const { view, bytes } = this.#image
    const offset = this.metaOffset + nid * EROFS_SLOT_SIZE
    if (!(nid > 0 && offset + compactInode.size <= bytes.length)) throw new CodedError('FORMAT_OUT_OF_RANGE', `inode ${nid} is not inside the image`, { nid })
    const format = view.getUint16(offset + FORMAT, true)
    if ((format & ~FORMAT_BITS) !== 0) throw new CodedError('FORMAT_INVALID', `inode ${nid} has unknown format bits`, { nid, format })
    const inode = (format & 1) === 0 ? this.#compact(nid, offset, format >>> 1) : this.#extended(nid, offset, format >>> 1)
    const dataOffset = offset + inode.headerSize + xattrAreaSize(inode.xattrCount)
    if (dataOffset > bytes.length) throw new CodedError('FORMAT_OUT_OF_RANGE', `the attributes of inode ${nid} run past the end of the image`, { nid, xattrCount: inode.xattrCount })
    this.#checkShape(inode, dataOffset)
    return inode
  }

  #compact(nid: number, offset: number, layout: number): Inode {
    const { view } = this.#image
    const mode = view.getUint16(offset + MODE, true)
    const union = view.getUint32(offset + C_UNION, true)
    return {
      nid, ino: view.getUint32(offset + C_INO, true), mode, nlink: view.getUint16(offset + C_NLINK, true), size: view.getUint32(offset + C_SIZE, true),
      uid: view.getUint16(offset + C_UID, true), gid: view.getUint16(offset + C_GID, true), mtime: 0, mtimeNsec: 0, layout, union,
      rdev: isDevice(mode) ? union : 0, xattrCount: view.getUint16(offset + XATTR_COUNT, true), offset, headerSize: compactInode.size,
    }
  }

  #extended(nid: number, offset: number, layout: number): Inode {
    const { view, bytes } = this.#image
    if (offset + extendedInode.size > bytes.length) throw new CodedError('FORMAT_OUT_OF_RANGE', `inode ${nid} is not inside the image`, { nid })
    const mode = view.getUint16(offset + MODE, true)
    const union = view.getUint32(offset + X_UNION, true)
    const size = view.getUint32(offset + X_SIZE + 4, true) * 2 ** 32 + view.getUint32(offset + X_SIZE, true)
    const mtime = view.getInt32(offset + X_MTIME + 4, true) * 2 ** 32 + view.getUint32(offset + X_MTIME, true)
    if (!(Number.isSafeInteger(size) && Number.isSafeInteger(mtime))) throw new CodedError('FORMAT_OUT_OF_RANGE', `size or time of inode ${nid} is 2^53 or more`, { nid })
    return {
      nid, ino: view.getUint32(offset + X_INO, true), mode, nlink: view.getUint32(offset + X_NLINK, true), size,
      uid: view.getUint32(offset + X_UID, true), gid: view.getUint32(offset + X_GID, true), mtime, mtimeNsec: view.getUint32(offset + X_MTIME_NSEC, true), layout, union,
      rdev: isDevice(mode) ? union : 0, xattrCount: view.getUint16(offset + XATTR_COUNT, true), offset, headerSize: extendedInode.size,
    }
  }

  #checkShape({ nid, mode, layout, size, offset }: Inode, dataOffset: number): void {
    const flat = layout === EROFS_LAYOUT.flatPlain || layout === EROFS_LAYOUT.flatInline
    let sane: boolean
    switch (mode & S_IFMT) {
      case S_IFREG: {
        sane = layout === EROFS_LAYOUT.chunkBased || (flat && size === 0)
        const end = this.#addressesOffset(offset, dataOffset) + Math.ceil(size / this.chunkSize) * chunkIndex.size
        if (end > this.bytes.length) throw new CodedError('FORMAT_OUT_OF_RANGE', `inode ${nid} is too large for its chunk addresses to be inside the image`, { nid, size })
        break
      }
      case S_IFDIR: case S_IFLNK:
        sane = flat
        if (size > this.bytes.length) throw new CodedError('FORMAT_OUT_OF_RANGE', `inode ${nid} has more data than the image`, { nid, size })
        break
      case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
        sane = flat || layout === EROFS_LAYOUT.chunkBased
        break
      default:
        sane = false
    }
    if (!sane) throw new CodedError('FORMAT_INVALID', `inode ${nid}: type and layout do not fit together`, { nid, mode, layout })
  }

  /** `name` (a byte string) in `directory`, by binary search, or undefined. FORMAT_INVALID when the blocks it meets are damaged or `directory` is none. */
  lookup(directory: Inode, name: string): { nid: number; fileType: number } | undefined {
    const image = this.#image
    let low = 0
    let high = this.#blockCount(directory) - 1
    if (name.length === 0 || name.length > EROFS_NAME_LEN) return undefined
    while (low < high) { // the last block whose first name is not behind `name`
      const middle = (low + high + 1) >>> 1
      const block = this.#block(directory, middle)
      if (compareName(image, block, 0, entryCount(image, block), name) > 0) high = middle - 1
      else low = middle
    }
    const block = this.#block(directory, low)
    const i = findInBlock(image, block, entryCount(image, block), name)
    return i < 0 ? undefined : { nid: entryNid(image, block, i), fileType: entryFileType(image, block, i) }
  }

  /**
   * Entries of `directory` in stored order, "." and ".." included, from cursor `from` on: 0, or a `next` of an earlier entry.
   * A cursor that points nowhere goes on at the next block, so a wrong one neither fails nor repeats. FORMAT_INVALID.
   */
  *entries(directory: Inode, from = 0): IterableIterator<DirectoryEntry> {
    const image = this.#image
    const blocks = this.#blockCount(directory)
    let i = from % CURSOR_UNIT
    for (let number = Math.floor(from / CURSOR_UNIT); number < blocks; number++, i = 0) {
      const block = this.#block(directory, number)
      const count = entryCount(image, block)
      for (; i < count; i++) {
        const next = i + 1 < count ? number * CURSOR_UNIT + i + 1 : (number + 1) * CURSOR_UNIT
        yield { name: entryName(image, block, i, count), nid: entryNid(image, block, i), fileType: entryFileType(image, block, i), next }
      }
    }
  }

  /** Target of a symbolic link, a view of at most 4096 bytes. FORMAT_INVALID for no link, an empty or too long target. */
  readlink(inode: Inode): Uint8Array {
    if ((inode.mode & S_IFMT) !== S_IFLNK) throw new CodedError('FORMAT_INVALID', `inode ${inode.nid} is no symbolic link`, { nid: inode.nid })
    if (inode.size === 0 || inode.size > MAX_LINK_TARGET) throw new CodedError('FORMAT_INVALID', `inode ${inode.nid}: a link target of ${inode.size} bytes`, { nid: inode.nid, size: inode.size })
    const { start, end } = this.#block(inode, 0)
    return this.bytes.subarray(start, end)
  }

  /** Extended attributes in stored order; values are views. FORMAT_INVALID. */
  xattrs(inode: Inode): Xattr[] {
    const start = inode.offset + inode.headerSize
    return inode.xattrCount === 0 ? [] : decodeXattrs(this.bytes.subarray(start, start + xattrAreaSize(inode.xattrCount)))
  }

  /** One extended attribute; `name` is a byte string with its prefix. FORMAT_INVALID. */
  xattr(inode: Inode, name: string): Uint8Array | undefined {
    return inode.xattrCount === 0 ? undefined : this.xattrs(inode).find(([key]) => key === name)?.[1]
  }

  /** Number of chunks of a regular file, 0 for anything else. */
  chunkCount(inode: Inode): number {
    return (inode.mode & S_IFMT) === S_IFREG ? Math.ceil(inode.size / this.chunkSize) : 0
  }

  /** Where chunk `i` of a file is. FORMAT_OUT_OF_RANGE for an `i` beyond the file, FORMAT_INVALID for an address outside the blob table. */
  chunkAt(inode: Inode, i: number): ChunkAddress {
    if (!(i >= 0 && i < this.chunkCount(inode))) throw new CodedError('FORMAT_OUT_OF_RANGE', `inode ${inode.nid} has no chunk ${i}`, { nid: inode.nid, chunk: i })
    const { view } = this.#image
    const at = this.#addressesOffset(inode.offset, inode.offset + inode.headerSize + xattrAreaSize(inode.xattrCount)) + i * chunkIndex.size
    const blobIndex = view.getUint8(at + DEVICE) - 1
    if (blobIndex < 0 || blobIndex >= this.blobs.length) {
      throw new CodedError('FORMAT_INVALID', `chunk ${i} of inode ${inode.nid} is in blob ${blobIndex}, which does not exist`, { nid: inode.nid, chunk: i, blobIndex })
    }
    return { blobIndex, index: view.getUint16(at + INDEX_LOW, true) + view.getUint8(at + INDEX_HIGH) * 0x1_0000, uncompressedOffset: view.getUint32(at + BLOCK, true) * this.blockSize }
  }

  /** Chunk table row of chunk `index` of a blob, or undefined. FORMAT_OUT_OF_RANGE for a row with offsets above 2^53. */
  chunkEntry(blobIndex: number, index: number): ChunkEntry | undefined {
    const row = this.chunkTable.rowOf(blobIndex, index)
    return row < 0 ? undefined : this.chunkTable.entry(row)
  }

  /** nids to prefetch, in order; a single one that is the root's means everything. Not looked up: they may not exist. */
  prefetchNids(): number[] {
    const { prefetchTableOffset, prefetchTableSize } = this.ext
    const nids: number[] = []
    if (prefetchTableOffset === 0) return nids
    for (let at = prefetchTableOffset; at < prefetchTableOffset + prefetchTableSize; at += prefetchEntry.size) {
      const nid = this.#image.view.getUint32(at, true)
      if (nid === 0) break
      nids.push(nid)
    }
    return nids
  }

  /** Chunk addresses are aligned relative to their inode. */
  #addressesOffset(inodeOffset: number, dataOffset: number): number {
    return inodeOffset + roundUp(dataOffset - inodeOffset, chunkIndex.size)
  }

  #blockCount(directory: Inode): number {
    if ((directory.mode & S_IFMT) !== S_IFDIR) throw new CodedError('FORMAT_INVALID', `inode ${directory.nid} is no directory`, { nid: directory.nid })
    if (directory.size === 0) throw new CodedError('FORMAT_INVALID', `directory ${directory.nid} is empty: it lacks even "." and ".."`, { nid: directory.nid })
    return Math.ceil(directory.size / this.blockSize)
  }

  /** Block `number` of the data of a directory or link; the last block of an inline one follows its attributes. */
  #block({ nid, offset, headerSize, xattrCount, size, layout, union }: Inode, number: number): Block {
    const length = Math.min(this.blockSize, size - number * this.blockSize)
    const isInline = layout === EROFS_LAYOUT.flatInline && (number + 1) * this.blockSize >= size
    const start = isInline ? offset + headerSize + xattrAreaSize(xattrCount) : (union + number) * this.blockSize
    if (start + length > this.bytes.length) throw new CodedError('FORMAT_OUT_OF_RANGE', `block ${number} of inode ${nid} is not inside the image`, { nid, block: number, start })
    return { start, end: start + length }
  }
}

function isDevice(mode: number): boolean {
  const type = mode & S_IFMT
  return type === S_IFCHR || type === S_IFBLK
}
