// PAX extended headers: `length key=value\n` records. They are cut by their lengths, never at newlines: values are bytes of any kind.
// SPEC: POSIX.1-2017 pax "pax Extended Header"; GNU tar manual "Storing Sparse Files"; star(4) SCHILY.*; libarchive LIBARCHIVE.xattr.*.

import { type Fail, MAX_METADATA, MAX_SEGMENTS } from './entry.ts'

/** What extended headers say. `undefined`: nothing. `null` (in a local header): "back to the header block's own value". */
export interface PaxFields {
  path: string | null | undefined
  linkPath: string | null | undefined
  size: number | null | undefined
  uid: number | null | undefined
  gid: number | null | undefined
  mtime: PaxTime | null | undefined
  devMajor: number | null | undefined
  devMinor: number | null | undefined
  xattrs: Map<string, Uint8Array> | undefined
  sparse: PaxSparse | undefined
}

/** `seconds` rounded down, `nsec` 0..999_999_999. */
export interface PaxTime { readonly seconds: number; readonly nsec: number }

/** GNU.sparse.*: version 1.0 has `major`, 0.0 and 0.1 have their map in `pairs` (offset, length, offset, …). */
export interface PaxSparse {
  major: number | undefined
  minor: number | undefined
  name: string | undefined
  realSize: number | undefined
  pairs: number[]
}

/** The fields of a member without a PAX header. */
export function noPaxFields(): PaxFields {
  return { path: undefined, linkPath: undefined, size: undefined, uid: undefined, gid: undefined, mtime: undefined,
    devMajor: undefined, devMinor: undefined, xattrs: undefined, sparse: undefined }
}

const XATTR = 'SCHILY.xattr.'
const LIBARCHIVE_XATTR = 'LIBARCHIVE.xattr.'
const SPARSE = 'GNU.sparse.'

/**
 * Reads all records of `payload` into `fields`; later ones win. `scope` is whose header it is: an empty value takes a field back to
 * the header block's (local) or to nothing (global), and sparse maps belong to one member. Fails with TAR_INVALID.
 */
export function readPax(payload: Buffer, fields: PaxFields, { scope, fail }: { scope: 'local' | 'global'; fail: Fail }): void {
  const end = payload.length
  let at = 0
  // Some writers count the NUL padding into the size.
  while (at < end && payload[at] !== 0) {
    let space = at
    let length = 0
    for (; space < end; space++) {
      const digit = payload[space]! - 0x30
      if (digit < 0 || digit > 9 || length > end) break
      length = length * 10 + digit
    }
    let next = at + length
    if (space === at || payload[space] !== 0x20) throw fail('a PAX record does not begin with its length')
    // COMPAT: a hand-made global header may have a length that leaves out the newline (GNU tar refuses it, Python reads it); nothing else can be meant. Members' own headers stay strict.
    if (scope === 'global' && payload[next - 1] !== 0x0a && payload[next] === 0x0a) next++
    if (next > end || payload[next - 1] !== 0x0a) throw fail('the length of a PAX record is wrong')
    const equals = payload.indexOf(0x3d, space + 1)
    if (equals < 0 || equals >= next - 1) throw fail('a PAX record has no "="')
    applyRecord(payload.toString('latin1', space + 1, equals), payload.subarray(equals + 1, next - 1), { fields, scope, fail })
    at = next
  }
  if (scope === 'global') boundGlobals(fields, fail)
}

interface Application { readonly fields: PaxFields; readonly scope: 'local' | 'global'; readonly fail: Fail }

function applyRecord(key: string, value: Buffer, { fields, scope, fail }: Application): void {
  const cleared = scope === 'local' ? null : undefined
  const empty = value.length === 0
  const count = () => (empty ? cleared : decimal(value, key, fail))
  switch (key) {
    case 'path': fields.path = empty ? cleared : value.toString('latin1'); return
    case 'linkpath': fields.linkPath = empty ? cleared : value.toString('latin1'); return
    case 'size': fields.size = count(); return
    case 'uid': fields.uid = count(); return
    case 'gid': fields.gid = count(); return
    case 'mtime': fields.mtime = empty ? cleared : time(value.toString('latin1'), fail); return
    case 'SCHILY.devmajor': fields.devMajor = count(); return
    case 'SCHILY.devminor': fields.devMinor = count(); return
  }
  if (key.startsWith(XATTR)) setXattr(xattrName(key.slice(XATTR.length)), value, { fields, scope })
  else if (key.startsWith(LIBARCHIVE_XATTR)) setLibarchiveXattr(key.slice(LIBARCHIVE_XATTR.length), value, { fields, scope, fail })
  else if (key.startsWith(SPARSE) && scope === 'local') applySparse(key.slice(SPARSE.length), value, { fields, fail })
}

function setXattr(name: string, value: Uint8Array, { fields, scope }: Pick<Application, 'fields' | 'scope'>): void {
  fields.xattrs ??= new Map()
  if (value.length === 0 && scope === 'global') fields.xattrs.delete(name)
  // A copy: the payload is a view of a buffer that will be used again.
  else fields.xattrs.set(name, Uint8Array.from(value))
}

