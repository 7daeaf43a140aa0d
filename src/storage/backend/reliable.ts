// What every backend gets around it: exact lengths, deadlines, retries with jittered back-off, metrics and events. Which errors may pass, the
// error table says. The clock and the dice are parameters, so that tests need neither.
//
//   attempt ──ok──────────────────────────────────────────────► bytes
//      ▲ └─fails─► may pass? ──no───────────────────────────────► error
//      │               │ refused (401, 403, 404): three times more, credentials and mirrors change
//      └── pause ◄─────┘ unreachable: for as long as `patienceMs`, and `retries` times at least
//          doubled, jittered, no shorter than Retry-After, which all readers of the backend keep

import { setMaxListeners } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import type { BackendMetrics } from '../metrics.ts'
import { attempt } from './attempt.ts'
import type { BlobBackend, BlobReader, ReadOptions } from './backend.ts'

export interface RetryPolicy {
  /** Attempts after the first one. */
  readonly retries: number
  /** Milliseconds of silence that end an attempt; 0 for no deadline. */
  readonly timeoutMs: number
  /** Attempts go on for so many milliseconds, however many they are; default 0. */
  readonly patienceMs?: number
  /** Waits before the next attempt. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<unknown>
  /** In [0, 1). */
  readonly random?: () => number
  /** Milliseconds that only grow. */
  readonly now?: () => number
}

/** LIMIT: first pause, doubled each time: a restarted registry is back within a few of these. */
const FIRST_PAUSE_MS = 100
/** LIMIT: longest pause; a reader waits for it. */
const MAX_PAUSE_MS = 2000
/** LIMIT: attempts after a refusal. A refresh of credentials or a blob that is just being pushed takes a second or two; a wrong password should be told of soon. */
const REFUSAL_RETRIES = 3
const FIRST_REFUSAL_PAUSE_MS = 400

/** `backend` with reads that keep the contract of `BlobReader` or fail, after `policy`. Owns `backend`. */
export function reliable(backend: BlobBackend, policy: RetryPolicy, metrics: BackendMetrics): BlobBackend {
  const quiet: Quiet = { until: Number.NEGATIVE_INFINITY }
  return {
    type: backend.type,
    ...(backend.isLocal !== undefined && { isLocal: backend.isLocal }),
    open: (blobId) => reliableReader(backend.open(blobId), { blobId, policy, metrics, quiet }),
    reconfigure: (change) => backend.reconfigure?.(change),
    close: () => backend.close(),
  }
}

/** Until when the server wants to be left alone. */
interface Quiet { until: number }
interface Surroundings { readonly blobId: string; readonly policy: RetryPolicy; readonly metrics: BackendMetrics; readonly quiet: Quiet }

function reliableReader(reader: BlobReader, around: Surroundings): BlobReader {
  return {
    size: (options) => retried(({ signal }) => reader.size({ signal }), around, options),
    read: (offset, length, options) => retried((inner) => measured(reader, { ...options, ...inner, offset, length }, around), around, options),
  }
}

async function measured(reader: BlobReader, { offset, length, ...options }: ReadOptions & { offset: number; length: number }, { blobId, metrics }: Surroundings): Promise<Uint8Array> {
  const begin = performance.now()
  let bytes = 0
  try {
    const got = await reader.read(offset, length, options)
    bytes = got.length
    if (bytes !== length) throw new CodedError('STORAGE_SHORT_READ', `blob ${blobId}: got ${bytes} bytes of ${length}`, { blobId, offset, length })
    const durationMs = performance.now() - begin
    metrics.record({ bytes, durationMs, failed: false })
    publish('storage:backend:read', { blobId, offset, bytes, durationMs, prefetch: options.prefetch ?? false })
    return got
  } catch (error) {
    metrics.record({ bytes, durationMs: performance.now() - begin, failed: !options.signal.aborted }) // given up, because somebody else was quicker or nobody wants it, is no error
    throw error
  }
}

async function retried<T>(run: (options: Pick<ReadOptions, 'signal' | 'progress'>) => Promise<T>, { blobId, policy, quiet }: Surroundings, { signal, progress }: Pick<ReadOptions, 'signal' | 'progress'>): Promise<T> {
  const { timeoutMs, patienceMs = 0, now = () => performance.now(), random = Math.random, sleep = (ms, until) => delay(ms, undefined, { signal: until }) } = policy
  setMaxListeners(0, signal) // one signal stops many reads; Node would warn of a leak at eleven
  const begin = now()
  for (let count = 0; ; count++) {
    signal.throwIfAborted()
    try {
      // another reader was told to wait; where that is too long, the server tells this one itself
      const rest = quiet.until - now()
      if (rest > 0 && now() + rest - begin <= patienceMs) await sleep(rest, signal)
      return await attempt(run, { timeoutMs, signal, progress })
    } catch (error) {
      signal.throwIfAborted() // the reader left: not a failure of the backend
      if (!isCoded(error)) throw error
      publish('storage:backend:error', { blobId, code: error.code, message: error.message })
      const isRefusal = error.code === 'STORAGE_DENIED' || error.code === 'STORAGE_NOT_FOUND'
      if (isRefusal ? patienceMs === 0 || count >= REFUSAL_RETRIES : !error.retryable) throw error
      const asked = Number(error.context['retryAfterMs'] ?? 0)
      if (asked > 0) quiet.until = Math.max(quiet.until, now() + asked)
      // full jitter: many readers that failed together must not come back together
      const pause = Math.min(MAX_PAUSE_MS, (isRefusal ? FIRST_REFUSAL_PAUSE_MS : FIRST_PAUSE_MS) * 2 ** count) * (0.5 + random() / 2)
      const wait = Math.max(pause, asked)
      if (!isRefusal && count >= policy.retries && now() + wait - begin > patienceMs) throw error
      await sleep(wait, signal)
    }
  }
}
