// Open files and directories of a shared directory, by the handles that its client knows.

import { closeSync } from 'node:fs'
import { ERRNO } from '../errno.ts'
import type { ClientRecord } from './client-record.ts'
import type { Node } from './node-table.ts'

/** One open file; its descriptor is really open, not O_PATH. */
export interface OpenFile { readonly handle: number; readonly node: Node; readonly fd: number; readonly flags: number; readonly row: number }

/** Open files by handle. Handles are never used twice. */
export class OpenFiles {
  readonly #files = new Map<number, OpenFile>()
  readonly #max: number
  readonly #record: ClientRecord | undefined
  #last = 0

  /** `max`: how many a client may have open at once. */
  constructor({ max, record }: { readonly max: number; readonly record?: ClientRecord | undefined }) {
    this.#max = max
    this.#record = record
  }

  /** Opens again what the record says; `open` gives node and descriptor. What cannot be opened any more is a handle of nothing. */
  restore(open: (nid: number, flags: number) => { readonly node: Node; readonly fd: number } | undefined): void {
    for (const { row, nid, handle, flags } of this.#record?.files.splice(0) ?? []) {
      this.#last = Math.max(this.#last, handle)
      const opened = open(nid, flags)
      if (!opened) {
        this.#record?.remove(row)
        continue
      }
      this.#files.set(handle, { handle, ...opened, flags, row })
      opened.node.opened.push(opened.fd)
    }
  }

  get size(): number {
    return this.#files.size
  }

  /** Whether there is room for one more. */
  get isFull(): boolean {
    return this.#files.size >= this.#max
  }

  /** A handle for `fd`, which is closed with it. A negative errno when there are too many. */
  add(node: Node, fd: number, flags: number): number {
    if (this.isFull) {
      closeSync(fd)
      return -ERRNO.ENFILE
    }
    const handle = ++this.#last
    const row = this.#record?.addFile({ nid: node.nid, handle, flags }) ?? -1
    this.#files.set(handle, { handle, node, fd, flags, row })
    node.opened.push(fd)
    return handle
  }

  /** The open file, if it is one of that node: handles are what a client says they are. */
  of(nid: number, handle: number): OpenFile | undefined {
    const file = this.#files.get(handle)
    return file?.node.nid === nid ? file : undefined
  }

  /** Closes it; nothing happens when there is none. */
  release(nid: number, handle: number): void {
    const file = this.of(nid, handle)
    if (!file) return
    this.#files.delete(handle)
    file.node.opened.splice(file.node.opened.indexOf(file.fd), 1)
    if (file.row >= 0) this.#record?.remove(file.row)
    closeSync(file.fd)
  }

  /** Closes all; they stay recorded. */
  close(): void {
    for (const { fd } of this.#files.values()) closeSync(fd)
    this.#files.clear()
  }

  /** Closes all: nobody knows them any more. */
  clear(): void {
    for (const { node, handle } of [...this.#files.values()]) this.release(node.nid, handle)
  }
}
