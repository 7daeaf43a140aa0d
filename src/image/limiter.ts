// Work side by side: at most so many at a time; and groups of tasks of which the first failure ends all.

/** Runs actions, at most `limit` at once, first come first served. */
export class Limiter {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(limit: number) {
    this.#free = limit
  }

  /** Waits for a place, then runs `action`. Rejects with the signal's reason when it has aborted by then. */
  async run<T>(signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    try {
      signal.throwIfAborted()
      return await action()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }
}

/** Tasks that live and die together. */
export interface TaskGroup {
  /** Aborts when the caller's signal does, or when one of the tasks fails. */
  readonly signal: AbortSignal
  /** Starts `task`. Its result may be awaited or not: its failure fails the group. */
  start<T>(task: (signal: AbortSignal) => Promise<T>): Promise<T>
}

/** Runs `action` and every task it starts; returns when all have ended, with the result or the first failure. Nothing goes on behind the caller's back. */
export async function inGroup<T>(signal: AbortSignal, action: (group: TaskGroup) => Promise<T>): Promise<T> {
  const failed = new AbortController()
  const both = AbortSignal.any([signal, failed.signal])
  const running = new Set<Promise<unknown>>()
  let failure: { readonly error: unknown } | undefined
  const start = <R>(task: (signal: AbortSignal) => Promise<R>): Promise<R> => {
    const promise = task(both)
    const watched: Promise<unknown> = promise.catch((error: unknown) => {
      failure ??= { error }
      failed.abort(error)
    }).finally(() => running.delete(watched))
    running.add(watched)
    return promise
  }
  const result = start(() => action({ signal: both, start }))
  while (running.size > 0) await Promise.all(running)
  if (failure !== undefined) throw failure.error
  return result
}
