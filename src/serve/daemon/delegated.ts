// Requests for file systems that are served on the main thread: those that may have to wait for something before they can be answered.

import { inHeader, outHeader } from '../../wire/fuse/header.ts'
import { getxattrIn, readIn } from '../../wire/fuse/file.ts'
import { FUSE_OP } from '../../wire/fuse/opcode.ts'
import { dataViewOf } from '../../core/struct.ts'
import { publish } from '../../core/diagnostics.ts'
import type { OperationCounters } from '../counters.ts'
import { ERRNO } from '../errno.ts'
import { MAX_READ } from '../fuse/connection.ts'
import type { LivePlace } from '../fuse/live-answers.ts'
import type { DelegateServer } from '../fuse/live-requests.ts'
import type { Reply } from '../miss-desk.ts'
import type { FileSystem } from './file-system.ts'

/** LIMIT: of a link's target, as the kernel's PATH_MAX; larger than any other reply without a size of its own. */
const SHORT_REPLY = 4096 + outHeader.size

interface Delegate { readonly fileSystem: FileSystem; readonly place: LivePlace; readonly counters: OperationCounters }

export interface DelegatedMounts {
  serials(): readonly number[]
  find(serial: number): Delegate | undefined
}

/** Serves requests of such mounts, one after the other as far as they do not wait. */
export class DelegatedRequests {
  readonly #mounts: DelegatedMounts
  readonly #servers = new Map<FileSystem, DelegateServer>()
  readonly #pending = new Map<string, Promise<void>>()
  #abandoned = false

  constructor(mounts: DelegatedMounts) {
    this.#mounts = mounts
  }

  /** Serves `request`, and replies when a reply is due. Serial 0: it is for every such mount. `at`: when it was read, ms since the epoch. */
  serve(reply: Reply, serial: number, request: Uint8Array, at: number): void {
    if (this.#abandoned) return // it will be asked again of the next server
    for (const one of serial === 0 ? this.#mounts.serials() : [serial]) {
      const found = this.#mounts.find(one)
      const server = found && this.#serverOf(found)
      if (found && server) this.#serve(found, server, reply, request, at)
      else if (serial !== 0) refuse(reply, request)
    }
  }

  /** Whether the request with this unique is being served: who interrupts it hears of its end. */
  has(uniqueLow: number, uniqueHigh: number): boolean {
    return this.#pending.has(`${uniqueHigh}:${uniqueLow}`)
  }

  /** Whether another server goes on: nothing more is begun or answered here. */
  get abandoned(): boolean {
    return this.#abandoned
  }

  abandon(): void {
    this.#abandoned = true
    for (const server of this.#servers.values()) server.abandon()
  }

  /** Resolves when everything is answered. */
  async drain(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending.values())
  }

  #serverOf({ fileSystem, place }: Delegate): DelegateServer | undefined {
    let server = this.#servers.get(fileSystem)
    if (!server && fileSystem.delegate) {
      try {
        server = fileSystem.delegate(place)
      } catch (error) {
        publish('serve:warning:raised', { message: `a mount cannot be served: ${error instanceof Error ? error.message : String(error)}` })
        return undefined
      }
      this.#servers.set(fileSystem, server)
    }
    return server
  }

  #serve({ counters }: Delegate, server: DelegateServer, reply: Reply, request: Uint8Array, at: number): void {
    const view = dataViewOf(request)
    const opcode = view.getUint32(inHeader.offsetOf.opcode, true)
    const message = Buffer.allocUnsafe(roomFor(opcode, view))
    const finish = (length: number): void => {
      if (this.#abandoned) return
      if (length > 0) reply(message.subarray(0, length))
      const errno = length >= outHeader.size ? -message.readInt32LE(outHeader.offsetOf.error) : 0
      counters.record(opcode, errno, performance.timeOrigin + performance.now() - at, Math.max(0, length - outHeader.size))
    }
    const answer = server.serve(request, message)
    if (typeof answer === 'number') {
      finish(answer)
      return
    }
    const key = `${view.getUint32(inHeader.offsetOf.uniqueHigh, true)}:${view.getUint32(inHeader.offsetOf.uniqueLow, true)}`
    this.#pending.set(key, answer.then((length) => {
      this.#pending.delete(key)
      finish(length)
    }))
  }
}

/** Bytes that the reply may need. */
function roomFor(opcode: number, view: DataView): number {
  const size = (at: number): number => (view.byteLength < inHeader.size + at + 4 ? 0 : Math.min(view.getUint32(inHeader.size + at, true), MAX_READ))
  switch (opcode) {
    case FUSE_OP.READ: case FUSE_OP.READDIR: case FUSE_OP.READDIRPLUS: return outHeader.size + size(readIn.offsetOf.size)
    case FUSE_OP.GETXATTR: case FUSE_OP.LISTXATTR: return outHeader.size + Math.max(size(getxattrIn.offsetOf.size), 8)
    default: return SHORT_REPLY
  }
}

// Not served any more, or not at all.
function refuse(reply: Reply, request: Uint8Array): void {
  const { opcode, uniqueLow, uniqueHigh } = inHeader.decode(request)
  if (opcode === FUSE_OP.FORGET) return
  reply(outHeader.encode({ length: outHeader.size, error: -ERRNO.EIO, uniqueLow, uniqueHigh }))
}
