// The shared-memory file behind a ready map: one per cache file, found by boot and by the identity of the cache file. Everybody who uses it holds a
// shared lock; who can get an exclusive one is alone and starts from zeros. So nothing outlives the processes that vouch for it: a
// daemon that starts later verifies each chunk itself, and claims of a dead process vanish with the last of its companions.

import { randomBytes } from 'node:crypto'
import { closeSync, constants, fstatSync, ftruncateSync, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { CodedError } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { native } from '../../native/load.ts'
import { errnoOf } from '../errno.ts'
import { encodeReadyMapHeader, isReadyMap, readyMapHeader, readyMapSize } from './ready-map.ts'

const LOCK_SHARED = 1
const LOCK_EXCLUSIVE_NOW = 2 | 4

/** LIMIT: regions that dead processes left are looked for among so many files, and only those that nobody touched for so long. */
const MAX_SWEPT = 1000
const STALE_MS = 60_000

/** LIMIT: reserved at once, enough for a million chunks; a bootstrap that claims more must not take the memory for it before it is used. */
const MAX_RESERVED = 16 * MiB

let swept = false

export interface SharedRegion { readonly fd: number; close(): void }

/** Opens the region of the cache file `dataFd` with `count` chunks. Where memory cannot be shared it is private: only the saving of a second fetch is lost. */
export function openSharedRegion(dataFd: number, count: number, { directory = sharedDirectory() }: { readonly directory?: string | undefined } = {}): SharedRegion {
  if (directory === undefined) return openPrivate(count)
  try {
    return openNamed(path.join(directory, regionName(dataFd, count)), count) ?? openPrivate(count)
  } catch (error) {
    errnoOf(error) // shared memory is full or forbidden
    return openPrivate(count)
  }
}

function openNamed(file: string, count: number): SharedRegion | undefined {
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  const alone = native().flock(fd, LOCK_EXCLUSIVE_NOW) === 0
  const hasRoom = !alone || initialise(fd, count)
  // changing the lock may let another in between, who is alone then and writes the same zeros
  if (!hasRoom || native().flock(fd, LOCK_SHARED) < 0 || !isInitialised(fd, count)) {
    closeSync(fd)
    return undefined
  }
  return {
    fd,
    close() {
      // the last one to leave takes the file away; who has opened it meanwhile keeps an unnamed one and fetches for itself
      if (native().flock(fd, LOCK_EXCLUSIVE_NOW) === 0) unlinkIfThere(file)
      closeSync(fd)
    },
  }
}

function openPrivate(count: number): SharedRegion {
  const file = path.join(tmpdir(), `nydus-ts-${process.pid}-${randomBytes(8).toString('hex')}`)
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
  unlinkSync(file)
  if (!initialise(fd, count)) {
    closeSync(fd)
    throw new CodedError('NATIVE_SYSCALL', `no room for ${readyMapSize(count)} bytes of cache state`, { syscall: 'fallocate' })
  }
  return { fd, close: () => closeSync(fd) }
}

/** False when there is no room: touching a page that the file system cannot provide would kill the process (SIGBUS). */
function initialise(fd: number, count: number): boolean {
  const size = readyMapSize(count)
  ftruncateSync(fd, 0)
  ftruncateSync(fd, size)
  if (native().fallocate(fd, 0, 0, Math.min(size, MAX_RESERVED)) < 0) return false
  return writeSync(fd, encodeReadyMapHeader(count), 0, readyMapHeader.size, 0) === readyMapHeader.size
}

function isInitialised(fd: number, count: number): boolean {
  const header = new Uint8Array(readyMapHeader.size)
  return fstatSync(fd).size === readyMapSize(count) && readSync(fd, header, 0, header.length, 0) === header.length && isReadyMap(header, count)
}

/** The birth time tells a new file from a removed one whose inode number it got. */
function regionName(dataFd: number, count: number): string {
  const { dev, ino, birthtimeNs } = fstatSync(dataFd, { bigint: true })
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  return `${boot}-${dev}-${ino}-${birthtimeNs}-${count}`
}

/** A directory in shared memory that only this user can write to; undefined when there is none, or somebody else was there first. */
function sharedDirectory(): string | undefined {
  const uid = process.geteuid?.() ?? 0
  const directory = `/dev/shm/nydus-ts-${uid}`
  try {
    mkdirSync(directory, { mode: 0o700 })
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') return undefined
  }
  const status = lstatSync(directory)
  if (!status.isDirectory() || status.uid !== uid || (status.mode & 0o077) !== 0) return undefined
  if (!swept) sweep(directory)
  swept = true
  return directory
}

/** Removes what processes left that were killed. Who opens such a file at this very moment shares with nobody, and is still right. */
function sweep(directory: string): void {
  for (const name of readdirSync(directory).slice(0, MAX_SWEPT)) {
    const file = path.join(directory, name)
    try {
      const fd = openSync(file, constants.O_RDWR | constants.O_NOFOLLOW)
      if (Date.now() - fstatSync(fd).mtimeMs > STALE_MS && native().flock(fd, LOCK_EXCLUSIVE_NOW) === 0) unlinkIfThere(file)
      closeSync(fd)
    } catch (error) {
      errnoOf(error) // gone, or not ours
    }
  }
}

function unlinkIfThere(file: string): void {
  try {
    unlinkSync(file)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}
