// A reader of ranges that does not believe in silence: when nothing comes for much longer than a round trip takes, the same is asked once more,
// on another connection, and whoever is ready first wins. Also the place where the link is measured.

import type { BlobReader, ReadOptions } from '../backend/backend.ts'
import type { LinkEstimate } from './link.ts'

export interface HedgeOptions {
  readonly link: LinkEstimate
  /** Shared by all readers of a backend. */
  readonly budget: HedgeBudget
  /** Files on this machine: nothing to hedge. */
  readonly isLocal: boolean
}

/** LIMIT: silence that counts as hanging: several round trips, but no server is given up for less than a second of work, nor waited for longer than three. */
const ROUND_TRIPS = 8
const MIN_SILENCE_MS = 1000
const MAX_SILENCE_MS = 3000
/** LIMIT: second requests at once: a server that is slow for everybody must not get everything twice. */
const MAX_HEDGES = 2

/** Second requests under way. */
export interface HedgeBudget { running: number; total: number }

export interface HedgedRequest extends HedgeOptions, ReadOptions {
  readonly offset: number
  readonly length: number
  /** Whether a reader waits for it now. */
  readonly isWanted: () => boolean
}

/** One range of `reader`, measured, and asked for twice when it hangs while somebody waits for it. */
export function hedgedRead(reader: BlobReader, request: HedgedRequest): Promise<Uint8Array> {
  return new HedgedRead(reader, request).result()
}

class HedgedRead {
  readonly #reader: BlobReader
  readonly #asked: HedgedRequest
  readonly #attempts = new Set<AbortController>()
  #timer: NodeJS.Timeout | undefined
  #isPaused = false
  #hasHedge = false
  #failure: unknown

  constructor(reader: BlobReader, asked: HedgedRequest) {
    this.#reader = reader
    this.#asked = asked
  }

  result(): Promise<Uint8Array> {
    const { signal } = this.#asked
    return new Promise((resolve, reject) => {
      const leave = () => finish(() => reject(signal.reason))
      const finish = (settle: () => void) => {
        clearTimeout(this.#timer)
        signal.removeEventListener('abort', leave)
        const others = [...this.#attempts]
        this.#attempts.clear()
        settle()
        for (const other of others) other.abort(signal.reason)
        if (this.#hasHedge) this.#asked.budget.running--
        this.#hasHedge = false
      }
      const attempt = () => {
        const controller = new AbortController()
        this.#attempts.add(controller)
        this.#attempt(controller.signal).then((bytes) => {
          if (this.#attempts.delete(controller)) finish(() => resolve(bytes))
        }, (error: unknown) => {
          this.#failure ??= error
          if (this.#attempts.delete(controller) && this.#attempts.size === 0) finish(() => reject(this.#failure))
        })
      }
      if (signal.aborted) { reject(signal.reason); return }
      signal.addEventListener('abort', leave, { once: true })
      attempt()
      this.#watch(() => {
        const { budget } = this.#asked
        if (this.#hasHedge || budget.running >= MAX_HEDGES || this.#attempts.size === 0) return
        budget.running++
        budget.total++
        this.#hasHedge = true
        attempt()
      })
    })
  }

  async #attempt(signal: AbortSignal): Promise<Uint8Array> {
    const { offset, length, link, prefetch, afterWrong, progress, allocate } = this.#asked
    const begin = performance.now()
    let first = 0
    let pausedMs = 0
    const bytes = await this.#reader.read(offset, length, {
      signal, ...(prefetch !== undefined && { prefetch }), ...(afterWrong && { afterWrong }), ...(allocate && { allocate }),
      progress: (buffer, filled) => {
        first ||= performance.now()
        this.#timer?.refresh()
        const pause = progress?.(buffer, filled)
        if (pause === undefined) return undefined
        const from = performance.now()
        this.#isPaused = true
        return pause.then(() => {
          pausedMs += performance.now() - from
          this.#isPaused = false
          this.#timer?.refresh()
        })
      },
    })
    const durationMs = performance.now() - begin - pausedMs
    link.record({ bytes: bytes.length, firstByteMs: first === 0 ? durationMs / 2 : first - begin, durationMs })
    return bytes
  }

  #watch(hedge: () => void): void {
    const { link, isLocal, isWanted } = this.#asked
    if (isLocal) return
    const silence = Math.min(MAX_SILENCE_MS, Math.max(MIN_SILENCE_MS, ROUND_TRIPS * link.roundTripMs))
    this.#timer = setTimeout(() => {
      if (this.#isPaused) return // going on starts it again
      if (isWanted()) hedge()
      else this.#timer?.refresh()
    }, silence)
    this.#timer.unref()
  }
}
