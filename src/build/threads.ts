// How many threads a build may keep busy.

import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

/** LIMIT: each thread stands for two buffers of 1 MiB, and one thread of JavaScript cannot feed more. */
const MAX_THREADS = 8

/** CPUs that this process may use: those it may run on, and what its cgroup allows (rounded up). */
export function defaultThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), cgroupCpus(), MAX_THREADS))
}

function cgroupCpus(): number {
  try {
    const [quota, period] = readFileSync('/sys/fs/cgroup/cpu.max', 'utf8').trim().split(' ')
    return quota === 'max' ? MAX_THREADS : Math.ceil(Number(quota) / Number(period)) || MAX_THREADS
  } catch (error) {
    // No such file at the root of cgroups, and in version 1.
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'EACCES')) return MAX_THREADS
    throw error
  }
}
