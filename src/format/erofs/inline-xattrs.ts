// Extended attributes behind an inode: a 12-byte header, then (prefix number, name suffix, value) entries padded to four bytes.
// SPEC: linux fs/erofs/erofs_fs.h; spec-rafs.md A.9.

import { byteString } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { roundUp } from '../../core/units.ts'
import { XATTR_PREFIXES, xattrEntry, xattrHeader } from './inode.ts'

/** Name (a byte string, prefix included) and value. */
export type Xattr = readonly [name: string, value: Uint8Array]

const ENTRY_ALIGNMENT = 4

/** Bytes that `i_xattr_icount` stands for. */
export function xattrAreaSize(count: number): number {
  return count === 0 ? 0 : xattrHeader.size + (count - 1) * ENTRY_ALIGNMENT
}

/** Entries of `area`, the whole xattr area of an inode, values as views; in stored order. FORMAT_INVALID. */
export function decodeXattrs(area: Uint8Array): Xattr[] {
  const found: Xattr[] = []
  // COMPAT: upstream ignores h_shared_count (nydus rafs/src/metadata/direct_v6.rs get_xattrs); `check` warns of it
  for (let at = xattrHeader.size; at + xattrEntry.size <= area.length;) {
    const { nameLength, nameIndex, valueSize } = xattrEntry.decode(area, at)
    const nameStart = at + xattrEntry.size
    const end = nameStart + nameLength + valueSize
    if (end > area.length) throw new CodedError('FORMAT_INVALID', 'an extended attribute runs past its area', { at, nameLength, valueSize, areaSize: area.length })
    const prefix = XATTR_PREFIXES.find(([index]) => index === nameIndex)?.[1]
    if (prefix === undefined) throw new CodedError('FORMAT_INVALID', `extended attribute prefix ${nameIndex} does not exist`, { at, nameIndex })
    const name = prefix + byteString(area.subarray(nameStart, nameStart + nameLength))
    if (name.includes('\0')) throw new CodedError('FORMAT_INVALID', 'NUL in the name of an extended attribute', { at })
    found.push([name, area.subarray(nameStart + nameLength, end)])
    at = roundUp(end, ENTRY_ALIGNMENT)
  }
  return found
}
