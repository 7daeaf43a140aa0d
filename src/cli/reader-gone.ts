// What a command does when whoever reads its output has gone (`nydusctl --help | head -1`).

import { isSystemError } from '../core/errors.ts'

/** As the shell reports a program that SIGPIPE ended: 128 + 13. */
const ENDED_BY_PIPE = 141

/** Ends the process quietly once nobody reads its output any more, as SIGPIPE ends other programs; Node ignores that signal. Not for a daemon, which goes on. */
export function endWithoutReader(): void {
  process.stdout.on('error', (error: unknown) => {
    if (!isSystemError(error, 'EPIPE')) throw error
    process.exit(ENDED_BY_PIPE)
  })
}
