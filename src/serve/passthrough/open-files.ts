// Open files and directories of a shared directory, by the handles that its client knows.

import { closeSync } from 'node:fs'
import { ERRNO } from '../errno.ts'
import type { Node } from './node-table.ts'

/** One open file; its descriptor is really open, not O_PATH. */
export interface OpenFile { readonly handle: number; readonly node: Node; readonly fd: number; readonly flags: number }

/** Hears of every change, before the client can know of it. */
export interface FileWitness {
  opened(file: OpenFile): void
  closed(file: OpenFile): void
}

/** Open files by handle. Handles are never used twice. */
export class OpenFiles {
  readonly #files = new Map<number, OpenFile>()
  readonly #max: number
  readonly #witness: FileWitness | undefined
  #last = 0

  /** `max`: how many a client may have open at once. */
  constructor({ max, witness }: { readonly max: number; readonly witness?: FileWitness }) {
    this.#max = max
    this.#witness = witness
  }

  get size(): number {
    return this.#files.size
  }

  /** Whether there is room for one more. */
  get isFull(): boolean {
    return this.#files.size >= this.#max
  }

  /** A handle for `fd`, which is closed with it; `handle` is given for one that a client knows already. A negative errno when there are too many. */
  add(node: Node, fd: number, flags: number, handle = this.#last + 1): number {
    if (this.isFull) {
      closeSync(fd)
      return -ERRNO.ENFILE
    }
    this.#last = Math.max(this.#last, handle)
    const file = { handle, node, fd, flags }
    this.#files.set(handle, file)
    node.opened.push(fd)
    this.#witness?.opened(file)
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
    this.#witness?.closed(file)
    closeSync(file.fd)
  }

  close(): void {
    for (const { node, handle } of [...this.#files.values()]) this.release(node.nid, handle)
  }
}
