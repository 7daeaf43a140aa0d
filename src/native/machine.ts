// What this process may use: processors and memory, as its cgroup allows. A container sees the host's numbers everywhere else.
// SPEC: Linux Documentation/admin-guide/cgroup-v2.rst (cpu.max, memory.max); cgroup-v1 cpu.cfs_*, memory.limit_in_bytes.

import { readFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export interface MachineLimits {
  /** Whole processors, at least 1. */
  readonly processors: number
  /** Bytes. */
  readonly memory: number
}

/** Reads a file below `/`, or undefined. A parameter so that a test can show another machine. */
export type ReadText = (file: string) => string | undefined

/** The tightest of affinity, cgroup quota and host, over all cgroups from the process's own to the root. */
export function machineLimits(read: ReadText = readText, host: MachineLimits = { processors: os.availableParallelism(), memory: os.totalmem() }): MachineLimits {
  let { processors, memory } = host
  for (const directory of cgroupDirectories(read)) {
    const [quota, period] = (read(path.join(directory, 'cpu.max')) ?? '').trim().split(' ').map(Number)
    if (quota !== undefined && period !== undefined && quota > 0 && period > 0) processors = Math.min(processors, quota / period)
    const quotaV1 = Number(read(path.join(directory, 'cpu.cfs_quota_us')))
    const periodV1 = Number(read(path.join(directory, 'cpu.cfs_period_us')))
    if (quotaV1 > 0 && periodV1 > 0) processors = Math.min(processors, quotaV1 / periodV1)
    for (const name of ['memory.max', 'memory.high', 'memory.limit_in_bytes']) {
      const limit = Number(read(path.join(directory, name))?.trim() || Number.NaN)
      if (limit > 0) memory = Math.min(memory, limit)
    }
  }
  return { processors: Math.max(1, Math.ceil(processors)), memory }
}

/** LIMIT: a limit that is changed is noticed after this long. To ask takes a dozen files, a millisecond, and a daemon that mounts would ask each time. */
const REMEMBERED_MS = 10_000
let remembered: { readonly limits: MachineLimits; readonly until: number } | undefined

/** `machineLimits()`, asked for at most every ten seconds. */
export function currentMachineLimits(): MachineLimits {
  if (remembered === undefined || performance.now() > remembered.until) remembered = { limits: machineLimits(), until: performance.now() + REMEMBERED_MS }
  return remembered.limits
}

/** The cgroups that hold this process, innermost first, in each mounted hierarchy. Inside a container its own cgroup is the root. */
function cgroupDirectories(read: ReadText): string[] {
  const found = new Set<string>()
  for (const line of (read('/proc/self/cgroup') ?? '').split('\n')) {
    const [, controllers, inner] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (controllers === undefined || inner === undefined) continue
    const root = controllers === '' ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${controllers}`
    for (let at = inner; ; at = path.dirname(at)) {
      found.add(path.join(root, at))
      if (at === '/') break
    }
  }
  return [...found]
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined // no such controller, or not for us to see: then it does not limit us in a way we could know
  }
}

/** Descriptors that this process may have open, as of now. */
export function descriptorLimit(read: ReadText = readText): number {
  const value = /^Max open files\s+(\S+)/m.exec(read('/proc/self/limits') ?? '')?.[1]
  return value === undefined || value === 'unlimited' ? 2 ** 20 : Number(value)
}
