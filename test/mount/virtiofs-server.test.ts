// nydusd virtiofs --server: one server process behind the devices of many machines.

import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { native } from '../../src/native/load.ts'
import { expectOfCase, VECTORS } from '../support/expect.ts'
import { GuestLoad, sha256Of } from '../support/guest-files.ts'
import { eventually, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { isRunning, pssOf, serverOn } from '../support/self-heal.ts'
import { TestFrontEnd } from '../support/vhost-front-end.ts'
import { GUEST_BASE } from '../support/virtio-driver.ts'

/** Machines at once. */
const MACHINES = Number(process.env['SERVER_DAEMONS'] ?? 100)
/** How many are started at a time. */
const BATCH = 10
/** LIMIT: a read takes some milliseconds; one that waited for another machine's backend would take as long as that. */
const DELAY_MS = 3000
const CASES = ['v6-small-zstd', 'v6-rich-zstd', 'v6-rich-chunk64k']
const boot = (index: number): string => path.join(VECTORS, CASES[index % CASES.length]!, 'image.boot')
const fileOf = (index: number): { readonly path: string; readonly sha256: string } => {
  const file = expectOfCase(CASES[index % CASES.length]!)!.find(({ type, size, path: name }) => type === 'reg' && size! > 0 && /^[\x20-\x7e]*$/.test(name))!
  return { path: file.path, sha256: file.sha256! }
}

interface Machine { readonly scratch: Scratch; readonly daemon: RunningDaemon; readonly guest: TestFrontEnd }

describe('nydusd virtiofs --server', () => {
  it(`serves ${MACHINES} machines with 350 MiB in all, none of which waits for another, and goes on for all of them when it is killed`, { timeout: 180_000 }, async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'nydus-server-'))
    const socket = path.join(directory, 'server')
    using shared = new Scratch()
    const silent = createServer(() => {}) // takes connections and says nothing
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const address = silent.address()
    const hanging = shared.config(undefined, {
      device: { backend: { type: 'registry', config: { scheme: 'http', host: `127.0.0.1:${typeof address === 'object' ? address?.port : 0}`, repo: 'x' } }, cache: { type: 'blobcache', config: { work_dir: shared.cache } } },
    })
    const machines: Machine[] = []
    const start = async (index: number): Promise<void> => {
      const scratch = new Scratch()
      const share = path.join(scratch.path, 'fs.sock')
      const config = index === 0 ? hanging : scratch.config()
      const daemon = await startNydusd(scratch, ['--server', socket, '--bootstrap', boot(index), '--config', config], { where: ['virtiofs', '--sock', share] })
      const guest = new TestFrontEnd(share, { memoryBytes: 2 ** 21 })
      machines[index] = { scratch, daemon, guest }
      guest.start()
      if (guest.init().error !== 0) throw new Error('INIT fails')
    }
    try {
      for (let at = 0; at < MACHINES; at += BATCH) await Promise.all(Array.from({ length: Math.min(BATCH, MACHINES - at) }, (_, i) => start(at + i)))
      const waits = machines[0]!.guest
      const load = new GuestLoad(waits, new Map([[fileOf(0).path, Buffer.alloc(65_536)]]), { depth: 4, queue: 1 })
      load.step() // its backend is silent: these wait
      breakQueue(machines[1]!.guest)
      const slowest = readAll(machines)
      const server = serverOn(socket)!
      const total = pssOf(server) + machines.reduce((sum, { daemon }) => sum + pssOf(daemon.pid), 0)
      console.log(`${MACHINES} machines: ${total.toFixed(0)} MiB PSS in all, ${pssOf(server).toFixed(0)} of them the server; the slowest file took ${slowest} ms`)
      expect(total).toBeLessThan(350)
      expect(slowest).toBeLessThan(DELAY_MS)
      expect(load.answered).toBe(0)
      process.kill(server, 'SIGKILL')
      readAll(machines)
      for (const { daemon } of machines) await eventually(() => isRunning(daemon), 'the daemon is back', 30_000)
      expect(serverOn(socket)).not.toBe(server)
    } finally {
      silent.close()
      for (const { guest } of machines) guest[Symbol.dispose]()
      for (const { daemon } of machines) daemon.child.kill('SIGTERM')
      for (const { daemon } of machines) await daemon.ended
      for (const { scratch } of machines) scratch[Symbol.dispose]()
      const server = serverOn(socket)
      if (server !== undefined) process.kill(server, 'SIGKILL')
      rmSync(directory, { recursive: true, force: true })
    }
  })
})

/** A file of every machine but the first two; the longest time that one took, ms. */
function readAll(machines: readonly Machine[]): number {
  return Math.max(...machines.slice(2).map(({ guest }, i) => {
    const began = Date.now()
    const file = fileOf(i + 2)
    if (sha256Of(guest, file.path) !== file.sha256) throw new Error(`machine ${i + 2} reads wrong bytes`)
    return Date.now() - began
  }))
}

/** A chain without an end: the queue is lost, and nobody else's. */
function breakQueue(guest: TestFrontEnd): void {
  const queue = guest.queues[1]!
  queue.writeDescriptor(0, { address: GUEST_BASE, length: 16, flags: 1, next: 0 })
  queue.submit(0)
  native().eventSignal(queue.kick)
}
