// Shared-memory files: one behind each ready map, found by boot and by the identity of the cache file, and one behind the usage of a directory.
// Everybody who uses one holds a shared lock; who can get an exclusive one is alone and starts from zeros. So nothing outlives the processes that
// vouch for it: a daemon that starts later verifies each chunk itself, and claims of a dead process vanish with the last of its companions.

import { randomBytes } from 'node:crypto'
import { closeSync, constants, fstatSync, ftruncateSync, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { CodedError, hasCode } from '../../core/errors.ts'
import { MiB } from '../../core/units.ts'
import { native } from '../../native/load.ts'
import { errnoOf } from '../errno.ts'
import { encodeReadyMapHeader, readyMapSize } from './ready-map.ts'

const LOCK_SHARED = 1
const LOCK_EXCLUSIVE_NOW = 2 | 4

/** LIMIT: regions that dead processes left are looked for among so many files, and only those that nobody touched for so long. */
const MAX_SWEPT = 1000
const STALE_MS = 60_000

/** LIMIT: reserved at once, enough for a million chunks; a bootstrap that claims more must not take the memory for it before it is used. */
const MAX_RESERVED = 16 * MiB

let swept = false

export interface SharedRegion { readonly fd: number; close(): void }

/** What a region is found by, and what it starts with when nobody else uses it. */
export interface RegionKind {
  /** Names it among those of this boot. */
  readonly name: string
  readonly size: number
  /** The first bytes of every region of this kind. */
  readonly header: Uint8Array
  /** What follows the header; zeros without. */
  readonly initial?: () => Uint8Array
}

export interface RegionPlace { readonly directory?: string | undefined }

/**
 * Opens the region of the cache file `dataFd` with `count` chunks; `cipher` is the fingerprint of its key. STORAGE_CACHE_IO while others use the file
 * with another key: what one of them verified is not what the other would read.
 */
export function openSharedRegion(dataFd: number, count: number, cipher = 0, place?: RegionPlace): SharedRegion {
  return openRegion({ name: `${identityOf(dataFd)}-${count}`, size: readyMapSize(count), header: encodeReadyMapHeader(count, cipher) }, place)
}

/** Opens a region that all processes share. Where memory cannot be shared it is private: each process then knows only of itself. */
export function openRegion(kind: RegionKind, { directory = sharedDirectory() }: RegionPlace = {}): SharedRegion {
  if (directory === undefined) return openPrivate(kind)
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
    return openNamed(path.join(directory, `${boot}-${kind.name}`), kind) ?? openPrivate(kind)
  } catch (error) {
    if (hasCode(error, 'STORAGE_CACHE_IO')) throw error
    errnoOf(error) // shared memory is full or forbidden
    return openPrivate(kind)
  }
}

function openNamed(file: string, kind: RegionKind): SharedRegion | undefined {
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  const alone = native().flock(fd, LOCK_EXCLUSIVE_NOW) === 0
  const hasRoom = !alone || initialise(fd, kind)
  if (!alone && hasOtherHeader(fd, kind)) {
    closeSync(fd)
    throw new CodedError('STORAGE_CACHE_IO', 'a cache file is in use with another encryption key, or without one')
  }
  // changing the lock may let another in between, who is alone then and writes the same
  if (!hasRoom || native().flock(fd, LOCK_SHARED) < 0 || !isInitialised(fd, kind)) {
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

function openPrivate(kind: RegionKind): SharedRegion {
  const file = path.join(tmpdir(), `nydus-ts-${process.pid}-${randomBytes(8).toString('hex')}`)
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
  unlinkSync(file)
  if (!initialise(fd, kind)) {
    closeSync(fd)
    throw new CodedError('NATIVE_SYSCALL', `no room for ${kind.size} bytes of cache state`, { syscall: 'fallocate' })
  }
  return { fd, close: () => closeSync(fd) }
}

/** False when there is no room: touching a page that the file system cannot provide would kill the process (SIGBUS). */
function initialise(fd: number, { size, header, initial }: RegionKind): boolean {
  ftruncateSync(fd, 0)
  ftruncateSync(fd, size)
  if (native().fallocate(fd, 0, 0, Math.min(size, MAX_RESERVED)) < 0) return false
  if (initial !== undefined) {
    const bytes = initial()
    writeSync(fd, bytes, 0, bytes.length, header.length)
  }
  return writeSync(fd, header, 0, header.length, 0) === header.length
}

/** Initialised, of this size, and of another kind. */
function hasOtherHeader(fd: number, { size, header }: RegionKind): boolean {
  const found = new Uint8Array(header.length)
  return fstatSync(fd).size === size && readSync(fd, found, 0, found.length, 0) === found.length && found.some((byte) => byte !== 0) && Buffer.compare(found, header) !== 0
}

function isInitialised(fd: number, { size, header }: RegionKind): boolean {
  const found = new Uint8Array(header.length)
  return fstatSync(fd).size === size && readSync(fd, found, 0, found.length, 0) === found.length && Buffer.compare(found, header) === 0
}

/** Of a file or directory, among all that there were since the boot: the birth time tells a new one from a removed one whose inode number it got. */
export function identityOf(fd: number): string {
  const { dev, ino, birthtimeNs } = fstatSync(fd, { bigint: true })
  return `${dev}-${ino}-${birthtimeNs}`
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
