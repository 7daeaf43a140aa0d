// What a queue has taken and not given back, written where a killed device's successor finds it. SPEC: as wire/vhost-user/inflight.ts; the order of
// the writes is what makes every moment of a kill recoverable.

import { closeSync, ftruncateSync } from 'node:fs'
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

/** Of a record: of queues as the front end wants them, or (`own`) of all that there may be, for nobody but a successor of this process. */
export interface InflightShape extends InflightRequest { readonly own: boolean }

/** The record of a connection: made here, and maybe lent to the front end, or got back from it. */
export class InflightRegion {
  readonly shape: InflightShape
  /** Its memory; open until `close`. */
  readonly fd: number
  readonly #mapping: ArrayBuffer
  readonly #view: DataView

  /** Maps what `fd` holds, which is the region's own when it does not throw. @throws SERVE_BAD_GUEST */
  constructor(shape: InflightShape, fd: number) {
    if (shape.queues === 0 || shape.queueSize === 0 || shape.queueSize > MAX_QUEUE_SIZE || shape.size < sizeOf(shape) || shape.offset !== 0) {
      throw new CodedError('SERVE_BAD_GUEST', 'the record of requests has an impossible size', { size: shape.size, queues: shape.queues })
    }
    this.shape = shape
    this.fd = fd
    try {
      this.#mapping = native().mmap(fd, 0, shape.size, true)
    } catch (cause) {
      throw new CodedError('SERVE_BAD_GUEST', 'the record of requests cannot be mapped', { size: shape.size }, { cause })
    }
    if (!shape.own) native().guardMapping(this.#mapping) // nobody else has it open then
    this.#view = dataViewOf(new Uint8Array(this.#mapping))
  }

  /** The part of queue `index` of `entries`, undefined when there is none. */
  queue(index: number, entries: number): InflightQueue | undefined {
    const { queues, queueSize, own } = this.shape
    return index < queues ? new InflightQueue(this.#view, index * inflightSize(queueSize), own ? entries : queueSize) : undefined
  }

  /** Makes the part of queue `index` new: nobody is to go on from it. */
  clear(index: number): void {
    const length = inflightSize(this.shape.queueSize)
    new Uint8Array(this.#mapping, index * length, length).fill(0)
  }

  close(): void {
    if (!this.shape.own) native().unguardMapping(this.#mapping)
    native().munmap(this.#mapping)
    closeSync(this.fd)
  }
}

/** Bytes of a region for `queues` queues of `queueSize` entries. */
function sizeOf({ queues, queueSize }: Pick<InflightRequest, 'queues' | 'queueSize'>): number {
  return queues * inflightSize(queueSize)
}

/** A new region of zeros for what the front end asked for, or for a successor alone. @throws SERVE_BAD_GUEST */
export function createInflight(asked: Pick<InflightShape, 'queues' | 'queueSize' | 'own'>): InflightRegion {
  const size = sizeOf(asked)
  const fd = native().memfdCreate('nydusd-inflight')
  if (fd < 0) throw new CodedError('NATIVE_SYSCALL', `no file in memory for the record of requests: errno ${-fd}`, { errno: -fd })
  try {
    ftruncateSync(fd, size)
    return new InflightRegion({ queues: asked.queues, queueSize: asked.queueSize, own: asked.own, size, offset: 0 }, fd)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}
