// READDIR and READDIRPLUS: as many records as fit. Offsets are the image's own cursors, so no state is kept between two reads.

import { EROFS_FT } from '../../format/erofs/inode.ts'
import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { FUSE_DIRENT_ALIGNMENT, fuseDirent } from '../../wire/fuse/directory.ts'
import { entryOut } from '../../wire/fuse/inode.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import { DIRENT_TYPE, type Owner, writeEntry } from './attributes.ts'
import type { Entrance, FileSystemTable, Mounted } from './file-system-table.ts'
import { MAX_NID } from './node-id.ts'

const D = fuseDirent.offsetOf
const WORD = 2 ** 32
/** Cursors of names that mounts add to a directory, behind all cursors of the directory itself: this plus the number of the mountpoint's directory. */
const MOUNTPOINTS = 2 ** 40

export interface DirectoryRead {
  readonly fileSystems: FileSystemTable
  readonly mounted: Mounted
  readonly directory: Inode
  readonly cursor: number
  readonly plus: boolean
  /** Of files of images that record no owners. */
  readonly owner: Owner
  readonly validSeconds: number
}

/** A name; `mounted` where it leads to another file system. */
interface Listed { readonly mounted?: Mounted; readonly name: string; readonly nid: number; readonly fileType: number; readonly next: number }

/** Writes records into `bytes` from `at` to `end` at most; returns where they end. @throws FORMAT_* only when not even one record could be written */
export function writeDirectory(out: DataView, bytes: Buffer, at: number, end: number, read: DirectoryRead): number {
  const start = at
  try {
    for (const { mounted = read.mounted, name, nid, fileType, next } of listed(read)) {
      const recordAt = read.plus ? at + entryOut.size : at
      const nameAt = recordAt + fuseDirent.size
      const stop = nameAt + alignedLength(name.length)
      if (stop > end) {
        // zero records would say "end of directory": a caller whose buffer is too small for one name must hear it
        if (at === start) throw new CodedError('SERVE_BAD_REQUEST', 'no room for one directory record', { size: end - start })
        break
      }
      if (read.plus) writePlus(out, bytes, at, name, { mounted, nid }, read)
      out.setUint32(recordAt + D.inoLow, nid, true)
      out.setUint32(recordAt + D.inoHigh, mounted.inoHigh, true)
      out.setUint32(recordAt + D.offsetLow, next, true)
      out.setUint32(recordAt + D.offsetHigh, next / WORD, true)
      out.setUint32(recordAt + D.nameLength, name.length, true)
      out.setUint32(recordAt + D.type, DIRENT_TYPE[fileType] ?? 0, true)
      bytes.fill(0, stop - FUSE_DIRENT_ALIGNMENT, stop) // padding; the name overwrites its part
      bytes.write(name, nameAt, 'latin1')
      at = stop
    }
  } catch (error) {
    if (at === start || !isCoded(error)) throw error
    // The entries before the damaged one are good; the next read begins at the damage and reports it.
  }
  return at
}

function listed(read: DirectoryRead): Iterable<Listed> {
  const { mounted, directory, cursor } = read
  const children = mounted.covers.get(directory.nid)?.children
  if (children !== undefined && children.size > 0) return withMountpoints(read)
  return mounted.fs.view.entries(directory, cursor)
}

/** The directory's own names, those that are mountpoints as such, and then mountpoints that it has no name for. */
function* withMountpoints({ fileSystems, mounted, directory, cursor }: DirectoryRead): Generator<Listed> {
  if (cursor < MOUNTPOINTS) {
    for (const own of mounted.fs.view.entries(directory, cursor)) {
      const crossed = own.name === '..' ? undefined : fileSystems.cross(mounted, directory.nid, own.name)
      yield crossed ? { ...own, ...crossed, fileType: EROFS_FT.directory } : own
    }
  }
  const children = [...mounted.covers.get(directory.nid)?.children.values() ?? []]
  for (const child of children.sort((a, b) => a.id - b.id)) {
    if (MOUNTPOINTS + child.id <= cursor || mounted.fs.view.lookup(directory, child.name)) continue
    yield { name: child.name, ...fileSystems.entrance(child), fileType: EROFS_FT.directory, next: MOUNTPOINTS + child.id }
  }
}

// `.` and `..` are never looked up through READDIRPLUS (the kernel skips them), and a child whose inode is damaged must not hide its
// siblings: node id 0 leaves it to a LOOKUP, which reports the damage.
function writePlus(out: DataView, bytes: Buffer, at: number, name: string, { mounted, nid }: Entrance, { owner, validSeconds }: DirectoryRead): void {
  const { fs, serial, inoHigh } = mounted
  const inode = name === '.' || name === '..' ? undefined : readable(mounted, nid)
  writeEntry(out, bytes, at, { nodeHigh: serial, nodeLow: nid, inode, inoHigh, owner: fs.explicitIds ? undefined : owner, validSeconds: inode ? validSeconds : 0 })
}

function readable({ fs }: Mounted, nid: number): Inode | undefined {
  if (nid > MAX_NID) return undefined
  try {
    return fs.view.inode(nid)
  } catch (error) {
    if (isCoded(error)) return undefined
    throw error
  }
}

function alignedLength(length: number): number {
  return (length + FUSE_DIRENT_ALIGNMENT - 1) & -FUSE_DIRENT_ALIGNMENT
}
