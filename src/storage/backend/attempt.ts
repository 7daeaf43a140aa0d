// The deadline of one attempt at a read: not for the whole of it, which may be large, but for silence and for trickles.

import { CodedError } from '../../core/errors.ts'
import { KiB } from '../../core/units.ts'
import type { ReadOptions } from './backend.ts'

/** LIMIT: bytes a second below which an answer counts as none: a link that slow cannot serve files, and a server that trickles must not hold readers. */
export const MIN_RATE = 16 * KiB

export interface AttemptOptions {
  /** Each of these milliseconds must bring something (MIN_RATE); 0 for no deadline. */
  readonly timeoutMs: number
  readonly signal: AbortSignal
  readonly progress?: ReadOptions['progress']
}

/**
 * `run` with a signal that ends when the reader leaves or nothing arrives any more (STORAGE_UNREACHABLE), and with a `progress` that says that something
 * did. Time in which the reader holds the bytes up does not count.
 */
export async function attempt<T>(run: (options: Pick<ReadOptions, 'signal' | 'progress'>) => Promise<T>, { timeoutMs, signal, progress }: AttemptOptions): Promise<T> {
  signal.throwIfAborted()
  const controller = new AbortController()
  // Not AbortSignal.any: on Node 20 its signals are kept alive by the long-lived signal of the daemon.
  const leave = () => controller.abort(signal.reason)
  signal.addEventListener('abort', leave, { once: true })
  const quota = Math.ceil(MIN_RATE * timeoutMs / 1000)
  let timer: NodeJS.Timeout | undefined
  let [arrived, counted, held] = [0, 0, 0]
  const late = new Promise<never>((_, reject) => {
    if (timeoutMs === 0) return
    timer = setTimeout(() => {
      if (held > 0) return // begins anew when the reader lets the bytes go on
      const error = new CodedError('STORAGE_UNREACHABLE', arrived === 0 ? `no answer within ${timeoutMs} ms` : `fewer than ${quota} bytes within ${timeoutMs} ms`, { timeoutMs, arrived })
      reject(error)
      controller.abort(error)
    }, timeoutMs)
  })
  const told: NonNullable<ReadOptions['progress']> = (buffer, filled) => {
    arrived = filled
    if (arrived - counted >= quota) {
      counted = arrived
      timer?.refresh()
    }
    const letting = progress?.(buffer, filled)
    if (letting === undefined) return undefined
    held++
    return letting.finally(() => {
      held--
      timer?.refresh()
    })
  }
  try {
    return await Promise.race([run({ signal: controller.signal, progress: told }), late])
  } finally {
    clearTimeout(timer)
    timer = undefined // a late piece must not start it again
    signal.removeEventListener('abort', leave)
  }
}
