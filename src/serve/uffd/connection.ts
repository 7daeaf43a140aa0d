// One monitor: its handshake, its page faults and their answers. A fault ends in a page of verified bytes, in a file range that the monitor maps,
// or in a poisoned page; never in zeros that are not on the disk, and never in silence.

import { closeSync, openSync } from 'node:fs'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import type { DiskPiece, FlatDisk } from '../../rafs/index.ts'
import { MAX_MESSAGE, MAX_RANGES, parseUffdRequest, splitDocuments, UFFD_MESSAGE, UFFD_POLICY, UFFD_VERSION, type UffdRange, type UffdRegion, type UffdRequest } from '../../wire/uffd/message.ts'
import { ERRNO } from '../errno.ts'

/** LIMIT: faults that are answered at once; the others wait in the kernel. */
const MAX_FAULTS = 64
/** LIMIT: a read that takes longer is answered with a poisoned page. */
const FAULT_DEADLINE_MS = 20_000
const READABLE = 1
const EMPTY = new Int32Array()

/** Serves the socket `fd` until its peer closes it; the caller does not touch it any more. */
export class UffdConnection {
  /** Resolves when everything of it is closed. */
  readonly done: Promise<void>
  readonly #fd: number
  readonly #disk: FlatDisk
  readonly #closing = new AbortController()
  readonly #faults = new Set<Promise<void>>()
  readonly #watches: object[] = []
  /** Cache files as a stranger may have them: for reading only. */
  readonly #readOnly = new Map<number, number>()
  #text = ''
  #fds: number[] = []
  #uffd = -1
  #regions: readonly UffdRegion[] = []
  #policy: 0 | 1 = UFFD_POLICY.ZERO_COPY
  #finish!: () => void

