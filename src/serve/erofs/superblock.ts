// A mounted EROFS superblock by its name in sysfs: it is there until the last user of a detached mount is gone.

import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { isSystemError } from '../../core/errors.ts'

const DIRECTORY = '/sys/fs/erofs'
/** LIMIT: bytes that the kernel reads ahead at most. Its 128 KiB are eight requests for one of our chunks. */
const READ_AHEAD_KIB = 1024

/** Names of the superblocks there are, `erofs-7` for instance. */
export function superblocks(): Set<string> {
  try {
    return new Set(readdirSync(DIRECTORY).filter((name) => /^erofs-\d+$/.test(name)))
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return new Set()
    throw error
  }
}

/** The one that came since `before`; undefined when it cannot be told. */
export function newSuperblock(before: ReadonlySet<string>): string | undefined {
  const fresh = [...superblocks()].filter((name) => !before.has(name))
  return fresh.length === 1 ? fresh[0] : undefined
}

/** Whether somebody may still read through it. */
export function isAlive(superblock: string | undefined): boolean {
  return superblock === undefined || existsSync(`${DIRECTORY}/${superblock}`)
}

/** Raises the kernel's read-ahead; where that is not possible reads only take more requests. */
export function raiseReadAhead(superblock: string | undefined): void {
  if (superblock === undefined) return
  try {
    writeFileSync(`/sys/class/bdi/${superblock}/read_ahead_kb`, String(READ_AHEAD_KIB))
  } catch (error) {
    if (!(error instanceof Error) || !('syscall' in error)) throw error
  }
}
