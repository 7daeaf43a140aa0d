// When to ask again, and after how long. One policy for pulls and pushes; tests pass short times.

import { setTimeout as delay } from 'node:timers/promises'

/** `attempts` counts the first one. */
export interface RetryPolicy { readonly attempts: number; readonly baseMs: number; readonly maxMs: number }

/** LIMIT: six attempts with doubling delays span about 15 s, which outlives the restart of a registry behind a load balancer. */
export const DEFAULT_RETRY: RetryPolicy = { attempts: 6, baseMs: 500, maxMs: 10_000 }

/** LIMIT: a registry that wants a longer pause than this means "not today"; a build should say so instead of hanging. */
export const MAX_RETRY_AFTER_MS = 120_000

/** Answers that may differ next time: overload, gateways, and 408/425 from proxies. */
export function mayPass(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status === 500 || status === 502 || status === 503 || status === 504
}

/** Delay before attempt number `attempt` (2, 3 …): doubling, and jittered between half and whole so that parallel layers spread. */
export function backoffMs(policy: RetryPolicy, attempt: number, random: () => number = Math.random): number {
  const whole = Math.min(policy.maxMs, policy.baseMs * 2 ** (attempt - 2))
  return whole / 2 + random() * (whole / 2)
}

/** Waits; rejects with `signal.reason` when aborted. */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, { signal })
  } catch (error) {
    signal.throwIfAborted()
    throw error
  }
}
