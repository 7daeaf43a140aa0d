// A whole directory in one crossing: what lstat, readlink and the extended attributes say of each entry.
// native/scan.c packs one record an entry; the tables here are its structures (ScanRecord, ScanXattr).

import { bytesOf, compareBytes } from '../core/byte-string.ts'
import { dataViewOf, seconds64, size64, struct, u32 } from '../core/struct.ts'
import { addonErrno, syscallError } from './errno.ts'
import { native } from './load.ts'

/** One entry. Names, link targets and attribute names are byte strings; numbers are as in lstat(2), `mtime` in seconds. */
export interface ScannedEntry {
  readonly name: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: number
  readonly mtimeNsec: number
  readonly rdev: number
  readonly dev: number
  readonly ino: number
  readonly nlink: number
  /** Target of a symbolic link. */
  readonly link?: string
  /** Sorted by name; absent when there are none. */
  readonly xattrs?: readonly (readonly [name: string, value: Buffer])[]
}

/** Followed by name, link target, attributes (xattrHead, name, value) and padding to a multiple of 8. */
export const scanRecord = struct('ScanRecord', 80, [
  [ 0, 'recordSize',  u32,       'record_size: with all that follows'],
  [ 4, 'mode',        u32,       'st_mode'],
  [ 8, 'uid',         u32,       'st_uid'],
  [12, 'gid',         u32,       'st_gid'],
  [16, 'size',        size64,    'st_size'],
  [24, 'mtime',       seconds64, 'st_mtim.tv_sec'],
  [32, 'ino',         size64,    'st_ino'],
  [40, 'dev',         size64,    'st_dev'],
  [48, 'rdev',        size64,    'st_rdev'],
  [56, 'nlink',       size64,    'st_nlink'],
  [64, 'mtimeNsec',   u32,       'st_mtim.tv_nsec'],
  [68, 'nameLength',  u32,       'name_length'],
  [72, 'linkLength',  u32,       'link_length: 0 unless a symbolic link'],
  [76, 'xattrCount',  u32,       'xattr_count'],
])

export const scanXattr = struct('ScanXattr', 8, [
  [0, 'nameLength',  u32, 'name_length'],
  [4, 'valueLength', u32, 'value_length'],
])

/**
 * The entries of `path` (a byte string), sorted bytewise by name, without `.` and `..`. Links are not followed. An entry that disappears meanwhile
 * is left out. @throws CodedError NATIVE_SYSCALL (context.path says which entry).
 */
export async function scanDirectory(path: string): Promise<ScannedEntry[]> {
  let packed: Uint8Array
  try {
    packed = await native().scanDirectory(bytesOf(path))
  } catch (error) {
    const errno = addonErrno(error)
    if (errno === undefined) throw error
    throw syscallError(errno, 'scandir', failedPath(error) ?? path, { cause: error })
  }
  return decodeEntries(packed)
}

function failedPath(error: unknown): string | undefined {
  return error instanceof Error && 'path' in error && Buffer.isBuffer(error.path) ? error.path.toString('latin1') : undefined
}

// Single fields by offset: `decode` would cost a third of the whole scan.
function decodeEntries(packed: Uint8Array): ScannedEntry[] {
  const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length)
  const view = dataViewOf(packed)
  const at = scanRecord.offsetOf
  const entries: ScannedEntry[] = []
  for (let start = 0; start < bytes.length;) {
    const nameAt = start + scanRecord.size
    const linkAt = nameAt + view.getUint32(start + at.nameLength, true)
    const xattrsAt = linkAt + view.getUint32(start + at.linkLength, true)
    const xattrCount = view.getUint32(start + at.xattrCount, true)
    entries.push({
      name: bytes.toString('latin1', nameAt, linkAt),
      mode: view.getUint32(start + at.mode, true),
      uid: view.getUint32(start + at.uid, true),
      gid: view.getUint32(start + at.gid, true),
      size: size64.read(view, start + at.size),
      mtime: seconds64.read(view, start + at.mtime),
      mtimeNsec: view.getUint32(start + at.mtimeNsec, true),
      rdev: size64.read(view, start + at.rdev),
      dev: size64.read(view, start + at.dev),
      ino: size64.read(view, start + at.ino),
      nlink: size64.read(view, start + at.nlink),
      ...(xattrsAt > linkAt ? { link: bytes.toString('latin1', linkAt, xattrsAt) } : undefined),
      ...(xattrCount > 0 ? { xattrs: decodeXattrs(bytes, xattrsAt, xattrCount) } : undefined),
    })
    start += view.getUint32(start + at.recordSize, true)
  }
  return entries.sort((a, b) => compareBytes(a.name, b.name))
}

function decodeXattrs(bytes: Buffer, start: number, count: number): [string, Buffer][] {
  const xattrs: [string, Buffer][] = []
  let at = start
  for (let i = 0; i < count; i++) {
    const { nameLength, valueLength } = scanXattr.decode(bytes, at)
    const valueAt = at + scanXattr.size + nameLength
    // A copy: one attribute that is kept must not keep the whole directory.
    xattrs.push([bytes.toString('latin1', at + scanXattr.size, valueAt), Buffer.from(bytes.subarray(valueAt, valueAt + valueLength))])
    at = valueAt + valueLength
  }
  return xattrs.sort(([a], [b]) => compareBytes(a, b))
}
