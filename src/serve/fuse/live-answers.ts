// What a live file system tells, straight into the reply.

import { dataViewOf } from '../../core/struct.ts'
import { fuseDirent, FUSE_DIRENT_ALIGNMENT } from '../../wire/fuse/directory.ts'
import { attr, entryOut } from '../../wire/fuse/inode.ts'
import type { EntrySink, NodeAnswer } from './live-file-system.ts'

/** Where the nodes of a live file system are. */
export interface LivePlace {
  /** High word of its node ids: the serial of its mount. */
  readonly nodeHigh: number
  /** Mixed into the high word of the inode numbers that it tells: (device, inode) names one file, whatever mount it is of. */
  readonly inoHigh: number
}

/** Makes the inode number of the struct fuse_attr at `at` one of the whole connection. */
export function mixIno(out: DataView, at: number, { inoHigh }: LivePlace): void {
  const high = at + attr.offsetOf.inoHigh
  out.setUint32(high, (out.getUint32(high, true) ^ inoHigh) >>> 0, true)
}

export interface DirectorySinkOptions { readonly at: number; readonly size: number; readonly plus: boolean; readonly place: LivePlace }

/** Entries of a directory, in the body of the reply. */
export class DirectorySink implements EntrySink {
  readonly plus: boolean
  readonly #reply: Buffer
  readonly #out: DataView
  readonly #start: number
  readonly #end: number
  readonly #place: LivePlace
  #at: number

  /** `size` bytes from `at` of `reply` are for entries. */
  constructor(reply: Buffer, { at, size, plus, place }: DirectorySinkOptions) {
    this.#reply = reply
    this.#out = dataViewOf(reply)
    this.#start = this.#at = at
    this.#end = Math.min(reply.length, at + size)
    this.plus = plus
    this.#place = place
  }

  /** Bytes written. */
  get length(): number {
    return this.#at - this.#start
  }

  add(name: string, inoLow: number, inoHigh: number, type: number, cookieLow: number, cookieHigh: number, node = 0, attributes?: Uint8Array, seconds = 0): boolean {
    const D = fuseDirent.offsetOf
    const recordAt = this.#at + (this.plus ? entryOut.size : 0)
    const nameAt = recordAt + fuseDirent.size
    const stop = nameAt + ((name.length + FUSE_DIRENT_ALIGNMENT - 1) & -FUSE_DIRENT_ALIGNMENT)
    if (stop > this.#end) return false
    if (this.plus) this.#entry(node, attributes, seconds)
    this.#out.setUint32(recordAt + D.inoLow, inoLow, true)
    this.#out.setUint32(recordAt + D.inoHigh, (inoHigh ^ this.#place.inoHigh) >>> 0, true)
    this.#out.setUint32(recordAt + D.offsetLow, cookieLow, true)
    this.#out.setUint32(recordAt + D.offsetHigh, cookieHigh, true)
    this.#out.setUint32(recordAt + D.nameLength, name.length, true)
    this.#out.setUint32(recordAt + D.type, type, true)
    this.#reply.fill(0, stop - FUSE_DIRENT_ALIGNMENT, stop)
    this.#reply.write(name, nameAt, 'latin1')
    this.#at = stop
    return true
  }

  // Valid for so many whole seconds; node 0 leaves the name to a LOOKUP.
  #entry(node: number, attributes: Uint8Array | undefined, seconds: number): void {
    const E = entryOut.offsetOf
    this.#reply.fill(0, this.#at, this.#at + entryOut.size)
    if (node === 0 || !attributes) return
    this.#out.setUint32(this.#at + E.nodeLow, node, true)
    this.#out.setUint32(this.#at + E.nodeHigh, this.#place.nodeHigh, true)
    this.#out.setUint32(this.#at + E.entryValidLow, seconds, true)
    this.#out.setUint32(this.#at + E.attrValidLow, seconds, true)
    this.#reply.set(attributes, this.#at + E.attr)
    mixIno(this.#out, this.#at + E.attr, this.#place)
  }
}

/** What is told of one node. */
export class Told implements NodeAnswer {
  nameSeconds = 0
  attributeSeconds = 0
  openFlags = 0
  handle = 0
  readonly bytes: Uint8Array
  readonly attributesAt: number

  constructor(bytes: Uint8Array, attributesAt: number) {
    this.bytes = bytes
    this.attributesAt = attributesAt
  }
}
