// What a daemon has mounted of the kernel's EROFS driver, written down before it mounts: a daemon that dies leaves mounts behind whose devices
// answer EIO, and the next one with the same name finds and detaches them. The journal is locked for as long as its daemon lives.
//
//   <run directory>/devices-<hash>/       FUSE: one directory for each device
//   <run directory>/devices-<hash>.json   this journal
//   <run directory>/keeper-<hash>         socket of the keeper of fanotify's descriptors

import { closeSync, constants, existsSync, fstatSync, ftruncateSync, lstatSync, mkdirSync, openSync, readFileSync, rmdirSync, rmSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { publish } from '../../core/diagnostics.ts'
import { CodedError, isSystemError } from '../../core/errors.ts'
import { native } from '../../native/load.ts'
import { detach, mountsOn } from '../mountpoint.ts'
import { erofsNames } from './names.ts'

/** A cache file, and which of all that had its name. */
export interface MarkedFile { readonly path: string; readonly inode: number }

/** A mount that was made, or was going to be made, by the daemon. */
export interface JournalRow {
  readonly mountpoint: string
  readonly source: string
  /** Cache files that were marked for it. */
  readonly marked?: readonly MarkedFile[]
}

interface Content { readonly version: 1; readonly bootId: string; readonly mounts: readonly JournalRow[] }

/** SPEC: flock(2) LOCK_EX | LOCK_NB. */
const LOCK_EXCLUSIVE_NOW = 2 | 4
/** The source of our FUSE mounts. */
const OUR_FUSE = 'rafs'

/** The names of one daemon, by what it is known as (its mountpoint), and what it has mounted. */
export class Journal implements Disposable {
  /** Where the devices are mounted; exists. */
  readonly devices: string
  /** Where the keeper listens, if there is one. */
  readonly keeper: string
  readonly #file: string
  readonly #fd: number
  readonly #rows = new Map<string, JournalRow>()
  /** Of the file, bytes. */
  #length = 0
  /** What the daemon before this one wrote. */
  #left: Content | undefined

  /** Locks the journal of a daemon. To be followed by `recover`. @throws SERVE_MOUNT when such a daemon lives, or the directory cannot be used */
  static open(runDirectory: string, name: string): Journal {
    try {
      return new Journal(runDirectory, name)
    } catch (cause) {
      if (!(cause instanceof Error) || !('syscall' in cause)) throw cause
      throw new CodedError('SERVE_MOUNT', `cannot use ${runDirectory}: ${cause.message}`, { runDirectory }, { cause })
    }
  }

  private constructor(runDirectory: string, name: string) {
    const { devices, journal, keeper } = erofsNames(runDirectory, name)
    this.devices = devices
    this.keeper = keeper
    this.#file = journal
    mkdirSync(runDirectory, { recursive: true, mode: 0o700 })
    this.#fd = openSync(this.#file, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
    if (native().flock(this.#fd, LOCK_EXCLUSIVE_NOW) < 0) {
      closeSync(this.#fd)
      throw new CodedError('SERVE_MOUNT', `another nydusd serves the devices of ${name}`, { name })
    }
    try {
      this.#length = fstatSync(this.#fd).size
      this.#left = this.#read()
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
  }

  /** Detaches what a daemon of that name has left, but for the mountpoints that are `continued`. `isKept`: a keeper still answers for marked files. */
  recover(continued: ReadonlySet<string>, { isKept }: { readonly isKept: boolean }): void {
    const left = this.#left
    const unsafe: MarkedFile[] = []
    for (const row of left?.bootId === bootId() ? left.mounts : []) {
      const { mountpoint, source } = row
      if (continued.has(mountpoint)) this.#rows.set(mountpoint, row)
      if (continued.has(mountpoint) || !mountsOn(mountpoint).some((mount) => mount.type === 'erofs' && mount.source === source)) continue
      publish('serve:warning:raised', { message: `${mountpoint} was left behind by a daemon that died: detaching it` })
      // from the top: what somebody has mounted over it stays only where it is not ours
      if (mountsOn(mountpoint).at(-1)?.source === source) detach(mountpoint)
      if (!isKept) unsafe.push(...row.marked ?? [])
    }
    if (unsafe.length > 0) forgetUnanswered(unsafe)
    while (existsInList(this.devices)) detach(this.devices)
    mkdirSync(this.devices, { recursive: true, mode: 0o700 })
    this.#write()
  }

  /** To be called before the mount. */
  add(row: JournalRow): void {
    this.#rows.set(row.mountpoint, row)
    this.#write()
  }

  /** The file is complete and synced: whatever happens, its bytes are right. */
  unmark(file: string): void {
    for (const row of [...this.#rows.values()]) {
      if (row.marked?.some(({ path: marked }) => marked === file)) this.#rows.set(row.mountpoint, { ...row, marked: row.marked.filter(({ path: marked }) => marked !== file) })
    }
    this.#write()
  }

  remove(mountpoint: string): void {
    this.#rows.delete(mountpoint)
    this.#write()
  }

  /** Nothing is mounted any more. */
  [Symbol.dispose](): void {
    try {
      rmdirSync(this.devices)
    } catch (error) {
      if (!isSystemError(error, 'ENOENT', 'EBUSY', 'ENOTEMPTY', 'ENOTCONN')) throw error
    }
    rmSync(this.#file, { force: true })
    closeSync(this.#fd)
  }

  // A damaged journal is none: at worst a dead mount stays, and says EIO.
  #read(): Content | undefined {
    const text = readFileSync(this.#file, 'utf8')
    try {
      // SAFETY: only this class writes the file, in a directory of root's; a row that lacks a field matches no mount.
      const content = JSON.parse(text) as Content
      return content.version === 1 && Array.isArray(content.mounts) ? content : undefined
    } catch {
      return undefined
    }
  }

  #write(): void {
    const content: Content = { version: 1, bootId: bootId(), mounts: [...this.#rows.values()] }
    // one write, blanks over what was longer before: whoever is killed leaves the old content or the new one
    const bytes = Buffer.from(JSON.stringify(content).padEnd(this.#length))
    writeSync(this.#fd, bytes, 0, bytes.length, 0)
    this.#length = bytes.length
  }
}

// Nobody held the questions of these files any more: whoever reads through a mount that was left saw zeros, and would go on to. Their pages go, and
// what is not complete is cut: he reads EIO from now on.
function forgetUnanswered(files: readonly MarkedFile[]): void {
  publish('serve:warning:raised', { message: 'nobody was left who could answer for its devices: those that are not complete are fetched again' })
  for (const { path: file, inode } of files) {
    if (lstatSync(file, { throwIfNoEntry: false })?.ino !== inode) continue
    const fd = openSync(file, constants.O_RDWR | constants.O_NOFOLLOW)
    unlinkSync(file) // first the name: who writes to it finds that it is gone, and stops
    ftruncateSync(fd, 0)
    closeSync(fd)
  }
  writeFileSync('/proc/sys/vm/drop_caches', '1')
}

function existsInList(directory: string): boolean {
  return mountsOn(directory).some(({ type, source }) => type === 'fuse' && source === OUR_FUSE)
}

function bootId(): string {
  const file = '/proc/sys/kernel/random/boot_id'
  return existsSync(file) ? readFileSync(file, 'latin1').trim() : ''
}
