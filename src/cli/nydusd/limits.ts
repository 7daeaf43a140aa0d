// --rlimit-nofile. Node has raised the soft limit to the hard one already; raising the hard limit needs a privilege that containers lack,
// and a daemon that cannot is no failure (COMPAT: upstream exits with EPERM, shared/reference/upstream-wrong.md).

import { readFileSync } from 'node:fs'
import { isSystemError } from '../../core/errors.ts'

/** Raises the limit of open files beside whatever else happens; `warn` hears it when that is not possible. */
export async function raiseFileLimit(wanted: number, warn: (message: string) => void): Promise<void> {
  let hard: number
  try {
    hard = hardLimit()
  } catch (error) {
    if (!isSystemError(error, 'EMFILE', 'ENFILE')) throw error
    warn('no file can be opened any more: the limit of open files is reached')
    return
  }
  if (wanted === 0 || hard >= wanted) return
  const failed = (why: string): void => warn(`open files stay limited to ${hard}, not ${wanted}: ${why}`)
  const { spawn } = await import('node:child_process')
  const child = spawn('prlimit', ['--pid', String(process.pid), `--nofile=${wanted}:${wanted}`], { stdio: 'ignore' })
  child.once('error', (error) => failed(error.message))
  child.once('exit', (status) => { if (status !== 0) failed('not permitted') })
  child.unref()
}

function hardLimit(): number {
  const value = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1]
  return value === undefined || value === 'unlimited' ? Number.POSITIVE_INFINITY : Number(value)
}
