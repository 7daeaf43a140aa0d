// Which request goes next: those that somebody waits for always before those that nobody does, and never too many at once.

/** Whether anybody waits for a job; may turn false while the job is queued (`Scheduler.promote`). */
export interface Lane { prefetch: boolean }

interface Job { readonly lane: Lane; readonly start: () => void }

/** LIMIT: requests that readers wait for, at once: what one connection pool carries; more only queue in the kernel or at the server. */
export const MAX_DEMAND = 16

/** Lets demand go first: prefetch waits while a read does, and has bounded company. */
export class Scheduler {
  readonly #maxDemand: number
  readonly #maxPrefetch: number
  #queue: Job[] = []
  #demand = 0
  #prefetch = 0

  constructor({ maxDemand = MAX_DEMAND, maxPrefetch }: { readonly maxDemand?: number; readonly maxPrefetch: number }) {
    this.#maxDemand = maxDemand
    this.#maxPrefetch = maxPrefetch
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

  /** Somebody waits for the jobs of `lane` now. */
  promote(lane: Lane): void {
    if (!lane.prefetch) return
    lane.prefetch = false
    this.#next()
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
  #hasRoom({ prefetch }: Lane): boolean {
    if (!prefetch) return this.#demand < this.#maxDemand
    return this.#prefetch < this.#maxPrefetch && this.#demand === 0 && !this.#queue.some((job) => !job.lane.prefetch)
  }

  /** Counts a job that starts; returns what counts its end, in the lane where it started. */
  #take({ prefetch }: Lane): () => void {
    if (prefetch) this.#prefetch++
    else this.#demand++
    return () => {
      if (prefetch) this.#prefetch--
      else this.#demand--
      this.#next()
    }
  }

  #next(): void {
    for (;;) {
      const chosen = this.#queue.find((job) => !job.lane.prefetch) ?? this.#queue[0]
      if (chosen === undefined || !this.#hasRoom(chosen.lane)) return
      this.#queue = this.#queue.filter((job) => job !== chosen)
      chosen.start()
    }
  }
}
