// How errors of the network look to whoever reads blobs.

import { CodedError, isCoded, type ErrorCode } from '../../core/errors.ts'

const AS_STORAGE: Partial<Record<ErrorCode, ErrorCode>> = {
  REGISTRY_NOT_FOUND: 'STORAGE_NOT_FOUND',
  REGISTRY_DENIED: 'STORAGE_DENIED',
  REGISTRY_UNREACHABLE: 'STORAGE_UNREACHABLE',
  REGISTRY_DIGEST_MISMATCH: 'STORAGE_SHORT_READ',
  REGISTRY_PROTOCOL: 'STORAGE_UNREACHABLE',
}

/** Throws `error`, with a code of this layer where it has one of the registry's. */
export function rethrowAsStorage(error: unknown): never {
  const code = isCoded(error) ? AS_STORAGE[error.code] : undefined
  if (code === undefined || !isCoded(error)) throw error
  throw new CodedError(code, error.message, error.context, { cause: error })
}
