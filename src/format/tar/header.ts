// The 512-byte blocks of a tar archive: one table per header form, the numbers and checksums in them.
// SPEC: POSIX.1-2017 pax "ustar Interchange Format"; GNU tar manual "Basic Tar Format", tar.h `struct oldgnu_header`.

import { CodedError } from '../../core/errors.ts'
import { bytes, type Decoded, type FieldType, reserved, struct, u8 } from '../../core/struct.ts'

export const BLOCK_SIZE = 512

/** typeflag: POSIX values, then GNU's, then Sun's, as character codes. */
export const TYPE_FLAG = {
  oldFile: 0x00,
  file: 0x30, // '0'
  hardlink: 0x31,
  symlink: 0x32,
  character: 0x33,
  block: 0x34,
  directory: 0x35,
  fifo: 0x36,
  contiguous: 0x37, // '7'
  paxGlobal: 0x67, // 'g'
  paxLocal: 0x78, // 'x'
  gnuDumpDirectory: 0x44, // 'D'
  gnuLongLink: 0x4b, // 'K'
  gnuLongName: 0x4c, // 'L'
  gnuContinuation: 0x4d, // 'M'
  gnuOldLongName: 0x4e, // 'N'
  gnuSparse: 0x53, // 'S'
  gnuVolume: 0x56, // 'V'
  solarisPaxLocal: 0x58, // 'X'
} as const

/** A byte string, NUL padded; it may fill the field without a NUL. */
function text(size: number): FieldType<string> {
  return {
    size, label: `char[${size}], NUL padded`,
    read(view, at) {
      const field = Buffer.from(view.buffer, view.byteOffset + at, size)
      const nul = field.indexOf(0)
      return field.toString('latin1', 0, nul < 0 ? size : nul)
    },
    write(view, at, value) {
      if (value.length > size) throw new CodedError('TAR_INVALID', `text of ${value.length} bytes does not fit a tar field of ${size}`)
      Buffer.from(view.buffer, view.byteOffset + at, size).write(value, 'latin1')
    },
  }
}

/** Octal digits and a NUL; base-256 (GNU) where the digits do not suffice or the value is negative. */
export function number(size: number): FieldType<number> {
  return {
    size, label: `octal[${size}] or base-256`,
    read(view, at) {
      const value = parseNumber(new Uint8Array(view.buffer, view.byteOffset + at, size), 0, size)
      if (Number.isNaN(value)) throw new CodedError('TAR_INVALID', 'a numeric tar field does not hold a number below 2^53', { at })
      return value
    },
    write: (view, at, value) => writeNumber(new Uint8Array(view.buffer, view.byteOffset + at, size), value),
  }
}

/** `magic` of POSIX archives; its version is `00`. */
export const USTAR_MAGIC = 'ustar'
/** magic and version of GNU archives, which use the bytes of `prefix` for other things. */
export const GNU_MAGIC = 'ustar  '

export type UstarHeader = Decoded<typeof ustarHeader>
export const ustarHeader = struct('UstarHeader', BLOCK_SIZE, [
  [  0, 'name',     text(100),   'name: path, or its part after prefix'],
  [100, 'mode',     number(8),   'mode: permission bits'],
  [108, 'uid',      number(8),   'uid'],
  [116, 'gid',      number(8),   'gid'],
  [124, 'size',     number(12),  'size: bytes of data that follow, before padding to 512'],
  [136, 'mtime',    number(12),  'mtime: seconds since 1970'],
  [148, 'checksum', bytes(8),    'chksum: sum of all bytes of the block, this field as eight spaces; octal'],
  [156, 'typeFlag', u8,          'typeflag'],
  [157, 'linkName', text(100),   'linkname: target of links'],
  [257, 'magic',    text(6),     'magic: ustar and NUL (POSIX), or ustar and a space (GNU)'],
  [263, 'version',  text(2),     'version: 00 (POSIX), or a space and a NUL (GNU)'],
  [265, 'userName', text(32),    'uname'],
  [297, 'groupName', text(32),   'gname'],
  [329, 'devMajor', number(8),   'devmajor: of character and block devices'],
  [337, 'devMinor', number(8),   'devminor'],
  [345, 'prefix',   text(155),   'prefix: directory part of the path; POSIX archives only'],
  [500, '_padding', reserved(12), 'unused'],
])

/** What GNU tar keeps where POSIX has `prefix`. The parts before it are those of `ustarHeader`. */
export const gnuHeader = struct('GnuHeader', BLOCK_SIZE, [
  [  0, '_common',    reserved(345), 'name … devminor, as in ustar'],
  [345, 'accessTime', number(12),    'atime'],
  [357, 'changeTime', number(12),    'ctime'],
  [369, 'volumeOffset', number(12),  'offset: start of the data in a multi-volume archive'],
  [381, '_unused',    reserved(5),   'longnames, unused'],
  [386, 'segments',   bytes(96),     'sp: four sparse segments of offset[12] and numbytes[12]'],
  [482, 'isExtended', u8,            'isextended: not 0 when a sparse block follows'],
  [483, 'realSize',   number(12),    'realsize: size of the sparse file with its holes'],
  [495, '_padding',   reserved(17),  'unused'],
])

