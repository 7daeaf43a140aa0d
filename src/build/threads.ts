// How many threads a build may keep busy.

import { machineLimits } from '../native/machine.ts'

/** LIMIT: each thread stands for two buffers of 1 MiB, and one thread of JavaScript cannot feed more. */
const MAX_THREADS = 8

/** Processors that this process may use, up to what a build can feed. */
export function defaultThreads(): number {
  return Math.min(machineLimits().processors, MAX_THREADS)
}
