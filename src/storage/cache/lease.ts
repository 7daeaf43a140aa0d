// Who uses a cache file: everybody holds a shared lock on the open file description through which it uses the file, and whoever wants to take the
// file away needs an exclusive one. The lock goes where the descriptor goes (a keeper that was lent it, a server that it was handed to) and dies with
// the last of them, however that dies; other processes see it.

import { close, closeSync, constants, fstatSync, lstatSync, mkdirSync, openSync, statSync } from 'node:fs'
import { isSystemError } from '../../core/errors.ts'
import { native } from '../../native/load.ts'

/** Open files that this process uses in place of an open of their names, by their identity. */
const lent = new Map<string, number>()

const LOCK_SHARED_NOW = 1 | 4
const LOCK_EXCLUSIVE_NOW = 2 | 4
const EAGAIN = 11

/** LIMIT: looks at a file that somebody takes away at this moment, one a millisecond; unlinking takes a few. */
const MAX_LOOKS = 500

/** An open cache file that nobody takes away while `fd`, or a descriptor made from it, is open. `isNew`: it was empty. `isLent`: somebody may have marked it. */
export interface LeasedFile { readonly fd: number; readonly writable: boolean; readonly isNew: boolean; readonly isLent: boolean }

/**
 * From now on whoever opens this file in this process gets a descriptor made from `fd`, opened for reading and writing, until the function that is returned
 * is called. For files that are marked: what is opened before raises no questions, what is opened afterwards asks the one who wants to write.
 */
export function lendFile(fd: number): () => void {
  const { dev, ino } = fstatSync(fd)
  const key = `${dev}:${ino}`
  lent.set(key, fd)
  return () => { if (lent.get(key) === fd) lent.delete(key) }
}

/** Opens or creates `file` in `directory`; read-only where it cannot be written. Throws Node's error for the system call that failed. */
export function openLeased(directory: string, file: string): LeasedFile {
  for (let look = 1; ; look++) {
    const { fd, writable, isLent } = openFile(directory, file)
    try {
      const locked = native().flock(fd, LOCK_SHARED_NOW)
      // a file system without locks has no one who could take the file away either
      if (locked >= 0 || locked !== -EAGAIN) {
        const { size, ino, dev } = fstatSync(fd)
        const named = statSync(file, { throwIfNoEntry: false })
        if (named?.ino === ino && named.dev === dev) return { fd, writable, isLent, isNew: size === 0 }
      }
      if (look === MAX_LOOKS) throw Object.assign(new Error(`${file} is being removed`), { code: 'EBUSY', syscall: 'flock' })
    } catch (error) {
      closeSync(fd)
      throw error
    }
    closeSync(fd)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
  }
}

/**
 * Runs `remove` while nobody uses `file`, nor can begin to; `remove` must unlink it. False when somebody does, or there is no such file.
 * Synchronous: who wants the file meanwhile waits.
 */
export function whileUnused(file: string, remove: () => void): boolean {
  let fd: number
  let isFreed = false
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return false
    throw error
  }
  try {
    if (native().flock(fd, LOCK_EXCLUSIVE_NOW) < 0 || fstatSync(fd).nlink === 0) return false
    remove()
    return isFreed = true
  } finally {
    // the last descriptor of an unlinked file: giving a large one's blocks back takes long, and is done elsewhere
    if (isFreed) close(fd)
    else closeSync(fd)
  }
}

/** Whether anybody uses `file` at this moment. */
export function isLeased(file: string): boolean {
  try {
    const fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      return native().flock(fd, LOCK_EXCLUSIVE_NOW) < 0
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return false
    throw error
  }
}

function openFile(directory: string, file: string): Omit<LeasedFile, 'isNew'> {
  const fd = borrowed(file)
  if (fd !== undefined) return { fd, writable: true, isLent: true }
  try {
    mkdirSync(directory, { recursive: true })
    return { fd: openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o644), writable: true, isLent: false }
  } catch (error) {
    if (!isSystemError(error, 'EROFS', 'EACCES', 'EPERM')) throw error
    return { fd: openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW), writable: false, isLent: false }
  }
}

function borrowed(file: string): number | undefined {
  const named = lent.size === 0 ? undefined : lstatSync(file, { throwIfNoEntry: false })
  const fd = named && lent.get(`${named.dev}:${named.ino}`)
  if (fd === undefined) return undefined
  const own = native().duplicateFd(fd)
  if (own < 0) throw Object.assign(new Error(`no descriptor for ${file}`), { code: 'EMFILE', syscall: 'fcntl' })
  return own
}
