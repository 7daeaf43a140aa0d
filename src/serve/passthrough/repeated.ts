// Whether an operation that is asked for again was done by the server that died while it did it.

import { native } from '../../native/load.ts'
import type { FileStatus } from '../../native/beneath.ts'
import type { Operation } from '../fuse/live-file-system.ts'

/** LIMIT: clocks of files tick every 4 ms, or 10; nobody makes a file, sees his server die and asks again within that. */
const TICK_MS = 50

/** Whether what `status` tells of came to be after the operation was begun; its note is that time. */
export function isDoneBefore(status: FileStatus, { begun }: Operation): boolean {
  return begun !== undefined && status.changedMs >= begun - TICK_MS
}

/** Whether `bytes` lie where the file ended when they were to be appended; the note is that size. */
export function wroteBefore(fd: number, bytes: Uint8Array, { begun }: Operation): boolean {
  if (begun === undefined) return false
  const found = Buffer.alloc(bytes.length)
  return native().readAt(fd, found, 0, found.length, begun, 0) === found.length && found.equals(bytes)
}
