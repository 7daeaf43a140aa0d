// Global setup of the system project: a run works in a temporary directory of its own, and fails when it leaves a mount, a loop device, a process
// or a file behind. Other runs and daemons of the machine are none of its business.

import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** How long ended tests' processes may take to go, in milliseconds. */
const GRACE = 5000
/** What every process of a run has in its environment. */
const MARK = 'NYDUS_TEST_RUN'
/** The process that has made the directory. */
const OWNER = 'NYDUS_TEST_OWNER'

function read(file: string): string {
  try { return readFileSync(file, 'latin1') } catch { return '' } // gone between listing and reading, or not ours to read
}

/** What there is of the run in `directory`, one line each: mounts below it, loop devices of its files, processes that were started by it, files. */
export function leftovers(directory: string): string[] {
  const isInside = (place: string | undefined): boolean => place?.startsWith(`${directory}/`) ?? false
  const mounts = read('/proc/self/mountinfo').split('\n').map((line) => line.split(' ')[4]).filter(isInside).map((place) => `mount ${place}`)
  const loops = readdirSync('/sys/block').filter((name) => name.startsWith('loop')).map((name) => `${name} ${read(`/sys/block/${name}/loop/backing_file`).trim()}`)
    .filter((line) => isInside(line.slice(line.indexOf(' ') + 1))).map((line) => `loop device ${line}`)
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && isDaemonOf(name, directory)).map((pid) => `process ${pid}: ${read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')}`)
  return [...mounts, ...loops, ...processes, ...readdirSync(directory).map((name) => `file ${name}`)]
}

/** Vitest's own workers have the mark too, and end after this check. */
function isDaemonOf(pid: string, directory: string): boolean {
  return read(`/proc/${pid}/environ`).split('\0').includes(`${MARK}=${directory}`) && !read(`/proc/${pid}/cmdline`).includes('vitest')
}

/** Makes the run's temporary directory; the function returned looks at what is left, and removes it. Several projects of one run share one directory. */
export function setup(): (() => Promise<void>) | undefined {
  if (process.env[OWNER] === String(process.pid)) return undefined
  process.env[OWNER] = String(process.pid)
  const before = process.env['TMPDIR']
  // short: sockets live in it
  const directory = mkdtempSync(path.join(tmpdir(), 'nyt-'))
  chmodSync(directory, 0o1777) // other users' too, as its parent
  process.env['TMPDIR'] = directory
  process.env[MARK] = directory
  return async () => {
    for (const end = Date.now() + GRACE; leftovers(directory).length > 0 && Date.now() < end;) await sleep(100)
    const lines = leftovers(directory)
    if (before === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = before
    if (!lines.some((line) => line.startsWith('mount'))) rmSync(directory, { recursive: true, force: true })
    if (lines.length === 0) return
    process.exitCode = 1
    throw new Error(`the tests left behind:\n  ${lines.join('\n  ')}`)
  }
}
