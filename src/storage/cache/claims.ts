// Who fetches a chunk, as one 32-bit word in shared memory: 22 bits of process id, 10 bits of its start time. A claim saves a second fetch
// and nothing else: data is verified and written idempotently, so a claim that is broken wrongly costs a request, never a byte.

import { readFileSync } from 'node:fs'

const PID_BITS = 22
const PID_MASK = (1 << PID_BITS) - 1
const START_MASK = 0x3ff

let own: number | undefined

/** The claim of this process, never 0. */
export function ownClaim(): number {
  own ??= claimOf(process.pid, startTimeOf(process.pid) ?? 0)
  return own
}

/** Whether the process behind `claim` lives: the same id with the same start time. */
export function isClaimAlive(claim: number): boolean {
  const pid = claim & PID_MASK
  const start = startTimeOf(pid)
  return start !== undefined && claimOf(pid, start) === claim
}

function claimOf(pid: number, startTime: number): number {
  return (((startTime & START_MASK) << PID_BITS) | (pid & PID_MASK)) >>> 0
}

/** Clock ticks since boot. SPEC: proc_pid_stat(5), field 22; the command in field 2 may hold blanks and parentheses. */
function startTimeOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  } catch {
    return undefined // ENOENT or ESRCH: no such process
  }
}
