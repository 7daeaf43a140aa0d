// Global setup of the system project: the run fails when it leaves a mount, a loop device or one of our daemons behind.

import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** How long ended tests' processes may take to go, in milliseconds. */
const GRACE = 5000

function read(path: string): string {
  try { return readFileSync(path, 'latin1') } catch { return '' } // gone between listing and reading, or not ours to read
}

/** Mounts, bound loop devices and running nydusd/nydusify processes, one line each. */
export function inventory(): Set<string> {
  const mounts = read('/proc/self/mountinfo').split('\n').filter(Boolean).map((line) => `mount ${line.split(' ')[4]} (${line.split(' ')[0]})`)
  const loops = readdirSync('/sys/block').filter((name) => name.startsWith('loop')).flatMap((name) => {
    const file = read(`/sys/block/${name}/loop/backing_file`).trim()
    return file ? [`loop device ${name} of ${file}`] : []
  })
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).flatMap((pid) => {
    const argv = read(`/proc/${pid}/cmdline`).split('\0')
    const ours = argv.slice(0, 2).some((word) => /(^|\/)(nydusd|nydusify)(\.js)?$/.test(word))
    return ours ? [`process ${pid}: ${argv.join(' ').trim()}`] : []
  })
  return new Set([...mounts, ...loops, ...processes])
}

/** Remembers what is there; the function returned compares at the end. */
export function setup(): () => Promise<void> {
  const before = inventory()
  return async () => {
    const left = () => [...inventory()].filter((line) => !before.has(line))
    for (const end = Date.now() + GRACE; left().length > 0 && Date.now() < end;) await sleep(100)
    const lines = left()
    if (lines.length === 0) return
    process.exitCode = 1
    throw new Error(`the tests left behind:\n  ${lines.join('\n  ')}`)
  }
}
