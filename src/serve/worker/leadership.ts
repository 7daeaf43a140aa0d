// One worker at a time waits for requests: the leader. It answers what is quick by itself and goes on; before anything that may take long it hands
// the lead on. Were all to wait, each request would wake all of them, one on another processor would often win, and a round trip costs
// twice the CPU time (bench/serve/fuse-metadata). The others sleep where a request does not wake them.

const LEADER = 0
const CALLS = 1
const SLEEPERS = 2
const WANTED = 3
const WORDS = 4
const NOBODY = 0

/** Memory for the workers of one pool. */
export function createLeadershipMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(WORDS * Int32Array.BYTES_PER_ELEMENT)
}

/** Wakes every worker that sleeps: there are messages. They must have been posted before. */
export function callAll(memory: SharedArrayBuffer): void {
  const words = new Int32Array(memory)
  Atomics.add(words, CALLS, 1)
  Atomics.notify(words, CALLS)
}

/** The worker that was wanted is there: the next one may be asked for. */
export function helpCame(memory: SharedArrayBuffer): void {
  Atomics.store(new Int32Array(memory), WANTED, 0)
}

/** A worker's part in who leads. */
export class Leadership {
  readonly #words: Int32Array
  readonly #me: number
  #leads = false

  /** `thread` counts from 0. */
  constructor(memory: SharedArrayBuffer, thread: number) {
    this.#words = new Int32Array(memory)
    this.#me = thread + 1
  }

  get leads(): boolean {
    return this.#leads
  }

  /** Sleeps until this worker leads. `onCall` looks for messages, at first and after each call; when it says that they end this worker, it sleeps no more. */
  follow(onCall: () => { readonly ends: boolean }): void {
    while (!this.#leads) {
      const calls = Atomics.load(this.#words, CALLS) // before looking: a call after this ends the wait below
      if (onCall().ends) return
      this.#leads = Atomics.compareExchange(this.#words, LEADER, NOBODY, this.#me) === NOBODY
      if (this.#leads) return
      Atomics.add(this.#words, SLEEPERS, 1)
      Atomics.wait(this.#words, CALLS, calls)
      Atomics.sub(this.#words, SLEEPERS, 1)
    }
  }

  /** Lets another worker lead, if this one does. True when there was none to take over, for the first who finds out: one more is wanted. */
  handOn(): boolean {
    if (!this.#leads) return false
    this.#leads = false
    const alone = Atomics.load(this.#words, SLEEPERS) === 0
    Atomics.store(this.#words, LEADER, NOBODY)
    Atomics.add(this.#words, CALLS, 1)
    Atomics.notify(this.#words, CALLS, 1)
    return alone && Atomics.compareExchange(this.#words, WANTED, 0, 1) === 0
  }
}
