// Negative results of the addon become errors with a name: `mknod /x: EPERM`.

import { constants } from 'node:os'
import { toText } from '../core/byte-string.ts'
import { CodedError, hasCode } from '../core/errors.ts'

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]))

/** `EPERM` for 1 and -1; `errno 4711` for a number without a name. */
export function errnoName(errno: number): string {
  return NAMES.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`
}

/** NATIVE_SYSCALL with context {syscall, errno (positive), errnoName, path}. `path` is a byte string; `result` a negative errno or a positive one. */
export function syscallError(result: number, syscall: string, path?: string, options?: ErrorOptions): CodedError {
  const shown = path === undefined ? undefined : toText(path)
  const name = errnoName(result)
  return new CodedError('NATIVE_SYSCALL', `${syscall}${shown === undefined ? '' : ` ${shown}`}: ${name}`,
    { syscall, errno: Math.abs(result), errnoName: name, path: shown }, options)
}

/** `result` when it is not negative. @throws CodedError NATIVE_SYSCALL otherwise. */
export function checked(result: number, syscall: string, path?: string): number {
  if (result < 0) throw syscallError(result, syscall, path)
  return result
}

/** `result` when it is bytes. @throws CodedError NATIVE_SYSCALL when it is a negative errno. */
export function checkedBytes(result: Uint8Array | number, syscall: string, path?: string): Uint8Array {
  if (typeof result === 'number') throw syscallError(result, syscall, path)
  return result
}

/** Whether `error` is a NATIVE_SYSCALL of that errno, given by its name (`ENOENT`). */
export function hasErrno(error: unknown, name: string): boolean {
  return hasCode(error, 'NATIVE_SYSCALL') && error.context['errnoName'] === name
}

/** The positive `errno` of an Error that the addon threw or rejected with; undefined for any other error. */
export function addonErrno(error: unknown): number | undefined {
  return error instanceof Error && 'errno' in error && typeof error.errno === 'number' ? error.errno : undefined
}