  constructor(fd: number, disk: FlatDisk) {
    this.#fd = fd
    this.#disk = disk
    this.done = new Promise((resolve) => { this.#finish = resolve })
    this.#watch(fd, () => this.#hear())
  }

  /** Ends it: faults under way are given up, and the monitor sees the end of the connection. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return await this.done
    this.#closing.abort(new CodedError('SERVE_STATE', 'the connection is closed'))
    for (const watch of this.#watches.splice(0)) native().watchEnd(watch)
    await Promise.all(this.#faults)
    for (const fd of [this.#fd, this.#uffd, ...this.#fds.splice(0), ...this.#readOnly.values()]) if (fd >= 0) closeSync(fd)
    this.#finish()
  }

  #watch(fd: number, callback: () => void): void {
    const watch = native().watchBegin(fd, READABLE, callback)
    if (typeof watch === 'number') throw new CodedError('SERVE_BAD_GUEST', 'a descriptor of the monitor cannot be waited for', { errno: -watch })
    this.#watches.push(watch)
  }

  #hear(): void {
    try {
      for (;;) {
        const bytes = Buffer.alloc(MAX_MESSAGE)
        const fds = new Int32Array(MAX_RANGES)
        const size = native().receiveFds(this.#fd, bytes, fds)
        if (size === -ERRNO.EAGAIN) return
        if (size <= 0) return void this.close()
        this.#fds.push(...fds.filter((fd) => fd >= 0))
        const { documents, rest } = splitDocuments(this.#text + bytes.toString('latin1', 0, size))
        this.#text = rest
        if (rest.length > MAX_MESSAGE || this.#fds.length > MAX_RANGES) throw new CodedError('SERVE_BAD_GUEST', 'a message of the monitor has no end', { length: rest.length })
        for (const document of documents) this.#take(parseUffdRequest(document))
      }
    } catch (error) {
      if (!isCoded(error)) throw error
      publish('serve:warning:raised', { message: `uffd: ${error.message}` })
      void this.close()
    }
  }

  #take(request: UffdRequest): void {
    if (request.kind === 'stat') {
      this.#send({ type: UFFD_MESSAGE.STAT_ANSWER, size: this.#disk.size, block_size: this.#disk.layout.blockSize, flags: 0, version: UFFD_VERSION }, [])
      return
    }
    if (this.#uffd >= 0) throw new CodedError('SERVE_BAD_GUEST', 'the monitor shakes hands twice', {})
    const [uffd, ...others] = this.#fds.splice(0)
    for (const fd of others) closeSync(fd)
    if (uffd === undefined) throw new CodedError('SERVE_BAD_GUEST', 'the handshake came without its userfaultfd', {})
    this.#uffd = uffd
    this.#regions = request.regions
    this.#policy = request.policy
    native().uffdPrepare(uffd)
    this.#watch(uffd, () => this.#readFaults())
    if (request.prefault && request.policy === UFFD_POLICY.ZERO_COPY) this.#track(this.#prefault())
  }

  #readFaults(): void {
    while (this.#faults.size < MAX_FAULTS && !this.#closing.signal.aborted) {
      const address = native().uffdRead(this.#uffd)
      if (address === -ERRNO.EAGAIN) return
      if (address < 0) return void this.close()
      if (address > 0) this.#track(this.#answer(address))
    }
  }

  #track(task: Promise<void>): void {
    this.#faults.add(task)
    void task.finally(() => {
      this.#faults.delete(task)
      if (this.#uffd >= 0) this.#readFaults()
    })
  }

  // The page, or as many bytes as the region's page size says, around the address.
  async #answer(address: number): Promise<void> {
    const region = this.#regions.find((one) => address >= one.address && address < one.address + one.size)
    if (!region) return
    const start = Math.max(region.offset, Math.floor((region.offset + address - region.address) / region.pageSize) * region.pageSize)
    const end = Math.min(start + region.pageSize, region.offset + region.size)
    const at = (offset: number): number => region.address + offset - region.offset
    const dataEnd = Math.min(end, Math.ceil(this.#disk.size / 4096) * 4096)
    try {
      if (dataEnd < end) native().uffdZero(this.#uffd, at(Math.max(start, dataEnd)), end - Math.max(start, dataEnd))
      if (start < dataEnd) await this.#fill(start, dataEnd - start, at)
    } catch (error) {
      if (this.#closing.signal.aborted) return
      publish('serve:warning:raised', { message: `uffd: ${error instanceof Error ? error.message : String(error)}` })
      if (native().uffdPoison(this.#uffd, at(start), end - start) < 0) void this.close() // an old kernel: better no machine than a wrong one
    }
  }

  async #fill(start: number, length: number, at: (offset: number) => number): Promise<void> {
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(FAULT_DEADLINE_MS)])
    const pieces = this.#policy === UFFD_POLICY.ZERO_COPY ? await this.#disk.pieces(start, length, { signal }) : undefined
    if (pieces && pieces.reduce((sum, piece) => sum + piece.length, 0) === length) {
      this.#lend(pieces)
      return
    }
    const bytes = new Uint8Array(length)
    await this.#disk.read(bytes, start, { signal })
    const copied = native().uffdCopy(this.#uffd, at(start), bytes)
    if (copied === -ERRNO.EEXIST) native().uffdWake(this.#uffd, at(start), length) // somebody was quicker
    else if (copied !== length && !this.#closing.signal.aborted) throw new CodedError('SERVE_BAD_GUEST', 'a page of the machine cannot be filled', { errno: -copied })
  }

  async #prefault(): Promise<void> {
    try {
      for (const { offset, size } of this.#regions) {
        const pieces = await this.#disk.readyPieces(offset, Math.max(0, Math.min(size, this.#disk.size - offset)), { signal: this.#closing.signal })
        this.#lend(pieces)
      }
    } catch (error) {
      if (!this.#closing.signal.aborted) publish('serve:warning:raised', { message: `uffd: ${error instanceof Error ? error.message : String(error)}` })
    }
  }

  #lend(pieces: readonly DiskPiece[]): void {
    for (let i = 0; i < pieces.length; i += MAX_RANGES) {
      const batch = pieces.slice(i, i + MAX_RANGES)
      const ranges = batch.map(({ length, fileOffset, offset }): UffdRange => ({ len: length, blob_offset: fileOffset, block_offset: offset }))
      this.#send({ type: UFFD_MESSAGE.PAGE_FAULT, ranges }, batch.map(({ fd }) => this.#lendable(fd)))
    }
  }

  #lendable(fd: number): number {
    const known = this.#readOnly.get(fd)
    if (known !== undefined) return known
    const opened = openSync(`/proc/self/fd/${fd}`, 'r')
    this.#readOnly.set(fd, opened)
    return opened
  }

  // LIMIT: a monitor that does not read its answers fills its socket; then it is let go.
  #send(message: object, fds: readonly number[]): void {
    if (this.#closing.signal.aborted) return
    const bytes = Buffer.from(JSON.stringify(message))
    const sent = native().sendFds(this.#fd, bytes, fds.length > 0 ? Int32Array.from(fds) : EMPTY)
    if (sent !== bytes.length) void this.close()
  }
}
