// Chunks on their way, and who waits for which of them. A reader waits only for its own chunks; the rest of the range goes on without it. When the
// last reader leaves before its chunks have come, nobody needs the flight any more, and it is aborted.

import type { Lane, Scheduler } from './scheduler.ts'

/** A chunk's verified bytes, why there are none, or nothing: somebody else has put them into the cache file. */
export type Landed = Uint8Array | Error | undefined

interface Wait { readonly left: Set<number>; readonly landed: Map<number, Landed>; readonly prefetch: boolean; readonly done: () => void }

export interface WaitOptions { readonly signal: AbortSignal; readonly prefetch: boolean }

/** One fetch of chunks that lie together. */
export class Flight {
  readonly indices: readonly number[]
  readonly lane: Lane
  /** Resolves when it is over; never rejects. */
  done: Promise<void> = Promise.resolve()
  readonly #scheduler: Scheduler
  readonly #forget: (index: number) => void
  readonly #controller = new AbortController()
  readonly #pending: Set<number>
  readonly #waits = new Set<Wait>()

  /** `forget` is called for each chunk when it has landed or never will: the next reader must not wait for it here. */
  constructor(indices: readonly number[], { scheduler, isExpected, forget }: { readonly scheduler: Scheduler; readonly isExpected: boolean; readonly forget: (index: number) => void }) {
    this.indices = indices
    this.lane = scheduler.lane({ isExpected })
    this.#scheduler = scheduler
    this.#forget = forget
    this.#pending = new Set(indices)
  }

  /** Begins. `fetch` lands chunks as they come; what it has not landed at its end lands as its error, or as nothing. */
  start(fetch: (signal: AbortSignal) => Promise<void>): void {
    const { signal } = this.#controller
    this.done = fetch(signal).then(() => undefined, (error: unknown) => (error instanceof Error ? error : new Error(String(error)))).then((end) => {
      for (const index of [...this.#pending]) this.land(index, end)
    })
  }

  isPending(index: number): boolean {
    return this.#pending.has(index)
  }

  /** What became of a chunk. Its bytes are copied when somebody waits for them: they may lie in a buffer that is used again. */
  land(index: number, result: Landed): void {
    if (!this.#pending.delete(index)) return
    this.#forget(index)
    let copy: Landed
    for (const wait of this.#waits) {
      if (!wait.left.delete(index)) continue
      if (!wait.prefetch || result instanceof Error) wait.landed.set(index, copy ??= result instanceof Uint8Array ? new Uint8Array(result) : result)
      if (wait.left.size === 0) wait.done()
    }
  }

  /** Resolves when all of `indices` have landed, without those that had before, and for a prefetch with errors only. Rejects with `signal.reason` when the caller leaves early. */
  wait(indices: readonly number[], { signal, prefetch }: WaitOptions): Promise<ReadonlyMap<number, Landed>> {
    return new Promise((resolve, reject) => {
      const left = new Set(indices.filter((index) => this.#pending.has(index)))
      if (left.size === 0) { resolve(new Map()); return }
      if (!prefetch) this.#scheduler.enter(this.lane)
      const end = () => {
        signal.removeEventListener('abort', leave)
        this.#waits.delete(wait)
        if (!prefetch) this.#scheduler.leave(this.lane)
      }
      const wait: Wait = { left, landed: new Map(), prefetch, done: () => { end(); resolve(wait.landed) } }
      const leave = () => {
        end()
        if (this.#waits.size === 0) this.abort(signal.reason)
        reject(signal.reason)
      }
      this.#waits.add(wait)
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  /** Ends it: nobody can join any more, and whoever waits is told. */
  abort(reason: unknown): void {
    for (const index of this.#pending) this.#forget(index) // before the abort: nobody must join a dying fetch
    this.#controller.abort(reason)
  }
}
