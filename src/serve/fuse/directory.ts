// READDIR and READDIRPLUS: as many records as fit. Offsets are the image's own cursors, so no state is kept between two reads.

import type { Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { FUSE_DIRENT_ALIGNMENT, fuseDirent } from '../../wire/fuse/directory.ts'
import { entryOut } from '../../wire/fuse/inode.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import { DIRENT_TYPE, type Owner, writeEntry } from './attributes.ts'
import { MAX_NID } from './node-id.ts'
import type { ServedImage } from './served-image.ts'

const D = fuseDirent.offsetOf
const WORD = 2 ** 32

export interface DirectoryRead {
  readonly image: ServedImage
  readonly serial: number
  readonly directory: Inode
  readonly cursor: number
  readonly plus: boolean
  readonly owner: Owner | undefined
  readonly validSeconds: number
}

/** Writes records into `bytes` from `at` to `end` at most; returns where they end. @throws FORMAT_* only when not even one record could be written */
export function writeDirectory(out: DataView, bytes: Buffer, at: number, end: number, read: DirectoryRead): number {
  const start = at
  try {
    for (const { name, nid, fileType, next } of read.image.view.entries(read.directory, read.cursor)) {
      const recordAt = read.plus ? at + entryOut.size : at
      const nameAt = recordAt + fuseDirent.size
      const stop = nameAt + alignedLength(name.length)
      if (stop > end) {
        // zero records would say "end of directory": a caller whose buffer is too small for one name must hear it
        if (at === start) throw new CodedError('SERVE_BAD_REQUEST', 'no room for one directory record', { size: end - start })
        break
      }
      if (read.plus) writePlus(out, bytes, at, name, nid, read)
      out.setUint32(recordAt + D.inoLow, nid, true)
      out.setUint32(recordAt + D.inoHigh, 0, true)
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

// `.` and `..` are never looked up through READDIRPLUS (the kernel skips them), and a child whose inode is damaged must not hide its
// siblings: node id 0 leaves it to a LOOKUP, which reports the damage.
function writePlus(out: DataView, bytes: Buffer, at: number, name: string, nid: number, { image, serial, owner, validSeconds }: DirectoryRead): void {
  const inode = name === '.' || name === '..' ? undefined : readable(image, nid)
  writeEntry(out, bytes, at, serial, nid, inode, owner, inode ? validSeconds : 0)
}

function readable({ view }: ServedImage, nid: number): Inode | undefined {
  if (nid > MAX_NID) return undefined
  try {
    return view.inode(nid)
  } catch (error) {
    if (isCoded(error)) return undefined
    throw error
  }
}

function alignedLength(length: number): number {
  return (length + FUSE_DIRENT_ALIGNMENT - 1) & -FUSE_DIRENT_ALIGNMENT
}
