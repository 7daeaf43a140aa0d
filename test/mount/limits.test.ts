// A daemon with little: few open files, a full disk for its cache, little memory.

import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmdirSync, statfsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { eventually, Scratch, startNydusd } from '../support/nydusd.ts'
import { stormImage } from '../support/storm.ts'

const PROGRAM = path.resolve(import.meta.dirname, '../../bin/nydusd')
/** Where memory is limited: SPEC cgroup-v2.rst, cgroup-v1/memory.rst. */
const CGROUP = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes')
  ? { directory: '/sys/fs/cgroup/memory', limit: 'memory.limit_in_bytes', events: 'memory.oom_control' }
  : { directory: '/sys/fs/cgroup', limit: 'memory.max', events: 'memory.events' }

function sameTree(a: string, b: string): void {
  execFileSync('diff', ['-r', a, b], { stdio: 'pipe' })
}

/** Runs nydusd with `wrapper` before it, and compares its mount with the source. */
async function servesWith(scratch: Scratch, wrapper: readonly string[], { source, args }: { readonly source: string; readonly args: readonly string[] }): Promise<void> {
  const [command, ...rest] = [...wrapper, PROGRAM, '--mountpoint', scratch.mountpoint, '--apisock', scratch.socket, '--log-file', path.join(scratch.path, 'nydusd.log'), ...args]
  const child = spawn(command!, rest, { stdio: 'inherit' })
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  try {
    await eventually(() => existsSync(scratch.socket), 'it serves', 30_000)
    sameTree(source, scratch.mountpoint)
    child.kill('SIGTERM')
    expect(await ended).toBe(0)
  } finally {
    child.kill('SIGKILL')
  }
}

describe('nydusd', () => {
  it('serves with 64 open files, and says that it would have liked more', async () => {
    using scratch = new Scratch()
    await servesWith(scratch, ['setpriv', '--bounding-set=-sys_resource', '--inh-caps=-sys_resource', 'prlimit', '--nofile=64:64'], stormImage(scratch, { cached: true }))
    expect(readFileSync(path.join(scratch.path, 'nydusd.log'), 'utf8')).toMatch(/open files stay limited to 64/)
  })

  it('serves on when the disk of its cache and of its log is full', async () => {
    using scratch = new Scratch()
    const image = stormImage(scratch, { cached: true })
    mkdirSync(scratch.cache)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', scratch.cache])
    try {
      await using daemon = await startNydusd(scratch, [...image.args, '--log-file', path.join(scratch.cache, 'nydusd.log')])
      sameTree(image.source, scratch.mountpoint)
      expect(statfsSync(scratch.cache).bfree).toBeLessThan(256)
      daemon.child.kill('SIGTERM')
      expect(await daemon.ended).toMatchObject({ status: 0 })
    } finally {
      execFileSync('umount', ['-l', scratch.cache])
    }
  })

  it.skipIf(!mayLimitMemory())('keeps less in memory where its cgroup allows less', async () => {
    using scratch = new Scratch()
    const group = path.join(CGROUP.directory, `nydus-test-${process.pid}`)
    mkdirSync(group)
    try {
      writeFileSync(path.join(group, CGROUP.limit), String(160 * 2 ** 20))
      await servesWith(scratch, ['sh', '-c', `echo $$ > ${group}/cgroup.procs; exec "$@"`, 'sh'], stormImage(scratch, { cached: false }))
      expect(readFileSync(path.join(group, CGROUP.events), 'utf8')).toMatch(/oom_kill 0/)
    } finally {
      await eventually(() => { try { rmdirSync(group); return true } catch { return false } }, 'the group is empty')
    }
  })
})

/** Whether this machine lets us make a cgroup (v2) with a memory limit. */
function mayLimitMemory(): boolean {
  try {
    const probe = path.join(CGROUP.directory, `nydus-probe-${process.pid}`)
    mkdirSync(probe)
    const may = existsSync(path.join(probe, CGROUP.limit))
    rmdirSync(probe)
    return may
  } catch {
    return false
  }
}
