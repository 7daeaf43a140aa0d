// nydusd --self-heal: the process that its parent sees is a small holder; the server behind it may die at any time.
// STORM_ROUNDS makes the storms longer (scripts/storm.sh).

import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { VECTORS } from '../support/expect.ts'
import { eventually, pause, runNydusd, Scratch, startNydusd } from '../support/nydusd.ts'
import { isRunning, killServer, serverOf } from '../support/self-heal.ts'
import { GAPS, report, storm, stormImage, Supervised } from '../support/storm.ts'

const ROUNDS = Number(process.env['STORM_ROUNDS'] ?? 10)
const BOOT = path.join(VECTORS, 'v6-small-zstd/image.boot')
const image = (scratch: Scratch): string[] => ['--self-heal', '--bootstrap', BOOT, '--config', scratch.config()]

describe('nydusd --self-heal', () => {
  it.each([['from the cache', true], ['from the backend', false]] as const)('goes on without an error or a wrong byte when its server is killed at any moment, serving %s', async (what, cached) => {
    using scratch = new Scratch()
    const { source, args } = stormImage(scratch, { cached })
    await using daemon = await startNydusd(scratch, ['--self-heal', ...args])
    const result = await storm(scratch, { source, args }, { rounds: ROUNDS, round: async ({ number, freeze }) => await killServer(daemon, number % 2 === 0 ? freeze : undefined) })
    report(`self-heal ${what}`, result, GAPS.kill)
    expect(result.wrong).toEqual([])
    expect(result.inflightKills).toBeGreaterThanOrEqual(Math.floor(ROUNDS / 2))
    expect(result.operations).toBeGreaterThan(ROUNDS * 8)
    expect(Math.max(...result.gaps)).toBeLessThan(20_000)
  }, 60_000 + ROUNDS * 10_000)

  it('is seen as a process of at most 2 MiB, whose watchers hear nothing of a server\'s death', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    expect(Number(/Rss:\s+(\d+) kB/.exec(readFileSync(`/proc/${daemon.pid}/smaps_rollup`, 'latin1'))?.[1])).toBeLessThanOrEqual(2048)
    const watcher = connect(scratch.socket)
    const heard: string[] = []
    watcher.setEncoding('utf8').on('data', (text: string) => heard.push(text)).on('end', () => heard.push('end')).on('error', () => heard.push('error'))
    await pause(100)
    const held = readdirSync(scratch.mountpoint).length
    for (let i = 0; i < 3; i++) await killServer(daemon)
    expect(heard).toEqual([])
    expect(readdirSync(scratch.mountpoint).length).toBe(held)
    watcher.write('GET /api/v1/daemon HTTP/1.1\r\nHost: x\r\n\r\n') // and the same connection is still good for a request
    await eventually(() => heard.join('').includes('RUNNING'), 'an answer on the old connection')
    await endOf(watcher)
  })

  it('answers many requests at once, and those that come while there is no server when there is one again', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    const server = await serverOf(daemon)
    process.kill(server, 'SIGSTOP') // requests are given to a server that reads none of them any more
    const answering = Promise.all(Array.from({ length: 20 }, async () => await daemon.ask('GET', '/api/v1/daemon').then(({ status }) => status, () => 0)))
    await pause(100)
    process.kill(server, 'SIGKILL')
    const answers = await Promise.all(Array.from({ length: 20 }, async () => await daemon.ask('GET', '/api/v1/daemon').then(({ status }) => status, () => 0)))
    expect([...await answering, ...answers]).toEqual(Array(40).fill(200))
    expect(await isRunning(daemon)).toBe(true)
  })

  it.each(['SIGTERM', 'SIGINT'] as const)('unmounts and ends with 0 on %s, with a server that serves, hangs, or is just not there', async (signal) => {
    for (const server of ['serves', 'hangs', 'is dead'] as const) {
      if (server === 'hangs' && signal === 'SIGINT') continue
      using scratch = new Scratch()
      await using daemon = await startNydusd(scratch, image(scratch))
      const pid = await serverOf(daemon)
      if (server !== 'serves') process.kill(pid, server === 'hangs' ? 'SIGSTOP' : 'SIGKILL')
      if (server === 'hangs') { // the holder gives it some time, then ends alone
        daemon.child.kill(signal)
        await pause(500)
        process.kill(pid, 'SIGKILL')
      }
      daemon.child.kill(signal)
      expect(await daemon.ended, server).toMatchObject({ status: 0 })
      expect([scratch.isMounted(), existsSync(scratch.socket)]).toEqual([false, false])
    }
  })

  it('ends by itself when somebody unmounts it, and on exit by API, leaving the mount then', async () => {
    using scratch = new Scratch()
    {
      await using daemon = await startNydusd(scratch, image(scratch))
      execFileSync('umount', [scratch.mountpoint])
      expect(await daemon.ended).toMatchObject({ status: 0 })
    }
    await using daemon = await startNydusd(scratch, image(scratch))
    await killServer(daemon)
    await daemon.ask('PUT', '/api/v1/daemon/exit').catch(() => {})
    expect(await daemon.ended).toMatchObject({ status: 0 })
    expect([scratch.isMounted(), existsSync(scratch.socket)]).toEqual([true, false])
  })

  it('says what is wrong and ends with it: usage, an image, a mount point, a socket', async () => {
    using scratch = new Scratch()
    const config = scratch.config()
    expect(await runNydusd(['--self-heal', '--nonsense'])).toMatchObject({ status: 2, stderr: expect.stringMatching(/unexpected argument '--nonsense'/) })
    expect(await runNydusd(['--self-heal', '--mountpoint', scratch.mountpoint, '--bootstrap', '/proc/version', '--config', config])).toMatchObject({ status: 1, stderr: expect.stringMatching(/FORMAT_/) })
    expect(await runNydusd(['--self-heal', '--mountpoint', '/nonexistent/x', '--bootstrap', BOOT, '--config', config])).toMatchObject({ status: 1, stderr: expect.stringMatching(/SERVE_MOUNT/) })
    expect(await runNydusd(['--self-heal', '--mountpoint', scratch.mountpoint, '--apisock', '/nonexistent/x', '--bootstrap', BOOT, '--config', config])).toMatchObject({ status: 1, stderr: expect.stringMatching(/cannot listen/) })
    expect(scratch.isMounted()).toBe(false)
  })

  it('leaves no server behind when it is killed itself', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, image(scratch))
    const server = await serverOf(daemon)
    daemon.child.kill('SIGKILL')
    await daemon.ended
    await eventually(() => !existsSync(`/proc/${server}`), 'the server is gone')
    expect(scratch.isMounted()).toBe(true)
  })

  it('goes on in a new log file on SIGHUP, as a daemon without a holder does', async () => {
    for (const options of [['--self-heal'], []]) {
      using scratch = new Scratch()
      const log = path.join(scratch.path, 'nydusd.log')
      await using daemon = await startNydusd(scratch, [...options, '--bootstrap', BOOT, '--config', scratch.config(), '--log-file', log, '--log-level', 'trace'])
      renameSync(log, `${log}.old`)
      daemon.child.kill('SIGHUP')
      await eventually(() => existsSync(log), 'there is a new log file')
      writeFileSync(`${log}.old`, '')
      daemon.child.kill('SIGTERM')
      await daemon.ended
      expect(readFileSync(log, 'utf8')).toMatch(/"to":"STOPPED"/)
      expect(readFileSync(`${log}.old`, 'utf8')).toBe('')
    }
  })

  it('is continued by another one from a supervisor, when the holder itself is killed and in a hot upgrade', async () => {
    using scratch = new Scratch()
    const { source, args } = stormImage(scratch, { cached: true })
    await using supervised = await Supervised.start(scratch, ['--self-heal', ...args])
    const result = await storm(scratch, { source, args }, { rounds: 6, round: async ({ number }) => {
      if (number % 3 === 0) return await supervised.failover()
      return number % 3 === 1 ? await killServer(supervised.daemon) : await supervised.upgrade()
    } })
    report('self-heal and a supervisor', result, GAPS.kill)
    expect(result.wrong).toEqual([])
  })
})

async function endOf(socket: Socket): Promise<void> {
  socket.destroy()
  await pause(10)
}
