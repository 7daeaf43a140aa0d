// What a queue has taken and not given back, written where a killed device's successor finds it. SPEC: as wire/vhost-user/inflight.ts; the order of
// the writes is what makes every moment of a kill recoverable.

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { dataViewOf } from '../../core/struct.ts'
import { native } from '../../native/load.ts'
import type { inflight as inflightTable } from '../../wire/vhost-user/message.ts'
import { INFLIGHT_VERSION, inflightDescriptor, inflightQueue, inflightSize } from '../../wire/vhost-user/inflight.ts'
import type { Decoded } from '../../core/struct.ts'
import { MAX_QUEUE_SIZE } from '../../wire/virtio/ring.ts'

const Q = inflightQueue.offsetOf
const D = inflightDescriptor.offsetOf

export type InflightRequest = Decoded<typeof inflightTable>

/** One queue's part. */
export class InflightQueue {
  readonly #view: DataView
  readonly #at: number
  readonly #entries: number
  #counter = 0n

  constructor(view: DataView, at: number, entries: number) {
    this.#view = view
    this.#at = at
    this.#entries = entries
  }

  /**
   * Prepares the part for a queue whose used ring stands at `usedIndex`; returns the heads that a predecessor had under way, in the order it took them.
   * @throws SERVE_BAD_GUEST when the part is of another version or size
   */
  begin(usedIndex: number, entries: number): number[] {
    if (entries !== this.#entries) throw new CodedError('SERVE_BAD_GUEST', 'the record of requests is for queues of another size', { entries })
    const version = this.#view.getUint16(this.#at + Q.version, true)
    if (version === 0) {
      this.#view.setUint16(this.#at + Q.version, INFLIGHT_VERSION, true)
      this.#view.setUint16(this.#at + Q.entries, entries, true)
      this.#view.setUint16(this.#at + Q.usedIndex, usedIndex, true)
      return []
    }
    if (version !== INFLIGHT_VERSION || this.#view.getUint16(this.#at + Q.entries, true) !== entries) throw new CodedError('SERVE_BAD_GUEST', 'the record of requests is of another kind', { version })
    // Killed between the used ring and the record: the chain that was given back last is still listed.
    if (this.#view.getUint16(this.#at + Q.usedIndex, true) !== usedIndex) {
      const last = this.#view.getUint16(this.#at + Q.lastBatchHead, true)
      if (last < entries) this.#view.setUint8(this.#descriptor(last) + D.inflight, 0)
      this.#view.setUint16(this.#at + Q.usedIndex, usedIndex, true)
    }
    const heads: { head: number; counter: bigint }[] = []
    for (let head = 0; head < entries; head++) {
      const at = this.#descriptor(head)
      if (this.#view.getUint8(at + D.inflight) === 1) heads.push({ head, counter: this.#view.getBigUint64(at + D.counter, true) })
    }
    heads.sort((a, b) => (a.counter < b.counter ? -1 : 1))
    this.#counter = (heads.at(-1)?.counter ?? 0n) + 1n
    return heads.map(({ head }) => head)
  }

  taken(head: number): void {
    const at = this.#descriptor(head)
    this.#view.setBigUint64(at + D.counter, this.#counter++, true)
    this.#view.setUint8(at + D.inflight, 1)
  }

  /** Before the used ring's index is raised. */
  giving(head: number): void {
    this.#view.setUint16(this.#at + Q.lastBatchHead, head, true)
  }

  /** After it. */
  given(head: number, usedIndex: number): void {
    this.#view.setUint8(this.#descriptor(head) + D.inflight, 0)
    this.#view.setUint16(this.#at + Q.usedIndex, usedIndex, true)
  }

  #descriptor(head: number): number {
    return this.#at + inflightQueue.size + head * inflightDescriptor.size
  }
}

/** The region of a connection: made here and lent to the front end, or got back from it. */
export class InflightRegion {
  readonly request: InflightRequest
  readonly #mapping: ArrayBuffer
  readonly #view: DataView

  /** Maps what `fd` holds, which the caller closes. @throws SERVE_BAD_GUEST */
  constructor(request: InflightRequest, fd: number) {
    if (request.queues === 0 || request.queueSize === 0 || request.queueSize > MAX_QUEUE_SIZE || request.size < sizeOf(request) || request.offset !== 0) {
      throw new CodedError('SERVE_BAD_GUEST', 'the record of requests has an impossible size', { size: request.size, queues: request.queues })
    }
    this.request = request
    try {
      this.#mapping = native().mmap(fd, 0, request.size, true)
    } catch (cause) {
      throw new CodedError('SERVE_BAD_GUEST', 'the record of requests cannot be mapped', { size: request.size }, { cause })
    }
    native().guardMapping(this.#mapping)
    this.#view = dataViewOf(new Uint8Array(this.#mapping))
  }

  /** The part of queue `index`, undefined when there is none. */
  queue(index: number): InflightQueue | undefined {
    const { queues, queueSize } = this.request
    return index < queues ? new InflightQueue(this.#view, index * inflightSize(queueSize), queueSize) : undefined
  }

  close(): void {
    native().unguardMapping(this.#mapping)
    native().munmap(this.#mapping)
  }
}

/** Bytes of a region for `queues` queues of `queueSize` entries. */
function sizeOf({ queues, queueSize }: Pick<InflightRequest, 'queues' | 'queueSize'>): number {
  return queues * inflightSize(queueSize)
}

/** A new region of zeros for what the front end asked for; the descriptor is the caller's. */
export function createInflight(asked: InflightRequest): { region: InflightRegion; fd: number } {
  const request = { ...asked, size: sizeOf(asked), offset: 0 }
  const directory = mkdtempSync(path.join(tmpdir(), 'nydus-inflight-'))
  const fd = openSync(path.join(directory, 'region'), 'w+')
  rmSync(directory, { recursive: true })
  try {
    ftruncateSync(fd, request.size)
    return { region: new InflightRegion(request, fd), fd }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}
