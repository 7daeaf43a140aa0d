// nydusd virtiofs --self-heal: a monitor that cannot reconnect, as Debian's QEMU, notices nothing when the server behind its device is killed.
// STORM_ROUNDS makes the storm longer (scripts/storm.sh).

import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { FUSE_OP } from '../../src/wire/fuse/opcode.ts'
import { VHOST_USER } from '../../src/wire/vhost-user/message.ts'
import { ENOENT, GuestLoad, lookup, ROOT } from '../support/guest-files.ts'
import { eventually, pause, type RunningDaemon, Scratch, startNydusd } from '../support/nydusd.ts'
import { killServer, serverOf } from '../support/self-heal.ts'
import { stormImage, Supervised } from '../support/storm.ts'
import { TestFrontEnd } from '../support/vhost-front-end.ts'

const ROUNDS = Number(process.env['STORM_ROUNDS'] ?? 4)
const share = (scratch: Scratch): string => path.join(scratch.path, 'fs.sock')
const where = (scratch: Scratch): readonly string[] => ['virtiofs', '--sock', share(scratch), '--self-heal']

function contentsOf(source: string): ReadonlyMap<string, Buffer> {
  return new Map(readdirSync(source, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name)).map((file) => [path.relative(source, file), readFileSync(file)]))
}

/** Runs the load until `ms` have passed. */
async function run(loads: readonly GuestLoad[], ms: number): Promise<void> {
  for (const end = Date.now() + ms; Date.now() < end; await pause(1)) for (const load of loads) load.step()
}

/** Nothing more is asked, and everything is answered. */
async function answered(loads: readonly GuestLoad[]): Promise<void> {
  await eventually(() => {
    for (const load of loads) load.step({ ask: false })
    return loads.every((load) => load.underWay === 0)
  }, 'everything is answered', 60_000)
}

describe('nydusd virtiofs', () => {
  it('answers every request once when it is killed without a holder, and its monitor connects to the next one with the record of requests', async () => {
    using scratch = new Scratch()
    const { source, args } = stormImage(scratch, { cached: false })
    const start = async (): Promise<RunningDaemon> => await startNydusd(scratch, args, { where: ['virtiofs', '--sock', share(scratch)] })
    let daemon = await start()
    try {
      using guest = new TestFrontEnd(share(scratch), { inflight: true })
      guest.start()
      expect(guest.init().error).toBe(0)
      const load = new GuestLoad(guest, contentsOf(source), { depth: 24, queue: 1 })
      let underWay = 0
      for (let round = 0; round < 2; round++) {
        await run([load], 100)
        daemon.child.kill('SIGKILL')
        await daemon.ended
        load.step()
        underWay += load.underWay
        daemon = await start()
        guest.reconnect()
      }
      await answered([load])
      console.log(`virtiofs: 2 devices killed, ${load.answered} requests, ${underWay} of them under way at a kill`)
      expect(load.wrong).toEqual([])
      expect(underWay).toBeGreaterThan(16)
    } finally {
      await daemon[Symbol.asyncDispose]()
    }
  })
})

describe('nydusd virtiofs under a supervisor', () => {
  it('answers every request of a machine once and rightly while it is killed, continued, and upgraded', async () => {
    using scratch = new Scratch()
    const { source, args } = stormImage(scratch, { cached: false })
    await using supervised = await Supervised.start(scratch, args, { where: ['virtiofs', '--sock', share(scratch)] })
    using guest = new TestFrontEnd(share(scratch), { requestQueues: 2 }) // after the supervisor was given everything: what it keeps must follow
    guest.start()
    expect(guest.init().error).toBe(0)
    const load = new GuestLoad(guest, contentsOf(source), { depth: 24, queue: 1 })
    let underWay = 0
    for (let round = 0; round < 2; round++) {
      await run([load], 100)
      underWay += load.underWay
      await (round % 2 === 0 ? supervised.failover() : supervised.upgrade())
      const base = guest.stopQueue(2)
      guest.startQueue(2, base)
      expect(lookup(guest, 'no such name', ROOT, { queue: 2 }).error).toBe(ENOENT)
    }
    await answered([load])
    console.log(`virtiofs under a supervisor: ${load.answered} requests, ${underWay} of them under way at a kill or an upgrade`)
    expect(load.wrong).toEqual([])
    expect(underWay).toBeGreaterThan(16)
    supervised.daemon.child.kill('SIGTERM')
    expect(await supervised.daemon.ended).toMatchObject({ status: 0 })
    expect(existsSync(share(scratch))).toBe(false)
    expect(() => guest.ask(VHOST_USER.GET_FEATURES)).toThrow() // its connection has ended
  })
})

