// One member's header block, with what extended headers add to it or replace in it → entry.
// COMPAT: where dialects disagree, containerd (Go archive/tar) decides, since it is how images are unpacked.

import { foreignText } from '../../core/errors.ts'
import type { Fail, TarEntry, TarEntryType } from './entry.ts'
import { headerPath, headerText, parseNumber, TYPE_FLAG, ustarHeader } from './header.ts'
import { normalizePath, symlinkTarget } from './path.ts'
import type { PaxFields } from './pax.ts'

/** Extended headers that hold for the next member: its own PAX header, the archive's, and GNU's long names. */
export interface Extensions {
  readonly local: PaxFields | undefined
  readonly global: PaxFields
  readonly longName: string | undefined
  readonly longLink: string | undefined
}

/** A header block at `at` of `block`, and where it and its data stand in the archive. */
export interface MemberHeader {
  readonly block: Buffer
  readonly at: number
  readonly headerOffset: number
  readonly dataOffset: number
}

const OFFSET = ustarHeader.offsetOf
const NO_XATTRS: TarEntry['xattrs'] = []

const TYPES: ReadonlyMap<number, TarEntryType> = new Map([
  [TYPE_FLAG.oldFile, 'file'], [TYPE_FLAG.file, 'file'], [TYPE_FLAG.contiguous, 'file'], [TYPE_FLAG.gnuSparse, 'file'],
  [TYPE_FLAG.hardlink, 'hardlink'], [TYPE_FLAG.symlink, 'symlink'], [TYPE_FLAG.character, 'character'], [TYPE_FLAG.block, 'block'],
  [TYPE_FLAG.directory, 'directory'], [TYPE_FLAG.gnuDumpDirectory, 'directory'], [TYPE_FLAG.fifo, 'fifo'],
])

/** The member's path as it is written; GNU's long names win over PAX, as in Go and in upstream's reader. */
export function rawPath({ block, at }: Pick<MemberHeader, 'block' | 'at'>, extensions: Extensions): string {
  return extensions.longName ?? extensions.local?.sparse?.name ?? pick(extensions, 'path') ?? headerPath(block, at)
}

/** Bytes that the member occupies in the archive, before padding; what they are depends on its type. Fails with TAR_INVALID. */
export function storedSize({ block, at }: Pick<MemberHeader, 'block' | 'at'>, extensions: Extensions, fail: Fail): number {
  return pick(extensions, 'size') ?? readNumber(block, at, { offset: OFFSET.size, size: 12, name: 'size', fail })
}

/**
 * The entry, with `size` as stored (sparse files are the caller's). COMPAT: as in Go, only files have data; other members' sizes say something
 * else (the length of a link target, a quota), or nothing. Fails with TAR_INVALID and TAR_UNSAFE_PATH.
 */
export function toEntry(header: MemberHeader, extensions: Extensions, { path: raw, stored, fail }: { path: string; stored: number; fail: Fail }): TarEntry {
  const { block, at } = header
  const type = entryType(block[at + OFFSET.typeFlag]!, raw, fail)
  const path = normalizePath(raw, fail)
  if (path === '' && type !== 'directory') throw fail('the root of the archive can be a directory only')
  const number = (offset: number, size: number, name: string) => readNumber(block, at, { offset, size, name, fail })
  const mtime = pick(extensions, 'mtime')
  const isDevice = type === 'character' || type === 'block'
  return {
    path,
    type,
    mode: number(OFFSET.mode, 8, 'mode') % 0o10000,
    uid: bounded(pick(extensions, 'uid') ?? number(OFFSET.uid, 8, 'uid'), 0xffff_ffff, { name: 'uid', fail }),
    gid: bounded(pick(extensions, 'gid') ?? number(OFFSET.gid, 8, 'gid'), 0xffff_ffff, { name: 'gid', fail }),
    mtime: mtime?.seconds ?? readSigned(block, at, { offset: OFFSET.mtime, size: 12, name: 'mtime', fail }),
    mtimeNsec: mtime?.nsec ?? 0,
    size: type === 'file' ? stored : 0,
    link: type === 'symlink' || type === 'hardlink' ? linkTarget(type, extensions.longLink ?? pick(extensions, 'linkPath') ?? headerText(block, at, [OFFSET.linkName, 100]), fail) : '',
    // LIMIT: 12 and 20 bits are what Linux (and so an image) has for them.
    rdevMajor: isDevice ? bounded(pick(extensions, 'devMajor') ?? number(OFFSET.devMajor, 8, 'devmajor'), 0xfff, { name: 'devmajor', fail }) : 0,
    rdevMinor: isDevice ? bounded(pick(extensions, 'devMinor') ?? number(OFFSET.devMinor, 8, 'devminor'), 0xf_ffff, { name: 'devminor', fail }) : 0,
    xattrs: xattrsOf(extensions),
    sparse: undefined,
    headerOffset: header.headerOffset,
    dataOffset: header.dataOffset,
  }
}

/** A numeric field, not negative. Fails with TAR_INVALID. */
export function readNumber(block: Uint8Array, at: number, field: { offset: number; size: number; name: string; fail: Fail }): number {
  const value = readSigned(block, at, field)
  if (value < 0) throw field.fail(`${field.name} is negative`)
  return value
}

function readSigned(block: Uint8Array, at: number, { offset, size, name, fail }: { offset: number; size: number; name: string; fail: Fail }): number {
  const value = parseNumber(block, at + offset, size)
  if (Number.isNaN(value)) throw fail(`${name} is no number below 2^53`)
  return value
}

function bounded(value: number, limit: number, { name, fail }: { name: string; fail: Fail }): number {
  if (value > limit) throw fail(`${name} ${value} is more than ${limit}`)
  return value
}

function entryType(flag: number, path: string, fail: Fail): TarEntryType {
  const type = TYPES.get(flag)
  if (type === undefined) {
    // M and N: the rest of a member of another volume, and names in a form given up in 1992. Vendors' own types: nobody knows if they have data.
    throw fail(`type "${foreignText(String.fromCharCode(flag))}" (0x${flag.toString(16)}) is not known or cannot be read`)
  }
  // Before POSIX, directories were files with a slash at the end; Go, Python and upstream read only the old flag so.
  return flag === TYPE_FLAG.oldFile && path.endsWith('/') ? 'directory' : type
}

function linkTarget(type: 'symlink' | 'hardlink', raw: string, fail: Fail): string {
  if (type === 'symlink') return symlinkTarget(raw, fail)
  const target = normalizePath(raw, fail)
  if (target === '') throw fail('a hard link without a target')
  return target
}

function xattrsOf({ local, global }: Extensions): TarEntry['xattrs'] {
  if (global.xattrs === undefined) return local?.xattrs === undefined ? NO_XATTRS : [...local.xattrs]
  return [...new Map([...global.xattrs, ...(local?.xattrs ?? [])])]
}

/** The PAX value of a field: the member's own, else the archive's. Null and undefined both mean: see the header block. */
function pick<K extends Exclude<keyof PaxFields, 'xattrs' | 'sparse'>>({ local, global }: Extensions, key: K): PaxFields[K] {
  const own = local?.[key]
  return own === undefined ? global[key] : own
}
