// File operations that Node lacks, with byte-string paths and coded errors. None follows a symbolic link at the end of its path.

import { byteString, bytesOf, compareBytes } from '../core/byte-string.ts'
import { addonErrno, checked, checkedBytes, hasErrno, syscallError } from './errno.ts'
import { native } from './load.ts'

/** All extended attributes, sorted by name; none on a file system without them. @throws CodedError NATIVE_SYSCALL. */
export function readXattrs(path: string): [name: string, value: Uint8Array][] {
  const target = bytesOf(path)
  let names: Uint8Array
  try {
    names = checkedBytes(native().listXattr(target), 'llistxattr', path)
  } catch (error) {
    if (hasErrno(error, 'EOPNOTSUPP') || hasErrno(error, 'ENOTSUP')) return []
    throw error
  }
  return byteString(names).split('\0').slice(0, -1).sort(compareBytes)
    .map((name) => [name, checkedBytes(native().getXattr(target, bytesOf(name)), `lgetxattr ${name}`, path)])
}

/** @throws CodedError NATIVE_SYSCALL. */
export function setXattr(path: string, name: string, value: Uint8Array): void {
  checked(native().setXattr(bytesOf(path), bytesOf(name), value), `lsetxattr ${name}`, path)
}

/** A device, fifo or socket: `mode` with its type bits, subject to the umask; `rdev` as in lstat. @throws CodedError NATIVE_SYSCALL. */
export function makeNode(path: string, { mode, rdev }: { readonly mode: number; readonly rdev: number }): void {
  checked(native().mknod(bytesOf(path), mode, rdev), 'mknod', path)
}

/** Sets mtime and atime. @throws CodedError NATIVE_SYSCALL. */
export function setTime(path: string, { seconds, nanoseconds }: { readonly seconds: number; readonly nanoseconds: number }): void {
  checked(native().utimens(bytesOf(path), seconds, nanoseconds), 'utimensat', path)
}

/** Frees the blocks of a range; the file reads as zeros there and keeps its size. @throws CodedError NATIVE_SYSCALL. */
export function punchHole(fd: number, { offset, length }: { readonly offset: number; readonly length: number }): void {
  const FALLOC_FL_KEEP_SIZE = 1
  const FALLOC_FL_PUNCH_HOLE = 2
  checked(native().fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length), 'fallocate')
}

/**
 * The ranges of a file that hold data, in order (holes lie between them). A file system without holes gives one range.
 * @throws CodedError NATIVE_SYSCALL.
 */
export function* dataRanges(fd: number, size: number): Generator<{ readonly offset: number; readonly length: number }> {
  const SEEK_DATA = 3
  const SEEK_HOLE = 4
  for (let at = 0; at < size;) {
    const offset = native().lseek(fd, at, SEEK_DATA)
    if (offset < 0) {
      const error = syscallError(offset, 'lseek')
      if (hasErrno(error, 'ENXIO')) return // no data behind `at`
      throw error
    }
    if (offset >= size) return
    const end = Math.min(checked(native().lseek(fd, offset, SEEK_HOLE), 'lseek'), size)
    yield { offset, length: end - offset }
    at = end
  }
}

export interface MapOptions {
  /** Multiple of the page size. */
  readonly offset: number
  readonly length: number
  readonly writable: boolean
}

/** A shared mapping of a file that has at least those bytes. @throws CodedError NATIVE_SYSCALL (ENODATA when it is shorter). */
export function mapFile(fd: number, { offset, length, writable }: MapOptions): ArrayBuffer {
  try {
    return native().mmap(fd, offset, length, writable)
  } catch (error) {
    const errno = addonErrno(error)
    if (errno === undefined) throw error
    throw syscallError(errno, 'mmap', undefined, { cause: error })
  }
}
