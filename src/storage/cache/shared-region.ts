// The shared-memory file behind a ready map: one per cache file, found by boot and by the identity of the cache file. Everybody who uses it holds a
// shared lock; who can get an exclusive one is alone and starts from zeros. So nothing outlives the processes that vouch for it: a
// daemon that starts later verifies each chunk itself, and claims of a dead process vanish with the last of its companions.

import { randomBytes } from 'node:crypto'
import { closeSync, constants, fstatSync, ftruncateSync, lstatSync, mkdirSync, openSync, readFileSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { native } from '../../native/load.ts'
import { errnoOf } from '../errno.ts'
import { encodeReadyMapHeader, isReadyMap, readyMapHeader, readyMapSize } from './ready-map.ts'

const LOCK_SHARED = 1
const LOCK_EXCLUSIVE_NOW = 2 | 4

export interface SharedRegion { readonly fd: number; close(): void }

/** Opens the region of the cache file `dataFd` with `count` chunks. Where memory cannot be shared it is private: only the saving of a second fetch is lost. */
export function openSharedRegion(dataFd: number, count: number, { directory = sharedDirectory() }: { readonly directory?: string | undefined } = {}): SharedRegion {
  return (directory === undefined ? undefined : openNamed(path.join(directory, regionName(dataFd, count)), count)) ?? openPrivate(count)
}

function openNamed(file: string, count: number): SharedRegion | undefined {
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  const alone = native().flock(fd, LOCK_EXCLUSIVE_NOW) === 0
  if (alone) initialise(fd, count)
  // changing the lock may let another in between, who is alone then and writes the same zeros
  if (native().flock(fd, LOCK_SHARED) < 0 || !isInitialised(fd, count)) {
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
  initialise(fd, count)
  return { fd, close: () => closeSync(fd) }
}

function initialise(fd: number, count: number): void {
  ftruncateSync(fd, 0)
  ftruncateSync(fd, readyMapSize(count))
  writeSync(fd, encodeReadyMapHeader(count), 0, readyMapHeader.size, 0)
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
  return status.isDirectory() && status.uid === uid && (status.mode & 0o077) === 0 ? directory : undefined
}

function unlinkIfThere(file: string): void {
  try {
    unlinkSync(file)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}
