// What every backend gets around it: exact lengths, deadlines, retries with jittered back-off, metrics and events. Which errors may pass, the
// error table says. The clock and the dice are parameters, so that tests need neither.

import { setTimeout as delay } from 'node:timers/promises'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, isCoded } from '../../core/errors.ts'
import type { BackendMetrics } from '../metrics.ts'
import type { BlobBackend, BlobReader, ReadOptions } from './backend.ts'

export interface RetryPolicy {
  /** Attempts after the first one. */
  readonly retries: number
  /** Milliseconds for one attempt; 0 for no deadline. */
  readonly timeoutMs: number
  /** Waits before the next attempt. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<unknown>
  /** In [0, 1). */
  readonly random?: () => number
}

/** LIMIT: first pause, doubled each time: a restarted registry is back within a few of these. */
const FIRST_PAUSE_MS = 100
/** LIMIT: longest pause; a reader waits for it. */
const MAX_PAUSE_MS = 2000
/** LIMIT: no new attempt after this long, so that with the default deadline of 5 s no read takes longer than 20 s. */
const GIVE_UP_MS = 14_000

/** `backend` with reads that keep the contract of `BlobReader` or fail, after `policy`. Owns `backend`. */
export function reliable(backend: BlobBackend, policy: RetryPolicy, metrics: BackendMetrics): BlobBackend {
  return {
    type: backend.type,
    ...(backend.isLocal !== undefined && { isLocal: backend.isLocal }),
    open: (blobId) => reliableReader(backend.open(blobId), { blobId, policy, metrics }),
    close: () => backend.close(),
  }
}

interface Surroundings { readonly blobId: string; readonly policy: RetryPolicy; readonly metrics: BackendMetrics }

function reliableReader(reader: BlobReader, around: Surroundings): BlobReader {
  return {
    size: ({ signal }) => retried((inner) => reader.size({ signal: inner }), around, signal),
    read: (offset, length, options) => retried((signal) => measured(reader, { offset, length, ...options, signal }, around), around, options.signal),
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
    metrics.record({ bytes, durationMs: performance.now() - begin, failed: true })
    throw error
  }
}

async function retried<T>(run: (signal: AbortSignal) => Promise<T>, { blobId, policy }: Surroundings, signal: AbortSignal): Promise<T> {
  const { retries, timeoutMs, random = Math.random, sleep = (ms, until) => delay(ms, undefined, { signal: until }) } = policy
  const begin = performance.now()
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted()
    try {
      return await withDeadline(run, timeoutMs, signal)
    } catch (error) {
      signal.throwIfAborted() // the reader left: not a failure of the backend
      if (!isCoded(error)) throw error
      publish('storage:backend:error', { blobId, code: error.code, message: error.message })
      if (!error.retryable || attempt >= retries || performance.now() - begin > GIVE_UP_MS) throw error
      // full jitter: many readers that failed together must not come back together
      await sleep(Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt) * (0.5 + random() / 2), signal)
    }
  }
}

// Not AbortSignal.any: on Node 20 its signals are kept alive by the long-lived signal of the daemon.
async function withDeadline<T>(run: (signal: AbortSignal) => Promise<T>, timeoutMs: number, signal: AbortSignal): Promise<T> {
  const controller = new AbortController()
  const leave = () => controller.abort(signal.reason)
  signal.addEventListener('abort', leave, { once: true })
  let deadline: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    if (timeoutMs === 0) return
    deadline = setTimeout(() => {
      const error = new CodedError('STORAGE_UNREACHABLE', `no answer within ${timeoutMs} ms`, { timeoutMs })
      reject(error)
      controller.abort(error)
    }, timeoutMs)
  })
  try {
    return await Promise.race([run(controller.signal), late])
  } finally {
    clearTimeout(deadline)
    signal.removeEventListener('abort', leave)
  }
}
