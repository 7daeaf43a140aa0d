// The inline extended attributes of an inode, as they are written; format/erofs/inline-xattrs.ts reads them.
// SPEC: nydus rafs/src/metadata/layout/v6.rs RafsXAttrs::store_v6; spec-rafs.md A.9.

import { bytesOf, compareBytes, toText } from '../../core/byte-string.ts'
import { CodedError } from '../../core/errors.ts'
import { roundUp } from '../../core/units.ts'
import { XATTR_PREFIXES, xattrEntry, xattrHeader } from '../erofs/inode.ts'

/** SPEC: xattr(7): a full name with its prefix; upstream refuses longer ones, too. */
const MAX_NAME = 255
/** LIMIT: e_value_size is 16 bits. */
const MAX_VALUE = 65535
/** LIMIT: i_xattr_icount is 16 bits and counts words of 4 bytes after the header. */
const MAX_AREA = xattrHeader.size + (0xffff - 1) * 4

/**
 * The area behind an inode, undefined for no attributes. Sorted by name, so that equal inodes give equal bytes (upstream's order is random).
 * Throws BUILD_SOURCE, with `path` (byte string, for the message only), for what an image cannot express: another namespace, a name above
 * 255 bytes, a value above 65,535 bytes, more than 256 KiB on one inode.
 */
export function encodeXattrs(pairs: Iterable<readonly [name: string, value: Uint8Array]>, path: string): Uint8Array | undefined {
  const entries = [...pairs].sort(([a], [b]) => compareBytes(a, b)).map(([name, value]) => {
    const refuse = (why: string) => new CodedError('BUILD_SOURCE', `${toText(path)}: extended attribute ${toText(name)} ${why}`)
    if (name.length > MAX_NAME) throw refuse('has a name of more than 255 bytes')
    if (value.length > MAX_VALUE) throw refuse('has a value of more than 65535 bytes')
    // The ACLs are whole names: nothing may follow.
    const prefix = XATTR_PREFIXES.find(([, text]) => (text.endsWith('.') ? name.startsWith(text) : name === text))
    if (prefix === undefined) throw refuse('is in a namespace that images cannot hold')
    const [nameIndex, text] = prefix
    const suffix = bytesOf(name.slice(text.length))
    return { nameIndex, suffix, value, size: roundUp(xattrEntry.size + suffix.length + value.length, 4) }
  })
  if (entries.length === 0) return undefined
  const size = entries.reduce((sum, entry) => sum + entry.size, xattrHeader.size)
  if (size > MAX_AREA) throw new CodedError('BUILD_SOURCE', `${toText(path)}: ${size} bytes of extended attributes, an inode holds ${MAX_AREA}`, { size })
  const area = xattrHeader.encode({ nameFilter: 0, sharedCount: 0 }, new Uint8Array(size))
  let at = xattrHeader.size
  for (const entry of entries) {
    xattrEntry.encode({ nameLength: entry.suffix.length, nameIndex: entry.nameIndex, valueSize: entry.value.length }, area, at)
    area.set(entry.suffix, at + xattrEntry.size)
    area.set(entry.value, at + xattrEntry.size + entry.suffix.length)
    at += entry.size
  }
  return area
}

/** i_xattr_icount of an area. */
export function xattrCountOf(area: Uint8Array | undefined): number {
  return area === undefined ? 0 : (area.length - xattrHeader.size) / 4 + 1
}
