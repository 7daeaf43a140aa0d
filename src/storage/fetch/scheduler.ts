// Which request goes next: those that somebody waits for always before those that nobody does, and never too many at once. A request that nobody
// waits for (a prefetch, or the rest of a range whose reader has what it wanted) also pauses in the middle while somebody waits for another one.

import { setTimeout as delay } from 'node:timers/promises'

/** How many readers wait for the requests of a flight right now. */
export interface Lane { readers: number }

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
  #wanted = 0
  #pausing: { readonly lane: Lane; readonly goOn: () => void }[] = []

  constructor({ maxDemand = MAX_DEMAND, maxPrefetch }: { readonly maxDemand?: number; readonly maxPrefetch: number }) {
    this.#maxDemand = maxDemand
    this.#maxPrefetch = maxPrefetch
  }

  /** Whether nobody waits for anything. */
  get isQuiet(): boolean {
    return this.#wanted === 0
  }

  /** A lane that nobody waits for yet. */
  lane(): Lane {
    return { readers: 0 }
  }

  /** Somebody waits for the jobs of `lane` from now on, until `leave`. */
  enter(lane: Lane): void {
    if (lane.readers++ > 0) return
    this.#wanted++
    this.#wake()
    this.#next()
  }

  leave(lane: Lane): void {
    if (--lane.readers > 0) return
    this.#wanted--
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

  /** For a job under way: what it is to wait for before it takes more bytes, or undefined when it may go on. */
  pause(lane: Lane): Promise<void> | undefined {
    if (!this.#mustPause(lane)) return undefined
    let goOn = (): void => {}
    const pausing = new Promise<void>((resolve) => { goOn = resolve })
    this.#pausing.push({ lane, goOn })
    const late = new AbortController()
    void delay(MAX_PAUSE_MS, undefined, { signal: late.signal, ref: false }).then(goOn, () => {})
    return pausing.then(() => late.abort())
  }

  #mustPause(lane: Lane): boolean {
    return lane.readers === 0 && this.#wanted > 0
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

  // A prefetch starts only while nobody waits for anything: it must never share the line with a reader.
  #hasRoom({ readers }: Lane): boolean {
    if (readers > 0) return this.#demand < this.#maxDemand
    return this.#prefetch < this.#maxPrefetch && this.#wanted === 0
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
      const chosen = this.#queue.find((job) => job.lane.readers > 0) ?? this.#queue[0]
      if (chosen === undefined || !this.#hasRoom(chosen.lane)) return
      this.#queue = this.#queue.filter((job) => job !== chosen)
      chosen.start()
    }
  }
}
