// One descriptor that stands for many: a socket in whose queue lies what a device's successor needs. A supervisor that keeps one descriptor keeps all of them, and the
// newest ones: the device puts its state there whenever its front end has changed it. The other end of the socket lies in the queue as well, for the successor.

import { closeSync } from 'node:fs'
import { CodedError } from '../../core/errors.ts'
import { contentOf, memoryFile } from '../../native/memory-file.ts'
import { native } from '../../native/load.ts'
import { closeAll } from './front-end.ts'
import type { HeldDevice } from './device-state.ts'

/** LIMIT: 32 memory regions, three for each of 9 queues, and a handful. */
const MAX_DESCRIPTORS = 128
const WORD = Buffer.from('device')

/** Both ends. Plain data. */
export interface TrailEnds { readonly out: number; readonly in: number }

/** A new one, with nothing in it. @throws NATIVE_SYSCALL */
export function createTrail(): TrailEnds {
  const ends = new Int32Array(2)
  const result = native().socketPair(true, ends)
  if (result < 0) throw new CodedError('NATIVE_SYSCALL', `no socket for the device's state: errno ${-result}`, { errno: -result })
  return { out: ends[0]!, in: ends[1]! }
}

/** What was left last, which stays there too. The descriptors, and the ends, are the caller's. @throws SERVE_BAD_STATE_FILE when there is nothing */
export function readTrail(end: number): { readonly ends: TrailEnds; readonly device: HeldDevice } {
  let last: number[] | undefined
  for (let fds = receive(end); fds; fds = receive(end)) {
    closeAll(last ?? [])
    last = fds
  }
  const [file, out, ...fds] = last ?? []
  if (!last || file === undefined || out === undefined) throw new CodedError('SERVE_BAD_STATE_FILE', 'the supervisor keeps no device')
  native().sendFds(out, WORD, Int32Array.from(last))
  return { ends: { out, in: end }, device: { bytes: contentOf(file), fds } }
}

/** Where a device leaves its state. */
export class Trail {
  readonly #ends: TrailEnds
  #isEmpty: boolean

  /** `isEmpty`: nothing was left there yet. */
  constructor(ends: TrailEnds, { isEmpty }: { readonly isEmpty: boolean }) {
    this.#ends = ends
    this.#isEmpty = isEmpty
  }

  /** Leaves `device` in place of what was left before; there is never nothing. The descriptors stay the caller's. */
  leave({ bytes, fds }: HeldDevice): void {
    const file = memoryFile('nydusd-device', bytes)
    native().sendFds(this.#ends.out, WORD, Int32Array.from([file, this.#ends.out, ...fds]))
    closeSync(file)
    if (!this.#isEmpty) closeAll(receive(this.#ends.in) ?? [])
    this.#isEmpty = false
  }
}

function receive(end: number): number[] | undefined {
  const fds = new Int32Array(MAX_DESCRIPTORS)
  return native().receiveFds(end, new Uint8Array(WORD.length), fds) > 0 ? [...fds].filter((fd) => fd >= 0) : undefined
}
