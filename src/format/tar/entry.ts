// What a tar archive says, after all its dialects are taken away: entries, and the events in which a reader reports them.

import type { CodedError, ErrorCode } from '../../core/errors.ts'

export type TarEntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'character' | 'block' | 'fifo'

/** Data of a sparse file: `length` bytes at `offset` of the file; the rest is holes. Sorted, apart, never empty. */
export type Segment = readonly [offset: number, length: number]

/** One member. Strings are byte strings; sizes and offsets are bytes. */
export interface TarEntry {
  /** Components joined by `/`, no leading or trailing slash, no `.`; '' is the root directory. */
  readonly path: string
  readonly type: TarEntryType
  /** Permission bits, 0..0o7777. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Seconds since 1970, rounded down; `mtimeNsec` (0..999_999_999) is what was cut off. */
  readonly mtime: number
  readonly mtimeNsec: number
  /** Size of the file, holes included; 0 for everything that is no file. */
  readonly size: number
  /** Symbolic link: the target as it stands. Hard link: the target's path, normalised as `path`. Else ''. */
  readonly link: string
  readonly rdevMajor: number
  readonly rdevMinor: number
  /** In archive order, each name once; values are the entry's own copies. */
  readonly xattrs: readonly (readonly [name: string, value: Uint8Array])[]
  /** Only of sparse files. */
  readonly sparse: readonly Segment[] | undefined
  /** Where the member's own header block stands in the archive. */
  readonly headerOffset: number
  /** Where its data begins in the archive (behind maps of sparse files). */
  readonly dataOffset: number
}

/**
 * `entry (data)* end-entry`, for each member, then `end`. `bytes` is a view of the pushed chunk, good until the next push;
 * `offset` is its place in the file, which leaps over the holes of sparse files.
 */
export type TarEvent =
  | { readonly type: 'entry'; readonly entry: TarEntry }
  | { readonly type: 'data'; readonly bytes: Uint8Array; readonly offset: number }
  | { readonly type: 'end-entry' }
  | { readonly type: 'end' }

/** Makes the error for the member at hand: its name and place are added to `why`. The default code is TAR_INVALID. */
export type Fail = (why: string, code?: ErrorCode) => CodedError

/** LIMIT: NAME_MAX of Linux; EROFS and every other file system refuse longer names. */
export const MAX_NAME = 255
/** LIMIT: PATH_MAX of Linux; nobody could open a longer path in one call. */
export const MAX_PATH = 4096
/** LIMIT: PATH_MAX without its NUL; readlink(2) cannot return longer targets. */
export const MAX_LINK_TARGET = 4095
/** LIMIT: what a PAX header or a GNU long name may hold. Go's archive/tar, through which containerd reads every layer, has the same bound. */
export const MAX_METADATA = 1024 * 1024
/** LIMIT: pieces of one sparse file. Go's bound (1 MiB of map text) ends near 100,000; at 20 bytes each this stays below 16 MiB of memory. */
export const MAX_SEGMENTS = 128 * 1024
