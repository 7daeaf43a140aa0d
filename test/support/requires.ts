// What a test needs of the machine. Where it is missing the test is skipped with a printed reason; NYDUS_TEST_NO_SKIP=1 (scripts/test.sh) makes that a failure.

import { spawnSync } from 'node:child_process'

/** `true` when `present`; else prints `reason` and gives `false`, or throws with NYDUS_TEST_NO_SKIP=1. */
function requirement(present: boolean, reason: string): boolean {
  if (present) return true
  if (process.env['NYDUS_TEST_NO_SKIP'] === '1') throw new Error(`${reason}; nothing may be skipped (NYDUS_TEST_NO_SKIP=1)`)
  process.stderr.write(`skipped: ${reason}\n`)
  return false
}

/** For `describe.runIf(...)`: whether the machine has what the tests need. */
export const requires = {
  /** The tests run as root. */
  get root(): boolean { return requirement(process.getuid?.() === 0, 'needs root') },
  /** `name` is found in PATH. */
  program: (name: string): boolean => requirement(spawnSync('sh', ['-c', 'command -v "$1"', 'sh', name]).status === 0, `needs the program ${name}`),
  /** Anything else: `reason` says what is needed. */
  that: requirement,
}