/** Blocks with more segments, between the header and the data of an old GNU sparse file. */
export const gnuSparseBlock = struct('GnuSparseBlock', BLOCK_SIZE, [
  [  0, 'segments',   bytes(504),  'sp: 21 sparse segments of offset[12] and numbytes[12]'],
  [504, 'isExtended', u8,          'isextended: not 0 when another sparse block follows'],
  [505, '_padding',   reserved(7), 'unused'],
])

/** One row of `segments` above. */
export const gnuSparseSegment = struct('GnuSparseSegment', 24, [
  [ 0, 'offset', number(12), 'offset: position in the file'],
  [12, 'length', number(12), 'numbytes: bytes of data; a row whose fields are empty ends the list'],
])

const SPACE = 0x20

/**
 * A numeric field: octal as GNU tar tolerates it (one leading NUL, leading white space, ended by NUL, space or the field's end; blank is 0), or
 * base-256 when the first byte has bit 7 (bit 6 is the sign). NaN for anything else and for magnitudes of 2^53 and more.
 */
export function parseNumber(block: Uint8Array, at: number, size: number): number {
  const end = at + size
  const first = block[at]!
  if (first >= 0x80) return parseBase256(block, at, end)
  let i = first === 0 ? at + 1 : at
  while (i < end && isSpace(block[i]!)) i++
  let value = 0
  for (; i < end; i++) {
    const digit = block[i]! - 0x30
    if (digit < 0 || digit > 7) break
    value = value * 8 + digit
  }
  return i < end && block[i] !== 0 && !isSpace(block[i]!) ? Number.NaN : value
}

function parseBase256(block: Uint8Array, at: number, end: number): number {
  const first = block[at]!
  let value = (first & 0x3f) - (first & 0x40)
  for (let i = at + 1; i < end; i++) value = value * 256 + block[i]!
  return Number.isSafeInteger(value) ? value : Number.NaN
}

function isSpace(code: number): boolean {
  return code === SPACE || (code >= 0x09 && code <= 0x0d)
}

function writeNumber(field: Uint8Array, value: number): void {
  if (!Number.isSafeInteger(value)) throw new CodedError('TAR_INVALID', `a tar header cannot hold the number ${value}`)
  const digits = field.length - 1
  if (value >= 0 && value < 8 ** digits) {
    Buffer.from(field.buffer, field.byteOffset, digits).write(value.toString(8).padStart(digits, '0'), 'latin1')
    return
  }
  let rest = BigInt(value)
  if (BigInt.asIntN(field.length * 8 - 1, rest) !== rest) throw new CodedError('TAR_INVALID', `a tar field of ${field.length} bytes cannot hold ${value}`)
  for (let i = field.length - 1; i >= 0; i--, rest >>= 8n) field[i] = Number(rest & 0xffn)
  field[0] = field[0]! | 0x80
}

/** The text of a field, up to its first NUL, as a byte string. For hot loops; others decode the whole header. */
export function headerText(block: Buffer, at: number, [offset, size]: readonly [offset: number, size: number]): string {
  const start = at + offset
  let end = start
  while (end < start + size && block[end] !== 0) end++
  return end === start ? '' : block.toString('latin1', start, end)
}

/** The path that a header block itself holds; POSIX archives put its first part into `prefix`. */
export function headerPath(block: Buffer, at: number): string {
  const { name, magic, prefix } = ustarHeader.offsetOf
  const base = headerText(block, at, [name, 100])
  if (block[at + prefix] === 0 || headerText(block, at, [magic, 6]) !== USTAR_MAGIC) return base
  return `${headerText(block, at, [prefix, 155])}/${base}`
}

/** Whether GNU tar wrote the header, so that `gnuHeader` tells what its end means. */
export function isGnuHeader(block: Buffer, at: number): boolean {
  return headerText(block, at, [ustarHeader.offsetOf.magic, GNU_MAGIC.length]) === GNU_MAGIC
}

/** What a block is, by its checksum. */
export type BlockKind = 'zero' | 'header' | 'other'

/** Sorts the block at `at`: all zero, a header whose checksum holds (unsigned, or signed as very old writers summed), or something else. */
export function blockKind(block: Uint8Array, at: number): BlockKind {
  let sum = 0
  for (let i = at; i < at + BLOCK_SIZE; i++) sum += block[i]!
  if (sum === 0) return 'zero'
  const field = at + ustarHeader.offsetOf.checksum
  const recorded = parseNumber(block, field, 8)
  const unsigned = withoutField(sum, block, field)
  if (recorded === unsigned) return 'header'
  let high = 0
  for (let i = at; i < at + BLOCK_SIZE; i++) if (block[i]! >= 0x80 && (i < field || i >= field + 8)) high++
  return recorded === unsigned - 256 * high ? 'header' : 'other'
}

/** Fills in the checksum of a finished header: six octal digits, NUL, space. */
export function seal(block: Uint8Array): Uint8Array {
  const field = ustarHeader.offsetOf.checksum
  let sum = 0
  for (let i = 0; i < BLOCK_SIZE; i++) sum += block[i]!
  Buffer.from(block.buffer, block.byteOffset + field, 8).write(`${withoutField(sum, block, field).toString(8).padStart(6, '0')}\0 `, 'latin1')
  return block
}

function withoutField(sum: number, block: Uint8Array, field: number): number {
  let rest = sum + 8 * SPACE
  for (let i = field; i < field + 8; i++) rest -= block[i]!
  return rest
}
