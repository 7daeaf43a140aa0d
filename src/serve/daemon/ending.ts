// What every daemon has for its end: work that goes on beside the serving and is over before files are closed, and an end that comes once, whoever asks for it.

import { publish } from '../../core/diagnostics.ts'

/** Why a daemon ended. `stuck`: a worker hangs in a system call, so the process cannot exit in the ordinary way. */
export interface DaemonEnd { readonly error: Error | undefined; readonly stuck: boolean }

export type BackgroundTask = (options: { readonly signal: AbortSignal }) => Promise<void>

/** Tasks that nobody waits for. */
export class BackgroundTasks {
  readonly #controller = new AbortController()
  readonly #running = new Set<Promise<void>>()

  /** Aborted when they are to end. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Runs `task` (a prefetch). What it fails with is logged, not thrown. */
  run(task: BackgroundTask): void {
    const running = task({ signal: this.signal }).catch((error: unknown) => {
      if (!this.signal.aborted) publish('serve:warning:raised', { message: error instanceof Error ? error.message : String(error) })
    })
    this.#running.add(running)
    void running.then(() => this.#running.delete(running))
  }

  abort(): void {
    this.#controller.abort()
  }

  /** Resolves when those that run have ended. */
  async ended(): Promise<void> {
    await Promise.all(this.#running)
  }
}

/** The end of a daemon. */
export class Ending {
  /** Resolves when it has ended, whoever ended it. */
  readonly done: Promise<DaemonEnd>
  #ending: Promise<DaemonEnd> | undefined
  #finish!: (end: DaemonEnd) => void

  constructor() {
    this.done = new Promise((resolve) => { this.#finish = resolve })
  }

  /** Ends it by `shutDown`; whoever comes second joins the first. */
  once(shutDown: () => Promise<DaemonEnd>): Promise<DaemonEnd> {
    this.#ending ??= shutDown().then((end) => {
      this.#finish(end)
      return end
    })
    return this.#ending
  }
}
