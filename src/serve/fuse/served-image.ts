// What the FUSE core needs to know of an image, whoever reads it, and the table of images that one connection serves.

import { CodedError } from '../../core/errors.ts'
import type { BootstrapView, Inode } from '../../format/rafs-v6/bootstrap-view.ts'
import { isRootId, MAX_NID } from './node-id.ts'

/** Metadata: answered from the bootstrap's bytes, synchronously. */
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

export interface ServedImage {
  readonly view: MetadataView
  /** Whether an inode of the image may have extended attributes. */
  readonly hasXattr: boolean
  /** Whether owners are the image's; otherwise files belong to the daemon's user. */
  readonly explicitIds: boolean
  /** Whether names may appear and vanish: then nothing of its directories is cached by the kernel. */
  readonly mutable: boolean
  /** Fills `extents` with bytes [offset, offset + length) of `inode`, a range inside the file; false when some of it must be fetched first. */
  locate(inode: Inode, offset: number, length: number, extents: Extents): boolean
}

/** Images by mount serial. The one whose serial is `rootSerial` is what node id 1 shows. */
export class ImageTable {
  readonly #images = new Map<number, ServedImage>()
  rootSerial = 0

  set(serial: number, image: ServedImage): void {
    if (image.view.rootNid > MAX_NID) throw new CodedError('FORMAT_OUT_OF_RANGE', 'root inode lies beyond 128 GiB', { nid: image.view.rootNid })
    this.#images.set(serial, image)
  }

  delete(serial: number): void {
    this.#images.delete(serial)
  }

  /** The image that node (high, low) belongs to; undefined when it has been unmounted. */
  get(high: number, low: number): ServedImage | undefined {
    return this.#images.get(isRootId(high, low) ? this.rootSerial : high)
  }

  [Symbol.iterator](): IterableIterator<[serial: number, image: ServedImage]> {
    return this.#images.entries()
  }
}