describe('nydusd virtiofs --self-heal', () => {
  it('answers every request of a machine once and rightly while its server is killed again and again', { timeout: 120_000 + ROUNDS * 5000 }, async () => {
    using scratch = new Scratch()
    const { source, args } = stormImage(scratch, { cached: false })
    await using daemon = await startNydusd(scratch, args, { where: where(scratch) })
    using guest = new TestFrontEnd(share(scratch), { requestQueues: 3 })
    guest.start()
    expect(guest.init().error).toBe(0)
    const contents = contentsOf(source)
    const loads = [1, 2].map((queue) => new GuestLoad(guest, contents, { depth: 16, queue }))
    let underWay = 0
    for (let round = 0; round < ROUNDS; round++) {
      await run(loads, 50 + Math.random() * 150)
      await killServer(daemon, async (server) => {
        if (round % 2 === 1) return
        process.kill(server, 'SIGSTOP')
        await run(loads, 10) // what is asked now is asked of nobody
      }, () => { underWay += loads.reduce((sum, load) => sum + load.underWay, 0) })
      if (round % 3 === 0) expect(lookup(guest, 'no such name', ROOT, { queue: 3 }).error).toBe(-2)
    }
    await answered(loads)
    console.log(`virtiofs: ${ROUNDS} servers killed, ${loads.reduce((sum, load) => sum + load.answered, 0)} requests, ${underWay} of them under way at a kill`)
    expect(loads.flatMap((load) => load.wrong)).toEqual([])
    expect(underWay).toBeGreaterThan(ROUNDS * 8)
  })

  it('carries each message of a monitor out once, whenever its server is killed', { timeout: 120_000 }, async () => {
    using scratch = new Scratch()
    const { args } = stormImage(scratch, { cached: true })
    await using daemon = await startNydusd(scratch, args, { where: where(scratch) })
    for (const memorySlots of [false, true]) { // two machines, one after the other
      using guest = new TestFrontEnd(share(scratch), { memorySlots })
      const deaf = await serverOf(daemon)
      process.kill(deaf, 'SIGSTOP') // it is given the first message, and does not read it
      await using _killer = await killer(deaf, 50)
      guest.start()
      expect(guest.init().error).toBe(0)
      {
        await using _killer = await killer(await serverOf(daemon), memorySlots ? 4 : 0)
        for (let i = 0; i < 20; i++) {
          const base = guest.stopQueue(1)
          expect(base).toBe(guest.queues[1]!.availableIndex)
          guest.startQueue(1, base)
          expect(guest.call(guest.request(FUSE_OP.GETATTR, ROOT, Buffer.alloc(16)), 120).error).toBe(0)
        }
      }
    }
  })
})

/** Kills `pid` after `ms`, while this process may be waiting for an answer. */
async function killer(pid: number, ms: number): Promise<AsyncDisposable> {
  const child = spawn('sh', ['-c', `sleep ${ms / 1000}; kill -9 ${pid}`], { stdio: 'ignore' })
  const closed = new Promise((resolve) => child.once('close', resolve))
  await new Promise((resolve) => child.once('spawn', resolve))
  return { async [Symbol.asyncDispose]() { await closed } }
}
