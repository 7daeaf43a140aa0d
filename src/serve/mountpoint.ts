// The place where a file system appears: what is mounted there, recovering one left dead, read-ahead.
// SPEC: proc(5) mountinfo; spec-surface.md B.2.

import { readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { publish } from '../core/diagnostics.ts'
import { CodedError } from '../core/errors.ts'
import { native } from '../native/load.ts'
import { ERRNO } from './errno.ts'

/** SPEC: umount2(2). */
const MNT_DETACH = 2
/** LIMIT: dead mounts stacked on one directory that are cleared before giving up; each failed start leaves at most one. */
const MAX_DEAD_MOUNTS = 16

/**
 * The canonical path of `mountpoint`, an existing directory. A mount whose daemon died (ENOTCONN) is detached first.
 * @throws SERVE_MOUNT
 */
export function prepareMountpoint(mountpoint: string): string {
  for (let dead = 0; dead < MAX_DEAD_MOUNTS; dead++) {
    try {
      const canonical = realpathSync(mountpoint)
      if (!statSync(canonical).isDirectory()) throw new CodedError('SERVE_MOUNT', `${mountpoint} is not a directory`, { mountpoint })
      return canonical
    } catch (error) {
      if (nodeErrno(error) !== ERRNO.ENOTCONN) throw asMountError(mountpoint, error)
      publish('serve:warning:raised', { message: `${mountpoint} was left behind by a daemon that died: detaching it` })
      detach(resolveDead(mountpoint))
    }
  }
  throw new CodedError('SERVE_MOUNT', `${mountpoint} is covered by more than ${MAX_DEAD_MOUNTS} dead mounts`, { mountpoint })
}

/** Unmounts; detaches where it is in use. @throws SERVE_MOUNT */
export function unmount(mountpoint: string): void {
  const result = native().umount(Buffer.from(mountpoint), 0)
  if (result === 0 || result === -ERRNO.EINVAL) return // EINVAL: not mounted any more
  if (result !== -ERRNO.EBUSY) throw new CodedError('SERVE_MOUNT', `cannot unmount ${mountpoint}: errno ${-result}`, { mountpoint, errno: -result })
  detach(mountpoint)
}

/** Detaches, whether it is in use or not. @throws SERVE_MOUNT */
export function detach(mountpoint: string): void {
  const result = native().umount(Buffer.from(mountpoint), MNT_DETACH)
  if (result < 0) throw new CodedError('SERVE_MOUNT', `cannot detach ${mountpoint}: errno ${-result}`, { mountpoint, errno: -result })
}

/** A mount as the kernel lists it. `device`: `major:minor`. */
export interface ListedMount { readonly device: string; readonly type: string; readonly source: string }

/** What is mounted on the canonical path `mountpoint`, the topmost last. Asks no file system anything. */
export function mountsOn(mountpoint: string): ListedMount[] {
  const wanted = Buffer.from(mountpoint).toString('latin1')
  return readFileSync('/proc/self/mountinfo', 'latin1').split('\n').flatMap((line) => {
    const [before, after = ''] = line.split(' - ')
    const [, , device, , target] = before!.split(' ')
    const [type = '', source = ''] = after.split(' ')
    return device !== undefined && target !== undefined && unescapeOctal(target) === wanted ? [{ device, type, source: unescapeOctal(source) }] : []
  })
}

/** `major:minor` of what is mounted last on the canonical path `mountpoint`; undefined when nothing is. Asks no file system anything. */
export function mountedDevice(mountpoint: string): string | undefined {
  return mountsOn(mountpoint).at(-1)?.device
}

/** Raises the kernel's read-ahead for the device. Root may; for others a smaller read-ahead is no failure. */
export function setReadahead(device: string, kib: number): void {
  try {
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(kib))
  } catch (error) {
    publish('serve:warning:raised', { message: `read-ahead stays at the kernel's default: ${error instanceof Error ? error.message : String(error)}` })
  }
}

// lstat of the dead directory itself fails, so resolve its parent.
function resolveDead(mountpoint: string): string {
  const absolute = path.resolve(mountpoint)
  try {
    return path.join(realpathSync(path.dirname(absolute)), path.basename(absolute))
  } catch (error) {
    throw asMountError(mountpoint, error)
  }
}

function asMountError(mountpoint: string, error: unknown): Error {
  if (nodeErrno(error) === undefined) return error instanceof Error ? error : new Error(String(error))
  return new CodedError('SERVE_MOUNT', `cannot use ${mountpoint} as a mountpoint: ${error instanceof Error ? error.message : ''}`, { mountpoint }, { cause: error })
}

function nodeErrno(error: unknown): number | undefined {
  return error instanceof Error && 'errno' in error && typeof error.errno === 'number' ? Math.abs(error.errno) : undefined
}

// mountinfo writes space, tab, newline and backslash as \ooo
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
