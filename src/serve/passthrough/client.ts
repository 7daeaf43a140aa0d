// What the client of a shared directory knows: the nodes that it was told of and the files that it has open, and how both are found and told.

import { closeSync, constants } from 'node:fs'
import { FileStatus } from '../../native/beneath.ts'
import { native } from '../../native/load.ts'
import { ERRNO } from '../errno.ts'
import type { NodeAnswer } from '../fuse/live-file-system.ts'
import { ClientRecord } from './client-record.ts'
import { type Node, NodeTable } from './node-table.ts'
import { OpenFiles } from './open-files.ts'

/** How long the kernel may believe what it was told: others change the directory, too. Seconds. */
export const VALID_SECONDS = 1
const ATTRIBUTES = 88

export interface ClientOptions {
  /** O_PATH descriptor of the directory; stays the caller's. */
  readonly root: number
  /** LIMIT: descriptors that a client can make this process hold: for its open files, and as many again for files without handles. */
  readonly maxDescriptors: number
  /** Where it is recorded what the client knows, so that another server can continue: a path. */
  readonly record?: string | undefined
  /** Whether this is that other server. */
  readonly resume?: boolean
}

/** One client of one directory. */
export class Client {
  readonly nodes: NodeTable
  readonly files: OpenFiles
  /** Of the file that was found last. */
  readonly status = new FileStatus()
  /** The same as a struct fuse_attr. */
  readonly attributes = this.status.bytes.subarray(0, ATTRIBUTES)
  readonly #record: ClientRecord | undefined
  readonly #addon = native()

  /** Throws when the root cannot be used, or the record not be opened. */
  constructor({ root, maxDescriptors, record, resume = false }: ClientOptions) {
    this.#record = record === undefined ? undefined : new ClientRecord(record, { resume })
    this.nodes = new NodeTable({ maxDescriptors, record: this.#record })
    this.files = new OpenFiles({ max: maxDescriptors, record: this.#record })
    const node = this.nodeOf(this.#addon.duplicate(root))
    if (typeof node === 'number') throw new Error(`the root of a shared directory cannot be used: errno ${-node}`)
    this.nodes.restore()
    this.files.restore((nid, flags) => this.#reopened(nid, flags))
  }

  /** Whether another server may continue. */
  get isRecorded(): boolean {
    return this.#record !== undefined
  }

  /** Another client: it knows the root only, and has nothing open. */
  reset(): void {
    this.files.clear()
    this.nodes.clear()
  }

  /** What it knows stays recorded. */
  close(): void {
    this.files.close()
    this.nodes.close()
    this.#record?.close()
  }

  /** A descriptor of the node (see NodeTable.descriptor), or a negative errno. */
  fd(nid: number): number {
    return this.nodes.descriptor(this.nodes.get(nid))
  }

  /** The entry `name`, told once more. */
  find(directory: number, name: string, out: NodeAnswer): number {
    const fd = this.#addon.lookupChild(directory, name, this.status.bytes)
    if (fd < 0) return fd
    const node = this.nodes.found(fd, this.status)
    return typeof node === 'number' ? node : this.tell(node, out)
  }

  /** The node itself, told once more. */
  again(nid: number, out: NodeAnswer): number {
    const known = this.fd(nid)
    const node = known < 0 ? known : this.nodeOf(this.#addon.duplicate(known))
    return typeof node === 'number' ? node : this.tell(node, out)
  }

  /** The node of what `fd` refers to, which belongs to the table from now on; fills the status. */
  nodeOf(fd: number): Node | number {
    if (fd < 0) return fd
    const result = this.#addon.statusOf(fd, this.status.bytes, true)
    if (result === 0) return this.nodes.found(fd, this.status)
    closeSync(fd)
    return result
  }

  tell({ nid, mount: { inoHigh } }: Node, out: NodeAnswer): number {
    out.nameSeconds = out.attributeSeconds = VALID_SECONDS
    if (inoHigh !== 0) this.status.view.setUint32(4, (this.status.view.getUint32(4, true) ^ inoHigh) >>> 0, true)
    out.bytes.set(this.attributes, out.attributesAt)
    return nid
  }

  /** A handle of the node, opened. */
  open(nid: number, flags: number): number {
    const node = this.nodes.get(nid)
    const fd = this.nodes.descriptor(node)
    if (fd < 0 || !node) return fd < 0 ? fd : -ERRNO.ESTALE
    if (this.files.isFull) return -ERRNO.ENFILE
    const opened = this.#addon.reopen(fd, flags, 0)
    return opened < 0 ? opened : this.files.add(node, opened, flags)
  }

  /** Lets `use` have the open file, or, for a client that opens without asking, the file opened for this once. */
  withFile(nid: number, handle: number, flags: number, use: (fd: number, flags: number) => number): number {
    const file = this.files.of(nid, handle)
    if (file) return use(file.fd, file.flags)
    if (handle !== 0) return -ERRNO.EBADF
    const named = this.fd(nid)
    const fd = named < 0 ? named : this.#addon.reopen(named, flags, 0)
    if (fd < 0) return fd
    try {
      return use(fd, flags)
    } finally {
      closeSync(fd)
    }
  }

  /** A number for what `name` is now. */
  inodeAt(directory: number, name: string): number {
    const fd = this.#addon.lookupChild(directory, name, this.status.bytes)
    if (fd < 0) return 0
    closeSync(fd)
    return this.status.inode
  }

  #reopened(nid: number, flags: number): { readonly node: Node; readonly fd: number } | undefined {
    const node = this.nodes.get(nid)
    const named = this.nodes.descriptor(node)
    const fd = named < 0 ? named : this.#addon.reopen(named, flags & ~constants.O_TRUNC, 0)
    return node && fd >= 0 ? { node, fd } : undefined
  }
}
