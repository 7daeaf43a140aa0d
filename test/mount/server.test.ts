// nydusd --server SOCKET: one server process behind the holders of many daemons.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { VECTORS } from '../support/expect.ts'
import { eventually, pause, type RunningDaemon, runNydusd, Scratch, startNydusd } from '../support/nydusd.ts'
import { clock } from '../support/readers.ts'
import { isRunning, pssOf, serverOn } from '../support/self-heal.ts'
import { storm, stormImage } from '../support/storm.ts'

/** Daemons at once. */
const DAEMONS = Number(process.env['SERVER_DAEMONS'] ?? 100)
const CASES = ['v6-small-zstd', 'v6-small-none', 'v6-rich-zstd', 'v6-rich-lz4', 'v6-rich-chunk64k', 'v6-small-chunk4k', 'v6-small-sha256-lz4', 'v6-prefetch-fs', 'base-image', 'blob-cache-dir']

let directory: string
let socket: string

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'nydus-server-'))
  socket = path.join(directory, 'server')
})

afterEach(() => {
  const server = serverPid()
  if (server !== undefined) process.kill(server, 'SIGKILL')
  rmSync(directory, { recursive: true, force: true })
})

const serverPid = (): number | undefined => serverOn(socket)

describe('nydusd --server', () => {
  it(`serves ${DAEMONS} daemons with 350 MiB in all, and brings all of them back when it is killed`, async () => {
    using shared = new Scratch()
    const config = shared.config()
    const daemons: { daemon: RunningDaemon; mountpoint: string }[] = []
    const places: Scratch[] = []
    try {
      for (let i = 0; i < DAEMONS; i++) {
        const scratch = new Scratch()
        places.push(scratch)
        const daemon = await startNydusd(scratch, ['--server', socket, '--bootstrap', path.join(VECTORS, CASES[i % CASES.length]!, 'image.boot'), '--config', config])
        daemons.push({ daemon, mountpoint: scratch.mountpoint })
      }
      const list = (): string[] => places.map(({ mountpoint }) => readdirSync(mountpoint).join())
      const before = list()
      const server = serverPid()!
      const total = pssOf(server) + daemons.reduce((sum, { daemon }) => sum + pssOf(daemon.pid), 0)
      console.log(`${DAEMONS} daemons: ${total.toFixed(0)} MiB PSS in all, ${pssOf(server).toFixed(0)} of them the server`)
      expect(total).toBeLessThan(350)
      const at = clock()
      process.kill(server, 'SIGKILL')
      execFileSync('ls', places.map(({ mountpoint }) => mountpoint)) // waits for the next server
      for (const { daemon } of daemons) await eventually(() => isRunning(daemon), 'the daemon is back', 30_000)
      console.log(`all are back after ${(clock() - at).toFixed(0)} ms`)
      expect(list()).toEqual(before)
      expect(serverPid()).not.toBe(server)
    } finally {
      for (const { daemon } of daemons) daemon.child.kill('SIGTERM')
      for (const { daemon } of daemons) await daemon.ended
      for (const scratch of places) {
        expect([scratch.isMounted(), existsSync(scratch.socket)]).toEqual([false, false])
        scratch[Symbol.dispose]()
      }
    }
  }, 180_000)

  it('is started once by daemons that start together, each with its own directory, credentials and end', async () => {
    using shared = new Scratch()
    const config = shared.config()
    const places = Array.from({ length: 8 }, () => new Scratch())
    const daemons = await Promise.all(places.map((scratch) => startNydusd(scratch, ['--server', socket, '--bootstrap', path.join(VECTORS, 'v6-small-zstd/image.boot'), '--config', config])))
    try {
      const server = serverPid()!
      process.kill(server, 0)
      daemons[0]!.child.kill('SIGKILL') // its watchers see a daemon die; its mount dies with it
      await daemons[0]!.ended
      // statfs is always asked of the server; a directory that was listed once the kernel may know by heart
      await eventually(() => { try { statfsSync(places[0]!.mountpoint); return false } catch { return true } }, 'the mount of the killed holder is dead', 30_000)
      execFileSync('umount', [places[1]!.mountpoint])
      expect(await daemons[1]!.ended).toMatchObject({ status: 0 })
      await daemons[2]!.ask('PUT', '/api/v1/daemon/exit')
      expect(await daemons[2]!.ended).toMatchObject({ status: 0 })
      expect(() => statfsSync(places[2]!.mountpoint)).toThrow(/ENOTCONN|not connected/)
      for (let i = 3; i < 8; i++) expect(readdirSync(places[i]!.mountpoint).length).toBeGreaterThan(0)
      expect(serverPid()).toBe(server)
      const refused = await runNydusd(['--server', socket, '--mountpoint', places[0]!.path, '--bootstrap', '/proc/version', '--config', config])
      expect(refused).toMatchObject({ status: 1, stderr: expect.stringMatching(/FORMAT_/) })
    } finally {
      for (const daemon of daemons) await daemon[Symbol.asyncDispose]()
      for (const scratch of places) scratch[Symbol.dispose]()
    }
  })

  it('may be killed at any moment under load', async () => {
    using scratch = new Scratch()
    const image = stormImage(scratch, { cached: true })
    await using daemon = await startNydusd(scratch, ['--server', socket, ...image.args])
    const result = await storm(scratch, image, { rounds: 4, round: async ({ number, freeze }) => {
      const server = serverPid()!
      if (number % 2 === 0) await freeze(server)
      const at = clock()
      process.kill(server, 'SIGKILL')
      await eventually(() => serverPid() !== server, 'it is dead')
      await eventually(() => isRunning(daemon), 'the next server serves', 30_000)
      return at
    } })
    console.log(`a shared server: gaps ${result.gaps.map(Math.round).join(' ')} ms, ${result.operations} operations`)
    expect(result.wrong).toEqual([])
    expect(result.inflightKills).toBeGreaterThanOrEqual(2)
  })

  it('is not there for a holder in another mount name space: a mount would appear where nobody looks', async () => {
    using scratch = new Scratch()
    await using daemon = await startNydusd(scratch, ['--server', socket])
    using other = new Scratch()
    mkdirSync(path.join(other.path, 'x'))
    expect(() => execFileSync('unshare', ['--mount', path.resolve(import.meta.dirname, '../../bin/nydusd'), '--server', socket, '--mountpoint', other.mountpoint], { stdio: 'pipe', timeout: 20_000 })).toThrow(/another mount name space/)
    expect(await isRunning(daemon)).toBe(true)
    await pause(1)
  })
})
