// An exclusive lock between processes: flock(2), which the kernel releases when its holder dies, kill -9 included.

import { open } from 'node:fs/promises'
import { CodedError } from '../../core/errors.ts'
import { abortable } from '../../core/single-flight.ts'
import { native } from '../../native/load.ts'
import { sleep } from '../http/retry.ts'
import { storing } from '../store-error.ts'

const LOCK_EX = 2
const LOCK_NB = 4
const EWOULDBLOCK = 11
/** LIMIT: holders replace one small file; after this long something is stopped in a debugger. */
const LOCK_TIMEOUT_MS = 60_000
/** Between two attempts. flock(2) can wait by itself, but that would block the thread on which the holder may run. */
const LOCK_RETRY_MS = 15

/** Tails of the queues of this process, by file: its own jobs wait for each other without asking the kernel. */
const queues = new Map<string, Promise<void>>()

/** Tries to lock an open file for as long as its descriptor lives; false when another holds it. REGISTRY_STORE when the file system cannot. */
export function tryLock(fd: number, name: string): boolean {
  const result = native().flock(fd, LOCK_EX | LOCK_NB)
  if (result === -EWOULDBLOCK) return false
  if (result < 0) throw new CodedError('REGISTRY_STORE', `${name} cannot be locked: errno ${-result}`, { errno: -result })
  return true
}

/** Runs `action` while holding the lock on the existing `file`. REGISTRY_STORE when it stays locked for a minute. */
export async function withFileLock<T>(file: string, { signal }: { signal: AbortSignal }, action: () => Promise<T>): Promise<T> {
  const before = queues.get(file) ?? Promise.resolve()
  let leave = () => {}
  const mine = new Promise<void>((resolve) => { leave = resolve })
  const tail = before.then(() => mine)
  queues.set(file, tail)
  try {
    await abortable(before, signal)
    return await locked(file, signal, action)
  } finally {
    leave()
    if (queues.get(file) === tail) queues.delete(file)
  }
}

async function locked<T>(file: string, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
  const handle = await storing(`lock ${file}`, () => open(file, 'r'))
  try {
    const deadline = performance.now() + LOCK_TIMEOUT_MS
    while (!tryLock(handle.fd, file)) {
      if (performance.now() > deadline) throw new CodedError('REGISTRY_STORE', `${file} is locked by another process`, { file })
      await sleep(LOCK_RETRY_MS * (0.5 + Math.random()), signal)
    }
    return await action()
  } finally {
    await handle.close() // releases the lock
  }
}
