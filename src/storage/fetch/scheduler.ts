// Which request goes next: those that somebody waits for always before those that nobody does, and never too many at once.
//
//                                        begins                       pauses in the middle of its range
//   somebody waits for it                at once                      never
//   expected: neighbours, a list given   beside those                 while bytes come that somebody else waits for
//   the rest of the image                when nobody waits            while somebody waits
//
// What is expected may use the line while a reader's request is on its way: else a line with long round trips would be idle most of the time.

import { setTimeout as delay } from 'node:timers/promises'

/** Who wants the requests of a flight. */
export interface Lane {
  /** How many readers wait for it right now. */
  readers: number
  /** Somebody will probably want it soon. */
  readonly isExpected: boolean
  /** Its bytes have begun to come. */
  isReceiving: boolean
}

interface Job { readonly lane: Lane; readonly start: () => void }

/** LIMIT: requests that readers wait for, at once: what one connection pool carries; more only queue in the kernel or at the server. */
export const MAX_DEMAND = 16
/** LIMIT: a pause inside a range ends after this long whatever readers do: a server must not take it for a dead client. */
const MAX_PAUSE_MS = 1000

/** Lets demand go first: prefetch waits while a read does, and has bounded company. */
export class Scheduler {
  readonly #maxDemand: number
  readonly #maxPrefetch: number
  #queue: Job[] = []
  #demand = 0
  #prefetch = 0
  /** Lanes that somebody waits for. */
  readonly #wanted = new Set<Lane>()
  #pausing: { readonly lane: Lane; readonly goOn: () => void }[] = []

  constructor({ maxDemand = MAX_DEMAND, maxPrefetch }: { readonly maxDemand?: number; readonly maxPrefetch: number }) {
    this.#maxDemand = maxDemand
    this.#maxPrefetch = maxPrefetch
  }

  /** Whether nobody waits for anything. */
  get isQuiet(): boolean {
    return this.#wanted.size === 0
  }

  /** A lane that nobody waits for yet. */
  lane({ isExpected }: { readonly isExpected: boolean }): Lane {
    return { readers: 0, isExpected, isReceiving: false }
  }

  /** Somebody waits for the jobs of `lane` from now on, until `leave`. */
  enter(lane: Lane): void {
    if (lane.readers++ > 0) return
    this.#wanted.add(lane)
    this.#wake()
    this.#next()
  }

  leave(lane: Lane): void {
    if (--lane.readers > 0) return
    this.#wanted.delete(lane)
    this.#wake()
    this.#next()
  }

  /** Result of `job`, which starts when its lane has room. Rejects with `signal.reason` when that comes first. */
  async run<T>(job: () => Promise<T>, { lane, signal }: { readonly lane: Lane; readonly signal: AbortSignal }): Promise<T> {
    const release = await this.#turn(lane, signal)
    try {
      return await job()
    } finally {
      release()
    }
  }

  /** For a job that has got bytes: what it is to wait for before it takes more, or undefined when it may go on. */
  pause(lane: Lane): Promise<void> | undefined {
    lane.isReceiving = true
    if (!this.#mustPause(lane)) return undefined
    let goOn = (): void => {}
    const pausing = new Promise<void>((resolve) => { goOn = resolve })
    this.#pausing.push({ lane, goOn })
    const late = new AbortController()
    void delay(MAX_PAUSE_MS, undefined, { signal: late.signal, ref: false }).then(goOn, () => {})
    return pausing.then(() => late.abort())
  }

  #mustPause(lane: Lane): boolean {
    return lane.readers === 0 && (lane.isExpected ? this.#isReaderReceiving() : this.#wanted.size > 0)
  }

  #isReaderReceiving(): boolean {
    for (const { isReceiving } of this.#wanted) if (isReceiving) return true
    return false
  }

  #wake(): void {
    if (this.#pausing.length === 0) return
    const awake = this.#pausing.filter(({ lane }) => !this.#mustPause(lane))
    this.#pausing = this.#pausing.filter(({ lane }) => this.#mustPause(lane))
    for (const { goOn } of awake) goOn()
  }

  #turn(lane: Lane, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    if (this.#hasRoom(lane)) return Promise.resolve(this.#take(lane))
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#queue = this.#queue.filter((queued) => queued !== job)
        reject(signal.reason)
      }
      const start = () => {
        signal.removeEventListener('abort', leave)
        resolve(this.#take(lane))
      }
      const job: Job = { lane, start }
      signal.addEventListener('abort', leave, { once: true })
      this.#queue.push(job)
    })
  }

  #hasRoom({ readers, isExpected }: Lane): boolean {
    if (readers > 0) return this.#demand < this.#maxDemand
    return this.#prefetch < this.#maxPrefetch && (isExpected || this.#wanted.size === 0)
  }

  /** Counts a job that starts; returns what counts its end, in the lane where it started. */
  #take({ readers }: Lane): () => void {
    if (readers === 0) this.#prefetch++
    else this.#demand++
    return () => {
      if (readers === 0) this.#prefetch--
      else this.#demand--
      this.#next()
    }
  }

  #next(): void {
    for (;;) {
      const chosen = this.#queue.find(({ lane }) => lane.readers > 0) ?? this.#queue.find(({ lane }) => lane.isExpected) ?? this.#queue[0]
      if (chosen === undefined || !this.#hasRoom(chosen.lane)) return
      this.#queue = this.#queue.filter((job) => job !== chosen)
      chosen.start()
    }
  }
}
