// A daemon dies or is replaced under load, and nobody notices: with a supervisor that keeps its connection (SPEC: spec-surface.md B.7).
// STORM_ROUNDS makes the storms longer (scripts/storm.sh).

import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { clock, Readers } from '../support/readers.ts'
import { eventually, pause, Scratch, startNydusd } from '../support/nydusd.ts'
import { GAPS, report, storm, stormImage, Supervised } from '../support/storm.ts'

const ROUNDS = Number(process.env['STORM_ROUNDS'] ?? 10)
const TIMEOUT = 60_000 + ROUNDS * 10_000

describe('failover with a supervisor', () => {
  it.each([['from the cache', true], ['from the backend', false]] as const)('a daemon killed at any moment is continued without an error or a wrong byte, serving %s', async (what, cached) => {
    using scratch = new Scratch()
    const image = stormImage(scratch, { cached })
    await using supervised = await Supervised.start(scratch, image.args)
    const result = await storm(scratch, image, { rounds: ROUNDS, round: async ({ number, freeze }) => await supervised.failover(number % 2 === 0 ? freeze : undefined) })
    report(`failover ${what}`, result, GAPS.kill)
    expect(result.wrong).toEqual([])
    expect(result.inflightKills).toBeGreaterThanOrEqual(Math.floor(ROUNDS / 2))
    expect(result.operations).toBeGreaterThan(ROUNDS * 8)
    expect(Math.max(...result.gaps)).toBeLessThan(20_000)
  }, TIMEOUT)

  it('readers hang without the repetition of requests: a storm would notice', async () => {
    using scratch = new Scratch()
    const image = stormImage(scratch, { cached: false })
    await using supervised = await Supervised.start(scratch, [...image.args, '--failover-policy', 'none'])
    await using readers = await Readers.start({ mount: scratch.mountpoint, copy: image.source, threads: 8, state: path.join(scratch.path, 'readers') })
    let hanging = 0
    for (let attempt = 0; attempt < 10 && hanging === 0; attempt++) { // none may have been read by the daemon at the moment of its death
      await pause(200)
      await supervised.failover()
      await pause(500)
      const before = readers.states()
      await pause(500)
      hanging = readers.states().filter((kind, i) => kind !== 0 && kind === before[i]).length
    }
    const { reads, listings } = readers.inflight()
    expect(reads + listings).toBeGreaterThan(0)
    expect(hanging).toBeGreaterThan(0)
    expect(readers.wrong).toEqual([])
    await supervised[Symbol.asyncDispose]() // the last descriptor goes, and with it the connection: they would hang for ever
  })

  it('nothing but what the supervisor kept is continued: a wrong, damaged, cut or missing state is refused in INIT', async () => {
    using scratch = new Scratch()
    const image = stormImage(scratch, { cached: true })
    await using supervised = await Supervised.start(scratch, image.args)
    await using next = await supervised.startNext()
    for (const [command, code] of [['send-damaged', /cannot be used/], ['send-only 100', /cannot be used/], ['send-only 0', /no descriptor/], ['send-bare', /no descriptor/], ['send-nothing', /no descriptor/]] as const) {
      let answer: { status: number; body: unknown } | undefined
      await supervised.supervisor.expecting(command, async () => { answer = await next.ask('PUT', '/api/v1/daemon/fuse/takeover') })
      expect(answer, command).toMatchObject({ status: 500, body: { message: expect.stringMatching(code) } })
      expect((await next.ask('GET', '/api/v1/daemon')).body).toMatchObject({ state: 'INIT' })
      expect(readdirSync(scratch.mountpoint).length, 'the old one serves on').toBe(6)
    }
    expect((await next.ask('PUT', '/api/v1/daemon/start')).status).toBe(400)
    await supervised.takeOver(next)
    expect((await next.ask('GET', '/api/v1/daemon')).body).toMatchObject({ state: 'READY', backend_collection: { '/': { backend_type: 'Rafs' } } })
    expect((await next.ask('PUT', '/api/v1/daemon/fuse/takeover')).status).toBe(400)
  })

  it('a daemon without a connection or a supervisor has nothing to send', async () => {
    using scratch = new Scratch()
    await using plain = await startNydusd(scratch, [])
    expect((await plain.ask('PUT', '/api/v1/daemon/fuse/sendfd')).status).toBe(400)
    expect((await plain.ask('PUT', '/api/v1/daemon/fuse/takeover')).status).toBe(400)
    using other = new Scratch()
    await using upgraded = await startNydusd(other, ['--id', 'x', '--supervisor', path.join(other.path, 'none'), '--upgrade'], { state: 'INIT' })
    expect((await upgraded.ask('PUT', '/api/v1/daemon/fuse/sendfd')).status).toBe(503)
    expect((await upgraded.ask('PUT', '/api/v1/daemon/fuse/takeover')).body).toMatchObject({ message: expect.stringMatching(/supervisor/) })
  })
})

describe('hot upgrade', () => {
  it('the old daemon goes and the new one continues: listings, open files and names', async () => {
    using scratch = new Scratch()
    const image = stormImage(scratch, { cached: true })
    await using supervised = await Supervised.start(scratch, image.args)
    const result = await storm(scratch, image, { rounds: ROUNDS, round: async () => await supervised.upgrade() })
    report('upgrade', result, GAPS.upgrade)
    expect(result.wrong).toEqual([])
    expect(Math.max(...result.gaps)).toBeLessThan(10_000)
  }, TIMEOUT)

  it('an upgrade in the wrong order is noticed: the old daemon is ended as if nobody followed', async () => {
    using scratch = new Scratch()
    const image = stormImage(scratch, { cached: true })
    await using supervised = await Supervised.start(scratch, image.args)
    await using next = await supervised.startNext()
    await using readers = await Readers.start({ mount: scratch.mountpoint, copy: image.source, threads: 8, state: path.join(scratch.path, 'readers') })
    supervised.daemon.child.kill('SIGTERM') // unmounts
    await supervised.daemon.ended
    await supervised.takeOver(next)
    expect((await next.ask('PUT', '/api/v1/daemon/start')).status).toBe(204)
    await eventually(() => readers.wrong.length > 0, 'a reader has found something wrong')
    next.child.kill('SIGKILL') // the last descriptors go: readers with open files would wait for ever
    await supervised[Symbol.asyncDispose]()
  })

  it('a new daemon that dies, hangs or is ended in INIT or READY leaves the old one serving', async () => {
    using scratch = new Scratch()
    const image = stormImage(scratch, { cached: true })
    await using supervised = await Supervised.start(scratch, image.args)
    for (const [signal, ready] of [['SIGKILL', false], ['SIGKILL', true], ['SIGSTOP', true], ['SIGTERM', true]] as const) {
      await using next = await supervised.startNext()
      if (ready) await supervised.takeOver(next)
      next.child.kill(signal)
      if (signal !== 'SIGSTOP') await next.ended
      const started = clock()
      expect(readdirSync(path.join(scratch.mountpoint, 'directory-1')).length).toBe(10)
      expect(readFileSync(path.join(scratch.mountpoint, 'directory-1/file-1')).equals(readFileSync(path.join(image.source, 'directory-1/file-1')))).toBe(true)
      expect(clock() - started).toBeLessThan(5000)
      next.child.kill('SIGKILL')
      expect(scratch.isMounted(), signal).toBe(true)
    }
  })
})
