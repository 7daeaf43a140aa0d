// Durations and counters as `--output-json` reports them. SPEC: nydus utils/src/trace.rs; spec-surface.md A.8.

export interface TraceOutput {
  /** Seconds. */
  readonly consumed_time: Readonly<Record<string, number>>
  readonly registered_events: Readonly<Record<string, number | string>>
}

/** Times and counts of a build, for its JSON result. */
export class Trace {
  readonly #times = new Map<string, number>()
  readonly #events = new Map<string, number | string>()

  /** Runs `run` and adds its duration to `point`. */
  async time<T>(point: string, run: () => Promise<T> | T): Promise<T> {
    const start = performance.now()
    try {
      return await run()
    } finally {
      this.#times.set(point, (this.#times.get(point) ?? 0) + (performance.now() - start) / 1000)
    }
  }

  event(name: string, value: number | string): void {
    this.#events.set(name, value)
  }

  /** A counter; one that stays 0 is not reported. */
  count(name: string, value: number): void {
    if (value !== 0) this.#events.set(name, value)
  }

  /** Keys in alphabetical order. */
  output(): TraceOutput {
    const sorted = <T>(map: ReadonlyMap<string, T>): Record<string, T> => Object.fromEntries([...map].sort(([a], [b]) => (a < b ? -1 : 1)))
    return { consumed_time: sorted(this.#times), registered_events: sorted(this.#events) }
  }
}
