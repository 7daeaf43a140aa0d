// The files of a shared directory that its client knows: node id ↔ file. A file is named by its handle where its file system has handles, and
// descriptors are only kept for those used lately; elsewhere each known file costs a descriptor.
// The table has limits: how many files a client knows is the client's choice, what that costs is not.

import { closeSync } from 'node:fs'
import type { FileStatus } from '../../native/beneath.ts'
import { native } from '../../native/load.ts'
import { ERRNO } from '../errno.ts'
import { MAX_NID } from '../fuse/node-id.ts'
import type { ClientRecord } from './client-record.ts'
import { type HostMount, HostMounts } from './mounts.ts'

/** SPEC: open(2). */
export const O_PATH = 0o10000000
/** The root's node id. */
export const ROOT_NID = 1
/** LIMIT: files that a client may know at once; a row is some 300 bytes. */
const MAX_NODES = 2 ** 20
/** LIMIT: descriptors of files that have handles: what one walk through a tree uses again and again. */
const CACHED_DESCRIPTORS = 1024

export interface Node {
  readonly nid: number
  readonly key: string
  readonly mount: HostMount
  readonly handleType: number
  /** Undefined: the descriptor is all there is. */
  readonly handle: Uint8Array | undefined
  /** O_PATH, or -1: opened when it is needed. */
  fd: number
  /** Used since the clock's hand came by. */
  recent: boolean
  /** How often the client was told of it. */
  lookups: number
  /** Where it is recorded; -1: nowhere. */
  row: number
  /** A descriptor of each open file of it: an unlinked file lives by them. */
  opened: number[]
}

/** Nodes by id and by file. */
export class NodeTable {
  readonly #nodes = new Map<number, Node>()
  readonly #byFile = new Map<string, Node>()
  readonly #mounts = new HostMounts()
  /** In the order of their last turn: nodes whose descriptor can be closed. */
  readonly #cached = new Set<Node>()
  readonly #maxDescriptors: number
  readonly #record: ClientRecord | undefined
  /** Used last: with it the caller's other descriptor is safe, too. */
  #latest: Node | undefined
  #descriptors = 0
  #lastNid = ROOT_NID - 1

  /** `maxDescriptors`: of files without handles. Those with handles are recorded in `record`. */
  constructor({ maxDescriptors, record }: { readonly maxDescriptors: number; readonly record?: ClientRecord | undefined }) {
    this.#maxDescriptors = maxDescriptors
    this.#record = record
  }

  /** Knows again what the record says; the root must be known already. */
  restore(): void {
    for (const { row, nid, lookups, mount: id, device, handleType, handle } of this.#record?.nodes.splice(0) ?? []) {
      this.#lastNid = Math.max(this.#lastNid, nid)
      const mount = this.#mounts.find(id, device)
      if (!mount || mount.fd < 0 || nid === ROOT_NID) {
        this.#record?.remove(row)
        continue
      }
      mount.nodes++
      const node: Node = { nid, key: keyOf(id, device, handle), mount, handleType, handle, fd: -1, recent: false, lookups, row, opened: [] }
      this.#nodes.set(nid, node)
      this.#byFile.set(node.key, node)
    }
  }

  get size(): number {
    return this.#nodes.size
  }

  get(nid: number): Node | undefined {
    return this.#nodes.get(nid)
  }

