// What workers tell of single requests, for mounts whose files are watched: each thread has a ring in shared memory that it alone writes, and the
// main thread empties. Nobody waits for anybody: when the ring is full, the request is counted as lost and forgotten.

/** One request. */
export interface Access {
  /** Of the connection, and of the mount in it. */
  readonly session: number
  readonly serial: number
  readonly nid: number
  /** Of a READ: the part of the file that was asked for. */
  readonly offset: number
  /** Bytes of the answer. */
  readonly length: number
  readonly opcode: number
  readonly errno: number
  /** Milliseconds since the epoch, with fractions. */
  readonly at: number
}

/** LIMIT: requests a thread can hold until they are taken; it is emptied 20 times a second. The pages are untouched while nothing is watched. */
const CAPACITY = 8192
const COLUMNS = 8
const HEADER_BYTES = 64
const RING_BYTES = HEADER_BYTES + CAPACITY * COLUMNS * Float64Array.BYTES_PER_ELEMENT
// Of the header: counts that wrap around at 2^32.
const WRITTEN = 0
const TAKEN = 1
const LOST = 2

/** Shared memory for the logs of `threads` threads. */
export function createAccessMemory(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(threads * RING_BYTES)
}

/** The log of one thread. */
export class AccessLog {
  readonly #header: Uint32Array
  readonly #rows: Float64Array

  constructor(memory: SharedArrayBuffer, thread: number) {
    this.#header = new Uint32Array(memory, thread * RING_BYTES, HEADER_BYTES / Uint32Array.BYTES_PER_ELEMENT)
    this.#rows = new Float64Array(memory, thread * RING_BYTES + HEADER_BYTES, CAPACITY * COLUMNS)
  }

  /** For the thread that owns the log. */
  append({ session, serial, nid, offset, length, opcode, errno, at }: Access): void {
    const written = Atomics.load(this.#header, WRITTEN)
    if (((written - Atomics.load(this.#header, TAKEN)) >>> 0) >= CAPACITY) {
      Atomics.add(this.#header, LOST, 1)
      return
    }
    this.#rows.set([session, serial, nid, offset, length, opcode, errno, at], (written % CAPACITY) * COLUMNS)
    Atomics.store(this.#header, WRITTEN, written + 1) // after the row: who sees the count sees the row
  }

  /** For the main thread: everything that has come since the last time, and how many requests were lost. */
  take(): { readonly accesses: Access[]; readonly lost: number } {
    const accesses: Access[] = []
    const written = Atomics.load(this.#header, WRITTEN)
    let taken = Atomics.load(this.#header, TAKEN)
    for (; taken !== written; taken = (taken + 1) >>> 0) {
      const [session, serial, nid, offset, length, opcode, errno, at] = this.#rows.subarray((taken % CAPACITY) * COLUMNS)
      accesses.push({ session: session!, serial: serial!, nid: nid!, offset: offset!, length: length!, opcode: opcode!, errno: errno!, at: at! })
    }
    Atomics.store(this.#header, TAKEN, taken)
    return { accesses, lost: Atomics.exchange(this.#header, LOST, 0) }
  }
}
