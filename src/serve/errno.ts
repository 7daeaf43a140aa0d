// Which errno a file system answers for each error code. A new code without a row does not compile.

import { constants } from 'node:os'
import type { ErrorCode } from '../core/errors.ts'
import { isCoded } from '../core/errors.ts'

/** The errno values that a file system answers with (positive, as the kernel numbers them on this platform). */
export const ERRNO = constants.errno

const { EACCES, EINTR, EINVAL, EIO, EISDIR, ELOOP, ENODATA, ENOENT, ENOTDIR, ESTALE } = ERRNO

// Whatever says "the bytes cannot be had or trusted" is EIO: the one errno every program treats as "this read failed".
const ERRNO_OF: Readonly<Record<ErrorCode, number>> = {
  FORMAT_BAD_MAGIC: EIO, FORMAT_TRUNCATED: EIO, FORMAT_OUT_OF_RANGE: EIO, FORMAT_INVALID: EIO, FORMAT_UNSUPPORTED: EIO, FORMAT_DIGEST_MISMATCH: EIO,
  TAR_INVALID: EIO, TAR_TRUNCATED: EIO, TAR_UNSAFE_PATH: EIO,
  CODEC_CORRUPT: EIO,
  NATIVE_UNAVAILABLE: EIO, NATIVE_SYSCALL: EIO,
  STORAGE_DIGEST_MISMATCH: EIO, STORAGE_UNREACHABLE: EIO, STORAGE_NOT_FOUND: EIO, STORAGE_DENIED: EIO, STORAGE_SHORT_READ: EIO, STORAGE_CACHE_IO: EIO,
  RAFS_NOT_FOUND: ENOENT, RAFS_NOT_DIRECTORY: ENOTDIR, RAFS_IS_DIRECTORY: EISDIR, RAFS_NOT_SYMLINK: EINVAL, RAFS_LOOP: ELOOP, RAFS_NO_XATTR: ENODATA,
  BUILD_INVALID_OPTION: EINVAL, BUILD_SOURCE: EIO, BUILD_INCONSISTENT: EIO, BUILD_OUTPUT: EIO,
  CONFIG_INVALID: EINVAL,
  REGISTRY_BAD_REFERENCE: EINVAL, REGISTRY_NOT_FOUND: EIO, REGISTRY_DENIED: EACCES, REGISTRY_UNREACHABLE: EIO, REGISTRY_PROTOCOL: EIO,
  REGISTRY_DIGEST_MISMATCH: EIO, REGISTRY_STORE: EIO,
  IMAGE_UNSUPPORTED: EIO, IMAGE_INVALID: EIO, IMAGE_DIFFERS: EIO,
  SERVE_MOUNT: EIO, SERVE_NOT_MOUNTED: ENOENT, SERVE_ALREADY_MOUNTED: EIO, SERVE_UNSUPPORTED: EIO, SERVE_NO_METRICS: ENOENT, SERVE_STATE: EIO, SERVE_NOT_READY: EIO,
  SERVE_SUPERVISOR: EIO, SERVE_BAD_STATE_FILE: EIO, SERVE_BAD_REQUEST: EINVAL, SERVE_BAD_GUEST: EINVAL, SERVE_STALE_NODE: ESTALE,
  SERVE_KEEPER: EIO,
}

/** The errno for anything thrown while a request was served: an abort is EINTR, a bug is EIO. */
export function errnoOf(error: unknown): number {
  if (isCoded(error)) return ERRNO_OF[error.code]
  return error instanceof Error && error.name === 'AbortError' ? EINTR : EIO
}
