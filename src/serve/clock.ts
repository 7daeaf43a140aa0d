// Times that threads can compare. performance.timeOrigin is read from the wall clock by each thread for itself: two of them may be milliseconds apart.

/** One moment by both clocks, ms. Plain data: made by the main thread, given to its workers. */
export interface SharedClock { readonly wallMs: number; readonly monotonicMs: number }

/** This moment, for threads that start later. */
export function sharedClock(): SharedClock {
  return { wallMs: performance.timeOrigin + performance.now(), monotonicMs: monotonicMs() }
}

/** What this thread adds to its performance.now() for ms since the epoch, as the maker of `clock` counts them. */
export function originOf({ wallMs, monotonicMs: at }: SharedClock): number {
  return wallMs + monotonicMs() - at - performance.now()
}

function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