  /**
   * The node of the file that `fd` (O_PATH) refers to and `status` tells of, counted once more. The table owns `fd` from now on.
   * A negative errno when the client knows too many.
   */
  found(fd: number, status: FileStatus): Node | number {
    const mount = this.#mounts.of(fd, status)
    const handle = mount.fd < 0 ? undefined : status.handle
    const key = handle ? keyOf(mount.id, status.device, handle) : `${mount.id}:${status.device}:${inodeKey(status)}`
    const known = this.#byFile.get(key)
    if (known) {
      this.#offer(known, fd)
      known.lookups++
      this.#count(known)
      return known
    }
    const errno = this.#nodes.size >= MAX_NODES ? ERRNO.ENOMEM : handle === undefined && this.#descriptors >= this.#maxDescriptors ? ERRNO.ENFILE : 0
    if (errno !== 0) {
      closeSync(fd)
      return -errno
    }
    const node: Node = { nid: this.#nextNid(), key, mount, handleType: status.handleType, handle: handle?.slice(), fd: -1, recent: true, lookups: 1, row: -1, opened: [] }
    mount.nodes++
    this.#nodes.set(node.nid, node)
    this.#byFile.set(key, node)
    this.#offer(node, fd)
    if (node.handle && this.#record && node.nid !== ROOT_NID) {
      node.row = this.#record.addNode({ nid: node.nid, mount: mount.id, device: status.device, handleType: node.handleType, handle: node.handle })
    }
    return node
  }

  /** A descriptor of the node: the table's, valid until the next but one call. Negative errno: ESTALE for one that is unknown or gone. */
  descriptor(node: Node | undefined): number {
    if (node === undefined) return -ERRNO.ESTALE
    node.recent = true
    if (node.fd < 0) {
      if (node.handle === undefined) return -ERRNO.ESTALE
      const fd = native().openHandle(node.mount.fd, node.handleType, node.handle, O_PATH)
      if (fd < 0) return node.opened[0] ?? fd
      this.#offer(node, fd)
    }
    this.#latest = node
    return node.fd
  }

  /** The client has let go of `count` of the times it was told of it. */
  forget(nid: number, count: number): void {
    const node = this.#nodes.get(nid)
    if (!node || nid === ROOT_NID) return
    node.lookups -= count
    if (node.lookups <= 0) this.#drop(node)
    else this.#count(node)
  }

  /** Only the root is known any more. */
  clear(): void {
    for (const node of this.#nodes.values()) if (node.nid !== ROOT_NID) this.#drop(node)
  }

  close(): void {
    for (const { fd } of this.#nodes.values()) if (fd >= 0) closeSync(fd)
    this.#nodes.clear()
    this.#byFile.clear()
    this.#mounts.close()
  }

  #count(node: Node): void {
    if (node.row >= 0) this.#record?.count(node.row, node.lookups)
  }

  #drop(node: Node): void {
    if (node.row >= 0) this.#record?.remove(node.row)
    this.#nodes.delete(node.nid)
    this.#byFile.delete(node.key)
    this.#cached.delete(node)
    if (node.fd >= 0) {
      if (node.handle === undefined) this.#descriptors--
      closeSync(node.fd)
      node.fd = -1
    }
    this.#mounts.leave(node.mount)
  }

  #offer(node: Node, fd: number): void {
    if (node.fd >= 0) {
      closeSync(fd)
      return
    }
    node.fd = fd
    if (node.handle === undefined) this.#descriptors++
    else if (node.nid !== ROOT_NID) {
      this.#cached.add(node)
      if (this.#cached.size > CACHED_DESCRIPTORS) this.#evict(node)
    }
  }

  // The clock: who was used since the hand last came by has one more turn.
  #evict(spared: Node): void {
    for (const node of this.#cached) {
      this.#cached.delete(node)
      if (node === spared || node === this.#latest || node.recent) {
        node.recent = false
        this.#cached.add(node)
        continue
      }
      closeSync(node.fd)
      node.fd = -1
      return
    }
  }

  // Never used twice, until four thousand million names were looked up: then those that nobody knows any more.
  #nextNid(): number {
    do this.#lastNid = this.#lastNid >= MAX_NID ? ROOT_NID + 1 : this.#lastNid + 1
    while (this.#nodes.has(this.#lastNid))
    return this.#lastNid
  }
}

function keyOf(mount: number, device: number, handle: Uint8Array): string {
  return `${mount}:${device}:${Buffer.from(handle.buffer, handle.byteOffset, handle.length).toString('latin1')}`
}

function inodeKey({ view }: FileStatus): string {
  return `#${view.getUint32(4, true)}:${view.getUint32(0, true)}`
}
