// Tar members as bytes: POSIX headers, with a PAX header in front where they do not suffice. Pure: the caller writes the data.
// SPEC: POSIX.1-2017 pax. COMPAT: the form of upstream's `unpack` (nydus src/bin/nydus-image/unpack/pax.rs), so that equal trees give equal archives.

import { bytesOf, compareBytes } from '../../core/byte-string.ts'
import { roundUp } from '../../core/units.ts'
import type { TarEntry, TarEntryType } from './entry.ts'
import { BLOCK_SIZE, seal, TYPE_FLAG, type UstarHeader, USTAR_MAGIC, ustarHeader } from './header.ts'
import { writePax, xattrKey } from './pax.ts'

/** What to write. `size` is that of the data that follows; `link` is written as it stands (upstream's hard link targets begin with a slash). */
export type WritableEntry =
  & Pick<TarEntry, 'path' | 'type' | 'mode' | 'uid' | 'gid' | 'mtime'>
  & Partial<Pick<TarEntry, 'mtimeNsec' | 'size' | 'link' | 'rdevMajor' | 'rdevMinor' | 'xattrs'>>
  /** Names of the owners, cut to 32 bytes. */
  & { readonly userName?: string; readonly groupName?: string }

/** Fields of 100 bytes: `name` and `linkname`. */
const FIELD = 100
const USTAR_VERSION = '00'
/** Above this an octal size field overflows. */
const MAX_OCTAL_SIZE = 8 ** 11 - 1

const FLAGS = {
  file: TYPE_FLAG.file, directory: TYPE_FLAG.directory, symlink: TYPE_FLAG.symlink, hardlink: TYPE_FLAG.hardlink,
  character: TYPE_FLAG.character, block: TYPE_FLAG.block, fifo: TYPE_FLAG.fifo,
} as const satisfies Record<TarEntryType, number>

/**
 * All blocks before the data of a member. `size` bytes of data and `padding(size)` follow. Numbers too large for octal are written in base-256;
 * an overlong path or link target, a size of 8 GiB and more, nanoseconds and xattrs go into a PAX header, its records sorted by key.
 * Throws TAR_INVALID for numbers that no tar field holds.
 */
export function encodeEntry(entry: WritableEntry): Uint8Array {
  const { path, link = '', size = 0 } = entry
  const records: [key: string, value: Uint8Array][] = (entry.xattrs ?? []).map(([name, value]) => [xattrKey(name), value])
  if (path.length > FIELD) records.push(['path', bytesOf(path)])
  if (link.length > FIELD) records.push(['linkpath', bytesOf(link)])
  if (size > MAX_OCTAL_SIZE) records.push(['size', bytesOf(String(size))])
  if (entry.mtimeNsec) records.push(['mtime', bytesOf(timeText(entry.mtime, entry.mtimeNsec))])
  records.sort(([a], [b]) => compareBytes(a, b))

  const name = cut(path)
  const device = entry.type === 'character' || entry.type === 'block'
  const header = encodeHeader({
    ...NO_FIELDS,
    name, mode: entry.mode, uid: entry.uid, gid: entry.gid, size, mtime: entry.mtime, typeFlag: FLAGS[entry.type], linkName: cut(link),
    userName: (entry.userName ?? '').slice(0, 32), groupName: (entry.groupName ?? '').slice(0, 32),
    devMajor: device ? entry.rdevMajor ?? 0 : 0, devMinor: device ? entry.rdevMinor ?? 0 : 0,
  })
  return records.length === 0 ? header : Buffer.concat([encodePaxHeader(name, writePax(records)), header])
}

/** Zeros that follow `size` bytes of data. */
export function padding(size: number): Uint8Array {
  return new Uint8Array(roundUp(size, BLOCK_SIZE) - size)
}

/** The two zero blocks at the end of an archive. */
export function endBlocks(): Uint8Array {
  return new Uint8Array(2 * BLOCK_SIZE)
}

const NO_FIELDS: UstarHeader = {
  name: '', mode: 0, uid: 0, gid: 0, size: 0, mtime: 0, checksum: new Uint8Array(8), typeFlag: 0, linkName: '',
  magic: USTAR_MAGIC, version: USTAR_VERSION, userName: '', groupName: '', devMajor: 0, devMinor: 0, prefix: '',
}

function encodeHeader(fields: UstarHeader): Uint8Array {
  return seal(ustarHeader.encode(fields))
}

/** `dir/PaxHeaders.0/base` of the member's (cut) name. */
function encodePaxHeader(name: string, payload: Uint8Array): Uint8Array {
  const components = name.split('/').filter((component) => component !== '')
  components.splice(-1, 0, 'PaxHeaders.0')
  const block = ustarHeader.encode({ ...NO_FIELDS, name: cut(components.join('/')), mode: 0o644, size: payload.length, typeFlag: TYPE_FLAG.paxLocal })
  // COMPAT: upstream leaves the device fields of these headers empty.
  block.fill(0, ustarHeader.offsetOf.devMajor, ustarHeader.offsetOf.prefix)
  return Buffer.concat([seal(block), payload, padding(payload.length)])
}

/** The first 100 bytes, or fewer so that no UTF-8 character is cut in two. */
function cut(text: string): string {
  if (text.length <= FIELD) return text
  const isContinuation = (at: number) => (text.charCodeAt(at) & 0xc0) === 0x80
  let end = FIELD
  // A character has at most three continuation bytes; text that is not UTF-8 is cut at 100.
  while (end > FIELD - 4 && isContinuation(end)) end--
  return text.slice(0, isContinuation(end) ? FIELD : end)
}

/** Decimal seconds; a time before 1970 counts back from 0, as PAX wants it. */
function timeText(seconds: number, nsec: number): string {
  const [sign, whole, fraction] = seconds >= 0 ? ['', seconds, nsec] : ['-', -seconds - 1, 1e9 - nsec]
  return `${sign}${whole}.${String(fraction).padStart(9, '0').replace(/0+$/, '')}`
}
