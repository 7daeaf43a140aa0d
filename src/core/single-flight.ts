// One fetch per key however many readers ask. The fetch is aborted only when every reader has left:
// a killed `cat` must not fail the container that waits for the same chunk.

import { setMaxListeners } from 'node:events'

interface Flight<V> {
  readonly promise: Promise<V>
  readonly controller: AbortController
  readers: number
}

/** Shares one running `fetch` per key between all callers of `run`. */
export class SingleFlight<K, V> {
  readonly #flights = new Map<K, Flight<V>>()

  /** Result of the running fetch for `key`, or of a new one. Rejects with `signal.reason` when the caller leaves early. */
  async run(key: K, fetch: (signal: AbortSignal) => Promise<V>, signal: AbortSignal): Promise<V> {
    signal.throwIfAborted()
    const flight = this.#flights.get(key) ?? this.#start(key, fetch)
    flight.readers++
    try {
      return await abortable(flight.promise, signal)
    } finally {
      if (--flight.readers === 0) {
        // before abort: the next reader must not join a dying fetch
        if (this.#flights.get(key) === flight) this.#flights.delete(key)
        flight.controller.abort()
      }
    }
  }

  #start(key: K, fetch: (signal: AbortSignal) => Promise<V>): Flight<V> {
    const controller = new AbortController()
    const promise = fetch(controller.signal)
    promise.catch(() => {}) // every reader may have left before it fails
    const flight = { promise, controller, readers: 0 }
    this.#flights.set(key, flight)
    return flight
  }
}

/** `promise`, or a rejection with `signal.reason` as soon as `signal` aborts. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) { reject(signal.reason); return }
    const leave = () => reject(signal.reason)
    setMaxListeners(0, signal) // one signal stops many waits; Node would warn of a leak at eleven
    signal.addEventListener('abort', leave, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}
