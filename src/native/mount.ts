// Mounting a file system of the kernel's own, off this thread.

import { constants } from 'node:os'
import { bytesOf } from '../core/byte-string.ts'
import { CodedError } from '../core/errors.ts'
import { addonErrno, syscallError } from './errno.ts'
import { native } from './load.ts'

/** SPEC: linux/mount.h MOUNT_ATTR_*. */
const MOUNT_ATTR_RDONLY = 1
const MOUNT_ATTR_NOATIME = 0x10
/** LIMIT: of the kernel, for the value of one option. */
export const MAX_OPTION_VALUE = 255

export interface FileSystemMount {
  readonly type: string
  /** In order; a key may come more than once. Without a value: a flag. Byte strings. */
  readonly options: readonly (readonly [key: string, value?: string])[]
  /** An existing directory. Byte string. */
  readonly target: string
}

/** Mounts, read-only. @throws CodedError NATIVE_SYSCALL; the message has the kernel's own words where it says some. */
export async function mountFileSystem({ type, options, target }: FileSystemMount): Promise<void> {
  const text = options.map(([key, value]) => `${value === undefined ? key : `${key}=${value}`}\0`).join('')
  try {
    await native().mountFileSystem(type, bytesOf(text), bytesOf(target), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME)
  } catch (error) {
    const errno = addonErrno(error)
    if (errno === undefined) throw error
    const words = error instanceof Error && 'path' in error ? String(error.path).replaceAll(/\s+/g, ' ').trim() : ''
    const failure = syscallError(errno, `mounting ${type}`, target, { cause: error })
    throw words === '' ? failure : new CodedError('NATIVE_SYSCALL', `${failure.message}; the kernel says: ${words}`, failure.context, { cause: error })
  }
}

/** Unmounts; one that is in use is detached, and lives on for those who use it. False when it was detached. @throws CodedError NATIVE_SYSCALL */
export async function unmountFileSystem(target: string): Promise<boolean> {
  const MNT_DETACH = 2
  try {
    await native().unmountFileSystem(bytesOf(target), 0)
    return true
  } catch (error) {
    const errno = addonErrno(error)
    if (errno !== constants.errno.EBUSY) throw errno === undefined ? error : syscallError(errno, 'umount', target, { cause: error })
  }
  try {
    await native().unmountFileSystem(bytesOf(target), MNT_DETACH)
    return false
  } catch (error) {
    const errno = addonErrno(error)
    throw errno === undefined ? error : syscallError(errno, 'umount', target, { cause: error })
  }
}
