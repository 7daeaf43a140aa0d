// One block of a directory: an array of 12-byte entries, then their names back to back. Entries are sorted bytewise over the whole directory.
// SPEC: spec-rafs.md A.8; linux fs/erofs/dir.c. Names are compared in place: a lookup decodes none.

import { CodedError } from '../../core/errors.ts'
import { dirent } from './inode.ts'
import { EROFS_NAME_LEN } from './super-block.ts'

const { nid: NID, nameOffset: NAME_OFFSET, fileType: FILE_TYPE } = dirent.offsetOf
const SLASH = 0x2f

/** The bytes of a bootstrap in the shapes that the readers of this folder want: three views of one memory. */
export interface Bytes {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly buffer: Buffer
}

/** Where a block lies in the bytes of its image; `end` is exclusive and inside them. */
export interface Block { readonly start: number; readonly end: number }

/** Number of entries of a block, which its first name offset tells. FORMAT_INVALID. */
export function entryCount({ view }: Bytes, { start, end }: Block): number {
  const first = end - start >= dirent.size ? view.getUint16(start + NAME_OFFSET, true) : 0
  if (first < dirent.size || first % dirent.size !== 0 || first >= end - start) {
    throw new CodedError('FORMAT_INVALID', 'the first entry of a directory block has no sane name offset', { offset: start, nameOffset: first })
  }
  return first / dirent.size
}

/** nid of entry `i`; FORMAT_OUT_OF_RANGE above 2^53. */
export function entryNid({ view }: Bytes, { start }: Block, i: number): number {
  const at = start + i * dirent.size + NID
  const high = view.getUint32(at + 4, true)
  if (high > 0x1f_ffff) throw new CodedError('FORMAT_OUT_OF_RANGE', 'a directory entry points outside the image', { offset: at })
  return high * 2 ** 32 + view.getUint32(at, true)
}

/** EROFS file type of entry `i`: a hint, the inode's mode is the truth. */
export function entryFileType({ view }: Bytes, { start }: Block, i: number): number {
  return view.getUint8(start + i * dirent.size + FILE_TYPE)
}

/** Start of entry `i`'s name, absolute. `count` is the block's. FORMAT_INVALID when it is not between the entries and the end of the block. */
export function nameStart({ view }: Bytes, { start, end }: Block, i: number, count: number): number {
  const offset = view.getUint16(start + i * dirent.size + NAME_OFFSET, true)
  if (offset < count * dirent.size || offset >= end - start) {
    throw new CodedError('FORMAT_INVALID', 'the name of a directory entry lies outside its block', { offset: start, entry: i, nameOffset: offset })
  }
  return start + offset
}

/** End of entry `i`'s name, which starts at `from`: the next name, or the first NUL, or the end of the block. FORMAT_INVALID unless 1 to 255 bytes. */
export function nameEnd(image: Bytes, block: Block, i: number, count: number, from: number): number {
  const end = i + 1 < count ? nameStart(image, block, i + 1, count) : endOfLastName(image.bytes, from, block.end)
  if (end <= from || end - from > EROFS_NAME_LEN) {
    throw new CodedError('FORMAT_INVALID', 'a directory entry has a name of no or more than 255 bytes, or names out of order', { offset: block.start, entry: i, length: end - from })
  }
  return end
}

function endOfLastName(bytes: Uint8Array, from: number, end: number): number {
  let at = from
  while (at < end && bytes[at] !== 0) at++
  return at
}

/** Name of entry `i` as a byte string. FORMAT_INVALID, also for a name with NUL or slash, which no kernel would take. */
export function entryName(image: Bytes, block: Block, i: number, count: number): string {
  const from = nameStart(image, block, i, count)
  const end = nameEnd(image, block, i, count, from)
  for (let at = from; at < end; at++) {
    const byte = image.bytes[at]
    if (byte === SLASH || byte === 0) throw new CodedError('FORMAT_INVALID', 'a name in a directory has a slash or NUL', { offset: block.start, entry: i })
  }
  return image.buffer.toString('latin1', from, end)
}

/** Order of entry `i`'s name and `name`: negative, zero or positive. Throws as `nameEnd`. */
export function compareName(image: Bytes, block: Block, i: number, count: number, name: string): number {
  const from = nameStart(image, block, i, count)
  const length = nameEnd(image, block, i, count, from) - from
  const shared = Math.min(length, name.length)
  for (let k = 0; k < shared; k++) {
    const difference = image.bytes[from + k]! - name.charCodeAt(k)
    if (difference !== 0) return difference
  }
  return length - name.length
}

/** Index of `name` in a block of `count` entries, or -1. */
export function findInBlock(image: Bytes, block: Block, count: number, name: string): number {
  let low = 0
  let high = count - 1
  while (low <= high) {
    const middle = (low + high) >>> 1
    const order = compareName(image, block, middle, count, name)
    if (order === 0) return middle
    if (order < 0) low = middle + 1
    else high = middle - 1
  }
  return -1
}
