// How a failure of nydusify is told, and with which exit code.

import { isCoded } from '../../core/errors.ts'
import { refusalOf, REFUSALS } from '../../image/index.ts'
import { EXIT, explain } from '../conventions.ts'
import { log } from './log.ts'
import { Interrupted } from '../signals.ts'

/** 1; for a refused kind of image the code of its row; after a signal 128 + its number. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitCode
  const reason = refusalOf(error)
  return reason === undefined ? EXIT.failed : REFUSALS[reason].exitCode
}

/** Prints `error` and returns its exit code. */
export function reportFailure(error: unknown): number {
  log.fatal(error instanceof Interrupted || isCoded(error) ? explain(error).replace(/^Error: /, '') : explain(error))
  return exitCodeOf(error)
}
