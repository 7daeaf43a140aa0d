// Attributes as the kernel wants them, written straight into a reply: this runs for every name that is looked up or listed.

import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { EROFS_FT } from '../../format/erofs/inode.ts'
import { KiB } from '../../core/units.ts'
import { attr, attrOut, entryOut } from '../../wire/fuse/inode.ts'

/** How long the kernel may keep what it was told. An image never changes, so: longer than a machine stays up. Seconds. */
export const FOREVER_SECONDS = 10 * 365 * 24 * 3600
/** st_blksize: what programs take as a good buffer size, and the kernel as the unit of its own accounting. */
const BLOCK_SIZE = 4 * KiB
/** st_blocks counts in these. */
const SECTOR = 512
const WORD = 2 ** 32

const A = attr.offsetOf
const E = entryOut.offsetOf
const O = attrOut.offsetOf

/** Whose files are shown when the image says nothing of owners. */
export interface Owner { readonly uid: number; readonly gid: number }

/** What is told of an inode. */
export interface Told {
  readonly inode: Inode
  /** Upper word of the inode number that is shown. */
  readonly inoHigh: number
  /** Replaces the image's. */
  readonly owner: Owner | undefined
  readonly validSeconds: number
}

/** The same of a name; without an inode it says "no such name", which the kernel remembers too. */
export interface ToldEntry extends Omit<Told, 'inode'> { readonly inode: Inode | undefined; readonly nodeHigh: number; readonly nodeLow: number }

/** Writes a struct fuse_attr at `at`. */
export function writeAttr(out: DataView, at: number, inode: Inode, inoHigh: number, owner: Owner | undefined): void {
  const { size, mtime, mtimeNsec } = inode
  const blocks = Math.ceil(size / SECTOR)
  const seconds = mtime >>> 0
  const secondsHigh = Math.floor(mtime / WORD)
  out.setUint32(at + A.inoLow, inode.nid, true)
  out.setUint32(at + A.inoHigh, inoHigh, true)
  out.setUint32(at + A.sizeLow, size, true)
  out.setUint32(at + A.sizeHigh, size / WORD, true)
  out.setUint32(at + A.blocksLow, blocks, true)
  out.setUint32(at + A.blocksHigh, blocks / WORD, true)
  out.setUint32(at + A.atimeLow, seconds, true)
  out.setInt32(at + A.atimeHigh, secondsHigh, true)
  out.setUint32(at + A.mtimeLow, seconds, true)
  out.setInt32(at + A.mtimeHigh, secondsHigh, true)
  out.setUint32(at + A.ctimeLow, seconds, true)
  out.setInt32(at + A.ctimeHigh, secondsHigh, true)
  out.setUint32(at + A.atimeNsec, mtimeNsec, true)
  out.setUint32(at + A.mtimeNsec, mtimeNsec, true)
  out.setUint32(at + A.ctimeNsec, mtimeNsec, true)
  out.setUint32(at + A.mode, inode.mode, true)
  out.setUint32(at + A.nlink, inode.nlink, true)
  out.setUint32(at + A.uid, owner?.uid ?? inode.uid, true)
  out.setUint32(at + A.gid, owner?.gid ?? inode.gid, true)
  out.setUint32(at + A.rdev, inode.rdev, true)
  out.setUint32(at + A.blockSize, BLOCK_SIZE, true)
  out.setUint32(at + A.flags, 0, true)
}

/** Writes a FuseAttrOut at `at`; returns its size. */
export function writeAttrOut(out: DataView, at: number, { inode, inoHigh, owner, validSeconds }: Told): number {
  out.setUint32(at + O.validLow, validSeconds, true)
  out.setUint32(at + O.validHigh, 0, true)
  out.setUint32(at + O.validNsec, 0, true)
  out.setUint32(at + O._dummy, 0, true)
  writeAttr(out, at + O.attr, inode, inoHigh, owner)
  return attrOut.size
}

/** Writes a FuseEntryOut at `at`; returns its size. */
export function writeEntry(out: DataView, bytes: Uint8Array, at: number, { nodeHigh, nodeLow, inode, inoHigh, owner, validSeconds }: ToldEntry): number {
  if (inode === undefined) bytes.fill(0, at, at + entryOut.size)
  else {
    out.setUint32(at + E.nodeLow, nodeLow, true)
    out.setUint32(at + E.nodeHigh, nodeHigh, true)
    out.setUint32(at + E.generation, 0, true)
    out.setUint32(at + E.generation + 4, 0, true)
    out.setUint32(at + E.entryValidHigh, 0, true)
    out.setUint32(at + E.attrValidHigh, 0, true)
    out.setUint32(at + E.entryValidNsec, 0, true)
    out.setUint32(at + E.attrValidNsec, 0, true)
    writeAttr(out, at + E.attr, inode, inoHigh, owner)
  }
  out.setUint32(at + E.entryValidLow, validSeconds, true)
  out.setUint32(at + E.attrValidLow, validSeconds, true)
  return entryOut.size
}

/** EROFS file type → d_type. SPEC: dirent.h DT_*. Index = EROFS_FT. */
export const DIRENT_TYPE: readonly number[] = Object.assign(Array<number>(8).fill(0), {
  [EROFS_FT.regular]: 8, [EROFS_FT.directory]: 4, [EROFS_FT.character]: 2, [EROFS_FT.block]: 6,
  [EROFS_FT.fifo]: 1, [EROFS_FT.socket]: 12, [EROFS_FT.symlink]: 10,
})