/** libarchive writes both forms; SCHILY's is the plain one and wins, whichever comes first. */
function setLibarchiveXattr(encodedName: string, value: Buffer, { fields, scope, fail }: Application): void {
  const name = encodedName.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  if (fields.xattrs?.has(name)) return
  const base64 = value.toString('latin1')
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(base64)) throw fail('a LIBARCHIVE.xattr value is not base64')
  setXattr(name, Buffer.from(base64, 'base64'), { fields, scope })
}

/**
 * COMPAT: a key cannot hold "=", so GNU tar writes %3D (and %25 for "%"). Go, through which containerd unpacks, does neither. Names are
 * taken back only where a %3D, itself escaped any number of times, shows that GNU tar's rule was needed; all others stay as containerd sees them.
 */
const ESCAPED_EQUALS = /%(?:25)*3D/

function xattrName(name: string): string {
  return ESCAPED_EQUALS.test(name) ? name.replaceAll('%3D', '=').replaceAll('%25', '%') : name
}

function applySparse(key: string, value: Buffer, { fields, fail }: Pick<Application, 'fields' | 'fail'>): void {
  const sparse = fields.sparse ??= { major: undefined, minor: undefined, name: undefined, realSize: undefined, pairs: [] }
  const { pairs } = sparse
  switch (key) {
    case 'major': sparse.major = decimal(value, key, fail); return
    case 'minor': sparse.minor = decimal(value, key, fail); return
    case 'name': sparse.name = value.toString('latin1'); return
    case 'size': case 'realsize': sparse.realSize = decimal(value, key, fail); return
    case 'offset': case 'numbytes':
      if ((pairs.length % 2 === 0) !== (key === 'offset')) throw fail('sparse offsets and lengths do not alternate')
      if (pairs.length >= 2 * MAX_SEGMENTS) throw fail(`a sparse file of more than ${MAX_SEGMENTS} pieces`)
      pairs.push(decimal(value, key, fail))
      return
    case 'map': sparse.pairs = commaList(value, fail); return
  }
}

function commaList(value: Buffer, fail: Fail): number[] {
  const numbers: number[] = []
  for (let at = 0; at < value.length;) {
    const comma = value.indexOf(0x2c, at)
    const end = comma < 0 ? value.length : comma
    if (numbers.length >= 2 * MAX_SEGMENTS) throw fail(`a sparse file of more than ${MAX_SEGMENTS} pieces`)
    numbers.push(decimal(value.subarray(at, end), 'GNU.sparse.map', fail))
    at = end + 1
  }
  return numbers
}

/** Digits only, below 2^53. */
function decimal(value: Uint8Array, key: string, fail: Fail): number {
  let number = value.length === 0 ? Number.NaN : 0
  for (const code of value) number = code >= 0x30 && code <= 0x39 ? number * 10 + (code - 0x30) : Number.NaN
  if (!Number.isSafeInteger(number)) throw fail(`PAX "${key}" is no number below 2^53`)
  return number
}

/** `-1.5` is one and a half seconds before 1970: -2 s and 500,000,000 ns. Digits beyond nanoseconds round down, too. */
function time(text: string, fail: Fail): PaxTime {
  const [, sign, whole, fraction = ''] = /^([+-]?)([0-9]+)(?:\.([0-9]*))?$/.exec(text) ?? []
  let seconds = Number(whole)
  if (!Number.isSafeInteger(seconds)) throw fail('PAX "mtime" is no time')
  let nsec = Number(fraction.slice(0, 9).padEnd(9, '0'))
  if (sign === '-') {
    if (/[1-9]/.test(fraction.slice(9))) nsec++
    seconds = nsec === 0 ? 0 - seconds : -seconds - 1
    nsec = nsec === 0 ? 0 : 1e9 - nsec
  }
  return { seconds, nsec }
}

/** Global headers add up, so their sum is bounded as one header is. */
function boundGlobals(fields: PaxFields, fail: Fail): void {
  let sum = 0
  for (const [name, value] of fields.xattrs ?? []) sum += name.length + value.length
  if (sum > MAX_METADATA) throw fail(`global PAX headers of more than ${MAX_METADATA} bytes`)
}

/** Records for a PAX header, in the order given. Keys are byte strings without "=". */
export function writePax(records: readonly (readonly [key: string, value: Uint8Array])[]): Uint8Array {
  return Buffer.concat(records.flatMap(([key, value]) => {
    const rest = key.length + value.length + 3
    // The length counts its own digits: one more may tip it over a power of ten.
    let length = rest + String(rest).length
    if (String(length).length + rest !== length) length = rest + String(length).length
    return [Buffer.from(`${length} ${key}=`, 'latin1'), value, Buffer.from('\n')]
  }))
}

/** The key under which an extended attribute is written; `xattrName` is the other way. */
export function xattrKey(name: string): string {
  const escaped = name.includes('=') || ESCAPED_EQUALS.test(name)
  return XATTR + (escaped ? name.replaceAll('%', '%25').replaceAll('=', '%3D') : name)
}
