// An image as a tar stream: the tree depth first, contents read chunk by chunk from wherever the image's blobs are.
// SPEC: spec-rafs.md section D "unpack format". COMPAT: upstream fails on FIFOs and devices and writes a corrupt tar from batch images; here they are written.

import { CodedError } from '../core/errors.ts'
import { MiB } from '../core/units.ts'
import { byteString, toText } from '../core/byte-string.ts'
import { decodeDevice, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '../format/erofs/inode.ts'
import type { BootstrapView, Inode } from '../format/rafs-v6/bootstrap-view.ts'
import type { TarEntryType } from '../format/tar/entry.ts'
import { encodeEntry, endBlocks, padding } from '../format/tar/writer.ts'

/** LIMIT: bytes read from a file at once; one chunk of the default size, so that memory does not depend on file sizes. */
const READ_SIZE = 1 * MiB
/** LIMIT: directories below each other. PATH_MAX / 2 names of one byte; more is a cycle or an attack. */
const MAX_DEPTH = 2048

export interface UnpackSource {
  readonly view: BootstrapView
  /** `length` bytes of a regular file from `offset`, fewer only at its end. Every byte verified. */
  read(inode: Inode, offset: number, length: number, options: { readonly signal: AbortSignal }): Promise<Uint8Array>
}

export interface UnpackOptions {
  readonly signal: AbortSignal
  /** Names of owners for the headers, as the host knows them; '' for none. */
  readonly userName?: (uid: number) => string
  readonly groupName?: (gid: number) => string
}

interface Place { readonly path: string; readonly nid: number; readonly depth: number }

/**
 * The tar archive of the whole tree below the root, in pieces. Sockets have no place in a tar and are left out. The second sight of an inode
 * with several links is a hard link. FORMAT_* for a damaged bootstrap, STORAGE_* when contents cannot be had.
 */
export async function* unpackTar(source: UnpackSource, options: UnpackOptions): AsyncGenerator<Uint8Array> {
  const { view } = source
  const firstPath = new Map<number, string>()
  const entered = new Set<number>([view.rootNid])
  const stack = children(view, { path: '', nid: view.rootNid, depth: 0 })
  for (let place = stack.pop(); place; place = stack.pop()) {
    options.signal.throwIfAborted()
    const inode = view.inode(place.nid)
    const kind = inode.mode & S_IFMT
    if (kind === S_IFSOCK) continue
    const first = kind === S_IFDIR ? undefined : firstPath.get(place.nid)
    yield header(view, place, inode, first, options)
    if (first !== undefined) continue
    if (kind === S_IFDIR) {
      if (entered.has(place.nid)) throw new CodedError('FORMAT_INVALID', `directory ${toText(place.path)} is reached twice`, { nid: place.nid })
      entered.add(place.nid)
      stack.push(...children(view, place))
      continue
    }
    if (inode.nlink > 1) firstPath.set(place.nid, place.path)
    if (kind === S_IFREG) yield* content(source, inode, options.signal)
  }
  yield endBlocks()
}

/** Children in reverse order, for a stack. */
function children(view: BootstrapView, parent: Place): Place[] {
  if (parent.depth >= MAX_DEPTH) throw new CodedError('FORMAT_INVALID', `more than ${MAX_DEPTH} directories below each other`, { nid: parent.nid })
  const places: Place[] = []
  for (const { name, nid } of view.entries(view.inode(parent.nid))) {
    if (name !== '.' && name !== '..') places.push({ path: parent.path === '' ? name : `${parent.path}/${name}`, nid, depth: parent.depth + 1 })
  }
  return places.reverse()
}

function header(view: BootstrapView, { path }: Place, inode: Inode, firstPath: string | undefined, options: UnpackOptions): Uint8Array {
  const type = firstPath === undefined ? typeOf(inode.mode, path) : 'hardlink'
  const [rdevMajor, rdevMinor] = decodeDevice(inode.rdev)
  return encodeEntry({
    path: type === 'directory' ? `${path}/` : path, type, mode: inode.mode & 0o7777, uid: inode.uid, gid: inode.gid, mtime: inode.mtime, mtimeNsec: inode.mtimeNsec,
    size: type === 'file' ? inode.size : 0, rdevMajor, rdevMinor,
    userName: options.userName?.(inode.uid) ?? '', groupName: options.groupName?.(inode.gid) ?? '',
    ...(type === 'symlink' ? { link: targetOf(view, inode, path) } : type === 'hardlink' ? { link: `/${firstPath!}` } : {}),
    ...(type !== 'hardlink' && inode.xattrCount > 0 ? { xattrs: view.xattrs(inode) } : {}),
  })
}

/** A tar field ends at a NUL: the link would lead elsewhere than the image's. */
function targetOf(view: BootstrapView, inode: Inode, path: string): string {
  const target = byteString(view.readlink(inode))
  if (target.includes('\0')) throw new CodedError('FORMAT_INVALID', `${toText(path)}: a link target with a NUL`, { nid: inode.nid })
  return target
}

function typeOf(mode: number, path: string): TarEntryType {
  switch (mode & S_IFMT) {
    case S_IFREG: return 'file'
    case S_IFDIR: return 'directory'
    case S_IFLNK: return 'symlink'
    case S_IFCHR: return 'character'
    case S_IFBLK: return 'block'
    case S_IFIFO: return 'fifo'
    default: throw new CodedError('FORMAT_INVALID', `${toText(path)} is of an unknown type`, { mode })
  }
}

async function* content(source: UnpackSource, inode: Inode, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < inode.size;) {
    const wanted = Math.min(READ_SIZE, inode.size - offset)
    const bytes = await source.read(inode, offset, wanted, { signal })
    if (bytes.length !== wanted) throw new CodedError('STORAGE_SHORT_READ', `inode ${inode.nid}: ${bytes.length} bytes at ${offset} instead of ${wanted}`, { nid: inode.nid })
    yield bytes
    offset += wanted
  }
  yield padding(inode.size)
}
