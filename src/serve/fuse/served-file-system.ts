// What the FUSE core needs to know of a file system, whoever reads it: a RAFS image today, anything that can answer these questions.

import type { Journal } from '../journal.ts'
import type { LiveFileSystem } from './live-file-system.ts'
import type { BootstrapView, Inode } from '../../format/rafs-v6/bootstrap-view.ts'

/** Metadata: answered from memory, synchronously. */
export type MetadataView = Pick<BootstrapView, 'rootNid' | 'inode' | 'lookup' | 'entries' | 'readlink' | 'xattr' | 'xattrs'>

/** Where consecutive bytes of a file lie in local files, in order. Reused from request to request. */
export class Extents {
  count = 0
  /** Descriptor, offset in that file and length of extent i. */
  readonly fds: number[] = []
  readonly offsets: number[] = []
  readonly lengths: number[] = []

  clear(): void {
    this.count = 0
  }

  /** Appends, merging with the last extent where it goes on. */
  push(fd: number, offset: number, length: number): void {
    const last = this.count - 1
    if (last >= 0 && this.fds[last] === fd && this.offsets[last]! + this.lengths[last]! === offset) {
      this.lengths[last]! += length
      return
    }
    this.fds[this.count] = fd
    this.offsets[this.count] = offset
    this.lengths[this.count] = length
    this.count++
  }
}

/** A file system as a serving thread sees it. */
export interface ServedFileSystem {
  readonly view: MetadataView
  /** Whether a file may have extended attributes. */
  readonly hasXattr: boolean
  /** Whether owners are the file system's; otherwise files belong to the daemon's user. */
  readonly explicitIds: boolean
  /** Whether names may appear and vanish without the kernel being told: then nothing of its directories is cached by the kernel. */
  readonly mutable: boolean
  /** What the kernel is told of every file that it opens (FOPEN_*); default: it keeps what it has read. Needs a connection with `opens`. */
  readonly openFlags?: number
  /** Serves all its requests, in this thread, at once; then only its root is known otherwise. */
  readonly live?: LiveFileSystem
  /** Of its operations, for another server that continues. */
  readonly journal?: Journal | undefined
  /** Whether all its requests are served by another thread (daemon/delegated.ts): then only its root is known here. */
  readonly delegated?: true
  /** Fills `extents` with bytes [offset, offset + length) of `inode`, a range inside the file; false when some of it must be fetched first. */
  locate(inode: Inode, offset: number, length: number, extents: Extents): boolean
}
