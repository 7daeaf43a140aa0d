// File system failures of layouts, archives and spools as one code.

import { CodedError, isCoded } from '../core/errors.ts'

/** Runs `action`; Node's own errors become REGISTRY_STORE with `what` and the errno name, others pass. */
export async function storing<T>(what: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (error) {
    throw storeError(what, error)
  }
}

/** `error` as REGISTRY_STORE if it is one of Node's system errors. */
export function storeError(what: string, error: unknown): unknown {
  if (isCoded(error) || !(error instanceof Error) || !('code' in error) || !('syscall' in error)) return error
  return new CodedError('REGISTRY_STORE', `${what}: ${String(error.code)}`, { errno: String(error.code) }, { cause: error })
}
