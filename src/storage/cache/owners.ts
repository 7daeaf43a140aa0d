// Who uses a cached blob now, and which image it was stored for. The former is what the kernel says of locks; the latter is a note in an extended
// attribute of the cache file, of whoever used it last: it goes when the file goes, and no program that lists the directory sees it.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import { bytesOf } from '../../core/byte-string.ts'
import { native } from '../../native/load.ts'

const ATTRIBUTE = 'user.nydus.owner'
/** LIMIT: of a note; a path has 4096 bytes at most. */
const MAX_NOTE = 8192

/** For what a blob is in the cache. */
export interface CacheOwner {
  /** Name of the daemon or of the image in metrics; may be empty. */
  readonly id: string
  /** Absolute path of the bootstrap; undefined when it came from elsewhere. */
  readonly bootstrap: string | undefined
}

/** A process that has a cache file in use. `command`: undefined when it lent its descriptor and is gone. */
export interface CacheUser { readonly pid: number; readonly command: string | undefined }

/** Notes the owner of the cache file; does nothing where the file system has no such attributes. */
export function noteOwner(file: string, owner: CacheOwner, { isEncrypted }: { readonly isEncrypted: boolean }): void {
  const text = Buffer.from(JSON.stringify({ ...owner, isEncrypted }))
  if (text.length <= MAX_NOTE) native().setXattr(bytesOf(file), bytesOf(ATTRIBUTE), text)
}

/** Whoever noted itself last; undefined without a note. */
export function ownerOf(file: string): (CacheOwner & { readonly isEncrypted: boolean }) | undefined {
  const value = native().getXattr(bytesOf(file), bytesOf(ATTRIBUTE))
  if (typeof value === 'number') return undefined
  try {
    const note: unknown = JSON.parse(Buffer.from(value).toString('utf8'))
    if (typeof note !== 'object' || note === null || !('id' in note) || typeof note.id !== 'string') return undefined
    return { id: note.id, isEncrypted: 'isEncrypted' in note && note.isEncrypted === true, bootstrap: 'bootstrap' in note && typeof note.bootstrap === 'string' ? note.bootstrap : undefined }
  } catch {
    return undefined // damaged: it says nothing
  }
}

/**
 * Processes that took a lock on files, by inode number. SPEC: proc_locks(5). Device numbers are left out: file systems in several volumes show others
 * there than in stat. A process in another PID namespace has none that would mean anything here, and is not listed.
 */
export function usersByInode(): ReadonlyMap<number, readonly CacheUser[]> {
  const users = new Map<number, CacheUser[]>()
  for (const line of readText('/proc/locks')?.split('\n') ?? []) {
    const [, , pid, inode] = /^\d+: FLOCK +\S+ +(READ|WRITE) +(-?\d+) +[0-9a-f]+:[0-9a-f]+:(\d+) /.exec(line) ?? []
    if (pid === undefined || Number(pid) <= 0) continue
    const listed = users.get(Number(inode)) ?? []
    if (!listed.some((user) => user.pid === Number(pid))) listed.push({ pid: Number(pid), command: commandOf(Number(pid)) })
    users.set(Number(inode), listed)
  }
  return users
}

function commandOf(pid: number): string | undefined {
  const words = readText(`/proc/${pid}/cmdline`)?.split('\0').slice(0, -1)
  if (words === undefined || words.length === 0) return undefined
  const script = /^node|^nodejs/.test(path.basename(words[0]!)) ? words.slice(1).find((word) => !word.startsWith('-')) : words[0]
  return path.basename(script ?? words[0]!)
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined // no such process, or not for us to see
  }
}
